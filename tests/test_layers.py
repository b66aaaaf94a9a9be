"""A module imports only from the layers below it, and only the libraries of its layer."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = {"": "muzero_agent", "adapters": "adapters", "zoo": "zoo"}  # name in the package: folder


class Row(NamedTuple):
    """Modules that know each other. A package stands for all that it holds.

    :param only: where not even every lower layer may be imported, those modules that may.
    :param libraries: third-party libraries; None for any.
    """

    layer: int
    modules: tuple[str, ...]
    libraries: tuple[str, ...] | None
    only: tuple[str, ...] | None = None


GYM = ("gymnasium", "numpy")
SB3 = ("gymnasium", "numpy", "stable_baselines3", "torch")
TABLE = [
    Row(0, ("types",), ("numpy",)),
    Row(1, ("search",), ("numpy", "numba"), only=("types",)),
    Row(1, ("targets", "exploration"), ("numpy",)),
    Row(1, ("sum_tree",), ("numpy",)),
    Row(1, ("masks",), (*GYM, "stable_baselines3"), only=("types",)),
    Row(2, ("turns",), (*GYM, "stable_baselines3")),
    Row(1, ("augmentation",), ("numpy",)),
    Row(0, ("outline",), ("torch",)),
    Row(0, ("allocator", "machine", "commands", "processes"), ()),
    Row(
        1,
        ("action_geometry", "categorical", "chess_attacks", "networks", "resnet"),
        ("numpy", "torch"),
    ),
    Row(1, ("adapters.envs",), GYM, only=("types",)),
    Row(
        1,
        ("adapters.envs.gymnasium", "adapters.envs.atari", "adapters.envs.minatar"),
        (*GYM, "ale_py", "minatar", "stable_baselines3"),
        only=("types",),
    ),
    Row(
        1,
        ("adapters.envs.pettingzoo", "adapters.envs.aec", "adapters.envs.names"),
        (*GYM, "pettingzoo", "stable_baselines3"),
        only=("types",),
    ),
    Row(2, ("adapters.envs.given",), ("gymnasium",), only=("adapters.envs",)),
    Row(1, ("adapters.envs.games",), ("numpy",), only=("types",)),
    Row(1, ("adapters.envs.chess",), (*GYM, "chess"), only=("types",)),
    Row(2, ("adapters.envs.go",), ("pettingzoo",), only=("adapters.envs", "types")),
    Row(2, ("adapters.envs.chess_rules",), ("numpy", "chess"), only=("adapters.envs", "types")),
    Row(2, ("adapters.envs.go_rules",), ("numpy", "pettingzoo"), only=("adapters.envs", "types")),
    Row(2, ("replay",), SB3),
    Row(2, ("losses",), ("torch",)),
    Row(2, ("tracing",), ("torch",), only=("networks",)),
    Row(
        3,
        ("planner", "rules_planner", "thinking"),
        ("numpy", "torch"),
        only=("search", "categorical", "networks", "tracing", "types"),
    ),
    Row(1, ("observations",), ("numpy",)),
    Row(1, ("frames",), GYM),
    Row(1, ("batch",), ("numpy", "torch")),
    Row(1, ("growth", "optimizers"), ("torch",)),
    Row(1, ("actions",), GYM),
    Row(3, ("archive",), ("stable_baselines3",)),
    Row(4, ("reanalyse",), ("numpy", "torch")),
    Row(3, ("architectures",), SB3, only=("networks", "resnet")),
    Row(4, ("datasets",), (*SB3, "chess", "minari", "tqdm", "zstandard")),
    Row(4, ("policies", "updates", "objective", "learner"), (*SB3, "cloudpickle")),
    Row(
        5,
        ("muzero", "offline", "offline_chess", "offline_common", "checks", "hyperparams"),
        (*SB3, "tqdm", "yaml"),
    ),
    Row(6, ("zoo",), (*SB3, "huggingface_hub", "pydantic", "safetensors", "yaml")),
    Row(
        7,
        ("adapters.engines",),
        ("numpy", "chess", "torch"),
        only=("zoo", "thinking", "search", "types", "adapters.envs"),
    ),
    Row(
        8,
        (
            "players",
            "programs",
            "play",
            "matches",
            "callbacks",
            "evaluation",
            "render",
            "rl_zoo3",
            "checkpoints",
            "training",
            "bench",
            "cli",
            "cli_chess",
            "cli_common",
            "cli_zoo",
            "explaining",
            "labelled_games",
            "uci_client",
            "pictures",
            "__main__",
        ),
        None,
    ),
    # What only names other modules: the lazy exports of the package, the roof over the two wings.
    Row(9, ("", "adapters"), (), only=()),
]


class Import(NamedTuple):
    """One imported module, by its name inside the package or as a library."""

    name: str
    ours: bool
    line: int
    for_types: bool


def row_of(module: str) -> Row | None:
    """The row that names the module, or else the longest package around it."""
    name = module
    while True:
        for row in TABLE:
            if name in row.modules:
                # the roof holds nothing, and a module beside it has to have a row of its own
                return row if row.layer < 9 or name == module else None
        if "." not in name:
            return None
        name = name.rpartition(".")[0]


def modules() -> dict[str, Path]:
    """Every module of the package by its name inside it, "" for the package itself."""
    found = {}
    for prefix, folder in SOURCES.items():
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            found[".".join((*filter(None, [prefix]), *parts))] = path
    return found


def imports(source: str, module: str, is_package: bool, known: set[str]) -> Iterator[Import]:
    """All imports of a module, those inside functions included."""
    tree = ast.parse(source)
    typing_only = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for inner in ast.walk(statement)
    }
    here = ["muzero_agent", *filter(None, module.split("."))]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                up = len(here) - node.level + is_package
                base = ".".join([*here[:up], *filter(None, [node.module])])
            # `from package import module` imports the module, `from module import name` does not
            whole = [f"{base}.{alias.name}" for alias in node.names]
            names = [n if n.removeprefix("muzero_agent.") in known else base for n in whole]
            if base == "muzero_agent" and [a.name for a in node.names] == ["__version__"]:
                continue  # a literal, there for everybody
        else:
            continue
        for name in names:
            top, _, inside = name.partition(".")
            ours = top == "muzero_agent"
            yield Import(inside if ours else top, ours, node.lineno, id(node) in typing_only)


def complaints(module: str, found: list[Import]) -> Iterator[str]:
    """What the table has against a module's imports."""
    row = row_of(module)
    if row is None:
        yield f"{module}: not in the table of layers; give it a row"
        return
    for name, ours, line, for_types in found:
        where = f"{module or 'muzero_agent'}, line {line}:"
        if not ours:
            if row.libraries is not None and name not in {*row.libraries, *sys.stdlib_module_names}:
                yield f"{where} library {name} does not belong into layer {row.layer}"
            continue
        if row.layer == 9 and for_types:
            continue
        other = row_of(name)
        if other is None:
            yield f"{where} {name or 'muzero_agent'} is not in the table of layers"
        elif other is not row and other.layer >= row.layer:
            yield f"{where} {name or 'muzero_agent'} (layer {other.layer}) is not below {row.layer}"
        elif other is not row and row.only is not None and not set(row.only) & {*ancestry(name)}:
            yield f"{where} {name} is not among {', '.join(row.only)}"
    meets = {i.name.partition(".")[0] for i in found if not i.for_types} & {"torch", "search"}
    if len(meets) == 2 and module != "planner":
        yield f"{module}: torch and the search meet in the planner alone"


def ancestry(name: str) -> Iterator[str]:
    while name:
        yield name
        name = name.rpartition(".")[0]


def check(source: str, module: str, is_package: bool = False) -> list[str]:
    found = list(imports(source, module, is_package, {*modules(), "search.kernels"}))
    return list(complaints(module, found))


@pytest.mark.parametrize("module", sorted(modules()))
def test_module_keeps_to_its_layer(module: str) -> None:
    path = modules()[module]
    assert check(path.read_text(encoding="utf-8"), module, path.stem == "__init__") == []


def test_all_modules_are_looked_at() -> None:
    assert {"", "types", "adapters.envs", "adapters.engines", "zoo"} <= modules().keys()


@pytest.mark.parametrize(
    ("module", "source", "complaint"),
    [
        ("search.tree", "import torch", "library torch"),
        ("search.tree", "def f():\n    from torch import nn", "library torch"),
        ("search.tree", "from muzero_agent import planner", "not below"),
        ("search.tree", "from .. import planner", "not below"),
        ("search.tree", "from ..planner import LatentPlanner", "not below"),
        ("search.tree", "from muzero_agent import MuZero", "not below"),
        ("networks", "from muzero_agent.search import muzero_policy", "not below"),
        ("planner", "from muzero_agent.replay import TrajectoryReplayBuffer", "not among"),
        ("adapters.envs.chess", "import pettingzoo", "library pettingzoo"),
        ("adapters.envs.chess", "from .atari import make", "not below"),
        ("adapters.engines.uci", "from muzero_agent.muzero import MuZero", "not among"),
        ("replay", "if TYPE_CHECKING:\n    from muzero_agent.muzero import MuZero", "not below"),
        ("policies", "import torch\nimport muzero_agent.search", "meet in the planner"),
        ("helpers", "", "give it a row"),
        ("adapters.helpers", "", "give it a row"),
        ("", "import torch", "library torch"),
    ],
)
def test_a_breach_is_seen(module: str, source: str, complaint: str) -> None:
    assert any(complaint in line for line in check(source, module))


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("search.tree", "import math\nimport numba\nfrom . import kernels\nfrom ..types import x"),
        ("planner", "import torch\nfrom muzero_agent.search import muzero_policy"),
        ("policies", "import torch\nif TYPE_CHECKING:\n    from muzero_agent.search import Tree"),
        ("adapters.engines.uci", "import chess\nfrom muzero_agent.adapters.envs import chess"),
        ("muzero", "from muzero_agent import __version__"),
        ("cli", "import typer\nfrom muzero_agent import zoo"),
    ],
)
def test_what_the_design_allows_passes(module: str, source: str) -> None:
    assert check(source, module) == []
