"""What components declare of themselves, as literal class attributes that are read from their source.

A check imports what it plans with (schedules, grids, samplers, parameterizations, step caches) and calls it.
For the other kinds, whose code needs torch, it reads these facts; a fact that isn't declared is not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

# What a component of any kind may declare.
EVERY: Mapping[str, str] = {
    "fits": '`"module:function"` without torch, given the arguments that it names; it refuses those that can\'t be',
    "papers": '`"ID Title"` of each paper that it is from, by arXiv number or `doi:`, the first one first',
    "default": "it fills a slot of its kind where nothing is named",
}

DECLARED: Mapping[str, Mapping[str, str]] = {
    "any": EVERY,
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
        "scale_each": "that argument may be a tensor (B,), one a sample, so unlike scales walk in one batch",
    },
    "measurement": {
        "needs_noise": "it takes something away altogether, and can't be inverted without noise",
        "hears_mask": "it is measured outside of a call's mask",
    },
    "low_res": {"noises": "whether it noises the smaller picture and tells the network how much"},
    "autoencoder": {
        "pictures": "it works on pictures, and not on arrays of other axes",
        "factor": "pixels a side for one latent",
        "weightless": "it has no weights, so a pipeline with it doesn't count as one of random weights",
    },
    "conditioner": {
        "source": 'what it is given, one a sample: `"prompts"` (the default), `"labels"`, `"image"`, or `"request"` '
        "(the call's numbers: sizes, crops, guidance, level)",
        "adapter_names": '`"module:function"`: the names of its tensors -> its modules by every spelling of a LoRA; it '
        "declares that it can carry one, as a text encoder",
        "fills": "the fields of a `Condition` that it fills -> the facts whose product is the width, `[]` for none; a "
        "field whose fact is null isn't filled",
        "null_prompt": "the prompt whose condition its null one is, which is then encoded with a call's other prompts",
        "facts": '`"module:function"`, importable without torch: its arguments -> further facts, or a refusal',
        "weightless": "it has no weights, so a pipeline with it doesn't count as one of random weights",
        "reads_prompts": "it reads prompts as a pipeline's block `prompts` says, by `read_prompts`",
        "halves": "how many vectors of its width it fills, one after another",
    },
    "network": {
        "adapter_names": '`"module:function"`: the names of its tensors -> its modules by every spelling of a LoRA, '
        "where LoRAs are written that don't use its own names",
        "alone": 'what its weights do by themselves and are measured by: `"classification"`',
        "reads": "which of `context`, `mask`, `vector`, `label`, `level` its `forward` is told by name",
        "dims": "axes of its samples, 1 to 3; pictures have 2",
    },
    "sampler": {
        "inpaints": "it is for masked pictures, whose known part is noised anew after each of its steps",
        "ends_paths": "it is right for networks that give the end of a path, not the mean of x0",
    },
    "safety": {"blank": "the value that replaces an image that it refuses; 0.5 where it says none"},
    "dataset": {"values": "the range of the arrays that it gives; one of pictures says none"},
    "extractor": {
        "serves": 'what metrics say that they are `of` and it gives: `"inception-2015"`, `"clip"` (captions too)',
        "saved": "the layers that statistics are written of",
        "alone": 'what its weights do by themselves and are measured by: `"retrieval"`',
    },
    "metric": {
        "layers": "the layers of features that it needs",
        "paired": "it needs a reference",
        "of": 'what its extractor `serves`, or `"pairs"`: pictures beside those that they stand for',
        "fewest": "pictures of each set that it needs at least",
        "smaller": "the argument of which a smaller value needs fewer pictures",
        "statistics": "means and covariances are all that it needs",
        "captions": "it needs what each picture was to show",
        "judged": "it needs rows with `concept`, `name` and `text`",
        "names_extractor": "its name may be followed by an extractor's: `fd-dinov2`",
        "beside": "`zoo evaluate` measures it beside the default where no metric is named",
        "instead": "as `\"module:Class\"`, the metric that serves where its extractor's weights aren't there",
        "fronts": "what its values go by: the fronts of their keys",
        "seen_by": "for each of those, arguments of the extractor by which it is seen",
        "meaning": "what its values say, for the report",
        "better": '`"lower"` or `"higher"`: which of its values are better',
    },
    "objective": {
        "trains": 'the block of a recipe that it trains, `"network"` or `"autoencoder"`',
        "reads": "the other blocks that it reads; one that reads `schedule` is given its network as a denoiser",
        "needs": "those of them that it can't do without",
        "whole_batch": "a sample's loss depends on the others of its batch, which then is never split",
    },
    "step_cache": {"calls": "the methods of a network that it works with"},
}


def declares(**facts: Any) -> Callable[[F], F]:
    """Decorator by which a component that is a function declares literal facts, as a class does by attributes."""

    def said(function: F) -> F:
        for name, value in facts.items():
            setattr(function, name, value)
        return function

    return said
