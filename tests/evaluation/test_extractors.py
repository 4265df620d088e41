"""Extractors: what they are called, what they need, what they refuse."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image

from tests.checkpoints.test_files import BOMBS
from tests.refusals import refused
from zoo.checkpoints.files import read_tensors
from zoo.evaluation import Unavailable, build_extractor
from zoo.evaluation.extractors.extractor import Named, look
from zoo.evaluation.extractors.inception import WEIGHTS
from zoo.evaluation.extractors.inception_network import InceptionNetwork
from zoo.evaluation.extractors.resize import resize_clean, resize_uint8
from zoo.evaluation.extractors.weight_file import PublishedFile
from zoo.schema.errors import ConfigError, UsageError, WeightsError


def pictures(count=2, size=(24, 40)):
    rng = np.random.default_rng(0)
    return torch.from_numpy(rng.integers(0, 256, (count, 3, *size), dtype=np.uint8))


@pytest.fixture
def nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv("ZOO_INCEPTION_2015", raising=False)
    return tmp_path


def published(data: bytes) -> PublishedFile:
    return PublishedFile(
        purpose="it", names=("first.pth", "second.pth"), sha256=hashlib.sha256(data).hexdigest(), bytes=len(data),
        variable="ZOO_TEST_WEIGHTS",
    )  # fmt: skip


def test_missing_inception_weights_are_named_with_their_hash(nowhere):
    with refused("extractor-unavailable", Unavailable):
        build_extractor("inception-2015")
    with refused("extractor-unavailable", Unavailable):
        build_extractor("inception-2015", weights=str(nowhere / "absent.pth"))


def test_another_file_is_refused_before_it_is_opened(nowhere, monkeypatch):
    path = nowhere / "wrong.pth"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    monkeypatch.setattr(torch, "load", lambda *a, **k: pytest.fail("a file of another hash was opened"))
    monkeypatch.setenv("ZOO_INCEPTION_2015", str(path))
    with refused("weights-hash-wrong", WeightsError):
        build_extractor("inception-2015")


def test_a_published_file_is_found_by_path_variable_and_cache_in_this_order(nowhere, monkeypatch):
    (nowhere / "state.pth").parent.mkdir(exist_ok=True)
    torch.save({"a": torch.ones(2)}, nowhere / "state.pth")
    data = (nowhere / "state.pth").read_bytes()
    file = published(data)
    with refused("extractor-unavailable", Unavailable, naming="first.pth"):
        file.find()
    cached = nowhere / "torch" / "hub" / "checkpoints" / "second.pth"
    cached.parent.mkdir(parents=True)
    cached.write_bytes(data)
    assert file.find() == cached
    own = nowhere / "cache" / "first.pth"
    own.parent.mkdir()
    own.write_bytes(data)
    assert file.find() == own
    monkeypatch.setenv("ZOO_TEST_WEIGHTS", str(nowhere / "state.pth"))
    assert file.find() == nowhere / "state.pth"
    assert file.find(str(cached)) == cached
    assert torch.equal(file.read()["a"], torch.ones(2))


def test_a_pickle_with_code_in_it_runs_nothing(tmp_path):
    path = tmp_path / "hostile.pth"
    path.write_bytes(b"cbuiltins\nexit\n(tR.")
    with refused("weights-not-tensors", WeightsError, naming="it asks for exit"):
        read_tensors(path)
    torch.save([1, 2], path)
    with refused("weights-no-state-dict", WeightsError):
        read_tensors(path)


@pytest.mark.parametrize("name", ["too many tensors", "metadata without end"])
def test_a_header_without_end_is_refused_and_not_parsed(name, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(BOMBS[name]())
    with refused("weights-header-damaged", WeightsError, naming="65536" if name == "too many tensors" else "too many"):
        read_tensors(path)


def test_inception_has_the_published_number_of_weights():
    with torch.device("meta"):
        state = InceptionNetwork().state_dict()
    assert state["fc.weight"].shape == (1008, 2048)
    assert sum(name.endswith("conv.weight") for name in state) == 94
    # 95,628,359 bytes of file are these numbers in float32 and what names them.
    assert 0 < WEIGHTS.bytes - 4 * sum(t.numel() for t in state.values()) < 200_000


def test_the_clean_resize_is_pils_in_float_for_each_channel():
    shown = pictures(1)
    found = resize_clean(shown, 17)
    for channel in range(3):
        image = Image.fromarray(shown[0, channel].numpy().astype(np.float32), mode="F")
        expected = np.asarray(image.resize((17, 17), Image.Resampling.BICUBIC)).clip(0, 255)
        np.testing.assert_array_equal(found[0, channel].numpy(), expected)
    assert (found != found.round()).any(), "not rounded again"


def test_pictures_of_the_right_size_are_not_resized():
    assert torch.equal(resize_uint8(pictures(), (24, 40)), pictures())
    assert resize_uint8(pictures(), (30, 10)).shape == (2, 3, 30, 10)


def test_the_random_network_is_the_same_everywhere_and_another_for_another_seed():
    one, again, other = (build_extractor("random", seed=s, width=8) for s in (0, 0, 1))
    assert one.sha256 == again.sha256 != other.sha256
    assert one.sha256.startswith("37f8a74b")
    assert (one.name, other.name) == ("random-0-8x4-64", "random-1-8x4-64")
    found = one.images(pictures(5))
    assert found.shape == (5, 64)
    torch.testing.assert_close(one.images(pictures(5), batch=2), found, rtol=1e-5, atol=1e-6)
    assert found.std(dim=0).min() > 0


def test_any_backbone_of_timm_is_an_extractor_under_its_name(tmp_path):
    import timm

    torch.manual_seed(0)
    network = timm.create_model("test_resnet", pretrained=False).eval()
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    extractor = build_extractor("timm", model="test_resnet", weights=str(path), size=32)
    assert extractor.name == "timm-test_resnet-32"
    assert extractor.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    shown = pictures(3, (32, 32))
    config = network.pretrained_cfg
    mean, std = (torch.tensor(config[k]).view(1, 3, 1, 1) for k in ("mean", "std"))
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((shown / 255 - mean) / std), pre_logits=True)
    torch.testing.assert_close(extractor.images(shown), expected)
    with refused("weights-hash-wrong", UsageError):
        build_extractor("timm", model="test_resnet", weights=str(path), sha256="0" * 64)
    with refused("extractor-unavailable", Unavailable, naming="random"):
        build_extractor("timm", model="test_resnet")
    with refused("backbone-unknown", ConfigError):
        build_extractor("timm", model="no-such-network", weights=str(path))


@pytest.fixture
def small_dinov2(monkeypatch):
    """timm's DINOv2 of width 32 and depth 2."""
    import timm

    whole = timm.create_model

    def small(name, **said):
        return whole(name, **{"embed_dim": 32, "depth": 2, "num_heads": 2, **said})

    monkeypatch.setattr(timm, "create_model", small)
    torch.manual_seed(0)
    network = small("vit_large_patch14_dinov2", num_classes=0, img_size=70).eval()
    for name, tensor in network.state_dict().items():  # layer scales of 1e-5 would hide the blocks
        tensor.copy_(torch.randn(tensor.shape) * 0.3 + ("norm" in name and name.endswith("weight")))
    return network


@pytest.mark.peer
def test_dinov2_is_its_authors_with_their_way_to_resample_positions(tmp_path, small_dinov2):
    from transformers import Dinov2Config, Dinov2Model

    state = small_dinov2.state_dict()
    path = tmp_path / "dinov2.pth"
    torch.save({**state, "mask_token": torch.zeros(1, 32)}, path)
    extractor = build_extractor("dinov2", weights=str(path))
    assert (extractor.name, extractor.sha256) == ("dinov2-vitl14", hashlib.sha256(path.read_bytes()).hexdigest())
    # Their interpolate_pos_encoding: 5x5 places to 16x16, 0.1 added before the division.
    grid = state["pos_embed"][:, 1:].reshape(1, 5, 5, 32).permute(0, 3, 1, 2)
    grid = torch.nn.functional.interpolate(grid, scale_factor=((16 + 0.1) / 5,) * 2, mode="bicubic")
    assert grid.shape[-2:] == (16, 16)
    theirs = Dinov2Model(Dinov2Config(
        hidden_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=224, patch_size=14, layer_norm_eps=1e-6,
    )).eval()  # fmt: skip
    theirs.load_state_dict(in_transformers_names(state, grid, list(theirs.state_dict())))
    shown = pictures(2, (224, 224))
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = theirs((shown / 255 - mean) / std).pooler_output
    torch.testing.assert_close(extractor.images(shown, batch=1), expected, rtol=1e-4, atol=1e-4)
    assert extractor.images(pictures(1, (30, 50))).shape == (1, 32)
    torch.save({"x": torch.zeros(2)}, path)
    with refused("layout-wrong", WeightsError, naming="pos_embed"):
        build_extractor("dinov2", weights=str(path))
    with refused("extractor-unavailable", Unavailable, naming="dinov2_vitl14_pretrain"):
        build_extractor("dinov2")
    with refused("backbone-unknown", UsageError):
        build_extractor("dinov2", model="vitx")


def in_transformers_names(state, grid, names):
    """A DINOv2 state dict in transformers' names (`names`: they differ by version), with positions of its size."""
    found = {
        "embeddings.mask_token": torch.zeros(1, 32),
        "embeddings.cls_token": state["cls_token"],
        "embeddings.position_embeddings": torch.cat(
            [state["pos_embed"][:, :1], grid.flatten(2).transpose(1, 2)], dim=1
        ),
        "embeddings.patch_embeddings.projection.weight": state["patch_embed.proj.weight"],
        "embeddings.patch_embeddings.projection.bias": state["patch_embed.proj.bias"],
        "layernorm.weight": state["norm.weight"], "layernorm.bias": state["norm.bias"],
    }  # fmt: skip
    for i in range(2):
        ours, to = f"blocks.{i}.", f"encoder.layer.{i}."
        for part in ("weight", "bias"):
            rows = [*state[f"{ours}attn.qkv.{part}"].chunk(3), state[f"{ours}attn.proj.{part}"]]
            # In their order: query, key, value, output.
            attention = [n for n in names if n.startswith(f"{to}attention.") and n.endswith(part)]
            found |= dict(zip(attention, rows, strict=True))
            for name in ("norm1", "norm2", "mlp.fc1", "mlp.fc2"):
                found[f"{to}{name}.{part}"] = state[f"{ours}{name}.{part}"]
        for n in (1, 2):
            found[f"{to}layer_scale{n}.lambda1"] = state[f"{ours}ls{n}.gamma"]
    return found


def test_timms_own_dinov2_is_another_extractor(tmp_path, small_dinov2):
    path = tmp_path / "dinov2.pth"
    state = small_dinov2.state_dict()
    torch.save({**state, "pos_embed": torch.randn(1, 1 + 37 * 37, 32)}, path)  # as timm's, for 518 pixels
    ours, timms = (
        build_extractor("dinov2", model="vits14", weights=str(path)),
        build_extractor("timm", model="vit_small_patch14_dinov2", weights=str(path), size=224),
    )
    assert timms.name == "timm-vit_small_patch14_dinov2-224"
    shown = pictures(1, (40, 40))
    assert ours.images(shown).shape == timms.images(shown).shape == (1, 32)
    assert (ours.images(shown) - timms.images(shown)).abs().max() > 1e-3


TINY = {
    "embed_dim": 8,
    "vision_cfg": {"image_size": 16, "layers": 1, "width": 64, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 1, "layers": 1},
}


@pytest.mark.peer
def test_a_clip_of_open_clip_gives_unit_embeddings_of_pictures_and_captions(tmp_path, monkeypatch):
    import open_clip

    torch.manual_seed(0)
    model = open_clip.CLIP(8, open_clip.CLIPVisionCfg(**TINY["vision_cfg"]), open_clip.CLIPTextCfg(**TINY["text_cfg"]))
    path = tmp_path / "clip.pt"
    torch.save(model.state_dict(), path)
    known = dict(open_clip.factory._MODEL_CONFIGS) | {"tiny": TINY}
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", known)
    extractor = build_extractor("openclip", model="tiny", weights=str(path))
    shown = pictures(3, (16, 16))
    mean, std = (
        torch.tensor(v).view(1, 3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        expected = model.eval().encode_image((shown / 255 - mean) / std, normalize=True)
        words = model.encode_text(open_clip.tokenize(["a cat"]), normalize=True)
    torch.testing.assert_close(extractor.images(shown), expected)
    torch.testing.assert_close(extractor.texts(["a cat"]), words)
    assert extractor.name == "openclip-tiny"


def test_only_uint8_pictures_are_shown_and_only_layers_that_there_are():
    extractor = build_extractor("random", width=4)
    with refused("image-shape-wrong", UsageError):
        look(extractor, torch.rand(1, 3, 8, 8))
    with refused("layer-unknown", UsageError, naming="logits"):
        look(extractor, pictures(), ("logits",))


def test_an_extractor_without_captions_says_so():
    with refused("text-tower-missing", UsageError):
        Named(extractor=build_extractor("random", width=4), name="x", sha256="0").texts(["a"])
