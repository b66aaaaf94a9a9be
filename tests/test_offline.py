"""Learning from recorded play: what is read, which targets come of it, and that it learns."""

from __future__ import annotations

import csv
import re
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.logger import configure

from muzero_agent import MuZero
from muzero_agent.actions import from_space, num_actions, to_space
from muzero_agent.batch import Rows
from muzero_agent.datasets import Episode, load_episodes, read_episodes, save_episodes
from muzero_agent.datasets.recorded import fill
from muzero_agent.offline_chess import Prefetched

SMALL: dict[str, Any] = {"policy_kwargs": {"net_arch": [16]}, "num_simulations": 4, "seed": 0}


def record(policy: Any, num: int, seed: int = 0) -> list[Episode]:
    """Episodes of CartPole, cut after 40 steps."""
    env = gym.make("CartPole-v1", max_episode_steps=40)
    episodes = []
    for number in range(num):
        obs, _ = env.reset(seed=seed + number)
        seen, actions, rewards, terminated, truncated = [obs], [], [], False, False
        while not (terminated or truncated):
            action = int(policy(obs))
            obs, reward, terminated, truncated, _ = env.step(action)
            seen.append(obs)
            actions.append(action)
            rewards.append(reward)
        episodes.append(Episode(np.array(seen), np.array(actions), np.array(rewards), terminated))
    return episodes


@pytest.fixture(scope="module")
def some() -> list[Episode]:
    rng = np.random.default_rng(0)
    return record(lambda obs: rng.integers(2), 20)


def same(one: Episode, other: Episode) -> bool:
    mine: Any
    theirs: Any
    for mine, theirs in zip(one, other, strict=True):
        if isinstance(mine, dict):
            assert mine.keys() == theirs.keys()
            assert all(np.array_equal(mine[key], theirs[key]) for key in mine)
        elif mine is None or theirs is None:
            assert mine is theirs
        else:
            assert np.array_equal(mine, theirs, equal_nan=np.asarray(mine).dtype.kind == "f")
    return True


# -- files and buffers -----------------------------------------------------------------------------


def test_episodes_survive_a_file(tmp_path: Path, some: list[Episode]) -> None:
    save_episodes(tmp_path / "x.npz", some)
    again = list(load_episodes(tmp_path / "x.npz"))
    assert len(again) == len(some)
    assert all(map(same, some, again))
    full = [
        Episode(
            {"observation": np.ones((3, 2), np.float32), "action_mask": np.ones((3, 2), np.int8)},
            np.array([0, 1]),
            np.array([0.0, 1.0]),
            True,
            np.ones((3, 2), np.bool_),
            np.array([0, 1, 0], np.int8),
            np.array([0.5, np.nan, 0.0], np.float32),
        )
    ] * 2
    save_episodes(tmp_path / "full.npz", full)
    assert all(map(same, full, load_episodes(tmp_path / "full.npz")))
    with pytest.raises(ValueError, match="some of the episodes have values"):
        save_episodes(tmp_path / "y.npz", [full[0], full[0]._replace(values=None)])
    with pytest.raises(ValueError, match="no episode"):
        save_episodes(tmp_path / "y.npz", [])


def test_files_that_are_damaged(tmp_path: Path, some: list[Episode]) -> None:
    path = tmp_path / "x.npz"
    save_episodes(path, some)
    with np.load(path) as file:
        arrays = dict(file)
    for change, complaint in (
        ({"actions": arrays["actions"][:-1]}, "actions has .* rows, not"),
        ({"lengths": arrays["lengths"][:-1]}, "rows, not"),
    ):
        np.savez(path, **(arrays | change))
        with pytest.raises(ValueError, match=complaint):
            list(load_episodes(path))
    arrays.pop("rewards")
    np.savez(path, **arrays)
    with pytest.raises(ValueError, match=r"lacks \['rewards'\]"):
        list(load_episodes(path))
    np.savez(path, lengths=np.array([{}], object))
    whole = path.read_bytes()
    for content in (whole, whole[: len(whole) // 2], b"", b"no", b"PK\x03\x04"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"x\.npz is damaged, or .* save_episodes"):
            list(load_episodes(path))


@pytest.mark.parametrize("full", [False, True])
def test_replays_of_sb3(full: bool) -> None:
    """Every step of a run, in its order; what was overwritten is gone."""
    model = DQN("MlpPolicy", "CartPole-v1", buffer_size=100 if full else 1000, seed=0)
    model.learn(250)
    assert model.replay_buffer is not None
    buffer = model.replay_buffer
    episodes = list(read_episodes(buffer))
    assert sum(len(episode.actions) for episode in episodes) == buffer.size()
    assert buffer.full == full
    assert all(episode.actions.ndim == 1 for episode in episodes)
    assert sum(episode.terminated for episode in episodes) == int(
        buffer.dones[: buffer.size()].sum()
    )
    first = episodes[0]
    row = buffer.pos if full else 0
    assert np.array_equal(first.observations[0], buffer.observations[row, 0])  # type: ignore[index]
    for episode in episodes:
        assert isinstance(episode.observations, np.ndarray)
        assert len(episode.observations) == len(episode.actions) + 1


def test_a_pickle_needs_trust(tmp_path: Path) -> None:
    model = DQN("MlpPolicy", "CartPole-v1", buffer_size=100, seed=0).learn(60)
    model.save_replay_buffer(tmp_path / "replay.pkl")
    learner = MuZero("MlpPolicy", "CartPole-v1", **SMALL)
    with pytest.raises(ValueError, match="give trust=True"):
        learner.learn_offline(tmp_path / "replay.pkl", 1)
    learner.learn_offline(tmp_path / "replay.pkl", 1, trust=True)
    assert learner.num_timesteps == 1


def test_the_package_s_own_replay() -> None:
    model = MuZero("MlpPolicy", "CartPole-v1", buffer_size=120, **SMALL).learn(300)
    replay = model.replay_buffer
    episodes = list(read_episodes(replay))
    assert sum(len(episode.actions) + 1 for episode in episodes) <= replay.size()
    assert sum(len(episode.actions) + 1 for episode in episodes) >= replay.size() - 1
    end = episodes[-2]
    assert isinstance(end.observations, np.ndarray)
    assert abs(end.observations[-1][2]) > 0.2 or abs(end.observations[-1][0]) > 2.4  # it fell
    other = MuZero("MlpPolicy", "CartPole-v1", **SMALL)
    other.learn_offline(replay, 2)


def test_datasets_of_minari(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that Minari 0.5.4 wrote: three episodes, of one action each."""
    import minari

    monkeypatch.setenv("MINARI_DATASETS_PATH", str(Path(__file__).parent / "datasets"))
    episodes = list(read_episodes("cartpole/test-v0"))
    assert [len(episode.actions) for episode in episodes] == [11, 9, 9]
    for seed, episode in enumerate(episodes):
        assert isinstance(episode.observations, np.ndarray)
        assert (episode.actions == seed % 2).all()
        assert episode.observations.shape == (len(episode.actions) + 1, 4)
        assert episode.terminated
        env = gym.make("CartPole-v1")
        assert np.array_equal(episode.observations[0], env.reset(seed=seed)[0])
    assert all(map(same, episodes, read_episodes(minari.load_dataset("cartpole/test-v0"))))
    MuZero("MlpPolicy", "CartPole-v1", **SMALL).learn_offline("cartpole/test-v0", 1)
    with pytest.raises(ValueError, match="minari download cartpole/none-v0"):
        read_episodes("cartpole/none-v0")


@pytest.mark.parametrize(
    "space",
    [spaces.Discrete(5), spaces.MultiDiscrete([2, 3, 4]), spaces.MultiBinary(3)],
    ids=str,
)
def test_actions_and_their_numbers(space: spaces.Space[Any]) -> None:
    numbers = np.arange(num_actions(space))
    assert np.array_equal(from_space(space, to_space(space, numbers)), numbers)
    for wrong in (to_space(space, numbers) + 9, to_space(space, numbers) - 9, [0.5]):
        with pytest.raises(ValueError, match="are not all of"):
            from_space(space, wrong)


# -- targets ---------------------------------------------------------------------------------------

EPISODE = Episode(
    np.arange(4, dtype=np.float32)[:, None],
    np.array([1, 0, 1]),
    np.array([0.0, 0.0, 1.0]),
    True,
    values=np.array([0.2, -0.4, np.nan, 0.0], np.float32),
)


def filled(weights: dict[str, float], episode: Episode = EPISODE, **changes: Any) -> Any:
    settings: dict[str, Any] = {
        "num_players": 1, "policy_weights": {"actions": 1.0}, "max_drop": np.inf, "gamma": 0.5,
        "unroll_steps": 2, "seed": 0,
    }  # fmt: skip
    box = spaces.Box(-9, 9, (1,))
    return fill([episode], box, spaces.Discrete(2), value_weights=weights, **(settings | changes))


def targets(replay: Any, num: int = 4) -> list[float]:
    rows = Rows(np.zeros(num, np.int64), np.arange(num))
    return [float(x) for x in replay.value_targets(rows, 1)[:, 0]]


def test_values_by_hand() -> None:
    assert targets(filled({"result": 1.0}), 3) == [0.25, 0.5, 1.0]
    mixed = targets(filled({"result": 1.0, "evaluation": 3.0}), 3)
    assert mixed == pytest.approx([0.25 * 0.25 + 0.75 * 0.2, 0.125 - 0.3, 1.0])  # none told: all
    game = filled({"result": 1.0}, num_players=2, gamma=1.0)
    assert targets(game, 3) == [1.0, -1.0, 1.0]  # of the player to move
    told = np.array([0.2, -0.4, np.nan, 0.4], np.float32)
    first = Episode(*EPISODE[:3], False, values=told)
    assert targets(filled({"result": 1.0}, first), 3) == pytest.approx([0.3, 0.6, 1.2])


def test_a_truncated_episode_goes_on_with_the_value_of_its_last_state() -> None:
    """Until that is known, its result is not."""
    replay = filled({"result": 1.0}, Episode(*EPISODE[:3], False))
    assert np.isnan(targets(replay, 3)).all()
    assert replay.sample(8).value_mask.sum() == 0
    assert replay.truncated_ends().tolist() == [3]
    assert filled({"result": 1.0}).truncated_ends().tolist() == []
    found = np.full((1, 2), 0.5), np.array([0.4]), np.zeros((1, 2), np.float32)
    replay.update_search(Rows(np.zeros(1, np.int64), np.array([3])), *found)
    assert targets(replay, 3) == pytest.approx([0.3, 0.6, 1.2])


def test_a_state_without_an_evaluation_has_no_value_to_learn() -> None:
    """But where the episode is over nothing is worth anything."""
    replay = filled({"evaluation": 1.0})
    batch = replay.sample(60)
    for i, row in enumerate(batch.rows.row.tolist()):
        for k in range(3):
            at = min(row + k, 3)
            assert batch.value_mask[i, k] == float(at != 2)
            assert batch.values[i, k] == pytest.approx([0.2, -0.4, 0.0, 0.0][at])


def test_search_alone_is_the_ordinary_target() -> None:
    replay = filled({"search": 1.0}, td_steps=1)
    rows = Rows(np.zeros(3, np.int64), np.arange(3))
    replay.update_search(
        rows, np.full((3, 2), 0.5), np.array([0.1, 0.2, 0.4]), np.zeros((3, 2), np.float32)
    )
    assert targets(replay, 3) == pytest.approx([0.5 * 0.2, 0.5 * 0.4, 1.0])


def test_what_is_imitated() -> None:
    """Actions, searches, or both; but no action that costs more than allowed, and of good actions
    none that the search finds worse than its policy."""
    rows = Rows(np.zeros((1, 4), np.int64), np.arange(4)[None])
    slots = rows.env, rows.row

    def policies(**changes: Any) -> tuple[list[list[float]], list[bool]]:
        replay = filled({"result": 1.0}, **changes)
        searched = Rows(np.zeros(2, np.int64), np.arange(2))
        found = np.array([[0.8, 0.2]] * 2, np.float32)
        regret = np.array([[0.0, 0.5], [0.0, 0.3]], np.float32)  # on average 0.1 and 0.06
        replay.update_search(searched, found, np.zeros(2), regret)
        policy, told = replay._policies(*slots)
        return np.round(policy[0], 6).tolist(), told[0].tolist()

    policy, told = policies()
    assert (policy[:3], told) == ([[0, 1], [1, 0], [0, 1]], [True, True, True, False])
    policy, told = policies(policy_weights={"search": 1.0})
    assert policy[:2] == [pytest.approx([0.8, 0.2])] * 2
    assert told == [True, True, False, False]
    policy, told = policies(policy_weights={"search": 3.0, "actions": 1.0})
    assert policy[:3] == [pytest.approx(p) for p in ([0.6, 0.4], [0.85, 0.15], [0, 1])]
    # 0.2 -> 0 + 0.5 * -0.4: a drop of 0.4; of the others one value is not told
    assert policies(max_drop=0.39)[1] == [False, True, True, False]
    assert policies(max_drop=0.41)[1] == [True, True, True, False]
    good = {"good_actions": 1.0}
    assert policies(policy_weights=good)[1] == [False, True, True, False]  # unsearched: good
    policy, told = policies(policy_weights=good | {"search": 1.0})
    assert policy[:3] == [pytest.approx(p) for p in ([0.8, 0.2], [0.9, 0.1], [0, 1])]


@pytest.mark.parametrize(
    ("episode", "complaint"),
    [
        (EPISODE._replace(actions=np.array([1, 0, 2])), "actions of the shape"),
        (EPISODE._replace(actions=np.array([1, 0])), "2 actions need 3 observations"),
        (EPISODE._replace(rewards=np.array([0.0, np.nan, 1.0])), "as many finite rewards"),
        (EPISODE._replace(observations=np.full((4, 1), np.inf)), "NaN or infinity"),
        (EPISODE._replace(observations=np.zeros((4, 2))), "have the shape"),
        (EPISODE._replace(values=np.zeros(3, np.float32)), "need 4 values, not 3"),
        (EPISODE._replace(actions=np.zeros(0)), "holds no transition"),
    ],
)
def test_episodes_that_do_not_fit(episode: Episode, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        filled({"result": 1.0}, episode)


# -- learning --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"policy_targets": "moves"}, "choose among"),
        ({"policy_targets": {"actions": -1.0}}, "weights are 0 or more"),
        ({"policy_targets": "candidates"}, "games of chess alone"),
        ({"value_targets": "z"}, "choose among"),
        ({"value_targets": {"result": -1.0}}, "weights are 0 or more"),
        ({"value_targets": {}}, "not all 0"),
        ({"value_targets": "evaluation"}, "episode 0 has no values"),
        ({"unroll_steps": 0}, "unroll_steps=0"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"reanalyse_ratio": 0}, "reanalyse_ratio=0"),
        ({"max_drop": 0.0}, "max_drop=0.0"),
        ({"latent_coef": -1.0}, "latent_coef=-1.0"),
        ({"latent_coef": 1.0, "batch_size": 1}, "a batch_size of at least 2"),
        ({"gradient_steps": -1}, "gradient_steps=-1"),
    ],
)
def test_arguments_that_cannot_work(
    some: list[Episode], arguments: dict[str, Any], complaint: str
) -> None:
    model = MuZero("MlpPolicy", "CartPole-v1", **SMALL)
    before = {name: x.clone() for name, x in model.policy.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(complaint)):
        model.learn_offline(some, **({"gradient_steps": 1} | arguments))
    assert all(torch.equal(x, before[name]) for name, x in model.policy.state_dict().items())


@pytest.mark.parametrize("dataset", [3, {}, [1], "nowhere.npz"])
def test_what_is_no_dataset(dataset: Any) -> None:
    model = MuZero("MlpPolicy", "CartPole-v1", **SMALL)
    with pytest.raises((ValueError, FileNotFoundError), match=r"give episodes|Episode|no such"):
        model.learn_offline(dataset, 1)


class Steps(BaseCallback):
    """Counts, and stops."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.most, self.rates = most, list[float]()

    def _on_step(self) -> bool:
        self.rates.append(self.model.policy.optimizer.param_groups[0]["lr"])
        return self.n_calls < self.most


def test_updates_are_steps_to_callbacks_and_schedules(some: list[Episode]) -> None:
    """And a run that stopped goes on where it was in its schedule."""
    made = [MuZero("MlpPolicy", "CartPole-v1", learning_rate=lambda p: 1e-3 * p, **SMALL)] * 1
    model, hook = made[0], Steps(6)
    model.learn_offline(some, 10, callback=hook)
    assert (hook.n_calls, model.num_timesteps, model._n_updates) == (6, 6, 6)
    assert hook.rates == pytest.approx([1e-3 * (1 - i / 10) for i in range(6)])
    rest = Steps(99)
    model.learn_offline(some, 4, callback=rest, reset_num_timesteps=False)
    assert model.num_timesteps == 10
    assert rest.rates == pytest.approx([1e-3 * (1 - i / 10) for i in range(6, 10)])


def test_a_progress_bar_goes_on_where_a_run_was(
    some: list[Episode], capsys: pytest.CaptureFixture[str]
) -> None:
    model = MuZero("MlpPolicy", make_vec_env("CartPole-v1", 3), **SMALL)
    model.learn_offline(some, 5, progress_bar=True)
    model.learn_offline(some, 3, progress_bar=True, reset_num_timesteps=False)
    shown = capsys.readouterr().err
    assert "5/5" in shown
    assert "5/8" in shown
    assert "8/8" in shown


def test_the_log_tells_what_batches_cost(tmp_path: Path, some: list[Episode]) -> None:
    """More where states are searched for them."""
    shares = {}
    for targets in ("actions", "search"):
        model = MuZero("MlpPolicy", "CartPole-v1", **SMALL | {"num_simulations": 200})
        model.set_logger(configure(str(tmp_path / targets), ["csv"]))
        model.learn_offline(
            some, 20, policy_targets=targets, value_targets="result", log_interval=10
        )
        with (tmp_path / targets / "progress.csv").open(encoding="utf-8", newline="") as file:
            shares[targets] = [float(row["time/share_for_batches"]) for row in csv.DictReader(file)]
    assert len(shares["actions"]) == len(shares["search"]) == 2
    assert 0 < shares["actions"][-1] < shares["search"][-1] < 1


def test_seeded_runs_are_identical_and_learn_goes_on(some: list[Episode]) -> None:
    weights = []
    for _ in range(2):
        model = MuZero("MlpPolicy", "CartPole-v1", batch_size=16, **SMALL)
        model.learn_offline(some, 8, value_smoothing=0.5)
        assert model.policy.network.support.smoothing == 0
        assert not model.policy.training
        model.learn(220)
        weights.append(torch.cat([x.flatten() for x in model.policy.network.parameters()]))
    assert torch.equal(*weights)


def test_a_model_without_an_environment_learns(tmp_path: Path, some: list[Episode]) -> None:
    MuZero("MlpPolicy", "CartPole-v1", **SMALL).save(tmp_path / "model")
    model = MuZero.load(tmp_path / "model")
    model.learn_offline(some, 2, policy_targets="actions", value_targets="result")
    assert model.num_timesteps == 2


def test_it_imitates_and_it_surpasses() -> None:
    """Of a policy that is good in one of three steps and random else: its actions alone give its
    like, searches more than that."""
    rng = np.random.default_rng(0)

    def mediocre(obs: Any) -> int:
        return int(obs[3] > 0) if rng.random() < 0.33 else int(rng.integers(2))

    episodes = record(mediocre, 60)
    recorded = float(np.mean([episode.rewards.sum() for episode in episodes]))
    settings: dict[str, Any] = {"num_simulations": 8, "seed": 0, "learning_rate": 3e-3}
    settings |= {"policy_kwargs": {"net_arch": [32]}}
    searcher = MuZero("MlpPolicy", "CartPole-v1", **settings)
    searcher.learn_offline(episodes, 300, batch_size=64)
    env = gym.make("CartPole-v1", max_episode_steps=40)
    found: Any = evaluate_policy(searcher, env, 10, warn=False)[0]
    imitator = MuZero("MlpPolicy", "CartPole-v1", **settings)
    imitator.learn_offline(
        episodes, 150, batch_size=64, policy_targets="actions", value_targets="result"
    )
    obs = np.concatenate([np.asarray(episode.observations) for episode in episodes])
    told = imitator.policy.evaluate(obs).prior_logits.argmax(1)
    assert recorded < 38
    assert found > recorded + 1
    assert np.mean(told == (obs[:, 3] > 0)) > 0.85


def test_errors_of_a_thread_come_out() -> None:
    def fail() -> Any:
        raise OSError("the disk is gone")

    ahead = Prefetched(fail, 2)
    with pytest.raises(OSError, match="the disk is gone"):
        ahead.next()
    ahead.close()
