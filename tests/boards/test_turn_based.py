"""Turn-based games of PettingZoo as environments, and what MuZero stores of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from statistics import NormalDist
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo.classic import (
    chess_v6,
    connect_four_v3,
    go_v5,
    hanabi_v5,
    rps_v2,
    tictactoe_v3,
)
from pettingzoo.test import api_test
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.go import GoEnv
from muzero_agent.adapters.envs.go_rules import GoRules, GoState
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv, as_turn_based, make_turn_based_env

from .aec_games import CountingGame

GAMES: dict[str, Callable[[], Any]] = {
    "tictactoe": tictactoe_v3.env,
    "connect_four": connect_four_v3.env,
    "chess": chess_v6.env,
    "go 9": lambda: go_v5.env(board_size=9),
    "go 19": lambda: go_v5.env(board_size=19),
}
TINY: dict[str, Any] = {
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 4,
    "gradient_steps": 1,
    "num_simulations": 4,
    "reanalyse_ratio": 1,
    "seed": 0,
}


def same(first: Any, second: Any) -> bool:
    if isinstance(first, dict):
        return all(np.array_equal(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


# -- the environment -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", GAMES)
def test_a_step_is_a_move_seen_by_who_moves(name: str) -> None:
    """Against the game itself, played side by side."""
    rng = np.random.default_rng(0)
    aec = GAMES[name]()
    env = TurnBasedEnv(GAMES[name]())
    for game in range(3):
        aec.reset(seed=game)
        obs, info = env.reset(seed=game)
        for _ in range(150):
            agent = aec.agent_selection
            assert same(obs, aec.observe(agent))
            assert info["to_play"] == aec.possible_agents.index(agent)
            assert np.array_equal(env.action_masks(), obs["action_mask"] == 1)
            action = int(rng.choice(np.flatnonzero(env.action_masks())))
            aec.step(action)
            obs, reward, terminated, truncated, info = env.step(action)
            assert reward == aec.rewards[agent]
            assert terminated == aec.terminations[agent]
            assert truncated == aec.truncations[agent]
            if terminated or truncated:
                assert env.observation_space.contains(obs)
                break


def test_go_boards_of_two_sizes_do_not_spoil_each_other() -> None:
    rng = np.random.default_rng(0)
    alone, small = (TurnBasedEnv(go_v5.env(board_size=5)) for _ in range(2))
    moves: list[int] = []
    alone.reset()
    for _ in range(20):
        moves.append(int(rng.choice(np.flatnonzero(alone.action_masks())[:-1])))
        alone.step(moves[-1])
    small.reset()
    large = TurnBasedEnv(go_v5.env(board_size=9))
    large.reset()
    for move in moves:
        obs, *_ = small.step(move)
        large.step(int(rng.choice(np.flatnonzero(large.action_masks()))))
    assert same(obs, alone.aec.observe(alone.aec.agent_selection))
    assert large.action_masks().shape == (82,)


def test_games_end_with_a_winner_who_moved_last() -> None:
    rng = np.random.default_rng(1)
    env = TurnBasedEnv(connect_four_v3.env())
    rewards = []
    for _ in range(50):
        env.reset()
        over = False
        while not over:
            action = int(rng.choice(np.flatnonzero(env.action_masks())))
            _, reward, over, _, _ = env.step(action)
        rewards.append(reward)
    assert set(rewards) <= {0.0, 1.0}
    assert rewards.count(1.0) > 40


def test_an_illegal_move_ends_the_game_and_is_lost() -> None:
    env = TurnBasedEnv(tictactoe_v3.env())
    env.reset()
    env.step(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PettingZoo's own
        _, reward, terminated, _, info = env.step(4)
    assert (reward, terminated, info["illegal_move"]) == (-1.0, True, True)
    with pytest.raises(RuntimeError, match="call `reset` first"):
        env.step(0)


def test_the_end_of_one_player_is_the_end_of_the_game() -> None:
    env = TurnBasedEnv(CountingGame(resign=True))
    env.reset()
    env.step(1)
    _, reward, terminated, truncated, info = env.step(2)
    assert (reward, terminated, truncated) == (-1.0, True, False)
    assert info["to_play"] == 0


def test_a_game_that_is_broken_off_is_truncated() -> None:
    env = TurnBasedEnv(CountingGame(truncate_after=2))
    env.reset()
    env.step(1)
    _, reward, terminated, truncated, _ = env.step(0)
    assert (reward, terminated, truncated) == (0.0, False, True)


def test_seeds_and_frames_are_the_games_own() -> None:
    env = TurnBasedEnv(CountingGame(random_start=True))
    starts = [env.reset(seed=seed)[1]["to_play"] for seed in range(20)]
    assert starts == [env.reset(seed=seed)[1]["to_play"] for seed in range(20)]
    assert set(starts) == {0, 1}
    env.reset(seed=0)
    env.step(1)
    assert (env.render_mode, env.render()) == ("ansi", "1")
    frame = TurnBasedEnv(tictactoe_v3.env(render_mode="rgb_array", screen_height=60))
    frame.reset()
    assert frame.render().shape == (60, 60, 3)
    frame.close()


@pytest.mark.parametrize(("mask", "legal"), [("info", [False, True, True]), (None, [True] * 3)])
def test_masks_may_be_in_the_infos_or_nowhere(mask: str | None, legal: list[bool]) -> None:
    env = TurnBasedEnv(CountingGame(mask=mask))
    assert isinstance(env.observation_space, spaces.Box)
    env.reset()
    assert env.action_masks().tolist() == legal


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: rps_v2.env(), "hidden information: both players choose"),
        (lambda: CountingGame(name="leduc_holdem_v4"), "do not see each other's cards"),
        (lambda: CountingGame(simultaneous=True), "move at the same time"),
        (lambda: CountingGame(players=3), "has 3 players"),
        (lambda: CountingGame(players=1), "has 1 players"),
        (lambda: CountingGame(own_space=4), "action spaces of its players differ"),
    ],
)
def test_other_games_are_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TurnBasedEnv(make())
    with pytest.raises(ValueError, match=message):
        MuZero("MlpPolicy", make())


def test_hidden_information_can_be_tried_anyway() -> None:
    env = TurnBasedEnv(CountingGame(name="leduc_holdem_v4"), allow_hidden_information=True)
    MuZero("MlpPolicy", env, **TINY).learn(40)
    with pytest.raises(ValueError, match="allow_hidden_information=True"):
        TurnBasedEnv(rps_v2.env())


def test_hanabi_is_named_as_hidden() -> None:
    name = hanabi_v5.raw_env.metadata["name"] if hasattr(hanabi_v5, "raw_env") else "hanabi_v5"
    with pytest.raises(ValueError, match="do not see their own cards"):
        TurnBasedEnv(CountingGame(name=name))


def test_two_moves_in_a_row_are_refused() -> None:
    env = TurnBasedEnv(CountingGame(twice=True))
    env.reset()
    with pytest.raises(ValueError, match="player_0 is to move twice in a row"):
        env.step(1)


def test_games_that_are_not_zero_sum_are_refused() -> None:
    env = TurnBasedEnv(CountingGame(length=2, winner_reward=0.5))
    env.reset()
    env.step(1)
    with pytest.raises(ValueError, match="is not zero-sum"):
        env.step(0)


# -- MuZero ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env",
    [
        lambda: tictactoe_v3.env(),
        lambda: tictactoe_v3.env,
        lambda: tictactoe_v3.raw_env,
        lambda: [tictactoe_v3.env] * 3,
        lambda: [tictactoe_v3.env() for _ in range(3)],
        lambda: TurnBasedEnv(tictactoe_v3.env()),
        lambda: make_turn_based_env(tictactoe_v3.env, 3, seed=5),
        lambda: make_turn_based_env(tictactoe_v3.env, 2, vec_env_cls=SubprocVecEnv),
    ],
    ids=["env", "factory", "class", "factories", "envs", "adapted", "vec", "processes"],
)
def test_games_are_taken_in_every_form(env: Callable[[], Any]) -> None:
    model = MuZero("MlpPolicy", env(), **TINY).learn(60)
    assert model.num_players == 2
    assert (model.gamma, model.td_lambda) == (1.0, 1.0)
    model.replay_buffer.check_valid()
    envs: Any = model.env
    actions, _ = model.predict(envs.reset(), deterministic=True)
    assert actions.shape == (model.n_envs,)
    envs.close()


def test_one_environment_cannot_be_two() -> None:
    game = tictactoe_v3.env()
    with pytest.raises(ValueError, match=r"\[connect_four_v3.env\] \* 16"):
        MuZero("MlpPolicy", [game, game])


def test_other_environments_pass() -> None:
    assert as_turn_based("CartPole-v1") == "CartPole-v1"
    assert MuZero("MlpPolicy", "CartPole-v1").num_players == 1


def returns(model: MuZero) -> NDArray[np.float32]:
    """Monte-Carlo value targets of all rows of environment 0."""
    from muzero_agent.batch import Rows

    replay = model.replay_buffer
    rows = np.arange(int(replay.start[0]))
    return replay.value_targets(Rows(np.zeros_like(rows), rows), 1)[:, 0]


@pytest.mark.parametrize("length", [4, 5])
@pytest.mark.parametrize("seat", [0, 1])
def test_value_targets_are_of_the_player_to_move(length: int, seat: int) -> None:
    """Odd and even lengths, from both seats: the last mover wins, whoever begins."""

    class Fixed(CountingGame):
        def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> None:
            super().reset(seed, options)
            self.agent_selection = self.agents[seat]

    model = MuZero("MlpPolicy", Fixed(length), **TINY).learn(60)
    replay = model.replay_buffer
    ends = np.flatnonzero(replay.terminated[0, : replay.head[0]])
    assert len(ends) >= 8
    targets = returns(model)
    for game, end in enumerate(ends):
        begin = 0 if game == 0 else ends[game - 1] + 1
        assert end - begin == length
        assert replay.player[0, begin:end].tolist() == [(seat + i) % 2 for i in range(length)]
        wanted = [(-1.0) ** (length - 1 - i) for i in range(length)]
        assert targets[begin:end].tolist() == pytest.approx(wanted, abs=1e-5)
    taken = replay.action[0, : replay.start[0]]
    legal = replay.legal[0, np.arange(len(taken)), taken]
    assert legal.all()


def test_a_truncated_game_bootstraps_with_the_sign_of_who_is_to_move() -> None:
    model = MuZero("MlpPolicy", CountingGame(9, truncate_after=3), regret_tolerance=np.inf, **TINY)
    model.learn(60)
    replay = model.replay_buffer
    begin = 36  # past the warm-up, whose states are searched later
    assert replay.player[0, begin : begin + 4].tolist() == [0, 1, 0, 1]
    assert not replay.terminated[0, begin + 3]
    replay.value[0, begin + 3] = 0.5  # of player 1, who would be to move
    assert returns(model)[begin : begin + 3].tolist() == pytest.approx([-0.5, 0.5, -0.5], abs=1e-5)


def test_the_sign_is_learned_and_searched() -> None:
    """The winner is known from the start: who makes the last move."""
    model = MuZero(
        "MlpPolicy",
        [lambda: CountingGame(4)] * 4,
        learning_rate=3e-3,
        **(TINY | {"batch_size": 64, "gradient_steps": 4}),
    ).learn(1500)
    env = TurnBasedEnv(CountingGame(4))
    obs, _ = env.reset()
    for move in range(4):
        plan = model.plan(obs)
        sign = (-1.0) ** (3 - move)
        assert plan.value[0] * sign > 0.6
        assert plan.mixed_value[0] * sign > 0.6
        obs, *_ = env.step(int(plan.action[0]))


@pytest.mark.parametrize("policy", ["MlpPolicy", "CnnPolicy"])
def test_a_model_of_a_game_is_saved_and_loaded(tmp_path: Path, policy: str) -> None:
    model = MuZero(policy, tictactoe_v3.env, **TINY).learn(40)
    obs, _ = TurnBasedEnv(tictactoe_v3.env()).reset()
    model.save(tmp_path / "model")
    zoo.save(model, tmp_path / "directory")
    again = MuZero.load(tmp_path / "model", gamma=None)
    shared = zoo.load(tmp_path / "directory")
    for other in (again, shared):
        assert (other.num_players, other.gamma) == (2, 1.0)
        assert np.allclose(other.plan(obs).q_values, model.plan(obs).q_values, atol=1e-6)
    again.set_env(as_turn_based(tictactoe_v3.env))
    again.learn(20)


def test_a_model_of_games_refuses_other_environments() -> None:
    model = MuZero("MlpPolicy", CountingGame(), **TINY)
    single = MuZero("MlpPolicy", TurnBasedEnv(CountingGame()), num_players=1, **TINY)
    assert single.gamma == 0.997
    single.learn(40)  # who says so may mean it
    assert not single.replay_buffer.player.any()
    with pytest.raises(ValueError, match="num_players=3"):
        MuZero("MlpPolicy", CountingGame(), num_players=3)
    model.learn(10)


def test_evaluation_and_masks_hold_for_games() -> None:
    model = MuZero("MlpPolicy", [connect_four_v3.env] * 2, **TINY).learn(100)
    rewards, lengths = evaluate_policy(
        model, make_turn_based_env(connect_four_v3.env, 2), 4, return_episode_rewards=True
    )
    assert isinstance(rewards, list)
    assert isinstance(lengths, list)
    assert set(rewards) <= {0.0, 1.0}  # -1 would be an illegal move
    assert min(lengths) >= 7


@pytest.mark.parametrize("search", ["gumbel", "puct"])
def test_temperature_ends_after_the_first_moves(search: str) -> None:
    """Then two seeds play alike, where nothing else is drawn."""
    settings = {"temperature_moves": 0, "exploration_rate": 0.0, "dirichlet_fraction": 0.0}
    played = []
    for seed in (0, 1):
        model = MuZero(
            "MlpPolicy",
            CountingGame(6),
            search=search,
            **(TINY | settings | {"seed": seed, "gradient_steps": 0}),
        )
        model.learn(60)
        replay = model.replay_buffer
        played.append(replay.action[0, 28:56].tolist())
    assert played[0] == played[1]


def test_two_seeded_runs_of_self_play_are_identical() -> None:
    first, second = (
        MuZero("MlpPolicy", [tictactoe_v3.env] * 2, **TINY).learn(120).replay_buffer.action
        for _ in range(2)
    )
    assert np.array_equal(first, second)


def test_the_games_of_these_tests_are_aec() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        api_test(CountingGame(), num_cycles=20)


def test_vector_environments_of_games_are_monitored() -> None:
    env = as_turn_based([tictactoe_v3.env] * 2)
    assert isinstance(env, DummyVecEnv)
    assert env.get_attr("num_players") == [2, 2]


def test_loading_checks_the_number_of_players(tmp_path: Path) -> None:
    MuZero("MlpPolicy", "CartPole-v1", **TINY).save(tmp_path / "single")
    assert MuZero.load(tmp_path / "single", num_players=None).num_players == 1
    with pytest.raises(ValueError, match="num_players=3"):
        MuZero.load(tmp_path / "single", num_players=3)


def test_a_model_that_was_saved_in_the_middle_of_a_game_begins_another(tmp_path: Path) -> None:
    """It does not know whose turn it was."""
    model = MuZero("MlpPolicy", CountingGame(5), **TINY).learn(53)
    assert model._turns.to_play[0] == 1
    model.save(tmp_path / "model")
    model.save_replay_buffer(tmp_path / "replay")
    again = MuZero.load(tmp_path / "model", as_turn_based(CountingGame(5)), force_reset=False)
    again.load_replay_buffer(tmp_path / "replay", truncate_last_traj=False)
    again.learn(20, reset_num_timesteps=False)
    replay = again.replay_buffer
    replay.check_valid()
    held = int(replay.start[0])
    last = replay.last_row[0, :held] == np.arange(held)
    players = replay.player[0, :held]
    assert (players[1:] != players[:-1])[~last[:-1]].all()


def test_other_meanings_of_num_players_do_no_harm() -> None:
    class Crowd(gym.Wrapper[Any, Any, Any, Any]):
        num_players = 4

    assert MuZero("MlpPolicy", Crowd(gym.make("CartPole-v1"))).num_players == 1


def test_an_attribute_of_that_name_may_mean_something_else() -> None:
    class Pair(gym.Wrapper[Any, Any, Any, Any]):
        num_players = 2

    with pytest.raises(ValueError, match=r'info\["to_play"\]=None: .*give MuZero\(num_players=1\)'):
        MuZero("MlpPolicy", Pair(gym.make("CartPole-v1")), **TINY).learn(10)
    MuZero("MlpPolicy", Pair(gym.make("CartPole-v1")), num_players=1, **TINY).learn(10)


def test_a_game_of_ones_own_has_to_alternate() -> None:
    class Stuck(gym.Wrapper[Any, Any, Any, Any]):
        num_players = 2

        def reset(self, **kwargs: Any) -> Any:
            return self.env.reset(**kwargs)[0], {"to_play": 0}

        def step(self, action: Any) -> Any:
            return *self.env.step(action)[:4], {"to_play": 0}

    with pytest.raises(ValueError, match="player 0 is to move twice in a row"):
        MuZero("MlpPolicy", Stuck(gym.make("CartPole-v1")), terminal_rewards=False, **TINY).learn(
            10
        )


def test_what_makes_other_environments_is_refused() -> None:
    with pytest.raises(ValueError, match="make_vec_env"):
        MuZero("MlpPolicy", lambda: gym.make("CartPole-v1"))
    with pytest.raises(ValueError, match="make_vec_env"):
        MuZero("MlpPolicy", [lambda: gym.make("CartPole-v1")] * 2)


def test_one_game_is_not_shared() -> None:
    game = tictactoe_v3.env()
    with pytest.raises(ValueError, match="more than once"):
        MuZero("MlpPolicy", [TurnBasedEnv(game), TurnBasedEnv(game)])
    with pytest.raises(ValueError, match="what makes a game"):
        make_turn_based_env(game, 2)


def test_values_of_games_are_told_from_minus_one_to_one() -> None:
    """Unless something else is wanted, by the atoms that results are."""
    game = MuZero("MlpPolicy", tictactoe_v3.env)
    support = game.policy.network.support
    assert (support.size, round(support.reach, 6)) == (21, 1.0)
    results = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(support.two_hot(results), torch.eye(21)[[0, 10, 20]])
    other = MuZero("MlpPolicy", tictactoe_v3.env, policy_kwargs={"support_bound": 2.0})
    assert other.policy.network.support.bound == 2.0
    assert support.of_scalars
    assert other.policy.network.support.of_scalars
    assert MuZero("MlpPolicy", "CartPole-v1").policy.network.support.bound == 30.0


class _Pays(CountingGame):
    """The mover takes a point from the other one with each move."""

    def step(self, action: int) -> None:
        mover = self.agent_selection
        super().step(action)
        if not any(self.terminations.values()):
            for agent in self.possible_agents:
                self.rewards[agent] = 1.0 if agent == mover else -1.0


def test_rewards_during_a_game_have_to_be_told(tmp_path: Path) -> None:
    """By default they are taken for its result."""
    few: dict[str, Any] = {"learning_starts": 4, "batch_size": 4, "num_simulations": 2, "seed": 0}
    with pytest.raises(ValueError, match=r"gave the reward 1 during .*terminal_rewards=False"):
        MuZero("MlpPolicy", _Pays(), **few).learn(16)
    with pytest.raises(ValueError, match=r"gave the reward 3 at the end .*terminal_rewards=False"):
        MuZero("MlpPolicy", _Winner3(), **few).learn(16)
    model = MuZero("MlpPolicy", _Pays(), terminal_rewards=False, **few)
    assert model.learn(8).num_timesteps == 8
    model.save(tmp_path / "model")
    zoo.save(model, tmp_path / "directory")
    for kept in (model, MuZero.load(tmp_path / "model"), zoo.load(tmp_path / "directory")):
        assert not kept._configured_policy().terminal_rewards
    assert MuZero("MlpPolicy", CountingGame())._configured_policy().terminal_rewards
    assert not MuZero("MlpPolicy", "CartPole-v1")._configured_policy().terminal_rewards


class _Winner3(CountingGame):
    def step(self, action: int) -> None:
        super().step(action)
        for agent in self.possible_agents:
            self.rewards[agent] *= 3.0


# -- Go ------------------------------------------------------------------------------------------


def test_passing_may_be_put_off_in_training() -> None:
    """The same moves are legal as in go_v5, but for the pass, from a move on that varies."""
    begins = set()
    for seed in range(30):
        plain, late = TurnBasedEnv(go_v5.env(board_size=9)), GoEnv(first_pass=6)
        plain.reset(seed=seed)
        late.reset(seed=seed)
        rng = np.random.default_rng(seed)
        legal_from = None
        for move in range(10):
            here, there = late.action_masks(), plain.action_masks()
            assert np.array_equal(here[:-1], there[:-1])
            assert there[-1]
            if here[-1] and legal_from is None:
                legal_from = move
            assert here[-1] == (legal_from is not None)
            action = int(rng.choice(np.flatnonzero(there[:-1])))
            obs, *_ = late.step(action)
            plain.step(action)
            assert np.array_equal(obs["action_mask"], late.action_masks())
        assert legal_from is not None
        begins.add(legal_from)
    assert begins == set(range(7))
    assert GoEnv().reset(seed=0)[0]["action_mask"][-1] == 1


def test_points_may_count_in_training() -> None:
    """The game is the same, but for the reward at its end."""
    margins = []
    for seed in range(4):
        plain, close = GoEnv(board_size=5), GoEnv(board_size=5, margin_scale=10)
        plain.reset(seed=seed)
        close.reset(seed=seed)
        rng = np.random.default_rng(seed)
        over = False
        while not over:
            action = int(rng.choice(np.flatnonzero(plain.action_masks())))
            _, result, over, _, _ = plain.step(action)
            _, reward, ended, _, _ = close.step(action)
            assert ended == over
            if not over:
                assert (result, reward) == (0, 0)
        score = GoRules(5).score(GoState(close.aec.unwrapped._go))
        mover = 1 - close.to_play
        margin = score if mover == 0 else -score
        assert result == np.sign(margin)
        assert reward == pytest.approx(2 * NormalDist(0, 10).cdf(margin) - 1)
        margins.append(margin)
    assert min(margins) < 0 < max(margins)
    illegal = GoEnv(board_size=5, margin_scale=10)
    illegal.reset()
    illegal.step(3)
    assert illegal.step(3)[1:3] == (-1, True)
