"""The models in the package load, have cards, and are small."""

from __future__ import annotations

from pathlib import Path

import pytest

import muzero_agent.zoo
from muzero_agent import zoo

MODELS = sorted((Path(muzero_agent.zoo.__file__).parent / "models").iterdir())


def test_there_are_models() -> None:
    assert MODELS


@pytest.mark.parametrize("directory", MODELS, ids=lambda path: path.name)
def test_a_bundled_model(directory: Path) -> None:
    model, card = zoo.load(directory), zoo.card(directory)
    assert card.env == directory.name
    assert card.evaluations
    assert card.command.startswith(("muzero-agent train", "python examples/"))
    assert model.num_timesteps >= card.training_steps
    assert sum(file.stat().st_size for file in directory.iterdir()) <= 5_000_000
    model.predict(model.observation_space.sample(), deterministic=True)
