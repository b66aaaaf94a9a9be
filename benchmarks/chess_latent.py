"""How much of chess a learned model keeps: what it says after moves that it only imagines.

    python benchmarks/chess_latent.py zoo/models/chess games-0.pgn.zst games-1.pgn.zst

On games that were held out, by the number k of moves imagined (g applied k times to h of the
position): along the moves that were played, the share of the policy on illegal moves, how often its
first move is illegal, how often it is the label's, if it may choose legal ones only, the value's
error, and how far the latent is from h of the position: its squared distance as a share of the
variance that h has over positions. And in searches of 64 simulations from these positions: the
share of illegal moves among those that lead from nodes at depth k, and the share of nodes at that
depth that stand behind an illegal move, of whose moves there is nothing to say. And behind all
legal moves of these positions, in classes by the probability that the policy gives them: how far
the imagined value is from that of h of the position that follows, by its absolute value and on
average (values are those of the opponent: below 0 the move is taken for better than it is), and how
often the first legal moves there are the same.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import chess
import numpy as np
import torch
from numpy.typing import NDArray

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.chess import legal_actions, mask_of, move_of
from muzero_agent.adapters.envs.chess_rules import ChessRules
from muzero_agent.batch import Rows
from muzero_agent.datasets.chess_games import ChessGames, boards, states, value_of
from muzero_agent.datasets.pgn import NO_ACTION, UNSCORED
from muzero_agent.machine import commit, machine

STEPS = 6
AT_ONCE = 64


def windows(games: ChessGames, number: int, seed: int) -> Rows:
    """Rows [B, STEPS + 1] of positions that follow one another."""
    drawn = np.random.default_rng(seed).permutation(len(games))[: 2 * number]
    rows = games.rows(drawn)
    inside = rows.row + STEPS < games.last_rows(rows)
    if min(int(inside.sum()), number) < 2:  # of one there is no variance
        raise ValueError(
            f"fewer than two lines of {STEPS} moves are held out: give more positions and games"
        )
    env, row = rows.env[inside][:number], rows.row[inside][:number]
    row = row[:, None] + np.arange(STEPS + 1)
    return Rows(np.broadcast_to(env[:, None], row.shape).copy(), row)


class Told(NamedTuple):
    """Of B positions, after some moves that were imagined."""

    logits: NDArray[np.float32]  # [B, A]
    values: NDArray[np.float32]  # [B]
    distance: float  # squared, of latents from h of the positions: the mean of all entries
    variance: float  # of those, likewise


@torch.inference_mode()
def imagined(model: MuZero, games: ChessGames, rows: Rows) -> list[Told]:
    """After 0 .. STEPS moves that were played."""
    network = model.policy.target_network
    seen = torch.as_tensor(games.observations(rows)).flatten(0, 1)
    represented = network.representation(model.policy.preprocess(seen))
    represented = represented.unflatten(0, rows.row.shape)
    latent = represented[:, 0]
    actions = torch.as_tensor(games._take("action", rows).astype(np.int64))
    told = []
    for step in range(STEPS + 1):
        policy, value = network.prediction(latent)
        there = represented[:, step]
        distance = float((latent - there).square().mean())
        variance = float(there.var(0, correction=0).mean())
        values = network.support.scalar(value).numpy()
        told.append(Told(policy.numpy(), values, distance, variance))
        if step < STEPS:
            latent, _ = network.dynamics(latent, actions[:, step])
    return told


def along_play(model: MuZero, games: ChessGames, rows: Rows) -> list[dict[str, float]]:
    """A row for each number of moves imagined."""
    sums = [defaultdict[str, float](float) for _ in range(STEPS + 1)]
    for start in range(0, len(rows.row), AT_ONCE):
        part = Rows(rows.env[start : start + AT_ONCE], rows.row[start : start + AT_ONCE])
        for step, told in enumerate(imagined(model, games, part)):
            sums[step]["distance"] += told.distance * len(part.row)
            sums[step]["variance"] += told.variance * len(part.row)
            logits, values = told.logits, told.values
            at = Rows(part.env[:, step], part.row[:, step])
            labels = games._take("candidates", at)[:, 0].astype(np.int64)
            scores = games._take("evaluation", at)
            for row, board in enumerate(boards(games, at)):
                legal = mask_of(legal_actions(board)).astype(np.bool_)
                shares = np.exp(logits[row] - logits[row].max())
                found = sums[step]
                found["positions"] += 1
                found["illegal_share"] += float(shares[~legal].sum() / shares.sum())
                found["illegal_first"] += int(not legal[logits[row].argmax()])
                if labels[row] != NO_ACTION:
                    found["labels"] += 1
                    first = int(np.where(legal, logits[row], -np.inf).argmax())
                    found["top_1"] += int(first == labels[row])
                if scores[row] != UNSCORED:
                    found["values"] += 1
                    found["value_error"] += abs(float(values[row] - value_of(scores[row])))
    return [
        {
            "moves_imagined": step,
            "positions": found["positions"],
            "illegal_share": found["illegal_share"] / found["positions"],
            "illegal_first": found["illegal_first"] / found["positions"],
            "top_1": found["top_1"] / max(found["labels"], 1),
            "value_error": found["value_error"] / max(found["values"], 1),
            "latent_error": found["distance"] / found["variance"],
        }
        for step, found in enumerate(sums)
    ]


def in_searches(
    model: MuZero, games: ChessGames, rows: Rows, simulations: int
) -> list[dict[str, float]]:
    """A row for each depth of the nodes that moves lead from."""
    legal, illegal, lost = Counter[int](), Counter[int](), Counter[int]()
    model.num_simulations = simulations
    first = Rows(rows.env[:, 0], rows.row[:, 0])
    for start in range(0, len(first.row), 8):
        part = Rows(first.env[start : start + 8], first.row[start : start + 8])
        roots = boards(games, part)
        masks = np.stack([mask_of(legal_actions(board)) for board in roots])
        observations = games.observations(part)
        model.plan({"observation": observations, "action_mask": masks})
        tree = model.policy.planner._tree
        assert tree is not None
        for row, root in enumerate(roots):
            nodes: list[tuple[chess.Board | None, int]] = [(root, 0)]
            for simulation in range(simulations):
                parent = int(tree.trace_parent[simulation, row])
                action = int(tree.trace_action[simulation, row])
                board, depth = nodes[parent]
                after: chess.Board | None = None
                if board is None or board.is_game_over():
                    lost[depth] += 1
                elif action in legal_actions(board):
                    legal[depth] += 1
                    after = board.copy(stack=False)
                    after.push(move_of(action, board))
                else:
                    illegal[depth] += 1
                nodes.append((after, depth + 1))
    return [
        {
            "depth": depth,
            "moves": legal[depth] + illegal[depth],
            "illegal": illegal[depth] / max(legal[depth] + illegal[depth], 1),
            "behind_illegal": lost[depth] / (legal[depth] + illegal[depth] + lost[depth]),
        }
        for depth in sorted(legal.keys() | illegal.keys() | lost.keys())
    ]


PROBABLE = (0.1, 0.01, 0.0)  # classes of moves, by the least probability


@torch.inference_mode()
def behind_moves(model: MuZero, games: ChessGames, rows: Rows) -> list[dict[str, float]]:
    """A row for each class."""
    network, rules = model.policy.target_network, ChessRules()
    sums = {least: defaultdict[str, float](float) for least in PROBABLE}
    for state in states(games, Rows(rows.env[:, 0], rows.row[:, 0])):
        legal = rules.legal(state)
        after = [rules.play(state, action) for action in legal]
        latent = network.representation(model.policy.network_input(rules.observe(state)[None]))
        logits = network.prediction(latent)[0][0, legal]
        shares = logits.softmax(0).tolist()
        imagined, _ = network.dynamics(
            latent.expand(len(legal), -1, -1, -1), torch.as_tensor(legal)
        )
        policies, value_logits = network.prediction(imagined)
        values = network.support.scalar(value_logits).tolist()
        told = model.policy.evaluate(np.stack([rules.observe(there) for there in after]))
        for row, there in enumerate(after):
            if rules.outcome(there) is None:
                replies = rules.legal(there)
                same = told.prior_logits[row, replies].argmax() == policies[row, replies].argmax()
                error = values[row] - float(told.value[row])
                found = sums[next(least for least in PROBABLE if shares[row] >= least)]
                found["moves"] += 1
                found["error"] += abs(error)
                found["bias"] += error
                found["same"] += int(same)
    return [
        {
            "probability_from": least,
            "moves": found["moves"],
            "value_difference": found["error"] / max(found["moves"], 1),
            "value_bias": found["bias"] / max(found["moves"], 1),
            "same_first": found["same"] / max(found["moves"], 1),
        }
        for least, found in sums.items()
    ]


def show(rows: list[dict[str, float]]) -> None:
    """As Markdown."""
    print(f"\n| {' | '.join(rows[0])} |\n|{' ---: |' * len(rows[0])}")
    for row in rows:
        print("| " + " | ".join(f"{v:.3f}" if v % 1 else f"{v:,.0f}" for v in row.values()) + " |")


def main() -> None:
    """Measure, print and write down."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="model directory, or name of a model in the package")
    parser.add_argument("games", type=Path, nargs="+", help="PGN, also .zst, or its binary form")
    parser.add_argument("--positions", type=int, default=2_000, help="along the moves played")
    parser.add_argument("--searches", type=int, default=200)
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1_000)
    parser.add_argument("--out", type=Path, help="JSON file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = zoo.load(arguments.model)
    _, games = ChessGames.open(arguments.games, progress_bar=True).split()
    rows = windows(games, arguments.positions, arguments.seed)
    some = Rows(rows.env[: arguments.searches], rows.row[: arguments.searches])
    found: dict[str, Any] = {
        "along_play": along_play(model, games, rows),
        "in_searches": in_searches(model, games, some, arguments.simulations),
        "behind_moves": behind_moves(model, games, some),
    }
    for table in found.values():
        show(table)
    if arguments.out is not None:
        about = {
            "simulations": arguments.simulations,
            "seed": arguments.seed,
            "commit": commit(),
            "machine": machine(),
        }
        arguments.out.write_text(json.dumps(found | about, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
