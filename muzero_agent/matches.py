"""Matches between players, and how sure their results are.

Two players meet in pairs of games: both games of a pair begin with the same random moves, and each
player has the first move once. So neither seat nor opening favours anyone, and a pair is the unit
of which intervals are made, since its games are alike.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from muzero_agent.adapters.envs.games import find_rules
from muzero_agent.adapters.envs.pettingzoo import as_game, game_behind
from muzero_agent.players import RESIGN, Player, Position
from muzero_agent.types import Rules, TurnBased

MOST_TRIES = 1000
"""Openings that are drawn for one that does not end the game."""

Z = 1.959964  # of a normal distribution's 95%


@dataclass
class MatchResult:
    """What the first of two players scored."""

    first: str
    second: str
    scores: list[tuple[float, float]] = field(default_factory=list)
    """Of each pair of games: of the game in which the first player moved first, and of the other;
    1 for a win, 1/2 for a draw, 0 for a loss."""
    illegal: int = 0
    """Games that ended by an illegal move, of either player."""

    @property
    def num_games(self) -> int:
        """Games played."""
        return 2 * len(self.scores)

    @property
    def score(self) -> float:
        """Mean score of a game, 0 .. 1."""
        return float(np.mean(self.scores))

    def seat_score(self, seat: int) -> float:
        """Mean score of the games with the first move (seat 0), or of those with the second."""
        return float(np.mean([pair[seat] for pair in self.scores]))

    def count(self, score: float, seat: int | None = None) -> int:
        """Games of this score: 1, 0.5 or 0; seat 0 or 1 counts those with the first or the second
        move alone."""
        games = np.array(self.scores)
        return int(((games if seat is None else games[:, seat]) == score).sum())

    def interval(self) -> tuple[float, float]:
        """95% interval of the score.

        Wilson's, for as many independent games as would vary as much as the pairs do, but no more
        than were played; where no pair differs, as many as there are pairs.
        """
        pairs = np.array(self.scores).mean(1)
        mean, num = float(pairs.mean()), len(pairs)
        spread = float(pairs.var(ddof=1)) / num if num > 1 else 0.0
        trials = min(mean * (1 - mean) / spread, 2 * num) if spread > 0 else num
        centre = mean + Z**2 / (2 * trials)
        width = Z * math.sqrt(mean * (1 - mean) / trials + Z**2 / (4 * trials**2))
        scale = 1 + Z**2 / trials
        low = 0.0 if mean == 0.0 else (centre - width) / scale  # exact where rounding is not
        return low, 1.0 if mean == 1.0 else (centre + width) / scale

    def elo(self) -> tuple[float, float, float]:
        """Elo difference of the first player to the second, and its 95% interval."""
        low, high = self.interval()
        return _elo(self.score), _elo(low), _elo(high)

    def summary(self) -> dict[str, Any]:
        """All of it, for a JSON file."""
        low, high = self.interval()
        return {
            "first": self.first,
            "second": self.second,
            "games": self.num_games,
            "score": self.score,
            "interval": [low, high],
            "seats": {
                name: [self.count(score, seat) for score in (1.0, 0.5, 0.0)]
                for seat, name in enumerate(("moving first", "moving second"))
            },
            "illegal": self.illegal,
        }

    def __str__(self) -> str:
        low, high = self.interval()
        elo, elo_low, elo_high = self.elo()
        seats = ", ".join(
            f"moving {name} {self.count(1, seat)}-{self.count(0.5, seat)}-{self.count(0, seat)}"
            for seat, name in enumerate(("first", "second"))
        )
        return (
            f"{self.first} against {self.second}: {100 * self.score:.1f}% "
            f"[{100 * low:.1f}, {100 * high:.1f}] of {self.num_games} games, "
            f"Elo {elo:+.0f} [{elo_low:+.0f}, {elo_high:+.0f}]; won-drawn-lost {seats}"
        )


def _elo(score: float) -> float:
    if score <= 0.0:
        return -math.inf
    return math.inf if score >= 1.0 else -400.0 * math.log10(1.0 / score - 1.0)


def play_match(
    first: Player,
    second: Player,
    make_env: Callable[[], Any],
    *,
    pairs: int = 100,
    opening_moves: int = 2,
    rules: Rules[Any] | None = None,
    seed: int = 0,
    at_once: int = 64,
    so_far: MatchResult | None = None,
    after: Callable[[MatchResult], object] | None = None,
) -> MatchResult:
    """Let two players play `pairs` pairs of games.

    :param first: the one whose score is told
    :param make_env: makes a game, of PettingZoo or `TurnBased`
    :param pairs: of games; both of a pair begin alike, and each player moves first in one
    :param opening_moves: random legal moves that each pair begins with; with none, deterministic
        players would repeat one game
    :param rules: the game's true rules, for players who look ahead by them; None: those of
        `adapters.envs.games`, if it has any
    :param seed: of openings, games and players
    :param at_once: pairs that are played side by side, so that networks see large batches
    :param so_far: what these players scored in the first pairs of a match with this seed; it goes
        on behind them, with the openings that it would have had, but with players seeded anew
    :param after: told the result so far whenever pairs have ended; what it raises ends the match
    :raises ValueError: arguments out of range, or `so_far` of other players
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: give 1 or more")
    if opening_moves < 0:
        raise ValueError(f"opening_moves={opening_moves}: give 0 or more")
    made = [as_game(make_env()) for _ in range(2)]
    if len({id(game_behind(game)) for game in made}) == 1:
        raise ValueError("make_env gave the same game twice: games are played side by side")
    rng = random.Random(seed)
    if rules is None:
        rules = find_rules(as_game(make_env()))
    first.seed(rng.randrange(2**31))
    second.seed(rng.randrange(2**31))
    result = MatchResult(first.name, second.name)
    if so_far is not None:
        if (so_far.first, so_far.second) != (result.first, result.second):
            raise ValueError(
                f"so_far is of {so_far.first} and {so_far.second}, and {result.first} and "
                f"{result.second} play: give what they scored, or None"
            )
        result.scores, result.illegal = list(so_far.scores), so_far.illegal
    beginnings = _beginnings(make_env, opening_moves, rng)
    for _ in result.scores:
        next(beginnings)
    while len(result.scores) < pairs:
        games = [
            _Game(as_game(make_env()), seat, game_seed, opening, rules)
            for game_seed, opening in islice(beginnings, min(at_once, pairs - len(result.scores)))
            for seat in (0, 1)
        ]
        _play(games, (first, second))
        scores = [game.score for game in games]
        result.scores += zip(scores[::2], scores[1::2], strict=True)
        result.illegal += sum(game.illegal for game in games)
        for game in games:
            game.env.close()
        if after is not None:
            after(result)
    return result


class _Game:
    """One game of a match.

    `seat`: of the first player, 0 if it has the first move.
    """

    def __init__(
        self,
        env: TurnBased,
        seat: int,
        seed: int,
        opening: list[int],
        rules: Rules[Any] | None,
    ) -> None:
        self.env, self.seat, self.rules = env, seat, rules
        self.state = None if rules is None else rules.initial()
        self.over, self.illegal = False, False
        self.actions: list[int] = []
        self.total = 0.0  # of the first player's rewards
        self.observation, info = env.reset(seed=seed)
        self.starter = self.to_play = int(info["to_play"])
        for action in opening:
            self.move(action)

    def whose_turn(self) -> int:
        """0 if it is the first player's."""
        return int((self.to_play != self.starter) != self.seat)

    def position(self) -> Position[Any]:
        return Position(self.observation, self.env.action_masks(), self.state, tuple(self.actions))

    def move(self, action: int) -> None:
        mover = self.whose_turn()
        legal = 0 <= action < self.env.num_actions and self.env.action_masks()[action]
        if not legal:  # who resigns or moves illegally loses
            self.over, self.illegal = True, action != RESIGN
            self.total = -1.0 if mover == 0 else 1.0
            return
        self.observation, reward, terminated, truncated, info = self.env.step(action)
        self.actions.append(action)
        self.to_play = int(info["to_play"])
        if self.rules is not None:
            self.state = self.rules.play(self.state, action)
        self.total += reward if mover == 0 else -reward
        self.over = terminated or truncated

    @property
    def score(self) -> float:
        """1, 1/2 or 0, of a game that is over."""
        return float((1 + np.sign(self.total)) / 2)


def _play(games: list[_Game], players: tuple[Player, Player]) -> None:
    while going := [game for game in games if not game.over]:
        for number, player in enumerate(players):
            turn = [game for game in going if game.whose_turn() == number]
            if turn:
                actions = player.act([game.position() for game in turn])
                for game, action in zip(turn, actions, strict=True):
                    game.move(action)
            going = [game for game in going if game not in turn]


def _beginnings(
    make_env: Callable[[], Any], moves: int, rng: random.Random
) -> Iterator[tuple[int, list[int]]]:
    """Of pair after pair the seed of its games, and its opening."""
    while True:
        seed = rng.randrange(2**31)
        yield seed, _opening(make_env, moves, seed, rng)


def _opening(make_env: Callable[[], Any], moves: int, seed: int, rng: random.Random) -> list[int]:
    """Random legal moves after which the game still goes on."""
    for _ in range(MOST_TRIES):
        env = as_game(make_env())
        env.reset(seed=seed)
        opening: list[int] = []
        over = False
        while len(opening) < moves and not over:
            opening.append(rng.choice(np.flatnonzero(env.action_masks()).tolist()))
            _, _, terminated, truncated, _ = env.step(opening[-1])
            over = terminated or truncated
        env.close()
        if not over:
            return opening
    raise ValueError(f"opening_moves={moves}: games end before; give fewer")
