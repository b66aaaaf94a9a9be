"""What a newcomer meets first: the Makefile's advice, and requirements that fit together."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    plain = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    return subprocess.run(
        ["make", *arguments], cwd=ROOT, env=plain, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("breakage", "advice"),
    [
        ("sys.modules['ensurepip'] = None", "apt install python3-venv"),
        ("sys.version_info = (3, 10, 4)", "Python >= 3.11 is needed: name one"),
    ],
)
def test_unfit_python_gets_advice(breakage: str, advice: str, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(f"import sys\n{breakage}\n", encoding="utf-8")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path}" exec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    done = make("install", f"PYTHON={python}", f"VENV={tmp_path / 'venv'}")
    assert done.returncode != 0
    assert advice in done.stderr
    assert not (tmp_path / "venv").exists()


def test_torch_index_serves_torch_alone(tmp_path: Path) -> None:
    plan = make("-n", "install", f"VENV={tmp_path}", "TORCH_INDEX=https://index.example").stdout
    (line,) = (line for line in plan.splitlines() if "index.example" in line)
    assert line.endswith("--no-deps -c constraints.txt --index-url https://index.example torch")


def test_package_sets_no_upper_bounds() -> None:
    extras = PROJECT["project"]["optional-dependencies"].values()
    texts = [*PROJECT["project"]["dependencies"], *(text for extra in extras for text in extra)]
    bounds = {b.operator for text in texts for b in Requirement(text).specifier}
    assert bounds == {">="}


def test_constraints_pin_all_that_make_installs() -> None:
    pins = re.findall(
        r"^([\w.-]+)==[\w.]+$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE
    )
    todo = [Requirement("muzero-agent[atari,baselines,plots,rl-zoo]"), Requirement("pip")]
    todo += [Requirement(text) for text in PROJECT["dependency-groups"]["dev"]]
    seen: set[str] = set()
    while todo:
        requirement = todo.pop()
        key = f"{canonicalize_name(requirement.name)}[{','.join(sorted(requirement.extras))}]"
        if key in seen or re.match(r"nvidia|cuda|triton", key):  # these torch pins itself
            continue
        seen.add(key)
        try:
            inner = [Requirement(text) for text in requires(requirement.name) or ()]
        except PackageNotFoundError:
            continue  # needed on other platforms only, or else its own tests fail
        todo += [
            need
            for need in inner
            if not need.marker
            or any(need.marker.evaluate({"extra": extra}) for extra in ("", *requirement.extras))
        ]
    needed = {key.partition("[")[0] for key in seen} - {"muzero-agent"}
    assert needed - {canonicalize_name(name) for name in pins} == set()
    assert "torch" in needed
