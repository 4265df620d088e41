"""A folder or zip as WebDataset shards: the same images, byte for byte, and each row as a .json."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from zoo.data.image_folder import FolderSource
from zoo.data.web_dataset import PICTURES
from zoo.schema.errors import UsageError
from zoo.schema.files import atomic
from zoo.schema.places import check_place


def pack(path: str, out: Path, *, rows: int = 5000, progress: Callable[[int, int], None] | None = None) -> list[Path]:
    """Write `out`/000000.tar and on, `rows` samples each; the same data gives the same bytes. Returns the shards."""
    if out.exists() and any(out.iterdir()):
        raise UsageError(f"'{out}' is not empty; give a new folder", code="output-taken")
    check_place(out / "000000.tar", out)
    source = FolderSource(path)
    if source.broken:
        raise UsageError(source.broken[0].sentence, code="data-row-broken")
    if not source.rows:
        raise UsageError(f"'{path}' has no rows to pack; give data with some", code="data-empty")
    out.mkdir(parents=True, exist_ok=True)
    shards = []
    for first in range(0, len(source.rows), rows):
        shard = out / f"{first // rows:06d}.tar"
        with atomic(shard) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as archive:
            for index in range(first, min(first + rows, len(source.rows))):
                row = source.rows[index]
                extension = PurePosixPath(row["file_name"]).suffix.lower().lstrip(".")
                if extension not in PICTURES:
                    raise UsageError(
                        f"'{row['file_name']}' in '{path}' is none of {', '.join(PICTURES)}; convert it",
                        code="image-format-unread",
                    )
                said = {k: v for k, v in row.items() if k != "file_name"}
                for suffix, data in (
                    (extension, source.read(index)),
                    ("json", json.dumps(said, ensure_ascii=False).encode()),
                ):
                    member = tarfile.TarInfo(f"{index:08d}.{suffix}")
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
                if progress is not None:
                    progress(index + 1, len(source.rows))
        shards.append(shard)
    return shards
