"""Whether a trained chess model still learns from its searches, beside what labels teach it.

    python benchmarks/chess_reanalyse.py zoo/models/chess games.pgn.zst --own own.pgn.zst --out RUN

From the weights of the model, policy and value learn as many updates more by each variant, at one
rate and from the same draw of positions: from the labels; from searches by the rules with the
newest weights (Reanalyse); policies from both alike, and values from the labels; and, where --own
names games that the engine played with itself (`muzero-agent chess generate --engine muzero-uci`),
from searches of their positions and from their results. Then the labels of held-out games are told,
and what the policy's moves cost, in the positions of `chess_regret.py`, which are kept in --out. Of
the model as it is, it is told as well how far the values of its searches are from labels. A variant
that is finished has a file in --out, and is not repeated.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chess_regret import POLICY, measured, minus, players, positions, regrets
from stable_baselines3.common.callbacks import BaseCallback

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.chess_rules import ChessRules
from muzero_agent.batch import Rows
from muzero_agent.datasets.chess_games import ChessGames, agreement, states
from muzero_agent.machine import commit, machine
from muzero_agent.rules_planner import RulesPlanner

AT_ONCE = 64  # searches
WARM_UP = 50  # updates in which the learning rate rises
NONE = "none"  # the model as it is
OWN = {"policy_targets": "search", "value_targets": {"search": 1.0, "result": 1.0}}
VARIANTS: dict[str, dict[str, Any]] = {
    NONE: {},
    "labels": {"policy_targets": "candidates", "value_targets": "evaluation"},
    "searches": {"policy_targets": "search", "value_targets": "search"},
    "both": {
        "policy_targets": {"candidates": 1.0, "search": 1.0},
        "value_targets": "evaluation",
    },
    "own games": OWN,
}


class Progress(BaseCallback):
    """Says now and then how far it is."""

    def _on_step(self) -> bool:
        if self.n_calls % 20 == 0:
            print(self.n_calls, flush=True)
        return True


def schedule(peak: float, updates: int) -> Callable[[float], float]:
    """Learning rate: up, and down to zero."""

    def rate(remaining: float) -> float:
        return peak * min(remaining, ((1 - remaining) * updates + 1) / WARM_UP, 1.0)

    return rate


def told_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """What has to be the same in all variants of a directory."""
    weights = (Path(arguments.model) / "model.safetensors").read_bytes()
    return {
        "weights": hashlib.sha256(weights).hexdigest(),
        "updates_of_each": arguments.updates,
        "simulations": arguments.simulations,
        "rate": arguments.rate,
        "held_out": arguments.held_out,
        "seed": arguments.seed,
    }


def search_values(model: MuZero, games: ChessGames, number: int) -> dict[str, float]:
    """Mean distances from labels, of the network's values and of what its searches by the rules
    make of them.

    :param number: of positions to draw
    """
    drawn = np.random.default_rng(0).choice(len(games), min(number, len(games)), replace=False)
    rows = games.rows(np.sort(drawn))
    label = games.values(rows, {"evaluation": 1.0})
    kept = (rows.row < games.last_rows(rows)) & ~np.isnan(label)
    rows, label = Rows(rows.env[kept], rows.row[kept]), label[kept]
    found: dict[str, list[Any]] = {"value": [], "mixed_value": [], "improved_value": []}
    given = states(games, rows)
    for start in range(0, len(given), AT_ONCE):
        plan = model.plan(given[start : start + AT_ONCE], planner=RulesPlanner(ChessRules()))
        for name, parts in found.items():
            parts.append(getattr(plan, name))
    told = {name: np.concatenate(parts) for name, parts in found.items()}
    told["network"] = model.policy.evaluate(games.observations(rows)).value
    errors = {name: float(np.abs(values - label).mean()) for name, values in told.items()}
    return errors | {"positions": len(label)}


def learn(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One variant, and what came of it."""
    learned, held_out = ChessGames.open(arguments.games).split()
    model: MuZero = zoo.load(
        arguments.model, num_simulations=arguments.simulations, target_decay=0.99
    )
    model.lr_schedule = schedule(arguments.rate, arguments.updates)
    begun = time.process_time()
    updates = 0 if name == NONE else arguments.updates
    if updates:
        model.learn_offline(
            ChessGames.open(arguments.own) if VARIANTS[name] is OWN else learned,
            updates,
            unroll_steps=0,
            value_smoothing=0.75,
            callback=Progress(),
            **VARIANTS[name],
        )
    seconds = time.process_time() - begun
    found = agreement(held_out, model.policy.evaluate, positions=arguments.held_out)
    given = positions(
        arguments.out / "positions.json", arguments.engine, arguments.positions, arguments.seed
    )
    values = search_values(model, held_out, arguments.positions) if name == NONE else None
    moves = players(model)[POLICY]([position.board for position in given])
    return told_of(arguments) | {
        "variant": name,
        "updates": updates,
        "positions_learned": updates * model.batch_size,
        "seconds_of_the_processor": round(seconds),
        "positions": found.positions,
        "top_1": found.top_1,
        "value_error": found.value_error,
        "regrets": regrets(moves, given),
        "search_values": values,
        "commit": commit(),
        "machine": machine(),
    }


def report(out: Path) -> str:
    """A table of what is finished."""
    lines = [
        "| variant | top-1 | value error | regret, centipawns | minus that before |",
        "| --- | ---: | ---: | ---: | ---: |",
    ]
    before: list[int] | None = None
    for name in VARIANTS:
        path = _path(out, name)
        if not path.exists():
            continue
        told = json.loads(path.read_text(encoding="utf-8"))
        row = measured(name, told["regrets"], before)
        if name == NONE:
            before = told["regrets"]
        error = 1.96 * np.sqrt(told["top_1"] * (1 - told["top_1"]) / told["positions"])
        lines.append(
            f"| {name} | {100 * told['top_1']:.1f} ± {100 * error:.1f}% | "
            f"{told['value_error']:.4f} | {row['regret']:.1f} ± {row['half_interval']:.1f} | "
            f"{minus(row)} |"
        )
    return "\n".join(lines)


def _path(out: Path, name: str) -> Path:
    return out / f"{name.replace(' ', '-')}.json"


def main() -> None:
    """Learn what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="model directory")
    parser.add_argument("games", type=Path, nargs="+", help="PGN, also .zst, or its binary form")
    parser.add_argument("--own", type=Path, help="games of the engine with itself")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), help="default: all")
    parser.add_argument("--updates", type=int, default=400)
    parser.add_argument("--simulations", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.0003, help="at its highest")
    parser.add_argument("--engine", default="stockfish", help="command of a UCI engine")
    parser.add_argument("--positions", type=int, default=600, help="whose moves are scored")
    parser.add_argument(
        "--held-out", type=int, default=8_000, help="positions whose labels are told"
    )
    parser.add_argument("--seed", type=int, default=78, help="of the positions")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.own is None and "own games" in (arguments.only or []):
        parser.error("--only 'own games': give them with --own, such as those of self-play")
    wanted = arguments.only or [
        name for name in VARIANTS if VARIANTS[name] is not OWN or arguments.own
    ]
    for name in VARIANTS:
        path = _path(arguments.out, name)
        if path.exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            if told_of(arguments).items() <= told.items():
                continue
            raise SystemExit(f"{path} was learned with other arguments: give another --out")
        if name in wanted:
            fresh = path.with_suffix(".unfinished")
            fresh.write_text(json.dumps(learn(name, arguments)) + "\n", encoding="utf-8")
            fresh.replace(path)
    print(report(arguments.out))


if __name__ == "__main__":
    main()
