"""A request as plain data: what is to be drawn, one `SampleSpec` a sample, without a tensor or a file in it.

A call of a pipeline (`pipe(prompts, ...)`) makes one (zoo.pipeline.call), a server reads one from JSON, and
`pipe.run(request)` draws it. Samples are independent of each other: each has its own prompt, negative prompt, label,
seed, number, guidance scale, steps, sampler and start, and is as it would be alone (within the rounding of another
batch).

Images and masks are named by the SHA-256 of their values as they are drawn from (`zoo.images.inputs.hash_of`), which is
what a record states, too; their tensors go beside the request (`zoo.pipeline.prepared`).
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from zoo.config.overrides import to_plain
from zoo.schema import strict_json
from zoo.schema.errors import UsageError
from zoo.schema.names import is_utf8

SCHEMA = "zoo.request/1"
LARGEST_GUIDANCE = 1000.0  # beyond it float32 has no digits left for the sample
MOST_SAMPLES = 2**16  # of a request: all that it draws is in memory at once
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, kw_only=True)
class SampleSpec:
    """The request of one sample.

    Args:
        prompt, negative: texts; an empty one is none. label: a class by number or name.
        seed: 64 bits; index: the number of the sample within its seed. Both are the address of its noise.
        guidance: scale of classifier-free guidance in every stage; None is the stages' own.
        steps: in every stage; None is the samplers' own. sampler: another one in every stage, by name or as a block;
            only of a pipeline that was built from a config.
        image, mask: SHA-256 of what it starts from, enlarges or is measured of, and of where it is drawn anew.
        strength: how far back the image is noised, in (0, 1]; None is 0.6, or 1 with a mask.
        depth: SHA-256 of the depth map that a network for it is shown.
    """

    prompt: str = ""
    negative: str = ""
    label: int | str | None = None
    seed: int = 0
    index: int = 0
    guidance: float | None = None
    steps: int | None = None
    sampler: str | Mapping[str, Any] | None = None
    image: str | None = None
    mask: str | None = None
    strength: float | None = None
    depth: str | None = None

    def __post_init__(self) -> None:
        for name in ("prompt", "negative"):
            _must(isinstance(getattr(self, name), str), name, getattr(self, name), "a text")
            _must(is_utf8(getattr(self, name)), name, getattr(self, name), "a text in UTF-8")
        _must(self.label is None or isinstance(self.label, str) or whole(self.label), "label", self.label,
              "a number or a name")  # fmt: skip
        if self.label is not None and not isinstance(self.label, str):
            object.__setattr__(self, "label", int(self.label))
        for name in ("seed", "index"):
            value = getattr(self, name)
            _must(whole(value) and 0 <= value < 2**64, name, value, "a whole number from 0 to 2^64 - 1")
            object.__setattr__(self, name, int(value))
        object.__setattr__(self, "guidance", read_guidance(self.guidance))
        if self.steps is not None:
            object.__setattr__(self, "steps", whole_number("steps", self.steps, "1 or more"))
        _must(self.sampler is None or isinstance(self.sampler, (str, Mapping)), "sampler", self.sampler,
              "a sampler's name or block")  # fmt: skip
        if isinstance(self.sampler, Mapping):
            object.__setattr__(self, "sampler", to_plain(self.sampler, "sampler"))
        for name in ("image", "mask", "depth"):
            value = getattr(self, name)
            well = value is None or (isinstance(value, str) and _SHA256.fullmatch(value) is not None)
            _must(well, name, value, "the SHA-256 of its values, 64 hex digits")
        _must(self.strength is None or (real(self.strength) and 0.0 < self.strength <= 1.0), "strength", self.strength,
              "more than 0 (keep the image) and at most 1 (draw anew)")  # fmt: skip
        if self.strength is not None:
            object.__setattr__(self, "strength", float(self.strength))

    def plan_key(self) -> str:
        """What must be the same for samples to run in one batch: steps, sampler, and how they start."""
        start = (self.image is not None, self.mask is not None, self.strength, self.depth is not None)
        return json.dumps([self.steps, self.sampler, start], sort_keys=True)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A call as plain data.

    Args:
        samples: one a sample, at least one.
        size: (height, width), or the length of each axis of arrays; None is the pipeline's own.
        stages: run only the first `stages`. batch_size: samples a network call; None means all of one plan at once.
    """

    samples: tuple[SampleSpec, ...]
    size: tuple[int, ...] | None = None
    stages: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        samples = tuple(self.samples) if isinstance(self.samples, Iterable) else ()
        if not samples or not all(isinstance(spec, SampleSpec) for spec in samples):
            raise UsageError("a request needs a list of samples, one or more; give one", code="request-invalid")
        check_count(len(samples))
        object.__setattr__(self, "samples", samples)
        if self.size is not None:
            size = read_size(self.size)
            if not isinstance(size, tuple):
                raise UsageError(
                    f"a request's size is {size!r}; write [height, width], or the length of each axis",
                    code="size-invalid",
                )
            object.__setattr__(self, "size", size)
        for name in ("stages", "batch_size"):
            if getattr(self, name) is not None:
                object.__setattr__(self, name, whole_number(name, getattr(self, name), "1 or more"))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what a sample leaves at its default is left out."""
        written: dict[str, Any] = {"schema": SCHEMA, "samples": [_said(spec) for spec in self.samples]}
        for name in ("size", "stages", "batch_size"):
            if getattr(self, name) is not None:
                written[name] = getattr(self, name)
        if self.size is not None:
            written["size"] = list(self.size)
        return written

    @staticmethod
    def from_dict(written: Mapping[str, Any]) -> Request:
        """The request that `to_dict` wrote, or from an untrusted source; UsageError where it has another form."""
        if not isinstance(written, Mapping) or written.get("schema") != SCHEMA:
            raise UsageError(f"a request says schema: {SCHEMA}; give one of that form", code="schema-unknown")
        samples, size = written.get("samples"), written.get("size")
        _known(written, ("schema", *(f.name for f in fields(Request))), "a request")
        if not isinstance(samples, list) or not all(isinstance(sample, Mapping) for sample in samples):
            raise UsageError(
                "a request's samples are a list of mappings; write one for each sample", code="request-invalid"
            )
        check_count(len(samples))
        specs, names = [], tuple(f.name for f in fields(SampleSpec))
        for number, sample in enumerate(samples):
            with of_sample(number):
                _known(sample, names, "a sample")
                specs.append(SampleSpec(**sample))
        return Request(
            samples=tuple(specs), size=size, stages=written.get("stages"), batch_size=written.get("batch_size")
        )

    def to_json(self) -> str:
        """The request as JSON text."""
        return json.dumps(self.to_dict())

    @staticmethod
    def from_json(text: str | bytes) -> Request:
        """The request of a JSON text; UsageError for any other text, one that says a key twice included."""
        try:
            written = strict_json.parse(text)
        except (TypeError, AttributeError, ValueError) as error:
            raise UsageError(
                f"a request is JSON, and this is not ({str(error)[:80]})", code="request-invalid"
            ) from error
        return Request.from_dict(written)


def _said(spec: SampleSpec) -> dict[str, Any]:
    plain = SampleSpec()
    return {name: value for name, value in asdict(spec).items() if value != getattr(plain, name)}


def _known(written: Mapping[str, Any], names: tuple[str, ...], what: str) -> None:
    wrong = next((key for key in written if key not in names), None)
    if wrong is not None:
        raise UsageError(f"{what} has no '{str(wrong)[:40]}'; it has {', '.join(names)}", code="request-key-unknown")


def _must(well: bool, name: str, value: Any, wanted: str) -> None:
    if not well:
        raise UsageError(f"{name} is {str(value)[:60]!r}; give {wanted}", code="request-invalid")


@contextlib.contextmanager
def of_sample(number: int) -> Iterator[None]:
    """Let a UsageError say which sample of a request it is about."""
    try:
        yield
    except UsageError as error:
        error.args = (f"samples[{number}]: {error}", *error.args[1:])
        raise


def check_count(count: int) -> None:
    """UsageError for more samples than a request holds."""
    if count > MOST_SAMPLES:
        raise UsageError(
            f"{count} samples are too many for one call; draw at most {MOST_SAMPLES} in each of several",
            code="count-out-of-range",
        )


def whole(value: Any) -> bool:
    """Whether a value is a whole number, numpy's too."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def real(value: Any) -> bool:
    """Whether a value is a number that a float holds."""
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) >= 0.0
    except OverflowError:
        return False


def plain(value: Any) -> Any:
    """numpy's and torch's numbers and arrays as Python's numbers and lists; anything else as it is."""
    if hasattr(value, "tolist") and hasattr(value, "ndim"):
        return value.tolist()
    return int(value) if whole(value) else value


def read_size(size: Any) -> int | tuple[int, ...]:
    """Pixels a side, or the length of each axis, numpy's too; UsageError for anything else."""
    given: Any = plain(size)
    many = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    extents: tuple[Any, ...] = tuple(plain(extent) for extent in given) if many else (given,)
    if not extents or not all(whole(extent) and extent > 0 for extent in extents):
        raise UsageError(
            f"a request's size is {size!r}; write [height, width], or the length of each axis", code="size-invalid"
        )
    return extents if many else extents[0]


def whole_number(name: str, value: Any, wanted: str) -> int:
    """A whole number from 1 up, numpy's too; UsageError says what is wanted."""
    if not whole(value) or value < 1:
        raise UsageError(f"{name} is {value!r}; give {wanted}", code="request-invalid")
    return int(value)


def read_guidance(guidance: Any) -> float | None:
    """A scale of guidance as a float; UsageError for one that float32 has no digits for."""
    if guidance is None:
        return None
    if not real(guidance) or not abs(float(guidance)) <= LARGEST_GUIDANCE:
        raise UsageError(
            f"guidance is {guidance!r}; give a number from -{LARGEST_GUIDANCE:g} to {LARGEST_GUIDANCE:g}",
            code="guidance-out-of-range",
        )
    return float(guidance)
