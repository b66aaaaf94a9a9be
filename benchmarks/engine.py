"""The chess engine: its start, its speed, and how soon it stops.

    python benchmarks/engine.py
    python benchmarks/engine.py --model runs/chess/model --seconds 5

Start: seconds from the start of the process to `uciok` and to `readyok`, with the search compiled
before and without. Speed: nodes a second from the usual position by the true rules and in
the learned model, with 1, 8 and 64 leaves a batch, and the time beside the bare network's, called
for as many positions in batches of the same size. Stop: from `stop` to `bestmove`. One thread.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from muzero_agent.adapters.engines.chess_game import ChessGame, chess_mind
from muzero_agent.machine import commit
from muzero_agent.zoo.bundled import find_model

PROGRAM = [sys.executable, "-m", "muzero_agent.adapters.engines.uci", "--model"]


class Process:
    """The engine as a program."""

    def __init__(self, model: Path, environment: dict[str, str] | None = None) -> None:
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*PROGRAM, str(model)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **(environment or {})},
        )

    def say(self, line: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def wait_for(self, word: str) -> float:
        """Seconds since the start when a line begins with this word."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(word.encode()):
                return time.monotonic() - self.started
        raise RuntimeError(f"the engine ended before {word}")

    def quit(self) -> None:
        self.say("quit")
        self.process.wait()


def start(model: Path, cold: bool) -> tuple[float, float]:
    """Seconds to `uciok` and to `readyok`."""
    with tempfile.TemporaryDirectory() as empty:
        process = Process(model, {"NUMBA_CACHE_DIR": empty} if cold else None)
        process.say("uci")
        greeted = process.wait_for("uciok")
        process.say("isready")
        ready = process.wait_for("readyok")
        process.quit()
    return greeted, ready


def speed(mind: Any, planner: str, leaves: int, seconds: float) -> tuple[float, float]:
    """Nodes a second, and time per node / that of the bare network."""
    thinker = mind.think_of(ChessGame(), planner, leaves=leaves, megabytes=1024, keep=False)
    while thinker.search.visits < 4 * leaves:  # a batch finds as many leaves
        thinker.grow()
    before, began = thinker.search.visits, time.perf_counter()
    while time.perf_counter() - began < seconds and thinker.grow():
        pass
    per_node = (time.perf_counter() - began) / (thinker.search.visits - before)
    policy = mind.model.policy
    obs = np.repeat(mind.rules.observe(mind.rules.initial())[None], leaves, 0)
    count, began = 0, time.perf_counter()
    if planner == "rules":
        while time.perf_counter() - began < seconds / 2:
            policy.evaluate(obs)
            count += leaves
    else:
        with torch.inference_mode():
            latent = policy.target_network.representation(policy.network_input(obs))
            action = torch.zeros(leaves, dtype=torch.int32)
            while time.perf_counter() - began < seconds / 2:
                policy.target_network.recurrent_inference(latent, action)
                count += leaves
    bare = (time.perf_counter() - began) / count
    return 1 / per_node, per_node / bare


def stops(model: Path, number: int) -> list[float]:
    """Seconds from `stop` to `bestmove`."""
    process = Process(model)
    process.say("isready")
    process.wait_for("readyok")
    waits = []
    for _ in range(number):
        process.say("go infinite")
        time.sleep(0.3)
        asked = time.monotonic() - process.started
        process.say("stop")
        waits.append(process.wait_for("bestmove") - asked)
    process.quit()
    return waits


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="chess", help="model directory, or a bundled model")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each figure of speed")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    directory = find_model(arguments.model)
    print(f"commit {commit()}, {directory.name}\n")
    print("| start | uciok, s | readyok, s |\n| --- | ---: | ---: |")
    for name, cold in (("search compiled before", False), ("nothing compiled", True)):
        tries = [start(directory, cold) for _ in range(3)]
        greeted, ready = (min(column) for column in zip(*tries, strict=True))
        print(f"| {name} | {greeted:.2f} | {ready:.1f} |", flush=True)
    mind = chess_mind(directory, "cpu")
    print("\n| planner | leaves | nodes a second | / bare network |\n| --- | ---: | ---: | ---: |")
    for planner in ("rules", "latent"):
        for leaves in (1, 8, 64):
            nodes, ratio = speed(mind, planner, leaves, arguments.seconds)
            print(f"| {planner} | {leaves} | {nodes:,.0f} | {ratio:.2f} |", flush=True)
    waits = sorted(1000 * wait for wait in stops(directory, 20))
    print(f"\nstop to bestmove: median {statistics.median(waits):.1f} ms, most {waits[-1]:.1f} ms")


if __name__ == "__main__":
    main()
