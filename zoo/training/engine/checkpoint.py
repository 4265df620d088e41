"""Crash-safe checkpoints.

A checkpoint is a folder of safetensors files and a manifest with the size and SHA-256 of each, and of itself. It is
written beside its final name, flushed to disk, renamed, and only then are older ones removed; resuming takes the newest
that verifies. Nothing in it is pickled.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zoo.schema import strict_json
from zoo.schema.errors import WeightsError
from zoo.schema.files import flush as _flush
from zoo.schema.files import read_plain, sha256_of

MANIFEST = "manifest.json"
LARGEST_MANIFEST = 16 * 2**20  # bytes
SCHEMA = "zoo.checkpoint/2"
FIRST_SCHEMA = "zoo.checkpoint/1"  # its manifest has no hash of its own


def save(
    folder: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any], *, keep: int
) -> Path:
    """Write checkpoint `step` under `folder` (one safetensors file an entry of `tensors`), keep the newest `keep`.

    Raises WeightsError where the disk is full or refuses; the checkpoints that were there stay.
    """
    final, temporary = folder / f"step-{step:08d}", folder / f".step-{step:08d}.tmp"
    if final.exists():
        # Steps are deterministic: a good checkpoint of a step is never rewritten.
        try:
            read(final)
        except WeightsError:
            pass
        else:
            return final
    try:
        _write(final, temporary, step, tensors, state)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise WeightsError(
            f"checkpoint '{final}' can't be written: {reason}; the earlier ones are unharmed: make room and go on "
            "with --resume",
            code="output-unwritable",
        ) from error
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def _write(
    final: Path, temporary: Path, step: int, tensors: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]
) -> None:
    final.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        files = {}
        for name, group in tensors.items():
            path = temporary / f"{name}.safetensors"
            save_file({k: v.detach().contiguous() for k, v in group.items()}, path)
            _flush(path)
            files[path.name] = {"bytes": path.stat().st_size, "sha256": sha256_of(path)}
        manifest = {"schema": SCHEMA, "step": step, "state": dict(state), "files": files}
        (temporary / MANIFEST).write_text(_sealed(manifest))
        _flush(temporary / MANIFEST)
        _flush(temporary)
        if final.exists():
            shutil.rmtree(final)  # it didn't verify, see `save`
        temporary.rename(final)
        _flush(final.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _sealed(manifest: Mapping[str, Any]) -> str:
    """The manifest as text, ending in a hash of what stands before."""
    seal = hashlib.sha256(json.dumps(manifest, indent=1).encode()).hexdigest()
    return json.dumps({**manifest, "sha256": seal}, indent=1)


def _manifest(path: Path) -> dict[str, Any]:
    text = read_plain(path, LARGEST_MANIFEST).decode("utf-8")
    manifest = strict_json.parse(text)
    if manifest["schema"] == FIRST_SCHEMA and "sha256" not in manifest:
        return manifest
    if manifest["schema"] not in (SCHEMA, FIRST_SCHEMA):
        raise WeightsError(
            f"'{path}' has the unknown schema '{manifest['schema']}'; this version reads {SCHEMA}",
            code="schema-unknown",
        )
    if _sealed({k: v for k, v in manifest.items() if k != "sha256"}) != text:
        raise WeightsError(
            f"checkpoint file '{path}' is damaged; resume from an older checkpoint", code="checkpoint-damaged"
        )
    return manifest


def read(path: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], int]:
    """Tensors, state and step of one checkpoint folder; WeightsError names the first file that doesn't verify."""
    try:
        manifest = _manifest(path / MANIFEST)
        tensors = {}
        for name, fact in manifest["files"].items():
            file = path / Path(name).name
            if file.stat().st_size != fact["bytes"] or sha256_of(file) != fact["sha256"]:
                raise WeightsError(
                    f"checkpoint file '{file}' is damaged; resume from an older checkpoint", code="checkpoint-damaged"
                )
            tensors[file.name.removesuffix(".safetensors")] = load_file(file)
        return tensors, manifest["state"], int(manifest["step"])
    except WeightsError:
        raise
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError, SafetensorError) as error:
        raise WeightsError(
            f"checkpoint '{path}' can't be read: {error}; resume from an older checkpoint", code="checkpoint-damaged"
        ) from error


def newest(folder: Path) -> tuple[Path | None, list[str]]:
    """The newest checkpoint that verifies, and what was skipped on the way, in words."""
    skipped = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            read(path)
        except WeightsError as error:
            skipped.append(str(error))
        else:
            return path, skipped
    return None, skipped
