"""The demo runs from one end to the other, and leaves pictures that can be looked at."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from PIL import Image

from muzero_agent import MuZero

DEMO = Path(__file__).parents[1] / "examples" / "demo.py"


def test_demo(tmp_path: Path) -> None:
    arguments = ["--steps", "256", "--seed", "900", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(DEMO), *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    shown = done.stdout

    # what was learned: each agent's steps, mean and deviation
    rows = re.findall(r"(random policy|PPO|MuZero) +\S +([\d,]+) +\S +([\d.]+) ± ([\d.]+)", shown)
    assert [row[:2] for row in rows] == [("random policy", "0"), ("PPO", "256"), ("MuZero", "256")]
    assert all(8 <= float(mean) <= 500 for _, _, mean, _ in rows)

    # saved and loaded, it is the same
    match = re.search(r"same action in (\d+) of (\d+) states", shown)
    assert match is not None
    agreed, length = map(int, match.groups())
    assert agreed == length >= 8
    MuZero.load(tmp_path / "cartpole.zip")

    # the pictures are where it says
    flat = re.sub(r"[\s│]", "", shown)  # the table breaks long paths
    for name in ("learning_curve.png", "episode.gif", "cartpole.zip"):
        assert f"{tmp_path / name}" in flat
    with Image.open(tmp_path / "learning_curve.png") as curve:
        curve.load()
        assert curve.format == "PNG"
        assert min(curve.size) >= 400
        assert len(curve.convert("RGB").getcolors(1 << 16) or []) > 10
    with Image.open(tmp_path / "episode.gif") as episode:
        assert episode.format == "GIF"
        num_frames = getattr(episode, "n_frames", 1)
        assert num_frames == (length + 1) // 2
        frames = set()
        for frame in range(num_frames):
            episode.seek(frame)
            frames.add(episode.convert("RGB").tobytes())
        assert len(frames) == num_frames


def test_demo_names_the_extra_that_is_missing() -> None:
    code = f"import runpy, sys; sys.modules['PIL'] = None; runpy.run_path({str(DEMO)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'muzero-agent[plots]'" in done.stderr
    assert "Traceback" not in done.stderr
