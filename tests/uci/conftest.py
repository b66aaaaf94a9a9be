"""Models and hosts of the engine's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.chess import ChessEnv

from .host import Host


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network that knows nothing."""
    arch = {"channels": 4, "head_width": 8}
    made = MuZero("CnnPolicy", ChessEnv, seed=0, policy_kwargs={"net_arch": arch}, buffer_size=1000)
    path = tmp_path_factory.mktemp("models") / "chess"
    zoo.save(made, path)
    return path


@pytest.fixture(scope="session")
def shared_host(model: Path) -> Iterator[Host]:
    with Host(model) as host:
        yield host


@pytest.fixture
def host(shared_host: Host) -> Host:
    """A host whose engine has its default settings and the usual position."""
    shared_host.say("stop")
    for option in shared_host.engine.options:
        if option.kind != "button" and option.name not in ("WeightsFile", "Backend"):
            value = str(option.default).lower() if option.kind == "check" else option.default
            shared_host.say(f"setoption name {option.name} value {value or '<empty>'}")
    shared_host.say("debug off", "ucinewgame", "position startpos", "isready")
    shared_host.expect("readyok")
    return shared_host
