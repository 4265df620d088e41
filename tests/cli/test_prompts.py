"""`zoo prompts`: what a model can be asked for."""

from __future__ import annotations

import json

import pytest

from zoo.cli.main import run


def test_names_with_a_word_are_listed(capsys):
    assert run(["prompts", "wolf"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].split("\t")[0] == "wolf"
    assert "'noto style'" in shown.err  # in a pipe the rows alone are on standard output
    assert "style" not in shown.out


def test_without_a_word_all_are_listed_for_a_program(capsys):
    assert run(["prompts", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "3d" in found["styles"]
    assert len(found["names"]) > 1000
    assert run(["prompts"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(found["names"])


def test_people_get_an_overview(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert run(["prompts"]) == 0
    shown = capsys.readouterr().out
    assert "food-drink" in shown
    assert "'3d style'" in shown
    assert len(shown.splitlines()) < 40
    assert max(map(len, shown.splitlines())) <= 80


def test_names_come_before_keywords_and_no_part_of_another_word(capsys):
    """A leopard is a cat by a keyword; nothing that is caught is one, and no application."""
    assert run(["prompts", "cat"]) == 0
    found = [line.split("\t")[0] for line in capsys.readouterr().out.splitlines()]
    assert found[:3] == ["black cat", "cat", "cat face"]
    assert "leopard" in found
    assert not {"hook", "identification card", "person playing handball"} & set(found)


def test_classes_are_listed_where_a_model_has_them(capsys):
    assert run(["prompts", "--model", "class2img"]) == 0
    assert "food-drink" in capsys.readouterr().out.splitlines()
    assert run(["prompts", "drink", "--model", "class2img"]) == 0
    assert capsys.readouterr().out.splitlines() == ["food-drink"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--model", "upscale-2x"], "no list"),
        (["--model", "nothing"], "nothing"),
        (["cats", "--model", "class2img"], "no class called 'cats'"),
    ],
)
def test_what_is_not_there_is_one_sentence(capsys, words, sentence):
    assert run(["prompts", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_an_unknown_word_lists_names_of_words_like_it(capsys):
    assert run(["prompts", "appel"]) == 0
    told = capsys.readouterr()
    assert told.err.startswith("note: 'cascade-text2img' knows nothing called 'appel'; alike are apple")
    assert "red apple" in [line.split("\t")[0] for line in told.out.splitlines()]
    assert run(["prompts", "qqqqq", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["names"] == []
