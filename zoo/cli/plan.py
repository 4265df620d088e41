"""`zoo plan`: what drawing will take, by headers alone, and the settings that fit into a given memory."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from zoo.cli.model_options import Autoencoder, Overrides, Prediction, Sampler, Steps, Weights

if TYPE_CHECKING:
    from zoo.bench.needs import How
    from zoo.inspection.plan import Plan


def plan(
    config: Annotated[str, typer.Argument(help="A pipeline's or model's name, a config file, or a model's file.")],
    size: Annotated[str | None, typer.Option(help="Pixels: 1024 or HEIGHTxWIDTH; the pipeline's own.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images a network call.")] = 1,
    precision: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    memory: Annotated[str | None, typer.Option(help="Look for settings that fit, like 8GB.")] = None,
    sampler: Sampler = None,
    steps: Steps = None,
    weights: Weights = None,
    autoencoder: Autoencoder = None,
    prediction: Prediction = None,
    overrides: Overrides = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what drawing takes: parameters, memory, operations; with --memory, the settings that fit."""
    from zoo.inspection.plan import plan as make
    from zoo.inspection.plan import read_bytes, read_pixels

    limit = None if memory is None else read_bytes(memory)
    made = make(
        config, overrides, size=read_pixels(size), batch=batch, precision=precision, memory=limit, sampler=sampler,
        steps=steps, weights=weights, autoencoder=autoencoder, prediction=prediction,
    )  # fmt: skip
    if as_json:
        typer.echo(json.dumps(made.to_dict(), indent=2))
    else:
        given = [word for pair in (("--weights", weights), ("--autoencoder", autoencoder), ("--sampler", sampler),
                                   ("--steps", steps), ("--size", size)) if pair[1] is not None
                 for word in map(str, pair)]  # fmt: skip
        _print(made, ["--model", config, *given])
    if made.limit is not None and made.how is None:
        raise typer.Exit(1)


def _print(made: Plan, model: list[str]) -> None:
    from zoo.cli.table import print_table
    from zoo.inspection.plan import RESERVE, alternatives, arguments

    how = made.how or made.asked
    print_table(
        ("part", "parameters", "weights", "activations", "TFLOP a call", "calls"),
        [
            (p.name, f"{p.parameters / 1e6:,.1f} M", _size(p.weight_bytes(how)), _size(p.peak_bytes(how)),
             f"{p.operations * how.batch / 1e12:.3g}", str(p.calls))
            for p in made.needs.parts
        ],
    )  # fmt: skip
    parameters = sum(part.parameters for part in made.needs.parts)
    typer.echo(
        f"{made.name}, {'x'.join(map(str, made.size))}, {_said(how)}: {parameters / 1e6:,.1f} M parameters, "
        f"{made.evaluations} evaluations, {made.needs.operations / 1e12:.4g} TFLOP an image"
    )
    typer.echo(
        f"memory: {_size(made.needs.weight_bytes(how))} of weights, at most {_size(made.needs.peak_bytes(how))} at "
        f"once, and about {_size(RESERVE)} of Python and torch"
    )
    if made.limit is None:
        print_table(("with", "at most at once"),
                    [(_said(other), _size(made.needs.peak_bytes(other))) for other in alternatives(made)])  # fmt: skip
        return
    if made.how is None:
        assert made.least is not None
        typer.echo(f"nothing that was tried fits into {_size(made.limit)}; the least is {_size(made.least)}")
        return
    options, built = arguments(made.how)
    words = ", ".join(f"{key}={value!r}" for key, value in built.items())
    typer.echo(f"it fits into {_size(made.limit)} with {_said(made.how)}:")
    typer.echo(f"  zoo generate PROMPT {shlex.join([*model, *options])}")
    typer.echo(f"  zoo.build(..., {words})" if words else "  zoo.build(...)")


def _said(how: How) -> str:
    parts = [how.precision, f"batch {how.batch}"]
    parts += ["parts offloaded"] if how.offload else []
    parts += [] if how.decode == "whole" else [f"decoded by {how.decode}"]
    parts += [] if how.weights is None else [f"weights in {how.weights}"]
    return ", ".join(parts)


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
