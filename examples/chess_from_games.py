"""Learn chess from labelled games: how the chess model in the package was made.

    python examples/chess_from_games.py games.pgn.zst --positions 150000 --minutes 20 --out chess

Games are PGN, also compressed by zstandard, in which the comment before a move tells an engine's
opinion of the position: `[%eval 0.35]` in pawns for White, or `#3`, and `[%mpv e2e4:35,d2d4:30]`,
its best moves with centipawns for the mover. What comes out is an ordinary MuZero model, whose
representation, dynamics and prediction are trained by the usual loss on windows of these games;
policies are the labels' by a softmax, values the labels' by the usual curve.
"""

from __future__ import annotations

import argparse
import math
import random
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import chess.pgn
import numpy as np
import torch
from numpy.typing import NDArray

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.chess import (
    NUM_ACTIONS,
    ChessEnv,
    action_of,
    legal_actions,
    mask_of,
)
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState

RULES = ChessRules()
SOFTMAX = 50.0  # centipawns
EVAL = re.compile(r"\[%eval (#?-?[\d.]+)\]")
MOVES = re.compile(r"\[%mpv ([^\]]*)\]")


def games(path: Path) -> Iterator[chess.pgn.Game]:
    """All games of a file."""
    if path.suffix == ".zst":
        import zstandard

        with zstandard.open(path, "rt", encoding="utf-8") as stream:
            yield from _read(stream)
    else:
        with path.open(encoding="utf-8") as stream:
            yield from _read(stream)


def _read(stream: TextIO) -> Iterator[chess.pgn.Game]:
    while (game := chess.pgn.read_game(stream)) is not None:
        yield game


def centipawns(text: str) -> float:
    """Of a score that may be a mate."""
    if text.startswith("#"):
        moves = int(text[1:])
        return math.copysign(3000 - 20 * min(abs(moves), 50), -1 if text[1:2] == "-" else 1)
    return float(text)


def value_of(score: float) -> float:
    """-1 .. 1 of centipawns: the curve by which engines tell one as the other."""
    return math.atan(score / 90) / 1.5637541897


def label(comment: str, board: chess.Board) -> tuple[float, NDArray[np.float32]] | None:
    """Value and policy of a position, for the player to move."""
    told, moves = EVAL.search(comment), MOVES.search(comment)
    if told is None or moves is None:
        return None
    white = centipawns(told[1]) * (1 if told[1].startswith("#") else 100)
    policy = np.zeros(NUM_ACTIONS, np.float32)
    scores = [entry.split(":") for entry in moves[1].split(",")]
    best = max(centipawns(score) for _, score in scores)
    for move, score in scores:
        action = action_of(chess.Move.from_uci(move), board.turn)
        policy[action] = math.exp(max(centipawns(score) - best, -1000.0) / SOFTMAX)
    return value_of(white if board.turn else -white), policy / policy.sum()


def store(model: MuZero, game: chess.pgn.Game, env: int) -> int:
    """Put a game into the replay; how many positions it had."""
    replay = model.replay_buffer
    state, node, count = ChessState(game.board()), game, 0

    def observation(state: ChessState, legal: NDArray[np.int8]) -> dict[str, Any]:
        return {"observation": RULES.observe(state), "action_mask": legal}

    while node.variations:
        following = node.variations[0]
        known = label(node.comment, state.board)
        legal = mask_of(legal_actions(state.board))
        if known is None:
            break
        value, policy = known
        color = state.board.turn
        after = RULES.play_move(state, following.move)
        outcome = RULES.outcome(after)
        replay.add_step(
            env,
            observation(state, legal),
            action_of(following.move, color),
            -(outcome or 0.0),
            policy,
            value,
            math.inf,  # the label is the value's target, not what the game came to
            legal.astype(np.bool_),
            searched=True,
            player=int(color == chess.BLACK),
        )
        state, node, count = after, following, count + 1  # type: ignore[assignment]
        if outcome is not None:
            break
    if count:
        known = label(node.comment, state.board)
        replay.end_episode(
            env,
            observation(state, mask_of(legal_actions(state.board))),
            known[0] if known else 0.0,
            terminated=RULES.outcome(state) is not None,
            player=int(state.board.turn == chess.BLACK),
            legal=mask_of(legal_actions(state.board)).astype(np.bool_),
        )
    return count


def agreement(model: MuZero, held_out: list[chess.pgn.Game]) -> tuple[float, float]:
    """Share of positions in which the policy's first move is the label's, and the value's error."""
    states, best, values = [], [], []
    for game in held_out:
        state = ChessState(game.board())
        for node in game.mainline():
            known = label(node.parent.comment, state.board)
            if known is not None:
                states.append(state)
                values.append(known[0])
                best.append(int(known[1].argmax()))
            state = RULES.play_move(state, node.move)
    hits, error = 0, 0.0
    for start in range(0, len(states), 256):
        part = states[start : start + 256]
        found = model.policy.evaluate(np.stack([RULES.observe(state) for state in part]))
        for row, state in enumerate(part):
            legal = list(legal_actions(state.board))
            hits += legal[int(found.prior_logits[row, legal].argmax())] == best[start + row]
        error += float(np.abs(found.value - values[start : start + len(part)]).sum())
    return hits / len(states), error / len(states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("games", type=Path, nargs="+")
    parser.add_argument("--positions", type=int, default=150_000, help="to learn from")
    parser.add_argument("--minutes", type=float, default=20.0, help="of the processor, training")
    parser.add_argument("--out", type=Path, required=True, help="model directory to write")
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--blocks", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = MuZero(
        "CnnPolicy",
        ChessEnv,
        seed=arguments.seed,
        learning_rate=0.002,
        buffer_size=int(arguments.positions * 1.02),
        batch_size=arguments.batch_size,
        unroll_steps=2,
        regret_tolerance=1.0,
        consistency_coef=0.0,
        num_simulations=64,
        policy_kwargs={
            "net_arch": {
                "channels": arguments.channels,
                "num_blocks": arguments.blocks,
                "head_width": 96,
            }
        },
    )
    model.learn(0)  # sets up what training needs
    held_out: list[chess.pgn.Game] = []
    stored, rng, begun = 0, random.Random(arguments.seed), time.process_time()
    for path in arguments.games:
        for game in games(path):
            if stored >= arguments.positions:
                break
            if len(held_out) < 20 and rng.random() < 0.05:
                held_out.append(game)
            else:
                stored += store(model, game, 0)
    print(f"{stored:,} positions in {time.process_time() - begun:.0f} s", flush=True)
    begun, seconds, told = time.process_time(), 60 * arguments.minutes, 0.0
    while (passed := time.process_time() - begun) < seconds:
        model._current_progress_remaining = 1 - passed / seconds
        model.train(20, arguments.batch_size)
        if passed >= told:
            told += seconds / 10
            share, error = agreement(model, held_out)
            losses = model.logger.name_to_value
            print(
                f"{passed:6.0f} s, {model._n_updates:,} updates, policy loss "
                f"{losses['train/policy_loss']:.3f}, value loss {losses['train/value_loss']:.3f}; "
                f"held out: {100 * share:.1f}% best moves, value error {error:.3f}",
                flush=True,
            )
    share, error = agreement(model, held_out)
    print(f"held out in the end: {100 * share:.1f}% best moves, value error {error:.3f}")
    model.num_timesteps = stored
    zoo.save(model, arguments.out)
    print(f"written: {arguments.out}")


if __name__ == "__main__":
    main()
