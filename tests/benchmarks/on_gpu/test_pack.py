"""What travels: its parts, its size, and what is said where something is missing. pip is never asked."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from importlib.metadata import version

import numpy as np
import pytest
from PIL import Image

from benchmarks.on_gpu import pack as module
from benchmarks.on_gpu import site
from benchmarks.on_gpu.pack import TOGETHER, TRACKED, images, pack, tracked_bytes
from tests.refusals import refused
from zoo.data.image_folder import ImageFolder
from zoo.schema.errors import UsageError


def data(folder, count=12, side=128):
    """Nearly smooth images with a split each."""
    folder.mkdir()
    rows, draw, ramp = [], np.random.default_rng(0), np.linspace(0, 200, side)
    for i in range(count):
        smooth = np.stack([np.add.outer(ramp, ramp) / 2, np.full((side, side), 15.0 * i), np.tile(ramp, (side, 1))], 2)
        pixels = smooth + draw.integers(0, 6, smooth.shape)  # which a PNG keeps, and WebP doesn't
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{i}.png")
        split = ("train", "val", "test")[i % 3]
        rows.append({"file_name": f"{i}.png", "text": f"word {i}", "concept": f"c{i}", "split": split})
    (folder / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return str(folder)


@pytest.fixture
def no_pip(monkeypatch):
    """Packages are one module, built without pip."""

    def build(target):
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("mine.py", "x = 1")
        return site.Built({"mine": "1.0"}, 2**20, ["other is missing and what needs it will be skipped there: why"])

    monkeypatch.setattr(site, "build", build)


def test_a_pack_has_everything_and_says_how_large_it_is(tmp_path, no_pip, capsys):
    start = tmp_path / "start"
    start.mkdir()
    (start / "some.yaml").write_text("schema: zoo.card/1")
    (start / "some.safetensors").write_bytes(b"x" * 1000)
    parts = pack(tmp_path / "pack", data=data(tmp_path / "d"), start=str(start), try_imports=False)
    names = [part.name for part in parts]
    assert names == ["site.zip", "start/", "emoji.zip", "run.sh"]
    out = capsys.readouterr().out
    assert "other is missing" in out
    assert "together" in out
    for part in parts:
        assert part.bytes > 0
        assert part.name in out
    assert (tmp_path / "pack" / "start" / "some.safetensors").read_bytes() == b"x" * 1000
    script = (tmp_path / "pack" / "run.sh").read_text()
    assert '--data "$here/emoji.zip" --start "$here/start"' in script
    assert subprocess.run(["sh", "-n"], input=script, text=True).returncode == 0


def test_the_script_runs_the_command_with_the_archive_on_the_path(tmp_path, no_pip):
    pack(tmp_path / "pack", try_imports=False)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "on_gpu.py").write_text("import mine, sys; print(mine.x, sys.argv[1:])")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").symlink_to(sys.executable)
    done = subprocess.run(
        ["sh", "pack/run.sh", "OUT", "3", "--device", "cpu"], capture_output=True, text=True, cwd=tmp_path,
        env={"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "TMPDIR": str(tmp_path)},
    )  # fmt: skip
    assert done.stdout.strip() == "1 ['--minutes', '3', '--out', 'OUT', '--device', 'cpu']", done.stderr


def test_without_data_it_says_what_that_costs(tmp_path, no_pip, capsys):
    pack(tmp_path / "pack", try_imports=False)
    assert "nothing is judged or trained" in capsys.readouterr().out
    assert "--data" not in (tmp_path / "pack" / "run.sh").read_text()


def test_images_that_fit_travel_byte_for_byte_and_the_metadata_whole(tmp_path):
    path = data(tmp_path / "d")
    part = images(path, tmp_path / "e.zip", room=2**30)
    assert "8 images of train and val, 4 of other splits left out, bytes as they were" in part.what
    with zipfile.ZipFile(tmp_path / "e.zip") as archive:
        assert archive.read("0.png") == (tmp_path / "d" / "0.png").read_bytes()
        assert "2.png" not in archive.namelist()
        assert len(archive.read("metadata.jsonl").splitlines()) == 12
    for split in ("train", "val"):
        kept, first = (ImageFolder(path=str(p), split=split, size=64) for p in (tmp_path / "e.zip", path))
        assert np.array_equal(kept.images(), first.images())


def test_images_that_do_not_fit_are_encoded_anew_and_it_says_how_far_they_are(tmp_path):
    path = data(tmp_path / "d")
    whole = images(path, tmp_path / "whole.zip", room=2**30).bytes
    part = images(path, tmp_path / "small.zip", room=whole // 2)
    assert part.bytes <= whole // 2
    assert "WebP of quality" in part.what
    told = float(part.what.partition("PSNR ")[2].partition(" dB")[0])
    kept, first = (ImageFolder(path=str(p), split="train", size=128) for p in (tmp_path / "small.zip", path))
    apart = [a.astype(float) - b.astype(float) for a, b in zip(kept.images(), first.images(), strict=True)]
    assert told == pytest.approx(np.mean([10 * np.log10(255**2 / np.square(a).mean()) for a in apart]), abs=3.0)
    assert 25.0 < told < 60.0


def test_more_than_can_travel_is_refused_in_a_sentence(tmp_path, no_pip, monkeypatch):
    monkeypatch.setattr(module, "tracked_bytes", lambda: TOGETHER)
    with refused("pack-too-large", UsageError, naming="60.0"):
        pack(tmp_path / "pack", try_imports=False)


def test_a_folder_that_holds_something_is_left_alone(tmp_path, no_pip):
    (tmp_path / "own").write_text("x")
    with refused("output-taken"):
        pack(tmp_path, try_imports=False)
    assert (tmp_path / "own").read_text() == "x"


def test_the_tracked_files_leave_room_for_a_pack():
    assert 0 < tracked_bytes() <= TRACKED


def wheel(path, names):
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            archive.writestr(name, "pass")
    return path


def test_of_a_wheel_the_parts_travel_that_are_imported(tmp_path, monkeypatch):
    names = (
        "diffusers/__init__.py", "diffusers/models/unets/unet_2d.py", "diffusers/pipelines/__init__.py",
        "diffusers/pipelines/pipeline_utils.py", "diffusers/pipelines/flux/pipeline_flux.py",
        "diffusers/pipelines/stable_diffusion/pipeline_stable_diffusion.py", "diffusers-1.0.dist-info/METADATA",
        "diffusers-1.0.dist-info/RECORD", "diffusers-1.0.dist-info/licenses/LICENSE",
    )  # fmt: skip
    made = wheel(tmp_path / "diffusers-1.0-py3-none-any.whl", names)
    monkeypatch.setattr(
        site, "download", lambda name, folder: (made, "") if name == "diffusers" else (None, "no network")
    )
    built = site.build(tmp_path / "site.zip")
    with zipfile.ZipFile(tmp_path / "site.zip") as archive:
        assert set(archive.namelist()) == set(names) - {
            "diffusers/pipelines/flux/pipeline_flux.py",
            "diffusers-1.0.dist-info/RECORD",
        }
    assert built.packages == {"diffusers": "1.0"}
    assert [sentence.partition(" ")[0] for sentence in built.missing] == [
        "open_clip_torch", "ftfy", "wcwidth", "torch-fidelity",
    ]  # fmt: skip
    assert all("no network" in sentence for sentence in built.missing)


def test_pip_that_finds_nothing_is_a_sentence_without_where_it_looked(tmp_path, monkeypatch):
    asked = []

    def run(words, **_):
        asked.append(words)
        return subprocess.CompletedProcess(words, 1, "", "Looking in indexes: somewhere\nERROR: none")

    monkeypatch.setattr(subprocess, "run", run)
    found, reason = site.download("ftfy", tmp_path)
    assert found is None
    assert "somewhere" not in reason
    assert "is there a network?" in reason
    assert asked[0][-1] == f"ftfy=={version('ftfy')}"
    assert asked[0][asked[0].index("--python-version") + 1] == site.PYTHON


@pytest.mark.slow
def test_what_a_bare_machine_lacks_is_hidden_while_the_archive_is_tried(tmp_path):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("mine/__init__.py", "import numpy, yaml")
    (tmp_path / "site.zip").write_bytes(file.getvalue())
    import diffusers  # noqa: F401  (it is installed here)

    assert site.imports(tmp_path / "site.zip", ("import mine", "import zoo.config")) == []
    (said,) = site.imports(tmp_path / "site.zip", ("import mine", "import diffusers"))
    assert said == "`import diffusers` fails with the archive alone: ModuleNotFoundError: No module named 'diffusers'"
