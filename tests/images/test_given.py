"""Images and masks as people and programs hand them over: read right, or refused by a typed sentence."""

from __future__ import annotations

import io
import os
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from tests.refusals import refused
from zoo.images.decode import check_chunks, open_picture
from zoo.images.inputs import read_image, read_mask
from zoo.schema.errors import UsageError

SIZE = (64, 64)


def base() -> Image.Image:
    """Red, green / blue, grey."""
    a = np.zeros((64, 64, 3), np.uint8)
    a[:32, :32], a[:32, 32:], a[32:, :32], a[32:, 32:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
    return Image.fromarray(a)


def quarters(images: torch.Tensor) -> list[tuple[float, ...]]:
    x = images[0] * 0.5 + 0.5
    return [
        tuple(round(float(c), 1) for c in x[:, i : i + 32, j : j + 32].mean((1, 2))) for i in (0, 32) for j in (0, 32)
    ]


RIGHT = quarters(read_image(base(), size=SIZE, count=1))


def read(source):
    return quarters(read_image(source, size=SIZE, count=1))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("how", ["path", "open image"])
def test_images_are_read_upright(orientation, how, tmp_path):
    turned = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
              5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
              8: Image.Transpose.ROTATE_270}  # fmt: skip
    image = base().transpose(turned[orientation]) if orientation > 1 else base()
    exif = Image.Exif()
    exif[0x112] = orientation
    path = tmp_path / "a.png"
    image.save(path, exif=exif)
    assert read(path if how == "path" else Image.open(path)) == RIGHT


def deep(kind: str) -> Image.Image:
    ramp = np.zeros((64, 64), np.float64)
    ramp[:32, 32:], ramp[32:, :32], ramp[32:, 32:] = 0.25, 0.5, 1.0
    if kind == "I;16":
        return Image.fromarray(np.round(ramp * 65535).astype(np.uint16))
    return Image.fromarray(np.round(ramp * 65535).astype(np.int32) if kind == "I" else ramp.astype(np.float32))


@pytest.mark.parametrize("kind", ["I;16", "I", "F"])
@pytest.mark.parametrize("how", ["path", "open image"])
def test_more_than_eight_bits_are_scaled_by_their_range(kind, how, tmp_path):
    path = tmp_path / ("a.png" if kind == "I;16" else "a.tif")
    deep(kind).save(path)
    found = [q[0] for q in read(path if how == "path" else deep(kind))]
    assert found == [0.0, 0.3, 0.5, 1.0] or found == [0.0, 0.2, 0.5, 1.0]
    mask = read_mask(path if how == "path" else deep(kind), size=SIZE)[0, 0]
    assert [float(mask[i : i + 32, j : j + 32].mean()) for i in (0, 32) for j in (0, 32)] == [0.0, 0.0, 1.0, 1.0]


def test_numbers_of_an_unknown_range_are_refused(tmp_path):
    with refused("image-values-wrong", naming="70000"):
        read(Image.fromarray(np.array([[0, 70000]], np.int32)))
    with refused("image-values-wrong", naming="255"):
        read(Image.fromarray(np.array([[0, 255]], np.float32)))


def png_of_16_bits(value: int, colours: int = 3) -> bytes:
    """Pillow writes no colours of 16 bits."""
    kind = {2: 4, 3: 2, 4: 6}[colours]
    rows = b"".join(b"\0" + struct.pack(">H", value) * colours * 8 for _ in range(8))
    header = struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0)
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows))
            + chunk(b"IEND", b""))  # fmt: skip


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    "given",
    [
        lambda: Image.fromarray(np.array([[0, 255]], np.int32)), lambda: np.array([[0, 200], [1, 2]], np.uint16),
        lambda: Image.fromarray(np.array([[0, 1]], np.uint16)),
        lambda: saved(Image.fromarray(np.array([[0, 255]], np.uint16))), lambda: png_of_16_bits(255),
        lambda: png_of_16_bits(3, 2), lambda: png_of_16_bits(200, 4),
        lambda: saved(Image.fromarray(np.array([[0, 255]], np.int32)), "TIFF"),
    ],
)  # fmt: skip
def test_eight_bits_kept_in_sixteen_are_refused_and_not_read_as_black(read, given):
    words = {"count": 1} if read is read_image else {}
    with refused("image-depth-unread"):
        read(given(), size=(8, 8), **words)


def test_black_in_sixteen_bits_is_black_and_colours_are_scaled():
    assert float(read_image(Image.fromarray(np.zeros((8, 8), np.uint16)), size=(8, 8), count=1).max()) == -1.0
    found = read_image(png_of_16_bits(32896), size=(8, 8), count=1)
    assert found[0, :, 0, 0].tolist() == pytest.approx([128 / 127.5 - 1] * 3, abs=1e-6)


class Whole:
    """Gives all there is, and knows no other way."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        return self.data


def test_a_file_that_knows_only_to_be_read_whole_is_read():
    assert read(Whole(saved(base()))) == RIGHT
    with refused("file-too-large", UsageError):
        read(Whole(bytes(64 * 2**20 + 1)))


class Large(Image.Image):
    """Says a size, and holds no pixels."""

    def __init__(self) -> None:
        super().__init__()
        self._size, self._mode = (20000, 20000), "RGB"

    def load(self):
        raise AssertionError("pixels of an image over the limit were made")


@pytest.mark.parametrize("read", [read_image, read_mask])
def test_open_images_and_arrays_over_the_limit_are_refused_before_their_pixels_are_made(read):
    words = {"count": 1} if read is read_image else {}
    for given in (Large(), np.broadcast_to(np.zeros((), np.uint8), (20000, 20000, 3))):
        with refused("image-too-large", naming="64000000"):
            read(given, size=SIZE, **words)


def test_a_large_image_in_next_to_no_bytes_is_refused_before_its_pixels_are_made(monkeypatch):
    packed = saved(Image.new("L", (7000, 7000)), "PNG")
    assert len(packed) < 100_000

    def made(*_, **__):
        raise AssertionError("pixels of a bomb were made")

    monkeypatch.setattr(Image.Image, "load", made)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", made)
    with refused("image-too-large", naming="7000x7000"):
        read(packed)


def test_a_flat_image_of_a_common_size_is_read_however_tightly_it_is_packed():
    assert read_image(saved(Image.new("RGB", (3840, 2160), "white")), size=(8, 8), count=1).min() == 1.0


def test_an_open_image_that_another_program_would_draw_is_refused():
    with refused("image-format-unread"):
        read(Image.open(io.BytesIO(EPS)))


def saved(image: Image.Image, kind: str = "PNG", **words) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **words)
    return file.getvalue()


@pytest.mark.parametrize(
    "given",
    [
        lambda: saved(base()), lambda: bytearray(saved(base())), lambda: io.BytesIO(saved(base())),
        lambda: np.asarray(base()), lambda: np.asarray(base()) / 255.0,
        lambda: np.asarray(base()).astype(np.uint16) * 257, lambda: np.asarray(base().convert("RGBA")),
        lambda: torch.from_numpy(np.asarray(base()).transpose(2, 0, 1).copy()),
        lambda: torch.from_numpy(np.asarray(base()).transpose(2, 0, 1) / 255.0).requires_grad_(),
        lambda: saved(base().convert("CMYK"), "JPEG", quality=100), lambda: saved(base().convert("P")),
        lambda: [base()], lambda: base().convert("HSV"),
    ],
)  # fmt: skip
def test_what_python_callers_have_is_read(given):
    assert read(given()) == RIGHT


def test_a_list_is_one_image_a_prompt():
    dark, light = Image.new("RGB", (8, 8), "black"), Image.new("RGB", (8, 8), "white")
    found = read_image([dark, light], size=(8, 8), count=4, each=2)
    assert found[:, 0, 0, 0].tolist() == [-1.0, -1.0, 1.0, 1.0]
    assert read_image([dark], size=(8, 8), count=3).shape == (3, 3, 8, 8)
    with refused("counts-differ", naming="3 images for 2 prompts"):
        read_image([dark, light, dark], size=(8, 8), count=4, each=2)
    with refused("image-missing"):
        read_image([], size=(8, 8), count=1)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bomb(side: int) -> bytes:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\nshowpage\n"


UNFIT = (
    "file-missing|file-not-regular|file-unreadable|image-damaged|image-empty|image-format-unread|image-shape-wrong|"
    "image-too-large|image-type-wrong|image-values-wrong|mask-unfit"
)


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    "given",
    [
        b"", b"\x89PNG\r\n\x1a\n", saved(base())[:80], saved(base(), "JPEG")[:200], bomb(9000), bomb(20000), EPS,
        b'<svg xmlns="http://www.w3.org/2000/svg"/>', 3, None, object(), {"a": 1}, np.zeros((3, 64, 64), np.uint8),
        np.zeros((2, 2, 5), np.uint8), np.zeros((0, 4), np.uint8), np.zeros((4, 4), np.int64), io.StringIO("x"),
        torch.full((3, 64, 64), 7.0), torch.full((64, 64), float("nan")), torch.zeros(2, 1, 64, 64),
        "a\0b.png", "x" * 300, "~/nothing.png", "/dev/null", ".", Image.new("RGB", (0, 5)),
        torch.zeros(3, 64, 64, dtype=torch.complex64), torch.zeros(3, 64, 64, device="meta"), torch.zeros(0, 3, 64, 64),
        torch.zeros(3, 64, 64).to_sparse(), torch.full((3, 64, 64), 300, dtype=torch.uint16),
        torch.full((64, 64), 300, dtype=torch.uint16),
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_a_typed_sentence(read, given):
    words = {"count": 1} if read is read_image else {}
    with refused(UNFIT, UsageError):
        read(given, size=SIZE, **words)


class Socket:
    """Gives a few bytes a read, as connections do, and ends as `end` says."""

    def __init__(self, data: bytes, end: Exception | None = None) -> None:
        self.file, self.end = io.BytesIO(data), end

    def read(self, most: int) -> bytes:
        data = self.file.read(min(most, 50))
        if not data and self.end is not None:
            raise self.end
        return data


def test_a_file_that_gives_few_bytes_a_read_is_read_whole():
    assert read(Socket(saved(base()))) == RIGHT


def closed() -> io.BytesIO:
    file = io.BytesIO(saved(base()))
    file.close()
    return file


def closed_image() -> Image.Image:
    image = Image.open(io.BytesIO(saved(base())))
    image.close()
    return image


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize(
    "given",
    [
        closed, closed_image, lambda: Socket(saved(base()), RuntimeError("the connection is gone")),
        lambda: Image.open(io.BytesIO(saved(base(), "JPEG")[:-30])),
    ],
)  # fmt: skip
def test_what_fails_while_it_is_read_is_refused_by_a_typed_sentence(read, given):
    words = {"count": 1} if read is read_image else {}
    with refused("file-unreadable|image-damaged", UsageError, naming="can't be read: "):
        read(given(), size=SIZE, **words)


def test_no_sentence_holds_an_address_in_memory():
    with refused("image-format-unread") as caught:
        read(b"nothing that any decoder knows")
    assert "0x" not in str(caught.value)
    assert "PNG" in str(caught.value)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with refused("file-not-regular"):
        read(tmp_path / "pipe")


def test_a_bit_that_flipped_inside_a_png_is_seen():
    data = bytearray(saved(base()))
    place = data.index(b"IDAT") + 20
    data[place] ^= 1
    with pytest.raises(ValueError, match="part 'IDAT' is damaged"):
        check_chunks(bytes(data))
    with refused("image-damaged", naming="'a.png'"):
        open_picture(bytes(data), name="a.png", where="set")
    check_chunks(saved(base()))


def half(value: int = 255) -> np.ndarray:
    a = np.zeros((64, 64), np.uint8)
    a[:, 32:] = value
    return a


def rgba(colour: int, left: int, right: int) -> Image.Image:
    a = np.full((64, 64, 4), colour, np.uint8)
    a[:, :32, 3], a[:, 32:, 3] = left, right
    return Image.fromarray(a)


def lab(values: np.ndarray) -> Image.Image:
    to = ImageCms.createProfile("LAB")
    grey = Image.fromarray(values).convert("RGB")
    found = ImageCms.profileToProfile(grey, ImageCms.createProfile("sRGB"), to, outputMode="LAB")
    assert found is not None
    return found


@pytest.mark.parametrize(
    "mask",
    [
        Image.fromarray(half()), Image.fromarray(half()).convert("1"), half(), half() > 0, half(1), half() / 255.0,
        Image.fromarray(half(1)), rgba(255, 0, 255), torch.from_numpy(half()), torch.from_numpy(half()) > 0,
        torch.from_numpy(half())[None] / 255, torch.from_numpy(half(1)),
        Image.fromarray(np.repeat(half(), 2, axis=1)), Image.fromarray(half().astype(np.uint16) * 257),
        rgba(255, 0, 255).convert("LA").convert("La"), rgba(255, 0, 255).convert("RGBa"),
        lab(half()), (torch.from_numpy(half()) / 255).to(torch.float8_e4m3fn),
    ],
)  # fmt: skip
def test_masks_of_every_kind_have_their_white_half(mask):
    found = read_mask(mask, size=SIZE)[0, 0]
    assert (float(found[:, :32].mean()), float(found[:, 32:].mean())) == (0.0, 1.0)


def test_what_is_transparent_or_black_in_a_mask_is_kept():
    with refused("mask-unfit"):
        read_mask(rgba(0, 255, 255), size=SIZE)
    with refused("mask-unfit"):
        read_mask(rgba(255, 0, 0), size=SIZE)


@pytest.mark.parametrize("white", [(slice(None), 300), (300, 300)])
def test_thin_parts_of_a_mask_survive_being_made_smaller(white):
    a = np.zeros((2048, 2048), np.uint8)
    a[white] = 255
    assert 1 <= float(read_mask(Image.fromarray(a), size=SIZE).sum()) <= 2 * 64


def test_jpegs_noise_is_not_white():
    a = Image.fromarray(half())
    found = read_mask(saved(a, "JPEG", quality=60), size=(16, 16))[0, 0]
    assert (float(found[:, :8].mean()), float(found[:, 8:].mean())) == (0.0, 1.0)


@pytest.mark.parametrize("alpha", [None, 255])
def test_truth_values_are_a_mask_whatever_their_alpha(alpha):
    ones = np.zeros((64, 64), np.uint8)
    ones[:, 32:] = 1
    bands = [ones] * 3 if alpha is None else [*[ones] * 3, np.full_like(ones, alpha)]
    assert float(read_mask(Image.fromarray(np.dstack(bands)), size=SIZE).mean()) == 0.5
    assert float(read_mask(np.ones((64, 64), np.uint8), size=SIZE).mean()) == 1.0


def test_whole_numbers_without_a_range_are_refused_in_tensors_as_in_arrays():
    for dtype in (torch.int8, torch.int16, torch.int32, torch.int64, torch.uint16):
        with refused("image-values-wrong", naming=str(dtype).removeprefix("torch.")):
            read_image(torch.ones(3, 64, 64).to(dtype), size=SIZE, count=1)
    assert float(read_image(torch.ones(3, 64, 64, dtype=torch.bool), size=SIZE, count=1).mean()) == 1.0


def test_sixteen_bits_of_either_byte_order_are_read():
    deep = (np.asarray(base()).astype(np.uint16) * 257).astype(">u2")
    assert read(deep) == RIGHT


class Named:
    """Something else than a Path that names a file."""

    def __init__(self, path):
        self.path = path

    def __fspath__(self):
        return str(self.path)


def test_a_file_is_named_by_anything_with_a_path(tmp_path):
    base().save(tmp_path / "a.png")
    assert read(Named(tmp_path / "a.png")) == RIGHT


def test_what_was_just_written_is_read_from_its_beginning():
    file = io.BytesIO()
    base().save(file, "PNG")
    assert file.read() == b""
    assert read(file) == RIGHT
