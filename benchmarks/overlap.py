"""What it is worth to act and learn at the same time.

    python benchmarks/overlap.py
    python benchmarks/overlap.py --env ALE/Pong-v5 --start 2100 --periods 2

`learn` plays `train_freq` steps and then samples batches and makes `gradient_steps` updates. Here
it does so by turns in four ways: one after the other, with one thread of torch and with two; the
updates beside the play in a thread of Python; and as `MuZero(overlap=True)` does, in a process.
These have one thread of torch each. By the clock, and so on a quiet machine with two cores.
"""

from __future__ import annotations

import argparse
import time
from concurrent.futures import ThreadPoolExecutor
from statistics import median

import torch

from muzero_agent import MuZero
from muzero_agent.batch import Batch
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.learner import Learner


class Halves:
    """The two halves of learning, each callable by itself."""

    def __init__(self, model: MuZero) -> None:
        self.model = model
        _, self.callback = model._setup_learn(10**9, None, False, "MuZero", False)
        self.callback.on_training_start({}, {})
        self.steps = model.train_freq.frequency * model.n_envs  # type: ignore[union-attr]
        self.learner: Learner | None = None

    def act(self) -> None:
        """Play, search stored states again, and store what was found."""
        model = self.model
        model.collect_rollouts(
            model.env,  # type: ignore[arg-type]
            self.callback,
            model.train_freq,  # type: ignore[arg-type]
            model.replay_buffer,
            learning_starts=model.learning_starts,
        )

    def train(self) -> None:
        """Sample, and update."""
        self.model.train(self.model.gradient_steps, self.model.batch_size)

    def batches(self) -> list[Batch]:
        """What `update` learns from; to sample while the other half stores would be a race."""
        model = self.model
        return [model.replay_buffer.sample(model.batch_size) for _ in range(model.gradient_steps)]

    def update(self, batches: list[Batch]) -> None:
        """Losses, gradients, steps and averages."""
        updates = self.model._updates()
        for batch in batches:
            updates.apply(self.model._loss(batch).total)
        updates.finish()


def in_turn(halves: Halves) -> None:
    halves.act()
    halves.train()


def in_threads(halves: Halves) -> None:
    batches = halves.batches()
    with ThreadPoolExecutor(1) as pool:
        learned = pool.submit(halves.update, batches)
        halves.act()
        learned.result()


def overlapped(halves: Halves) -> None:
    """Which hands over at the end, and takes over what was learned from the last hand-over."""
    halves.model._learner = halves.learner
    in_turn(halves)
    halves.model._learner = None


WAYS = {
    "in turn, one thread": (1, in_turn),
    "in turn, two threads of torch": (2, in_turn),
    "at once, in two threads": (1, in_threads),
    "overlap=True": (1, overlapped),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--start", type=int, default=1000, help="steps learned before")
    parser.add_argument("--periods", type=int, default=10, help="of each way in a round")
    parser.add_argument("--rounds", type=int, default=6, help="of all ways")
    parser.add_argument("--seed", type=int, default=1000)
    given = parser.parse_args()
    torch.set_num_threads(1)

    params = load_hyperparams(given.env)
    env = params.make_env(given.env, seed=given.seed)
    model = MuZero(params.policy, env, seed=given.seed, device="cpu", **params.kwargs)
    model.learn(given.start)
    halves = Halves(model)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    with Learner(model.policy) as halves.learner:
        for _ in range(given.rounds):
            for name, (threads, way) in WAYS.items():
                torch.set_num_threads(threads)
                for period in range(given.periods + 2):
                    started = time.perf_counter()
                    way(halves)
                    if period > 1:  # the first ones warm up
                        taken[name].append(time.perf_counter() - started)
                torch.set_num_threads(1)

    base = median(taken["in turn, one thread"])
    print("| acting and learning | ms per step | / in turn, one thread |\n| --- | ---: | ---: |")
    for name, seconds in taken.items():
        print(f"| {name} | {1e3 * median(seconds) / halves.steps:.2f} | ", end="")
        print(f"{median(seconds) / base:.2f} |")


if __name__ == "__main__":
    main()
