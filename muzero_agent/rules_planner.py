"""Plans by the true rules of a game, in which the network evaluates each position.

Not MuZero proper, which knows no rules, but AlphaZero's search with MuZero's network: legal moves,
wins and draws are exact, and so it is the strongest play that a network has.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from muzero_agent.planner import Plan, search_from
from muzero_agent.search import Tree
from muzero_agent.types import Observation, RecurrentOutput, RootOutput, Rules

_CERTAIN = 20.0  # by so much a logit is above others that count for nothing
State = TypeVar("State")
Evaluate = Callable[[Observation], RootOutput]
"""The network's policy logits [B, A] and values [B] for observations [B, ...] without masks."""


class EvaluationCache:
    """What the network said of positions; those that were not asked for the longest go first.

    Everything is kept as bytes, since small arrays would lie between the large ones of a search.

    :param size: positions; 0 keeps none. One of chess takes 0.4 kB.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._known: OrderedDict[bytes, tuple[bytes, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def resize(self, size: int) -> None:
        """Keep so many at most, from now on."""
        self.size = size
        while len(self._known) > size:
            self._known.popitem(last=False)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()

    @staticmethod
    def key(board: NDArray[Any], legal: Sequence[int]) -> bytes:
        """By what a position is known: its observation, and the actions that are legal there."""
        seen = hashlib.blake2b(np.ascontiguousarray(board).data, digest_size=16)
        seen.update(np.array(legal, np.int32).data)
        return seen.digest()

    def get(self, key: bytes) -> tuple[NDArray[np.float32], float] | None:
        """Logits of the legal actions, and the value; None if it is not known."""
        found = self._known.get(key)
        if found is None:
            return None
        self._known.move_to_end(key)
        return np.frombuffer(found[0], np.float32), found[1]

    def put(self, key: bytes, logits: NDArray[np.float32], value: float) -> None:
        """Keep what was said."""
        self._known[key] = (logits.tobytes(), value)
        self.resize(self.size)


class RulesModel(Generic[State]):
    """The rules as a model to search in: states stand where a learned model has latents.

    :param rules: of a game of two players who take turns
    :param evaluate: called once for all positions of a step in which the game goes on
    :param cache: of what `evaluate` says; None: it is asked each time
    """

    follows = True

    def __init__(
        self, rules: Rules[State], evaluate: Evaluate, cache: EvaluationCache | None = None
    ) -> None:
        self.rules = rules
        self.evaluate = evaluate
        self.cache = cache
        self.states: list[State] = []

    def plant(self, states: Sequence[State]) -> RootOutput:
        """Begin with these states, a root each; even where a game counts as over its moves count.

        Where the network expects more than a draw, moves that draw at once come last: in searches
        of few visits nothing else would tell that, say, a position is repeated for the third time.

        :raises ValueError: for a state without legal moves
        """
        self.states = list(states)
        legal = [self.rules.legal(state) for state in states]
        if not all(legal):
            raise ValueError(f"state {legal.index([])} has no legal move: the game is over there")
        root = self._evaluated(states, legal)
        for row, state in enumerate(states):
            if root.value[row] > 0:
                draws = [
                    a for a in legal[row] if self.rules.outcome(self.rules.play(state, a)) == 0
                ]
                root.prior_logits[row, draws] = root.prior_logits[row, legal[row]].min() - _CERTAIN
        return root

    def step(self, parents: Sequence[int], actions: Sequence[int]) -> RecurrentOutput:
        """Play a move in each of n states, and add the states behind them.

        :param parents: numbers of the states, in the order in which they came
        :param actions: legal there
        :return: rows for the n new states; those of ends are terminal
        """
        rules, size = self.rules, len(parents)
        reward, value = np.zeros(size, np.float32), np.zeros(size, np.float32)
        logits = np.zeros((size, rules.num_actions), np.float32)
        terminal = np.zeros(size, np.bool_)
        open_rows, legal = [], []
        for row, (parent, action) in enumerate(zip(parents, actions, strict=True)):
            state = rules.play(self.states[parent], action)
            self.states.append(state)
            outcome = rules.outcome(state)
            if outcome is None:
                open_rows.append(row)
                legal.append(rules.legal(state))
            else:
                reward[row], terminal[row] = -outcome, True
        if open_rows:
            new = self.states[-size:]
            found = self._evaluated([new[row] for row in open_rows], legal)
            logits[open_rows], value[open_rows] = found.prior_logits, found.value
        discount = np.where(terminal, 0, -1).astype(np.float32)
        return RecurrentOutput(reward, discount, logits, value, terminal)

    def keep(self, kept: NDArray[np.int32]) -> None:
        """Forget all states but these."""
        self.states = [self.states[index] for index in kept]

    def _evaluated(self, states: Sequence[State], legal: list[list[int]]) -> RootOutput:
        """What the network says, but where a move wins at once: there it comes first and the value
        is 1, whatever the network makes of it. A prior of 1% would hide it for thousands of visits.
        """
        boards: list[Any] = [self.rules.observe(state) for state in states]
        logits = np.full((len(states), self.rules.num_actions), -np.inf, np.float32)
        values = np.empty(len(states), np.float32)
        unknown, keys = list(range(len(states))), list[bytes]()
        if self.cache is not None and self.cache.size:
            keys = [self.cache.key(*pair) for pair in zip(boards, legal, strict=True)]
            for row, known in enumerate(map(self.cache.get, keys)):
                if known is not None:
                    logits[row, legal[row]], values[row] = known
                    unknown.remove(row)
        if unknown:
            found = self.evaluate(np.stack([boards[row] for row in unknown]))
            for row, said, value in zip(unknown, found.prior_logits, found.value, strict=True):
                logits[row, legal[row]], values[row] = said[legal[row]], value
                if keys and self.cache is not None:
                    self.cache.put(keys[row], said[legal[row]], float(value))
        for row, state in enumerate(states):
            if wins := self.rules.wins(state, legal[row]):
                logits[row, wins] = logits[row, legal[row]].max() + _CERTAIN
                values[row] = 1.0
        return RootOutput(logits, values)


def _check(rules: object) -> None:
    lacking = [
        name
        for name in sorted({*vars(Rules), "num_actions"})
        if not name.startswith("_") and not hasattr(rules, name)
    ]
    if lacking or isinstance(rules, type):
        raise TypeError(
            f"{rules!r} are no rules: give an object such as ConnectFour(), with all that "
            f"muzero_agent.types.Rules names{': ' if lacking else ''}{', '.join(lacking)}"
        )


class RulesPlanner(Generic[State]):
    """Searches like `LatentPlanner`, but along the true rules.

        planner = RulesPlanner(ConnectFour())
        plan = model.plan(state, planner=planner)

    :param rules: of the game that the network has learned
    :raises TypeError: if they lack something that `Rules` names
    """

    def __init__(self, rules: Rules[State]) -> None:
        _check(rules)
        self.rules = rules
        self._state = type(rules.initial())
        self._tree: Tree | None = None
        self._shape = (0, 0, 0)

    def plan(
        self,
        states: Sequence[State],
        evaluate: Evaluate,
        *,
        num_simulations: int,
        search: str,
        rng: np.random.Generator,
        **settings: Any,
    ) -> Plan:
        """Search from B states at once.

        :param states: in which there are legal moves
        :param evaluate: see `Evaluate`
        :param settings: as of `LatentPlanner.plan`
        :raises ValueError: for a state without legal moves
        """
        wrong = [state for state in states if not isinstance(state, self._state)]
        if wrong:
            raise TypeError(
                f"{wrong[0]!r} is no state of {type(self.rules).__name__}: give what its initial() "
                "and play() return, or a list of these"
            )
        batch, model = len(states), RulesModel(self.rules, evaluate)
        shape = (batch, self.rules.num_actions, num_simulations)
        if self._tree is None or self._shape != shape:
            self._tree, self._shape = Tree(*shape), shape
        root = model.plant(states)
        rows = np.arange(batch)
        number = np.zeros((num_simulations + 1, batch), np.int64)  # of the state of each node
        number[0] = rows

        def recurrent_fn(
            simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32]
        ) -> RecurrentOutput:
            number[simulation + 1] = len(model.states) + rows
            return model.step(number[parent, rows].tolist(), action.tolist())

        return search_from(
            root,
            recurrent_fn,
            self._tree,
            num_simulations=num_simulations,
            search=search,
            rng=rng,
            legal_actions=root.prior_logits > -np.inf,
            **settings,
        )
