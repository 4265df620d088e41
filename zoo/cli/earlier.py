"""`zoo generate --from IMAGE`: the request of an image that was drawn before, to be changed in one thing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from zoo.records.reading import check_whole, read_record
from zoo.schema.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """What an image's record says was requested, one entry an image where it is a list."""

    config: dict[str, Any]
    prompts: list[str]
    negative: list[str]
    labels: list[int | str] | None
    seeds: list[int]  # with `numbers` the address of each image's noise
    numbers: list[int]
    asked: dict[str, Any]  # size, steps, guidance and strength of the call
    inputs: tuple[str, ...]  # "image" and "mask", where it was made from them
    stages: int | None  # where not all of the pipeline's stages ran


def read_earlier(path: str) -> Earlier:
    """The request of an image that zoo wrote; UsageError where its record doesn't say all of it."""
    record = check_whole(read_record(path), source=path)
    images, shared = record["images"], record.get("seed")
    if any("run" in entry for entry in images):
        raise UsageError(
            f"'{path}' holds images that were requested differently; give the file of one of them",
            code="record-requests-differ",
        )
    seeds = [entry.get("seed", shared) for entry in images]
    numbers = [entry.get("sample") for entry in images]
    if not all(isinstance(n, int) for n in (*seeds, *numbers)):
        raise UsageError(
            f"'{path}' was drawn from noise that was given, not from a seed; `--model {path}` takes its model alone",
            code="record-noise-given",
        )
    labels = [entry.get("label") for entry in images]
    ran, written = [s.get("name") for s in record["stages"]], [s.get("name") for s in record["config"]["stages"]]
    if ran != written[: len(ran)]:
        raise UsageError(
            f"'{path}' was drawn by one stage alone, and `--from` draws with whole pipelines", code="record-stage-alone"
        )
    asked = {k: v for k, v in (record.get("asked") or {}).items() if v is not None and k != "batch_size"}
    return Earlier(
        config=record["config"],
        prompts=[str(entry.get("prompt", "")) for entry in images],
        negative=[str(entry.get("negative", "")) for entry in images],
        labels=None if None in labels else labels,
        seeds=seeds,
        numbers=numbers,
        asked=asked,
        inputs=tuple(record.get("inputs") or ()),
        stages=len(ran) if len(ran) < len(written) else None,
    )


def _spread(values: Sequence[str] | None, count: int, what: str) -> list[str] | None:
    """One value for each of `count` images, from one or as many; None stays None."""
    if not values:
        return None
    if len(values) not in (1, count):
        raise UsageError(
            f"{len(values)} {what} for the {count} images of --from; give one, or one an image", code="counts-differ"
        )
    return list(values) * (count if len(values) == 1 else 1)


def again(
    start: str, call: dict[str, Any], chosen: dict[str, Any], *, size: str | None, fresh: bool
) -> tuple[Any, dict[str, Any], str | None]:
    """Config, call and size of an earlier image, except for what was given; `chosen` gets its steps and guidance.

    fresh: a seed or a number of images was given, so its noise is not wanted.
    """
    before = read_earlier(start)
    lacking = [what for what in before.inputs if call[what] is None]
    if lacking:
        raise UsageError(
            f"'{start}' was made from a picture that its record doesn't hold; give --{lacking[0]} again",
            code="record-input-missing",
        )
    if "guidance" in before.asked and "guidance" not in chosen:
        chosen["guidance"] = before.asked["guidance"]
    # Of a call, steps were every stage's; those of a command are not a super-resolution stage's.
    call = call | ({"steps": before.asked["steps"]} if "steps" in before.asked and "steps" not in chosen else {})
    count = len(before.prompts)
    given = _spread(call["prompts"], count, "prompts")
    unwanted = before.negative if call["negative"] is None else [call["negative"]] * count
    classes = _spread(call["labels"], count, "labels") or before.labels
    strength = call["strength"] if call["strength"] is not None else before.asked.get("strength")
    call = call | {"strength": strength if call["image"] is not None else None, "stages": before.stages}
    if fresh:  # the images' different prompts, each as often as requested
        given = list(dict.fromkeys(given or before.prompts))
        call |= {"prompts": given, "negative": unwanted[0], "labels": classes and list(dict.fromkeys(classes))}
    else:
        call |= {"prompts": given or before.prompts, "negative": unwanted, "labels": classes}
        call |= {"noise": (before.seeds, before.numbers)}
    if call["labels"] is not None:
        call["prompts"] = None
    asked = before.asked.get("size")
    if size is None and asked is not None:
        size = "x".join(map(str, asked if isinstance(asked, list) else [asked]))
    return before.config, call, size


def with_noise(call: dict[str, Any]) -> dict[str, Any]:
    """The call with the noise of an earlier image's samples, where it has their addresses."""
    if "noise" not in call:
        return call
    from zoo.diffusion.noise import SeededSamples

    seeds, numbers = call["noise"]
    return call | {"noise": SeededSamples(seeds=tuple(seeds), numbers=tuple(numbers))}
