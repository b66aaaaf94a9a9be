"""Importing a package is free: heavy libraries come with the first name that needs them."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import muzero_agent

ROOT = Path(__file__).parents[1]
HEAVY = ("numpy", "numba", "torch", "gymnasium", "stable_baselines3", "pydantic", "yaml", "typer")
PACKAGES = (
    "muzero_agent",
    "muzero_agent.adapters",
    "muzero_agent.adapters.engines",
    "muzero_agent.adapters.envs",
    "muzero_agent.bench",
    "muzero_agent.search",
    "muzero_agent.zoo",
)


def python(code: str, where: Path) -> str:
    """What a fresh interpreter prints that does not see the repository as its working directory."""
    return subprocess.run(
        [sys.executable, "-I", "-c", code], cwd=where, capture_output=True, text=True, check=True
    ).stdout


@pytest.mark.parametrize("package", PACKAGES)
def test_import_loads_no_heavy_library(package: str, tmp_path: Path) -> None:
    loaded = json.loads(
        python(f"import json, sys, {package}\nprint(json.dumps(list(sys.modules)))", tmp_path)
    )
    assert package in loaded
    assert [library for library in HEAVY if library in loaded] == []


def test_playing_a_loaded_model_does_not_import_torchs_compiler(tmp_path: Path) -> None:
    code = """
import sys, numpy as np
from muzero_agent import zoo
from muzero_agent.zoo.bundled import find_model
for name in ("lunar_lander", "connect_four"):
    model = zoo.load(find_model(name))
    model.predict(model.observation_space.sample(), action_masks=np.ones(model.action_space.n))
print(sorted({"torch._dynamo", "torch._inductor", "sympy"} & set(sys.modules)))
"""
    assert python(code, tmp_path) == "[]\n"


def test_editable_install_takes_no_generic_name(tmp_path: Path) -> None:
    code = f"""
import importlib, importlib.util, json
paths = {{name: importlib.import_module(name).__file__ for name in {PACKAGES}}}
generic = [n for n in ("adapters", "zoo", "tests", "examples") if importlib.util.find_spec(n)]
print(json.dumps([paths, generic]))
"""
    paths, generic = json.loads(python(code, tmp_path))
    assert generic == []
    folders = {name: Path(path).parent.relative_to(ROOT).as_posix() for name, path in paths.items()}
    assert folders == {
        name: name.replace(".", "/")
        .replace("muzero_agent/adapters", "adapters")
        .replace("muzero_agent/zoo", "zoo")
        for name in PACKAGES
    }


def test_exports_arrive_when_used() -> None:
    from muzero_agent import MuZero

    assert MuZero.__module__ == "muzero_agent.muzero"
    assert muzero_agent.MuZero is MuZero
    assert set(muzero_agent.__all__) <= set(dir(muzero_agent))


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"muzero_agent.*MuZeroo"):
        _ = muzero_agent.MuZeroo


def test_version_is_the_installed_one() -> None:
    assert muzero_agent.__version__ == version("muzero-agent")
