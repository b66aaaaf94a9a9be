"""Games by their names: those known here, and any by an import path."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any


@dataclass(frozen=True)
class _Factory:
    """Makes a game of PettingZoo; processes can take it."""

    module: str
    attribute: str
    kwargs: dict[str, Any]

    def __call__(self, **kwargs: Any) -> Any:
        reason: object = "no such name"
        try:
            make = getattr(import_module(self.module), self.attribute, None)
            if make is not None:
                return make(**self.kwargs, **kwargs)
        except ImportError as error:
            reason = error
        raise ImportError(
            f"{self.module} has no {self.attribute} to import, and is no environment of "
            f"Gymnasium: {reason}. PettingZoo's games need: pip install "
            "'muzero-agent[pettingzoo,chess]'"
        )


GAMES: dict[str, _Factory] = {
    "tictactoe": _Factory("pettingzoo.classic.tictactoe_v3", "env", {}),
    "connect_four": _Factory("pettingzoo.classic.connect_four_v3", "env", {}),
    "chess": _Factory("muzero_agent.adapters.envs.chess", "ChessEnv", {}),
    "go_9x9": _Factory("muzero_agent.adapters.envs.go", "GoEnv", {"board_size": 9}),
    "go_19x19": _Factory("muzero_agent.adapters.envs.go", "GoEnv", {"board_size": 19}),
}
"""Games that go by a name of their own."""


_OWN_NAMES = {made.module: own for own, made in GAMES.items() if not made.kwargs} | {
    "pettingzoo.classic.chess_v6": "chess"  # slower, and the same but for two oddities
}


def own_name(name: str) -> str:
    """The name in `GAMES` of a game given by its import path; else the name as it is."""
    return _OWN_NAMES.get(name, name)


def runs_foreign_code(name: str) -> bool:
    """Whether making the environment of this name imports a module that the name tells: then it is
    for the user to say it, never for a file."""
    # Gymnasium, too, imports what stands in front of a colon.
    return ":" in name or (own_name(name) not in GAMES and find_game(name) is not None)


def find_game(name: str) -> Callable[[], Any] | None:
    """What makes the game of this name; None if the name is none of a game.

    :param name: one of `GAMES`, or an import path: of a module with an `env`, such as
        `pettingzoo.classic.connect_four_v3`, or of a function, `my_package.my_module:make_game`.
        Whoever says such a name runs that module's code.
    """
    if name in GAMES:
        return GAMES[name]
    if match := re.fullmatch(r"(\w+(?:\.\w+)+)|(\w+(?:\.\w+)*):([A-Za-z_]\w*)", name):
        return _Factory(match[1] or match[2], match[3] or "env", {})
    return None
