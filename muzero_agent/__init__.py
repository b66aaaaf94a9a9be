"""MuZero as a Stable-Baselines3 algorithm.

    from muzero_agent import MuZero

Importing the package costs nothing: a name brings its module, and torch with it, when it is first
used, so that an engine can greet its chess GUI before the heavy libraries are loaded.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muzero_agent.muzero import MuZero

__version__ = "0.1.0"
__all__ = ["MuZero", "__version__"]

_HOME = {"MuZero": "muzero_agent.muzero"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})
