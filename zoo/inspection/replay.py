"""An image drawn again from the record inside it: bit-equal, within some steps of 255, or different and why.

An image depends on its config, the weights, the noise's address (seed and sample number), the precision and
the machine. The first three are in the record and are followed; where the rest differs here the verdict says so. Noise
is addressed by the sample's number, so one image of a batch can be drawn again alone. A file of arrays is drawn again
whole, and steps are 255ths of the range of -1 to 1.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from zoo.acceleration.device import AUTO, resolve
from zoo.checkpoints.files import hash_of_file
from zoo.config.cards import read_card
from zoo.config.sources import SUFFIXES
from zoo.diffusion.noise import AddressedNoise, Renumbered, SeededSamples
from zoo.diffusion.types import NoiseSource
from zoo.images.inputs import hash_of, read_depth, read_image, read_mask
from zoo.inspection.sides import as_it_ran, block
from zoo.pipeline.generation import Generation
from zoo.pipeline.pipeline import Pipeline, Progress
from zoo.pipeline.space import SampleSpace, space_of
from zoo.pipeline.stage import lay_out, pixels, small_sizes
from zoo.records.reading import check_record, check_whole, read_record, record_of
from zoo.schema.errors import UsageError, ZooError
from zoo.schema.files import write_atomically
from zoo.schema.registry import registry
from zoo.schema.version import __version__

SCHEMA = "zoo.replay/1"
MAX_STEPS = 10_000
TOLERANCE = 2.0  # steps of 255: other batches and processors round otherwise


@dataclass(frozen=True, kw_only=True)
class Replay:
    """How an image drawn again compares with the original.

    `maximum` and `mean` are of the absolute difference in steps of 255, `share` of how many values differ; None where
    the sizes differ. `because` lists what is known to differ here; a verdict may be "equal" all the same.
    """

    verdict: Literal["equal", "within", "different"]
    tolerance: float
    maximum: float | None = None
    mean: float | None = None
    share: float | None = None
    because: tuple[str, ...] = ()
    value: str = "value of every pixel"  # what was compared each of
    picture: Image.Image | None = field(default=None, repr=False, compare=False)  # as drawn now, or a view of arrays

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        kept = ("verdict", "tolerance", "maximum", "mean", "share")
        return {"schema": SCHEMA, **{k: getattr(self, k) for k in kept}, "because": list(self.because)}

    def save(self, path: str | Path) -> None:
        """Write what was drawn now, without a record: the image it came from has it."""
        if self.picture is None:
            return
        path, content = Path(path), io.BytesIO()
        try:
            self.picture.save(content, Image.registered_extensions()[path.suffix.lower()])
            write_atomically(path, content.getvalue())
        except (OSError, ValueError, KeyError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ZooError(
                f"'{path}' can't be written: {reason}; choose another place or a name in .png", code="output-unwritable"
            ) from error

    def __str__(self) -> str:
        if self.verdict == "equal":
            return f"bit-equal: every {self.value} is the same"
        reasons = "; ".join(self.because) or (
            "nothing that the record states is otherwise here: another processor or number of threads rounds "
            "otherwise, or the picture was changed after it was drawn"
        )
        if self.maximum is None:
            return f"different: {reasons}"
        share = 100.0 * (self.share or 0.0)
        by = f"at most {self.maximum:.3g}, on average {self.mean:.3g} steps of 255, in {share:.2g} % of the values"
        if self.verdict == "within":
            return f"within {self.tolerance:g}: {by} ({reasons})"
        return f"different: {by}, because {reasons}" if self.because else f"different: {by} ({reasons})"


def replay(
    path: str | Path,
    *,
    record: Mapping[str, Any] | None = None,
    image: Any = None,
    mask: Any = None,
    depth: Any = None,
    tolerance: float = TOLERANCE,
    device: str | torch.device | None = None,
    build: Callable[..., Pipeline] | None = None,
    callback: Callable[[Progress], Any] | None = None,
) -> Replay:
    """Draw a PNG of zoo's again from its record, which is read from it if not given, and compare.

    image, mask: what it was made from, if from an image; they must be the ones whose hashes are recorded. device: the
    recorded one where it is available, else cpu. build: makes the pipeline of a config (`zoo.build`).
    Raises UsageError, with the reason, where it can't be drawn again.
    """
    source = str(path)
    known = check_whole(dict(read_record(path) if record is None else record), source=source)
    images = _entries(known, source)
    space, wanted = _expected(known, len(images), source)
    before = space.read(path)
    there = space.file_lengths_of(before)
    if there != wanted:
        said, told = ("x".join(str(s) for s in size) for size in (there, wanted))
        reason = f"the file is {said} and its record speaks of {told}: it was resized or cut"
        return Replay(verdict="different", tolerance=tolerance, because=(reason,))
    place, reasons = _device(str(known.get("device", "cpu")), device)
    reasons += _reasons(known, len(images), place, source)
    if build is None:
        from zoo import build  # pipelines are built by the public API only
    try:
        drawn = []
        for one in _alike(known, source):
            pipe = _part(build(one["config"], device=place, **_as_drawn(known)), one, source)
            drawn.append(_draw(pipe, one, one["images"], image, mask, depth, callback))
        made = _joined(drawn)
    except ZooError as error:
        raise UsageError(f"'{source}' can't be drawn again: {error}", code=error.code) from error
    return _compare(space, before, made, tolerance, tuple(reasons))


def _as_drawn(record: Mapping[str, Any]) -> dict[str, Any]:
    """How an image's pipeline is built again: its precision, by part where that differs, and how it saved memory."""
    parts = {name: one.get("dtype") for name, one in record.get("parts", {}).items() if isinstance(one, Mapping)}
    dtype = record.get("dtype")
    made = {"dtype": {**parts, "rest": dtype} if parts else dtype}
    return made | ({"memory": record["memory"]} if record.get("memory") else {})


def _alike(record: Mapping[str, Any], source: str) -> list[Mapping[str, Any]]:
    """The record; or one a sample, where samples of a request have steps, guidance, samplers or inputs of their own."""
    count = len(record["images"])
    if not any("run" in entry for entry in record["images"]):
        return [record]
    if not all(isinstance(entry.get("run", {}), Mapping) for entry in record["images"]):
        raise _not_ours(source, "the run of an image has another form")
    alone = [check_whole(check_record(record_of(record, i), source=source), source=source) for i in range(count)]
    for one in alone:
        _entries(one, source)
    return [*alone]


def _joined(drawn: Sequence[Generation]) -> Generation:
    """Several runs' samples as one."""
    if len(drawn) == 1:
        return drawn[0]
    samples, tensors = torch.cat([one.samples for one in drawn]), torch.cat([one.drawn for one in drawn])
    return replace(drawn[0], samples=samples, drawn=tensors)


def _compare(
    space: SampleSpace, file: np.ndarray, made: Generation, tolerance: float, reasons: tuple[str, ...]
) -> Replay:  # fmt: skip
    before, found = space.steps(file), space.steps(space.as_file(made.drawn))
    if before.shape != found.shape:
        reasons = (f"the file holds {before.shape} and {found.shape} was drawn: it was changed", *reasons)
        return Replay(verdict="different", tolerance=tolerance, because=reasons)
    apart = np.abs(before - found)
    maximum = float(apart.max()) if apart.dtype.kind == "f" else int(apart.max())
    return Replay(
        verdict="equal" if maximum == 0 else "within" if maximum <= tolerance else "different",
        tolerance=tolerance, maximum=maximum, mean=float(apart.mean()), share=float((apart > 0).mean()),
        because=reasons, value=space.value, picture=made.view,
    )  # fmt: skip


def _entries(record: Mapping[str, Any], source: str) -> Sequence[Mapping[str, Any]]:
    """The record's images, each with its prompt and sample number; UsageError for what can't be replayed at all."""
    for number, entry in enumerate(record["images"]):
        sample, label = entry.get("sample"), entry.get("label")
        well = isinstance(sample, int) and 0 <= sample < 2**63 and isinstance(label, (str, int, type(None)))
        if not well or not all(isinstance(entry.get(k), str) for k in ("prompt", "negative")):
            raise _not_ours(source, f"images.{number} has another form")
    asked, stages = record.get("asked") or {}, as_it_ran(record, source, registry())["stages"]
    for key in ("steps", "guidance", "strength", "batch_size"):
        if not isinstance(asked.get(key), (int, float, type(None))):
            raise _not_ours(source, f"asked.{key} is no number")
    for stage in stages:
        steps = block(stage.get("sampler")).get("steps", 1)
        if not isinstance(steps, int) or steps > MAX_STEPS:
            raise _not_ours(source, f"it speaks of {str(steps)[:20]} steps")
    own = [entry.get("seed") for entry in record["images"]]
    known = record.get("noise") == AddressedNoise.__name__ and record.get("seed") is not None
    each = record.get("noise") == SeededSamples.__name__ and all(
        isinstance(seed, int) and 0 <= seed < 2**64 for seed in own
    )
    if not known and not each:
        raise UsageError(
            f"'{source}' was drawn from noise that was given, not from a seed, and can't be drawn again",
            code="record-noise-given",
        )
    for stage in stages:
        slots = {"denoiser": block(stage.get("denoiser")), "autoencoder": block(stage.get("autoencoder"))}
        plain = registry().default("autoencoder")  # which has no weights at all
        fresh = [k for k, v in slots.items() if v and "weights" not in v and v.get("name") != plain]
        if fresh:
            raise UsageError(
                f"'{source}' was drawn with a {fresh[0]} of fresh random weights, which no record holds; "
                "only pictures of weights with a card can be drawn again",
                code="record-weights-fresh",
            )
    return record["images"]


def _not_ours(source: str, what: str) -> UsageError:
    return UsageError(
        f"the record in '{source}' is not one that zoo writes: {what}; it was changed", code="record-changed"
    )


def _expected(record: Mapping[str, Any], count: int, source: str) -> tuple[SampleSpace, tuple[int, ...]]:
    """What the record says was drawn, and the lengths that the file must have."""
    try:
        space = space_of(as_it_ran(record, source, registry())["stages"][-1])
        return space, space.file_lengths(count)
    except UsageError as error:
        raise _not_ours(source, str(error)) from error


def _device(recorded: str, wanted: str | torch.device | None) -> tuple[str, list[str]]:
    """The device to draw on, and notes about it."""
    place = recorded if wanted is None else str(wanted)
    if wanted is None:
        try:
            torch.empty(0, device=place)
        except (RuntimeError, AssertionError):
            place = "cpu"
    place = str(resolve(place)) if place == AUTO else place
    return place, [] if place == recorded else [f"it was drawn on {recorded[:40]}, and now on {place}"]


def _hash_here(name: str) -> str:
    """The hash that weights have here: of a card, or of a file that a component names itself."""
    path = Path(name).expanduser()
    return hash_of_file(path) if path.suffix in SUFFIXES else read_card(name).sha256


def _reasons(record: Mapping[str, Any], count: int, place: str, source: str) -> list[str]:
    """What differs here from the recorded run; UsageError where weights are missing altogether."""
    found = []
    for name, recorded in record["weights"].items():
        try:
            found_now = _hash_here(name)
        except ZooError as error:
            raise UsageError(
                f"'{source}' can't be drawn again: its weights '{name}' are not here ({error})",
                code="record-weights-missing",
            ) from error
        if found_now != recorded:
            found.append(f"the weights '{name}' are others (SHA-256 {str(recorded)[:12]} then, {found_now[:12]} now)")
    text = json.dumps(record["config"], sort_keys=True)
    if record.get("config_sha256") not in (None, hashlib.sha256(text.encode()).hexdigest()):
        found.append("the config in its record isn't the one it was drawn with: it was changed")
    now = {"zoo": __version__, "torch": torch.__version__, "python": platform.python_version()}
    versions = record.get("versions") or {}
    found += [f"{k} was {str(versions[k])[:40]} and is {v}" for k, v in now.items() if versions.get(k, v) != v]
    batch = (record.get("asked") or {}).get("batch_size")
    if isinstance(batch, int) and batch > count:
        found.append(f"it was drawn in a batch of {batch}, and now {'alone' if count == 1 else f'with {count}'}")
    return found


def _part(pipe: Pipeline, record: Mapping[str, Any], source: str) -> Pipeline:
    """The stages that the record says ran: the first ones, or one alone."""
    ran = [stage.get("name") for stage in record["stages"]]
    names = [stage.name for stage in pipe.stages]
    if names[: len(ran)] == ran:
        return Pipeline(pipe.conditioners, list(pipe.stages)[: len(ran)], pipe.safety, pipe.record, pipe.first)
    if len(ran) == 1 and ran[0] in names:
        return pipe.stage(ran[0], augmentation=record["stages"][0].get("augmentation"))
    raise UsageError(
        f"the record in '{source}' speaks of the stages {ran}, and its config has {names}; it was changed",
        code="record-changed",
    )


def _draw(
    pipe: Pipeline, record: Mapping[str, Any], images: Sequence[Mapping[str, Any]], image: Any, mask: Any,
    depth: Any, callback: Callable[[Progress], Any] | None,
) -> Generation:  # fmt: skip
    """The recorded run, for the images that are in the record."""
    asked, inputs = record.get("asked") or {}, record.get("inputs") or {}
    size = None if asked.get("size") is None else lay_out(pipe.stages, _lengths(asked["size"]))[-1]
    sizes = lay_out(pipe.stages, size)
    given = small_sizes(pipe.stages, sizes)[0] or sizes[0]
    for what, value, read in (("image", image, _as_image), ("mask", mask, read_mask), ("depth", depth, read_depth)):
        if what not in inputs and value is not None:
            raise UsageError(f"it was drawn without one; leave --{what} out", code="record-input-unfit")
        if what in inputs and value is None:
            raise UsageError(
                f"it was made from a picture or mask that was not given; give the same with --{what}",
                code="record-input-missing",
            )
        if what in inputs and hash_of(read(value, size=pixels(given))) != inputs[what]:
            raise UsageError(
                f"the {what} given isn't the one that it was drawn with (its hash differs); give that one",
                code="record-input-unfit",
            )
    prompts = [entry["prompt"] for entry in images]
    negative = [entry["negative"] for entry in images]
    labels: list[Any] = [entry.get("label") for entry in images]
    heard, classes = any(prompts), None not in labels
    alone = not heard and not classes  # then there is one of each kind of word, for all images
    unwanted = negative[:1] if alone else negative
    return pipe(
        prompts if heard else None, labels=labels if classes else None, negative=unwanted if any(negative) else None,
        n=len(images) if alone else 1, size=size, steps=asked.get("steps"), guidance=asked.get("guidance"),
        image=image, mask=mask, depth=depth,
        strength=asked.get("strength") if image is not None and not pipe.stages[0].enlarges else None,
        noise=_noise(record, images),
        batch_size=asked.get("batch_size"), callback=callback,
    )  # fmt: skip


def _noise(record: Mapping[str, Any], images: Sequence[Mapping[str, Any]]) -> NoiseSource:
    numbers = tuple(entry["sample"] for entry in images)
    if record["noise"] == SeededSamples.__name__:
        return SeededSamples(seeds=tuple(entry["seed"] for entry in images), numbers=numbers)
    return Renumbered(source=AddressedNoise(record["seed"]), numbers=numbers)


def _as_image(value: Any, *, size: tuple[int, int]) -> torch.Tensor:
    return read_image(value, size=size, count=1)


def _lengths(size: Any) -> int | tuple[int, ...]:
    return size if isinstance(size, int) else tuple(size)  # `_expected` has checked its form
