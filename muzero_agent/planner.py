"""Where networks meet the search: plans in the latent space of a learned model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from muzero_agent.networks import MuZeroNetwork
from muzero_agent.search import Tree, gumbel_muzero_policy, muzero_policy
from muzero_agent.types import RecurrentOutput, RootOutput

if TYPE_CHECKING:
    from muzero_agent.search import SearchOutput

SEARCHES = ("gumbel", "puct")


class LatentPlanner:
    """Searches with h, g and f: MuZero proper, without the rules of the environment.

    Latents stay in one preallocated tensor on the network's device, addressed by node index; only
    actions go in and scalars and logits come out per simulation. The tree and the latents are kept
    and used again while shapes stay the same.

    :param network: evaluated as it is at the time of each search
    :param discount: factor on the value behind each edge: gamma, or -gamma where two players
        alternate
    """

    def __init__(self, network: MuZeroNetwork, discount: float) -> None:
        self.network = network
        self.discount = discount
        self._tree: Tree | None = None
        self._tree_shape = (0, 0, 0)
        self._latents = torch.empty(0)

    @torch.no_grad()
    def plan(
        self,
        features: Tensor,
        *,
        num_simulations: int,
        search: str,
        rng: np.random.Generator,
        invalid_actions: NDArray[np.bool_] | None = None,
        noise: float | NDArray[np.float32] = 1.0,
        temperature: float = 1.0,
        max_num_considered_actions: int = 16,
        dirichlet_alpha: float = 0.3,
        dirichlet_fraction: float = 0.25,
    ) -> SearchOutput:
        """Search from B states at once.

        :param features: [B, *features], what the representation function takes
        :param num_simulations: network calls per search, >= 1
        :param search: "gumbel" (Danihelka et al. 2022) or "puct" (MuZero, appendix B)
        :param invalid_actions: bool [B, A]
        :param noise: factor on the root's exploration noise, one for all or one a row [B]: Gumbel's
            scale, or a factor on the Dirichlet fraction; 0 searches without noise.
        :param temperature: of PUCT's draw among visit counts; Gumbel draws by its noise alone.
        """
        inference = self.network.initial_inference(features)
        batch = len(features)
        self._prepare(inference.latent, num_simulations)
        root = RootOutput(_numpy(inference.policy_logits), _numpy(inference.value))
        discounts = np.full(batch, self.discount, np.float32)
        latents = self._latents
        flat = latents.flatten(0, 1)
        row = torch.arange(batch, device=latents.device)

        def recurrent_fn(
            simulation: int, parent: NDArray[np.int32], action: NDArray[np.int32]
        ) -> RecurrentOutput:
            index = torch.from_numpy(parent).to(row) * batch + row
            step = self.network.recurrent_inference(
                flat.index_select(0, index), torch.from_numpy(action).to(row)
            )
            latents[simulation + 1] = step.latent
            return RecurrentOutput(
                _numpy(step.reward), discounts, _numpy(step.policy_logits), _numpy(step.value)
            )

        if search == "gumbel":
            return gumbel_muzero_policy(
                root,
                recurrent_fn,
                num_simulations=num_simulations,
                invalid_actions=invalid_actions,
                max_num_considered_actions=max_num_considered_actions,
                gumbel_scale=noise,
                rng=rng,
                tree=self._tree,
            )
        return muzero_policy(
            root,
            recurrent_fn,
            num_simulations=num_simulations,
            invalid_actions=invalid_actions,
            dirichlet_fraction=dirichlet_fraction * noise,
            dirichlet_alpha=dirichlet_alpha,
            temperature=temperature,
            rng=rng,
            tree=self._tree,
        )

    def _prepare(self, latent: Tensor, num_simulations: int) -> None:
        """Make room for a root and a node per simulation, and put the root's latents in."""
        shape = (len(latent), self.network.num_actions, num_simulations)
        if shape != self._tree_shape:
            self._tree = Tree(*shape)
            self._tree_shape = shape
        needed = (num_simulations + 1, *latent.shape)
        if self._latents.shape != needed or self._latents.device != latent.device:
            self._latents = latent.new_empty(needed)
        self._latents[0] = latent


def _numpy(x: Tensor) -> NDArray[np.float32]:
    return x.float().cpu().numpy()
