"""The results as a short table in Markdown; the figures are the record's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.on_gpu import speed
from zoo.bench.checks import disagreements

Row = Mapping[str, Any]
NAMED = 5  # rows of one reason that are named


def table(whole: Mapping[str, Any] | None, phases: Sequence[Any], left_out: Sequence[str] = ()) -> str:
    """A paragraph a phase; failed, skipped and unreached rows come last."""
    said = []
    rows = [] if whole is None else whole["rows"]
    for phase in phases:
        mine = [row for row in rows if row["phase"] == phase.name]
        said.append(
            f"{phase.name}: {_counts(mine)}, {phase.seconds:.0f} s" + (f" ({phase.reason})" if phase.reason else "")
        )
        said += [f"  {line}" for line in _lines(mine)]
        if whole is not None:
            ids = {row["id"] for row in mine}
            said += [f"  {line}" for line in _pairs(whole, ids)]
    said += [f"disagrees: {_check(row)}" for row in disagreements(dict(whole or {"rows": []}))]
    for status in ("failed", "unavailable", "not reached"):
        said += _alike(status, [row for row in rows if row["status"] == status])
    return "\n".join([*said, *left_out])


def failed(whole: Mapping[str, Any] | None, phases: Sequence[Any]) -> str | None:
    """Why the command counts as failed, in a sentence; None where it doesn't."""
    rows = [] if whole is None else whole["rows"]
    if not any(row["status"] == "measured" for row in rows):
        return "nothing was measured"
    broken = [row["name"] for row in rows if row["status"] == "failed"]
    apart = [row["name"] for row in disagreements(dict(whole or {}))]
    ended = [
        phase.name for phase in phases if phase.reason and phase.record is None and "--minutes" not in phase.reason
    ]
    found = [f"{len(names)} {what} ({names[0]}{', ...' if len(names) > 1 else ''})" for names, what in (
        (broken, "rows failed"), (apart, "checks disagree"), (ended, "phases left no record")
    ) if names]  # fmt: skip
    return "; ".join(found) or None


def _counts(rows: Sequence[Row]) -> str:
    kinds = ("measured", "failed", "unavailable", "not reached")
    counted = [(sum(row["status"] == kind for row in rows), kind) for kind in kinds]
    apart = len(disagreements({"rows": list(rows)}))
    said = [f"{count} {kind}" for count, kind in counted if count]
    return ", ".join([*said, *([f"{apart} disagree"] if apart else [])]) or "nothing"


def _alike(status: str, rows: Sequence[Row]) -> list[str]:
    """Rows that share a reason, in a line."""
    names: dict[str, list[str]] = {}
    for row in rows:
        names.setdefault(row["reason"], []).append(row["name"])
    return [
        f"{status}: {'; '.join([*found[:NAMED], *([f'{len(found) - NAMED} more'] if found[NAMED:] else [])])}: {reason}"
        for reason, found in names.items()
    ]


def _lines(rows: Sequence[Row]) -> list[str]:
    """Measured rows that belong to no comparison."""
    own = [r for r in rows if r["status"] == "measured" and r["asked"].get("part", "pipeline") == "pipeline"]
    return [line for row in own if row["kind"] != "diffusers" for line in [_line(row)] if line]


def _line(row: Row) -> str | None:
    """A measured row as a line of its own."""
    if row.get("check") is not None:
        largest = row["check"].get("largest")
        exact = row["asked"]["precision"] == "float32"
        return None if exact and row["check"]["agrees"] else _check(row) if largest is not None else None
    values = (row["quality"] or {}).get("values") or {}
    speed, memory, energy = row["speed"] or {}, row["memory"] or {}, row["energy"] or {}
    said = [f"{key} {value['value']:.4g}{_interval(value)}" for key, value in values.items()]
    if speed.get("images_per_second"):
        said.append(f"{speed['images_per_second']:.4g} images/s")
    if memory.get("device_peak_bytes"):
        said.append(f"{memory['device_peak_bytes'] / 1e9:.3g} GB")
    if energy.get("joules_per_image"):
        said.append(f"{energy['joules_per_image']:.3g} J an image")
    reason = (row["quality"] or {}).get("reason") if row["phase"] in ("quality", "train") else None
    said += [f"not judged: {reason}"] if reason and not values else []
    return f"{row['name']}: {', '.join(said)}" if said else None


def _interval(value: Row) -> str:
    low, high = (value.get("interval") or (None, None))[:2]
    return "" if low is None else f" ({low:.3g} to {high:.3g})"


def _check(row: Row) -> str:
    check = row["check"]
    what = f"{check.get('largest')} {check.get('what')}"
    more = f", tolerance {check['tolerance']:g}" if check.get("tolerance") is not None else ""
    mean = f", mean {check['mean']:g}" if check.get("mean") is not None else ""
    return f"{row['name']}: {what}{mean}{more}"


def _pairs(whole: Mapping[str, Any], ids: set[str]) -> list[str]:
    """Comparisons, each beside its target line where there is one."""
    found = []
    for pair in whole["pairs"]:
        if pair["ours"] not in ids:
            continue
        ratio = "-" if pair["ratio"] is None else f"{pair['ratio']:.2f}"
        line = f", line {pair['line']:g}" if pair.get("line") is not None else ""
        agrees = {True: "", False: ", and the outputs DISAGREE", None: ""}[pair["agreement"].get("agrees")]
        found.append(f"{pair['name']}, over {pair['peer']}: {ratio}{line}{agrees}")
    return found


def page(whole: Mapping[str, Any]) -> str:
    """The record as tables in Markdown; rows with quality and rows with random weights have separate tables."""
    place, calls = whole["machine"]["accelerators"][0], whole.get("calls") or [whole["run"]]
    codes = [call["code"] for call in whole.get("calls") or [whole]]
    commits = list(dict.fromkeys(str(code["commit"])[:8] for code in codes))
    changed = ", with changes that were not committed" if any(code.get("dirty") for code in codes) else ""
    seconds = [f"{call['wall_seconds']:.0f}" for call in calls]
    lasted = (
        f"{len(calls)} calls of {', '.join(seconds[:-1])} and {seconds[-1]} s" if seconds[1:] else f"{seconds[0]} s"
    )
    said = [
        f"{place['name']}, driver {place['driver']}, torch {whole['versions']['torch']}, commit"
        f"{'s' if commits[1:] else ''} {' and '.join(commits)}{changed}; {whole['run']['started'][:10]}, {lasted}."
    ]
    for phase in whole["phases"]:
        mine = [row for row in whole["rows"] if row["phase"] == phase["name"]]
        said.append(f"**{phase['name']}**: {_counts(mine)} in {phase['seconds']:.0f} s.")
        ids = {row["id"] for row in mine}
        pairs = [
            (p["name"], p["peer"], "-" if p["ratio"] is None else f"{p['ratio']:.2f}", _spread(p))
            for p in whole["pairs"] if p["ours"] in ids
        ]  # fmt: skip
        if pairs:
            said.append(_markdown(("random weights, bfloat16", "over", "times as fast", "each turn"), pairs))
            said.append(_markdown(("line", "batch", "over", "to reach", "measured"), _beside(whole)))
        if any(row.get("check") for row in mine):
            said += agreement(mine)
        else:
            said += ["\n".join(f"- {line}" for line in _lines([r for r in mine if not _is_trained(r)])), trained(mine)]
        failures = [
            f"- {line}" for status in ("failed", "unavailable", "not reached")
            for line in _alike(status, [row for row in mine if row["status"] == status])
        ]  # fmt: skip
        said.append("\n".join(failures))
    return "\n\n".join(part for part in said if part)


def agreement(rows: Sequence[Row]) -> list[str]:
    """How far the device is from the CPU: of float32 the largest, of half precision each pipeline."""
    checked = [row for row in rows if row["status"] == "measured"]
    exact = [row for row in checked if row["asked"]["precision"] == "float32"]
    images = [row for row in exact if row["check"]["what"] == "grey levels"]
    whole = [row for row in images if row["asked"]["steps"] is None and not row["asked"]["fast"]]
    rounded = [row for row in images if row["check"].get("with_tf32")]
    found = [
        f"- float32, {len(group)} {what}: at most {_largest(group):.4f} of 255 apart ({_farthest(group)}), tolerance "
        f"{group[0]['check']['tolerance']:g}"
        for group, what in (
            (whole, "pipelines with all their steps"),
            ([row for row in images if row not in whole], "samplers, parts of the fast path and tasks in a few steps"),
        ) if group
    ]  # fmt: skip
    if rounded:
        apart = [row["check"]["with_tf32"] for row in rounded]
        worst = max(rounded, key=lambda row: row["check"]["with_tf32"]["largest"])
        found.append(
            f"- the same with TensorFloat-32: at most {max(a['largest'] for a in apart):.1f} apart ({worst['name']}), "
            f"in the mean over an image at most {max(a['mean'] for a in apart):.2f}"
        )
    for row in (row for row in exact if row not in images):
        again = row["check"].get("resumed")
        more = f"; {again['what']}: {again['largest']:.1e}" if again else ""
        if row["check"].get("largest") is not None:
            found.append(f"- {row['name']}: {row['check']['what']} {row['check']['largest']:.1e}{more}")
    precisions = list(dict.fromkeys(row["asked"]["precision"] for row in checked if row not in exact))
    halves = {(row["asked"]["model"], row["asked"]["precision"]): row["check"] for row in checked if row not in exact}
    table = [
        (f"`{model}`", *(_apart(halves.get((model, precision))) for precision in precisions))
        for model in dict.fromkeys(model for model, _ in halves)
    ]
    head = ("of 255 from the CPU's float32", *(f"{precision}: largest (mean)" for precision in precisions))
    return ["\n".join(found), _markdown(head, table) if table else ""]


def _largest(rows: Sequence[Row]) -> float:
    return max(row["check"]["largest"] for row in rows)


def _farthest(rows: Sequence[Row]) -> str:
    return str(max(rows, key=lambda row: row["check"]["largest"])["name"])


def _apart(check: Row | None) -> str:
    return "" if check is None else f"{check['largest']:.1f} ({check['mean']:.2f})"


def _is_trained(row: Row) -> bool:
    return row["kind"] == "training" and row["status"] == "measured" and bool(row["run"])


def trained(rows: Sequence[Row]) -> str:
    """What training did with a recipe's weights: its rate, its losses, and the score before and after."""
    made = []
    for row in (row for row in rows if _is_trained(row)):
        run, speed, losses = row["run"], row["speed"], row["run"]["losses"]
        before = next((r for r in rows if r["id"].startswith(f"{row['id']}-start")), None)
        made.append((
            f"`{row['asked']['model']}`, {' and '.join(row['asked']['fast']) or 'eager'}",
            f"{run['steps']:,} of {run['batch']}", f"{run['seconds_training']:.0f} s",
            f"{1000 * speed['latency_seconds']['p50']:.1f} ms", f"{speed['images_per_second']:,.0f}",
            f"{100 * row['work']['share_of_peak']:.1f} %", f"{losses['first']:.4f} to {losses['last']:.4f}",
            f"{losses['validation']['loss']:.4f}", _hit(before), _hit(row),
        ))  # fmt: skip
    head = (
        "trained", "steps", "in", "a step", "images/s", "of the card", "loss, first to last step",
        "of `val` at the end", "hit on `val` before", "after",
    )  # fmt: skip
    return _markdown(head, made) if made else ""


def _hit(row: Row | None) -> str:
    """The only judged value of a row, with its interval."""
    values = list((((row or {}).get("quality") or {}).get("values") or {}).values())
    return f"{values[0]['value']:.3f}{_interval(values[0])}" if values else "not judged"


def _spread(pair: Row) -> str:
    return f"{min(pair['ratios']):.2f} to {max(pair['ratios']):.2f}" if pair["ratios"] else str(pair.get("reason", ""))


def _beside(whole: Row) -> list[tuple[str, ...]]:
    """The lines, each with what was measured of it and whether that reaches it."""
    return [
        (
            entry["what"], "" if entry["batch"] is None else str(entry["batch"]), entry["over"], f"{entry['line']:g}",
            entry["reason"] if entry["measured"] is None
            else f"{entry['measured']:.3f}, {'reached' if entry['measured'] >= entry['line'] else 'missed'}",
        )
        for entry in speed.beside(whole)
    ]  # fmt: skip


def _markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, ["---"] * len(head), *rows))
