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
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from muzero_agent import __version__
from muzero_agent.adapters.engines.options import MOST, Option, Options
from muzero_agent.adapters.engines.protocol import Engine, Limits, Stop, Writer
from muzero_agent.zoo.bundled import find_model

if TYPE_CHECKING:
    import chess

    from muzero_agent.adapters.engines.chess_game import ChessGame
    from muzero_agent.adapters.engines.mind import Mind
    from muzero_agent.adapters.engines.searching import Report
    from muzero_agent.search.anytime import Child

BUNDLED = "chess"
ELO = (600, 2000)
"""Range of UCI_Elo; not measured: each 100 points double the positions looked at."""
COMMANDS = {
    "uci", "debug", "isready", "setoption", "register", "ucinewgame", "position", "go", "stop",
    "ponderhit", "quit", "d",
}  # fmt: skip


_ENDS = {"nodes", "depth", "mate", "movetime"}  # limits that end a search without a clock


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
        self._loaded = threading.Event()
        self._loading: threading.Thread | None = None
        self._says: dict[str, Callable[[list[str], str], bool | None]] = {
            name: getattr(self, f"_{name}") for name in COMMANDS
        }
        self.options = Options(
            Option("Threads", "spin", 1, 1, 64, changed=self._set_threads),
            Option("Hash", "spin", 256, 1, 65536),
            Option("NNCacheSize", "spin", 20_000, 0, 10_000_000),
            Option("MinibatchSize", "spin", 16, 1, 1024),
            Option("WeightsFile", "string", "", changed=self._set_weights),
            Option("Backend", "combo", "auto", choices=("auto", "cpu", "cuda"),
                   changed=lambda _: self._reload()),
            Option("Planner", "combo", "rules", choices=("rules", "latent"),
                   changed=self._set_planner),
            Option("MultiPV", "spin", 1, 1, 218),
            Option("Ponder", "check", False),
            Option("MoveOverhead", "spin", 50, 0, 10_000),
            Option("CPuct", "string", "1.25"),
            Option("Temperature", "string", "0"),
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
        while words and words[0] not in self._says:
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
        gc.collect()  # see `main`

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
        limits = self._limits(words)
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

    def _limits(self, words: list[str]) -> Limits:
        """What `go` allows; words that mean nothing are skipped."""
        numbers: dict[str, int] = {}
        flags: set[str] = set()
        allowed: list[Any] = []
        names = {"nodes", "depth", "mate", "movetime", "movestogo"}
        names |= {"wtime", "btime", "winc", "binc"}
        at = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word in names and at < len(words) and re.fullmatch(r"-?\d+", words[at]):
                numbers[word] = min(max(int(words[at][:12]), -MOST), MOST)
                at += 1
            elif word in ("infinite", "ponder"):
                flags.add(word)
            elif word == "searchmoves":
                while at < len(words) and re.fullmatch(
                    r"[a-h][1-8][a-h][1-8][nbrq]?|0000", words[at]
                ):
                    allowed.append(words[at])
                    at += 1
        mine, other = "wb" if self.game.board.turn else "bw"
        if f"{mine}time" not in numbers and f"{other}time" in numbers:
            mine = other  # better than no clock at all

        def at_least_one(name: str) -> int | None:
            return max(numbers[name], 1) if name in numbers else None

        clock = numbers.get(f"{mine}time")
        if clock is None and numbers and not flags and not numbers.keys() & _ENDS:
            clock = 0  # increments alone: nothing is known to be left
        movetime = numbers.get("movetime")
        return Limits(
            nodes=at_least_one("nodes"),
            depth=at_least_one("depth"),
            mate=at_least_one("mate"),
            movetime=None if movetime is None else max(movetime, 0) / 1000,
            clock=None if clock is None else max(clock, 0) / 1000,
            increment=max(numbers.get(f"{mine}inc", 0), 0) / 1000,
            moves_to_go=max(numbers.get("movestogo", 0), 0) or None,
            infinite="infinite" in flags or not (numbers.keys() | flags),
            ponder="ponder" in flags,
            allowed=self._legal_of(allowed),
        )

    def _legal_of(self, texts: list[str]) -> list[chess.Move]:
        """Those that are legal."""
        moves = []
        for text in texts:
            try:
                moves.append(self.game.board.parse_uci(text))
            except ValueError:
                self._complain(f"searchmoves: {text} is illegal here")
        return [move for move in moves if move]

    # -- options ---------------------------------------------------------------------------------

    def _set_threads(self, number: int) -> None:
        if self._loaded.is_set():
            import torch

            torch.set_num_threads(number)

    def _set_weights(self, path: str) -> None:
        self.directory = find_model(path) if path else self._given
        self._reload()

    def _set_planner(self, planner: str) -> None:
        if planner not in self._warm:
            self._reload()

    def _set_log(self, path: str) -> None:
        self.write.log.open(path)

    def _forget(self) -> None:
        self.interrupt()
        if self._mind is not None:
            self._mind.forget()

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

    def _load(self) -> None:
        """Begin to load the model, unless that has been done."""
        if self._loading is None:
            self._loading = threading.Thread(target=self._load_now, daemon=True)
            self._loading.start()

    def _reload(self) -> None:
        if self._loading is not None:
            self._loading.join()
            self._loaded.clear()
            self._loading = None
            self._load()

    def _load_now(self) -> None:
        directory = self.directory
        try:
            import torch

            from muzero_agent.adapters.engines.chess_game import chess_mind

            torch.set_num_threads(self.options["Threads"])
            self._mind = chess_mind(directory, self.options["Backend"], self.options["Planner"])
            self._played = directory
            self._warm.add(self.options["Planner"])
        except Exception as error:  # noqa: BLE001 - and so it is told, and a legal move is played
            other = "" if self._mind is None else f"; {self._played} plays on"
            self._complain(f"{directory} cannot be loaded: {error}{other}")
        finally:
            self._loaded.set()

    # -- thinking --------------------------------------------------------------------------------

    def _think(self, limits: Limits, stop: Stop) -> None:
        """Search, and say the best move: one for each `go`, whatever happens."""
        board = self.game.board.copy()
        legal = list(board.legal_moves)
        try:
            if not legal:
                self._hold(limits, stop)
                score = "mate 0" if board.is_check() else "cp 0"
                self.write(f"info depth 0 score {score}", "bestmove (none)")
                return
            self._loaded.wait()
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

        from muzero_agent.adapters.engines.searching import choose, search
        from muzero_agent.adapters.envs.chess import action_of

        assert self._mind is not None
        temperature = _number(self.options["Temperature"], 0.0)
        c_puct = _number(self.options["CPuct"], 1.25)
        if self.options["UCI_LimitStrength"]:
            limits = self._weakened(limits)
            temperature = max(temperature, 0.5)
        self._mind.cache.size = self.options["NNCacheSize"]
        thinker = self._mind.think_of(
            self.game,
            self.options["Planner"],
            allowed=[action_of(move, board.turn) for move in limits.allowed],
            megabytes=self.options["Hash"],
            leaves=self.options["MinibatchSize"],
            c_puct=c_puct,
            keep=limits.nodes is None,  # so many, and no others
        )
        if self._mind.megabytes not in (self._room, self.options["Hash"]):
            self._complain(f"Hash is {self._mind.megabytes}: there is no room for more")
        self._room = self._mind.megabytes
        report = search(
            thinker,
            limits,
            stop,
            self.options["MoveOverhead"] / 1000,
            lambda report: self.write(*self._info(board, report, thinker)),
        )
        chosen = choose(report.children, temperature, np.random.default_rng())
        others = [child for child in report.children if child is not chosen]
        report = report._replace(children=[chosen, *others])
        line = self._line(board, thinker.search.variation(chosen.action))
        lines = self._info(board, report, thinker)
        if self.options["VerboseMoveStats"]:
            lines = [*self._statistics(board, report), *lines]
        return line, lines

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

    def _weakened(self, limits: Limits) -> Limits:
        nodes = round(2 ** ((self.options["UCI_Elo"] - ELO[0]) / 100))
        limits.nodes = limits.most_nodes = min(nodes, limits.nodes or nodes)
        return limits

    # -- what it says ----------------------------------------------------------------------------

    def _info(self, board: chess.Board, report: Report, thinker: Any) -> list[str]:
        """A line for each of the best moves."""
        lines = []
        for rank, child in enumerate(report.children[: self.options["MultiPV"]]):
            moves = self._line(board, thinker.search.variation(child.action))
            words = [
                f"info depth {max(round(report.mean_depth), 1)}",
                f"seldepth {max(report.most_depth, 1)}",
                f"time {round(1000 * report.seconds)}",
                f"nodes {max(report.visits, 1)}",
                f"score {score_of(child)}",
            ]
            if self.options["UCI_ShowWDL"]:
                words.append("wdl {} {} {}".format(*wdl_of(child)))
            words += [
                f"nps {round(report.per_second)}",
                f"hashfull {round(1000 * min(report.fullness, 1))}",
                f"multipv {rank + 1}",
                "pv " + " ".join(move.uci() for move in moves),
            ]
            lines.append(" ".join(words))
        return lines

    def _line(self, board: chess.Board, actions: Iterable[int]) -> list[chess.Move]:
        """Moves of a variation, as far as they are legal and the game is not over."""
        from muzero_agent.adapters.envs.chess import move_of

        board, moves = board.copy(), []
        for action in actions:
            try:
                move = move_of(action, board)
            except ValueError:
                break
            if not board.is_legal(move):
                break
            moves.append(move)
            board.push(move)
            if drawn(board):
                break
        return moves

    def _statistics(self, board: chess.Board, report: Report) -> list[str]:
        """What is known of each move, the best last, as Lc0 tells it."""
        lines = []
        for child in reversed(report.children):
            lines += [
                f"info string {move.uci():5} N: {child.visits:7} "
                f"P: {100 * child.prior:5.2f}% Q: {child.q:8.5f}"
                for move in self._line(board, [child.action])
            ]
        return lines

    def _complain(self, what: str) -> None:
        self.write(*(f"info string {line}" for line in what.splitlines() or [""]))


def score_of(child: Child) -> str:
    """UCI's score of a move: by its value, or by a proven mate."""
    if child.mate > 0:
        return f"mate {(child.mate + 1) // 2}"
    if child.mate < 0:
        return f"mate -{-child.mate // 2}"
    q = min(max(child.q, -1.0), 1.0)
    return f"cp {min(max(round(90 * math.tan(1.5637541897 * q)), -12_800), 12_800)}"


def wdl_of(child: Child) -> tuple[int, int, int]:
    """Chances in thousandths to win, draw and lose that have the move's value for their mean.

    The network tells the mean alone; draws are as likely as between two sides that each score with
    their own chance, independently.
    """
    q = min(max(child.q, -1.0), 1.0)
    if child.mate:
        q = math.copysign(1.0, child.mate)
    win, loss = round(250 * (1 + q) ** 2), round(250 * (1 - q) ** 2)
    return win, 1000 - win - loss, loss


def drawn(board: chess.Board) -> bool:
    """Whether the game ends here without a mate, as `ChessRules` sees it."""
    return board.is_insufficient_material() or board.halfmove_clock >= 100 or board.is_repetition(3)


def _number(text: str, default: float) -> float:
    try:
        number = float(text)
    except ValueError:
        return default
    return number if math.isfinite(number) and number >= 0 else default


def where() -> list[str]:
    """The program's full path, and an entry for Cute Chess."""
    program = Path(shutil.which(sys.argv[0]) or sys.argv[0]).resolve()  # with .exe on Windows
    entry = {
        "name": "muzero-agent",
        "command": str(program),
        "workingDirectory": str(Path.home()),
        "protocol": "uci",
    }
    return [str(program), "", "For Cute Chess, in engines.json:", json.dumps([entry], indent=4)]


def main(arguments: list[str] | None = None, stdin: IO[bytes] | None = None) -> int:
    """The program `muzero-uci`."""
    parser = argparse.ArgumentParser(prog="muzero-uci", description="A chess engine by UCI.")
    parser.add_argument("--model", default=BUNDLED, help="model directory, or a bundled model")
    parser.add_argument("--where", action="store_true", help="print its path, for chess programs")
    given = parser.parse_args(arguments)
    if given.where:
        print("\n".join(where()))
        return 0
    if find_spec("chess") is None:
        print(
            "muzero-uci needs the chess extra: pip install 'muzero-agent[chess]'", file=sys.stderr
        )
        return 1
    try:
        directory = find_model(given.model)
    except ValueError as error:
        print(f"muzero-uci: {error}", file=sys.stderr)
        return 1
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
