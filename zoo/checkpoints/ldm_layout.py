"""The layout of latent diffusion's and Stable Diffusion's own checkpoints -> zoo's U-Net, which has its names.

Such a file may hold the U-Net twice (Rombach et al. 2022, CompVis' `LitEma`):

| weights | where | which |
|---|---|---|
| `ema` | `model_ema.` + the name with every dot removed | the moving average, which the paper's results use |
| `plain` | `model.diffusion_model.` + the name | as the optimizer left them; in pruned files often the average |

The two have the same shapes, so a file never shows that the wrong ones were taken. The average is read unless `plain`
is requested, and a file without one is refused otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import Tensor

from zoo.schema.errors import WeightsError

Weights = Literal["ema", "plain"]
PLAIN = "model.diffusion_model."
AVERAGE = "model_ema."
_INNER = "diffusion_model"  # of the module that is averaged, CompVis' DiffusionWrapper
_COUNTERS = ("model_ema.decay", "model_ema.num_updates")


@dataclass(frozen=True)
class UNetOfLDM:
    """The tensors of a U-Net by zoo's names; `weights` says which of a file's two copies they are."""

    tensors: Mapping[str, Tensor]
    weights: Weights


def unet_tensors_from_ldm(checkpoint: Mapping[str, Any], *, weights: Weights = "ema") -> UNetOfLDM:
    """The U-Net of a checkpoint: a `state_dict` of tensors, or what holds one under that name.

    Raises WeightsError where there is no U-Net, where the average is wanted and not whole, and for other `weights`.
    """
    if weights not in get_args(Weights):
        raise WeightsError(
            f"unknown weights '{weights}' of a latent diffusion checkpoint; say ema or plain", code="choice-unknown"
        )
    state: Mapping[str, Any] = checkpoint.get("state_dict", checkpoint)
    names = [name.removeprefix(PLAIN) for name in state if name.startswith(PLAIN)]
    if not names:
        raise WeightsError(
            f"these tensors have no '{PLAIN}' and are no latent diffusion checkpoint; name their own layout",
            code="layout-wrong",
        )
    if weights == "plain":
        return UNetOfLDM({name: state[PLAIN + name] for name in names}, "plain")
    held = [name for name in state if name.startswith(AVERAGE) and name not in _COUNTERS]
    if not held:
        raise WeightsError(
            f"this checkpoint holds no averaged weights ('{AVERAGE}'), and can't say whether its one copy is the "
            "average (pruned files) or not; say weights plain to take it",
            code="average-missing",
        )
    places = {name: AVERAGE + f"{_INNER}.{name}".replace(".", "") for name in names}
    if len(set(places.values())) < len(places):
        raise WeightsError(
            "two tensors of this checkpoint have one name among its averaged weights, which are named without dots; "
            "say weights plain",
            code="average-unfit",
        )
    missing = next((name for name, place in places.items() if place not in state), None)
    other = next(
        (name for name, at in places.items() if at in state and state[at].shape != state[PLAIN + name].shape), None
    )
    if missing is not None or other is not None:
        raise WeightsError(
            f"this checkpoint's averaged weights are not those of its U-Net: '{missing or other}' is "
            f"{'missing' if missing else 'of another shape'}; get the file again, or say weights plain",
            code="average-unfit",
        )
    return UNetOfLDM({name: state[place] for name, place in places.items()}, "ema")
