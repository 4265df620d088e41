"""Why the evaluator is a valid judge, as a table: a view of the records `judge-*.json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.views import MISSING

KINDS = ("blur", "noise", "cut-outs", "hue")


def share(value: float, interval: Sequence[float]) -> str:
    """A share with its interval, in percent."""
    low, high = (100 * x for x in interval)
    return f"{100 * value:.1f} % ({low:.1f} to {high:.1f})"


def _levels(values: dict[str, Any], images: str, name: str) -> str:
    each = values["distortions"][images][name]
    scores = " ".join(f"{100 * e['score']:.0f}" for e in each["levels"])
    return scores if "holds" not in each else f"{scores} ({'falls' if each['holds'] else 'does not fall'})"


def _floor(values: dict[str, Any], split: str, size: str) -> str:
    each = values["floor"][split]
    low, high = each[f"floor{size}"], each[f"ceiling{size}"]
    return f"{share(low['hit'], low['interval'])}; {share(high['hit'], high['interval'])}"


def _blind(values: dict[str, Any], part: str) -> str:
    each = values.get(part)
    if each is None:
        return "-"
    parts = ("both", "reader_only", "judge_only", "neither")
    counted = ", ".join(f"{name.replace('_only', ' alone')} {each[name]}" for name in parts)
    return f"{share(each['agreement'], each['interval'])}: {counted}"


def _other(values: dict[str, Any], at: str, interval: str) -> str:
    return share(values["other_hand"][at], values["other_hand"][interval])


def _named(values: dict[str, Any]) -> list[str]:
    """What the first blind reader could name, by pipeline."""
    images = (values["blind"] or {"images": []})["images"]
    made = []
    for pipeline in sorted({image["pipeline"] for image in images}):
        mine = [image["reader_names_it"] for image in images if image["pipeline"] == pipeline]
        made.append(f"Of the blind images the reader named {sum(mine)} of {len(mine)} by `{pipeline}`.")
    return made


def judge(results: Path) -> str:
    """Each judge that was measured, a column; the shipped one last."""
    found = [json.loads(path.read_text()) for path in results.glob("judge-*.json")]
    found = [record for record in found if "trained_on" in record["settings"]]  # not of a set for blind readers alone
    found.sort(key=lambda r: (r["name"] == "judge-emoji-evaluator", r["name"]))
    if not found:
        return MISSING
    rows: list[tuple[str, Callable[[dict[str, Any]], str]]] = [
        ("another hand: concept@5", lambda v: _other(v, "concept_at_5", "interval")),
        ("another hand: concept@1", lambda v: _other(v, "concept_at_1", "interval_at_1")),
        ("floor; ceiling, hits of `test`", lambda v: _floor(v, "test", "")),
        ("the same at 64 pixels", lambda v: _floor(v, "test", "_64")),
        ("floor; ceiling, hits of `val`", lambda v: _floor(v, "val", "")),
        ("agreement with a blind reader, who names in own words", lambda v: _blind(v, "blind")),
        ("the same, with one who picks from the list, and a style", lambda v: _blind(v, "blind_with_style")),
    ]
    for images, said in (("val", "hits of `val`"), ("other_hand", "another hand: concept@5")):
        rows += [(f"{said}, in %, under {n}", lambda v, i=images, n=n: _levels(v, i, n)) for n in KINDS]
    lines = [("check", *(f"`{r['name'].removeprefix('judge-')}`" for r in found)), ("---",) * (1 + len(found))]
    lines.append(("trained on", *(str(r["settings"]["trained_on"]) for r in found)))
    lines += [(label, *(said(r["values"]) for r in found)) for label, said in rows]
    last = found[-1]["values"]
    levels = last["distortions"]["val"]
    told = "; ".join(" ".join([name, *(f"{e['level']:g}" for e in levels[name]["levels"])]) for name in KINDS)
    note = (
        f"{last['other_hand']['count']} drawings by another hand, one a concept (guessing: "
        f"{100 * last['other_hand']['chance']:.2f} %). Levels from none to strongest: {told} (pixels of sigma, "
        "deviation in [-1, 1], boxes of 32 pixels, turns of the circle)."
    )
    table = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    return "\n\n".join([table, " ".join([note, *_named(last)])])


def variants(results: Path) -> str:
    """What was tried to make the judge better, a line each; a view of `variants-of-the-judge.json`."""
    path = results / "variants-of-the-judge.json"
    if not path.is_file():
        return MISSING
    values = json.loads(path.read_text())["values"]
    folders = [name for name, part in next(iter(values.values())).items() if "kappa" in part]
    head = ["variant", "`val`: hits", "concept@5", "style", "another hand: concept@5", *(f"`{f}`" for f in folders)]
    lines = [head, ["---"] * len(head)]
    for name, found in values.items():
        val = found["val"]
        told = [100 * x for x in (val["hit"], val["concept_at_5"], val["style"], found["other_hand"]["concept_at_5"])]
        readers = [f"{100 * found[f]['agreement']:.0f} %, {found[f]['kappa']:.2f}" for f in folders]
        lines.append([name, *(f"{x:.1f} %" for x in told), *readers])
    never = "; ".join(
        f"on `{f}` {100 * (part['judge_only'] + part['neither']) / part['count']:.0f} %"
        for f in folders
        if (part := next(iter(values.values()))[f])
    )
    note = f"Readers: agreement, and kappa. A judge that never hits would agree with the reader {never}."
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + f"\n\n{note}"
