"""Images beside a record as data URIs: PNG files from inside the record's folder, smaller where they are large."""

from __future__ import annotations

import base64
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from zoo.schema.errors import UsageError

SIGNATURE = b"\x89PNG\r\n\x1a\n"
LARGEST = 64 * 2**20  # bytes of a file
MOST_PIXELS = 64_000_000  # of an image that is made smaller
SIDE = 1024  # pixels that a side is brought to, for the page
KEPT = 400_000  # bytes of an image that is shown as it is


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A PNG as it stands in the page; or the reason why there is none."""

    uri: str | None
    width: int = 0
    height: int = 0
    reason: str = ""


def picture(folder: Path, name: str) -> Picture:
    """A record's image; UsageError for one that lies elsewhere, a reason for one that isn't there or is no PNG."""
    path = _inside(folder, name)
    if not path.is_file():
        return Picture(uri=None, reason=f"{name} is not there")
    if path.stat().st_size > LARGEST:
        return Picture(uri=None, reason=f"{name} is larger than {LARGEST // 2**20} MiB")
    data = path.read_bytes()
    if len(data) < 33 or data[:8] != SIGNATURE or data[12:16] != b"IHDR":
        return Picture(uri=None, reason=f"{name} is no PNG file")
    width, height = struct.unpack(">II", data[16:24])
    if width < 1 or height < 1 or width * height > MOST_PIXELS:
        return Picture(uri=None, reason=f"{name} says it has {width} x {height} pixels")
    if len(data) > KEPT and max(width, height) > SIDE:
        smaller = _smaller(data)
        if smaller is None:
            return Picture(uri=None, reason=f"{name} is damaged")
        data, width, height = smaller
    uri = "data:image/png;base64," + base64.b64encode(data).decode("ascii")
    return Picture(uri=uri, width=width, height=height)


def _inside(folder: Path, name: str) -> Path:
    """The file that a record names; what leads out of its folder is refused, through links too."""
    wrong = f"the picture '{name}' is not inside '{folder}'; a record names files beside it, relative to its folder"
    if not name or "\0" in name or "\\" in name or Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(wrong, code="file-outside-folder")
    if not name.lower().endswith(".png"):
        raise UsageError(
            f"the picture '{name}' is no PNG; records name files that end in .png", code="benchmark-record-invalid"
        )
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()):
        raise UsageError(wrong, code="file-outside-folder")
    return path


def _smaller(data: bytes) -> tuple[bytes, int, int] | None:
    from PIL import Image

    try:
        with Image.open(BytesIO(data), formats=["PNG"]) as opened:
            shown = opened.convert("RGBA" if "A" in opened.getbands() or "transparency" in opened.info else "RGB")
    except (OSError, SyntaxError, ValueError):
        return None
    shown.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    out = BytesIO()
    shown.save(out, format="PNG", optimize=True)
    return out.getvalue(), shown.width, shown.height
