"""docs/models.md: every shipped pipeline and weight file, with its numbers, from cards, presets and records."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import published
from zoo.config.cards import Card, card_names, read_card
from zoo.config.presets import preset_names, presets_with, read_preset, weights_of

DATA = "emoji-core-128.zip"
NOT_MEASURED = "*Not measured with these weights yet.*"


def pipelines(results: Path) -> str:
    """A section a preset."""
    return "\n\n".join(_pipeline(name, results) for name in preset_names())


def weights(results: Path) -> str:
    """A section a weight file."""
    return "\n\n".join(_weights(read_card(name), results) for name in card_names())


def _pipeline(name: str, results: Path) -> str:
    config, _ = read_preset(name)
    used = weights_of(config)
    size = sum(read_card(card).bytes for card in used) / 1e6
    lines = [
        f"### {name}", "", str(config.get("summary") or ""), "",
        f"- weights, {size:.1f} MB: {', '.join(f'[{card}](#{card})' for card in used)}",
        *(f"- {_stage(stage)}" for stage in config["stages"]), "", _numbers(name, results),
    ]  # fmt: skip
    return "\n".join(lines)


def _stage(stage: Mapping[str, Any]) -> str:
    sampler = stage["sampler"]
    scales = [f"guidance {g['scale']:g}" for g in stage.get("guidance") or () if "scale" in g]
    return ", ".join([f"stage `{stage['name']}`: {stage['size']}x{stage['size']} pixels, `{sampler['name']}`",
                      f"{sampler['steps']} steps", *scales])  # fmt: skip


def _weights(card: Card, results: Path) -> str:
    raw = card.raw
    used = presets_with(card.name)
    lines = [
        f"### {card.name}", "", card.summary, "",
        f"- {card.kind} `{card.component}`, {card.bytes:,} bytes, {raw['file'].get('dtype', 'float32')}",
        f"- licence: {raw.get('licence', 'not said')}; [whose work](../zoo/weights/{card.name}.yaml) it rests on",
        f"- trained by [{Path(raw['recipe']).name}](../{raw['recipe']}): {_training(raw['provenance'])}",
        f"- validation: {_metrics(raw.get('metrics') or {})}",
        f"- in {', '.join(f'[{name}](#{name})' for name in used)}" if used else "- in no shipped pipeline",
    ]  # fmt: skip
    if card.name in published.WEIGHTS:
        return "\n".join([*lines, "", _numbers(card.name, results)])
    reached = "; ".join(f"[{name}](#{name}): {said}" for name in used if (said := _short(name, results)))
    return "\n".join([*lines, f"- what pipelines reach with it: {reached or NOT_MEASURED}"])


def _training(provenance: Mapping[str, Any]) -> str:
    """Every sitting, the last first."""
    said: list[str] = []
    found: Mapping[str, Any] | None = provenance
    while found is not None:
        told = f"{found['steps']:,} steps, {found['training_seconds']:,} s on {found['device']}"
        said.append(told if found is provenance else f"{told} as `{found['name']}`")
        found = found.get("started_from")
    return "; before that ".join(said)


def _metrics(metrics: Mapping[str, Any]) -> str:
    flat = {k.removeprefix("validation_"): v for k, v in metrics.items() if isinstance(v, (int, float))}
    return ", ".join(f"{key} {value:g}" for key, value in flat.items()) or "not said"


def _short(name: str, results: Path) -> str:
    made = published.read(name, results)
    return ", ".join(f"{e['metric']} {e['value']:g} at N {e['n']}" for e in published.entries(made))


def _numbers(name: str, results: Path) -> str:
    """A table of the values with their floors, and how to have them again."""
    made = published.read(name, results)
    if made is None:
        return NOT_MEASURED
    lines = ["| value | N | is | deviation | beside it | tolerance |", "|---|---|---|---|---|---|"]
    for entry, value in zip(published.entries(made), made["values"]["outcomes"], strict=True):
        floors = "; ".join(f"{what} {v:.4g}" for what, v in value["beside"].items())
        error = "" if value["error"] is None else f"{value['error']:.2g}"
        lines.append(
            f"| `{entry['key'].rpartition('@')[0]}` | {entry['n']} | **{entry['value']:g}** | {error} | {floors} "
            f"| {entry['tolerance']:g} |"
        )
    lines += ["", f"Again: `zoo reproduce {name} --data {DATA}`, {_seconds(made)}{_also(name, results)}."]
    return "\n".join(lines)


def _seconds(made: Mapping[str, Any]) -> str:
    machine = made["machine"]
    threads = f"{machine['threads']} thread{'s' if machine['threads'] != 1 else ''}"
    return f"{made['values']['seconds']:.0f} s of {machine['processor']} with {threads}"


def _also(name: str, results: Path) -> str:
    """What the same command measures besides, of weights: the values of the pipelines that use them."""
    others = [other for other in presets_with(name) if other != name]
    measured = [(other, made) for other in others if (made := published.read(other, results)) is not None]
    told = "; ".join(f"[{other}](#{other}), {_seconds(made)}" for other, made in measured)
    return f"; it goes on with the pipelines that use these weights: {told}" if told else ""
