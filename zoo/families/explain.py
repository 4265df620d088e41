"""What a file or folder is, by what its header says: the report behind `zoo explain`.

Nothing is executed, no tensor is read, and torch isn't imported. What the report says of names, shapes and dtypes is
the file's own; whose they are comes from published lists; what neither shows is a question with the argument that
settles it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from zoo.checkpoints.containers import read_header
from zoo.checkpoints.folders import Folder, is_index, read_folder, read_index
from zoo.checkpoints.headers import Header, TensorEntry
from zoo.families.adapters import adapter
from zoo.families.identify import ADDED, Match, Parts, split
from zoo.families.published_models import AUTOENCODER, DENOISER, IMAGE, PRIOR, QUESTIONS, TEXT
from zoo.schema.errors import ZooError, model_read

_NAMED = 3  # how many tensors a sentence names
_METADATA = 40  # entries of metadata in a report
_KINDS = {DENOISER: "denoiser alone", AUTOENCODER: "autoencoder alone", TEXT: "text encoder alone",
          IMAGE: "image encoder alone"}  # fmt: skip


@dataclass(frozen=True)
class PartReport:
    """A part: what it is, and how it differs from its published list (`missing`, `unused`, `other_shape`: names)."""

    name: str
    what: str
    kind: str
    layout: str | None
    tensors: int
    parameters: int
    precision: Mapping[str, int]  # dtype -> numbers
    published: str | None  # the list's name
    exact: bool
    missing: tuple[str, ...] = ()
    unused: tuple[str, ...] = ()
    other_shape: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Open:
    """What tensors can't tell: the argument that settles it, its choices, and what the file itself says if it does."""

    argument: str
    choices: tuple[str, ...]
    why: str
    said: str | None = None


@dataclass(frozen=True)
class Report:
    """What a file is. `to_dict` is for programs; `zoo.families.explain_text` writes it for people."""

    path: str
    container: str
    kind: str  # pipeline, denoiser alone, LoRA, ControlNet, ..., unknown
    family: str | None
    variant: str | None
    bytes: int
    tensors: int
    parameters: int
    precision: Mapping[str, int]
    parts: tuple[PartReport, ...] = ()
    average: str | None = None
    questions: tuple[Open, ...] = ()
    facts: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)


def explain(path: str | Path) -> Report:
    """The report of a weight file, an index of shards, or a model's folder.

    Raises UsageError where there is none; WeightsError for a file that is damaged, hostile or no weights.
    """
    place = Path(path)
    with model_read(place):
        if place.is_dir():
            return _explain_folder(read_folder(place))
        return explain_header(read_index(place) if is_index(place) else read_header(place))


def explain_header(header: Header) -> Report:
    """The report of a file's tensors."""
    shapes = {name: tensor.shape for name, tensor in header.tensors.items()}
    packed = _packed(header)
    found = adapter(shapes, header.metadata) if packed is None else None
    card = _card(header.path)
    if found is not None:
        unread = [f"unknown: {_few(found.unread)}"] if found.unread else []
        return _report(header, found.kind, found.family, None, facts=found.facts, notes=unread)
    if card is not None:
        facts = (("card", card[0]), ("component", card[1]))
        return _report(header, card[2], "zoo's own weights", card[0].split(" ")[0], facts=facts, notes=packed or [])
    parts = split(shapes)
    reports = tuple(_part(p.name, p.match, [header.tensors[n] for n in p.names.values()])
                    for p in parts.parts)  # fmt: skip
    kind, family, variant = _whose(reports, parts)
    notes = [*(packed or []), *_differences(parts)]
    average = _average(parts)
    questions = _questions(parts, header.metadata, shapes, header.values)
    if average and not parts.average_missing:
        why = "the file holds its denoiser twice; the average is what papers report"
        questions = (*questions, Open("copy", ("ema", "plain"), why))
    return _report(header, kind, family, variant, parts=reports, average=average, questions=questions, notes=notes)


def _explain_folder(folder: Folder) -> Report:
    reports, notes, questions = [], [], []
    tensors: dict[str, TensorEntry] = {}
    for part in folder.parts.values():
        if part.header is None:
            continue
        own = part.header.tensors
        tensors |= {f"{part.name}/{name}": t for name, t in own.items()}
        found = split({name: t.shape for name, t in own.items()})
        for piece in found.parts:
            entries = [own[n] for n in piece.names.values()]
            reports.append(_part(part.name or piece.name, piece.match, entries, said=part.kind))
        notes += [f"{part.name}: {note}" if part.name else note for note in (*part.header.notes, *_differences(found))]
        notes += [f"{part.name or 'it'} is there in other files too: {', '.join(part.others)}"] if part.others else []
        settings = {**part.config, **_scheduler(folder)}
        questions += _questions(found, settings, {n: t.shape for n, t in own.items()}, {})
    header = Header(folder.path, f"diffusers folder{f' ({folder.kind})' if folder.kind else ''}", tensors)
    kind, family, variant = _whose_folder(folder, tuple(reports))
    facts = [("written by", f"diffusers {folder.version}")] if folder.version else []
    facts += [("not in it", ", ".join(folder.absent))] if folder.absent else []
    seen = {(q.argument, q.choices): q for q in questions}
    return _report(header, kind, family, variant, parts=tuple(reports), questions=tuple(seen.values()),
                   facts=tuple(facts), notes=notes)  # fmt: skip


def _report(header: Header, kind: str, family: str | None, variant: str | None, *, parts: tuple[PartReport, ...] = (),
            average: str | None = None, questions: tuple[Open, ...] = (), facts: tuple[tuple[str, str], ...] = (),
            notes: Iterable[str] = ()) -> Report:  # fmt: skip
    metadata = {key[:80]: value[:200] for key, value in list(header.metadata.items())[:_METADATA]}
    files = {t.file for t in header.tensors.values()} or {header.path}
    return Report(
        str(header.path), header.container, kind, family, variant, sum(f.stat().st_size for f in files),
        len(header.tensors), header.parameters, _precision(header.tensors.values()), parts, average, questions, facts,
        (*header.notes, *dict.fromkeys(notes)), metadata,
    )  # fmt: skip


def _part(name: str, match: Match | None, entries: list[TensorEntry], *, said: str = "") -> PartReport:
    numbers = sum(t.numbers for t in entries)
    if match is None:
        what = f"no published list is near{f'; the folder says {said}' if said else ''}"
        return PartReport(name, what, "unknown", None, len(entries), numbers, _precision(entries), None, False)
    own = match.published
    titles = " or ".join(sorted((own.family, *match.alike)))
    what = f"{titles}, {own.variant}" if match.size == "published" else f"like {titles}, in another size"
    shapes = (
        tuple(f"{n} {found} for {wanted}" for n, found, wanted in match.shapes) if match.size == "published" else ()
    )
    near = match.size == "published"
    return PartReport(
        name, what, own.kind, own.layout, len(entries), numbers, _precision(entries), match.name, match.exact,
        match.missing if near else (), match.unused if near else (), shapes, match.added,
    )  # fmt: skip


def _whose(reports: tuple[PartReport, ...], parts: Parts) -> tuple[str, str | None, str | None]:
    """Kind, family and variant of a whole file, by its denoiser where it has one."""
    matches = [part.match for part in parts.parts if part.match is not None]
    if not matches:
        return "unknown", None, None
    main = next((m for m in matches if m.published.kind in (DENOISER, PRIOR)), matches[0])
    kinds = {m.published.kind for m in matches}
    own = main.published
    sized = main.size == "published"
    kind = "pipeline" if len(kinds) > 1 and DENOISER in kinds else _KINDS.get(own.kind, own.kind)
    variant = "LCM" if ADDED["time_embedding.cond_proj.weight"] in main.added else own.variant
    title = " or ".join(sorted((own.family, *main.alike)))
    return kind, title if sized else f"like {own.family}", variant if sized else "another size"


def _whose_folder(folder: Folder, reports: tuple[PartReport, ...]) -> tuple[str, str | None, str | None]:
    main = next((r for r in reports if r.kind in (DENOISER, PRIOR)), reports[0] if reports else None)
    if main is None or main.published is None:
        return folder.kind or "unknown", None, None
    family, _, variant = main.what.partition(", ")
    kind = "pipeline" if len(reports) > 1 else _KINDS.get(main.kind, main.kind)
    return kind, family, variant or None


def _differences(parts: Parts) -> list[str]:
    notes = [f"{len(parts.unassigned)} tensors belong to no part: {_few(parts.unassigned)}"] if parts.unassigned else []
    if parts.average_missing:
        notes.append(f"the averaged copy lacks {len(parts.average_missing)}: {_few(parts.average_missing)}")
    return notes


def _average(parts: Parts) -> str | None:
    if not parts.average:
        return None
    state = "whole" if not parts.average_missing else f"{len(parts.average_missing)} tensors short"
    return f"{len(parts.average)} tensors under model_ema., {state}"


def _questions(
    parts: Parts, settings: Mapping[str, Any], shapes: Iterable[str], values: Mapping[str, Any]
) -> tuple[Open, ...]:
    """What the parts' tensors leave open; `said` where settings, markers or counters of the file answer it."""
    prediction = settings.get("modelspec.prediction_type") or settings.get("prediction_type")
    marked = any(name.rpartition(".")[2] == "v_pred" for name in shapes)
    zero = any(name.rpartition(".")[2] == "ztsnr" for name in shapes)
    said: dict[str, str | None] = {
        "prediction": {"v_prediction": "v", "v": "v", "epsilon": "eps", "sample": "x0"}.get(str(prediction))
        or ("v" if marked else None),
        "zero_snr": "true" if zero or settings.get("rescale_betas_zero_snr") else None,
        "scale": str(settings["scaling_factor"]) if "scaling_factor" in settings else None,
    }
    if "rescale_betas_zero_snr" in settings and not settings["rescale_betas_zero_snr"]:
        said["zero_snr"] = "false"
    found = {}
    whole = len(parts.parts) > 1
    for part in parts.parts:
        for key in part.match.published.questions if part.match and part.match.size == "published" else ():
            if whole and part.match and part.match.published.kind not in (DENOISER, PRIOR):
                continue  # its denoiser's family settles how the others are read
            question = QUESTIONS[key]
            found[question.argument] = Open(
                question.argument, question.choices, question.why, said.get(question.argument)
            )
    return tuple(found.values())


def _scheduler(folder: Folder) -> Mapping[str, Any]:
    scheduler = folder.parts.get("scheduler")
    return scheduler.config if scheduler else {}


def _precision(entries: Iterable[TensorEntry]) -> dict[str, int]:
    counted: Counter[str] = Counter()
    for tensor in entries:
        counted[tensor.dtype] += tensor.numbers
    return dict(counted.most_common())


def _packed(header: Header) -> list[str] | None:
    """A note where weights are zoo's int8 with a scale a row."""
    packed = [n for n in header.tensors if n.endswith(".int8") and f"{n.removesuffix('.int8')}.scale" in header.tensors]
    return [f"{len(packed)} tensors are 8 bits a number with a scale a row"] if packed else None


def _card(path: Path) -> tuple[str, str, str] | None:
    """(card's name and what it says of the size, component, kind) of the card beside a file that names it."""
    place = path.with_suffix(".yaml")
    if path.suffix != ".safetensors" or not place.is_file():
        return None
    from zoo.config.cards import read_card

    try:
        card = read_card(str(place))
        size = path.stat().st_size
        right = card.file.name == path.name and card.bytes == size
    except (ZooError, OSError, KeyError):
        return None
    state = "its size is the card's" if right else f"its size is {size}, the card says {card.bytes}"
    return f"{card.name} ({state}; a load checks the hash)", card.component, card.kind


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    more = len(listed) - _NAMED
    return ", ".join(f"'{n[:60]}'" for n in listed[:_NAMED]) + (f" and {more} more" if more > 0 else "")
