"""Equal scores: the higher prior first, then the lower action, also where actions are cut off."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from numpy.typing import NDArray

from muzero_agent.search import RecurrentOutput, RootOutput, gumbel_muzero_policy, muzero_policy
from muzero_agent.search import kernels as typed_kernels
from muzero_agent.search.tree import NODE, SLOT

kernels: Any = typed_kernels  # numba's functions have no types
njit: Any = numba.njit


def search(policy: Any, logits: NDArray[np.floating], num_simulations: int, **keywords: Any) -> Any:
    """All rewards and values are 0, all nodes have the root's logits."""
    size = len(logits)
    zeros = np.zeros(size, np.float32)
    output = RecurrentOutput(zeros, zeros, np.asarray(logits, np.float32), zeros)
    quiet = {"dirichlet_fraction": 0, "temperature": 0}
    if policy is gumbel_muzero_policy:
        quiet = {"gumbel_scale": 0}
    root = RootOutput(output.prior_logits, zeros)
    return policy(root, lambda *_: output, num_simulations, **quiet, **keywords)


policies = pytest.mark.parametrize("policy", [muzero_policy, gumbel_muzero_policy])


@policies
@pytest.mark.parametrize("num_actions", [2, 9, 40, 200, 4672])
def test_equal_priors_go_by_action(policy: Any, num_actions: int) -> None:
    n = min(num_actions, 12)
    out = search(policy, np.zeros((2, num_actions)), n, max_depth=1)
    assert out.tree.trace_action[:n].tolist() == [[a, a] for a in range(n)]
    assert out.action.tolist() == [0, 0]


@policies
def test_higher_priors_come_first(policy: Any) -> None:
    out = search(policy, np.array([[0.0, 0.2, 0.1, 0.2]]), 4, max_depth=1)
    assert out.tree.trace_action[:4, 0].tolist() == [1, 3, 2, 0]
    assert out.action.tolist() == [1]


@policies
def test_zero_and_minus_zero_are_equal(policy: Any) -> None:
    out = search(policy, np.array([[-0.0, 0.0, -0.0, 0.0]]), 4, max_depth=1)
    assert out.tree.trace_action[:4, 0].tolist() == [0, 1, 2, 3]


@policies
@pytest.mark.parametrize("num_actions", [100, 5000])
def test_among_equals_at_the_cut_the_first_stay(policy: Any, num_actions: int) -> None:
    logits = np.zeros((1, num_actions))
    logits[0, [90, 50, 70]] = 0.01
    logits[0, 3] = -0.01
    out = search(policy, logits, 8, max_depth=1)
    assert out.tree.trace_action[:8, 0].tolist() == [50, 70, 90, 0, 1, 2, 4, 5]


@policies
def test_illegal_actions_do_not_count(policy: Any) -> None:
    invalid = np.zeros((1, 6), np.bool_)
    invalid[0, [0, 2]] = True
    out = search(policy, np.zeros((1, 6)), 4, max_depth=1, invalid_actions=invalid)
    assert out.tree.trace_action[:4, 0].tolist() == [1, 3, 4, 5]


@policies
def test_equal_scores_of_visited_actions_go_by_prior(policy: Any) -> None:
    keywords = {"max_num_considered_actions": 2} if policy is gumbel_muzero_policy else {}
    out = search(policy, np.zeros((1, 2)), 6, max_depth=1, **keywords)
    assert out.tree.trace_action[:6, 0].tolist() == [0, 1, 0, 1, 0, 1]


def node_of_two(logits: list[float]) -> tuple[Any, Any]:
    """A node with one visited child of two."""
    nodes, slots = np.zeros(1, NODE), np.zeros(2, SLOT)
    nodes[0]["num_slots"], nodes[0]["num_children"], nodes[0]["visits"] = 2, 1, 2
    slots["logit"], slots["action"], slots[0]["visits"] = logits, [0, 1], 1
    return nodes[0], slots


def test_puct_prefers_a_visited_action_to_an_equal_unvisited_one() -> None:
    node, slots = node_of_two([0.0, 0.0])
    slots["q"], slots["prior"] = [1.0, 0.0], [0.5, 0.75]
    select_puct = njit(kernels._select_puct.py_func)
    settings = np.zeros(1, kernels.SETTINGS)
    explore = np.full(3, 2, np.float32)  # 1 + 2 * 0.5 / 2 = 2 * 0.75
    assert select_puct(node, slots, settings[0], explore) == 0
    slots[1]["prior"] = 0.75001
    assert select_puct(node, slots, settings[0], explore) == 1


def test_gumbel_prefers_a_visited_action_to_an_equal_unvisited_one() -> None:
    node, slots = node_of_two([0.0, -np.log(2)])
    node["visits"], node["suffix"] = 4, 2.0  # p = 1/2 - 1/4 = 1/4
    select_improved = njit(kernels._select_improved.py_func)
    settings = np.zeros(1, kernels.SETTINGS)
    settings["num_actions"] = 2
    scores = np.zeros(2, np.float32)
    assert select_improved(node, slots, settings[0], scores) == 0
    slots[1]["logit"] += 1e-4
    assert select_improved(node, slots, settings[0], scores) == 1
