"""What the model of an Atari game learns of it: where ball and paddles are, and what comes.

    python benchmarks/pixel_model.py --seconds 120

Fresh networks learn from the same random play of Pong, each for the same time of the CPU, with the
settings of `atari` and one of them changed. Then random play of other seeds is looked at: how far a
linear map from latents to the emulator's memory, fitted to the first 70% of that play, is off in
the rest (root mean square, in pixels of the screen's 160 x 210), for latents of what is seen and
for those that the model foresees 5 decisions later, and what it foretells where a point is lost.

    python benchmarks/pixel_model.py --models runs/a/model runs/b/model --player runs/a/model

looks at models of other runs in the same way, in fresh play of the policy of one of them. Two more
columns tell how values correlate with returns, and whether the policy follows the ball: by how much
more often than up it goes down, where the ball comes and the paddle is too high, and where it is
too low.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from rich.console import Console
from rich.markdown import Markdown
from stable_baselines3.common.vec_env import VecTransposeImage

from muzero_agent import MuZero, zoo
from muzero_agent.hyperparams import load_hyperparams
from muzero_agent.machine import machine

ENV = "ALE/Pong-v5"
MEMORY = {"ball x": 49, "ball y": 54, "own paddle": 51, "other paddle": 50}
"""Bytes of the emulator's memory (Anand et al. 2019, arXiv 1906.08226, appendix)."""
AHEAD = 5  # decisions, as many as training unrolls
UP, DOWN = (2, 4), (3, 5)  # ALE calls them RIGHT and LEFT
COMES, OFF = 110, 12  # the ball's x from where on, and the difference of its y and the paddle's

TUNED = load_hyperparams(ENV).kwargs["policy_kwargs"]
WIDE = TUNED["net_arch"]
CONSISTENCY = {"reconstruction_coef": 0.0, "consistency_coef": 1.0}
VARIANTS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "pictures not moved": {"random_shift": None},
    "consistency, not reconstruction": CONSISTENCY,
    "both": {"consistency_coef": 1.0},
    "neither": {"reconstruction_coef": 0.0},
    "residual encoder": {"policy_kwargs": TUNED | {"net_arch": WIDE | {"encoder": "residual"}}},
    "16 channels": {"policy_kwargs": TUNED | {"net_arch": WIDE | {"channels": 16}}},
    "16 channels, residual encoder, consistency": CONSISTENCY
    | {"policy_kwargs": TUNED | {"net_arch": {"channels": 16, "num_blocks": 1, "action_rows": 2}}},
}


class Play(NamedTuple):
    """Play of N environments, T decisions long."""

    obs: NDArray[np.uint8]  # [T, N, 4, H, 84]
    memory: NDArray[np.float32]  # [T, N, 4], in the order of MEMORY
    actions: NDArray[np.int64]  # [T, N]
    rewards: NDArray[np.float32]  # [T, N]
    ends: NDArray[np.bool_]  # [T, N], of episodes


def shows_actions(space: spaces.Space[Any]) -> bool:
    """Whether stacked pictures of Atari, channels first, have rows below that show actions."""
    assert space.shape is not None
    return space.shape[-2] > space.shape[-1]


def play_by(player: MuZero | None, decisions: int, seed: int, env_id: str = ENV) -> Play:
    """Play that is not learned from: of the network's policy, without search, or at random, where
    actions are kept up for 4 decisions on average."""
    params = load_hyperparams(env_id)
    if player is not None:
        params = params._replace(show_actions=shows_actions(player.observation_space))
    env = VecTransposeImage(params.make_env(env_id, seed=seed))
    rng = np.random.default_rng(seed)
    obs: Any = env.reset()
    actions = np.zeros(env.num_envs, np.int64)
    where, parts = list(MEMORY.values()), []
    assert isinstance(env.action_space, spaces.Discrete)
    for _ in range(decisions):
        memory = np.array([emulator.getRAM()[where] for emulator in env.get_attr("ale")])
        if player is None:
            anew = rng.random(env.num_envs) < 0.25
            actions = np.where(anew, rng.integers(env.action_space.n, size=env.num_envs), actions)
        else:
            logits = player.policy.evaluate(obs).prior_logits
            actions = np.argmax(logits + rng.gumbel(size=logits.shape), -1)
        seen = obs
        obs, rewards, ends, _ = env.step(actions)
        parts.append((seen, memory.astype(np.float32), actions, rewards, ends))
    env.close()
    return Play(*(np.stack(part) for part in zip(*parts, strict=True)))


def learned(changes: dict[str, Any], decisions: int, seconds: float, seed: int) -> MuZero:
    """A network that learned from random play for some time of the CPU."""
    params = load_hyperparams(ENV)
    kwargs = params.kwargs | changes | {"learning_starts": decisions + 1, "seed": seed}
    model = MuZero(params.policy, params.make_env(ENV, seed=seed), **kwargs).learn(decisions)
    begun = time.process_time()
    while time.process_time() - begun < seconds:
        model.train(20, model.batch_size)
    return model


def errors(latents: NDArray[np.float32], memory: NDArray[np.float32]) -> NDArray[np.float32]:
    """Root mean square error [4] of the best of a few ridge regressions, latents [T, N, D]."""
    in_sight: NDArray[np.bool_] = np.all(memory[..., :2] > 0, -1)
    cut = int(0.7 * len(latents))
    x, y = latents[:cut][in_sight[:cut]], memory[:cut][in_sight[:cut]]
    center, middle = x.mean(0), y.mean(0)
    x = x - center
    best: NDArray[np.float32] = np.full(len(MEMORY), np.inf, np.float32)
    for strength in (0.01, 0.1, 1.0, 10.0):
        solution = np.linalg.solve(x.T @ x + strength * np.eye(x.shape[1]), x.T @ (y - middle))
        told = (latents[cut:][in_sight[cut:]] - center) @ solution + middle
        off = np.sqrt(np.square(told - memory[cut:][in_sight[cut:]]).mean(0))
        best = min(best, off.astype(np.float32), key=lambda candidate: float(candidate.sum()))
    return best


@torch.inference_mode()
def look(model: MuZero, play: Play) -> dict[str, Any]:
    """What a model knows of play."""
    network = model.policy.target_network
    latents = [network.representation(model.policy.network_input(obs)) for obs in play.obs]
    told: dict[str, Any] = {"updates": model._n_updates}
    told["now"] = errors(_flat(latents), play.memory).tolist()
    predictions = [network.prediction(latent) for latent in latents]
    values = np.stack([network.support.scalar(value).numpy() for _, value in predictions])
    told["values"] = correlation(values, play, model.gamma)
    policies = torch.stack([logits.softmax(-1) for logits, _ in predictions]).numpy()
    told["follows"] = _follows(policies, play.memory)
    for step in range(AHEAD):
        logits = []
        for t in range(len(play.obs) - step):
            action = torch.from_numpy(play.actions[t + step])
            latents[t], reward = network.dynamics(latents[t], action)
            logits.append(network.support.scalar(reward).numpy())
        lost = play.rewards[step:] < 0
        told[f"lost point {step + 1}"] = float(np.stack(logits)[lost].mean())
    told["foreseen"] = errors(_flat(latents[:-AHEAD]), play.memory[AHEAD:]).tolist()
    return told


def average_precision(told: NDArray[np.float32], positive: NDArray[np.bool_]) -> float:
    """Of the positive ones, where the lowest that are told are called so first: 1 if all of them
    are told as lower than all others."""
    ranked = positive.ravel()[np.argsort(told.ravel(), kind="stable")]
    return float((np.cumsum(ranked)[ranked] / (np.flatnonzero(ranked) + 1)).mean())


def correlation(values: NDArray[np.float32], play: Play, gamma: float) -> float:
    """Of values [T, N] with the discounted returns that followed, where these are known."""
    returns = np.zeros_like(values)
    following = np.zeros(values.shape[1])
    for t in reversed(range(len(values))):
        following = play.rewards[t] + gamma * following * ~play.ends[t]
        returns[t] = following
    known = slice(0, max(len(values) - 150, 2))  # of what comes later 0.988**150 = 0.16 counts
    return float(np.corrcoef(values[known].ravel(), returns[known].ravel())[0, 1])


def _follows(policies: NDArray[np.float32], memory: NDArray[np.float32]) -> list[float]:
    """By how much likelier than up policies [T, N, A] go down, where the paddle is too high, and
    where it is too low."""
    x, y, own, _ = np.moveaxis(memory, -1, 0)
    moved = np.diff(x, axis=0, prepend=x[:1])
    comes = (x > COMES) & (x < 185) & (moved > 1) & (moved < 20)  # it is served elsewhere
    down = policies[..., DOWN].sum(-1) - policies[..., UP].sum(-1)
    return [float(down[comes & off].mean()) for off in (y - own > OFF, own - y > OFF)]


def _flat(latents: list[torch.Tensor]) -> NDArray[np.float32]:
    return torch.stack(latents).flatten(2).numpy()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=120.0, help="of the CPU, for each")
    parser.add_argument("--decisions", type=int, default=20_000, help="to learn from")
    parser.add_argument("--held-out", type=int, default=500, help="decisions of 8 environments")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument(
        "--models", nargs="+", type=Path, help="look at these: runs/NAME/model, or .zip"
    )
    parser.add_argument("--player", type=Path, help="whose policy plays what is looked at")
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    player = None if given.player is None else zoo.load(given.player, trust=True)
    play = play_by(player, given.held_out, seed=given.seed + 1000)
    nothing = errors(np.zeros((*play.memory.shape[:2], 1), np.float32), play.memory).round()
    console = Console()
    console.print(f"Errors of no knowledge of {', '.join(MEMORY)}: {nothing}", soft_wrap=True)
    lines = [
        "| variant | updates | now | 5 ahead | lost point, 1 ahead | 5 | values | follows |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    arguments = {name: str(x) if isinstance(x, Path) else x for name, x in vars(given).items()}
    arguments["models"] = [str(path) for path in given.models or []]
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments}
    for variant in arguments["models"] or given.only:
        if given.models:
            model = zoo.load(variant, trust=True)
        else:
            model = learned(VARIANTS[variant], given.decisions, given.seconds, given.seed)
        told = results[variant] = look(model, play)
        now, foreseen = (" ".join(f"{x:.0f}" for x in told[key]) for key in ("now", "foreseen"))
        points = f"{told['lost point 1']:.2f} | {told[f'lost point {AHEAD}']:.2f}"
        follows = " ".join(f"{x:.2f}" for x in told["follows"])
        lines.append(
            f"| {variant} | {told['updates']:,} | {now} | {foreseen} | {points} "
            f"| {told['values']:.2f} | {follows} |"
        )
        console.print(lines[-1], soft_wrap=True, markup=False)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    console.print(Markdown("\n".join(lines)))


if __name__ == "__main__":
    main()
