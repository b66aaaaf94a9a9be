"""The command line of chess: games to learn from.

muzero-agent chess generate games.pgn.zst --games 10000 --workers 8
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from muzero_agent.cli_common import said_plainly

chess_app = typer.Typer(no_args_is_help=True, help="Games of chess to learn from.")


@chess_app.callback()
def _group() -> None:
    """With one command alone, the group would be it."""


@chess_app.command()
def generate(
    out: Annotated[Path, typer.Argument(help=".pgn or .pgn.zst; what it holds is not repeated")],
    games: Annotated[int, typer.Option(help="that the file is to hold")] = 1_000,
    engine: Annotated[str, typer.Option(help="command of a UCI engine")] = "stockfish",
    nodes: Annotated[int, typer.Option(help="of each search")] = 2_500,
    multipv: Annotated[int, typer.Option(help="moves that are scored in each position")] = 4,
    hash_mb: Annotated[int, typer.Option("--hash", help="of each engine, in MB")] = 16,
    seed: Annotated[int, typer.Option(help="of openings, and of the draw among moves")] = 0,
    workers: Annotated[int, typer.Option(help="processes, each with an engine")] = 1,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Let an engine play itself, and write its opinion of each position into the comments."""
    with said_plainly():
        from importlib.util import find_spec

        if find_spec("chess") is None or find_spec("zstandard") is None:
            raise ImportError(
                "this needs more than is installed: pip install 'muzero-agent[chess]'"
            )
        from muzero_agent.labelled_games import Labelling
        from muzero_agent.labelled_games import generate as play

        labelling = Labelling(engine, nodes, multipv, hash_mb, seed)
        try:
            played = play(out, games, labelling, workers=workers, progress_bar=progress)
        except KeyboardInterrupt:
            typer.echo(f"Interrupted; the same command goes on with the games in {out}")
            raise typer.Exit(130) from None
        typer.echo(f"{out}: {games:,} games, of which {played:,} are new")
