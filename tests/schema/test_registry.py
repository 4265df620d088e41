"""The registry: imported on use, unharmed by broken plugins, and no name belongs to two."""

import importlib
import sys
from pathlib import Path

import pytest

from tests.refusals import refused
from zoo.cli.main import run
from zoo.config.describe import listing
from zoo.inspection.installation import tried
from zoo.samplers.ddim import DDIM
from zoo.schema.errors import ConfigError, UsageError
from zoo.schema.registry import KINDS, Entry, Registry, installed_plugins, read_registry_file, registry, registry_file
from zoo.schema.safe_yaml import read_mapping


class Given:
    """A component of this process."""

    def __init__(self, *, size: int = 1) -> None:
        self.size = size


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a fake package: its modules' sources and its entry points."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    before = set(sys.modules)

    def make(package: str, sources: dict[str, str], points: dict[str, str]) -> None:
        for name, source in sources.items():
            (site / f"{name}.py").write_text(source)
        info = site / f"{package.replace('-', '_')}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        lines = "".join(f"{key} = {value}\n" for key, value in points.items())
        (info / "entry_points.txt").write_text(f"[zoo.plugins]\n{lines}")
        importlib.invalidate_caches()

    yield make
    for name in set(sys.modules) - before:
        if name.startswith("plugin_"):
            del sys.modules[name]


def test_the_shipped_registry_names_known_kinds_and_targets():
    entries = read_registry_file(registry_file())
    assert {e.kind for e in entries} <= set(KINDS)
    assert len({e.key for e in entries}) == len(entries) == sum(map(len, read_mapping(registry_file()).values()))


@pytest.mark.slow
def test_every_shipped_component_is_there_and_says_what_it_is():
    for entry in read_registry_file(registry_file()):
        assert entry.signature().summary == entry.summary() != "", entry.key


def test_a_plugin_is_imported_when_used_and_not_before(install):
    source = "class Mine:\n    '''My sampler.'''\n    def __init__(self, *, steps: int = 3): self.steps = steps\n"
    install("my-package", {"plugin_mine": source}, {"sampler.my-sampler": "plugin_mine:Mine"})
    known = Registry.installed()
    assert "my-sampler" in known.names("sampler")
    entry = known.entry("sampler", "my-sampler")
    assert entry.signature().names == ("steps",)
    assert "my-package" in entry.source
    assert "plugin_mine" not in sys.modules
    assert known.load("sampler", "my-sampler")(steps=2).steps == 2
    assert "plugin_mine" in sys.modules


BROKEN = {
    "missing-module": ("", "plugin_absent:X", "no module 'plugin_absent'"),
    "missing-attribute": ("", "plugin_x:Absent", "defines no 'Absent'"),
    "syntax-error": ("def (:", "plugin_x:X", "not Python"),
    "needs-a-package": ("import a_package_nobody_has\nclass X: ...", "plugin_x:X", "needs 'a_package_nobody_has'"),
    "no-target": ("class X: ...", "plugin_x", "no 'module:attr'"),
}
BROKEN_ON_USE = {
    "import-error": ("from zoo.schema.errors import Absent\nclass X: ...", "ImportError"),
    "system-exit": ("import sys\nsys.exit(3)\nclass X: ...", "SystemExit"),
    "exception": ("1 / 0\nclass X: ...", "ZeroDivisionError"),
    "wrong-type": ("X = 5", "no class or function"),
    "deleted": ("class X: ...\ndel X", "AttributeError"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_listed_with_its_reason_and_harms_nobody(install, name):
    source, target, reason = BROKEN[name]
    install("broken-package", {"plugin_x": source}, {f"sampler.{name}": target})
    install("good-package", {"plugin_good": "class Good: ...\n"}, {"sampler.good": "plugin_good:Good"})
    known = Registry.installed()
    assert name not in known.names("sampler")
    assert {"good", "ddim"} <= set(known.names("sampler"))
    assert known.load("sampler", "good").__name__ == "Good"
    with refused("component-broken", ConfigError, naming=reason):
        known.load("sampler", name)
    listed = {d.name: d.broken for d in listing("sampler", components=known)}
    assert reason in listed[name]
    assert "broken-package" in listed[name]
    assert listed["good"] is None


@pytest.mark.parametrize("name", BROKEN_ON_USE)
def test_a_plugin_that_fails_on_import_is_told_by_name_and_harms_nobody(install, name):
    source, reason = BROKEN_ON_USE[name]
    install("broken-package", {"plugin_x": source}, {f"sampler.{name}": "plugin_x:X"})
    known = Registry.installed()
    with refused("component-import-failed|component-target-invalid", ConfigError, naming=reason) as caught:
        known.load("sampler", name)
    assert f"'{name}' from plugin package 'broken-package'" in str(caught.value)
    assert "ddim" in known.names("sampler")


@pytest.mark.slow
@pytest.mark.parametrize("key", ["nokind", "smapler.x", "sampler.", ".x", "sampler.UPPER"])
def test_an_entry_point_that_names_nothing_is_listed_as_broken(install, key):
    install("odd-package", {"plugin_x": "class X: ..."}, {key: "plugin_x:X"})
    known = Registry.installed()
    listed = [d for d in listing(components=known) if d.broken]
    assert [d.source for d in listed] == ["plugin package 'odd-package'"]


def test_a_name_that_two_plugins_take_belongs_to_neither_and_one_of_zoos_stays_its_own(install):
    install("first-package", {"plugin_a": "class X: ..."}, {"sampler.ddim": "plugin_a:X", "grid.own": "plugin_a:X"})
    install("second-package", {"plugin_b": "class X: ..."}, {"grid.own": "plugin_b:X"})
    known = Registry.installed()
    assert known.load("sampler", "ddim") is DDIM  # or an installed package would take shipped pipelines away
    said = "sampler 'ddim' comes with zoo and plugin package 'first-package' takes its name; rename that one"
    assert known.fault("sampler/ddim", "plugin package 'first-package'") == said
    assert [e.broken for e in known if e.name == "sampler.ddim"] == [said]
    assert known.fault("sampler/ddim", "registry.yaml") is None
    with refused("component-broken"):
        known.entry("grid", "own").signature()
    assert "ddpm" in known.names("sampler")


def test_a_plugin_that_takes_a_name_of_zoos_is_told_so_when_it_is_checked(install, capsys):
    install("taker", {"plugin_t": "class X: ..."}, {"sampler.ddim": "plugin_t:X"})
    registry.cache_clear()  # a process looks for plugins once
    try:
        assert run(["plugin", "check", "taker"]) == 1
    finally:
        registry.cache_clear()
    assert "comes with zoo" in " ".join(capsys.readouterr().out.split())


def test_registering_a_taken_name_raises_naming_both_sources():
    known = Registry([Entry("sampler", "ddim", "zoo.samplers.ddim:DDIM", "registry.yaml")])
    with refused("component-name-taken", naming="registry.yaml"):
        known.register("sampler", "ddim", Given)
    known.register("sampler", "mine", Given)
    with refused("component-name-taken"):
        known.register("sampler", "mine", Given)
    assert known.load("sampler", "mine") is Given
    assert known.entry("sampler", "mine").signature().names == ("size",)


@pytest.mark.parametrize(
    ("kind", "name", "target", "refusal"),
    [
        ("smapler", "x", Given, "kind-unknown: 'sampler'"),
        ("sampler", "X", Given, "component-name-invalid"),
        ("sampler", "a/b", Given, "component-name-invalid"),
        ("sampler", "", Given, "component-name-invalid"),
        ("sampler", 5, Given, "component-name-invalid"),
        ("sampler", "x", "zoo.samplers", "component-target-invalid"),
        ("sampler", "x", "os;system:x", "component-target-invalid"),
        ("sampler", "x", 5, "component-target-invalid"),
    ],
)
def test_what_can_be_registered_is_told(kind, name, target, refusal):
    with refused(refusal, UsageError):
        Registry().register(kind, name, target)


def test_an_unknown_name_gets_the_nearest_and_the_list():
    known = Registry.installed()
    with refused("component-unknown", ConfigError, naming="'dimm'"):
        known.entry("sampler", "dimm")
    with refused("component-unknown", ConfigError, naming="'zzz'"):
        known.entry("sampler", "zzz")
    with refused("component-unknown", ConfigError, naming="'fid'"):
        Registry().entry("metric", "fid")
    with refused("component-unknown", ConfigError):
        known.entry("sampler", ["ddim"])  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "refusal"),
    [
        ("smapler: {x: 'a:b'}", "kind-unknown: 'sampler'"),
        ("sampler: [x]", "registry-file-invalid"),
        ("sampler: {x: a.b}", "component-target-invalid"),
        ("sampler: {x: 5}", "component-target-invalid"),
        ("sampler: {x: 'a:b', x: 'c:d'}", "yaml-key-repeated"),
    ],
)
def test_a_wrong_registry_file_is_refused_by_name(tmp_path: Path, text, refusal):
    path = tmp_path / "registry.yaml"
    path.write_text(text)
    with refused(refusal, ConfigError) as error:
        read_registry_file(path)
    assert "registry.yaml" in str(error.value)


def test_no_component_takes_an_argument_called_name_which_a_block_could_not_give():
    for entry in read_registry_file(registry_file()):
        assert "name" not in {p.name for p in entry.signature().parameters}, entry.key


def test_a_package_whose_metadata_is_garbage_takes_no_other_along(install, tmp_path):
    install("good-package", {"plugin_good": "class X: ..."}, {"sampler.good": "plugin_good:X"})
    for name, data in (("bad_package", b"\xff\xfe[zoo.plugins\n="), ("empty_package", b"")):
        folder = tmp_path / "site" / f"{name}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_bytes(data)
        (folder / "entry_points.txt").write_bytes(data)
    assert "good" in Registry.installed().names("sampler")
    assert [plugin.package for plugin in installed_plugins()] == ["good-package"]


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("class X: ...", None), ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
        ("import sys; sys.exit(3)", "exit code 3"), ("X = 5", "is no class and no function"),
        ("import os; os._exit(0)", "exit code 0"), ("Y = 1", "has no attribute 'X'"), ("X = (", "SyntaxError"),
    ],
)  # fmt: skip
def test_the_doctor_tries_what_a_plugin_names(source, said, install, monkeypatch):
    install("tried-package", {"plugin_tried": source}, {"sampler.tried": "plugin_tried:X"})
    found = tried("plugin_tried:X")
    assert (found is None) if said is None else (said in found)
