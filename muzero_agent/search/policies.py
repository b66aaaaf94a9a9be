"""The two searches: PUCT as in MuZero, and Gumbel MuZero with sequential halving."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muzero_agent.search import kernels
from muzero_agent.search.sequential_halving import considered_visits
from muzero_agent.search.tree import ROOT, Tree
from muzero_agent.types import RecurrentFn, RecurrentOutput, RootOutput


class SearchOutput(NamedTuple):
    """What a search found, for each root.

    :param action: int32 [B], the action to play
    :param action_weights: float32 [B, A], the policy target; each row sums to 1
    :param visit_counts: int32 [B, A]
    :param q_values: float32 [B, A], reward + discount * value of the child; 0 where unvisited
    :param value: float32 [B], mean of all that was backed up through the root, the network's own
        value included
    :param improved_value: float32 [B], sum of the improved policy (action_weights) times the
        completed Q values
    :param tree: the tree behind it all, until another search reuses it
    """

    action: NDArray[np.int32]
    action_weights: NDArray[np.float32]
    visit_counts: NDArray[np.int32]
    q_values: NDArray[np.float32]
    value: NDArray[np.float32]
    improved_value: NDArray[np.float32]
    tree: Tree


def muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: NDArray[np.bool_] | None = None,
    *,
    dirichlet_fraction: ArrayLike = 0.25,
    dirichlet_alpha: float = 0.3,
    temperature: ArrayLike = 1.0,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652,
    max_depth: int | None = None,
    rng: np.random.Generator | None = None,
    tree: Tree | None = None,
) -> SearchOutput:
    """Search with PUCT."""
    rng = np.random.default_rng() if rng is None else rng
    logits, value, legal = _checked_root(root, invalid_actions, num_simulations, max_depth)
    batch_size, num_actions = logits.shape
    fraction = _per_row("dirichlet_fraction", dirichlet_fraction, batch_size)
    if fraction.any():
        logits = _with_dirichlet_noise(logits, legal, fraction, dirichlet_alpha, rng)

    n = np.arange(num_simulations + 2, dtype=np.float32)
    base = np.float32(pb_c_base)
    explore = np.sqrt(n) * (np.float32(pb_c_init) + np.log((n + base + np.float32(1)) / base))
    settings = _settings(kernels.PUCT, num_actions, num_simulations, max_depth)
    tree = _search(
        tree, logits, logits, value, recurrent_fn, settings, explore, np.zeros((1, 1), np.int32)
    )

    visit_counts, q_values = _summarise(tree, batch_size, num_actions)
    weights = visit_counts / np.float32(num_simulations)
    return SearchOutput(
        action=_sample(
            visit_counts, logits, _per_row("temperature", temperature, batch_size), rng
        ),
        action_weights=weights,
        visit_counts=visit_counts,
        q_values=q_values,
        value=tree.nodes["value"][:batch_size, ROOT].copy(),
        improved_value=(weights * q_values).sum(-1),
        tree=tree,
    )


def gumbel_muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: NDArray[np.bool_] | None = None,
    *,
    max_num_considered_actions: int = 16,
    gumbel_scale: ArrayLike = 1.0,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
    use_mixed_value: bool = True,
    max_depth: int | None = None,
    rng: np.random.Generator | None = None,
    tree: Tree | None = None,
) -> SearchOutput:
    """Search with Gumbel MuZero."""
    rng = np.random.default_rng() if rng is None else rng
    logits, value, legal = _checked_root(root, invalid_actions, num_simulations, max_depth)
    batch_size, num_actions = logits.shape
    scale = _per_row("gumbel_scale", gumbel_scale, batch_size)
    logits -= logits.max(-1, keepdims=True)
    order = logits
    if scale.any():
        noise = rng.gumbel(size=logits.shape)
        order = (logits + scale[:, None] * noise).astype(np.float32)

    counts, rows = np.unique(
        np.minimum(legal.sum(-1), max_num_considered_actions), return_inverse=True
    )
    table = np.array([considered_visits(int(m), num_simulations) for m in counts], np.int32)
    settings = _settings(kernels.GUMBEL, num_actions, num_simulations, max_depth)
    settings["value_scale"] = value_scale
    settings["maxvisit_init"] = maxvisit_init
    settings["rescale_values"] = rescale_values
    settings["use_mixed_value"] = use_mixed_value
    tree = _search(
        tree, order, logits, value, recurrent_fn, settings, np.zeros(1, np.float32), table, rows
    )

    visit_counts, q_values = _summarise(tree, batch_size, num_actions)
    action = np.empty(batch_size, np.int32)
    weights = np.empty((batch_size, num_actions), np.float32)
    improved_value = np.empty(batch_size, np.float32)
    kernels.improve(
        tree.nodes, tree.slots, settings, logits, q_values, action, weights, improved_value
    )
    return SearchOutput(
        action=action,
        action_weights=weights,
        visit_counts=visit_counts,
        q_values=q_values,
        value=tree.nodes["value"][:batch_size, ROOT].copy(),
        improved_value=improved_value,
        tree=tree,
    )


def _search(tree, order, logits, value, recurrent_fn, settings, explore, considered, rows=None):
    batch_size, num_actions = logits.shape
    num_simulations = int(settings["num_simulations"][0])
    if tree is None:
        tree = Tree(batch_size, num_actions, num_simulations)
    else:
        tree.require(batch_size, num_actions, num_simulations)
    if rows is None:
        tree.num_considered[:] = 0
    else:
        tree.num_considered[:batch_size] = rows
    never = tree.never[:batch_size]
    kernels.plant(
        tree.nodes, tree.slots, tree.next_slot, settings, tree.keys, order, logits, value
    )
    for simulation, (parent, action) in enumerate(tree.steps(batch_size)[:num_simulations]):
        kernels.select(
            tree.nodes, tree.slots, tree.leaves, settings, explore, considered,
            tree.num_considered, tree.scores, simulation, parent, action,
        )  # fmt: skip
        output = recurrent_fn(simulation, parent, action)
        status = kernels.grow(
            tree.nodes, tree.slots, tree.next_slot, tree.leaves, settings, tree.keys, simulation,
            output.reward, output.discount, output.prior_logits, output.value,
            never if output.terminal is None else output.terminal,
        )  # fmt: skip
        if status:
            raise ValueError(status)
    return tree


def _checked_root(root, invalid_actions, num_simulations, max_depth):
    if num_simulations < 1:
        raise ValueError(f"num_simulations is {num_simulations}; give at least 1")
    logits = np.array(root.prior_logits, np.float32)
    value = np.ascontiguousarray(root.value, np.float32)
    legal = logits > -np.inf
    if invalid_actions is not None:
        legal &= ~invalid_actions
    logits[~legal] = -np.inf
    if not legal.any(-1).all():
        raise ValueError(f"no legal action in rows {np.flatnonzero(~legal.any(-1)).tolist()}")
    return logits, value, legal


def _settings(rule, num_actions, num_simulations, max_depth):
    settings = np.zeros(1, kernels.SETTINGS)
    settings["num_actions"] = num_actions
    settings["num_simulations"] = num_simulations
    settings["max_depth"] = num_simulations if max_depth is None else max_depth
    settings["rule"] = rule
    return settings


def _per_row(name, value, batch_size):
    return np.broadcast_to(np.asarray(value, np.float32), (batch_size,))


def _with_dirichlet_noise(logits, legal, fraction, alpha, rng):
    prior = np.exp(logits - logits.max(-1, keepdims=True))
    prior /= prior.sum(-1, keepdims=True)
    noise = np.where(legal, rng.standard_gamma(alpha, logits.shape), 0)
    noise /= noise.sum(-1, keepdims=True)
    mixed = (1 - fraction[:, None]) * prior + fraction[:, None] * noise
    with np.errstate(divide="ignore"):
        return np.where(
            legal, np.log(np.maximum(mixed, np.finfo(np.float32).tiny)), -np.inf
        ).astype(np.float32)


def _summarise(tree, batch_size, num_actions):
    visit_counts = np.zeros((batch_size, num_actions), np.int32)
    q_values = np.zeros((batch_size, num_actions), np.float32)
    kernels.summarise(tree.nodes, tree.slots, visit_counts, q_values)
    return visit_counts, q_values


def _sample(visit_counts, logits, temperature, rng):
    most = visit_counts.max(-1, keepdims=True)
    with np.errstate(divide="ignore"):
        scores = np.log(visit_counts / most)
    hot = temperature > 0
    greedy = np.where(visit_counts == most, logits, -np.inf).argmax(-1)
    weights = np.exp(scores / np.where(hot, temperature, 1)[:, None])
    cumulative = weights.cumsum(-1)
    draw = rng.random(len(weights)) * cumulative[:, -1]
    sampled = (cumulative <= draw[:, None]).sum(-1)
    return np.where(hot, sampled, greedy).astype(np.int32)
