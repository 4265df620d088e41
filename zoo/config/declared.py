"""What components declare of themselves, as literal class attributes that are read from their source.

A check imports what it plans with (schedules, grids, samplers, parameterizations, step caches) and asks it. Of the
other kinds, whose code needs torch, it reads these facts; one that a component doesn't declare is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# What a component of any kind may say.
EVERY: Mapping[str, str] = {
    "fits": '`"module:function"` without torch, which is given the arguments it names and refuses those that can\'t be',
    "default": "it fills a slot of its kind where nothing is named",
}

DECLARED: Mapping[str, Mapping[str, str]] = {
    "guidance": {
        "first": "it asks the network itself: the rest of a sentence that says what comes of another before it",
        "once": "a second of its name is refused: the rest of a sentence that says why",
        "compares": "it leaves `x0_cond`, the condition's own x0, beside the guided one",
        "after_compares": "it needs such a guidance before it: the rest of a sentence that says it lacks one",
        "bounds_x0": "it holds x0 in the data's range, which a second has no need to do",
        "needs": '`"null"` (a null condition), `"labels"` (a class a sample), `"image"` (a call\'s picture, in pixels)',
        "neutral": "the arguments at which it does nothing, and needs nothing",
        "undefined_at_zero": "the arguments at which it says nothing where alpha = 0",
        "inverts": "the arguments at which it inverts its measurement without noise",
        "pictures": "it works on pictures, and not on arrays of other axes",
        "call_scale": "the argument that `guidance=` of a call sets",
    },
    "measurement": {
        "needs_noise": "it takes something away altogether, and can't be inverted without noise",
        "hears_mask": "it is measured outside of a call's mask",
    },
    "low_res": {"noises": "whether it noises the smaller picture and tells the network how much"},
    "autoencoder": {
        "pictures": "it works on pictures, and not on arrays of other axes",
        "factor": "pixels a side for one latent",
    },
    "conditioner": {"hears": '`"labels"`, if it is given those and no prompts'},
    "step_cache": {"calls": "the methods of a network that it works with"},
}


def declares(**facts: Any) -> Callable[[F], F]:
    """A component that is a function says literal facts by this decorator, as a class does by its attributes."""

    def said(function: F) -> F:
        for name, value in facts.items():
            setattr(function, name, value)
        return function

    return said
