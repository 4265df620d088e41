"""Merging, dotted overrides and shortcuts change what they say and nothing else."""

import copy

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import zoo
from tests.config.toys import pipeline, stage
from tests.refusals import refused
from zoo.config.overrides import apply_overrides, apply_shortcuts, merge, override, parse_overrides
from zoo.schema.errors import UsageError
from zoo.schema.plain import to_plain
from zoo.schema.registry import Registry

EMPTY = Registry()
# None of these is a kind, so that no component rule applies.
KEYS = st.sampled_from(["a", "b", "c", "size", "deep"])
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=8
)
TREES = st.dictionaries(KEYS, VALUES, max_size=4)
quick = settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def look(config, path):
    for segment in path.split("."):
        config = config[int(segment)] if isinstance(config, list) else config[segment]
    return config


@pytest.mark.slow
@quick
@given(TREES, TREES)
def test_merge_keeps_the_changes_and_is_idempotent(base, changes):
    before = copy.deepcopy((base, changes))
    merged = merge(base, changes)
    assert merge(merged, changes) == merged
    assert merge(base, {}) == base
    assert merge({}, changes) == changes
    assert set(merged) == set(base) | set(changes)
    assert (base, changes) == before


@pytest.mark.slow
@quick
@given(TREES, TREES, TREES)
def test_merging_mappings_is_associative_where_no_mapping_meets_a_scalar(a, b, c):
    def shape(value):
        return {k: shape(v) for k, v in value.items()} if isinstance(value, dict) else None

    def alike(x, y):
        if isinstance(x, dict) != isinstance(y, dict):
            return False
        return not isinstance(x, dict) or all(alike(x[k], y[k]) for k in x.keys() & y.keys())

    if alike(a, b) and alike(b, c) and alike(a, c):
        assert merge(merge(a, b), c) == merge(a, merge(b, c))


@pytest.mark.slow
@quick
@given(TREES, st.lists(KEYS, min_size=1, max_size=4), SCALARS | st.lists(SCALARS, max_size=3))
def test_an_override_is_read_back_and_leaves_the_rest(tree, segments, value):
    before = copy.deepcopy(tree)
    path = ".".join(segments)
    try:
        changed = override(tree, path, value, EMPTY)
    except UsageError:
        return  # the path runs through a number, a text or a list
    assert look(changed, path) == value
    assert tree == before
    assert {k: v for k, v in changed.items() if k != segments[0]} == {k: v for k, v in tree.items() if k != segments[0]}
    assert override(changed, path, value, EMPTY) == changed


@pytest.mark.slow
@quick
@given(TREES, SCALARS, SCALARS)
def test_overrides_of_different_places_commute_and_of_one_place_the_last_counts(tree, x, y):
    one = apply_overrides(tree, {"left": x, "right": y}, EMPTY)
    other = apply_overrides(tree, {"right": y, "left": x}, EMPTY)
    assert one == other
    assert override(override(tree, "left", x, EMPTY), "left", y, EMPTY) == override(tree, "left", y, EMPTY)


@quick
@given(st.dictionaries(st.text(max_size=12), VALUES, max_size=4) | st.lists(st.text(max_size=20), max_size=4))
def test_any_overrides_give_a_config_or_a_typed_error(components, overrides):
    config = pipeline()
    before = copy.deepcopy(config)
    try:
        changed = apply_overrides(config, overrides, components)
    except UsageError:
        pass
    else:
        assert to_plain(changed) == changed
    assert config == before


@pytest.mark.parametrize(
    ("path", "value", "place", "expected"),
    [
        ("stages.0.sampler.eta", 0.1, "sampler", {"name": "walk", "steps": 20, "eta": 0.1}),
        ("stages.base.sampler.eta", 0.1, "sampler", {"name": "walk", "steps": 20, "eta": 0.1}),
        ("stages.base.sampler", "run", "sampler", {"name": "run", "steps": 20}),
        ("stages.base.sampler.name", "run", "sampler", {"name": "run", "steps": 20}),
        ("stages.base.sampler", {"name": "run", "steps": 3}, "sampler", {"name": "run", "steps": 3}),
        ("stages.base.sampler", {"eta": 0.0}, "sampler", {"name": "walk", "steps": 20, "eta": 0.0}),
        ("stages.base.sampler", {"name": "walk", "eta": 0.0}, "sampler", {"name": "walk", "steps": 20, "eta": 0.0}),
        ("stages.base.sampler.grid.bend", 3, "sampler", {"name": "walk", "steps": 20, "eta": 0.5, "grid": {"bend": 3}}),
        ("stages.0.autoencoder", {"weights": "w"}, "autoencoder", {"weights": "w"}),
        ("stages.0.autoencoder.weights", "w", "autoencoder", {"weights": "w"}),
        ("stages.0.autoencoder.channels", 3, "autoencoder", {"name": "codec", "channels": 3}),
        ("stages.0.guidance.classifier-free.scale", 2, "guidance", [{"name": "classifier-free", "scale": 2}]),
        ("stages.0.guidance.0.scale", 2, "guidance", [{"name": "classifier-free", "scale": 2}]),
        ("stages.0.guidance", [], "guidance", []),
        ("stages.0.size", 32, "size", 32),
    ],
)
def test_overrides_know_components(components, path, value, place, expected):
    assert apply_overrides(pipeline(), {path: value}, components)["stages"][0][place] == expected


def test_naming_a_component_where_weights_stood_replaces_them(components):
    config = pipeline(stage(autoencoder={"weights": "w"}))
    for path, value in (("stages.0.autoencoder", "codec"), ("stages.0.autoencoder.name", "codec")):
        assert apply_overrides(config, {path: value}, components)["stages"][0]["autoencoder"] == {"name": "codec"}


def test_another_autoencoder_inherits_no_facts_of_the_old_one(components):
    config = pipeline(stage(autoencoder={"name": "codec", "channels": 4}))
    changed = apply_overrides(config, {"stages.0.autoencoder": "identity"}, components)
    assert changed["stages"][0]["autoencoder"] == {"name": "identity"}


def test_later_overrides_apply_after_a_swap(components):
    changed = apply_overrides(
        pipeline(), ["stages.0.sampler=run", "stages.0.sampler.steps=1e1", "stages.0.sampler.speed=[1, 3]"], components
    )
    assert changed["stages"][0]["sampler"] == {"name": "run", "steps": 10.0, "speed": [1, 3]}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"stages.1.size": 1}, "override-path-unknown"),
        ({"stages.bsae.size": 1}, "override-path-unknown: base"),
        ({"stages..size": 1}, "override-invalid"),
        ({"": 1}, "override-invalid"),
        ({"stages.0.size.x": 1}, "override-path-unknown: 64"),
        ({"stages.-1.size": 1}, "override-path-unknown"),
        ({1: 1}, "override-invalid"),
        ({"a": {1, 2}}, "config-type-wrong"),
        ({"a": float("nan")}, "config-not-finite"),
        ({".".join("a" * 40): 1}, "override-invalid"),
        (["stages.0.size"], "override-invalid"),
        (["=1"], "override-invalid"),
        (["a=[1"], "yaml-unreadable"),
        (["a=!!python/name:os.system ''"], "yaml-refused"),
        ([5], "override-invalid"),
        ("a=1", "override-invalid"),
    ],
)
def test_a_wrong_override_is_refused_by_a_sentence(components, overrides, said):
    with refused(said, UsageError):
        apply_overrides(pipeline(), overrides, components)


def test_the_same_path_twice_takes_the_place_of_the_last():
    assert list(parse_overrides(["a=1", "b=2", "a=3"]).items()) == [("b", 2), ("a", 3)]


def test_shortcuts_reach_every_stage_that_has_the_slot(components):
    config = pipeline(stage(), stage(name="second", guidance=[], sampler="run"))
    changed = apply_shortcuts(config, {"sampler": "run", "steps": 5, "guidance": 2.0}, components)
    assert [s["sampler"] for s in changed["stages"]] == [{"name": "run", "steps": 5}, {"name": "run", "steps": 5}]
    assert [s["guidance"] for s in changed["stages"]] == [[{"name": "classifier-free", "scale": 2.0}], []]
    assert apply_shortcuts(config, {"sampler": None, "steps": None, "guidance": None}, components) == config


def test_a_shortcut_that_reaches_nothing_or_does_not_exist_is_refused(components):
    with refused("guidance-missing"):
        apply_shortcuts(pipeline(stage(guidance=[])), {"guidance": 2.0}, components)
    with refused("shortcut-unknown", naming="'steps'"):
        apply_shortcuts(pipeline(), {"step": 2}, components)


def test_a_config_that_holds_itself_is_refused():
    config: dict = {}
    config["a"] = config
    with refused("config-too-deep"):
        to_plain(config)
    wide: list = [0] * 30
    for _ in range(6):
        wide = [wide] * 30  # an alias bomb made of Python objects
    with refused("config-too-deep"):
        to_plain({"a": wide})


def test_steps_leave_super_resolution_stages_their_own():
    """50 steps of the first stage are not 50 of stages that take 4 and 2, where more draw no better."""
    stages = zoo.check("cascade-text2img", steps=50)["stages"]
    assert [s["sampler"]["steps"] for s in stages] == [50, 4, 2]
    stages = zoo.check("cascade-text2img", {"stages.sr-64.sampler.steps": 8}, steps=50)["stages"]
    assert [s["sampler"]["steps"] for s in stages] == [50, 8, 2]
    assert zoo.check("upscale-2x", steps=5)["stages"][0]["sampler"]["steps"] == 5
