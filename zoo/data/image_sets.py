"""Where images to be measured come from: an array, a folder or zip, a dataset, or a function that draws them.

Every source returns uint8 RGB images by sample id, the same each time. What would change numbers silently is
refused (alpha, animation, 16 bits) or counted in `notes` (grey made RGB, JPEG).
"""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import IO, Any, Protocol

import numpy as np
import torch
from PIL import Image
from PIL.ImageFile import ImageFile
from torch import Tensor

from zoo.data.pixels import to_uint8
from zoo.images.decode import FORMATS, TRANSPARENT, open_picture, read_file, to_array, to_square
from zoo.images.zips import open_zip, read_member
from zoo.schema.advice import option
from zoo.schema.errors import UsageError
from zoo.schema.ranges import one_of

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".gif")
LEFT_OUT = "left out: hidden files, and what a system or an editor keeps beside images"


class Pictures(Protocol):
    """uint8 images (3, H, W) by sample id; they may differ in size."""

    name: str
    notes: Counter[str]  # conversions of images, and how often; filled as they are read

    def __len__(self) -> int: ...
    def fingerprint(self) -> str:
        """A hash that changes with the images: features kept on disk belong to one."""
        ...

    def __call__(self, ids: Sequence[int]) -> list[Tensor]: ...


class ArrayPictures:
    """Images in memory: uint8 (N, 3, H, W)."""

    def __init__(self, images: Tensor | np.ndarray, *, name: str = "array") -> None:
        x = images if isinstance(images, Tensor) else torch.from_numpy(np.ascontiguousarray(images))
        if x.dtype != torch.uint8 or x.ndim != 4 or x.shape[1] != 3:
            raise UsageError(
                f"pictures are uint8 (N, 3, H, W), not {x.dtype} {tuple(x.shape)}; convert them first",
                code="image-shape-wrong",
            )
        self.images, self.name = x.cpu(), name
        self.notes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.images)

    def fingerprint(self) -> str:
        """A hash of the pixels."""
        return hashlib.sha256(self.images.contiguous().numpy().tobytes()).hexdigest()

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        return list(self.images[list(ids)])


class FolderPictures:
    """The images of a folder or a zip, below it at any depth, in the order of their names.

    Args:
        background: `white` puts transparent images on white; without it they are refused.
        size: pixels a side that images are made, as training data are (square centre, averaged down); else they are
            as large as they are, and counted by size.
        files: only these, in this order.
    """

    def __init__(
        self, path: str | Path, *, background: str | None = None, size: int | None = None,
        files: Sequence[str] | None = None, name: str | None = None,
    ) -> None:  # fmt: skip
        one_of("background", background, (None, "white"))
        if size is not None and size < 1:
            raise UsageError(
                f"size is {size}; give pixels a side, 1 or more, or none to take pictures as they are",
                code="size-invalid",
            )
        self.root, self.name, self.background, self.size = Path(path), name or str(path), background, size
        self.notes: Counter[str] = Counter()
        self.left_out: dict[str, int] = {}  # why files of the folder are no samples, and how many
        if self.root.is_dir():
            self._zip = None
            there = {name: (self.root / name).stat() for name in names_below(self.root)}
            found = {name: (s.st_size, s.st_mtime_ns) for name, s in there.items()}
        elif self.root.is_file():
            self._zip = open_zip(self.root)
            listed = [i for i in self._zip.infolist() if not i.is_dir() and not stat.S_ISLNK(i.external_attr >> 16)]
            found = {i.filename: (i.file_size, i.CRC) for i in listed}
        else:
            raise UsageError(f"there is no folder or zip '{path}'; give one that holds pictures", code="data-missing")
        if files is None:
            named = sorted(name for name in found if name.lower().endswith(SUFFIXES))
            self.files = [name for name in named if not hidden(name)]
            if len(self.files) < len(named):
                self.left_out[LEFT_OUT] = len(named) - len(self.files)
        else:
            self.files = _once(files, found, str(path))
        if not self.files:
            raise UsageError(
                f"'{path}' holds no pictures ({', '.join(SUFFIXES)}); give a folder or zip that does", code="data-empty"
            )
        self._marks = [(name, *found[name]) for name in self.files]

    def __len__(self) -> int:
        return len(self.files)

    def fingerprint(self) -> str:
        """A hash of names, sizes and times (of a zip: checksums)."""
        return hashlib.sha256(repr((self._marks, self.background, self.size)).encode()).hexdigest()

    def look(self, ids: Iterable[int] | None = None) -> None:
        """Refuse, by the files' heads, what would be refused once it is read: before anything slow is done for it."""
        noted = Counter(self.notes)  # what is read here is read again, and counted then
        for i in range(len(self.files)) if ids is None else ids:
            if not self._plain(self.files[i]):
                self([i])
        self.notes.clear()
        self.notes.update(noted)

    def _plain(self, name: str) -> bool:
        """Whether a file's head is that of an image that is taken as it is."""
        try:
            with warnings.catch_warnings(), self._open(name) as file:
                warnings.simplefilter("ignore")  # of its size, which is checked where it is read
                with Image.open(file, formats=FORMATS) as picture:
                    alpha = picture.mode in TRANSPARENT or "transparency" in picture.info
                    deep = picture.mode.startswith(("I", "F")) or _deep(picture)
                    return not (deep or (alpha and self.background is None) or getattr(picture, "is_animated", False))
        except Exception:  # whatever it is, reading the whole file says it
            return False

    def _open(self, name: str) -> IO[bytes]:
        return open(self.root / name, "rb") if self._zip is None else self._zip.open(name)

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        return [self._picture(self.files[i]) for i in ids]

    def _picture(self, name: str) -> Tensor:
        if self._zip is not None:
            data = read_member(self._zip, name, where=self.name)
        else:
            data = read_file(self.root / name, what="picture")
        picture = open_picture(data, name=name, where=self.name, deep="keep")
        self._refuse(picture, name, data)
        if picture.mode in ("L", "1"):
            self.notes["grey, made RGB"] += 1
        elif picture.mode not in ("RGB", "RGBA", "LA", "P", "PA"):
            self.notes[f"{picture.mode}, made RGB"] += 1
        if data[:3] == b"\xff\xd8\xff":
            self.notes["JPEG, which scores otherwise than PNG"] += 1
        if picture.mode in TRANSPARENT or "transparency" in picture.info:
            picture = picture.convert("RGBA")
            picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
        picture = picture.convert("RGB")
        return torch.from_numpy(to_array(picture) if self.size is None else to_square(picture, self.size))

    def _refuse(self, picture: Image.Image, name: str, data: bytes) -> None:
        alpha = picture.mode in TRANSPARENT or "transparency" in picture.info
        if alpha and self.background is None:
            raise UsageError(
                f"'{name}' in '{self.name}' is transparent; say {option('background', 'white')}, or convert it to RGB",
                code="image-format-unread",
            )
        if alpha:
            self.notes["transparent, put on white"] += 1
        import io

        # Checked first: PIL forgets the frames of an image turned upright, and the 16 bits of a colour image once read.
        with Image.open(io.BytesIO(data)) as again:
            if picture.mode in ("I", "F") or picture.mode.startswith("I;16") or _deep(again):
                raise UsageError(
                    f"'{name}' in '{self.name}' has more than 8 bits a channel; convert it to 8-bit RGB",
                    code="image-depth-unread",
                )
            if getattr(again, "n_frames", 1) > 1:
                raise UsageError(
                    f"'{name}' in '{self.name}' is animated; keep one frame of it", code="image-format-unread"
                )


def _deep(picture: ImageFile) -> bool:
    """Whether an opened and unread image has more than 8 bits a channel, by its decoder's arguments."""
    told: list[tuple[str, Any]] = [(tile[0], tile[3]) for tile in picture.tile]
    told = [(codec, args if isinstance(args, tuple) else (args,)) for codec, args in told]
    largest = [a for codec, args in told if codec == "ppm" for a in args]
    return any(";16" in str(args) for _, args in told) or any(isinstance(a, int) and a > 255 for a in largest)


def _once(files: Sequence[str], found: Collection[str], where: str) -> list[str]:
    """The requested files, each of them there and named once: an image counted twice changes the number."""
    seen: set[str] = set()
    for name in files:
        if name not in found:
            raise UsageError(f"'{where}' has no file '{name}'", code="file-missing")
        if name in seen:
            raise UsageError(
                f"'{where}' lists '{name}' twice; it would count twice, so take one out", code="file-names-repeated"
            )
        seen.add(name)
    return list(files)


def hidden(name: str) -> bool:
    """Whether a system or an editor left this: `._a.png`, `__MACOSX/...`, `.ipynb_checkpoints/...`, `.cache/...`."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def names_below(root: Path) -> list[str]:
    """The regular files below a folder, those of linked folders too; a link that leads back is followed once."""
    found, seen = [], set()
    for place, folders, names in os.walk(root, followlinks=True):
        about = os.stat(place)
        if (about.st_dev, about.st_ino) in seen:
            folders.clear()
            continue
        seen.add((about.st_dev, about.st_ino))
        below = Path(place).relative_to(root)
        found += [(below / name).as_posix() for name in names if (Path(place) / name).is_file()]
    return found


class SomePictures:
    """Some images of a set, by place."""

    def __init__(self, pictures: Pictures, places: Sequence[int]) -> None:
        self.pictures, self.places = pictures, [int(i) for i in places]
        self.name, self.notes = pictures.name, pictures.notes

    def __len__(self) -> int:
        return len(self.places)

    def fingerprint(self) -> str:
        """A hash of the set and the places."""
        return hashlib.sha256(repr((self.pictures.fingerprint(), self.places)).encode()).hexdigest()

    def look(self) -> None:
        """See `FolderPictures.look`."""
        if isinstance(self.pictures, FolderPictures):
            self.pictures.look(self.places)

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        return self.pictures([self.places[i] for i in ids])


class RepeatedPictures:
    """A set's images in an order, round and round: sample i is that of `order[i mod len(order)]`."""

    def __init__(self, pictures: Pictures, order: Sequence[int], count: int) -> None:
        self.pictures, self.order, self.count = pictures, [int(i) for i in order], count
        self.name, self.notes = pictures.name, pictures.notes

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """A hash of the set and the order; a longer run begins with the same images."""
        return hashlib.sha256(repr((self.pictures.fingerprint(), self.order)).encode()).hexdigest()

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        return self.pictures([self.order[i % len(self.order)] for i in ids])


class DatasetPictures:
    """The images of a registered dataset, some of its rows."""

    def __init__(self, dataset: Any, *, rows: Sequence[int] | None = None, name: str = "dataset") -> None:
        self.dataset, self.name = dataset, name
        self.rows = range(len(dataset)) if rows is None else rows
        self.notes: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self.rows)

    def fingerprint(self) -> str:
        """A hash of the rows' files and their size in pixels."""
        said = [(i, self.dataset.rows[i].get("file_name")) for i in self.rows]
        return hashlib.sha256(repr((self.dataset.size, said)).encode()).hexdigest()

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        return [torch.from_numpy(self.dataset.image(self.rows[i])) for i in ids]


class DrawnPictures:
    """Images drawn on request; none is kept.

    Args:
        draw: sample ids -> float (n, 3, H, W) in [0, 1], or uint8; a sample's image must depend on its id alone.
        mark: all that decides the images (config, weights, seed): another one is another set.
    """

    def __init__(self, draw: Callable[[Sequence[int]], Tensor], *, count: int, mark: str, name: str = "drawn") -> None:
        self.draw, self.count, self.mark, self.name = draw, count, mark, name
        self.notes: Counter[str] = Counter()

    def __len__(self) -> int:
        return self.count

    def fingerprint(self) -> str:
        """A hash of the mark; a longer run of the same images continues a shorter one."""
        return hashlib.sha256(self.mark.encode()).hexdigest()

    def __call__(self, ids: Sequence[int]) -> list[Tensor]:
        drawn = self.draw(ids)
        if len(drawn) != len(ids):
            raise UsageError(
                f"'{self.name}' drew {len(drawn)} pictures where {len(ids)} were asked for", code="images-miscounted"
            )
        return list(drawn if drawn.dtype == torch.uint8 else to_uint8(drawn * 2.0 - 1.0))
