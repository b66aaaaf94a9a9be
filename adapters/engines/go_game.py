"""A game of Go that an engine is asked about, and its clocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from muzero_agent.adapters.engines.protocol import Limits
from muzero_agent.adapters.envs.go_rules import GoRules


class GoGame:
    """Where a game began, and what was played, command by command.

    :param board_size: lines of the board
    :param komi: points for White
    :param commands: actions of an earlier game to repeat, a list for each command
    """

    def __init__(
        self, board_size: int, komi: float, commands: Sequence[Sequence[int]] = ()
    ) -> None:
        self.rules = GoRules(board_size, komi)
        self.states = [self.rules.initial()]
        self.commands: list[list[int]] = []
        for actions in commands:
            self._follow(actions)

    @property
    def start(self) -> str:
        """What tells one beginning from another."""
        return f"{self.rules.board_size} {self.rules.komi}"

    def actions(self) -> list[int]:
        """Of both players."""
        return [action for actions in self.commands for action in actions]

    def state(self) -> Any:
        """By the rules, with what came before."""
        return self.states[-1]

    @property
    def to_move(self) -> str:
        """b or w."""
        return "b" if self.state().position.to_play == 1 else "w"

    def play(self, color: str, action: int) -> None:
        """Play a move; one out of turn is one after a pass of the other player.

        :raises ValueError: if it is illegal
        """
        self._follow([action] if color == self.to_move else [self._pass, action])

    def turn_to(self, color: str) -> bool:
        """Pass, if it is the other player's turn: whether it was. `undo` takes it back."""
        if color == self.to_move:
            return False
        self._follow([self._pass])
        return True

    def points(self) -> list[int]:
        """Where a stone may be put."""
        return [action for action in self.rules.legal(self.state()) if action != self._pass]

    def set_handicap(self, points: Sequence[int]) -> None:
        """Put Black's stones, between which White passes, and then White is to move.

        :raises ValueError: if these are no two points or more, or the game has begun
        """
        if self.commands:
            raise ValueError("board not empty")
        if len(points) < 2 or len({*points}) < len(points) or self._pass in points:
            raise ValueError("bad vertex list")
        passed = [action for point in points for action in (point, self._pass)]
        self._follow(passed[:-1])

    def undo(self) -> None:
        """Take back a move, and what was passed for it.

        :raises ValueError: if there is none
        """
        if not self.commands:
            raise ValueError("cannot undo")
        del self.states[-len(self.commands.pop()) :]

    @property
    def _pass(self) -> int:
        return self.rules.num_actions - 1

    def _follow(self, actions: Sequence[int]) -> None:
        states = [self.state()]
        for action in actions:
            if action not in self.rules.legal(states[-1]):
                raise ValueError("illegal move")
            states.append(self.rules.play(states[-1], action))
        self.states += states[1:]
        self.commands.append(list(actions))


class GoClock:
    """What a player has left: the main time, then so many stones in each period of byo-yomi.

    :param main: seconds
    :param period: seconds of byo-yomi
    :param stones: to play in a period
    """

    def __init__(self, main: float, period: float, stones: int) -> None:
        self._period = (period, stones)
        self.set(main, 0)

    def set(self, seconds: float, stones: int) -> None:
        """So much is left; no stones mean the main time."""
        main_is_over = stones == 0 and seconds <= 0
        self.seconds, self.stones = self._period if main_is_over else (seconds, stones)

    def spend(self, seconds: float) -> None:
        """A move took so long."""
        if self.stones == 1:
            self.seconds, self.stones = self._period
        else:
            self.set(self.seconds - seconds, max(self.stones - 1, 0))

    def limits(self) -> Limits:
        """Of the next move."""
        return Limits(clock=max(self.seconds, 0.0), moves_to_go=self.stones or None)
