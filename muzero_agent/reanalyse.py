"""Fresh search results for old states (Reanalyze: MuZero, appendix H; arXiv 2104.06294).

Each environment step needs a search of a few roots, whose network calls cost the same for a few
dozen: so stored states ride along in that batch, and their values and policies are renewed in
place. Those whose results are the oldest come first: where `ratio` of them are searched again for
each that is added, no result is older than the time in which size / (ratio + 1) were added.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muzero_agent.batch import Rows
from muzero_agent.replay import TrajectoryReplayBuffer


class Sweep:
    """Goes through the rows of one replay again and again, a few at a time.

    Rows wait in a queue: new ones, and those that were handed out, at its end. Those that were
    written over meanwhile are dropped when their turn comes.
    """

    def __init__(self) -> None:
        self._queue: deque[int] = deque()  # row * n_envs + env
        self._admitted: NDArray[np.int64] | None = None  # rows [n_envs] that were put into it

    def rows(self, replay: TrajectoryReplayBuffer, num: int) -> Rows:
        """The next rows, at most `num` and at most all that are held."""
        chosen: list[int] = []
        if num > 0:
            self._admit(replay)
            forgotten = (replay.head - replay.capacity).tolist()
            for _ in range(len(self._queue)):
                code = self._queue.popleft()
                if code // replay.n_envs >= forgotten[code % replay.n_envs]:
                    chosen.append(code)
                    if len(chosen) == num:
                        break
            self._queue.extend(chosen)
        row, env = np.divmod(np.array(chosen, np.int64), replay.n_envs)
        return Rows(env, row)

    def _admit(self, replay: TrajectoryReplayBuffer) -> None:
        """Put rows into the queue that are new, in the order in which they were added."""
        admitted = self._admitted
        if admitted is None or (replay.head < admitted).any():  # it was reset
            self._queue.clear()
            admitted = np.zeros(replay.n_envs, np.int64)
        first = np.maximum(admitted, replay.head - replay.capacity)
        self._queue.extend(
            sorted(
                row * replay.n_envs + env
                for env in range(replay.n_envs)
                for row in range(int(first[env]), int(replay.head[env]))
            )
        )
        self._admitted = replay.head.copy()

    @property
    def state(self) -> dict[str, Any]:
        """What `restore` takes, of plain numbers and lists."""
        admitted = None if self._admitted is None else self._admitted.tolist()
        return {"queue": list(self._queue), "admitted": admitted}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on with the replay as it was when `state` was told."""
        self._queue = deque(state["queue"])
        admitted = state["admitted"]
        self._admitted = None if admitted is None else np.array(admitted, np.int64)
