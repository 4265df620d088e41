"""Whatever `zoo generate` refuses it refuses before any weight file is opened: opened files are counted."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from PIL import Image

from tests.refusals import refused
from zoo.schema.errors import UsageError

REFUSED = [
    ["sun", "--image", "none.png"], ["sun", "--image", "text.png"], ["sun", "--image", "."],
    ["sun", "--model", "latent-text2img", "--image", "in.png", "--mask", "none.png"],
    ["sun", "--model", "latent-text2img", "--image", "in.png", "--mask", "black.png"],
    ["sun", "--model", "latent-text2img", "--image", "in.png", "--mask", "wide.png"],
    ["sun", "--model", "latent-text2img", "--mask", "in.png"],
    ["sun", "--image", "in.png", "--strength", "0"], ["sun", "--image", "in.png", "--strength", "1e-9"],
    ["sun", "--strength", "0.5"], ["sun", "--seed", "-1"], ["sun", "--seed", str(2**64)], ["sun", "-n", str(10**12)],
    ["sun", "--size", "30"], ["sun", "--size", str(2**20)], ["sun", "--size", "8x8x8"], ["sun", "--label", "5"],
    ["sun", "--device", "cuda:99"], ["sun", "--dtype", "int4"], ["sun", "--guidance", "1e30"],
    ["--model", "class2img", "--label", "99"], ["--model", "class2img", "--label", "nothing of the kind"],
    ["--model", "class2img", "sun"], ["--model", "upscale-2x"],
    ["--model", "upscale-2x", "--image", "in.png", "--strength", "0.5"],
]  # fmt: skip
ACCEPTED = ["--model", "class2img", "--label", "objects", "--steps", "1"]
COUNTED = """
import json, os, sys
opened = []
def seen(event, arguments):
    if event == "open" and str(arguments[0]).endswith(".safetensors"):
        opened.append(arguments[0])
sys.addaudithook(seen)
from zoo.cli.main import run
found = []
for words in json.loads(sys.argv[1]):
    opened.clear()
    found.append((run(["generate", *words, "-o", "out/"]), len(opened)))
print(json.dumps(found))
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (64, 64), "white").save("in.png")
    Image.new("L", (64, 64)).save("black.png")
    Image.new("L", (64, 32), 255).save("wide.png")
    (tmp_path / "text.png").write_text("no image")
    return tmp_path


def test_nothing_is_read_for_what_is_refused(here):
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, json.dumps([*REFUSED, ACCEPTED])], capture_output=True, text=True, check=True
    )
    *refused, accepted = json.loads(done.stdout.splitlines()[-1])
    assert [words for words, (code, opened) in zip(REFUSED, refused, strict=True) if code != 2 or opened] == []
    assert "unexpected" not in done.stderr
    assert [file.name for file in (here / "out").iterdir()] == ["0000.png"]
    assert accepted[0] == 0
    assert accepted[1] > 0  # or the count is blind


def test_python_can_refuse_before_weights_too(monkeypatch):
    import zoo.assemble

    reads = []
    monkeypatch.setattr(zoo.assemble, "read_verified", lambda *a, **k: reads.append(a) or pytest.fail("read"))
    with refused("file-missing", UsageError, naming="none.png"):
        zoo.build("latent-text2img", before_weights=lambda pipe: pipe.check("sun", image="none.png"))
    assert not reads


def test_a_stage_that_cannot_be_built_is_refused_before_weights(monkeypatch):
    import zoo.assemble

    monkeypatch.setattr(zoo.assemble, "read_verified", lambda *a, **k: pytest.fail("read"))
    with pytest.raises(UsageError):
        zoo.build("latent-text2img", device="cuda:99")


EARLY = [
    ["sun", "--seed", "-1"], ["sun", "--seed", str(2**64)], ["sun", "--size", "100"], ["sun", "--size", "30"],
    ["sun", "--model", "latent-text2img", "--size", "100"], ["sun", "--size", "8x8x8"], ["sun", "--size", "1000000"],
    ["sun", "--image", "none.png"], ["sun", "--image", "text.png"], ["sun", "-n", "0"], ["sun", "--steps", "x"],
    ["sun", "--model", "latent-text2img", "--image", "in.png", "--mask", "none.png"], ["sun", "--steps", "100000"],
]  # fmt: skip
IMPORTED = """
import json, sys
from zoo.cli.main import run
found = [(run(["generate", *words, "-o", "out/"]), "torch" in sys.modules) for words in json.loads(sys.argv[1])]
print(json.dumps(found))
"""


def test_arguments_are_refused_before_torch_is_imported(here):
    done = subprocess.run(
        [sys.executable, "-c", IMPORTED, json.dumps(EARLY)], capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout.splitlines()[-1])
    assert {str(words): pair for words, pair in zip(EARLY, found, strict=True) if pair != [2, False]} == {}
    assert "note:" not in done.stderr, "a note on a size that is then refused"
