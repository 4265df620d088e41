"""Reading YAML from strangers: plain values, or one typed error; nothing runs and nothing hangs."""

import json
import math
import os
import subprocess
import sys
import textwrap
from itertools import pairwise

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.refusals import refused
from zoo.schema import safe_yaml
from zoo.schema.errors import ConfigError
from zoo.schema.safe_yaml import MAX_BYTES, MAX_DEPTH, MAX_NODES, parse_yaml, read_mapping, read_yaml, to_yaml

HOSTILE = {
    "python name tag": "!!python/name:os.system ''",
    "python apply": "!!python/object/apply:os.system ['touch {canary}']",
    "python new": "!!python/object/new:subprocess.Popen [['touch', '{canary}']]",
    "python module": "!!python/module:antigravity ''",
    "python object state": "!!python/object:zoo.schema.registry.Registry {{_entries: 1}}",
    "python tuple": "a: !!python/tuple [1, 2]",
    "custom tag": "a: !run [touch, '{canary}']",
    "verbatim tag": "a: !<tag:yaml.org,2002:python/object/apply:os.system> ['touch {canary}']",
    "tag directive": "%TAG ! tag:yaml.org,2002:python/object/apply:\n---\n!os.system ['touch {canary}']",
    "core tag": "a: !!str 5",
    "binary tag": "a: !!binary aGVsbG8=",
    "set tag": "a: !!set {{1, 2}}",
    "tag on a key": "!!python/name:os.system '': 1",
    "anchor": "a: &x [1]",
    "anchor on the root": "&x {{a: 1}}",
    "alias": "a: &x 1\nb: *x",
    "alias without anchor": "a: *x",
    "alias bomb": "a: &a [1]\n" + "".join(f"{b}: &{b} [*{a},*{a},*{a}]\n" for a, b in pairwise("abcdefghi")),
    "merge of an alias": "a: &x {{b: 1}}\nc: {{<<: *x}}",
    "itself": "&x [*x]",
    "duplicate key": "a: 1\nb: 2\na: 3",
    "duplicate nested key": "x: {{a: 1, a: 2}}",
    "duplicate by quotes": "{{1: x, '1': y}}",
    "list as key": "[1, 2]: 3",
    "mapping as key": "? {{a: 1}}\n: 2",
    "empty key": ": 1",
    "two documents": "a: 1\n---\na: 2",
    "nul": "a: \0",
    "control": "a: \x1b[2J",
    "not closed": "a: [1, 2",
    "not quoted": 'a: "b',
    "tab": "a:\n\t- b",
    "huge integer": "a: " + "9" * 5000,
    "huge float": "a: 1e999",
    "infinity": "a: .inf",
    "not a number": "a: .nan",
    "flow depth": "[" * 40,
    "closed flow depth": "[" * 40 + "]" * 40,
    "very deep flow": "[" * 100_000,
    "very deep mapping": "{{a: " * 50_000,
    "block depth": "\n".join(" " * i + "a:" for i in range(100)),
    "deep sequence": "- " * 5000,
    "many values": "[" + "1," * (MAX_NODES + 1) + "]",
    "many keys": "\n".join(f"k{i}: {i}" for i in range(MAX_NODES)),
    "too large": "#" * (MAX_BYTES + 1),
}  # fmt: skip


REFUSED = (
    "file-too-large|yaml-key-invalid|yaml-key-repeated|yaml-number-invalid|yaml-refused|yaml-too-large|yaml-unreadable"
)


@pytest.mark.slow
@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_is_refused_by_name_and_runs_nothing(tmp_path, text):
    canary = tmp_path / "canary"
    path = tmp_path / "evil.yaml"
    path.write_text(text.format(canary=canary) if "{canary}" in text or "{{" in text else text)
    with refused(REFUSED, ConfigError, naming="evil.yaml"):
        read_yaml(path)
    assert not canary.exists()


BINARY = {
    "random": bytes(range(256)) * 4,
    "utf-16": "a: 1".encode("utf-16"),
    "truncated utf-8": "a: ä".encode()[:-1],
    "pickle": b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "zip": b"PK\x03\x04" + b"\0" * 40,
}


@pytest.mark.parametrize("content", BINARY.values(), ids=BINARY.keys())
def test_a_binary_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "evil.yaml"
    path.write_bytes(content)
    with refused("yaml-unreadable", naming="evil.yaml"):
        read_yaml(path)


def test_nothing_is_run_opened_or_imported_while_hostile_texts_are_read(tmp_path):
    """An audit hook in a fresh interpreter sees no process, no socket, no import and no file but the canary check's."""
    cases = tmp_path / "cases.json"
    cases.write_text(json.dumps([t for t in HOSTILE.values() if len(t) < 10_000]))
    script = textwrap.dedent(
        """
        import json, sys
        from zoo.schema.safe_yaml import parse_yaml
        from zoo.schema.errors import ConfigError
        parse_yaml("a: 1", source="warm-up")
        try:
            parse_yaml("a: [", source="warm-up")
        except ConfigError:
            pass
        cases = json.load(open(sys.argv[1]))
        seen, watch = [], False
        def hook(event, args):
            watched = {"os", "subprocess", "socket", "import", "open", "exec", "compile", "ctypes"}
            if watch and event.split(".")[0] in watched:
                seen.append((event, str(args)[:100]))
        sys.addaudithook(hook)
        watch = True
        refused = 0
        for text in cases:
            try:
                parse_yaml(text, source="case")
            except ConfigError:
                refused += 1
        watch = False
        assert not seen, seen
        print(refused)
        """
    )
    done = subprocess.run([sys.executable, "-c", script, str(cases)], capture_output=True, text=True, cwd=os.getcwd())
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 30


def test_limits_are_told_with_file_and_line():
    with refused("yaml-key-repeated", naming="'x.yaml'"):
        parse_yaml("a: 1\nb: 2\na: 3", source="x.yaml")
    with refused("yaml-unreadable", naming="'x.yaml'"):
        parse_yaml("a: 1\nb: ]", source="x.yaml")


def test_what_is_within_the_limits_is_read():
    deep = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert json.dumps(parse_yaml(deep, source="x")) == deep
    assert len(parse_yaml("[" + "1," * (MAX_NODES - 1) + "]", source="x")) == MAX_NODES - 1


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1.5e3", 1500.0), ("-.5", -0.5), ("3", 3), ("-7", -7), ("0x10", 16), ("0o10", 8), ("1.", 1.0),
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("off", "off"), ("true", True), ("False", False), ("null", None),
        ("~", None), ("", None), ("'1'", "1"), ('"true"', "true"), ("2026-01-01", "2026-01-01"), ("1_000", "1_000"),
        ("12:30:45", "12:30:45"), ("0b1", "0b1"), ("-", None), ("1.2.3", "1.2.3"), ("<<", "<<"), ("+1", 1),
        ("[1, a, null]", [1, "a", None]), ("{a: {b: 1.0}}", {"a": {"b": 1.0}}), ("{on: 1, 2: x}", {"on": 1, "2": "x"}),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text, value):
    read = parse_yaml(text, source="x") if text != "-" else None
    assert read == value
    assert type(read) is type(value)


def test_a_file_that_is_none_is_refused_by_name(tmp_path):
    for path in (tmp_path / "absent.yaml", tmp_path):
        with refused("file-missing", ConfigError, naming=path.name):
            read_yaml(path)
    fifo = tmp_path / "fifo.yaml"
    os.mkfifo(fifo)
    with refused("file-missing", ConfigError, naming="regular"):
        read_yaml(fifo)
    with refused("file-missing", ConfigError):
        read_yaml("a\0b")
    scalar = tmp_path / "scalar.yaml"
    scalar.write_text("5")
    with refused("yaml-not-a-mapping"):
        read_mapping(scalar)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(PLAIN)
@example(["0E0", "1e5", "0o7", "12", "1.5", "-.5", "no", "null", "~", "2026-11-21"])
def test_what_yaml_writes_is_read_back(value):
    text = to_yaml(value)
    back = parse_yaml(text, source="x")
    assert back == value


# JSON writes what lies beyond U+FFFF as surrogate pairs, which YAML refuses.
JSON_TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), min_size=1, max_size=10)


@pytest.mark.slow
@settings(max_examples=150, deadline=None)
@given(
    st.dictionaries(JSON_TEXT, JSON_TEXT | st.integers(-(10**12), 10**12) | st.booleans() | st.floats(-1e300, 1e300))
)
def test_what_json_writes_is_read_back(value):
    assert parse_yaml(json.dumps(value), source="x") == value


TOKENS = st.sampled_from(
    ["a", "1", ":", ": ", "\n", "  ", "- ", "[", "]", "{", "}", ",", "&a", "*a", "!", "!!", "|", ">", "'", '"', "#",
     "%", "?", "---", "...", "1e5", "\t", "é", "\x00", "<<", "null", "!!python/name:os.system"]
)  # fmt: skip


@pytest.mark.slow
@settings(max_examples=400, deadline=None)
@given(st.lists(TOKENS, max_size=40).map("".join) | st.text(max_size=60) | st.binary(max_size=60))
@example("[" * 200)
@example("? ? ? a")
@example(b"\xef\xbb\xbfa: 1")
@example("\ud800")
def test_any_text_gives_a_plain_value_or_a_typed_error(text):
    try:
        value = parse_yaml(text, source="fuzz")
    except ConfigError as error:
        said = str(error)
    else:
        _assert_plain(value)
        return
    assert "fuzz" in said


def _assert_plain(value, depth=0):
    assert depth <= MAX_DEPTH
    if isinstance(value, dict):
        assert all(type(key) is str for key in value)
        for inner in value.values():
            _assert_plain(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            _assert_plain(inner, depth + 1)
    else:
        assert value is None or type(value) in (str, int, bool) or (type(value) is float and math.isfinite(value))


def test_the_pure_python_parser_has_the_same_limits(monkeypatch):
    monkeypatch.delattr(yaml, "CSafeLoader", raising=False)
    for text in ("[" * 100_000, "a: &x 1", "!!python/name:os.system ''", "a: 1\na: 2", "- " * 5000, "a: \0"):
        with pytest.raises(ConfigError):
            safe_yaml.parse_yaml(text, source="x")
    assert parse_yaml("a: 1e-4", source="x") == {"a": 1e-4}
