"""The tables of the README and docs: views of the registry and of the committed records, never typed by hand.

A table stands between `<!-- table: NAME -->` and `<!-- /table -->`. A missing record is named in the table's place.

    python -m benchmarks.tables --write README.md docs/*.md recipes/emoji/README.md            # bring them up to date
    python -m benchmarks.tables --write README.md docs/*.md recipes/emoji/README.md --check    # exit code 1 if not
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from benchmarks import budget, first_use_table, judge_table, memory_tables, models, stable_diffusion_table
from benchmarks.judge_table import share
from benchmarks.on_gpu import table as on_gpu
from benchmarks.record import RESULTS
from benchmarks.views import MISSING, machine_of, markdown, read
from zoo.config.cards import card_names, read_card
from zoo.config.describe import listing
from zoo.schema.papers import papers_of
from zoo.schema.registry import KINDS, registry

_BLOCK = re.compile(r"(<!-- table: (?P<name>[a-z-]+) -->\n)(?P<body>.*?)(<!-- /table -->)", re.DOTALL)


def components(results: Path) -> str:
    """What `zoo list` shows, plugins left out."""
    shown = [d for d in listing() if d.broken is None and not d.source.startswith("plugin")]
    return markdown(
        ("kind", "name", "what it is", "papers"),
        [(d.kind, f"`{d.name}`", d.summary, _papers(d.kind, d.name)) for d in shown],
    )


def _papers(kind: str, name: str) -> str:
    """Links to the papers that a component declares."""
    if kind not in KINDS:
        return ""
    declared = registry().entry(kind, name).signature().constants.get("papers")
    return ", ".join(f"[{paper.title}]({paper.url})" for paper in papers_of(declared))


def pipelines(results: Path) -> str:
    """The presets."""
    rows = [(f"`{d.name}`", d.summary) for d in listing() if d.kind == "pipeline"]
    return markdown(("pipeline", "what it does"), rows)


def counts(results: Path) -> str:
    """How many components of each kind."""
    shown = [d for d in listing() if d.broken is None and not d.source.startswith("plugin")]
    kinds = [k for k in dict.fromkeys(d.kind for d in shown) if k not in ("pipeline", "weights")]
    rows = [(k, ", ".join(f"`{d.name}`" for d in shown if d.kind == k)) for k in kinds]
    return markdown(("kind", "components"), rows)


def weights(results: Path) -> str:
    """The shipped weights."""
    rows = []
    for name in card_names():
        card = read_card(name)
        rows.append((f"`{name}`", card.kind, f"{card.bytes / 1e6:.1f} MB", card.summary))
    return markdown(("weights", "kind", "file", "what they are"), rows)


def weights_budget(results: Path) -> str:
    """What ships and what is planned to, in MiB."""
    rows = []
    for name, today, planned, buys in budget.rows():
        rows.append(
            (name if name == "all" else f"`{name}`", *(f"{m:.2f}" if m else "-" for m in (today, planned)), buys)
        )
    return markdown(("file", "MiB today", "MiB planned", "what it buys"), rows)


def denoiser_candidates(results: Path) -> str:
    """What candidates for the next denoiser cost."""
    record = read("denoiser-candidates", results)
    if record is None:
        return MISSING
    rows = [
        (name, f"{v['parameters'] / 1e6:.1f} M", f"{v['forward_gflop']:.2f}", f"{v['images_per_processor_second']:.0f}")
        for name, v in record["values"].items()
    ]
    return markdown(("network", "parameters", "forward GFLOP", "images a processor second, training"), rows)


def quality(results: Path) -> str:
    """The hit score, with ceiling and floors."""
    tables = []
    for path in sorted(results.glob("hit-score-*.json")):
        record = json.loads(path.read_text())
        values, settings = record["values"], record["settings"]
        names = {
            "ceiling_same_size": "real images, as small as the drawn ones (ceiling)",
            "generated": f"**drawn by `{settings['pipeline']}`**",
            "floor_nearest_training": "nearest training image in the requested style (floor)",
            "floor_shuffled": "drawn images, shuffled (floor)",
        }
        rows = []
        for key, label in names.items():
            v = values[key]
            low, high = (100 * x for x in v["interval"])
            rows.append((
                label, f"{100 * v['hit']:.1f} % ({low:.1f} to {high:.1f})",
                *(share(v[name], v["intervals"][name]) for name in ("concept_at_1", "concept_at_5", "style")),
            ))  # fmt: skip
        rows.append(("guessing", f"{100 * values['chance']:.3f} %", "", "", ""))
        near, colour, left = values["similarity_to_nearest_training"], values["colour"], settings["look_alikes"]
        drawn, real, distance = colour["generated"], colour["real"], values["fd"]
        tables.append(
            markdown(("images", "hit (95 % interval)", "concept@1", "concept@5", "style"), rows)
            + f"\n\n{settings['count']} captions of the split `{settings['split']}`, {left['left_out']} of whose "
            f"{left['of']} rows had left as look-alikes of training images; evaluator `{settings['evaluator']}`. "
            f"The requested colour covers most of the drawing in {share(drawn['rate'], drawn['interval'])} of "
            f"{drawn['count']} requests, and in {share(real['rate'], real['interval'])} of {real['count']} real "
            f"images whose name says it. `{distance['key']}` is {distance['value']:.4f} (as many real images: "
            f"{distance['floor']:.4f}). Similarity to the nearest training image: {near['generated']['p50']:.3f} "
            f"(median; 95th percentile {near['generated']['p95']:.3f}) for drawn images, {near['real']['p50']:.3f} "
            f"({near['real']['p95']:.3f}) for real ones that no generator was trained on."
        )
    return "\n\n".join(tables) or MISSING


def speed(results: Path) -> str:
    """Images, starting up, and a sampler's own arithmetic."""
    parts: list[str] = []
    machines: list[str] = []
    startup, step, training = (read(n, results) for n in ("startup", "sampler_step", "training"))
    rows: list[tuple[str, str]] = []
    if startup is not None:
        v = startup["values"]
        over = 1000 * v["import_zoo_over_bare_seconds"]["median"]
        rows.append(("`import zoo` over the bare interpreter", f"{over:.0f} ms"))
        rows += [(f"`zoo {k}`", f"{1000 * r['median']:.0f} ms") for k, r in v["verb_seconds"].items()]
        machines.append(machine_of(startup))
    for path in sorted(results.glob("generate*.json")):
        generate = json.loads(path.read_text())
        v, s = generate["values"], generate["settings"]
        steps = s["steps"] if isinstance(s["steps"], list) else [s["steps"]]
        what = f"`{s['model']}`, {s['count']} pictures of {s['size']}x{s['size']}, {' + '.join(map(str, steps))} steps"
        for sampler, r in v["after_loading_seconds"].items():
            with_what = "" if sampler == "preset" else f", `{sampler}`"
            rows.append((f"{what}{with_what}, after loading", f"{r['median']:.2f} s"))
        rows.append((f"{what}: the whole `zoo generate` command", f"{v['whole_command_seconds']['median']:.1f} s"))
        rows.append((f"{what}: its peak memory", f"{v['whole_command_peak_bytes'] / 1e6:.0f} MB"))
        machines.append(machine_of(generate))
    if training is not None:
        v = training["values"]
        rows.append(("a training step over one of a bare PyTorch loop", f"{v['zoo_over_bare_percent']:+.1f} %"))
        machines.append(machine_of(training))
    if rows:
        parts.append(markdown(("what", "median"), rows))
    if step is not None:
        lines = [
            (f"`{r['sampler']}`, {'x'.join(map(str, r['shape']))}", f"{r['zoo_with_reading_us']:.1f} µs",
             f"{r['diffusers_us']:.1f} µs", f"{r['times_faster_with_reading']:.1f}x")
            for r in step["values"]["rows"]
            if r["diffusers_us"] is not None
        ]  # fmt: skip
        # Like for like: both begin with the network's output and read x0 from it.
        head = ("a sampler step's own arithmetic, x0 read from the output", "zoo", "diffusers", "diffusers over zoo")
        parts.append(markdown(head, lines))
        machines.append(machine_of(step))
    if not parts:
        return MISSING
    return "\n\n".join([*parts, "Measured on " + "; ".join(dict.fromkeys(machines)) + "."])


def against(results: Path) -> str:
    """Whole pipelines and metrics against other libraries: every pair of the newest records, faster or slower."""
    parts = []
    for suite in ("vs-diffusers", "vs-metrics"):
        files = sorted(results.glob(f"{suite}-*.json"))
        if not files:
            continue
        record = json.loads(files[-1].read_text())
        names = {row["id"]: row["name"] for row in record["rows"]}
        rows = [
            (names[pair["ours"]], names[pair["theirs"]].rpartition(" ")[2], f"{pair['ratio']:.2f}x")
            for pair in record["pairs"]
            if pair.get("ratio") is not None
        ]
        head = ("what, in zoo", "against", "their seconds over zoo's (above 1: zoo is faster)")
        count = record["suite"]["settings"]["count"]
        few = f" Sets of {count} pictures: of so few, the Fréchet distance has a short way."
        said = few if record["suite"]["kind"] == "metrics" else ""
        parts.append(markdown(head, rows) + f"\n\n[{files[-1].name}](../benchmarks/results/{files[-1].name}).{said}")
    return "\n\n".join(parts) or MISSING


def batches(results: Path) -> str:
    """How far a batch of another size moves an image."""
    made = read("batches", results)
    if made is None:
        return MISSING
    s, rows = made["settings"], made["values"]["rows"]
    samplers = " and ".join(f"`{name}`" for name in dict.fromkeys(row["sampler"] for row in rows))
    worst = max(rows, key=lambda row: row["values_that_differ"])
    apart, levels = max(row["largest"] for row in rows), max(row["largest_of_255"] for row in rows)
    return (
        f"{s['pictures']} pictures of `{s['model']}` in {s['steps']} steps, {s['dtype']}, by {samplers}, one and three "
        f"at a time and all at once: at most {apart:.1e} apart in [0, 1]; of what a picture file holds, at most "
        f"{worst['values_that_differ']} of {worst['values']:,} values differ, by {levels} of 255 at most. Measured on "
        f"{machine_of(made)}."
    )


def super_resolution(results: Path) -> str:
    """Enlarging against bicubic, over numbers of steps."""
    tables = []
    for path in sorted(results.glob("super-resolution-*.json")):
        record = json.loads(path.read_text())
        values, settings = record["values"], record["settings"]
        keys = list(values["floor"])
        rows = []
        for row in values["rows"]:
            name = row["what"]
            if "steps" in row:
                name = f"`{settings['pipeline']}`, {row['steps']} step" + ("s" if row["steps"] > 1 else "")
                name = f"**{name}**" if row["steps"] == settings["default_steps"] else name
            rows.append((name, f"{row['psnr']:.2f} dB", f"{row['ssim']:.4f}", *(f"{row['fd'][k]:.4f}" for k in keys)))
        rows.append(("other true pictures (floor)", "", "", *(f"{values['floor'][k]:.4f}" for k in keys)))
        head = ("pictures", "PSNR", "SSIM", *(f"`{k}`" for k in keys))
        tables.append(
            markdown(head, rows) + f"\n\n{settings['count']} pictures of the split `{settings['split']}`, "
            f"{settings['small_size']} to {settings['stage']['size']} pixels from true small ones; "
            "the preset's steps in bold."
        )
    return "\n\n".join(tables) or MISSING


def doctor(results: Path) -> str:
    """What each stage of a cascade loses."""

    def say(value: float | None, digits: int = 4) -> str:
        return "" if value is None else f"{value:.{digits}f}"

    tables = []
    for path in sorted(results.glob("doctor-*.json")):
        record = json.loads(path.read_text())
        values = record["values"]
        rows = [
            (
                f"`{s['name']}`", str(s["size"]) if s["low_res"] is None else f"{s['low_res']} to {s['size']}",
                say(s["level"], 2), say(s["psnr"], 2), say(s["psnr_bicubic"], 2), say(s["fd_true"]),
                say(s["fd_generated"]), say(s["floor"]), say(s["lost"]),
            )
            for s in values["stages"]
        ]  # fmt: skip
        rows.append(("all", "", "", "", "", "", say(values["total"]), "", say(values["total"])))
        head = ("stage", "pixels", "level", "PSNR", "bicubic", "fd from true", "fd drawn", "floor", "lost")
        tables.append(
            markdown(head, rows) + f"\n\n`{record['settings']['pipeline']}`, {values['count']} captions of the split "
            f"`{record['settings']['split']}`; distances are `{values['key']}`."
        )
    return "\n\n".join(tables) or MISSING


def metrics(results: Path) -> str:
    """The cost of metrics next to the usual libraries."""
    record = read("metrics", results)
    if record is None:
        return MISSING
    values, settings = record["values"], record["settings"]
    rows = []
    for r in values["frechet"]:
        what = f"Fréchet distance, {r['case']}: {r['samples']} x {r['dimensions']}, from {r['from']}"
        ours, theirs = r["zoo_seconds"]["median"], r["sqrtm_seconds"]["median"]
        rows.append((what, f"{ours:.2f} s", f"{theirs:.1f} s, `sqrtm(S1 @ S2)`", f"{r['times_faster']:.1f}x"))
    found = values["inception"]
    *ours, peer = found["rows"]
    for r in ours:
        theirs = f"{peer['images_per_second']:.1f} a second, pytorch-fid in float32"
        speed = f"{r['images_per_second']:.1f} a second"
        rows.append((f"Inception features, {r['what']}", speed, theirs, f"{r['times_faster']:.2f}x"))
    shift, random = found["shift"], found["random_weights"]
    said = (
        f"Pictures of {settings['size']}x{settings['size']}, {settings['count']} a round.",
        f"bfloat16 moves the Fréchet distance of two sets of {shift['samples']} made pictures by "
        f"{100 * shift['relative']:+.3f} %.",
        f"Inception had {'random weights, the same on both sides' if random else 'its published weights'}; features in "
        f"float32 are {found['relative_difference_float32']:.0e} apart.",
        f"Measured on {machine_of(record)}.",
    )
    return markdown(("what", "zoo", "other", "faster"), rows) + "\n\n" + " ".join(said)


def gpu(results: Path) -> str:
    """Results of the newest run of benchmarks.on_gpu on a GPU."""
    found = [json.loads(path.read_text()) for path in results.glob("on-gpu-*.json")]
    measured = [r for r in found if r["machine"]["accelerators"]]
    if not measured:
        return "*Not measured yet: no GPU was at hand since the command is there.*"
    return on_gpu.page(max(measured, key=lambda r: r["run"]["started"]))


TABLES: dict[str, Callable[[Path], str]] = {
    "stable-diffusion": stable_diffusion_table.table,
    "components": components, "pipelines": pipelines, "counts": counts, "weights": weights, "quality": quality,
    "speed": speed, "against": against, "super-resolution": super_resolution, "doctor": doctor, "metrics": metrics,
    "batches": batches, "gpu": gpu, "weights-budget": weights_budget, "denoiser-candidates": denoiser_candidates,
    "judge": judge_table.judge, "judge-variants": judge_table.variants,
    "busy": first_use_table.busy, "first-picture": first_use_table.first_picture,
    "first-picture-line": first_use_table.first_picture_line,
    "decode": memory_tables.decode, "eight-bit": memory_tables.eight_bit,
    "model-pipelines": models.pipelines, "model-weights": models.weights,
}  # fmt: skip


def render(text: str, results: Path = RESULTS) -> str:
    """The text with every table brought up to date; KeyError for an unknown table."""

    def fill(match: re.Match[str]) -> str:
        return f"{match[1]}{TABLES[match['name']](results)}\n{match[4]}"

    return _BLOCK.sub(fill, text)


def main() -> None:
    """Write or check the tables of a file."""
    parser = argparse.ArgumentParser(description="Tables from records.")
    parser.add_argument("--write", type=Path, nargs="+", required=True, metavar="FILE", help="Markdown files")
    parser.add_argument("--check", action="store_true", help="only tell whether they are up to date")
    options = parser.parse_args()
    stale = [page for page in options.write if (text := page.read_text()) != render(text)]
    for page in stale:
        if options.check:
            print(f"the tables of {page} are not up to date; run without --check", file=sys.stderr)
        else:
            page.write_text(render(page.read_text()))
            print(f"wrote the tables of {page}")
    if stale and options.check:
        sys.exit(1)
    if not stale:
        print(f"the tables of {len(options.write)} pages are up to date")


if __name__ == "__main__":
    main()
