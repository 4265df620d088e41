"""Wrong words on the command line: plain sentences with codes, and suggestions that are meant."""

import json

import pytest

from zoo.cli.main import run
from zoo.schema.unknown import unknown

ASKED = {
    "generate apple --seed abc": "--seed takes a whole number, not 'abc' [option-value-invalid]",
    "generate apple --steps 3.5": "--steps takes a whole number, not '3.5'",
    "generate apple --guidance x": "--guidance takes a number, not 'x'",
    "generate apple -n 0": "-n takes a whole number of 1 or more, not '0'",
    "generate apple --threads 99999": "--threads takes a whole number of 4096 or less, not '99999'",
    "convert a b --shard-gib -1": "--shard-gib takes a number of 0 or more, not '-1'",
    "new txt2img f": "unknown STARTER 'txt2img', did you mean 'text2img'?",
    "new": "`zoo new` needs STARTER (text2img: a model of one's own; lora",
    "evaluate": "`zoo evaluate` needs A (Generated: a folder, zip, DATA:SPLIT, or a pipeline); see",
    "generate apple --sede 3": "`zoo generate` has no option --sede, did you mean --seed?",
    "generate --nosuch": "`zoo generate` has no option --nosuch; see zoo generate --help [option-unknown]",
    "generate apple --seed": "--seed needs a value [option-value-invalid]",
    "generate apple --grid=yes": "--grid takes no value",
    "describe a b c": "`zoo describe` takes no more words, and 'b c' is left; quote what has spaces",
    "lst": "unknown command 'lst', did you mean 'list'?",
    "data chek": "unknown command 'chek', did you mean 'check'? (there are check, pack) [command-unknown]",
    "plot": "`zoo plot` needs one of schedule, noising, grid, trajectory",
}


@pytest.mark.parametrize("words", ASKED)
def test_a_wrong_word_is_a_plain_sentence_with_a_code(words, capsys):
    assert run(words.split()) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {ASKED[words]}")
    for foreign in ("Input should be", "Value error", "Invalid value", "Missing argument"):
        assert foreign not in said


def test_with_json_there_is_an_object(capsys):
    assert run(["generate", "apple", "--seed", "abc", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["code"] == "option-value-invalid"


@pytest.mark.parametrize(
    ("asked", "meant"),
    [("dpm++", "dpmpp-2m"), ("DPM++ 2M", "dpmpp-2m"), ("euler_a", "euler-ancestral"), ("k_euler", "euler"),
     ("DDIM", "ddim"), ("ddmi", "ddim"), ("lcn", "lcm")],
)  # fmt: skip
def test_a_name_as_others_write_it_is_found(asked, meant):
    names = ["ddim", "ddpm", "dpmpp-2m", "dpmpp-2m-sde", "dpmpp-sde", "euler", "euler-ancestral", "lcm", "lms"]
    assert f"did you mean '{meant}'?" in unknown("sampler", asked, names)


def test_kinds_are_found_in_the_plural(capsys):
    for plural, kind in (("pipelines", "pipeline"), ("families", "family"), ("step-caches", "step_cache"),
                         ("Samplers", "sampler"), ("weights", "weights")):  # fmt: skip
        assert run(["list", plural]) == 0
        found = {line.split("\t")[0] for line in capsys.readouterr().out.splitlines()}
        assert found == {kind}
    assert run(["describe", "samplers/ddim"]) == 0
