"""`zoo prompts`: what can be requested of a model."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Mapping
from itertools import groupby
from typing import Annotated, Any

import typer

from zoo.cli.generate import DEFAULT_MODEL
from zoo.cli.say import say

MORE = 5  # names that are shown of each word that is like an unknown one


def prompts(
    word: Annotated[str | None, typer.Argument(help="Names with this word or emoji; an overview if not given.")] = None,
    model: Annotated[str, typer.Option(help="A pipeline's name or a config file.")] = DEFAULT_MODEL,
    as_json: Annotated[bool, typer.Option("--json", help="Print all of them as JSON.")] = False,
) -> None:
    """Show what a model knows: the names that its pictures have, and its styles."""
    from zoo.conditioners.words import words_of
    from zoo.config.check import resolve
    from zoo.schema.errors import UsageError

    resolved = resolve(model)
    known = words_of(resolved)
    if not known:
        labels = _labels(resolved.config)
        if not labels:
            raise UsageError(
                f"'{model}' has no list of what it knows; `zoo describe {model}` says what it takes",
                code="words-unlisted",
            )
        labels = [label for label in labels if (word or "").lower() in label.lower()]
        if not labels:
            raise UsageError(f"'{model}' knows no class called '{word}'", code="label-unknown")
        typer.echo(json.dumps({"labels": labels}) if as_json else "\n".join(labels))
        return
    words, terminal = known[0], sys.stdout.isatty()
    found = words.find(word) if word else list(words.names)
    if as_json:
        names = [{"name": n.name, "emoji": n.emoji, "group": n.group, "keywords": n.keywords} for n in found]
        typer.echo(json.dumps({"styles": words.styles, "names": names}, ensure_ascii=False))
        return
    if word and not found:
        near = words.near(word)
        alike = f"; alike are {', '.join(near)}" if near else ""
        say(f"note: '{model}' knows nothing called '{word}'{alike}", err=True)
        found = list(dict.fromkeys(name for other in near for name in words.find(other)[:MORE])) or list(words.names)
    own = "" if model == DEFAULT_MODEL else f" --model {shlex.quote(model)}"
    if word or not terminal:
        from zoo.cli.table import print_table

        table = [("prompt", "emoji", "group"), *((n.name, n.emoji, n.group) for n in found)]
        columns = [column for column in zip(*table, strict=True) if any(column[1:]) or not terminal]
        head, *rows = zip(*columns, strict=True)
        print_table(head, rows)
    else:
        for group, members in groupby(sorted(found, key=lambda n: n.group), key=lambda n: n.group):
            listed = [n.name for n in members]
            some = listed[:: max(1, len(listed) // 8)][:8]
            say(f"{group} ({len(listed)}): {', '.join(some)}, ..." if group else "\n".join(some), err=False)
        say(
            f"\n{len(found)} names; `zoo prompts WORD{own}` shows those with a word, `zoo prompts{own} | less` all",
            err=False,
        )
    if word or terminal:
        # With a word it is for people, wherever it goes; in a pipe the rows alone are on standard output.
        if words.styles:
            say("styles: " + ", ".join(f"'{style} style'" for style in words.styles), err=not terminal)
        styled = f", {words.styles[0]} style" if words.styles else ""
        typer.echo(f'as in: zoo generate "{found[0].name}{styled}"{own}', err=not terminal)


def _labels(config: Mapping[str, Any]) -> list[str]:
    """The names of the classes, where a conditioner has them."""
    blocks = [b for b in (config.get("conditioners") or {}).values() if isinstance(b, Mapping)]
    return [str(name) for block in blocks for name in block.get("names") or ()]
