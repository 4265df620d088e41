"""`zoo report`'s page in a real browser: laptop and phone, light and dark, sorted, filtered, compared, offline.

    python -m benchmarks.report_check
    python -m benchmarks.report_check benchmarks/results --shots shots/

checks the page of invented records, that of hostile ones, that of training runs, and of any that are named; prints a
line a check and exits with 1 where one fails. Needs Chromium and its driver (benchmarks/browser.py).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.browser import Browser
from benchmarks.invented import records, write
from zoo.bench.report import page, read_records, read_runs, runs_page

LOOKS = [(name, size, scheme) for name, size in (("laptop", (1280, 860, False)), ("phone", (390, 844, True)))
         for scheme in ("light", "dark")]  # fmt: skip
HOSTILE = (
    "<script>window.ran = 1</script>", "<img src=x onerror='window.ran = 2'>", '"><svg onload="window.ran = 3">',
    "</script><script>window.ran = 4</script>", "javascript:window.ran=5", "' onmouseover='window.ran=6", "<!--", "]]>",
    "{{7*7}}", "\u202egnp.exe", "a\u0000b", "&lt;b&gt;",
)  # fmt: skip

# Of every text that is seen: WCAG's contrast against what lies behind it, and its size on the screen.
READABLE = r"""
const channel = (c) => (c /= 255) <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const parse = (text) => (text.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
const behind = (node) => {
  for (; node; node = node.parentElement) {
    const colour = parse(getComputedStyle(node).backgroundColor);
    if (colour.length === 3 || colour[3] === 1) return colour;
  }
  return [255, 255, 255];
};
const wrong = [];
const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walk.nextNode()) {
  const node = walk.currentNode.parentElement;
  const unseen = node.closest("script, noscript, .unseen, title, desc, [hidden], .skip");
  if (!walk.currentNode.textContent.trim() || unseen || !node.checkVisibility()) continue;
  const style = getComputedStyle(node);
  const svg = node.closest("svg");
  const colour = parse(svg ? style.fill : style.color);
  const [a, b] = [light(colour), light(behind(node))];
  const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const size = parseFloat(style.fontSize) * (svg ? svg.getBoundingClientRect().width / svg.viewBox.baseVal.width : 1);
  if (contrast < 4.5) wrong.push(`contrast ${contrast.toFixed(2)}: ${node.textContent.slice(0, 40)}`);
  if (size < 9.5) wrong.push(`${size.toFixed(1)} px: ${node.textContent.slice(0, 40)}`);
}
return wrong.slice(0, 5);
"""
# What a screen reader announces.
NAMED = r"""
const wrong = [];
const all = (selector) => Array.from(document.querySelectorAll(selector));
const need = (fine, node) => { if (!fine) wrong.push(node.outerHTML.slice(0, 60)); };
for (const svg of all('svg[role="img"]'))
  need(svg.querySelector("title").textContent && svg.querySelector("desc").textContent, svg);
for (const svg of all("svg:not([role])")) need(svg.getAttribute("aria-hidden") === "true", svg);
for (const image of all("img")) if (!image.alt) wrong.push("a picture without words");
for (const image of all("main img")) if (!image.complete || !image.naturalWidth) wrong.push(`not shown: ${image.alt}`);
for (const cell of all("thead th")) need(cell.scope === "col" && cell.textContent.trim(), cell);
for (const row of all("tbody tr")) need(row.querySelector('th[scope="row"]'), row);
for (const control of all("button, select, input"))
  need(control.textContent.trim() || control.ariaLabel || control.labels?.length, control);
const ids = all("[id]").map((e) => e.id);
if (new Set(ids).size !== ids.length) wrong.push("an id twice");
for (const link of all('a[href^="#"]')) need(document.querySelector(link.getAttribute("href")), link);
return wrong;
"""

FOLD = "for (const d of document.querySelectorAll('details')) d.open = d.matches('.front:first-of-type')"
STRANGE = """
const found = Array.from(document.querySelectorAll("main script, main iframe, main a, main object, main style"));
return found.filter((e) => e.type !== "application/json").map((e) => e.outerHTML.slice(0, 80));
"""


@dataclass
class Report:
    """What was checked, and how often it failed."""

    failed: int = 0
    place: str = ""
    lines: list[str] = field(default_factory=list)

    def __call__(self, name: str, fine: bool, *told: Any) -> None:
        """Note a check."""
        self.failed += not fine
        said = "" if fine else " ".join(str(t) for t in told)[:400]
        line = f"{'ok  ' if fine else 'FAIL'} {self.place}: {name} {said}".rstrip()
        self.lines.append(line)
        print(line, flush=True)


def looks(browser: Browser, check: Report, file: Path, shots: Path | None) -> None:
    """Every size and scheme: nothing overflows, all text is legible and labelled, no address was requested."""
    for device, (width, height, mobile), scheme in LOOKS:
        check.place = f"{file.stem}, {device}, {scheme}"
        browser.look(width=width, height=height, mobile=mobile, scheme=scheme)
        browser.open(file.as_uri())
        browser.run("for (const d of document.querySelectorAll('details')) d.open = true")
        across = browser.run("return [document.documentElement.scrollWidth, innerWidth]")
        check("the page does not scroll sideways", across[0] <= across[1] <= width, across)
        unreadable = browser.run(READABLE)
        check("text has contrast and size", not unreadable, unreadable)
        unnamed = browser.run(NAMED)
        check("everything has a name", not unnamed, unnamed)
        asked = [a for a in browser.requests() if not a.startswith(("data:", file.as_uri()))]
        check("nothing was asked for", not asked, asked)
        complaints = browser.complaints()
        check("the console is silent", not complaints, complaints)
        dark = browser.run("return getComputedStyle(document.body).backgroundColor")
        check("the colours are those of the system", (sum(json_numbers(dark)) < 384) == (scheme == "dark"), dark)
        if shots is not None:
            browser.run(FOLD)
            (shots / f"{file.stem}-{device}-{scheme}.png").write_bytes(browser.picture(whole=True))


def json_numbers(colour: str) -> list[float]:
    """The channels of rgb(r, g, b)."""
    return [float(n) for n in colour[colour.index("(") + 1 : -1].split(",")[:3]]


def use(browser: Browser, check: Report, file: Path) -> None:
    """What a person does with the page, by mouse and keyboard."""
    check.place = f"{file.stem}, in use"
    browser.look(width=1280, height=860, mobile=False, scheme="light")
    browser.open(file.as_uri())
    answered = browser.run(
        "const a = document.querySelector('#answer .use'); return [a.innerText, a.offsetTop < innerHeight]"
    )
    check("the answer is seen at once", answered[0].startswith("Use ") and answered[1], answered)
    long = (
        "const b = document.querySelector('#leaderboard tbody.few');"
        "return b && Array.from(b.rows, (r) => r.checkVisibility()).filter(Boolean).length"
    )
    check("a long table shows ten rows", browser.run(long) == 10, browser.run(long))
    browser.click("#leaderboard .more")
    check("and all when asked", browser.run(long) is None, browser.run(long))
    board = "#board-0"
    for column, direction in ((1, "ascending"), (1, "descending"), (2, "descending"), (3, "ascending")):
        browser.click(f"{board} thead th:nth-child({column}) button")
        found = browser.run(
            "const i = arguments[1] - 1, b = document.querySelector(arguments[0]);"
            "const values = Array.from(b.tBodies[0].rows, (r) => r.cells[i].dataset.v ?? null);"
            "return [b.querySelectorAll('th')[i].ariaSort, values]",
            board, column,
        )  # fmt: skip
        values = [v for v in found[1] if v is not None]
        if column > 1:
            values = [float(v) for v in values]
        rising: list[Any] = sorted(values, key=natural) if column == 1 else sorted(values)  # type: ignore[type-var]
        wanted = rising if direction == "ascending" else rising[::-1]
        at_end = None not in found[1][: len(values)]
        check(f"column {column} sorts {direction}", found[0] == direction and values == wanted and at_end, found)
    visible = (
        f"return Array.from(document.querySelectorAll('{board} tbody tr:not([hidden])'), (r) => r.cells[0].dataset.v)"
    )
    everything = browser.run(visible)
    browser.type("form[data-filters='board-0'] [data-find]", "ddim 30")
    found = browser.run(visible)
    check("words filter", 0 < len(found) < len(everything) and all("ddim 30" in name for name in found), found)
    said = browser.run("return document.querySelector('form[data-filters=board-0] output').textContent")
    check("the number of rows is told", said.startswith(f"{len(found)} of "), said)
    browser.run(
        "const f = document.querySelector('form[data-filters=board-0]'); f.querySelector('input').value = '';"
        "const s = f.querySelector('[data-facet=sampler]'); s.value = 'dpmpp-2m';"
        "s.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    found = browser.run(visible)
    check("choices filter", 0 < len(found) < len(everything) and all("dpmpp-2m" in name for name in found), found)
    compared(browser, check)
    browser.click("#samples .zoom")
    opened = browser.run(
        "const d = document.querySelector('dialog'); return [d.open, d.querySelector('img').naturalWidth]"
    )
    check("a picture is enlarged", opened[0] and opened[1] > 0, opened)
    browser.click("dialog button")
    check("and put back", not browser.run("return document.querySelector('dialog').open"))
    browser.run("scrollTo(0, 0)")
    seen = []
    for _ in range(3):
        browser.click("#theme")
        seen.append(
            browser.run(
                "return [document.documentElement.dataset.theme, getComputedStyle(document.body).backgroundColor]"
            )
        )
    right = [s[0] for s in seen] == ["light", "dark", "auto"] and seen[0][1] == seen[2][1] != seen[1][1]
    check("the theme can be chosen", right, seen)
    browser.run("document.querySelector('.plot .mark').dispatchEvent(new Event('pointerenter'))")
    check(
        "a mark tells what it is",
        browser.run("const t = document.getElementById('tip'); return !t.hidden && t.textContent.length > 5"),
    )
    complaints = browser.complaints()
    check("the console is silent", not complaints, complaints)


def compared(browser: Browser, check: Report) -> None:
    """Run against run: only equal keys meet."""
    read = "return document.getElementById('compared').innerText"
    before = browser.run(read)
    check("two runs are compared", "images a second" in before and "B / A" in before, before)
    browser.click("[data-swap]")
    check("and swapped", browser.run(read) != before)
    browser.run(
        "const [a, b] = document.querySelectorAll('[data-side]'), g = a.querySelectorAll('optgroup');"
        "a.value = g[0].children[0].value; b.value = g[1].children[0].value;"
        "document.getElementById('sides').dispatchEvent(new Event('input'))"
    )
    rows = browser.run(
        "return Array.from(document.querySelectorAll('#compared tbody th'), (t) => t.firstChild.textContent)"
    )
    apart = "hit" in rows and "images a second" not in rows and "speed and memory are not compared" in browser.run(read)
    check("speeds of two machines are not", apart, rows)


def natural(text: str) -> list[tuple[int, int | str]]:
    """A name as people sort it: numbers as numbers."""
    return [(0, int(word)) if word.isdigit() else (1, word) for word in text.split()]


def hostile(folder: Path) -> Path:
    """A record whose every text tries to be markup."""
    made = next(iter(records().values()))
    folder.mkdir()

    def spoil(value: Any, at: int) -> Any:
        if isinstance(value, dict):
            keyed = {k: spoil(v, at + i) for i, (k, v) in enumerate(value.items())}
            spoiled = [k for k in keyed if "[" in k or k == "g"]  # keys that are names
            return {(f"{k}{HOSTILE[at % len(HOSTILE)]}" if k in spoiled else k): v for k, v in keyed.items()}
        if isinstance(value, list):
            return [spoil(v, at + i) for i, v in enumerate(value)]
        kept = ("lower", "higher", "measured", "pipelines", "zoo.suite-record/1", "pipeline")
        return f"{value}{HOSTILE[at % len(HOSTILE)]}" if isinstance(value, str) and value not in kept else value

    spoiled = spoil(
        {**made, "rows": [{**r, "quality": {**(r["quality"] or {}), "samples": []}} for r in made["rows"]]}, 0
    )
    path = folder / "hostile.json"
    path.write_text(json.dumps(spoiled))
    return path


def runs(folder: Path) -> list[Path]:
    """Invented training runs: one that fits a time, with six scalars and small sheets, and one of a single point."""
    for name, steps in (("shapes", 126), ("slower", 41)):
        run = folder / name
        (run / "samples").mkdir(parents=True)
        saved = run / "checkpoints" / f"step-{steps:08d}"
        saved.mkdir(parents=True)
        train = {"steps": 5000, "seconds": 600.0, "batch_size": steps}
        prompts = ["red circle", "blue square, striped", "green triangle", "plain yellow star"]
        recipe = {"name": name, "objective": {"name": "denoising", "sheet_prompts": prompts}, "train": train}
        record = {"schema": "zoo.run/1", "recipe": recipe, "sittings": [{"from_step": 0, "train": train}]}
        (run / "run.json").write_text(json.dumps(record))
        state = {"seconds": 587.0, "fitting": {"decided": {"steps": steps}, "seconds": 600.0}}
        manifest = {"schema": "zoo.checkpoint/2", "step": steps, "state": state}
        (saved / "manifest.json").write_text(json.dumps(manifest))
        lines = ["step,name,value", *(f"{i},train/loss,{1 / i:.4g}" for i in range(20, steps, 20))]
        for scalar in ("loss", "output", "x0", "bits_per_dimension"):
            lines.append(f"{steps},validation/{scalar},0.25")
        (run / "scalars.csv").write_text("\n".join([*lines, f"{steps},train/images_per_second,7.1", ""]))
        Image.effect_noise((270, 32), 90).save(run / "samples" / f"step-{steps:08d}.png")
    return [folder / "shapes", folder / "slower"]


def compared_runs(browser: Browser, check: Report, file: Path) -> None:
    """On a laptop the table of runs is whole, and small sheets are enlarged without blur."""
    browser.look(width=1280, height=860, mobile=False, scheme="light")
    browser.open(file.as_uri())
    check.place = file.stem
    cut = browser.run(
        "return Array.from(document.querySelectorAll('.scroll')).filter((e) => e.scrollWidth > e.clientWidth)"
        ".map((e) => `${e.ariaLabel}: ${e.scrollWidth} of ${e.clientWidth}`)"
    )
    check("no table is cut off", not cut, cut)
    shown = browser.run(
        "const image = document.querySelector('#samples img');"
        "return [image.getBoundingClientRect().width, image.naturalWidth, getComputedStyle(image).imageRendering]"
    )
    check("small sheets are shown large", shown[0] >= 2 * shown[1] and shown[2] == "pixelated", shown)


def main() -> None:
    """Check every page."""
    parser = argparse.ArgumentParser(description="zoo report in a real browser.")
    parser.add_argument("records", nargs="*", type=Path, help="more records to check the page of")
    parser.add_argument("--shots", type=Path, metavar="FOLDER", help="keep pictures of the pages")
    options = parser.parse_args()
    if options.shots is not None:
        options.shots.mkdir(parents=True, exist_ok=True)
    check = Report()
    with tempfile.TemporaryDirectory() as place:
        here = Path(place)
        write(here / "records")
        pages = {"invented": [here / "records"], "hostile": [hostile(here / "spoiled")]}
        pages |= {"named": options.records} if options.records else {}
        for name, found in pages.items():
            (here / f"{name}.html").write_text(page(read_records(found)), encoding="utf-8")
        (here / "runs.html").write_text(runs_page(read_runs(runs(here / "runs"))), encoding="utf-8")
        with Browser() as browser:
            for name in (*pages, "runs"):
                looks(browser, check, here / f"{name}.html", options.shots)
            ran = browser.run("return window.ran ?? null")
            use(browser, check, here / "invented.html")
            compared_runs(browser, check, here / "runs.html")
            browser.open((here / "hostile.html").as_uri())
            ran = ran or browser.run("return window.ran ?? null")
            check.place = "hostile"
            check("nothing of a record ran", ran is None, ran)
            strange = browser.run(STRANGE)
            check("no element came out of a record", not strange, strange)
    print(f"{len(check.lines)} checks, {check.failed} failed")
    sys.exit(1 if check.failed else 0)


if __name__ == "__main__":
    main()
