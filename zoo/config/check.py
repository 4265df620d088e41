"""`resolve`: from what the user wrote to a pipeline in which everything is written out and everything fits.

The order: read, shortcuts, overrides one by one, keys and arguments, contracts, weight files (there and as large as
their cards say; the loader checks their hashes).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zoo.config.contract import check_contract
from zoo.config.overrides import Overrides, apply_overrides, apply_shortcuts, to_plain
from zoo.config.presets import check_form, check_preset, read_preset
from zoo.errors import ZooError
from zoo.registry import Registry, registry


def resolve(
    config: str | Path | Mapping[str, Any],
    overrides: Overrides = None,
    shortcuts: Mapping[str, Any] | None = None,
    *,
    components: Registry | None = None,
) -> dict[str, Any]:
    """The pipeline as plain values with every default written out, or a ZooError that names the mend."""
    known = registry() if components is None else components
    written, source = read_preset(config)
    plain = to_plain(written, source)
    try:
        check_form(plain)
        changed = apply_shortcuts(plain, shortcuts or {}, known)
        changed = apply_overrides(changed, overrides, known)
        checked = check_preset(changed, known)
        check_contract(checked, known)
    except ZooError as error:
        if source in str(error):
            raise
        raise type(error)(f"{source}: {error}") from error
    return checked
