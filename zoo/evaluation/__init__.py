"""Images -> features in shards -> numbers that say what they are comparable with.

    found = evaluate("drawn/", "real.zip", metrics=["fd", "prdc"])    # all of it at once; as `zoo evaluate` does

    images = FolderPictures("drawn")                                  # or Array-, Dataset-, DrawnPictures
    extractor = build_extractor("inception-2015")                     # or random, timm, openclip
    features = extract(images, extractor, layers=layers_of(["fid", "is"]), folder="features/drawn")
    for found in measure(["fid", "is"], features, reference):
        print(found.key, found.value)

Names are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FACE = {
    "evaluate": "zoo.evaluation.comparison", "Evaluation": "zoo.evaluation.comparison",
    "Value": "zoo.evaluation.comparison", "read_statistics": "zoo.evaluation.extractors.statistics_file",
    "save_statistics": "zoo.evaluation.extractors.statistics_file", "ArrayPictures": "zoo.data.image_sets",
    "DatasetPictures": "zoo.data.image_sets", "DrawnPictures": "zoo.data.image_sets",
    "FolderPictures": "zoo.data.image_sets", "Features": "zoo.evaluation.extractors.features",
    "extract": "zoo.evaluation.extractors.features", "fill": "zoo.evaluation.extractors.features",
    "Measurement": "zoo.evaluation.measurement", "layers_of": "zoo.evaluation.measurement",
    "measure": "zoo.evaluation.measurement", "with_texts": "zoo.evaluation.measurement",
    "Moments": "zoo.evaluation.extractors.moments", "Named": "zoo.evaluation.extractors.extractor",
    "Unavailable": "zoo.evaluation.extractors.weight_file", "frechet_distance": "zoo.evaluation.metrics.frechet",
    "psnr": "zoo.evaluation.metrics.reconstruction", "ssim": "zoo.evaluation.metrics.reconstruction",
}  # fmt: skip


def __dir__() -> list[str]:
    return sorted([*_FACE, "build_extractor"])


def build_extractor(name: str, **arguments: Any) -> Any:
    """A registered extractor, built with its own arguments; one that needs missing weights raises Unavailable."""
    from zoo.schema.registry import registry

    return registry().load("extractor", name)(**arguments)


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'zoo.evaluation' has no attribute '{name}'")
    return getattr(import_module(_FACE[name]), name)
