"""Pictures -> features in shards -> numbers that say what they are comparable with.

    found = evaluate("drawn/", "real.zip", metrics=["fd", "prdc"])    # all of it at once; as `zoo evaluate` does

    pictures = FolderPictures("drawn")                                # or Array-, Dataset-, DrawnPictures
    extractor = build_extractor("inception-2015")                     # or random, timm, openclip
    features = extract(pictures, extractor, layers=layers_of(["fid", "is"]), folder="features/drawn")
    for found in measure(["fid", "is"], features, reference):
        print(found.key, found.value)

Names are imported when they are used.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_FACE = {
    "evaluate": "comparison", "Evaluation": "comparison", "Value": "comparison",
    "read_statistics": "statistics_file", "save_statistics": "statistics_file",
    "ArrayPictures": "pictures", "DatasetPictures": "pictures", "DrawnPictures": "pictures",
    "FolderPictures": "pictures",
    "Features": "features", "extract": "features", "fill": "features",
    "Measurement": "measurement", "layers_of": "measurement", "measure": "measurement", "with_texts": "measurement",
    "Moments": "moments", "Named": "extractor", "Unavailable": "weight_file",
    "frechet_distance": "frechet", "psnr": "reconstruction", "ssim": "reconstruction",
}  # fmt: skip


def __dir__() -> list[str]:
    return sorted([*_FACE, "build_extractor"])


def build_extractor(name: str, **arguments: Any) -> Any:
    """A registered extractor, built with its own arguments; one that needs missing weights raises Unavailable."""
    from zoo.registry import registry

    return registry().load("extractor", name)(**arguments)


def __getattr__(name: str) -> Any:
    if name not in _FACE:
        raise AttributeError(f"module 'zoo.evaluation' has no attribute '{name}'")
    return getattr(import_module(f"zoo.evaluation.{_FACE[name]}"), name)
