"""How strong a Connect Four model is: matches, and its moves against the exact solver.

    muzero-agent train connect_four --seed 0
    python benchmarks/connect_four.py runs/connect_four/model

Plays 200 games each against random moves and against MCTS with 1,000 random rollouts, in pairs with
the same two random opening moves, each player moving first in one. Then 1,000 positions, reached by
14 to 30 random moves, are solved, and the model's greedy move counts if it keeps what the position
is worth: a win won, a draw drawn. Positions in which every move does so are told apart.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import torch
from connect_four_solver import Solver
from pettingzoo.classic import connect_four_v3

from muzero_agent import zoo
from muzero_agent.adapters.envs.games import ConnectFour
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.evaluation import evaluate_game, table
from muzero_agent.machine import commit
from muzero_agent.players import ModelPlayer, Position

RULES = ConnectFour()
PLIES = range(14, 31)


def random_position(rng: random.Random) -> tuple[list[int], Any]:
    """Random moves after which the game goes on, and the state they lead to."""
    while True:
        state, moves = RULES.initial(), []
        for _ in range(rng.choice(PLIES)):
            moves.append(rng.choice(RULES.legal(state)))
            state = RULES.play(state, moves[-1])
            if RULES.outcome(state) is not None:
                break
        else:
            return moves, state


def position(moves: list[int]) -> Position[Any]:
    """What the model is shown after these moves."""
    env = TurnBasedEnv(connect_four_v3.raw_env())
    obs, _ = env.reset()
    for action in moves:
        obs, *_ = env.step(action)
    return Position(obs, env.action_masks())


def exact_moves(model: Any, number: int, seed: int) -> dict[str, int]:
    """In how many positions the model keeps the result."""
    rng, solver = random.Random(seed), Solver()
    drawn = [random_position(rng) for _ in range(number)]
    actions = ModelPlayer(model).act([position(moves) for moves, _ in drawn])
    counts = dict.fromkeys(("positions", "kept", "with_a_choice", "kept_with_a_choice"), 0)
    for (_, state), action in zip(drawn, actions, strict=True):
        values = solver.action_values(state)
        kept = values[action] == max(values.values())
        choice = len(set(values.values())) > 1
        counts["positions"] += 1
        counts["kept"] += kept
        counts["with_a_choice"] += choice
        counts["kept_with_a_choice"] += kept and choice
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", type=Path)
    parser.add_argument("--pairs", type=int, default=100)
    parser.add_argument("--positions", type=int, default=1000)
    parser.add_argument("--against", default="random,one-ply,mcts-1000")
    parser.add_argument("--simulations", type=int, help="per move; default: the model's")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    model = zoo.load(arguments.model)
    if arguments.simulations is not None:
        model.num_simulations = arguments.simulations
    exact = exact_moves(model, arguments.positions, arguments.seed)
    print(
        f"{model.num_timesteps:,} moves of training, {model.num_simulations} simulations: {exact}"
    )
    results = evaluate_game(
        model,
        connect_four_v3.env,
        arguments.against.split(","),
        pairs=arguments.pairs,
        seed=arguments.seed,
    )
    print(table(results))
    revision = commit()
    if arguments.json is not None:
        found = {
            "commit": revision,
            "seed": arguments.seed,
            "moves_of_training": model.num_timesteps,
            "num_simulations": model.num_simulations,
            "exact": exact,
            "matches": [result.summary() for result in results],
        }
        arguments.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
