"""Recorded play to learn from: see `MuZero.learn_offline`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from muzero_agent.datasets.chess_games import ChessGames
    from muzero_agent.datasets.episodes import (
        Episode,
        load_episodes,
        read_episodes,
        save_episodes,
    )

__all__ = ["ChessGames", "Episode", "load_episodes", "read_episodes", "save_episodes"]


def __getattr__(name: str) -> Any:
    """Import what is asked for; games of chess need the extra `chess`."""
    if name == "ChessGames":
        from muzero_agent.datasets import chess_games

        return chess_games.ChessGames
    if name in __all__:
        from muzero_agent.datasets import episodes

        return getattr(episodes, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
