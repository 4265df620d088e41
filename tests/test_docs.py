"""The documentation against the code: links lead somewhere, commands parse, names exist, examples do what is said."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import inspect
import json
import pkgutil
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import zoo
from zoo.bench.suite import read_suite
from zoo.cli import main as command_line
from zoo.config.cards import KEYS as CARD_KEYS
from zoo.config.cards import read_card
from zoo.config.presets import KEYS as PIPELINE_KEYS
from zoo.diffusion.schedules import CosineSchedule
from zoo.diffusion.types import Prediction
from zoo.pipeline.generation import Generation
from zoo.pipeline.pipeline import Pipeline
from zoo.samplers.ddim import DDIM
from zoo.schema.registry import registry
from zoo.schema.safe_yaml import parse_yaml
from zoo.training.engine.settings import TrainSettings
from zoo.training.recipe import KEYS as RECIPE_KEYS
from zoo.training.recipe import read_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted(
    p
    for p in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("recipes/**/*.md"), *ROOT.glob("benchmarks/*.md"))
    if not p.name.startswith(".")
)
RUN_WHOLE = ("fid.md", "loras.md")  # by tests/test_docs_blocks.py, with what their reader has
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(?<!`)\[[^\]]*\]\(([^)#\s]+)(#[^)]*)?\)")
# Words in capitals are what a reader puts there: tests/test_docs_commands.py runs these.
with_capitals = re.compile(r"\b(PATH|NAME|FOLDER|PROMPT|N|D)\b")


def blocks(language: str) -> list[Any]:
    """Every fenced block of a language, by page."""
    found = []
    for page in PAGES:
        inside = [text for name, text in _FENCED.findall(page.read_text(encoding="utf-8")) if name == language]
        found += [pytest.param(text, id=f"{page.relative_to(ROOT)}-{i}") for i, text in enumerate(inside)]
    return found


def lines_of(page: Path) -> list[str]:
    """Every command of a page's fenced and indented blocks; a line that ends in a backslash goes on in the next."""
    text = page.read_text(encoding="utf-8")
    inside = "\n".join(block for name, block in _FENCED.findall(text) if name in ("", "sh"))
    inside += "\n".join(line[4:] for line in _FENCED.sub("", text).splitlines() if line.startswith("    "))
    lines = [part.strip() for line in inside.replace("\\\n", " ").splitlines() for part in line.split("&&")]
    return [re.sub(r"^([A-Z_]+=\S+ |nice -n \d+ )*", "", line) for line in lines]


def commands() -> list[str]:
    """Every `zoo ...` command line, but for those of pages that are run whole."""
    lines = (line for page in PAGES if page.name not in RUN_WHOLE for line in lines_of(page))
    return list(dict.fromkeys(line for line in lines if line.startswith("zoo ")))


@pytest.fixture
def heard(monkeypatch):
    """Lets commands run up to where pictures would be drawn or weights trained; returns what was asked there."""
    calls: list[tuple[str, tuple, dict]] = []

    class Reached(Exception):
        pass

    def stop(name):
        def reached(*words, **named):
            calls.append((name, words, named))
            raise Reached

        return reached

    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(zoo, "build", stop("build"))
    monkeypatch.setattr(zoo, "train", stop("train"))
    return calls


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_to_files(page):
    targets = [link for link, _ in _LINK.findall(_FENCED.sub("", page.read_text(encoding="utf-8")))]
    lost = [t for t in targets if not t.startswith(("http:", "https:")) and not (page.parent / t).exists()]
    assert not lost, f"{page.relative_to(ROOT)} links to {lost}"


def test_every_page_can_be_found_from_the_index():
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    assert [p.name for p in (ROOT / "docs").glob("*.md") if p.name != "index.md" and f"({p.name})" not in index] == []


def test_there_are_commands_to_check():
    assert len(commands()) > 30


@pytest.mark.slow
@pytest.mark.parametrize("command", [c for c in commands() if not with_capitals.search(c)])
def test_commands_are_understood(command, heard, capsys, tmp_path, monkeypatch):
    words = shlex.split(command)[1:]
    if "mine.yaml" in words:  # the config of docs/extending.md, which another test checks
        mine = next(b.values[0] for b in blocks("yaml") if "zoo.pipeline/1" in b.values[0])
        (tmp_path / "mine.yaml").write_text(mine)
        words = [str(tmp_path / "mine.yaml") if w == "mine.yaml" else w for w in words]
    if words[0] in ("diff", "replay", "plot"):  # they read pictures of the reader's and write their own
        words = [str(readers_picture(tmp_path / w)) if w.endswith((".png", ".svg")) else w for w in words]
    if words[0] == "generate":
        drawn = {i + 1 for i, w in enumerate(words) if w in ("--from", "--model", "--image", "--mask")}
        given = [i in drawn and w.endswith(".png") for i, w in enumerate(words)]
        words = [str(readers_picture(tmp_path / w)) if g else w for w, g in zip(words, given, strict=True)]
    if words[0] == "report":  # it writes what it is asked for; not into the checkout
        words = [str(tmp_path / w) if w.endswith(".html") else w for w in words]
        words = [str(readers_run(tmp_path / w.partition("*")[0] / "one")) if "*" in w else w for w in words]
        words += [] if any(w.endswith(".html") for w in words) else ["-o", str(tmp_path / "report.html")]
    if words[0] == "bench":  # how long a suite takes is timed
        none = {"seconds": None, "rows": {}, "reasons": {}, "reason": "not timed"}
        monkeypatch.setattr("zoo.bench.estimate.estimate", lambda *_, **__: none)
    if words[0] == "replay" or words[:2] == ["plot", "trajectory"]:
        command_line.run(words)
        assert [name for name, _, _ in heard] == ["build"], capsys.readouterr().err
        return
    code = command_line.run(words)
    said = capsys.readouterr()
    if "--exit-code" in words:
        assert code in (0, 1), said.err
    elif words[0] in ("generate", "export", "train", "plan"):
        assert [name for name, _, _ in heard] == ["train" if words[0] == "train" else "build"], said.err
    else:
        assert code == 0, said.err
    if words[0] == "train":
        _, (recipe,), named = heard[0]
        assert read_recipe(recipe, registry(), named["overrides"]).name


def readers_picture(path: Path) -> Path:
    """A picture as `zoo generate` would have written it, with a record."""
    config = zoo.check("latent-text2img")
    record = {
        "schema": "zoo.generation/1", "config": config, "seed": 0, "noise": "AddressedNoise", "device": "cpu",
        "weights": {"emoji-latent-64": read_card("emoji-latent-64").sha256}, "inputs": {}, "dtype": "float32",
        "stages": [{"name": "base", "evaluations": 30}], "images": [{"prompt": "x", "negative": "", "sample": 0}],
    }  # fmt: skip
    picture = torch.zeros(1, 3, 64, 64)
    if path.suffix == ".png":
        Generation(samples=picture, drawn=picture, record=record).save(path)
    return path


def readers_run(folder: Path) -> Path:
    """A run of `zoo train` that was just begun."""
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps({"schema": "zoo.run/1", "recipe": {"train": {"steps": 9}}}))
    return folder


def test_a_wrong_command_would_be_seen(heard):
    assert command_line.run(["generate", "x", "--sampler", "nothing"]) == 2
    assert command_line.run(["generate", "x", "--nothing"]) == 2
    assert heard == []


def literal(node: ast.expr) -> Any:
    """The value of a literal; None where it is none."""
    try:
        return ast.literal_eval(node)
    except ValueError:
        return None


@pytest.mark.parametrize("snippet", blocks("python"))
def test_python_examples_name_what_there_is(snippet):
    asked = set(inspect.signature(Pipeline.__call__).parameters)
    for node in ast.walk(ast.parse(snippet)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zoo"):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names), ast.unparse(node)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "zoo":
            assert node.attr in zoo.__all__, ast.unparse(node)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        named = {k.arg: literal(k.value) for k in node.keywords}
        of_a_file = "weights" in named  # nobody has it here
        known = isinstance(literal(node.args[0]), str) if node.args else False
        if called == "zoo.build" and known and named.get("sampler") != "my-sampler" and not of_a_file:
            zoo.check(literal(node.args[0]), named.pop("overrides", None), **named)
        if called == "pipe":
            assert set(named) <= asked, ast.unparse(node)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_examples_have_known_keys(text):
    value = parse_yaml(text, source="the example")
    schema = value.get("schema")
    if schema == "zoo.pipeline/1":
        zoo.check(value)
    elif schema == "zoo.suite/1":
        assert read_suite(value).rows
    else:  # without a schema it is a part of a pipeline
        known = {None: PIPELINE_KEYS, "zoo.card/1": CARD_KEYS, "zoo.recipe/1": RECIPE_KEYS}[schema]
        assert set(value) <= set(known)


@pytest.mark.parametrize("text", blocks("json"))
def test_json_examples_are_json(text):
    for line in text.splitlines():
        json.loads(line)


def test_the_sampler_that_the_documentation_adds_works(tmp_path, monkeypatch):
    """Euler's method in sigma / alpha is DDIM; so the example can be held against it."""
    diff = next(b.values[0] for b in blocks("diff") if "samplers/straight.py" in b.values[0])
    new, _, registered = diff.partition("--- a/registry.yaml")
    source = "\n".join(line[1:] for line in new.splitlines() if line.startswith("+") and not line.startswith("+++"))
    (tmp_path / "straight_of_the_documentation.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = importlib.import_module("straight_of_the_documentation")
    added = [line[1:].strip() for line in registered.splitlines() if line.startswith("+") and "+++" not in line]
    assert added == ["straight: zoo.samplers.straight:Straight"]

    def denoise(x, step):
        return Prediction(x0=torch.tanh(x) * step.alpha)

    x = torch.randn(2, 3, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    drawn = []
    for sampler in (module.Straight(steps=7), DDIM(steps=7)):
        drawn.append(sampler(denoise, sampler.plan(CosineSchedule()), x, noise=lambda *_: torch.zeros_like(x)))
    torch.testing.assert_close(drawn[0], drawn[1], atol=1e-10, rtol=1e-10)


def test_the_diff_of_the_documentation_applies(tmp_path):
    """To the registry as it is; moved lines are found by those around them, as by whoever applies it."""
    (tmp_path / "zoo" / "samplers").mkdir(parents=True)
    registered = (ROOT / "registry.yaml").read_text()
    (tmp_path / "registry.yaml").write_text(registered)
    (tmp_path / "documented.diff").write_text(next(b.values[0] for b in blocks("diff")))
    done = subprocess.run(["git", "apply", "documented.diff"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    added = set((tmp_path / "registry.yaml").read_text().splitlines()) - set(registered.splitlines())
    assert added == {"  straight: zoo.samplers.straight:Straight"}
    compile((tmp_path / "zoo" / "samplers" / "straight.py").read_text(), "straight.py", "exec")


def test_every_key_of_training_is_explained():
    """A row of the table for each, with its default."""
    page = (ROOT / "docs" / "training.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", page.partition("## The engine")[2], re.MULTILINE))
    for field in dataclasses.fields(TrainSettings):
        assert field.name in rows, f"docs/training.md doesn't explain train.{field.name}"
        said = rows[field.name].strip().strip("`")
        default = None if field.default is dataclasses.MISSING else field.default
        expected = {True: "true", False: "false"}[default] if isinstance(default, bool) else default
        shown = list(expected) if isinstance(expected, tuple) else expected
        assert said == ("" if shown is None else f"{shown:g}" if isinstance(shown, float) else str(shown)), field.name
    block = page.partition("## The engine")[2].partition("## Objectives")[0]
    keys = set(re.findall(r"^\| `(\w+)` \|", block, re.MULTILINE))
    assert keys == {field.name for field in dataclasses.fields(TrainSettings)}


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and MkDocs make it."""
    plain = re.sub(r"[`*_]|\[([^\]]*)\]\([^)]*\)", lambda m: m[1] or "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    """Every anchor of a page."""
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    return {slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_anchors_lead_to_headings(page):
    text = _FENCED.sub("", page.read_text(encoding="utf-8"))
    lost = []
    for file, anchor in re.findall(r"(?<!`)\[[^\]]*\]\(([^)#\s]*)#([^)\s]+)\)", text):
        if file.startswith(("http:", "https:")):
            continue
        target = page if not file else page.parent / file
        if target.suffix == ".md" and anchor not in anchors(target):
            lost.append(f"{file}#{anchor}")
    assert lost == []


def test_the_readme_is_one_screen():
    """At 50 rows of 120 columns a screen and a bit; tables and measurements have their pages, but for what it costs."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 70
    assert [line for line in lines if "<!-- table" in line] == ["<!-- table: first-picture-line -->"]


def test_every_verb_has_its_page():
    page = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    assert [verb for verb in command_line.VERBS if f"zoo {verb}" not in page] == []


def test_nothing_documented_names_a_machine():
    """Paths of whoever wrote it have no business in text that others paste."""
    files = [
        *PAGES,
        *ROOT.glob("NOTICE"),
        *ROOT.glob("requirements.lock"),
        ROOT / ".ci" / "run",
        ROOT / "pyproject.toml",
    ]
    own = re.compile(r"(?<![\w.])/(home|root|Users|work|tmp|opt)/\w")
    assert [f.name for f in files if own.search(f.read_text(encoding="utf-8"))] == []


# -- pages that are run as they are written


def parts_in_order(page: Path) -> list[tuple[str, str]]:
    """The `zoo` commands and Python blocks of a page, in order, without what only a reader can fill in."""
    found = []
    for language, block in _FENCED.findall(page.read_text(encoding="utf-8")):
        if language == "python":
            found.append(("python", block))
        elif language == "sh":
            lines = [part.strip() for line in block.splitlines() for part in line.split("&&")]
            found += [("zoo", ln) for ln in lines if ln.startswith("zoo ") and not with_capitals.search(ln)]
    return found


@pytest.mark.parametrize("name", ["README.md", "docs/tutorial.md", "docs/python.md"])
def test_the_first_pages_run_as_written(name, tmp_path, monkeypatch, capsys):
    """Every line, one after another, in a folder of the reader's; only the samplers take fewer steps."""
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (80, 60), "orange").save("photo.png")
    mask = Image.new("L", (80, 60))
    mask.paste(255, (0, 0, 40, 60))
    mask.save("white-where-new.png")
    whole = zoo.build

    def quick(config: Any, **named: Any) -> Any:
        return whole(config, **{**named, "steps": 2})

    monkeypatch.setattr(zoo, "build", quick)
    space: dict[str, Any] = {}
    run = parts_in_order(ROOT / name)
    assert run
    for kind, text in run:
        if kind == "python":
            exec(compile(text, name, "exec"), space)
        else:
            assert command_line.run(shlex.split(text)[1:]) == 0, f"{text}: {capsys.readouterr().err}"


def test_the_site_has_every_page():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("nav:")[2]
    assert {page.name for page in (ROOT / "docs").glob("*.md")} == set(re.findall(r"[\w-]+\.md", nav))


def test_the_site_has_what_its_pages_link():
    """Links to files that aren't in it become text (docs/site_links.py)."""
    excluded = parse_yaml((ROOT / "mkdocs.yml").read_text(encoding="utf-8"), source="mkdocs.yml")[
        "exclude_docs"
    ].split()
    spec = importlib.util.spec_from_file_location("site_links", ROOT / "docs" / "site_links.py")
    assert spec is not None
    assert spec.loader is not None
    hook = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hook)
    for page in (ROOT / "docs").glob("*.md"):
        left = hook.on_page_markdown(_FENCED.sub("", page.read_text(encoding="utf-8")))
        for target, _ in _LINK.findall(left):
            if not target.startswith(("http:", "https:")):
                assert not target.startswith(("..", *excluded)), f"{page.name}: {target}"
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_texts_of_the_licences_are_whole():
    """Each ends as its licence ends, and every one that NOTICE names is there."""
    ends = {
        "CC-BY-4.0.txt": "Creative Commons may be contacted at creativecommons.org.",
        "Apache-2.0.txt": "limitations under the License.",
        "MIT.txt": "SOFTWARE.",
        "Unicode-3.0.txt": "authorization of the copyright holder.",
    }
    for name, end in ends.items():
        assert (ROOT / "licences" / name).read_text(encoding="utf-8").rstrip().endswith(end), name
        assert name in (ROOT / "NOTICE").read_text(encoding="utf-8")
    assert {path.name for path in (ROOT / "licences").iterdir()} == set(ends)
    for made in ("rows.csv.xz", "emoji-words.json", "docs/images", "tests/golden", "zoo export", "you draw"):
        assert made in (ROOT / "NOTICE").read_text(encoding="utf-8")


@pytest.mark.parametrize("file", ["CITATION.cff", ".pre-commit-config.yaml", "mkdocs.yml"])
def test_files_for_contributors_are_yaml(file):
    assert parse_yaml((ROOT / file).read_text(encoding="utf-8"), source=file)


def test_the_citation_and_the_changes_name_this_version():
    assert f"version: {zoo.__version__}\n" in (ROOT / "CITATION.cff").read_text(encoding="utf-8")
    assert f"## {zoo.__version__}\n" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_api_page_names_what_is_there():
    for name in re.findall(r"^::: ([\w.]+)", (ROOT / "docs" / "api.md").read_text(encoding="utf-8"), re.MULTILINE):
        assert pkgutil.resolve_name(name), name
