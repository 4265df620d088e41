"""What a denoiser is trained on is what the papers write, whatever it is told and however it says x0."""

import numpy as np
import pytest
import torch

from tests.refusals import refused
from tests.training.toy import Net, Pictures, batch, share
from zoo.conditioners.class_label import ClassLabel
from zoo.data.pixels import from_uint8
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.low_res import GaussianAugmentation, Plain
from zoo.diffusion.parameterization import EDM, X0, Eps, Flow, V
from zoo.diffusion.schedules import CosineSchedule, EDMSchedule, FlowSchedule, LinearSchedule, VESchedule
from zoo.schema.errors import ConfigError
from zoo.training.objectives.denoising import Denoising

PAIRS = {
    "eps": (LinearSchedule(), Eps(), "index"),
    "x0": (CosineSchedule(), X0(), "index"),
    "v": (CosineSchedule(), V(), "index"),
    "flow": (FlowSchedule(), Flow(), "t999"),
    "edm": (EDMSchedule(), EDM(), "log-sigma-quarter"),
    "ncsn": (VESchedule(steps=10), Eps(), "index"),
}


class Deaf(Net):
    reads = ()


def objective(pair="v", *, net=None, low_res=None, train=None, **arguments):
    schedule, parameterization, time_input = PAIRS[pair]
    network = Denoiser(
        network=net or Net(), schedule=schedule, parameterization=parameterization, time_input=time_input,
        low_res=low_res,
    )  # fmt: skip
    return Denoising(
        network=network, train=train or Pictures(), validation=Pictures(count=6, seed=9), cache=None,  # type: ignore[arg-type]
        **{"sheet_steps": 2, **arguments},
    )  # fmt: skip


def replay(pair, made, whole):
    """x0, eps, alpha, sigma and the network's output of a batch, worked out here."""
    schedule, parameterization, _ = PAIRS[pair]
    x0 = from_uint8(torch.from_numpy(made.samples.train.arrays[whole.rows]))
    eps = whole.noise(tuple(x0.shape[1:]), "eps")
    place = (np.arange(len(x0)) + whole.uniform("t")) / len(x0)
    t = 1 - place if schedule.T is None else (np.floor(place * schedule.T) + 1) / schedule.T
    alpha, sigma = (torch.from_numpy(a).float().view(-1, 1, 1, 1) for a in schedule(t))
    time = torch.tensor([made.network.time_input(float(v)) for v in t])
    x_t = alpha * x0 + sigma * eps
    c_skip, c_out, c_in = parameterization(alpha, sigma)
    output = made.network.network(c_in * x_t, time)
    return x0, eps, alpha, sigma, output, c_skip * x_t + c_out * output


@pytest.mark.parametrize("pair", PAIRS)
@torch.no_grad()
def test_every_weighting_is_a_weight_on_the_error_of_x0(pair):
    for weighting, weight in {
        "uniform": lambda snr: torch.ones_like(snr),
        "snr": lambda snr: snr,
        "min-snr": lambda snr: snr.clamp(max=3.0),
        "p2": lambda snr: snr / (1 + snr) ** 0.5,
        "edm": lambda snr: snr + 4.0,
    }.items():
        made, whole = objective(pair, weighting=weighting, min_snr=3.0, p2_gamma=0.5), batch()
        x0, _, alpha, sigma, _, x0_hat = replay(pair, made, whole)
        expected = (weight((alpha / sigma).square()) * (x0_hat - x0).square()).mean()
        found = made.loss(made.network, whole)
        assert float(found["loss"]) == pytest.approx(float(expected), rel=2e-3), weighting
        assert float(found["x0"]) == pytest.approx(float((x0_hat - x0).square().mean()), rel=2e-3)


@torch.no_grad()
def test_papers_losses():
    whole = batch()
    # Ho et al. 2020, eq. 14.
    made = objective("eps", weighting="snr")
    _, eps, _, _, output, _ = replay("eps", made, whole)
    assert float(made.loss(made.network, whole)["loss"]) == pytest.approx(
        float((output - eps).square().mean()), rel=1e-4
    )
    # Lipman et al. 2022, with noise at t = 1.
    made = objective("flow", weighting="simple")
    x0, eps, _, _, output, _ = replay("flow", made, whole)
    assert float(made.loss(made.network, whole)["loss"]) == pytest.approx(
        float((output - (eps - x0)).square().mean()), rel=1e-4
    )
    # Song & Ermon 2019, eq. 5 and 6, twice, a number: sigma^2 |s + (x_t - x0) / sigma^2|^2 with s = -output / sigma.
    made = objective("ncsn", weighting="snr")
    x0, eps, _, sigma, output, _ = replay("ncsn", made, whole)
    score = -output / sigma
    expected = (sigma.square() * (score + sigma * eps / sigma.square()).square()).mean()
    assert float(made.loss(made.network, whole)["loss"]) == pytest.approx(float(expected), rel=1e-4)
    # Karras et al. 2022, eq. 8: lambda = 1 / c_out^2, so the effective weight is 1.
    edm, simple = objective("edm", weighting="edm"), objective("edm", weighting="simple")
    assert float(edm.loss(edm.network, whole)["loss"]) == pytest.approx(
        float(simple.loss(simple.network, whole)["loss"]), rel=1e-4
    )


@pytest.mark.parametrize("pair", PAIRS)
def test_a_sheet_is_drawn_under_every_schedule(pair):
    made = objective(pair)
    first, second = made.sheet(made.network), made.sheet(made.network)
    assert first.shape == (3, 8, 6 * 8 + 5 * 2)
    assert torch.equal(first, second)


@torch.no_grad()
def test_a_split_batch_has_the_wholes_loss():
    made, whole = objective(times="logit-normal"), batch(8)
    parts = [made.loss(made.network, share(whole, places))["loss"] for places in (np.arange(4), np.arange(4, 8))]
    expected = float(made.loss(made.network, whole)["loss"])
    assert float(sum(parts)) / 2 == pytest.approx(expected, rel=1e-5)


def test_labels_are_the_columns_sorted_and_some_are_dropped():
    net = Net(classes=3)
    made = objective(net=net, labels="group", condition_dropout=0.5)
    assert made.told.conditioner.names == ("animal", "food", "sun")
    made.loss(made.network, batch(12))
    label = net.asked[-1]["label"]
    own = torch.tensor([1, 0, 2] * 4)
    assert set(label.tolist()) > {3}
    assert torch.equal(label[label < 3], own[label < 3])
    made.loss(made.network, batch(6, training=False))
    assert torch.equal(net.asked[-1]["label"], own[:6])
    contract = made.export(made.network)[1]["contract"]
    assert (contract["classes"], contract["null_class"], contract["names"]) == (3, True, ["animal", "food", "sun"])
    assert made.sheet(made.network).dtype == torch.uint8
    wished = objective(net=Net(classes=3), labels="group", sheet_prompts=["food", "2"])
    assert wished.sheet(wished.network).shape[1:] == (8, 2 * 8 + 2)


def test_a_smaller_picture_is_the_pictures_own_and_noised_while_training():
    net = Net(channels=6)
    low_res = GaussianAugmentation(schedule=CosineSchedule())
    made = objective(net=net, low_res=low_res, low_size=4, max_level=0.5)
    whole = batch(12)
    made.loss(made.network, whole)
    level, concat = net.asked[-1]["level"], net.asked[-1]["x"][:, 3:]
    assert 0.0 <= float(level.min()) < float(level.max()) <= 0.5
    x0 = from_uint8(torch.from_numpy(made.samples.train.arrays[whole.rows]))
    small = x0.view(12, 3, 4, 2, 4, 2).mean(dim=(3, 5))
    eps = whole.noise((3, 4, 4), "level-noise")
    expected = low_res(small, size=(8, 8), level=level, eps=eps).concat
    assert torch.allclose(concat, expected, atol=1e-5)
    made.loss(made.network, batch(6, training=False))
    assert float(net.asked[-1]["level"].max()) == 0.0
    assert (
        made.export(made.network)[1]["contract"] | {"low_res": 4, "in_channels": 6, "out_channels": 3}
        == (made.export(made.network)[1]["contract"])
    )
    assert made.sheet(made.network) is not None


def test_a_plain_smaller_picture_has_no_level():
    net = Net(channels=6)
    made = objective(net=net, low_res=Plain(), low_size=4)
    made.loss(made.network, batch())
    assert net.asked[-1]["level"] is None


def hybrid(**arguments):
    net = Net(out_channels=6)
    return objective("eps", net=net, **arguments)


def test_in_the_hybrid_loss_the_bound_trains_the_variance_alone():
    # Nichol & Dhariwal 2021, section 3.1.
    gradients = {}
    for name, arguments in {
        "simple part": {"loss": "hybrid", "vlb_weight": 0.0},
        "both": {"loss": "hybrid", "vlb_weight": 1.0},
        "bound": {"loss": "vlb"},
    }.items():
        made = hybrid(weighting="simple", **arguments)
        made.loss(made.network, batch())["loss"].backward()
        gradients[name] = made.network.network.conv.weight.grad
    mean, variance = slice(0, 3), slice(3, 6)
    assert torch.allclose(gradients["both"][mean], gradients["simple part"][mean])
    assert float(gradients["simple part"][variance].abs().max()) == 0.0
    assert torch.allclose(gradients["both"][variance], gradients["bound"][variance])
    assert float(gradients["bound"][variance].abs().max()) > 0.0
    assert not torch.allclose(gradients["bound"][mean], gradients["simple part"][mean])


def test_validation_of_pictures_says_bits_per_dimension():
    made = hybrid(loss="vlb")
    with torch.no_grad():
        found = made.loss(made.network, batch(6, training=False))
    assert float(found["bits_per_dimension"]) == pytest.approx(float(found["loss"]), rel=0.05)
    assert "bits_per_dimension" in objective("v").loss(objective("v").network, batch(6, training=False))
    assert "bits_per_dimension" not in objective("flow").loss(objective("flow").network, batch(6, training=False))


def test_only_importance_sampling_is_state_of_the_run():
    assert not hasattr(objective(), "state")
    made = objective(times="importance")
    made.loss(made.network, batch())["loss"].backward()
    made.loss(made.network, batch(step=1))
    assert int(made.state()["counts"].sum()) == 12
    again = objective(times="importance")
    again.load_state(made.state())
    assert all(torch.equal(v, made.state()[k]) for k, v in again.state().items())


def test_pictures_are_augmented_by_address_while_training_alone():
    class Mirrored(Pictures):
        augments = True

    net, plain = Net(), Net()
    made = objective(net=net, train=Mirrored())
    bare = objective(net=plain)
    for kind in (True, False):
        made.loss(made.network, batch(12 if kind else 6, training=kind))
        bare.loss(bare.network, batch(12 if kind else 6, training=kind))
        assert torch.equal(net.asked[-1]["x"], plain.asked[-1]["x"]) is not kind
    first = net.asked[0]["x"]
    made.loss(made.network, batch(12))
    assert torch.equal(net.asked[-1]["x"], first)


@pytest.mark.parametrize(
    ("arguments", "refusal"),
    [
        ({"weighting": "min_snr"}, "choice-unknown: weighting"),
        ({"loss": "hybrid"}, "channels-unfit: out_channels"),
        ({"net": Net(out_channels=6)}, "channels-unfit: hybrid"),
        ({"net": Net(out_channels=6), "pair": "flow", "loss": "vlb"}, "bound-undefined"),
        ({"labels": "kind"}, "metadata-key-missing: 'kind'"),
        ({"labels": "group"}, "classes-unfit"),
        ({"low_size": 4}, "low-res-unstated"),
        ({"low_res": Plain()}, "low-res-unstated"),
        ({"low_res": Plain(), "low_size": 8}, "low-res-size-unfit"),
        ({"low_res": Plain(), "low_size": 4, "max_level": 2.0}, "number-out-of-range: max_level"),
        ({"conditioner": ClassLabel(names=["food"])}, "labels-unstated"),
        ({"conditioner": ClassLabel(names=["food"]), "labels": "group", "net": Net(classes=1)}, "label-unknown"),
        ({"labels": "group", "net": Net(classes=3, null_class=False)}, "null-class-unfit"),
        (
            {"low_res": GaussianAugmentation(schedule=CosineSchedule()), "low_size": 4, "net": Deaf(channels=6)},
            "level-missing",
        ),
        ({"low_res": Plain(), "low_size": 4}, "channels-unfit: in_channels"),
        ({"sheet_prompts": ["red apple"]}, "prompts-unread"),
        ({"condition_dropout": 1.5}, "number-out-of-range: condition_dropout"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(arguments, refusal):
    with refused(refusal, ConfigError):
        objective(**arguments)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_networks_compute_in_the_precision_that_was_requested(precision):
    """On a CPU too. What the loss shows of it is little: a last layer that begins at zero gives equal first losses."""
    made = objective(precision=precision)
    seen = []
    made.network.network.conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    made.loss(made.network, batch())["loss"].backward()
    assert seen == [precision]
    assert all(p.dtype == torch.float32 for p in made.network.parameters())
