"""Codes of errors: each is in the source as a literal, in docs/errors.md with its meaning, and outlives a pickle."""

import ast
import json
import pickle

import pytest

from benchmarks import error_codes
from benchmarks.error_codes import PAGE, Site, Unclear
from tests.refusals import refused
from zoo.cli.main import run
from zoo.schema.errors import ConfigError, UsageError, WeightsError, ZooError


def read(source):
    return list(error_codes.sites({"zoo/errors.py": ast.parse("class ZooError: ..."), "zoo/a.py": ast.parse(source)}))


def test_every_error_has_a_code_and_the_page_lists_it():
    assert error_codes.faults(PAGE.read_text("utf-8")) == []


def test_there_are_many_places_and_fewer_codes():
    found = list(error_codes.sites(error_codes.sources()))
    assert len(found) > 900
    assert len({site.code for site in found}) < len(found) / 2
    assert {site.kind for site in found} == {
        "ZooError",
        "UsageError",
        "ConfigError",
        "WeightsError",
        "NumericError",
        "Unavailable",
    }


@pytest.mark.parametrize(
    ("source", "why"),
    [
        ("raise ZooError('no')", "no code"),
        ("raise ZooError", "a class is raised"),
        ("raise ZooError('no', code=f'{kind}-unknown')", "no literal"),
        ("raise ZooError('no', code=known.code)", "no literal"),
        ("raise ZooError('no', code='Steps')", "kebab-case"),
        ("raise ZooError('no', code='steps')", "two words"),
        ("class Other(ZooError): ...\nraise Other('no')", "no code"),
        ("raise type(error)('no') from error", "no code"),
        ("def refuse(code):\n    return ZooError('no', code=code)\nraise refuse(code=word)", "no literal"),
        ("def refuse(code):\n    return ZooError('no', code=code)\nraise refuse()", "no code"),
        ("def refuse(word):\n    return ZooError('no', code=word)", "no literal"),
    ],
)
def test_a_place_without_a_literal_code_is_found(source, why):
    (found,) = read(source)
    assert isinstance(found, Unclear)
    assert why in found.why


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("raise ZooError(f'{a} is no {b}', code='steps-odd')", ("ZooError", "steps-odd", "… is no …")),
        ("class Other(ZooError): ...\nerror = Other('no', code='steps-odd')", ("Other", "steps-odd", "no")),
        (
            "raise ZooError(unknown('key', k, K), code='key-unknown')",
            ("ZooError", "key-unknown", "unknown key '…', did you mean '…'?"),
        ),
        (
            "def refuse(why, code):\n    return ZooError(why, code=code)\nraise refuse('odd', code='steps-odd')",
            ("ZooError", "steps-odd", "odd"),
        ),
    ],
)
def test_a_place_is_read_with_its_class_code_and_sentence(source, found):
    assert read(source) == [Site(read(source)[0].where, *found)]


def test_the_code_of_a_handled_error_goes_on():
    assert read("raise ZooError(f'{where}: {error}', code=error.code) from error") == []
    assert read("raise type(error)(f'{where}: {error}', code=error.code) from error") == []


def test_a_page_that_lacks_a_code_or_has_one_too_many_is_refused():
    page = PAGE.read_text("utf-8")
    row = next(line for line in page.splitlines() if line.startswith("| `steps-out-of-range`"))
    without, more = page.replace(row + "\n", ""), page.replace(row, row + "\n" + row.replace("steps-out", "steps-in"))
    assert "docs/errors.md: 'steps-out-of-range' has no meaning" in error_codes.faults(without)
    assert len(error_codes.faults(more)) == 1
    assert error_codes.written(more) == page


def test_an_error_keeps_its_code_through_a_pickle():
    for kind in (ZooError, UsageError, ConfigError, WeightsError):
        again = pickle.loads(pickle.dumps(kind("no such file", code="file-missing")))
        assert (type(again), str(again), again.code) == (kind, "no such file", "file-missing")


def test_an_error_of_a_plugin_needs_no_code():
    assert UsageError("no such thing; give another").code == "unclassified"


def test_the_command_line_says_the_code(capsys):
    assert run(["describe", "sampler/nothing"]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith("error: unknown ")
    assert told.err.endswith(" [component-unknown]\n")


def test_json_has_the_code(capsys):
    assert run(["describe", "sampler/nothing", "--json"]) == 2
    told = capsys.readouterr()
    said = json.loads(told.out)
    assert (said["schema"], said["code"], said["exit_code"]) == ("zoo.error/1", "component-unknown", 2)
    assert told.err == f"error: {said['error']} [component-unknown]\n"


def test_an_error_told_as_json_already_is_not_told_again(tmp_path, capsys):
    assert run(["replay", str(tmp_path / "a.png"), "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "file-missing"


def test_a_refusal_of_another_code_class_or_thing_fails_the_test():
    with refused("file-missing", UsageError, naming="such"):
        raise UsageError("no such file", code="file-missing")
    for code, kind, naming in (("file-large", UsageError, ""), ("file-missing", UsageError, "tar")):
        with pytest.raises(AssertionError), refused(code, kind, naming=naming):
            raise UsageError("no such file", code="file-missing")
    with pytest.raises(UsageError), refused("file-missing", WeightsError):
        raise UsageError("no such file", code="file-missing")
