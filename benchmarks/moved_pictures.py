"""What may be moved in pictures, if it is to be learned when a point of Pong is lost.

    muzero-agent train PongNoFrameskip-v4 --seed 0 --steps 30000
    python benchmarks/moved_pictures.py runs/PongNoFrameskip-v4/checkpoints/000000030000

Fresh networks, one a row, learn from the replay of a run's checkpoint to tell the reward of each
decision, and the picture that it begins with, by h, g and the decoder alone: no search, no values.
Meanwhile pictures are moved by at most so many pixels up or down, and to a side (`random_shift`).
Then they tell the rewards of fresh play, of the policy of the checkpoint without its search: what
is told on average where a point is lost, and won (-1 and 1 are right); the squared error, as a
share of that of 0 everywhere; and the average precision of lost points, which is 1 if all of them
are told as lower than all other decisions. One thread.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pixel_model import average_precision, play_by, shows_actions
from torch import Tensor

from muzero_agent import MuZero
from muzero_agent.batch import Rows
from muzero_agent.checkpoints import load_checkpoint
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine
from muzero_agent.networks import MuZeroNetwork
from muzero_agent.objective import shifted

ENV = "PongNoFrameskip-v4"
SHIFTS = ((0, 0), (4, 4), (4, 0), (8, 0), (0, 4))
REWARDED = 8  # of a batch: decisions with a reward, and as many shortly before or after one
BATCH = 64


class Decisions(NamedTuple):
    """N decisions, in the order in which each environment saw them."""

    obs: NDArray[np.uint8]  # [N, ...]
    actions: NDArray[np.int64]  # [N]
    rewards: NDArray[np.float32]  # [N]


def stored(model: MuZero) -> Decisions:
    """All of a replay that nothing was dropped from."""
    replay = model.replay_buffer
    count = int(replay.head.min()) - 1  # the newest has no reward yet
    slots = np.arange(count)
    parts = [replay.observations_at(Rows(np.full(count, e), slots)) for e in range(replay.n_envs)]
    return Decisions(
        np.concatenate([np.asarray(part) for part in parts]),
        np.concatenate(replay.action[:, :count]),
        np.concatenate(replay.reward[:, :count]),
    )


def draw(
    decisions: Decisions, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Rows of a batch [B] among which rewards are not rare, and weights [B] that make up for it."""
    rewarded = np.flatnonzero(decisions.rewards)
    near = (rewarded[:, None] + [-3, -2, -1, 1]).clip(0, len(decisions.rewards) - 1)
    near = np.setdiff1d(near, rewarded)
    kinds = ((rewarded, REWARDED), (near, REWARDED), (len(decisions.rewards), BATCH - 2 * REWARDED))
    rows = np.concatenate([rng.choice(among, size) for among, size in kinds])
    chance = np.full(BATCH, (1 - 2 * REWARDED / BATCH) / len(decisions.rewards))
    for among in (rewarded, near):
        chance += np.isin(rows, among) * REWARDED / BATCH / len(among)
    return rows, (1 / len(decisions.rewards) / chance).astype(np.float32)


def see(model: MuZero, obs: NDArray[np.uint8]) -> Tensor:
    seen = model.policy.network.seen(model.policy.preprocess(torch.as_tensor(obs)))
    assert isinstance(seen, Tensor)
    return seen


def learn(decisions: Decisions, shift: tuple[int, int], updates: int, seed: int) -> MuZero:
    """A fresh network with the settings of `atari`, that learned rewards and pictures."""
    params = load_hyperparams(ENV)
    model = MuZero(params.policy, params.make_env(ENV, seed=seed), seed=seed, **params.kwargs)
    policy, network, rng = model.policy, model.policy.network, np.random.default_rng(seed)
    for _ in range(20):
        some = decisions.obs[rng.integers(len(decisions.obs), size=BATCH)]
        network.observe(policy.preprocess(torch.as_tensor(some)))
    for _ in range(updates):
        rows, weights = draw(decisions, rng)
        seen, _ = shifted(network, see(model, decisions.obs[rows]), None, shift, rng)
        latent = network.encode(seen)
        _, told = network.dynamics(latent, torch.as_tensor(decisions.actions[rows]))
        rewards = torch.as_tensor(decisions.rewards[rows])
        loss = (network.support.cross_entropy(told, rewards) * torch.as_tensor(weights)).mean()
        loss = loss + network.reconstruction_errors(latent, seen).mean()
        policy.optimizer.zero_grad()
        loss.backward()
        policy.optimizer.step()
    return model


@torch.inference_mode()
def tell(model: MuZero, decisions: Decisions) -> NDArray[np.float32]:
    """The rewards [N] that a network expects."""
    network: MuZeroNetwork = model.policy.network
    told = []
    for first in range(0, len(decisions.obs), 256):
        part = slice(first, first + 256)
        latent = network.encode(see(model, decisions.obs[part]))
        _, logits = network.dynamics(latent, torch.as_tensor(decisions.actions[part]))
        told.append(network.support.scalar(logits))
    return torch.cat(told).numpy()


def judge(told: NDArray[np.float32], rewards: NDArray[np.float32]) -> dict[str, float]:
    lost, won = rewards < 0, rewards > 0
    return {
        "lost": float(told[lost].mean()),
        "won": float(told[won].mean()),
        "squared error": float(np.square(told - rewards).sum() / np.square(rewards).sum()),
        "average precision": average_precision(told, lost),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path, help="of your own: it can run its author's code")
    parser.add_argument("--updates", type=int, default=2500)
    parser.add_argument("--held-out", type=int, default=1600, help="decisions of 8 environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    params = load_hyperparams(ENV)
    model = MuZero.load(given.checkpoint / "model.zip", device="cpu")
    params = params._replace(show_actions=shows_actions(model.observation_space))
    player = load_checkpoint(given.checkpoint, params.make_env(ENV, seed=given.seed), "cpu")
    replay = stored(player)
    play = play_by(player, given.held_out, given.seed + 1000, ENV)
    obs = play.obs.reshape(-1, *play.obs.shape[2:])
    fresh = Decisions(obs, play.actions.ravel(), play.rewards.ravel())
    for name, part in (("replay", replay), ("fresh play", fresh)):
        lost, won = (part.rewards < 0).sum(), (part.rewards > 0).sum()
        print(f"{name}: {len(part.rewards):,} decisions, {lost} points lost and {won} won")
    arguments = {name: str(x) if isinstance(x, Path) else x for name, x in vars(given).items()}
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments, "shifts": []}
    print("| up or down, to a side | lost | won | squared error | average precision | CPU, s |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for shift in SHIFTS:
        begun = time.process_time()
        model = learn(replay, shift, given.updates, given.seed)
        seconds = time.process_time() - begun
        told = judge(tell(model, fresh), fresh.rewards)
        results["shifts"].append({"shift": shift, "seconds": seconds, **told})
        numbers = " | ".join(f"{x:.2f}" for x in told.values())
        print(f"| {shift[0]}, {shift[1]} | {numbers} | {seconds:.0f} |", flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
