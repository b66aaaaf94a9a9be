"""Matches: players of known strength, scores, intervals, and what is logged of them."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pettingzoo.classic import connect_four_v3, tictactoe_v3
from sb3_contrib import MaskablePPO
from stable_baselines3 import DQN

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.adapters.envs.games import ConnectFour, TicTacToe, find_rules, random_outcome
from muzero_agent.adapters.envs.go import GoEnv
from muzero_agent.adapters.envs.pettingzoo import as_game, as_turn_based
from muzero_agent.callbacks import MatchCallback
from muzero_agent.matches import MatchResult, play_match
from muzero_agent.players import (
    AlphaBetaPlayer,
    ModelPlayer,
    Position,
    RandomPlayer,
    RolloutPlayer,
)

from .aec_games import CountingGame

TICTACTOE: Any = TicTacToe()
CONNECT_FOUR: Any = ConnectFour()
TINY: dict[str, Any] = {
    "learning_starts": 20,
    "batch_size": 8,
    "train_freq": 4,
    "gradient_steps": 1,
    "num_simulations": 4,
    "reanalyse_ratio": 1,
    "seed": 0,
}


# -- the rules ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "games", "wins", "draws"),
    [
        (tictactoe_v3.raw_env, 2000, 400, 100),
        (connect_four_v3.raw_env, 500, 400, 1),
        (ChessEnv, 40, 3, 10),
        (GoEnv, 10, 1, 0),
    ],
    ids=["tictactoe", "four", "chess", "go"],
)
def test_rules_are_those_of_the_environment(make: Any, games: int, wins: int, draws: int) -> None:
    """Observations, legal moves, ends and winners in random games."""
    rng = random.Random(0)
    env = as_game(make())
    rules: Any = find_rules(env)
    outcomes = []
    for _ in range(games):
        obs, _ = env.reset()
        state, outcome = rules.initial(), None
        while outcome is None:
            legal = rules.legal(state)
            assert legal == np.flatnonzero(env.action_masks()).tolist()
            assert np.array_equal(rules.observe(state), obs["observation"])
            action = rng.choice(legal)
            obs, reward, terminated, _, _ = env.step(action)
            before, state = state, rules.play(state, action)
            assert state == rules.play(before, action) != before
            assert hash(state) == hash(rules.play(before, action))
            outcome = rules.outcome(state)
            assert terminated == (outcome is not None)
        assert outcome == -reward
        outcomes.append(outcome)
    assert outcomes.count(-1.0) >= wins
    assert outcomes.count(0.0) >= draws


@pytest.mark.parametrize("rules", [TICTACTOE, CONNECT_FOUR], ids=["tictactoe", "four"])
def test_rollouts_end_as_often_as_random_games_do(rules: Any) -> None:
    rng = random.Random(0)
    state = rules.play(rules.initial(), 3)
    fast = np.array([rules.rollout(state, rng) for _ in range(4000)])
    slow = np.array([random_outcome(rules, state, rng) for _ in range(4000)])
    assert set(fast) == {-1.0, 0.0, 1.0}
    error = 4 * math.sqrt((fast.var() + slow.var()) / 4000)
    assert abs(fast.mean() - slow.mean()) < error
    assert abs((fast == 0).mean() - (slow == 0).mean()) < 0.04


def test_full_tictactoe_is_a_draw_and_four_corners_are_not_a_line() -> None:
    player = AlphaBetaPlayer(TICTACTOE, 9)
    assert player.action_values(TICTACTOE.initial()) == dict.fromkeys(range(9), 0.0)
    state = CONNECT_FOUR.initial()
    for action in (0, 1, 1, 2, 2, 3, 2, 3, 3, 6):  # a rising diagonal lacks its last stone
        state = CONNECT_FOUR.play(state, action)
        assert CONNECT_FOUR.outcome(state) is None
    assert CONNECT_FOUR.outcome(CONNECT_FOUR.play(state, 3)) == -1.0


# -- players --------------------------------------------------------------------------------------


def forced_wins() -> list[tuple[Any, dict[int, float]]]:
    """Positions of TicTacToe that the player to move wins, with what each move leads to."""
    perfect = AlphaBetaPlayer(TICTACTOE, 9)
    states, seen, found = [TICTACTOE.initial()], set(), []
    while states:
        state = states.pop()
        if state in seen or TICTACTOE.outcome(state) is not None:
            continue
        seen.add(state)
        values = perfect.action_values(state)
        if max(values.values()) == 1.0:
            found.append((state, values))
        states += [TICTACTOE.play(state, action) for action in values]
    return found


def test_one_ply_takes_every_win() -> None:
    player = AlphaBetaPlayer(TICTACTOE, 1)
    player.seed(0)
    immediate = 0
    for state, _ in forced_wins():
        wins = [
            action
            for action in TICTACTOE.legal(state)
            if TICTACTOE.outcome(TICTACTOE.play(state, action)) == -1.0
        ]
        if wins:
            immediate += 1
            assert player.choose(state) in wins
    assert immediate > 1000


def test_perfect_play_never_loses() -> None:
    perfect = AlphaBetaPlayer(TICTACTOE, 9)
    for opponent in (RandomPlayer(), RolloutPlayer(TICTACTOE, 100), AlphaBetaPlayer(TICTACTOE, 3)):
        result = play_match(perfect, opponent, tictactoe_v3.env, pairs=30, opening_moves=0)
        assert result.count(0.0) == 0
        assert result.num_games == 60


def test_rollouts_beat_chance_and_more_rollouts_fewer() -> None:
    strong = RolloutPlayer(CONNECT_FOUR, 200)
    assert play_match(strong, RandomPlayer(), connect_four_v3.env, pairs=10).score > 0.9
    assert play_match(strong, RolloutPlayer(CONNECT_FOUR, 10), connect_four_v3.env).score > 0.7


def test_models_play_legally_and_others_lose_by_it() -> None:
    env = as_turn_based([connect_four_v3.env] * 2)
    model = ModelPlayer(MuZero("MlpPolicy", env, **TINY).learn(60))
    masked = ModelPlayer(MaskablePPO("MultiInputPolicy", env, n_steps=16, seed=0))
    blind = ModelPlayer(DQN("MultiInputPolicy", as_turn_based(tictactoe_v3.env), seed=0), "blind")
    for player in (model, masked):
        result = play_match(player, RandomPlayer(), connect_four_v3.env, pairs=5)
        assert result.illegal == 0
    assert (model.name, masked.name) == ("MuZero", "MaskablePPO")
    result = play_match(RandomPlayer(), blind, tictactoe_v3.env, pairs=20, opening_moves=1)
    assert result.illegal > 0
    assert result.score > 0.5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AlphaBetaPlayer(TICTACTOE, 0), "depth=0"),
        (lambda: RolloutPlayer(TICTACTOE, 0), "num_rollouts=0"),
        (
            lambda: play_match(
                RandomPlayer(), RandomPlayer(), tictactoe_v3.env, opening_moves=9, pairs=1
            ),
            "opening_moves=9: games end before",
        ),
        (
            lambda: play_match(RandomPlayer(), RandomPlayer(), tictactoe_v3.env, opening_moves=-1),
            "opening_moves=-1",
        ),
        (lambda: play_match(RandomPlayer(), RandomPlayer(), tictactoe_v3.env, pairs=0), "pairs=0"),
        (
            lambda: play_match(RandomPlayer(), AlphaBetaPlayer(TICTACTOE, 1), CountingGame),
            "looks ahead by the rules",
        ),
    ],
)
def test_what_cannot_be_played_is_refused(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- matches --------------------------------------------------------------------------------------


class Scripted:
    """Always the lowest legal action; keeps what it was asked."""

    name = "lowest"

    def __init__(self) -> None:
        self.asked: list[int] = []

    def seed(self, seed: int) -> None:
        pass

    def act(self, positions: Sequence[Position[Any]]) -> list[int]:
        self.asked.append(len(positions))
        return [int(np.flatnonzero(position.legal)[0]) for position in positions]


def test_each_player_begins_once_in_every_pair_and_is_asked_for_all_games_at_once() -> None:
    """Who makes the fifth move wins, and that is who begins."""
    first = Scripted()
    result = play_match(
        first, Scripted(), lambda: CountingGame(5), pairs=7, opening_moves=0, at_once=4
    )
    assert result.scores == [(1.0, 0.0)] * 7
    assert (result.count(1.0, seat=0), result.count(0.0, seat=1)) == (7, 7)
    assert max(first.asked) == 4
    assert result.score == 0.5


def test_who_begins_is_told_by_the_game() -> None:
    """With a random start, player 0 of the environment need not be the first to move."""
    result = play_match(
        Scripted(),
        Scripted(),
        lambda: CountingGame(4, random_start=True),
        pairs=10,
        opening_moves=1,
    )
    assert result.scores == [(0.0, 1.0)] * 10


def test_openings_differ_between_pairs_and_not_within() -> None:
    result = play_match(Scripted(), Scripted(), tictactoe_v3.env, pairs=40, opening_moves=3)
    assert len(set(result.scores)) > 1
    assert all(sum(pair) == 1.0 for pair in result.scores)  # one player against itself
    assert result.interval() == pytest.approx((0.352, 0.648), abs=0.001)  # Wilson's of 20 in 40
    again = play_match(Scripted(), Scripted(), tictactoe_v3.env, pairs=40, opening_moves=3)
    assert again.scores == result.scores


def test_a_match_goes_on_where_it_was_ended() -> None:
    """With the openings that it would have had; what `after` raises ends it."""

    class Ended(Exception):
        pass

    kept: list[MatchResult] = []

    def keep(result: MatchResult) -> None:
        kept.append(replace(result, scores=list(result.scores)))
        if len(kept) == 2:
            raise Ended

    def play(**how: Any) -> MatchResult:
        return play_match(
            Scripted(), Scripted(), tictactoe_v3.env, pairs=20, opening_moves=3, at_once=4, **how
        )

    whole = play()
    with pytest.raises(Ended):
        play(after=keep)
    assert [len(result.scores) for result in kept] == [4, 8]
    assert play(so_far=kept[-1]) == whole
    assert kept[-1].scores == whole.scores[:8]
    assert play(so_far=whole) == whole
    with pytest.raises(ValueError, match="so_far is of lowest and highest"):
        play(so_far=MatchResult("lowest", "highest", [(1.0, 1.0)]))


def test_intervals_cover_as_often_as_they_say() -> None:
    """Of 1,000 matches between players of a known score, games of a pair depending on another."""
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(1000):
        opening = rng.normal(0.4, 0.5, 50)  # favours whoever moves first
        first = (opening + rng.normal(0, 0.5, 50) > 0) * 1.0
        second = (-opening + rng.normal(0.3, 0.5, 50) > 0) * 1.0
        result = MatchResult("a", "b", list(zip(first, second, strict=True)))
        low, high = result.interval()
        inside += low <= 0.5677 <= high  # mean of 4 million such pairs
    assert 925 <= inside <= 980


def test_elo_of_even_one_sided_and_known_scores() -> None:
    even = MatchResult("a", "b", [(1.0, 0.0)] * 50)
    assert even.elo()[0] == 0.0
    won = MatchResult("a", "b", [(1.0, 1.0)] * 50)
    elo, low, high = won.elo()
    assert (elo, high) == (math.inf, math.inf)
    assert won.interval()[0] == pytest.approx(50 / (50 + 1.959964**2))
    assert low == pytest.approx(446, abs=1)
    three_quarters = MatchResult("a", "b", [(1.0, 0.5)] * 20)
    assert three_quarters.elo()[0] == pytest.approx(190.8, abs=0.1)
    assert "75.0%" in str(three_quarters)


# -- the callback ---------------------------------------------------------------------------------


def test_matches_are_played_and_logged_while_learning(capsys: pytest.CaptureFixture[str]) -> None:
    callback = MatchCallback(
        tictactoe_v3.env,
        [RandomPlayer(), AlphaBetaPlayer(TICTACTOE, 1)],
        every=50,
        pairs=3,
        verbose=1,
    )
    model = MuZero("MlpPolicy", [tictactoe_v3.env] * 2, **TINY)
    logged: dict[str, float] = {}
    dump = model.learn  # the logger forgets what it has written
    model.set_logger(_Recorder(logged))  # type: ignore[arg-type]
    dump(120, callback=callback)
    assert [steps for steps, _ in callback.results] == [50, 50, 100, 100]
    last = callback.results[-1][1]
    assert logged["match/one-ply/score"] == last.score
    assert logged["match/one-ply/first"] == np.mean([a for a, _ in last.scores])
    assert logged["match/one-ply/second"] == np.mean([b for _, b in last.scores])
    assert "match/random/elo" in logged
    assert "100 steps: MuZero against one-ply" in capsys.readouterr().out
    with pytest.raises(ValueError, match="every=0"):
        MatchCallback(tictactoe_v3.env, every=0)


class _Recorder:
    """A logger that keeps the last value of each key."""

    def __init__(self, kept: dict[str, float]) -> None:
        self.kept = kept

    def record(self, key: str, value: Any, exclude: Any = None) -> None:
        self.kept[key] = value

    def record_mean(self, key: str, value: Any, exclude: Any = None) -> None:
        self.kept[key] = value

    def dump(self, step: int = 0) -> None:
        pass
