"""Which model a name means."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from muzero_agent import zoo
from muzero_agent.zoo.bundled import MODELS, bundled

WHOLE = Path(__file__).parent / "formats" / "2"


def test_models_of_the_package(caplog: pytest.LogCaptureFixture) -> None:
    entries = zoo.available()
    assert [entry.name for entry in entries] == bundled()
    for entry in entries:
        card = zoo.card(entry.name)
        assert (entry.env, entry.licence, entry.evaluations) == (
            card.env,
            card.licence,
            card.evaluations,
        )
        files = (MODELS / entry.name).iterdir()
        assert entry.num_bytes == sum(file.stat().st_size for file in files)
    with caplog.at_level(logging.INFO, "muzero_agent.zoo"):
        zoo.load("tictactoe")
    assert f"tictactoe: a model of the package, {MODELS / 'tictactoe'}" in caplog.text


def test_a_stray_directory_shadows_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is meant by its path alone."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WHOLE, "tictactoe")
    assert zoo.card("tictactoe").env == "tictactoe"
    with caplog.at_level(logging.INFO, "muzero_agent.zoo"):
        for path in ("./tictactoe", Path("tictactoe"), tmp_path / "tictactoe"):
            assert zoo.card(path).env == "CartPole-v1"
    assert caplog.text.count(f"a directory, {tmp_path / 'tictactoe'}") == 3


def test_a_directory_goes_before_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing else is tried when it turns out to be no model."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WHOLE, "org/model")
    zoo.load("org/model")
    (tmp_path / "org" / "model" / "config.json").unlink()
    with pytest.raises(zoo.ModelNotFoundError, match=r"org/model has no config\.json"):
        zoo.load("org/model")


def test_a_directory_may_be_called_like_a_revision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WHOLE, "org/model@best")
    assert zoo.card("org/model@best").env == "CartPole-v1"


def test_trust_is_no_way_round_a_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    (tmp_path / "org" / "model").write_bytes(b"PK")
    with pytest.raises(zoo.ModelNotFoundError, match="is not in the cache"):
        zoo.load("org/model", revision="0" * 40, trust=True, local_files_only=True)


def test_a_revision_means_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever lies here under that name."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(WHOLE, "org/model")
    for name, revision in (("org/model", "0" * 40), (f"org/model@{'0' * 40}", None)):
        with pytest.raises(zoo.ModelNotFoundError, match="is not in the cache"):
            zoo.load(name, revision=revision, local_files_only=True, cache_dir=tmp_path / "cache")
    others: tuple[str | Path, ...] = ("tictactoe", "./org/model/x", tmp_path / "org" / "model")
    for other in others:
        with pytest.raises(ValueError, match="is of a repository on the hub"):
            zoo.load(other, revision="0" * 40)


def test_a_home_directory_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copytree(WHOLE, tmp_path / "model")
    zoo.load("~/model")


def test_what_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(zoo.ModelNotFoundError, match="did you mean tictactoe"):
        zoo.load("tic-tac-toe")
    with pytest.raises(zoo.ModelNotFoundError, match=r"package \(.*connect_four"):
        zoo.load(tmp_path / "x")
    for name in ("./tictactoe", "", None, "~nosuchuser/x", "x" * 5000, "a\0b"):
        with pytest.raises(zoo.ModelNotFoundError, match=r"does not exist|is no name of a model"):
            zoo.load(name)  # type: ignore[arg-type]


def test_a_zip_beside_is_pointed_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.zip").write_bytes(b"PK")
    with pytest.raises(zoo.ModelNotFoundError, match=r"load\('mine.zip', trust=True\)"):
        zoo.load("mine")


def test_wrong_arguments_are_no_damage() -> None:
    with pytest.raises(TypeError, match="did you mean num_simulations"):
        zoo.load("cartpole", num_simulation=3)
    with pytest.raises(ValueError, match=r"^num_simulations=0: give a whole number"):
        zoo.load("cartpole", num_simulations=0)
    with pytest.raises(ValueError, match=r"^buffer_size=None: give a value"):
        zoo.load("cartpole", buffer_size=None)
    assert zoo.load("tictactoe", td_steps=None, gamma=None).gamma == 1.0


def test_what_is_no_card(tmp_path: Path) -> None:
    model = zoo.load("cartpole")
    for card in ("hello", {"name": "x"}):
        with pytest.raises(TypeError, match=r"give a zoo\.Card"):
            zoo.save(model, tmp_path / "x", card=card)  # type: ignore[arg-type]
        with pytest.raises(TypeError, match=r"give a zoo\.Card"):
            zoo.export("cartpole", tmp_path / "x", card=card)  # type: ignore[arg-type]
    assert not (tmp_path / "x").exists()
    plain = zoo.save(model, tmp_path / "plain")
    with pytest.raises(zoo.ModelNotFoundError, match=r"card\.json: nobody said.*card=\.\.\."):
        zoo.card(plain)


def test_a_copy_is_the_same(tmp_path: Path) -> None:
    copy = zoo.export("tictactoe", tmp_path / "mine")
    assert [file.name for file in zoo.verify(copy)] == [
        "README.md",
        "card.json",
        "config.json",
        "model.safetensors",
    ]
    assert zoo.card(copy) == zoo.card("tictactoe")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not a model directory"):
        zoo.export("tictactoe", tmp_path / "full")


def test_a_copy_in_half_precision(tmp_path: Path) -> None:
    """Is what `save` makes of the same model; a model from before a loss existed gets no layers."""
    half = zoo.export(WHOLE, tmp_path / "half", dtype="float16", num_simulations=9)
    saved = zoo.save(zoo.load(WHOLE), tmp_path / "saved", dtype="float16")
    names = [path / "model.safetensors" for path in (half, saved)]
    ours, theirs = map(load_file, names)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert zoo.load(half).num_simulations == 9
    before, after = (
        load_file(path / "model.safetensors")
        for path in (MODELS / "chess", zoo.export("chess", tmp_path / "chess", dtype="float32"))
    )
    assert before.keys() == after.keys()
    again = zoo.export(tmp_path / "chess", tmp_path / "chess", dtype="float16")  # onto itself
    assert (again / "model.safetensors").stat().st_size < 3_000_000
    restored = load_file(again / "model.safetensors")
    assert all(torch.equal(restored[name], before[name]) for name in before)
    wrongs: list[dict[str, Any]] = [{"dtype": "int8"}]
    wrongs += [{"num_simulations": number} for number in (0, 200_000, 5.5)]
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"int8|num_simulations="):
            zoo.export(WHOLE, tmp_path / "x", **wrong)
    assert not (tmp_path / "x").exists()
