"""Stable Diffusion 1.5's parts at full size, beside diffusers: loading, `zoo explain`, one evaluation of the U-Net.

diffusers writes the parts with random weights, and both libraries read that folder. Each load is a process of its own,
the libraries in turn; the file is in the system's memory, as it is after any load. zoo's includes the file's hash, as a
pipeline's does: in its first load it is computed, afterwards kept (zoo.checkpoints.hashes). `load` ends when the module
is there, `ready` when each page of its weights was read once, which a mapped file leaves to its first use. An
evaluation is one call of the network on one sample, in turn in one process. Seconds are those of the processor, with
one thread, so that other load on the machine counts for little.

    python -m benchmarks.stable_diffusion loads         # 3.9 GB in a temporary folder, or in --folder; a record
    python -m benchmarks.stable_diffusion evaluations   # another record
    python -m benchmarks.stable_diffusion loads --tiny  # the same with tiny parts, two rounds and no record
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

from benchmarks import record
from zoo.checkpoints.hashes import FRESH, NAME

UNET: dict[str, Any] = {
    "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "layers_per_block": 2, "cross_attention_dim": 768,
    "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
    "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
}  # fmt: skip
VAE: dict[str, Any] = {
    "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "latent_channels": 4, "scaling_factor": 0.18215,
    "down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4,
}  # fmt: skip
TEXT: dict[str, Any] = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12,
    "hidden_act": "quick_gelu", "projection_dim": 768, "vocab_size": 49408,
}  # fmt: skip
# What --tiny changes.
TINY: dict[str, dict[str, Any]] = {
    "unet": {"block_out_channels": (32, 64, 64, 64), "cross_attention_dim": 32, "sample_size": 8},
    "vae": {"block_out_channels": (32, 32, 64, 64), "layers_per_block": 1},
    "text_encoder": {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 1},
}
SCHEDULER = {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "timestep_spacing": "leading"}
INDEX = {"_class_name": "StableDiffusionPipeline", "text_encoder": ["transformers", "CLIPTextModel"]}
PROMPT = "a red apple on a wooden table"
FILE = Path("unet") / "diffusion_pytorch_model.safetensors"


def write(folder: Path, *, tiny: bool) -> None:
    """The folder, by diffusers and transformers."""
    import torch
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    changes = TINY if tiny else {}
    for name, config in (("scheduler/scheduler_config.json", SCHEDULER), ("model_index.json", INDEX)):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(config))
    CLIPTextModel(CLIPTextConfig(**{**TEXT, **changes.get("text_encoder", {})})).save_pretrained(
        folder / "text_encoder"
    )
    AutoencoderKL(**{**VAE, **changes.get("vae", {})}).save_pretrained(folder / "vae")
    UNet2DConditionModel(**{**UNET, **changes.get("unet", {})}).save_pretrained(folder / "unet")


def status(field: str) -> int:
    """A line of this process's memory, in bytes: VmRSS, what it holds, mapped files too, or VmHWM, the most so far."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def loader(library: str, folder: Path) -> Callable[[str], Any]:
    """A function that loads a part of the folder: `unet` or `vae`."""
    if library == "zoo":
        from zoo.assemble import weights
        from zoo.config.cards import read_card
        from zoo.networks.unet import UNet

        assert UNet  # imported before any load, as the other library's class is

        def load(part: str) -> Any:
            card = read_card(f"{folder}#{part}")
            assert len(card.sha256) == 64
            return weights(card)

        return load
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel

    kinds: dict[str, Any] = {"unet": UNet2DConditionModel, "vae": AutoencoderKL}
    return lambda part: kinds[part].from_pretrained(folder / part)


def load_once(library: str, folder: Path) -> dict[str, float]:
    """Seconds of a load and until all of it was read, and the bytes that the process holds more at the most.

    `wall` is the load's time by the clock.
    """
    load = loader(library, folder)
    load("vae")  # imports, which no load should pay for
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the most begins anew
    clock, began = perf_counter(), process_time()
    made = load("unet")
    loaded, wall = process_time() - began, perf_counter() - clock
    for parameter in made.parameters():
        parameter.flatten()[:: 4096 // parameter.element_size()].sum()
    ready = process_time() - began
    return {"load": loaded, "ready": ready, "wall": wall, "peak": status("VmHWM") - before}


def evaluate(folder: Path, dtype: str, rounds: int, side: int) -> dict[str, Any]:
    """Seconds of the U-Net by each library in turn, and how far their outputs are apart; a latent of `side` a side."""
    import torch

    from zoo.acceleration.fast import choose, lay_out_weights

    precision = getattr(torch, dtype)
    ours, theirs = loader("zoo", folder)("unet").network.to(precision), loader("diffusers", folder)("unet")
    theirs = theirs.to(precision)
    draw = torch.Generator().manual_seed(1)
    width = int(theirs.config.cross_attention_dim)
    x = torch.randn(1, 4, side, side, generator=draw).to(precision)
    context = torch.randn(1, 77, width, generator=draw).to(precision)
    at = torch.full((1,), 501.0)
    fast = choose(torch.device("cpu"))

    def plain() -> Any:
        return ours(x, at, context=context)

    def quick() -> Any:
        return ours.evaluate(x, emb, keys)[0]

    ways = {"zoo": plain, "diffusers": lambda: theirs(x, at, encoder_hidden_states=context, return_dict=False)[0]}
    with torch.inference_mode():
        outputs = {name: way() for name, way in ways.items()}
        found: dict[str, list[float]] = {name: [] for name in ways}
        _turns(ways, found, rounds)
        # As Pipeline.compile does: embeddings and the text's keys and values once a run, channels last, packed.
        emb, keys = ours.embed(at, dtype=precision), ours.keys_values(context)
        lay_out_weights(ours, fast)
        outputs["zoo fast"] = quick()
        again = {"zoo fast": quick, "diffusers": ways["diffusers"]}
        beside: dict[str, list[float]] = {name: [] for name in again}
        _turns(again, beside, rounds)
    apart = {name: _apart(out, outputs["diffusers"]) for name, out in outputs.items() if name != "diffusers"}
    return {"plain": found, "fast": beside, "apart": apart}


def _turns(ways: dict[str, Callable[[], Any]], found: dict[str, list[float]], rounds: int) -> None:
    for _ in range(rounds):
        for name, way in ways.items():
            began = process_time()
            way()
            found[name].append(process_time() - began)


def _apart(one: Any, other: Any) -> float:
    """The largest difference over the largest value."""
    return float((one.float() - other.float()).abs().max() / other.float().abs().max())


def agree(folder: Path) -> dict[str, float]:
    """How far text states and a decoded image are from diffusers' and transformers', with the same weights."""
    import torch
    from transformers import CLIPTextModel

    with torch.inference_mode():
        tower: Any = loader("zoo", folder)("text")
        theirs = CLIPTextModel.from_pretrained(folder / "text_encoder").eval()
        states = theirs(tower.tokenize([PROMPT])).last_hidden_state
        latents = torch.randn(1, 4, 16, 16, generator=torch.Generator().manual_seed(2))
        image = loader("zoo", folder)("vae").decode(latents)
        other = loader("diffusers", folder)("vae").decode(latents / VAE["scaling_factor"]).sample
        return {"text_encoder": _apart(tower([PROMPT]).tokens, states), "vae": _apart(image, other)}


def child(folder: Path, cache: Path, *what: str) -> Any:
    """What a process of its own returns for one of the functions above."""
    command = [sys.executable, "-m", "benchmarks.stable_diffusion", "--folder", str(folder), "--child", *what]
    variables = {**os.environ, "ZOO_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=record.ROOT, env=variables)
    return json.loads(done.stdout.splitlines()[-1])


def loads(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Loading and explaining, with all runs; ratios are diffusers' seconds over zoo's, round by round."""
    cache = folder / "cache"
    (cache / NAME).unlink(missing_ok=True)
    time.sleep(FRESH)  # a file's hash isn't kept sooner
    size = (folder / FILE).stat().st_size
    first = child(folder, cache, "load", "zoo")
    found: dict[str, list[dict[str, float]]] = {"zoo": [], "diffusers": []}
    for turn in range(rounds + 1):
        for library, runs in found.items():
            once = child(folder, cache, "load", library)
            if turn:  # the first turn fills caches of modules and of the disk
                runs.append(once)
    explained = []
    for _ in range(rounds):
        command = [sys.executable, "-m", "zoo", "explain", str(folder / FILE), "--json"]
        began = _of_children()
        subprocess.run(command, check=True, capture_output=True)
        explained.append(_of_children() - began)
    said = {
        library: {
            "load_seconds": record.median_of([run["load"] for run in runs]),
            "ready_seconds": record.median_of([run["ready"] for run in runs]),
            "load_wall_seconds": record.median_of([run["wall"] for run in runs]),
            "peak_of_file": record.median_of([run["peak"] / size for run in runs]),
        }
        for library, runs in found.items()
    }
    return {
        "bytes": size,
        "first_load_seconds": round(first["load"], 4),
        "load": said,
        "times_faster": {
            key: record.median_of([d[key] / z[key] for z, d in zip(found["zoo"], found["diffusers"], strict=True)])
            for key in ("load", "ready")
        },
        "explain_seconds": record.median_of(explained),
        "apart": child(folder, cache, "agree"),
    }


def evaluations(folder: Path, *, rounds: int, side: int) -> dict[str, Any]:
    """One evaluation in each precision, with all runs."""
    given = (str(rounds), str(side))
    return {
        dtype: _evaluated(child(folder, folder / "cache", "evaluate", dtype, *given))
        for dtype in ("float32", "bfloat16")
    }


def _of_children() -> float:
    """Processor seconds of the processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _evaluated(found: dict[str, Any]) -> dict[str, Any]:
    rows = {}
    for runs in (found["plain"], found["fast"]):
        name = next(name for name in runs if name != "diffusers")
        rows[name] = {
            "seconds": record.median_of(runs[name]), "diffusers_seconds": record.median_of(runs["diffusers"]),
            "times_faster": record.median_of([d / z for z, d in zip(runs[name], runs["diffusers"], strict=True)]),
            "apart": found["apart"][name],
        }  # fmt: skip
    return rows


def main() -> None:
    """Measure, print, write the record; or what a child does."""
    parser = argparse.ArgumentParser(description="Stable Diffusion 1.5's parts beside diffusers.")
    parser.add_argument("what", nargs="?", choices=("loads", "evaluations"), default="loads")
    parser.add_argument("--folder", type=Path, help="a folder with the parts, or for them; a temporary one")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each library")
    parser.add_argument("--side", type=int, default=64, help="of the latent that is evaluated: 64 is 512 pixels")
    parser.add_argument("--tiny", action="store_true", help="tiny parts, two rounds and no record")
    parser.add_argument("--child", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_of_child(options.folder, *options.child)))
        return
    rounds, side = (2, 8) if options.tiny else (options.rounds, options.side)
    with TemporaryDirectory() as place:
        folder = options.folder or Path(place)
        if not (folder / FILE).is_file():
            child(folder, folder / "cache", "write", str(int(options.tiny)))
        made = (
            loads(folder, rounds=rounds) if options.what == "loads" else evaluations(folder, rounds=rounds, side=side)
        )
    print(json.dumps(made, indent=1))
    if not options.tiny:
        settings: dict[str, Any] = {"rounds": rounds, "statistic": "median", "seconds": "processor"}
        settings |= {"side": side} if options.what == "evaluations" else {}
        print(record.write(record.make(
            f"stable-diffusion-{options.what}", settings=settings, values=made, threads=1,
            packages=("torch", "diffusers", "transformers", "safetensors"),
        )))  # fmt: skip


def _of_child(folder: Path, what: str, *rest: str) -> Any:
    if what == "write":
        return write(folder, tiny=bool(int(rest[0])))
    if what == "load":
        return load_once(rest[0], folder)
    return agree(folder) if what == "agree" else evaluate(folder, rest[0], int(rest[1]), int(rest[2]))


if __name__ == "__main__":
    main()
