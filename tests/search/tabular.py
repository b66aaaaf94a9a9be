"""Random tabular models, made from PCG64's raw bits, so that they are the same everywhere."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from muzero_agent.types import RecurrentOutput, RootOutput

NUM_STATES = 24
DISCOUNTS = {
    "one": [1.0],
    "gamma": [0.997],
    "zero": [0.0],
    "opponent": [-1.0],
    "mixed": [1.0, 0.997, 0.0, -1.0, -0.5],
}


class Spec(NamedTuple):
    """What determines a model and the size of the search in it."""

    seed: int
    batch_size: int
    num_actions: int
    num_simulations: int
    max_depth: int = 0  # 0: none
    masked: bool = False  # half of the root's actions are illegal
    discount: str = "gamma"  # a key of DISCOUNTS
    logit_scale: float = 1.0  # 0: all priors are equal


class Tabular:
    """Reward, discount and next state by (state, action); value, logits, terminal by state."""

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        bits = np.random.PCG64(spec.seed)

        def uniform(*shape: int) -> NDArray[np.float32]:  # in [0, 1), multiples of 2**-24
            raw = bits.random_raw(int(np.prod(shape))) >> np.uint64(40)
            return (raw.astype(np.float32) / np.float32(2**24)).reshape(shape)

        states, actions = NUM_STATES, spec.num_actions
        choices = np.array(DISCOUNTS[spec.discount], np.float32)
        self.reward = uniform(states, actions) - np.float32(0.5)  # [S, A]
        self.discount = choices[(uniform(states, actions) * len(choices)).astype(int)]  # [S, A]
        self.next_state = (uniform(states, actions) * states).astype(np.int32)  # [S, A]
        self.value = 2 * uniform(states) - 1  # [S]
        bell = uniform(states, actions) + uniform(states, actions) + uniform(states, actions)
        self.logits = np.float32(spec.logit_scale) * (2 * bell - 3)  # [S, A]
        self.root_state = (uniform(spec.batch_size) * states).astype(np.int32)  # [B]
        self.invalid = uniform(spec.batch_size, actions) < 0.5 * spec.masked  # [B, A]
        self.invalid[np.arange(spec.batch_size), self.root_state % actions] = False
        self.terminal: NDArray[np.bool_] | None = None  # [S]; set it for episodes that end
        self.node_state = np.zeros((spec.num_simulations + 1, spec.batch_size), np.int32)

    def root(self) -> RootOutput:
        self.node_state[0] = self.root_state
        return RootOutput(self.logits[self.root_state], self.value[self.root_state])

    def recurrent_fn(
        self, simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        state = self.node_state[parent, np.arange(parent.size)]
        following = self.next_state[state, action]
        self.node_state[simulation + 1] = following
        return RecurrentOutput(
            reward=self.reward[state, action],
            discount=self.discount[state, action],
            prior_logits=self.logits[following],
            value=self.value[following],
            terminal=None if self.terminal is None else self.terminal[following],
        )
