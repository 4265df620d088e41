"""Weights measured without a pipeline: reconstruction, caption retrieval, classification.

| weights | values |
|---|---|
| autoencoder | `psnr`, `ssim` of 8-bit images, encoded (to the mode) and decoded, against themselves |
| CLIP, both towers | `caption-recall-at-1`, `-5`: how often an image's caption is the nearest, or among the nearest |
| | five, of those of all N images; `picture-recall-at-1`, `-5`: the other way round (Radford et al. 2021) |
| classifier of x_t | `top1-T` at t = T: how often the class is right; `top1` is their mean |

All are of the first N rows of a fixed shuffle of the split, the one that pipelines draw by. Beside them stands what
would be reached without the weights: `psnr-bicubic`, `recall-at-1-chance`, `top1-most-common`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from zoo.acceleration.device import resolve
from zoo.checkpoints.files import load_strict, read_verified
from zoo.checkpoints.packed import unpack
from zoo.config.cards import Card, read_card
from zoo.data.pixels import from_uint8, to_uint8
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.draws import stream
from zoo.diffusion.noise import AddressedNoise
from zoo.diffusion.parameterization import V
from zoo.evaluation.choice import facts_of
from zoo.evaluation.comparison import PARTS, Value
from zoo.evaluation.extractors.clip import Clip
from zoo.evaluation.inputs.sources import Source, open_source
from zoo.evaluation.metrics.keys import metric_key
from zoo.evaluation.metrics.reconstruction import psnr, ssim
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.registry import registry

TIMES = (0.125, 0.375, 0.625, 0.875)  # of t, at which a classifier of noised images is measured
_BATCH = 64
Scores = dict[str, list[float]]  # a metric's name -> what each image has


def task_of(card: Card) -> str | None:
    """`reconstruction`, `retrieval`, `classification`, or None for weights that can't be measured alone."""
    if card.kind == "autoencoder":
        return "reconstruction"
    if card.kind == "conditioner" and "visual." in card.other:  # a CLIP with both towers
        return "retrieval"
    return facts_of(card.kind, card.component, registry()).get("alone")


def measure_weights(
    name: str, data: Any, *, n: int | None = None, split: str | None = None, seed: int = 0, device: Any = None
) -> list[Value]:
    """Every value of some weights on a split, the error being between disjoint thirds of the images.

    Args:
        data: a folder or zip; rows with `text` for a CLIP, with `group` (the card's classes) for a classifier.
        n: rows; all if not given. seed: of a classifier's noise.
    """
    card = read_card(name)
    task = task_of(card)
    if task is None:
        raise UsageError(
            f"the weights '{name}' do nothing by themselves; measure a pipeline that draws with them",
            code="weights-kind-wrong",
        )
    size = int(card.contract["size"]) if "size" in card.contract else None
    module: Any = None
    if card.kind == "conditioner":
        module = whole_clip(card).to(resolve(device))
        size = module.image_size
    else:
        module = zoo.load(name, device=device)
    source = open_source(data, split=split, size=size)
    if source.pictures is None:
        raise UsageError(
            f"'{source.name}' is statistics, and weights are measured on pictures; give those", code="statistics-only"
        )
    count = source.count if n is None else n
    if not PARTS <= count <= source.count:
        raise UsageError(
            f"{count} pictures of '{source.name}' were asked for; give {PARTS} to {source.count}",
            code="count-out-of-range",
        )
    rows = [int(i) for i in stream(0, "captions").permutation(source.count)[:count]]
    pictures = torch.stack(source.pictures(rows))
    if task == "reconstruction":
        return _values(card, reconstruction(module, pictures))
    if task == "retrieval":
        return _values(card, retrieval(module, pictures, [str(row["text"]) for row in _told(source, rows, "text")]))
    names = list(card.contract["names"])
    labels = [str(row["group"]) for row in _told(source, rows, "group")]
    strange = sorted(set(labels) - set(names))
    if strange:
        raise UsageError(
            f"'{source.name}' has the group '{strange[0]}', which '{name}' doesn't know; leave it out",
            code="label-unknown",
        )
    told = torch.tensor([names.index(label) for label in labels])
    return _values(card, classification(_timed(module, card), pictures, told, seed=seed))


def _told(source: Source, rows: Sequence[int], key: str) -> list[Mapping[str, Any]]:
    found = [source.rows[i] for i in rows] if source.rows is not None else []
    if not found or not all(isinstance(row.get(key), str) for row in found):
        raise UsageError(
            f"not every row of '{source.name}' has a '{key}'; give metadata.jsonl that does",
            code="metadata-key-missing",
        )
    return found


@torch.inference_mode()
def reconstruction(autoencoder: Any, pictures: Tensor) -> Scores:
    """PSNR and SSIM of uint8 images (N, 3, H, W); `psnr-bicubic`: an image as small as the latents, enlarged."""
    device = next(autoencoder.parameters()).device
    back, plain = [], []
    for part in pictures.split(_BATCH):
        x = from_uint8(part.to(device))
        back.append(to_uint8(autoencoder.decode(autoencoder.encode(x)).float()).cpu())
        small = F.interpolate(part.float(), scale_factor=1 / autoencoder.factor, mode="area")
        large = F.interpolate(small, tuple(part.shape[-2:]), mode="bicubic", align_corners=False)
        plain.append(large.round().clamp(0, 255).to(torch.uint8))
    drawn, rough, true = (p.float() / 255 for p in (torch.cat(back), torch.cat(plain), pictures))
    each = range(len(true))
    return {
        "psnr": [psnr(drawn[i : i + 1], true[i : i + 1]) for i in each],
        "ssim": [ssim(drawn[i : i + 1], true[i : i + 1]) for i in each],
        "psnr-bicubic": [psnr(rough[i : i + 1], true[i : i + 1]) for i in each],
    }


def retrieval(clip: Any, pictures: Tensor, captions: Sequence[str]) -> Scores:
    """Recall of captions by images and of images by captions, among these N."""
    seen, read = clip.images(pictures).float().cpu(), clip.texts(captions).float().cpu()
    likeness = seen @ read.T
    numbers = {caption: i for i, caption in enumerate(captions)}
    own = torch.tensor([numbers[caption] for caption in captions])
    found: Scores = {}
    for what, table in (("caption", likeness), ("picture", likeness.T)):
        nearest = own[table.topk(min(5, len(captions)), dim=1).indices]  # (N, 5)
        right = nearest == own[:, None]
        found |= {f"{what}-recall-at-{k}": right[:, :k].any(dim=1).tolist() for k in (1, 5)}
    return found | {f"recall-at-{k}-chance": [k / len(captions)] * len(captions) for k in (1, 5)}


@torch.inference_mode()
def classification(denoiser: Denoiser, pictures: Tensor, labels: Tensor, *, seed: int = 0) -> Scores:
    """How often the class of noised images is right, at each of `TIMES` and in the mean."""
    device = next(denoiser.network.parameters()).device
    noise = AddressedNoise(seed)
    rights: list[Tensor] = []
    for t in TIMES:
        alpha, sigma = (float(a) for a in denoiser.schedule(t))
        parts = []
        for start in range(0, len(pictures), _BATCH):
            x0 = from_uint8(pictures[start : start + _BATCH].to(device))
            eps = noise(x0.shape[1:], purpose="eps", samples=range(start, start + len(x0))).to(device)
            time = torch.full((len(x0),), denoiser.time_input(t), device=device)
            parts.append(denoiser.network(alpha * x0 + sigma * eps, time).argmax(dim=1).cpu())
        rights.append((torch.cat(parts) == labels).float())
    mean = torch.stack(rights).mean(dim=0)
    common = float(labels.bincount().max()) / len(labels)
    return {
        "top1": mean.tolist(), **{f"top1-{t:g}": right.tolist() for t, right in zip(TIMES, rights, strict=True)},
        "top1-most-common": [common] * len(labels),
    }  # fmt: skip


def whole_clip(card: Card) -> Clip:
    """Both towers of a text conditioner's file, the images' tower as its tensors' shapes say (open_clip's ResNet)."""
    what = f"weights '{card.name}'"
    tensors = unpack(read_verified(card.file, bytes=card.bytes, sha256=card.sha256), what=what)
    blocks = {(int(m[1]), int(m[2])) for key in tensors if (m := re.match(r"visual\.layer(\d)\.(\d+)\.", key))}
    positions = tensors.get("visual.attnpool.positional_embedding")
    if not blocks or positions is None:
        raise WeightsError(
            f"{what} hold no ResNet for pictures; name a CLIP that has both towers", code="backbone-unfit"
        )
    config = card.config
    clip = Clip(
        embed_dim=config["embed_dim"], image_size=32 * round((len(positions) - 1) ** 0.5),
        image_width=2 * len(tensors["visual.conv1.weight"]),
        image_layers=[sum(layer == i for layer, _ in blocks) for i in range(1, 5)],
        text_width=config["width"], text_heads=config["heads"], text_layers=config["layers"],
        context_length=config["context_length"],
    )  # fmt: skip
    load_strict(clip, tensors, what=what)
    return clip.eval().requires_grad_(False)


def _timed(network: Any, card: Card) -> Denoiser:
    """A classifier with the schedule and time input of its card; its parameterization isn't used."""
    block = dict(card.contract["schedule"])
    schedule = registry().load("schedule", block.pop("name"))(**block)
    return Denoiser(
        network=network, schedule=schedule, parameterization=V(), time_input=card.contract.get("time_input", "index")
    )


def _values(card: Card, scores: Scores) -> list[Value]:
    """Means over images; the error of one is the deviation between disjoint thirds of them."""
    found = []
    for metric, each in scores.items():
        one = torch.tensor(each, dtype=torch.float64)
        third = len(one) // PARTS
        parts = torch.stack([one[i : third * PARTS : PARTS].mean() for i in range(PARTS)])
        found.append(Value(
            metric=task_of(card) or metric, key=metric_key(metric, card.name, card.sha256, len(one)),
            value=float(one.mean()), count=len(one), error=float(parts.std()), ranges=PARTS, range_count=third,
        ))  # fmt: skip
    return found
