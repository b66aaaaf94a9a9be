"""Where networks meet the search: plans in the latent space of a learned model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muzero_agent.networks import MuZeroNetwork, Obs
from muzero_agent.search import Tree, gumbel_muzero_policy, muzero_policy
from muzero_agent.tracing import Traced
from muzero_agent.types import RecurrentFn, RecurrentOutput, RootOutput

SEARCHES = ("gumbel", "puct")


class Plan(NamedTuple):
    """What a search found in each of B states, and what the network had thought before."""

    action: NDArray[np.int32]  # [B], the action to play
    policy: NDArray[np.float32]  # [B, A], the search's improved policy
    prior: NDArray[np.float32]  # [B, A], the network's policy
    visit_counts: NDArray[np.int32]  # [B, A]
    q_values: NDArray[np.float32]  # [B, A]; 0 where unvisited
    value: NDArray[np.float32]  # [B], mean of all values backed up, the network's own included
    improved_value: NDArray[np.float32]  # [B], value of the improved policy
    mixed_value: NDArray[np.float32]  # [B], value of the prior by the searched Q; see `mix_value`
    principal_variation: list[list[int]]  # most visited line from each state, `action` first

    def regret(self) -> NDArray[np.float32]:
        """By how much each action falls short of the best visited one: [B, A], 0 or more.

        Unvisited actions count as `mixed_value`, as in Gumbel MuZero's completed Q values.
        """
        visited = self.visit_counts > 0
        best = np.where(visited, self.q_values, -np.inf).max(-1, keepdims=True)
        completed = np.where(visited, self.q_values, self.mixed_value[:, None])
        regret: NDArray[np.float32] = np.maximum(best - completed, 0).astype(np.float32)
        return regret


class LatentPlanner:
    """Searches with h, g and f: MuZero proper, without the rules of the environment.

    Latents stay in one preallocated tensor on the network's device, addressed by node index; only
    actions go in, and scalars and logits come out, per simulation. The tree and the latents are
    used again while shapes stay the same.

    :param network: evaluated as it is at the time of each search
    """

    def __init__(self, network: MuZeroNetwork) -> None:
        self.network = network
        self._tree: Tree | None = None
        self._shape: tuple[int, int, int] | None = None
        self._latents = torch.empty(0)
        self._traced = Traced(_Step)

    def __reduce__(self) -> tuple[type[LatentPlanner], tuple[MuZeroNetwork]]:
        return LatentPlanner, (self.network,)  # without the room

    @torch.inference_mode()
    def plan(
        self,
        obs: Obs,
        *,
        num_simulations: int,
        search: str,
        discount: float,
        rng: np.random.Generator,
        legal_actions: NDArray[np.bool_] | None = None,
        noise: float | NDArray[np.float32] = 0.0,
        temperature: float | NDArray[np.float32] = 1.0,
        max_num_considered_actions: int = 16,
        min_q_range: float = 1e-8,
        dirichlet_fraction: float = 0.25,
        dirichlet_alpha: float = 0.3,
        terminal_rewards: bool = False,
        variations: bool = False,
    ) -> Plan:
        """Search from B states at once.

        :param obs: preprocessed observations [B, ...], what the representation function takes
        :param num_simulations: network calls per search, >= 1
        :param search: "gumbel" (Danihelka et al. 2022) or "puct" (MuZero, appendix B)
        :param discount: factor on the value behind each edge: gamma, or -gamma where two players
            alternate
        :param legal_actions: bool [B, A]; None: all are
        :param noise: factor on the root's exploration noise, one for all or one a row [B]: Gumbel's
            scale, or a factor on the Dirichlet fraction; 0 searches without noise.
        :param temperature: of PUCT's draw among visit counts, one for all or one a row [B]; Gumbel
            draws by its noise alone.
        :param min_q_range: least range of Q values that the search takes for a difference in
            earnest: the typical error of values
        :param terminal_rewards: whether a reward of +-1 ends the episode: then one predicted as r
            is an end with probability |r|, behind which nothing is worth anything. Else a result
            that is half foreseen would count twice, in the reward and in the value behind it
        :param variations: whether to read the principal variations off the tree
        :raises ValueError: for a row without legal actions
        """
        inference = self.network.initial_inference(obs)
        batch = inference.latent.shape[0]
        tree = self._prepare(inference.latent, num_simulations)
        latents = self._latents  # [N + 1, B, *latent]
        by_node_and_row = latents.flatten(0, 1)
        by_node = latents.unbind(0)
        step = self._traced.of(self.network, latents, lambda: _example(latents))
        row = np.arange(batch)
        device = latents.device

        def recurrent_fn(
            simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32]
        ) -> RecurrentOutput:
            policy_logits, scalars = step(
                by_node_and_row,
                torch.from_numpy(parent * batch + row).to(device),
                torch.from_numpy(action).to(device),
                by_node[simulation + 1],
            )
            value, reward = _numpy(scalars)
            behind = _discounts(reward, discount, terminal_rewards)
            return RecurrentOutput(reward, behind, _numpy(policy_logits), value)

        root = RootOutput(_numpy(inference.policy_logits), _numpy(inference.scalars[0]))
        return search_from(
            root,
            recurrent_fn,
            tree,
            num_simulations=num_simulations,
            search=search,
            rng=rng,
            legal_actions=legal_actions,
            noise=noise,
            temperature=temperature,
            max_num_considered_actions=max_num_considered_actions,
            min_q_range=min_q_range,
            dirichlet_fraction=dirichlet_fraction,
            dirichlet_alpha=dirichlet_alpha,
            variations=variations,
        )

    def _prepare(self, latent: Tensor, num_simulations: int) -> Tree:
        """Make room for a root and a node per simulation, and put the root's latents in."""
        shape = (len(latent), self.network.num_actions, num_simulations)
        if self._tree is None or shape != self._shape:
            self._tree, self._shape = Tree(*shape), shape
        needed = (num_simulations + 1, *latent.shape)
        held = self._latents
        if (held.shape, held.device, held.dtype) != (needed, latent.device, latent.dtype):
            self._latents = latent.new_empty(needed)
        self._latents[0] = latent
        return self._tree


class LatentModel:
    """A learned model to think in, one root at a time (see `thinking`): latents by node.

    :param network: evaluated as it is at the time
    :param max_nodes: nodes that there is room for
    :param discount: factor on the value behind each edge
    :param terminal_rewards: see `LatentPlanner.plan`
    :param traced: of `Behind`, where the trace of another model of this network is to serve again
    """

    follows = False

    def __init__(
        self,
        network: MuZeroNetwork,
        max_nodes: int,
        *,
        discount: float,
        terminal_rewards: bool,
        traced: Traced | None = None,
    ) -> None:
        self.network = network
        self.max_nodes = max_nodes
        self.discount = discount
        self.terminal_rewards = terminal_rewards
        self._latents = torch.empty(0)
        self._num = 0
        self._traced = Traced(Behind) if traced is None else traced

    @torch.inference_mode()
    def plant(self, positions: Sequence[tuple[Obs, NDArray[np.bool_]]]) -> RootOutput:
        """Begin with a preprocessed observation [1, ...] and the legal actions, bool [A].

        :raises MemoryError: if there is no room for the latents
        """
        ((obs, legal),) = positions
        inference = self.network.initial_inference(obs)
        shape = (self.max_nodes, *inference.latent.shape[1:])
        if self._latents.shape != shape:
            self._latents = torch.empty(0)  # its memory is free before the next takes it
            try:
                self._latents = inference.latent.new_empty(shape)
            except RuntimeError as error:
                raise MemoryError(f"no room for the latents of {self.max_nodes} nodes") from error
        self._latents[0], self._num = inference.latent[0], 1
        logits = np.where(legal, _numpy(inference.policy_logits), -np.inf).astype(np.float32)
        return RootOutput(logits, _numpy(inference.scalars[0]))

    @torch.inference_mode()
    def step(self, parents: Sequence[int], actions: Sequence[int]) -> RecurrentOutput:
        """Step from nodes, by number; the new nodes get the next numbers."""
        device = self._latents.device
        before = self._latents[torch.as_tensor(parents, device=device)]
        given = before, torch.as_tensor(actions, dtype=torch.int32, device=device)
        behind = self._traced.of(self.network, before, lambda: given)
        latent, policy_logits, scalars = behind(*given)
        self._latents[self._num : self._num + len(actions)] = latent
        self._num += len(actions)
        value, reward = _numpy(scalars)
        discount = _discounts(reward, self.discount, self.terminal_rewards)
        return RecurrentOutput(reward, discount, _numpy(policy_logits), value)

    def keep(self, kept: NDArray[np.int32]) -> None:
        """Forget all nodes but these, which are numbered anew."""
        self._num = len(kept)
        self._latents[: self._num] = self._latents[torch.from_numpy(kept).long()]


def _discounts(
    reward: NDArray[np.float32], discount: float, terminal_rewards: bool
) -> NDArray[np.float32]:
    """Factors on the values behind edges; see `LatentPlanner.plan`."""
    if not terminal_rewards:
        return np.full_like(reward, discount)
    return (discount * (1 - np.minimum(np.abs(reward), 1))).astype(np.float32)


class _Step(nn.Module):
    """All that torch does in a simulation: gather latents, apply g and f, keep the new latents."""

    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(
        self, latents: Tensor, index: Tensor, action: Tensor, room: Tensor
    ) -> tuple[Tensor, Tensor]:
        inference = self.network.recurrent_inference(latents.index_select(0, index), action)
        room.copy_(inference.latent)
        return inference.policy_logits, inference.scalars


class Behind(nn.Module):
    """g and f: latents, policy logits, and values and rewards, behind actions."""

    def __init__(self, network: MuZeroNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, latents: Tensor, actions: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.network.recurrent_inference(latents, actions))


def _example(latents: Tensor) -> tuple[Tensor, ...]:
    """Inputs of a step.

    :param latents: [N + 1, B, *latent]
    """
    zeros = torch.zeros(latents.shape[1], dtype=torch.int32, device=latents.device)
    return latents.flatten(0, 1), zeros.long(), zeros, latents[1]


def search_from(
    root: RootOutput,
    recurrent_fn: RecurrentFn,
    tree: Tree,
    *,
    num_simulations: int,
    search: str,
    rng: np.random.Generator,
    legal_actions: NDArray[np.bool_] | None,
    noise: float | NDArray[np.float32],
    temperature: float | NDArray[np.float32],
    max_num_considered_actions: int,
    min_q_range: float,
    dirichlet_fraction: float,
    dirichlet_alpha: float,
    variations: bool,
) -> Plan:
    """The search that all planners share, whatever evaluates; see `LatentPlanner.plan`."""
    prior_logits = root.prior_logits
    invalid_actions = None
    if legal_actions is not None:
        invalid_actions = ~legal_actions
        prior_logits = np.where(legal_actions, prior_logits, -np.inf)
    if search == "gumbel":
        out = gumbel_muzero_policy(
            root,
            recurrent_fn,
            num_simulations=num_simulations,
            invalid_actions=invalid_actions,
            max_num_considered_actions=max_num_considered_actions,
            gumbel_scale=noise,
            min_q_range=max(min_q_range, 1e-8),
            rng=rng,
            tree=tree,
        )
    else:
        out = muzero_policy(
            root,
            recurrent_fn,
            num_simulations=num_simulations,
            invalid_actions=invalid_actions,
            dirichlet_fraction=dirichlet_fraction * np.asarray(noise, np.float32),
            dirichlet_alpha=dirichlet_alpha,
            temperature=temperature,
            min_q_range=max(min_q_range, 1e-8),
            rng=rng,
            tree=tree,
        )
    prior = np.exp(prior_logits - prior_logits.max(-1, keepdims=True))
    prior /= prior.sum(-1, keepdims=True)
    return Plan(
        action=out.action,
        policy=out.action_weights,
        prior=prior,
        visit_counts=out.visit_counts,
        q_values=out.q_values,
        value=out.value,
        improved_value=out.improved_value,
        mixed_value=mix_value(root.value, prior, out.q_values, out.visit_counts),
        principal_variation=(
            [tree.principal_variation(i, int(out.action[i])) for i in range(len(out.action))]
            if variations
            else []
        ),
    )


def mix_value(
    raw_value: NDArray[np.float32],
    prior: NDArray[np.float32],
    q_values: NDArray[np.float32],
    visit_counts: NDArray[np.int32],
) -> NDArray[np.float32]:
    """Value of the prior policy, from the network and from the search: float32 [B].

    (v + n sum_a p(a) q(a) / sum_a p(a)) / (1 + n), sums over visited actions, n their visits
    (Gumbel MuZero, appendix D, eq. 33). Weighing Q values by a policy that was not chosen by them
    keeps the bootstrap free of the bias of a maximum over noisy values.
    """
    weight = np.where(visit_counts > 0, np.maximum(prior, np.finfo(np.float32).tiny), 0)
    mean = (weight * q_values).sum(-1) / weight.sum(-1)
    visits = visit_counts.sum(-1)
    mixed: NDArray[np.float32] = ((raw_value + visits * mean) / (1 + visits)).astype(np.float32)
    return mixed


def _numpy(x: Tensor) -> NDArray[np.float32]:
    if x.dtype is not torch.float32 or x.device.type != "cpu":
        x = x.float().cpu()
    return np.ascontiguousarray(x.numpy())
