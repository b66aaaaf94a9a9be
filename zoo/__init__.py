"""Pretrained models: their cards, and a loader that never runs anybody's code.

    from muzero_agent import zoo
    zoo.save(model, "my-model", card=zoo.Card(...))
    model = zoo.load("my-model")

The folder stands at the top of the repository and installs as `muzero_agent.zoo`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muzero_agent.zoo.cards import Card, Evaluation
    from muzero_agent.zoo.directory import load, read_card, save

__all__ = ["Card", "Evaluation", "load", "read_card", "save"]

_HOME = {
    "Card": "muzero_agent.zoo.cards",
    "Evaluation": "muzero_agent.zoo.cards",
    "load": "muzero_agent.zoo.directory",
    "read_card": "muzero_agent.zoo.directory",
    "save": "muzero_agent.zoo.directory",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
