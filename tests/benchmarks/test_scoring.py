"""All scores of a generator's images, on a toy judge; the colour requests; what makes a judge valid."""

import csv
import hashlib
import json
import lzma
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import zoo
from benchmarks import blind, colour_requests, hit_score, judge, other_hand, scoring
from zoo.config.cards import read_card
from zoo.evaluation.metrics.colour import COLOURS

ROWS = Path(__file__).resolve().parents[2] / "recipes/emoji/rows.csv.xz"
THINGS = ("red apple", "boat", "cat", "drum", "egg", "fish")
STYLES = ("flat style", "line style")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """72 random images of six things in two styles; the first test image is a training image."""
    root = tmp_path_factory.mktemp("scoring")
    draw, rows, arrays = np.random.default_rng(0), [], []
    for i in range(72):
        split = ("train", "val", "test")[i % 3]
        name, style = THINGS[i // 3 % 6], STYLES[i // 18 % 2]
        rows.append({
            "file_name": f"{i}.png", "text": f"{name}, {style}", "name": name, "concept": name, "keywords": [],
            "split": split,
        })  # fmt: skip
        arrays.append(draw.integers(0, 256, (128, 128, 3), dtype=np.uint8) if i != 2 else arrays[0])
        Image.fromarray(arrays[-1]).save(root / f"{i}.png")
    (root / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    return root


@pytest.fixture(scope="module")
def evaluator(data, tmp_path_factory):
    recipe = {
        "schema": "zoo.recipe/1", "name": "toy-judge", "data": {"name": "image-folder", "path": str(data), "size": 32},
        "objective": {"name": "clip-contrastive", "ship": "extractor", "against": "concepts"},
        "network": {
            "name": "clip", "embed_dim": 8, "image_size": 32, "image_blocks": "basic", "image_width": [8],
            "image_layers": [1], "text_width": 16, "text_heads": 2, "text_layers": 1, "context_length": 12,
        },
        "train": {"steps": 2, "batch_size": 8, "precision": "fp32", "seed": 3},
    }  # fmt: skip
    folder = tmp_path_factory.mktemp("judge")
    (folder / "toy.yaml").write_text(yaml.safe_dump(recipe))
    return str(zoo.train(folder / "toy.yaml", folder=folder / "run").card)


@pytest.fixture(scope="module")
def scorer(data, evaluator):
    return scoring.Scorer(str(data), split="test", count=100, evaluator=evaluator)


@pytest.mark.slow
def test_look_alikes_leave_and_real_images_reach_the_ceiling(scorer):
    assert len(scorer.rows) == len(scorer.captions) == 23
    assert scorer.rule["look_alikes"]["left_out"] == 1
    assert "2.png" not in [scorer.split.rows[i]["file_name"] for i in scorer.rows]
    values = scorer.score(scorer.real_images())
    assert values["generated"] == values["ceiling"] == values["ceiling_same_size"]
    assert values["fd"]["value"] == pytest.approx(0.0, abs=1e-4)
    assert values["similarity_to_nearest_training"]["generated"] == values["similarity_to_nearest_training"]["real"]
    assert set(values["generated"]["intervals"]) == {"concept_at_1", "concept_at_5", "style"}
    for name, (low, high) in values["generated"]["intervals"].items():
        assert low <= values["generated"][name] <= high
    assert "colour" not in values


@pytest.mark.slow
def test_the_same_rows_are_drawn_for_as_by_zoo_evaluate(scorer, data):
    from zoo.evaluation.inputs.sources import open_source

    kept = open_source(f"{data}:test-unlike-train", size=32).rows
    order = scoring.stream(0, "captions").permutation(len(kept))
    assert scorer.captions == [kept[int(i)]["text"] for i in order]


def test_colours_are_scored_beside_those_of_real_images(scorer):
    paint = {"red": (220, 30, 30), "blue": (0, 0, 255), "black": (0, 0, 0)}
    requests = colour_requests.requests()
    coloured = torch.full((len(requests), 3, 32, 32), 255, dtype=torch.uint8)
    for i, request in enumerate(requests):
        if request["colour"] in paint:
            coloured[i, :, 8:24, 8:24] = torch.tensor(paint[request["colour"]], dtype=torch.uint8)[:, None, None]
    found = scorer.score(scorer.real_images(), coloured)["colour"]
    assert found["generated"]["rate"] == 0.3
    assert found["generated"]["by_colour"]["blue"] == 1.0
    assert found["generated"]["by_colour"]["green"] == 0.0
    assert found["real"]["count"] == 12  # the red apples


def test_another_number_of_images_is_refused(scorer):
    with pytest.raises(ValueError, match="one for each"):
        scorer.score(scorer.real_images()[:3])


def test_a_pipeline_is_scored_into_a_record(scorer, data, evaluator, tmp_path, monkeypatch):
    class Pipe:
        record: ClassVar = {
            "config": {"name": "toy", "stages": [{"size": 32, "sampler": "none", "guidance": []}]},
            "config_sha256": "0" * 64, "weights": {},
        }  # fmt: skip

        def __call__(self, captions, *, seed, batch_size, callback):
            assert seed == 0
            return type("Made", (), {"tensor": torch.rand(len(captions), 3, 32, 32)})

    monkeypatch.setattr(zoo, "build", lambda name, overrides=None: Pipe())
    out = tmp_path / "record.json"
    arguments = ["x", "--data", str(data), "--evaluator", evaluator, "--count", "7", "--json", str(out), "--pipeline"]
    monkeypatch.setattr("sys.argv", [*arguments, "toy"])
    hit_score.main()
    made = json.loads(out.read_text())
    assert (made["settings"]["count"], made["settings"]["colour_requests"]) == (7, 100)
    assert made["values"]["generated"]["count"] == 7
    assert made["weights"] == {"toy-judge": read_card(evaluator).sha256}


def test_the_colour_requests_are_a_hundred_that_no_name_says():
    requests = colour_requests.requests()
    with lzma.open(ROWS, "rt", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {colour_requests.normalised(row["name"]) for row in rows}
    assert len({r["caption"] for r in requests}) == 100
    assert set(Counter(r["colour"] for r in requests).values()) == {10}
    for request in requests:
        assert request["caption"] == f"{request['colour']} {request['thing']}, {request['style']}"
        assert colour_requests.normalised(f"{request['colour']} {request['thing']}") not in names
        assert colour_requests.normalised(request["thing"]) in names
        assert request["colour"] in COLOURS


def test_reserved_names_are_found_anywhere_in_a_request():
    hashes = frozenset({hashlib.sha256(b"blue teapot").hexdigest()})
    assert colour_requests.is_reserved("A blue  Teapot, 3d style", hashes)
    assert not colour_requests.is_reserved("blue kite", hashes)
    row = {"name": "teapot", "text": "teapot, 3d style", "split": "train"}
    others = [{"name": t, "text": f"{t}, 3d style", "split": "train"} for t in colour_requests.THINGS if t != "teapot"]
    made = colour_requests.make([row, *others], hashes)
    assert len(made) == 100
    assert "blue teapot" not in {f"{m['colour']} {m['thing']}" for m in made}


def test_icons_are_concepts_by_their_names():
    rows = [
        {"name": "fox", "concept": "fox"}, {"name": "man artist", "concept": "artist"},
        {"name": "woman’s hat", "concept": "woman’s hat"}, {"name": "dizzy", "concept": "dizzy"},
        {"name": "keycap", "concept": "keycap 1"}, {"name": "keycap", "concept": "keycap 2"},
    ]  # fmt: skip
    icons = ["fox-face-2", "fox-face-1", "man-artist-1", "womans-hat", "dizzy-face", "keycap", "unknown"]
    assert other_hand.concepts_of_icons(icons, rows) == {
        "artist": "man-artist-1", "fox": "fox-face-1", "woman’s hat": "womans-hat",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("answers", "named"),
    [
        (["a cityscape at dusk"], True),
        (["ship", "cityscape"], True),
        (["sunset city at dusk"], True),
        (["city"], False),
        (["sunset"], False),
        (["cityscape by the sea"], False),
        ([], False),
    ],
)
def test_an_answer_names_the_concept_or_not(answers, named):
    row = {"name": "cityscape at dusk", "concept": "cityscape at dusk", "keywords": ["city", "sunset", "building"]}
    assert blind.names_the_concept(answers, row, [row]) is named


def test_generic_words_name_nothing():
    row = {"name": "confused face", "concept": "confused face", "keywords": ["face", "unsure"]}
    assert not blind.names_the_concept(["face"], row, [row])
    assert blind.names_the_concept(["confused"], row, [row])


def test_what_is_picked_from_the_list_is_a_name_of_the_concept_and_no_word_of_it():
    rows = [{"name": f"{who} kneeling", "concept": "kneeling"} for who in ("man", "person", "woman")]
    rows.append({"name": "cityscape at dusk", "concept": "cityscape at dusk"})
    assert blind.listed(rows) == {"cityscape at dusk": "cityscape at dusk", "kneeling": "person kneeling"}
    assert blind.picks_the_concept(["x", "Man kneeling"], rows[2], rows)
    assert blind.picks_the_concept(["kneeling"], rows[2], rows)
    assert not blind.picks_the_concept(["cityscape"], rows[3], rows)


def test_a_reader_who_is_asked_for_a_style_hits_with_it_alone(data, evaluator, tmp_path):
    validation = scoring.Scorer(str(data), split="val", count=100, evaluator=evaluator)
    rows = [validation.split.rows[i] for i in validation.rows[:4]]
    images = [validation.split.image(i) for i in validation.rows[:4]]
    Image.fromarray(np.concatenate(images, axis=2).transpose(1, 2, 0)).save(tmp_path / "images.webp", lossless=True)
    key = [{"pipeline": "toy", "row": i, "size": 128} for i in validation.rows[:4]]
    (tmp_path / "key.json").write_text(json.dumps(key))
    own = [row["text"].rpartition(", ")[2] for row in rows]
    other = next(s for s in validation.judge.styles if s != own[3])
    lines = [
        f"{n},{row['name']},{style}" for n, (row, style) in enumerate(zip(rows, [*own[:3], other], strict=True), 1)
    ]
    (tmp_path / "answers.csv").write_text("number,names,style\n" + "\n".join(lines))
    found = judge.agreement(validation.judge, tmp_path, validation)
    assert [image["reader_hit"] for image in found["images"]] == [True, True, True, False]
    assert found["both"] + found["reader_only"] == 3
    assert found["of_concepts"]["both"] + found["of_concepts"]["reader_only"] == 4
    assert found["of_styles"]["both"] + found["of_styles"]["reader_only"] == 3
    (tmp_path / "answers.csv").write_text("number,names,style\n" + "\n".join(lines[:3]) + "\n4,x,cubist\n")
    with pytest.raises(SystemExit, match=r"none of the styles for \[4\]"):
        judge.agreement(validation.judge, tmp_path, validation)


def test_agreement_is_held_against_chance():
    told = judge.same([True, True, False, False], [True, False, True, False])
    assert (told["both"], told["reader_only"], told["judge_only"], told["neither"]) == (1, 1, 1, 1)
    assert (told["agreement"], told["kappa"]) == (0.5, 0.0)
    assert judge.same([True, False], [True, False])["kappa"] == 1.0


def test_a_judge_falls_where_each_level_is_no_better_and_the_last_clearly_worse():
    def levels(*values):
        return [(v, (v - 0.05, v + 0.05)) for v in values]

    assert judge.falls(levels(0.8, 0.82, 0.5, 0.2))
    assert not judge.falls(levels(0.8, 0.5, 0.6, 0.2))
    assert not judge.falls(levels(0.8, 0.8, 0.78, 0.75))


def test_distortions_grow_by_level():
    images = torch.full((2, 3, 128, 128), 255, dtype=torch.uint8)
    images[:, 0, 30:90, 30:90] = 20
    for name, (distort, amounts) in judge.DISTORTIONS.items():
        apart = [(distort(images, a).float() - images).abs().mean() for a in amounts]
        assert apart[0] == 0
        assert apart == sorted(apart) or name == "hue"
    few, more = judge.cut_out(images, 4), judge.cut_out(images, 8)
    assert torch.equal((few == 128) & (more == 128), few == 128)


def test_no_preset_recipe_or_card_leans_on_the_shipped_judge():
    found = judge.apart(read_card("emoji-evaluator"))
    assert found["holds"], found


def test_a_reader_and_a_judge_are_compared(data, evaluator, tmp_path):
    validation = scoring.Scorer(str(data), split="val", count=100, evaluator=evaluator)
    rows = [validation.rows[i] for i in range(4)]
    images = [validation.split.image(i) for i in rows]
    Image.fromarray(np.concatenate(images, axis=2).transpose(1, 2, 0)).save(tmp_path / "images.webp", lossless=True)
    key = [{"pipeline": "toy", "row": i, "size": 128} for i in rows]
    (tmp_path / "key.json").write_text(json.dumps(key))
    names = [validation.split.rows[i]["name"] for i in rows]
    (tmp_path / "answers.csv").write_text("number,names\n" + "".join(f"{n},{a}; x\n" for n, a in enumerate(names, 1)))
    found = judge.agreement(validation.judge, tmp_path, validation)
    assert found["count"] == found["both"] + found["reader_only"] == 4
    assert found["agreement"] == found["both"] / 4
    seen = [image["concept_at_5"] for image in found["images"]]
    assert found["of_concepts"]["agreement"] == sum(seen) / 4
    (tmp_path / "answers.csv").write_text("number,names\n1,x\n2,\n3,x\n4,x\n")
    with pytest.raises(SystemExit, match="no answer for"):
        judge.agreement(validation.judge, tmp_path, validation)
