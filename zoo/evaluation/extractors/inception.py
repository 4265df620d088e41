"""The extractor that FID is defined by: the 2015 Inception with its published weights and one of two resizings."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal

import torch
from torch import Tensor, nn

from zoo.checkpoints.files import load_strict
from zoo.evaluation.extractors.extractor import MAIN, check_pictures
from zoo.evaluation.extractors.inception_folded import FoldedInception
from zoo.evaluation.extractors.inception_network import LAYERS, SIZE, InceptionNetwork
from zoo.evaluation.extractors.resize import resize_clean, resize_tf1
from zoo.evaluation.extractors.weight_file import PublishedFile, hash_of
from zoo.schema.errors import UsageError
from zoo.schema.ranges import one_of, seeded

WEIGHTS = PublishedFile(
    purpose="the 2015 Inception (FID, sFID, KID, inception score)",
    names=("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth"),
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    bytes=95_628_359,
    variable="ZOO_INCEPTION_2015",
)
NAME = "inception-2015"
CPU_BATCH = 8  # more at once would leave the caches, and is slower


class Inception2015(nn.Module):
    """The Inception network of 2015-12-05: the extractor of FID, sFID, KID and the inception score.

    Args:
        weights: path of the published file; else $ZOO_INCEPTION_2015, or a cache. Its hash is checked before it is
            opened.
        resize: `tf1` as the first FID was computed, or `clean` (Parmar et al. 2022); numbers differ.
        precision: of the convolutions; bfloat16 shifts numbers and is in the name.
        seed: random weights of this seed instead, for tests and for speed; then no value is called FID.
    """

    papers = ("1512.00567 Rethinking the Inception Architecture for Computer Vision",)
    fits = "zoo.schema.ranges:seeded"
    default = True
    serves = ("inception-2015",)
    saved = ("pool", "spatial")

    def __init__(
        self, *, weights: str | None = None, resize: Literal["tf1", "clean"] = "tf1",
        precision: Literal["float32", "bfloat16"] = "float32", seed: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__()
        one_of("resize", resize, ("tf1", "clean"))
        one_of("precision", precision, ("float32", "bfloat16"))
        seeded(seed)
        self.resize = resize
        if seed is not None:
            self.network = InceptionNetwork().randomise(seed)
            self.sha256 = hash_of(self.network)
        else:
            tensors = WEIGHTS.read(weights)
            with torch.device("meta"):
                self.network = InceptionNetwork()
            # A batch norm's count of batches is in files of some versions of torch, and is no weight.
            kept = {n: t for n, t in tensors.items() if not n.endswith("num_batches_tracked")}
            load_strict(self.network, kept, what="the weights of the 2015 Inception")
            self.network.requires_grad_(False)
            self.sha256 = WEIGHTS.sha256
        self.dtype = getattr(torch, precision)
        self._folded: tuple[object, FoldedInception] | None = None
        self.published = seed is None and precision == "float32"
        parts = ("" if seed is None else f"random-{seed}", "" if precision == "float32" else "bf16", resize)
        self.name = "-".join([NAME, *(p for p in parts if p and p != "tf1")])

    @torch.inference_mode()
    def features(self, pictures: Tensor, layers: Collection[str] = (MAIN,), *, batch: int = 64) -> dict[str, Tensor]:
        """uint8 (N, 3, H, W) -> `pool` (N, 2048), `logits` (N, 1008), `spatial` (N, 2023), those requested."""
        check_pictures(pictures)
        unknown = sorted(set(layers) - set(LAYERS))
        if unknown or not layers:
            raise UsageError(
                f"inception-2015 has no layer '{(unknown or ['(none)'])[0]}'; ask for {', '.join(LAYERS)}",
                code="layer-unknown",
            )
        device, network = self.network.fc.weight.device, self._network()
        parts = []
        for part in pictures.split(min(batch, CPU_BATCH) if device.type == "cpu" else batch):
            x = resize_clean(part, SIZE) if self.resize == "clean" else resize_tf1(part.to(device), SIZE)
            parts.append(network((x.to(device) - 128.0) / 128.0, layers))
        return {layer: torch.cat([p[layer] for p in parts]) for layer in layers}

    def images(self, pictures: Tensor, *, batch: int = 64) -> Tensor:
        """uint8 (N, 3, H, W) -> pool features (N, 2048)."""
        return self.features(pictures, (MAIN,), batch=batch)[MAIN]

    def _network(self) -> FoldedInception:
        # Folded at the first images, and again where its weights were moved or written to since.
        tensors = [*self.network.parameters(), *self.network.buffers()]
        now = [(t.device, t.data_ptr(), 0 if t.is_inference() else t._version) for t in tensors]
        if self._folded is None or self._folded[0] != now:
            self._folded = now, FoldedInception(self.network, self.dtype)
        return self._folded[1]
