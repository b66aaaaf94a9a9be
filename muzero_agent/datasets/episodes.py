"""Recorded episodes: what they hold, and from where they are read."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.save_util import load_from_pkl

from muzero_agent.actions import to_space
from muzero_agent.batch import Rows
from muzero_agent.replay import TrajectoryReplayBuffer
from muzero_agent.types import Observation


class Episode(NamedTuple):
    """An episode of T steps, or a part of one."""

    observations: Observation  # [T + 1, ...]; a dict where the space is one
    actions: NDArray[Any]  # [T], or [T, n] of MultiDiscrete and MultiBinary spaces
    rewards: NDArray[Any]  # [T], for the player who moved
    terminated: bool  # whether it ended by itself; else its last state goes on unseen
    legal: NDArray[np.bool_] | None = None  # [T + 1, A]
    players: NDArray[np.int8] | None = (
        None  # [T + 1], to move; None: 0, or in games 0 and 1 in turn
    )
    values: NDArray[np.float32] | None = None  # [T + 1], evaluations; NaN where there is none


_PLAIN = ("actions", "rewards")
_OPTIONAL = ("legal", "players", "values")


def save_episodes(path: str | os.PathLike[str], episodes: Iterable[Episode]) -> None:
    """Write episodes into a file of plain arrays (.npz), one behind the other.

    `lengths` holds T of each, `terminated` its flag; `observations` (or `observations/KEY`) are
    T + 1 rows an episode, `actions` and `rewards` T, `legal`, `players` and `values` T + 1.

    :raises ValueError: if there is none, or some of them hold what others lack
    """
    given = list(episodes)
    if not given:
        raise ValueError("there is no episode to save")
    arrays: dict[str, NDArray[Any]] = {
        "lengths": np.array([len(episode.actions) for episode in given], np.int64),
        "terminated": np.array([episode.terminated for episode in given], np.bool_),
    }
    seen: list[Any] = [episode.observations for episode in given]
    if isinstance(seen[0], dict):
        for key in seen[0]:
            arrays[f"observations/{key}"] = np.concatenate([part[key] for part in seen])
    else:
        arrays["observations"] = np.concatenate(seen)
    for name in _PLAIN:
        arrays[name] = np.concatenate([getattr(episode, name) for episode in given])
    for name in _OPTIONAL:
        parts = [getattr(episode, name) for episode in given]
        if all(part is not None for part in parts):
            arrays[name] = np.concatenate(parts)
        elif any(part is not None for part in parts):
            raise ValueError(f"some of the episodes have {name} and some have none")
    with Path(path).open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)


def load_episodes(path: str | os.PathLike[str]) -> Iterator[Episode]:
    """Read what `save_episodes` wrote. The file holds no code.

    :raises ValueError: naming what is wrong with it
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (zipfile.BadZipFile, EOFError, ValueError, AttributeError) as error:
        raise ValueError(
            f"{path} is damaged, or is no file of episodes: write it again by save_episodes"
        ) from error
    missing = {"lengths", "terminated", *_PLAIN} - arrays.keys()
    keys = [name for name in arrays if name == "observations" or name.startswith("observations/")]
    if missing or not keys:
        raise ValueError(f"{path} lacks {sorted(missing) or 'observations'}: see save_episodes")
    lengths = arrays["lengths"]
    states = int((lengths + 1).sum())
    wanted = {"terminated": len(lengths), "actions": lengths.sum(), "rewards": lengths.sum()}
    wanted |= {name: states for name in (*keys, *_OPTIONAL) if name in arrays}
    for name, size in wanted.items():
        if len(arrays[name]) != size:
            raise ValueError(f"{path}: {name} has {len(arrays[name])} rows, not {size}")
    step = state = 0
    for number, length in enumerate(lengths.tolist()):
        part = slice(state, state + length + 1)
        observations: Any = {name.partition("/")[2]: arrays[name][part] for name in keys}
        yield Episode(
            observations if "observations" not in keys else observations[""],
            arrays["actions"][step : step + length],
            arrays["rewards"][step : step + length],
            bool(arrays["terminated"][number]),
            *(arrays[name][part] if name in arrays else None for name in _OPTIONAL),
        )
        step, state = step + length, state + length + 1


def read_episodes(dataset: Any, *, trust: bool = False) -> Iterator[Episode]:
    """The episodes of whatever holds some.

    :param dataset: episodes; an .npz file of `save_episodes`; a dataset of Minari, or its id; a
        replay buffer of SB3, or with `trust` a pickle of one
    :raises ValueError: for anything else
    """
    if isinstance(dataset, str | os.PathLike):
        path = Path(dataset)
        if path.suffix == ".npz":
            if not path.is_file():
                raise FileNotFoundError(f"{path}: there is no such file of episodes")
            return load_episodes(path)
        if path.suffix == ".pkl":
            if not trust:
                raise ValueError(
                    f"{path} is a pickle, which runs code when loaded: give trust=True if it is "
                    "yours, or pass the replay buffer itself"
                )
            return read_episodes(load_from_pkl(path), trust=True)
        if path.exists():
            raise ValueError(f"{path}: give a file .pgn, .pgn.zst, .npz or .pkl")
        return _of_minari(_minari_dataset(str(dataset)))
    if hasattr(dataset, "iterate_episodes"):
        return _of_minari(dataset)
    if isinstance(dataset, TrajectoryReplayBuffer):
        return _of_trajectories(dataset)
    if isinstance(dataset, ReplayBuffer):
        return _of_replay(dataset)
    if isinstance(dataset, Iterable) and not isinstance(dataset, Mapping):
        return _checked(dataset)
    raise ValueError(
        f"dataset={dataset!r}: give episodes, a file of games or episodes, a dataset of Minari or "
        "a replay buffer; see MuZero.learn_offline"
    )


def _checked(episodes: Iterable[Any]) -> Iterator[Episode]:
    for number, episode in enumerate(episodes):
        if not isinstance(episode, Episode):
            raise ValueError(f"entry {number} of the dataset is no datasets.Episode: {episode!r}")
        yield episode


def _minari_dataset(name: str) -> Any:
    try:
        import minari
    except ImportError:
        raise ImportError(
            f"{name!r} is no file, and for datasets of Minari the extra `offline` is missing: "
            "pip install 'muzero-agent[offline]'"
        ) from None
    try:
        return minari.load_dataset(name)
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{name!r} is no file, and Minari has no such dataset here: {error}. It fetches one by "
            f"`minari download {name}`"
        ) from None


def _of_minari(dataset: Any) -> Iterator[Episode]:
    for episode in dataset.iterate_episodes():
        yield Episode(
            episode.observations,
            np.asarray(episode.actions),
            np.asarray(episode.rewards),
            bool(np.asarray(episode.terminations)[-1]),
        )


def _of_trajectories(replay: TrajectoryReplayBuffer) -> Iterator[Episode]:
    """Episodes of this package's replay; of the oldest in each ring, what is still there."""
    for env in range(replay.n_envs):
        row, head = max(0, int(replay.head[env]) - replay.capacity), int(replay.head[env])
        while row < head:
            last = min(int(replay.last_row[env, row % replay.capacity]), head - 1)
            rows = Rows(np.full(last - row + 1, env), np.arange(row, last + 1))
            slots = rows.row % replay.capacity
            row = last + 1
            if len(slots) > 1:
                yield Episode(
                    replay.observations_at(rows),
                    to_space(replay.action_space, replay.action[env, slots[:-1]]),
                    replay.reward[env, slots[:-1]].copy(),
                    bool(replay.terminated[env, slots[-1]]),
                    replay.legal[env, slots].copy(),
                    replay.player[env, slots].copy(),
                )


def _of_replay(buffer: ReplayBuffer) -> Iterator[Episode]:
    """Episodes of single transitions in the order in which they were written; what an environment
    did not finish counts as truncated."""
    if not hasattr(buffer, "dones"):
        raise ValueError(f"{type(buffer).__name__} holds no transitions in order: pass a DQN's")
    order = np.arange(buffer.size())
    if buffer.full:
        order = (order + buffer.pos) % buffer.buffer_size
    if buffer.optimize_memory_usage and buffer.full:
        order = order[1:]  # its next observation was overwritten
    for env in range(buffer.n_envs):
        dones = buffer.dones[order, env].astype(np.bool_)
        ends = np.flatnonzero(dones).tolist()
        if len(order) and (not ends or ends[-1] != len(order) - 1):
            ends.append(len(order) - 1)
        begin = 0
        for end in ends:
            rows = order[begin : end + 1]
            begin = end + 1
            timeout = bool(buffer.timeouts[rows[-1], env])
            yield Episode(
                _of_rows(buffer, rows, env),
                _scalars(buffer.actions[rows, env]),
                buffer.rewards[rows, env],
                bool(dones[end]) and not timeout,
            )


def _of_rows(buffer: ReplayBuffer, rows: NDArray[np.int64], env: int) -> Observation:
    if isinstance(buffer, DictReplayBuffer):
        return {
            key: np.concatenate([part[rows, env], buffer.next_observations[key][rows[-1:], env]])
            for key, part in buffer.observations.items()
        }
    if buffer.optimize_memory_usage:
        last = buffer.observations[(rows[-1:] + 1) % buffer.buffer_size, env]
    else:
        last = buffer.next_observations[rows[-1:], env]
    joined: NDArray[Any] = np.concatenate([buffer.observations[rows, env], last])
    return joined


def _scalars(actions: NDArray[Any]) -> NDArray[Any]:
    """Actions of a Discrete space are rows of one number in SB3's buffers."""
    return actions[:, 0] if actions.ndim == 2 and actions.shape[1] == 1 else actions
