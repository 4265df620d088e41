"""What is installed: versions, devices, caches, plugins, and what of it is broken. Devices are read from torch."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from zoo.config.cards import card_names, check_weight_file, read_card
from zoo.config.describe import describe, listing
from zoo.schema.errors import ZooError
from zoo.schema.registry import Plugin, installed_plugins, registry
from zoo.schema.version import __version__, installed

SCHEMA = "zoo.installation/1"
TRY_SECONDS = 60
# What a process does with a target, and the line that it ends with if that went well.
TRY = """
import importlib, sys
module, _, name = sys.argv[1].partition(":")
found = importlib.import_module(module)
for part in name.split("."):
    found = getattr(found, part)
print("callable" if callable(found) else "not callable")
"""
PACKAGES = (
    "torch", "torchvision", "open_clip_torch", "timm", "safetensors", "numpy", "scipy", "pillow", "pyyaml", "typer",
    "rich", "diffusers", "transformers",
)  # fmt: skip


def installation() -> dict[str, Any]:
    """All of it, as plain values."""
    return {
        "schema": SCHEMA,
        "zoo": {"version": __version__, "place": str(Path(__file__).resolve().parent.parent)},
        "versions": installed(*PACKAGES),
        "devices": devices(),
        "caches": caches(),
        "plugins": plugins(),
        "broken": broken(),
    }


def devices() -> list[dict[str, Any]]:
    """The devices, and which of them `auto` is; where torch itself fails, one entry says why."""
    try:
        import torch

        from zoo.acceleration.device import best

        found = [{"device": "cpu", "what": f"{platform.machine()}, {torch.get_num_threads()} threads"}]
        for i in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(i)
            found.append({"device": f"cuda:{i}", "what": f"{about.name}, {about.total_memory / 2**30:.0f} GiB"})
        if torch.backends.mps.is_available():
            found.append({"device": "mps", "what": "Apple's GPU"})
        found.append({"device": "auto", "what": str(best())})
        return found
    except Exception as error:  # a torch that can't be imported is reported, too
        reason = str(error).splitlines()[0] if str(error) else ""
        return [{"device": "none", "what": f"torch fails ({type(error).__name__}: {reason}); install it again"}]


def caches() -> list[dict[str, Any]]:
    """The folders that published weight files are looked for in, and how much is there."""
    try:
        from zoo.evaluation.extractors.weight_file import caches as places
    except ImportError:  # torch is missing, which `devices` says
        return []
    found = []
    for place in places():
        files = [p for p in place.glob("*") if p.is_file()] if place.is_dir() else []
        size = sum(p.stat().st_size for p in files)
        found.append({"place": str(place), "exists": place.is_dir(), "files": len(files), "bytes": size})
    return found


def plugins() -> list[dict[str, Any]]:
    """The plugin packages, each with its components and, where one is broken, the reason."""
    return [
        {**asdict(p), "keys": list(p.keys), "broken": {k: why for k in p.keys if (why := _plugin_fault(p, k))}}
        for p in installed_plugins()
    ]


def _plugin_fault(plugin: Plugin, key: str) -> str | None:
    """The fault of a plugin's component by its metadata and source, or else by importing it; None without."""
    why = registry().fault(key, f"plugin package '{plugin.package}'")
    return why or tried(str(registry().at(key).target))


def tried(target: str) -> str | None:
    """The error of importing a target, in a process of its own, which it may end; None where there is none."""
    own = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    words = [sys.executable, "-c", TRY, target]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=TRY_SECONDS, env=own)
    except subprocess.TimeoutExpired:
        return f"importing '{target}' takes over {TRY_SECONDS} s"
    said = done.stdout.strip().splitlines()[-1:] or [""]
    if said == ["callable"]:
        return None
    if said == ["not callable"]:
        return f"'{target}' is no class and no function"
    last = next((line for line in reversed(done.stderr.splitlines()) if line.strip()), "")
    return f"importing '{target}' ends the process with exit code {done.returncode}{': ' if last else ''}{last[:200]}"


def broken() -> list[dict[str, str]]:
    """Components, cards, presets and weight files that can't be used, each with the reason."""
    found = []
    for listed in listing():
        why = listed.broken or _fault(f"{listed.kind}/{listed.name}")
        if why:
            found.append({"kind": listed.kind, "name": listed.name, "broken": why})
    told = {(b["kind"], b["name"]) for b in found}
    for name in card_names():
        try:
            if ("weights", name) not in told:
                check_weight_file(read_card(name))
        except ZooError as error:
            found.append({"kind": "weights", "name": name, "broken": str(error)})
    return found


def _fault(key: str) -> str | None:
    """Why a listed name can't be described in full: lists read less of a component's source than that."""
    try:
        describe(key)
    except ZooError as error:
        return str(error)
    return None
