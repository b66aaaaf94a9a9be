"""What users install: the wheel, built from the source distribution and used outside the tree."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "muzero_agent": "muzero_agent",
    "adapters": "muzero_agent/adapters",
    "zoo": "muzero_agent/zoo",
}

pytestmark = [pytest.mark.xdist_group("wheel"), pytest.mark.timeout(300)]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools keeps what it once built and would ship deleted files."""
    copy = tmp_path_factory.mktemp("source")
    for folder in FOLDERS:
        shutil.copytree(ROOT / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, copy)
    # without isolation no network is needed; without arguments the wheel comes out of the sdist
    run("-m", "build", "--no-isolation", "--outdir", "dist", ".", cwd=copy)
    (built,) = (copy / "dist").glob("*.whl")
    return built


@pytest.fixture(scope="module")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("site")
    options = ("--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    run("-m", "pip", "install", *options, "--target", target, wheel, cwd=target)
    return target


def shipped() -> set[str]:
    """The files of the tree that belong into the wheel, by their names in it."""
    return {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in FOLDERS.items()
        for pattern in ("**/*.py", "py.typed", "*.yml", "models/*/*")
        for path in (ROOT / folder).glob(pattern)
        if path.is_file()
    }


def test_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (top_level,) = (name for name in names if name.endswith(".dist-info/top_level.txt"))
        assert archive.read(top_level).decode().split() == ["muzero_agent"]
    info = Path(top_level).parts[0]
    assert {name for name in names if not name.startswith(info)} == shipped()
    assert "muzero_agent/py.typed" in names
    assert f"{info}/licenses/LICENSE" in names
    assert wheel.stat().st_size <= 25_000_000


def test_all_modules_import_from_the_wheel(site: Path, tmp_path: Path) -> None:
    code = """
import importlib, pkgutil, sys
import muzero_agent
for module in pkgutil.walk_packages(muzero_agent.__path__, "muzero_agent."):
    print(importlib.import_module(module.name).__file__)
"""
    files = run("-P", "-c", code, cwd=tmp_path, PYTHONPATH=str(site)).split()
    assert len(files) == sum(name.endswith(".py") for name in shipped()) - 1
    assert all(Path(file).is_relative_to(site) for file in files)


def test_wheel_trains(site: Path, tmp_path: Path) -> None:
    code = """
import muzero_agent
from muzero_agent import MuZero
model = MuZero("MlpPolicy", "CartPole-v1", learning_starts=20, batch_size=8, num_simulations=4)
model.learn(60)
print(muzero_agent.__file__, model.num_timesteps, model._n_updates)
"""
    file, steps, updates = run("-P", "-c", code, cwd=tmp_path, PYTHONPATH=str(site)).split()
    assert Path(file).is_relative_to(site)
    assert int(steps) >= 60
    assert int(updates) > 0
