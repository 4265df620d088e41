"""Functions of tensors recorded once and replayed: an evaluation as one CUDA graph, without launch overhead."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor

T = TypeVar("T")

# moving: inputs that differ from step to step; fixed: those of the whole run.
Moving = tuple[Tensor | None, ...]
Fixed = Mapping[str, Any]
Function = Callable[[Moving, Fixed], tuple[Tensor, ...]]
Recorder = Callable[[Function, Moving, Fixed], tuple[tuple[Tensor, ...], Callable[[], None]]]


class Graphed:
    """A function of tensors, recorded at the first call with its shapes, and replayed from then on.

    A recording reads the function's weights and its compiler's constants where they were, so the function is kept as
    long as its recordings; `torch._dynamo.reset()`, which frees a compiler's constants, is for when they are gone.

    `record` makes a recording: given the function and the memory that it reads, the memory that it writes and
    what runs it again.
    """

    def __init__(self, function: Function, record: Recorder | None = None) -> None:
        self.function = function
        self.record: Recorder = record_cuda_graph if record is None else record
        self.recordings: dict[Any, _Recording] = {}
        self._known: tuple[tuple[Any, ...], Any] = ((), ())  # the fixed values of the latest call, and their shapes

    def __call__(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        # A recording has no gradient, which guidance that backpropagates through the network needs.
        if torch.is_grad_enabled() and any(m is not None and m.requires_grad for m in moving):
            return self.function(moving, fixed)
        key = (_shapes(moving), self._fixed_shapes(fixed))
        if key not in self.recordings:
            self.recordings[key] = _Recording(self.function, moving, fixed, self.record)
        return self.recordings[key].replay(moving, fixed)

    def _fixed_shapes(self, fixed: Fixed) -> Any:
        # A large U-Net has 140 keys and values, the same ones from step to step: they are compared once a run.
        values = tuple(fixed.items())
        seen, shapes = self._known
        same = len(seen) == len(values) and all(
            a[0] == b[0] and a[1] is b[1] for a, b in zip(seen, values, strict=True)
        )
        if not same:
            shapes = _shapes(values)
            self._known = (values, shapes)
        return shapes


def record_cuda_graph(
    function: Function, moving: Moving, fixed: Fixed
) -> tuple[tuple[Tensor, ...], Callable[[], None]]:
    """A CUDA graph of the function, on the device of what it reads.

    Its matrix products write to workspaces of its own (see `clear_workspaces`).
    """
    place = next(m.device for m in moving if m is not None)
    # A stream, and so a graph, belongs to the device that is current when it is made.
    with torch.cuda.device(place):
        # Recording allows no first-time work (compilation, workspaces), so the function runs before.
        with aside(place):
            for _ in range(3):
                function(moving, fixed)
        graph, outputs = captured(lambda: function(moving, fixed))

    def run() -> None:
        with torch.cuda.device(place):
            graph.replay()

    return outputs, run if torch.cuda.device_count() > 1 else graph.replay


@contextmanager
def aside(device: torch.device) -> Iterator[None]:
    """Work on a stream of its own, as recording does, in order with what comes before and after; on a CPU as ever."""
    if device.type != "cuda":
        yield
        return
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(stream):
        yield
    torch.cuda.current_stream(device).wait_stream(stream)


def captured(function: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
    """A function that has run before, recorded on the current device; its result is written anew by each replay."""
    graph = torch.cuda.CUDAGraph()
    clear_workspaces()
    # Another thread's calls to the driver (to read its power, say) must not break the recording.
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        result = function()
    clear_workspaces()
    return graph, result


def clear_workspaces() -> None:
    """Let torch forget cuBLAS' workspaces, so that the next matrix product allocates its own.

    torch 2.11 keeps one a handle and stream, records all graphs on one stream, and allocates it inside the first of
    them. A later graph would write to memory of the first one's pool, which is unmapped once that graph is gone and
    anybody clears the workspaces: torch.compile in `reduce-overhead` mode does, around each recording. Cleared before a
    recording, a workspace is in the graph's own pool, which lives as long as the graph; cleared after it, no other
    graph finds it.
    """
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)  # not in builds without CUDA
    if clear is not None:
        clear()


class _Recording:
    """A recording with the memory that it reads and writes."""

    def __init__(self, function: Function, moving: Moving, fixed: Fixed, record: Recorder) -> None:
        # Inference mode's tensors may not be written to outside of it, and a recording outlives the run it was made in.
        with torch.inference_mode(False), torch.no_grad():
            self.moving = tuple(None if m is None else m.clone() for m in moving)
            self.fixed = {name: _copied(value) for name, value in fixed.items()}
        self.source = fixed
        self.outputs, self.run = record(function, self.moving, self.fixed)

    def replay(self, moving: Moving, fixed: Fixed) -> tuple[Tensor, ...]:
        for place, value in zip(self.moving, moving, strict=True):
            if place is not None and value is not None:
                place.copy_(value)
        # What is fixed for a run is copied once a run.
        for name, value in fixed.items():
            if value is not self.source[name]:
                _copy_into(self.fixed[name], value)
        self.source = fixed
        self.run()
        # The next replay writes over the outputs, and others may still hold these.
        return tuple(output.clone() for output in self.outputs)


def _shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape), value.dtype, value.device
    return tuple(_shapes(v) for v in value) if isinstance(value, tuple) else value


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.clone()
    return tuple(_copied(v) for v in value) if isinstance(value, tuple) else value


def _copy_into(place: Any, value: Any) -> None:
    if isinstance(value, Tensor):
        place.copy_(value)
    elif isinstance(value, tuple):
        for inner, given in zip(place, value, strict=True):
            _copy_into(inner, given)
