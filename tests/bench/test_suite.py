"""Suites are checked row by row before anything is loaded; those that come with zoo can be built."""

from __future__ import annotations

import re

import pytest
import torch

from benchmarks import peers
from zoo.assemble import component
from zoo.bench.row_kinds import ROW_KINDS, RowKind
from zoo.bench.suite import comparison_files, folders, random_weights, read_suite, suite_names
from zoo.config.presets import FOLDER
from zoo.schema.errors import ConfigError, UsageError, WeightsError

SHIPPED = (
    "cascade-gpu", "cifar-gpu", "quick", "sd15-gpu", "sdxl-gpu", "shipped",
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
        with pytest.raises(UsageError, match=re.escape("`python -m benchmarks.peers SUITE`")):
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
    with pytest.raises(ConfigError, match="bubble"):
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
    ("change", "said"),
    [
        ({"matrx": []}, "did you mean 'matrix'"),
        ({"kind": "pipeline"}, "did you mean 'pipelines'"),
        ({"matrix": [{"model": "latent-text2im"}]}, "did you mean 'latent-text2img'"),
        ({"matrix": [{"model": "latent-text2img", "smapler": "ddim"}]}, "did you mean 'sampler'"),
        ({"matrix": [{"model": "latent-text2img", "sampler": "huen"}]}, "did you mean 'heun'"),
        ({"matrix": [{"model": "latent-text2img", "precision": "float23"}]}, "did you mean 'float32'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cdua"}]}, "did you mean 'cuda'"),
        ({"matrix": [{"model": "latent-text2img", "fast": {"graph": True}}]}, "did you mean 'graphs'"),
        ({"matrix": [{"model": "latent-text2img", "fast": 2}]}, "true, false or its parts"),
        ({"matrix": [{"model": "latent-text2img", "fast": {"graphs": 1}}]}, r"fast\.graphs is 1; write true or false"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:x"}]}, "unknown device 'cuda:x'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:0:1"}]}, "unknown device 'cuda:0:1'"),
        ({"matrix": [{"model": "latent-text2img", "device": "cuda:"}]}, "unknown device 'cuda:'"),
        ({"matrix": [{"model": "latent-text2img", "device": 3}]}, "unknown device"),
        ({"matrix": [{"model": "latent-text2img", "precision": "float32:1"}]}, "unknown precision 'float32:1'"),
        ({"matrix": [{"model": "latent-text2img", "seconds": float("inf")}]}, "seconds is inf"),
        ({"matrix": [{"model": "latent-text2img", "seconds": float("nan")}]}, "seconds is nan"),
        ({"settings": {"warm_up": 10**9}}, "warm_up is 1000000000; write a whole number from 0 to 1000"),
        ({"settings": {"repeats": 10**9}}, "repeats is 1000000000"),
        ({"settings": {"seed": 2**64}}, "seed is 18446744073709551616"),
        ({"settings": {"quality": {"samples": 10**9}}}, "samples is 1000000000"),
        ({"settings": {"quality": {"hit": 1}}}, "hit is 1; write true or false"),
        ({"settings": {"quality": {"extractor": None}}}, "extractor is null; write a name"),
        ({"settings": {"quality": {"reference": 5}}}, "reference is 5; write a name"),
        ({"matrix": [{"model": "latent-text2img", "step_cache": "deep-feature"}]}, "did you mean 'deep-features'"),
        ({"matrix": [{"model": "latent-text2img", "batch": 0}]}, "batch is 0"),
        ({"matrix": [{"model": "latent-text2img", "steps": 5000}]}, "at most 1000 steps"),
        ({"matrix": [{"model": "latent-text2img", "guidance": "much"}]}, "write a number"),
        ({"matrix": [{"model": "latent-text2img"}, {"model": "latent-text2img"}]}, "asked for twice"),
        ({"matrix": []}, "asks for no row"),
        ({"exclude": [{}]}, "would leave no row"),
        ({"settings": {"repeat": 3}}, "did you mean 'repeats'"),
        ({"settings": {"repeats": 0}}, "whole number from 1"),
        ({"settings": {"quality": {"sample": 3}}}, "did you mean 'samples'"),
        ({"settings": {"prompts": "apple"}}, "list of texts"),
        ({"models": {"latent-text2img": {}}}, "is a preset already"),
        ({"schema": "zoo.suite/9"}, "this zoo reads 'zoo.suite/1'"),
        ({"schema": None}, "says no schema"),
    ],
)
def test_slips_are_told_with_their_mend(change, said):
    with pytest.raises(ConfigError, match=said):
        read_suite(suite(**change))


def test_an_unknown_suite_is_told_with_the_nearest():
    with pytest.raises(UsageError, match="did you mean 'quick'"):
        read_suite("quikc")


def test_a_row_whose_weights_are_missing_is_kept_with_the_reason(monkeypatch):
    def gone(*_, **__):
        raise WeightsError("weights 'emoji-clip': the file is missing", code="weights-missing")

    monkeypatch.setattr("zoo.bench.suite.resolve", gone)
    row = read_suite(suite()).rows[0]
    assert row.config is None
    assert "is missing" in row.reason


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"matrix": 5}, "matrix is 5; write a list"), ({"include": {"model": "latent-text2img"}}, "include is"),
        ({"exclude": 7}, "exclude is 7"), ({"matrix": [5]}, "matrix.0 is 5"), ({"include": [7]}, "include.0 is 7"),
        ({"matrix": [{"model": "latent-text2img", "batch": 10**12}]}, "batch is 1000000000000"),
        ({"matrix": [{"model": "latent-text2img", "size": 10**9}]}, "size is 1000000000"),
        ({"matrix": [{"model": "latent-text2img", "guidance": 1e30}]}, "guidance is 1e"),
        ({"matrix": [{"model": "latent-text2img", "guidance": float("nan")}]}, "guidance is nan"),
        ({"matrix": [{"model": "latent-text2img", "seconds": 0}]}, "seconds is 0"),
        ({"matrix": [{"model": "latent-text2img", "kind": "speed"}]}, "speed"),
        ({"matrix": [{"model": "latent-text2img", "check": "images"}]}, "kind checks"),
        ({"matrix": [{"model": "latent-text2img", "kind": "checks"}]}, "kind checks"),
        ({"matrix": [{"model": "latent-text2img", "kind": "checks", "check": "all"}]}, "all"),
        ({"settings": {"quality": {"metrics": "fd"}}}, "metrics is 'fd'"),
        ({"settings": {"sheets": 1}}, "sheets is 1"),
    ],
)  # fmt: skip
def test_odd_values_are_typed_refusals(change, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        read_suite(suite(**change))


def test_rows_are_counted_before_they_are_written_out():
    matrix = [{"model": "latent-text2img", "batch": list(range(1, 200)), "steps": list(range(1, 200)),
               "size": list(range(1, 400))}]  # fmt: skip
    with pytest.raises(ConfigError, match=r"asks for 15800799 rows"):
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
    with pytest.raises(ConfigError, match="gone"):
        read_suite({"schema": "zoo.suite/1", "matrix": {"model": str(tmp_path / "gone.yaml")}})
