"""Whether a model of Pong knows what its actions are worth, a few decisions before the ball comes.

    muzero-agent train PongNoFrameskip-v4 --seed 0 --steps 40000
    python benchmarks/pong_actions.py runs/PongNoFrameskip-v4/checkpoints/000000040000/model.zip
    python benchmarks/pong_actions.py --learn runs/PongNoFrameskip-v4/checkpoints/000000040000 \\
        --try '{value_coef: 0.5}' --try '{value_coef: 4}'

What they are worth is counted: from moments two to six decisions before a ball comes to the own
side, the emulator goes on with each of the three moves and then with the policy of the first model,
without its search, several times: how many of the balls are hit? That is compared, by correlation
of the differences between the three, with what is told by

- values of the states that really follow, with their rewards;
- values and rewards of what the learned dynamics foretell;
- the policy's logits, which the search begins with.

"Picked" is the share of balls hit by the move that is told to be best; "improved" that by draws of
the policy, to whose logits what is told was added 20 times, much as a search improves a policy. A
ball comes when it is hit or has passed the paddle. The first form looks at models of runs; the
second at fresh networks that learned from a run's replay, each for the same time of the CPU and
with other settings, see `pong_replay.py`. One thread.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
import yaml
from ale_py import ALEInterface, LoggerMode, roms
from numpy.typing import NDArray
from pixel_model import DOWN, MEMORY, UP, shows_actions
from pong_replay import learned

from muzero_agent import MuZero
from muzero_agent.adapters.envs.atari import with_action
from muzero_agent.machine import machine

MOVES = ((0, 1), UP, DOWN)
"""Actions that move the paddle alike: they differ by the button, which only serves."""
BEFORE = (2, 3, 4, 5, 6)  # decisions: with one left, the paddle gets nowhere in time
GROUPS = ((2,), (3,), (4,), (5, 6))
BALL = MEMORY["ball x"]
OWN_SIDE, LAST = 60, 150  # the ball's x from where on it is looked at, and where it is hit
PADDLE = 188  # where it has passed the paddle, if it goes on
WEIGHT = 20.0  # of what is told, beside the policy's logits
LONGEST = 15  # decisions until a ball must have come


class Moments(NamedTuple):
    """M states before balls came, and what is counted of each of the three moves from there."""

    before: NDArray[np.int64]  # [M], decisions
    obs: NDArray[np.uint8]  # [M, 4, H, 84], H = 84, and more where actions are shown
    following: NDArray[np.uint8]  # [M, 3, 4, H, 84]
    rewards: NDArray[np.float32]  # [M, 3]
    hit: NDArray[np.float32]  # [M, 3], share of the continuations

    def only(self, rows: NDArray[Any]) -> Moments:
        return Moments(*(part[rows] for part in self))


class Emulator:
    """Pong as `AtariWrapper` and four stacked frames show it, with states to go back to.

    :param shows_actions: as `ShowActions` does
    """

    def __init__(self, seed: int, shows_actions: bool = False) -> None:
        ALEInterface.setLoggerMode(LoggerMode.Error)
        self.ale = ALEInterface()
        self.ale.setInt("random_seed", seed)
        self.ale.setFloat("repeat_action_probability", 0.0)
        rom = roms.get_rom_path("pong")
        assert rom is not None
        self.ale.loadROM(rom)
        self.actions = self.ale.getMinimalActionSet()
        self.shows_actions = shows_actions
        self.begin(0)

    def begin(self, idle: int) -> None:
        """A new game, in which nothing is done for so many frames."""
        self.ale.reset_game()
        for _ in range(idle):
            self.ale.act(self.actions[0])
        self.obs = np.repeat(self._shown(_seen(self.ale.getScreenRGB()))[None], 4, 0)

    def step(self, action: int) -> float:
        reward = sum(self.ale.act(self.actions[action]) for _ in range(3))
        before = self.ale.getScreenRGB()
        reward += self.ale.act(self.actions[action])
        newest = self._shown(_seen(np.maximum(before, self.ale.getScreenRGB())), action)
        self.obs = np.concatenate((self.obs[1:], newest[None]))
        return float(reward)

    def _shown(self, picture: NDArray[np.uint8], action: int | None = None) -> NDArray[np.uint8]:
        if not self.shows_actions:
            return picture
        return with_action(picture, action, len(self.actions))

    def ball(self) -> int:
        return int(self.ale.getRAM()[BALL])

    def save(self) -> tuple[Any, NDArray[np.uint8]]:
        return self.ale.cloneState(), self.obs

    def restore(self, saved: tuple[Any, NDArray[np.uint8]]) -> None:
        state, self.obs = saved
        self.ale.restoreState(state)


def _seen(screen: NDArray[np.uint8]) -> NDArray[np.uint8]:
    gray = cv2.cvtColor(screen, cv2.COLOR_RGB2GRAY)
    small: Any = cv2.resize(gray, (84, 84), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8)


def moments_of(player: MuZero, each: int, rollouts: int, seed: int) -> Moments:
    """So many moments of play by the network's policy, for each number of decisions before."""
    rng = np.random.default_rng(seed)
    emulator = Emulator(seed, shows_actions(player.observation_space))

    def act() -> float:
        logits = player.policy.evaluate(emulator.obs[None]).prior_logits[0]
        return emulator.step(int(np.argmax(logits + rng.gumbel(size=logits.shape))))

    def hits(first: int) -> bool:
        """Whether the ball that comes is hit, by the policy after this action."""
        reward = emulator.step(first)
        for _ in range(LONGEST):
            ball = emulator.ball()
            if reward < 0:
                return False
            reward = act()
            if reward == 0 and 0 < emulator.ball() < ball - 2:
                return True
        return False

    missing = dict.fromkeys(BEFORE, each)
    rows: list[tuple[int, Any, Any, Any, Any]] = []
    since: list[tuple[tuple[Any, NDArray[np.uint8]], int]] = []  # what was before, oldest first
    emulator.begin(int(rng.integers(1, 31)))
    while any(missing.values()):
        since.append((emulator.save(), emulator.ball()))
        reward, ball = act(), emulator.ball()
        was = since[-1][1]
        if reward < 0 or (was > LAST and 0 < ball < was - 2):
            now = emulator.save()
            came = _came([x for _, x in since])
            for before in BEFORE:
                if came <= before or not missing[before]:
                    continue
                (saved, x), (_, x_before) = since[came - before], since[came - before - 1]
                if not (x > x_before and x > OWN_SIDE):
                    continue
                following, rewards, hit = [], [], []
                for action, _ in MOVES:
                    emulator.restore(saved)
                    rewards.append(emulator.step(action))
                    following.append(emulator.obs)
                    outcomes = []
                    for _ in range(rollouts):
                        emulator.restore(saved)
                        outcomes.append(hits(action))
                    hit.append(np.mean(outcomes))
                rows.append((before, saved[1], np.stack(following), rewards, hit))
                missing[before] -= 1
            emulator.restore(now)
            since = []
        if emulator.ale.game_over():
            emulator.begin(int(rng.integers(1, 31)))
            since = []
    columns = [np.stack(column) for column in zip(*rows, strict=True)]
    return Moments(*columns[:3], *(column.astype(np.float32) for column in columns[3:]))


def _came(x: list[int]) -> int:
    """After how many of these moments, with the ball's x in each, it was at the paddle: in those at
    the end in which it lies behind there is nothing to be done."""
    came = len(x)
    while came > 0 and x[came - 1] >= PADDLE:
        came -= 1
    return came


@torch.inference_mode()
def told(model: MuZero, moments: Moments) -> dict[str, NDArray[np.float32]]:
    """What each of the three tells of each of the three moves, [M, 3]."""
    network, parts = model.policy.target_network, []
    moves = torch.tensor([actions[0] for actions in MOVES])
    for rows in np.array_split(np.arange(len(moments.before)), max(len(moments.before) // 50, 1)):
        some = moments.only(rows)
        latent = network.representation(model.policy.network_input(some.obs))
        logits = network.prediction(latent)[0]
        policy = [logits[:, actions].logsumexp(-1) for actions in MOVES]
        foretold, reward = network.dynamics(
            latent.repeat_interleave(len(moves), 0), moves.repeat(len(rows))
        )
        real = network.representation(
            model.policy.network_input(some.following.reshape(-1, *some.obs.shape[1:]))
        )
        foretold_reward, foretold_value, value = (
            network.support.scalar(x).view(len(rows), len(moves)).numpy()
            for x in (reward, network.prediction(foretold)[1], network.prediction(real)[1])
        )
        parts.append(
            {
                "values": some.rewards + model.gamma * value,
                "model": foretold_reward + model.gamma * foretold_value,
                "policy": torch.stack(policy, -1).numpy(),
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def look(model: MuZero, moments: Moments) -> dict[str, Any]:
    """How what is told agrees with what is counted."""
    results: dict[str, Any] = {"updates": model._n_updates}
    groups = [np.isin(moments.before, group) for group in GROUPS]
    worths = told(model, moments)
    for name, worth in worths.items():
        added = 0.0 if name == "policy" else WEIGHT * worth
        results[name] = {
            "correlations": [_agreement(worth[rows], moments.hit[rows]) for rows in groups],
            "picked": float(moments.hit[np.arange(len(worth)), worth.argmax(1)].mean()),
            "improved": _hit_by_draws(worths["policy"] + added, moments.hit),
        }
    return results


def _hit_by_draws(logits: NDArray[np.float32], hit: NDArray[np.float32]) -> float:
    policy = np.exp(logits - logits.max(1, keepdims=True))
    return float((policy / policy.sum(1, keepdims=True) * hit).sum(1).mean())


def _agreement(worth: NDArray[np.float32], hit: NDArray[np.float32]) -> float:
    first, second = (x - x.mean(1, keepdims=True) for x in (worth, hit))
    return float(np.corrcoef(first.ravel(), second.ravel())[0, 1])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", type=Path, help="model.zip of checkpoints")
    parser.add_argument("--learn", type=Path, help="a checkpoint, from whose replay is learned")
    parser.add_argument(
        "--try", dest="tried", action="append", default=[], help="settings, as a mapping in YAML"
    )
    parser.add_argument("--seconds", type=float, default=140.0, help="of the CPU, for each")
    parser.add_argument("--moments", type=int, default=250, help="for each number of decisions")
    parser.add_argument("--rollouts", type=int, default=6, help="of each move")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="file for the results")
    given = parser.parse_args()
    if not given.models and given.learn is None:
        parser.error("give models, or --learn CHECKPOINT")
    if bool(given.tried) != (given.learn is not None):
        parser.error("give --learn and --try together")
    torch.set_num_threads(1)

    player = given.models[0] if given.models else given.learn / "model.zip"
    moments = moments_of(
        MuZero.load(player, device="cpu"), given.moments, given.rollouts, given.seed
    )
    hit = float(moments.hit.mean())
    print(f"Hit, whatever the move: {hit:.3f}")
    numbers = ("seconds", "moments", "rollouts", "seed")
    arguments = {name: getattr(given, name) for name in numbers}
    results: dict[str, Any] = {"machine": machine(), "arguments": arguments}
    results |= {"hit": hit, "rows": {}}
    sources = ("policy", "model", "values")
    print("| | updates |" + "".join(f" {name} | picked | improved |" for name in sources))
    print("| --- |" + " ---: |" * (1 + 3 * len(sources)))
    for tried in [*given.models, *given.tried]:
        if isinstance(tried, Path):
            model, name = MuZero.load(tried, device="cpu"), str(tried)
        else:
            changes = yaml.safe_load(tried)
            model, name = learned(changes, given.learn, given.seconds, given.seed), tried
        row = look(model, moments)
        results["rows"][name] = row
        cells = [name, f"{row['updates']:,}"]
        for source in sources:
            cells.append(" ".join(f"{x:.2f}" for x in row[source]["correlations"]))
            cells += (f"{row[source][share]:.3f}" for share in ("picked", "improved"))
        print(f"| {' | '.join(cells)} |", flush=True)
        if given.json is not None:
            given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
