"""One sentence about a name that doesn't exist: the nearest that does, and the choices."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 20


def unknown(what: str, name: object, names: Iterable[str]) -> str:
    """`unknown sampler 'ddmi', did you mean 'ddim'? (there are ddim, ddpm)`."""
    from difflib import get_close_matches  # only when something went wrong

    known = sorted(names)
    word = str(name)
    shown = word if len(word) <= 60 else word[:57] + "..."
    sentence = f"unknown {what} {shown!r}"
    if not known:
        return f"{sentence}: there are none"
    near = get_close_matches(word[:60].lower(), known, n=1, cutoff=0.5)
    listed = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    there = f"(there {'is' if len(known) == 1 else 'are'} {listed})"
    return f"{sentence}, did you mean '{near[0]}'? {there}" if near else f"{sentence} {there}"
