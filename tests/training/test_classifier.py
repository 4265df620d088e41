"""A classifier of noised pictures is trained on what the denoiser sees."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tests.refusals import refused
from tests.training.toy import Pictures, batch
from zoo.data.pixels import from_uint8
from zoo.diffusion.denoiser import Denoiser
from zoo.diffusion.parameterization import X0
from zoo.diffusion.schedules import CosineSchedule
from zoo.schema.errors import ConfigError
from zoo.training.objectives.classifier import Classifier


class Net(nn.Module):
    """Logits from the picture's mean and the time."""

    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.classes = classes
        self.read = nn.Linear(3 * 64 + 1, classes)

    def forward(self, x, time):
        return self.read(torch.cat([x.flatten(1), time[:, None] / 1000], dim=1))


def objective(net=None, **arguments):
    network = Denoiser(network=net or Net(), schedule=CosineSchedule(), parameterization=X0())
    return Classifier(
        network=network, train=Pictures(), validation=Pictures(count=6, seed=9), cache=None,  # type: ignore[arg-type]
        **{"labels": "group", **arguments},
    )  # fmt: skip


def test_loss_is_cross_entropy_of_the_class_given_x_t():
    made, whole = objective(), batch()
    x0 = from_uint8(torch.from_numpy(made.samples.train.arrays[whole.rows]))
    t, _ = made.times(whole)
    alpha, sigma = (torch.from_numpy(a).float().view(-1, 1, 1, 1) for a in CosineSchedule()(t))
    logits = made.network.network(
        alpha * x0 + sigma * whole.noise((3, 8, 8), "eps"), torch.tensor(t * 1000 - 1).float()
    )
    expected = F.cross_entropy(logits, torch.tensor([1, 0, 2, 1, 0, 2]))
    assert float(made.loss(made.network, whole)["loss"].detach()) == pytest.approx(float(expected.detach()), rel=1e-4)


@pytest.mark.slow
def test_validation_tells_how_often_the_class_is_found_at_each_noise_level():
    made = objective()
    optimizer = torch.optim.Adam(made.network.parameters(), lr=1e-2)
    made.samples.validation = made.samples.kept[:6]  # to be seen that it learned
    for step in range(60):
        optimizer.zero_grad()
        made.loss(made.network, batch(12, step=step))["loss"].backward()
        optimizer.step()
    with torch.no_grad():
        found = made.loss(made.network, batch(6, training=False))
    bands = [float(found[f"top1_{t:g}"]) for t in (0.125, 0.375, 0.625, 0.875)]
    assert bands[0] == 1.0
    assert bands[-1] < 1.0
    assert float(found["top1"]) == pytest.approx(sum(bands) / 4)


def test_export_is_the_classifier_alone_with_its_classes():
    made = objective()
    tensors, facts = made.export(made.network)
    assert set(tensors) == {"read.weight", "read.bias"}
    assert facts["contract"] == {"in_channels": 3, "size": 8, "classes": 3, "names": ["animal", "food", "sun"]}
    assert made.sheet(made.network) is None


def test_a_wrong_number_of_classes_or_column_is_refused():
    with refused("classes-unfit"):
        objective(Net(classes=4))
    with refused("metadata-key-missing", ConfigError, naming="'kind'"):
        objective(labels="kind")
