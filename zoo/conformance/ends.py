"""Both ends of a pipeline: autoencoders, conditioners, extractors and safety checks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor

from zoo.config.conditions import JOINS, SOURCES, filled
from zoo.config.parts import Part
from zoo.conformance.mixture import relative
from zoo.conformance.modules import EXACT, HALF, NEAR, built, holds_without_memory, normal
from zoo.conformance.report import Check, Fault, NotAsked, Subject
from zoo.diffusion.types import Condition, source_of

PROMPTS = ("a red apple", "sun", "two cats on a sofa")


def _pictures(subject: Subject, autoencoder: Any, batch: int = 3) -> Tensor:
    factor = subject.number(autoencoder, "factor")
    multiple = factor * -(-16 // factor)
    # Identity's images have the channels of its latents.
    channels = subject.fact(autoencoder, "image_channels") or (
        subject.number(autoencoder, "channels") if factor == 1 else 3
    )
    return normal(batch, channels, 2 * multiple, multiple).clamp(-2.0, 2.0) / 2.0


def _sizes(subject: Subject) -> str:
    autoencoder = built(subject)
    factor, channels = (subject.number(autoencoder, n) for n in ("factor", "channels"))
    said = ""
    for batch in (1, 3):
        images = _pictures(subject, autoencoder, batch)
        with torch.no_grad():
            latents = autoencoder.encode(images)
            wanted = (batch, channels, *(s // factor for s in images.shape[2:]))
            if tuple(latents.shape) != wanted:
                raise Fault(f"it encodes {tuple(images.shape)} as {tuple(latents.shape)}, and it says {wanted}",
                            "set self.channels and self.factor to those of its latents")  # fmt: skip
            decoded = autoencoder.decode(latents)
        if decoded.shape != images.shape:
            raise Fault(f"{tuple(images.shape)} come back as {tuple(decoded.shape)}", "let decode undo encode's size")
        if not bool(torch.isfinite(latents).all() and torch.isfinite(decoded).all()):
            raise Fault("it gives NaN or infinity for pictures in [-1, 1]", "look at its norms and scales")
        said = f"random weights bring pictures back {relative(decoded, images):.2g} away, which is no promise"
    return said


def _mode(subject: Subject) -> None:
    autoencoder = built(subject)
    images = _pictures(subject, autoencoder)
    with torch.no_grad():
        first, second = autoencoder.encode(images), autoencoder.encode(images)
        quiet = autoencoder.encode(images, noise=torch.zeros_like(first))
        if not (torch.equal(first, second) and torch.equal(autoencoder.decode(first), autoencoder.decode(first))):
            raise Fault("asked twice, it gives different answers", "draw nothing inside: encode is given its noise")
    if relative(quiet, first) > EXACT:
        raise Fault("encode without noise isn't encode with noise of 0", "return the mode where noise is None")


def _own_picture(subject: Subject) -> None:
    autoencoder = built(subject)
    images = _pictures(subject, autoencoder)
    with torch.no_grad():
        latents = autoencoder.encode(images)
        one = autoencoder.encode(images[1:2])
        back = autoencoder.decode(latents)[1:2]
        if not (relative(one, latents[1:2]) < NEAR and relative(autoencoder.decode(latents[1:2]), back) < NEAR):
            raise Fault("a picture's latents or its decoding depend on the others of its batch",
                        "norm each sample by itself (GroupNorm, LayerNorm)")  # fmt: skip


def _half(subject: Subject) -> str:
    autoencoder = built(subject)
    images = _pictures(subject, autoencoder)
    with torch.no_grad():
        wide = autoencoder.encode(images)
        decoded = autoencoder.decode(wide)
        half = autoencoder.to(torch.bfloat16)
        narrow = half.decode(wide.to(torch.bfloat16))
    apart = relative(narrow, decoded)
    if decoded.dtype != torch.float32 or not apart < HALF:
        raise Fault(f"in bfloat16 it decodes {apart:.2g} away from what it does in {decoded.dtype}",
                    "cast constants to the dtype of what they meet")  # fmt: skip
    return f"bfloat16 is {apart:.2g} away"


def _autoencoder_without_memory(subject: Subject) -> None:
    def ask(autoencoder: Any) -> Tensor:
        with torch.no_grad():
            return autoencoder.decode(autoencoder.encode(_pictures(subject, autoencoder)))

    holds_without_memory(subject, ask)


AUTOENCODER_CHECKS = (
    Check("sizes", "Latents have the channels and factor that it says, and come back at the pictures' size.", _sizes),
    Check("mode", "Without noise it gives the mode, always the same.", _mode),
    Check("own-picture", "No picture depends on another of its batch.", _own_picture),
    Check("dtypes", "It decodes in float32 and in bfloat16, and nearly the same.", _half),
    Check("without-memory", "It can be built without memory and given its weights.", _autoencoder_without_memory),
)


def _asked(subject: Subject, conditioner: Any) -> tuple[Any, ...]:
    """Three prompts (labels, images, requests' numbers) of the conditioner's own, or some of ours."""
    source = source_of(conditioner)
    if source == "request":
        names = tuple(subject.fact(conditioner, "names") or ("height", "width"))
        return tuple({name: 64.0 * (i + 1) + k for k, name in enumerate(names)} for i in range(3))
    if source == "image":
        return tuple(normal(3, 32, 32, seed=i).clamp(-1.0, 1.0) for i in range(3))
    own = getattr(conditioner, "example_prompts", None)
    if own is not None:
        return tuple((*own, *own, *own)[:3])
    if source == "labels":
        names = tuple(subject.fact(conditioner, "names") or (0,))
        return tuple((*names, *names, *names)[:3])
    return PROMPTS


def _condition(conditioner: Any, prompts: Any) -> Condition:
    shape = getattr(conditioner, "noise_shape", None)  # of one that noises images, the same for each of them here
    eps = [] if shape is None else [normal(1, *shape, seed=7).expand(len(prompts), *shape)]
    with torch.no_grad():
        condition = conditioner(list(prompts), *eps)
    if not isinstance(condition, Condition):
        raise Fault(f"it gives a {type(condition).__name__}", "return a zoo.diffusion.types.Condition")
    return condition


def _fields(condition: Condition) -> dict[str, Tensor]:
    """The fields that are set by name, scalars by theirs."""
    found = {f.name: v for f in fields(condition) if (v := getattr(condition, f.name)) is not None}
    scalars = found.pop("scalars", {})
    return {**found, **{f"scalar '{name}'": value for name, value in scalars.items()}}


RANKS = {
    "tokens": (3,), "mask": (2,), "vector": (2,), "label": (1,), "image": (2, 3), "concat": (4,), "level": (1,),
}  # fmt: skip


def _condition_shapes(subject: Subject) -> str:
    conditioner = built(subject)
    prompts = _asked(subject, conditioner)
    widths = {"tokens": subject.fact(conditioner, "context_width", "width"),
              "vector": subject.fact(conditioner, "vector_width", "embed_dim")}  # fmt: skip
    widths = _declared_widths(subject, conditioner) or widths
    for batch in (1, 3):
        given = _fields(_condition(conditioner, prompts[:batch]))
        if not given:
            raise Fault("its condition says nothing", f"set one of {', '.join(JOINS)}")
        for name, value in given.items():
            if value.ndim not in RANKS.get(name, (1,)) or len(value) != batch:
                raise Fault(f"for {batch} prompts its {name} has the shape {tuple(value.shape)}",
                            "the batch comes first: see zoo.diffusion.types.Condition")  # fmt: skip
            if widths.get(name) not in (None, value.shape[-1]):
                raise Fault(f"its {name} have width {value.shape[-1]}, and it says {widths[name]}",
                            "say the width it gives: it is held against the network's")  # fmt: skip
        if given.get("mask") is not None and given["mask"].dtype != torch.bool:
            raise Fault(f"its mask is {given['mask'].dtype}", "let it be bool, True where a token counts")
        if given.get("label") is not None and given["label"].dtype != torch.int64:
            raise Fault(f"its label is {given['label'].dtype}", "let it be int64")
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in given.items())


def _declared_widths(subject: Subject, conditioner: Any) -> dict[str, int | None]:
    """The fields that it says it fills, with their widths."""
    said = getattr(conditioner, "fills", None)
    if not isinstance(said, Mapping):
        return {}
    names = {fact for rule in said.values() for fact in ([rule] if isinstance(rule, str) else rule)}
    facts = {name: subject.fact(conditioner, name) for name in names}
    return filled(Part("", {**facts, "fills": said}))


def _fills(subject: Subject) -> str:
    conditioner = built(subject)
    if not isinstance(getattr(conditioner, "fills", None), Mapping):
        raise NotAsked("it doesn't declare what it fills, so nothing but its widths is checked before a run")
    source = source_of(conditioner)
    if source not in SOURCES:
        raise Fault(f"its source is {source!r}, of which no call knows", f"set source to one of {', '.join(SOURCES)}")
    said = _declared_widths(subject, conditioner)
    condition = _condition(conditioner, _asked(subject, conditioner))
    given = [name for name in JOINS if getattr(condition, name) is not None]
    if sorted(said) != sorted(given):
        raise Fault(f"it fills {', '.join(given)} and says {', '.join(said) or 'nothing'}",
                    "declare in fills what it gives: a pipeline joins conditioners by that")  # fmt: skip
    return f"{', '.join(given)} of {source}"


def _null_prompt(subject: Subject) -> None:
    conditioner = built(subject)
    prompt = getattr(conditioner, "null_prompt", None)
    if prompt is None:
        raise NotAsked("its null condition is no prompt's, and is asked for by itself")
    with torch.no_grad():
        null, asked = _fields(conditioner.null(1)), _fields(_condition(conditioner, [prompt]))
    if null.keys() != asked.keys() or any(relative(asked[n].float() + 1.0, null[n].float() + 1.0) > NEAR for n in null):
        raise Fault(f"its null condition isn't that of its null_prompt {prompt!r}",
                    "take null_prompt out: null is then asked for")  # fmt: skip


def _null(subject: Subject) -> None:
    conditioner = built(subject)
    if not hasattr(conditioner, "null") or subject.fact(conditioner, "null_class") is False:
        raise NotAsked("it has no null condition, so classifier-free guidance is refused for it")
    with torch.no_grad():
        null = _fields(conditioner.null(3))
    given = _fields(_condition(conditioner, _asked(subject, conditioner)))
    shapes, wanted = ({k: tuple(v.shape) for k, v in side.items()} for side in (null, given))
    if shapes != wanted:
        raise Fault(f"nothing asked has the fields {shapes} and a prompt {wanted}",
                    "give both the same fields and lengths: guidance puts them in one batch")  # fmt: skip


def _repeatable(subject: Subject) -> None:
    conditioner = built(subject)
    prompts = _asked(subject, conditioner)
    first, second = (_fields(_condition(conditioner, prompts)) for _ in range(2))
    if not all(torch.equal(first[name], second[name]) for name in first):
        raise Fault("the same prompts give different conditions", "draw nothing inside")


def _own_prompt(subject: Subject) -> None:
    conditioner = built(subject)
    prompts = _asked(subject, conditioner)
    whole, alone = (_fields(_condition(conditioner, p)) for p in (prompts, prompts[1:2]))
    for name, value in alone.items():
        if value.shape[1:] != whole[name].shape[1:]:
            raise Fault(f"a prompt's {name} have another length in a batch", "pad all prompts to one length")
        if relative(value.float() + 1.0, whole[name][1:2].float() + 1.0) > NEAR:
            raise Fault(f"a prompt's {name} depend on the others of its batch", "mask the padding in attention")


CONDITIONER_CHECKS = (
    Check("fills", "It gives the fields that it says it fills, of what it says it is given.", _fills),
    Check("null-prompt", "Its null condition is that of the prompt which it says it is.", _null_prompt),
    Check("shapes", "Prompts become a Condition, the batch first, as wide as it says.", _condition_shapes),
    Check("null", "What stands for 'nothing asked' has the fields and lengths of a prompt.", _null),
    Check("repeatable", "The same prompts give the same condition.", _repeatable),
    Check("own-prompt", "No prompt depends on another of its batch.", _own_prompt),
)


def _features(subject: Subject) -> str:
    extractor = subject.make()
    name, sha256 = getattr(extractor, "name", None), getattr(extractor, "sha256", None)
    if not isinstance(name, str) or not isinstance(sha256, str) or len(sha256) != 64:
        raise Fault("it doesn't say its name and the SHA-256 of its weights",
                    "set name and sha256: they are in the key of every number it makes")  # fmt: skip
    pictures = torch.randint(0, 256, (5, 3, 40, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    features = extractor.images(pictures)
    if features.ndim != 2 or len(features) != 5 or features.dtype != torch.float32:
        raise Fault(f"5 pictures give features {tuple(features.shape)} of {features.dtype}", "give (N, D) in float32")
    if relative(extractor.images(pictures, batch=2), features) > NEAR:
        raise Fault("features depend on the batch they are made in", "norm each picture by itself")
    if not torch.equal(extractor.images(pictures), features):
        raise Fault("the same pictures give different features", "draw nothing inside, and call eval()")
    return f"{features.shape[1]} features"


EXTRACTOR_CHECKS = (Check("features", "uint8 pictures become features (N, D), in any batch the same.", _features),)


def _verdicts(subject: Subject) -> None:
    check = subject.make()
    images = torch.stack([torch.full((3, 16, 16), v) for v in (0.0, 0.5, 1.0)] + [normal(3, 16, 16).sigmoid()])
    first, second = check(images), check(images)
    if len(first) != len(images):
        raise Fault(f"4 pictures get {len(first)} verdicts", "give one a picture, in order")
    if any(not v.allowed and not v.reason for v in first):
        raise Fault("it refuses a picture and says no reason", "say why in Verdict.reason")
    if [v.allowed for v in first] != [v.allowed for v in second]:
        raise Fault("the same pictures get different verdicts", "draw nothing inside")


SAFETY_CHECKS = (
    Check("verdicts", "One verdict a picture, always the same, and a reason for each refusal.", _verdicts),
)
