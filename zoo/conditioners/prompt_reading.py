"""How a prompt becomes windows of tokens: longer ones than a window, weights of words, and learned tokens.

A window is what a CLIP reads at once: start, as many tokens as it has room for (75), end, padding.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import groupby
from typing import Literal, NamedTuple

from zoo.conditioners import emphasis, vocabulary


class Token(NamedTuple):
    """A token, or the vectors of a learned one, which stay together."""

    ids: tuple[int, ...]
    weight: float


class Window(NamedTuple):
    """Token ids without start, end and padding, and the weight of each."""

    ids: list[int]
    weights: list[float]


@dataclass(frozen=True)
class Reading:
    """How prompts are read.

    Args:
        long: prompts of more tokens than a window has room for are refused, or `cut`, or read in windows (`chunks`).
        weighting: the scheme of `(words:1.3)` (zoo.conditioners.emphasis); None: brackets are signs like any other.
        learned: each learned token's ids, from the vocabulary's end on.
    """

    long: Literal["refuse", "cut", "chunks"] = "refuse"
    weighting: Literal["mean", "empty"] | None = None
    learned: Mapping[str, range] = field(default_factory=dict)

    def windows(self, prompt: str, room: int) -> list[Window]:
        """The windows of a prompt, one or more; UsageError for a prompt that is longer where that is refused."""
        tokens = self._tokens(prompt)
        if self.long != "chunks":
            ids = [i for token in tokens for i in token.ids]
            if self.long == "refuse":
                vocabulary.refuse_long(prompt, len(ids), room)
            return [Window(ids[:room], [token.weight for token in tokens for _ in token.ids][:room])]
        found = [Window([], [])]
        for ids, weight in tokens:
            if len(found[-1].ids) + len(ids) > room:
                found.append(Window([], []))
            found[-1].ids.extend(ids)
            found[-1].weights.extend([weight] * len(ids))
        return found

    def lost(self, prompt: str, room: int) -> str:
        """The words of a prompt that are cut off."""
        ids = [i for token in self._tokens(prompt) for i in token.ids][room:] if self.long == "cut" else []
        own = {i: token for token, places in self.learned.items() for i in places}
        return " ".join(token or vocabulary.text_of(run) for token, run in groupby(ids, own.get))

    def _tokens(self, prompt: str) -> list[Token]:
        parts = emphasis.parse(prompt) if self.weighting else [(prompt, 1.0)]
        found = []
        for text, weight in parts:
            # With one group in the pattern, every second part is a learned token.
            for i, part in enumerate(self._pattern.split(text)):
                if i % 2:
                    found.append(Token(tuple(self._places[part.lower()]), weight))
                else:
                    found += [Token((one,), weight) for one in vocabulary.encode(part)]
        return found

    @cached_property
    def _places(self) -> dict[str, range]:
        return {token.lower(): places for token, places in self.learned.items()}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        """The learned tokens, longest first, as whole words and in any case, as CLIP reads all words."""
        longest = sorted(self.learned, key=len, reverse=True)
        return re.compile(f"({'|'.join(map(_whole, longest)) or '(?!)'})", re.IGNORECASE)


def _whole(token: str) -> str:
    """A pattern of a token that isn't a part of a longer word."""
    before = r"(?<!\w)" if re.match(r"\w", token[0]) else ""
    after = r"(?!\w)" if re.match(r"\w", token[-1]) else ""
    return f"{before}{re.escape(token)}{after}"
