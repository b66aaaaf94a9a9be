"""All compiled code of the search, in the order of the algorithm: select, expand, back up.

One file, because numba's cache notices edits in the file of the compiled function alone. Compiled
without numba's runtime (`_nrt=False`), so that an allocation in here does not even compile.
Arithmetic is float32 in mctx's order of operations. `nodes` [N + 1] and `slots` [M] are those of
one root (see `tree.py`), except in the entry points at the end.

Compiling takes 5 s of processor time for a batch search and 3.5 s for what `muzero-uci` needs, once
for each version; loading from the cache 0.3 s.
"""

# numba infers the types of what it compiles.
# mypy: allow-untyped-defs, allow-untyped-calls, no-check-untyped-defs

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic

from muzero_agent.search.tree import LEAF, NODE, ROOT, SLOT

PUCT, GUMBEL = range(2)

SETTINGS = np.dtype(
    [
        ("rule", np.int32),  # PUCT or GUMBEL
        ("num_actions", np.int32),
        ("num_simulations", np.int32),
        ("max_depth", np.int32),
        ("keep_all", np.int32),  # every node has a slot for each of its actions
        ("rescale_values", np.int32),
        ("use_mixed_value", np.int32),
        ("min_q_range", np.float32),
        ("value_scale", np.float32),
        ("maxvisit_init", np.float32),
    ],
    align=True,
)
"""What stays fixed during a search."""

FINE, BAD_SHAPE, BAD_REWARD, BAD_DISCOUNT, BAD_VALUE, BAD_LOGITS = range(6)
STATUS_BITS = 3
"""What `advance` returns: one of these, with the row above the low bits."""


class _Scratch(NamedTuple):
    """Room for a number per action; the contents last until the next call that takes it."""

    values: Any  # float32 [A]
    weights: Any  # float32 [A]
    actions: Any  # int32 [A]
    hits: Any  # int32 [A]


_F = TypeVar("_F", bound=Callable[..., Any])
_OPTIONS: dict[str, Any] = {"_nrt": False, "error_model": "numpy"}
_WITHIN = _OPTIONS | {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}  # compiles sooner
_cache = True


def _entry(*signature: Any) -> Callable[[Callable[..., Any]], Callable[..., int]]:
    """Compile for these types only, or load from numba's cache; at the first call, since hardly a
    program needs all entry points. Then the compiled function takes this one's place."""

    def decorate(function: Callable[..., Any]) -> Callable[..., int]:
        def compiled() -> Callable[..., int]:
            found = globals()[function.__name__] = _compiled(signature, function)
            return found

        def first_call(*arguments: Any) -> int:
            return compiled()(*arguments)

        _waiting[function.__name__] = compiled
        return first_call

    return decorate


_waiting: dict[str, Callable[[], Callable[..., int]]] = {}


def compile_all() -> None:
    """Compile now what would be at its first call."""
    for compiled in _waiting.values():
        compiled()


def _compiled(signature: Any, function: Callable[..., Any]) -> Callable[..., int]:
    global _cache
    compiled: Callable[..., int]
    if _cache:
        try:
            compiled = numba.njit(signature, cache=True, **_OPTIONS)(function)
            return compiled
        except RuntimeError as error:  # no directory to write the cache to
            _cache = False
            warnings.warn(
                f"The search is compiled anew in every process: {error}. "
                "Set NUMBA_CACHE_DIR to a writable directory to compile it only once.",
                RuntimeWarning,
                stacklevel=2,
            )
    compiled = numba.njit(signature, **_OPTIONS)(function)
    return compiled


def _variant(function: _F, name: str) -> _F:
    """Compile a closure under a name of its own: numba's symbols tell closures of one name apart by
    a counter of the process alone, so that those of two caches may be taken for each other."""
    function.__name__ = function.__qualname__ = name
    return _inner(function)


def _inner(function: _F) -> _F:
    """Compile into the entry points, not to be called from Python."""
    # said outright, since numba otherwise takes fastmath over from the first caller that it sees
    compiled: _F = numba.njit(fastmath=False, **_WITHIN)(function)
    return compiled


def _fused(function: _F) -> _F:
    """The same where a product may enter a sum unrounded; the order stays, `_exp` relies on it."""
    compiled: _F = numba.njit(fastmath={"contract"}, **_WITHIN)(function)
    return compiled


def _reducing(function: _F) -> _F:
    """The same for sums, minima and maxima without NaN, in any order, thus in vector registers."""
    compiled: _F = numba.njit(fastmath={"nnan", "nsz", "reassoc"}, **_WITHIN)(function)
    return compiled


_ZERO, _ONE, _INF = np.float32(0), np.float32(1), np.float32(np.inf)
_TINY, _LOWEST = np.finfo(np.float32).tiny, np.finfo(np.float32).min
_HUGE = np.float32(1e20)  # beyond all scores, and yet far from infinity

# ----------------------------------------------------------------------------------------- select


@_inner
def _order_next(node, slots, rule, scratch):
    """Put the best unvisited action by (prior, -action) right behind the visited ones."""
    start, stop = node.first + node.num_children, node.first + node.num_slots
    best, top = start, slots[start].logit
    for i in range(start + 1, stop):
        x = slots[i].logit
        if x > top or (x == top and slots[i].action < slots[best].action):
            best, top = i, x
    slots[best].action, slots[start].action = slots[start].action, slots[best].action
    slots[best].prior, slots[start].prior = slots[start].prior, slots[best].prior
    slots[best].logit, slots[start].logit = slots[start].logit, top
    node.num_ordered += 1
    if rule == GUMBEL:  # summed, not 1 minus the others: sigma(Q) may magnify the smallest rest
        count = stop - start
        for i in range(count):
            scratch.values[i] = slots[start + i].logit
        node.suffix = _exponentials(scratch.values[:count], top, scratch.weights)
        if node.tail > 0:
            node.suffix += node.tail * _exp(node.least - top)


@_inner
def _select_puct(node, slots, settings, explore):
    """argmax of Q + P * sqrt(n) / (1 + N) * (c1 + log((n + c2 + 1) / c2)).

    MuZero (Schrittwieser et al. 2020), appendix B. n counts the node's visits; Q is scaled to
    [0, 1] by the values of the node and its visited children, and 0 for the unvisited ones. Visits
    that wait for the network count as visits worth 0. What is known to win is chosen, what is
    known to lose is not, unless nothing else is left.

    :param explore: float32, sqrt(n) * (c1 + log(...)) by n
    """
    end = node.first + node.num_children
    low = high = node.value
    pending = np.int32(0)
    for i in range(node.first, end):
        slot = slots[i]
        pending += slot.pending
        if slot.visits > 0:
            low = min(low, slot.q)
            high = max(high, slot.q)
    span = max(high - low, settings.min_q_range)

    bonus = explore[node.visits + pending]
    best, top = end, -_INF
    for i in range(node.first, end):
        slot = slots[i]
        visits = slot.visits + np.int32(slot.pending)
        score = (slot.q - low) / span
        if slot.pending > 0:
            score = (
                score * np.float32(slot.visits) / np.float32(visits) if slot.visits > 0 else _ZERO
            )
        score += bonus * slot.prior / np.float32(visits + 1)
        if slot.mate != 0:
            if slot.mate > 0:
                return i
            score = -_HUGE * np.float32(slot.visits + 1)  # the one least looked at
        if score > top:
            best, top = i, score
    if node.num_children < node.num_slots and bonus * slots[end].prior > top:
        best = end
    return best


@_inner
def _select_considered(root, slots, settings, considered):
    """argmax of gumbel + logit + sigma(Q) among the actions with the considered number of visits.

    Gumbel MuZero (Danihelka et al. 2022), section 3.

    :param considered: int32, numbers of visits by simulation
    """
    visits = considered[root.visits - 1]
    if visits == 0:  # their Q is one and the same: the next in the order of gumbel + logit
        return root.first + root.num_children
    _, low, span, scale = _completion(root, slots, settings)
    best, top = root.first, -_INF
    for i in range(root.first, root.first + root.num_children):
        slot = slots[i]
        score = slot.logit + scale * ((slot.q - low) / span)
        if slot.visits == visits and score > top:
            best, top = i, score
    return best


@_inner
def _select_improved(node, slots, settings, scores):
    """argmax of p(a) - N(a) / (1 + sum of N), where p = softmax(logit + sigma(completed Q)).

    Gumbel MuZero (Danihelka et al. 2022), section 5.

    :param scores: float32, scratch
    """
    first, count = node.first, node.num_children
    mixed, low, span, scale = _completion(node, slots, settings)
    unvisited = -_INF
    if count < node.num_slots:
        unvisited = slots[first + count].logit + scale * ((mixed - low) / span)
    top = unvisited
    for i in range(count):
        slot = slots[first + i]
        scores[i] = slot.logit + scale * ((slot.q - low) / span)
        top = max(top, scores[i])

    mass = _ZERO
    for i in range(count):
        scores[i] = _exp(scores[i] - top)
        mass += scores[i]
    if count < node.num_slots:
        unvisited = _exp(unvisited - top)
        mass += unvisited * node.suffix

    best, top = count, -_INF
    for i in range(count):
        score = scores[i] / mass - np.float32(slots[first + i].visits) / np.float32(node.visits)
        if score > top:
            best, top = i, score
    if count < node.num_slots and unvisited / mass > top:
        best = count
    return first + best


@_inner
def _completion(node, slots, settings):
    """How to complete and scale the Q values of a node: (mixed, low, span, scale).

    Unvisited actions have Q = mixed, and sigma(Q) = scale * ((Q - low) / span). Gumbel MuZero
    (Danihelka et al. 2022), appendix D.
    """
    end = node.first + node.num_children
    low, high, most = _INF, -_INF, np.int32(0)
    for i in range(node.first, end):
        slot = slots[i]
        low = min(low, slot.q)
        high = max(high, slot.q)
        most = max(most, slot.visits)
    mixed = node.raw_value
    if node.num_children < settings.num_actions:
        if settings.use_mixed_value and node.num_children > 0:
            mass = weighted = _ZERO
            for i in range(node.first, end):
                prior = max(slots[i].prior, _TINY)
                mass += prior
                weighted += prior * slots[i].q
            visits = np.float32(node.visits)
            mixed = (mixed + (visits - _ONE) * (weighted / mass)) / visits
        low = min(low, mixed)
        high = max(high, mixed)
    span = max(high - low, settings.min_q_range)
    if not settings.rescale_values:
        low, span = _ZERO, _ONE
    scale = (settings.maxvisit_init + np.float32(most)) * settings.value_scale
    return mixed, low, span, scale


@_inner
def _choose(node, index, slots, settings, explore, considered, scratch):
    """The slot to follow from a node with visited children, by either rule."""
    if settings.rule == PUCT:
        return _select_puct(node, slots, settings, explore)
    if index == ROOT:
        return _select_considered(node, slots, settings, considered)
    return _select_improved(node, slots, settings, scratch.values)


@_inner
def _choose_by_puct(node, index, slots, settings, explore, considered, scratch):
    return _select_puct(node, slots, settings, explore)


def _walk(choose):
    """Walk from the root to the edge to evaluate next: (node, slot).

    Nothing is behind the edge yet, or a leaf that stays one, or one that waits for the network.

    :param choose: `_choose`, or where one rule is enough the quicker to compile
    """

    def select(nodes, slots, settings, explore, considered, scratch):
        index = ROOT
        while True:
            node = nodes[index]
            unvisited = node.first + node.num_children
            if node.num_ordered == node.num_children < node.num_slots:
                _order_next(node, slots, settings.rule, scratch)
            slot = unvisited
            if node.num_children > 0:
                slot = choose(node, index, slots, settings, explore, considered, scratch)
            if slot == unvisited or nodes[slots[slot].child].num_slots == 0:
                return index, slot
            index = slots[slot].child

    return _variant(select, f"select_by{choose.py_func.__name__}")


_select, _select_by_puct = _walk(_choose), _walk(_choose_by_puct)


# ----------------------------------------------------------------------------------------- expand


@_inner
def _link(nodes, slots, parent, slot, child):
    """Put a node behind an edge; it waits for the network."""
    slots[slot].child = child
    nodes[parent].num_children += 1
    nodes[child].visits = nodes[child].num_slots = 0


@_inner
def _create(node, value, first):
    """Make this a leaf, whose slots will stand from `first` on: a status."""
    node.visits = 1
    node.value = node.raw_value = value
    node.parent = node.slot = -1
    node.depth = node.num_slots = node.num_children = node.num_ordered = 0
    node.first = first
    return FINE if abs(value) < _INF else BAD_VALUE


@_inner
def _attach(nodes, leaf, reward, discount):
    """Tell the leaf's new node of the edge that leads to it: a status."""
    node = nodes[leaf.node]
    node.reward = reward
    node.discount = discount
    node.parent = leaf.parent
    node.slot = leaf.slot
    node.depth = nodes[leaf.parent].depth + 1
    if not abs(reward) < _INF:
        return BAD_REWARD
    return FINE if abs(discount) < _INF else BAD_DISCOUNT


@_inner
def _expand(node, slots, logits, capacity, keep_all, scratch):
    """Give the node slots for its `capacity` best actions, in any order: a status.

    :param logits: float32 [A], -inf where there is no action
    :param capacity: how many children the node can still get
    :param keep_all: give it slots for all its actions, unless it cannot get children
    """
    if not _below_infinity(logits):
        return BAD_LOGITS
    if capacity > 0:
        node.tail = _ZERO
        if keep_all:
            count = _take_all(logits, scratch)
        else:
            count = _take_best(node, logits, capacity, scratch)
        _fill(node, slots, count, scratch)
    return FINE


@_inner
def _expand_all(node, slots, logits, capacity, keep_all, scratch):
    """The same where all actions are kept: quicker to compile."""
    if not _below_infinity(logits):
        return BAD_LOGITS
    if capacity > 0:
        node.tail = _ZERO
        _fill(node, slots, _take_all(logits, scratch), scratch)
    return FINE


@_inner
def _take_all(logits, scratch):
    """Collect all actions: how many."""
    count = 0
    for a in range(logits.size):
        scratch.values[count] = logits[a]
        scratch.actions[count] = a
        count += logits[a] > -_INF
    return count


@_inner
def _take_best(node, logits, capacity, scratch):
    """Collect the `capacity` best actions, and note the mass of the others: how many."""
    found, complete = _find_candidates(logits, capacity, scratch)
    count = min(found, capacity)
    values = scratch.values
    equals = _keep_best(values, scratch.actions, found, count) if count < found else 0
    if count < found or not complete:
        node.least, _ = _extremes(values[:count])
        node.tail = _sum_exp_below(logits, node.least) + np.float32(equals)
    return count


@_inner
def _fill(node, slots, count, scratch):
    """Give the node slots for the actions that were collected."""
    if count == 0:
        return
    values, actions = scratch.values, scratch.actions
    _, top = _extremes(values[:count])
    mass = _exponentials(values[:count], top, scratch.weights)
    if node.tail > 0:
        mass += node.tail * _exp(node.least - top)
    node.num_slots = count
    for i in range(count):
        slot = slots[node.first + i]
        slot.action = actions[i]
        slot.visits = 0
        slot.pending = slot.mate = 0
        slot.prior = scratch.weights[i] / mass
        slot.logit = values[i]


@_inner
def _below_infinity(x):
    """Neither NaN nor +inf anywhere. (Loops over indices vectorise, loops over elements do not.)"""
    fine = True
    for i in range(x.size):
        fine &= x[i] < _INF
    return fine


@_inner
def _find_candidates(logits, capacity, scratch):
    """Collect all actions that could be among the `capacity` best: (how many, are these all).

    Deal the actions to groups. If `capacity` groups have a maximum that reaches a threshold, then
    so many logits do, hardly more, and the other groups need no second look.

    :param scratch: `values` and `actions` are written, in the order of the actions
    """
    values, actions, hits = scratch.values, scratch.actions, scratch.hits
    groups = 64
    while groups * groups < capacity * logits.size:
        groups *= 2
    if logits.size < 2 * groups:
        groups = logits.size
    for j in range(groups):
        values[j] = logits[j]
    for start in range(groups, logits.size, groups):
        for j in range(min(groups, logits.size - start)):
            values[j] = max(values[j], logits[start + j])
    threshold = _LOWEST
    if groups < logits.size:
        threshold = max(threshold, _bisect(values, groups, capacity, 2 + capacity // 4))

    num_hits = 0
    for j in range(groups):
        hits[num_hits] = j
        num_hits += values[j] >= threshold
    found = 0
    for start in range(0, logits.size, groups):
        for h in range(num_hits):
            action = start + hits[h]
            if action < logits.size:
                values[found] = logits[action]
                actions[found] = action
                found += logits[action] >= threshold
    return found, threshold == _LOWEST


@_inner
def _keep_best(values, actions, found, wanted):
    """Move the best to the front, of equals the first; return how many of the equals are left out.

    :param values: float32 [found, at least], written
    :param actions: int32 [found, at least], ascending, written
    """
    cut = _bisect(values, found, wanted, 0)
    above = equals = 0
    for i in range(found):
        above += values[i] > cut
        equals += values[i] == cut
    left_out = above + equals - wanted
    room = equals - left_out
    count = 0
    for i in range(found):
        if values[i] > cut or (values[i] == cut and room > 0):
            room -= values[i] == cut
            values[count] = values[i]
            actions[count] = actions[i]
            count += 1
    return left_out


@_inner
def _bisect(values, size, wanted, slack):
    """A number that at least `wanted` values reach, at most `slack` more unless they are equal."""
    low, high = _extremes(values[:size])
    if _count_reaching(values[:size], high) >= wanted:
        return high
    while True:
        middle = np.float32(0.5) * low + np.float32(0.5) * high
        if not low < middle < high:
            return low
        reaching = _count_reaching(values[:size], middle)
        if reaching < wanted:
            high = middle
        else:
            low = middle
            if reaching <= wanted + slack:
                return low


@_inner
def _count_reaching(x, threshold):
    count = np.int32(0)
    for i in range(x.size):
        count += np.int32(x[i] >= threshold)
    return count


@_reducing
def _extremes(x):
    low, high = _INF, -_INF
    for i in range(x.size):
        low = min(low, x[i])
        high = max(high, x[i])
    return low, high


@_reducing
def _sum_exp_below(x, bound):
    """Sum of exp(x - bound) over the elements below the bound."""
    total = _ZERO
    for i in range(x.size):
        total += _exp(x[i] - bound) if x[i] < bound else _ZERO
    return total


@_reducing
def _exponentials(x, top, out):
    """Write exp(x - top), and return the sum."""
    total = _ZERO
    for i in range(x.size):
        out[i] = _exp(x[i] - top)
        total += out[i]
    return total


@_fused
def _exp(x):
    """exp(x) for x <= 0, to 2e-7 of it; 0 below -87. Unlike libm's, it vectorises.

    2 ** n * exp(r) with a polynomial for exp(r), as in Cephes.
    """
    bounded = max(x, np.float32(-87))
    shifted = bounded * np.float32(1.44269504) + np.float32(12582912)  # 1.5 * 2**23
    n = shifted - np.float32(12582912)  # x / log(2), rounded
    r = (bounded - n * np.float32(0.693359375)) - n * np.float32(-2.12194440e-4)
    rr = r * r
    p = np.float32(5.0000001201e-1) + np.float32(1.6666665459e-1) * r
    q = np.float32(4.1665795894e-2) + np.float32(8.3334519073e-3) * r
    s = np.float32(1.3981999507e-3) + np.float32(1.9875691500e-4) * r
    p = (p + rr * (q + rr * s)) * rr + (r + _ONE)
    power = _bits_float(np.int32((_float_bits(shifted) - 0x4B400000 + 127) << 23))
    return p * power if x > np.float32(-87) else _ZERO


@intrinsic
def _float_bits(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), generate


@intrinsic
def _bits_float(typing_context, x):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), generate


# ---------------------------------------------------------------------------------------- back up


@_inner
def _back_up(nodes, slots, index, awaited):
    """Count one visit, worth the raw value of this node, on the way up to the root.

    MuZero (Schrittwieser et al. 2020), appendix B, with a discount per edge.

    :param awaited: 1 if the visit was counted as pending, else 0
    """
    value = nodes[index].raw_value
    while index != ROOT:
        node = nodes[index]
        parent, slot = nodes[node.parent], slots[node.slot]
        value = node.reward + node.discount * value
        visits = np.float32(parent.visits)
        parent.value = (parent.value * visits + value) / (visits + _ONE)
        parent.visits += 1
        slot.visits += 1
        slot.pending -= awaited
        slot.q = node.reward + node.discount * node.value
        index = node.parent


@_inner
def _prove(nodes, slots, index):
    """Carry it up the tree that the edge to this node wins or loses by force.

    A position with a winning move is won in as many moves as the shortest known, and one in which
    every legal move loses is lost in as many as the longest.
    """
    while True:
        node = nodes[index]
        index = node.parent
        if index == ROOT:
            return
        above, slot = nodes[index], slots[node.slot]
        mate = -(slot.mate + 1)
        if slot.mate < 0:
            if above.num_children < above.num_slots or above.tail > 0:
                return
            for i in range(above.first, above.first + above.num_children):
                if slots[i].mate >= 0:
                    return
                mate = max(mate, 1 - slots[i].mate)
        edge = slots[above.slot]
        if (edge.mate < 0 and mate <= edge.mate) or edge.mate == mate:
            return
        edge.mate = mate


# ----------------------------------------------------------------------------------------- result


@_inner
def _draw_action(root, slots, temperature, draw):
    """Draw from visits ** (1 / temperature); at 0 take the most visited, of equals the first."""
    end = root.first + root.num_children
    best = root.first
    for i in range(root.first, end):
        if slots[i].visits > slots[best].visits:
            best = i
    if temperature > 0:
        mass = 0.0
        for i in range(root.first, end):
            mass += math.exp(math.log(slots[i].visits / slots[best].visits) / temperature)
        left = draw * mass
        for i in range(root.first, end):
            left -= math.exp(math.log(slots[i].visits / slots[best].visits) / temperature)
            if left < 0:
                return slots[i].action
    return slots[best].action


@_inner
def _improve(root, slots, settings, logits, weights):
    """Write the improved policy, softmax(logit + sigma(completed Q)).

    :param weights: float32 [A], written
    :return: the best of the most visited actions, and sum of the improved policy * completed Q
    """
    end = root.first + root.num_children
    mixed, low, span, scale = _completion(root, slots, settings)
    sigma = scale * ((mixed - low) / span)
    for a in range(weights.size):
        weights[a] = logits[a] + sigma
    most, best, top = np.int32(0), root.first, -_INF
    for i in range(root.first, end):
        slot = slots[i]
        sigma = scale * ((slot.q - low) / span)
        weights[slot.action] = logits[slot.action] + sigma
        score = slot.logit + sigma
        if slot.visits > most or (slot.visits == most and score > top):
            most, best, top = slot.visits, i, score

    _, top = _extremes(weights)
    mass = _exponentials(weights, top, weights)
    for a in range(weights.size):
        weights[a] /= mass
    visited = value = _ZERO
    for i in range(root.first, end):
        visited += weights[slots[i].action]
        value += weights[slots[i].action] * slots[i].q
    return slots[best].action, value + (_ONE - visited) * mixed


# ----------------------------------------------------------------------------------- entry points

_NODES = numba.from_dtype(NODE)[:, ::1]
_SLOTS = numba.from_dtype(SLOT)[:, ::1]
_LEAVES = numba.from_dtype(LEAF)[::1]
_SETTINGS = numba.from_dtype(SETTINGS)[::1]
_INTS, _INT_TABLE = types.int32[::1], types.int32[:, ::1]
_FLOATS, _FLOAT_TABLE = types.float32[::1], types.float32[:, ::1]
_FLAGS = types.boolean[::1]


@_entry(
    _NODES, _SLOTS, _INTS, _LEAVES, _FLOAT_TABLE, _INT_TABLE,
    _SETTINGS, _FLOATS, _INT_TABLE, _FLOAT_TABLE,
    types.int64, _FLOATS, _FLOATS, _FLOAT_TABLE, _FLOATS, _FLAGS,
    _INTS, _INTS,
)  # fmt: skip
def advance(
    all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch,
    settings, explore, considered, root_prior,
    simulation, reward, discount, logits, value, terminal,
    parent, action,
):  # fmt: skip
    """Expand the edges that this simulation evaluated, back up, and select those of the next one.

    Simulation -1 plants the roots: then `logits` order their actions, and reward, discount and
    terminal are not read.

    :param all_nodes, ..., int_scratch: see `Tree`; `leaves` [B] are the edges, and then the next
    :param explore: float32 [N + 2], see `_select_puct`
    :param considered: int32 [B, N], see `_select_considered`
    :param root_prior: float32 [B, A], for Gumbel, where the prior differs from the order
    :param reward, ..., terminal: as in `RecurrentOutput`
    :param parent: int32 [B], written: node index from which to step next
    :param action: int32 [B], written
    :return: a status
    """
    size, search = leaves.size, settings[0]
    if not (
        reward.size == size and discount.size == size and value.size == size
        and terminal.size == size and logits.shape == (size, search.num_actions)
    ):  # fmt: skip
        return BAD_SHAPE
    scratch = _Scratch(float_scratch[0], float_scratch[1], int_scratch[0], int_scratch[1])
    planting = simulation < 0
    remaining = search.num_simulations - 1 - simulation
    for b in range(size):
        leaf = leaves[b]
        nodes, slots = all_nodes[leaf.row], all_slots[leaf.row]
        if planting:
            index, fresh = ROOT, True
            num_slots[leaf.row] = 0
        else:
            index = slots[leaf.slot].child
            fresh = index == leaf.node
        node = nodes[index]
        if fresh:
            status = _create(node, value[b], num_slots[leaf.row])
            if status == FINE and not planting:
                status = _attach(nodes, leaf, reward[b], discount[b])
            if status == FINE and (planting or not terminal[b]):
                capacity = remaining if node.depth < search.max_depth else 0
                status = _expand(node, slots, logits[b], capacity, search.keep_all, scratch)
                num_slots[leaf.row] += node.num_slots
            if status != FINE:
                return status | b << STATUS_BITS
            if planting and search.rule == GUMBEL:
                for i in range(node.num_slots):
                    slots[i].prior = root_prior[b, slots[i].action]
        else:
            node.visits += 1
        _back_up(nodes, slots, index, 0)
        if remaining > 0:
            index, slot = _select(nodes, slots, search, explore, considered[b], scratch)
            leaf.parent, leaf.slot, leaf.node = index, slot, simulation + 2
            parent[b], action[b] = index, slots[slot].action
            if slot == nodes[index].first + nodes[index].num_children:
                _link(nodes, slots, index, slot, leaf.node)
    return FINE


@_entry(
    _NODES, _SLOTS, _LEAVES, _FLOAT_TABLE, _INT_TABLE, _SETTINGS, _FLOATS, _INT_TABLE,
    types.int64, _INTS, _INTS,
)  # fmt: skip
def gather(
    all_nodes, all_slots, leaves, float_scratch, int_scratch, settings, explore, considered,
    num_nodes, parent, action,
):  # fmt: skip
    """Select edges of one tree that the network can evaluate side by side, by `leaves.size` visits.

    Each selection counts visits that are still to come as visits without success (virtual loss), so
    that the next one goes elsewhere. It ends early where it meets a node that waits already. Leaves
    that stay leaves, such as the end of a game, are visited at once, without the network.

    :param leaves: [L], written
    :param num_nodes: nodes of the tree; new ones are numbered from there on
    :param parent: int32 [L], written: node index from which to step
    :param action: int32 [L], written
    :return: how many edges there are
    """
    nodes, slots, search = all_nodes[0], all_slots[0], settings[0]
    scratch = _Scratch(float_scratch[0], float_scratch[1], int_scratch[0], int_scratch[1])
    count = 0
    for _ in range(leaves.size):
        index, slot = _select_by_puct(nodes, slots, search, explore, considered[0], scratch)
        node = nodes[index]
        if slot < node.first + node.num_children:
            child = nodes[slots[slot].child]
            if child.visits == 0:
                break
            child.visits += 1
            _back_up(nodes, slots, slots[slot].child, 0)
            continue
        leaf = leaves[count]
        leaf.parent, leaf.slot, leaf.node = index, slot, num_nodes + count
        parent[count], action[count] = index, slots[slot].action
        _link(nodes, slots, index, slot, leaf.node)
        slots[slot].pending += 1
        while index != ROOT:
            slots[nodes[index].slot].pending += 1
            index = nodes[index].parent
        count += 1
    return count


def _absorbing(expand):
    """`absorb` with a way to expand."""

    def absorb_with(
        all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch, settings,
        reward, discount, logits, value, terminal, prove,
    ):  # fmt: skip
        nodes, slots, search = all_nodes[0], all_slots[0], settings[0]
        size = leaves.size
        if not (
            reward.size == size and discount.size == size and value.size == size
            and terminal.size == size and logits.shape == (size, search.num_actions)
        ):  # fmt: skip
            return BAD_SHAPE
        scratch = _Scratch(float_scratch[0], float_scratch[1], int_scratch[0], int_scratch[1])
        for b in range(size):
            leaf = leaves[b]
            node = nodes[leaf.node]
            status = _create(node, value[b], num_slots[0])
            if status == FINE and leaf.node != ROOT:
                status = _attach(nodes, leaf, reward[b], discount[b])
            if status == FINE and not terminal[b]:
                capacity = search.num_simulations if node.depth < search.max_depth else 0
                status = expand(node, slots, logits[b], capacity, search.keep_all, scratch)
                num_slots[0] += node.num_slots
            if status != FINE:
                return status | b << STATUS_BITS
            _back_up(nodes, slots, leaf.node, 1)
            if prove and terminal[b] and reward[b] != 0:
                slots[leaf.slot].mate = 1 if reward[b] > 0 else -1
                _prove(nodes, slots, leaf.node)
        return FINE

    return _variant(absorb_with, f"absorb_by{expand.py_func.__name__}")


_absorb, _absorb_all = _absorbing(_expand), _absorbing(_expand_all)
_ABSORB = (
    _NODES, _SLOTS, _INTS, _LEAVES, _FLOAT_TABLE, _INT_TABLE, _SETTINGS,
    _FLOATS, _FLOATS, _FLOAT_TABLE, _FLOATS, _FLAGS, types.boolean,
)  # fmt: skip


@_entry(*_ABSORB)
def absorb(
    all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch, settings,
    reward, discount, logits, value, terminal, prove,
):  # fmt: skip
    """Expand the edges that `gather` selected, and back up. A leaf that is the root is planted.

    :param leaves: [L], as `gather` left them
    :param reward, ..., terminal: as in `RecurrentOutput`, a row for each leaf
    :param prove: a terminal reward above 0 is a win; see `_prove`
    :return: a status
    """
    return _absorb(
        all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch, settings,
        reward, discount, logits, value, terminal, prove,
    )  # fmt: skip


@_entry(*_ABSORB)
def absorb_all(
    all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch, settings,
    reward, discount, logits, value, terminal, prove,
):  # fmt: skip
    """The same where all actions are kept."""
    return _absorb_all(
        all_nodes, all_slots, num_slots, leaves, float_scratch, int_scratch, settings,
        reward, discount, logits, value, terminal, prove,
    )  # fmt: skip


@_entry(_NODES, _SLOTS, _INTS, types.int64, types.int64, _INTS)
def reroot(all_nodes, all_slots, num_slots, num_nodes, new_root, moved):
    """Make a node the root, and move what is behind it to the front: how many nodes remain.

    A node comes after its parent and its slots after its parent's, so all move towards the front.

    :param num_slots: int32 [B], in use; written
    :param num_nodes: nodes of the tree, none of which waits for the network
    :param moved: int32 [num_nodes], written: the new index of each node, -1 if it is gone
    """
    nodes, slots = all_nodes[0], all_slots[0]
    top = nodes[new_root].depth
    count, free = 0, 0
    for index in range(num_nodes):
        node = nodes[index]
        moved[index] = -1
        if index != new_root and (index < new_root or moved[node.parent] < 0):
            continue
        moved[index] = count
        first, node.first = node.first, free
        node.depth -= top
        for i in range(node.num_slots):
            slots[free + i] = slots[first + i]
        free += node.num_slots
        nodes[count] = node
        count += 1
    num_slots[0] = free
    nodes[ROOT].parent = nodes[ROOT].slot = -1
    for index in range(count):
        first = nodes[index].first
        for i in range(first, first + nodes[index].num_children):
            child = moved[slots[i].child]
            slots[i].child = child
            nodes[child].parent, nodes[child].slot = index, i
    return count


@_entry(
    _NODES, _SLOTS, _SETTINGS, _FLOAT_TABLE, _FLOATS, _FLOATS,
    _INTS, _FLOAT_TABLE, _INT_TABLE, _FLOAT_TABLE, _FLOATS, _FLOATS,
)  # fmt: skip
def summarise(
    all_nodes, all_slots, settings, logits, temperature, draw,
    action, weights, visit_counts, q_values, value, improved_value,
):  # fmt: skip
    """Read the result off the roots.

    :param logits: float32 [B, A], -inf where illegal
    :param temperature: float32 [B], for PUCT
    :param draw: float32 [B], for PUCT: uniform in [0, 1)
    :param action, ..., improved_value: as in `SearchOutput`, zeros; written
    """
    for b in range(action.size):
        root, slots = all_nodes[b, ROOT], all_slots[b]
        value[b] = root.value
        for i in range(root.num_children):
            visit_counts[b, slots[i].action] = slots[i].visits
            q_values[b, slots[i].action] = slots[i].q
        if settings[0].rule == GUMBEL:
            best, improved = _improve(root, slots, settings[0], logits[b], weights[b])
            action[b], improved_value[b] = best, improved
        else:
            action[b] = _draw_action(root, slots, temperature[b], draw[b])
            for i in range(root.num_children):
                weight = np.float32(slots[i].visits) / np.float32(root.visits - 1)
                weights[b, slots[i].action] = weight
                improved_value[b] += weight * slots[i].q
    return FINE
