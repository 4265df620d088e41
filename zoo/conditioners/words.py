"""The words that a model's data used: how a prompt is read by them, and what is unusual about it.

A file of words (`words:` of a card, schema zoo.words/1) lists the names that images of the data have, each with its
emoji character and keywords, and the styles. With it prompts are read in the words of the data: an emoji character
becomes its name, a plural the singular. Words that no caption had are refused with similar words that captions do have,
and prompts that can be drawn but are unlike the captions (another style, several things at once) get a note. Training
writes such a file beside a text tower's weights (`of_captions`).
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.schema import strict_json
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.files import read_plain

if TYPE_CHECKING:
    from zoo.config.check import Resolved

SCHEMA = "zoo.words/1"
LARGEST = 8 << 20  # bytes of a file of words
NEAR = 0.6  # difflib's ratio from which a word is suggested
SUGGESTIONS = 3
# Words of a sentence that carry no content.
SMALL_WORDS = frozenset({"a", "an", "the", "in", "of", "on", "with", "and", "at", "to", "for"})
COLOURS = frozenset({
    "red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white", "grey", "gray", "gold",
    "golden", "silver", "light", "dark",
})  # fmt: skip
# Words that say how something is drawn, not what.
LOOKS = frozenset({
    "watercolor", "watercolour", "photo", "photograph", "photorealistic", "realistic", "realism", "sketch",
    "doodle", "drawing", "illustration", "crayon", "charcoal", "ink", "lineart", "outline", "monochrome",
    "grayscale", "greyscale", "anime", "manga", "comic", "cartoonish", "clipart", "vector", "minimalist", "lowpoly",
    "pixel", "pixelart", "pixelated", "render", "rendered", "cgi", "isometric", "claymation", "impressionist",
    "surrealist", "cubist", "vintage", "retro", "cinematic", "blackwhite",
})  # fmt: skip
FEW = 24  # words that are all listed where one is like none of them
IRREGULAR = {
    "mice": "mouse", "geese": "goose", "feet": "foot", "teeth": "tooth", "men": "man", "women": "woman",
    "children": "child", "people": "person", "oxen": "ox", "dice": "die", "fishes": "fish",
}  # fmt: skip
_WORD = re.compile(r"[^\s,.;:!?()\"]+")
_STYLE = re.compile(r"(?:^|,|\bin\b)\s*(?P<phrase>[^,]*?)\s*\bstyle\b", re.IGNORECASE)
_ENDS_IN_STYLE = re.compile(r"(?P<name>.+)(?:,| in) +(?:an? |the )?(?P<style>(?:(?! in )[^,])+?) style", re.IGNORECASE)
_TEXT_LOOK = "\ufe0f\ufe0e"  # only selects whether a character is shown in colour


@dataclass(frozen=True)
class Name:
    """A name of images of the data."""

    name: str
    emoji: str
    group: str
    keywords: tuple[str, ...]

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of the name and its keywords, in lower case."""
        return frozenset(_parts(" ".join((self.name, *self.keywords))))


@dataclass(frozen=True)
class Reading:
    """A prompt as it is read: `text` goes to the model; `unknown` has a hint for each unknown word."""

    text: str
    notes: tuple[str, ...] = ()
    unknown: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Words:
    """The names and styles of a model's data; see the module."""

    names: tuple[Name, ...]
    styles: tuple[str, ...]  # "3d", as in "red apple, 3d style"

    @cached_property
    def known(self) -> frozenset[str]:
        """Every word that a caption may have."""
        styles = _parts(" ".join((*self.styles, "style"))) if self.styles else ()
        return frozenset().union(*(name.words for name in self.names), styles, SMALL_WORDS)

    @cached_property
    def _emoji(self) -> dict[str, str]:
        return {_plain(name.emoji): name.name for name in self.names if name.emoji}

    @cached_property
    def _characters(self) -> re.Pattern[str]:
        """The emoji characters, longest first: one may begin another."""
        longest = sorted((e for e in self._emoji if not e.isascii()), key=len, reverse=True)
        return re.compile("|".join(map(re.escape, longest)) or "(?!)")

    def read(self, prompt: str) -> Reading:
        """The prompt in words of the data, what to say about it, and the words that no caption had."""
        notes: list[str] = []
        text = self._named(prompt, notes)
        unknown: dict[str, str] = {}
        for word in dict.fromkeys(_WORD.findall(text)):
            if all(part in self.known for part in _parts(word)):
                continue
            single = self._single(word.lower())
            if single is None:
                unknown[word] = self._hint(word.lower(), styled=self._in_style(word, text))
                continue
            text = re.sub(rf"(?<!\w){re.escape(word)}(?!\w)", single, text)
            notes.append(f"'{word}' is read as '{single}'")
        if not unknown:
            notes += self._unlike(text)
        return Reading(text, tuple(notes), unknown or None)

    def find(self, word: str = "") -> list[Name]:
        """The names that have a word, then those of which a word begins with it, then those with it as a keyword."""
        asked = self.read(word).text.lower().strip()
        begins, whole = (re.compile(rf"(?<!\w){re.escape(asked)}{end}") for end in ("", r"(?!\w)"))
        exact = [n for n in self.names if whole.search(n.name.lower())]
        longer = [n for n in self.names if n not in exact and begins.search(n.name.lower())]
        keyed = [n for n in self.names if any(whole.search(k) for k in n.keywords) and n not in (*exact, *longer)]
        return [*exact, *longer, *keyed]

    def near(self, word: str) -> tuple[str, ...]:
        """Words of the data that look like `word`."""
        there = [known for known in self.known if len(known) > 2]
        alike = difflib.get_close_matches(word.lower(), there, n=SUGGESTIONS, cutoff=NEAR)
        return tuple(dict.fromkeys([*self._compounds(word.lower()), *alike]))[:SUGGESTIONS]

    def _compounds(self, word: str) -> list[str]:
        """The name that has both halves of a word that captions write in two: 'raincloud' -> 'cloud with rain'."""
        halves = [(word[:i], word[i:]) for i in range(3, len(word) - 2)]
        pairs = [{*pair} for pair in halves if self.known.issuperset(pair)]
        found = [name.name for name in self.names for pair in pairs if pair <= name.words]
        return sorted(found, key=len)[:1]

    def text(self) -> str:
        """The content of a file of these words, a name a line, as `read_words` reads it."""
        import json

        rows = [json.dumps([n.name, n.emoji, n.group, list(n.keywords)], ensure_ascii=False) for n in self.names]
        head = f'"schema": "{SCHEMA}",\n"styles": {json.dumps(self.styles, ensure_ascii=False)}'
        lines = ",\n".join(rows)
        return f'{{\n{head},\n"names": [\n{lines}\n]\n}}\n'

    def _named(self, prompt: str, notes: list[str]) -> str:
        """Emoji characters replaced by their names."""
        plain = prompt if prompt.isascii() else _plain(prompt)
        found = [] if prompt.isascii() else self._characters.findall(plain)
        if not found:
            return prompt
        for character in found:
            name = self._emoji[character]
            said = set(_parts(name)) <= set(_parts(self._characters.sub(" ", plain)))
            plain = plain.replace(character, " " if said else f" {name} ", 1)
            notes.append(f"'{character}' is read as '{name}'")
        return re.sub(r"\s+(?=[,.;:!?)])", "", " ".join(plain.split()))

    def _single(self, word: str) -> str | None:
        """The form of a word that captions have: 'apples' -> 'apple', 'scissor' -> 'scissors'."""
        forms = [IRREGULAR.get(word)]
        if word.endswith("s"):
            forms += [word[:-3] + "y"] if word.endswith("ies") else []
            forms += [word[:-3] + "f", word[:-3] + "fe"] if word.endswith("ves") else []
            forms += [word[:-1], *([word[:-2]] if word.endswith("es") else [])]
        else:
            forms += [word + "s", word + "es"]
        return next((form for form in forms if form and len(form) > 1 and form in self.known), None)

    def _hint(self, word: str, *, styled: bool) -> str:
        if self.styles and (styled or word in LOOKS):
            return f"the styles are {', '.join(self.styles)}"
        near, content = self.near(word), self.known - SMALL_WORDS - set(_parts(" ".join((*self.styles, "style"))))
        if near or not 0 < len(content) <= FEW:
            return f"did you mean {' or '.join(near)}?" if near else ""
        return f"it knows {', '.join(sorted(content))}"

    def _in_style(self, word: str, text: str) -> bool:
        return any(word in match["phrase"].split() for match in _STYLE.finditer(text))

    def _unlike(self, text: str) -> list[str]:
        """Notes on prompts of known words that are unlike any caption."""
        notes, rest = [], text
        for match in _STYLE.finditer(text) if self.styles else ():
            style = " ".join(part for part in match["phrase"].lower().split() if part not in ("a", "an", "the"))
            own = next((s for s in self.styles if style == s or style.endswith(f" {s}")), None)
            if own is None:
                known = ", ".join(f"'{s} style'" for s in self.styles)
                notes.append(f"'{style} style' is no style of this model's data; it has {known}")
            rest = rest.replace(match[0], f" {style[: -len(own)] if own else ''} ", 1)
        wanted = set(_parts(rest)) - SMALL_WORDS - COLOURS
        if wanted and not any(wanted <= name.words for name in self.names):
            most = max(self.names, key=lambda name: (len(wanted & name.words), len(wanted & set(_parts(name.name)))))
            notes.append(
                f"'{' '.join(rest.split()).strip(' ,')}' puts words together that no caption has beside each other, so "
                f"anything may come; the nearest caption is of '{most.name}'"
            )
        return notes


def refusal(unknown: Mapping[str, str], lister: str = "zoo prompts") -> str:
    """The sentence that refuses unknown words, each with its hint, and the command that lists known ones."""
    told = [f"'{word}'" + (f" ({hint})" if hint else "") for word, hint in sorted(unknown.items())]
    return (
        f"this model never learned the word{'s' if len(told) > 1 else ''} {', '.join(told)}; "
        f"`{lister}` lists what it knows"
    )


def refuse_unknown(readings: Iterable[Reading], lister: str = "zoo prompts") -> None:
    """UsageError for readings with words that no caption had; `lister` is the command that lists the model's."""
    unknown = {word: hint for reading in readings for word, hint in (reading.unknown or {}).items()}
    if unknown:
        raise UsageError(refusal(unknown, lister), code="word-unknown")


def of_captions(rows: Iterable[Mapping[str, Any]], before: Words | None = None) -> Words:
    """The words of a data set's captions (`text`, and `name`, `keywords`, `captions`, `emoji` and `group` where rows
    have them), after those of an earlier model's data.

    A caption that ends in ", X style" or " in X style" has the style X, and its name is what stands before.
    """
    names = {} if before is None else {name.name: name for name in before.names}
    styles = dict.fromkeys(() if before is None else before.styles)
    for row in rows:
        match = _ENDS_IN_STYLE.fullmatch(row["text"].strip())
        if match is not None:
            styles[match["style"].lower()] = None
        name = row.get("name") or (row["text"] if match is None else match["name"]).strip(" ,")
        if name:
            known = names.get(name) or Name(name, "", "", ())
            others = map(str, (*known.keywords, *(row.get("keywords") or ()), *(row.get("captions") or ())))
            emoji, group = str(row.get("emoji") or known.emoji), str(row.get("group") or known.group)
            names[name] = Name(name, emoji, group, tuple(dict.fromkeys(others)))
    return Words(tuple(names.values()), tuple(styles))


def words_of(resolved: Resolved) -> list[Words]:
    """The words of a pipeline's conditioners, as far as their cards have them."""
    blocks = (resolved.config.get("conditioners") or {}).values()
    used = [resolved.cards[block["weights"]] for block in blocks if isinstance(block, Mapping) and "weights" in block]
    return [read_words(card.words) for card in used if card.words is not None]


@lru_cache(maxsize=8)
def read_words(path: Path) -> Words:
    """A file of words; WeightsError where it is missing, damaged or of another kind."""
    again = "install zoo again or restore it beside its card"
    try:
        text = read_plain(path, LARGEST)
        if len(text) > LARGEST:
            raise WeightsError(
                f"the file of words '{path}' is larger than {LARGEST >> 20} MiB; {again}", code="words-file-damaged"
            )
        raw: Any = strict_json.parse(text)
        if raw["schema"] != SCHEMA:
            raise WeightsError(
                f"'{path}' has schema {str(raw['schema'])[:40]!r} where '{SCHEMA}' is read; {again}",
                code="schema-unknown",
            )
        names = tuple(Name(str(n), str(e), str(g), tuple(map(str, k))) for n, e, g, k in raw["names"])
        styles = tuple(str(style) for style in raw["styles"])
    except OSError as error:
        raise WeightsError(
            f"the file of words '{path}' can't be read ({error.strerror or error}); {again}", code="file-unreadable"
        ) from error
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(
            f"the file of words '{path}' is damaged ({str(error)[:80]}); {again}", code="words-file-damaged"
        ) from error
    return Words(names, styles)


def _parts(text: str) -> list[str]:
    """Letters and digits between everything else, in lower case; a lone sign is a word too."""
    return [part for word in _WORD.findall(text.lower()) for part in re.findall(r"[^\W_]+", word) or [word]]


def _plain(text: str) -> str:
    return text.translate(dict.fromkeys(map(ord, _TEXT_LOOK)))
