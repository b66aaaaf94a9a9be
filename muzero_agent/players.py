"""Who plays in a match: models, and opponents of known strength that look ahead by the rules.

A player is asked for moves in several games at once, so that a network is called once for all.
"""

from __future__ import annotations

import inspect
import math
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from muzero_agent.observations import add_batch_dimension, concatenate
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.types import Rules

State = TypeVar("State")

RESIGN = -1
"""What a player gives in place of a move to lose the game at once."""


@dataclass(frozen=True)
class Position(Generic[State]):
    """What a player is shown of one game."""

    observation: Any  # of the environment, seen by the player to move
    legal: NDArray[np.bool_]  # [A]
    state: State | None = None  # by the rules, where they are known
    actions: tuple[int, ...] = ()  # of both players, from the beginning of the game on


class Player(Protocol):
    """Plays a game, or several at once."""

    name: str

    def seed(self, seed: int) -> None:
        """Seed what is random about it."""
        ...

    def act(self, positions: Sequence[Position[Any]]) -> list[int]:
        """A move for each position, or `RESIGN`."""
        ...


class _Random:
    def __init__(self) -> None:
        self.rng = random.Random(0)

    def seed(self, seed: int) -> None:
        """Seed the draw of moves."""
        self.rng.seed(seed)


class RandomPlayer(_Random):
    """Plays every legal move with the same chance."""

    name = "random"

    def act(self, positions: Sequence[Position[Any]]) -> list[int]:
        """A legal move for each position."""
        return [self.rng.choice(np.flatnonzero(p.legal).tolist()) for p in positions]


class _ByRules(_Random, ABC, Generic[State]):
    """Base of players who know the rules."""

    def __init__(self, rules: Rules[State]) -> None:
        super().__init__()
        self.rules = rules

    def act(self, positions: Sequence[Position[State]]) -> list[int]:
        """A move for each position."""
        return [self.choose(_state(position)) for position in positions]

    @abstractmethod
    def choose(self, state: State) -> int:
        """A move in one position."""


class AlphaBetaPlayer(_ByRules[State]):
    """Searches all lines of `depth` moves; what is still open there counts as a draw.

    Depth 1 takes a win if there is one (one-ply), depth 2 prevents one as well, and as deep as the
    game is long it plays perfectly. Among moves of equal worth it draws by lot.

    :param depth: moves to look ahead, >= 1
    """

    def __init__(self, rules: Rules[State], depth: int) -> None:
        super().__init__(rules)
        if depth < 1:
            raise ValueError(f"depth={depth}: give 1 or more")
        self.depth = depth
        self.name = "one-ply" if depth == 1 else f"alpha-beta {depth}"
        self._known: dict[tuple[State, int], float] = {}

    def choose(self, state: State) -> int:
        """The best move, by lot among equals."""
        worth = self.action_values(state)
        best = max(worth.values())
        return self.rng.choice([action for action, value in worth.items() if value == best])

    def action_values(self, state: State) -> dict[int, float]:
        """What each legal action leads to, exactly: a bound would not tell which are equal."""
        return {
            action: -self._value(self.rules.play(state, action), self.depth - 1, -1.0, 1.0)
            for action in self.rules.legal(state)
        }

    def _value(self, state: State, depth: int, alpha: float, beta: float) -> float:
        outcome = self.rules.outcome(state)
        if outcome is not None:
            return outcome
        if depth == 0:
            return 0.0
        lowest = alpha
        if (known := self._known.get((state, depth))) is not None:
            return known
        value = -math.inf
        for action in self.rules.legal(state):
            value = max(
                value, -self._value(self.rules.play(state, action), depth - 1, -beta, -alpha)
            )
            alpha = max(alpha, value)
            if alpha >= beta:
                break
        if lowest < value < beta or (lowest, beta) == (-1.0, 1.0):  # else it is a bound
            self._known[state, depth] = value
        return value


class _Node(Generic[State]):
    __slots__ = ("children", "legal", "outcome", "state", "total", "visits")

    def __init__(self, rules: Rules[State], state: State) -> None:
        self.state = state
        self.outcome = rules.outcome(state)
        self.legal = rules.legal(state) if self.outcome is None else []
        self.children: dict[int, _Node[State]] = {}
        self.visits = 0
        self.total = 0.0  # of outcomes, for the player who moved into this node


class RolloutPlayer(_ByRules[State]):
    """Monte Carlo tree search by the rules, with games of random moves for an evaluation.

    UCT (Kocsis & Szepesvari 2006): each simulation expands one node and plays it out at random; the
    most visited move is played.

    :param num_rollouts: simulations of each search
    :param exploration: weight of UCB's bonus, for outcomes in [-1, 1]
    """

    def __init__(self, rules: Rules[State], num_rollouts: int, exploration: float = 1.4) -> None:
        super().__init__(rules)
        if num_rollouts < 1:
            raise ValueError(f"num_rollouts={num_rollouts}: give 1 or more")
        self.num_rollouts = num_rollouts
        self.exploration = exploration
        self.name = f"MCTS {num_rollouts}"

    def choose(self, state: State) -> int:
        """The most visited move, by lot among equals."""
        root = _Node(self.rules, state)
        for _ in range(self.num_rollouts):
            self._simulate(root)
        most = max(child.visits for child in root.children.values())
        return self.rng.choice([a for a, child in root.children.items() if child.visits == most])

    def _simulate(self, root: _Node[State]) -> None:
        node, path = root, [root]
        while node.outcome is None and len(node.children) == len(node.legal):
            node = self._select(node)
            path.append(node)
        if node.outcome is None:
            action = self.rng.choice([a for a in node.legal if a not in node.children])
            child = _Node(self.rules, self.rules.play(node.state, action))
            node.children[action] = child
            node = child
            path.append(node)
        value = node.outcome
        if value is None:
            value = self.rules.rollout(node.state, self.rng)
        for passed in reversed(path):
            value = -value  # for the player who moved into the node
            passed.visits += 1
            passed.total += value

    def _select(self, node: _Node[State]) -> _Node[State]:
        bonus = self.exploration * math.sqrt(math.log(node.visits))
        return max(
            node.children.values(),
            key=lambda child: child.total / child.visits + bonus / math.sqrt(child.visits),
        )


class ModelPlayer:
    """A model of this package, of Stable-Baselines3 or of sb3-contrib (such as MaskablePPO).

    :param model: what has `predict`; masks are given to those that take them. Others may play an
        illegal move, by which they lose the game.
    :param name: in tables
    :param deterministic: see `predict`
    """

    def __init__(self, model: Any, name: str | None = None, deterministic: bool = True) -> None:
        self.model = model
        self.name = type(model).__name__ if name is None else name
        self.deterministic = deterministic
        self._takes_masks = "action_masks" in inspect.signature(model.predict).parameters

    def seed(self, seed: int) -> None:
        """Seed a model that draws its moves."""
        if not self.deterministic:
            self.model.set_random_seed(seed)

    def act(self, positions: Sequence[Position[Any]]) -> list[int]:
        """A move for each position, of one call of `predict`."""
        obs = reduce(concatenate, (add_batch_dimension(p.observation) for p in positions))
        masks = {}
        if self._takes_masks:
            masks["action_masks"] = np.stack([position.legal for position in positions])
        actions, _ = self.model.predict(obs, deterministic=self.deterministic, **masks)
        return [int(action) for action in actions]


class RulesModelPlayer(_ByRules[State]):
    """A model of this package that looks ahead by the true rules, not in what it learned of them.

    :param model: `MuZero`
    """

    def __init__(self, model: Any, rules: Rules[State], name: str | None = None) -> None:
        super().__init__(rules)
        self.model = model
        self.planner = RulesPlanner(rules)
        self.name = f"{type(model).__name__} by the rules" if name is None else name

    def act(self, positions: Sequence[Position[State]]) -> list[int]:
        """A move for each position, of one search."""
        states = [_state(position) for position in positions]
        return self.model.plan(states, planner=self.planner).action.tolist()  # type: ignore[no-any-return]

    def choose(self, state: State) -> int:
        """A move in one position."""
        return int(self.model.plan([state], planner=self.planner).action[0])


def _state(position: Position[State]) -> State:
    if position.state is None:
        raise ValueError("this player looks ahead by the rules: give the match `rules`")
    return position.state
