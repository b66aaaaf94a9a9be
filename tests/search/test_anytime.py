"""The search from one root that grows by slices: against the batch search, and against proofs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from muzero_agent.adapters.envs.games import TicTacToe, TicTacToeState
from muzero_agent.search import RecurrentOutput, RootOutput, Tree, muzero_policy
from muzero_agent.search.anytime import AnytimeSearch, Slice

from .tabular import Spec, Tabular


class Walker:
    """A tabular model for one root, by node index."""

    def __init__(self, model: Tabular) -> None:
        self.model = model
        self.states = np.zeros(0, np.int32)

    def root(self) -> RootOutput:
        logits = self.model.logits[self.model.root_state]
        self.states = self.model.root_state.copy()
        return RootOutput(
            np.where(self.model.invalid, -np.inf, logits).astype(np.float32),
            self.model.value[self.model.root_state],
        )

    def evaluate(self, edges: Slice) -> RecurrentOutput:
        assert edges.first_node == len(self.states)
        state = self.states[edges.parent]
        following = self.model.next_state[state, edges.action]
        self.states = np.concatenate([self.states, following])
        return RecurrentOutput(
            self.model.reward[state, edges.action],
            self.model.discount[state, edges.action],
            self.model.logits[following],
            self.model.value[following],
            None if self.model.terminal is None else self.model.terminal[following],
        )


def grow(search: AnytimeSearch, walker: Any, visits: int, leaves: int) -> None:
    while search.visits < visits:
        edges = search.gather(min(leaves, visits - search.visits))
        if len(edges.action):
            search.absorb(walker.evaluate(edges))
        elif search.fullness == 1:
            return


def as_tree(search: AnytimeSearch) -> Tree:
    """For `check_valid` and for reading everything at once."""
    tree = Tree(1, search.num_actions, 1)
    tree.nodes, tree.slots = search._nodes, search._slots
    tree.num_slots = search._num_slots
    return tree


@pytest.mark.parametrize("terminal", [False, True])
@pytest.mark.parametrize("actions", [2, 7, 60])
def test_one_leaf_at_a_time_is_the_batch_search(actions: int, terminal: bool) -> None:
    for seed in range(20):
        discount = "opponent" if seed % 2 else "mixed"
        model = Tabular(Spec(seed, 1, actions, 200, masked=True, discount=discount))
        if terminal:
            model.terminal = np.arange(24) % 5 == 0
        expected = muzero_policy(
            model.root(), model.recurrent_fn, 200, model.invalid,
            dirichlet_fraction=0, temperature=0,
        )  # fmt: skip
        walker = Walker(model)
        search = AnytimeSearch(actions, 300, slots_per_node=actions)
        search.plant(walker.root())
        grow(search, walker, 200, leaves=1)
        found = {child.action: child for child in search.children()}
        for action in range(actions):
            visits = expected.visit_counts[0, action]
            assert (found[action].visits if action in found else 0) == visits
            if visits:
                assert found[action].q == expected.q_values[0, action]
        assert search.value == expected.value[0]
        best = search.children()[0]
        line = search.variation(best.action)
        assert line[0] == best.action
        assert len(line) <= 64


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    actions=st.integers(1, 40),
    leaves=st.integers(1, 64),
    children=st.none() | st.integers(1, 8),
    terminal=st.booleans(),
)
def test_slices_leave_a_whole_tree(
    seed: int, actions: int, leaves: int, children: int | None, terminal: bool
) -> None:
    model = Tabular(Spec(seed, 1, actions, 1, discount="opponent"))
    if terminal:
        model.terminal = np.arange(24) % 3 == 0
    walker = Walker(model)
    search = AnytimeSearch(actions, 400, children=children, slots_per_node=actions)
    search.plant(walker.root())
    grow(search, walker, 300, leaves)
    assert search.visits >= 300
    assert sum(child.visits for child in search.children()) == search.visits
    assert not search._slots["pending"][0, : search._num_slots[0]].any()
    if children is None:
        as_tree(search).check_valid()
    for action in [child.action for child in search.children()[:2]]:
        before = {node: search.children(node) for node in range(search.num_nodes)}
        states, known = walker.states, search.num_nodes
        kept = search.descend(action)
        if kept is None:
            assert search.num_nodes == known
            continue
        walker.states = states[kept]
        assert len(kept) == search.num_nodes
        for node, was in enumerate(kept):
            assert search.children(node) == before[int(was)]
        grow(search, walker, search.visits + 50, leaves)
        assert not search._slots["pending"][0, : search._num_slots[0]].any()


def test_many_leaves_find_what_one_finds() -> None:
    """A bandit whose best arm is clear, behind priors that say nothing."""
    values = np.linspace(-0.5, 0.9, 30, dtype=np.float32)
    for leaves in (1, 8, 64):
        search = AnytimeSearch(30, 3000)
        zeros = np.zeros((1, 30), np.float32)
        search.plant(RootOutput(zeros, zeros[0, :1]))
        while search.visits < 2000:
            edges = search.gather(leaves)
            count = len(edges.action)
            reward = np.where(edges.parent == 0, values[edges.action], 0).astype(np.float32)
            search.absorb(
                RecurrentOutput(
                    reward,
                    np.zeros(count, np.float32),
                    np.zeros((count, 30), np.float32),
                    np.zeros(count, np.float32),
                )
            )
        assert search.children()[0].action == 29


# -- proofs --------------------------------------------------------------------------------------

RULES = TicTacToe()


@cache
def distance(state: TicTacToeState) -> int:
    """n > 0: who moves wins in n moves of both together; < 0: loses; 0: drawn by best play."""
    outcome = RULES.outcome(state)
    if outcome is not None:
        return 0
    found = []
    for action in RULES.legal(state):
        after = RULES.play(state, action)
        ended = RULES.outcome(after)
        if ended == -1.0:
            return 1
        behind = 0 if ended is not None else distance(after)
        found.append(0 if behind == 0 else (1 - behind if behind < 0 else -1 - behind))
    wins = [n for n in found if n > 0]
    if wins:
        return min(wins)
    return 0 if 0 in found else min(found)


class TrueGame:
    """TicTacToe's rules, and a network that knows nothing."""

    def __init__(self, state: TicTacToeState) -> None:
        self.states = [state]

    def root(self) -> RootOutput:
        return RootOutput(self._logits(self.states[0])[None], np.zeros(1, np.float32))

    def _logits(self, state: TicTacToeState) -> Any:
        logits = np.full(9, -np.inf, np.float32)
        logits[RULES.legal(state)] = 0
        return logits

    def evaluate(self, edges: Slice) -> RecurrentOutput:
        rows = []
        for parent, action in zip(edges.parent, edges.action, strict=True):
            state = RULES.play(self.states[parent], int(action))
            self.states.append(state)
            outcome = RULES.outcome(state)
            over = outcome is not None
            rows.append((-(outcome or 0.0), 0.0 if over else -1.0, over))
        reward, discount, ended = (np.array(column) for column in zip(*rows, strict=True))
        count = len(rows)
        return RecurrentOutput(
            reward.astype(np.float32),
            discount.astype(np.float32),
            np.stack([self._logits(state) for state in self.states[-count:]]),
            np.zeros(count, np.float32),
            ended.astype(np.bool_),
        )


@pytest.mark.parametrize("leaves", [1, 16])
def test_proofs_are_true_and_forced_wins_are_found(leaves: int) -> None:
    rng = np.random.default_rng(0)
    proven = 0
    for _ in range(60):
        state = RULES.initial()
        for _ in range(int(rng.integers(2, 6))):
            if RULES.outcome(state) is None:
                state = RULES.play(state, int(rng.choice(RULES.legal(state))))
        if RULES.outcome(state) is not None:
            continue
        game = TrueGame(state)
        search = AnytimeSearch(9, 30_000, slots_per_node=9, prove=True, min_q_range=1.0)
        search.plant(game.root())
        while search.visits < 3000:
            edges = search.gather(leaves)
            if len(edges.action):
                search.absorb(game.evaluate(edges))
        children = search.children()
        for child in children:
            after = RULES.play(state, child.action)
            ended = RULES.outcome(after)
            behind = 0 if ended is not None else distance(after)
            if child.mate > 0:  # the shortest line need not be known
                assert ended == -1.0 or (behind < 0 and child.mate >= 1 - behind)
                proven += 1
            if child.mate < 0:
                assert behind > 0
                proven += 1
        if distance(state) > 0:
            assert children[0].mate > 0
        elif distance(state) == 0:
            assert children[0].mate == 0
    assert proven > 50


def test_of_moves_that_lose_each_is_looked_at() -> None:
    search = AnytimeSearch(4, 1000, prove=True)
    search.plant(RootOutput(np.zeros((1, 4), np.float32), np.zeros(1, np.float32)))
    while search.visits < 40:
        count = len(search.gather(1).action)
        if count:
            nothing = np.zeros(count, np.float32)
            search.absorb(
                RecurrentOutput(
                    nothing - 1, nothing, np.zeros((count, 4), np.float32), nothing, nothing == 0
                )
            )
    assert [child.visits for child in search.children()] == [10] * 4
    assert all(child.mate == -1 for child in search.children())


# -- limits --------------------------------------------------------------------------------------


def test_a_full_tree_finds_no_more_edges() -> None:
    model = Tabular(Spec(0, 1, 5, 1))
    walker = Walker(model)
    search = AnytimeSearch(5, 50)
    search.plant(walker.root())
    assert search.fullness < 0.1
    grow(search, walker, 1000, 8)
    assert search.num_nodes == 50
    assert search.fullness == 1
    assert len(search.gather(8).action) == 0
    kept = search.descend(search.children()[0].action)
    assert kept is not None
    assert search.fullness < 1
    assert len(search.gather(8).action) > 0


def test_room_for_children_is_heeded() -> None:
    model = Tabular(Spec(0, 1, 30, 1))
    walker = Walker(model)
    search = AnytimeSearch(30, 1000, slots_per_node=3)
    search.plant(walker.root())
    grow(search, walker, 1000, 8)
    assert search._num_slots[0] <= search._slots.shape[1]
    assert search.fullness == 1


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="max_nodes"):
        AnytimeSearch(3, 1)
    with pytest.raises(ValueError, match="children"):
        AnytimeSearch(3, 10, children=0)
    search = AnytimeSearch(3, 10)
    two = np.zeros((2, 3), np.float32)
    with pytest.raises(ValueError, match="one row"):
        search.plant(RootOutput(two, two[:, 0]))
    search.plant(RootOutput(two[:1], two[0, :1]))
    search.gather(2)
    with pytest.raises(RuntimeError, match="waiting"):
        search.gather(2)
    with pytest.raises(RuntimeError, match="waiting"):
        search.descend(0)
    bad = np.full(2, np.nan, np.float32)
    with pytest.raises(ValueError, match="NaN"):
        search.absorb(RecurrentOutput(bad, two[:, 0], two, two[:, 0]))
