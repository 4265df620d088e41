"""Who may know whom: the order in which `zoo/` can be read, held by the imports in its source.

Imports are read by `ast`, nothing is run, except for the last tests, which ask a fresh interpreter.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

import zoo

PACKAGE = Path(zoo.__file__).parent
# The rooms, read first to last: each needs only those before it, and what stands beside it in its own folder. Imports
# inside functions count as well.
LAYERS = (
    "zoo.schema",
    "zoo.records",
    "zoo.diffusion.types",  # what a plan is; it imports nothing
    "zoo.config",
    "zoo.diffusion.schedules",
    "zoo.diffusion",
    "zoo.acceleration",
    "zoo.checkpoints",
    "zoo.samplers",
    "zoo.guidance",
    "zoo.networks",
    "zoo.autoencoders",
    "zoo.conditioners",
    "zoo.images",
    "zoo.pipeline",
    "zoo.families",
    "zoo.data",
    "zoo.training.engine",
    "zoo.training.objectives",
    "zoo.training",
    "zoo.assemble",
    "zoo",
    "zoo.evaluation.extractors",
    "zoo.evaluation.metrics",
    "zoo.evaluation.inputs",
    "zoo.evaluation",
    "zoo.bench.report",
    "zoo.bench",
    "zoo.inspection",
    "zoo.inspection.plots",
    "zoo.conformance",
    "zoo.cli",
    "zoo.__main__",
    "benchmarks",
)
# (who, whom, why): not even inside a function.
FORBIDDEN = (
    ("zoo.samplers", "zoo.networks", "any sampler works with any weights"),
    ("zoo.samplers", "zoo.diffusion.denoiser", "a sampler sees a function from (x_t, step) to x0"),
    ("zoo.samplers", "zoo.diffusion.parameterization", "a sampler never branches on eps, x0 or v"),
    ("zoo.samplers", "zoo.guidance", "guidance is inside what a sampler calls"),
    ("zoo.networks", "zoo.schema.registry", "networks are found by name, they find nobody"),
    ("zoo.networks", "zoo.config", "networks take arguments, not configs"),
    ("zoo.networks", "zoo.samplers", "a network doesn't know how it is sampled"),
    ("zoo.guidance", "zoo.networks", "guidance wraps a denoiser, whatever is in it"),
    ("zoo.pipeline.pipeline", "zoo.schema.registry", "a pipeline is given its parts"),
    ("zoo.pipeline.pipeline", "zoo.config", "a pipeline is given its parts"),
    ("zoo.training", "zoo.assemble", "what a run needs is lent to it"),
    ("zoo.diffusion.denoiser", "zoo.acceleration", "a denoiser is whole without whatever runs it quicker"),
)
TORCH_FREE = (
    "zoo", "zoo.schema", "zoo.config", "zoo.records", "zoo.bench.report", "zoo.bench.row_kinds", "zoo.cli",
    "zoo.conditioners.words", "zoo.acceleration.threads",
    "zoo.inspection.compare", "zoo.inspection.cost", "zoo.inspection.facts", "zoo.inspection.sides",
    "zoo.inspection.stages", "zoo.inspection.installation",
    # What a check makes and plans with.
    "zoo.diffusion.types", "zoo.diffusion.schedules", "zoo.diffusion.parameterization", "zoo.samplers",
    "zoo.acceleration.step_cache",
    # What a file is, by its header.
    "zoo.checkpoints.containers",
    "zoo.checkpoints.headers", "zoo.checkpoints.pickles", "zoo.checkpoints.torch_files", "zoo.checkpoints.folders",
    "zoo.checkpoints.writing", "zoo.families.adapters", "zoo.families.explain", "zoo.families.explain_text",
    "zoo.families.identify", "zoo.families.key_lists", "zoo.families.published_models", "zoo.families.lora.spelling",
    "zoo.families.diffusers.layout", "zoo.families.stable_diffusion.pairs",
    "zoo.families.stable_diffusion.original_names", "zoo.families.stable_diffusion.layouts",
    "zoo.families.stable_diffusion.folder_configs", "zoo.families.stable_diffusion.variants",
)  # fmt: skip
HEAVY = {"torch", "torchvision", "open_clip", "timm", "scipy", "safetensors", "diffusers", "transformers", "matplotlib"}


class Import(NamedTuple):
    """One imported module, as named in the source."""

    module: str
    at_top: bool  # not in a function
    typed: bool  # for types alone: it never runs
    line: int


def modules() -> dict[str, Path]:
    """Every module of the package, and of the benchmarks, by its dotted name."""
    found, root = {}, PACKAGE.parent
    for path in sorted(p for folder in (PACKAGE, root / "benchmarks") for p in folder.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


@cache
def imports(module: str) -> tuple[Import, ...]:
    """What a module imports; `if TYPE_CHECKING:` counts, though it doesn't run."""
    found: list[Import] = []

    def visit(node: ast.AST, at_top: bool, typed: bool = False) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for child in node.body:
                visit(child, at_top, True)
            for child in node.orelse:
                visit(child, at_top)
            return
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, at_top, typed, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}, line {node.lineno}: relative imports hide who is meant"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                found.append(Import(inner if inner in MODULES else base, at_top, typed, node.lineno))
        inside = at_top and not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda))
        for child in ast.iter_child_nodes(node):
            visit(child, inside, typed)

    visit(ast.parse(MODULES[module].read_text(encoding="utf-8")), True)
    return tuple(found)


def within(module: str, package: str) -> bool:
    """Whether a module is `package` or inside it; `zoo` means the public face alone."""
    return module == package or (package != "zoo" and module.startswith(package + "."))


def layer(module: str) -> int:
    """The place in `LAYERS` of the innermost room that a module stands in."""
    places = [(len(room), i) for i, room in enumerate(LAYERS) if within(module, room)]
    assert places, f"'{module}' stands in no room of LAYERS"
    return max(places)[1]


def own(module: str) -> list[Import]:
    """The imports of a module that name modules of zoo or of the benchmarks."""
    return [i for i in imports(module) if i.module in MODULES]


def test_the_graph_is_read_at_all():
    assert len(MODULES) > 40
    assert any(i.module == "zoo.samplers.linear" and i.at_top for i in imports("zoo.samplers.ddim"))
    assert any(i.module == "zoo.assemble" and not i.at_top for i in imports("zoo"))
    assert [i.typed for i in imports("zoo") if i.module == "zoo.pipeline.pipeline"] == [True]


@pytest.mark.slow
@pytest.mark.parametrize("module", sorted(MODULES))
def test_a_module_needs_only_what_stands_above_it(module):
    below = [f"{i.module} (line {i.line})" for i in own(module) if layer(i.module) > layer(module)]
    assert not below, f"{module} imports {', '.join(below)}, which stands below it"


def test_modules_do_not_import_each_other_in_a_circle():
    """Neither inside functions nor for types alone; the benchmarks' neither."""
    graph = {m: {i.module for i in imports(m)} - {m} for m in MODULES}
    TopologicalSorter(graph).prepare()  # or a CycleError that names the circle
    with pytest.raises(CycleError):
        TopologicalSorter({**graph, "zoo.schema.errors": {"zoo.samplers.ddim"}}).prepare()


def test_the_house_has_few_rooms():
    """A room is a folder with Python in it; published families, of which there will be many, are one."""
    root = PACKAGE.parent
    folders = {
        path.parent.relative_to(root) for place in ("zoo", "benchmarks") for path in (root / place).rglob("*.py")
    }
    rooms = {Path(*folder.parts[:2]) if folder.parts[:2] == ("zoo", "families") else folder for folder in folders}
    assert len(rooms) <= 34, sorted(map(str, rooms))


@pytest.mark.parametrize(("who", "whom", "why"), FORBIDDEN, ids=[f"{a}-{b}" for a, b, _ in FORBIDDEN])
def test_who_must_not_know_whom(who, whom, why):
    wrong = [f"{m}, line {i.line}" for m in MODULES if within(m, who) for i in own(m) if within(i.module, whom)]
    assert not wrong, f"{wrong[0]}: {who} never imports {whom}, because {why}"


@pytest.mark.slow
def test_nothing_imports_assemble_but_the_public_face():
    library = [m for m in MODULES if not within(m, "benchmarks")]
    assert {m for m in library for i in own(m) if i.module == "zoo.assemble"} == {"zoo"}


def test_nothing_imports_the_command_line():
    library = [m for m in MODULES if layer(m) < layer("zoo.cli")]
    wrong = {m for m in library for i in own(m) if within(i.module, "zoo.cli")}
    assert not wrong


@pytest.mark.parametrize("module", sorted(m for m in MODULES if any(within(m, p) for p in TORCH_FREE)))
def test_torch_free_modules_import_nothing_heavy(module):
    def light(name: str) -> bool:
        if name == "zoo" or name.startswith("zoo."):
            return any(within(name, p) for p in TORCH_FREE)
        return name.partition(".")[0] not in HEAVY

    wrong = [i.module for i in imports(module) if i.at_top and not i.typed and not light(i.module)]
    assert not wrong, f"{module} must start without torch; import {wrong[0]} inside the function that needs it"


def test_only_the_registry_file_names_import_targets():
    root = PACKAGE.parent
    texts = [*PACKAGE.glob("presets/*.yaml"), *PACKAGE.glob("weights/*.yaml"), *root.glob("recipes/**/*.yaml")]
    target = re.compile(r"[A-Za-z_]\w*(\.\w+)+:[A-Za-z_]\w*")
    assert target.search((root / "registry.yaml").read_text())
    assert texts
    assert [t.name for t in texts if target.search(t.read_text())] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        "import zoo; zoo.names(); zoo.describe('sampler/ddim'); zoo.check('latent-text2img')",
        "from zoo.cli.main import run; assert run(['list']) == 0",
        "from zoo.cli.main import run; assert run(['describe', 'weights/emoji-base-32-text']) == 0",
        "from zoo.cli.main import run; assert run(['check', 'latent-text2img', '--json']) == 0",
        "import zoo; [zoo.check(name) for name in zoo.names('pipeline')]",
        "from zoo.cli.main import run; assert run(['check', 'latent-text2img', '--sampler', 'repaint']) == 0",
        "from zoo.cli.main import run; assert run(['generate', '--sampler', 'nothing']) == 2",
        "from zoo.cli.main import run; assert run(['plugin', 'check', 'no-such-package']) == 2",
        "from zoo.cli.main import run; assert run(['bench', '--list']) == 0",
        "from zoo.cli.main import run; assert run(['bench', 'quick', '--set', 'matrix.0.steps=[0]']) == 2",
        "from zoo.cli.main import run; assert run(['diff', 'latent-text2img', '--sampler', 'heun', '--json']) == 0",
        "from zoo.cli.main import run; assert run(['replay', 'registry.yaml']) == 2",
    ],
)
def test_torch_stays_out(code):
    heavy = sorted(HEAVY)
    end = f"\nimport sys; came = [m for m in {heavy} if m in sys.modules]; assert not came, came"
    done = subprocess.run([sys.executable, "-c", code + end], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_a_list_needs_no_numpy():
    code = "import sys; from zoo.cli.main import run; assert run(['list']) == 0; assert 'numpy' not in sys.modules"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=PACKAGE.parent)
    assert done.returncode == 0, done.stderr
