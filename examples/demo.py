"""MuZero learns CartPole, beside PPO: a learning curve and an episode to look at, in minutes.

make demo
python examples/demo.py --steps 2000 --seed 1 --out runs/short
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames are drawn into memory: no window, no X
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")

import gymnasium as gym
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from stable_baselines3 import PPO
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.utils import LinearSchedule

from muzero_agent import MuZero
from muzero_agent.planner import Plan

try:
    import matplotlib as mpl
    import pygame  # noqa: F401  (by it CartPole draws itself: better missed now than after learning)
    from PIL import Image, ImageDraw, ImageFont

    mpl.use("Agg")
    from matplotlib import pyplot as plt
except ImportError as error:
    sys.exit(f"{error}. The demo draws pictures: pip install 'muzero-agent[plots]'")

ENV = "CartPole-v1"
BEST = 500  # steps after which CartPole-v1 ends an episode, with a reward of 1 for each
BLUE, ORANGE, GREY, LIGHT = "#0072b2", "#d55e00", "#7f7f7f", "#c4d9e8"

# PPO as rl_zoo3 2.9.2 tuned it for CartPole-v1, in 8 environments
PPO_SETTINGS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
    "learning_rate": LinearSchedule(0.001, 0.0, 1.0),
    "clip_range": LinearSchedule(0.2, 0.0, 1.0),
}
PPO_ENVS = 8


class RandomPolicy:
    """Any action, with the interface that `evaluate_policy` asks for."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)

    def predict(
        self,
        observation: NDArray[Any] | dict[str, NDArray[Any]],
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[Any] | None = None,
        deterministic: bool = False,
    ) -> tuple[NDArray[Any], None]:
        return self.rng.integers(2, size=len(observation)), None


def learn(model: BaseAlgorithm, steps: int, out: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Learn with a progress bar; returns the learning curve.

    :return: steps [T], and the returns of 10 greedy episodes played after each of them [T, 10]
    """
    callback = EvalCallback(
        make_vec_env(ENV, 10, seed=1000),
        n_eval_episodes=10,
        eval_freq=max(steps // 10 // model.n_envs, 1),
        log_path=str(out),
        verbose=0,
    )
    model.learn(steps, callback=callback, progress_bar=True)
    return np.array(callback.evaluations_timesteps), np.array(callback.evaluations_results)


def evaluate(agent: PolicyPredictor) -> tuple[float, float]:
    """Mean and standard deviation of the returns of 20 episodes, the same ones for every agent."""
    mean, deviation = evaluate_policy(agent, make_vec_env(ENV, 20, seed=2000), n_eval_episodes=20)
    assert isinstance(mean, float)
    assert isinstance(deviation, float)
    return mean, deviation


def draw_curves(
    curves: dict[str, tuple[NDArray[Any], NDArray[Any]]], random: float, title: str, path: Path
) -> None:
    """The learning curves as a picture, with what a random policy gets."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    for (name, (steps, returns)), colour in zip(curves.items(), (BLUE, ORANGE), strict=True):
        axes.plot(
            steps, returns.mean(1), color=colour, linewidth=2, marker="o", markersize=4, label=name
        )
    axes.axhline(random, color=GREY, linestyle="--", linewidth=1.5, label="random policy")
    axes.set(
        xlabel="environment steps",
        ylabel="mean return of 10 greedy episodes",
        xlim=(0, None),
        ylim=(0, BEST * 1.03),
    )
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(title, loc="left")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.2)
    axes.legend(frameon=False, ncol=3, loc="lower right", bbox_to_anchor=(1.01, 0.99))
    figure.savefig(path, dpi=150)
    plt.close(figure)


def play(model: MuZero, twin: MuZero, path: Path) -> tuple[int, int]:
    """Play an episode and write it as a GIF, with the values that the search found.

    :return: steps, and in how many of them `twin` would have chosen the same action
    """
    env = gym.make(ENV, render_mode="rgb_array")
    observation, _ = env.reset(seed=3000)
    frames: list[Image.Image] = []
    steps, agreed, over = 0, 0, False
    while not over:
        plan = model.plan(observation)
        agreed += int(plan.action[0] == twin.predict(observation, deterministic=True)[0])
        if steps % 2 == 0:  # 50 steps are a second: 25 pictures
            frames.append(draw_frame(env.render(), steps, plan))
        observation, _, terminated, truncated, _ = env.step(int(plan.action[0]))
        over = terminated or truncated
        steps += 1
    env.close()
    palette = Image.new("RGB", (450, 300 * len(frames[::25])), "white")
    for i, frame in enumerate(frames[::25]):  # all pictures share one, or they would flicker
        palette.paste(frame, (0, 300 * i))
    palette = palette.quantize(48)
    pictures = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=40, loop=0)
    return steps, agreed


def draw_frame(pixels: Any, step: int, plan: Plan) -> Image.Image:
    """A picture of the environment, and what MuZero expects of each of the two actions."""
    picture = Image.fromarray(pixels).resize((450, 300), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(picture)
    large, small = ImageFont.load_default(16), ImageFont.load_default(13)
    draw.text((12, 10), "MuZero plays CartPole", "black", large)
    draw.text((438, 10), f"step {step}", "black", large, anchor="ra")
    draw.text((225, 241), "discounted return expected after a push", GREY, small, anchor="ma")
    for action, (inner, outer) in enumerate([(150, 120), (300, 330)]):
        colour = BLUE if action == plan.action[0] else LIGHT
        draw.polygon([(inner, 266), (inner, 290), (outer, 278)], colour)
        value = f"{plan.q_values[0, action]:.1f}"
        draw.text((225 + (-30, 30)[action], 271), value, "black", small, anchor="ma")
    return picture


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=10_000, help="for each of the two")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="where files go")
    given = parser.parse_args()
    steps, seed, out = given.steps, given.seed, given.out
    out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # networks this small gain nothing from more
    say = Console(highlight=False).print
    started = time.perf_counter()

    say(f"[bold]MuZero[/] learns {ENV} in {steps:,} steps, and is looked at 10 times on the way.")
    muzero = MuZero("MlpPolicy", ENV, seed=seed)
    curves = {"MuZero": learn(muzero, steps, out / "muzero")}

    say(f"[bold]PPO[/] of Stable-Baselines3, with tuned settings, gets {steps:,} steps as well.")
    envs = make_vec_env(ENV, PPO_ENVS, seed=seed)
    ppo = PPO("MlpPolicy", envs, seed=seed, device="cpu", **PPO_SETTINGS)
    curves["PPO"] = learn(ppo, steps, out / "ppo")

    say("Now 20 episodes each, then MuZero is saved and loaded, and plays one more.\n")
    agents: dict[str, PolicyPredictor] = {
        "random policy": RandomPolicy(seed),
        "PPO": ppo,
        "MuZero": muzero,
    }
    results = {name: evaluate(agent) for name, agent in agents.items()}
    muzero.save(out / "cartpole.zip")
    loaded = MuZero.load(out / "cartpole.zip")
    length, agreed = play(loaded, muzero, out / "episode.gif")
    title = f"{ENV}, seed {seed}"
    draw_curves(curves, results["random policy"][0], title, out / "learning_curve.png")

    table = Table(title=f"Mean return of 20 episodes ({BEST} is the most)", title_justify="left")
    for name, justify in ("agent", "left"), ("steps learned", "right"), ("return", "right"):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    learned = {"PPO": ppo.num_timesteps, "MuZero": muzero.num_timesteps}  # in whole rollouts
    for name, (mean, deviation) in results.items():
        table.add_row(name, f"{learned.get(name, 0):,}", f"{mean:.1f} ± {deviation:.1f}")
    say(table)
    say(f"The loaded model chose the same action in {agreed} of {length} states.\n")

    files = Table(title="Look at", title_justify="left", show_header=False)
    files.add_column()
    files.add_column(overflow="fold")  # a long path whole, in two lines
    files.add_row("learning curve", str(out / "learning_curve.png"))
    files.add_row(f"an episode of {length} steps", str(out / "episode.gif"))
    files.add_row("the model, for MuZero.load", str(out / "cartpole.zip"))
    say(files)
    say(f"All that took {time.perf_counter() - started:.0f} s.")


if __name__ == "__main__":
    main()
