"""Learn chess from labelled games: how the chess model in the package was made.

    python examples/chess_from_games.py games-0.pgn.zst games-1.pgn.zst --out runs/chess

Games are PGN whose comments tell an engine's opinion of each position, as `muzero-agent chess
generate` writes them. First policy and value alone are learned, at a quarter of the cost; then the
dynamics alone, by unrolled steps. A run that ended before its time, or was ended by --minutes, goes
on by the same command from its last checkpoint; --start-from begins with the weights of a model,
which may be smaller: then with what that computes; --policy-from takes policy and value from
another one, so that one run learns them and another the dynamics, and both are put together. What
comes out is a model directory, `model` in --out, which `muzero-agent zoo pack` measures, and
`held_out.csv`: how well it tells the labels of the last 2% of the games of each file, from which
nothing is learned.
"""

from __future__ import annotations

import argparse
import csv
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from stable_baselines3.common.callbacks import BaseCallback, CallbackList

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.adapters.envs.pettingzoo import make_turn_based_env
from muzero_agent.categorical import squashed
from muzero_agent.checkpoints import (
    SaveCheckpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from muzero_agent.datasets.chess_games import ChessGames, agreement
from muzero_agent.machine import machine
from muzero_agent.optimizers import Muon
from muzero_agent.training import make_card, start_from, support_mean

WARM_UP = 200  # updates in which the learning rate rises
DECAY = 0.4  # share of the first phase in which it falls
FIRST = ("encoder", "policy_head", "value_head")  # what the first phase learns


def schedule(peak: float, begin: int, end: int, falling: int) -> Callable[[float], float]:
    """Learning rate of a phase: up, level, and down to zero.

    :param begin: update at which the phase begins
    :param end: update at which it ends, of which SB3 tells what remains as a share
    :param falling: updates in which it falls
    """

    def rate(remaining: float) -> float:
        update = (1 - remaining) * end
        return peak * max(min(1.0, (update - begin + 1) / WARM_UP, (end - update) / falling), 0.0)

    return rate


def learn_dynamics_alone(model: MuZero) -> None:
    """What the first phase learned stays as it is: an engine that knows the rules plays by it."""
    for part in FIRST:
        model.policy.network.get_submodule(part).requires_grad_(False)


class HeldOut(BaseCallback):
    """Writes down how well the labels of games are told that are not learned, and ends the time.

    :param games: those
    :param every: updates between two looks
    :param path: file to add a line to for each
    :param seconds: after which learning ends
    """

    def __init__(self, games: ChessGames, every: int, path: Path, seconds: float) -> None:
        super().__init__()
        self.games, self.every, self.path, self.most = games, every, path, seconds
        self.in_time = True
        self.begun, self.before = time.monotonic(), 0.0
        if path.exists():
            with path.open(encoding="utf-8", newline="") as file:
                self.before = max(float(row["seconds"]) for row in csv.DictReader(file))

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every == 0:
            self.look()
        self.in_time = time.monotonic() - self.begun < self.most
        return self.in_time

    def seconds(self) -> float:
        """Of the clock, over all parts of the run."""
        return self.before + time.monotonic() - self.begun

    def look(self) -> None:
        """At 4,000 positions, always the same."""
        assert isinstance(self.model, MuZero)
        found = agreement(self.games, self.model.policy.evaluate)
        row = {
            "updates": self.num_timesteps,
            "positions": found.positions,
            "top_1": round(found.top_1, 4),
            "value_error": round(found.value_error, 4),
            "seconds": round(self.seconds()),
        }
        self.logger.record("held_out/top_1", found.top_1)
        self.logger.record("held_out/value_error", found.value_error)
        print(row, flush=True)
        new = not self.path.exists()
        with self.path.open("a", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, row)
            if new:
                writer.writeheader()
            writer.writerow(row)


def fresh_model(arguments: argparse.Namespace) -> MuZero:
    """With random weights, but predictions as the model has them whose weights will be given."""
    source = arguments.start_from or arguments.policy_from
    return MuZero(
        "CnnPolicy",
        ChessEnv,
        seed=arguments.seed,
        batch_size=arguments.batch_size,
        unroll_steps=arguments.unroll_steps,
        consistency_coef=0.0,
        num_simulations=64,
        max_grad_norm=5.0,
        target_decay=0.999,  # the average of the last thousand updates is what plays
        policy_kwargs={
            "optimizer_class": Muon,
            "optimizer_kwargs": {"update_rms": 0.8, "weight_decay": 1e-4},
            "support_bound": squashed(1.0),
            "support_size": 51,
            "support_mean": "scalars" if source is None else support_mean(source),
            "net_arch": {
                "channels": arguments.channels,
                "num_blocks": arguments.blocks,
                "dynamics_blocks": arguments.dynamics_blocks,
                "head_width": 128,
                "actions": "chess",
                "attacks": True,
                "policy_attention": 32,
                "flip_latent": True,
            },
        },
    )


def main() -> None:
    """Learn what is left to learn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument(
        "games",
        type=Path,
        nargs="+",
        help="PGN with scored moves ([%%mpv ...]) and evaluations, also .zst, or its binary form",
    )
    parser.add_argument("--out", type=Path, required=True, help="directory of the run")
    parser.add_argument("--start-from", type=Path, help="model directory, not larger: its weights")
    parser.add_argument("--policy-from", type=Path, help="another one: its policy and value")
    parser.add_argument("--supervised", type=int, default=50_000, help="updates of the first phase")
    parser.add_argument("--unrolled", type=int, default=5_000, help="updates of the second phase")
    parser.add_argument("--learning-rate", type=float, default=0.001, help="at its highest")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--unroll-steps", type=int, default=2, help="in the second phase")
    parser.add_argument("--latent-coef", type=float, default=2.0, help="in the second phase")
    parser.add_argument("--excursions", type=float, default=0.8, help="likewise: share of windows")
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--blocks", type=int, default=6)
    parser.add_argument("--dynamics-blocks", type=int, default=4)
    parser.add_argument("--softness", type=float, default=50.0, help="centipawns")
    parser.add_argument("--smoothing", type=float, default=0.75, help="of value targets, in atoms")
    parser.add_argument("--bfloat16", action="store_true", help="for processors quick at it")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then end, to go on")
    parser.add_argument("--every", type=int, default=1_000, help="updates between checkpoints")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        learned, held_out = ChessGames.open(arguments.games, progress_bar=True).split()
    except (OSError, ValueError) as error:
        parser.error(str(error))
    if not (held_out.tells("evaluation") and held_out.tells("candidates")):
        parser.error(
            "the last 2% of each file's games hold no scored moves and evaluations, by "
            "which learning is judged: give games as `muzero-agent chess generate` writes them, "
            "or call `MuZero.learn_offline` without this script"
        )
    checkpoints = arguments.out / "checkpoints"
    checkpoint = latest_checkpoint(checkpoints)
    if checkpoint is None:
        model = fresh_model(arguments)
        if arguments.start_from is not None:
            start_from(model, arguments.start_from, grow=True)
        if arguments.policy_from is not None:
            start_from(model, arguments.policy_from, grow=True, parts=FIRST)
    else:
        model = load_checkpoint(checkpoint, make_turn_based_env(ChessEnv, 1, arguments.seed))
    arguments.out.mkdir(parents=True, exist_ok=True)
    print(f"{len(learned):,} positions, from update {model.num_timesteps:,}", flush=True)
    look = HeldOut(
        held_out, arguments.every, arguments.out / "held_out.csv", 60 * arguments.minutes
    )
    save = SaveCheckpoints(checkpoints, arguments.every, replay=False)
    first, last = arguments.supervised, arguments.supervised + arguments.unrolled
    for begin, end, falling, unroll_steps in (
        (0, first, max(round(DECAY * first), 1), 0),
        (first, last, max(arguments.unrolled, 1), None),  # as many as the model's own
    ):
        if unroll_steps is None:
            learn_dynamics_alone(model)
        if model.num_timesteps < end and look.in_time:
            model.lr_schedule = schedule(arguments.learning_rate, begin, end, falling)
            model.learn_offline(
                learned,
                end - model.num_timesteps,
                softness=arguments.softness,
                value_smoothing=arguments.smoothing,
                latent_coef=arguments.latent_coef if unroll_steps is None else 0.0,
                excursions=arguments.excursions if unroll_steps is None else 0.0,
                bfloat16=arguments.bfloat16,
                callback=CallbackList([save, look]),
                progress_bar=True,
                reset_num_timesteps=False,
                unroll_steps=unroll_steps,
            )
            save_checkpoint(model, checkpoints, replay=False)
    run = {
        "env": "chess", "env_kwargs": {}, "seed": arguments.seed,
        "frame_stack": 1, "atari": False, "show_actions": False,
        "command": f"python {shlex.join(sys.argv)}", "machine": machine(),
    }  # fmt: skip
    zoo.save(model, arguments.out / "model", make_card(run, model.num_timesteps, look.seconds()))
    print(f"update {model.num_timesteps:,} of {last:,} after {look.seconds() / 60:.0f} minutes")


if __name__ == "__main__":
    main()
