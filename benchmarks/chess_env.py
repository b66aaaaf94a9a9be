"""Moves a second of chess, observation and mask included: ours and PettingZoo's.

    python benchmarks/chess_env.py

Random games, seconds of the CPU, both in one run.
"""

from __future__ import annotations

import argparse
import random
import time

import numpy as np
from pettingzoo.classic import chess_v6

from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.types import TurnBased


def moves_per_second(env: TurnBased, moves: int, seed: int) -> float:
    """Of random play."""
    rng = random.Random(seed)
    obs, _ = env.reset()
    spent = 0.0
    for _ in range(moves):
        action = rng.choice(np.flatnonzero(obs["action_mask"]).tolist())
        started = time.process_time()
        obs, _, over, _, _ = env.step(action)
        if over:
            obs, _ = env.reset()
        spent += time.process_time() - started
    return moves / spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--moves", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    games: dict[str, TurnBased] = {
        "PettingZoo's chess_v6": TurnBasedEnv(chess_v6.raw_env()),
        "ChessEnv": ChessEnv(),
        "ChessEnv, draws claimed early": ChessEnv(empty_start=True, claim_early=True),
    }
    speeds = {
        name: moves_per_second(game, arguments.moves, arguments.seed)
        for name, game in games.items()
    }
    for name, speed in speeds.items():
        ratio = speed / speeds["PettingZoo's chess_v6"]
        print(f"{name}: {speed:,.0f} moves a second, {ratio:.1f} times PettingZoo's")


if __name__ == "__main__":
    main()
