"""How good a model is: returns of episodes, and matches against opponents that go by a name.

What a card of the zoo tells is measured here, and can be measured again in the same way.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent.adapters.envs.games import RULES, find_rules
from muzero_agent.adapters.envs.names import find_game, runs_foreign_code
from muzero_agent.adapters.envs.pettingzoo import as_game
from muzero_agent.hyperparams import make_env
from muzero_agent.masks import masks_of, tells_masks
from muzero_agent.matches import MatchResult, play_match
from muzero_agent.muzero import MuZero
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
from muzero_agent.zoo.cards import Card, Evaluation

AT_ONCE = 10  # environments
RETURN, POINTS = "mean return", "points of a game (won 1, drawn 1/2, lost 0)"  # metrics of cards

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


class _Masked:
    """A model as `evaluate_policy` asks it, with the masks of the environments that it plays in."""

    def __init__(self, model: Any, envs: VecEnv) -> None:
        self.model, self.envs = model, envs

    def predict(self, observation: Any, **settings: Any) -> Any:
        return self.model.predict(observation, **settings, action_masks=masks_of(self.envs))


def heeding_masks(model: MuZero, envs: VecEnv) -> Any:
    """The model, or what hands it the masks that the environments' `action_masks()` tell: who is to
    play for `evaluate_policy` there."""
    return _Masked(model, envs) if tells_masks(envs) else model


def evaluate_returns(
    model: Any,
    env_id: str,
    episodes: int,
    seed: int,
    *,
    deterministic: bool = True,
    preprocessing: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[list[float], list[int]]:
    """Returns and lengths of episodes, in up to ten environments at a time; their `action_masks()`
    are heeded.

    :param env_id: id in Gymnasium's registry
    :param seed: of the first environment
    :param preprocessing: further arguments of `hyperparams.make_env`
    :raises ValueError: if the model was not trained on what the environment shows
    """
    envs = make_env(env_id, min(episodes, AT_ONCE), seed, **preprocessing)
    envs = MuZero._wrap_env(envs)  # channels first, as the model saw them
    if envs.observation_space != model.observation_space:
        raise ValueError(
            f"{env_id} shows {envs.observation_space}, and the model was trained on "
            f"{model.observation_space}: give its own environment by --env"
        )
    returns, lengths = evaluate_policy(
        heeding_masks(model, envs),
        envs,
        episodes,
        deterministic=deterministic,
        return_episode_rewards=True,
    )
    envs.close()
    assert isinstance(returns, list)
    assert isinstance(lengths, list)
    return [float(x) for x in returns], lengths


def measure(
    model: MuZero,
    env_id: str,
    *,
    against: Sequence[str] = ("random",),
    episodes: int = 100,
    seed: int = 1000,
    by_rules: bool = False,
    preprocessing: Mapping[str, Any] = MappingProxyType({}),
) -> list[Evaluation]:
    """Greedy episodes as a card tells them; of a game, a match against each opponent.

    :param env_id: id in Gymnasium's registry, or a game's name
    :param against: of games: see `opponent`
    :param episodes: of each evaluation; of games, half of them with the first move
    :param preprocessing: see `evaluate_returns`
    """
    common: dict[str, Any] = {"seed": seed, "num_simulations": model.num_simulations}
    game = find_game(env_id)
    if game is None:
        returns, _ = evaluate_returns(model, env_id, episodes, seed, preprocessing=preprocessing)
        half = 1.96 * float(np.std(returns, ddof=1)) / math.sqrt(episodes) if episodes > 1 else 0.0
        mean, std = float(np.mean(returns)), float(np.std(returns))
        interval = (mean - half, mean + half)
        return [
            Evaluation(
                metric=RETURN, mean=mean, std=std, interval=interval, episodes=episodes, **common
            )
        ]
    results = evaluate_game(
        model, game, against, pairs=-(-episodes // 2), seed=seed, by_rules=by_rules
    )
    return [
        Evaluation(
            metric=POINTS,
            mean=result.score,
            std=float(np.std(result.scores)),
            interval=result.interval(),
            episodes=result.num_games,
            opponent=name,
            by_rules=by_rules,
            **common,
        )
        for name, result in zip(against, results, strict=True)
    ]


def measure_again(
    model: MuZero,
    card: Card,
    told: Evaluation,
    episodes: int | None = None,
    preprocessing: Mapping[str, Any] = MappingProxyType({}),
) -> Evaluation | None:
    """What a card tells, once more, with the same seed.

    :param model: its number of simulations is changed to what was told
    :param episodes: None: as many as were told; fewer are the first ones of these
    :return: None if this kind of evaluation is made by another program, or against one: what a
        card names is not run
    :raises ValueError: if its environment is one of a module that would have to be imported
    """
    if told.metric not in (RETURN, POINTS) or ":" in (told.opponent or ""):
        return None
    if runs_foreign_code(card.env):
        raise ValueError(
            f"the card names the environment {card.env!r}, and making that runs code of the module "
            "that it names: measure it with `measure`, if you trust it"
        )
    model.num_simulations = told.num_simulations
    (found,) = measure(
        model,
        card.env,
        against=[told.opponent or "random"],
        episodes=min(episodes or told.episodes, told.episodes),
        seed=told.seed,
        by_rules=told.by_rules,
        preprocessing=preprocessing,
    )
    return found


def agrees(told: Evaluation, found: Evaluation) -> bool:
    """Whether a repeated evaluation is within the interval of the one that was told.

    With fewer episodes the interval is as much wider as such a sample's: three of its standard
    errors.
    """
    low, high = told.bounds()
    slack = 1e-6 * abs(told.mean)  # of rounding
    if found.episodes < told.episodes:
        slack += 3 * told.std / math.sqrt(found.episodes)
    return low - slack <= found.mean <= high + slack


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
