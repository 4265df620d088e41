"""The cascade doctor: what it compares, and that it finds the stage that was spoilt."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_cascade, tiny_pipeline
from zoo.data.image_folder import ImageFolder
from zoo.diffusion.types import Prediction
from zoo.evaluation.cascade_doctor import examine


class Means:
    """Features that are the picture, 4x4 small."""

    def images(self, pictures, *, batch=64):
        return F.interpolate(pictures.float() / 255, (4, 4), mode="area").flatten(1)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    rows = []
    for i in range(16):
        pixels = np.kron(rng.integers(0, 255, (4, 4, 3)), np.ones((8, 8, 1))).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        rows.append({"file_name": f"{i}.png", "text": f"cat {i}", "split": "test", "group": "animals"})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(r) for r in rows))
    return ImageFolder(path=str(folder), split="test", size=32)


def look(pipe, data, **changes):
    settings = {"count": 8, "levels": (0.0, 0.3), **changes}
    return examine(pipe, data, extractor=Means(), extractor_name="means", extractor_sha256="0" * 64, **settings)


@pytest.fixture(scope="module")
def report(data):
    return look(tiny_cascade(steps=2), data)


def test_losses_of_the_stages_sum_to_the_distance_of_the_whole(report):
    assert sum(s.lost for s in report.stages) == pytest.approx(report.total)
    assert report.key == "fd[means@00000000]@8"
    assert report.stages[-1].fd_generated == pytest.approx(report.total, rel=1e-3)
    assert report.stages[-1].lost == pytest.approx(report.stages[-1].fd_true)


def test_what_applies_is_measured_and_the_rest_is_none(report):
    base, middle, last = report.stages
    assert (base.name, base.size, base.psnr, base.fd_true, base.sweep) == ("s8", 8, None, None, ())
    assert (middle.low_res, middle.size, last.low_res, last.size) == (8, 16, 16, 32)
    for stage in (middle, last):
        assert stage.level == 0.2
        assert [at.level for at in stage.sweep] == [0.0, 0.3]
        assert stage.sweep[0].psnr != stage.sweep[1].psnr
        assert None not in (stage.psnr, stage.psnr_bicubic, stage.fd_true, stage.fd_generated, stage.floor)
    json.dumps(report.to_dict())


def test_the_sheet_has_the_truth_and_every_stage(report):
    assert report.columns == ("true", "s8", "s16", "s32", "s16 from true", "s32 from true")
    assert report.picture.dtype == torch.uint8
    assert tuple(report.picture.shape) == (3, 8 * 34 - 2, 6 * 34 - 2)


class Enlarger:
    """Guidance that makes a stage perfect: x0 is the small picture, enlarged; or spoils it."""

    def __init__(self, *, shift=0.0):
        self.shift = shift

    def wrap(self, denoise, *, denoiser, cond, null, table):
        return lambda x, step: Prediction(x0=cond.concat + self.shift)


def test_the_spoilt_stage_is_found(data):
    blame = {}
    for spoilt in (1, 2):
        pipe = tiny_cascade(augmentation=None, steps=1)
        pipe.stages = [
            replace(stage, guidance=(Enlarger(shift=0.7 if i == spoilt else 0.0),)) if i else stage
            for i, stage in enumerate(pipe.stages)
        ]
        found = look(pipe, data, levels=())
        blame[spoilt] = [s.lost for s in found.stages]
        healthy = found.stages[3 - spoilt]
        assert healthy.psnr > found.stages[spoilt].psnr + 3.0
    assert blame[1][1] > 5 * abs(blame[1][2])
    assert blame[2][2] > 5 * abs(blame[2][1])


def test_a_perfect_stage_is_as_good_as_bilinear_enlargement(data):
    pipe = tiny_cascade(augmentation=None, steps=1)
    pipe.stages = [pipe.stages[0], replace(pipe.stages[1], guidance=(Enlarger(),)), pipe.stages[2]]
    stage = look(pipe, data, levels=()).stages[1]
    assert stage.psnr == pytest.approx(stage.psnr_bicubic, abs=2.0)


def test_a_truncated_stage_is_measured_where_the_one_below_stops(data):
    pipe = tiny_cascade(sizes=(16, 32), augmentation=None, steps=3)
    pipe.stages = [replace(pipe.stages[0], interval=(1.0, 0.34)), pipe.stages[1]]
    assert look(pipe, data, levels=()).stages[1].level == 0.34


def test_an_upscaler_alone_has_nothing_generated(data):
    found = look(tiny_cascade(steps=1).stage(2), data)
    (stage,) = found.stages
    assert stage.fd_generated is None
    assert [at.fd_generated for at in stage.sweep] == [None, None]
    assert stage.lost == pytest.approx(stage.fd_true)


def test_what_cannot_be_examined_is_told(data):
    with refused("cascade-unfit"):
        look(tiny_pipeline(), data)
    with refused("count-out-of-range", naming="16"):
        look(tiny_cascade(), data, count=17)
    with refused("image-sizes-differ", naming="size 32 and the last stage 16"):
        look(tiny_cascade(sizes=(8, 16)), data)


def test_without_spare_pictures_there_is_no_floor(data):
    assert look(tiny_cascade(steps=1), data, count=9, levels=()).stages[0].floor is None
