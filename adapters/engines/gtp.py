"""`muzero-gtp`: Go by GTP 2, for GoGui, Sabaki, and referees such as gogui-twogtp.

GTP asks and waits: every command is answered before the next is read, a move as well.
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from muzero_agent import __version__
from muzero_agent.adapters.engines.models import find_model
from muzero_agent.adapters.engines.protocol import Engine, Limits, Stop, Writer

if TYPE_CHECKING:
    from muzero_agent.adapters.engines.mind import Mind

OVERHEAD = 0.05  # seconds that a move costs beside its search


class GoGame:
    """Where a game began, and what was played.

    :param board_size: lines of the board
    :param komi: points for White
    """

    def __init__(self, board_size: int, komi: float) -> None:
        from muzero_agent.adapters.envs.go_rules import GoRules

        self.rules = GoRules(board_size, komi)
        self.states = [self.rules.initial()]
        self._actions: list[int] = []

    @property
    def start(self) -> str:
        """What tells one beginning from another."""
        return f"{self.rules.board_size} {self.rules.komi}"

    def actions(self) -> list[int]:
        """Of both players."""
        return list(self._actions)

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
        pass_move = self.rules.num_actions - 1
        for number in [pass_move, action] if color != self.to_move else [action]:
            if number not in self.rules.legal(self.state()):
                raise ValueError("illegal move")
            self.states.append(self.rules.play(self.state(), number))
            self._actions.append(number)

    def undo(self) -> None:
        """Take back a move.

        :raises ValueError: if there is none
        """
        if not self._actions:
            raise ValueError("cannot undo")
        self.states.pop()
        self._actions.pop()


class GtpEngine(Engine):
    """Go by GTP 2.

    :param write: what is said
    :param model: directory of the model
    :param visits: of a search; None: by the clock, or as many simulations as the model's own
    :param planner: "rules" or "latent"
    :param resign: value at which it gives up; None never
    """

    def __init__(
        self,
        write: Writer,
        model: Path,
        visits: int | None = None,
        planner: str = "rules",
        resign: float | None = None,
    ) -> None:
        super().__init__(write)
        self.directory, self.visits, self.planner, self.resign = model, visits, planner, resign
        self._mind: Mind | None = None
        self._game: GoGame | None = None
        self.komi = 7.5
        self.times: tuple[float, float, int] | None = None  # main, byo-yomi, its stones
        self.left: dict[str, tuple[float, int]] = {}  # seconds and stones, by colour
        self._says: dict[str, Callable[[list[str]], str | None]] = {
            name.removeprefix("_say_").replace("kgs_", "kgs-"): getattr(self, name)
            for name in dir(self)
            if name.startswith("_say_")
        }

    # -- what is said to it ----------------------------------------------------------------------

    def command(self, line: str) -> bool:
        """Answer a line; False ends the engine."""
        words = line.partition("#")[0].split()
        number = words.pop(0) if words and words[0].isdecimal() else ""
        if not words:
            return True
        name, *arguments = words
        if name not in self._says:
            self._answer("?", number, "unknown command")
            return True
        try:
            self._answer("=", number, self._says[name](arguments) or "")
        except (ValueError, IndexError) as error:
            self._answer("?", number, str(error) or "syntax error")
        return name != "quit"

    def _answer(self, sign: str, number: str, text: str) -> None:
        self.write(f"{sign}{number} {text}".rstrip(), "")

    @property
    def mind(self) -> Mind:
        """The model; loaded when it is first wanted."""
        if self._mind is None:
            from muzero_agent.adapters.engines.mind import Mind

            game = self.game
            points = game.rules.board_size**2
            self._mind = Mind(
                self.directory,
                game.rules,
                state_bytes=6_000,
                slots=points,
                most_legal=points + 1,
            )
        return self._mind

    @property
    def game(self) -> GoGame:
        """The game that goes on."""
        if self._game is None:
            self._game = GoGame(9, self.komi)
        return self._game

    def _new_game(self, size: int) -> None:
        if self._game is not None and size != self._game.rules.board_size:
            self._mind = None  # its actions are those of the other size
        self._game = GoGame(size, self.komi)
        if self._mind is not None:
            self._mind.rules = self._game.rules
            self._mind.current = None
        self.left = {}

    def _say_protocol_version(self, _: list[str]) -> str:
        return "2"

    def _say_name(self, _: list[str]) -> str:
        return "muzero-agent"

    def _say_version(self, _: list[str]) -> str:
        return __version__

    def _say_list_commands(self, _: list[str]) -> str:
        return "\n".join(sorted(self._says))

    def _say_known_command(self, words: list[str]) -> str:
        return str(words[0] in self._says).lower()

    def _say_quit(self, _: list[str]) -> None:
        """Answered like any other; then it ends."""

    def _say_boardsize(self, words: list[str]) -> None:
        size = _whole(words[0])
        if not 2 <= size <= 19:
            raise ValueError("unacceptable size")
        self._new_game(size)
        try:
            self.mind  # noqa: B018 - is loaded
        except ValueError as error:  # a model knows one size
            self._new_game(9)
            raise ValueError(f"unacceptable size: {error}") from error

    def _say_clear_board(self, _: list[str]) -> None:
        self._new_game(self.game.rules.board_size)

    def _say_komi(self, words: list[str]) -> None:
        try:
            self.komi = float(words[0])
        except ValueError:
            raise ValueError("syntax error") from None
        if not self.game.actions():
            self._new_game(self.game.rules.board_size)

    def _say_play(self, words: list[str]) -> None:
        from muzero_agent.adapters.envs.pettingzoo import go_action

        self.game.play(_color(words[0]), go_action(words[1], self.game.rules.board_size))

    def _say_undo(self, _: list[str]) -> None:
        self.game.undo()

    def _say_genmove(self, words: list[str]) -> str:
        from muzero_agent.adapters.envs.pettingzoo import go_vertex

        color = _color(words[0])
        if self.game.to_move != color:
            self.game.play(self.game.to_move, self.game.rules.num_actions - 1)
        action, value = self._think(color)
        if self.resign is not None and value < self.resign:
            return "resign"
        self.game.play(color, action)
        return go_vertex(action, self.game.rules.board_size).upper().replace("PASS", "pass")

    def _say_reg_genmove(self, words: list[str]) -> str:
        answer = self._say_genmove(words)
        if answer != "resign":
            self.game.undo()
        return answer

    def _say_showboard(self, _: list[str]) -> str:
        size, board = self.game.rules.board_size, self.game.state().position.board
        rows = [
            f"{size - row:2} " + " ".join(".XO"[board[row, column]] for column in range(size))
            for row in range(size)
        ]
        return "\n".join(["", *rows, "   " + " ".join("ABCDEFGHJKLMNOPQRST"[:size])])

    def _say_final_score(self, _: list[str]) -> str:
        score = self.game.rules.score(self.game.state())
        if score == 0:
            return "0"
        return f"{'B' if score > 0 else 'W'}+{abs(score):g}"

    def _say_time_settings(self, words: list[str]) -> None:
        main, byo_yomi, stones = (_whole(word) for word in words[:3])
        self.times = (main, byo_yomi, stones)
        if byo_yomi > 0 and stones == 0:  # as GTP tells that there is no limit
            self.times = None
        self.left = {}

    def _say_time_left(self, words: list[str]) -> None:
        self.left[_color(words[0])] = (float(_whole(words[1])), _whole(words[2]))

    # -- thinking --------------------------------------------------------------------------------

    def _think(self, color: str) -> tuple[int, float]:
        """The best move, and its value."""
        from muzero_agent.adapters.engines.searching import search

        thinker = self.mind.think_of(self.game, self.planner)
        report = search(thinker, self._limits(color), Stop(False), OVERHEAD, lambda report: None)
        return report.children[0].action, report.children[0].q

    def _limits(self, color: str) -> Limits:
        if self.visits is not None:
            return Limits(nodes=self.visits)
        if self.times is None:
            return Limits(nodes=self.mind.model.num_simulations)
        seconds, stones = self.left.get(color, (self.times[0], 0))
        if stones == 0 and seconds <= 0:
            seconds, stones = self.times[1], self.times[2]
        return Limits(clock=seconds, moves_to_go=stones or None)


def _color(word: str) -> str:
    color = word.lower()[:1]
    if color not in ("b", "w"):
        raise ValueError("syntax error")
    return color


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError("syntax error") from None


def main(arguments: list[str] | None = None, stdin: IO[bytes] | None = None) -> int:
    """The program `muzero-gtp`."""
    parser = argparse.ArgumentParser(prog="muzero-gtp", description="A Go engine by GTP.")
    parser.add_argument("--model", required=True, help="model directory")
    parser.add_argument("--visits", type=int, help="of each search; default: by the clock, if any")
    parser.add_argument("--planner", choices=("rules", "latent"), default="rules")
    parser.add_argument("--resign", type=float, help="value, -1 to 1, at which it gives up")
    given = parser.parse_args(arguments)
    if find_spec("pettingzoo") is None:
        print("muzero-gtp needs: pip install 'muzero-agent[pettingzoo]'", file=sys.stderr)
        return 1
    try:
        directory = find_model(given.model)
    except ValueError as error:
        print(f"muzero-gtp: {error}", file=sys.stderr)
        return 1
    warnings.simplefilter("ignore")
    engine = GtpEngine(Writer(), directory, given.visits, given.planner, given.resign)
    engine.run(sys.stdin.buffer if stdin is None else stdin)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
