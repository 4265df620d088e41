"""A text pipeline in zoo and in diffusers, in turn: one evaluation, one decode, the whole pipeline.

It is exported (`zoo.families.diffusers.export`) and read by `StableDiffusionPipeline`; both draw from the same start
noise. A row that is compiled on cuda is held against diffusers as it is and against its U-Net compiled with channels
last.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from benchmarks.peers.agreement import agreement, pair
from benchmarks.peers.ways import compiles
from zoo.acceleration.device import out_of_memory
from zoo.bench import measure, record
from zoo.bench.measure import Timed
from zoo.bench.pipelines import Builder, Built, describe, flags
from zoo.bench.rows import Row
from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.types import Condition
from zoo.schema.errors import ZooError

if TYPE_CHECKING:
    from zoo.bench.run import Run

TOLERANCE = {"network": 1e-4, "decode": 1e-4, "pipeline": 1.5 / 255.0}  # in float32, of values near 1
PARTS = ("network", "decode", "pipeline")


def holds(row: Row) -> bool:
    """Whether diffusers' format can hold a row's pipeline, as far as its config says: one conditioned by CLIP."""
    config = row.config or {"conditioners": {}}
    return [_name(block) for block in config["conditioners"].values()] == ["clip-text"]


def _name(block: Mapping[str, Any]) -> str | None:
    if "weights" in block:
        from zoo.config.cards import read_card

        return read_card(block["weights"]).block.get("name")
    return block.get("name")


def compare_row(run: Run, row: Row) -> None:
    """A row against diffusers, part by part; either all of its parts or none."""
    run.tell(f"exporting {row.asked.name}")
    try:
        _compare(run, row)
    except ImportError as error:
        run.record["rows"].append(record.row_of(row, "unavailable", f"needs diffusers and transformers ({error})"))
    except (ZooError, RuntimeError) as error:
        reason = "there is no memory for it" if out_of_memory(error) else str(error).splitlines()[0][:300]
        run.record["rows"].append(record.row_of(row, "failed", reason))


def _compare(run: Run, row: Row) -> None:
    import diffusers
    import transformers
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline

    from zoo.families.diffusers.export import export_diffusers

    for library in (diffusers, transformers):  # keep the terminal for this run
        library.utils.logging.disable_progress_bar()
    settings, asked = run.suite.settings, row.asked
    until = run.until([row])
    built = Builder(settings, counting=False).build(row)
    built.tried.append(asked.batch)
    dtype = getattr(torch, asked.precision)
    with tempfile.TemporaryDirectory() as place:
        folder = export_diffusers(built.pipe, Path(place) / "exported")
        peer = StableDiffusionPipeline.from_pretrained(folder, torch_dtype=dtype).to(asked.device)
    peer.set_progress_bar_config(disable=True)
    peers = {"diffusers": peer}
    if compiles(row) and asked.device.startswith("cuda"):
        compiled = copy.copy(peer)
        unet = copy.deepcopy(peer.unet).to(memory_format=torch.channels_last)
        compiled.unet = torch.compile(unet)
        peers["diffusers compiled"] = compiled
    for part in PARTS:
        ours, theirs = _calls(part, built, peers)
        timed = {"zoo": _timed(row, ours)} | {name: _timed(row, call) for name, call in theirs.items()}
        for one in timed.values():
            measure.warm_up(one, settings.warm_up)
        run.tell(f"{asked.name}, {part}")
        baseline = measure.rounds(list(timed.values()), settings.repeats, until=until)
        # Rows and parts are interleaved with the other library's alone.
        group = f"{asked.name}: {part}"
        run.record["noise"][group] = measure.noise(asked.name, baseline)
        found = {name: call(0) for name, call in {"zoo": ours, **theirs}.items()}
        ids = {}
        for name, one in timed.items():
            out = record.row_of(row, "measured", part=part, library=name) | {"group": group}
            out["speed"] = measure.speed(one, None)
            if part != "pipeline":
                out["speed"]["images_per_second"] = None
            elif name == "zoo":
                out |= describe(built, one)
            out["weights"] = dict(built.pipe.record["weights"])
            out["precision"] = {"dtype": asked.precision, **flags()}
            out["memory"], out["energy"] = one.memory, measure.energy(one)
            out["wall_seconds"] = round(sum(one.seconds), 3)
            out["quality"] = record.quality("a comparison of speed")
            run.record["rows"].append(out)
            ids[name] = out["id"]
        for name in theirs:
            run.record["pairs"].append(
                pair(
                    f"{asked.name}: {part}", ids["zoo"], ids[name], f"{name} {run.record['versions']['diffusers']}",
                    timed["zoo"].seconds, timed[name].seconds,
                    agreement(found["zoo"], found[name], part, TOLERANCE[part] if dtype == torch.float32 else None),
                )
            )  # fmt: skip


def _timed(row: Row, call: Callable[[int], Any]) -> Timed:
    return Timed(id=row.id, call=call, device=row.asked.device, batch=row.asked.batch)


Turn = Callable[[int], Any]


def _calls(part: str, built: Built, peers: dict[str, Any]) -> tuple[Turn, dict[str, Turn]]:
    """Ours and theirs: functions of the round that give a tensor."""
    stage, asked = built.pipe.stages[0], built.row.asked
    side = stage.size // stage.autoencoder.factor
    draw = torch.Generator().manual_seed(built.settings.seed)
    latents = torch.randn(2 * asked.batch, stage.autoencoder.channels, side, side, generator=draw).to(asked.device)
    if part == "network":
        ours, theirs = _evaluations(built, latents)
    elif part == "decode":
        ours, theirs = _decodings(built, latents[: asked.batch])
    else:
        ours, theirs = _whole_calls(built, tuple(latents.shape[1:]))
    return ours, {name: theirs(peer) for name, peer in peers.items()}


def _evaluations(built: Built, latents: Tensor) -> tuple[Turn, Callable[[Any], Turn]]:
    """One evaluation of the network, guided and unguided rows in one batch."""
    stage, asked = built.pipe.stages[0], built.row.asked
    dtype = getattr(torch, asked.precision)
    prompts = built.words(2 * asked.batch)["prompts"]
    with torch.inference_mode():
        cond: Condition = built.pipe.conditioners[stage.conditioners[0]](prompts).to(asked.device)
    table = stage.sampler.plan(stage.denoiser.schedule)
    step = table.steps[len(table) // 2]
    time = stage.denoiser.time_input(step.t)
    bound = stage.denoiser.bind(cond, table)
    assert cond.tokens is not None
    context = cond.tokens.to(dtype)

    @torch.inference_mode()
    def ours(_: int) -> Tensor:
        # Converted to x0, which diffusers leaves to the scheduler.
        return bound(latents, step).x0

    def theirs(peer: Any) -> Turn:
        @torch.inference_mode()
        def call(_: int) -> Tensor:
            output = peer.unet(latents.to(dtype), time, encoder_hidden_states=context, return_dict=False)[0].float()
            coefficients = stage.denoiser.parameterization(step.alpha, step.sigma)
            return output * coefficients.c_out + latents * coefficients.c_skip

        return call

    return ours, theirs


def _decodings(built: Built, latents: Tensor) -> tuple[Turn, Callable[[Any], Turn]]:
    """Latents to images."""
    stage = built.pipe.stages[0]
    some = latents.to(getattr(torch, built.row.asked.precision))

    @torch.inference_mode()
    def ours(_: int) -> Tensor:
        return stage.autoencoder.decode(some)

    def theirs(peer: Any) -> Turn:
        scaled = some / peer.vae.config.scaling_factor

        @torch.inference_mode()
        def call(_: int) -> Tensor:
            return peer.vae.decode(scaled, return_dict=False)[0]

        return call

    return ours, theirs


def _whole_calls(built: Built, shape: tuple[int, ...]) -> tuple[Turn, Callable[[Any], Turn]]:
    """The whole pipeline, from the same start noise."""
    stage, asked, settings = built.pipe.stages[0], built.row.asked, built.settings
    dtype = getattr(torch, asked.precision)
    words = built.words(asked.batch)
    start = stage.sampler.plan(stage.denoiser.schedule).start
    deviation = stage.denoiser.start_scale(start)  # others take the noise as it is
    scale = next((g.scale for g in stage.guidance if hasattr(g, "scale")), 1.0)  # type: ignore[attr-defined]
    steps = built.row.config["stages"][0]["sampler"].get("steps")  # type: ignore[index]

    def ours(number: int) -> Tensor:
        return built(number).tensor

    def theirs(peer: Any) -> Turn:
        def call(number: int) -> Tensor:
            source = AddressedNoise(settings.seed + number)
            eps = source(shape, purpose="start", samples=range(asked.batch))
            made = peer(
                words["prompts"], latents=(eps * deviation).to(asked.device, dtype), num_inference_steps=steps,
                guidance_scale=scale, eta=0.0, output_type="pt",
            )  # fmt: skip
            return made.images.float().cpu()

        return call

    return ours, theirs
