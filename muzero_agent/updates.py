"""Gradient steps on losses, and the moving average of the weights that searches."""

from __future__ import annotations

from collections.abc import Sequence

from stable_baselines3.common.logger import Logger
from torch import Tensor, isfinite, stack
from torch.nn.utils import clip_grad_norm_
from torch.optim.swa_utils import get_ema_multi_avg_fn

from muzero_agent.losses import Losses
from muzero_agent.policies import MuZeroPolicy


class Updates:
    """Updates of a policy's network, and of the target network that follows it.

    :param max_grad_norm: clips the gradient's norm
    :param target_decay: of the moving average, per update
    :param num: updates that were applied before, for what errors tell
    """

    def __init__(
        self, policy: MuZeroPolicy, *, max_grad_norm: float, target_decay: float, num: int = 0
    ) -> None:
        self.policy = policy
        self.max_grad_norm = max_grad_norm
        self.num = num
        self._parameters = list(policy.network.parameters())
        self._averages = list(policy.target_network.parameters())
        self._update_average = get_ema_multi_avg_fn(target_decay)

    def apply(self, loss: Tensor) -> None:
        """Make a step against the gradient of a loss.

        :raises FloatingPointError: if the gradient is not finite; then nothing is changed
        """
        optimizer = self.policy.optimizer
        optimizer.zero_grad()
        loss.backward()
        norm = clip_grad_norm_(self._parameters, self.max_grad_norm)
        if not isfinite(norm):
            raise FloatingPointError(
                f"the gradient of update {self.num} is not finite, and was not applied: lower "
                "`learning_rate`, or scale rewards and observations that are very large"
            )
        optimizer.step()
        self._update_average(self._averages, self._parameters, 0)
        self.num += 1

    def finish(self) -> None:
        """Give the target network the statistics that the network keeps, too."""
        pairs = zip(
            self.policy.target_network.buffers(), self.policy.network.buffers(), strict=True
        )
        for average, buffer in pairs:
            average.copy_(buffer)


def record_losses(logger: Logger, num: int, history: Sequence[Tensor]) -> None:
    """Log how many updates were made, and the means of the losses of the last ones.

    :param history: of each, what `Losses` has of an update, but for the values
    """
    logger.record("train/n_updates", num, exclude="tensorboard")
    means = stack(tuple(history)).mean(0).tolist()
    for name, mean in zip(Losses._fields[:-1], means, strict=True):
        logger.record("train/loss" if name == "total" else f"train/{name}_loss", mean)
