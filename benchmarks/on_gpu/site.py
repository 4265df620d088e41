"""The packages that a bare machine lacks, as one archive of the parts that are imported.

A machine with torch, transformers and timm lacks diffusers, open_clip and what they need. Their wheels come from
pip as it is set up here; of diffusers, whose pipelines are most of it, models, schedulers and a few pipelines travel.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, distributions, version
from pathlib import Path
from tempfile import TemporaryDirectory

from zoo.schema.errors import UsageError

PYTHON, PLATFORMS = "3.12", ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
# What isn't there, with the folders and files of it that stay behind.
WHEELS: Mapping[str, Sequence[str]] = {
    "diffusers": (
        "diffusers/pipelines/*", "diffusers/modular_pipelines/*", "diffusers/experimental/*", "diffusers/commands/*",
    ),
    "open_clip_torch": ("open_clip_train",), "ftfy": (), "wcwidth": ("wcwidth/*.so",), "torch-fidelity": (),
}  # fmt: skip
# Of the folders left behind, those that come along all the same.
KEPT = (
    "diffusers/pipelines/stable_diffusion/", "diffusers/pipelines/stable_diffusion_xl/", "diffusers/pipelines/ddpm/",
    "diffusers/pipelines/ddim/",
)  # fmt: skip
# What is imported of it there; `imports` tries it with nothing else than what such a machine has.
NEEDED = (
    "from diffusers import UNet2DModel, UNet2DConditionModel, AutoencoderKL",
    "from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, DDPMPipeline",
    "from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, DPMSolverMultistepScheduler",
    "from diffusers import HeunDiscreteScheduler, UniPCMultistepScheduler, PNDMScheduler",
    "from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline",
    "import torch_fidelity",
    "import zoo; zoo.load('emoji-evaluator').texts(['red apple, 3d style'])",
    "import zoo; zoo.build('latent-text2img')('red apple, 3d style', steps=1)",
)
# Packages that a machine with torch, transformers and timm has, by the names they are imported by; the rest of what is
# installed here is hidden while the archive is tried. Only their needs and zoo's own are here.
PRESENT = (
    "PIL", "accelerate", "annotated_doc", "anyio", "certifi", "charset_normalizer", "click", "contourpy", "cycler",
    "dateutil", "filelock", "fontTools", "fsspec", "functorch", "h11", "hf_xet", "httpcore", "httpx", "huggingface_hub",
    "idna", "jinja2", "kiwisolver", "markdown_it", "markupsafe", "matplotlib", "mdurl", "mpl_toolkits", "mpmath",
    "networkx", "numpy", "packaging", "psutil", "pygments", "pyparsing", "regex", "requests", "rich", "safetensors",
    "scipy", "shellingham", "six", "sympy", "timm", "tokenizers", "torch", "torchgen", "torchvision", "tqdm",
    "transformers", "triton", "typer", "typing_extensions", "urllib3", "yaml",
    # What replaces some of them in other versions of huggingface_hub.
    "httpcore2", "httpx2", "truststore",
)  # fmt: skip


@dataclass(frozen=True)
class Built:
    """The archive's packages with their versions, the bytes of the whole wheels, and what is missing, in words."""

    packages: Mapping[str, str]
    wheels: int
    missing: Sequence[str]


def build(target: Path, names: Sequence[str] = tuple(WHEELS)) -> Built:
    """Write the archive of these packages' parts; a wheel that can't be downloaded is reported and left out."""
    found, missing, whole = {}, [], 0
    target.unlink(missing_ok=True)
    with TemporaryDirectory() as folder, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in names:
            wheel, reason = download(name, Path(folder) / name)
            if wheel is None:
                missing.append(f"{name} is missing and what needs it will be skipped there: {reason}")
                continue
            found[name], whole = wheel.name.split("-")[1], whole + wheel.stat().st_size
            _strip(wheel, archive, WHEELS.get(name, ()))
    return Built(found, whole, missing)


def download(name: str, folder: Path) -> tuple[Path | None, str]:
    """A package's wheel for the other machine, of the version that is installed here; else why there is none."""
    try:
        wanted = f"{name}=={version(name)}"
    except PackageNotFoundError:
        wanted = name
    words = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:"]
    words += ["--python-version", PYTHON, "--implementation", "cp"]
    words += [word for platform in PLATFORMS for word in ("--platform", platform)]
    try:
        done = subprocess.run([*words, "-d", str(folder), wanted], capture_output=True, text=True, timeout=120)
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, f"pip didn't end ({type(error).__name__})"
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode == 0 and wheels:
        return wheels[0], ""
    # pip's lines on where it looked are left out.
    return None, f"pip found no wheel of {wanted} for Python {PYTHON}; is there a network?"


def stays_behind(name: str, left: Sequence[str]) -> bool:
    """Whether a wheel's file is in a folder that isn't needed there."""
    if any(name.startswith(kept) for kept in KEPT):
        return False
    return any(fnmatch(name, pattern if pattern.endswith(".so") else f"{pattern}/*") for pattern in left)


def _strip(wheel: Path, archive: zipfile.ZipFile, left: Sequence[str]) -> None:
    with zipfile.ZipFile(wheel) as packed:
        for info in packed.infolist():
            name = info.filename
            data = "/share/" not in name and (".data/" not in name)
            licences = ".dist-info/" not in name or name.endswith(("METADATA", "LICENSE", "LICENSE.txt"))
            if data and (licences or "/licenses/" in name) and not stays_behind(name, left):
                made = zipfile.ZipInfo(name)  # without a date: the same wheels give the same archive
                made.compress_type, made.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
                archive.writestr(made, packed.read(info))


def imports(archive: Path, statements: Sequence[str] = NEEDED) -> list[str]:
    """Which statements fail where only the archive and what a bare machine has can be imported, as sentences."""
    root = Path(__file__).resolve().parent.parent.parent
    with TemporaryDirectory() as folder:
        place, bare = Path(folder) / "site", Path(folder) / "bare"
        with zipfile.ZipFile(archive) as packed:
            packed.extractall(place)
        _bare(bare)
        path = f"import sys; sys.path += {[str(place), str(bare), str(root)]!r}\n"
        if _fails(path + "\n".join(statements)) is None:
            return []
        found = [(statement, _fails(path + statement)) for statement in statements]
        return [f"`{statement}` fails with the archive alone: {said}" for statement, said in found if said is not None]


def _fails(code: str) -> str | None:
    """The last line of an error; None where there is none."""
    # Isolated and without site: neither this environment's packages nor its variables are seen.
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, timeout=600)
    if done.returncode == 0:
        return None
    return next((line.strip()[:200] for line in reversed(done.stderr.splitlines()) if line.strip()), "no word of why")


def _bare(folder: Path) -> None:
    """Links to those of the installed packages that a bare machine has, with their metadata."""
    folder.mkdir()
    present = {*PRESENT, "nvidia", "cuda"}
    for found in distributions():
        files = [file for file in found.files or () if ".." not in file.parts]
        tops = {file.parts[0].removesuffix(".py").partition(".cpython")[0].partition(".abi3")[0] for file in files}
        if not tops & present:
            continue
        for top in {file.parts[0] for file in files}:
            if not (folder / top).exists() and top != "__pycache__":
                (folder / top).symlink_to(Path(str(found.locate_file(top))).resolve())


def unpacked(archive: Path) -> int:
    """Bytes of the archive's files."""
    try:
        with zipfile.ZipFile(archive) as packed:
            return sum(info.file_size for info in packed.infolist())
    except (OSError, zipfile.BadZipFile) as error:
        raise UsageError(f"'{archive}' can't be read: {error}; make the pack anew", code="zip-damaged") from error
