"""What schedules, parameterizations and time grids promise: all of it in closed form, in numpy."""

from __future__ import annotations

import numpy as np
import torch

from zoo.conformance.report import Check, Fault, NotAsked, Subject
from zoo.diffusion.schedules import LinearSchedule
from zoo.diffusion.types import NoiseSchedule
from zoo.schema.errors import ZooError


def _times(schedule: NoiseSchedule) -> np.ndarray:
    """t above 0, points of the table and between them."""
    points = schedule.T
    return (
        np.linspace(0.0, 1.0, 1001)[1:] if points is None else np.linspace(1.0, 2.0 * points, 2 * points) / points / 2
    )


def _log_ratio(schedule: NoiseSchedule, t: np.ndarray) -> np.ndarray:
    """ln(sigma / alpha), infinite where nothing of the sample is left."""
    alpha, sigma = schedule(t)
    with np.errstate(divide="ignore"):
        return np.log(sigma) - np.log(alpha)


def _points(subject: Subject) -> None:
    schedule = subject.make()
    points = schedule.T
    if points is not None and (isinstance(points, bool) or not isinstance(points, int) or points < 1):
        raise Fault(f"its T is {points!r}", "let T be the number of discrete points, or None if any t is as good")


def _finite(subject: Subject) -> None:
    schedule = subject.make()
    alpha, sigma = schedule(_times(schedule))
    if np.asarray(alpha).dtype != np.float64 or np.asarray(sigma).dtype != np.float64:
        raise Fault("alpha and sigma aren't float64 arrays", "work them out in numpy's float64")
    if not (np.isfinite(alpha).all() and np.isfinite(sigma).all() and (alpha >= 0).all() and (sigma > 0).all()):
        raise Fault("alpha or sigma is negative, infinite or NaN somewhere above t = 0", "look at its ends")
    for t in (0.3, 1.0):
        one, many = schedule(t), schedule(np.array([t, 0.7]))
        if not all(np.allclose(a, b[0], rtol=1e-12, atol=0) for a, b in zip(one, many, strict=True)):
            raise Fault(f"a lone t = {t} and one in an array give different numbers", "let it work elementwise")


def _clean(subject: Subject) -> None:
    alpha, sigma = subject.make()(0.0)
    if (float(alpha), float(sigma)) != (1.0, 0.0):
        raise Fault(f"at t = 0 alpha is {float(alpha):.4g} and sigma {float(sigma):.4g}",
                    "let t = 0 be the clean sample: alpha 1, sigma 0")  # fmt: skip


def _monotone(subject: Subject) -> None:
    schedule = subject.make()
    ratio = _log_ratio(schedule, _times(schedule))
    with np.errstate(invalid="ignore"):  # infinite twice is no growth either
        grows = np.diff(ratio) > 0.0
    if not grows.all():
        at = _times(schedule)[int(np.argmin(grows))]
        raise Fault(f"noise doesn't grow with t near {at:.4g}", "let log-SNR fall all the way from t = 0 to t = 1")


def _inverse(subject: Subject) -> None:
    schedule = subject.make()
    t = _times(schedule)
    ratio = _log_ratio(schedule, t)
    t, ratio = t[np.isfinite(ratio)], ratio[np.isfinite(ratio)]
    back = np.asarray(schedule.t_from_log_snr(-2.0 * ratio))
    # Where the ratio hardly changes, t is ill-conditioned; the ratio isn't.
    wrong = np.abs(_log_ratio(schedule, np.clip(back, 1e-12, 1.0)) - ratio) > 1e-6
    wrong &= np.abs(back - t) > 1e-6
    if back.shape != t.shape or wrong.any():
        at = t[int(np.argmax(wrong))] if back.shape == t.shape else 1.0
        raise Fault(f"t = {at:.4g} doesn't come back from its log-SNR by t_from_log_snr",
                    "invert 2 ln(alpha / sigma), elementwise")  # fmt: skip


def _ends(subject: Subject) -> None:
    schedule = subject.make()
    ends = np.asarray(schedule.t_from_log_snr(np.array([-400.0, 400.0])))
    if not (np.isfinite(ends).all() and (ends >= 0.0).all() and (ends <= 1.0).all()):
        raise Fault(f"a log-SNR of -400 is at t = {ends[0]:.4g} and one of 400 at {ends[1]:.4g}",
                    "let what is beyond the schedule's ends be an end")  # fmt: skip


def _refuses(subject: Subject) -> None:
    schedule = subject.make()
    for t in (-0.1, 1.1, float("nan")):
        try:
            schedule(t)
        except (ZooError, ValueError):
            continue
        raise Fault(f"it answers for t = {t}", "raise a UsageError for a t outside of [0, 1]")


SCHEDULE_CHECKS = (
    Check("points", "T is the number of points, or None.", _points),
    Check("finite", "Alpha and sigma are finite and never negative, in float64, elementwise.", _finite),
    Check("clean", "t = 0 is the clean sample.", _clean),
    Check("monotone", "log-SNR falls as t grows.", _monotone),
    Check("inverse", "t_from_log_snr inverts it.", _inverse),
    Check("ends", "A log-SNR beyond the ends is an end.", _ends),
    Check("outside", "A t outside of [0, 1] is refused.", _refuses),
)

LEVELS = ((0.999, 0.04), (0.7, 0.7), (0.07, 0.998), (1.0, 20.0))


def _reads_back(subject: Subject) -> None:
    reading = subject.make()
    rng = np.random.default_rng(0)
    x0, eps = rng.standard_normal((2, 50))
    for alpha, sigma in LEVELS:
        c_skip, c_out, _ = reading(alpha, sigma)
        x_t = alpha * x0 + sigma * eps
        found = c_skip * x_t + c_out * reading.target(x0, eps, alpha, sigma)
        if not np.allclose(found, x0, rtol=1e-6, atol=1e-6):
            raise Fault(f"at alpha {alpha}, sigma {sigma} its target doesn't read back as x0",
                        "let c_skip * x_t + c_out * target be x0, for any alpha and sigma")  # fmt: skip


def _kinds_of_numbers(subject: Subject) -> None:
    reading = subject.make()
    alpha, sigma = (np.array([level[i] for level in LEVELS]) for i in (0, 1))
    arrays = reading(alpha, sigma)
    tensors = reading(torch.from_numpy(alpha), torch.from_numpy(sigma))
    for row, (a, s) in enumerate(LEVELS):
        for one, array, tensor in zip(reading(a, s), arrays, tensors, strict=True):
            both = (float(np.broadcast_to(array, alpha.shape)[row]), float(torch.as_tensor(tensor).expand(4)[row]))
            if not np.allclose(both, float(one), rtol=1e-9):
                raise Fault("floats, arrays and tensors give different coefficients", "use operators alone: * / + **")


PARAMETERIZATION_CHECKS = (
    Check("reads-back", "What the network is trained to say reads back as x0.", _reads_back),
    Check("numbers", "Alpha and sigma may be floats, arrays or tensors.", _kinds_of_numbers),
)


def _descends(subject: Subject) -> None:
    grid = subject.make()
    told = 0
    for steps in (1, 2, 10, 37):
        try:
            nodes = np.asarray(grid(LinearSchedule(), steps))
        except ZooError:
            continue
        told += 1
        if nodes.shape != (steps,):
            raise Fault(f"for {steps} steps it gives nodes of shape {nodes.shape}", "give as many as there are steps")
        if not (np.all(np.diff(nodes) < 0.0) and nodes[-1] > 0.0 and nodes[0] <= 1.0 + 1e-9):
            raise Fault(f"its {steps} nodes don't descend within (0, 1]", "the noisiest first; leave t = 0 out")
        if not np.array_equal(nodes, grid(LinearSchedule(), steps)):
            raise Fault("asked again it gives other nodes", "let it depend on its arguments alone")
    if not told:
        raise NotAsked("it refuses the linear schedule at 1, 2, 10 and 37 steps")


GRID_CHECKS = (Check("descends", "n steps have n nodes, descending within (0, 1].", _descends),)
