"""A model of a game, and what it thinks of a position at present."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from muzero_agent.adapters.engines.options import C_PUCT, HASH, MINIBATCH
from muzero_agent.search.anytime import AnytimeSearch, node_bytes
from muzero_agent.thinking import EvaluationCache, LatentModel, RulesModel, Thinker, traced_steps

if TYPE_CHECKING:
    from muzero_agent.types import Rules

LATENT_CHILDREN = 64
"""Actions that a node of the learned model keeps at most: it knows none to be illegal."""


class Game(Protocol):
    """A game that an engine is asked about: where it began, and what was played."""

    @property
    def start(self) -> str:
        """What tells one beginning from another."""
        ...

    def actions(self) -> list[int]:
        """Of both players, since then."""
        ...

    def state(self) -> Any:
        """By the rules, with what counts of the history."""
        ...


class Mind:
    """A model, and one tree of thoughts that goes on from move to move.

    :param model: a `MuZero` that has learned the game, from `zoo.load`
    :param rules: of its game
    :param state_bytes: memory of a state, roughly
    :param slots: legal actions of a state, on average
    :param most_legal: and at most
    :param latent_error: least range of Q values (see `muzero_policy`) in the learned model, as a
        multiple of that by the rules, which is 0.5 at most: values that are imagined are wrong by
        more
    :raises ValueError: if it is a model of another game
    """

    def __init__(
        self,
        model: Any,
        rules: Rules[Any],
        *,
        state_bytes: int,
        slots: int,
        most_legal: int,
        latent_error: float = 1.0,
    ) -> None:
        self.model = model
        if getattr(model.action_space, "n", None) != rules.num_actions:
            raise ValueError(
                f"it is a model of another game: its actions are {model.action_space}, and here "
                f"are {rules.num_actions}"
            )
        self.rules = rules
        self._state_bytes, self._slots, self._most_legal = state_bytes, slots, most_legal
        self._latent_error = latent_error
        self.current: Thinker[Any] | None = None
        self._made_for: tuple[Any, ...] = ()
        self._behind = traced_steps()  # once for all trees: it takes half a second
        self.cache = EvaluationCache(0)
        self._least_too_much: float = math.inf  # megabytes for which there was no room
        self._start, self._actions, self._whole = "", list[int](), False

    def warm_up(self, game: Game, planner: str) -> None:
        """Think a little, so that the first move finds everything in place."""
        thinker = self.think_of(game, planner, megabytes=1)
        for _ in range(4):
            thinker.grow()
        thinker.follow(thinker.search.children()[0].action)
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next position."""
        self._whole = False

    def drop(self) -> None:
        """Give up the tree, as after an error in the midst of a search."""
        self.current = None
        self.forget()

    def by_policy(self, game: Game, allowed: Collection[int] = ()) -> int:
        """The action that the network likes best at first sight."""
        state = game.state()
        obs: Any = self.rules.observe(state)
        logits = self.model.policy.evaluate(obs[None]).prior_logits[0]
        choices = sorted(allowed or self.rules.legal(state))  # of equals the first, as in a search
        return max(choices, key=lambda action: float(logits[action]))

    def think_of(
        self,
        game: Game,
        planner: str,
        *,
        allowed: Collection[int] = (),
        megabytes: int = HASH,
        leaves: int = MINIBATCH,
        c_puct: float = C_PUCT,
        keep: bool = True,
    ) -> Thinker[Any]:
        """What thinks about the game's position; with what it thought of it before, if it can.

        :param planner: "rules" or "latent"
        :param allowed: actions to choose among; empty: all
        :param megabytes: memory that it may take; where there is no room for it, half of it, and
            so on: see `megabytes`
        :param leaves: see `Thinker`
        :param c_puct: see `muzero_policy`, c1
        :param keep: whether to go on with the tree of the position before
        """
        while True:
            try:
                thinker = self._thinker(planner, megabytes, c_puct)
                thinker.leaves = leaves
                if not (keep and not allowed and self._follow(game, thinker)):
                    thinker.begin(self._root(game, planner), allowed or None)
                break
            except MemoryError:
                self.drop()
                if self.megabytes <= 1:
                    raise
                self._least_too_much = self.megabytes
        self._start, self._actions, self._whole = game.start, game.actions(), not allowed
        return thinker

    @property
    def megabytes(self) -> int:
        """Memory that the tree may take at present."""
        return int(self._made_for[1]) if self._made_for else 0

    def _thinker(self, planner: str, megabytes: int, c_puct: float) -> Thinker[Any]:
        while megabytes >= self._least_too_much and megabytes > 1:
            megabytes //= 2
        made_for = (planner, megabytes, c_puct)
        if self.current is None or self._made_for != made_for:
            self.drop()  # its memory is free before the next takes it
            self._made_for = made_for
            self.current = self._make(*made_for)
        return self.current

    def _follow(self, game: Game, thinker: Thinker[Any]) -> bool:
        """Go on with the tree, if the game went on from where it was."""
        known, actions = len(self._actions), game.actions()
        if not self._whole or (self._start, self._actions) != (game.start, actions[:known]):
            return False
        return all(thinker.follow(action) for action in actions[known:])

    def _root(self, game: Game, planner: str) -> Any:
        state = game.state()
        if planner == "rules":
            return state
        legal = np.zeros(self.rules.num_actions, np.bool_)
        legal[self.rules.legal(state)] = True
        obs: Any = self.rules.observe(state)
        return self.model.policy.network_input(obs[None]), legal

    def _make(self, planner: str, megabytes: int, c_puct: float) -> Thinker[Any]:
        policy = self.model._configured_policy()
        by_rules = planner == "rules"
        q_range = policy.min_q_range * (1.0 if by_rules else self._latent_error)
        slots = self._slots if by_rules else min(LATENT_CHILDREN, self.rules.num_actions)
        size = node_bytes(slots) + (self._state_bytes if by_rules else policy.latent_bytes)
        max_nodes = max((megabytes << 20) // size, 256)
        search = AnytimeSearch(
            self.rules.num_actions,
            max_nodes,
            children=None if by_rules else LATENT_CHILDREN,
            most_legal=self._most_legal,
            slots_per_node=slots,
            prove=by_rules,
            pb_c_init=c_puct,
            min_q_range=max(q_range, 1e-8),
        )
        model: Any = (
            RulesModel(self.rules, policy.evaluate, self.cache)
            if by_rules
            else LatentModel(
                policy.target_network,
                max_nodes,
                discount=policy.discount,
                terminal_rewards=policy.terminal_rewards,
                traced=self._behind,
            )
        )
        return Thinker(model, search)
