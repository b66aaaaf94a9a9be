"""Action spaces as the search sees them: actions numbered 0 .. A - 1.

Spaces of several components are flattened, the last component running fastest: to the search each
combination is an action of its own. That is exact, and fine as long as there are not too many.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import ArrayLike, NDArray

MOST_ACTIONS = 20_000
"""Combinations of several components at most; chess and shogi have fewer actions than that."""


def components(space: spaces.Space[Any]) -> tuple[int, ...]:
    """The number of choices of each component.

    :raises TypeError: for spaces other than Discrete, MultiDiscrete and MultiBinary
    """
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete):
        return tuple(space.nvec.ravel().tolist())
    if isinstance(space, spaces.MultiBinary):
        return (2,) * int(np.prod(space.shape))
    raise TypeError(f"{space} is no space of finitely many actions")


def num_actions(space: spaces.Space[Any]) -> int:
    """A, the number of actions; of several components, some number above `MOST_ACTIONS` if they
    have more combinations than that."""
    total = 1
    for choices in components(space):
        total *= choices
        if total > MOST_ACTIONS and not isinstance(space, spaces.Discrete):
            break  # too many: how many exactly would be a number of thousands of digits
    return total


def to_space(space: spaces.Space[Any], actions: NDArray[np.integer]) -> NDArray[Any]:
    """The elements of the space [B, *space.shape] that have these numbers [B]."""
    if isinstance(space, spaces.Discrete):
        return actions.astype(np.int64)
    chosen = np.empty((len(actions), *(space.shape or ())), space.dtype)
    rest = actions
    for i, choices in reversed(list(enumerate(components(space)))):
        rest, chosen[:, i] = np.divmod(rest, choices)
    return chosen


def from_space(space: spaces.Space[Any], elements: ArrayLike) -> NDArray[np.int64]:
    """The numbers [B] of elements of the space [B, *space.shape].

    :raises ValueError: if some are none of the space
    """
    given = np.asarray(elements)
    parts = components(space)
    columns = given.reshape(len(given), -1)
    number = np.zeros(len(given), np.int64)
    fits = columns.shape[1] == len(parts) or not len(given)
    if fits and len(given):
        whole = columns.astype(np.int64)
        fits = bool(((whole == columns) & (whole >= 0) & (whole < np.array(parts, np.int64))).all())
        for i, choices in enumerate(parts):
            number = number * choices + whole[:, i]
    if not fits:
        raise ValueError(
            f"actions of the shape {given.shape}, such as {given[:1]}, are not all of {space}"
        )
    return number


def mask_sizes(space: spaces.Space[Any]) -> tuple[int, ...]:
    """How many entries a mask of one observation may have; see `legal_actions`."""
    return tuple(dict.fromkeys((sum(components(space)), num_actions(space))))


def legal_actions(space: spaces.Space[Any], masks: ArrayLike) -> NDArray[np.bool_]:
    """Which actions are legal: bool [B, A].

    :param masks: [B, M], nonzero where legal. Of several components either one after the other, as
        in sb3-contrib's MaskablePPO, M being the sum of their choices: then an action is legal if
        all its components are. Or one entry for each action, M = A; where both sizes are the same,
        the former is meant.
    """
    legal = np.asarray(masks) > 0
    parts = components(space)
    if legal.shape[-1] != sum(parts) or len(parts) == 1:
        return legal
    batch = len(legal)
    joint = np.ones((batch, 1), np.bool_)
    for part in np.split(legal, np.cumsum(parts)[:-1], axis=-1):
        joint = (joint[:, :, None] & part[:, None, :]).reshape(batch, -1)
    return joint
