"""The registered metrics: which layer each needs, what it is called, and what it is computed by.

A metric is given the features of the generated images and (if `paired`) of the reference, and returns values by
key. The key of a Fréchet distance says FID only for the 2015 Inception with its published weights in float32:
`fid-tf1`, `fid-clean`, by the resizing; under any other extractor it is `fd[EXTRACTOR@HASH]`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol, runtime_checkable

import torch

from zoo.evaluation.extractors import arguments
from zoo.evaluation.extractors.extractor import MAIN
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.inception import NAME, WEIGHTS
from zoo.evaluation.metrics.clip_score import clip_scores
from zoo.evaluation.metrics.extrapolation import distance_at_infinity, real_floor
from zoo.evaluation.metrics.frechet import frechet_distance
from zoo.evaluation.metrics.inception_score import inception_score
from zoo.evaluation.metrics.kernel import cmmd, kernel_distance
from zoo.evaluation.metrics.keys import metric_key
from zoo.evaluation.metrics.manifold import manifold
from zoo.evaluation.metrics.pairs import LAYER as PAIRS
from zoo.evaluation.metrics.pairs import NAME as PIXELS
from zoo.evaluation.metrics.reconstruction import WINDOW
from zoo.schema.advice import option
from zoo.schema.errors import UsageError

_PROTOCOLS = {NAME: "tf1", f"{NAME}-clean": "clean"}  # extractor -> what its FID is called by


@runtime_checkable
class Metric(Protocol):
    """Features -> values by key. Registered ones are frozen dataclasses whose arguments all have defaults.

    One that is of particular features declares them in `of`: `pairs` (images and their references), or what extractors
    declare to serve, `inception-2015` or `clip` (any that embeds captions too); one that needs a number of images,
    in `fewest`. What else metrics declare is in docs/extending.md.
    """

    layers: ClassVar[tuple[str, ...]]
    paired: ClassVar[bool]  # needs a reference

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]: ...


def fid_protocol(features: Features) -> str | None:
    """tf1 or clean where a Fréchet distance of these features is FID, else None."""
    return _PROTOCOLS.get(features.extractor) if features.sha256 == WEIGHTS.sha256 else None


def _key(metric: str, features: Features, *settings: str) -> str:
    return metric_key(metric, features.extractor, features.sha256, features.count, *settings)


def _both(generated: Features, reference: Features | None, metric: str) -> Features:
    """The reference, seen by the same extractor."""
    if reference is None:
        raise UsageError(
            f"the metric {metric} compares two sets of pictures; give a reference", code="reference-missing"
        )
    if (generated.extractor, generated.sha256) != (reference.extractor, reference.sha256):
        raise UsageError(
            f"'{generated.source}' was seen by {generated.extractor}@{generated.sha256[:8]} and '{reference.source}' "
            f"by {reference.extractor}@{reference.sha256[:8]}; extract both with one",
            code="extractors-differ",
        )
    return reference


@dataclass(frozen=True, kw_only=True)
class FrechetDistance:
    """Fréchet distance under any extractor, with that of real images to real ones beside it.

    Args:
        floor: also return the distance of as many reference images to the others (where there are enough).
        halves: else return the distance of the reference's halves instead, under their own N.
        infinity: also return the distance extrapolated to infinitely many images.
    """

    papers = ("1706.08500 GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",)

    floor: bool = True
    halves: bool = False
    infinity: bool = False
    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = True
    fewest: ClassVar[int] = 2
    fronts: ClassVar[tuple[str, ...]] = ("fd",)
    better: ClassVar[str] = "lower"
    default: ClassVar[bool] = True
    names_extractor: ClassVar[bool] = True
    statistics: ClassVar[bool] = True
    meaning: ClassVar[str] = "how far the pictures' features lie from those of real ones (Fréchet distance)"

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        reference = _both(generated, reference, "fd")
        protocol = fid_protocol(generated)

        def key(prefix: str, *settings: str, count: int = generated.count) -> str:
            if protocol is None:
                return metric_key(f"fd{prefix}", generated.extractor, generated.sha256, count, *settings)
            said = f"[{','.join(settings)}]" if settings else ""
            return f"fid-{protocol}{prefix}{said}@{count}"

        found = {key(""): frechet_distance(generated.gaussian(), reference.gaussian())}
        enough = generated.count <= reference.count - 2
        if self.floor and MAIN in reference.arrays and (enough or (self.halves and reference.count >= 4)):
            count = generated.count if enough else reference.count // 2
            left = reference.count - count
            found[key("-floor", f"n_ref={left}", count=count)] = real_floor(reference.array(), count)
        if self.infinity:
            found[key("-infinity")] = distance_at_infinity(generated.array(), reference.gaussian()).distance
        return found


@dataclass(frozen=True, kw_only=True)
class FID(FrechetDistance):
    """Fréchet Inception distance: under the 2015 Inception and nothing else."""

    papers = ("1706.08500 GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium",)

    of: ClassVar[str] = "inception-2015"
    default: ClassVar[bool] = False
    names_extractor: ClassVar[bool] = False
    instead: ClassVar[str] = "zoo.evaluation.metrics.metrics:FrechetDistance"
    fronts: ClassVar[tuple[str, ...]] = ("fid-tf1", "fid-clean")
    seen_by: ClassVar[Mapping[str, Mapping[str, str]]] = {"fid-clean": {"resize": "clean"}}
    meaning: ClassVar[str] = "Fréchet distance of Inception's features to those of real pictures"

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        if fid_protocol(generated) is None:
            raise UsageError(
                f"FID is of the 2015 Inception, and '{generated.source}' was seen by {generated.extractor}; "
                "ask for fd, or use the extractor inception-2015",
                code="extractor-unfit",
            )
        return super().__call__(generated, reference)


@dataclass(frozen=True, kw_only=True)
class SpatialFID:
    """sFID: the Fréchet distance of the 2015 Inception's first spatial features (Nash et al. 2021).

    As the evaluator of guided-diffusion (Dhariwal & Nichol 2021) has it: `mixed_6/conv:0` of the 2015 graph, its first
    7 channels, all 17x17 places. Checked against that evaluator's source (layer, channels) and torch-fidelity's
    table for converting the graph (`mixed_6/conv` is `Mixed_6d.branch1x1`). Inferred: that the node named `conv` itself
    comes after its norm and ReLU. No value of theirs was measured again.
    """

    papers = ("2103.03841 Generating Images with Sparse Representations",)

    layers: ClassVar[tuple[str, ...]] = ("spatial",)
    paired: ClassVar[bool] = True
    of: ClassVar[str] = "inception-2015"
    fewest: ClassVar[int] = 2
    statistics: ClassVar[bool] = True
    fronts: ClassVar[tuple[str, ...]] = ("sfid", "fd-spatial")
    better: ClassVar[str] = "lower"
    instead: ClassVar[str] = "zoo.evaluation.metrics.metrics:FrechetDistance"

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        reference = _both(generated, reference, "sfid")
        distance = frechet_distance(generated.gaussian("spatial"), reference.gaussian("spatial"))
        named = fid_protocol(generated) == "tf1"
        return {f"sfid@{generated.count}" if named else _key("fd-spatial", generated): distance}


@dataclass(frozen=True, kw_only=True)
class KID:
    """Kernel distance: unbiased under a cubic kernel, the mean over seeded subsets."""

    papers = ("1801.01401 Demystifying MMD GANs",)

    subsets: int = 100
    size: int = 1000
    seed: int = 2020
    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = True
    fits: ClassVar[str] = "zoo.evaluation.extractors.arguments:kid"
    fronts: ClassVar[tuple[str, ...]] = ("kid",)
    better: ClassVar[str] = "lower"
    smaller: ClassVar[str] = "size"
    meaning: ClassVar[str] = "kernel distance of Inception's features to those of real pictures"

    def __post_init__(self) -> None:
        arguments.kid(subsets=self.subsets, size=self.size, seed=self.seed)

    @property
    def fewest(self) -> int:
        """Images of each set that a subset is taken from."""
        return self.size

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        reference = _both(generated, reference, "kid")
        found = kernel_distance(
            generated.array(), reference.array(), subsets=self.subsets, size=self.size, seed=self.seed
        )
        settings = (f"{self.subsets}x{self.size}", *(() if self.seed == 2020 else (f"seed={self.seed}",)))
        return {
            _key("kid", generated, *settings): found.mean,
            _key("kid-deviation", generated, *settings): found.deviation,
        }


@dataclass(frozen=True, kw_only=True)
class InceptionScore:
    """Inception score: clear single images of many classes; needs no reference."""

    papers = ("1606.03498 Improved Techniques for Training GANs",)

    protocol: Literal["torch-fidelity", "adm"] = "torch-fidelity"
    layers: ClassVar[tuple[str, ...]] = ("logits",)
    paired: ClassVar[bool] = False
    of: ClassVar[str] = "inception-2015"
    fronts: ClassVar[tuple[str, ...]] = ("is",)
    better: ClassVar[str] = "higher"
    instead: ClassVar[str] = "zoo.evaluation.metrics.metrics:PRDC"

    @property
    def fewest(self) -> int:
        """Images: one a part."""
        return 10 if self.protocol == "torch-fidelity" else 1

    def __call__(self, generated: Features, reference: Features | None = None) -> dict[str, float]:
        found = inception_score(generated.array("logits"), protocol=self.protocol)
        return {
            _key("is", generated, self.protocol): found.mean,
            _key("is-deviation", generated, self.protocol): found.deviation,
        }


@dataclass(frozen=True, kw_only=True)
class PRDC:
    """Precision, recall, density and coverage, by balls around the k nearest neighbours."""

    papers = (
        "1904.06991 Improved Precision and Recall Metric for Assessing Generative Models",
        "2002.09797 Reliable Fidelity and Diversity Metrics for Generative Models",
    )

    k: int = 3
    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = True
    fits: ClassVar[str] = "zoo.evaluation.extractors.arguments:prdc"
    beside: ClassVar[bool] = True
    smaller: ClassVar[str] = "k"
    fronts: ClassVar[tuple[str, ...]] = ("precision", "recall", "density", "coverage")
    better: ClassVar[str] = "higher"

    def __post_init__(self) -> None:
        arguments.prdc(k=self.k)

    @property
    def fewest(self) -> int:
        """Images of each set: a neighbour more than k."""
        return self.k + 1

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        reference = _both(generated, reference, "prdc")
        found = manifold(generated.array(), reference.array(), k=self.k)
        settings = (f"k={self.k}", f"n_ref={reference.count}")
        return {
            _key(name, generated, *settings): getattr(found, name)
            for name in ("precision", "recall", "density", "coverage")
        }


@dataclass(frozen=True, kw_only=True)
class CMMD:
    """CMMD: kernel distance of unit CLIP embeddings under a Gaussian kernel."""

    papers = ("2401.09603 Rethinking FID: Towards a Better Evaluation Metric for Image Generation",)

    sigma: float = 10.0
    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = True
    of: ClassVar[str] = "clip"
    fronts: ClassVar[tuple[str, ...]] = ("cmmd",)
    better: ClassVar[str] = "lower"
    fits: ClassVar[str] = "zoo.evaluation.extractors.arguments:cmmd"

    def __post_init__(self) -> None:
        arguments.cmmd(sigma=self.sigma)

    def __call__(self, generated: Features, reference: Features | None) -> dict[str, float]:
        reference = _both(generated, reference, "cmmd")
        settings = () if self.sigma == 10.0 else (f"sigma={self.sigma:g}",)
        return {_key("cmmd", generated, *settings): cmmd(generated.array(), reference.array(), sigma=self.sigma)}


@dataclass(frozen=True, kw_only=True)
class PSNR:
    """PSNR of images and their references, in dB; the mean over images, each at most 100."""

    layers: ClassVar[tuple[str, ...]] = (PAIRS,)
    paired: ClassVar[bool] = False  # the pairs are in the features
    fronts: ClassVar[tuple[str, ...]] = ("psnr",)
    better: ClassVar[str] = "higher"
    of: ClassVar[str] = "pairs"

    def __call__(self, generated: Features, reference: Features | None = None) -> dict[str, float]:
        return {f"psnr[rgb]@{generated.count}": _of_pairs(generated, "PSNR")[0]}


@dataclass(frozen=True, kw_only=True)
class SSIM:
    """SSIM: structural similarity of images and their references (Wang et al. 2004)."""

    papers = ("doi:10.1109/TIP.2003.819861 Image Quality Assessment: From Error Visibility to Structural Similarity",)

    layers: ClassVar[tuple[str, ...]] = (PAIRS,)
    paired: ClassVar[bool] = False
    fronts: ClassVar[tuple[str, ...]] = ("ssim",)
    better: ClassVar[str] = "higher"
    of: ClassVar[str] = "pairs"

    def __call__(self, generated: Features, reference: Features | None = None) -> dict[str, float]:
        found = _of_pairs(generated, "SSIM")
        if found[3] > 0.0:
            small = round(found[3] * generated.count)
            raise UsageError(
                f"SSIM's window is {WINDOW} pixels wide, and {small} of the pictures of '{generated.source}' are "
                "smaller; psnr has no window",
                code="image-too-small",
            )
        return {f"ssim[rgb]@{generated.count}": found[1]}


def _of_pairs(generated: Features, metric: str) -> list[float]:
    """The means of the columns of `zoo.evaluation.metrics.pairs`."""
    if generated.extractor != PIXELS:
        raise UsageError(
            f"{metric} is of pictures and the ones they stand for, and '{generated.source}' was seen alone, by "
            f"{generated.extractor}; ask `evaluate` for it",
            code="pairs-missing",
        )
    found = [float(v) for v in generated.moment(PAIRS).mean]
    if found[2] > 0.0:
        raise UsageError(
            f"{round(found[2] * generated.count)} pictures of '{generated.source}' differ in size from the ones they "
            f"stand for; {option('size')} makes them one size",
            code="image-sizes-differ",
        )
    return found


@dataclass(frozen=True, kw_only=True)
class CLIPScore:
    """CLIPScore: similarity of images and their captions; needs an extractor with a text tower."""

    papers = ("2104.08718 CLIPScore: A Reference-free Evaluation Metric for Image Captioning",)

    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = False
    of: ClassVar[str] = "clip"
    fronts: ClassVar[tuple[str, ...]] = ("clip-score",)
    better: ClassVar[str] = "higher"
    captions: ClassVar[bool] = True

    def __call__(self, generated: Features, reference: Features | None = None) -> dict[str, float]:
        if generated.texts is None:
            raise UsageError(
                f"CLIPScore needs the captions of '{generated.source}'; give them to with_texts, with a CLIP",
                code="caption-missing",
            )
        return {_key("clip-score", generated): float(clip_scores(generated.array(), generated.texts).mean())}


@dataclass(frozen=True, kw_only=True)
class Hits:
    """Hit score: how often a judge sees the requested concept and style (docs/evaluation.md)."""

    layers: ClassVar[tuple[str, ...]] = (MAIN,)
    paired: ClassVar[bool] = False
    of: ClassVar[str] = "clip"
    captions: ClassVar[bool] = True
    judged: ClassVar[bool] = True
    fronts: ClassVar[tuple[str, ...]] = ("hit-score", "hit", "concept-at-1", "concept-at-5", "style")
    better: ClassVar[str] = "higher"
    meaning: ClassVar[str] = "how often an independent network finds the caption's thing and style in the picture"

    def __call__(self, generated: Features, reference: Features | None = None) -> dict[str, float]:
        if generated.asked is None or generated.judge is None:
            raise UsageError(
                f"a hit score needs what the pictures of '{generated.source}' were asked to show; give rows with "
                "'concept', 'name' and 'text', and a CLIP",
                code="caption-missing",
            )
        score = generated.judge.score(torch.from_numpy(generated.array()), generated.asked)
        settings = (f"concepts={len(generated.judge.concepts)}", f"styles={len(generated.judge.styles)}")
        return {
            _key(name, generated, *settings): value
            for name, value in (
                ("hit-score", score.hit), ("concept-at-1", score.concept_at_1), ("concept-at-5", score.concept_at_5),
                ("style", score.style),
            )
        }  # fmt: skip
