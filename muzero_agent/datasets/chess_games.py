"""Batches of positions from recorded games of chess, without all of them in memory."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import chess
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from muzero_agent.adapters.envs.chess import (
    FRAMES,
    NUM_ACTIONS,
    board_of,
    legal_actions,
    mask_of,
    observe_many,
)
from muzero_agent.adapters.envs.chess_rules import ChessState
from muzero_agent.batch import Batch, Rows
from muzero_agent.datasets.episodes import Episode
from muzero_agent.datasets.game_store import GameStore, cached_store
from muzero_agent.datasets.pgn import NO_ACTION, UNKNOWN, UNSCORED
from muzero_agent.types import MASK_KEY, RootOutput

_CURVE = 90.0  # centipawns
_STEEPNESS = 1.5637541897


def value_of(centipawns: ArrayLike) -> NDArray[np.float32]:
    """Values -1 .. 1 of scores: the curve by which the engine tells one as the other."""
    curve = np.arctan(np.asarray(centipawns, np.float32) / np.float32(_CURVE))
    value: NDArray[np.float32] = np.clip(
        curve * np.float32(1 / _STEEPNESS), np.float32(-1), np.float32(1)
    )
    return value


class Agreement(NamedTuple):
    """How well a network tells the labels of positions."""

    positions: int
    top_1: float  # share in which its first legal move is the label's
    value_error: float  # mean |value - value of the label's score|


class ChessGames:
    """Positions of recorded games, of which any number of files may be.

    :param stores: of the files
    :param games: of each store the numbers of the first game and behind the last; None: all
    """

    def __init__(
        self, stores: Sequence[GameStore], games: Sequence[tuple[int, int]] | None = None
    ) -> None:
        self.stores = list(stores)
        if not self.stores:
            raise ValueError("no file of games was given")
        self.games = list(games or [(0, store.num_games) for store in stores])
        self._first: list[int] = []  # rows of each store
        self._end: list[int] = []
        for store, (begin, end) in zip(self.stores, self.games, strict=True):
            bounds = np.append(store.first_row, store.num_rows)
            self._first.append(int(bounds[begin]))
            self._end.append(int(bounds[end]))
        self._bounds = np.cumsum([0, *(np.subtract(self._end, self._first))])

    @classmethod
    def open(
        cls,
        paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        cache_dir: str | os.PathLike[str] | None = None,
        *,
        workers: int = 1,
        progress_bar: bool = False,
    ) -> ChessGames:
        """Open PGN files, plain or .zst, or their binary forms; see `game_store.cached_store`."""
        given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
        return cls(
            [
                cached_store(Path(path), cache_dir, workers=workers, progress_bar=progress_bar)
                for path in given
            ]
        )

    def split(self, held_out: float = 0.02) -> tuple[ChessGames, ChessGames]:
        """The first games of each file, and the last ones, a share of `held_out` of them."""
        if not 0 < held_out < 1:
            raise ValueError(f"held_out={held_out}: give a share between 0 and 1")
        cuts = [
            begin + min(max(round((end - begin) * (1 - held_out)), 1), end - begin - 1)
            for begin, end in self.games
        ]
        pairs = list(zip(self.games, cuts, strict=True))
        return (
            ChessGames(self.stores, [(begin, cut) for (begin, _), cut in pairs]),
            ChessGames(self.stores, [(cut, end) for (_, end), cut in pairs]),
        )

    def __len__(self) -> int:
        """Positions, the last ones of games included."""
        return int(self._bounds[-1])

    @property
    def num_games(self) -> int:
        """Games, of all files."""
        return sum(end - begin for begin, end in self.games)

    def tells(self, *names: str) -> bool:
        """Whether any of these ("result", "evaluation", "candidates") is told of any position."""
        for number, store in enumerate(self.stores):
            games = slice(*self.games[number])
            rows = slice(self._first[number], self._end[number])
            told = {
                "result": store.result[games] != UNKNOWN,
                "evaluation": store.evaluation[rows] != UNSCORED,
                "candidates": store.candidates[rows, 0] != NO_ACTION,
            }
            if any(told[name].any() for name in names):
                return True
        return False

    # -- reading ---------------------------------------------------------------------------------

    def _take(self, name: str, rows: Rows) -> NDArray[Any]:
        """A column's entries at rows of any shape; `rows.env` numbers the stores."""
        if len(self.stores) == 1:
            column: NDArray[Any] = getattr(self.stores[0], name)
            return column[rows.row]
        first: NDArray[Any] = getattr(self.stores[0], name)
        found = np.empty((*rows.row.shape, *first.shape[1:]), first.dtype)
        for number, store in enumerate(self.stores):
            mine = rows.env == number
            found[mine] = getattr(store, name)[rows.row[mine]]
        return found

    def rows(self, positions: NDArray[np.int64]) -> Rows:
        """Rows of positions by their numbers, 0 .. len - 1."""
        store = np.searchsorted(self._bounds, positions, side="right") - 1
        return Rows(store, positions - self._bounds[store] + np.array(self._first)[store])

    def _game_column(self, name: str, rows: Rows, shift: int = 0) -> NDArray[Any]:
        game = Rows(rows.env, self._take("game", rows).astype(np.int64) + shift)
        if name != "first_row":
            return self._take(name, game)
        found = np.empty(rows.row.shape, np.int64)
        for number, store in enumerate(self.stores):
            mine = rows.env == number
            bounds = np.append(store.first_row, store.num_rows)
            found[mine] = bounds[game.row[mine]]
        return found

    def last_rows(self, rows: Rows) -> NDArray[np.int64]:
        """Of each row's game."""
        return self._game_column("first_row", rows, 1).astype(np.int64) - 1

    def frames(self, rows: Rows) -> NDArray[np.uint64]:
        """The positions of rows [B] and the seven before each, the newest first: uint64 [B, 8, 13],
        zeros where there was none; see `adapters.envs.chess.frame_of`."""
        first = self._game_column("first_row", rows).astype(np.int64)
        before = rows.row[:, None] - np.arange(FRAMES)  # [B, 8]
        store = np.broadcast_to(rows.env[:, None], before.shape)
        there = Rows(store, np.maximum(before, first[:, None]))
        frames = self._take("frames", there).astype(np.uint64)
        frames[before < first[:, None]] = 0
        return frames

    def observations(self, rows: Rows) -> NDArray[np.bool_]:
        """What the players to move see: bool [..., 8, 8, 111], of rows of any shape."""
        flat = Rows(rows.env.ravel(), rows.row.ravel())
        state = self._take("state", flat).astype(np.int64)
        seen = observe_many(
            self.frames(flat), (state & 1).astype(np.bool_), state >> 1, self.clock(flat)
        )
        return seen.reshape(*rows.row.shape, *seen.shape[1:])

    def clock(self, rows: Rows) -> NDArray[np.int64]:
        """Moves of one player since a capture or a pawn's move."""
        return self._take("clock", rows).astype(np.int64)

    def values(
        self,
        rows: Rows,
        weights: Mapping[str, float],
        searched: NDArray[np.float32] | None = None,
    ) -> NDArray[np.float32]:
        """Value targets, for the player to move, float32 in the shape of the rows, -1 .. 1; NaN
        where none is told.

        :param weights: of "result", "evaluation" and "search"; what is not told leaves its weight
            to the others
        :param searched: values that searches found
        """
        black = (self._take("state", rows).astype(np.int64) & 1).astype(np.bool_)
        result = self._game_column("result", rows).astype(np.float32)
        result[result == UNKNOWN] = np.nan
        score = self._take("evaluation", rows)
        evaluation = np.where(score == UNSCORED, np.float32(np.nan), value_of(score))
        parts = {"result": np.where(black, -result, result), "evaluation": evaluation}
        if searched is not None:
            parts["search"] = searched
        total = np.zeros(rows.row.shape, np.float32)
        weight = np.zeros(rows.row.shape, np.float32)
        for name, part in parts.items():
            told = ~np.isnan(part)
            total[told] += np.float32(weights.get(name, 0.0)) * part[told]
            weight[told] += np.float32(weights.get(name, 0.0))
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.where(weight > 0, total / weight, np.float32(np.nan))

    def policies(
        self, rows: Rows, kind: str, *, temperature: float, max_drop: float
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Policy targets float32 [..., 4672], and where there are any.

        :param kind: "candidates": a softmax of the scored moves, where none are told the move that
            was played; "actions": the move that was played
        :param temperature: of that softmax, in centipawns
        :param max_drop: a move that was played is no target where the value of its player falls by
            more than this with it
        """
        action = self._take("action", rows).astype(np.int64)
        target = np.zeros((*rows.row.shape, NUM_ACTIONS), np.float32)
        flat = target.reshape(-1, NUM_ACTIONS)
        played = action != NO_ACTION
        if max_drop < math.inf:
            following = Rows(rows.env, rows.row + played)
            before, after = self._take("evaluation", rows), self._take("evaluation", following)
            told = (before != UNSCORED) & (after != UNSCORED) & played
            played &= ~(told & (value_of(before) + value_of(after) > max_drop))
        scored = np.zeros(rows.row.shape, np.bool_)
        if kind == "candidates":
            candidates = self._take("candidates", rows).astype(np.int64)
            scores = self._take("scores", rows).astype(np.float32)
            exists = candidates != NO_ACTION
            scored = exists.any(-1)
            below = np.where(exists, scores - scores[..., :1], -np.inf)
            share = np.exp(np.maximum(below, -1e6) / np.float32(temperature)) * exists
            share /= np.maximum(share.sum(-1, keepdims=True), 1e-9)
            index = np.arange(len(flat))[:, None]
            many = candidates.reshape(len(flat), -1)
            np.add.at(flat, (index, np.maximum(many, 0)), share.reshape(many.shape))
        one = (played & ~scored).ravel()
        flat[one, action.ravel()[one]] = 1.0
        return target, scored | played


def episodes(games: ChessGames, most: int, first: int = 0) -> Iterator[Episode]:
    """Games as episodes of `ChessEnv`, for what needs them in memory; each position takes 40 kB.

    :param most: games
    :param first: number of the first one, of the first file
    """
    store, (begin, end) = games.stores[0], games.games[0]
    bounds = np.append(store.first_row, store.num_rows)
    for number in range(begin + first, min(begin + first + most, end)):
        row = np.arange(bounds[number], bounds[number + 1])
        rows = Rows(np.zeros_like(row), row)
        legal = np.stack([mask_of(legal_actions(board)) for board in boards(games, rows)])
        terminated = bool(store.terminated[number])
        rewards = np.zeros(len(row) - 1, np.float32)
        if terminated:
            rewards[-1] = games.values(rows, {"result": 1.0})[-2]
        yield Episode(
            {"observation": games.observations(rows), MASK_KEY: legal},
            games._take("action", rows)[:-1].astype(np.int64),
            rewards,
            terminated,
            players=(games._take("state", rows) & 1).astype(np.int8),
            values=games.values(rows, {"evaluation": 1.0}),
        )


class ChessBatches:
    """Training batches of `ChessGames`: windows of K + 1 positions, all equally often.

    :param unroll_steps: K
    :param policy: see `ChessGames.policies`
    :param values: weights; see `ChessGames.values`
    :param following: whether observations of the K positions behind the first are wanted
    """

    def __init__(
        self,
        games: ChessGames,
        *,
        unroll_steps: int,
        policy: str,
        values: Mapping[str, float],
        temperature: float = 50.0,
        max_drop: float = math.inf,
        following: bool = True,
        device: torch.device | str = "cpu",
        seed: int | None = None,
    ) -> None:
        self.games = games
        self.unroll_steps = unroll_steps
        self.policy = policy
        self.value_weights = dict(values)
        self.temperature = temperature
        self.max_drop = max_drop
        self.following = following
        self.device = torch.device(device)
        self.rng = np.random.default_rng(seed)

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch."""
        games, steps = self.games, self.unroll_steps
        drawn = np.empty(0, np.int64)
        while len(drawn) < batch_size:
            more = self.rng.integers(len(games), size=batch_size - len(drawn))
            rows = games.rows(more)
            drawn = np.concatenate([drawn, more[rows.row < games.last_rows(rows)]])
        rows = games.rows(drawn)
        ends = games.last_rows(rows)[:, None]
        row = rows.row[:, None] + np.arange(steps + 1)  # [B, K + 1]
        inside = row <= ends
        window = Rows(np.broadcast_to(rows.env[:, None], row.shape), np.minimum(row, ends))
        terminated = games._game_column("terminated", rows).astype(np.bool_)[:, None]
        moves = inside[:, 1:]
        actions = games._take("action", window).astype(np.int64)[:, :-1]
        random_actions = self.rng.integers(NUM_ACTIONS, size=actions.shape)
        actions = np.where(moves, actions, random_actions)
        absorbed = (row >= ends) & terminated
        values = games.values(window, self.value_weights)
        last_move = (row == ends - 1)[:, :-1] & terminated
        result = games.values(window, {"result": 1.0})[:, :-1]
        rewards = np.where(last_move, result, 0).astype(np.float32)
        policies, told = games.policies(
            window, self.policy, temperature=self.temperature, max_drop=self.max_drop
        )
        values = np.where(absorbed, np.float32(0), values)
        value_told = ~np.isnan(values) & (absorbed | (row <= ends))
        shown = window if self.following else Rows(window.env[:, :1], window.row[:, :1])
        return Batch(
            observations=self._tensor(games.observations(shown)),
            actions=self._tensor(actions),
            rewards=self._tensor(np.nan_to_num(rewards)),
            values=self._tensor(np.nan_to_num(values)),
            policies=self._tensor(policies),
            reward_mask=self._tensor((moves | terminated).astype(np.float32)),
            value_mask=self._tensor(value_told.astype(np.float32)),
            policy_mask=self._tensor((told & inside & (row < ends)).astype(np.float32)),
            consistency_mask=self._tensor(moves.astype(np.float32)),
            weights=torch.ones(batch_size, device=self.device),
            rows=rows,
        )

    def _tensor(self, array: NDArray[np.generic]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)


def boards(games: ChessGames, rows: Rows) -> list[chess.Board]:
    """The positions of rows [B], without their moves."""
    frames = games._take("frames", rows).astype(np.uint64)
    states = games._take("state", rows).astype(np.int64).tolist()
    clocks = games.clock(rows).tolist()
    return [
        board_of(frame, bool(state & 1), state >> 1, clock)
        for frame, state, clock in zip(frames, states, clocks, strict=True)
    ]


def states(games: ChessGames, rows: Rows) -> list[ChessState]:
    """The positions of rows [B], as the rules have them, with the frames of those before them.
    Repetitions up to there are shown in the frames, but do not count towards a draw."""
    found = []
    for board, frames in zip(boards(games, rows), games.frames(rows), strict=True):
        state = ChessState(board)
        state.frames = tuple(frame.tobytes() for frame in frames[frames.any(-1)])
        found.append(state)
    return found


def agreement(
    games: ChessGames,
    evaluate: Callable[[NDArray[np.bool_]], RootOutput],
    *,
    positions: int = 4_000,
    seed: int = 0,
    batch_size: int = 256,
) -> Agreement:
    """Compare a network with the labels of positions that have scored moves and an evaluation.

    :param evaluate: logits and values of observations, such as `model.policy.evaluate`
    :param positions: drawn from all; those without labels are left out
    """
    drawn = np.random.default_rng(seed).permutation(len(games))[:positions]
    rows = games.rows(np.sort(drawn))
    labels = games._take("candidates", rows)[:, 0].astype(np.int64)
    scores = games._take("evaluation", rows)
    labelled = np.flatnonzero((labels != NO_ACTION) & (scores != UNSCORED))
    if not len(labelled):
        raise ValueError("no position has scored moves and an evaluation")
    hits, error = 0, 0.0
    for start in range(0, len(labelled), batch_size):
        part = labelled[start : start + batch_size]
        chosen = Rows(rows.env[part], rows.row[part])
        found = evaluate(games.observations(chosen))
        for logits, board, label in zip(
            found.prior_logits, boards(games, chosen), labels[part], strict=True
        ):
            legal = list(legal_actions(board))
            hits += legal[int(logits[legal].argmax())] == label
        error += float(np.abs(found.value - value_of(scores[part])).sum())
    return Agreement(len(labelled), float(hits / len(labelled)), error / len(labelled))
