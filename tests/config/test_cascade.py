"""Stages of a cascade, class labels and classifiers that fit pass; others are refused, with parts and mend."""

import pytest

from tests.config import toys
from tests.config.toys import pipeline, stage
from tests.refusals import refused
from zoo.config.check import resolve
from zoo.schema.errors import ConfigError

NET = {"schedule": "scheme", "parameterization": "velocity"}
PIXELS = {"network": {"name": "net", "in_channels": 3}, **NET}
NOISY = {"name": "gaussian", "schedule": "scheme"}


def upper(**changes):
    """A super-resolution stage."""
    low_res = changes.pop("low_res", NOISY)
    denoiser = {"network": {"name": "net", "in_channels": 6}, "low_res": low_res, **NET}
    return stage(**{"name": "up", "size": 64, "autoencoder": "identity", "denoiser": denoiser, **changes})


def base(**changes):
    return stage(**{"size": 32, "feeds": "low_res", "autoencoder": "identity", "denoiser": PIXELS, **changes})


STOPS = {"interval": [1.0, 0.1]}
GOOD = {
    "a cascade": pipeline(base(), upper(augmentation=0.2)),
    "a cascade of three": pipeline(base(), upper(feeds="low_res"), upper(name="top", size=128)),
    "truncated": pipeline(base(**STOPS), upper()),
    "truncated, with the schedule's defaults said": pipeline(
        base(**STOPS), upper(low_res={"name": "gaussian", "schedule": {"name": "scheme", "steps": 100}})
    ),
    "without noise": pipeline(base(), upper(low_res="plain")),
    "an upscaler alone": pipeline(upper()),
    "a latent below": pipeline(stage(feeds="low_res"), upper(size=128)),
}


@pytest.mark.parametrize("config", GOOD.values(), ids=GOOD.keys())
def test_a_cascade_that_fits_passes(components, config):
    resolve(config, components=components)


def test_augmentation_is_written_out_where_given_and_can_be_overridden(components):
    config = pipeline(base(), upper(augmentation=0.2))
    assert "augmentation" not in resolve(config, components=components).config["stages"][0]
    for path, level in (("stages.1.augmentation", 0.3), ("stages.up.augmentation", 0.0)):
        changed = resolve(config, [f"{path}={level}"], components=components).config
        assert changed["stages"][1]["augmentation"] == level


LOUD = {"name": "gaussian", "schedule": {"name": "scheme", "steps": 50}}
BAD = {
    "nothing smaller": (
        pipeline(base(), stage(name="b", denoiser=PIXELS, autoencoder="identity")), "low-res-unread"
    ),
    "nobody feeds": (pipeline(base(feeds="image"), upper()), "low-res-missing: base"),
    "the last feeds": (pipeline(base(), upper(feeds="low_res")), "stages-unmatched"),
    "augmentation of nothing": (pipeline(base(augmentation=0.1), upper()), "augmentation-unread: base"),
    "augmentation without a level": (pipeline(base(), upper(low_res="plain", augmentation=0.1)),
     "augmentation-untrained: plain"),
    "level above 1": (pipeline(base(), upper(augmentation=1.5)), "augmentation-out-of-range: stages.1.augmentation"),
    "level below 0": (pipeline(base(), upper(augmentation=-0.1)), "augmentation-out-of-range: -0.1"),
    "level of text": (pipeline(base(), upper(augmentation="much")), "augmentation-out-of-range: much"),
    "level of true": (pipeline(base(), upper(augmentation=True)), "augmentation-out-of-range"),
    "not enlarged": (pipeline(base(size=64), upper()), "low-res-size-unfit: up"),
    "channels": (
        pipeline(base(), upper(denoiser={**PIXELS, "low_res": NOISY})),
        "channels-unfit",
    ),
    "starts from an image": (pipeline(base(feeds="image"), upper(takes="image")), "low-res-start-unfit"),
    "truncated and augmented": (pipeline(base(**STOPS), upper(augmentation=0.1)), "interval-unfit: 0.1"),
    "truncated and plain": (pipeline(base(**STOPS), upper(low_res="plain")), "interval-untrained: plain"),
    "truncated and noised after": (
        pipeline(base(**STOPS), upper(low_res={**NOISY, "noised": "after"})), "interval-untrained"
    ),
    "truncated and another schedule": (
        pipeline(base(**STOPS), upper(low_res=LOUD)), "interval-untrained: scheme"
    ),
    "truncated latents": (pipeline(stage(feeds="low_res", **STOPS), upper(size=128)), "interval-untrained"),
    "unknown low_res": (pipeline(base(), upper(low_res="gausian")), "component-unknown: gausian"),
    "low_res without a schedule": (pipeline(base(), upper(low_res="gaussian")), "argument-missing: gaussian"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize(("config", "said"), BAD.values(), ids=BAD.keys())
def test_a_wrong_cascade_is_refused_by_one_sentence(components, config, said):
    with refused(said, ConfigError) as error:
        resolve(config, components=components)
    assert "\n" not in str(error.value)


def told(level, **changes):
    """A super-resolution stage whose network says whether it is told the level."""
    low_res = changes.pop("low_res", NOISY)
    denoiser = {"network": {"name": "net", "in_channels": 6, "level": level}, "low_res": low_res, **NET}
    return upper(denoiser=denoiser, **changes)


def test_a_network_is_told_the_level_where_there_is_one(components):
    resolve(pipeline(base(), told(True, augmentation=0.1)), components=components)
    resolve(pipeline(base(), told(False)), components=components)
    for config, refusal in (
        (pipeline(base(), told(False, augmentation=0.1)), "augmentation-untrained"),
        (pipeline(base(**STOPS), told(False)), "interval-untrained"),
        (pipeline(base(), told(True, low_res="plain")), "level-missing"),
    ):
        with refused(refusal, ConfigError):
            resolve(config, components=components)


def card(folder, sees=NOISY, **contract):
    denoiser = {**NET, **({"low_res": sees} if sees else {})}
    name = toys.write_card(
        folder, "sr", "network", "net", config={"in_channels": 6}, denoiser=denoiser, contract=contract
    )
    return {"weights": name}


def test_a_card_says_how_small_its_pictures_were(components, tmp_path):
    fits = card(tmp_path, low_res=32, size=64)
    resolve(pipeline(base(), upper(denoiser=fits)), components=components)
    resolve(pipeline(upper(denoiser=fits)), components=components)
    with refused("low-res-size-unfit", naming="'base'"):
        resolve(pipeline(base(size=16), upper(denoiser=fits)), components=components)
    with refused("low-res-size-unfit", naming="128"):
        resolve(pipeline(base(), upper(size=128, denoiser=fits)), components=components)


def test_a_card_that_hides_how_a_small_picture_is_seen_is_refused(components, tmp_path):
    with refused("low-res-unstated"):
        resolve(pipeline(upper(denoiser=card(tmp_path, None, low_res=32, size=64))), components=components)


def labelled(network=None, conditioner=None, **changes):
    """A stage that hears class labels."""
    net = {"name": "net", "in_channels": 3, "context_width": None, "classes": 2, "null_class": True, **(network or {})}
    heard = {"name": "labels", "names": ["a", "b"], **(conditioner or {})}
    one = stage(autoencoder="identity", denoiser={"network": net, **NET}, **changes)
    return pipeline(one, conditioners={"words": heard})


def test_labels_that_fit_pass(components):
    resolve(labelled(), components=components)
    resolve(labelled({"null_class": False}, {"null_class": False}, guidance=[]), components=components)


@pytest.mark.parametrize(
    ("config", "refusal"),
    [
        (labelled(conditioner={"names": ["a"]}), "classes-unfit: 'words'"),
        (labelled({"null_class": False}), "null-class-unfit"),
        (labelled({"null_class": False}, {"null_class": False}), "null-condition-missing"),
        (labelled(guidance=[{"name": "classifier", "classifier": "x"}]), "guide-missing"),
        (labelled(guidance=[{"name": "classifier", "classifier": {"weights": "x"}}]), "weights-unknown: 'x'"),
        (
            pipeline(stage(guidance=[{"name": "classifier", "classifier": {"weights": "x"}}])),
            "conditioner-missing",
        ),
    ],
)
def test_labels_that_do_not_fit_are_refused(components, config, refusal):
    with refused(refusal, ConfigError):
        resolve(config, components=components)


def guided(folder, **changes):
    changes = {"denoiser": None, **changes}
    judge = toys.write_card(folder, "judge", "network", "net", **changes)
    return labelled(guidance=[{"name": "classifier", "scale": 2.0, "classifier": {"weights": judge}}])


@pytest.mark.parametrize(
    "changes",
    [
        {"contract": {"classes": 2, "names": ["a", "b"], "in_channels": 3, "size": 64}},
        {"contract": {"in_channels": 3, "schedule": "scheme", "time_input": "index"}},
        {"contract": {"in_channels": 3}, "denoiser": {**NET, "schedule": {"name": "scheme", "steps": 100}}},
    ],
)
def test_a_classifier_that_fits_passes(components, tmp_path, changes):
    resolve(guided(tmp_path, **changes), components=components)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"contract": {"classes": 3}}, "classes-unfit: 'words'"),
        ({"contract": {"classes": 2, "names": ["a", "c"]}}, "classes-unfit: 'judge'"),
        ({"contract": {"in_channels": 4}}, "channels-unfit: takes"),
        ({"contract": {"in_channels": 3, "size": 32}}, "size-untrained: 'net'"),
        ({"contract": {"in_channels": 3}, "denoiser": {**NET, "schedule": {"name": "scheme", "steps": 50}}},
         "schedule-unfit"),
        ({"contract": {"in_channels": 3, "schedule": {"name": "scheme", "steps": 50}}}, "schedule-unfit"),
        ({"contract": {"in_channels": 3, "time_input": "sigma"}}, "time-input-unfit: 'sigma'"),
    ],
)  # fmt: skip
def test_a_classifier_that_does_not_fit_is_refused(components, tmp_path, changes, refusal):
    with refused(refusal, ConfigError):
        resolve(guided(tmp_path, **changes), components=components)
