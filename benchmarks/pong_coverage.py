"""What a model of Pong would know of its actions, had it seen others than those it plays.

    muzero-agent train PongNoFrameskip-v4 --seed 0 --steps 40000
    python benchmarks/pong_coverage.py runs/PongNoFrameskip-v4/checkpoints/000000040000/model.zip

In states where the ball comes to the own side the emulator goes on with each of the three moves.
Then the model's g and f learn, from the latents as they are, what the model itself says of the
values of the states that follow, by the cross entropy of its own training, from

- "played": the move in each state that the policy draws;
- "uniform": one at random;
- "all": each of the three, of a third of the states.

So all see as many steps, and none has the noise of returns: what differs is what they see of the
actions. What comes of it is looked at as in `pong_actions.py`, in other states, where the first row
has the model as it was. Rewards are not taught, though what the model tells has them, too, and some
of the states are behind the paddle, where moves do not matter. One thread; 8 GB of memory.
"""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from pixel_model import shows_actions
from pong_actions import MOVES, OWN_SIDE, Emulator, look, moments_of
from torch import Tensor
from torch.nn.functional import cross_entropy

from muzero_agent import MuZero
from muzero_agent.machine import machine

SEEN = ("played", "uniform", "all")
BATCH = 96  # steps
LEARNING_RATE = 1e-3


class States(NamedTuple):
    """N states where the ball comes, and what follows each of the three moves."""

    obs: NDArray[np.uint8]  # [N, 4, H, 84]
    following: NDArray[np.uint8]  # [N, 3, 4, H, 84]


def states_of(player: MuZero, num: int, seed: int) -> States:
    """States of play by the network's policy."""
    rng = np.random.default_rng(seed)
    emulator = Emulator(seed, shows_actions(player.observation_space))
    emulator.begin(int(rng.integers(1, 31)))
    seen: list[NDArray[np.uint8]] = []
    behind: list[NDArray[np.uint8]] = []
    x_before = 0
    while len(seen) < num:
        x = emulator.ball()
        if x > max(x_before, OWN_SIDE):
            saved, following = emulator.save(), []
            for action, _ in MOVES:
                emulator.step(action)
                following.append(emulator.obs)
                emulator.restore(saved)
            seen.append(emulator.obs)
            behind.append(np.stack(following))
        x_before = x
        logits = player.policy.evaluate(emulator.obs[None]).prior_logits[0]
        emulator.step(int(np.argmax(logits + rng.gumbel(size=logits.shape))))
        if emulator.ale.game_over():
            emulator.begin(int(rng.integers(1, 31)))
    return States(np.stack(seen), np.stack(behind))


@torch.inference_mode()
def lesson(model: MuZero, states: States) -> tuple[Tensor, Tensor, Tensor]:
    """Latents of the states [N, *latent], the policy's chances of the three moves [N, 3], and
    distributions of the values behind them [N, 3, S]."""
    network, parts = model.policy.target_network, []
    for rows in np.array_split(np.arange(len(states.obs)), max(len(states.obs) // 50, 1)):
        latent = network.representation(model.policy.network_input(states.obs[rows]))
        chances = network.prediction(latent)[0].softmax(-1)
        following = states.following[rows].reshape(-1, *states.obs.shape[1:])
        behind = network.representation(model.policy.network_input(following))
        values = network.prediction(behind)[1].softmax(-1).view(len(rows), len(MOVES), -1)
        moves = torch.stack([chances[:, actions].sum(-1) for actions in MOVES], -1)
        parts.append((latent, moves, values))
    latents, chances, values = (torch.cat(column) for column in zip(*parts, strict=True))
    return latents.clone(), chances.clone(), values.clone()  # not of inference mode


def taught(
    model: MuZero, latents: Tensor, values: Tensor, moves: Tensor, epochs: int, seed: int
) -> MuZero:
    """A copy of the model whose g and f have learned the values [N, 3, S] behind these moves
    [R, M] of the first R states."""
    pupil = copy.deepcopy(model)
    network = pupil.policy.target_network.requires_grad_(True)
    actions = torch.tensor([actions[0] for actions in MOVES])
    optimizer = torch.optim.AdamW(network.parameters(), LEARNING_RATE)
    generator = torch.Generator().manual_seed(seed)
    for epoch in range(epochs):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * (1 - epoch / epochs)
        for rows in torch.randperm(len(moves), generator=generator).split(BATCH // moves.shape[1]):
            latent = latents[rows].repeat_interleave(moves.shape[1], 0)
            following, _ = network.dynamics(latent, actions[moves[rows].flatten()])
            told = network.prediction(following)[1]
            target = values[rows[:, None], moves[rows]].flatten(0, 1)
            optimizer.zero_grad()
            cross_entropy(told, target).backward()
            optimizer.step()
    network.requires_grad_(False)
    return pupil


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", type=Path, help="model.zip of a checkpoint")
    parser.add_argument("--states", type=int, default=30_000)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--moments", type=int, default=250, help="see `pong_actions.py`")
    parser.add_argument("--rollouts", type=int, default=6, help="see `pong_actions.py`")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    model = MuZero.load(given.model, device="cpu")
    moments = moments_of(model, given.moments, given.rollouts, given.seed)
    latents, chances, values = lesson(model, states_of(model, given.states, given.seed + 1000))
    generator = torch.Generator().manual_seed(given.seed)
    shown = {
        "played": torch.multinomial(chances, 1, generator=generator),
        "uniform": torch.multinomial(torch.ones_like(chances), 1, generator=generator),
        "all": torch.arange(len(MOVES)).expand(len(latents) // len(MOVES), -1),
    }
    names = ("states", "epochs", "moments", "rollouts", "seed")
    arguments = {name: getattr(given, name) for name in names}
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments}
    results |= {"hit": float(moments.hit.mean()), "rows": {}}
    print(f"Hit, whatever the move: {results['hit']:.3f}")
    print("| seen of the moves | model | picked | improved |\n| --- | ---: | ---: | ---: |")
    as_it_is = look(model, moments)
    results["policy"], results["values"] = as_it_is["policy"], as_it_is["values"]
    for name in ("as it is", *SEEN):
        row = as_it_is
        if name in SEEN:
            pupil = taught(model, latents, values, shown[name], given.epochs, given.seed)
            row = look(pupil, moments)
        results["rows"][name] = row["model"]
        _print(name, row["model"])
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    _print("values of the real states", results["values"])
    _print("the policy itself", results["policy"])


def _print(name: str, row: dict[str, Any]) -> None:
    correlations = " ".join(f"{x:.2f}" for x in row["correlations"])
    print(f"| {name} | {correlations} | {row['picked']:.3f} | {row['improved']:.3f} |", flush=True)


if __name__ == "__main__":
    main()
