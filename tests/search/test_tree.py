"""The preallocated tree: its checks, and that a simulation allocates nothing."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from muzero_agent.search import RecurrentOutput, RootOutput, Tree, gumbel_muzero_policy, kernels
from muzero_agent.search import muzero_policy as puct
from muzero_agent.search.tree import FEW_ACTIONS

from .tabular import Spec, Tabular


def searched(num_actions: int = 6, num_simulations: int = 30) -> Tree:
    model = Tabular(Spec(1, 3, num_actions, num_simulations))
    rng = np.random.default_rng(0)
    return puct(model.root(), model.recurrent_fn, num_simulations, rng=rng).tree


@pytest.mark.parametrize("size", [(2, 6, 30), (3, 5, 30), (3, 6, 29)])
@pytest.mark.parametrize("policy", [puct, gumbel_muzero_policy])
def test_a_tree_that_is_too_small(policy: Any, size: tuple[int, int, int]) -> None:
    model = Tabular(Spec(1, 3, 6, 30))
    with pytest.raises(ValueError, match=r"at least Tree\(3, 6, 30\)"):
        policy(model.root(), model.recurrent_fn, 30, tree=Tree(*size))


@pytest.mark.parametrize("size", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_a_tree_without_room(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match="give at least 1"):
        Tree(*size)


def test_a_tree_has_room_to_the_last_slot() -> None:
    for num_actions in (1, FEW_ACTIONS, FEW_ACTIONS + 1, 200):
        tree = searched(num_actions, 60)
        tree.check_valid()
        assert (tree.num_slots <= tree.slots.shape[1]).all()


def test_an_empty_tree_is_valid() -> None:
    Tree(2, 3, 4).check_valid()


@pytest.mark.parametrize(
    ("field", "index", "value", "message"),
    [
        ("visits", 0, 5, "visits and value"),
        ("value", 0, np.nan, "not finite"),
        ("value", 0, 9, "visits and value"),
        ("num_children", 0, 7, "more children than slots"),
        ("parent", 1, 2, "another parent"),
        ("slot", 1, 5, "a wrong slot"),
        ("depth", 1, 3, "another depth"),
        ("reward", 1, 3, "Q is not"),
        ("visits", 1, 0, "visits"),
        ("first", 1, 1, "slot|child|visited"),
    ],
)
def test_a_damaged_node_is_found(field: str, index: int, value: float, message: str) -> None:
    tree = searched()
    tree.nodes[field][1, index] = value
    with pytest.raises(ValueError, match=f"row 1.*({message})"):
        tree.check_valid()


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("action", 6, "above the last"),
        ("action", -1, "below 0"),
        ("visits", 1, "an unvisited|differ"),
        ("q", 7, "Q is not|visits and value"),
        ("logit", -9, "not the best"),
    ],
)
def test_a_damaged_slot_is_found(field: str, value: float, message: str) -> None:
    tree = searched()
    tree.slots[field][2, 0] = value
    with pytest.raises(ValueError, match=f"row 2.*({message})"):
        tree.check_valid()


@pytest.mark.parametrize("policy", [puct, gumbel_muzero_policy])
@pytest.mark.parametrize("num_actions", [4, 4672])
def test_a_simulation_allocates_nothing(policy: Any, num_actions: int) -> None:
    size, n = 64, 40
    rng = np.random.default_rng(0)
    output = RecurrentOutput(
        reward=rng.random(size, np.float32),
        discount=np.ones(size, np.float32),
        prior_logits=rng.random((size, num_actions), np.float32),
        value=rng.random(size, np.float32),
    )
    peaks: list[int] = []

    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        now, peak = tracemalloc.get_traced_memory()
        peaks.append(peak - now)
        tracemalloc.reset_peak()
        return output

    tree = Tree(size, num_actions, n)
    root = RootOutput(output.prior_logits, output.value)
    policy(root, recurrent_fn, n, tree=tree, rng=rng)
    searches = []
    tracemalloc.start()
    try:
        for _ in range(3):
            peaks.clear()
            policy(root, recurrent_fn, n, tree=tree, rng=rng)
            searches.append(peaks[1:])
    finally:
        tracemalloc.stop()
    # What other threads of the process allocate is counted, too, but not each time.
    most = np.min(searches, axis=0).max()
    assert most < 1500  # arguments in tuples; one array of a number per row: 256 and 100


def test_kernels_cannot_allocate() -> None:
    # numba refuses to compile an allocation without its runtime
    kernels.compile_all()
    for name in ("advance", "gather", "absorb", "absorb_all", "reroot", "summarise"):
        kernel = getattr(kernels, name)
        assert kernel.targetoptions["_nrt"] is False


def test_the_arrays_handed_out_keep_their_contents() -> None:
    model = Tabular(Spec(3, 4, 5, 20))
    seen: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []
    copies: list[tuple[NDArray[np.int32], NDArray[np.int32]]] = []

    def recurrent_fn(
        simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        assert parent.dtype == action.dtype == np.int32
        assert parent.shape == action.shape == (4,)
        seen.append((parent, action))
        copies.append((parent.copy(), action.copy()))
        return model.recurrent_fn(simulation, parent, action)

    puct(model.root(), recurrent_fn, 20)
    np.testing.assert_array_equal(seen, copies)
