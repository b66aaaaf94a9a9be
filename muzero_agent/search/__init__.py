"""Monte-Carlo tree search with a learned model, for many roots at once (numpy and numba only).

Names are loaded on first use (PEP 562): importing this package imports neither numpy nor numba.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muzero_agent.search.policies import SearchOutput, gumbel_muzero_policy, muzero_policy
    from muzero_agent.search.tree import Tree
    from muzero_agent.types import RecurrentFn, RecurrentOutput, RootOutput

__all__ = [
    "RecurrentFn",
    "RecurrentOutput",
    "RootOutput",
    "SearchOutput",
    "Tree",
    "gumbel_muzero_policy",
    "muzero_policy",
]

_HOME = {
    "RecurrentFn": "muzero_agent.types",
    "RecurrentOutput": "muzero_agent.types",
    "RootOutput": "muzero_agent.types",
    "SearchOutput": "muzero_agent.search.policies",
    "Tree": "muzero_agent.search.tree",
    "gumbel_muzero_policy": "muzero_agent.search.policies",
    "muzero_policy": "muzero_agent.search.policies",
}


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
