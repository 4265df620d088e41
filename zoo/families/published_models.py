"""What each list of tensors is called in the world: family, variant, kind of part, and what its tensors can't tell.

A list's name is that of `key_lists`; a row here names it or, with `*`, several. Sources are the configurations of the
published files. Nothing here is guessed from a file.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

DENOISER, AUTOENCODER, TEXT, CLASSIFIER, PRIOR = "denoiser", "autoencoder", "text encoder", "classifier", "prior"
IMAGE = "image encoder"


@dataclass(frozen=True)
class Question:
    """What tensors don't show: the argument that settles it, its choices, and why it is open."""

    argument: str
    choices: tuple[str, ...]
    why: str


@dataclass(frozen=True)
class Published:
    """A published list: `variant` within `family`; `layout` is whose names its tensors have."""

    family: str
    variant: str
    kind: str
    layout: str
    questions: tuple[str, ...] = ()  # keys of QUESTIONS


QUESTIONS = {
    "eps or v": Question("prediction", ("eps", "v"), "published with eps; fine-tunes that predict v look the same"),
    "base or v": Question("prediction", ("eps", "v"), "base (512 px) predicts eps, the 768 px model v"),
    "zero snr": Question("zero_snr", ("false", "true"), "a schedule rescaled to zero terminal SNR is no tensor"),
    "clip skip": Question("clip_skip", ("1", "2"), "which layer of CLIP a fine-tune was trained on is no tensor"),
    "scale": Question("scale", ("0.18215", "0.13025"), "SD 1 and 2 and SDXL scale the same autoencoder differently"),
    "DiT or SiT": Question("family", ("dit", "sit"), "DiT (eps, 1000 steps) and SiT (velocity) look the same"),
    "qkv order": Question("qkv_order", ("legacy", "new"), "the order of fused q, k and v shows in no shape"),
    "variance": Question("variance", ("fixed-large", "fixed-small"), "the sampling variance is no tensor"),
    "which SD3": Question("shift", ("1", "3"), "the schedule's shift is no tensor; large and large-turbo look alike"),
    "few steps": Question("guidance", ("embedded", "none"), "distilled and base models look alike"),
    "which LDM": Question("dataset", ("celebahq", "ffhq", "lsun-beds"), "the same network on other images"),
    "layer": Question("layer", ("1", "2"), "which layer's states are read, and with the final norm or without"),
}

# list | family | variant | kind | what tensors can't tell
_TABLE = """
ldm_unet/v1-inference | Stable Diffusion 1 | 1.1 to 1.5, and fine-tunes | denoiser | eps or v, zero snr, clip skip
sd15/unet | Stable Diffusion 1 | 1.1 to 1.5, and fine-tunes | denoiser | eps or v, zero snr, clip skip
sd/v1-inpainting-unet | Stable Diffusion 1 | 1.5 inpainting | denoiser | clip skip
sd15-inpainting/unet | Stable Diffusion 1 | 1.5 inpainting | denoiser | clip skip
sd/v1-instruct-pix2pix-unet | Stable Diffusion 1 | InstructPix2Pix | denoiser | clip skip
sd15-instruct-pix2pix/unet | Stable Diffusion 1 | InstructPix2Pix | denoiser | clip skip
sd2_unet/v2-inference* | Stable Diffusion 2 | 2.0 or 2.1, base or v | denoiser | base or v, zero snr
sd21/unet | Stable Diffusion 2 | 2.0 or 2.1, base or v | denoiser | base or v, zero snr
sd2_unet/v2-inpainting-inference | Stable Diffusion 2 | 2 inpainting | denoiser |
sd2-inpainting/unet | Stable Diffusion 2 | 2 inpainting | denoiser |
sd2_unet/v2-midas-inference | Stable Diffusion 2 | 2 depth | denoiser |
sd2-depth/unet | Stable Diffusion 2 | 2 depth | denoiser |
sd2_unet/v2-1-stable-unclip-h-inference | Stable Diffusion 2 | Stable unCLIP (OpenCLIP-H images) | denoiser |
sd21-unclip-h/unet | Stable Diffusion 2 | Stable unCLIP (OpenCLIP-H images) | denoiser |
sd2_unet/v2-1-stable-unclip-l-inference | Stable Diffusion 2 | Stable unCLIP (CLIP-L images) | denoiser |
sd21-unclip-l/unet | Stable Diffusion 2 | Stable unCLIP (CLIP-L images) | denoiser |
sd2_unet/x4-upscaling | Stable Diffusion x4 upscaler | x4 upscaler | denoiser |
sdx4/unet | Stable Diffusion x4 upscaler | x4 upscaler | denoiser |
sdxl_unet/sd_xl_base | Stable Diffusion XL | base, and fine-tunes | denoiser | eps or v, zero snr
sdxl-base/unet | Stable Diffusion XL | base, and fine-tunes | denoiser | eps or v, zero snr
sdxl_unet/sd_xl_inpainting | Stable Diffusion XL | inpainting | denoiser |
sdxl-inpainting/unet | Stable Diffusion XL | inpainting | denoiser |
sdxl_unet/sd_xl_refiner | Stable Diffusion XL | refiner | denoiser |
sdxl-refiner/unet | Stable Diffusion XL | refiner | denoiser |
ldm_ae/kl-f8 | Stable Diffusion's KL-f8 | of SD 1, 2 or XL, or LDM's | autoencoder | scale
sd/vae-kl-f8 | Stable Diffusion's KL-f8 | of SD 1, 2 or XL, or LDM's | autoencoder | scale
sd2_ae/x4-upscaler | Stable Diffusion x4 upscaler | KL-f4 | autoencoder |
sdx4/vae-kl-f4 | Stable Diffusion x4 upscaler | KL-f4 | autoencoder |
taesd* | TAESD | tiny autoencoder | autoencoder |
clip-vit-l-14/text | CLIP ViT-L/14 | text (SD 1, SDXL's first) | text encoder | layer
clip-vit-l-14/text+proj | CLIP ViT-L/14 | text with projection (SD3, unCLIP) | text encoder | layer
openclip-h/text(23L) | OpenCLIP ViT-H/14 | text, 23 layers (SD 2) | text encoder |
openclip-h/text | OpenCLIP ViT-H/14 | text (SD 2) | text encoder | layer
openclip-h/vision | OpenCLIP ViT-H/14 | images (unCLIP-h) | image encoder |
openclip-l/vision | CLIP ViT-L/14 | images (unCLIP-l) | image encoder |
openclip-bigG/text* | OpenCLIP ViT-bigG/14 | text with projection (SDXL) | text encoder | layer
t5-v1_1-xxl/encoder | T5 v1.1 XXL | encoder | text encoder |
ldm_unet/celeba256 | Latent diffusion (LDM) | CelebA-HQ, FFHQ or LSUN bedrooms 256 | denoiser | which LDM
ldm_unet/ffhq256 | Latent diffusion (LDM) | CelebA-HQ, FFHQ or LSUN bedrooms 256 | denoiser | which LDM
ldm_unet/lsun_beds256 | Latent diffusion (LDM) | CelebA-HQ, FFHQ or LSUN bedrooms 256 | denoiser | which LDM
ldm_unet/768x768 | Latent diffusion (LDM) | retrieval-augmented (RDM) 768 | denoiser |
ldm_unet/* | Latent diffusion (LDM) | @ | denoiser |
ldm_ae/* | Latent diffusion (LDM) | @ | autoencoder |
adm/*classifier | ADM | @ | classifier | qkv order
adm/* | ADM | @ | denoiser | qkv order
iddpm/* | Improved DDPM | @ | denoiser |
ddpm/* | DDPM | @ | denoiser | variance
google/* | DDPM | @ | denoiser | variance
edm/* | EDM | @ | denoiser |
edm2/* | EDM2 | @ | denoiser |
glide/* | GLIDE | @ | denoiser |
karlo/prior | Karlo (unCLIP) | prior | prior |
karlo/* | Karlo (unCLIP) | @ | denoiser |
if/* | DeepFloyd IF | @ | denoiser |
dit/* | DiT | @ | denoiser | DiT or SiT
dit-xl* | DiT | @ | denoiser | DiT or SiT
sit/* | SiT | @ | denoiser | DiT or SiT
lightningdit/* | LightningDiT | @ | denoiser |
jit/* | JiT | @ | denoiser |
pixart/* | PixArt | @ | denoiser |
pixart-* | PixArt | @ | denoiser |
sd3/vae* | Stable Diffusion 3 | 16-channel autoencoder | autoencoder |
sd3/* | Stable Diffusion 3 | @ | denoiser | which SD3
sd3-* | Stable Diffusion 3 | @ | denoiser | which SD3
sd3.5-* | Stable Diffusion 3 | @ | denoiser | which SD3
flux1/ae | FLUX.1 | 16-channel autoencoder | autoencoder |
flux1* | FLUX.1 | @ | denoiser |
flux2/ae | FLUX.2 | autoencoder | autoencoder |
flux2/vae | FLUX.2 | autoencoder | autoencoder |
flux2* | FLUX.2 | @ | denoiser | few steps
zimage/* | Z-Image | @ | denoiser | few steps
z-image/* | Z-Image | @ | denoiser | few steps
"""
_TRANSFORMERS = ("clip-vit", "openclip-h/text(23L)", "openclip-bigG/text+proj", "t5-")
_DIFFUSERS = ("/unet", "/vae", "/transformer", "/vae-kl-f8", "/vae-kl-f4")


@cache
def _rows() -> tuple[tuple[str, ...], ...]:
    lines = (line for line in _TABLE.splitlines() if line)
    return tuple(tuple(cell.strip() for cell in line.split("|")) for line in lines)


def published(name: str) -> Published:
    """What a list of `key_lists` is; every list has a row (a test holds that)."""
    from fnmatch import fnmatchcase

    row = next(row for row in _rows() if fnmatchcase(name, row[0].replace("[", "[[]")))
    variant = name.partition("/")[2] if row[2] == "@" else row[2]
    if variant in ("transformer", "unet"):
        variant = name.partition("/")[0]
    if name.startswith(_TRANSFORMERS):
        layout = "transformers"
    elif name.startswith("openclip"):
        layout = "open_clip"
    else:
        layout = "diffusers" if name.endswith(_DIFFUSERS) or name in ("taesd", "karlo/prior") else "original"
    layout = "diffusers" if name.startswith("google/") else layout
    return Published(row[1], variant, row[3], layout, tuple(q.strip() for q in row[4].split(",") if q.strip()))
