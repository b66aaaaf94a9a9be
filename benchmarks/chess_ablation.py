"""What helps a network to learn chess from labelled games, in equal time of the processor.

    python benchmarks/chess_ablation.py games-0.pgn.zst games-1.pgn.zst --minutes 5 --jobs 2

Each variant changes one thing of `base`, which is the first phase of examples/chess_from_games.py
with a plainer network: 64 x 6, batches of 64, Muon, HL-Gauss, a softmax of the scored moves, no
unrolled steps. Seconds are of the processor, learning alone. Then the labels of held-out games are
told. A variant that is finished has a file in --out, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch
from stable_baselines3.common.callbacks import BaseCallback
from tqdm import tqdm

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.categorical import squashed
from muzero_agent.datasets.chess_games import ChessGames, agreement
from muzero_agent.machine import commit, machine
from muzero_agent.optimizers import Muon

RATE, WARM_UP = 0.001, 50
ADAMW = {"optimizer_class": torch.optim.AdamW, "optimizer_kwargs": {"weight_decay": 1e-4}}
VARIANTS: dict[str, dict[str, Any]] = {
    "base": {},
    "48 x 6": {"channels": 48},
    "96 x 4": {"channels": 96, "num_blocks": 4},
    "64 x 10": {"num_blocks": 10},
    "AdamW": {"policy": ADAMW},
    "AdamW, rate 0.003": {"policy": ADAMW, "rate": 0.003},
    "batches of 256": {"batch_size": 256},
    "batches of 32": {"batch_size": 32},
    "two-hot": {"value_smoothing": 0.0},
    "21 atoms": {"support_size": 21},
    "best move alone": {"softness": 1.0},
    "softness 150": {"softness": 150.0},
    "5 unrolled steps": {"unroll_steps": 5},
    "attacks seen": {"attacks": True},
    "attention of squares": {"policy_attention": 32},
    "attacks and attention": {"attacks": True, "policy_attention": 32},
}


class Until(BaseCallback):
    """Ends learning, and lets its rate fall to zero, by the processor's clock."""

    def __init__(self, seconds: float, rate: float) -> None:
        super().__init__()
        self.seconds, self.peak = seconds, rate
        self.begun = math.inf

    def _on_training_start(self) -> None:
        self.begun = time.process_time()

    def rate(self, _: float) -> float:
        """Whatever remains of the updates, of which nobody knows how many there will be."""
        passed = (time.process_time() - self.begun) / self.seconds
        return self.peak * max(min(1 - passed, (self.n_calls + 1) / WARM_UP), 0.0)

    def _on_step(self) -> bool:
        return time.process_time() - self.begun < self.seconds


def learn(name: str, files: list[Path], minutes: float, seed: int) -> dict[str, Any]:
    """One variant, and how well it tells the labels."""
    torch.set_num_threads(1)
    learned, held_out = ChessGames.open(files).split()
    given = VARIANTS[name]
    model = MuZero(
        "CnnPolicy",
        ChessEnv,
        seed=seed,
        batch_size=given.get("batch_size", 64),
        consistency_coef=0.0,
        max_grad_norm=5.0,
        learning_rate=RATE,
        policy_kwargs={
            "optimizer_class": Muon,
            "optimizer_kwargs": {"update_rms": 0.8, "weight_decay": 1e-4},
            "support_bound": squashed(1.0),
            "support_size": given.get("support_size", 51),
            "net_arch": {
                "channels": given.get("channels", 64),
                "num_blocks": given.get("num_blocks", 6),
                "dynamics_blocks": 2,
                "head_width": 128,
                "actions": "chess",
                "attacks": given.get("attacks", False),
                "policy_attention": given.get("policy_attention"),
                "flip_latent": True,
            },
            **given.get("policy", {}),
        },
    )
    until = Until(60 * minutes, given.get("rate", RATE))
    model.lr_schedule = until.rate
    model.learn_offline(
        learned,
        10**9,
        unroll_steps=given.get("unroll_steps", 0),
        softness=given.get("softness", 50.0),
        value_smoothing=given.get("value_smoothing", 0.75),
        callback=until,
        log_interval=1000,
    )
    found = agreement(held_out, model.policy.evaluate, positions=8_000)
    return {
        "variant": name,
        "minutes": minutes,
        "seed": seed,
        "updates": model.num_timesteps,
        "positions_learned": model.num_timesteps * model.batch_size,
        "positions": found.positions,
        "top_1": found.top_1,
        "value_error": found.value_error,
        "commit": commit(),
        "machine": machine(),
    }


def report(out: Path) -> str:
    """A table of what is finished."""
    rows = ["| variant | positions learned | top-1 | value error |", "| --- | ---: | ---: | ---: |"]
    for name in VARIANTS:
        path = _path(out, name)
        if path.exists():
            told = json.loads(path.read_text(encoding="utf-8"))
            error = 1.96 * math.sqrt(told["top_1"] * (1 - told["top_1"]) / told["positions"])
            rows.append(
                f"| {name} | {told['positions_learned']:,} | {100 * told['top_1']:.1f} ± "
                f"{100 * error:.1f}% | {told['value_error']:.3f} |"
            )
    return "\n".join(rows)


def _path(out: Path, name: str) -> Path:
    return out / f"{name.replace(' ', '-').replace(',', '')}.json"


def main() -> None:
    """Learn what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("games", type=Path, nargs="+", help="PGN, also .zst, or its binary form")
    parser.add_argument("--out", type=Path, default=Path("runs/chess_ablation"))
    parser.add_argument("--minutes", type=float, default=5.0, help="of the processor, each")
    parser.add_argument("--only", nargs="*", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1, help="variants at once")
    parser.add_argument("--seed", type=int, default=10)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    ChessGames.open(arguments.games, progress_bar=True)  # once, for all
    wanted = [name for name in arguments.only if not _path(arguments.out, name).exists()]
    with ProcessPoolExecutor(
        arguments.jobs, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1
    ) as pool:
        learning = [
            pool.submit(learn, name, arguments.games, arguments.minutes, arguments.seed)
            for name in wanted
        ]
        for found in tqdm(learning):
            told = found.result()
            _path(arguments.out, told["variant"]).write_text(json.dumps(told, indent=1) + "\n")
    print(report(arguments.out))


if __name__ == "__main__":
    main()
