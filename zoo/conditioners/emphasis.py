"""Weights in a prompt, `a (red:1.3) apple`, as the widely used interfaces write them, and what they do to states.

| written | weight |
|---|---|
| `(words:1.3)` | 1.3 |
| `(words)`, `((words))` | 1.1, 1.21 |
| `[words]` | 1 / 1.1 |
| `\\(`, `\\)`, `\\[`, `\\]`, `\\\\` | the sign itself |

Within each other they multiply. The words keep their places; only their states change, of a window of tokens alone:

| scheme | z' of a token of weight w | elsewhere |
|---|---|---|
| `mean` | w z, and then the window times one number that gives it its former mean | AUTOMATIC1111 |
| `empty` | e + w (z - e), with e the state of the empty prompt in the same place | ComfyUI; compel, above 1 |
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from zoo.schema.errors import UsageError

if TYPE_CHECKING:
    from torch import Tensor

SCHEMES = ("mean", "empty")
STEP = 1.1  # of a pair of brackets without a number
LARGEST = 10.0
_SIGN = re.compile(r"\\[()\[\]\\]|[()\[\]]|[^\\()\[\]]+|\\")
_NUMBER = re.compile(r"(.*):\s?([0-9]{1,4}(?:\.[0-9]{0,6})?|\.[0-9]{1,6})\s?", re.DOTALL)


def parse(prompt: str) -> list[tuple[str, float]]:
    """Texts with their weights, in order; UsageError for brackets without their other half, or a weight over 10."""
    # Each open bracket with what stands in it so far; the outermost has none.
    levels: list[tuple[str, list[tuple[str, float]]]] = [("", [])]
    for sign in _SIGN.findall(prompt):
        if sign in ("(", "["):
            levels.append((sign, []))
        elif sign in (")", "]"):
            opened, inside = levels.pop()
            if opened != {")": "(", "]": "["}[sign]:
                raise _unbalanced(prompt, sign)
            factor = STEP if sign == ")" else 1.0 / STEP
            number = _NUMBER.fullmatch(inside[-1][0]) if sign == ")" and inside and inside[-1][1] == 1.0 else None
            if number is not None:
                inside[-1], factor = (number[1], 1.0), float(number[2])
            levels[-1][1].extend((text, weight * factor) for text, weight in inside)
        else:
            text = sign[1] if len(sign) == 2 and sign[0] == "\\" else sign
            found = levels[-1][1]
            if found and found[-1][1] == 1.0:
                found[-1] = (found[-1][0] + text, 1.0)
            else:
                found.append((text, 1.0))
    if len(levels) > 1:
        raise _unbalanced(prompt, levels[-1][0])
    heavy = next((weight for _, weight in levels[0][1] if weight > LARGEST), None)
    if heavy is not None:
        raise UsageError(
            f"the prompt '{prompt[:60]}' gives words the weight {heavy:g}; give 0 to {LARGEST:g}",
            code="number-out-of-range",
        )
    return [(text, weight) for text, weight in levels[0][1] if text]


def weigh(states: Tensor, weights: Tensor, scheme: str, empty: Tensor) -> Tensor:
    """States (N, L, D) of windows, weights (N, L) and the empty prompt's states (1, L, D) -> weighted states."""
    z, w = states.float(), weights.to(states.device)[..., None]
    if scheme == "empty":
        made = empty.float() + w * (z - empty.float())
    else:
        made = w * z
        made = made * (z.mean((1, 2), keepdim=True) / made.mean((1, 2), keepdim=True))
    changed = (w != 1.0).any(1, keepdim=True)  # a window without weights stays as it is, to the bit
    return made.to(states.dtype).where(changed, states)


def _unbalanced(prompt: str, sign: str) -> UsageError:
    return UsageError(
        f"the prompt '{prompt[:60]}' has a '{sign}' without its other half; write \\{sign} where the sign itself is "
        "meant",
        code="prompt-brackets-unbalanced",
    )
