"""The two searches: PUCT as in MuZero, and Gumbel MuZero with sequential halving."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from muzero_agent.search import kernels
from muzero_agent.search.sequential_halving import considered_visits_table
from muzero_agent.search.tree import FEW_ACTIONS, Flags, Floats, Ints, Tree
from muzero_agent.types import HOTTEST, RecurrentFn, RecurrentOutput, RootOutput

_TINY = np.finfo(np.float32).tiny
_NONE = np.empty(0, np.float32)  # for what the other policy needs


class SearchOutput(NamedTuple):
    """What a search found, for each root.

    :param action: int32 [B], the action to play
    :param action_weights: float32 [B, A], the policy target; a row sums to 1
    :param visit_counts: int32 [B, A]; a row sums to `num_simulations`
    :param q_values: float32 [B, A], reward + discount * value of the child; 0 where unvisited
    :param value: float32 [B], mean of all that was backed up to the root, the first of it the
        network's own value
    :param improved_value: float32 [B], sum of action_weights * completed Q: the root's value under
        the improved policy
    :param tree: the trees that this was read from, until another search reuses them
    """

    action: Ints
    action_weights: Floats
    visit_counts: Ints
    q_values: Floats
    value: Floats
    improved_value: Floats
    tree: Tree


def muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: Flags | None = None,
    *,
    dirichlet_fraction: ArrayLike = 0.25,
    dirichlet_alpha: float = 0.3,
    temperature: ArrayLike = 1.0,
    pb_c_init: float = 1.25,
    pb_c_base: float = 19652,
    min_q_range: float = 1e-8,
    max_depth: int | None = None,
    rng: np.random.Generator | None = None,
    tree: Tree | None = None,
) -> SearchOutput:
    """Search with PUCT: MuZero (Schrittwieser et al. 2020), appendix B.

    At each node argmax of Q + P * sqrt(n) / (1 + N) * (c1 + log((n + c2 + 1) / c2)), where n counts
    the node's visits, its own first included, and Q is scaled to [0, 1] by the least and the
    greatest value of the node and its visited children. Unvisited children have Q = 0. Ties go to
    the higher prior, then to the lower action. The policy target is the visits' distribution.

    :param root: logits [B, A] and value [B]; a logit of -inf marks an action that does not exist
    :param recurrent_fn: called once per simulation; see `RecurrentFn`. The arrays that it gets are
        views into the tree: they keep their contents until the next search.
    :param num_simulations: N >= 1, calls of `recurrent_fn`
    :param invalid_actions: bool [B, A], True for actions that are illegal at the root
    :param dirichlet_fraction: weight in [0, 1] of the noise in the root's prior; float or [B]
    :param dirichlet_alpha: > 0, concentration of the noise, which covers legal actions only
    :param temperature: 0 to 1e6; the action is drawn from visits ** (1 / temperature), and with 0
        it is the most visited one; float or [B]
    :param pb_c_init: c1
    :param pb_c_base: c2
    :param min_q_range: > 0, least range by which Q values are divided when they are scaled. With
        the error of the values here, search does not stay with what was best by mere noise.
    :param max_depth: edges between the root and a leaf at most; at that depth a visit backs up the
        same value again
    :param rng: for the noise and the action; without it a fresh one from the system's entropy
    :param tree: room to search in, else it is allocated
    :raises ValueError: for wrong shapes, types and ranges, NaN, a row without a legal action, a
        tree that is too small
    """
    logits, value = _checked_root(root, invalid_actions)
    size, num_actions = logits.shape
    settings = _settings(kernels.PUCT, num_actions, num_simulations, max_depth, min_q_range)
    fraction = _per_row("dirichlet_fraction", dirichlet_fraction, size, most=1.0)
    heat = _per_row("temperature", temperature, size)
    for name, number in (("dirichlet_alpha", dirichlet_alpha), ("pb_c_base", pb_c_base)):
        if not number > 0:
            raise ValueError(f"{name} is {number}; give a number above 0")

    if rng is None and (fraction.any() or heat.any()):
        rng = np.random.default_rng()
    if rng is not None and fraction.any():
        _mix_dirichlet_noise(logits, fraction, dirichlet_alpha, rng)
    tree = _search(
        Tree(size, num_actions, num_simulations) if tree is None else tree,
        recurrent_fn,
        settings,
        order=logits,
        value=value,
        explore=_exploration(num_simulations, pb_c_init, pb_c_base),
        considered=np.empty((size, 0), np.int32),
        prior=logits,
    )
    draw = heat if rng is None else rng.random((size,), np.float32)
    return _summary(tree, settings, logits, temperature=heat, draw=draw)


def gumbel_muzero_policy(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    num_simulations: int,
    invalid_actions: Flags | None = None,
    *,
    max_num_considered_actions: int = 16,
    gumbel_scale: ArrayLike = 1.0,
    value_scale: float = 0.1,
    maxvisit_init: float = 50.0,
    rescale_values: bool = True,
    use_mixed_value: bool = True,
    min_q_range: float = 1e-8,
    max_depth: int | None = None,
    rng: np.random.Generator | None = None,
    tree: Tree | None = None,
) -> SearchOutput:
    """Search with Gumbel MuZero: Policy improvement by planning with Gumbel (Danihelka et al. 2022)

    At the root sequential halving over the actions with the highest gumbel + logit (section 3), at
    other nodes the deterministic rule of section 5. The policy target is the improved policy
    softmax(logit + sigma(completed Q)), with sigma(q) = (maxvisit_init + max N) * value_scale * q.
    Ties go to the higher prior, then to the lower action.

    :param max_num_considered_actions: >= 1, actions that sequential halving starts with
    :param gumbel_scale: 0 to 1e6, factor on the Gumbel noise, fresh for each search and root; 0 for
        the strongest play; float or [B]
    :param value_scale: see above
    :param maxvisit_init: see above
    :param rescale_values: scale the completed Q values of a node to [0, 1] first
    :param use_mixed_value: complete Q with the mix of the node's raw value and the visited Q values
        (appendix D), else with the raw value
    :param min_q_range: > 0, least range by which Q values are divided when they are rescaled. With
        the error of the values here, differences that are mere noise do not overrule the prior.

    The other parameters and the errors are those of `muzero_policy`.
    """
    logits, value = _checked_root(root, invalid_actions)
    size, num_actions = logits.shape
    settings = _settings(kernels.GUMBEL, num_actions, num_simulations, max_depth, min_q_range)
    settings["value_scale"] = value_scale
    settings["maxvisit_init"] = maxvisit_init
    settings["rescale_values"] = rescale_values
    settings["use_mixed_value"] = use_mixed_value
    scale = _per_row("gumbel_scale", gumbel_scale, size)
    if max_num_considered_actions < 1:
        raise ValueError(
            f"max_num_considered_actions is {max_num_considered_actions}; give at least 1"
        )

    logits -= logits.max(-1, keepdims=True)
    order = logits
    if scale.any():
        rng = np.random.default_rng() if rng is None else rng
        exponential = rng.standard_exponential(logits.shape, np.float32)
        order = logits - scale[:, None] * np.log(np.maximum(exponential, _TINY))
    prior = np.exp(logits)
    most = min(max_num_considered_actions, num_actions, num_simulations)
    legal = np.count_nonzero(logits > -np.inf, axis=-1)
    tree = _search(
        Tree(size, num_actions, num_simulations) if tree is None else tree,
        recurrent_fn,
        settings,
        order=order,
        value=value,
        explore=_NONE,
        considered=considered_visits_table(most, num_simulations)[np.minimum(legal, most)],
        prior=prior / prior.sum(-1, keepdims=True),
    )
    return _summary(tree, settings, logits)


def _search(
    tree: Tree,
    recurrent_fn: RecurrentFn,
    settings: NDArray[np.void],
    *,
    order: Floats,
    value: Floats,
    explore: Floats,
    considered: Ints,
    prior: Floats,
) -> Tree:
    """Plant the roots, then simulate: evaluate the chosen edges, expand them, back up, choose."""
    size, num_actions = order.shape
    num_simulations = int(settings["num_simulations"][0])
    tree.require(size, num_actions, num_simulations)
    steps = tree.steps(size)  # made once, so that a simulation allocates nothing
    never = tree.never[:size]
    state = (
        tree.nodes, tree.slots, tree.num_slots, tree.leaves[:size],
        tree.float_scratch, tree.int_scratch, settings, explore, considered, prior,
    )  # fmt: skip

    def advance(simulation: int, output: RecurrentOutput) -> int:
        return kernels.advance(
            *state, simulation, output.reward, output.discount, output.prior_logits, output.value,
            never if output.terminal is None else output.terminal, *steps[simulation + 1],
        )  # fmt: skip

    status = advance(-1, RecurrentOutput(value, value, order, value))
    conforms = True
    for simulation in range(num_simulations):
        output = recurrent_fn(simulation, *steps[simulation])
        if simulation == 0:
            conforms = _conforms(output)
        if conforms:
            try:
                status = advance(simulation, output)
            except TypeError:  # unlike the first: as slow as 200 conversions, but nobody does it
                conforms = False
        if not conforms:
            output = _conformed(output, size, num_actions)
            status = advance(simulation, output)
        if status != kernels.FINE:
            raise _bad_output(status, simulation, output, size, num_actions)
    return tree


def _summary(
    tree: Tree,
    settings: NDArray[np.void],
    logits: Floats,
    temperature: Floats = _NONE,
    draw: Floats = _NONE,
) -> SearchOutput:
    size, num_actions = logits.shape
    output = SearchOutput(
        action=np.zeros(size, np.int32),
        action_weights=np.zeros((size, num_actions), np.float32),
        visit_counts=np.zeros((size, num_actions), np.int32),
        q_values=np.zeros((size, num_actions), np.float32),
        value=np.zeros(size, np.float32),
        improved_value=np.zeros(size, np.float32),
        tree=tree,
    )
    kernels.summarise(tree.nodes, tree.slots, settings, logits, temperature, draw, *output[:-1])
    return output


@lru_cache(maxsize=16)
def _exploration(num_simulations: int, pb_c_init: float, pb_c_base: float) -> Floats:
    """sqrt(n) * (c1 + log((n + c2 + 1) / c2)) for n = 0 .. N + 1 visits: float32 [N + 2]."""
    n = np.arange(num_simulations + 2, dtype=np.float32)
    c1, c2 = np.float32(pb_c_init), np.float32(pb_c_base)
    return cast(Floats, np.sqrt(n) * (c1 + np.log((n + c2 + np.float32(1)) / c2)))


def _mix_dirichlet_noise(
    logits: Floats, fraction: Floats, alpha: float, rng: np.random.Generator
) -> None:
    """Put (1 - fraction) * prior + fraction * Dirichlet(alpha) into the rows with a fraction.

    Over legal actions alone: in chess, noise over all 4,672 would leave almost none on the legal
    ones. Gamma variates are drawn by their logarithms (Gamma(a) = Gamma(a + 1) * U ** (1 / a)),
    since with a small alpha all of a row may underflow.

    :param logits: float32 [B, A], -inf where illegal; written
    """
    rows = np.flatnonzero(fraction)
    legal = logits[rows] > -np.inf
    noise = np.full(legal.shape, -np.inf)
    count = np.count_nonzero(legal)
    noise[legal] = np.log(rng.standard_gamma(alpha + 1, count))
    noise[legal] -= rng.standard_exponential(count) / alpha
    share = fraction[rows, None].astype(np.float64)
    mixed = (1 - share) * _softmax(logits[rows]) + share * _softmax(noise)
    logits[rows] = np.where(legal, np.log(np.maximum(mixed, _TINY)), -np.inf)


def _softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    exponentials = np.exp(logits - logits.max(-1, keepdims=True), dtype=np.float64)
    return cast(NDArray[np.float64], exponentials / exponentials.sum(-1, keepdims=True))


# What comes from outside, checked once a search; outputs of recurrent_fn are checked in the kernel.


def _checked_root(root: RootOutput, invalid_actions: Flags | None) -> tuple[Floats, Floats]:
    """A copy of the logits with -inf where illegal, float32 [B, A], and the value, float32 [B]."""
    logits = np.array(_floats("root.prior_logits", root.prior_logits), order="C")
    if logits.ndim != 2 or 0 in logits.shape:
        raise ValueError(f"root.prior_logits has shape {logits.shape}; give [B, A], none of them 0")
    value = np.ascontiguousarray(_floats("root.value", root.value))
    if value.shape != logits.shape[:1]:
        raise ValueError(f"root.value has shape {value.shape}; give {logits.shape[:1]}")
    if not (logits < np.inf).all():
        bad = _rows(~(logits < np.inf).all(-1))
        raise ValueError(f"root.prior_logits has NaN or inf in rows {bad}")
    if not np.isfinite(value).all():
        raise ValueError(f"root.value has NaN or inf in rows {_rows(~np.isfinite(value))}")
    if invalid_actions is not None:
        invalid = np.asarray(invalid_actions)
        if invalid.dtype != np.bool_ or invalid.shape != logits.shape:
            raise ValueError(
                f"invalid_actions is {invalid.dtype} {invalid.shape}; give bool {logits.shape}, "
                "True where an action is illegal"
            )
        logits[invalid] = -np.inf
    legal = logits > -np.inf
    if not legal.any(-1).all():
        raise ValueError(
            f"no action is legal in rows {_rows(~legal.any(-1))}; leave finished games out"
        )
    return logits, value


def _settings(
    rule: int, num_actions: int, num_simulations: int, max_depth: int | None, min_q_range: float
) -> NDArray[np.void]:
    if num_simulations < 1:
        raise ValueError(f"num_simulations is {num_simulations}; give at least 1")
    if max_depth is not None and max_depth < 1:
        raise ValueError(f"max_depth is {max_depth}; give at least 1, or None for no limit")
    if not min_q_range > 0:
        raise ValueError(f"min_q_range is {min_q_range}; give a number above 0")
    settings = np.zeros(1, kernels.SETTINGS)
    settings["min_q_range"] = min_q_range
    settings["rule"] = rule
    settings["num_actions"] = num_actions
    settings["num_simulations"] = num_simulations
    settings["max_depth"] = num_simulations if max_depth is None else max_depth
    settings["keep_all"] = num_actions <= FEW_ACTIONS
    return settings


def _per_row(name: str, value: ArrayLike, size: int, most: float = HOTTEST) -> Floats:
    """A number for each row, in [0, most]: float32 [B]."""
    numbers = np.asarray(value, np.float32)
    if numbers.shape not in ((), (size,)):
        raise ValueError(f"{name} has shape {numbers.shape}; give a number or [{size}]")
    if not ((numbers >= 0) & (numbers <= most)).all():
        raise ValueError(f"{name} is {value!r}; give numbers from 0 to {most:g}")
    rows = np.empty(size, np.float32)
    rows[:] = numbers
    return rows


def _conforms(output: RecurrentOutput) -> bool:
    """Has it the types and layouts that the kernels are compiled for?"""
    floats: tuple[Any, ...] = (output.reward, output.discount, output.prior_logits, output.value)
    terminal: Any = output.terminal
    return all(
        isinstance(array, np.ndarray) and array.dtype == np.float32 and array.flags.carray
        for array in floats
    ) and (terminal is None or isinstance(terminal, np.ndarray))


def _conformed(output: RecurrentOutput, size: int, num_actions: int) -> RecurrentOutput:
    """The same in these types and layouts: what conforms by itself is not copied."""

    def conform(name: str, array: ArrayLike) -> NDArray[Any]:
        numbers, dtype = np.asarray(array), np.bool_ if name == "terminal" else np.float32
        if numbers.dtype.kind != np.dtype(dtype).kind:
            expected = np.dtype(dtype).name
            raise ValueError(f"recurrent_fn returned {name} as {numbers.dtype}; give {expected}")
        shape = (size, num_actions) if name == "prior_logits" else (size,)
        if numbers.shape != shape:
            raise ValueError(f"recurrent_fn returned {name} of shape {numbers.shape}; give {shape}")
        if numbers.dtype == dtype and numbers.flags.carray:
            return numbers
        return np.array(numbers, dtype, order="C")

    terminal = output.terminal
    return RecurrentOutput(
        conform("reward", output.reward),
        conform("discount", output.discount),
        conform("prior_logits", output.prior_logits),
        conform("value", output.value),
        None if terminal is None else conform("terminal", terminal),
    )


def _bad_output(
    status: int, simulation: int, output: RecurrentOutput, size: int, num_actions: int
) -> ValueError:
    """What the kernel found wrong with an output of recurrent_fn. (May raise it by itself.)"""
    what, row = status & ((1 << kernels.STATUS_BITS) - 1), status >> kernels.STATUS_BITS
    if what == kernels.BAD_SHAPE:
        _conformed(output, size, num_actions)
    name = {
        kernels.BAD_REWARD: "reward",
        kernels.BAD_DISCOUNT: "discount",
        kernels.BAD_VALUE: "value",
        kernels.BAD_LOGITS: "prior_logits",
    }[what]
    return ValueError(
        f"recurrent_fn returned NaN or inf as {name} in simulation {simulation}, row {row}"
    )


def _floats(name: str, array: ArrayLike) -> Floats:
    numbers = np.asarray(array)
    if not np.issubdtype(numbers.dtype, np.floating):
        raise ValueError(f"{name} is {numbers.dtype}; give float32")
    return numbers.astype(np.float32, copy=False)


def _rows(bad: ArrayLike) -> list[int]:
    return np.flatnonzero(bad).tolist()
