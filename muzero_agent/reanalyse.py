"""Fresh search results for old rows of the replay (MuZero, appendix H: Reanalyze)."""
from __future__ import annotations

import numpy as np

from muzero_agent.replay import Rows, TrajectoryReplayBuffer


class Sweep:
    """Goes through the replay's rows again and again, a few at a time."""

    def __init__(self) -> None:
        self.next = 0

    def rows(self, replay: TrajectoryReplayBuffer, num: int) -> Rows:
        held = np.minimum(replay.head, replay.capacity)
        bounds = np.cumsum(held)
        total = int(bounds[-1])
        num = min(num, total)
        flat = (self.next + np.arange(num)) % total
        self.next = int((self.next + num) % total)
        env = np.searchsorted(bounds, flat, side="right")
        row = (replay.head - held)[env] + flat - (bounds - held)[env]
        return Rows(env, row)
