"""Value targets: n-step returns, TD(lambda) and Monte Carlo are one formula.

With the temporal differences

    delta_t = r_{t+1} + d_{t+1} v_{t+1} - v_t

the lambda-return, cut after n steps, is

    G_t = v_t + sum_{i=0}^{n-1} lambda^i (d_{t+1} ... d_{t+i}) delta_{t+i}

where d is the discount of the edge: gamma, or -gamma where the mover changes.
lambda = 1 gives the n-step return, lambda = 1 with n past the end of the episode Monte Carlo, and
lambda = 0 or n = 1 the one-step target (Sutton & Barto, 2nd ed., eq. 12.3 and 12.9).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def lambda_returns(
    values: NDArray[np.float32],
    rewards: NDArray[np.float32],
    discounts: NDArray[np.float32],
    *,
    num_targets: int,
    td_steps: int,
    td_lambda: float,
    on_policy: NDArray[np.bool_] | None = None,
) -> NDArray[np.float32]:
    """Targets for the first `num_targets` states of each of B windows of T transitions.

    :param values: float32 [B, T + 1], value of each state, seen by the player to move there; NaN
        where nobody has estimated it. Such a state gets no weight but at the end of a sum (lambda
        counts as 1 there), and a sum that ends in one is no target.
    :param rewards: float32 [B, T], reward of each transition, seen by the player who moves.
    :param discounts: float32 [B, T], factor on the next state's value. Zero cuts off whatever is
        behind it, and so does a last state of value 0 after a termination. Pad behind the last
        state of an episode with its value, reward 0 and discount 1: there delta is 0, so that the
        last value bootstraps a truncated episode and nothing follows it.
    :param num_targets: how many states, from the first of the window on, get a target.
    :param on_policy: bool [B, T], whether the action of each transition is one that would be taken
        today; where not, the sum stops in front of it. None: all are. (V-trace with importance
        ratios of 0 and 1; Espeholt et al. 2018, section 4.1.)
    :param td_steps: n >= 1; sums stop at the window's end, too.
    :param td_lambda: 0 .. 1
    :return: float32 [B, num_targets], NaN where there is no target
    """
    if td_steps < 1:
        raise ValueError(f"td_steps={td_steps}: a value target needs at least one step")
    if not 0.0 <= td_lambda <= 1.0:
        raise ValueError(f"td_lambda={td_lambda} is outside of [0, 1]")
    horizon = rewards.shape[1]
    if values.shape[1] != horizon + 1 or discounts.shape[1] != horizon:
        raise ValueError(
            f"{values.shape[1]} values, {horizon} rewards and {discounts.shape[1]} discounts: "
            "a window of T transitions has T + 1 values, T rewards and T discounts"
        )
    unknown = np.isnan(values)
    some_unknown = bool(unknown.any())
    values = np.where(unknown, np.float32(0), values) if some_unknown else values
    delta = rewards + discounts * values[:, 1:] - values[:, :-1]  # [B, T]
    decay = np.float32(td_lambda) * discounts  # [B, T]
    if some_unknown:
        decay = np.where(unknown[:, 1:], discounts, decay)
    if on_policy is not None:
        delta = delta * on_policy
        decay = decay * on_policy
    steps = min(td_steps, horizon)
    padding = max(0, num_targets - 1 + steps - horizon)
    # Time first: what one step of the recursion reads for all targets is one block of memory.
    delta = np.pad(delta.T, ((0, padding), (0, 0)))  # [T + padding, B]
    decay = np.pad(decay.T, ((0, padding), (0, 0)))
    # Sums of n terms from sums of 1, 2, 4, ... terms, by the binary digits of n.
    correction = np.zeros((num_targets, len(values)), np.float32)
    weight = np.ones((num_targets, len(values)), np.float32)
    length, done = 1, 0
    while True:
        if steps & length:
            correction += weight * delta[done : done + num_targets]
            weight *= decay[done : done + num_targets]
            done += length
        if done == steps:
            break
        delta = delta[:-length] + decay[:-length] * delta[length:]
        decay = decay[:-length] * decay[length:]
        length *= 2
    targets: NDArray[np.float32] = values[:, :num_targets] + correction.T
    if some_unknown:
        ends = np.minimum(_ends(unknown, td_lambda, on_policy), np.arange(horizon + 1) + steps)
        targets[np.take_along_axis(unknown, ends[:, :num_targets], 1)] = np.nan
    return targets


def _ends(
    unknown: NDArray[np.bool_], td_lambda: float, on_policy: NDArray[np.bool_] | None
) -> NDArray[np.int64]:
    """Index [B, T + 1] of the state in which the sum from each state on ends, if not before by the
    number of its steps: in front of an action off policy, or at the window's end. One-step targets
    end in the next state that has an estimate."""
    horizon = unknown.shape[1] - 1
    ends = np.full(unknown.shape, horizon)
    if td_lambda == 0:
        ends[:, :-1] = np.where(unknown[:, 1:], horizon, np.arange(1, horizon + 1))
    if on_policy is not None:
        ends[:, :-1] = np.where(on_policy, ends[:, :-1], np.arange(horizon))
    return np.minimum.accumulate(ends[:, ::-1], axis=1)[:, ::-1]
