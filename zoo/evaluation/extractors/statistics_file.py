"""Reference statistics: the moments of a set's features, in a file of some megabytes instead of the images.

| file | holds | says of what |
|---|---|---|
| zoo's (`zoo.statistics/1`) | moments by layer, and a header | extractor, hash of its weights, N, the images' hash |
| pytorch-fid's and ADM's | `mu`, `sigma` (and `mu_s`, `sigma_s`) | nothing: the reader gives the protocol |

ADM's spatial features are TensorFlow's (places, then channels) and zoo's are PyTorch's; they are put in this order.

Numbers of another extractor are refused, never compared. A file from outside is hostile until read: no pickles, and
no array is made before its shape was held against the bytes that are there.
"""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from zoo.evaluation.extractors.extractor import MAIN
from zoo.evaluation.extractors.features import Features
from zoo.evaluation.extractors.inception import NAME, WEIGHTS
from zoo.evaluation.extractors.inception_network import LAYERS
from zoo.evaluation.extractors.moments import Moments
from zoo.images.zips import check_list
from zoo.schema import strict_json
from zoo.schema.errors import UsageError, WeightsError
from zoo.schema.files import write_atomically

SCHEMA = "zoo.statistics/1"
PROTOCOLS = {"fid-tf1": NAME, "fid-clean": f"{NAME}-clean"}  # protocols of files without a header -> their extractor
LARGEST = 2**29  # bytes of one array: a covariance of 8,192 features
TIGHTEST = 200  # how much smaller than itself an array may be packed; numbers that were measured hardly pack at all
_COMMON = {MAIN: ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
# Of a spatial feature of ours (7 channels of 17x17 places), its place among those of a file.
_CHANNELS_FIRST = np.arange(LAYERS["spatial"]).reshape(17, 17, 7).transpose(2, 0, 1).ravel()


def save_statistics(features: Features, path: str | Path) -> Path:
    """Write the moments of every layer, with what they are of; whole or not at all."""
    target = Path(path)
    if target.suffix != ".npz":
        raise UsageError(
            f"'{path}' is no name for a statistics file; give one that ends in .npz", code="output-format-unknown"
        )
    arrays: dict[str, np.ndarray] = {}
    for layer, moments in sorted(features.moments.items()):
        arrays[f"mean_{layer}"] = np.asarray(moments.mean, dtype=np.float64)
        arrays[f"scatter_{layer}"] = np.asarray(moments.scatter, dtype=np.float64)
    header = {
        "schema": SCHEMA, "extractor": features.extractor, "extractor_sha256": features.sha256,
        "count": features.count, "layers": sorted(features.moments), "source": Path(features.source).name,
        "pictures_sha256": features.pictures_sha256, "notes": dict(features.notes), "sizes": dict(features.sizes),
        "sha256": _digest(arrays),
    }  # fmt: skip
    buffer = io.BytesIO()
    told = np.frombuffer(json.dumps(header).encode(), dtype=np.uint8)
    np.savez(buffer, header=told, **arrays)  # type: ignore[arg-type]
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    write_atomically(target.absolute(), buffer.getvalue())
    return target


def read_statistics(path: str | Path, *, protocol: str | None = None) -> Features:
    """The moments of a file, as features without the features.

    Args:
        protocol: by which a file with `mu` and `sigma` alone was made, `fid-tf1` or `fid-clean`. Such a file doesn't
            say how many images it is of; its count is 0.
    """
    if protocol is not None and protocol not in PROTOCOLS:
        raise UsageError(
            f"statistics have no protocol '{protocol}'; say {' or '.join(PROTOCOLS)}", code="protocol-unknown"
        )
    arrays = read_arrays(Path(path))
    if "header" in arrays:
        return _own(arrays, str(path), protocol)
    if not {"mu", "sigma"} <= set(arrays):
        there = ", ".join(sorted(arrays)[:8]) or "nothing"
        raise UsageError(
            f"'{path}' holds no statistics ({there}); give one with mu and sigma, or one that zoo wrote",
            code="statistics-damaged",
        )
    if protocol is None:
        raise UsageError(
            f"'{path}' holds mu and sigma and doesn't say what made them; say which protocol did, "
            f"{' or '.join(PROTOCOLS)} (numbers of another one are not comparable)",
            code="protocol-missing",
        )
    moments = {
        layer: _moments(arrays[mean], arrays[spread], count=None, where=str(path))
        for layer, (mean, spread) in _COMMON.items()
        if mean in arrays and spread in arrays
    }
    for layer, found in moments.items():
        if len(found.mean) != LAYERS[layer]:
            raise UsageError(
                f"'{path}' has {len(found.mean)} features where the 2015 Inception has {LAYERS[layer]}; it is of "
                "another extractor",
                code="statistics-of-another",
            )
    if "spatial" in moments:
        given, order = moments["spatial"], _CHANNELS_FIRST
        moments["spatial"] = replace(given, mean=given.mean[order], scatter=given.scatter[np.ix_(order, order)])
    return Features(
        source=str(path), extractor=PROTOCOLS[protocol], sha256=WEIGHTS.sha256, count=0, arrays={}, moments=moments,
        pictures_sha256="", notes={f"said to be of the protocol {protocol}": 1},
    )  # fmt: skip


def _own(arrays: Mapping[str, np.ndarray], where: str, protocol: str | None) -> Features:
    try:
        header: dict[str, Any] = strict_json.parse(arrays["header"].tobytes())
        schema = header["schema"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError(
            f"the statistics '{where}' have a damaged header; make them again", code="statistics-damaged"
        ) from error
    if schema != SCHEMA:
        raise UsageError(
            f"'{where}' has schema {str(schema)[:40]!r} where '{SCHEMA}' is read; make it again", code="schema-unknown"
        )
    rest = {name: array for name, array in arrays.items() if name != "header"}
    try:
        extractor, sha256, count = str(header["extractor"]), str(header["extractor_sha256"]), int(header["count"])
        layers = [str(layer) for layer in header["layers"]]
        if header["sha256"] != _digest(rest):
            raise ValueError("the numbers are not those that were written")
        if count < 2 or not layers or len(rest) != 2 * len(layers):
            raise ValueError("it counts fewer than two pictures, or not every layer is there")
        moments = {
            layer: _moments(rest[f"mean_{layer}"], rest[f"scatter_{layer}"], count=count, where=where)
            for layer in layers
        }
        found = Features(
            source=where, extractor=extractor, sha256=sha256, count=count, arrays={}, moments=moments,
            pictures_sha256=str(header.get("pictures_sha256", "")), notes=dict(header.get("notes") or {}),
            sizes=dict(header.get("sizes") or {}),
        )  # fmt: skip
    except UsageError:
        raise
    except (KeyError, ValueError, TypeError) as error:
        raise WeightsError(
            f"the statistics '{where}' are damaged ({error}); make them again", code="statistics-damaged"
        ) from error
    if protocol is not None and PROTOCOLS[protocol] != extractor:
        raise UsageError(
            f"'{where}' says it is of {extractor}, not of {protocol}; leave the protocol out",
            code="statistics-of-another",
        )
    return found


def _moments(mean: np.ndarray, scatter: np.ndarray, *, count: int | None, where: str) -> Moments:
    """The moments of arrays from outside; where N isn't known (None), the scatter is a covariance."""
    m, s = np.asarray(mean, dtype=np.float64), np.asarray(scatter, dtype=np.float64)
    if m.ndim != 1 or s.shape != (len(m), len(m)):
        raise UsageError(
            f"'{where}' has a mean {m.shape} and a covariance {s.shape}, which don't fit; make it again",
            code="statistics-damaged",
        )
    if not (np.isfinite(m).all() and np.isfinite(s).all()):
        raise UsageError(
            f"'{where}' holds NaN or infinity; make it again from sound features", code="statistics-damaged"
        )
    size = float(abs(s).max())
    if (np.diagonal(s) < 0.0).any() or float(abs(s - s.T).max()) > 1e-6 * size:
        raise UsageError(
            f"'{where}' holds a covariance that isn't symmetric or has negative variances; make it again",
            code="statistics-damaged",
        )
    return Moments(2 if count is None else count, m, s, counted=count is not None)


def _digest(arrays: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.shape} {array.dtype.str};".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of plain numbers in an .npz; what is larger than it can be is refused before memory is allocated."""
    try:
        if not path.is_file():
            raise UsageError(
                f"there is no statistics file '{path}'; give the path of an .npz", code="statistics-missing"
            )
        check_list(path)
        with zipfile.ZipFile(path) as archive:
            found: dict[str, np.ndarray] = {}
            there = path.stat().st_size
            for info in archive.infolist():
                name = info.filename.removesuffix(".npy")
                if info.filename == name or name in found:
                    raise ValueError(f"the member '{info.filename}' is no array, or is there twice")
                if info.file_size > LARGEST or info.file_size > TIGHTEST * max(min(info.compress_size, there), 512):
                    raise ValueError(f"'{name}' would unpack to {info.file_size} bytes")
                if name not in _READ and not name.startswith(("mean_", "scatter_")):
                    continue  # images or labels that others keep in the same file
                with archive.open(info) as member:
                    found[name] = _array(member.read(), name)
            return found
    except UsageError:
        raise
    except Exception as error:  # whatever a hostile or cut file makes zipfile, zlib and numpy raise
        raise WeightsError(
            f"the statistics '{path}' can't be read as plain arrays: {error}; get them again", code="statistics-damaged"
        ) from error


_READ = {"header", *(name for pair in _COMMON.values() for name in pair)}


def _array(data: bytes, name: str) -> np.ndarray:
    """An .npy's array of float or byte numbers."""
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if dtype.kind not in "fu" or dtype.hasobject:
        raise ValueError(f"'{name}' holds {dtype}, not numbers")
    claimed = int(np.prod([int(n) for n in shape], dtype=object)) * dtype.itemsize
    if claimed != len(data) - file.tell():
        raise ValueError(f"'{name}' claims {claimed} bytes and {len(data) - file.tell()} are there")
    file.seek(0)
    return np.load(file, allow_pickle=False)
