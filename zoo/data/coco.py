"""COCO as it is published: pictures in folders, captions in `annotations/captions_*.json` (Lin et al. 2014).

    COCO/annotations/captions_val2014.json
    COCO/val2014/COCO_val2014_000000000042.jpg

Each picture is a row with its first caption, in the order of the file; the pictures of `val` are the split `test`,
which papers draw captions from and compare with, those of `train` are `train`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from zoo.schema.errors import UsageError

_SPLITS = {"val": "test", "train": "train"}
LARGEST = 2**30  # bytes of a file of captions; that of 2014's training pictures has 0.07 GB


def caption_files(root: Path) -> list[Path]:
    """The files of captions of a folder; none where it isn't COCO's."""
    return sorted(root.glob("annotations/captions_*.json"))


def rows(root: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each picture's number and row; UsageError for captions of another form."""
    for path in caption_files(root):
        folder = path.stem.removeprefix("captions_")
        try:
            if path.stat().st_size > LARGEST:
                raise ValueError(f"more than {LARGEST} bytes")
            held = json.loads(path.read_text(encoding="utf-8"))
            names = {image["id"]: image["file_name"] for image in held["images"]}
            captions: dict[Any, tuple[Any, str]] = {}
            for entry in held["annotations"]:
                said = (entry["id"], entry["caption"])
                captions[entry["image_id"]] = min(captions.get(entry["image_id"], said), said)
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise UsageError(
                f"'{path}' holds no captions of COCO's form ({type(error).__name__}: {str(error)[:80]}); get it again",
                code="metadata-unreadable",
            ) from error
        split = next((name for start, name in _SPLITS.items() if folder.startswith(start)), folder)
        for number, (image, name) in enumerate(names.items(), 1):
            if image in captions:
                text = captions[image][1]
                yield number, {"file_name": f"{folder}/{name}", "text": str(text).strip(), "split": split}
