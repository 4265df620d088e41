"""A single file in the original layout <-> a diffusers folder, for Stable Diffusion 1, 2 and XL.

Tensors are copied bit by bit. What the other layout has no place for stays beside it, so that the way back is exact:
a folder gets `original.safetensors` (buffers, the copy of the U-Net that wasn't taken, the last layer of a text encoder
whose second last is read, the file's metadata); a file gets the folder's JSON in its metadata.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zoo.checkpoints.folders import Folder, read_folder, read_weights
from zoo.checkpoints.headers import Header, TensorEntry
from zoo.checkpoints.writing import Copied, write_safetensors, write_sharded
from zoo.families.stable_diffusion import folder_configs as configs
from zoo.families.stable_diffusion.folder_configs import PIPELINES
from zoo.families.stable_diffusion.layouts import (
    AVERAGED,
    UNET,
    VAE,
    kl_to_diffusers,
    kl_to_original,
    text_to_diffusers,
    text_to_original,
    unet_to_diffusers,
    unet_to_original,
)
from zoo.families.stable_diffusion.variants import VARIANTS, Variant, predicted, told_by
from zoo.schema import strict_json
from zoo.schema.errors import ConfigError, UsageError, WeightsError, model_read
from zoo.schema.files import atomic_folder

KEPT = "original.safetensors"
_FOLDER = "zoo.folder"  # the key of a file's metadata that holds a folder's JSON
_JSON_LIMIT = 256 * 1024
_OTHERS = ("low_scale_model.", "depth_model.", "noise_augmentor.", "control_model.")  # parts of other variants
PREDICTIONS = ("eps", "v")


@dataclass(frozen=True)
class Conversion:
    """What was written, and what a reader should know of it."""

    path: Path
    files: tuple[Path, ...]
    tensors: int
    notes: tuple[str, ...]


def convert(
    source: Path, target: Path, *, copy: str | None = None, prediction: str | None = None, heads: int | None = None,
    shard_bytes: int = 10 * 2**30,
) -> Conversion:  # fmt: skip
    """A file to a folder, or a folder to a `.safetensors` file; the target must be new.

    Args:
        copy: `ema` or `plain`, of a file that has both; ema if not given.
        prediction: `eps` or `v`, of a file whose family was published with both.
        heads: of the U-Net's attention, where it isn't of a published size.
        shard_bytes: the most that a weight file of the folder has.

    Raises UsageError and ConfigError for a request that can't be met, WeightsError for a source that isn't whole.
    """
    if target.exists():
        raise UsageError(
            f"'{target}' is there already; name a new {'file' if source.is_dir() else 'folder'}", code="output-taken"
        )
    if copy not in (None, "ema", "plain") or prediction not in (None, *PREDICTIONS):
        raise UsageError(
            f"copy is ema or plain and prediction eps or v, not '{copy}' and '{prediction}'", code="choice-unknown"
        )
    if source.is_dir():
        if target.suffix != ".safetensors":
            raise UsageError(
                f"'{target}' is no name of a safetensors file; end it with .safetensors", code="output-format-unknown"
            )
        with model_read(source):
            return _to_file(read_folder(source), target)
    with model_read(source):
        header = read_weights(source)
        return _to_folder(header, target, copy=copy, prediction=prediction, heads=heads, limit=shard_bytes)


# -- a file to a folder


def variant_of(names: Mapping[str, Any]) -> Variant:
    """Which variant a single file is, by its text encoders; WeightsError for none that is converted."""
    extra = next((prefix for prefix in _OTHERS if any(name.startswith(prefix) for name in names)), None)
    if extra:
        raise WeightsError(
            f"a file with '{extra}' isn't converted (depth, unCLIP, x4 upscaler, ControlNet)", code="conversion-unfit"
        )
    found = told_by(names) if any(name.startswith(UNET) for name in names) else None
    if found is not None:
        return found
    raise WeightsError(
        f"the file has no '{UNET}' with a text encoder of Stable Diffusion 1, 2 or XL beside it, and isn't converted; "
        "`zoo explain` says what it is",
        code="conversion-unfit",
    )


def _to_folder(
    header: Header, target: Path, *, copy: str | None, prediction: str | None, heads: int | None, limit: int
) -> Conversion:
    tensors, used = header.tensors, set()
    variant = variant_of(tensors)
    stored = _stored_json(header)
    prediction = prediction or variant.prediction or predicted(tensors, header.metadata)
    if prediction is None and not stored:
        raise ConfigError(
            f"'{header.path}' doesn't say what its network predicts, and both eps (512 px) and v (768 px) were "
            "published; say prediction eps or v",
            code="prediction-unstated",
        )
    parts: dict[str, dict[str, Copied]] = {}
    parts["unet"] = _unet(tensors, copy, used, header.path)
    parts["vae"] = kl_to_diffusers(tensors, VAE, used)
    for text in variant.texts.values():
        # Of SD 2's tower the second last layer is read, and the class has no more; a folder's was without the last.
        drop = 1 if variant.key == "sd-2" and not stored else 0
        parts[text.folder] = text_to_diffusers(tensors, text.prefix, used, drop=drop, projected=text.projected)
    files = stored or _json_files(variant, parts, prediction or "eps", heads)
    kept = {name: Copied(t.dtype, t.shape, (t,)) for name, t in tensors.items() if name not in used}
    written: list[Path] = []
    with atomic_folder(target) as unfinished:
        for part, copied in parts.items():
            (unfinished / part).mkdir()
            stem = "model" if part.startswith("text") else "diffusion_pytorch_model"
            written += write_sharded(unfinished / part, stem, copied, {"format": "pt"}, limit=limit)
        for name, content in files.items():
            (unfinished / name).parent.mkdir(exist_ok=True)
            (unfinished / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        _write_tokenizers(unfinished, variant)
        metadata = {k: v for k, v in header.metadata.items() if k != _FOLDER}
        if kept or metadata:
            write_safetensors(unfinished / KEPT, kept, metadata)
            written.append(unfinished / KEPT)
    notes = [f"{len(kept)} tensors that diffusers has no place for, and the metadata, are in {KEPT}"] if kept else []
    places = tuple(target / path.relative_to(unfinished) for path in written)
    return Conversion(target, places, sum(map(len, parts.values())), (*header.notes, *notes))


def _unet(tensors: Mapping[str, TensorEntry], copy: str | None, used: set[str], path: Path) -> dict[str, Copied]:
    plain = [n.removeprefix(UNET) for n in tensors if n.startswith(UNET)]
    averaged = {n: AVERAGED + n.replace(".", "") for n in plain}
    there = [n for n in plain if averaged[n] in tensors]
    if copy == "ema" and not there:
        raise ConfigError(
            f"'{path}' holds one copy of its U-Net, without '{AVERAGED}'; leave copy out", code="arguments-conflict"
        )
    if copy != "plain" and there:
        if len(there) < len(plain):
            lacking = next(n for n in plain if averaged[n] not in tensors)
            raise WeightsError(
                f"the averaged U-Net of '{path}' isn't whole: '{lacking}' is missing; say copy plain",
                code="average-unfit",
            )
        return unet_to_diffusers({n: tensors[averaged[n]] for n in plain}, used, names=averaged)
    return unet_to_diffusers({n: tensors[UNET + n] for n in plain}, used, names={n: UNET + n for n in plain})


def _json_files(
    variant: Variant, parts: Mapping[str, Mapping[str, Copied]], prediction: str, heads: int | None
) -> dict[str, Any]:
    shapes = {part: {n: c.shape for n, c in copied.items()} for part, copied in parts.items()}
    size = variant.sizes[prediction]
    channels = shapes["unet"]["conv_in.weight"][1]
    kind = PIPELINES.get((variant.key, channels))
    if kind is None:
        raise ConfigError(
            f"a U-Net of {variant.key} with {channels} input channels has no pipeline of diffusers' here",
            code="conversion-unfit",
        )
    found: dict[str, Any] = {"model_index.json": configs.model_index(variant, kind)}
    found["unet/config.json"] = configs.unet_config(
        shapes["unet"], heads=variant.heads.get("heads") if heads is None else heads, sample_size=size // 8
    )
    found["vae/config.json"] = configs.vae_config(shapes["vae"], scale=variant.scale, sample_size=size)
    found["scheduler/scheduler_config.json"] = configs.scheduler_config(variant, prediction)
    for text in variant.texts.values():
        bare = {n.removeprefix("text_model."): s for n, s in shapes[text.folder].items()}
        found[f"{text.folder}/config.json"] = configs.text_config(
            bare, open_clip=text.layout == "open-clip", projected=text.projected
        )
    return found


def _write_tokenizers(folder: Path, variant: Variant) -> None:
    """CLIP's vocabulary, from the installed open_clip; the padding is the tower's."""
    from zoo.families.diffusers.export import write_clip_tokenizer

    for text in variant.texts.values():
        place = folder / text.folder.replace("text_encoder", "tokenizer")
        place.mkdir()
        write_clip_tokenizer(place, pads_with_zero=text.layout == "open-clip")


def _stored_json(header: Header) -> dict[str, Any]:
    """The JSON files of the folder that a file was made of; none where it wasn't, WeightsError for what can't be."""
    text = header.metadata.get(_FOLDER)
    if text is None:
        return {}
    try:
        found = strict_json.parse(text, finite=False) if len(text) <= _JSON_LIMIT else None
    except ValueError:
        found = None
    names = {"model_index.json", "scheduler/scheduler_config.json"}
    names |= {f"{part}/config.json" for part in ("unet", "vae", "text_encoder", "text_encoder_2")}
    if not isinstance(found, dict) or not found.keys() <= names or not all(isinstance(v, dict) for v in found.values()):
        raise WeightsError(
            f"the metadata '{_FOLDER}' of '{header.path}' is no folder's JSON; take it out of the file",
            code="metadata-unreadable",
        )
    return found


# -- a folder to a file


def _to_file(folder: Folder, target: Path) -> Conversion:
    unet, vae = (folder.parts.get(part) for part in ("unet", "vae"))
    if unet is None or vae is None or unet.header is None or vae.header is None:
        raise WeightsError(
            f"the folder '{folder.path}' has no unet and vae with weights; give a whole pipeline's",
            code="weights-missing",
        )
    texts = {p: part for p in ("text_encoder", "text_encoder_2") if (part := folder.parts.get(p)) and part.header}
    linear = len(unet.header.tensors["mid_block.attentions.0.proj_in.weight"].shape) == 2
    key = {("text_encoder", "text_encoder_2"): "sdxl-base", ("text_encoder_2",): "sdxl-refiner",
           ("text_encoder",): "sd-2" if linear else "sd-1"}.get(tuple(texts))  # fmt: skip
    if key is None:
        raise WeightsError(
            f"the folder '{folder.path}' has no text encoder; give a whole pipeline's", code="weights-missing"
        )
    prefixes = {text.folder: text.prefix for text in VARIANTS[key].texts.values()}
    kept = read_weights(folder.path / KEPT) if (folder.path / KEPT).is_file() else None
    # The copy that the folder has is the average where the plain one was kept beside it.
    averaged = kept is not None and any(name.startswith(UNET) for name in kept.tensors)
    out = unet_to_original(unet.header.tensors, averaged=averaged)
    out |= kl_to_original(vae.header.tensors, VAE)
    for part, found in texts.items():
        assert found.header is not None
        out |= text_to_original(found.header.tensors, prefixes[part], projected=part == "text_encoder_2")
    if kept is not None:
        out |= {name: Copied(t.dtype, t.shape, (t,)) for name, t in kept.tensors.items()}
    left = [p for p, part in folder.parts.items() if part.header and p not in ("unet", "vae", *texts)]
    target.absolute().parent.mkdir(parents=True, exist_ok=True)
    metadata = {"format": "pt"} if kept is None else dict(kept.metadata)
    metadata[_FOLDER] = json.dumps(_folder_json(folder, left), separators=(",", ":"))
    write_safetensors(target, out, metadata)
    notes = [f"{part} has no place in a single file and was left out" for part in left]
    if key == "sd-2" and not any("text_projection" in name for name in out):
        notes.append("its text encoder lacks the last layer, which isn't read; loaders of the original need it there")
    return Conversion(target, (target,), len(out), tuple(notes))


def _folder_json(folder: Folder, left: list[str]) -> dict[str, Any]:
    index: dict[str, Any] = {"_class_name": folder.kind, "_diffusers_version": folder.version, **folder.values}
    index |= {name: [None, None] for name in folder.absent}
    found: dict[str, Any] = {}
    for name, part in folder.parts.items():
        gone = name in left or name in ("feature_extractor", "image_processor")
        index[name] = [None, None] if gone else [part.library, part.kind]
        if name in ("unet", "vae", "text_encoder", "text_encoder_2"):
            found[f"{name}/config.json"] = dict(part.config)
        elif name == "scheduler":
            found["scheduler/scheduler_config.json"] = dict(part.config)
    return {"model_index.json": dict(sorted(index.items())), **found}
