"""TicTacToe by self-play: does the model that training returned ever lose?

    python benchmarks/tictactoe.py                    # seeds 0, 1, 2
    python benchmarks/tictactoe.py --seeds 7 --every 10000

Trains with the settings of hyperparams.yml (`muzero-agent train tictactoe`) and one torch thread.
Then every line of play of the opponent is walked through, from both seats: the model plays what
greedy `predict` says with its own simulations, the opponent each legal move in turn. With --every
this is done on the way as well, with the clock stopped. Results go to a JSON file, and the model of
the first seed into a model directory.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pettingzoo.classic import tictactoe_v3
from stable_baselines3.common.callbacks import BaseCallback

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.games import TicTacToe, TicTacToeState
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import commit
from muzero_agent.players import ModelPlayer, Position

OUTCOMES = ("lost", "drawn", "won")


def walk(model: MuZero, seat: int) -> dict[str, int]:
    """How many lines of play the model loses, draws and wins.

    :param seat: of the model: 0 moves first
    """
    rules, player = TicTacToe(), ModelPlayer(model)
    counts = dict.fromkeys(OUTCOMES, 0)
    front: dict[TicTacToeState, tuple[int, list[int]]] = {rules.initial(): (1, [])}  # lines, moves
    for ply in range(9):
        states = list(front)
        replies = [rules.legal(state) for state in states]
        if ply % 2 == seat and states:
            positions = [_position(front[state][1]) for state in states]
            replies = [[action] for action in player.act(positions)]
        following: dict[TicTacToeState, tuple[int, list[int]]] = {}
        for state, actions in zip(states, replies, strict=True):
            lines, moves = front[state]
            for action in actions:
                assert action in rules.legal(state)
                reached = rules.play(state, action)
                outcome = rules.outcome(reached)
                if outcome is None:
                    before = following.get(reached, (0, []))[0]
                    following[reached] = (before + lines, [*moves, action])
                else:
                    won = -outcome if ply % 2 == seat else outcome
                    counts[OUTCOMES[int(won) + 1]] += lines
        front = following
    return counts


def _position(moves: list[int]) -> Position[Any]:
    env = TurnBasedEnv(tictactoe_v3.raw_env())
    obs, _ = env.reset()
    for action in moves:
        obs, *_ = env.step(action)
    return Position(obs, env.action_masks())


def both_seats(model: MuZero) -> dict[str, dict[str, int]]:
    """`walk` from either seat."""
    return {name: walk(model, seat) for seat, name in enumerate(("first", "second"))}


class Walks(BaseCallback):
    """Walks every so many steps; `seconds` is the time that took."""

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every, self.next, self.seconds = every, every, 0.0
        self.curve: list[dict[str, Any]] = []

    def _on_step(self) -> bool:
        return True

    def _on_rollout_start(self) -> None:
        if self.num_timesteps < self.next:
            return
        started = time.perf_counter()
        self.next += self.every
        assert isinstance(self.model, MuZero)
        found = both_seats(self.model)
        self.curve.append({"steps": self.num_timesteps, **found})
        print(f"  {self.num_timesteps:,} steps: lost {[seat['lost'] for seat in found.values()]}")
        self.seconds += time.perf_counter() - started


def train(seed: int, every: int | None, changes: dict[str, Any]) -> tuple[MuZero, dict[str, Any]]:
    """One run, and what there is to say of it."""
    params = load_hyperparams("tictactoe", changes=changes)
    model = MuZero(params.policy, params.make_env("tictactoe", seed), seed=seed, **params.kwargs)
    walks = Walks(every or params.n_timesteps + 1)
    started, cpu = time.perf_counter(), time.process_time()
    model.learn(params.n_timesteps, callback=walks)
    seconds = time.perf_counter() - started - walks.seconds
    found = both_seats(model)
    return model, {
        "seed": seed,
        "steps": model.num_timesteps,
        "seconds": round(seconds),
        "cpu_seconds": round(time.process_time() - cpu),
        "num_simulations": model.num_simulations,
        **found,
        "curve": walks.curve,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--every", type=int, help="steps between walks on the way")
    parser.add_argument("--steps", type=int, help="default: hyperparams.yml's")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/tictactoe.json"))
    parser.add_argument("--model", type=Path, default=Path("runs/tictactoe/model"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    revision = commit()
    changes = {} if arguments.steps is None else {"n_timesteps": arguments.steps}
    runs: list[dict[str, Any]] = []
    for number, seed in enumerate(map(int, arguments.seeds.split(","))):
        model, run = train(seed, arguments.every, changes)
        runs.append(run)
        lost = {seat: run[seat]["lost"] for seat in ("first", "second")}
        print(f"seed {seed}: {run['steps']:,} steps, {run['seconds']} s, lines lost: {lost}")
        if number == 0:
            zoo.save(model, arguments.model, dtype="float16")
            run["saved"] = both_seats(zoo.load(arguments.model))
        machine = {"processor": platform.processor(), "torch": torch.__version__}
        result = {"commit": revision, "numpy": np.__version__, **machine, "runs": runs}
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        arguments.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
