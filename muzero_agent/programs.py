"""Programs of others as players of matches: chess by UCI, Go by GTP."""

from __future__ import annotations

import queue
import subprocess
import threading
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from muzero_agent.adapters.envs.go import go_action, go_vertex
from muzero_agent.commands import split_command
from muzero_agent.players import RESIGN, Position

READY = 120.0
"""Seconds in which a chess engine has to have loaded what it plays by."""


class Program(ABC):
    """Base of players that are programs: `with` ends them."""

    def seed(self, seed: int) -> None:  # noqa: B027 - there is nothing to do
        """Programs draw by themselves, and cannot be seeded from here."""

    def act(self, positions: Sequence[Position[Any]]) -> list[int]:
        """A move for each position, one after the other."""
        return [self.choose(position.actions) for position in positions]

    @abstractmethod
    def choose(self, actions: Sequence[int]) -> int:
        """A move, or `RESIGN`, after these actions of a game."""

    @abstractmethod
    def close(self) -> None:
        """End the program."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class UciPlayer(Program):
    """A chess engine that speaks UCI, through python-chess.

    :param command: starts it, for instance "stockfish"
    :param seconds: for each move; None for no limit
    :param nodes: at most, for each move
    :param depth: at most
    :param options: of the engine, such as {"Skill Level": 0}
    :raises ValueError: if the program does not start, refuses an option, or is not ready in time
    """

    def __init__(
        self,
        command: str,
        *,
        seconds: float | None = 0.1,
        nodes: int | None = None,
        depth: int | None = None,
        options: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        import chess.engine

        from muzero_agent.uci_client import start_engine

        if seconds is None and nodes is None and depth is None:
            raise ValueError("give one of seconds, nodes and depth: a move would take for ever")
        self.limit = chess.engine.Limit(time=seconds, nodes=nodes, depth=depth)
        self.engine = start_engine(command)
        try:
            self.engine.configure(dict(options or {}))
        except chess.engine.EngineError as error:
            known = ", ".join(self.engine.options)
            self.engine.close()
            raise ValueError(f"{command}: {error}; its options are {known}") from error
        usual, self.engine.timeout = self.engine.timeout, READY
        try:
            self.engine.ping()  # not in the time of its first move
        except (chess.engine.EngineError, TimeoutError) as error:
            self.engine.close()
            why = str(error) or f"no answer in {READY:g} s"
            raise ValueError(f"{command} does not get ready to play: {why}") from error
        self.engine.timeout = usual
        self.name = self.engine.id.get("name", command)

    def choose(self, actions: Sequence[int]) -> int:
        """The engine's move."""
        import chess.engine

        from muzero_agent.adapters.envs.chess import action_of, move_of

        board = chess.Board()
        for action in actions:
            board.push(move_of(action, board))
        try:
            move = self.engine.play(board, self.limit).move
        except (chess.engine.EngineError, TimeoutError) as error:
            raise ValueError(f"{self.name} failed in {board.fen()}: {error}") from error
        return RESIGN if move is None else action_of(move, board.turn)

    def close(self) -> None:
        """End the engine."""
        self.engine.close()


class GtpPlayer(Program):
    """A Go program that speaks GTP 2.

    Stones that it thinks dead count as alive when PettingZoo's Go is over: programs that know
    `kgs-genmove_cleanup` are asked to capture them before they pass.

    :param command: starts it, for instance "gnugo --mode gtp --chinese-rules --level 1"
    :param board_size: of the game
    :param komi: of the game; 7.5 is go_v5's own
    :param timeout: seconds in which it has to answer
    :raises ValueError: if the program does not start, or refuses the board
    """

    def __init__(
        self, command: str, board_size: int, *, komi: float = 7.5, timeout: float = 60.0
    ) -> None:
        self.command, self.board_size, self.timeout = command, board_size, timeout
        try:
            self.process = subprocess.Popen(
                split_command(command),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                bufsize=1,
            )
        except OSError as error:
            raise ValueError(f"{command!r} does not start: {error}") from error
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()
        try:
            self.name = f"{self.ask('name')} {self.ask('version')}"
            self.ask(f"boardsize {board_size}")
            self.ask(f"komi {komi}")
            cleans = self.ask("known_command kgs-genmove_cleanup") == "true"
        except BaseException:
            self.close()
            raise
        self._generate = "kgs-genmove_cleanup" if cleans else "genmove"

    def choose(self, actions: Sequence[int]) -> int:
        """The engine's move."""
        self.ask("clear_board")
        for number, action in enumerate(actions):
            self.ask(f"play {'bw'[number % 2]} {go_vertex(action, self.board_size)}")
        answer = self.ask(f"{self._generate} {'bw'[len(actions) % 2]}").lower()
        return RESIGN if answer == "resign" else go_action(answer, self.board_size)

    def ask(self, line: str) -> str:
        """Send a command, and return what the program answers.

        :raises ValueError: if it refuses, ends, or takes too long
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(line + "\n")
        except OSError as error:
            raise ValueError(f"{self.command!r} has ended before {line!r}") from error
        answer: list[str] = []
        while True:
            try:
                text = self._lines.get(timeout=self.timeout)
            except queue.Empty:
                raise ValueError(
                    f"{self.command!r} did not answer {line!r} within {self.timeout} seconds"
                ) from None
            if text is None:
                raise ValueError(f"{self.command!r} ended instead of answering {line!r}")
            if text:
                answer.append(text)
            elif answer:
                break
        if not answer[0].startswith("="):
            raise ValueError(f"{self.command!r} answered {line!r} with {answer[0]!r}")
        return "\n".join([answer[0][1:].strip(), *answer[1:]])

    def _read(self) -> None:
        assert self.process.stdout is not None
        for text in self.process.stdout:
            self._lines.put(text.strip())
        self._lines.put(None)

    def close(self) -> None:
        """End the program."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):  # what it did not read is lost with it
                stream.close()
