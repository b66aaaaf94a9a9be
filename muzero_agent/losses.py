"""The loss of one batch: K unrolled steps against search policies, value targets and rewards."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from muzero_agent.networks import MuZeroNetwork, Obs


class Losses(NamedTuple):
    """Scalar losses, each averaged over the batch, and what the priorities need."""

    total: Tensor
    policy: Tensor
    value: Tensor
    reward: Tensor
    consistency: Tensor
    reconstruction: Tensor
    latent: Tensor
    root_value: Tensor  # [B], the network's value of the first states, detached


class Targets(NamedTuple):
    """Tensors that the loss reads; see `replay.Batch`, whose fields they are, for shapes."""

    actions: Tensor  # [B, K]
    rewards: Tensor  # [B, K]
    values: Tensor  # [B, K + 1]
    policies: Tensor  # [B, K + 1, A]
    reward_mask: Tensor  # [B, K]
    value_mask: Tensor  # [B, K + 1]
    policy_mask: Tensor  # [B, K + 1]
    consistency_mask: Tensor  # [B, K]
    weights: Tensor  # [B]


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    """Identity forward; the gradient is multiplied by `scale` (MuZero, appendix G)."""
    return torch.lerp(x.detach(), x, scale)


def unroll(
    network: MuZeroNetwork, latent: Tensor, actions: Tensor, gradient_scale: float = 0.5
) -> tuple[Tensor, Tensor]:
    """Apply g along the actions [B, K].

    Only the latent that enters g has its gradient scaled: a hook on the next latent would also
    scale what that step's own prediction sends back.

    :return: latents [K + 1, B, *latent], reward logits [K, B, S]
    """
    latents, rewards = [latent], []
    for action in actions.unbind(1):
        latent, reward_logits = network.dynamics(scale_gradient(latent, gradient_scale), action)
        latents.append(latent)
        rewards.append(reward_logits)
    no_rewards = latent.new_empty(0, len(latent), network.support.size)
    return torch.stack(latents), torch.stack(rewards) if rewards else no_rewards


def muzero_loss(
    network: MuZeroNetwork,
    seen: Obs,
    next_seen: Obs | None,
    targets: Targets,
    *,
    value_coef: float,
    consistency_coef: float,
    reconstruction_coef: float = 0.0,
    latent_coef: float = 0.0,
    compared_steps: Tensor | None = None,
    gradient_scale: float = 0.5,
) -> Losses:
    """MuZero's loss (appendix G), EfficientZero's consistency loss (section 4.1), a loss of
    reconstruction (Scholz et al. 2021, arXiv 2102.05599, section 4.1), and one of the latents
    themselves (TD-MPC, arXiv 2203.04955, section 4).

    The first step has weight 1 and each of the K unrolled steps 1/K; with K = 0 policy and value
    alone are learned. The consistency loss compares
    the unrolled latents with representations of the observations that really followed, through
    which no gradient flows. The loss of reconstruction is how far what a latent says was observed
    is from what was, see `MuZeroNetwork.reconstruction_errors`. The loss of latents is the squared
    distance of unrolled latents from those representations, as a share of the variance that those
    of the first observations have in the batch.

    :param seen: what is `MuZeroNetwork.seen` of the first observations [B, ...]
    :param next_seen: of the K next observations [K * B, ...], step by step, or of their
        `decoded_part`, if only that is compared; None leaves the losses of consistency,
        reconstruction and latents out.
    :param value_coef: weight of the value loss
    :param consistency_coef: weight of the consistency loss
    :param reconstruction_coef: weight of the loss of reconstruction; where it is above 0,
        observations are no dicts, and boards' entries are from 0 to 1
    :param latent_coef: weight of the loss of latents; where it is above 0, B is at least 2
    :param compared_steps: int64 [M], those of the K next observations that `next_seen` [M * B, ...]
        holds, counted from 0; they stand for all K. None: it holds all
    :param gradient_scale: factor on the gradient of each latent that enters g
    """
    batch, steps = targets.actions.shape
    latents, reward_logits = unroll(network, network.encode(seen), targets.actions, gradient_scale)
    policy_logits, value_logits = network.prediction(latents.flatten(0, 1))
    # Under autocast networks compute in bfloat16, of whose 8 bits a loss would have nothing left.
    policy_logits, value_logits = policy_logits.float(), value_logits.float()
    reward_logits = reward_logits.float()

    step_weight = torch.full((steps + 1, 1), 1.0 / max(steps, 1), device=latents.device)
    step_weight[0] = 1.0
    weight = step_weight * targets.weights / batch  # [K + 1, B]

    policy_loss = functional.cross_entropy(
        policy_logits, targets.policies.transpose(0, 1).flatten(0, 1), reduction="none"
    ).view(steps + 1, batch)
    policy = (policy_loss * targets.policy_mask.T * weight).sum()

    # Values and rewards share a support: one cross entropy for both, since at these sizes the
    # number of operations is the cost.
    value_logits = value_logits.view(steps + 1, batch, -1)
    scalar_loss = network.support.cross_entropy(
        torch.cat((value_logits, reward_logits)),
        torch.cat((targets.values, targets.rewards), 1).T,
    )
    value_loss, reward_loss = scalar_loss.split((steps + 1, steps))
    value = (value_loss * targets.value_mask.T * weight).sum()
    reward = (reward_loss * targets.reward_mask.T * weight[1:]).sum()

    total = policy + value_coef * value + reward
    next_latents, next_weight, known = latents[1:], weight[1:], targets.consistency_mask.T
    if compared_steps is not None:
        next_latents, known = next_latents[compared_steps], known[compared_steps]
        next_weight = next_weight[compared_steps] * (steps / len(compared_steps))
    consistency = reconstruction = latent = torch.zeros((), device=latents.device)
    if next_seen is not None and reconstruction_coef > 0:
        assert isinstance(seen, Tensor)
        assert isinstance(next_seen, Tensor)
        telling = torch.cat((latents[:1], next_latents)).flatten(0, 1)
        told = torch.cat([network.decoded_part(part) for part in (seen, next_seen)])
        errors = network.reconstruction_errors(telling, told).view(-1, batch)
        reconstruction = (errors[0] * weight[0]).sum() + (errors[1:] * known * next_weight).sum()
        total = total + reconstruction_coef * reconstruction
    if next_seen is not None and max(consistency_coef, latent_coef) > 0:
        with torch.no_grad():
            represented = network.encode(next_seen)
    if next_seen is not None and latent_coef > 0:
        distance = (next_latents.flatten(0, 1).float() - represented.float()).square()
        distance = distance.flatten(1).mean(1).view(-1, batch)
        spread = latents[0].detach().float().var(0).mean().clamp_min(1e-8)
        latent = (distance / spread * known * next_weight).sum()
        total = total + latent_coef * latent
    if next_seen is not None and consistency_coef > 0:
        predicted = network.predict_projection(network.project(next_latents.flatten(0, 1)))
        with torch.no_grad():
            target = functional.normalize(network.project(represented))
        # The cosine, with one division a row and not one a feature.
        similarity = (predicted * target).sum(-1) / predicted.norm(dim=-1).clamp_min(1e-8)
        similarity = similarity.view(-1, batch)
        consistency = ((1.0 - similarity) * known * next_weight).sum()
        total = total + consistency_coef * consistency

    with torch.no_grad():
        root_value = network.support.scalar(value_logits[0])
    return Losses(
        total,
        policy.detach(),
        value.detach(),
        reward.detach(),
        consistency.detach(),
        reconstruction.detach(),
        latent.detach(),
        root_value,
    )
