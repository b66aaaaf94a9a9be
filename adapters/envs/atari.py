"""Atari games: preprocessed as usual, and with frames skipped once, whatever the id.

Three kinds of ids name the same game. `PongNoFrameskip-v4` shows every frame; `ALE/Pong-v5` shows
every fourth and `Pong-v4` every second to fourth, of the emulator's own accord. Preprocessing skips
frames, too, and on top of the emulator's skipping an agent sees, for instance, every sixteenth.
"""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray
from stable_baselines3.common import env_util
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env import (
    DummyVecEnv,
    SubprocVecEnv,
    VecEnv,
    VecEnvWrapper,
    VecMonitor,
)
from stable_baselines3.common.vec_env.base_vec_env import VecEnvIndices

from muzero_agent.adapters.envs.gymnasium import SAME_STEP, GymnasiumVecEnv

Env = gym.Env[Any, Any]
OWN_MODULE = "ale_py:"
"""In front of an id it has Gymnasium import ale-py."""


def register_atari() -> None:
    """Enter ale-py's games into Gymnasium's registry.

    :raises ImportError: naming what is missing
    """
    if find_spec("ale_py") is None or find_spec("cv2") is None:
        raise ImportError("Atari games need ale-py and OpenCV: pip install 'muzero-agent[atari]'")
    import ale_py

    gym.register_envs(ale_py)


ACTION_ROWS = 2
"""How many rows `ShowActions` adds below a picture, of which each action has a block: enough for
those who look at pictures, and few enough that Pong's stay within 7.5 KB."""


class ShowActions(gym.Wrapper[Any, Any, Any, Any]):
    """Pictures [H, W, C], with rows below that show the action which led to each: [H + 2, W, C].

    MuZero's h sees past actions beside past frames (appendix E), for pictures alone need not tell
    what comes next: Pong's paddle goes on for a while as the action that led to the newest picture
    has it. As rows of the picture they are stacked, stored and handed to `predict` with it. Action
    a of A is the block of W // A columns from a * (W // A) on, all 255, and the rest 0; after a
    reset all is 0. With sticky actions it is the action chosen, not the one carried out. The
    argument `action_rows` of `resnet.ResNet` has h read them.

    :raises ValueError: if observations are no pictures of uint8, or too narrow for the actions
    """

    action_rows = ACTION_ROWS

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        height, width, channels = _shape(env, "ShowActions needs pictures [H, W, C]")
        self._num_actions, self._first = _actions_to_show(env.action_space, width)
        shape = (height + ACTION_ROWS, width, channels)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)

    def reset(self, **kwargs: Any) -> tuple[NDArray[np.uint8], dict[str, Any]]:
        obs, info = self.env.reset(**kwargs)
        return self._shown(obs), info

    def step(self, action: Any) -> tuple[NDArray[np.uint8], Any, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._shown(obs, int(action) - self._first), reward, terminated, truncated, info

    def _shown(self, obs: NDArray[np.uint8], action: int | None = None) -> NDArray[np.uint8]:
        return with_action(obs, action, self._num_actions)


def with_action(
    picture: NDArray[np.uint8], action: int | None, num_actions: int
) -> NDArray[np.uint8]:
    """A picture [H, W, ...] with rows below that show an action of so many, or none: see
    `ShowActions`."""
    rows = np.zeros((ACTION_ROWS, *picture.shape[1:]), np.uint8)
    if action is not None:
        width = picture.shape[1] // num_actions
        rows[:, action * width : (action + 1) * width] = 255
    return np.concatenate((picture, rows))


class VecShowActions(VecEnvWrapper):
    """Stacked pictures [F, H, W], the newest last, with actions below as `ShowActions` has them.

    For a `VecEnv` that stacks by itself, as ale-py's `AtariVectorEnv` does: [F, H + 2, W]. Where an
    episode begins all rows are 0, also those of earlier pictures, which stay after a lost life.

    :raises ValueError: if observations are not such, or too narrow for the actions
    """

    def __init__(self, venv: VecEnv) -> None:
        super().__init__(venv)
        frames, height, width = _shape(venv, "VecShowActions needs pictures [F, H, W]")
        if width < min(frames, height):
            raise ValueError(
                f"VecShowActions needs stacked pictures [F, H, W], and {venv.observation_space} "
                "has [H, W, F]: show actions by ShowActions in each environment instead, before "
                "frames are stacked"
            )
        self._num_actions, self._first = _actions_to_show(venv.action_space, width)
        shape = (frames, height + ACTION_ROWS, width)
        self.observation_space = gym.spaces.Box(0, 255, shape, np.uint8)
        self._actions: list[list[int | None]] = []
        """Of each environment, what led to its pictures."""

    def reset(self) -> NDArray[np.uint8]:
        obs = self.venv.reset()
        self._actions = [self._none() for _ in range(self.num_envs)]
        return self._shown(obs)

    def step_async(self, actions: NDArray[Any]) -> None:
        for before, action in zip(self._actions, actions, strict=True):
            before[:] = [*before[1:], int(action) - self._first]
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        obs, rewards, dones, infos = self.venv.step_wait()
        for i in np.flatnonzero(dones):
            infos[i]["terminal_observation"] = self._stack(
                infos[i]["terminal_observation"], self._actions[i]
            )
            self._actions[i] = self._none()
        return self._shown(obs), rewards, dones, infos

    def has_attr(self, attr_name: str) -> bool:
        return attr_name == "action_rows" or super().has_attr(attr_name)

    def get_attr(self, attr_name: str, indices: VecEnvIndices = None) -> list[Any]:
        if attr_name == "action_rows":
            return [ACTION_ROWS for _ in self._get_indices(indices)]
        return super().get_attr(attr_name, indices)

    def _none(self) -> list[int | None]:
        return [None] * self.observation_space.shape[0]  # type: ignore[index]

    def _shown(self, obs: Any) -> NDArray[np.uint8]:
        return np.stack([self._stack(*pair) for pair in zip(obs, self._actions, strict=True)])

    def _stack(self, pictures: NDArray[np.uint8], actions: list[int | None]) -> NDArray[np.uint8]:
        pairs = zip(pictures, actions, strict=True)
        return np.stack([with_action(*pair, self._num_actions) for pair in pairs])


def _shape(env: Env | VecEnv, needs: str) -> tuple[int, int, int]:
    """Of an environment's pictures."""
    seen = env.observation_space
    if not isinstance(seen, gym.spaces.Box) or seen.dtype != np.uint8 or len(seen.shape) != 3:
        raise ValueError(f"{needs} of uint8, got {seen}")
    first, second, third = seen.shape
    return first, second, third


def _actions_to_show(actions: gym.Space[Any], width: int) -> tuple[int, int]:
    """How many actions are to be shown in rows of so many pixels, and the number of the first."""
    if not isinstance(actions, gym.spaces.Discrete) or not 0 < actions.n <= width:
        raise ValueError(
            f"actions that are shown need a Discrete space of at most {width}, the width of the "
            f"pictures, got {actions}"
        )
    return int(actions.n), int(actions.start)


def _preprocessed_with_actions(env: Env, **kwargs: Any) -> Env:
    return ShowActions(AtariWrapper(env, **kwargs))


def is_atari(env_id: str) -> bool:
    """Whether an id is that of an Atari game; by its form where ale-py does not know it."""
    env_id = env_id.removeprefix(OWN_MODULE)
    if env_id not in gym.registry:
        with suppress(ImportError):
            register_atari()
    spec = gym.registry.get(env_id)
    if spec is None:
        return env_id.startswith("ALE/") or "NoFrameskip-v" in env_id
    return _is_atari(spec)


def make_atari_env(
    env_id: str | Callable[..., Env],
    n_envs: int = 1,
    seed: int | None = None,
    start_index: int = 0,
    monitor_dir: str | None = None,
    wrapper_kwargs: dict[str, Any] | None = None,
    env_kwargs: dict[str, Any] | None = None,
    vec_env_cls: type[DummyVecEnv] | type[SubprocVecEnv] | None = None,
    vec_env_kwargs: dict[str, Any] | None = None,
    monitor_kwargs: dict[str, Any] | None = None,
    show_actions: bool = False,
) -> VecEnv:
    """SB3's `make_atari_env`, which shows every fourth frame whatever the id.

    The emulator is told to show all frames, and SB3's `AtariWrapper` skips, since it takes the
    maximum of the last two (sprites flicker). Stack frames with `VecFrameStack(env, 4)`. A step of
    the agent is one decision, `frame_skip` frames long: MuZero's `gamma` counts per decision, and
    `Monitor`, which lies inside, counts an episode's length in frames.

    :param env_id: `PongNoFrameskip-v4`, `ALE/Pong-v5`, `Pong-v4`, ..., or what makes an environment
    :param n_envs: number of environments
    :param seed: of the first environment; the others count up
    :param start_index: number of the first environment
    :param monitor_dir: where to write logs of episodes
    :param wrapper_kwargs: arguments of SB3's `AtariWrapper`: `frame_skip`, `screen_size`,
        `terminal_on_life_loss`, `clip_reward`, ...
    :param env_kwargs: arguments of the environment
    :param vec_env_cls: `DummyVecEnv` unless given
    :param vec_env_kwargs: its arguments
    :param monitor_kwargs: arguments of SB3's `Monitor`
    :param show_actions: below each picture, the action that led to it, see `ShowActions`
    :raises ValueError: if there is no such game, or if frames would be skipped twice
    :raises ImportError: if ale-py or OpenCV are missing
    """
    env_kwargs = dict(env_kwargs or {})
    if isinstance(env_id, str):
        _spec(env_id)
        skip = env_kwargs.setdefault("frameskip", 1)
        if skip != 1 and (wrapper_kwargs or {}).get("frame_skip", 4) > 1:
            raise ValueError(
                f"env_kwargs: frameskip={skip} skips frames in the emulator, and the wrapper skips "
                "others on top: give wrapper_kwargs=dict(frame_skip=...) alone"
            )
        env_id = OWN_MODULE + env_id.removeprefix(OWN_MODULE)  # SubprocVecEnv's processes import it
    env = env_util.make_vec_env(
        env_id,
        n_envs=n_envs,
        seed=seed,
        start_index=start_index,
        monitor_dir=monitor_dir,
        wrapper_class=_preprocessed_with_actions if show_actions else AtariWrapper,
        wrapper_kwargs=wrapper_kwargs,
        env_kwargs=env_kwargs,
        vec_env_cls=vec_env_cls,
        vec_env_kwargs=vec_env_kwargs,
        monitor_kwargs=monitor_kwargs,
    )
    warn_of_compounded_skips(env)
    return env


def make_atari_vector_env(
    env_id: str,
    n_envs: int = 1,
    seed: int | None = None,
    env_kwargs: dict[str, Any] | None = None,
    show_actions: bool = False,
) -> VecEnv:
    """The same frames from ale-py's `AtariVectorEnv`, which preprocesses in C++ on several threads.

    Observations are 4 grey frames [4, 84, 84], of which each is the maximum of the last two of 4;
    rewards are clipped to their signs, and episodes in the infos have the true scores. Unlike in
    `make_atari_env`, an episode is a game, not a life, and where sprites flicker over others greys
    differ: here they are maxima of greys, there greys of maximal colours.

    :param env_id: as in `make_atari_env`
    :param n_envs: number of environments
    :param seed: of the first environment; the others count up
    :param env_kwargs: arguments of `AtariVectorEnv`, such as `num_threads`, `stack_num`, or
        `life_loss_info=True`: a lost life ends an episode, and the next begins in the same game
    :param show_actions: below each picture, the action that led to it, see `VecShowActions`
    :raises ValueError: if there is no such game, or if actions cannot be shown
    :raises ImportError: if ale-py or OpenCV are missing
    """
    spec = _spec(env_id)
    from ale_py.vector_env import AtariVectorEnv

    known = ("game", "repeat_action_probability", "full_action_space", "max_num_frames_per_episode")
    settings = {name: spec.kwargs[name] for name in known} | {"reward_clipping": False}
    settings |= env_kwargs or {}
    vector = AtariVectorEnv(num_envs=n_envs, autoreset_mode=SAME_STEP, **settings)
    env: VecEnv = _ClipReward(VecMonitor(GymnasiumVecEnv(vector)))
    env = VecShowActions(env) if show_actions else env
    env.seed(seed)
    return env


class _ClipReward(VecEnvWrapper):
    """Rewards are -1, 0 or 1: their signs."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> tuple[Any, NDArray[Any], NDArray[Any], list[dict[str, Any]]]:
        obs, rewards, dones, infos = self.venv.step_wait()
        return obs, np.sign(rewards), dones, infos


def warn_of_compounded_skips(env: VecEnv) -> None:
    """Warn if both an Atari emulator and a wrapper skip frames, where that can be seen.

    SB3's `make_atari_env("ALE/Pong-v5")` makes such an environment.
    """
    if not env.has_attr("_frameskip"):  # AtariEnv's; Gymnasium's AtariPreprocessing goes by it, too
        return
    # of AtariEnv; SB3's MaxAndSkipEnv and Gymnasium's MaxAndSkipObservation; AtariPreprocessing
    names = [name for name in ("_frameskip", "_skip", "frame_skip") if env.has_attr(name)]
    skips = [env.get_attr(name, 0)[0] for name in names]
    skips = [skip for skip in skips if np.max(skip) > 1]
    if len(skips) > 1:
        warnings.warn(
            f"frames are skipped twice, {' and '.join(map(str, skips))}, by the emulator and a "
            "wrapper, or by two wrappers. Make the environment with "
            "muzero_agent.adapters.envs.atari.make_atari_env, or have the emulator show every "
            "frame: gymnasium.make(..., frameskip=1), SB3's make_atari_env(..., "
            "env_kwargs=dict(frameskip=1)), rl_zoo3's --env-kwargs frameskip:1",
            stacklevel=3,
        )


def warn_of_action_rows(env: VecEnv, read: int) -> None:
    """Warn if rows that show actions are not read, or are read where none are shown.

    :param read: `action_rows` of the network
    """
    shown = env.get_attr("action_rows", 0)[0] if env.has_attr("action_rows") else 0
    if shown != read:
        warnings.warn(
            f"the observations have {shown} rows that show actions, and the network takes the last "
            f"{read} for such: make_atari_env(show_actions=True), or the wrapper ShowActions or "
            "VecShowActions, and policy_kwargs=dict(net_arch=dict("
            f"action_rows={ACTION_ROWS})) belong together",
            stacklevel=3,
        )


def _is_atari(spec: EnvSpec) -> bool:
    return "AtariEnv" in str(spec.entry_point)


def _spec(env_id: str) -> EnvSpec:
    """What Gymnasium knows of a game."""
    env_id = env_id.removeprefix(OWN_MODULE)
    register_atari()
    games = sorted(name for name, spec in gym.registry.items() if _is_atari(spec))
    if env_id in games:
        return gym.registry[env_id]
    names = difflib.get_close_matches(env_id, games) or ["ALE/Pong-v5", "ALE/Breakout-v5"]
    raise ValueError(
        f"{env_id} is not among ale-py's {len(games)} games, such as {', '.join(names)}"
    )
