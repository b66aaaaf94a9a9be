"""What a model's search thinks of one position of a game: in words, and as a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from muzero_agent.adapters.envs.games import find_rules
from muzero_agent.adapters.envs.names import GAMES, find_game
from muzero_agent.adapters.envs.pettingzoo import as_game
from muzero_agent.muzero import MuZero
from muzero_agent.planner import Plan
from muzero_agent.play import Notation, board_text, opinion_text
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.types import TurnBased


def explain_position(
    model: MuZero,
    game: str,
    out: Path,
    *,
    moves: Sequence[str] = (),
    fen: str | None = None,
    by_rules: bool = False,
    seed: int = 0,
) -> str:
    """Search in a position, and draw what was found.

    :param game: its name; see `adapters.envs.names.find_game`
    :param out: a .png or .svg file, which is written
    :param moves: from the start to the position, in the game's notation; see `play.Notation`
    :param fen: where a game of chess starts
    :param by_rules: look ahead by the true rules, not in what the model learned of them
    :param seed: of the game
    :return: the position and the opinion as text
    :raises ValueError: for what is no game, position, move or picture
    """
    if out.suffix not in (".png", ".svg"):
        raise ValueError(f"{out}: give a file that ends in .png or .svg")
    if find_spec("matplotlib") is None:
        raise ImportError("pictures need more than is installed: pip install 'muzero-agent[plots]'")
    make = find_game(game)
    if make is None:
        raise ValueError(f"{game} is no game with positions to explain: those are {list(GAMES)}")
    env = as_game(make())
    if env.observation_space != model.observation_space:
        raise ValueError(f"the model was not trained on {game}: what it observes is different")
    observation, actions = _play_to(env, moves, fen, seed)
    if by_rules:
        plan = model.plan([_state(env, actions, fen)], planner=_planner(env))
    else:
        plan = model.plan(observation, action_masks=env.action_masks())
    _draw(env, observation, plan, actions[-1] if actions else None, out)
    return f"{board_text(env, observation)}\n\n{opinion_text(plan, Notation(env))}"


def _draw(env: TurnBased, observation: Any, plan: Plan, last: int | None, out: Path) -> None:
    from muzero_agent.pictures import caption, chess_svg, draw_position

    if out.suffix == ".svg" and env.name.startswith("chess"):
        content = chess_svg(env, plan).encode()
    else:
        figure = draw_position(env, observation, plan, last, title=caption(env, plan))
        image = io.BytesIO()
        figure.savefig(image, format=out.suffix[1:], dpi=120)
        content = image.getvalue()
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(content)


def _play_to(
    env: TurnBased, moves: Sequence[str], fen: str | None, seed: int
) -> tuple[Any, list[int]]:
    """The observation after these moves, and their actions."""
    if fen is not None and not env.name.startswith("chess"):
        raise ValueError(f"fen={fen!r}: {env.name} has no such positions; give moves")
    observation, _ = env.reset(seed=seed, options=None if fen is None else {"fen": fen})
    notation, actions = Notation(env), list[int]()
    for number, text in enumerate(moves, 1):
        legal = np.flatnonzero(env.action_masks()).tolist()
        try:
            action = notation.action(text)
        except ValueError:
            action = -1
        if action not in legal:
            some = ", ".join(map(notation.text, legal[:20])) + ", ..." * (len(legal) > 20)
            hint = " (moves are separated by spaces)" if "," in text else ""
            raise ValueError(f"move {number}, {text!r}, is not legal there{hint}; legal are {some}")
        observation, _, terminated, truncated, _ = env.step(action)
        actions.append(action)
        if terminated or truncated:
            raise ValueError(f"the game is over after move {number}: give fewer moves")
    return observation, actions


def _planner(env: TurnBased) -> RulesPlanner[Any]:
    rules = find_rules(env)
    if rules is None:
        raise ValueError(f"the rules of {env.name} are not known here: search without them")
    return RulesPlanner(rules)


def _state(env: TurnBased, actions: Sequence[int], fen: str | None) -> Any:
    rules = find_rules(env)
    assert rules is not None
    if fen is None:
        state = rules.initial()
    else:
        import chess

        from muzero_agent.adapters.envs.chess_rules import ChessState

        state = ChessState(chess.Board(fen))
    for action in actions:
        state = rules.play(state, action)
    return state
