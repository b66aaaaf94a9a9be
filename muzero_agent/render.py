"""An episode of a model as a GIF: an environment's own frames, or a game's board.

Needs the extra `plots`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.names import find_game
from muzero_agent.adapters.envs.pettingzoo import as_game
from muzero_agent.hyperparams import make_env
from muzero_agent.masks import masks_of, tells_masks
from muzero_agent.muzero import MuZero

try:
    from PIL import Image
except ImportError as error:
    raise ImportError(
        "pictures need more than is installed: pip install 'muzero-agent[plots]'"
    ) from error

MOST_FRAMES = 400
"""Of a GIF: longer episodes leave frames out."""
_Frames = Iterator[tuple[NDArray[np.uint8], float]]  # pictures [H, W, 3], and seconds each is seen


def record(
    model: MuZero,
    env_id: str,
    out: Path,
    *,
    seed: int = 0,
    most_steps: int = 1000,
    opening_moves: int = 0,
    width: int = 360,
    preprocessing: Mapping[str, Any] = MappingProxyType({}),
) -> str:
    """Play an episode greedily, and write it as a GIF.

    :param env_id: id in Gymnasium's registry, or a game's name: the model plays it against itself
    :param seed: of the environment, or of a game's first moves
    :param most_steps: after which the episode is left
    :param opening_moves: of games: random ones
    :param width: of the pictures in pixels
    :param preprocessing: further arguments of `hyperparams.make_env`
    :return: what happened, in words
    :raises ValueError: if the environment draws no frames
    """
    if most_steps < 1 or width < 16:
        raise ValueError(
            f"most_steps={most_steps}, width={width}: give at least 1 step, and 16 pixels"
        )
    told: list[str] = []
    if find_game(env_id) is not None:
        frames = _game(model, env_id, seed, most_steps, opening_moves, width, told)
    else:
        frames = _episode(model, env_id, seed, most_steps, preprocessing, told)
    pictures, seconds = [], []
    for pixels, duration in frames:
        pictures.append(_fit(pixels, width))
        seconds.append(duration)
    _write(pictures, seconds, out)
    return told[0]


def _episode(
    model: MuZero,
    env_id: str,
    seed: int,
    most_steps: int,
    preprocessing: Mapping[str, Any],
    told: list[str],
) -> _Frames:
    os.environ.setdefault("SDL_VIDEODRIVER", "dummy")  # frames are drawn into memory: no window
    os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
    settings = dict(preprocessing)
    settings["env_kwargs"] = dict(settings.get("env_kwargs", {})) | {"render_mode": "rgb_array"}
    raw = make_env(env_id, 1, seed, **settings)
    envs = MuZero._wrap_env(raw)
    fps = envs.get_attr("metadata")[0].get("render_fps") or 15
    masked, observation = tells_masks(envs), envs.reset()
    total, steps, over = 0.0, 0, False
    while not over and steps < most_steps:
        pixels = envs.render()
        if pixels is None:
            raise ValueError(f"{env_id} draws no frames: it has no render_mode 'rgb_array'")
        yield _bytes(pixels), 1 / fps
        assert not isinstance(observation, tuple)
        action, _ = model.predict(
            observation, deterministic=True, action_masks=masks_of(envs) if masked else None
        )
        observation, rewards, dones, _ = envs.step(action)
        total += float(rewards[0])
        steps += 1
        over = bool(dones[0])
    envs.close()
    told.append(f"{steps} steps, return {total:g}" + ", not over" * (not over))


def _game(
    model: MuZero,
    name: str,
    seed: int,
    most_steps: int,
    opening_moves: int,
    width: int,
    told: list[str],
) -> _Frames:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    from muzero_agent.pictures import draw_position

    def draw(title: str) -> NDArray[np.uint8]:
        figure = draw_position(env, observation, last=last, title=title)
        figure.set_dpi(max(width, 360) / 5.0)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # type: ignore[no-untyped-call]
        pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        return pixels[..., :3].copy()

    make = find_game(name)
    assert make is not None
    env = as_game(make())
    rng = np.random.default_rng(seed)
    observation, _ = env.reset(seed=seed)
    last: int | None = None
    moves, result, over = 0, 0.0, False
    yield draw(""), 0.7
    while not over and moves < most_steps:
        mover, masks = env.to_play, env.action_masks()
        if moves < opening_moves:
            last, title = int(rng.choice(np.flatnonzero(masks))), "opening"
        else:
            plan = model.plan(observation, action_masks=masks)
            last, title = int(plan.action[0]), f"move {moves + 1}, value {plan.value[0]:+.2f}"
        observation, reward, terminated, truncated, _ = env.step(last)
        result = reward if mover == 0 else -reward
        moves += 1
        over = terminated or truncated
        if over:
            title = {1: "the first player has won", 0: "drawn", -1: "the second player has won"}[
                int(np.sign(result))
            ]
        yield draw(title), 2.5 if over else 0.7
    env.close()
    told.append(f"{moves} moves, " + (title if over else "not over"))


def _bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    if pixels.dtype != np.uint8:  # numbers from 0 to 1
        pixels = (255 * pixels).round().astype(np.uint8)
    return pixels


def _fit(pixels: NDArray[np.uint8], width: int) -> Image.Image:
    picture = Image.fromarray(pixels)
    if picture.width == width:
        return picture
    height = max(round(picture.height * width / picture.width), 1)
    small = picture.width < 64  # a board of cells stays one
    how = Image.Resampling.NEAREST if small else Image.Resampling.LANCZOS
    return picture.resize((width, height), how)


def _write(pictures: list[Image.Image], seconds: list[float], out: Path) -> None:
    """All pictures share one palette, or they would flicker; a browser shows none for < 20 ms."""
    step = max(-(-len(pictures) // MOST_FRAMES), 1)
    while step * seconds[0] < 0.02:
        step += 1
    kept = [*range(0, len(pictures) - 1, step), len(pictures) - 1]
    ends = [*kept[1:], len(pictures)]
    durations = [round(1000 * sum(seconds[a:b])) for a, b in zip(kept, ends, strict=True)]
    chosen = [pictures[i] for i in kept]
    some = chosen[:: max(len(chosen) // 10, 1)]
    sheet = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for i, picture in enumerate(some):
        sheet.paste(picture, (0, i * picture.height))
    palette = sheet.quantize(64)
    drawn = [p.quantize(palette=palette, dither=Image.Dither.NONE) for p in chosen]
    out.parent.mkdir(parents=True, exist_ok=True)
    drawn[0].save(out, save_all=True, append_images=drawn[1:], duration=durations, loop=0)
