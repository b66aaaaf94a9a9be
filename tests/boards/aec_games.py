"""Small AEC environments that do what PettingZoo's own games do not."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv


class CountingGame(AECEnv[str, Any, int]):  # type: ignore[misc]
    """Players take turns; the one who makes move number `length` wins.

    :param length: moves of a game
    :param players: their number
    :param mask: "dict" puts it into observations, "info" into the infos, None gives none; legal is
        every action but number `move % 3`
    :param truncate_after: moves after which the game is broken off
    :param random_start: who moves first is drawn from the seed
    :param twice: player 0 moves twice in a row
    :param winner_reward: what the winner gets; the loser gets -1
    :param resign: with action 2 the mover alone is out, and has lost
    :param name: in the metadata
    :param simultaneous: the metadata say that all move at once
    :param own_space: of the second player's actions
    """

    def __init__(
        self,
        length: int = 5,
        players: int = 2,
        mask: str | None = "dict",
        truncate_after: int | None = None,
        random_start: bool = False,
        twice: bool = False,
        winner_reward: float = 1.0,
        resign: bool = False,
        name: str = "counting_v0",
        simultaneous: bool = False,
        own_space: int = 3,
    ) -> None:
        super().__init__()
        self.metadata = {
            "name": name,
            "is_parallelizable": simultaneous,
            "render_modes": ["ansi"],
        }
        self.render_mode = "ansi"
        self.length, self.mask, self.truncate_after = length, mask, truncate_after
        self.random_start, self.twice, self.resign = random_start, twice, resign
        self.winner_reward = winner_reward
        self.possible_agents = [f"player_{i}" for i in range(players)]
        box = spaces.Box(-1, 1, (3,), np.float32)
        legal = spaces.Box(0, 1, (3,), np.int8)
        space = spaces.Dict({"observation": box, "action_mask": legal}) if mask == "dict" else box
        self.observation_spaces = dict.fromkeys(self.possible_agents, space)
        self.action_spaces = {
            agent: spaces.Discrete(own_space if i else 3)
            for i, agent in enumerate(self.possible_agents)
        }
        self.moves: list[int] = []

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> spaces.Discrete[Any]:
        return self.action_spaces[agent]

    def legal(self) -> NDArray[np.int8]:
        mask = np.ones(3, np.int8)
        mask[len(self.moves) % 3] = 0
        return mask

    def observe(self, agent: str) -> Any:
        done = len(self.moves) / self.length
        seat = self.possible_agents.index(agent)
        observation = np.array([done, seat, (seat + self.length) % 2], np.float32)
        if self.mask == "dict":
            return {"observation": observation, "action_mask": self.legal()}
        return observation

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        self.agents = self.possible_agents[:]
        self.moves = []
        rng = np.random.default_rng(seed)
        first = rng.integers(len(self.agents)) if self.random_start else 0
        self.agent_selection = self.agents[first]
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self._tell()

    def _tell(self) -> None:
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        if self.mask == "info":
            self.infos[self.agent_selection]["action_mask"] = self.legal()

    def step(self, action: int) -> None:
        if self.terminations[self.agent_selection] or self.truncations[self.agent_selection]:
            self._was_dead_step(action)
            return
        mover = self.agent_selection
        self._cumulative_rewards[mover] = 0
        others = [agent for agent in self.agents if agent != mover]
        self.moves.append(action)
        if self.resign and action == 2:
            self.terminations[mover] = True
            self.rewards = dict.fromkeys(others, self.winner_reward) | {mover: -1.0}
        elif len(self.moves) == self.length:
            self.terminations = dict.fromkeys(self.agents, True)
            self.rewards = dict.fromkeys(others, -1.0) | {mover: self.winner_reward}
        elif len(self.moves) == self.truncate_after:
            self.truncations = dict.fromkeys(self.agents, True)
        if not (self.twice and len(self.moves) == 1):
            next_seat = self.possible_agents.index(mover) + 1
            self.agent_selection = self.possible_agents[next_seat % len(self.possible_agents)]
        self._accumulate_rewards()
        self._tell()

    def render(self) -> str:
        return " ".join(map(str, self.moves))

    def close(self) -> None:
        pass
