"""Every score of a generator's images for the captions of a split, by one judge: what `benchmarks.hit_score` records.

    scorer = Scorer("emoji-core-128.zip", split="val", count=200)
    images = draw(scorer.captions)                       # uint8 (200, 3, H, H), one a caption
    coloured = draw(scorer.colour_captions)              # uint8 (100, 3, H, H)
    values = scorer.score(images, coloured)              # plain numbers, for a record

| name | the images that are judged for the captions |
|---|---|
| `generated` | what the pipeline drew |
| `ceiling_same_size` | the real images, made as small as the generated ones first: the ceiling to quote |
| `ceiling` | the real images in the judge's own size |
| `floor_shuffled` | the generated images, each for the next caption of the shuffled list (the last for the first) |
| `floor_nearest_training` | of the training images in the requested style, the one nearest to the caption |
| `chance` | guessing (a number, no images) |

Rows whose image all but equals a training image leave first (`zoo.evaluation.inputs.duplicates`). Then the first
`count` of a fixed shuffle are taken. All images reach the judge at its own size; others are resized by bicubic first.
The nearest training image is searched by the judge's similarity of caption and image, and judged as small as the
generated ones. Memorisation is the cosine similarity of an image to its nearest training image: of the generated ones
and, as what is natural, of the real ones of the split; both, and the training images, at the generated size. `fd` is
the Fréchet distance of the judge's embeddings to those of the split's real images at that size.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import zoo
from benchmarks.colour_requests import COLOURLESS, requests
from zoo.config.cards import read_card
from zoo.data.captions import style_of
from zoo.data.image_folder import ImageFolder
from zoo.diffusion.draws import stream
from zoo.evaluation.extractors.clip import Clip
from zoo.evaluation.inputs.duplicates import LIMIT, look_alikes
from zoo.evaluation.metrics.colour import MOST, colour_of_name, colour_shares
from zoo.evaluation.metrics.extrapolation import real_floor
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.hit_score import HitScore, Judge, bootstrap_intervals, nearest_similarity
from zoo.evaluation.metrics.keys import distance_key

Row = Mapping[str, Any]


def chosen(places: Sequence[int], count: int) -> list[int]:
    """The first `count` of a fixed shuffle of some rows' places, as `zoo evaluate` takes them."""
    return [places[int(i)] for i in stream(0, "captions").permutation(len(places))[:count]]


def shrink(images: Tensor, size: int) -> Tensor:
    """uint8 (N, 3, H, H) by area average to (N, 3, size, size), as training images of that size are made."""
    if images.shape[-1] <= size:
        return images
    parts = [F.interpolate(part.float(), (size, size), mode="area") for part in images.split(256)]
    return torch.cat([part.round().to(torch.uint8) for part in parts])


def nearest_in_style(captions: Tensor, rows: Sequence[Row], training: Tensor, training_rows: Sequence[Row]) -> Tensor:
    """For each caption the training image of its style that is nearest to it, as row numbers (N,)."""
    styles = sorted({style_of(r) for r in training_rows})
    of_training = torch.tensor([styles.index(style_of(r)) for r in training_rows])
    asked = torch.tensor([styles.index(style_of(r)) for r in rows])
    likeness = captions @ training.T
    return likeness.masked_fill(asked[:, None] != of_training[None], -2.0).argmax(dim=1)


def spread(similarity: Tensor) -> dict[str, float]:
    """Mean, median and 95th percentile."""
    p50, p95 = np.quantile(similarity.numpy(), [0.5, 0.95])
    return {"mean": round(float(similarity.mean()), 4), "p50": round(float(p50), 4), "p95": round(float(p95), 4)}


def rounded(score: HitScore) -> dict[str, Any]:
    """A score as plain numbers."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, tuple | list):
            return [plain(inner) for inner in value]
        return value if isinstance(value, int) else round(value, 4)

    return plain(dataclasses.asdict(score))


def colour_score(images: Tensor, colours: Sequence[str]) -> dict[str, Any]:
    """How often the requested colour covers most of what is drawn: uint8 (N, 3, H, W) and N colours."""
    right = (colour_shares(images, list(colours)) > MOST).double().numpy()
    low, high = bootstrap_intervals(right[:, None])[0]
    by_colour = {
        c: round(float(right[[i for i, other in enumerate(colours) if other == c]].mean()), 4)
        for c in dict.fromkeys(colours)
    }
    return {
        "rate": round(float(right.mean()), 4), "interval": [round(low, 4), round(high, 4)], "count": len(colours),
        "by_colour": by_colour,
    }  # fmt: skip


def real_colours(data: str, size: int) -> dict[str, Any]:
    """The colour score of real images of all splits whose name begins with a colour, line drawings apart."""
    every = ImageFolder(path=data, size=size)
    said = {
        i: c for i, row in enumerate(every.rows) if (c := colour_of_name(row["name"])) and style_of(row) != COLOURLESS
    }
    return colour_score(torch.from_numpy(np.stack([every.image(i) for i in said])), list(said.values()))


class Scorer:
    """The captions of a split to draw for, and all scores of what was drawn.

    Args:
        data: the emoji, a folder or zip with metadata.jsonl. split, count: whose captions, and how many of them.
        evaluator: weights of kind extractor, by name or card.
    """

    def __init__(self, data: str, *, split: str = "test", count: int = 500, evaluator: str = "emoji-evaluator") -> None:
        self.data, self.card = data, read_card(evaluator)
        self.clip: Clip = zoo.load(evaluator)
        self.training = ImageFolder(path=data, split="train", size=128)
        self.split = ImageFolder(path=data, split=split, size=128)
        self._training_images = torch.from_numpy(self.training.images())
        self._split_images = torch.from_numpy(self.split.images())
        self.kept = [int(i) for i in (~look_alikes(self._split_images, self._training_images)).nonzero()[:, 0]]
        self.rows = chosen(self.kept, count)
        self.every = ImageFolder(path=data, size=128).rows
        self.judge = Judge(self.clip, self.every)
        self._embedded: dict[int, tuple[Tensor, Tensor, Tensor]] = {}
        self._colours: dict[int, dict[str, Any]] = {}

    @property
    def captions(self) -> list[str]:
        """One a row, to draw one image each for."""
        return [self.split.rows[i]["text"] for i in self.rows]

    @property
    def colour_captions(self) -> list[str]:
        """The hundred colour requests."""
        return [request["caption"] for request in requests()]

    @property
    def rule(self) -> dict[str, Any]:
        """What a record says of the rows."""
        return {
            "count": len(self.rows), "captions": 'the first of stream(0, "captions").permutation of the rows kept',
            "look_alikes": {
                "rule": f"mean absolute difference to a training image at 128 pixels at most {LIMIT:g} of 255 levels",
                "left_out": len(self.split) - len(self.kept), "of": len(self.split),
            },
        }  # fmt: skip

    def real(self, size: int) -> tuple[Tensor, Tensor, Tensor]:
        """Unit embeddings of the rows', all the split's kept and all training images, made as small as `size` first."""
        size = min(size, self.training.size)
        if size not in self._embedded:
            ours = self.clip.images(shrink(self._split_images, size))
            self._embedded[size] = (
                ours[self.rows],
                ours[self.kept],
                self.clip.images(shrink(self._training_images, size)),
            )
        return self._embedded[size]

    def real_images(self) -> Tensor:
        """The rows' own images, uint8 (N, 3, 128, 128)."""
        return self._split_images[self.rows]

    def floor_and_ceiling(self, size: int) -> tuple[dict[str, Any], dict[str, Any]]:
        """The scores of the nearest training images in the requested styles, and of the real images, at a size."""
        asked = [self.split.rows[i] for i in self.rows]
        _, _, large = self.real(self.training.size)
        real, _, small = self.real(size)
        nearest = nearest_in_style(self.clip.texts(self.captions), asked, large, self.training.rows)
        return rounded(self.judge.score(small[nearest], asked)), rounded(self.judge.score(real, asked))

    def score(self, images: Tensor, coloured: Tensor | None = None) -> dict[str, Any]:
        """All scores of uint8 images (N, 3, H, H), one a caption, and of (100, 3, H, H), one a colour request."""
        if len(images) != len(self.rows):
            raise ValueError(f"{len(images)} images for {len(self.rows)} captions; give one for each")
        size = images.shape[-1]
        asked = [self.split.rows[i] for i in self.rows]
        real_small, kept, small = self.real(size)
        drawn = self.clip.images(images)
        score = self.judge.score(drawn, asked)
        floor, ceiling = self.floor_and_ceiling(size)
        values: dict[str, Any] = {
            "generated": rounded(score),
            "ceiling_same_size": ceiling,
            "ceiling": self.floor_and_ceiling(self.training.size)[1],
            "floor_shuffled": rounded(self.judge.score(drawn.roll(1, dims=0), asked)),
            "floor_nearest_training": floor,
            "chance": round(self.judge.chance, 6),
            "share_of_ceiling": round(score.hit / ceiling["hit"], 4) if ceiling["hit"] else None,
            "similarity_to_nearest_training": {
                "generated": spread(nearest_similarity(drawn, small)),
                "real": spread(nearest_similarity(real_small, small)),
            },
            "concepts": len(self.judge.concepts),
            "styles": len(self.judge.styles),
            "fd": self._distance(drawn, kept),
        }
        if coloured is not None:
            wanted = [request["colour"] for request in requests()]
            self._colours.setdefault(size, real_colours(self.data, min(size, self.training.size)))
            values["colour"] = {"generated": colour_score(coloured, wanted), "real": self._colours[size]}
        return values

    def _distance(self, drawn: Tensor, real: Tensor) -> dict[str, Any]:
        """The Fréchet distance to the split's real images, and that of as many real ones (or half) to the others."""
        count = len(drawn) if len(drawn) <= len(real) - 2 else len(real) // 2
        name, sha256 = self.card.name, self.card.sha256
        return {
            "key": distance_key(name, sha256, len(drawn)), "value": round(frechet_distance(drawn, real), 5),
            "real_images": len(real), "floor": round(real_floor(real, count), 5), "floor_count": count,
        }  # fmt: skip


def sheet_of(images: Tensor, path: Path, *, columns: int = 8) -> None:
    """The images as one image file."""
    from PIL import Image

    from zoo.data.pixels import grid

    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(grid(images, columns=columns).permute(1, 2, 0).numpy()).save(path)
