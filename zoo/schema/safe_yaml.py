"""Untrusted YAML (and JSON, which is YAML): plain values or a ConfigError naming file and line, nothing else.

`yaml.safe_load` runs no code, but hangs on alias bombs, keeps the last of duplicate keys, overflows the stack on
deep nesting, and reads `1e-4` as text and `no` as false. Here PyYAML only splits the text into events; the values
are built from them by a loop without recursion, under limits that are checked as the events arrive:

- at most 1 MiB, 32 levels, 50,000 values; one document; no anchors, aliases or tags; no duplicate keys;
- YAML 1.2 core scalars: `1e-4` is a float, `yes`, `no`, `on`, `off` and dates are text; numbers are finite;
- keys are text, as written.
"""

from __future__ import annotations

import math
import re
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from zoo.schema.errors import ConfigError

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_NODES = 50_000

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_WORDS: dict[str, Any] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_MAX_DIGITS = 400  # Python refuses int() above 4300; no config needs more than a float holds


@dataclass
class _Open:
    """A list or mapping that is being read."""

    value: list[Any] | dict[str, Any]
    lines: dict[str, int] = field(default_factory=dict)
    key: str | None = None


def read_yaml(path: Path | str) -> Any:
    """The value of a YAML or JSON file."""
    path = Path(path)
    if not path.is_file():
        reason = "is not a regular file" if path.exists() else "does not exist"
        raise ConfigError(f"the file '{path}' {reason}; give the path of a YAML file", code="file-missing")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ConfigError(
            f"the file '{path}' can't be read ({error.strerror}); check its permissions", code="file-unreadable"
        ) from error
    return deepcopy(_known(content, str(path)))


@lru_cache(maxsize=32)
def _known(content: bytes, source: str) -> Any:
    """A file's value; the rows of a suite name the same files over and over."""
    return parse_yaml(content, source=source)


def read_mapping(path: Path | str) -> dict[str, Any]:
    """The mapping that a YAML or JSON file holds."""
    value = read_yaml(path)
    if not isinstance(value, dict):
        raise ConfigError(f"'{path}' holds no mapping; write `key: value` lines", code="yaml-not-a-mapping")
    return value


def parse_yaml(text: str | bytes, *, source: str) -> Any:
    """The value of a YAML text; `source` is its name in errors."""
    size = len(text)
    if size > MAX_BYTES:
        raise ConfigError(
            f"'{source}' is larger than {MAX_BYTES} bytes; a config is text of some kilobytes", code="file-too-large"
        )
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        decoded.encode("utf-8")  # lone surrogates, from undecodable command lines
    except UnicodeError as error:
        raise ConfigError(
            f"'{source}' is not UTF-8 text ({error}); a config is YAML or JSON", code="yaml-unreadable"
        ) from error
    return _parse(decoded, source)


def parse_value(text: str, *, source: str) -> Any:
    """A value of the command line (`--set key=value`), read as YAML."""
    return parse_yaml(text, source=source)


def _parse(text: str, source: str) -> Any:
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return _build(yaml.parse(text, Loader=loader), source)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise ConfigError(
            f"'{source}'{line} is not YAML: {error.problem or error.context}", code="yaml-unreadable"
        ) from error
    except yaml.YAMLError as error:  # characters that YAML doesn't allow
        line = text.count("\n", 0, getattr(error, "position", None) or 0) + 1
        reason = getattr(error, "reason", None) or "it can't be read"
        raise ConfigError(f"'{source}', line {line} is not YAML: {reason}", code="yaml-unreadable") from error


def _build(events: Any, source: str) -> Any:
    """Events -> value. The stack is a list, so depth costs no Python frames."""
    import yaml

    stack: list[_Open] = []
    result: Any = None
    documents = nodes = 0
    for event in events:
        line = event.start_mark.line + 1

        def refuse(reason: str, *, code: str, line: int = line) -> ConfigError:
            return ConfigError(f"'{source}', line {line}: {reason}", code=code)

        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                raise refuse("a second document starts here; keep one document a file", code="yaml-refused")
            continue
        if isinstance(event, yaml.AliasEvent):
            raise refuse("aliases (*name) are not allowed; write the value out", code="yaml-refused")
        if isinstance(event, yaml.NodeEvent):
            if event.anchor is not None:
                raise refuse("anchors (&name) are not allowed; write the value out", code="yaml-refused")
            tag = getattr(event, "tag", None)
            if tag is not None:
                raise refuse(
                    f"tags are not allowed ({tag[:60]}); write a plain value, in quotes if it is text",
                    code="yaml-refused",
                )
            nodes += 1
            if nodes > MAX_NODES:
                raise refuse(f"more than {MAX_NODES} values; a config has some hundreds", code="yaml-too-large")
        if isinstance(event, yaml.ScalarEvent):
            value: Any = event.value
            awaits_key = bool(stack) and isinstance(stack[-1].value, dict) and stack[-1].key is None
            if event.implicit[0] and not awaits_key:
                value = _plain(event.value, refuse)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            if len(stack) >= MAX_DEPTH:
                raise refuse(f"nested deeper than {MAX_DEPTH} levels; a config needs few", code="yaml-too-large")
            if stack and isinstance(stack[-1].value, dict) and stack[-1].key is None:
                raise refuse("a list or mapping is used as a key; keys are text", code="yaml-key-invalid")
            stack.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}))
            continue
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            value = stack.pop().value
        else:
            continue

        if not stack:
            result = value
            continue
        parent = stack[-1]
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            if not value:
                raise refuse("a key is empty; keys are text", code="yaml-key-invalid")
            if value in parent.lines:
                raise refuse(
                    f"the key '{value[:60]}' is there already, in line {parent.lines[value]}; keep one",
                    code="yaml-key-repeated",
                )
            parent.key, parent.lines[value] = value, line
        else:
            parent.value[parent.key] = value
            parent.key = None
    return result


def _plain(text: str, refuse: Any) -> Any:
    """An unquoted scalar by the YAML 1.2 core schema."""
    if text in _WORDS:
        return _WORDS[text]
    if not (text[0].isdecimal() or text[0] in "+-."):
        return text
    if _NOT_FINITE.fullmatch(text):
        raise refuse(f"'{text}' is not a finite number; leave the key out or write null", code="yaml-number-invalid")
    # Check the length first: both patterns and int() are linear or worse in it.
    whole = _INT.fullmatch(text)
    if (whole or _FLOAT.fullmatch(text)) and len(text) > _MAX_DIGITS:
        raise refuse(f"a number of {len(text)} digits; quote it if it is text", code="yaml-number-invalid")
    if whole:
        base = {"0x": 16, "0o": 8}.get(text[:2], 10)
        return int(text[2:] if base != 10 else text, base)
    if _FLOAT.fullmatch(text):
        number = float(text)
        if not math.isfinite(number):
            raise refuse(f"'{text}' is too large for a number; quote it if it is text", code="yaml-number-invalid")
        return number
    return text


def to_yaml(value: Any, *, width: int = 110, compact: bool = False) -> str:
    """Plain values as YAML that reads back as the same: text that is a number in YAML 1.2 is quoted.

    Args:
        compact: the innermost mappings and lists on one line, like {a: 1}.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    for kind, pattern in (("int", _INT), ("float", _FLOAT)):
        whole = re.compile(f"(?:{pattern.pattern})$")
        Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{kind}", whole, list("-+.0123456789"))
    return yaml.dump(
        value, Dumper=Dumper, sort_keys=False, width=width, default_flow_style=None if compact else False,
        allow_unicode=compact,
    )  # fmt: skip
