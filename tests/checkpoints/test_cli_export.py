import pytest

from zoo.cli.main import run


def test_a_folder_with_something_in_it_is_told_before_anything_is_built(tmp_path, monkeypatch, capsys):
    import zoo

    monkeypatch.setattr(zoo, "build", None)
    (tmp_path / "mine.txt").write_text("mine")
    assert run(["export", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "isn't empty; name a new one" in told
    assert told.count("\n") == 1


@pytest.mark.slow
def test_the_folder_is_written_and_named(tmp_path, monkeypatch, capsys):
    import zoo
    from tests.checkpoints.test_export import make

    monkeypatch.setattr(zoo, "build", lambda *_, **__: make())
    assert run(["export", str(tmp_path / "folder")]) == 0
    assert "from_pretrained" in capsys.readouterr().out
    assert (tmp_path / "folder" / "model_index.json").is_file()


def test_an_unknown_model_is_a_usage_error(tmp_path, capsys):
    assert run(["export", str(tmp_path / "folder"), "--model", "no-such-model"]) == 2
    assert "no-such-model" in capsys.readouterr().err
