"""Parts of the kernels that only rare searches would try: the exponential, the choice of slots."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from muzero_agent.search import kernels as typed_kernels
from muzero_agent.search.tree import NODE, SLOT

kernels: Any = typed_kernels  # numba's functions have no types
njit: Any = numba.njit
expand = njit(kernels._expand.py_func)


exponentials = njit(lambda x, out: kernels._exponentials(x, np.float32(0), out))


def test_exponential() -> None:
    x = -np.geomspace(1e-8, 86.9, 100_001, dtype=np.float32)
    out = np.empty_like(x)
    exponentials(x, out)
    np.testing.assert_allclose(out, np.exp(x.astype(np.float64)), rtol=2e-7)
    edges = np.array([0.0, -0.0, -87.1, -1000, -np.inf], np.float32)
    exponentials(edges, out[:5])
    assert out[:5].tolist() == [1, 1, 0, 0, 0]


def expanded(logits: NDArray[np.float32], capacity: int, keep_all: bool) -> tuple[np.void, object]:
    nodes, slots = np.zeros(1, NODE), np.zeros(logits.size, SLOT)
    floats, ints = np.zeros((2, logits.size), np.float32), np.zeros((2, logits.size), np.int32)
    scratch = kernels._Scratch(floats[0], floats[1], ints[0], ints[1])
    status = expand(nodes[0], slots, logits, capacity, keep_all, scratch)
    assert status == kernels.FINE
    return nodes[0], slots[: nodes[0]["num_slots"]]


def check_expansion(logits: NDArray[np.float32], capacity: int) -> None:
    exact = logits.astype(np.float64)
    wanted = np.lexsort((np.arange(logits.size), -exact))[: min(capacity, np.isfinite(exact).sum())]
    node, slots = expanded(logits, capacity, keep_all=False)
    assert isinstance(slots, np.ndarray)
    assert sorted(slots["action"].tolist()) == sorted(wanted.tolist())
    np.testing.assert_array_equal(slots["logit"], logits[slots["action"]])
    if len(wanted) == 0:
        return
    weights = np.exp(exact - exact.max())
    prior = weights / weights.sum()
    np.testing.assert_allclose(slots["prior"], prior[slots["action"]], rtol=1e-5, atol=1e-37)
    others = np.delete(exact, wanted)
    others = others[np.isfinite(others)]
    if len(others) == 0:
        assert node["tail"] == 0
    else:
        assert node["least"] == logits[wanted].min()
        tail = np.exp(np.maximum(others - node["least"], -700)).sum()
        np.testing.assert_allclose(node["tail"], tail, rtol=1e-4, atol=1e-37)


floats = st.floats(-30, 30, width=32)
awkward = st.one_of(
    floats, st.sampled_from([0.0, -0.0, 1.0, -np.inf, float(np.finfo(np.float32).min), 1e-38])
)


@settings(max_examples=100, deadline=None)
@given(
    logits=st.integers(1, 400).flatmap(
        lambda n: arrays(np.float32, n, elements=awkward, fill=st.one_of(floats, st.just(-np.inf)))
    ),
    capacity=st.integers(1, 60),
)
def test_slots_are_for_the_best_of_awkward_logits(
    logits: NDArray[np.float32], capacity: int
) -> None:
    check_expansion(logits, capacity)


@pytest.mark.parametrize("num_actions", [33, 362, 4672])
@pytest.mark.parametrize("capacity", [1, 7, 50, 300])
def test_slots_are_for_the_best(num_actions: int, capacity: int) -> None:
    rng = np.random.default_rng(num_actions)
    normal = rng.standard_normal(num_actions).astype(np.float32)
    for logits in (
        normal,
        np.sort(normal),
        np.round(normal),  # many equal ones
        np.zeros_like(normal),
        np.where(np.arange(num_actions) % 17 == 3, 1000, normal),  # outliers
        np.where(rng.random(num_actions) < 0.9, -np.inf, normal),
        np.where(np.arange(num_actions) < num_actions - 20, -np.inf, normal),
        normal * np.float32(1e-30),
        normal * np.float32(1e30),
    ):
        check_expansion(logits.astype(np.float32), capacity)


def test_all_actions_are_kept() -> None:
    logits = np.array([0.5, -np.inf, 2.0, 0.5], np.float32)
    node, slots = expanded(logits, 1, keep_all=True)
    assert isinstance(slots, np.ndarray)
    assert slots["action"].tolist() == [0, 2, 3]
    assert node["tail"] == 0
