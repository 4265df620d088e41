"""Figures show the numbers they say they show, in files that are whole and the same each time."""

from __future__ import annotations

import subprocess
import sys

import matplotlib
import numpy as np
import pytest
import torch
from PIL import Image

from tests.refusals import refused
from tests.tiny import tiny_cascade, tiny_pipeline
from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, ZeroTerminalSNR
from zoo.inspection.plots.grids import plot_grids
from zoo.inspection.plots.noising import plot_noising
from zoo.inspection.plots.schedules import plot_schedules
from zoo.inspection.plots.style import DPI, check_output, plain, save
from zoo.inspection.plots.trajectory import plot_trajectory, watch
from zoo.samplers.grid import Karras, Linspace, Trailing
from zoo.schema.errors import UsageError, ZooError

SCHEDULES = {"cosine": CosineSchedule(), "flow": FlowSchedule(), "zero": ZeroTerminalSNR(schedule=LinearSchedule())}


def words(figure):
    return [t.get_text() for t in figure.texts]


def pictures(figure):
    return [np.asarray(axes.images[0].get_array()) for axes in figure.axes if axes.images]


def test_the_curves_of_a_schedule_are_its_numbers():
    panels = plot_schedules(SCHEDULES).axes
    for number, schedule in enumerate(SCHEDULES.values()):
        t = panels[0].lines[number].get_xdata()
        alpha, sigma = schedule(t)
        assert (t[0], t[-1]) == (0.0, 1.0)
        assert np.array_equal(panels[0].lines[number].get_ydata(), alpha)
        assert np.array_equal(panels[1].lines[number].get_ydata(), sigma)
        drawn = panels[2].lines[number].get_ydata()
        shown = np.isfinite(drawn)
        assert shown.sum() > 900
        assert np.allclose(np.exp(drawn[shown]), (alpha[shown] / sigma[shown]) ** 2, rtol=1e-9)
    colours = [line.get_color() for line in panels[0].lines]
    assert len(set(colours)) == 3
    assert all(name in words(panels[0].figure) for name in SCHEDULES)


def test_exploding_noise_is_drawn_on_a_logarithmic_scale():
    assert plot_schedules({"edm": EDMSchedule()}).axes[1].get_yscale() == "log"
    assert plot_schedules(SCHEDULES).axes[1].get_yscale() == "linear"


def test_a_noised_picture_is_alpha_x0_plus_sigma_eps():
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    figure = plot_noising(image, {"linear": LinearSchedule(), "edm": EDMSchedule()}, columns=3, size=16, seed=5)
    shown = pictures(figure)
    assert len(shown) == 6
    eps = AddressedNoise(5)((3, 16, 16), purpose="start", samples=[0])[0].numpy()
    assert np.allclose(shown[0], image.permute(1, 2, 0), atol=1e-6)
    alpha, sigma = LinearSchedule()(0.5)
    expected = (np.clip(alpha * (image.numpy() * 2 - 1) + sigma * eps, -1, 1) + 1) / 2
    assert np.allclose(shown[1].transpose(2, 0, 1), expected, atol=1e-6)
    # Exploding variance is drawn at unit variance: at the end it is the noise itself.
    assert np.allclose(shown[5].transpose(2, 0, 1), (np.clip(eps, -1, 1) + 1) / 2, atol=0.02)
    assert {"t = 0", "t = 0.5", "t = 1", "clean"} <= set(words(figure))


def test_a_picture_is_drawn_at_whole_dots_a_pixel(tmp_path):
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    figure = plot_noising(image, {"linear": LinearSchedule()}, columns=2, size=16)
    drawn = np.asarray(Image.open(save(figure, tmp_path / "n.png"))).astype(int)
    place = figure.axes[0].get_position()
    left, top = place.x0 * drawn.shape[1], (1.0 - place.y1) * drawn.shape[0]
    assert abs(left - round(left)) < 1e-6
    zoom, wanted = round(0.8 * DPI / 16), (image.permute(1, 2, 0) * 255).round().numpy().astype(int)
    enlarged = wanted.repeat(zoom, 0).repeat(zoom, 1)
    cut = drawn[round(top) :, round(left) :][: len(enlarged), : len(enlarged)]
    inside = slice(2 * zoom, -2 * zoom)  # a hairline is drawn along the edge
    assert np.abs(cut - enlarged)[inside, inside].max() <= 1


def test_nodes_of_a_grid_lie_at_their_log_snr():
    schedule = LinearSchedule()
    figure = plot_grids({"trailing": Trailing(), "karras": Karras()}, schedule, steps=6, name="linear")
    dots = [c.get_offsets().data for c in figure.axes[0].collections]
    for row, grid in enumerate((Trailing(), Karras())):
        alpha, sigma = schedule(grid(schedule, 6))
        assert np.allclose(dots[row][:, 0], 2 * np.log(alpha / sigma))
        assert set(dots[row][:, 1]) == {row}
    assert "Where 6 steps ask the network, on linear" in words(figure)


def test_pure_noise_is_a_mark_of_its_own_at_the_edge():
    zero = SCHEDULES["zero"]
    figure = plot_grids({"trailing": Trailing(), "linspace": Linspace()}, zero, steps=5)
    sizes = [len(c.get_offsets()) for c in figure.axes[0].collections]
    assert sizes == [4, 1, 4, 1]
    assert any("pure noise" in w for w in words(figure))
    assert len(plot_grids({"trailing": Trailing()}, zero, steps=1).axes[0].collections[0].get_offsets()) == 0


def test_a_trajectory_shows_what_the_callback_saw():
    pipe = tiny_pipeline(steps=5)
    seen = {}
    made = pipe("cat", seed=2, callback=lambda p: seen.__setitem__(p.step, p.x0.clone()))
    found = watch(pipe, "cat", seed=2, columns=3)
    frames, total = found.stages["base"]
    assert (total, [f.step for f in frames]) == (5, [1, 3, 5])
    decoded = pipe.stages[0].autoencoder.decode(seen[3])[0] * 0.5 + 0.5
    assert np.allclose(frames[1].x0, decoded.clamp(0, 1).permute(1, 2, 0).numpy(), atol=1e-6)
    assert np.array_equal(found.result, made.tensor[0].permute(1, 2, 0).numpy())
    figure = plot_trajectory(found)
    assert len(pictures(figure)) == 7
    assert {"step 1 of 5", "step 3", "step 5", "the picture"} <= set(words(figure))
    assert "How “cat” is drawn" in words(figure)


def test_every_stage_of_a_cascade_has_its_rows():
    figure = plot_trajectory(watch(tiny_cascade(sizes=(8, 16), steps=2), "cat", columns=4))
    shown = [p.shape[0] for p in pictures(figure)]
    assert shown == [8, 8, 8, 8, 16, 16, 16, 16, 16]
    assert {"s8", "s16"} <= set(words(figure))


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_a_figure_is_the_same_file_each_time_and_settings_stay(tmp_path, suffix):
    before = dict(matplotlib.rcParams)
    files = [save(plot_schedules(SCHEDULES), tmp_path / "new" / f"{i}{suffix}") for i in range(2)]
    assert files[0].read_bytes() == files[1].read_bytes()
    assert dict(matplotlib.rcParams) == before
    assert sorted(p.name for p in files[0].parent.iterdir()) == [f"0{suffix}", f"1{suffix}"]
    if suffix == ".png":
        assert files[0].stat().st_size < 150_000


def test_what_cannot_be_drawn_is_refused_in_a_sentence(tmp_path):
    with refused("output-format-unknown", UsageError):
        check_output("a.gif")
    with refused("plot-subject-missing", UsageError):
        plot_noising(torch.zeros(3, 8, 8), SCHEDULES, columns=1, size=8)
    with refused("plot-subject-missing", UsageError):
        plot_schedules({})
    with refused("columns-too-few", UsageError):
        watch(tiny_pipeline(), "cat", columns=1)
    (tmp_path / "file").write_text("")
    with refused("output-unwritable", ZooError):
        save(plot_schedules(SCHEDULES), tmp_path / "file" / "a.png")


@pytest.mark.slow
def test_words_from_outside_are_no_mathematics(tmp_path):
    assert plain("a$b$") == r"a\$b\$"
    assert len(plain("x" * 500)) == 60
    save(plot_schedules({r"$\frac{$": CosineSchedule()}), tmp_path / "a.png")


@pytest.mark.slow
def test_schedules_are_drawn_without_torch(tmp_path):
    code = (
        "import sys; from zoo.cli.main import run; "
        f"assert run(['plot', 'schedule', 'cosine', '-o', r'{tmp_path / 'a.png'}']) == 0; "
        "assert not {'torch', 'matplotlib.pyplot'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
