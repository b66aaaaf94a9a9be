"""Turn-based games of PettingZoo as Gymnasium environments for self-play.

A step is a move. Whatever the environment tells, it tells to the player who moves: the observation
and its mask to the one who is to move next, the reward to the one who has just moved. What one wins
the other loses, so that this is all there is to say.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecEnv

from muzero_agent.types import MASK_KEY, Symmetries, TurnBased

if TYPE_CHECKING:
    from pettingzoo import AECEnv

HIDDEN = {
    "hanabi": "players do not see their own cards",
    "leduc_holdem": "players do not see each other's cards",
    "texas_holdem": "players do not see each other's cards",
    "texas_holdem_no_limit": "players do not see each other's cards",
    "rps": "both players choose before either sees the other's choice",
    "gin_rummy": "players do not see each other's cards",
    "dou_dizhu": "players do not see each other's cards",
    "mahjong": "players do not see each other's tiles",
}
"""PettingZoo's games of hidden information, without their versions, and what is hidden."""


class TurnBasedEnv(gym.Env[Any, Any]):
    """A two-player zero-sum game of PettingZoo, seen by the player to move.

    Observations are the game's own: usually a Dict of `observation` and `action_mask`, by which
    `predict`, `evaluate_policy` and `EvalCallback` play legally. Rewards belong to the player who
    has just moved. `info["to_play"]` is the number of the player to move next, 0 or 1, in the order
    of `possible_agents`. The end of one player, as in a resignation, is the end of the game; an
    illegal move, where the game ends by it, is lost for the one who made it.

    :param env: an AEC environment of two players who take turns
    :param allow_hidden_information: try games, too, whose players do not see everything; search and
        self-play as done here are not meant for them
    :raises ValueError: for other games, saying why
    """

    num_players = 2
    symmetries: Symmetries | None
    """Of the game: what it declares by an attribute of this name, or what is known of it."""

    def __init__(
        self,
        env: AECEnv[Any, Any, Any],
        *,
        allow_hidden_information: bool = False,
    ) -> None:
        self.aec = env
        self.name = str(env.metadata.get("name", type(env.unwrapped).__name__))
        _check(env, self.name, allow_hidden_information)
        self.metadata = env.metadata
        self.render_mode = getattr(env, "render_mode", None)
        first = env.possible_agents[0]
        self.observation_space = env.observation_space(first)
        self.action_space = env.action_space(first)
        self.num_actions = int(self.action_space.n)  # type: ignore[attr-defined]
        self.symmetries = getattr(env.unwrapped, "symmetries", None) or _known_symmetries(
            self.name, self.observation_space, self.num_actions
        )
        self._masked = (
            isinstance(self.observation_space, spaces.Dict)
            and MASK_KEY in self.observation_space.spaces
        )
        self._ended = True
        self.to_play = 0  # number of the player to move, 0 or 1

    # -- playing ---------------------------------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a game.

        :param seed: of the game
        :param options: of the game
        """
        super().reset(seed=seed)
        self._begin()
        self._set_board_size()
        self.aec.reset(seed=seed, options=options)
        self._ended = False
        return self._observe(), self._info()

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play a move.

        :return: observation of the player to move next, reward of the one who moved, whether the
            game ended, whether it was broken off, info
        :raises RuntimeError: if the game is over or has not begun
        :raises ValueError: if the game turns out to be none of two players who take turns for a
            common stake
        """
        if self._ended:
            raise RuntimeError(f"{self.name}: no game is going on; call `reset` first")
        env = self.aec
        self._set_board_size()
        mover = env.agent_selection
        illegal = not self.action_masks()[int(action)]
        env.step(int(action))
        rewards = [float(env.rewards.get(agent, 0.0)) for agent in env.possible_agents]
        reward = rewards[env.possible_agents.index(mover)]
        terminated = any(env.terminations.values()) or not env.agents
        truncated = not terminated and any(env.truncations.values())
        self._ended = terminated or truncated
        if abs(sum(rewards)) > 1e-6 and not illegal:
            raise ValueError(
                f"{self.name} is not zero-sum: a move gave the rewards "
                f"{dict(zip(env.possible_agents, rewards, strict=True))}. Self-play takes what one "
                "player wins for what the other loses"
            )
        if env.agent_selection == mover and not self._ended:
            raise ValueError(
                f"{self.name}: {mover} is to move twice in a row, and the search takes it that "
                "players alternate: wrap the game so that the other one passes in between"
            )
        info = self._info()
        if illegal:
            info["illegal_move"] = True
        return self._observe(), reward, terminated, truncated, info

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal for the player to move: bool [A]; all, if nothing masks them."""
        agent = self.aec.agent_selection
        if self._masked:
            mask = self._observed[MASK_KEY]
        else:
            mask = self.aec.infos.get(agent, {}).get(MASK_KEY)
        if mask is None:
            return np.ones(self.num_actions, np.bool_)
        return np.asarray(mask, np.bool_)

    def _begin(self) -> None:
        """What a game draws from `np_random` before it begins."""

    def _set_board_size(self) -> None:
        """go_v5 keeps its size in global variables: boards of two sizes would spoil each other."""
        if self.name != "go_v5":
            return
        game, common = self.aec.unwrapped, sys.modules["pettingzoo.classic.go.go_base"]
        if common.N != game._N:
            game._overwrite_go_global_variables(game._N)

    def _observe(self) -> Any:
        self._observed = self.aec.observe(self.aec.agent_selection)
        return self._observed

    def _info(self) -> dict[str, Any]:
        agent = self.aec.agent_selection
        info = dict(self.aec.infos.get(agent, {}))
        self.to_play = int(self.aec.possible_agents.index(agent))
        info["to_play"] = self.to_play
        return info

    # -- looking ---------------------------------------------------------------------------------

    def render(self) -> Any:
        """Show the position as the game's `render_mode` has it."""
        return self.aec.render()

    def close(self) -> None:
        """Close the game's window, if it has one."""
        self.aec.close()


def board_symmetries(
    height: int, width: int, planes: int, num_actions: int, *, turns: bool
) -> Symmetries:
    """Symmetries of a board seen as [height, width, planes], the same in all planes.

    :param num_actions: one for each square, or for each column, and perhaps one more, a pass
    :param turns: whether a square board may be turned and mirrored in all eight ways; else from
        left to right alone
    """
    squares = np.arange(height * width).reshape(height, width)
    boards = [squares, squares[:, ::-1]]
    if turns:
        boards = [np.rot90(board, k) for board in boards for k in range(4)]
    sources = np.stack([board.ravel() for board in boards])  # [S, squares]
    observation = (sources[:, :, None] * planes + np.arange(planes)).reshape(len(boards), -1)
    action = np.broadcast_to(np.arange(num_actions), (len(boards), num_actions)).copy()
    if num_actions >= height * width:
        action[:, : height * width] = np.argsort(sources, axis=1)  # where each square went
    else:
        action[1, :width] = np.arange(width)[::-1]
    return Symmetries(observation, action)


def _known_symmetries(
    name: str, observation_space: spaces.Space[Any], num_actions: int
) -> Symmetries | None:
    if name not in ("tictactoe_v3", "connect_four_v3", "go_v5"):
        return None
    assert isinstance(observation_space, spaces.Dict)
    shape = observation_space["observation"].shape
    assert shape is not None
    height, width, planes = shape
    turns = name != "connect_four_v3"
    return board_symmetries(height, width, planes, num_actions, turns=turns)


def is_aec(env: object) -> bool:
    """Whether this is an AEC environment of PettingZoo."""
    return isinstance(env, _aec_class() or ())


def _aec_class() -> type[Any] | None:
    module = sys.modules.get("pettingzoo")  # without it there is no such environment
    return None if module is None else module.AECEnv


def as_game(env: Any) -> TurnBased:
    """An AEC environment as a `TurnBasedEnv`; what is turn-based already stays as it is."""
    if is_aec(env):
        return TurnBasedEnv(env)
    if isinstance(env, TurnBased):
        return env
    raise TypeError(
        f"{env!r} is no turn-based game: give an AEC environment of PettingZoo, or a TurnBasedEnv "
        "without wrappers"
    )


def as_turn_based(env: Any, allow_hidden_information: bool = False) -> Any:
    """A VecEnv of turn-based games: of an AEC environment, of what makes one, or of a list of them.
    All else stays as it is.

    `MuZero` calls this by itself; `evaluate_policy` and `EvalCallback` want its result.

    :param env: for instance `connect_four_v3.env()`, `connect_four_v3.env`, or
        `[connect_four_v3.env] * 16`
    :param allow_hidden_information: see `TurnBasedEnv`
    :raises ValueError: if a game is refused, or if a list mixes one environment with itself
    """
    if isinstance(env, Sequence) and not isinstance(env, str):
        made = [_made(part) for part in env]
        if made and all(_is_game(part) for part in made):
            if len({id(game_behind(part)) for part in made}) < len(made):
                raise ValueError(
                    "the same environment is in the list more than once: give what makes one, as "
                    "in [connect_four_v3.env] * 16"
                )
            return DummyVecEnv([_Monitored(part, allow_hidden_information) for part in made])
        raise ValueError(_NO_GAME)
    made = _made(env)
    if _is_game(made):
        return as_turn_based([made], allow_hidden_information)
    if made is not env:
        raise ValueError(_NO_GAME)
    return env


def make_turn_based_env(
    factory: Callable[[], Any],
    n_envs: int = 1,
    seed: int | None = None,
    vec_env_cls: type[DummyVecEnv] | type[SubprocVecEnv] = DummyVecEnv,
    allow_hidden_information: bool = False,
) -> VecEnv:
    """`n_envs` games as a VecEnv, as SB3's `make_vec_env` makes others.

    :param factory: makes an AEC environment, for instance `connect_four_v3.env`
    :param seed: of the first game; the others count up
    :param vec_env_cls: in this process, or a process each
    """
    if n_envs > 1 and not callable(factory):
        raise ValueError(
            "give what makes a game, as in make_turn_based_env(connect_four_v3.env, 8)"
        )
    made = [_Monitored(factory, allow_hidden_information) for _ in range(n_envs)]
    env = vec_env_cls(made)  # type: ignore[arg-type]
    if seed is not None:
        env.seed(seed)
    return env


_NO_GAME = (
    "a list, or what makes an environment, may be of turn-based games alone: of others make a "
    "VecEnv by stable_baselines3.common.env_util.make_vec_env"
)


class _Monitored:
    """Makes a monitored game; an object, since processes take no closures."""

    def __init__(self, env: Any, allow_hidden_information: bool) -> None:
        self.env = env
        self.allow_hidden_information = allow_hidden_information

    def __call__(self) -> Monitor[Any, Any]:
        env = _made(self.env)
        if is_aec(env):
            env = TurnBasedEnv(env, allow_hidden_information=self.allow_hidden_information)
        return env if isinstance(env, Monitor) else Monitor(env)


def _made(env: Any) -> Any:
    """What a factory makes; an environment is none, nor is a class, unless it is one of games."""
    known = isinstance(env, gym.Env | VecEnv | gym.vector.VectorEnv | str) or is_aec(env)
    other = isinstance(env, type) and not (
        issubclass(env, _aec_class() or ()) or getattr(env, "num_players", 1) == 2
    )
    return env if known or other or not callable(env) else env()


def game_behind(env: Any) -> Any:
    """The game itself behind a `TurnBasedEnv` or wrappers: one object is one game."""
    return env if is_aec(env) else getattr(env.unwrapped, "aec", env.unwrapped)


def _is_game(env: Any) -> bool:
    return is_aec(env) or (isinstance(env, gym.Env) and isinstance(env.unwrapped, TurnBased))


def _check(env: AECEnv[Any, Any, Any], name: str, allow_hidden_information: bool) -> None:
    agents = env.possible_agents
    if len(agents) != 2:
        raise ValueError(
            f"{name} has {len(agents)} players, and self-play knows games of two: of one, use "
            "Gymnasium's interface"
        )
    first, second = agents
    for what, space in (("observation", env.observation_space), ("action", env.action_space)):
        if space(first) != space(second):
            raise ValueError(
                f"{name}: the {what} spaces of its players differ, {space(first)} and "
                f"{space(second)}, and one network plays both: give them the same in a wrapper"
            )
    if not isinstance(env.action_space(first), spaces.Discrete):
        raise ValueError(f"{name}: the action space {env.action_space(first)} is not Discrete")
    if allow_hidden_information:
        return
    advice = (
        "Search and self-play as done here assume that players see everything; to try anyway, give "
        "TurnBasedEnv(env, allow_hidden_information=True)"
    )
    bare = name.rsplit("_v", 1)[0]
    if bare in HIDDEN:
        raise ValueError(f"{name} is a game of hidden information: {HIDDEN[bare]}. {advice}")
    if env.metadata.get("is_parallelizable", False):
        raise ValueError(
            f"{name}: its players move at the same time, hidden from each other. {advice}"
        )
