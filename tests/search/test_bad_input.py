"""Errors name what is wrong, where, and the fix; what only looks different is converted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from muzero_agent.search import RecurrentOutput, RootOutput, Tree, gumbel_muzero_policy
from muzero_agent.search import muzero_policy as puct

from .tabular import Spec, Tabular

policies = pytest.mark.parametrize("policy", [puct, gumbel_muzero_policy])


def quiet(policy: Any) -> dict[str, Any]:
    return {"temperature": 0, "dirichlet_fraction": 0} if policy is puct else {"gumbel_scale": 0}


def call(policy: Any, root: dict[str, Any] | None = None, **keywords: Any) -> Any:
    model = Tabular(Spec(0, 3, 4, 8))
    arguments = {"num_simulations": 8, "recurrent_fn": model.recurrent_fn} | keywords
    return policy(model.root()._replace(**(root or {})), **arguments)


@policies
@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"num_simulations": 0}, "num_simulations is 0; give at least 1"),
        ({"num_simulations": -3}, "num_simulations is -3; give at least 1"),
        ({"max_depth": 0}, "max_depth is 0; give at least 1"),
        ({"invalid_actions": np.ones((3, 4), np.bool_)}, r"no action is legal in rows \[0, 1, 2\]"),
        ({"invalid_actions": np.ones((3, 5), np.bool_)}, r"give bool \(3, 4\)"),
        ({"invalid_actions": np.ones((3, 4))}, r"is float64 \(3, 4\); give bool"),
        ({"root": {"prior_logits": np.zeros(4, np.float32)}}, r"shape \(4,\); give \[B, A\]"),
        ({"root": {"prior_logits": np.zeros((3, 0), np.float32)}}, r"give \[B, A\]"),
        ({"root": {"prior_logits": np.zeros((3, 4), int)}}, "is int64; give float32"),
        ({"root": {"prior_logits": np.zeros((2, 4), np.float32)}}, r"value has shape \(3,\)"),
        ({"root": {"prior_logits": np.full((3, 4), np.nan)}}, r"NaN or inf in rows \[0, 1, 2\]"),
        ({"root": {"prior_logits": np.full((3, 4), np.inf)}}, r"NaN or inf in rows"),
        ({"root": {"prior_logits": np.full((3, 4), -np.inf)}}, "no action is legal"),
        ({"root": {"value": np.zeros((3, 1), np.float32)}}, r"root.value has shape \(3, 1\)"),
        ({"root": {"value": np.array([0, np.nan, 0])}}, r"root.value .* rows \[1\]"),
    ],
)
def test_bad_arguments(policy: Any, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(policy, **keywords)


@pytest.mark.parametrize(
    ("policy", "keywords", "message"),
    [
        (puct, {"dirichlet_fraction": 1.5}, "dirichlet_fraction is 1.5; give numbers from 0 to 1"),
        (puct, {"dirichlet_fraction": [0.1, 0.2]}, r"shape \(2,\); give a number or \[3\]"),
        (puct, {"dirichlet_alpha": 0}, "dirichlet_alpha is 0; give a number above 0"),
        (puct, {"temperature": -1}, "temperature is -1"),
        (puct, {"temperature": np.nan}, "temperature is nan"),
        (puct, {"pb_c_base": 0}, "pb_c_base is 0; give a number above 0"),
        (gumbel_muzero_policy, {"gumbel_scale": -1}, "gumbel_scale is -1"),
        (gumbel_muzero_policy, {"gumbel_scale": np.inf}, "give numbers from 0 to 1e"),
        (puct, {"temperature": np.inf}, "temperature is inf"),
        (gumbel_muzero_policy, {"max_num_considered_actions": 0}, "is 0; give at least 1"),
    ],
)
def test_bad_options(policy: Any, keywords: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call(policy, **keywords)


@policies
@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("reward", lambda x: x[:, None], r"reward of shape \(3, 1\); give \(3,\)"),
        ("discount", lambda x: x[:2], r"discount of shape \(2,\); give \(3,\)"),
        ("prior_logits", lambda x: x[:, :3], r"prior_logits of shape \(3, 3\); give \(3, 4\)"),
        ("prior_logits", lambda x: x.T.copy(), r"prior_logits of shape \(4, 3\); give \(3, 4\)"),
        ("value", lambda x: x.astype(int), "value as int64; give float32"),
        ("value", lambda x: np.float32(1), r"value of shape \(\); give \(3,\)"),
        ("terminal", lambda _: np.zeros(3), "terminal as float64; give bool"),
        ("terminal", lambda _: np.zeros(2, np.bool_), r"terminal of shape \(2,\); give \(3,\)"),
    ],
)
def test_bad_shapes_of_an_output(policy: Any, name: str, change: Any, message: str) -> None:
    model = Tabular(Spec(0, 3, 4, 8))

    def recurrent_fn(*call: Any) -> RecurrentOutput:
        output = model.recurrent_fn(*call)
        if call[0] < 5:
            return output
        return output._replace(**{name: change(getattr(output, name))})

    with pytest.raises(ValueError, match=message):
        policy(model.root(), recurrent_fn, 8)


@policies
@pytest.mark.parametrize("name", ["reward", "discount", "prior_logits", "value"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("num_actions", [4, 400])
@pytest.mark.parametrize("simulation", [2, 7])
def test_bad_numbers_of_an_output(
    policy: Any, name: str, bad: float, num_actions: int, simulation: int
) -> None:
    model = Tabular(Spec(0, 3, num_actions, 8))
    tree = Tree(3, num_actions, 8)

    def recurrent_fn(*call: Any) -> RecurrentOutput:
        output = model.recurrent_fn(*call)
        if call[0] == simulation:
            getattr(output, name)[1, ...].flat[-1] = bad
        return output

    message = f"NaN or inf as {name} in simulation {simulation}, row 1"
    with pytest.raises(ValueError, match=message):
        policy(model.root(), recurrent_fn, 8, tree=tree)
    # and the tree is as good as new
    again = policy(model.root(), model.recurrent_fn, 8, tree=tree, **quiet(policy))
    other = policy(model.root(), model.recurrent_fn, 8, **quiet(policy))
    np.testing.assert_array_equal(again.visit_counts, other.visit_counts)


@policies
def test_an_error_in_the_model_comes_through(policy: Any) -> None:
    def recurrent_fn(*_: Any) -> RecurrentOutput:
        raise TypeError("mine")

    with pytest.raises(TypeError, match="mine"):
        call(policy, recurrent_fn=recurrent_fn)


@policies
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_other_floats_and_layouts_are_converted(policy: Any, dtype: Any) -> None:
    model = Tabular(Spec(0, 3, 4, 8))
    for name in ("reward", "discount", "logits", "value"):  # what float16 can tell exactly
        table = getattr(model, name)
        setattr(model, name, np.round(table * 64).astype(np.float32) / 64)

    def recurrent_fn(*call: Any) -> RecurrentOutput:
        output = model.recurrent_fn(*call)
        wide = np.asfortranarray(output.prior_logits).astype(dtype)
        terminal = np.zeros((3, 2), np.bool_)[:, 0]
        value = np.broadcast_to(output.value, (3,))
        return RecurrentOutput(
            output.reward.astype(dtype), output.discount.astype(dtype), wide, value, terminal
        )

    root = model.root()
    converted = RootOutput(
        np.asfortranarray(root.prior_logits).astype(dtype), np.repeat(root.value, 2)[::2]
    )
    given = policy(converted, recurrent_fn, 8, **quiet(policy))
    plain = policy(root, model.recurrent_fn, 8, **quiet(policy))
    for a, b in zip(given[:-1], plain[:-1], strict=True):
        np.testing.assert_array_equal(a, b)


@policies
def test_results_have_their_types(policy: Any) -> None:
    out = call(policy)
    assert [array.dtype for array in out[:-1]] == ["int32", "float32", "int32"] + ["float32"] * 3
    assert [array.shape for array in out[:-1]] == [(3,), (3, 4), (3, 4), (3, 4), (3,), (3,)]


@policies
def test_inputs_are_left_alone(policy: Any) -> None:
    model = Tabular(Spec(0, 3, 4, 8))
    root = model.root()
    before = root.prior_logits.copy()
    invalid = np.eye(3, 4, dtype=np.bool_)
    policy(root, model.recurrent_fn, 8, invalid)
    np.testing.assert_array_equal(root.prior_logits, before)
    np.testing.assert_array_equal(invalid, np.eye(3, 4))
