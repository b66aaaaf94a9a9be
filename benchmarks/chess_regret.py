"""What the moves of a chess model cost: quick to measure, and nearer to strength than agreement is.

    python benchmarks/chess_regret.py zoo/models/chess --out runs/regret

Positions are drawn from games that Stockfish played for it (see `muzero-agent chess generate`), in
which neither side is ahead by six pawns, and every legal move of each is scored by a search of its
own. A move's regret is by how much it is worse than the best one, in centipawns, of scores cut off
at ten pawns. Beside the network's first move, searches of it by the rules (which Reanalyse of
recorded games would imitate) and in the learned model, stands the label that games to learn from
have for the position. Of searches it is told, too, how much more they cost than the policy's moves
in these positions. The scored positions are kept in --out, for another model. With --latent-error
there are searches of the engine in the learned model instead, with each of these factors (see
`adapters.engines.mind.Mind`).
"""

from __future__ import annotations

import argparse
import io
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import chess
import chess.engine
import chess.pgn
import numpy as np
import torch
from tqdm import tqdm

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.engines.chess_game import ChessGame, chess_mind
from muzero_agent.adapters.engines.mind import Mind
from muzero_agent.adapters.envs.chess import (
    frames_of,
    legal_actions,
    mask_of,
    move_of,
    observe,
)
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState
from muzero_agent.labelled_games import Labelling, play_game, start_labelling
from muzero_agent.machine import commit, machine
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.types import MASK_KEY

GAMES = 2_000_000  # number of the first game: none of those that anybody learned from
OF_EACH_GAME = 12
NODES = 1_500  # of each move's search
MOST, CUT = 600, 1_000  # centipawns
AT_ONCE = 100
POLICY = "policy alone"

Choose = Callable[[list[chess.Board]], list[chess.Move]]


class Scored(NamedTuple):
    """A position."""

    board: chess.Board  # with the moves that led there
    label: chess.Move
    scores: dict[str, int]  # centipawns for the player to move, of all legal moves


def scored(engine_command: str, number: int, seed: int) -> Iterator[Scored]:
    """Positions, until there are so many."""
    labelling = Labelling(engine_command, seed=seed)
    rng = random.Random(seed)
    found = 0
    with start_labelling(labelling) as engine:
        for game_number in range(GAMES, GAMES + number + 1):
            text = play_game(engine, labelling, game_number)
            game = chess.pgn.read_game(io.StringIO(text))
            assert game is not None
            nodes = list(game.mainline())
            for node in rng.sample(nodes, min(OF_EACH_GAME, len(nodes))):
                before = node.parent
                board = before.board()
                scores = {move.uci(): _score(engine, board, move) for move in board.legal_moves}
                if abs(max(scores.values())) < MOST:
                    label = before.comment.split("[%mpv ")[1].split(":")[0]
                    yield Scored(board, chess.Move.from_uci(label), scores)
                    found += 1
                    if found == number:
                        return


def _score(engine: chess.engine.SimpleEngine, board: chess.Board, move: chess.Move) -> int:
    """Of one move, at most a mate's, in a search that knows of no other."""
    limit = chess.engine.Limit(nodes=NODES)
    told = engine.analyse(board, limit, root_moves=[move], game=object())
    return told["score"].pov(board.turn).score(mate_score=100_000)


def positions(path: Path, engine: str, number: int, seed: int) -> list[Scored]:
    """From the file, or for the file."""
    asked = {"engine": engine, "number": number, "seed": seed, "nodes": NODES}
    if not path.exists():
        rows = [
            {
                "start": position.board.root().fen(),
                "moves": [move.uci() for move in position.board.move_stack],
                "label": position.label.uci(),
                "scores": position.scores,
            }
            for position in tqdm(scored(engine, number, seed), total=number, unit="position")
        ]
        path.write_text(json.dumps(asked | {"positions": rows}) + "\n", encoding="utf-8")
    told = json.loads(path.read_text(encoding="utf-8"))
    if {key: told[key] for key in asked} != asked:
        raise SystemExit(f"{path} holds other positions: give another --out")
    found = []
    for row in told["positions"]:
        board = chess.Board(row["start"])
        for move in row["moves"]:
            board.push_uci(move)
        found.append(Scored(board, chess.Move.from_uci(row["label"]), row["scores"]))
    return found


def seen(boards: list[chess.Board]) -> dict[str, Any]:
    """Observations of positions, and their masks."""
    return {
        "observation": np.stack([observe(board, frames_of(board)) for board in boards]),
        MASK_KEY: np.stack([mask_of(legal_actions(board)) for board in boards]),
    }


def state_of(board: chess.Board) -> ChessState:
    """The position and its game, for the rules."""
    rules, state = ChessRules(), ChessState(board.root())
    for move in board.move_stack:
        state = rules.play_move(state, move)
    return state


def players(model: MuZero) -> dict[str, Choose]:
    """By their names."""

    def policy(boards: list[chess.Board]) -> list[chess.Move]:
        given = seen(boards)
        logits = model.policy.evaluate(given["observation"]).prior_logits
        actions = np.where(given[MASK_KEY] > 0, logits, -np.inf).argmax(-1).tolist()
        return [move_of(action, board) for action, board in zip(actions, boards, strict=True)]

    def searched(nodes: int, by_rules: bool) -> Choose:
        def choose(boards: list[chess.Board]) -> list[chess.Move]:
            model.num_simulations = nodes
            plan = (
                model.plan(
                    [state_of(board) for board in boards], planner=RulesPlanner(ChessRules())
                )
                if by_rules
                else model.plan(seen(boards))
            )
            actions = plan.action.tolist()
            return [move_of(action, board) for action, board in zip(actions, boards, strict=True)]

        return choose

    found: dict[str, Choose] = {POLICY: policy}
    for nodes in (16, 64, 256):
        found[f"by the rules, {nodes}"] = searched(nodes, by_rules=True)
        found[f"in the learned model, {nodes}"] = searched(nodes, by_rules=False)
    return found


def engines(model: str, errors: list[float]) -> dict[str, Choose]:
    """The engine's search in the learned model, by slices as large as matches have them (the engine
    itself begins with smaller ones)."""

    def searched(mind: Mind, nodes: int) -> Choose:
        def move(board: chess.Board) -> chess.Move:
            game = ChessGame()
            game.set(board.root().fen(), [move.uci() for move in board.move_stack])
            thinker = mind.think_of(game, "latent", leaves=max(1, min(16, nodes // 8)), keep=False)
            while thinker.search.visits < nodes and thinker.grow(nodes - thinker.search.visits):
                pass
            return move_of(thinker.search.children()[0].action, board)

        return lambda boards: [move(board) for board in boards]

    found: dict[str, Choose] = {}
    for error in errors:
        mind = chess_mind(Path(model), "cpu", "latent", latent_error=error)
        for nodes in (16, 64, 256):
            found[f"latent error {error:g}, {nodes}"] = searched(mind, nodes)
    return found


def regrets(moves: list[chess.Move], given: list[Scored]) -> list[int]:
    """In centipawns."""

    def cut(score: int) -> int:
        return max(-CUT, min(CUT, score))

    return [
        cut(max(position.scores.values())) - cut(position.scores[move.uci()])
        for move, position in zip(moves, given, strict=True)
    ]


def measured(name: str, found: list[int], of_policy: list[int] | None = None) -> dict[str, Any]:
    """A row of the table.

    :param of_policy: the policy's, of these positions and perhaps more
    """
    array = np.array(found, np.float64)
    row: dict[str, Any] = {
        "player": name,
        "positions": len(array),
        "regret": float(array.mean()),
        "half_interval": float(1.96 * array.std(ddof=1) / np.sqrt(len(array))),
        "best_moves": float((array == 0).mean()),
        "above_100": float((array > 100).mean()),
        "above_300": float((array > 300).mean()),
    }
    if of_policy is not None:
        difference = array - of_policy[: len(array)]
        half = 1.96 * difference.std(ddof=1) / np.sqrt(len(difference))
        row |= {"minus_policy": float(difference.mean()), "half_interval_of_that": float(half)}
    return row


def minus(row: dict[str, Any]) -> str:
    """Of a row, how much more it costs than the policy's moves."""
    if "minus_policy" not in row:
        return ""
    return f"{row['minus_policy']:+.1f} ± {row['half_interval_of_that']:.1f}"


def report(rows: list[dict[str, Any]]) -> str:
    """As a table."""
    lines = [
        "| player | regret, centipawns | minus the policy's | best moves | over 100 | over 300 |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    lines += [
        f"| {row['player']} | {row['regret']:.1f} ± {row['half_interval']:.1f} | {minus(row)} | "
        f"{100 * row['best_moves']:.1f}% | {100 * row['above_100']:.1f}% | "
        f"{100 * row['above_300']:.1f}% |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> None:
    """Measure all players."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--engine", default="stockfish", help="command of a UCI engine")
    parser.add_argument("--positions", type=int, default=1_000)
    parser.add_argument("--searched", type=int, default=500, help="positions that are searched")
    parser.add_argument("--latent-error", type=float, nargs="+", help="factors, of the engine's")
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    given = positions(
        arguments.out / "positions.json", arguments.engine, arguments.positions, arguments.seed
    )
    rows = [measured("label", regrets([position.label for position in given], given))]
    choosing = players(zoo.load(arguments.model))
    if arguments.latent_error:
        choosing = {POLICY: choosing[POLICY]} | engines(arguments.model, arguments.latent_error)
    of_policy: list[int] | None = None
    for name, choose in choosing.items():
        some = given if name == POLICY else given[: arguments.searched]
        moves: list[chess.Move] = []
        for start in tqdm(range(0, len(some), AT_ONCE), desc=name, leave=False):
            moves += choose([position.board for position in some[start : start + AT_ONCE]])
        found = regrets(moves, some)
        rows.append(measured(name, found, of_policy))
        if name == POLICY:
            of_policy = found
    told = {
        "rows": rows,
        "model": arguments.model,
        "seed": arguments.seed,
        "commit": commit(),
        "machine": machine(),
    }
    path = arguments.out / ("latent_error.json" if arguments.latent_error else "regret.json")
    path.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    print(report(rows))


if __name__ == "__main__":
    main()
