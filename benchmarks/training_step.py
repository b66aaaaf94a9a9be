"""Where the time of learning goes, and what an update costs beyond its gradients.

    python benchmarks/training_step.py
    python benchmarks/training_step.py --env ALE/Pong-v5 --start 2200 --steps 200 --rounds 10

First the ratio of an update inside `MuZero.train` (sampling from the replay, forward, backward,
clipping, optimizer, averaging) to the forward and backward passes of the same loss on the same
batches alone; the two alternate. Then a profile of `learn`: a timer looks at the stack every few
milliseconds of CPU time, so that nothing has to be wrapped and nothing is slowed down. All of it is
CPU time, with one thread, so other programs on the machine do not disturb the shares.

For Atari, whose networks are large enough, it also tells what a second thread and bfloat16 are
worth, by the clock and so on a quiet machine: the time of forward and backward passes, by turns.
"""

from __future__ import annotations

import argparse
import signal
import time
from collections import Counter
from functools import cache
from pathlib import Path
from statistics import median
from types import FrameType
from typing import Any

import torch

import muzero_agent
from muzero_agent import MuZero
from muzero_agent.batch import Batch
from muzero_agent.hyperparams import load_hyperparams

PACKAGE = Path(muzero_agent.__file__).parent

# A sample belongs to the innermost of its frames that is listed here, in the innermost phase.
PHASES = {
    ("muzero_agent/policies.py", "plan"): "search",
    ("muzero_agent/muzero.py", "train"): "training",
    ("stable_baselines3/common/vec_env/base_vec_env.py", "step"): "environment",
}
PARTS = {
    "search": {
        "muzero_agent/networks.py": "network calls",
        "torch/": "network calls",  # traced: no frame tells whose operations they are
        "muzero_agent/search/": "tree",
        "muzero_agent/": "arrays to tensors and back",
    },
    "training": {
        "muzero_agent/replay.py": "sampling",
        "muzero_agent/losses.py": "forward",
        "torch/_tensor.py": "backward",
        "torch/nn/utils/clip_grad.py": "clipping",
        "torch/optim/swa_utils.py": "averaging",
        "torch/optim/": "optimizer",
        "muzero_agent/muzero.py": "other",
    },
    "environment": {"": ""},
}
REST = ("rest: storing, reanalysis, callbacks", "")


@cache
def short(filename: str) -> str:
    """A path from the top of its package."""
    path = Path(filename)
    if path.is_relative_to(PACKAGE):
        return f"muzero_agent/{path.relative_to(PACKAGE).as_posix()}"
    return path.as_posix().rpartition("site-packages/")[2]


@cache
def part_of_file(phase: str, name: str) -> str | None:
    """The part of a phase that a file belongs to, by the first prefix that fits."""
    return next((part for prefix, part in PARTS[phase].items() if name.startswith(prefix)), None)


def part_of(frame: FrameType | None) -> tuple[str, str]:
    """(phase, part) of what runs at a moment."""
    names = []
    while frame is not None:
        code = frame.f_code
        names.append(short(code.co_filename))
        phase = PHASES.get((names[-1], code.co_name))
        if phase is not None:
            return phase, next(filter(None, (part_of_file(phase, name) for name in names)), "")
        frame = frame.f_back
    return REST


def profile(model: MuZero, steps: int) -> tuple[Counter[tuple[str, str]], float]:
    """Samples per part, and CPU seconds of learning so many further steps."""
    seen: Counter[tuple[str, str]] = Counter()

    def look(signum: int, frame: FrameType | None) -> None:
        seen[part_of(frame)] += 1

    before = signal.signal(signal.SIGPROF, look)
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, 0.002, 0.002)
    try:
        model.learn(steps, reset_num_timesteps=False)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return seen, time.process_time() - started


def compare(model: MuZero, updates: int, rounds: int) -> tuple[list[float], list[float]]:
    """CPU milliseconds per update: of `train`, and of forward and backward on its batches."""
    replay = model.replay_buffer
    sample = replay.sample
    batches: list[Batch] = []

    def remember(*args: Any, **kwargs: Any) -> Batch:
        batches.append(sample(*args, **kwargs))
        return batches[-1]

    replay.sample = remember  # type: ignore[method-assign]
    whole, bare = [], []
    for _ in range(rounds):
        batches.clear()
        started = time.process_time()
        model.train(updates, model.batch_size)
        whole.append(1e3 * (time.process_time() - started) / updates)
        taken = 0.0
        for batch in batches:
            model.policy.optimizer.zero_grad()
            started = time.process_time()
            model._loss(batch).total.backward()
            taken += time.process_time() - started
        bare.append(1e3 * taken / updates)
    replay.sample = sample  # type: ignore[method-assign]
    return whole, bare


def alternatives(model: MuZero, rounds: int) -> dict[str, float]:
    """Milliseconds by the clock of a forward and backward pass: as it is, and otherwise."""
    batch = model.replay_buffer.sample(model.batch_size)
    taken: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, threads, half in (
            ("one thread", 1, False),
            ("two threads", 2, False),
            ("one thread, bfloat16", 1, True),
            ("two threads, bfloat16", 2, True),
        ):
            torch.set_num_threads(threads)
            for counts in (False, True):  # the first of each kind warms up
                model.policy.optimizer.zero_grad()
                started = time.perf_counter()
                with torch.autocast("cpu", torch.bfloat16, enabled=half):
                    loss = model._loss(batch).total
                loss.backward()
                if counts:
                    taken.setdefault(name, []).append(1e3 * (time.perf_counter() - started))
    torch.set_num_threads(1)
    return {name: median(times) for name, times in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--steps", type=int, default=2000, help="learned while the profile is taken"
    )
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--start", type=int, default=500, help="steps learned before")
    parser.add_argument("--rounds", type=int, default=40, help="of updates")
    parser.add_argument("--seed", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)

    params = load_hyperparams(given.env)
    env = params.make_env(given.env, seed=given.seed)
    model = MuZero(params.policy, env, seed=given.seed, device="cpu", **params.kwargs)
    model.learn(given.start)
    seen, seconds = profile(model, given.steps)
    whole, bare = compare(model, 8, given.rounds)

    ratio = median(a / b for a, b in zip(whole, bare, strict=True))
    print(f"An update takes {median(whole):.2f} ms, its forward and backward passes alone")
    print(f"{median(bare):.2f} ms: ratio {ratio:.2f} (medians of {given.rounds} rounds).\n")

    print(f"Learning {given.steps:,} steps took {seconds:.1f} s, {sum(seen.values())} samples:\n")
    print("| where | ms per environment step | share |")
    print("| --- | ---: | ---: |")
    milliseconds = 1e3 * seconds / given.steps / sum(seen.values())
    for phase in (*PARTS, REST[0]):
        parts = Counter({part: n for (where, part), n in seen.items() if where == phase})
        rows = [(f"**{phase}**", parts.total())]
        rows += [(f"{phase}: {part}", n) for part, n in parts.most_common() if part]
        for name, n in rows:
            print(f"| {name} | {n * milliseconds:.2f} | {n / seen.total():.0%} |")

    if params.policy == "CnnPolicy":
        print("\n| forward and backward | ms by the clock |\n| --- | ---: |")
        for name, ms in alternatives(model, given.rounds).items():
            print(f"| {name} | {ms:.1f} |")


if __name__ == "__main__":
    main()
