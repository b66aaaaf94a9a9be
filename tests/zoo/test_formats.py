"""A directory of every format version that was ever released, which loads as it did then."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from muzero_agent import zoo
from muzero_agent.zoo.cards import FORMAT_VERSION

FORMATS = Path(__file__).parent / "formats"
OBSERVATIONS = np.linspace(-1, 1, 12).reshape(3, 4).astype(np.float32)
PRIOR = [[0.6749, 0.3251], [0.8151, 0.1849], [0.8921, 0.1079]]
VALUE = [-8.5604, 2.0763, 4.6474]


def test_every_version_has_its_directory() -> None:
    assert {path.name for path in FORMATS.iterdir()} == set(map(str, range(1, FORMAT_VERSION + 1)))


@pytest.mark.parametrize("version", range(1, FORMAT_VERSION + 1))
def test_a_version(version: int, tmp_path: Path) -> None:
    directory = FORMATS / str(version)
    assert json.loads((directory / "config.json").read_text())["format_version"] == version
    exported = zoo.export(directory, tmp_path / "new")
    assert json.loads((exported / "config.json").read_text())["format_version"] == FORMAT_VERSION
    zoo.verify(exported)
    for place in (directory, exported):
        model = zoo.load(place)
        plan = model.plan(OBSERVATIONS)
        np.testing.assert_allclose(plan.prior, PRIOR, atol=1e-3)
        np.testing.assert_allclose(plan.value, VALUE, atol=1e-3)
        assert not model.policy.network.support.of_scalars  # they do not say, and were made so
        assert (model.num_timesteps, model.num_simulations) == (32, 4)
        card = zoo.card(place)
        assert (card.env, card.evaluations[0].mean) == ("CartPole-v1", 9.5)
        zoo.load(place, env="CartPole-v1", learning_starts=0).learn(2)


def test_versions_do_not_mix(tmp_path: Path) -> None:
    """Without its manifest a directory of version 2 is none of version 1, nor the other way."""
    shutil.copytree(FORMATS / "2", tmp_path / "two")
    (tmp_path / "two" / "manifest.json").unlink()
    with pytest.raises(zoo.UnsupportedModelError, match=r"needs a manifest\.json"):
        zoo.load(tmp_path / "two")
    shutil.copytree(FORMATS / "1", tmp_path / "one")
    weights = tmp_path / "one" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(zoo.DamagedModelError, match="hash differs"):
        zoo.load(tmp_path / "one")
