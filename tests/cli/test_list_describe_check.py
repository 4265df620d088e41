"""`zoo list`, `describe`, `check`: what they print, what they refuse, and with which exit code."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from tests.config import toys
from zoo.cli.main import VERBS, Terminated, run
from zoo.config import check as check_module
from zoo.config import describe as describe_module
from zoo.schema import registry as registry_module


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A config of toys, in a process whose registry knows only toys."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(site)
    components = toys.write_package(site)
    for module in (registry_module, check_module, describe_module):
        monkeypatch.setattr(module, "registry", lambda: components)
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(toys.pipeline()))
    return path


def zoo(*arguments):
    return subprocess.run([sys.executable, "-m", "zoo.cli.main", *arguments], capture_output=True, text=True)


def test_list_prints_one_row_a_line_with_tabs_in_a_pipe(mine, capsys):
    assert run(["list", "sampler"]) == 0
    assert capsys.readouterr().out == "sampler\trun\tRuns.\nsampler\twalk\tWalks.\n"
    assert run(["list", "sampler", "w*"]) == 0
    assert capsys.readouterr().out == "sampler\twalk\tWalks.\n"


def test_list_as_json_says_the_same(mine, capsys):
    assert run(["list", "sampler", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(d["kind"], d["name"], d["summary"], d["broken"]) for d in found] == [
        ("sampler", "run", "Runs.", None),
        ("sampler", "walk", "Walks.", None),
    ]


def test_list_on_a_terminal_is_a_table(mine, capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert run(["list", "sampler"]) == 0
    assert "what it is" in capsys.readouterr().out


def test_describe_says_parameters_with_types_and_defaults(mine, capsys):
    assert run(["describe", "sampler/walk"]) == 0
    out = capsys.readouterr().out
    assert "eta: float = 0.0" in out
    assert "Walks." in out
    assert run(["describe", "sampler/walk", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"][1] == {"name": "eta", "type": "float", "default": "0.0"}


def test_describe_knows_pipelines(capsys):
    assert run(["describe", "latent-text2img"]) == 0
    assert "stages" in capsys.readouterr().out


def test_check_says_what_will_be_built(mine, capsys):
    options = ["--set", "stages.0.sampler.steps=8", "--sampler", "run", "--guidance", "2"]
    assert run(["check", str(mine), *options]) == 0
    out = capsys.readouterr().out
    assert "run(steps=8)" in out
    assert "scale=2.0" in out
    assert "ok" in out
    assert run(["check", str(mine), *options, "--json"]) == 0
    resolved = json.loads(capsys.readouterr().out)
    assert resolved["stages"][0]["sampler"] == {"name": "run", "steps": 8}
    assert resolved["stages"][0]["guidance"][0]["scale"] == 2.0


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["list", "smapler"], 2, "did you mean 'sampler'"),
        (["describe", "sampler/wlak"], 2, "did you mean 'walk'"),
        (["check", "nowhere.yaml"], 2, "does not exist"),
        (["check", "MINE", "--set", "stages.0.sampler.eat=1"], 2, "did you mean 'eta'"),
        (["check", "MINE", "--set", "nonsense"], 2, "KEY=VALUE"),
        (["check", "MINE", "--sampler", "rnu"], 2, "did you mean 'run'"),
        (["check", "MINE", "--steps", "many"], 2, "--steps"),
        (["check", "MINE", "--steps", "1000"], 2, "use at most 100"),
        (["check"], 2, "`zoo check` needs CONFIG"),
        (["check", "MINE", "--stesp", "3"], 2, "stesp"),
        (["lsit"], 2, "lsit"),
        (["describe", "sampler/\x1b[2J"], 2, "unknown sampler"),
    ],
)
def test_a_wrong_request_is_one_sentence_on_stderr_and_exit_code_2(mine, capsys, arguments, code, said):
    assert run([str(mine) if a == "MINE" else a for a in arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert said in captured.err
    assert "\x1b" not in captured.err


def test_a_missing_weight_file_is_exit_code_1(mine, capsys, tmp_path):
    card = toys.write_card(tmp_path, "codec", "autoencoder", "codec")
    (tmp_path / "codec.safetensors").unlink()
    assert run(["check", str(mine), "--set", f"stages.0.autoencoder.weights={card}"]) == 1
    assert "is missing" in capsys.readouterr().err


def test_a_traceback_is_shown_with_debug_only(mine, capsys):
    for arguments in (["--debug", "list", "smapler"], ["list", "smapler", "--debug"]):
        assert run(arguments) == 2
        err = capsys.readouterr().err
        assert "Traceback" in err
        assert err.strip().splitlines()[-1].startswith("error: ")


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (Terminated(), 143, "ended by the system"),
        (RuntimeError("boom"), 1, "unexpected RuntimeError: boom"),
        (
            PermissionError(13, "Permission denied", "out.png"),
            1,
            "'out.png': Permission denied; choose another place, or change its permissions [system-refused]",
        ),
    ],
)
def test_other_failures_have_their_exit_codes(monkeypatch, capsys, failure, code, said):
    def fail(*_args, **_kwargs):
        raise failure

    monkeypatch.setattr(describe_module, "listing", fail)
    assert run(["list"]) == code
    err = capsys.readouterr().err
    assert said in err
    assert "Traceback" not in err


@pytest.mark.slow
def test_a_reader_that_leaves_early_hears_no_complaint():
    process = subprocess.Popen(
        [sys.executable, "-m", "zoo.cli.main", "list"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    error = process.stderr.read()
    process.stderr.close()
    process.wait()
    assert error == b""


@pytest.mark.slow
def test_version_and_help_name_the_verbs():
    import zoo as package

    assert zoo("--version").stdout == f"zoo {package.__version__}\n"
    helped = zoo("--help")
    assert helped.returncode == 0
    assert all(verb in helped.stdout for verb in ("list", "describe", "check"))
    assert set(VERBS) >= {"generate", "train", "list", "describe", "check"}
    bare = zoo()
    assert "Usage" in bare.stdout + bare.stderr
    assert bare.stderr == ""
    assert bare.returncode == 0


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code"), [(["list"], 0), (["describe", "schedule/ve"], 0), (["describe", "sampler/é"], 2)]
)
def test_an_ascii_terminal_is_written_to(arguments, code):
    ascii = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-m", "zoo", *arguments], capture_output=True, env=ascii)
    assert done.returncode == code
    assert b"unexpected" not in done.stderr


def test_an_error_of_a_shipped_pipeline_names_it_and_not_where_it_is_installed(capsys):
    assert run(["check", "cascade-text2img", "--sampler", "dpm++"]) == 2
    assert capsys.readouterr().err.startswith("error: cascade-text2img: stages.0.sampler: unknown sampler 'dpm++'")
