"""The arrays that layers hand to each other. Imports numpy alone."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

Observation = NDArray[np.generic] | dict[str, NDArray[np.generic]]
"""One observation or a batch of them; a dict for `gymnasium.spaces.Dict`."""


MASK_KEY = "action_mask"
"""PettingZoo's key of the mask in an observation or an info: nonzero where an action is legal."""


HOTTEST = 1e6
"""The highest temperature, and factor on noise: far beyond, float32 overflows."""


class Symmetries(NamedTuple):
    """Under which permutations of board and actions a game stays the same, the identity included.

    :param observation: int64 [S, D], D the size of an observation: entry i of the flattened
        observation under symmetry s is entry `observation[s, i]` of the original one
    :param action: int64 [S, A]: what action a is called under symmetry s
    """

    observation: NDArray[np.int64]
    action: NDArray[np.int64]


class RootOutput(NamedTuple):
    """What the network says of the root states: f(h(observation)).

    :param prior_logits: float32 [B, A], unnormalised log-probabilities of the policy prior.
    :param value: float32 [B], in units of return, seen by the player to move.
    """

    prior_logits: NDArray[np.float32]
    value: NDArray[np.float32]


class RecurrentOutput(NamedTuple):
    """What the network says of one edge and of the node behind it: g, then f.

    :param reward: float32 [B], reward of the edge, seen by the player who moved along it.
    :param discount: float32 [B], factor on the value behind the edge: gamma; 0 at the end of an
        episode; negative where the opponent moves next.
    :param prior_logits: float32 [B, A]; -inf marks an action that does not exist in that node.
    :param value: float32 [B], seen by the player to move in the new node.
    :param terminal: bool [B] or None. A terminal node is never expanded: visiting it again backs up
        the same value.
    """

    reward: NDArray[np.float32]
    discount: NDArray[np.float32]
    prior_logits: NDArray[np.float32]
    value: NDArray[np.float32]
    terminal: NDArray[np.bool_] | None = None


class RecurrentFn(Protocol):
    """The learned (or true) model that a search calls once per simulation, for all roots at once.

    The node that the call creates has index `simulation + 1` in every root's tree, and the root
    has index 0. Latents never enter the tree: the callee keeps them by node index. A call may
    revisit an edge (below a terminal node or at `max_depth`); its node index is then not used.
    """

    def __call__(
        self, simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32], /
    ) -> RecurrentOutput:
        """:param simulation: 0 .. num_simulations - 1
        :param parent: int32 [B], node index from which to step
        :param action: int32 [B]"""
        ...


@runtime_checkable
class TurnBased(Protocol):
    """A game of two players as an environment of Gymnasium: a step is a move.

    Observations belong to the player who is to move next, rewards to the one who has just moved;
    what one wins the other loses. `info["to_play"]` of `reset` and `step` is `to_play`.
    """

    name: str
    num_players: int  # 2
    num_actions: int
    symmetries: Symmetries | None
    observation_space: Any  # of gymnasium
    render_mode: str | None

    @property
    def to_play(self) -> int:
        """Number of the player to move, 0 or 1."""
        ...

    def action_masks(self) -> NDArray[np.bool_]:
        """Which actions are legal for the player to move: bool [A]."""
        ...

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin a game."""
        ...

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Play a move."""
        ...

    def render(self) -> Any:
        """Show the position."""
        ...

    def close(self) -> None:
        """Give back what the game holds."""
        ...


State = TypeVar("State")


class Rules(Protocol[State]):
    """The true rules of a game of two players who take turns, with full information and no chance.

    A state knows who is to move, and is not changed by moves: `play` returns another one, which can
    be compared and hashed.
    """

    num_actions: int

    def initial(self) -> State:
        """The state in which a game begins."""
        ...

    def legal(self, state: State) -> list[int]:
        """Legal actions, ascending; there is one, unless the game is over."""
        ...

    def play(self, state: State, action: int) -> State:
        """The state after a legal action."""
        ...

    def outcome(self, state: State) -> float | None:
        """For the player to move: -1 lost, 0 drawn, 1 won; None while the game goes on."""
        ...

    def wins(self, state: State, legal: Sequence[int]) -> list[int]:
        """Those of its legal actions that end the game at once, and win it.

        :param legal: as `legal` tells them
        """
        ...

    def observe(self, state: State) -> Observation:
        """What the player to move sees, as the environment of this game shows it: one observation,
        without a mask."""
        ...

    def rollout(self, state: State, rng: random.Random) -> float:
        """Outcome of one game of random moves from here, for the player to move."""
        ...
