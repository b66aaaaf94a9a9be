"""Pretrained models: their cards, and a loader that never runs anybody's code.

    from muzero_agent import zoo
    zoo.available()                                          # what comes with the package
    model = zoo.load("connect_four")
    model = zoo.load("org/repo", revision="<commit>")        # from the Hugging Face Hub
    zoo.save(model, "my-model", card=zoo.Card(...))
    model = zoo.load("my-model")

The folder stands at the top of the repository and installs as `muzero_agent.zoo`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muzero_agent.zoo.cards import Card, Evaluation
    from muzero_agent.zoo.directory import save
    from muzero_agent.zoo.errors import (
        DamagedModelError,
        HubError,
        ModelError,
        ModelNotFoundError,
        UnsupportedModelError,
        UntrustedModelError,
    )
    from muzero_agent.zoo.loader import (
        Checked,
        Entry,
        available,
        card,
        export,
        load,
        push,
        verify,
    )

__all__ = [
    "Card",
    "Checked",
    "DamagedModelError",
    "Entry",
    "Evaluation",
    "HubError",
    "ModelError",
    "ModelNotFoundError",
    "UnsupportedModelError",
    "UntrustedModelError",
    "available",
    "card",
    "export",
    "load",
    "push",
    "save",
    "verify",
]

_NAMES = {
    "cards": ["Card", "Evaluation"],
    "directory": ["save"],
    "errors": [
        "DamagedModelError",
        "HubError",
        "ModelError",
        "ModelNotFoundError",
        "UnsupportedModelError",
        "UntrustedModelError",
    ],
    "loader": ["Checked", "Entry", "available", "card", "export", "load", "push", "verify"],
}
_HOME = {name: f"{__name__}.{module}" for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
