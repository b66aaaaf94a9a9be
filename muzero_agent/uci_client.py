"""Chess engines of others, started through python-chess."""

from __future__ import annotations

import threading

import chess.engine

from muzero_agent.commands import split_command


def start_engine(command: str) -> chess.engine.SimpleEngine:
    """Start an engine, which ends with this process at the latest.

    :param command: for instance "stockfish"
    :raises ValueError: if the program does not start
    """
    try:
        engine = chess.engine.SimpleEngine.popen_uci(split_command(command))
    except FileNotFoundError:
        raise ValueError(
            f"{command!r}: there is no such program on PATH; give its whole path, such as "
            "/usr/games/stockfish"
        ) from None
    except (OSError, chess.engine.EngineError, TimeoutError) as error:
        reason = error if str(error) else "it does not answer as one"
        raise ValueError(f"{command!r} is no UCI engine that starts: {reason}") from error
    # Python waits for the thread of an open engine, and so would never end.
    threading.Thread(target=_close_in_the_end, args=(engine,), daemon=True).start()
    return engine


def _close_in_the_end(engine: chess.engine.SimpleEngine) -> None:
    threading.main_thread().join()
    engine.close()
