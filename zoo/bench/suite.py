"""Benchmark suites (`zoo.suite/1`): which configurations are measured, checked without torch and without weights.

schema: zoo.suite/1
kind: pipelines                     # or checks, or one that is given; a row may have its own
summary: What it answers, in one sentence.
settings: {warm_up: 1, repeats: 5}
models: {sd15: {...}}               # configs written here, beside the presets; or name a file, mine.yaml
matrix:                             # every combination of the values of each block
  - {model: latent-text2img, sampler: [ddim, dpmpp-2m], steps: [10, 30], fast: [false, true]}
include: [{model: sd15, batch: 16}] # rows besides
exclude: [{sampler: ddim, steps: 10}]   # rows that match all of an entry are left out
"""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from zoo.bench.row_kinds import ROW_KINDS, RowKind
from zoo.bench.rows import PROMPTS, Asked, Quality, Row, Settings, Suite
from zoo.config.blocks import check_block
from zoo.config.cards import check_schema
from zoo.config.check import Resolved, resolve
from zoo.config.models import model_names
from zoo.config.overrides import Overrides, apply_overrides
from zoo.config.presets import SUFFIXES, preset_names
from zoo.config.sources import is_source
from zoo.schema.errors import ConfigError, UsageError, WeightsError, ZooError
from zoo.schema.plain import show, to_plain
from zoo.schema.ranges import seeded, within
from zoo.schema.registry import registry
from zoo.schema.safe_yaml import read_mapping
from zoo.schema.signature import read_signature
from zoo.schema.unknown import unknown
from zoo.schema.values import fits, wanted

SUITE_SCHEMA = "zoo.suite/1"
CHECKS = ("images", "img2img", "inpaint", "memory", "features", "training")  # of kind checks
EXTRACTORS = "features"  # the check whose rows are extractors
RECIPE = "tiny-recipe"  # the model of check training: a recipe that is part of the check
KEYS = ("schema", "name", "kind", "summary", "settings", "models", "matrix", "include", "exclude")
PRECISIONS = ("float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda", "mps", "xpu")
COMPARISONS = (
    "comparisons with other libraries are in zoo's repository, in benchmarks/peers/suites; in a checkout run "
    "`python -m benchmarks.peers SUITE`"
)
MOST_ROWS = 10_000  # of a suite
PARTS = ("precompute", "channels_last", "packed", "compile", "graphs")  # of the fast path
_NUMBERED = re.compile(r"([a-z]+):[0-9]{1,3}")  # one of several devices
EVERY = "shipped"  # as a model: each preset


def folders() -> list[Path]:
    """Where suites are: inside the package in a wheel, in benchmarks/ in a checkout."""
    package = Path(__file__).resolve().parent
    return [package / "suites", package.parent.parent / "benchmarks" / "suites"]


def suite_names() -> list[str]:
    """The suites that come with zoo."""
    return sorted({path.stem for folder in folders() for path in folder.glob("*.yaml")})


def comparison_files() -> list[Path]:
    """The suites that compare zoo with other libraries: files of a checkout, which no wheel has."""
    root = Path(__file__).resolve().parent.parent.parent
    return sorted(root.glob("benchmarks/*/suites/*.yaml")) if (root / "registry.yaml").is_file() else []


def read_suite(
    suite: str | Path | Mapping[str, Any], overrides: Overrides = None, *, device: str = "cpu",
    kinds: Mapping[str, RowKind] = ROW_KINDS, known: dict[str, Resolved] | None = None,
) -> Suite:  # fmt: skip
    """A suite by name, from a file or from a mapping, every row checked; ConfigError with the fix.

    Args:
        device: of rows that name none; one that equals another row is then left out.
        kinds: the kinds of rows there are.
        known: the configs of an earlier reading by what decides them, which aren't resolved again.
    """
    known = {} if known is None else known
    if isinstance(suite, Mapping):
        written, source, name = suite, "the suite", str(suite.get("name") or "suite")
    else:
        path = _find(suite)
        written, source, name = read_mapping(path), str(path), path.stem
    check_schema(written, SUITE_SCHEMA, source)
    try:
        plain = apply_overrides(to_plain(written, source), overrides)
        return _check(plain, name, tuple(overrides) if isinstance(overrides, Sequence) else (), device, kinds, known)
    except ZooError as error:
        raise type(error)(f"{source}: {error}", code=error.code) from error


def _find(suite: str | Path) -> Path:
    if isinstance(suite, Path) or suite.endswith(SUFFIXES):
        return Path(suite)
    found = [folder / f"{suite}.yaml" for folder in folders() if suite in suite_names()]
    there = next((path for path in found if path.is_file()), None)
    if there is None:
        if suite in [path.stem for path in comparison_files()]:
            raise UsageError(f"the suite '{suite}' is a comparison; {COMPARISONS}", code="suite-unknown")
        own = "for a file of your own give a path ending in .yaml"
        raise UsageError(f"{unknown('suite', suite, suite_names())}; {own}; {COMPARISONS}", code="suite-unknown")
    return there


def _check(
    plain: Mapping[str, Any], name: str, overrides: tuple[str, ...], device: str, kinds: Mapping[str, RowKind],
    known: dict[str, Resolved],
) -> Suite:  # fmt: skip
    _known(plain, KEYS, "a suite")
    kind = plain.get("kind", "pipelines")
    _known_kind(kind, kinds, "kind")
    models = plain.get("models") or {}
    if not isinstance(models, Mapping) or not all(isinstance(m, Mapping) for m in models.values()):
        raise ConfigError("models holds one config a name; write them as blocks", code="suite-value-invalid")
    taken = next((m for m in models if m in preset_names()), None)
    if taken is not None:
        raise ConfigError(f"models: '{taken}' is a preset already; choose another name", code="suite-name-taken")
    configs = {m: {"name": m, **config} for m, config in models.items()}
    settings = _settings(plain.get("settings") or {})
    rows = [_row(given, kind, configs, kinds, known) for given in _rows(plain, device)]
    if not rows:
        raise ConfigError("the suite asks for no row; write a matrix or include", code="suite-empty")
    seen: set[str] = set()
    for row in rows:
        if row.id in seen:
            raise ConfigError(f"the row '{row.asked.name}' is asked for twice; take one out", code="entries-repeated")
        seen.add(row.id)
    return Suite(
        name=name, kind=kind, summary=str(plain.get("summary") or ""), settings=settings, rows=tuple(rows),
        overrides=overrides,
    )  # fmt: skip


def _settings(block: Any) -> Settings:
    given = _fields(block, Settings, "settings")
    quality = Quality(**_fields(given.pop("quality", {}), Quality, "settings.quality"))
    prompts = tuple(given.pop("prompts", PROMPTS))
    if not prompts:
        raise ConfigError("settings.prompts is empty; write a list of texts", code="suite-value-invalid")
    within(0, 1000, {"settings.warm_up": given.get("warm_up")})
    within(1, 10_000, {"settings.repeats": given.get("repeats")})
    within(2, 10**6, {"settings.count": given.get("count")})
    seeded(given.get("seed"), "settings.seed")
    within(1, 1000, {"settings.quality.ranges": quality.ranges})
    within(1, 10**6, {f"settings.quality.{n}": getattr(quality, n) for n in ("samples", "least", "hit_samples")})
    metrics = tuple(
        check_block(m, kind="metric", where="settings.quality.metrics", registry=registry()) for m in quality.metrics
    )
    return Settings(quality=replace(quality, metrics=metrics), prompts=prompts, **given)


def _rows(plain: Mapping[str, Any], device: str) -> list[dict[str, Any]]:
    columns = [*(f.name for f in fields(Asked)), "kind", "seconds"]
    blocks = [plain["matrix"]] if isinstance(plain.get("matrix"), Mapping) else _list(plain, "matrix")
    rows: list[dict[str, Any]] = []
    for number, block in enumerate(blocks):
        where = f"matrix.{number}"
        _known(block, columns, where)
        lists = {key: value if isinstance(value, list) else [value] for key, value in block.items()}
        lists["model"] = [
            m for asked in lists.get("model", []) for m in (preset_names() if asked == EVERY else [asked])
        ]
        asked = len(rows) + math.prod(len(values) for values in lists.values())
        if asked > MOST_ROWS:
            raise ConfigError(
                f"{where} asks for {asked} rows and more than {MOST_ROWS} are not measured; ask for fewer",
                code="suite-too-long",
            )
        rows += [dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values())]
    for number, row in enumerate(_list(plain, "include")):
        _known(row, columns, f"include.{number}")
        rows.append(dict(row))
    for number, row in enumerate(_list(plain, "exclude")):
        _known(row, columns, f"exclude.{number}")
        if not row:
            raise ConfigError(
                f"exclude.{number} says nothing and would leave no row; name what is left out", code="suite-empty"
            )
    defaults = {f.name: f.default for f in fields(Asked)} | {"device": device}
    named = [{**defaults, **row} for row in rows if "device" in row]
    # A row left to `device` may be one that the suite names for that device; it is measured once.
    rows = [{"device": device, **row} for row in rows if "device" in row or {**defaults, **row} not in named]
    left = [
        row
        for row in rows
        if not any(all({**defaults, **row}.get(k) == v for k, v in out.items()) for out in plain.get("exclude") or [])
    ]
    return left


def _known_kind(kind: Any, kinds: Mapping[str, RowKind], where: str) -> None:
    if not isinstance(kind, str) or kind not in kinds:
        raise ConfigError(f"{where}: {unknown('kind', kind, tuple(kinds))}; {COMPARISONS}", code="suite-word-unknown")


def _row(
    given: Mapping[str, Any], otherwise: str, configs: Mapping[str, Any], kinds: Mapping[str, RowKind],
    known: dict[str, Resolved],
) -> Row:  # fmt: skip
    """One row, checked; `otherwise` is the kind where the row says none."""
    where = f"the row {show(dict(given))}"
    kind, seconds = given.get("kind", otherwise), given.get("seconds")
    _known_kind(kind, kinds, where)
    within(0, 1e6, {f"{where}: seconds": _fields({"seconds": seconds}, Row, where)["seconds"]}, "(]")
    columns = {key: value for key, value in given.items() if key not in ("kind", "seconds")}
    check = columns.get("check")
    if (kind == "checks") != (check is not None):
        raise ConfigError(
            f"{where}: a row of kind checks says which check, and no other row does", code="suite-check-misplaced"
        )
    if check is not None and check not in CHECKS:
        raise ConfigError(f"{where}: {unknown('check', check, CHECKS)}", code="suite-word-unknown")
    own = kinds[kind].models
    if own is not None:
        models: list[str] = list(own)
    elif check == EXTRACTORS:
        models = known_extractors()
    else:
        models = [RECIPE] if check == "training" else [*preset_names(), *model_names(), *configs]
        file = columns.get("model")  # a config file by its path, or a model's own
        own_file = isinstance(file, str) and (file.endswith(SUFFIXES) or is_source(file))
        models += [str(file)] if own_file and check != "training" else []
    asked = _asked(columns, models)
    whole = own is None and check not in (EXTRACTORS, "training")
    row = _resolved(asked, configs, known) if whole else Row(asked=asked, config=None)
    return replace(row, kind=kind, measured=kinds[kind], seconds=seconds)


def _asked(row: Mapping[str, Any], models: Sequence[str]) -> Asked:
    where = f"the row {show(dict(row))}"
    if row.get("model") not in models:
        raise ConfigError(f"{where}: {unknown('model', row.get('model'), models)}", code="suite-word-unknown")
    asked = Asked(**_fields(row, Asked, where))
    numbered = _NUMBERED.fullmatch(asked.device)
    for key, value, known in (
        ("precision", asked.precision, PRECISIONS), ("device", numbered[1] if numbered else asked.device, DEVICES),
    ):  # fmt: skip
        if value not in known:
            raise ConfigError(f"{where}: {unknown(key, value, known)}", code="suite-word-unknown")
    for key, most in (("steps", 10_000), ("batch", 2**20), ("size", 2**14)):
        within(1, most, {f"{where}: {key}": getattr(asked, key)})
    within(-1000.0, 1000.0, {f"{where}: guidance": asked.guidance})
    if isinstance(asked.fast, Mapping):
        _known(asked.fast, PARTS, f"{where}: fast")
    return replace(asked, guidance=None if asked.guidance is None else float(asked.guidance))


def _resolved(asked: Asked, configs: Mapping[str, Any], known: dict[str, Resolved]) -> Row:
    """The row with its pipeline written out."""
    given = configs.get(asked.model, asked.model)
    shortcuts = {"sampler": asked.sampler, "steps": asked.steps, "guidance": asked.guidance}
    key = json.dumps([given, shortcuts, asked.step_cache], sort_keys=True)
    try:
        if key not in known:
            found = resolve(given, None, shortcuts)
            if asked.step_cache is not None:
                stages = range(len(found.config["stages"]))
                found = resolve(found, {f"stages.{i}.step_cache": asked.step_cache for i in stages})
            known[key] = found
    except WeightsError as error:
        return Row(asked=asked, config=None, reason=str(error))
    except ZooError as error:
        raise ConfigError(f"the row '{asked.name}': {error}", code=error.code) from error
    return Row(asked=asked, config=known[key].config, resolved=known[key])


def random_weights(config: Mapping[str, Any]) -> bool:
    """Whether any network of a pipeline has fresh weights: then only its speed can be measured."""
    known = registry()
    blocks = [("autoencoder", s["autoencoder"]) for s in config["stages"]]
    blocks += [("conditioner", b) for b in config["conditioners"].values()]
    return any("weights" not in s["denoiser"] for s in config["stages"]) or any(
        "weights" not in b and not known.entry(kind, b["name"]).signature().constants.get("weightless")
        for kind, b in blocks
    )


def _known(block: Any, keys: Sequence[str], where: str) -> None:
    """ConfigError unless it is a mapping of these keys."""
    if not isinstance(block, Mapping):
        raise ConfigError(f"{where} is {show(block)}; write a mapping of {', '.join(keys)}", code="suite-value-invalid")
    for key in block:
        if key not in keys:
            raise ConfigError(f"{where}: {unknown('key', key, keys)}", code="suite-key-unknown")


def _list(plain: Mapping[str, Any], key: str) -> Sequence[Any]:
    found = plain.get(key) or []
    if not isinstance(found, list):
        raise ConfigError(f"{key} is {show(found)}; write a list of mappings", code="suite-value-invalid")
    return found


def _fields(block: Any, kind: type, where: str) -> dict[str, Any]:
    """A mapping of values, each one that a field of `kind` takes."""
    known = {p.name: p for p in read_signature(f"{kind.__module__}:{kind.__name__}").parameters}
    _known(block, tuple(known), where)
    for key, value in block.items():
        if not fits(value, known[key]):
            raise ConfigError(
                f"{where}: {key} takes {wanted(known[key])}, not {show(value)}", code="suite-value-invalid"
            )
    return dict(block)


def known_extractors() -> list[str]:
    """What may judge: weights of kind extractor, and extractors that are components."""
    from zoo.config.cards import card_names, read_card

    return [n for n in card_names() if read_card(n).kind == "extractor"] + registry().names("extractor")
