"""`hf:org/name@revision` is read from huggingface_hub's cache, as that library lays it out; no test uses a network."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import zoo
from tests.families.test_stable_diffusion import NOISE
from tests.families.written import stable_diffusion
from tests.refusals import refused
from zoo.config import hub

COMMITS = {"main": "a" * 40, "v1.0": "b" * 40}
PROMPT = "a red apple on a table"


def lay_out(cache, folders):
    """A cache with a repository org/name: blobs by their hash, snapshots of links to them, refs to commits."""
    place = cache / "models--org--name"
    for part in ("blobs", "refs", "snapshots"):
        (place / part).mkdir(parents=True)
    for revision, folder in folders.items():
        (place / "refs" / revision).write_text(COMMITS[revision])
        for file in (f for f in folder.rglob("*") if f.is_file()):
            blob = place / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
            blob.write_bytes(file.read_bytes())
            link = place / "snapshots" / COMMITS[revision] / file.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """A cache of two revisions of a model that diffusers wrote, and their folders."""
    folders = {}
    for revision, scale in (("main", 0.18215), ("v1.0", 0.2)):
        folders[revision] = tmp_path_factory.mktemp(revision)
        stable_diffusion(vae={"scaling_factor": scale}).save_pretrained(folders[revision])
    cache = tmp_path_factory.mktemp("cache") / "hub"
    lay_out(cache, folders)
    return cache, folders


@pytest.fixture
def offline(cached, monkeypatch):
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cached[0]))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return cached[1]


@pytest.mark.peer
@pytest.mark.slow
def test_a_name_on_the_hub_draws_what_its_folder_draws(offline):
    def drawn(name, **more):
        pipe = zoo.load(name, **more)
        return pipe, pipe(PROMPT, noise=NOISE, steps=2).tensor

    pipe, main = drawn("hf:org/name")
    assert torch.equal(main, drawn(offline["main"])[1])
    assert pipe.record["config"]["name"] == "name"
    assert COMMITS["main"] in next(iter(pipe.record["weights"]))
    for revision in ("v1.0", COMMITS["v1.0"]):
        other = drawn(f"hf:org/name@{revision}")[1]
        assert torch.equal(other, drawn(offline["v1.0"])[1])
        assert not torch.equal(other, main)
    named = zoo.build("sd-1.5", weights="hf:org/name@v1.0")
    assert torch.equal(named(PROMPT, noise=NOISE, steps=2, size=32).tensor, other)
    file = "hf:org/name/vae/diffusion_pytorch_model.safetensors@v1.0"
    assert torch.equal(drawn("hf:org/name", autoencoder=file)[1], main)  # the model's scale, and the same weights


@pytest.mark.peer
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["hf:org/other", "hf:org/name@v2.0", "hf:org/name@" + "c" * 40, "hf:org/name/vae/absent.safetensors"]
)
def test_what_the_cache_lacks_is_said_and_nothing_is_fetched(name, offline, monkeypatch):
    monkeypatch.setattr("socket.socket.connect", lambda *given: pytest.fail("something was fetched"))
    with refused("hub-unavailable", naming="HF_HUB_OFFLINE is set and it isn't in"):
        zoo.load(name)


@pytest.mark.peer
@pytest.mark.slow
def test_the_command_line_obeys_the_environment(cached):
    root = Path(zoo.__file__).parents[1]
    environment = {**os.environ, "HF_HOME": str(cached[0].parent), "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(root)}
    environment.pop("HF_HUB_CACHE", None)
    for name, status in (("hf:org/name@v1.0", 0), ("hf:org/other", 1)):
        command = [sys.executable, "-m", "zoo", "explain", name]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == status, done.stderr
        assert ("vae" in done.stdout) == (status == 0)
        assert ("HF_HUB_OFFLINE is set" in done.stderr) == (status != 0)


@pytest.mark.parametrize("name", ["hf:", "hf:name", "hf:org/name@", "hf:org/../name", "hf:org/name/../x"])
def test_other_names_are_refused(name):
    with refused("hub-name-invalid", naming="hf:org/name@revision"):
        hub.on_disk(name)


def test_of_a_repository_its_safetensors_are_fetched_whole_before_half():
    listed = [
        "model_index.json", "README.md", "big.safetensors", "unet/config.json", "tokenizer/merges.txt",
        "unet/diffusion_pytorch_model.safetensors", "unet/diffusion_pytorch_model.fp16.safetensors",
        "unet/diffusion_pytorch_model.non_ema.safetensors", "unet/diffusion_pytorch_model.bin",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]  # fmt: skip
    assert hub.wanted(listed) == [
        "model_index.json", "tokenizer/merges.txt", "unet/config.json", "unet/diffusion_pytorch_model.safetensors",
        "vae/diffusion_pytorch_model.fp16.safetensors",
    ]  # fmt: skip
