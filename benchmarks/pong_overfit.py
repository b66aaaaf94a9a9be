"""Whether what values of Pong know holds beyond the play that they were learned from.

    muzero-agent train PongNoFrameskip-v4 --seed 0 --steps 40000
    python benchmarks/pong_overfit.py runs/PongNoFrameskip-v4/checkpoints/000000040000

In fresh play of the model's policy, without its search, balls come to the own side, and are hit or
missed. How well can be told which, so many decisions before the ball is at the paddle? It is the
share of all pairs of a ball that was hit and one that was missed, of which the former is told as
the better (0.5 is chance), in the last 30% of that play. It is told by

- the model's values;
- a small network that sees where ball and paddles are by the emulator's memory, and how fast they
  move, and was fitted to the first 70%;
- heads like that of the values, fitted in the same way to the model's latents as they are, without
  and with dropout: how well these generalise, and not what the latents hold, is in question.

Then the model goes on learning by its whole loss from its replay, in which stored states are not
searched again, with another weight decay or dropout of its heads. Its values are compared with the
returns that followed, by their correlation, in the replay and in the fresh play, and asked, too,
for the balls. One thread; 8 GB of memory.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import yaml
from numpy.typing import NDArray
from pixel_model import Play, correlation, play_by
from pong_actions import OWN_SIDE, PADDLE
from pong_replay import ENV, balls, higher
from stable_baselines3.common.logger import configure
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits

from muzero_agent import MuZero
from muzero_agent.machine import machine
from muzero_agent.resnet import ResNet

BEFORE = 8  # decisions, from 0 on
FITTED = 0.7  # of the play
DISCOUNT = 0.9  # of the returns that values are compared with
SHOWN = (0, 1, 2, 3, 4, 6)  # decisions before


class Moments(NamedTuple):
    """M moments before balls came."""

    before: NDArray[np.intp]  # [M], decisions
    time: NDArray[np.intp]  # [M]
    env: NDArray[np.intp]  # [M]
    hit: NDArray[np.bool_]  # [M]

    def where(self, rows: NDArray[np.bool_]) -> Moments:
        return Moments(*(part[rows] for part in self))


def moments_of(play: Play) -> Moments:
    """The last moments of each ball's way to the own side."""
    x, rows = play.memory[..., 0], []
    for last, env, hit in zip(*balls(play), strict=True):
        came = last
        while not hit and came > BEFORE and x[came - 1, env] >= PADDLE:
            came -= 1  # a point is lost some decisions after the ball has passed
        for before in range(BEFORE):
            time = came - before
            if time < 1 or not x[time, env] > max(x[time - 1, env], OWN_SIDE):
                break
            rows.append((before, time, env, hit))
    before, time, envs, hits = zip(*rows, strict=True)
    return Moments(np.array(before), np.array(time), np.array(envs), np.array(hits))


def told(scores: NDArray[np.float32], moments: Moments) -> list[float]:
    """For each number of decisions before, how often balls that are hit are told as better."""
    return [
        higher(scores[at & moments.hit], scores[at & ~moments.hit])
        for at in (moments.before == before for before in range(BEFORE))
    ]


def fitted(
    module: nn.Module, seen: Tensor, moments: Moments, train: Tensor, updates: int, seed: int
) -> NDArray[np.float32]:
    """What a module tells of all moments, fitted to some of them: logits that balls are hit [M]."""
    generator = torch.Generator().manual_seed(seed)
    hit = torch.from_numpy(moments.hit).float()
    optimizer = torch.optim.AdamW(module.parameters(), 1e-3)
    for _ in range(updates):
        rows = train[torch.randint(len(train), (64,), generator=generator)]
        loss = binary_cross_entropy_with_logits(module(seen[rows]).squeeze(-1), hit[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    module.eval()
    with torch.inference_mode():
        return torch.cat([module(some) for some in seen.split(512)]).squeeze(-1).numpy()


@torch.inference_mode()
def values_and_latents(model: MuZero, obs: NDArray[np.uint8]) -> tuple[NDArray[Any], Tensor]:
    """Values [N] and latents [N, *latent] of observations [N, 4, 84, 84]."""
    network = model.policy.target_network
    latents, values = [], []
    for some in np.array_split(obs, max(len(obs) // 256, 1)):
        latents.append(network.representation(model.policy.network_input(some)))
        values.append(network.support.scalar(network.prediction(latents[-1])[1]))
    return torch.cat(values).numpy(), torch.cat(latents)


def in_replay(model: MuZero, num: int, seed: int) -> float:
    """Correlation of values with the returns that followed, in the replay."""
    replay: Any = model.replay_buffer
    rng = np.random.default_rng(seed)
    values, returns = [], []
    for env in range(replay.n_envs):
        end = int(replay.head[env])
        sums = np.zeros(end + 1)
        for row in range(end - 1, -1, -1):
            goes_on = not replay.terminated[env, row]
            sums[row] = replay.reward[env, row] + DISCOUNT * goes_on * sums[row + 1]
        rows = np.sort(rng.choice(end - 100, num // replay.n_envs, replace=False))
        values.append(values_and_latents(model, replay.store.get(env, rows))[0])
        returns.append(sums[rows])
    return float(np.corrcoef(np.concatenate(values), np.concatenate(returns))[0, 1])


def in_play(model: MuZero, play: Play) -> NDArray[np.float32]:
    """Values of fresh play [T, N]."""
    return np.stack([values_and_latents(model, obs)[0] for obs in play.obs])


def gone_on(checkpoint: Path, changes: dict[str, float], updates: int, seed: int) -> MuZero:
    """The checkpoint's model after more updates from its replay, changed."""
    model = MuZero.load(checkpoint / "model.zip", device="cpu")
    decay = changes.get("weight_decay", model.policy.optimizer.param_groups[0]["weight_decay"])
    kwargs = dict(model.policy_kwargs)
    kwargs["net_arch"] = kwargs["net_arch"] | {"head_dropout": changes.get("head_dropout", 0.0)}
    model = MuZero.load(
        checkpoint / "model.zip", device="cpu", custom_objects={"policy_kwargs": kwargs}
    )
    for group in model.policy.optimizer.param_groups:
        group["weight_decay"] = decay
    model.load_replay_buffer(checkpoint / "replay.pkl")
    model.set_logger(configure(None, []))
    torch.manual_seed(seed)
    if updates:
        model.train(updates, model.batch_size)
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument(
        "--try", dest="tried", action="append", default=[], help="weight_decay and head_dropout"
    )
    parser.add_argument("--updates", type=int, default=3000)
    parser.add_argument("--held-out", type=int, default=4000, help="decisions of 8 environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    model = MuZero.load(given.checkpoint / "model.zip", device="cpu")
    play = play_by(model, given.held_out, seed=given.seed + 1000, env_id=ENV)
    moments = moments_of(play)
    cut = int(FITTED * len(play.obs))
    train = torch.from_numpy(np.flatnonzero(moments.time < cut))
    test = moments.time >= cut + BEFORE
    judged = moments.where(test)
    arguments = {name: x for name, x in vars(given).items() if not isinstance(x, Path)}
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments}
    at = moments.before == 0
    results["balls"] = {
        "fitted": [int(moments.hit[at & ~test].sum()), int((~moments.hit)[at & ~test].sum())],
        "judged": [int(moments.hit[at & test].sum()), int((~moments.hit)[at & test].sum())],
    }
    print("Balls hit and missed:", results["balls"])

    def report(name: str, scores: NDArray[np.float32], **more: Any) -> None:
        results.setdefault("rows", {})[name] = {"told": told(scores, judged), **more}
        shown = " ".join(f"{results['rows'][name]['told'][before]:.2f}" for before in SHOWN)
        print(" | ".join((name, shown, *(f"{key} {x:.2f}" for key, x in more.items()))), flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")

    values, latents = values_and_latents(model, play.obs[moments.time, moments.env])
    report("values", values[test])
    memory = torch.from_numpy(play.memory)
    now = memory[moments.time, moments.env]
    where = torch.cat((now, now - memory[moments.time - 1, moments.env]), 1)
    where = (where - where[train].mean(0)) / where[train].std(0)
    latents = latents.clone()  # inference tensors may not be learned from

    def small() -> nn.Module:
        hidden = (nn.Linear(64, 64), nn.ReLU())
        return nn.Sequential(nn.Linear(where.shape[1], 64), nn.ReLU(), *hidden, nn.Linear(64, 1))

    def head(dropout: float) -> Callable[[], nn.Module]:
        channels, height, width = latents.shape[1:]
        return lambda: ResNet._head(channels, height * width, 64, 1, dropout)

    modules: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
        "emulator's memory": (small, where)
    }
    for dropout in (0.0, 0.5):
        modules[f"head on latents, dropout {dropout}"] = (head(dropout), latents)
    for name, (make, seen) in modules.items():
        torch.manual_seed(given.seed)
        report(name, fitted(make(), seen, moments, train, 2000, given.seed)[test])

    for tried in ["{}", *given.tried]:
        changes = yaml.safe_load(tried)
        updates = given.updates if changes else 0
        model = gone_on(given.checkpoint, changes, updates, given.seed)
        values = in_play(model, play)
        report(
            f"values after {updates} updates, {tried}",
            values[moments.time, moments.env][test],
            replay=in_replay(model, 2000, given.seed),
            fresh=correlation(values, play, DISCOUNT),
        )


if __name__ == "__main__":
    main()
