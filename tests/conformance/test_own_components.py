"""zoo's own components keep what is asked of a plugin's: being listed is being tested.

Whoever adds one that can't be made with its defaults, or is large, gives a small one's arguments in `SMALL`; the
samplers are held in tests/samplers/test_contract.py.
"""

import pytest
import torch
from torch import nn

from zoo.conformance import CHECKS, examine
from zoo.diffusion.schedules import LinearSchedule
from zoo.guidance.classifier_free import ClassifierFree
from zoo.guidance.interval import LimitedInterval
from zoo.schema.registry import read_registry_file, registry_file


class Towards(nn.Module):
    """A classifier of flat samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(18, 3)

    def forward(self, x, time):
        return self.layer(x.flatten(1))


UNET = {
    "in_channels": 4, "out_channels": 4, "width": 8, "mult": (1, 2), "blocks": 1, "attention_levels": (1,), "heads": 2,
    "context_width": 16, "groups": 4,
}  # fmt: skip
SMALL = {
    "conditioner/clip-image": {
        "schedule": "cosine", "width": 16, "heads": 2, "layers": 1, "embed_dim": 8, "image_size": 16, "patch": 8,
    },
    "network/unet": UNET,
    "network/efficient-unet": {
        "in_channels": 6, "out_channels": 3, "width": 8, "mult": (1, 2), "blocks": (1, 1), "groups": 4,
        "context_width": 16, "classes": 3, "vector_width": 6, "level": True, "text_levels": (1,),
        "attention_levels": (1,), "head_width": 8,
    },
    "network/song-unet": {
        "width": 8, "mult": (1, 2), "blocks": 1, "resolution": 8, "embedding": "fourier", "noise_mult": 2,
        "encoder": "residual", "decoder": "skip", "resample_filter": (1, 3, 3, 1), "classes": 3,
    },
    "network/classifier": {
        "classes": 3, "size": 8, "width": 8, "mult": (1, 2), "blocks": 1, "groups": 4, "attention_levels": (1,),
        "head_width": 8,
    },
    "autoencoder/kl": {"z_channels": 4, "width": 8, "mult": (1, 2, 2), "blocks": 1, "groups": 4},
    "autoencoder/vq": {"z_channels": 4, "width": 8, "mult": (1, 2, 2), "blocks": 1, "groups": 4, "codes": 32},
    "conditioner/clip-text": {"width": 16, "heads": 2, "layers": 1, "embed_dim": 8},
    "conditioner/open-clip": {"model": "RN50-quickgelu"},
    "conditioner/class-label": {"names": ("cat", "dog")},
    "schedule/tabulated": {"table": [0.1, 0.3, 0.2, 0.9]},
    "schedule/zero-terminal-snr": {"schedule": LinearSchedule()},
    "grid/sections": {"sections": "ddim10"},
    "guidance/limited-interval": {"guidance": ClassifierFree()},
    "guidance/classifier": {"classifier": Towards()},
    "guidance/rescale": {"space": "x0"},
    "guidance/mask": {"x0": torch.zeros(1, 2, 3, 3), "known": torch.eye(3)},
    "metric/kid": {"subsets": 3, "size": 20},
    "extractor/random": {"width": 4, "size": 16, "layers": 2},
}  # fmt: skip
OTHERWISE = {
    "guidance/autoguidance": "it wants a second denoiser under the scene's own schedule; tests/guidance has one",
    "guidance/posterior": "it wants a measured picture; tests/guidance has one",
    "network/clip": "it is trained on pairs and denoises nothing",
    "extractor/clip": "its weights are a card's",
    "extractor/inception-2015": "its weights are published and not shipped",
    "extractor/dinov2": "its weights are published and not shipped",
    "extractor/timm": "its weights are published and not shipped",
    "extractor/openclip": "its weights are published and not shipped",
}
ENTRIES = {
    e.key: e
    for e in read_registry_file(registry_file())
    if e.kind in CHECKS and e.kind != "sampler" and e.key not in OTHERWISE
}


@pytest.mark.slow
@pytest.mark.parametrize("key", ENTRIES)
def test_it_keeps_what_its_kind_promises(key):
    entry = ENTRIES[key]
    report = examine(entry.kind, entry.load(), name=entry.name, **SMALL.get(key, {}))
    assert report.ok, report
    assert len(report.outcomes) == 1 + len(CHECKS[entry.kind])


def test_no_exception_outlives_its_component():
    known = {e.key for e in read_registry_file(registry_file())}
    assert SMALL.keys() | OTHERWISE.keys() <= known


def test_a_unet_of_classes_and_levels_keeps_them_too():
    from zoo.networks.unet import UNet

    arguments = {**UNET, "context_width": None, "attention": "plain", "classes": 3, "level": True, "patch": 2}
    report = examine("network", UNet, **arguments)
    assert report.ok, report
    assert next(o.said for o in report.outcomes if o.check == "listens") == "time, label, level"


def test_guidance_does_nothing_at_its_neutral_strength(monkeypatch):
    monkeypatch.setattr(ClassifierFree, "neutral", {"scale": 1.0}, raising=False)
    monkeypatch.setattr(LimitedInterval, "neutral", {"low": 1e6}, raising=False)
    for guidance, arguments in ((ClassifierFree, {}), (LimitedInterval, {"guidance": ClassifierFree()})):
        outcome = examine("guidance", guidance, **arguments).outcomes[-1]
        assert (outcome.check, outcome.state) == ("neutral", "passed"), outcome
    monkeypatch.setattr(ClassifierFree, "neutral", {"scale": 2.0}, raising=False)
    assert [o.check for o in examine("guidance", ClassifierFree).failed] == ["neutral"]
