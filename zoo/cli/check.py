"""`zoo check`: whether a pipeline can be built, without building it."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer


def check(
    config: Annotated[str, typer.Argument(help="A pipeline's name or a config file.")],
    overrides: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the config.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="Another sampler; see `zoo list sampler`.")] = None,
    steps: Annotated[int | None, typer.Option(help="Sampling steps.")] = None,
    guidance: Annotated[float | None, typer.Option(help="Scale of classifier-free guidance.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the config as it will be built.")] = False,
) -> None:
    """Check a config's names, arguments and contracts, and that its weight files are there."""
    import zoo
    from zoo.cli.table import print_table

    resolved = zoo.check(config, overrides, sampler=sampler, steps=steps, guidance=guidance)
    if as_json:
        typer.echo(json.dumps(resolved, indent=2))
        return
    print_table(
        ("stage", "size", "denoiser", "autoencoder", "guidance", "sampler"),
        [
            (s["name"], str(s["size"]), _say(s["denoiser"]), _say(s["autoencoder"]),
             ", ".join(_say(g) for g in s["guidance"]) or "-", _say(s["sampler"]))
            for s in resolved["stages"]
        ],
    )  # fmt: skip
    typer.echo(f"ok: '{resolved['name']}' can be built")


def _say(block: dict[str, Any]) -> str:
    """`ddim(steps=30, grid=trailing)`, or the weights' name."""
    if "weights" in block:
        return block["weights"]
    name = block.get("name") or _say(block["network"])
    inner = [f"{k}={_say(v) if isinstance(v, dict) else v}" for k, v in block.items() if k not in ("name", "network")]
    return f"{name}({', '.join(inner)})" if inner else name
