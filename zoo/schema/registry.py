"""The registry: kind -> name -> component, known by its import target and imported when it is used.

Three sources, all of them code that was installed or is running, never a config file:

- `registry.yaml`, which comes with zoo;
- entry points of installed packages in the group `zoo.plugins`, named `kind.name`, e.g. `sampler.my-sampler`;
- `zoo.register(kind, name, target)`, for this process.

A broken plugin is listed with the reason and doesn't affect the others. A name that two sources claim belongs to
neither: using it raises and names both.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

from zoo.schema.errors import ConfigError, Terminated, UsageError
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.signature import Signature, find_source, parse_module, read_signature, read_summary
from zoo.schema.unknown import unknown

KINDS = (
    "schedule", "parameterization", "grid", "low_res", "network", "autoencoder", "conditioner", "measurement",
    "guidance", "sampler", "step_cache", "dataset", "extractor", "metric", "safety", "objective",
    "logger", "family",
)  # fmt: skip
PLUGIN_GROUP = "zoo.plugins"
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*")
_TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")


_Read = TypeVar("_Read")


@dataclass(frozen=True)
class Entry:
    """A component: where it comes from and, if it can't be used, why."""

    kind: str
    name: str
    target: str | Any  # "module:attr", or the object itself
    source: str
    broken: str | None = None

    @property
    def key(self) -> str:
        """kind/name."""
        return f"{self.kind}/{self.name}"

    def signature(self) -> Signature:
        """What the component takes, without importing it."""
        return self._read(read_signature)

    def summary(self) -> str:
        """The first paragraph of the component's docstring, without importing it."""
        return self._read(read_summary)

    def load(self) -> Any:
        """Import the component."""
        self._refuse_broken()
        if not isinstance(self.target, str):
            return self.target
        module, _, attr = self.target.partition(":")
        try:
            loaded = getattr(import_module(module), attr)
        # A plugin may raise anything on import, even SystemExit; these two are the user's own.
        except (KeyboardInterrupt, Terminated):
            raise
        except BaseException as error:
            reason = f"{type(error).__name__}: {error}"
            raise ConfigError(
                f"{self.kind} '{self.name}' from {self.source} can't be imported ({reason}); "
                "mend or uninstall that package",
                code="component-import-failed",
            ) from error
        if not callable(loaded):
            raise ConfigError(
                f"{self.kind} '{self.name}' from {self.source} is no class or function; mend its target",
                code="component-target-invalid",
            )
        return loaded

    def _read(self, read: Callable[[str | Any], _Read]) -> _Read:
        self._refuse_broken()
        try:
            return read(self.target)
        except ConfigError as error:
            raise ConfigError(
                f"{self.kind} '{self.name}' from {self.source} can't be used: {error}", code=error.code
            ) from error

    def _refuse_broken(self) -> None:
        if self.broken is not None:
            raise ConfigError(f"{self.kind} '{self.name}' is broken: {self.broken}", code="component-broken")


@dataclass(frozen=True)
class Plugin:
    """An installed package that has entry points in the group: what it is called, and the keys of its components."""

    package: str
    version: str
    place: str
    keys: tuple[str, ...]


class Registry:
    """Entries by kind and name."""

    def __init__(self, entries: Iterable[Entry] = ()) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}
        for entry in entries:
            self._add(entry)

    @classmethod
    def installed(cls) -> Registry:
        """What comes with zoo and with the installed plugins."""
        return cls([*read_registry_file(registry_file()), *read_plugins()])

    def __iter__(self) -> Iterator[Entry]:
        return iter(sorted(self._entries.values(), key=lambda e: (_rank(e.kind), e.kind, e.name)))

    def names(self, kind: str) -> list[str]:
        """The names of a kind that can be used."""
        _check_kind(kind)
        return sorted(e.name for e in self._entries.values() if e.kind == kind and e.broken is None)

    def entry(self, kind: str, name: str) -> Entry:
        """The component of that name; an unknown name raises an error that names the nearest."""
        _check_kind(kind)
        found = self._entries.get((kind, name)) if isinstance(name, str) else None
        if found is None:
            raise ConfigError(unknown(kind, name, self.names(kind)), code="component-unknown")
        return found

    def at(self, key: str) -> Entry:
        """The entry of an existing key, broken or not."""
        kind, _, name = key.partition("/")
        return self._entries[kind, name]

    def fault(self, key: str, source: str) -> str | None:
        """Why a plugin's component of that key can't be used; None where it can."""
        there = self.at(key)
        other = self._entries.get(("plugin", key.replace("/", ".", 1)))
        return other.broken if other is not None and other.source == source else there.broken

    def default(self, kind: str) -> str:
        """The component that fills a slot of this kind where a config names none: it declares `default = True`.

        zoo's own takes precedence over a plugin's.
        """
        found = self.saying(kind, "default")
        if not found:
            raise ConfigError(
                f"no {kind} says that it is the default; name one of {', '.join(self.names(kind))}",
                code="component-default-missing",
            )
        return min(found, key=lambda name: self.entry(kind, name).source != registry_file().name)

    def saying(self, kind: str, fact: str) -> list[str]:
        """The names of those components that declare a fact, read from source; none of those that can't be read."""
        found = []
        for name in self.names(kind):
            try:
                if self.entry(kind, name).signature().constants.get(fact):
                    found.append(name)
            except ConfigError:
                continue
        return found

    def name_of(self, kind: str, target: str | Any) -> str:
        """The name of a component, by its class or "module:attr"; UsageError where it isn't registered."""
        wanted = target if isinstance(target, str) else f"{target.__module__}:{target.__qualname__}"
        for name in self.names(kind):
            if self.entry(kind, name).target in (target, wanted):
                return name
        raise UsageError(f"no {kind} is '{wanted}'; register it, so that a card can name it", code="component-unknown")

    def load(self, kind: str, name: str) -> Any:
        """Import the component of that name."""
        return self.entry(kind, name).load()

    def register(self, kind: str, name: str, target: str | Any) -> Entry:
        """Add a component to this registry: a class, a function, or "module:attr"."""
        _check_kind(kind)
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise UsageError(
                f"{name!r} is no name for a {kind}; use lower-case letters, digits, '-', '.', '_' or '+'",
                code="component-name-invalid",
            )
        if isinstance(target, str) and not _TARGET.fullmatch(target):
            raise UsageError(
                f"'{target}' is no target for {kind} '{name}'; write 'module:attr'", code="component-target-invalid"
            )
        if not isinstance(target, str) and not callable(target):
            raise UsageError(
                f"{kind} '{name}' needs a class, a function or 'module:attr', not {target!r}",
                code="component-target-invalid",
            )
        where = target if isinstance(target, str) else f"{target.__module__}:{getattr(target, '__qualname__', target)}"
        entry = Entry(kind, name, target, f"register() in this process ({where})")
        taken = self._entries.get((kind, name))
        if taken is not None:
            raise UsageError(
                f"{kind} '{name}' is taken twice, by {taken.source} and by {entry.source}; choose another name",
                code="component-name-taken",
            )
        self._entries[kind, name] = entry
        return entry

    def _add(self, entry: Entry) -> None:
        taken = self._entries.get((entry.kind, entry.name))
        if taken is not None and taken.source == registry_file().name:
            # What comes with zoo stays usable; the other is listed under a name that can't be requested.
            why = f"{entry.kind} '{entry.name}' comes with zoo and {entry.source} takes its name; rename that one"
            entry = replace(entry, kind="plugin", name=f"{entry.kind}.{entry.name}", broken=why)
        elif taken is not None:
            sources = f"{taken.source} and by {entry.source}"
            entry = replace(
                taken, source=f"{taken.source}, {entry.source}",
                broken=f"it is taken twice, by {sources}; uninstall or rename one",
            )  # fmt: skip
        self._entries[entry.kind, entry.name] = entry


def registry_file() -> Path:
    """registry.yaml: inside the package in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "registry.yaml"
    return inside if inside.is_file() else package.parent / "registry.yaml"


def read_registry_file(path: Path) -> list[Entry]:
    """The entries of a registry.yaml."""
    entries = []
    for kind, block in read_mapping(path).items():
        if kind not in KINDS:
            raise ConfigError(f"'{path}': {unknown('kind', kind, KINDS)}", code="kind-unknown")
        if not isinstance(block, Mapping):
            raise ConfigError(
                f"'{path}': '{kind}' holds no mapping; write `name: module:attr` lines", code="registry-file-invalid"
            )
        for name, target in block.items():
            if not _NAME.fullmatch(name) or not isinstance(target, str) or not _TARGET.fullmatch(target):
                raise ConfigError(
                    f"'{path}': {kind} '{name}' needs a target 'module:attr', not {target!r}",
                    code="component-target-invalid",
                )
            entries.append(Entry(kind, name, target, path.name))
    return entries


def read_plugins() -> list[Entry]:
    """The entry points of the installed packages, none of them imported, each broken one with its reason."""
    return [_read_plugin(point) for point in _points()]


def installed_plugins() -> list[Plugin]:
    """The packages that have them, in the order of their names."""
    found: dict[str, Plugin] = {}
    for point in _points():
        package = _package(point)
        entry = _read_plugin(point)
        before = found.get(package)
        keys = (*(before.keys if before else ()), entry.key)
        try:
            home: Any = point.dist
            version, place = str(home.version or "unknown"), str(home.locate_file(""))
        except Exception:  # damaged metadata of another package
            version, place = "unknown", "unknown"
        found[package] = Plugin(package, version, place, tuple(sorted(keys)))
    return sorted(found.values(), key=lambda plugin: plugin.package)


def find_plugin(package: str) -> Plugin:
    """The plugin package of that name, as packages are named: case, '-', '_' and '.' don't count."""
    plugins = {_canonical(plugin.package): plugin for plugin in installed_plugins()}
    found = plugins.get(_canonical(package))
    if found is not None:
        return found
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        distribution(package)
    except (PackageNotFoundError, ValueError):
        raise UsageError(
            unknown("plugin package", package, sorted(p.package for p in plugins.values())), code="plugin-unknown"
        ) from None
    raise UsageError(
        f"the package '{package}' is installed and has no plugins; give it entry points in the group "
        f"'{PLUGIN_GROUP}' and install it again",
        code="plugin-empty",
    )


def _points() -> Iterator[Any]:
    """Every entry point of the group; a package whose metadata can't be read is skipped."""
    from importlib.metadata import distributions

    homes = [(home, _has_plugins(home)) for home in distributions()]
    # Names are in metadata, which is slow to parse: only packages that could hide a plugin or be one are read.
    last = max((i for i, (_, has) in enumerate(homes) if has), default=-1)
    seen: set[str] = set()
    for home, has in homes[: last + 1]:
        try:
            name, points = _canonical(str(home.metadata["Name"])), list(home.entry_points) if has else []
        except Exception:
            continue
        if name not in seen:  # the first on the path, as for imports
            seen.add(name)
            yield from (point for point in points if point.group == PLUGIN_GROUP)


def _has_plugins(home: Any) -> bool:
    """Whether a package's entry points name the group."""
    try:
        return PLUGIN_GROUP in (home.read_text("entry_points.txt") or "")
    except Exception:
        return False


def _canonical(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def _package(point: Any) -> str:
    try:
        return str(point.dist.name or "an unnamed package")
    except Exception:  # damaged metadata of another package
        return "an unnamed package"


def _read_plugin(point: Any) -> Entry:
    source = f"plugin package '{_package(point)}'"
    kind, _, name = point.name.partition(".")
    if kind not in KINDS or not _NAME.fullmatch(name):
        # Listed under its own name, which can't be requested.
        return Entry("plugin", point.name, point.value, source, f"{source} names no 'kind.name' of a known kind")
    broken = _find_fault(point.value, source)
    return Entry(kind, name, point.value, source, broken)


def _find_fault(target: str, source: str) -> str | None:
    """Why importing a plugin's target will fail, as far as its source shows; None if no reason is found."""
    if not _TARGET.fullmatch(target):
        return f"the target '{target}' of {source} is no 'module:attr'"
    module = target.partition(":")[0]
    try:
        read_signature(target)
        if find_source(module) is None:
            return None
        parsed = parse_module(module)
    except ConfigError as error:
        return f"{source}: {error}"
    missing = sorted(name for name in _needs(parsed.tree) if not _is_installed(name))
    return f"{source} needs '{missing[0]}', which is not installed" if missing else None


def _needs(tree: ast.Module) -> set[str]:
    """Top-level packages that a module imports outright; those imported in a `try` or an `if` may be missing."""
    bare = [n for n in tree.body if not isinstance(n, (ast.If, ast.Try))]
    names = {alias.name for n in bare if isinstance(n, ast.Import) for alias in n.names}
    names |= {n.module or "" for n in bare if isinstance(n, ast.ImportFrom) and not n.level}
    return {name.partition(".")[0] for name in names} - {""}


def _is_installed(name: str) -> bool:
    try:
        find_source(name)
    except ConfigError:
        return False
    return True


def _rank(kind: str) -> int:
    return KINDS.index(kind) if kind in KINDS else len(KINDS)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise UsageError(unknown("kind", kind, KINDS), code="kind-unknown")


@lru_cache(maxsize=1)
def registry() -> Registry:
    """This process's registry: the only global state of the library."""
    return Registry.installed()
