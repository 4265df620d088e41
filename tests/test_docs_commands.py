"""Commands of the documentation that need something of the reader's: each is run with what a reader would have.

Words in capitals are replaced, and a command runs up to where images would be drawn, weights trained or gigabytes
rewritten. Commands of other programs name modules, options and extras that there are; what is shown as printed is
what is printed.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from tests.families.test_explain import averaged, sdxl
from tests.test_docs import PAGES, ROOT, blocks, commands, heard, lines_of, with_capitals  # noqa: F401  a fixture
from tests.weight_files import sparse, stable_diffusion_1
from zoo.cli import main as command_line
from zoo.families.key_lists import key_lists

# Where a command leads that takes long, by its verb: what is called there.
ENDS = {
    "evaluate": "zoo.evaluation.comparison.evaluate", "reproduce": "zoo.evaluation.reproduction.reproduce",
    "convert": "zoo.families.stable_diffusion.convert.convert", "bench": "zoo.bench.run.run_suite",
    "plugin": "zoo.conformance.examine_package",
}  # fmt: skip
NAMES = {
    "evaluate": "cascade-text2img", "reproduce": "cascade-text2img", "doctor": "cascade-text2img", "plugin": "package",
    "generate": "own", "train": "own", "bench": "record", "prompts": "own",
}  # fmt: skip
# Programs that aren't zoo's, in the documentation for what they always do.
PROGRAMS = ("python3 -m venv", ". .venv/bin/activate", "ruff", "pyright", "pytest", "cp -r", "sh PATH/run.sh")
_PROGRAM = re.compile(r"(python3?|torchrun|pip|pytest|pyright|ruff|git|cp|sh|\.|make|mkdocs|curl|export|cd|rm|mv)( |$)")


class Reached(Exception):
    """A command came to where it would take long."""


@pytest.fixture
def reader(tmp_path, heard, monkeypatch):  # noqa: F811
    """A folder with what the pages speak of; a command ends where it would take long, with its verb in `heard`."""
    (tmp_path / "data").mkdir()
    rows = []
    for i, split in enumerate(("train", "train", "train", "val", "test", "test")):
        Image.new("RGB", (128, 128), (40 * i, 90, 200)).save(tmp_path / "data" / f"{i}.png")
        row = {"file_name": f"{i}.png", "text": f"apple number {i}, flat style", "split": split, "group": "food-drink"}
        rows.append(json.dumps(row))
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join(rows))
    Image.new("RGB", (64, 64), "orange").save(tmp_path / "small.png")
    save_file({"emb_params": torch.zeros(1, 768)}, tmp_path / "charturner.safetensors")
    (tmp_path / "mine.yaml").write_text(next(b.values[0] for b in blocks("yaml") if "zoo.suite/1" in b.values[0]))
    for verb, place in ENDS.items():

        def stop(*words: Any, verb: str = verb, **named: Any) -> None:
            heard.append((verb, words, named))
            raise Reached

        monkeypatch.setattr(place, stop)
    none = {"seconds": None, "rows": {}, "reasons": {}, "reason": "not timed"}
    monkeypatch.setattr("zoo.bench.estimate.estimate", lambda *_, **__: none)
    monkeypatch.setattr("zoo.evaluation.requirements.needs", lambda *_, **__: [])
    package = SimpleNamespace(keys=("network/mlp-mixer",))
    monkeypatch.setattr("zoo.schema.registry.find_plugin", lambda name: package)
    return tmp_path


def filled(command: str, folder: Path) -> list[str]:
    """The words of a command with what the reader has in the place of capitals."""
    verb = command.split()[1]
    path, new = folder / "data", folder / "made"
    of_model = verb in ("generate", "check", "plan") and "PATH" in command
    if verb in ("explain", "convert") or of_model or "--weights PATH" in command:
        path = sparse(folder / "sd.safetensors", sdxl() if "sdxl" in command else stable_diffusion_1())
    if verb == "convert" and command.split()[2] == "FOLDER":  # and back
        path, new = new.with_suffix(".safetensors"), path
    if verb == "report":
        path = ROOT / "benchmarks/results/generate.json"
    replaced = {
        "PATH": path, "FOLDER": path if verb == "new" else new, "N": 8, "D": 4, "PROMPT": "apple",
        "NAME": "upscale-2x" if "--image" in command else NAMES.get(verb, "x"),
    }  # fmt: skip
    words = shlex.split(with_capitals.sub(lambda m: str(replaced[m[0]]), command))[1:]
    words = [str(folder / "data") if word == "COCO" else word for word in words]
    own = ("charturner.safetensors", "small.png", "drawn/", "reference.npz", "shards/", "mine.yaml")
    own += ("own.yaml", "own-draw.yaml")
    return [str(folder / word) if word in own else word for word in words]


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if with_capitals.search(c)])
def test_a_command_runs_with_what_the_reader_has(command, reader, heard, capsys, monkeypatch):  # noqa: F811
    words = filled(command, reader)
    if words[0] == "train" and "NAME.yaml" in command:  # by a line before
        assert command_line.run(["new", "text2img", str(reader / "data"), "--name", "own", "-o", str(reader)]) == 0
    if words[0] in ("generate", "prompts") and "NAME-draw.yaml" in command:  # that trained one: tests/cli/test_new.py
        preset = (ROOT / "zoo/presets/latent-text2img.yaml").read_text(encoding="utf-8")
        (reader / "own-draw.yaml").write_text(preset, encoding="utf-8")
        words = [str(reader / "own-draw.yaml") if word.endswith("-draw.yaml") else word for word in words]
    elif words[0] == "generate" and "runs/" in command:
        words = [re.sub(r"runs/\S+", str(ROOT / "zoo/weights/emoji-base-32.yaml"), word) for word in words]
    if words[0] in ("new", "report"):  # they write into the folder that they run in
        monkeypatch.chdir(reader)
    code = command_line.run(words)
    said = capsys.readouterr()
    if "--dry-run" in words or words[0] in ("new", "report", "explain", "check", "data", "prompts"):
        assert code == 0, said.err
    else:
        end = {"generate": "build", "doctor": "build", "plan": "build"}.get(words[0], words[0])
        assert [verb for verb, *_ in heard] == [end], said.err


def test_a_wrong_command_with_capitals_would_be_seen(reader, heard):  # noqa: F811
    for wrong in ("zoo evaluate NAME PATH:test --metrics fod", "zoo bench nothing --data PATH", "zoo report PATH -x"):
        assert command_line.run(filled(wrong, reader)) == 2
    assert heard == []


# -- other programs


def others() -> list[str]:
    """Every other command of a fenced or indented block of commands."""
    found: dict[str, None] = {}
    for page in PAGES:
        for line in lines_of(page):
            if not line.startswith("zoo ") and _PROGRAM.match(line):
                found[line.partition("  #")[0].strip()] = None
    return list(found)


MODULES = [re.sub(r"^python (?=[\w/]+\.py)", "python -m ", c) for c in others()]
MODULES = [c for c in MODULES if " -m " in f" {c}" and not c.startswith(("python3 -m venv", "torchrun"))]


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted({c.split(" -m ")[1].split()[0] for c in MODULES}))
def test_a_module_has_the_options_that_it_is_called_with(module):
    start = [module] if module.endswith(".py") else ["-m", module]
    done = subprocess.run([sys.executable, *start, "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    known = set(re.findall(r"(?<![\w-])(--?[a-z][\w-]*)", done.stdout))
    for command in MODULES:
        if command.split(" -m ")[1].split()[0] == module:
            asked = {w.partition("=")[0] for w in shlex.split(command.split(" -m ")[1]) if w.startswith("-")}
            assert asked <= known, command


@pytest.mark.parametrize("command", [c for c in others() if c.startswith("pip install")])
def test_what_is_installed_can_be(command):
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = set(re.findall(r"\[(\w+)\]", command))
    assert named <= set(extras)
    assert named or re.fullmatch(r"pip install (\.|torch torchvision --index-url \S+|[\w-]+==[\d.]+)", command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", [c for p in PAGES for c in re.findall(r"torchrun [^`\n]*-m zoo[^`\n]*", p.read_text())]
)
def test_torchrun_leaves_zoos_options_to_zoo(command, reader, heard):  # noqa: F811
    from torch.distributed.run import get_args_parser

    found = get_args_parser().parse_args(shlex.split(command)[1:])
    assert (found.module, found.training_script) == (True, "zoo.cli.main")
    command_line.run(filled(shlex.join(["zoo", *found.training_script_args]), reader))
    assert [verb for verb, *_ in heard] == [found.training_script_args[0]]


@pytest.mark.slow
@pytest.mark.parametrize(("verb", "named"), [("train", {"--run": "--folder"}), ("evaluate", {"--n": "-n"})])
def test_an_option_that_torchrun_swallows_has_another_name(verb, named, capsys):
    """It reads abbreviations of its own options wherever they stand: `--run` could be `--run-path`."""
    from torch.distributed.run import get_args_parser

    def swallowed(option: str) -> bool:
        try:
            found = get_args_parser().parse_args(["-m", "zoo", verb, "x", option, "y"])
        except SystemExit:
            return True
        return found.training_script_args != [verb, "x", option, "y"]

    assert {option for option in options_of(verb) if swallowed(option)} == set(named)
    for option in named.values():
        assert option in options_of(verb)
        assert not swallowed(option)
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    assert all(f"`{option}`" in page for option in named.values())


def options_of(verb: str) -> set[str]:
    """The options of a verb, by its signature."""
    from typer.main import get_command

    group: Any = get_command(command_line.make_app((verb,)))
    return {option for p in group.commands[verb].params for option in p.opts}


def test_all_other_commands_are_known():
    known = ("python -m ", "python recipes/", "torchrun ", "pip install", *PROGRAMS)
    assert [c for c in others() if not c.startswith(known)] == []


# -- what is shown as printed


def lora(rank: int) -> dict[str, tuple[int, ...]]:
    """Of every attention of SDXL's U-Net, in kohya's spelling."""
    found = {}
    for name, shape in key_lists()["sdxl_unet/sd_xl_base"].items():
        if re.search(r"attn\d\.to_(q|k|v|out\.0)\.weight$", name):
            module = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
            found |= {f"{module}.alpha": (), f"{module}.lora_down.weight": (rank, shape[1])}
            found[f"{module}.lora_up.weight"] = (shape[0], rank)
    return found


def merge() -> dict[str, tuple[int, ...]]:
    """A checkpoint that lacks tensors, and has one more and one of another shape."""
    shapes = stable_diffusion_1()
    for name in ("norm.bias", "norm.weight", "proj_in.weight"):
        del shapes[f"model.diffusion_model.output_blocks.11.1.{name}"]
    shapes["model.diffusion_model.time_embed.0.weight"] = (1280, 640)
    return {**shapes, "cond_stage_model.transformer.text_model.extra": (4,)}


def test_what_explain_prints_is_what_the_page_shows(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    whole = stable_diffusion_1()
    metadata = {"ss_base_model_version": "sdxl_base_v1-0", "ss_network_dim": "16"}
    files = [
        sparse(tmp_path / "v1-5-pruned.safetensors", {**whole, **averaged(whole), "alphas_cumprod": (1000,)}),
        sparse(tmp_path / "merge.safetensors", merge()),
        sparse(tmp_path / "style.safetensors", lora(16), metadata=metadata),
    ]
    shown = [b.values[0] for b in blocks("text") if "docs/explain.md" in str(b.id)]
    assert len(shown) == len(files)
    for file, text in zip(files, shown, strict=True):
        assert command_line.run(["explain", file.name]) == 0
        assert capsys.readouterr().out.strip().splitlines() == text.strip().splitlines()
