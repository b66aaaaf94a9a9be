"""A game in the terminal, of a person against a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muzero_agent.adapters.envs.go import go_action, go_vertex
from muzero_agent.planner import Plan
from muzero_agent.types import TurnBased

HELP = "? tells the search's opinion, q gives up"


class Notation:
    """How people write moves: in chess by UCI's notation or SAN, in Go by vertices, else by the
    action's number.

    :param env: whose position they are told in
    """

    def __init__(self, env: TurnBased) -> None:
        self._env = env
        self._kind = env.name.rsplit("_v", 1)[0]
        self.example = {"chess": "e2e4 or Nf3", "go": "e5 or pass"}.get(self._kind, "a number")

    def text(self, action: int) -> str:
        """A move of the position."""
        if self._kind == "chess":
            from muzero_agent.adapters.envs.chess import move_of

            return str(move_of(action, chess_board(self._env)).uci())
        if self._kind == "go":
            return go_vertex(action, math.isqrt(self._env.num_actions))
        return str(action)

    def line(self, actions: Sequence[int]) -> list[str]:
        """Moves from the position on, as far as they are legal: a model may imagine others."""
        if self._kind != "chess":
            return [self.text(int(action)) for action in actions]
        from muzero_agent.adapters.envs.chess import move_of

        board, texts = chess_board(self._env).copy(), list[str]()
        with suppress(ValueError):
            for action in actions:
                move = move_of(int(action), board)
                if not board.is_legal(move):
                    break
                texts.append(move.uci())
                board.push(move)
        return texts

    def action(self, text: str) -> int:
        """What a person means.

        :raises ValueError: if it is no move
        """
        if self._kind == "chess":
            from muzero_agent.adapters.envs.chess import action_of

            board = chess_board(self._env)
            try:
                move = board.parse_san(text)
            except ValueError:
                move = board.parse_uci(text.lower())
            return int(action_of(move, board.turn))
        if self._kind == "go":
            return go_action(text, math.isqrt(self._env.num_actions))
        return int(text)


def chess_board(env: TurnBased) -> Any:
    """The position of a game of chess, as python-chess has it."""
    game: Any = env
    return game.board if hasattr(game, "board") else game.aec.unwrapped.board


def board_text(env: TurnBased, observation: Any) -> str:
    """The position: X moves first, O second, as far as the observation's planes tell it."""
    if env.render_mode == "ansi":
        return str(env.render())
    if env.name.startswith("chess"):
        board = str(chess_board(env)).splitlines()
        return "\n".join(
            [*(f"{8 - row} {line}" for row, line in enumerate(board)), "  a b c d e f g h"]
        )
    found = stones(env, observation)
    if found is None:
        return str(observation["observation"] if isinstance(observation, dict) else observation)
    first, second = found
    height, width = first.shape
    free = [["."] * width for _ in range(height)]
    if env.num_actions == height * width <= 10:  # so few that each can show its number
        free = [[str(row * width + column) for column in range(width)] for row in range(height)]
    lines = [
        " ".join("X" if a else "O" if b else c for a, b, c in zip(*row, strict=True))
        for row in zip(first, second, free, strict=True)
    ]
    if env.name.startswith("go_"):
        lines = [f"{height - row:2} {line}" for row, line in enumerate(lines)]
        lines.append(
            "   " + " ".join(go_vertex(column, width)[0].upper() for column in range(width))
        )
    if env.num_actions == width:  # an action is a column
        lines.append(" ".join(str(column % 10) for column in range(width)))
    return "\n".join(lines)


def stones(env: TurnBased, observation: Any) -> tuple[NDArray[Any], NDArray[Any]] | None:
    """Where the first player's pieces are and where the second's, [H, W] each; None if the
    observation's first two planes do not tell."""
    planes = observation["observation"] if isinstance(observation, dict) else observation
    if planes.ndim != 3 or planes.shape[2] < 2 or env.name.startswith("chess"):
        return None
    own, other = planes[..., 0], planes[..., 1]
    if env.name.startswith("go_"):
        own, other = other, own  # there the first plane is of the player who has just moved
    return (own, other) if env.to_play == 0 else (other, own)


def opinion_text(plan: Plan, notation: Notation, most: int = 8) -> str:
    """What the search found: the most visited actions, and the line it expects."""
    order = np.argsort(-plan.visit_counts[0], kind="stable")[:most]
    rows = [f"value {plan.value[0]:+.2f} for the player to move", "action visits value prior"]
    rows += [
        f"{notation.text(action):>6} {plan.visit_counts[0, action]:6d} "
        f"{plan.q_values[0, action]:+5.2f} {100 * plan.prior[0, action]:4.0f}%"
        for action in map(int, order)
        if plan.visit_counts[0, action]
    ]
    line = notation.line(plan.principal_variation[0])
    return "\n".join([*rows, f"expected: {' '.join(line)}"])


def play(
    model: Any,
    env: TurnBased,
    *,
    person_first: bool,
    always_tell: bool,
    ask: Callable[[str], str],
    say: Callable[[str], None],
    seed: int | None = None,
) -> float | None:
    """One game.

    :param always_tell: say the search's opinion before each move of the model
    :param ask: reads a line
    :param say: prints lines
    :return: for the person: 1 won, 0 drawn, -1 lost; None if given up
    """
    observation, _ = env.reset(seed=seed)
    person = env.to_play if person_first else 1 - env.to_play
    notation = Notation(env)
    names = ("White", "Black") if env.name.startswith("chess") else ("X", "O")
    say(f"You are {names[person]}: {notation.example} plays, {HELP}")
    over, total = False, 0.0  # of the person's rewards
    while not over:
        mover = env.to_play
        say(board_text(env, observation))
        if mover == person:
            action = _asked(model, env, notation, observation, ask, say)
            if action is None:
                return None
        else:
            plan = model.plan(observation, action_masks=env.action_masks())
            action = int(plan.action[0])
            if always_tell:
                say(opinion_text(plan, notation))
            say(f"It plays {notation.text(action)}")
        observation, reward, terminated, truncated, _ = env.step(action)
        total += reward if mover == person else -reward
        over = terminated or truncated
    say(board_text(env, observation))
    result = float(np.sign(total))
    say({1.0: "You have won", 0.0: "A draw", -1.0: "It has won"}[result])
    return result


def _asked(
    model: Any,
    env: TurnBased,
    notation: Notation,
    observation: Any,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> int | None:
    legal = np.flatnonzero(env.action_masks()).tolist()
    while True:
        answer = ask("Your move: ").strip()
        if answer.lower() in ("q", "quit"):
            return None
        if answer == "?":
            plan = model.plan(observation, action_masks=env.action_masks())
            say(opinion_text(plan, notation))
            continue
        with suppress(ValueError):
            if (action := notation.action(answer)) in legal:
                return action
        some = ", ".join(map(notation.text, legal[:20])) + (", ..." if len(legal) > 20 else "")
        say(f"{answer!r} is no legal move; {HELP}. Legal: {some}")
