"""A game in the terminal, of a person against a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from muzero_agent.planner import Plan
from muzero_agent.types import TurnBased

HELP = "a number plays that action, ? tells the search's opinion, q gives up"


def board_text(env: TurnBased, observation: Any) -> str:
    """The position: X moves first, O second, as far as the observation's planes tell it."""
    if env.render_mode == "ansi":
        return str(env.render())
    if env.name.startswith("chess"):
        game: Any = env
        return str(game.board if hasattr(game, "board") else game.aec.unwrapped.board)
    planes = observation["observation"] if isinstance(observation, dict) else observation
    if planes.ndim != 3 or planes.shape[2] < 2:
        return str(planes)
    own, other = planes[..., 0], planes[..., 1]
    if env.name.startswith("go_"):
        own, other = other, own  # there the first plane is of the player who has just moved
    first = own if env.to_play == 0 else other
    second = other if env.to_play == 0 else own
    lines = [
        " ".join("X" if a else "O" if b else "." for a, b in zip(*row, strict=True))
        for row in zip(first, second, strict=True)
    ]
    if env.num_actions == planes.shape[1]:  # an action is a column
        lines.append(" ".join(str(column % 10) for column in range(env.num_actions)))
    return "\n".join(lines)


def opinion_text(plan: Plan, most: int = 8) -> str:
    """What the search found: the most visited actions, and the line it expects."""
    order = np.argsort(-plan.visit_counts[0], kind="stable")[:most]
    rows = [f"value {plan.value[0]:+.2f} for the player to move", "action visits value prior"]
    rows += [
        f"{action:6d} {plan.visit_counts[0, action]:6d} {plan.q_values[0, action]:+5.2f} "
        f"{100 * plan.prior[0, action]:4.0f}%"
        for action in order
        if plan.visit_counts[0, action]
    ]
    line = " ".join(map(str, plan.principal_variation[0]))
    return "\n".join([*rows, f"expected: {line}"])


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
    say(f"You are {'X' if person == 0 else 'O'}: {HELP}")
    over, total = False, 0.0  # of the person's rewards
    while not over:
        mover = env.to_play
        say(board_text(env, observation))
        if mover == person:
            action = _asked(model, env, observation, ask, say)
            if action is None:
                return None
        else:
            plan = model.plan(observation, action_masks=env.action_masks())
            action = int(plan.action[0])
            if always_tell:
                say(opinion_text(plan))
            say(f"It plays {action}")
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
    observation: Any,
    ask: Callable[[str], str],
    say: Callable[[str], None],
) -> int | None:
    legal = np.flatnonzero(env.action_masks()).tolist()
    while True:
        answer = ask("Your move: ").strip()
        if answer == "q":
            return None
        if answer == "?":
            say(opinion_text(model.plan(observation, action_masks=env.action_masks())))
        elif answer.isdecimal() and int(answer) in legal:
            return int(answer)
        else:
            some = ", ".join(map(str, legal[:20])) + (", ..." if len(legal) > 20 else "")
            say(f"{answer!r} is no legal move; {HELP}. Legal: {some}")
