"""Names that leave a folder, links, pipes and devices: nothing is written outside."""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.reliability import good
from benchmarks.reliability.hostile import FOLDERS, Case


def cases(home: Path) -> Iterator[Case]:
    """Over 40 names that leave a folder: in metadata, zips, tars, indexes, recipes, cards and on command lines."""
    folder = home / "paths"
    folder.mkdir()
    (home.parent / "secret.png").write_bytes(good.png(9))
    (home.parent / "secret.txt").write_text("theirs")
    names = (
        "../secret.png", "../../secret.png", str(home.parent / "secret.png"), "a/../../secret.png", "./../secret.png",
        "..\\secret.png", "a\0b.png", "/etc/passwd", "//etc/passwd", "~/secret.png", "file:///etc/passwd", "", ".",
        "..",
        "x" * 5000, "/dev/zero", "/dev/stdin", "CON", "\u202esecret.png", "a\nb.png",
    )  # fmt: skip
    for number, name in enumerate(names):
        rows = [{"file_name": name, "text": "x", "split": "train"}, {"file_name": name, "text": "y", "split": "val"}]
        lines = "\n".join(json.dumps(row) for row in rows).encode()
        place = folder / f"folder {number}"
        place.mkdir()
        (place / "metadata.jsonl").write_bytes(lines)
        yield f"metadata names {name!r:.40}", "data", place
        if name and "\0" not in name:
            members = {"metadata.jsonl": lines, name[:200]: good.png(0)}
            yield f"a member is named {name!r:.40}", "data.zip", good.as_zip(members, folder / f"{number}.zip")
        yield from _named(home, folder, number, name)
    for number, kind in enumerate((tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE)):
        member = tarfile.TarInfo("0.png")
        member.type, member.linkname = kind, "/etc/passwd"
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as archive:
            archive.addfile(member)
        (folder / f"link {number}.tar").write_bytes(out.getvalue())
        yield f"a tar's member of type {kind!r}", "data.tar", folder / f"link {number}.tar"
    linked = folder / "linked"
    linked.mkdir()
    for name, data in good.files().items():
        (linked / name).write_bytes(data)
    (linked / "0.png").unlink()
    (linked / "0.png").symlink_to("/etc/passwd")
    yield "a picture that is a link to another file", "data", linked
    yield from _links(home, folder)
    os.mkfifo(folder / "pipe")
    for kind in good.VERBS:
        yield "a pipe", kind, folder / "pipe"
        yield "/dev/zero", kind, Path("/dev/zero")


def _named(home: Path, folder: Path, number: int, name: str) -> Iterator[Case]:
    """A name where a recipe, a suite, a card, an index, a model's folder or a record names a file."""

    def written(kind: str, value: Any) -> Case:
        path = folder / f"{number} {kind}"
        path.write_text(json.dumps(value))
        return f"{kind} names {name!r:.40}", kind, path

    recipe, suite, card = (yaml.safe_load((home / f).read_text()) for f in ("recipe.yaml", "suite.yaml", "card.yaml"))
    yield written("recipe.yaml", {**recipe, "name": name})
    yield written("suite.yaml", {**suite, "name": name})
    yield written("card.yaml", {**card, "file": {**card["file"], "name": name}})
    yield written("card.yaml", {**card, "words": name})
    yield written("shards.safetensors.index.json", {"weight_map": {"a": name}})
    model = folder / f"{number} model"
    shutil.copytree(home / "model", model, copy_function=os.link)
    index = json.loads((model / "model_index.json").read_text())
    (model / "model_index.json").unlink()
    (model / "model_index.json").write_text(json.dumps({**index, name: ["diffusers", "UNet2DConditionModel"]}))
    yield f"a model's part is named {name!r:.40}", "model", model
    measured = folder / f"{number} measured"
    shutil.copytree(home / "measured", measured, copy_function=os.link)
    (record,) = measured.glob("*.json")
    started = json.loads(record.read_text())
    started["run"]["started"] = name
    record.unlink()
    record.write_text(json.dumps(started))
    yield f"a record began at {name!r:.40}", "measured", measured


def _links(home: Path, folder: Path) -> Iterator[Case]:
    """A link to another file in the place of each file of a run, a model, captions and what was measured."""
    secret = home.parent / "secret.txt"
    for kind, patterns in FOLDERS.items():
        for pattern in (*patterns, "**/*.safetensors", "**/*.png"):
            path = folder / f"{kind} {pattern.replace('/', ' ')}"
            shutil.copytree(home / kind, path, copy_function=os.link)
            for place in path.glob(pattern):
                place.unlink()
                place.symlink_to(secret)
            yield f"links in the place of {pattern}", kind, path
