"""The replay's observations: what is put comes back, and frames that repeat take memory once."""

from __future__ import annotations

import pickle
import tracemalloc
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from stable_baselines3.common.vec_env import VecFrameStack, VecTransposeImage

from muzero_agent.adapters.envs.atari import make_atari_env
from muzero_agent.frames import DictStore, PlainStore, PlaneStore, Store, observation_store
from muzero_agent.replay import TrajectoryReplayBuffer

Array = NDArray[Any]

KINDS = ["shift", "shift 3", "same", "shuffled", "one new", "random", "zeros", "reset", "padded"]


def following(kind: str, last: Array, rng: np.random.Generator) -> Array:
    """An observation [C, ...] that may come after `last`."""

    def new(num: int) -> Array:
        planes = rng.integers(0, 2 if last.dtype == bool else 100, (num, *last.shape[1:]))
        return planes.astype(last.dtype)

    channels = len(last)
    match kind:
        case "shift":
            return np.concatenate([last[1:], new(1)])
        case "shift 3":
            return np.concatenate([last, new(3)])[-channels:]
        case "same":
            return last
        case "shuffled":
            return last[rng.integers(channels, size=channels)]
        case "one new":
            obs = last.copy()
            obs[rng.integers(channels)] = new(1)
            return obs
        case "random":
            return new(channels)
        case "zeros":
            return np.zeros_like(last)
        case "reset":  # as gymnasium's FrameStackObservation
            return np.repeat(new(1), channels, axis=0)
        case "padded":  # as VecFrameStack
            return np.concatenate([np.zeros_like(last[1:]), new(1)])
    raise AssertionError(kind)


@given(
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=60),
    seed=st.integers(0, 1000),
    n_envs=st.integers(1, 3),
    rows=st.integers(1, 9),
    channels=st.integers(2, 5),
    dtype=st.sampled_from([np.uint8, np.int8, np.bool_, np.float32]),
    saved_after=st.integers(0, 59),
)
@settings(deadline=None, max_examples=150)
def test_what_was_put_comes_back(
    kinds: list[str],
    seed: int,
    n_envs: int,
    rows: int,
    channels: int,
    dtype: Any,
    saved_after: int,
) -> None:
    """Whatever follows on whatever, from environments in any order, round the ring several times,
    also when it was saved and loaded meanwhile."""
    rng = np.random.default_rng(seed)
    store: Any = PlaneStore((channels, 2, 3), dtype, n_envs, rows)
    expected = np.zeros((n_envs, rows, channels, 2, 3), dtype)
    last, head = np.zeros((n_envs, channels, 2, 3), dtype), [0] * n_envs
    for step, kind in enumerate(kinds):
        env = int(rng.integers(n_envs))
        last[env] = following(kind, last[env], rng)
        store.put(env, head[env] % rows, last[env])
        expected[env, head[env] % rows] = last[env]
        head[env] += 1
        if step == saved_after:
            store = pickle.loads(pickle.dumps(store))
        store.check_valid()
        np.testing.assert_array_equal(store.get(slice(None), slice(None)), expected)
        assert store.used <= 1 + (n_envs * rows + 1) * channels
    env_index, slot = rng.integers(n_envs, size=(4, 2)), rng.integers(rows, size=(4, 2))
    found = store.get(env_index, slot)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected[env_index, slot])


def test_floats_come_back_bit_for_bit() -> None:
    """Zeros of either sign and every NaN: equal is not the same."""
    store = PlaneStore((2, 4, 4), np.dtype(np.float32), 1, 4)
    bits = np.zeros((3, 2, 4, 4), np.uint32)
    bits[0, 1] = 0x80000000  # -0.0
    bits[1] = 0x7FC00001  # a NaN with a payload
    bits[2, 0], bits[2, 1] = 0x7FC00001, 0x7FC00002
    for slot, obs in enumerate(bits.view(np.float32)):
        store.put(0, slot, obs)
    np.testing.assert_array_equal(store.get(0, slice(3)).view(np.uint32), bits)
    assert store.used == 1 + 3


@pytest.mark.parametrize(
    ("first", "then", "length", "channels", "planes"),
    [
        ("padded", "shift", 7, 4, 1),  # episodes of VecFrameStack with grey frames
        ("reset", "shift", 7, 4, 1),  # of FrameStackObservation
        ("random", "shift 3", 300, 12, 3),  # RGB frames
        ("random", "one new", 300, 17, 1),  # a board, of which most stays as it is
        ("random", "shuffled", 300, 4, 0),
        ("random", "random", 300, 4, 4),
        ("padded", "same", 300, 4, 0),
    ],
)
def test_only_what_is_new_takes_memory(
    first: str, then: str, length: int, channels: int, planes: int
) -> None:
    """Also when the ring has come round many times: planes that no row shows are used again."""
    rows, rng = 30, np.random.default_rng(0)
    store = PlaneStore((channels, 6, 7), np.dtype(np.int64), 2, rows)
    obs = np.zeros((channels, 6, 7), np.int64)
    for step in range(300):
        obs = following(then if step % length else first, obs, rng)
        for env in range(2):
            store.put(env, step % rows, obs + env * (obs != 0))
    store.check_valid()
    assert len(np.unique(store.index)) <= store.used <= 2 * ((rows + 1) * planes + channels) + 1
    # Room is made for one a row; where there are more, at most an eighth of it is not needed.
    assert len(store.planes) <= max(1 + 2 * (rows + channels), store.used * 9 // 8 + 1)


@pytest.mark.parametrize(
    ("space", "store"),
    [
        (spaces.Box(0, 255, (4, 84, 84), np.uint8), PlaneStore),
        (spaces.Box(0, 1, (18, 8, 8), np.bool_), PlaneStore),  # type: ignore[arg-type]
        (spaces.Box(-1, 1, (2, 6, 7), np.int8), PlainStore),  # 42 bytes
        (spaces.Box(-1, 1, (2, 6, 7), np.float32), PlaneStore),
        (spaces.Box(0, 255, (1, 84, 84), np.uint8), PlainStore),
        (spaces.Box(0, 255, (4, 84, 84, 3), np.uint8), PlaneStore),
        (spaces.Box(-1, 1, (4, 376)), PlainStore),
        (spaces.MultiBinary((4, 84, 84)), PlainStore),
        (spaces.Discrete(5), PlainStore),
        (spaces.Dict({"a": spaces.Discrete(2)}), DictStore),
    ],
)
def test_stores_by_space(space: spaces.Space[Any], store: type[Store]) -> None:
    made = observation_store(space, 2, 5)
    assert type(made) is store
    sample = space.sample()
    made.put(1, 3, sample)
    found: Any = made.get(np.array([[1], [0]]), np.array([[3], [3]]))
    for key in sample if isinstance(sample, dict) else [...]:
        np.testing.assert_array_equal(found[key][0, 0], sample[key] if key is not ... else sample)
        assert not found[key][1, 0].any()


def test_a_wrong_shape_is_refused_and_changes_nothing() -> None:
    store = PlaneStore((4, 8, 8), np.dtype(np.uint8), 1, 3)
    obs = np.random.default_rng(0).integers(1, 256, (4, 8, 8), np.uint8)
    store.put(0, 0, obs)
    with pytest.raises(ValueError, match="shape"):
        store.put(0, 0, obs[:3])
    store.check_valid()
    np.testing.assert_array_equal(store.get(0, 0), obs)


def test_check_valid_finds_damage() -> None:
    store = PlaneStore((4, 8, 8), np.dtype(np.uint8), 1, 3)
    store.put(0, 0, np.random.default_rng(0).integers(1, 256, (4, 8, 8), np.uint8))
    store.check_valid()
    store.index[0, 1, 2] = 2
    with pytest.raises(ValueError, match="counts"):
        store.check_valid()
    store.index[0, 1, 2] = 10**6
    with pytest.raises(ValueError, match="not there"):
        store.check_valid()


# -- in the replay -------------------------------------------------------------------------------


def make_replay(space: spaces.Space[Any], size: int, n_envs: int = 1) -> TrajectoryReplayBuffer:
    return TrajectoryReplayBuffer(
        size, space, spaces.Discrete(6), device="cpu", n_envs=n_envs, seed=0
    )


def add(replay: TrajectoryReplayBuffer, obs: Any, env: int = 0) -> None:
    policy = np.full(6, 1 / 6, np.float32)
    replay.add_step(env, obs, 0, 1.0, policy, 0.0, 0.0, None, searched=True)


def test_batches_do_not_depend_on_how_observations_are_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = spaces.Dict(
        {"image": spaces.Box(0, 255, (4, 8, 8), np.uint8), "speed": spaces.Box(-1, 1, (2,))}
    )
    shared = make_replay(space, 60, n_envs=2)
    plain = make_replay(space, 60, n_envs=2)
    shared._allocate()
    monkeypatch.setattr("muzero_agent.frames.SMALLEST_PLANE", np.inf)
    plain._allocate()
    rng = np.random.default_rng(0)
    image = np.zeros((2, 4, 8, 8), np.uint8)
    for step in range(200):
        for env in range(2):
            image[env] = following("shift" if step % 9 else "padded", image[env], rng)
            obs = {"image": image[env], "speed": rng.uniform(-1, 1, 2).astype(np.float32)}
            add(shared, obs, env)
            add(plain, obs, env)
            if step % 9 == 8:
                for replay in (shared, plain):
                    replay.end_episode(env, obs, 0.0, terminated=step % 2 == 0)
    shared.check_valid()
    a: Any = shared.sample(32).observations
    b: Any = plain.sample(32).observations
    stores: Any = shared.store, plain.store
    assert [type(store.parts["image"]) for store in stores] == [PlaneStore, PlainStore]
    assert a["image"].shape == (32, 6, 4, 8, 8)
    assert all((a[key] == b[key]).all() for key in space)


@pytest.mark.parametrize("shape", [(4, 40, 40), (4000,)])
def test_a_saved_replay_is_as_large_as_what_it_holds(shape: tuple[int, ...]) -> None:
    replay = make_replay(spaces.Box(0, 255, shape, np.uint8), 2000)
    rng = np.random.default_rng(0)
    obs = np.zeros(shape, np.uint8)
    for _ in range(50):
        obs = following("shift" if len(shape) > 1 else "random", obs, rng)
        add(replay, obs)
    saved = pickle.dumps(replay)
    beside = 2000 * (16 + 100)  # numbers of planes, policies and the like
    assert len(saved) < beside + 1.2 * 50 * (40 * 40 if len(shape) > 1 else 4000) + 20_000
    again = pickle.loads(saved)
    for _ in range(2100):  # it goes on, round the ring, as if nothing had happened
        obs = following("shift" if len(shape) > 1 else "random", obs, rng)
        add(replay, obs)
        add(again, obs)
    again.check_valid()
    np.testing.assert_array_equal(again.obs, replay.obs)
    if len(shape) > 1:
        assert again.store.used == replay.store.used  # type: ignore[attr-defined]


# -- Atari ---------------------------------------------------------------------------------------


def pong(steps: int, show_actions: bool = False) -> Iterator[tuple[Array, Array | None]]:
    """Stacks of Pong under random play, and what ended the episode, if something did."""
    gym.register_envs(pytest.importorskip("ale_py"))
    pytest.importorskip("cv2")
    env = VecTransposeImage(
        VecFrameStack(make_atari_env("PongNoFrameskip-v4", seed=0, show_actions=show_actions), 4)
    )
    rng = np.random.default_rng(0)
    obs: Any = env.reset()
    for _ in range(steps):
        before = obs.copy()
        obs, _, dones, infos = env.step(rng.integers(6, size=1))
        yield before[0], infos[0]["terminal_observation"] if dones[0] else None
    env.close()


@pytest.mark.parametrize("show_actions", [False, True])
def test_a_step_of_pong_takes_seven_kilobytes(show_actions: bool) -> None:
    """All that the replay holds, as Python's allocator counts it: reserved memory, used or not."""
    played = list(pong(2500, show_actions))
    rows = 2000
    tracemalloc.start()
    try:
        replay = make_replay(spaces.Box(0, 255, played[0][0].shape, np.uint8), rows)
        for obs, last in played:
            add(replay, obs)
            if last is not None:
                replay.end_episode(0, last, 0.0, terminated=True)
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert replay.size() == rows
    assert held / rows <= 7500
    assert 100_000 * held / rows <= 1e9
    assert len(pickle.dumps(replay)) / rows <= 7500
    states = [obs for step in played for obs in step if obs is not None]
    assert len(states) > len(played)  # an episode ended
    np.testing.assert_array_equal(
        replay.store.get(0, np.arange(len(states) - rows, len(states)) % rows), states[-rows:]
    )


def test_ale_pys_own_stacks_share_frames_as_well() -> None:
    pytest.importorskip("ale_py")
    from ale_py.vector_env import AtariVectorEnv

    env = AtariVectorEnv("pong", num_envs=2, stack_num=4)
    store = PlaneStore((4, 84, 84), np.dtype(np.uint8), 2, 200)
    obs, _ = env.reset(seed=0)
    seen = []
    rng = np.random.default_rng(0)
    for step in range(200):
        seen.append(obs.copy())
        for i in range(2):
            store.put(i, step, obs[i])
        obs = env.step(rng.integers(6, size=2))[0]
    env.close()
    np.testing.assert_array_equal(store.get(slice(None), slice(None)), np.stack(seen, 1))
    assert store.used <= 1 + 2 * (200 + 4)
