"""Whether pictures of Pong tell where the own paddle goes, and whether past actions do.

    python benchmarks/pong_past_actions.py

Small networks tell the own paddle's next place from where ball and paddles were in the last four
decisions, by the emulator's memory, as four stacked pictures show it, and from the next action; and
from the actions that led to the last pictures besides. They are fitted to 80% of play, in which
random actions are kept up for 4 decisions on average, or, with --player, to a model's, by its
policy, and judged by the last 20% of it. One thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pixel_model import MEMORY, Play, play_by
from torch import nn
from torch.nn.functional import mse_loss

from muzero_agent import MuZero
from muzero_agent.machine import machine

ENV = "PongNoFrameskip-v4"  # without sticky actions
OWN = list(MEMORY).index("own paddle")
SEEN = 4  # decisions whose memory is seen, as many as pictures are stacked
PAST = (0, 1, 2)  # numbers of past actions that are seen
SCALE = 10.0  # pixels


def examples(play: Play, past: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What is seen [M, D], and by how many pixels the own paddle moves in the next decision [M]."""
    parts, moves = [], []
    actions = np.eye(int(play.actions.max()) + 1, dtype=np.float32)[play.actions]
    for t in range(SEEN, len(play.memory) - 1):
        whole = ~play.ends[t - SEEN : t + 1].any(0)  # no game has ended meanwhile
        seen = [play.memory[t - k] for k in range(SEEN)]
        seen += [actions[t - k] for k in range(past + 1)]
        parts.append(np.concatenate(seen, 1)[whole])
        moves.append((play.memory[t + 1, :, OWN] - play.memory[t, :, OWN])[whole])
    return np.concatenate(parts), np.concatenate(moves)


def error(
    seen: NDArray[np.float32], moves: NDArray[np.float32], updates: int, seed: int
) -> tuple[float, float]:
    """Root mean square and median error of a small network in the last fifth, in pixels."""
    torch.manual_seed(seed)
    cut = len(seen) * 4 // 5
    x = torch.from_numpy((seen - seen[:cut].mean(0)) / (seen[:cut].std(0) + 1e-6))
    y = torch.from_numpy(moves / SCALE)
    hidden = (nn.Linear(128, 128), nn.ReLU())
    network = nn.Sequential(nn.Linear(x.shape[1], 128), nn.ReLU(), *hidden, nn.Linear(128, 1))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for _ in range(updates):
        rows = torch.randint(cut, (128,))
        loss = mse_loss(network(x[rows]).squeeze(-1), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.inference_mode():
        off = SCALE * (network(x[cut:]).squeeze(-1) - y[cut:])
    return float(off.square().mean().sqrt()), float(off.abs().median())


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--player", type=Path, help="model.zip of a checkpoint")
    parser.add_argument("--decisions", type=int, default=5000, help="of 8 environments")
    parser.add_argument("--updates", type=int, default=6000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    torch.set_num_threads(1)

    player = None if given.player is None else MuZero.load(given.player, device="cpu")
    play = play_by(player, given.decisions, given.seed, ENV)
    arguments = {name: x for name, x in vars(given).items() if name not in ("json", "player")}
    arguments["player"] = "random" if player is None else f"after {player.num_timesteps} steps"
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments, "rows": {}}
    print("| past actions seen | error, root mean square | median |")
    print("| --- | ---: | ---: |")
    for past in PAST:
        seen, moves = examples(play, past)
        results["moves"] = {"number": len(moves), "standard deviation": float(moves.std())}
        root, median = error(seen, moves, given.updates, given.seed)
        results["rows"][str(past)] = {"root mean square": root, "median": median}
        print(f"| {past} | {root:.1f} | {median:.1f} |", flush=True)
    print(f"{len(moves)} decisions; the paddle moves by {moves.std():.1f} (standard deviation)")
    if given.json is not None:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
