"""Models by the name they have on the Hugging Face hub: `hf:org/name@revision`, or `hf:org/name/FILE@revision`.

The package huggingface_hub keeps what it fetched in a cache of its own, which is looked in first for a commit and alone
where `HF_HUB_OFFLINE` says so. Of a repository a diffusers folder's configurations and safetensors are fetched, and of
weights that are there whole and in half precision the whole ones; pickles aren't.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zoo.schema.errors import UsageError, WeightsError

PREFIX = "hf:"
_NAME = re.compile(r"hf:([\w.-]+/[\w.-]+)(?:/([\w./ -]+))?(?:@([\w./-]+))?")
_HALF = (".fp16", ".bf16")
_TRUE = ("1", "on", "yes", "true")


def is_hub(name: Any) -> bool:
    """Whether a name is of a model on the hub."""
    return isinstance(name, (str, Path)) and str(name).startswith(PREFIX)


def on_disk(name: str | Path) -> Path:
    """The folder or file of a name on the hub, fetched where it isn't in the cache.

    Raises UsageError for a name of another form, WeightsError where it can't be had.
    """
    found = _NAME.fullmatch(str(name))
    if found is None or ".." in str(name):
        raise UsageError(
            f"'{str(name)[:80]}' is no name on the hub; write hf:org/name, hf:org/name@revision or hf:org/name/FILE",
            code="hub-name-invalid",
        )
    try:
        import huggingface_hub as hub
        from huggingface_hub import constants
    except ImportError as error:
        raise WeightsError(
            f"'{name}' is read by the package huggingface_hub, which isn't installed; pip install zoo-diffusion[hub]",
            code="package-missing",
        ) from error
    repository, file, revision = found.groups()
    offline = constants.is_offline_mode() or os.environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE
    said: dict[str, Any] = {"revision": revision, "local_files_only": offline}
    try:
        if file is not None:
            return Path(hub.hf_hub_download(repository, file, **said))
        if not offline:
            said["allow_patterns"] = wanted(hub.HfApi().list_repo_files(repository, revision=revision))
        return Path(hub.snapshot_download(repository, **said))
    except Exception as error:  # of the network, the hub and the disk: huggingface_hub's share no base
        where = f"HF_HUB_OFFLINE is set and it isn't in {constants.HF_HUB_CACHE}" if offline else _first(error)
        fix = "unset that, or put it there" if offline else "check the name, or give a path"
        raise WeightsError(f"'{name}' can't be had: {where}; {fix}", code="hub-unavailable") from error


def wanted(names: Iterable[str]) -> list[str]:
    """The files of a repository that a diffusers folder is read from."""
    listed = set(names)

    def whole(name: str) -> bool:
        """Whether it is no half or other copy of one that is there."""
        plain = name
        for half in _HALF:
            plain = plain.replace(half, "")
        return name == plain or plain not in listed

    def read(name: str) -> bool:
        return name.endswith(".safetensors") and "/" in name and "non_ema" not in name and whole(name)

    return sorted(name for name in listed if name.endswith((".json", ".txt")) or read(name))


def _first(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:160]}"
