"""The phases' outputs as few files: one record, one sheet of images a phase, one archive a set of weights."""

from __future__ import annotations

import copy
import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.on_gpu import speed
from benchmarks.on_gpu.conductor import Phase
from benchmarks.on_gpu.courses import files_of
from zoo.bench import record

NAME = "on-gpu"
FILES, LARGEST = 8, 16 << 20  # of the folder; bytes of a file


def join(phases: Sequence[Phase]) -> dict[str, Any] | None:
    """One record of all phases' rows, each with its phase; None where no phase left any."""
    found = [phase for phase in phases if phase.record is not None]
    if not found:
        return None
    first = found[0].record
    assert first is not None
    whole = copy.deepcopy(first)
    # Rows keep what decided them: a phase's settings are under its name.
    whole["suite"] |= {
        "name": NAME, "summary": "A device against the CPU, quality and throughput of what ships, speed, training.",
        "settings": {"order": "by phase", "prompts": [], "overrides": []},
    }  # fmt: skip
    whole |= {"peaks": {}, "noise": {}, "rows": [], "pairs": [], "phases": []}
    for phase in phases:
        made = phase.record or {"rows": [], "pairs": [], "peaks": {}, "noise": {}, "suite": None, "run": None}
        whole["rows"] += [
            {**row, "phase": phase.name, "kind": row.get("kind") or (made["suite"] or {}).get("kind")}
            for row in made["rows"]
        ]  # fmt: skip
        whole["pairs"] += made["pairs"]
        whole["peaks"] |= made["peaks"]
        whole["noise"] |= made["noise"]
        whole["versions"] |= made.get("versions", {})
        settings = (made["suite"] or {}).get("settings")
        whole["phases"].append({
            "name": phase.name, "seconds": phase.seconds, "reason": phase.reason, "settings": settings,
        })  # fmt: skip
    speed.mark(whole)
    whole["run"] |= {
        "finished": record.now(), "doing": None, "wall_seconds": round(sum(p.seconds for p in phases), 2),
        "complete": all(row["status"] != "not reached" for row in whole["rows"]) and not any(p.reason for p in phases),
    }  # fmt: skip
    return whole


def gather(out: Path, whole: dict[str, Any] | None, table: str) -> list[str]:
    """Leave in `out` what is to be kept, at most eight files of 16 MiB; returns what was left out, as sentences."""
    work, said = out / "work", []
    if whole is not None:
        record.write(whole, out)
    (out / "table.txt").write_text(table + "\n", encoding="utf-8")
    sheets = sorted((work / "quality").glob("*.png"))
    if sheets:
        _one_under_another(sheets, out / "drawn.png")
    trained = work / "train" / "sheet.png"
    if trained.is_file():
        shutil.copyfile(trained, out / "trained.png")
    for weights in sorted((work / "train" / "weights").glob("*.safetensors")):
        room = FILES - sum(1 for _ in out.glob("*.*"))
        files = files_of(weights.with_suffix(".yaml"))
        if sum(file.stat().st_size for file in files) > LARGEST:
            said.append(f"{weights.name} is larger than {LARGEST >> 20} MiB and was left in {weights.parent}")
        elif room < 1:
            said.append(f"{weights.name} would be one file too many and was left in {weights.parent}")
        else:
            with zipfile.ZipFile(out / f"{weights.stem}.zip", "w", zipfile.ZIP_DEFLATED) as archive:
                for file in files:
                    archive.write(file, file.name)
    return said


def _one_under_another(sheets: Sequence[Path], target: Path) -> None:
    from PIL import Image

    images = [Image.open(path).convert("RGB") for path in sheets]
    whole = Image.new("RGB", (max(i.width for i in images), sum(i.height for i in images)), "white")
    top = 0
    for image in images:
        whole.paste(image, (0, top))
        top += image.height
    whole.save(target, optimize=True)


def earlier(*folders: Path) -> Path | None:
    """The newest record of this command in the folders."""
    found = [path for folder in folders for path in folder.glob(f"{NAME}-*.json")]
    known = []
    for path in found:
        try:
            known.append((record.read(path)["run"]["started"], path))
        except (ValueError, KeyError):  # no record, or an older one
            continue
    return max(known)[1] if known else None
