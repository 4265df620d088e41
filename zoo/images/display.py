"""Images and pipelines in a notebook: HTML and PNG, small enough to be kept in it."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 64  # images
SMALLEST = 96  # pixels that an image is shown in, about


def png(image: Image.Image) -> bytes:
    """An image as the bytes of a PNG file."""
    file = io.BytesIO()
    image.save(file, format="PNG", optimize=True)
    return file.getvalue()


def images_html(images: Sequence[Image.Image], captions: Sequence[str]) -> str:
    """Images in a row that wraps, each with its caption under it; small ones enlarged by whole pixels."""
    figures = []
    for image, caption in zip(images[:SHOWN], captions, strict=False):
        said = escape(caption, quote=True)
        times = max(1, round(SMALLEST / max(image.size)))
        width, height = times * image.width, times * image.height
        source = base64.b64encode(png(image)).decode()
        figures.append(
            f'<figure style="display:inline-block;margin:4px;text-align:center;max-width:{max(width, SMALLEST)}px">'
            f'<img src="data:image/png;base64,{source}" width="{width}" height="{height}" alt="{said}" '
            f'style="image-rendering:pixelated">'
            f'<figcaption style="font-size:75%">{said}</figcaption></figure>'
        )
    more = f"<p>and {len(images) - SHOWN} more</p>" if len(images) > SHOWN else ""
    return f"<div>{''.join(figures)}{more}</div>"


def captions(record: Mapping[str, Any], count: int) -> list[str]:
    """The prompt or class of each image."""
    entries = [*record.get("images", ()), *[{}] * count][:count]
    return [str(entry.get("prompt") or entry.get("label") or "") for entry in entries]


def table_html(columns: Sequence[str], rows: Sequence[Sequence[str]], title: str) -> str:
    """A table, with a title unless it is empty."""
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    caption = f"<caption>{escape(title)}</caption>" if title else ""
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
