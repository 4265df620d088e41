"""`zoo check`: whether a pipeline can be built, without building it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from zoo.cli.model_options import Autoencoder, Copy, Loras, Overrides, Prediction, Sampler, Steps, Weights

if TYPE_CHECKING:
    from zoo.inspection.cost import StageCost


def check(
    config: Annotated[str, typer.Argument(help="A pipeline's or model's name, a config file, or a model's file.")],
    overrides: Overrides = None,
    sampler: Sampler = None,
    steps: Steps = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    weights: Weights = None,
    autoencoder: Autoencoder = None,
    prediction: Prediction = None,
    copy: Copy = None,
    lora: Loras = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the config as it will be built.")] = False,
) -> None:
    """Check a config's names, arguments and contracts, that its weight files are there, and say what it will cost."""
    from zoo.cli.table import print_table
    from zoo.config.check import resolve
    from zoo.inspection.cost import FLOAT16, FLOAT32, cost_of
    from zoo.schema.registry import registry

    resolved = resolve(config, overrides, {
        "sampler": sampler, "steps": steps, "guidance": guidance, "weights": weights, "autoencoder": autoencoder,
        "prediction": prediction, "copy": copy, "adapters": lora or None,
    })  # fmt: skip
    if as_json:
        typer.echo(json.dumps(resolved.config, indent=2))
        return
    cost = cost_of(resolved, registry())
    print_table(
        ("stage", "size", "denoiser", "autoencoder", "guidance", "sampler", "evaluations", "parameters"),
        [
            (s["name"], str(s["size"]), _say(s["denoiser"]), _say(s["autoencoder"]),
             ", ".join(_say(g) for g in s["guidance"]) or "-", _say(s["sampler"]), _count(c), _millions(c.parameters))
            for s, c in zip(resolved.config["stages"], cost.stages, strict=True)
        ],
    )  # fmt: skip
    for entry in resolved.config.get("adapters") or ():
        typer.echo(f"LoRA: {entry['file']}, scale {entry['scale']:g}, of stage '{entry['stage']}'")
    if cost.parameters:
        typer.echo(
            f"weights: {_millions(cost.parameters)} parameters, {cost.bytes_in(FLOAT32) / 1e6:.0f} MB in float32, "
            f"{cost.bytes_in(FLOAT16) / 1e6:.0f} MB in half precision"
        )
    typer.echo(f"ok: '{resolved.config['name']}' can be built")


def _count(cost: StageCost) -> str:
    """`30`, `up to 59`, `30, 15 of the whole network`."""
    said = f"{'' if cost.exact else 'up to '}{cost.evaluations}"
    whole = cost.full_evaluations
    return said if whole == cost.evaluations else f"{said}, {whole} of the whole network"


def _millions(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.2f} M"


def _say(block: dict[str, Any]) -> str:
    """`ddim(steps=30, grid=trailing)`, or the weights' name."""
    if "weights" in block:
        return block["weights"]
    name = block.get("name") or _say(block["network"])
    inner = [f"{k}={_say(v) if isinstance(v, dict) else v}" for k, v in block.items() if k not in ("name", "network")]
    return f"{name}({', '.join(inner)})" if inner else name
