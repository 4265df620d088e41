"""What the server of `tests/processes.py` imports, once, so that its processes need not: the rest of what they run."""

from __future__ import annotations

import pytest  # noqa: F401
import scipy.linalg  # noqa: F401
import torch._dynamo
import torch.distributed.fsdp
import torch.distributed.tensor
import torch.utils._sympy.reference
import torch.utils.tensorboard  # noqa: F401
import yaml  # noqa: F401
from PIL import Image

import tests.tiny
import tests.torture  # noqa: F401
import zoo.cli.train
import zoo.data.image_folder
import zoo.evaluation.extractors.random_network
import zoo.training.objectives.autoencoder
import zoo.training.run  # noqa: F401

Image.init()  # the readers of its formats
