"""How strong a model of a game is: matches against opponents that go by a name."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from muzero_agent.adapters.envs.games import RULES, find_rules
from muzero_agent.adapters.envs.pettingzoo import as_game
from muzero_agent.matches import MatchResult, play_match
from muzero_agent.players import (
    AlphaBetaPlayer,
    ModelPlayer,
    Player,
    RandomPlayer,
    RolloutPlayer,
    RulesModelPlayer,
)
from muzero_agent.programs import GtpPlayer, Program, UciPlayer
from muzero_agent.types import Rules, TurnBased

KNOWN = "random, one-ply, alpha-beta-DEPTH, mcts-ROLLOUTS, in chess uci:COMMAND, in Go gtp:COMMAND"


def opponent(
    name: str,
    game: TurnBased,
    *,
    seconds: float = 0.1,
    options: Mapping[str, str | int | bool] | None = None,
) -> Player:
    """The player of this name.

    :param name: one of `KNOWN`; one-ply, alpha-beta and mcts look ahead by the rules, and a COMMAND
        is run
    :param game: what is played
    :param seconds: a move of an engine of chess
    :param options: of that engine
    :raises ValueError: if there is none, or if the game's rules are not known here
    """
    if name == "random":
        return RandomPlayer()
    protocol, colon, command = name.partition(":")
    spoken = (protocol, game.name.rsplit("_v", 1)[0]) if colon else None
    if spoken == ("uci", "chess"):
        return UciPlayer(command, seconds=seconds, options=options)
    if spoken == ("gtp", "go"):
        return GtpPlayer(command, board_size=math.isqrt(game.num_actions))
    match = re.fullmatch(r"one-ply|(alpha-beta|mcts)-([1-9]\d*)", name)
    if match is None:
        raise ValueError(f"there is no opponent {name!r}: choose among {KNOWN}")
    rules = _rules_for(name, game)
    if match[1] == "mcts":
        return RolloutPlayer(rules, int(match[2]))
    return AlphaBetaPlayer(rules, int(match[2] or 1))


def _rules_for(who: str, game: TurnBased) -> Rules[Any]:
    rules = find_rules(game)
    if rules is None:
        raise ValueError(
            f"{who} looks ahead by the rules, which are known here of {', '.join(RULES)} and not "
            f"of {game.name}"
        )
    return rules


def evaluate_game(
    model: Any,
    make_env: Callable[[], Any],
    opponents: Sequence[str],
    *,
    pairs: int = 50,
    opening_moves: int = 2,
    seed: int = 0,
    deterministic: bool = True,
    by_rules: bool = False,
    seconds: float = 0.1,
    options: Mapping[str, str | int | bool] | None = None,
) -> list[MatchResult]:
    """A match of the model against each opponent; see `play_match` and `opponent`.

    :param by_rules: the model looks ahead by the true rules, not in what it learned of them
    """
    game = as_game(make_env())
    own = (
        RulesModelPlayer(model, _rules_for("a planner by the rules", game))
        if by_rules
        else ModelPlayer(model, deterministic=deterministic)
    )
    with ExitStack() as programs:
        players = []
        for name in opponents:
            player = opponent(name, game, seconds=seconds, options=options)
            if isinstance(player, Program):
                programs.callback(player.close)
            players.append(player)
        return [
            play_match(
                own,
                player,
                make_env,
                pairs=pairs,
                opening_moves=opening_moves,
                seed=seed,
            )
            for player in players
        ]


def table(results: Sequence[MatchResult]) -> str:
    """Results in Markdown, a row for each opponent."""
    rows = [
        "| against | games | points | 95% interval | Elo | won-drawn-lost first | second |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for result in results:
        low, high = result.interval()
        seats = [
            "-".join(str(result.count(score, seat)) for score in (1.0, 0.5, 0.0)) for seat in (0, 1)
        ]
        rows.append(
            f"| {result.second} | {result.num_games} | {100 * result.score:.1f}% | "
            f"{100 * low:.1f} to {100 * high:.1f}% | {result.elo()[0]:+.0f} | "
            f"{seats[0]} | {seats[1]} |"
        )
    return "\n".join(rows)
