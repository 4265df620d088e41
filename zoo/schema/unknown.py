"""One sentence about a name that doesn't exist: the nearest that does, and the choices."""

from __future__ import annotations

from collections.abc import Iterable

_SHOWN = 20


def _plainly(name: str) -> str:
    """As names are written here: `DPM++ 2M` is `dpmpp-2m`."""
    return name.lower().replace("+", "p").replace("_", "-").replace(" ", "-")


def unknown(what: str, name: object, names: Iterable[str]) -> str:
    """`unknown sampler 'ddmi', did you mean 'ddim'? (there are ddim, ddpm)`."""
    from difflib import get_close_matches  # only when something went wrong

    known = sorted(names)
    word = str(name)
    shown = word if len(word) <= 60 else word[:57] + "..."
    sentence = f"unknown {what} {shown!r}"
    if not known:
        return f"{sentence}: there are none"
    plain = {_plainly(name): name for name in reversed(known)}  # of two alike the first
    asked = _plainly(word[:60])
    begun = [name for name in plain if len(asked) > 2 and name.startswith(asked)]
    swapped = [name for name in plain if sorted(name) == sorted(asked)]
    near = [plain[name] for name in swapped[-1:] or begun[-1:] or get_close_matches(asked, plain, n=1, cutoff=0.5)]
    listed = ", ".join(known[:_SHOWN]) + (f" and {len(known) - _SHOWN} more" if len(known) > _SHOWN else "")
    there = f"(there {'is' if len(known) == 1 else 'are'} {listed})"
    return f"{sentence}, did you mean '{near[0]}'? {there}" if near else f"{sentence} {there}"
