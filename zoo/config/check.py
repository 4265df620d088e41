"""`resolve`: from what the user wrote to a pipeline in which everything is written out and everything fits.

The order: read, shortcuts, overrides one by one, keys and arguments, contracts, weight files (there and as large as
their cards say; the loader checks their hashes), and whether LoRAs fit. Each file is read once.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zoo.config.adapters import check_fit
from zoo.config.cards import Card, Cards
from zoo.config.contract import check_contract
from zoo.config.models import from_file
from zoo.config.overrides import Overrides, apply_overrides, apply_shortcuts, check_form
from zoo.config.presets import check_preset, preset_names, read_preset
from zoo.schema.errors import ZooError
from zoo.schema.names import check_length
from zoo.schema.notes import preformatted
from zoo.schema.plain import to_plain
from zoo.schema.registry import Registry, registry

if TYPE_CHECKING:
    from zoo.diffusion.types import StepTable


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A checked pipeline, with the content of all its files except the weights.

    Args:
        config: plain values, every default written out; what a record holds and a second check reads.
        cards: the card of each name under which the config has weights.
        plans: the table of each stage's run, as the config has it (a call may ask for another).
    """

    config: dict[str, Any]
    cards: Mapping[str, Card]
    plans: tuple[StepTable, ...]


class Written(dict[str, Any]):
    """A config with every default written out: a plain mapping that a notebook shows as YAML."""

    def _repr_html_(self) -> str:
        from zoo.schema.safe_yaml import to_yaml

        return preformatted(to_yaml(dict(self), width=100, compact=True))


def resolve(
    config: str | Path | Mapping[str, Any] | Resolved,
    overrides: Overrides = None,
    shortcuts: Mapping[str, Any] | None = None,
    *,
    components: Registry | None = None,
) -> Resolved:
    """The pipeline with every default written out, its cards and its plans, or a ZooError that names the fix.

    A resolved pipeline without changes is returned as it is.
    """
    if isinstance(config, Resolved):
        if not overrides and all(value is None for value in (shortcuts or {}).values()):
            return config
        config = config.config
    if isinstance(config, (str, Path)):
        check_length(config, "pipeline")
    known = registry() if components is None else components
    given, shortcuts = from_file(config, shortcuts or {}, preset_names())
    written, source = read_preset(given)
    plain = to_plain(written, source)
    cards = Cards()
    try:
        check_form(plain)
        changed = apply_shortcuts(plain, shortcuts, known)
        changed = apply_overrides(changed, overrides, known)
        checked = check_preset(changed, known, cards)
        plans = check_contract(checked, known, cards)
        check_fit(checked, cards, known)
    except ZooError as error:
        if source in str(error):
            raise
        shipped = isinstance(given, str) and given in preset_names()  # whose path says nothing to the reader
        raise type(error)(f"{given if shipped else source}: {error}", code=error.code) from error
    return Resolved(config=checked, cards=cards.read, plans=tuple(plans))
