"""Trajectories in, batches out: windows, masks, truncation, absorption, sampling."""

from __future__ import annotations

import json
import math
import pickle
from typing import Any, NamedTuple

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from muzero_agent.batch import Rows
from muzero_agent.reanalyse import Sweep
from muzero_agent.replay import NEWEST, TrajectoryReplayBuffer

ACTIONS = 3


def make(buffer_size: int = 200, n_envs: int = 1, **kwargs: Any) -> TrajectoryReplayBuffer:
    settings_: dict[str, Any] = {"unroll_steps": 3, "td_steps": 100, "gamma": 1.0, "seed": 0}
    return TrajectoryReplayBuffer(
        buffer_size,
        spaces.Box(-1e6, 1e6, (1,)),
        spaces.Discrete(ACTIONS),
        device="cpu",
        n_envs=n_envs,
        **(settings_ | kwargs),
    )


def add_episode(
    replay: TrajectoryReplayBuffer,
    length: int,
    *,
    env: int = 0,
    start: float = 0.0,
    end: str = "terminated",
    last_value: float = 50.0,
    value: float = 0.0,
    first_player: int | None = None,
) -> None:
    """States start, start + 1, ...; action t mod 3, reward 1 a step; ends as told or stays open."""
    for t in range(length):
        policy = np.eye(ACTIONS, dtype=np.float32)[t % ACTIONS]
        player = 0 if first_player is None else (first_player + t) % 2
        replay.add_step(
            env,
            np.array([start + t], np.float32),
            t % ACTIONS,
            1.0,
            policy,
            value,
            0.0,
            None,
            searched=True,
            player=player,
        )
    if end != "open":
        player = 0 if first_player is None else (first_player + length) % 2
        replay.end_episode(
            env,
            np.array([start + length], np.float32),
            last_value,
            terminated=end == "terminated",
            player=player,
        )


def rows_of(*row: int) -> Rows:
    return Rows(np.zeros(len(row), np.int64), np.array(row, np.int64))


def test_windows_hold_consecutive_states() -> None:
    replay = make()
    add_episode(replay, 20)
    batch = replay.sample(64)
    assert not isinstance(batch.observations, dict)
    states = batch.observations[:, :, 0].numpy()
    inside = batch.consistency_mask.numpy() > 0
    assert inside.any()
    assert ((states[:, 1:] - states[:, :-1])[inside] == 1).all()
    assert (batch.actions.numpy() == states[:, :-1] % ACTIONS)[inside].all()
    np.testing.assert_array_equal(batch.policies.argmax(-1).numpy()[:, 0], states[:, 0] % ACTIONS)


def batch_from(replay: TrajectoryReplayBuffer, row: int, monkeypatch: pytest.MonkeyPatch) -> Any:
    drawn = rows_of(row), np.ones(1, np.float32)
    monkeypatch.setattr(replay, "sample_rows", lambda batch_size: drawn)
    return replay.sample(1)


def test_a_terminal_state_absorbs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the end: reward 0, value 0, no policy loss, and all of it trained."""
    replay = make()
    add_episode(replay, 5)
    batch = batch_from(replay, 4, monkeypatch)  # one move before the end
    assert batch.rewards[0].tolist() == [1, 0, 0]
    assert batch.reward_mask[0].tolist() == [1, 1, 1]
    assert batch.values[0].tolist() == [1, 0, 0, 0]
    assert batch.value_mask[0].tolist() == [1, 1, 1, 1]
    assert batch.policy_mask[0].tolist() == [1, 0, 0, 0]
    assert batch.consistency_mask[0].tolist() == [1, 0, 0]


def test_truncation_bootstraps_and_masks_what_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make()
    add_episode(replay, 5, end="truncated", last_value=50.0)
    batch = batch_from(replay, 4, monkeypatch)
    assert batch.values[0, 0] == 51
    assert batch.reward_mask[0].tolist() == [1, 0, 0]
    assert batch.value_mask[0].tolist() == [1, 0, 0, 0]
    assert batch.policy_mask[0].tolist() == [1, 0, 0, 0]


def test_actions_past_the_end_are_random() -> None:
    """The dynamics must absorb whatever is played there, not just the action that is stored."""
    replay = make(unroll_steps=4)
    add_episode(replay, 1)
    actions = replay.sample(300).actions[:, 1:].numpy()
    assert chisquare(np.bincount(actions.ravel(), minlength=ACTIONS)).pvalue > 1e-3


def test_an_open_episode_ends_at_its_newest_state(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make()
    add_episode(replay, 5, end="open", value=7.0)
    batch = batch_from(replay, 2, monkeypatch)
    assert batch.values[0, 0] == 2 + 7  # two rewards, then the newest state's value
    assert batch.reward_mask[0].tolist() == [1, 1, 0]
    replay.close_open_episodes()
    again = batch_from(replay, 2, monkeypatch)
    assert again.values[0, 0] == 2 + 7
    add_episode(replay, 3, start=100.0)
    batch = batch_from(replay, 2, monkeypatch)
    assert batch.values[0, 0] == 2 + 7  # the next episode is another one
    replay.check_valid()


def test_gamma_discounts(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make(gamma=0.5)
    add_episode(replay, 3)
    assert batch_from(replay, 0, monkeypatch).values[0, :3].tolist() == [1.75, 1.5, 1.0]


@pytest.mark.parametrize("first_player", [0, 1])
@pytest.mark.parametrize("length", [4, 5])
def test_two_players_see_the_outcome_with_their_own_sign(
    first_player: int, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the last mover is paid: +1 for states where he moves, -1 for the other's; from odd and
    even starts and whoever begins."""
    replay = make(unroll_steps=length)
    add_episode(replay, length, first_player=first_player)
    replay.reward[0, :] = 0
    replay.reward[0, length - 1] = 1
    for start in range(length):
        values = batch_from(replay, start, monkeypatch).values[0]
        for k in range(length - start):
            assert values[k] == (1 if (length - 1 - start - k) % 2 == 0 else -1)
        assert values[length - start :].abs().sum() == 0


def test_two_player_bootstrap_changes_sign(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make(td_steps=1)
    add_episode(replay, 4, first_player=0, value=0.25)
    replay.reward[:] = 0
    assert batch_from(replay, 0, monkeypatch).values[0, 0] == -0.25


@given(data=st.data())
@settings(deadline=None, max_examples=50)
def test_the_ring_forgets_the_oldest_and_nothing_else(data: st.DataObject) -> None:
    replay = make(buffer_size=data.draw(st.integers(6, 40)), n_envs=1)
    start, states = 0.0, []
    for _ in range(data.draw(st.integers(1, 8))):
        length = data.draw(st.integers(1, 15))
        end = data.draw(st.sampled_from(["terminated", "truncated"]))
        add_episode(replay, length, start=start, end=end)
        states += [start + t for t in range(length + 1)]
        start += 1000
        replay.check_valid()
    held = states[-replay.capacity :]
    rows = np.arange(len(states) - len(held), len(states))
    obs = replay.observations_at(rows_of(*rows))
    assert not isinstance(obs, dict)
    assert obs[:, 0].tolist() == held
    if replay.can_sample():
        batch = replay.sample(32)
        assert not isinstance(batch.observations, dict)
        first = batch.observations[:, 0, 0].tolist()
        assert set(first) <= set(held)
        # No window runs into the next episode.
        moves = batch.observations[:, 1:, 0] - batch.observations[:, :-1, 0]
        assert moves.abs().max() <= 1


@pytest.mark.parametrize("n_envs", [1, 3])
def test_uniform_sampling_is_uniform_over_transitions(n_envs: int) -> None:
    replay = make(n_envs=n_envs, buffer_size=40 * n_envs)
    for env in range(n_envs):
        add_episode(replay, 4 + env, env=env)
        add_episode(replay, 6, env=env, end="truncated")
        add_episode(replay, 3, env=env, end="open")
    drawn = np.concatenate(
        [(rows.env * 100 + rows.row) for rows, _ in (replay.sample_rows(64) for _ in range(200))]
    )
    values, counts = np.unique(drawn, return_counts=True)
    transitions = sum(4 + env + 6 + 2 for env in range(n_envs))  # the open one's newest has none
    assert len(values) == transitions
    assert chisquare(counts).pvalue > 1e-3


def test_prioritised_sampling_follows_priority_to_the_alpha() -> None:
    replay = make(priority_exponent=0.5, priority_beta=1.0)
    add_episode(replay, 10)
    priority = np.arange(1.0, 11.0)
    replay.update_errors(rows_of(*range(10)), priority.astype(np.float32))
    drawn = np.concatenate([replay.sample_rows(50)[0].row for _ in range(400)])
    expected = priority**0.5 / (priority**0.5).sum()
    counts = np.bincount(drawn, minlength=11)
    assert counts[10] == 0  # the terminal state starts no window
    assert chisquare(counts[:10], expected * len(drawn)).pvalue > 1e-3


def test_importance_weights_undo_the_priorities() -> None:
    replay = make(priority_exponent=1.0, priority_beta=1.0)
    add_episode(replay, 4)
    replay.update_errors(rows_of(0, 1, 2, 3), np.array([1, 2, 3, 4], np.float32))
    rows, weights = replay.sample_rows(64)
    product = weights * (rows.row + 1)
    np.testing.assert_allclose(product, product[0], rtol=1e-3)
    assert weights.max() == 1


def test_new_rows_get_the_largest_priority() -> None:
    replay = make(priority_exponent=1.0)
    add_episode(replay, 2)
    replay.update_errors(rows_of(0, 1), np.array([9, 1], np.float32))
    add_episode(replay, 1, start=50.0)
    weights = replay.priorities.get(np.arange(5))
    assert weights.tolist() == pytest.approx([9, 1, 0, 9, 0], abs=2e-3)


def test_reanalysed_results_replace_stored_ones_but_not_the_end() -> None:
    replay = make()
    add_episode(replay, 2)
    fresh = np.full((3, ACTIONS), 1 / ACTIONS, np.float32)
    replay.update_search(rows_of(0, 1, 2), fresh, np.array([5, 6, 7], np.float32), fresh * 0)
    assert replay.value[0, :3].tolist() == [5, 6, 0]  # a terminal state keeps its value 0
    assert replay.searched[0, :3].tolist() == [True, True, False]
    add_episode(replay, 1, end="truncated", last_value=3.0)
    replay.update_search(rows_of(4), fresh[:1], np.array([8], np.float32), fresh[:1] * 0)
    assert replay.value[0, 4] == 8  # truncation bootstraps from the newest value


def test_value_targets_stop_in_front_of_a_mistake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third action of five is found bad by today's search: what followed does not count for the
    states before it, and its own target is its searched value."""
    replay = make(regret_tolerance=2.0)
    add_episode(replay, 5, value=10.0)
    assert batch_from(replay, 0, monkeypatch).values[0].tolist() == [5, 4, 3, 2]
    replay.update_errors(rows_of(0), np.array([1.5], np.float32))  # mistakes cost more than 3
    regret = np.zeros((5, ACTIONS), np.float32)
    regret[2, 2], regret[3, 0] = 3.5, 2.5
    policy, value = np.full((5, ACTIONS), 1 / 3, np.float32), np.full(5, 10, np.float32)
    replay.update_search(rows_of(*range(5)), policy, value, regret)
    # Of 6 rows written, the newest fifth is row 5 alone, the last state.
    assert batch_from(replay, 0, monkeypatch).values[0].tolist() == [12, 11, 10, 2]


def test_value_targets_do_not_stop_in_the_newest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the search hopes for in a state that has just failed, its target is the failure."""
    replay = make(regret_tolerance=2.0)
    add_episode(replay, 5, value=10.0)
    replay.update_errors(rows_of(0), np.array([1.5], np.float32))
    replay.regret[0, :] = 4.0
    assert batch_from(replay, 0, monkeypatch).values[0].tolist() == [10, 10, 10, 10]
    replay.regret[0, :2] = 0.0
    assert batch_from(replay, 0, monkeypatch).values[0].tolist() == [12, 11, 10, 10]
    add_episode(replay, 1, value=10.0)  # 8 rows: the newest fifth is row 7
    replay.regret[0, 6] = 4.0
    assert replay.value_targets(rows_of(6), 1).tolist() == [[10]]
    replay.newest = 0.25  # rows 6 and 7
    assert replay.value_targets(rows_of(6), 1).tolist() == [[1]]


def test_the_newest_rows_are_a_share_of_those_held() -> None:
    """Not of all that were ever written, which after a while are many times the replay."""
    replay = make(buffer_size=10, regret_tolerance=1.0)
    for _ in range(20):
        add_episode(replay, 1, value=10.0)  # rewards 1: the end of each is row 39, 37, ...
    replay.typical_error = 1.0
    replay.regret[:] = 5.0
    assert replay.value_targets(rows_of(34, 36, 38), 1)[:, 0].tolist() == [10, 10, 1]


class Stored(NamedTuple):
    """A state and what followed, as the oracle of value targets keeps it."""

    value: float
    reward: float
    player: int
    searched: bool
    mistake: bool
    last: bool


def target_by_definition(states: list[Stored], t: int, n: int, gamma: float, lam: float) -> float:
    """Lambda-return of the mover at t by its recursion, from states up to the episode's end."""
    here = states[t]
    if here.last or t == len(states) - 1 or n == 0 or here.mistake:
        return here.value
    following = states[t + 1]
    sign = 1 if following.player == here.player else -1
    ends = following.last or t + 1 == len(states) - 1
    weight = lam if following.searched or ends else 1.0
    one_step = (1 - weight) * following.value if weight < 1 else 0.0
    rest = weight * target_by_definition(states, t + 1, n - 1, gamma, lam) if weight > 0 else 0.0
    return here.reward + sign * gamma * (one_step + rest)


@given(
    seed=st.integers(0, 10_000),
    n_envs=st.integers(1, 3),
    capacity=st.integers(8, 30),
    td_steps=st.integers(1, 12),
    td_lambda=st.sampled_from([0.0, 0.7, 1.0]),
    exponent=st.sampled_from([0.0, 1.0]),
)
@settings(deadline=None, max_examples=60)
def test_value_targets_follow_their_definition(
    seed: int, n_envs: int, capacity: int, td_steps: int, td_lambda: float, exponent: float
) -> None:
    """Of environments in step, with rings that wrap, open episodes, two players, mistakes, and
    states of the warm-up."""
    rng = np.random.default_rng(seed)
    replay = make(
        capacity * n_envs,
        n_envs,
        gamma=0.9,
        td_steps=td_steps,
        td_lambda=td_lambda,
        regret_tolerance=1.0,
        priority_exponent=exponent,
    )
    replay.typical_error = 1.0
    history: list[list[Stored]] = [[] for _ in range(n_envs)]
    for _ in range(int(rng.integers(2, 3 * capacity))):
        for env in range(n_envs):
            value, reward = rng.normal(size=2).astype(np.float32).tolist()
            player, mistake = int(rng.integers(2)), bool(rng.random() < 0.2)
            searched = bool(rng.random() < 0.7)
            obs, policy = np.zeros(1, np.float32), np.full(ACTIONS, 1 / 3, np.float32)
            value = value if searched else math.nan
            regret = 2.0 if mistake else 0.5
            replay.add_step(
                env, obs, 0, reward, policy, value, regret, None, searched=searched, player=player
            )
            history[env].append(Stored(value, reward, player, searched, mistake, last=False))
            if rng.random() < 0.15:
                terminated, value = bool(rng.random() < 0.5), float(np.float32(rng.normal()))
                replay.end_episode(env, obs, value, terminated=terminated, player=player)
                value = 0.0 if terminated else value
                history[env].append(Stored(value, 0.0, player, False, False, last=True))
    replay.check_valid()
    if not replay.can_sample():
        return
    rows, _ = replay.sample_rows(40)
    found = replay.value_targets(rows, num_targets=4)
    for env, row, targets in zip(rows.env, rows.row, found, strict=True):
        states = history[env]
        oldest = len(states) - int(NEWEST * min(len(states), replay.capacity))
        states = [s if t < oldest else s._replace(mistake=False) for t, s in enumerate(states)]
        assert row >= len(states) - replay.capacity  # no row is drawn that was overwritten
        assert not states[row].last
        assert row < len(states) - 1
        for k, target in enumerate(targets):
            t = int(row)
            while t < row + k and not states[t].last and t < len(states) - 1:
                t += 1  # past the end the last state stays
            wanted = target_by_definition(states, t, td_steps, 0.9, td_lambda)
            assert target == pytest.approx(wanted, abs=1e-5, nan_ok=True)


def test_every_state_is_stored_once() -> None:
    replay = make(buffer_size=1000)
    add_episode(replay, 10)
    assert replay.size() == 11


def test_states_without_successors_cannot_be_drawn() -> None:
    """Episodes interrupted after a step: nothing to learn from, and nothing to wait for."""
    replay = make(buffer_size=8)
    for start in range(20):
        add_episode(replay, 1, start=10.0 * start, end="open")
        replay.close_open_episodes()
        assert not replay.can_sample()
    with pytest.raises(RuntimeError, match="collect steps"):
        replay.sample(2)
    add_episode(replay, 1)
    assert replay.can_sample()
    assert (replay.sample_rows(8)[0].row == 20).all()
    for _ in range(replay.capacity):
        add_episode(replay, 1, end="open")
        replay.close_open_episodes()
    assert not replay.can_sample()


def test_the_typical_error_is_that_of_all_rows_however_they_are_drawn() -> None:
    """Priorities draw rows of large errors more often; rows without a target count nowhere."""
    replay = make(priority_exponent=1.0)
    add_episode(replay, 100)
    errors = np.arange(1, 101, dtype=np.float32)
    replay.update_errors(rows_of(*range(100)), errors)
    for _ in range(300):
        rows, weights = replay.sample_rows(64)
        replay.update_errors(rows, errors[rows.row], weights)
    assert replay.typical_error == pytest.approx(errors.mean(), rel=0.1)  # of those drawn: 67
    before = replay.typical_error, float(replay.priorities.nodes[1])
    replay.update_errors(rows_of(0, 1), np.full(2, 1e6, np.float32), np.zeros(2, np.float32))
    assert (replay.typical_error, float(replay.priorities.nodes[1])) == before


def test_what_leads_to_an_unknown_value_has_no_target(monkeypatch: pytest.MonkeyPatch) -> None:
    """States of the warm-up have none until they are searched; n-step sums may end there."""
    replay = make(td_steps=2, td_lambda=0.5)
    add_episode(replay, 6, value=math.nan, end="truncated", last_value=50.0)
    assert batch_from(replay, 0, monkeypatch).value_mask[0].tolist() == [0, 0, 0, 0]
    assert batch_from(replay, 3, monkeypatch).value_mask[0].tolist() == [0, 1, 1, 0]
    assert batch_from(replay, 3, monkeypatch).values[0].tolist() == [0, 52, 51, 50]
    policy, regret = np.full((1, ACTIONS), 1 / 3, np.float32), np.zeros((1, ACTIONS), np.float32)
    replay.update_search(rows_of(5), policy, np.array([7.0], np.float32), regret)
    assert batch_from(replay, 3, monkeypatch).values[0].tolist() == [9, 8 / 2 + 52 / 2, 51, 50]
    replay.check_valid()


def test_no_tolerance_is_wide_enough_to_stop_at_infinity(monkeypatch: pytest.MonkeyPatch) -> None:
    replay = make(regret_tolerance=np.inf)
    add_episode(replay, 3)
    replay.update_errors(rows_of(0), np.zeros(1, np.float32))
    assert batch_from(replay, 0, monkeypatch).values[0].tolist() == [3, 2, 1, 0]


def grow(replay: TrajectoryReplayBuffer, step: int) -> None:
    """By a row of each environment, and by one more where an episode ends."""
    for env in range(replay.n_envs):
        end = "truncated" if step % 7 == env else "open"
        add_episode(replay, 1, env=env, start=float(step), end=end)


def test_a_sweep_visits_every_state_equally_often() -> None:
    replay, sweep = make(buffer_size=60, n_envs=2), Sweep()
    visits = np.zeros((2, 400), np.int64)
    for step in range(300):
        grow(replay, step)
        rows = sweep.rows(replay, 8)
        visits[rows.env, rows.row] += 1
    settled = visits[:, 100:250]  # written and forgotten while the ring was full
    assert settled.min() >= 2
    assert settled.max() <= 4  # 8 a step over 60 states, of which each has had results of its own


@pytest.mark.parametrize("ratio", [1, 3])
def test_no_results_are_older_than_a_sweep(ratio: int) -> None:
    """While the replay grows, too, and of every environment."""
    replay, sweep = make(buffer_size=10_000, n_envs=5), Sweep()
    newest = np.zeros((5, 2_000), np.int64)  # the step of each row's results
    for step in range(1_000):
        before = replay.head.copy()
        grow(replay, step)
        for env in range(5):
            newest[env, before[env] : replay.head[env]] = step
        rows = sweep.rows(replay, ratio * 5)
        newest[rows.env, rows.row] = step
        ages = [step - newest[env, : replay.head[env]].min() for env in range(5)]
        # A step adds 5 rows and a few last states, and renews 5 * ratio.
        assert max(ages) <= replay.size() / (5 * ratio + 5) + 1


def test_a_sweep_goes_on_where_it_stood() -> None:
    replay, sweep, other = make(buffer_size=60, n_envs=2), Sweep(), Sweep()
    for step in range(20):
        grow(replay, step)
        sweep.rows(replay, 3)
    other.restore(json.loads(json.dumps(sweep.state)))
    grow(replay, 20)
    for _ in range(30):
        for ours, theirs in zip(sweep.rows(replay, 5), other.rows(replay, 5), strict=True):
            assert ours.tolist() == theirs.tolist()
    replay.reset()
    assert sweep.rows(replay, 5).row.tolist() == []
    grow(replay, 0)
    assert sorted(sweep.rows(replay, 5).row.tolist()) == [0, 0, 1]


def test_memory_is_allocated_on_first_use() -> None:
    replay = TrajectoryReplayBuffer(
        10**9, spaces.Box(0, 255, (84, 84, 4), np.uint8), spaces.Discrete(18), device="cpu"
    )
    assert replay.size() == 0
    assert not replay.can_sample()
    with pytest.raises(RuntimeError, match="collect steps"):
        replay.sample(1)


def test_dict_observations() -> None:
    space = spaces.Dict({"a": spaces.Box(0, 1, (2,)), "b": spaces.Discrete(4)})
    replay = TrajectoryReplayBuffer(
        50, space, spaces.Discrete(2), device="cpu", unroll_steps=2, seed=0
    )
    for t in range(4):
        obs = {"a": np.array([t, t], np.float32), "b": np.array(t)}
        replay.add_step(0, obs, 0, 0.0, np.full(2, 0.5, np.float32), 0.0, 0.0, None, searched=True)
    batch = replay.sample(5)
    assert isinstance(batch.observations, dict)
    assert batch.observations["a"].shape == (5, 3, 2)
    assert batch.observations["b"].shape == (5, 3)


@pytest.mark.parametrize("exponent", [0.0, 0.6])
def test_state_round_trip(exponent: float) -> None:
    replay = make(priority_exponent=exponent)
    add_episode(replay, 12)
    add_episode(replay, 5, end="open")
    clone = pickle.loads(pickle.dumps(replay))
    clone.check_valid()
    for a, b in zip(replay.sample(16), clone.sample(16), strict=True):
        if isinstance(a, Rows):
            np.testing.assert_array_equal(a.row, b.row)
        else:
            assert (a == b).all()


def test_check_valid_finds_damage() -> None:
    replay = make()
    add_episode(replay, 5)
    replay.check_valid()
    replay.last_row[0, 2] = 3
    with pytest.raises(ValueError, match="episode"):
        replay.check_valid()


def test_reset_forgets() -> None:
    replay = make()
    add_episode(replay, 5)
    replay.reset()
    assert replay.size() == 0
    add_episode(replay, 2)
    replay.check_valid()
    assert replay.size() == 3
