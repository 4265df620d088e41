"""Whether super-resolution stages fit the stages below them (Ho et al. 2021, section 4): a part of the contract."""

from __future__ import annotations

from zoo.config.parts import StageParts, same_schedule, whole
from zoo.schema.errors import ConfigError
from zoo.schema.registry import Registry


def check_cascade(stages: list[StageParts], registry: Registry) -> None:
    """Refuse a small image that no stage gives or takes, or of a size or noise unlike the network's training."""
    for parts, before in zip(stages, [None, *stages], strict=False):
        feeds = None if before is None else before.stage["feeds"]
        if before is not None and feeds == "low_res" and parts.low_res is None:
            raise ConfigError(
                f"stage '{before.name}' feeds low_res and {parts.network.label} of stage '{parts.name}' takes no "
                "smaller picture; use a super-resolution network",
                code="low-res-unread",
            )
        if parts.low_res is None:
            _check_without(parts)
            continue
        _check_size(parts, registry)
        if before is None:
            continue
        if feeds != "low_res":
            raise ConfigError(
                f"{parts.network.label} of stage '{parts.name}' needs a smaller picture and stage '{before.name}' "
                f"feeds {feeds}; let it feed low_res",
                code="low-res-missing",
            )
        _check_pair(before, parts)
        if before.stage["interval"][1] > 0.0:
            _check_truncated(before, parts, registry)


def _check_without(parts: StageParts) -> None:
    if parts.stage.get("augmentation") is not None:
        raise ConfigError(
            f"stage '{parts.name}' has an augmentation and {parts.network.label} takes no smaller picture to noise; "
            "take it out",
            code="augmentation-unread",
        )
    if parts.network["low_res"]:
        raise ConfigError(
            f"stage '{parts.name}': {parts.network.label} was trained with a smaller picture and its denoiser doesn't "
            "say how it sees one; add low_res to the denoiser, like {name: plain}",
            code="low-res-unstated",
        )


def _check_size(parts: StageParts, registry: Registry) -> None:
    low_res, name = parts.low_res, parts.name
    assert low_res is not None
    if low_res["noises"] is False and parts.stage.get("augmentation"):
        raise ConfigError(
            f"stage '{name}' has an augmentation and {parts.network.label} was trained without noise on the smaller "
            f"picture ({low_res.label}); take it out",
            code="augmentation-untrained",
        )
    if low_res["noises"] is False and parts.network["level"] is True:
        noising = " or ".join(registry.saying("low_res", "noises"))
        raise ConfigError(
            f"stage '{name}': {parts.network.label} is told how noisy the smaller picture is and {low_res.label} "
            f"gives no level; use low_res {noising}, with the schedule it was trained with",
            code="level-missing",
        )
    if parts.stage.get("augmentation") and parts.network["level"] is False and low_res["tells"] != "label":
        raise ConfigError(
            f"stage '{name}' has an augmentation and {parts.network.label} isn't told how noisy the smaller picture is "
            "(its level is false); take it out",
            code="augmentation-untrained",
        )
    if parts.stage["takes"] != "noise":
        raise ConfigError(
            f"stage '{name}' takes {parts.stage['takes']} and is conditioned on a smaller picture; let it take noise",
            code="low-res-start-unfit",
        )
    small, trained = parts.network["low_res"], parts.network["size"]
    size = parts.stage["size"] // (parts.autoencoder["factor"] or 1)
    if whole(small) and whole(trained) and size != trained:
        raise ConfigError(
            f"stage '{name}': {parts.network.label} was trained to enlarge {small} to {trained} and the stage has size "
            f"{parts.stage['size']}; set its size to {parts.stage['size'] // size * trained}",
            code="low-res-size-unfit",
        )
    if whole(small) and small >= parts.stage["size"]:
        raise ConfigError(
            f"stage '{name}' has size {parts.stage['size']} and {parts.network.label} enlarges pictures of {small}; "
            "set a larger size",
            code="low-res-size-unfit",
        )


def _check_pair(before: StageParts, after: StageParts) -> None:
    small, given = after.network["low_res"], before.stage["size"]
    if whole(small) and small != given:
        raise ConfigError(
            f"{after.network.label} of stage '{after.name}' enlarges pictures of {small} and stage '{before.name}' "
            f"gives pictures of {given}; set its size to {small} or take a network trained for {given}",
            code="low-res-size-unfit",
        )
    if given >= after.stage["size"]:
        raise ConfigError(
            f"stage '{before.name}' gives pictures of {given} and stage '{after.name}' is to enlarge them to "
            f"{after.stage['size']}; give it a larger size",
            code="low-res-size-unfit",
        )


def _check_truncated(before: StageParts, after: StageParts, registry: Registry) -> None:
    """The stage before stops at noise, which is the augmentation itself."""
    low_res, stop = after.low_res, before.stage["interval"][1]
    assert low_res is not None
    where = f"stage '{before.name}' stops at t = {stop}, for truncated conditioning of stage '{after.name}',"
    if low_res["noises"] is False:
        raise ConfigError(
            f"{where} and {after.network.label} was trained without noise on the smaller picture ({low_res.label}); "
            "end the interval at 0",
            code="interval-untrained",
        )
    if after.network["level"] is False:
        raise ConfigError(
            f"{where} and {after.network.label} isn't told how noisy the smaller picture is (its level is false); end "
            "the interval at 0",
            code="interval-untrained",
        )
    if after.stage.get("augmentation") is not None:
        raise ConfigError(
            f"{where} which also has an augmentation of {after.stage['augmentation']}; take it out, the level is where "
            "the stage before stops",
            code="interval-unfit",
        )
    if low_res["noised"] == "after":
        raise ConfigError(
            f"{where} whose {low_res.label} noises pictures after enlarging them; end the interval at 0 and give an "
            "augmentation",
            code="interval-untrained",
        )
    factor = before.autoencoder["factor"]
    if whole(factor) and factor != 1:
        raise ConfigError(
            f"{where} and its samples are latents of {before.autoencoder.label}, not pictures; end the interval at 0 "
            "and give an augmentation",
            code="interval-untrained",
        )
    meant = low_res["schedule"]
    if meant is not None and not same_schedule(meant, before.denoiser["schedule"], registry):
        raise ConfigError(
            f"{where} and {before.schedule.label} of {before.network.label} isn't the one that {low_res.label} of "
            f"{after.network.label} noises by; end the interval at 0 and give an augmentation",
            code="interval-untrained",
        )
