"""Suites are checked row by row before anything is loaded; those that come with zoo can be built."""

from __future__ import annotations

import pytest
import torch

from benchmarks import peers
from tests.refusals import refused
from zoo.assemble import component
from zoo.bench.row_kinds import ROW_KINDS, RowKind
from zoo.bench.suite import comparison_files, folders, random_weights, read_suite, suite_names
from zoo.config.presets import FOLDER
from zoo.schema.errors import ConfigError, UsageError, WeightsError

SHIPPED = (
    "cascade-gpu", "cifar-gpu", "quick", "sd", "sd15-gpu", "sdxl-gpu", "shipped",
)  # fmt: skip


def suite(**keys):
    given = {"schema": "zoo.suite/1", "matrix": [{"model": "latent-text2img"}], **keys}
    return {key: value for key, value in given.items() if value is not None}


def names(read):
    return [row.asked.name for row in read.rows]


def test_the_suites_that_are_promised_are_there():
    assert suite_names() == sorted(SHIPPED)
    assert [f for f in folders() if f.is_dir()]


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_suite_can_be_read_and_says_what_it_answers(name):
    read = read_suite(name)
    assert read.summary.endswith(".")
    assert len({row.id for row in read.rows}) == len(read.rows) > 0


def test_a_comparison_with_other_libraries_is_no_suite_of_zoos_and_the_error_says_who_runs_it():
    assert [path.stem for path in comparison_files()] == ["vs-diffusers", "vs-metrics"]
    for asked in ("vs-diffusers", "vs-nobody", suite(kind="diffusers")):
        with refused("suite-unknown|suite-word-unknown", UsageError, naming="`python -m benchmarks.peers SUITE`"):
            read_suite(asked)


@pytest.mark.parametrize("file", comparison_files(), ids=lambda path: path.stem)
def test_a_comparison_is_read_by_those_who_bring_its_kinds(file):
    read = read_suite(file, kinds=peers.ROW_KINDS)
    assert read.summary.endswith(".")
    assert len({row.id for row in read.rows}) == len(read.rows) > 0


def test_a_kind_of_rows_is_given_and_says_what_its_rows_may_name():
    given = {**ROW_KINDS, "sorting": RowKind(measure="nobody:there", models=("bubble", "quick"))}
    (row,) = read_suite(suite(kind="sorting", matrix=[{"model": "bubble"}]), kinds=given).rows
    assert (row.kind, row.measured, row.config) == ("sorting", given["sorting"], None)
    with refused("suite-word-unknown", naming="bubble"):
        read_suite(suite(kind="sorting", matrix=[{"model": "latent-text2img"}]), kinds=given)


@pytest.mark.slow
def test_every_preset_is_in_the_sweep_of_what_ships():
    from zoo.config.presets import preset_names

    assert {row.asked.model for row in read_suite("shipped").rows} >= set(preset_names())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "stage", "millions"),
    [
        ("sd15-gpu", 0, 859.5), ("sdxl-gpu", 0, 2567.5), ("cifar-gpu", 0, 35.7), ("cascade-gpu", 0, None),
        ("cascade-gpu", 1, None), ("cascade-gpu", 2, None),
    ],
)  # fmt: skip
def test_networks_of_the_gpu_suites_take_and_give_what_their_stages_need(name, stage, millions):
    rows = read_suite(name).rows
    assert all(random_weights(row.config) and row.asked.device == "cuda" for row in rows)
    block = rows[0].config["stages"][stage]
    with torch.device("meta"):
        network = component("network", block["denoiser"]["network"])
        conditioners = rows[0].config["conditioners"].values()
        autoencoder = component("autoencoder", block["autoencoder"])
        side = block["size"] // autoencoder.factor // 4  # a quarter of it says as much
        told = {}
        if "context" in network.reads:
            width = next(c.get("context_width") or c.get("width") or 768 for c in conditioners)
            told["context"] = torch.empty(1, 77, width)
        if "vector" in network.reads:
            told["vector"] = torch.empty(1, 2816)
        if "level" in network.reads:
            told["level"] = torch.empty(1)
        channels = autoencoder.channels + (3 if block["denoiser"].get("low_res") else 0)
        made = network(torch.empty(1, channels, side, side), torch.empty(1), **told)
    assert made.shape == (1, autoencoder.channels, side, side)
    if millions is not None:
        assert round(sum(p.numel() for p in network.parameters()) / 1e6, 1) == millions


def test_a_matrix_is_every_combination_and_include_and_exclude_change_it():
    read = read_suite(
        suite(
            matrix=[{"model": "latent-text2img", "sampler": ["ddim", "dpmpp-2m"], "steps": [5, 10], "batch": 2}],
            include=[{"model": "latent-text2img", "fast": True}],
            exclude=[{"sampler": "ddim", "steps": 10}, {"sampler": "heun"}],
        )
    )
    assert names(read) == [
        "latent-text2img ddim 5 float32 b2 cpu", "latent-text2img dpmpp-2m 5 float32 b2 cpu",
        "latent-text2img dpmpp-2m 10 float32 b2 cpu", "latent-text2img float32 b1 cpu fast",
    ]  # fmt: skip
    assert read.rows[1].config["stages"][0]["sampler"]["steps"] == 5


def test_a_row_is_known_by_all_that_decides_it():
    def ids(**row):
        return [r.id for r in read_suite(suite(matrix=[{"model": "latent-text2img", **row}])).rows]

    assert ids() == ids(precision="float32")
    every = ids(steps=[7, 8], batch=[1, 2], guidance=[1.0, 2.0], step_cache=[None, "deep-features"], fast=[True, False])
    assert len(set(every)) == 32


def test_settings_change_the_hash_of_a_suite_and_not_of_its_rows():
    one, other = read_suite("quick"), read_suite("quick", ["settings.repeats=2"])
    assert other.settings.repeats == 2
    assert one.sha256 != other.sha256
    assert [r.id for r in one.rows] == [r.id for r in other.rows]
    assert read_suite("quick", ["matrix.0.steps=[3]"]).rows[0].asked.steps == 3


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"matrx": []}, "suite-key-unknown: 'matrix'"),
        ({"kind": "pipeline"}, "suite-word-unknown: 'pipelines'"),
        ({"matrix": [{"model": "latent-text2im"}]}, "suite-word-unknown: 'latent-text2img'"),
        ({"matrix": [{"model": "latent-text2img", "smapler": "ddim"}]}, "suite-key-unknown: 'sampler'"),
        ({"matrix": [{"model": "latent-text2img", "sampler": "huen"}]}, "component-unknown: 'heun'"),
        ({"matrix": [{"model": "latent-text2img", "precision": "float23"}]}, "suite-word-unknown: 'float32'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cdua"}]}, "suite-word-unknown: 'cuda'"),
        ({"matrix": [{"model": "latent-text2img", "fast": {"graph": True}}]}, "suite-key-unknown: 'graphs'"),
        ({"matrix": [{"model": "latent-text2img", "fast": 2}]}, "suite-value-invalid"),
        ({"matrix": [{"model": "latent-text2img", "fast": {"graphs": 1}}]}, "suite-value-invalid: fast takes"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:x"}]}, "suite-word-unknown: 'cuda:x'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:0:1"}]}, "suite-word-unknown: 'cuda:0:1'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:"}]}, "suite-word-unknown: 'cuda:'"),
        ({"matrix": [{"model": "latent-text2img", "device": 3}]}, "suite-value-invalid: device"),
        ({"matrix": [{"model": "latent-text2img", "precision": "float32:1"}]}, "suite-word-unknown: 'float32:1'"),
        ({"matrix": [{"model": "latent-text2img", "seconds": float("inf")}]}, "config-not-finite: seconds"),
        ({"matrix": [{"model": "latent-text2img", "seconds": float("nan")}]}, "config-not-finite: seconds"),
        ({"settings": {"warm_up": 10**9}}, "number-out-of-range: warm_up"),
        ({"settings": {"repeats": 10**9}}, "number-out-of-range: repeats"),
        ({"settings": {"seed": -1}}, "seed-invalid: seed"),
        ({"settings": {"quality": {"samples": 10**9}}}, "number-out-of-range: samples"),
        ({"settings": {"quality": {"hit": 1}}}, "suite-value-invalid: hit"),
        ({"settings": {"quality": {"extractor": None}}}, "suite-value-invalid: extractor"),
        ({"settings": {"quality": {"reference": 5}}}, "suite-value-invalid: reference"),
        (
            {"matrix": [{"model": "latent-text2img", "step_cache": "deep-feature"}]},
            "component-unknown: 'deep-features'",
        ),
        ({"matrix": [{"model": "latent-text2img", "batch": 0}]}, "number-out-of-range: batch"),
        ({"matrix": [{"model": "latent-text2img", "steps": 5000}]}, "steps-too-many: 1000"),
        ({"matrix": [{"model": "latent-text2img", "guidance": "much"}]}, "suite-value-invalid"),
        ({"matrix": [{"model": "latent-text2img"}, {"model": "latent-text2img"}]}, "entries-repeated"),
        ({"matrix": []}, "suite-empty"),
        ({"exclude": [{}]}, "suite-empty"),
        ({"settings": {"repeat": 3}}, "suite-key-unknown: 'repeats'"),
        ({"settings": {"repeats": 0}}, "number-out-of-range: repeats"),
        ({"settings": {"quality": {"sample": 3}}}, "suite-key-unknown: 'samples'"),
        ({"settings": {"prompts": "apple"}}, "suite-value-invalid"),
        ({"models": {"latent-text2img": {}}}, "suite-name-taken"),
        ({"schema": "zoo.suite/9"}, "schema-unknown: 'zoo.suite/1'"),
        ({"schema": None}, "schema-missing"),
    ],
)
def test_slips_are_told_with_their_mend(change, refusal):
    with refused(refusal, ConfigError):
        read_suite(suite(**change))


def test_an_unknown_suite_is_told_with_the_nearest():
    with refused("suite-unknown", naming="'quick'"):
        read_suite("quikc")


def test_a_row_whose_weights_are_missing_is_kept_with_the_reason(monkeypatch):
    def gone(*_, **__):
        raise WeightsError("weights 'emoji-base-32-text': the file is missing", code="weights-missing")

    monkeypatch.setattr("zoo.bench.suite.resolve", gone)
    row = read_suite(suite()).rows[0]
    assert row.config is None
    assert "is missing" in row.reason


@pytest.mark.parametrize(
    ("change", "refusal"),
    [
        ({"matrix": 5}, "suite-value-invalid: matrix"),
        ({"include": {"model": "latent-text2img"}}, "suite-value-invalid: include"),
        ({"exclude": 7}, "suite-value-invalid: exclude"), ({"matrix": [5]}, "suite-value-invalid: matrix.0"),
        ({"include": [7]}, "suite-value-invalid: include.0"),
        ({"matrix": [{"model": "latent-text2img", "batch": 10**12}]}, "number-out-of-range: batch"),
        ({"matrix": [{"model": "latent-text2img", "size": 10**9}]}, "number-out-of-range: size"),
        ({"matrix": [{"model": "latent-text2img", "guidance": 1e30}]}, "suite-value-invalid: guidance"),
        ({"matrix": [{"model": "latent-text2img", "guidance": float("nan")}]}, "config-not-finite: guidance"),
        ({"matrix": [{"model": "latent-text2img", "seconds": 0}]}, "number-out-of-range: seconds"),
        ({"matrix": [{"model": "latent-text2img", "kind": "speed"}]}, "suite-word-unknown: speed"),
        ({"matrix": [{"model": "latent-text2img", "check": "images"}]}, "suite-check-misplaced"),
        ({"matrix": [{"model": "latent-text2img", "kind": "checks"}]}, "suite-check-misplaced"),
        ({"matrix": [{"model": "latent-text2img", "kind": "checks", "check": "all"}]}, "suite-word-unknown: all"),
        ({"settings": {"quality": {"metrics": "fd"}}}, "suite-value-invalid: 'fd'"),
        ({"settings": {"sheets": 1}}, "suite-value-invalid: sheets"),
    ],
)  # fmt: skip
def test_odd_values_are_typed_refusals(change, refusal):
    with refused(refusal):
        read_suite(suite(**change))


def test_rows_are_counted_before_they_are_written_out():
    matrix = [{"model": "latent-text2img", "batch": list(range(1, 200)), "steps": list(range(1, 200)),
               "size": list(range(1, 400))}]  # fmt: skip
    with refused("suite-too-long", naming="15800799"):
        read_suite(suite(matrix=matrix))


def test_one_of_several_devices_and_parts_of_the_fast_path_can_be_named():
    row = {"model": "latent-text2img", "device": "cuda:1", "fast": {"graphs": True, "compile": False}}
    asked = read_suite(suite(matrix=[row])).rows[0].asked
    assert (asked.device, asked.fast) == ("cuda:1", {"graphs": True, "compile": False})


def test_a_row_names_a_config_file(tmp_path):
    mine = tmp_path / "mine.yaml"
    mine.write_text((FOLDER / "class2img.yaml").read_text().replace("steps: 40", "steps: 7"))
    suite = read_suite({"schema": "zoo.suite/1", "matrix": {"model": ["class2img", str(mine)]}})
    steps = [row.config["stages"][0]["sampler"]["steps"] for row in suite.rows]
    assert steps == [40, 7]
    with refused("file-missing", ConfigError, naming="gone"):
        read_suite({"schema": "zoo.suite/1", "matrix": {"model": str(tmp_path / "gone.yaml")}})
