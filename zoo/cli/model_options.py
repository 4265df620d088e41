"""Options that several verbs have: which of a model's parts and settings to take."""

from __future__ import annotations

from typing import Annotated

import typer

Overrides = Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override the config.")]
Sampler = Annotated[str | None, typer.Option(help="Another sampler; see `zoo list sampler`.")]
Steps = Annotated[int | None, typer.Option(help="Sampling steps.")]
Weights = Annotated[str | None, typer.Option(metavar="PATH", help="The file or folder of a published model.")]
Autoencoder = Annotated[str | None, typer.Option(metavar="PATH", help="Another autoencoder's, for such a model.")]
Prediction = Annotated[
    str | None, typer.Option(help="What such a file's network predicts, where no tensor tells: eps or v.")
]
Copy = Annotated[
    str | None, typer.Option(help="Of a file that holds its network twice: ema (its average) or plain; ema.")
]
Loras = Annotated[
    list[str] | None, typer.Option(metavar="FILE[:SCALE]", help="A LoRA to draw with; several by repeating it.")
]
