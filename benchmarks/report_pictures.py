"""Images of `zoo report`'s page for docs/report.md, as a real browser shows it on a laptop and on a phone.

    python -m benchmarks.report_pictures benchmarks/results docs/images

writes report.png (laptop), report-dark.png (laptop, dark, the fronts) and report-phone.png (phone, light and dark),
each below 150 kB. Needs Chromium and its driver (benchmarks/browser.py).
"""

from __future__ import annotations

import argparse
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image

from benchmarks.browser import Browser
from zoo.bench.report import page, read_records

MOST = 150_000  # bytes of an image
LAPTOP, PHONE = (1280, 1200), (390, 844)
PICTURES = {  # by name, windows side by side: size, scheme, and the section they are at
    "report.png": [(LAPTOP, "light", "")],
    "report-dark.png": [(LAPTOP, "dark", "#fronts")],
    "report-phone.png": [(PHONE, "light", ""), (PHONE, "dark", "#fronts"), (PHONE, "dark", "#samples")],
}  # fmt: skip


def window(browser: Browser, file: Path, size: tuple[int, int], scheme: str, place: str) -> Image.Image:
    """What is seen at a place of the page."""
    browser.look(width=size[0], height=size[1], mobile=size == PHONE, scheme=scheme)
    browser.open(file.as_uri())
    # Instantly: a page that still rolls is pictured somewhere on the way.
    browser.run(
        "const at = arguments[0] && document.querySelector(arguments[0]);"
        "if (at) scrollTo({top: at.getBoundingClientRect().top + scrollY - 56, behavior: 'instant'})", place,
    )  # fmt: skip
    return Image.open(BytesIO(browser.picture(whole=False))).convert("RGB").resize(size, Image.Resampling.LANCZOS)


def save(windows: list[Image.Image], path: Path) -> int:
    """Windows side by side, with as many colours as the size allows; returns the bytes."""
    gap = 16
    width = sum(w.width for w in windows) + gap * (len(windows) - 1)
    whole = Image.new("RGB", (width, max(w.height for w in windows)), "#808890")
    x = 0
    for one in windows:
        whole.paste(one, (x, 0))
        x += one.width + gap
    for colours in (256, 192, 128, 96, 64, 48, 32):
        whole.quantize(colours, kmeans=1, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < MOST:
            break
    return path.stat().st_size


def main() -> None:
    """Make every image."""
    parser = argparse.ArgumentParser(description="Pictures of zoo report's page.")
    parser.add_argument("records", type=Path, help="a record, or a folder of them")
    parser.add_argument("folder", type=Path, help="where the pictures go")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place, Browser() as browser:
        file = Path(place) / "report.html"
        file.write_text(page(read_records([options.records])), encoding="utf-8")
        for name, windows in PICTURES.items():
            size = save([window(browser, file, *w) for w in windows], options.folder / name)
            print(f"{options.folder / name}: {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
