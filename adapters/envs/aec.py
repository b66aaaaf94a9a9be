"""Turn-based games of this package as AEC environments of PettingZoo, for pipelines of such.

The way back from `adapters.envs.pettingzoo`: fast games such as `ChessEnv` then serve whatever is
written for PettingZoo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from pettingzoo import AECEnv
from pettingzoo.utils.wrappers import OrderEnforcingWrapper

from muzero_agent.types import MASK_KEY, TurnBased


class AECGame(AECEnv):  # type: ignore[misc]  # pettingzoo has no types
    """A turn-based game as an AEC environment, without the checks of `as_aec`.

    An agent that is not to move observes what the other one sees, with no action legal: the game
    tells nothing else. An illegal move ends the game: its mover gets -1 and the other one 0, as in
    PettingZoo's own games.

    :param game: of two players who take turns; its seats become "player_0" and "player_1"
    """

    def __init__(self, game: TurnBased) -> None:
        super().__init__()
        self.game = game
        self.possible_agents = ["player_0", "player_1"]
        self.agents: list[str] = []
        self.render_mode = game.render_mode
        self.metadata = {
            "name": game.name,
            "render_modes": [] if game.render_mode is None else [game.render_mode],
            "is_parallelizable": False,
        }

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        """Of the game; the same for both."""
        return self.game.observation_space  # type: ignore[no-any-return]

    def action_space(self, agent: str) -> spaces.Space[Any]:
        """Of the game; the same for both."""
        return self.game.action_space  # type: ignore[attr-defined,no-any-return]

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
        """Begin a game."""
        self._observed, _ = self.game.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        self.agent_selection = self._agent_to_move()
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}

    def step(self, action: int | None) -> None:
        """Play a move; None for an agent that is out already."""
        mover = self.agent_selection
        if self.terminations[mover] or self.truncations[mover]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[mover] = 0.0
        other = self.possible_agents[1 - self.possible_agents.index(mover)]
        assert action is not None
        if self.game.action_masks()[action]:
            self._observed, reward, terminated, truncated, _ = self.game.step(action)
            self.rewards = {mover: reward, other: -reward}
        else:
            terminated, truncated = True, False
            self.rewards = {mover: -1.0, other: 0.0}
        self.terminations = dict.fromkeys(self.agents, terminated)
        self.truncations = dict.fromkeys(self.agents, truncated)
        self.agent_selection = other if terminated or truncated else self._agent_to_move()
        self._accumulate_rewards()

    def observe(self, agent: str) -> Any:
        """What the agent sees; see the class."""
        if agent == self._agent_to_move() or not isinstance(self._observed, dict):
            return self._observed
        return {**self._observed, MASK_KEY: np.zeros_like(self._observed[MASK_KEY])}

    def render(self) -> Any:
        """Show the position."""
        return self.game.render()

    def close(self) -> None:
        """Close the game."""
        self.game.close()

    def _agent_to_move(self) -> str:
        return self.possible_agents[self.game.to_play]


def as_aec(game: TurnBased) -> AECEnv[str, Any, int]:
    """The game as an AEC environment that complains where it is used out of order.

    :param game: for instance `ChessEnv()`
    """
    return OrderEnforcingWrapper(AECGame(game))
