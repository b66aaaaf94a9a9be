"""`muzero-gtp`: Go by GTP 2, for GoGui, Sabaki, and referees such as gogui-twogtp.

GTP asks and waits: every command is answered before the next is read, a move as well.
"""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import IO, TYPE_CHECKING

from muzero_agent import __version__
from muzero_agent.adapters.engines.go_game import GoClock, GoGame
from muzero_agent.adapters.engines.protocol import Engine, Limits, Stop, Writer
from muzero_agent.zoo.bundled import find_model

if TYPE_CHECKING:
    from muzero_agent.adapters.engines.mind import Mind

BUNDLED = "go_9x9"
OVERHEAD = 0.05  # seconds that a move costs beside its search


class GtpEngine(Engine):
    """Go by GTP 2, on the board of its model.

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
        self.times: tuple[int, int, int] | None = None  # see GoClock; None: no limit
        self.clocks: dict[str, GoClock] = {}  # by colour
        self._says: dict[str, Callable[[list[str]], str | None]] = {
            name.removeprefix("_say_"): getattr(self, name)
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
        except IndexError:  # fewer arguments than it takes
            self._answer("?", number, "syntax error")
        except ValueError as error:
            self._answer("?", number, str(error))
        except Exception as error:  # noqa: BLE001 - an engine goes on; its tree may be broken
            if self._mind is not None:
                self._mind.drop()
            self._answer("?", number, f"{name} failed: {str(error) or type(error).__name__}")
        return name != "quit"

    def _answer(self, sign: str, number: str, text: str) -> None:
        self.write(f"{sign}{number} {' '.join(text.split()) if sign == '?' else text}".rstrip(), "")

    def load(self) -> None:
        """Load the model, which the first command that needs it does else.

        :raises ValueError: if it is none of Go
        """
        from muzero_agent import zoo
        from muzero_agent.adapters.engines.mind import Mind

        model = zoo.load(self.directory)
        points = int(getattr(model.action_space, "n", 0)) - 1
        size = math.isqrt(max(points, 0))
        if size < 2 or size**2 != points or model.policy.network_space.shape != (size, size, 17):
            raise ValueError(f"{self.directory} is a model of another game than go_v5")
        self._game = GoGame(size, self.komi)
        self._mind = Mind(
            model, self._game.rules, state_bytes=6_000, slots=points, most_legal=points + 1
        )
        self._mind.warm_up(self._game, self.planner)

    @property
    def mind(self) -> Mind:
        """The model."""
        if self._mind is None:
            self.load()
        assert self._mind is not None
        return self._mind

    @property
    def game(self) -> GoGame:
        """The game that goes on."""
        if self._game is None:
            self.load()
        assert self._game is not None
        return self._game

    def _new_game(self, commands: Sequence[Sequence[int]] = ()) -> None:
        self._game = GoGame(self.game.rules.board_size, self.komi, commands)
        self.mind.rules = self._game.rules
        self.mind.drop()

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
        size = self.game.rules.board_size
        if _whole(words[0]) != size:
            raise ValueError(f"unacceptable size: the model plays {size}x{size}")
        self._new_game()

    def _say_clear_board(self, _: list[str]) -> None:
        self._new_game()
        self._start_clocks()

    def _say_komi(self, words: list[str]) -> None:
        try:
            komi = float(words[0])
        except ValueError:
            raise ValueError("syntax error") from None
        if not math.isfinite(komi):
            raise ValueError("syntax error")
        self.komi = komi
        self._new_game(self.game.commands)

    def _say_play(self, words: list[str]) -> None:
        from muzero_agent.adapters.envs.go import go_action

        self.game.play(_color(words[0]), go_action(words[1], self.game.rules.board_size))

    def _say_fixed_handicap(self, words: list[str]) -> str:
        from muzero_agent.adapters.envs.go import go_vertex, handicap_points

        size = self.game.rules.board_size
        points = handicap_points(size, _whole(words[0]))
        self.game.set_handicap(points)
        return " ".join(go_vertex(point, size).upper() for point in points)

    def _say_place_free_handicap(self, words: list[str]) -> str:
        return self._say_fixed_handicap(words)

    def _say_set_free_handicap(self, words: list[str]) -> None:
        from muzero_agent.adapters.envs.go import go_action

        self.game.set_handicap([go_action(word, self.game.rules.board_size) for word in words])

    def _say_undo(self, _: list[str]) -> None:
        self.game.undo()

    def _say_genmove(self, words: list[str]) -> str:
        color = _color(words[0])
        began = time.monotonic()
        answer, action = self._choose(color)
        if answer != "resign":
            self.game.play(color, action)
        if color in self.clocks:
            self.clocks[color].spend(time.monotonic() - began)
        return answer

    def _say_reg_genmove(self, words: list[str]) -> str:
        return self._choose(_color(words[0]))[0]

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
        main, period, stones = (_whole(words[at]) for at in range(3))
        # Byo-yomi without stones is how GTP tells that there is no limit.
        self.times = None if period > 0 and stones == 0 else (main, period, stones)
        self._start_clocks()

    def _say_time_left(self, words: list[str]) -> None:
        color, seconds, stones = _color(words[0]), _whole(words[1]), _whole(words[2])
        if color not in self.clocks:
            self.clocks[color] = GoClock(seconds, 0, 0)
        self.clocks[color].set(seconds, stones)

    def _start_clocks(self) -> None:
        self.clocks = {} if self.times is None else {color: GoClock(*self.times) for color in "bw"}

    # -- thinking --------------------------------------------------------------------------------

    def _choose(self, color: str) -> tuple[str, int]:
        """The best move as GTP writes it, and its action; nothing is played."""
        from muzero_agent.adapters.engines.searching import search
        from muzero_agent.adapters.envs.go import go_vertex

        limits = self._limits(color)
        passed = self.game.turn_to(color)
        try:
            allowed = self.game.points() if passed else []  # a second pass would end the game
            thinker = self.mind.think_of(self.game, self.planner, allowed=allowed)
            report = search(thinker, limits, Stop(False), OVERHEAD, lambda report: None)
        finally:
            if passed:
                self.game.undo()
        best = report.children[0]
        if self.resign is not None and best.q < self.resign:
            return "resign", best.action
        vertex = go_vertex(best.action, self.game.rules.board_size)
        return vertex if vertex == "pass" else vertex.upper(), best.action

    def _limits(self, color: str) -> Limits:
        if self.visits is not None:
            return Limits(nodes=self.visits)
        if color in self.clocks:
            return self.clocks[color].limits()
        return Limits(nodes=self.mind.model.num_simulations)


def _color(word: str) -> str:
    color = word.lower()
    if color not in ("b", "w", "black", "white"):
        raise ValueError("syntax error")
    return color[0]


def _whole(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ValueError("syntax error") from None


def _visits(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: give a whole number of at least 1")
    return int(text)


def _value(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not -1 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text}: give a number from -1 to 1")
    return value


def main(arguments: list[str] | None = None, stdin: IO[bytes] | None = None) -> int:
    """The program `muzero-gtp`."""
    parser = argparse.ArgumentParser(prog="muzero-gtp", description="A Go engine by GTP.")
    parser.add_argument("--model", default=BUNDLED, help="model directory, or a bundled model")
    parser.add_argument(
        "--visits", type=_visits, help="of each search; default: by the clock, if any"
    )
    parser.add_argument("--planner", choices=("rules", "latent"), default="rules")
    parser.add_argument(
        "--resign", type=_value, help="value, -1 to 1, below which it gives up; default: never"
    )
    given = parser.parse_args(arguments)
    if find_spec("pettingzoo") is None:
        print("muzero-gtp needs: pip install 'muzero-agent[pettingzoo]'", file=sys.stderr)
        return 1
    warnings.simplefilter("ignore")
    try:
        engine = GtpEngine(
            Writer(), find_model(given.model), given.visits, given.planner, given.resign
        )
        engine.load()
    except (ValueError, OSError) as error:
        print(f"muzero-gtp: {error}", file=sys.stderr)
        return 1
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it, without a traceback
    engine.run(sys.stdin.buffer if stdin is None else stdin)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
