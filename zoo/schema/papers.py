"""Papers that a component declares, with their links: `papers = ("2010.02502 Denoising Diffusion Implicit Models",)`.

Read from its source as every declaration is (`zoo.schema.declared`), so a plugin's may be anything.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

_PAPER = re.compile(r"(?P<id>\d{4}\.\d{4,5}|doi:10\.\d{4,9}/\S+) (?P<title>\S.*)")


@dataclass(frozen=True)
class Paper:
    """A title and where it is read."""

    title: str
    url: str

    def __str__(self) -> str:
        return f"{self.title}, {self.url}"

    @property
    def short(self) -> str:
        """`arXiv:2010.02502`, or the DOI."""
        number = self.url.removeprefix("https://arxiv.org/abs/")
        return f"arXiv:{number}" if number != self.url else f"doi:{self.url.removeprefix('https://doi.org/')}"


def papers_of(declared: Any) -> list[Paper]:
    """The papers of a declaration; an entry of another form is left out."""
    listed = declared if isinstance(declared, (tuple, list)) else []
    found = [match for one in listed if isinstance(one, str) and (match := _PAPER.fullmatch(one))]
    return [Paper(match["title"], _link(match["id"])) for match in found]


def _link(number: str) -> str:
    if number.startswith("doi:"):
        return f"https://doi.org/{number.removeprefix('doi:')}"
    return f"https://arxiv.org/abs/{number}"
