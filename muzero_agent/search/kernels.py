"""All compiled code of the search, in the order of the algorithm: select, expand, back up.

One file, because numba's cache notices edits in the file of the compiled function alone. The row
functions below take one root's `nodes` [N + 1] and `slots` [M] (see `tree.py`); the entry points at
the end loop over leaves. Arithmetic is float32 in mctx's order of operations.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from muzero_agent.search.tree import LEAF, NODE, ROOT, SLOT

PUCT = 0
GUMBEL = 1

SETTINGS = np.dtype(
    [
        ("num_actions", np.int32),
        ("num_simulations", np.int32),
        ("max_depth", np.int32),
        ("rule", np.int32),  # PUCT or GUMBEL
        ("value_scale", np.float32),
        ("maxvisit_init", np.float32),
        ("rescale_values", np.int32),
        ("use_mixed_value", np.int32),
    ],
    align=True,
)
"""What stays fixed during a search."""

# What `advance` reports as bad, in the low bits of its status; the row stands above them.
FINE, BAD_SHAPE, BAD_REWARD, BAD_DISCOUNT, BAD_VALUE, BAD_LOGITS = range(6)
STATUS_BITS = 3

_F = TypeVar("_F", bound=Callable[..., Any])

_EPSILON = np.float32(1e-8)  # floor of the range that Q values are divided by
_ZERO = np.float32(0)
_ONE = np.float32(1)
_TINY = np.finfo(np.float32).tiny
_INF = np.float32(np.inf)

_cacheable = True


def _entry(*signature: Any) -> Callable[[_F], _F]:
    """Compile for this signature alone, from numba's cache where one can be kept."""

    def decorate(function: _F) -> _F:
        global _cacheable
        if _cacheable:
            try:
                return cast(_F, nb.njit(signature, cache=True)(function))
            except RuntimeError as error:  # no cache directory can be written
                _cacheable = False
                warnings.warn(
                    f"the search is compiled anew in every process ({error}); set NUMBA_CACHE_DIR "
                    "to a writable directory to avoid that",
                    RuntimeWarning,
                    stacklevel=2,
                )
        return cast(_F, nb.njit(signature)(function))

    return decorate


def _inner(function: _F) -> _F:
    """Compile as part of the entry points that call it."""
    return cast(_F, nb.njit(function))


# ---------------------------------------------------------------------------------------------
# Select
# ---------------------------------------------------------------------------------------------


@_inner
def _select(nodes, slots, settings, explore, considered, scores):  # type: ignore[no-untyped-def]
    """Walk from the root to the edge to evaluate: (parent node, slot).

    The edge has no node yet, or leads to a leaf that stays one.
    """
    node = ROOT
    while True:
        if settings.rule == PUCT:
            slot = _select_puct(nodes[node], slots, explore)
        elif node == ROOT:
            slot = _select_considered(nodes[node], slots, settings, considered)
        else:
            slot = _select_improved(nodes[node], slots, settings, scores)
        if slot == nodes[node].first + nodes[node].num_children:
            return node, slot
        child = slots[slot].child
        if nodes[child].num_slots == 0:
            return node, slot
        node = child


@_inner
def _select_puct(node, slots, explore):  # type: ignore[no-untyped-def]
    """argmax of Q + P * sqrt(n) / (1 + N) * (c1 + log((n + c2 + 1) / c2)).

    MuZero (Schrittwieser et al. 2020), appendix B; n is the visits of the node, Q is normalised by
    the values of the node and of its visited children, and is 0 for the unvisited ones.

    :param explore: float32, sqrt(n) * (c1 + log(...)) by n
    """
    end = node.first + node.num_children
    if end == node.first:
        return end
    low = node.value
    high = node.value
    for i in range(node.first, end):
        q = slots[i].q
        low = q if q < low else low
        high = q if q > high else high
    span = max(high - low, _EPSILON)

    bonus = explore[node.visits]
    best = end
    top = -_INF
    for i in range(node.first, end):
        slot = slots[i]
        score = (slot.q - low) / span + bonus * slot.prior / np.float32(slot.visits + 1)
        if score > top:
            best, top = i, score
    if node.num_children < node.num_slots and bonus * slots[end].prior > top:
        best = end
    return best


@_inner
def _select_considered(node, slots, settings, considered):  # type: ignore[no-untyped-def]
    """argmax of gumbel + logit + sigma(Q) over the actions with the considered number of visits.

    Gumbel MuZero (Danihelka et al. 2022), section 3.3.

    :param considered: int32, visit counts by simulation
    """
    end = node.first + node.num_children
    visits = considered[node.visits - 1]
    if visits == 0:  # equal Q: the next in the order of gumbel + logit
        return end
    _, low, span, scale, _ = _complete(node, slots, settings)
    best = node.first
    top = -_INF
    for i in range(node.first, end):
        slot = slots[i]
        if slot.visits == visits:
            score = slot.logit + scale * ((slot.q - low) / span)
            if score > top:
                best, top = i, score
    return best


@_inner
def _select_improved(node, slots, settings, scores):  # type: ignore[no-untyped-def]
    """argmax of pi'(a) - N(a) / (1 + sum of N), where pi' = softmax(logit + sigma(completed Q)).

    Gumbel MuZero (Danihelka et al. 2022), section 5.

    :param scores: float32, room for the node's children
    """
    end = node.first + node.num_children
    if end == node.first:
        return end
    mixed, low, span, scale, total = _complete(node, slots, settings)
    top = -_INF
    unvisited = -_INF
    if node.num_children < node.num_slots:
        unvisited = slots[end].logit + scale * ((mixed - low) / span)
        top = unvisited
    for i in range(node.num_children):
        slot = slots[node.first + i]
        scores[i] = slot.logit + scale * ((slot.q - low) / span)
        top = max(top, scores[i])

    mass = _ZERO
    if node.num_children < node.num_slots:
        unvisited = _exp(unvisited - top)
        mass = unvisited * slots[end].suffix
    for i in range(node.num_children):
        scores[i] = _exp(scores[i] - top)
        mass += scores[i]

    best = end
    top = -_INF
    for i in range(node.num_children):
        score = scores[i] / mass - np.float32(slots[node.first + i].visits) / (_ONE + total)
        if score > top:
            best, top = node.first + i, score
    if node.num_children < node.num_slots and unvisited / mass > top:
        best = end
    return best


@_inner
def _complete(node, slots, settings):  # type: ignore[no-untyped-def]
    """What completes and scales the Q values of a node: (mixed, low, span, scale, total).

    An unvisited action has Q = `mixed`, and sigma(Q) = scale * ((Q - low) / span). `total` is the
    number of visits to children. Gumbel MuZero (Danihelka et al. 2022), appendix D, equation 33.
    """
    end = node.first + node.num_children
    low = _INF
    high = -_INF
    most = 0
    total = 0
    mass = _ZERO
    weighted = _ZERO
    for i in range(node.first, end):
        slot = slots[i]
        low = min(low, slot.q)
        high = max(high, slot.q)
        most = max(most, slot.visits)
        total += slot.visits
        prior = max(slot.prior, _TINY)
        mass += prior
        weighted += prior * slot.q
    total = np.float32(total)
    mixed = node.raw_value
    if settings.use_mixed_value and total > 0:
        mixed = (node.raw_value + total * (weighted / mass)) / (total + _ONE)
    if node.num_children < settings.num_actions:
        low = min(low, mixed)
        high = max(high, mixed)
    span = max(high - low, _EPSILON)
    if not settings.rescale_values:
        low = _ZERO
        span = _ONE
    scale = (settings.maxvisit_init + np.float32(most)) * settings.value_scale
    return mixed, low, span, scale, total


# ---------------------------------------------------------------------------------------------
# Expand
# ---------------------------------------------------------------------------------------------


@_inner
def _expand(nodes, slots, next_slot, node, logits, capacity, keys):  # type: ignore[no-untyped-def]
    """Give `node` its actions, the `capacity` best in prior order: (slots now in use, logits fine).

    :param logits: float32 [A]
    :param capacity: the children that the node can still get
    :param keys: int64 [A], scratch
    """
    count = 0
    for action in range(logits.size):
        x = logits[action]
        if not x < _INF:
            return next_slot, False
        if x > -_INF:
            keys[count] = (np.int64(_ordered_bits(x)) << 32) | np.int64(0xFFFFFFFF - action)
            count += 1
    _sort_descending(keys, count)
    num_slots = min(count, capacity)
    this = nodes[node]
    this.first = next_slot
    this.num_slots = num_slots
    this.num_children = 0
    if num_slots == 0:
        return next_slot, True
    for i in range(num_slots):
        slot = slots[next_slot + i]
        slot.action = 0xFFFFFFFF - (keys[i] & 0xFFFFFFFF)
        slot.logit = logits[slot.action]
        slot.visits = 0
        slot.q = _ZERO
    suffix = _ZERO
    cut = slots[next_slot + num_slots - 1].logit
    for i in range(num_slots, count):
        suffix += _exp(logits[0xFFFFFFFF - (keys[i] & 0xFFFFFFFF)] - cut)
    following = cut
    for i in range(next_slot + num_slots - 1, next_slot - 1, -1):
        suffix = _ONE + _exp(following - slots[i].logit) * suffix
        slots[i].suffix = suffix
        following = slots[i].logit
    for i in range(next_slot, next_slot + num_slots):
        slots[i].prior = _exp(slots[i].logit - following) / suffix
    return next_slot + num_slots, True


@_inner
def _sort_descending(keys, count):  # type: ignore[no-untyped-def]
    """Shell sort."""
    gap = 1
    while gap < count // 3:
        gap = 3 * gap + 1
    while gap > 0:
        for i in range(gap, count):
            key = keys[i]
            j = i
            while j >= gap and keys[j - gap] < key:
                keys[j] = keys[j - gap]
                j -= gap
            keys[j] = key
        gap //= 3


@intrinsic  # type: ignore[misc]
def _float_bits(typing_context, x):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], context.get_value_type(types.int32))

    return types.int32(types.float32), codegen


@intrinsic  # type: ignore[misc]
def _float_of_bits(typing_context, x):  # type: ignore[no-untyped-def]
    def codegen(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.bitcast(arguments[0], context.get_value_type(types.float32))

    return types.float32(types.int32), codegen


@_inner
def _ordered_bits(x):  # type: ignore[no-untyped-def]
    """An int32 that sorts as the float32 does."""
    bits = _float_bits(x + _ZERO)  # -0 becomes 0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


@_inner
def _exp(x):  # type: ignore[no-untyped-def]
    """exp(x) for x <= 0, within 2 units in the last place, and 0 below -87."""
    shifted = max(x, np.float32(-87)) * np.float32(1.44269504) + np.float32(12582912)
    n = shifted - np.float32(12582912)  # the nearest integer to x / log(2)
    r = max(x, np.float32(-87)) - n * np.float32(0.693359375) - n * np.float32(-2.12194440e-4)
    p = np.float32(1.9875691500e-4)
    p = p * r + np.float32(1.3981999507e-3)
    p = p * r + np.float32(8.3334519073e-3)
    p = p * r + np.float32(4.1665795894e-2)
    p = p * r + np.float32(1.6666665459e-1)
    p = p * r + np.float32(5.0000001201e-1)
    p = p * r * r + r + _ONE
    power = _float_of_bits(np.int32((_float_bits(shifted) - 0x4B400000 + 127) << 23))
    return p * power if x > np.float32(-87) else _ZERO


# ---------------------------------------------------------------------------------------------
# Back up
# ---------------------------------------------------------------------------------------------


@_inner
def _back_up(nodes, slots, node):  # type: ignore[no-untyped-def]
    """Add one visit, worth the raw value of `node`, to every node and edge up to the root.

    MuZero (Schrittwieser et al. 2020), appendix B, with a discount per edge.
    """
    value = nodes[node].raw_value
    while node != ROOT:
        child = nodes[node]
        parent = nodes[child.parent]
        value = child.reward + child.discount * value
        count = np.float32(parent.visits)
        parent.value = (parent.value * count + value) / (count + _ONE)
        parent.visits += 1
        slot = slots[child.slot]
        slot.visits += 1
        slot.q = child.reward + child.discount * child.value
        node = child.parent


# ---------------------------------------------------------------------------------------------
# Entry points
# ---------------------------------------------------------------------------------------------

_NODES = nb.from_dtype(NODE)[:, ::1]
_SLOTS = nb.from_dtype(SLOT)[:, ::1]
_LEAVES = nb.from_dtype(LEAF)[::1]
_SETTINGS = nb.from_dtype(SETTINGS)[::1]
_INTS = types.int32[::1]
_FLOATS = types.float32[::1]
_INT_TABLE = types.int32[:, ::1]
_FLOAT_TABLE = types.float32[:, ::1]
_KEYS = types.int64[::1]


@_entry(_NODES, _SLOTS, _INTS, _SETTINGS, _KEYS, _FLOAT_TABLE, _FLOAT_TABLE, _FLOATS)
def plant(nodes, slots, next_slot, settings, keys, order, logits, value):  # type: ignore[no-untyped-def]
    """Start new trees at the roots.

    :param order: float32 [B, A], logits that order the root's actions; -inf: not to be visited
    :param logits: float32 [B, A], logits of the prior
    :param value: float32 [B]
    """
    capacity = min(settings[0].num_actions, settings[0].num_simulations)
    for b in range(value.size):
        root = nodes[b, ROOT]
        root.visits = 1
        root.value = value[b]
        root.raw_value = value[b]
        root.parent = -1
        root.slot = -1
        root.depth = 0
        next_slot[b], _ = _expand(nodes[b], slots[b], 0, ROOT, order[b], capacity, keys)
        if settings[0].rule == GUMBEL:
            top = -_INF
            for x in logits[b]:
                top = max(top, x)
            mass = _ZERO
            for x in logits[b]:
                mass += _exp(x - top)
            for i in range(root.num_slots):
                slots[b, i].prior = _exp(logits[b, slots[b, i].action] - top) / mass


@_entry(
    _NODES, _SLOTS, _LEAVES, _SETTINGS, _FLOATS, _INT_TABLE, _INTS, _FLOATS,
    types.int64, _INTS, _INTS,
)  # fmt: skip
def select(  # type: ignore[no-untyped-def]
    nodes, slots, leaves, settings, explore, considered, num_considered, scores,
    simulation, parent, action,
):  # fmt: skip
    """Choose an edge to evaluate in each tree.

    :param parent: int32 [B], written: node index from which to step
    :param action: int32 [B], written
    """
    for b in range(parent.size):
        leaf = leaves[b]
        node, slot = _select(
            nodes[leaf.row], slots[leaf.row], settings[0], explore,
            considered[num_considered[leaf.row]], scores,
        )  # fmt: skip
        leaf.parent = node
        leaf.slot = slot
        leaf.node = simulation + 1
        parent[b] = node
        action[b] = slots[leaf.row, slot].action


@_entry(
    _NODES, _SLOTS, _INTS, _LEAVES, _SETTINGS, _KEYS, types.int64,
    _FLOATS, _FLOATS, _FLOAT_TABLE, _FLOATS, types.boolean[::1],
)  # fmt: skip
def grow(  # type: ignore[no-untyped-def]
    nodes, slots, next_slot, leaves, settings, keys, simulation,
    reward, discount, logits, value, terminal,
):  # fmt: skip
    """Expand the edges that were evaluated and back up from them.

    :param reward, discount, logits, value, terminal: as in `RecurrentOutput`
    :return: FINE, or what is bad and in which row
    """
    remaining = settings[0].num_simulations - 1 - simulation
    if not (
        reward.size == discount.size == value.size == terminal.size == logits.shape[0]
        and logits.shape[1] == settings[0].num_actions
    ):
        return BAD_SHAPE
    for b in range(reward.size):
        leaf = leaves[b]
        row = leaf.row
        parent = nodes[row, leaf.parent]
        if leaf.slot == parent.first + parent.num_children:
            if not abs(reward[b]) < _INF:
                return BAD_REWARD + (b << STATUS_BITS)
            if not abs(discount[b]) < _INF:
                return BAD_DISCOUNT + (b << STATUS_BITS)
            if not abs(value[b]) < _INF:
                return BAD_VALUE + (b << STATUS_BITS)
            node = leaf.node
            this = nodes[row, node]
            this.visits = 1
            this.value = value[b]
            this.raw_value = value[b]
            this.reward = reward[b]
            this.discount = discount[b]
            this.parent = leaf.parent
            this.slot = leaf.slot
            this.depth = parent.depth + 1
            capacity = 0 if terminal[b] or this.depth >= settings[0].max_depth else remaining
            next_slot[row], fine = _expand(
                nodes[row], slots[row], next_slot[row], node, logits[b], capacity, keys
            )
            if not fine:
                return BAD_LOGITS + (b << STATUS_BITS)
            parent.num_children += 1
            slots[row, leaf.slot].child = node
        else:
            node = slots[row, leaf.slot].child
            nodes[row, node].visits += 1
        _back_up(nodes[row], slots[row], node)
    return FINE


@_entry(_NODES, _SLOTS, _INT_TABLE, _FLOAT_TABLE)
def summarise(nodes, slots, visit_counts, q_values):  # type: ignore[no-untyped-def]
    """What the search found at the roots.

    :param visit_counts: int32 [B, A], zeros; written
    :param q_values: float32 [B, A], zeros; written
    """
    for b in range(visit_counts.shape[0]):
        for i in range(nodes[b, ROOT].num_children):
            slot = slots[b, i]
            visit_counts[b, slot.action] = slot.visits
            q_values[b, slot.action] = slot.q


@_entry(_NODES, _SLOTS, _SETTINGS, _FLOAT_TABLE, _FLOAT_TABLE, _INTS, _FLOAT_TABLE, _FLOATS)
def improve(nodes, slots, settings, logits, q_values, action, weights, improved):  # type: ignore[no-untyped-def]
    """The improved policy softmax(logit + sigma(completed Q)) at the roots.

    :param logits: float32 [B, A], -inf for illegal actions
    :param q_values: float32 [B, A], 0 where unvisited
    :param action: int32 [B], written: the best of the most visited actions
    :param weights: float32 [B, A], written: the improved policy
    :param improved: float32 [B], written: sum of improved policy * completed Q
    """
    for b in range(action.size):
        root = nodes[b, ROOT]
        mixed, low, span, scale, _ = _complete(root, slots[b], settings[0])
        unvisited = scale * ((mixed - low) / span)
        weights[b] = logits[b] + unvisited
        most = 0
        for i in range(root.num_children):
            most = max(most, slots[b, i].visits)
        best = -_INF
        for i in range(root.num_children):
            slot = slots[b, i]
            sigma = scale * ((slot.q - low) / span)
            weights[b, slot.action] = logits[b, slot.action] + sigma
            if slot.visits == most and slot.logit + sigma > best:
                best = slot.logit + sigma
                action[b] = slot.action
        top = -_INF
        for x in weights[b]:
            top = max(top, x)
        mass = _ZERO
        for a in range(weights.shape[1]):
            weights[b, a] = _exp(weights[b, a] - top)
            mass += weights[b, a]
        visited = _ZERO
        total = _ZERO
        for a in range(weights.shape[1]):
            weights[b, a] /= mass
        for i in range(root.num_children):
            slot = slots[b, i]
            visited += weights[b, slot.action]
            total += weights[b, slot.action] * slot.q
        improved[b] = total + (_ONE - visited) * mixed
