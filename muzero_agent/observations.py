"""Observations are arrays or dicts of arrays; what is done to both stands here."""

from __future__ import annotations

from typing import Any

import numpy as np


def row_of(obs: Any, i: int) -> Any:
    """Observation i of a batch."""
    return {key: part[i] for key, part in obs.items()} if isinstance(obs, dict) else obs[i]


def add_batch_dimension(obs: Any) -> Any:
    """A batch of this one observation."""
    if isinstance(obs, dict):
        return {key: np.asarray(part)[None] for key, part in obs.items()}
    return np.asarray(obs)[None]


def concatenate(first: Any, second: Any) -> Any:
    """One batch of two."""
    if isinstance(first, dict):
        return {key: np.concatenate([first[key], second[key]]) for key in first}
    return np.concatenate([first, second])
