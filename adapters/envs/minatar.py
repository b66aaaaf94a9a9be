"""MinAtar's games of 10x10 cells (Young & Tian 2019, arXiv 1903.03176), by Gymnasium's ids."""

from __future__ import annotations

from importlib.util import find_spec

import gymnasium as gym

PREFIX = "MinAtar/"


def register_minatar(env_id: str) -> None:
    """Enter MinAtar's games into Gymnasium's registry, if the id is of one of them.

    :raises ImportError: naming what is missing
    """
    if not env_id.startswith(PREFIX) or env_id in gym.registry:
        return
    if find_spec("minatar") is None:
        raise ImportError(f"{env_id} needs MinAtar: pip install 'muzero-agent[minatar]'")
    from minatar.gym import register_envs

    register_envs()
