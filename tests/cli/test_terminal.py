"""What a terminal of 80 columns shows: whole words, no line over its width but a path's, and no raw Python."""

import re

import pytest

from zoo.cli.main import VERBS, run
from zoo.cli.say import wrapped

WIDTH = 80


class Screen:
    """A terminal that keeps what was written to it."""

    def __init__(self):
        self.text = ""

    def isatty(self):
        return True

    def write(self, text):
        self.text += text

    def flush(self):
        pass


@pytest.fixture
def screens(monkeypatch):
    """Runs a command at a terminal of 80 columns; what it printed on stdout and on stderr."""

    def printed(*words):
        monkeypatch.setenv("COLUMNS", str(WIDTH))
        monkeypatch.setenv("TERM", "dumb")
        out, err = Screen(), Screen()
        monkeypatch.setattr("sys.stdout", out)
        monkeypatch.setattr("sys.stderr", err)
        code = run(list(words))
        monkeypatch.undo()
        return code, out.text, err.text

    return printed


def test_words_stay_whole_and_lines_keep_their_indent():
    text = "error: " + "speaking " * 12 + "/a/path/that/is/longer/than/a/line/is/wide"
    assert set(" ".join(wrapped(text, 30).split()).split()) == set(text.split())
    assert max(map(len, wrapped("word " * 40, 30).splitlines())) <= 30
    assert wrapped("  key: " + "a " * 20, 20).splitlines()[1].startswith("    a")


def test_an_error_breaks_between_words(screens):
    code, _, err = screens("generate", "spaceman spaceship spacewalk spacetime")
    assert code == 2
    assert max(map(len, err.splitlines())) <= WIDTH
    assert set(err.split()) >= {"'spaceman'", "`zoo", "[word-unknown]"}


@pytest.mark.parametrize("verb", [v for v in VERBS if v not in ("data", "plugin")])
def test_help_fits_and_is_not_cut_off(screens, verb):
    code, out, _ = screens(verb, "--help")
    assert code == 0
    assert max(map(len, out.splitlines())) <= WIDTH
    assert "…" not in out
    body = re.search(r"Options:\n(.*)", out, re.DOTALL)[1].splitlines()
    column = max(len(m[0]) for line in body if (m := re.match(r"  -.*?  +(?=\S)|  +(?=\S)", line)))
    assert WIDTH - column >= 45, "the help is squeezed"


def test_the_first_page_says_whole_sentences(screens):
    _, out, _ = screens("--help")
    assert "..." not in out.split("Commands:")[1]
    assert max(map(len, out.splitlines())) <= WIDTH


def test_describe_shows_yaml(screens):
    for name in ("cascade-text2img", "weights/emoji-base-32", "model/sd-1.5"):
        code, out, _ = screens("describe", name)
        assert code == 0
        assert "{'" not in out
        long = [line for line in out.splitlines() if len(line) > WIDTH]
        assert all(len(line.split()) == 1 or "/" in line for line in long), long
    assert "- {name: classifier-free, scale: 4.0}" in screens("describe", "cascade-text2img")[1]
