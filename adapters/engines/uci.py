"""`muzero-uci`: chess by UCI, for Arena, Cute Chess, and whatever speaks it.

It answers `uciok` before anything heavy is imported; the model loads in a thread meanwhile.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import re
import shutil
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from muzero_agent import __version__
from muzero_agent.adapters.engines.options import C_PUCT, HASH, MINIBATCH, Option, Options
from muzero_agent.adapters.engines.protocol import Engine, Limits, Stop, Writer
from muzero_agent.adapters.engines.strength import ELO, play_of
from muzero_agent.adapters.engines.uci_words import (
    info_lines,
    legal_line,
    limits_of,
    statistics_lines,
)
from muzero_agent.zoo.bundled import find_model, num_actions

if TYPE_CHECKING:
    import chess

    from muzero_agent.adapters.engines.chess_game import ChessGame
    from muzero_agent.adapters.engines.mind import Mind
    from muzero_agent.adapters.engines.searching import Report

BUNDLED = "chess"
NUM_ACTIONS = 8 * 8 * 73
"""Of `adapters.envs.chess`, which is not imported before it has to be."""
COMMANDS = {
    "uci", "debug", "isready", "setoption", "register", "ucinewgame", "position", "go", "stop",
    "ponderhit", "quit",
}  # fmt: skip


class UciEngine(Engine):
    """Chess by UCI.

    :param write: what is said
    :param model: directory of the model
    """

    def __init__(self, write: Writer, model: Path) -> None:
        super().__init__(write)
        self.debug = False
        self._given = self.directory = self._played = model
        self._warm = set[str]()  # planners whose search is compiled
        self._room = 0  # megabytes of the tree that were told of
        self._game: ChessGame | None = None
        self._mind: Mind | None = None
        self._lock = threading.Lock()  # of what follows
        self._loaded = threading.Event()
        self._loading = False
        self._tried: tuple[Path, str, str] | None = None  # what was loaded last, or failed to
        self._says: dict[str, Callable[[list[str], str], bool | None]] = {
            name: getattr(self, f"_{name}") for name in [*COMMANDS, "d"]
        }
        self.options = Options(
            Option("Threads", "spin", 1, 1, 64),
            Option("Hash", "spin", HASH, 1, 65536),
            Option("NNCacheSize", "spin", 20_000, 0, 10_000_000, changed=self._set_cache),
            Option("MinibatchSize", "spin", MINIBATCH, 1, 1024),
            Option("WeightsFile", "string", "", changed=self._set_weights),
            Option("Backend", "combo", "auto", choices=("auto", "cpu", "cuda"),
                   changed=lambda _: self._reload()),
            Option("Planner", "combo", "rules", choices=("rules", "latent"),
                   changed=lambda _: self._reload()),
            Option("MultiPV", "spin", 1, 1, 218),
            Option("Ponder", "check", False),
            Option("MoveOverhead", "spin", 50, 0, 10_000),
            # Its other name, of Stockfish: lichess-bot sets it unless told not to.
            Option("Move Overhead", "spin", 50, 0, 10_000,
                   changed=lambda ms: self.options.set("MoveOverhead", str(ms))),
            Option("CPuct", "string", str(C_PUCT), changed=_number),
            Option("Temperature", "string", "0", changed=_number),
            Option("UCI_ShowWDL", "check", False),
            Option("UCI_Chess960", "check", False),
            Option("UCI_LimitStrength", "check", False),
            Option("UCI_Elo", "spin", ELO[1], *ELO),
            Option("VerboseMoveStats", "check", False),
            Option("Clear Hash", "button", changed=lambda _: self._clear()),
            Option("Debug Log File", "string", "", changed=self._set_log),
        )  # fmt: skip

    # -- what is said to it ----------------------------------------------------------------------

    def command(self, line: str) -> bool:
        """Obey a line; False ends the engine."""
        words = line.split()
        if words[:1] != ["d"]:  # what is not known is passed over, up to a word that is
            while words and words[0] not in COMMANDS:
                words.pop(0)
        if not words:
            return True
        try:
            return self._says[words[0]](words[1:], line) is not False
        except Exception as error:  # noqa: BLE001 - an engine goes on, whatever a host says
            self._complain(f"{words[0]}: {error}")
            return True

    def _uci(self, words: list[str], line: str) -> None:
        self.write(
            f"id name muzero-agent {__version__}",
            "id author the muzero-agent team",
            *(option.uci() for option in self.options),
            "uciok",
        )
        self._load()

    def _debug(self, words: list[str], line: str) -> None:
        self.debug = words[:1] == ["on"]

    def _isready(self, words: list[str], line: str) -> None:
        if self.searching or self._loaded.is_set():
            self.write("readyok")
            return
        self._load()

        def answer() -> None:
            self._loaded.wait()
            self.write("readyok")

        threading.Thread(target=answer, daemon=True).start()

    def _setoption(self, words: list[str], line: str) -> None:
        self.interrupt()
        told = re.search(r"\bname\s+(.+?)(?:\s+value(?:\s(.*))?)?\s*$", line)
        if told is None:
            raise ValueError("give `setoption name NAME value VALUE`")
        self.options.set(" ".join(told[1].split()), (told[2] or "").strip())

    def _register(self, words: list[str], line: str) -> None:
        """Nothing to register."""

    def _ucinewgame(self, words: list[str], line: str) -> None:
        self.interrupt()
        self._forget()
        if not gc.isenabled():  # see `main`
            gc.collect()

    def _position(self, words: list[str], line: str) -> None:
        self.interrupt()
        moves: list[str] = []
        if "moves" in words:
            at = words.index("moves")
            words, moves = words[:at], words[at + 1 :]
        if words[:1] not in (["startpos"], ["fen"]):
            raise ValueError("give `position startpos` or `position fen FEN`")
        fen = " ".join(words[1:]) if words[0] == "fen" else None
        complaint = self.game.set(fen, moves, self.options["UCI_Chess960"])
        if complaint is not None:
            self._complain(complaint)

    def _go(self, words: list[str], line: str) -> None:
        self.interrupt()
        limits = limits_of(words, self.game.board, self._complain)
        self._load()
        self.start(lambda stop: self._think(limits, stop), limits.ponder)

    def _stop(self, words: list[str], line: str) -> None:
        if self.stop is not None:
            self.stop.stop()

    def _ponderhit(self, words: list[str], line: str) -> None:
        if self.stop is not None:
            self.stop.ponderhit()

    def _quit(self, words: list[str], line: str) -> bool:
        return False

    def _d(self, words: list[str], line: str) -> None:
        self.write(*str(self.game.board).splitlines(), f"Fen: {self.game.board.fen()}")

    # -- options ---------------------------------------------------------------------------------

    def _set_cache(self, size: int) -> None:
        if self._mind is not None:
            self._mind.cache.resize(size)

    def _set_weights(self, path: str) -> None:
        self.directory = find_chess_model(path) if path else self._given
        self._reload()

    def _set_log(self, path: str) -> None:
        self.write.log.open(path)

    def _forget(self) -> None:
        """Give up the tree, while no clock runs: to free a large one takes its time."""
        self.interrupt()
        if self._mind is not None:
            self._mind.drop()

    def _clear(self) -> None:
        self._forget()
        if self._mind is not None:
            self._mind.cache.clear()

    # -- the model -------------------------------------------------------------------------------

    @property
    def game(self) -> ChessGame:
        """The position that was told last."""
        if self._game is None:
            from muzero_agent.adapters.engines.chess_game import ChessGame

            self._game = ChessGame()
        return self._game

    def _wish(self) -> tuple[Path, str, str]:
        """What is to be loaded: a model, where to, and the planner that is to be ready."""
        return self.directory, self.options["Backend"], self.options["Planner"]

    def _granted(self) -> bool:
        wish = self._wish()
        if self._tried is None or self._tried[:2] != wish[:2]:
            return False
        return wish[2] in self._warm or self._tried[2] == wish[2]

    def _load(self) -> None:
        """Begin to load what is wished for, unless it is there or under way."""
        with self._lock:
            if self._granted():
                return
            self._loaded.clear()
            if not self._loading:
                self._loading = True
                threading.Thread(target=self._load_all, daemon=True).start()

    def _reload(self) -> None:
        """The wish may have changed; before the first one nothing is loaded. What failed is tried
        again."""
        if self._played != self.directory:
            self._tried = None
        if self._loading or self._loaded.is_set():
            self._load()

    def _load_all(self) -> None:
        """Load until the wish, which may change meanwhile, is granted."""
        while True:
            wish = self._wish()
            self._load_now(*wish)
            with self._lock:
                self._tried = wish
                if self._granted():
                    self._loading = False
                    self._loaded.set()
                    return

    def _load_now(self, directory: Path, backend: str, planner: str) -> None:
        try:
            import torch

            from muzero_agent.adapters.engines.chess_game import chess_mind

            if backend == "cuda" and not torch.cuda.is_available():
                self._complain("Backend is cpu: PyTorch finds no cuda here")
            torch.set_num_threads(self.options["Threads"])
            self._mind = chess_mind(directory, backend, planner)
            self._mind.cache.resize(self.options["NNCacheSize"])
            self._played = directory
            self._warm.add(planner)
            if not gc.isenabled():  # see `main`
                # What is left stays: to look through all the modules anew takes 0.3 s a game.
                gc.unfreeze()
                gc.collect()
                gc.freeze()
        except Exception as error:  # noqa: BLE001 - and so it is told, and a legal move is played
            other = "" if self._mind is None else f"; {self._played} plays on"
            self._complain(f"{directory} cannot be loaded: {error}{other}")

    # -- thinking --------------------------------------------------------------------------------

    def _think(self, limits: Limits, stop: Stop) -> None:
        """Search, and say the best move: one for each `go`, whatever happens."""
        board = self.game.board.copy()
        legal = list(board.legal_moves)
        try:
            if not legal:
                self.write(f"info depth 0 score {'mate 0' if board.is_check() else 'cp 0'}")
                self._hold(limits, stop)
                self.write("bestmove (none)")
                return
            while not self._loaded.wait(0.01):
                if stop.stopped.is_set():
                    raise ValueError("the model is still being loaded")
            if self._mind is None:
                raise ValueError("there is no model")
            last, best = self._search(board, limits, stop)
            reply = f" ponder {last[1].uci()}" if len(last) > 1 else ""
            self.write(*best, f"bestmove {last[0].uci()}{reply}")
        except Exception as error:  # noqa: BLE001 - each `go` gets a move, or the game is lost
            if self.debug:
                self._complain(traceback.format_exc())
            self._complain(f"the search failed: {str(error) or type(error).__name__}")
            move = self._without_search(board, limits.allowed or legal)
            self._hold(limits, stop)
            self.write("info depth 0 score cp 0 pv " + move.uci(), f"bestmove {move.uci()}")

    def _search(
        self, board: chess.Board, limits: Limits, stop: Stop
    ) -> tuple[list[chess.Move], list[str]]:
        """The line to play, and the lines that tell of it."""
        import numpy as np
        import torch

        from muzero_agent.adapters.engines.searching import choose, search
        from muzero_agent.adapters.envs.chess import action_of

        assert self._mind is not None
        torch.set_num_threads(self.options["Threads"])
        temperature = _number(self.options["Temperature"])
        leaves = self.options["MinibatchSize"]
        if self.options["UCI_LimitStrength"]:
            play = play_of(self.options["UCI_Elo"])
            limits.nodes = limits.most_nodes = min(play.nodes, limits.nodes or play.nodes)
            temperature = max(temperature, play.temperature)
            leaves = min(leaves, max(1, play.nodes // 8))  # as it was measured
        thinker = self._mind.think_of(
            self.game,
            self.options["Planner"],
            allowed=[action_of(move, board.turn) for move in limits.allowed],
            megabytes=self.options["Hash"],
            leaves=leaves,
            c_puct=_number(self.options["CPuct"]),
            keep=limits.nodes is None,  # so many, and no others
        )
        if self._mind.megabytes not in (self._room, self.options["Hash"]):
            self._complain(f"Hash is {self._mind.megabytes}: there is no room for more")
        self._room = self._mind.megabytes

        def tell(report: Report) -> list[str]:
            return info_lines(
                board,
                report,
                thinker.search.variation,
                self.options["MultiPV"],
                self.options["UCI_ShowWDL"],
            )

        report = search(
            thinker,
            limits,
            stop,
            self.options["MoveOverhead"] / 1000,
            lambda report: self.write(*tell(report)),
        )
        chosen = choose(report.children, temperature, np.random.default_rng())
        others = [child for child in report.children if child is not chosen]
        report = report._replace(children=[chosen, *others])
        lines = tell(report)
        if self.options["VerboseMoveStats"]:
            lines = [*statistics_lines(board, report), *lines]
        return legal_line(board, thinker.search.variation(chosen.action)), lines

    def _without_search(self, board: chess.Board, moves: list[chess.Move]) -> chess.Move:
        """A move after a search that failed; the next one begins with nothing of its tree."""
        from muzero_agent.adapters.envs.chess import action_of

        if self._mind is not None:
            self._mind.drop()
            with suppress(Exception):
                actions = {action_of(move, board.turn): move for move in moves}
                return actions[self._mind.by_policy(self.game, actions.keys())]
        return moves[0]

    def _hold(self, limits: Limits, stop: Stop) -> None:
        """Wait for `stop` or `ponderhit` where the protocol wants it."""
        while limits.infinite and not stop.stopped.is_set():
            stop.stopped.wait()
        while stop.pondering and not stop.stopped.is_set():
            stop.stopped.wait(0.01)

    def _complain(self, what: str) -> None:
        self.write(*(f"info string {line}" for line in what.splitlines() or [""]))


def _number(text: str) -> float:
    """Of an option that is a number with a fraction, for which UCI has no type.

    :raises ValueError: if it is none, or below 0
    """
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ValueError(f"{text!r} is no number of 0 or more")
    return number


def find_chess_model(name: str) -> Path:
    """The directory of a model of chess; see `find_model`.

    :raises ValueError: if there is none, or if it is one of another game
    """
    directory = find_model(name)
    actions = num_actions(directory)
    if actions not in (NUM_ACTIONS, None):  # what cannot be read is told of when it is loaded
        raise ValueError(
            f"{directory} is a model of another game: it knows {actions} actions, and chess has "
            f"{NUM_ACTIONS}"
        )
    return directory


def where(model: Path | None = None) -> list[str]:
    """The program's full path, and an entry for Cute Chess.

    :param model: that it is to play; None: the bundled one
    """
    program = str(Path(shutil.which(sys.argv[0]) or sys.argv[0]).resolve())  # .exe on Windows
    if program.endswith(".py"):
        program = f'"{sys.executable}" -m muzero_agent.adapters.engines.uci'
    entry: dict[str, str | list[str]] = {
        "name": "muzero-agent",
        "command": program,
        "workingDirectory": str(Path.home()),
        "protocol": "uci",
    }
    if model is not None:
        entry |= {"initStrings": [f"setoption name WeightsFile value {model.resolve()}"]}
    return [program, "", "For Cute Chess, in engines.json:", json.dumps([entry], indent=4)]


def main(arguments: list[str] | None = None, stdin: IO[bytes] | None = None) -> int:
    """The program `muzero-uci`."""
    parser = argparse.ArgumentParser(prog="muzero-uci", description="A chess engine by UCI.")
    parser.add_argument("--model", default=BUNDLED, help="model directory, or a bundled model")
    parser.add_argument("--where", action="store_true", help="print its path, for chess programs")
    given = parser.parse_args(arguments)
    if given.where and given.model == BUNDLED:
        print("\n".join(where()))
        return 0
    if find_spec("chess") is None:
        print(
            "muzero-uci needs the chess extra: pip install 'muzero-agent[chess]'", file=sys.stderr
        )
        return 1
    try:
        directory = find_chess_model(given.model)
    except ValueError as error:
        print(f"muzero-uci: {error}", file=sys.stderr)
        return 1
    if given.where:
        print("\n".join(where(directory)))
        return 0
    warnings.simplefilter("ignore")  # hosts take what is on stderr for trouble
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is meant for the host
    # A collection takes 0.1 s with a large tree, and would come in the midst of a search. Positions
    # have no cycles, and of the little that has, memory is taken back between games.
    gc.disable()
    UciEngine(Writer(), directory).run(sys.stdin.buffer if stdin is None else stdin)
    sys.stdout.flush()
    os._exit(0)  # threads that load a model do not end by themselves


if __name__ == "__main__":
    sys.exit(main())
