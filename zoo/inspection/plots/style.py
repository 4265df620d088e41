"""How all of zoo's figures look, and how they are saved.

Sizes are in inches and distances from the top left; images are drawn at a whole number of
dots a pixel, so that nothing is blurred.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.textpath import TextPath
from PIL import Image

from zoo.schema.errors import UsageError, ZooError
from zoo.schema.files import atomic

INK, SOFT, FAINT, PAPER = "#1f2733", "#6b7480", "#e6e9ee", "#ffffff"
# Distinguishable with red-green colour blindness, too: their lightness differs.
COLOURS = ("#2f6fb7", "#e2843b", "#2f9e77", "#a24fa8", "#d1495b", "#3aa6c2", "#9a7b1f", "#5b6470")
DASHES = ("-", (0, (5, 2)), (0, (1.4, 1.6)))  # once the colours are used up
SUFFIXES = (".png", ".svg")
DPI = 160
MARGIN = 0.25
_STROKE = 0.24  # of a legend's line
_RC: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8.5, "text.color": INK, "axes.labelcolor": SOFT,
    "axes.edgecolor": "#b9c0c9", "axes.linewidth": 0.8, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 9.5, "axes.titlelocation": "left", "axes.titlecolor": INK, "axes.titlepad": 7.0,
    "axes.grid": True, "axes.axisbelow": True, "grid.color": FAINT, "grid.linewidth": 0.8,
    "xtick.color": SOFT, "ytick.color": SOFT, "xtick.labelsize": 8.0, "ytick.labelsize": 8.0,
    "xtick.major.size": 0.0, "ytick.major.size": 0.0, "ytick.minor.size": 0.0, "xtick.minor.size": 0.0,
    "xtick.major.pad": 5.0, "ytick.major.pad": 4.0, "lines.linewidth": 1.9, "lines.solid_capstyle": "round",
    "figure.facecolor": PAPER, "savefig.facecolor": PAPER, "svg.hashsalt": "zoo", "mathtext.fontset": "dejavusans",
}  # fmt: skip

Arguments = ParamSpec("Arguments")
Drawn = TypeVar("Drawn")


def styled(draw: Callable[Arguments, Drawn]) -> Callable[Arguments, Drawn]:
    """Draw in this style, and leave matplotlib's settings as they were."""

    @wraps(draw)
    def drawn(*words: Arguments.args, **named: Arguments.kwargs) -> Drawn:
        with matplotlib.rc_context(_RC):
            return draw(*words, **named)

    return drawn


def page(width: float, height: float, title: str, subtitle: str = "") -> Figure:
    """An empty figure with its title; what is drawn on it starts at `below(subtitle)` from the top."""
    figure = Figure(figsize=(width, height), dpi=DPI)
    note(figure, MARGIN, 0.30, title, size=12.5, weight="bold")
    if subtitle:
        note(figure, MARGIN, 0.54, subtitle, color=SOFT)
    return figure


def note(figure: Figure, left: float, top: float, text: str, **look: Any) -> None:
    """Text whose base line begins (left, top) inches from the top left."""
    width, height = figure.get_size_inches()
    look.setdefault("size", 8.5)
    figure.text(left / width, 1.0 - top / height, text, va="baseline", **look)


def frame(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes with their upper left corner (left, top) inches from the figure's."""
    whole, high = figure.get_size_inches()
    return figure.add_axes((left / whole, 1.0 - (top + height) / high, width / whole, height / high))


def look_of(number: int) -> dict[str, Any]:
    """Colour and dash of the series with this number."""
    return {"color": COLOURS[number % len(COLOURS)], "linestyle": DASHES[number // len(COLOURS) % len(DASHES)]}


def key(figure: Figure, top: float, names: Sequence[str]) -> float:
    """A legend as lines of words below the title; returns how far down it ends."""
    width, height = figure.get_size_inches()
    for number, (left, row) in enumerate(_flow(names, width)):
        middle = 1.0 - (top + 0.20 * row + 0.07) / height
        line = Line2D([left / width, (left + _STROKE) / width], [middle, middle], linewidth=2.4, **look_of(number))
        figure.add_artist(line)
        note(figure, left + _STROKE + 0.09, top + 0.20 * row + 0.11, plain(names[number]))
    return top + key_height(names, width)


def key_height(names: Sequence[str], width: float) -> float:
    """Inches that the legend of these names needs on a page of this width."""
    return 0.20 * (1 + _flow(names, width)[-1][1])


def _flow(names: Sequence[str], width: float) -> list[tuple[float, int]]:
    """(left, row) of each name of a legend, as words flow."""
    places, left, row = [], MARGIN, 0
    for name in names:
        needed = _STROKE + 0.09 + width_of(name)
        if left > MARGIN and left + needed > width - MARGIN:
            left, row = MARGIN, row + 1
        places.append((left, row))
        left += needed + 0.28
    return places


def width_of(text: str, size: float = 8.5) -> float:
    """Inches that a text takes."""
    return float(TextPath((0.0, 0.0), plain(text), size=size).get_extents().width) / 72.0 if text.strip() else 0.0


def cell(figure: Figure, left: float, top: float, side: tuple[float, float], picture: np.ndarray) -> Axes:
    """An image (H, W, 3) of values in [0, 1], `side` (width, height) inches large, with a hairline around it."""
    axes = frame(figure, left, top, *side)
    axes.imshow(np.clip(picture, 0.0, 1.0), interpolation="nearest", aspect="auto")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(FAINT)
        spine.set_linewidth(0.8)
    return axes


def cell_side(height: int, width: int) -> tuple[float, float]:
    """(width, height) in inches of an image so that each pixel is a whole number of dots, about 0.8 inch in all."""
    dots = max(1, round(0.8 * DPI / max(height, width)))
    return width * dots / DPI, height * dots / DPI


def plain(text: str) -> str:
    """Untrusted text, without what matplotlib would read as mathematics, and shortened."""
    shown = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r"\$", r"\\$", shown if len(shown) <= 60 else shown[:57] + "...")


def check_output(path: str | Path) -> Path:
    """The path, if its suffix is one that can be written; UsageError before anything is drawn."""
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"'{path}' ends in no format of figures; use a name in {' or '.join(SUFFIXES)}",
            code="output-format-unknown",
        )
    return path


def save(figure: Figure, path: str | Path) -> Path:
    """Write a figure as PNG or SVG, by its suffix; it appears whole or not at all, the same bytes each time."""
    path = check_output(path)
    kind = path.suffix.lower()[1:]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with matplotlib.rc_context(_RC), atomic(path) as file:
            if kind == "svg":
                figure.savefig(file, format=kind, metadata={"Date": None, "Creator": None})
            else:
                drawn = io.BytesIO()
                figure.savefig(drawn, format=kind, dpi=DPI)
                picture = Image.open(drawn).convert("RGB")
                if not any(axes.images for axes in figure.axes):  # lines and words need few colours
                    picture = picture.quantize(256, dither=Image.Dither.NONE)
                picture.save(file, format="PNG", optimize=True)
    except OSError as error:
        raise ZooError(
            f"'{path}' can't be written: {error.strerror or error}; choose another place", code="output-unwritable"
        ) from error
    return path
