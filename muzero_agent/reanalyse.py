"""Fresh search results for old states (Reanalyze: MuZero, appendix H; arXiv 2104.06294).

Each environment step needs a search of a few roots, whose network calls cost the same for a few
dozen: so stored states ride along in that batch, and their values and policies are renewed in
place. The sweep is cyclic: every state is searched again equally often, and the age of its results
is at most size / (states per step) steps.
"""

from __future__ import annotations

import numpy as np

from muzero_agent.batch import Rows
from muzero_agent.replay import TrajectoryReplayBuffer


class Sweep:
    """Goes through the rows of a replay again and again, a few at a time.

    `position`: where it goes on, counted over the rows held by all environments.
    """

    def __init__(self) -> None:
        self.position = 0

    def rows(self, replay: TrajectoryReplayBuffer, num: int) -> Rows:
        """The next rows, at most `num` and at most all that are held."""
        held = np.minimum(replay.head, replay.capacity)  # the first slots of each ring
        bounds = np.cumsum(held)
        total = int(bounds[-1])
        num = min(num, total)
        flat = (self.position + np.arange(num)) % max(total, 1)
        self.position = int((self.position + num) % max(total, 1))
        env = np.searchsorted(bounds, flat, side="right")
        return Rows(env, replay.absolute(env, flat - (bounds - held)[env]))
