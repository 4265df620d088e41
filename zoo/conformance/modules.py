"""What networks and all parts with weights promise: (x, time, conditions) -> output, of random weights.

A part is made with its `example`, the arguments of a small one, and its weights are drawn anew: layers that start at
zero would pass every check.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from zoo.conformance.mixture import relative
from zoo.conformance.report import Check, Fault, NotAsked, Subject

# The fields of a condition that a denoiser passes on; of its scalars, those that a network names in `scalars`.
FIELDS = ("context", "mask", "vector", "label", "image", "level")
TOKENS = 5
EXACT, NEAR, HALF = 1e-6, 1e-4, 0.25  # relative distances: the same sums; in another order; in bfloat16
Inputs = tuple[Tensor, Tensor, dict[str, Tensor]]


def built(subject: Subject) -> Any:
    """The part with weights drawn anew, in eval mode."""
    torch.manual_seed(0)
    module = subject.make()
    if isinstance(module, nn.Module):
        generator = torch.Generator().manual_seed(1)
        for parameter in module.parameters():
            if not parameter.is_floating_point():
                continue
            scale = 0.3 * parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
            drawn = torch.randn(parameter.shape, generator=generator) * scale + (parameter.ndim == 1) * 0.5
            parameter.data = drawn.to(parameter.dtype)
        module.eval()
    return module


def normal(*shape: int, seed: int = 0) -> Tensor:
    """Standard normal numbers, always the same."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def holds_without_memory(subject: Subject, ask: Callable[[Any], Tensor]) -> None:
    """Built on the meta device and given tensors, as weights are loaded, a part computes what a usual one does."""
    right = built(subject)
    if not isinstance(right, nn.Module):
        raise NotAsked("it has no weights")
    mend = "compute constants in forward, or register them as persistent buffers"
    with torch.device("meta"):
        bare = subject.make()
    bare.load_state_dict(right.state_dict(), strict=True, assign=True)
    bare.eval()
    lost = [n for n, t in [*bare.named_parameters(), *bare.named_buffers()] if t.is_meta]
    if lost:
        raise Fault(f"built without memory and given its weights it still lacks '{lost[0]}'", mend)
    try:
        same = relative(ask(bare), ask(right)) < EXACT
    except (RuntimeError, NotImplementedError) as error:
        raise Fault(f"built without memory and given its weights it fails ({error})", mend) from error
    if not same:
        raise Fault("built without memory and given its weights it answers differently", mend)


def _inputs(subject: Subject, network: Any, batch: int = 3, seed: int = 0) -> Inputs:
    channels = subject.number(network, "in_channels")
    multiple = subject.fact(network, "size_multiple") or 1
    size = subject.fact(network, "size") or multiple * -(-8 // multiple)
    spatial = (size,) * (subject.fact(network, "dims") or 2)
    x = normal(batch, channels, *spatial, seed=seed)
    time = torch.tensor([20.0, 500.0, 900.0])[:batch]
    fields: dict[str, Tensor] = {}
    for name in _reads(network):
        if name == "context":
            fields[name] = normal(batch, TOKENS, subject.number(network, "context_width"), seed=seed + 1)
        elif name == "mask":
            fields[name] = torch.ones(batch, TOKENS, dtype=torch.bool)
        elif name == "vector":
            fields[name] = normal(batch, subject.number(network, "vector_width"), seed=seed + 2)
        elif name == "label":
            fields[name] = (torch.arange(batch) + seed) % subject.number(network, "classes")
        elif name == "image":
            fields[name] = normal(batch, subject.number(network, "image_width"), seed=seed + 3)
        else:
            fields[name] = torch.linspace(0.1, 0.6, batch) + 0.01 * seed
    return x, time, fields


def _reads(network: Any) -> tuple[str, ...]:
    """Which of a condition's fields a network reads."""
    said = getattr(network, "reads", None)
    taken = inspect.signature(network.forward).parameters
    everything = set(FIELDS) - {"image"} <= set(taken)
    if said is None and not any(p.kind is p.VAR_KEYWORD for p in taken.values()) and not everything:
        raise Fault(
            "it doesn't say what of a condition it reads, and a stage tells it all there is",
            f"set self.reads to those of {', '.join(FIELDS)} that forward takes; () for none",
        )
    names = tuple(n for n in FIELDS if n != "image" or n in taken) if said is None else tuple(said)
    unknown = [n for n in names if n not in (*FIELDS, *getattr(network, "scalars", ()))]
    if unknown:
        raise Fault(
            f"it reads '{unknown[0]}', which nobody tells it",
            f"a network can read {', '.join(FIELDS)}, and numbers that it names in scalars",
        )
    return names


@torch.no_grad()
def _ask(network: Any, inputs: Inputs) -> Tensor:
    x, time, fields = inputs
    return network(x, time, **fields)


def _shapes(subject: Subject) -> str:
    network = built(subject)
    said = ""
    for batch in (1, 3):
        inputs = _inputs(subject, network, batch)
        out = _ask(network, inputs)
        if subject.fact(network, "out_channels") is None and subject.fact(network, "classes") is not None:
            wanted: tuple[int, ...] = (batch, subject.number(network, "classes"))  # a classifier's logits
        else:
            wanted = (batch, subject.number(network, "out_channels"), *inputs[0].shape[2:])
        if tuple(out.shape) != wanted:
            raise Fault(f"from x {tuple(inputs[0].shape)} it gives {tuple(out.shape)}, and it says {wanted}",
                        "set self.out_channels to what it gives, and keep the size")  # fmt: skip
        if not bool(torch.isfinite(out).all()):
            raise Fault("it gives NaN or infinity for numbers of unit size", "look at its norms and scales")
        said = f"{tuple(inputs[0].shape)} to {tuple(out.shape)}"
    return said


def _repeatable(subject: Subject) -> None:
    network = built(subject)
    inputs = _inputs(subject, network)
    if not torch.equal(_ask(network, inputs), _ask(network, inputs)):
        raise Fault("asked twice, it gives different answers", "draw nothing in forward outside of training")


def _dtypes(subject: Subject) -> str:
    network = built(subject)
    x, time, fields = _inputs(subject, network)
    wide = _ask(network, (x, time, fields))
    half = network.to(torch.bfloat16)
    told = {k: v.to(torch.bfloat16) if v.is_floating_point() and k != "level" else v for k, v in fields.items()}
    narrow = _ask(half, (x.to(torch.bfloat16), time, told))
    apart = relative(narrow, wide)
    if wide.dtype != torch.float32 or narrow.dtype not in (torch.bfloat16, torch.float32) or not apart < HALF:
        raise Fault(
            f"in bfloat16 it gives {narrow.dtype}, {apart:.2g} away from its answer in {wide.dtype}",
            "time comes in float32: embed it in float32, and cast the embedding to x.dtype",
        )
    return f"bfloat16 is {apart:.2g} away"


def _own_sample(subject: Subject) -> None:
    network = built(subject)
    x, time, fields = _inputs(subject, network)
    whole = _ask(network, (x, time, fields))
    alone = _ask(network, (x[1:2], time[1:2], {k: v[1:2] for k, v in fields.items()}))
    x = x.clone()
    x[0] = 3.0 * normal(*x.shape[1:], seed=9)
    others = _ask(network, (x, time, fields))[1:]
    if not (relative(alone, whole[1:2]) < NEAR and relative(others, whole[1:]) < NEAR):
        raise Fault("a sample's answer depends on the others of its batch",
                    "norm each sample by itself (GroupNorm, LayerNorm), and attend within it")  # fmt: skip


def _listens(subject: Subject) -> str:
    network = built(subject)
    x, time, fields = _inputs(subject, network)
    first = _ask(network, (x, time, fields))
    heard = {"time": _ask(network, (x, time.flip(0) + 1.0, fields))}
    other = _inputs(subject, network, seed=1)[2]
    for name in fields:
        changed = other[name]
        if name == "mask":
            changed = fields[name].clone()
            changed[:, 2:] = False
        if name == "label" and subject.number(network, "classes") < 2:
            continue
        heard[name] = _ask(network, (x, time, {**fields, name: changed}))
    deaf = [name for name, out in heard.items() if torch.equal(out, first)]
    if deaf:
        raise Fault(f"it takes '{deaf[0]}' and its answer doesn't depend on it",
                    "use it, or take it out of self.reads")  # fmt: skip
    return ", ".join(heard)


def _gradients(subject: Subject) -> None:
    network = built(subject).train()
    x, time, fields = _inputs(subject, network)
    x.requires_grad_()
    network(x, time, **fields).square().mean().backward()
    dry = [n for n, p in network.named_parameters() if p.requires_grad and p.grad is None]
    if dry:
        raise Fault(f"no gradient reaches '{dry[0]}'" + (f" and {len(dry) - 1} more" if dry[1:] else ""),
                    "use it in forward without detach(), or don't register it")  # fmt: skip
    gradients = [p.grad for p in network.parameters() if p.grad is not None] + [x.grad]
    if not all(g is not None and bool(torch.isfinite(g).all()) for g in gradients):
        raise Fault("a gradient is NaN or infinite, or none reaches x", "look for sqrt, norm or division at 0")


def _without_memory(subject: Subject) -> None:
    holds_without_memory(subject, lambda network: _ask(network, _inputs(subject, network)))


CHECKS = (
    Check("shapes", "For 1 sample and for 3 it gives the channels that it says, at the size it is given.", _shapes),
    Check("repeatable", "Asked twice, it answers the same.", _repeatable),
    Check("dtypes", "It runs in float32 and in bfloat16, and says nearly the same.", _dtypes),
    Check("own-sample", "No sample's answer depends on another of its batch.", _own_sample),
    Check("listens", "Its answer depends on time and on all that it says it reads.", _listens),
    Check("gradients", "Finite gradients reach every parameter, and x.", _gradients),
    Check("without-memory", "It can be built without memory and given its weights, as every card is loaded.",
          _without_memory),
)  # fmt: skip
