"""What settings are worth on the replay of a run of Pong, before a run with them is paid for.

    muzero-agent train PongNoFrameskip-v4 --seed 0 --steps 40000
    python benchmarks/pong_replay.py runs/PongNoFrameskip-v4/checkpoints/000000040000

Fresh networks, one a row, learn by the whole loss from what a run played and searched, each for the
same time of the CPU and with one change more than the one before. Stored states are not
searched again. Then fresh play of that run's policy, without its search, tells

- how well points that are lost are foreseen, one, three and five decisions ahead: the average
  precision, which is 1 if all of them are told as lower than all other decisions;
- how far ball and paddles are off five decisions ahead, see `pixel_model.py`;
- how values correlate with the returns that followed, discounted by 0.95 and by 0.988;
- whether values tell the balls that will be missed from those that will be hit, 0, 2, 4 and 6
  decisions before: how often, of one of each, the latter has the higher value (0.5 is chance).

One thread.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pixel_model import (
    AHEAD,
    COMES,
    Play,
    average_precision,
    correlation,
    errors,
    play_by,
    shows_actions,
)

from muzero_agent import MuZero
from muzero_agent.archive import read_replay
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine
from muzero_agent.replay import TrajectoryReplayBuffer
from muzero_agent.sum_tree import SumTree

ENV = "PongNoFrameskip-v4"
BEFORE = (0, 2, 4, 6)
DISCOUNTS = (0.95, 0.988)
STEPS = {
    "the run's": {
        "gamma": 0.997**4,
        "td_lambda": 0.9,
        "regret_tolerance": 1.0,
        "policy_kwargs": load_hyperparams(ENV).kwargs["policy_kwargs"]
        | {"support_bound": 30.0, "support_size": 61},
    },
    "values of what was played": {"td_lambda": 1.0, "regret_tolerance": math.inf},
    "gamma 0.95": {"gamma": 0.95},
    "whole gradients": {"gradient_scale": 1.0},
    "priorities": {"priority_exponent": 0.6},
}
"""Names of the rows, and what each changes of the one before."""


def with_priorities(replay: TrajectoryReplayBuffer, exponent: float) -> None:
    """Have a replay that was made without priorities draw by them, all being alike at first."""
    replay.priority_exponent, replay.max_priority = exponent, 1.0
    replay.priorities = SumTree(replay.n_envs * replay.capacity)
    for env in range(replay.n_envs):
        rows = np.arange(replay.head[env] - 1)
        rows = rows[replay.last_row[env, rows] != rows]  # the last one of an episode leads nowhere
        replay.priorities.set(env * replay.capacity + rows, np.ones(len(rows)))


def learned(changes: dict[str, Any], checkpoint: Path, seconds: float, seed: int) -> MuZero:
    """A network that learned from a checkpoint's replay for some time of the CPU."""
    replay = read_replay(checkpoint / "replay.pkl")
    params = load_hyperparams(ENV, changes={"reanalyse_ratio": 0, **changes})
    if not shows_actions(replay.observation_space):  # of a run from before
        params = params._replace(show_actions=False)
        policy = params.kwargs["policy_kwargs"]
        arch = {key: x for key, x in policy.get("net_arch", {}).items() if key != "action_rows"}
        params.kwargs["policy_kwargs"] = policy | {"net_arch": arch}
    model = MuZero(params.policy, params.make_env(ENV, seed=seed), seed=seed, **params.kwargs)
    model.learn(0)
    if replay.full:
        raise ValueError(f"{checkpoint} has forgotten its first states: give one from before")
    if model.priority_exponent > 0:
        with_priorities(replay, model.priority_exponent)
    model.replay_buffer = replay
    model._configure_replay(replay)
    for env in range(replay.n_envs):  # pictures are scaled by the mean and variance of what is seen
        seen = replay.store.get(env, np.arange(0, replay.head[env], 10))
        model.policy.network.observe(model.policy.network_input(seen))
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        model.train(20, model.batch_size)
    return model


def higher(ones: NDArray[np.float32], others: NDArray[np.float32]) -> float:
    """How often one of the first is higher than one of the second: the area under the curve."""
    return float((ones[:, None] > others).mean() + 0.5 * (ones[:, None] == others).mean())


def balls(play: Play) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.bool_]]:
    """When and where balls came to the own side at last, and whether they were hit."""
    x = play.memory[..., 0]
    before, at, after = x[:-2], x[1:-1], x[2:]
    hit = (before > COMES - 10) & (at > 150) & (at > before) & (after > 120) & (after < at)
    rewards = play.rewards[1:-1]
    missed, hit = rewards < 0, hit & (rewards == 0)
    t, n = np.nonzero(missed | hit)
    enough = t >= max(BEFORE) + 2
    return t[enough] + 1, n[enough], hit[t[enough], n[enough]]


@torch.inference_mode()
def look(model: MuZero, play: Play) -> dict[str, Any]:
    """What a model knows of play."""
    network = model.policy.target_network
    latents = [network.representation(model.policy.network_input(obs)) for obs in play.obs]
    values = np.stack(
        [network.support.scalar(network.prediction(latent)[1]).numpy() for latent in latents]
    )
    told: dict[str, Any] = {"updates": model._n_updates, "mean value": float(values.mean())}
    told["correlations"] = [correlation(values, play, discount) for discount in DISCOUNTS]
    t, n, hit = balls(play)
    told["hits"], told["misses"] = int(hit.sum()), int((~hit).sum())
    told["higher"] = []
    for before in BEFORE:
        x = play.memory[t - before, n, 0]
        comes = (x > play.memory[t - before - 1, n, 0]) & (x > 60)
        value = values[t - before, n]
        told["higher"].append(higher(value[comes & hit], value[comes & ~hit]))
    told["precision"] = []
    for step in range(AHEAD):
        rewards = []
        for moment in range(len(play.obs) - step):
            action = torch.from_numpy(play.actions[moment + step])
            latents[moment], logits = network.dynamics(latents[moment], action)
            rewards.append(network.support.scalar(logits).numpy())
        told["precision"].append(average_precision(np.stack(rewards), play.rewards[step:] < 0))
    foreseen = torch.stack(latents[:-AHEAD]).flatten(2).numpy()
    told["foreseen"] = errors(foreseen, play.memory[AHEAD:]).tolist()
    return told


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--seconds", type=float, default=150.0, help="of the CPU, for each")
    parser.add_argument("--held-out", type=int, default=2000, help="decisions of 8 environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    play = play_by(
        MuZero.load(given.checkpoint / "model.zip", device="cpu"),
        given.held_out,
        seed=given.seed + 1000,
        env_id=ENV,
    )
    arguments = {name: x for name, x in vars(given).items() if not isinstance(x, Path)}
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments}
    print("| changed | updates | precision | foreseen | correlations | hit or missed |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    changes: dict[str, Any] = {}
    for name, change in STEPS.items():
        changes |= change
        told = look(learned(changes, given.checkpoint, given.seconds, given.seed), play)
        results[name] = {"changes": {key: str(x) for key, x in changes.items()}, **told}
        precision, correlations, high = (
            " ".join(f"{x:.2f}" for x in numbers)
            for numbers in (told["precision"][::2], told["correlations"], told["higher"])
        )
        foreseen = " ".join(f"{x:.0f}" for x in told["foreseen"])
        cells = (name, f"{told['updates']:,}", precision, foreseen, correlations, high)
        print(f"| {' | '.join(cells)} |", flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print(f"{told['hits']} balls were hit and {told['misses']} missed in the play looked at")


if __name__ == "__main__":
    main()
