"""A few pictures and the smallest networks, for objectives."""

import numpy as np
import torch
from torch import nn

from zoo.training.engine.objective import Batch


class Pictures:
    """A dataset of random pictures with captions and a class each."""

    augments, skipped, split = False, (), None

    def __init__(self, count=12, size=8, seed=0):
        self.size = size
        self.rows = [
            {"file_name": f"{i}.png", "text": f"red apple {i}", "group": ("food", "animal", "sun")[i % 3]}
            for i in range(count)
        ]
        self.arrays = np.random.default_rng(seed).integers(0, 256, (count, 3, size, size), dtype=np.uint8)

    def __len__(self):
        return len(self.rows)

    def images(self, progress=None):
        return self.arrays.copy()

    def image(self, index):
        return self.arrays[index]

    def augmented(self, index, draw):
        return self.arrays[index] if draw.random() < 0.5 else self.arrays[index, :, :, ::-1].copy()

    def fingerprint(self):
        return "toy"


class Net(nn.Module):
    """A convolution that is told time, class and level, and remembers what it was told."""

    reads = ("label", "level")
    size_multiple = 1

    def __init__(self, channels=3, out_channels=3, classes=None, null_class=True):
        super().__init__()
        torch.manual_seed(0)
        self.in_channels, self.out_channels, self.classes = channels, out_channels, classes
        self.conv = nn.Conv2d(channels, out_channels, 3, padding=1)
        self.label_emb = nn.Embedding((classes or 1) + null_class, out_channels)
        self.asked = []

    def forward(self, x, time, label=None, level=None):
        self.asked.append({"x": x, "time": time, "label": label, "level": level})
        out = self.conv(x) + 0.1 * torch.tanh(time / 1000).view(-1, 1, 1, 1)
        return out if label is None else out + self.label_emb(label)[:, :, None, None]


def batch(count=6, *, training=True, step=0, seed=3):
    return Batch(
        rows=np.arange(count), samples=np.arange(step * count, (step + 1) * count), seed=seed, training=training
    )


def share(whole, places):
    """Some places of a batch, as one of several processes takes it."""
    return Batch(
        rows=whole.rows[places], samples=whole.samples[places], seed=whole.seed, training=whole.training,
        places=whole.places[places], of=whole.of,
    )  # fmt: skip
