"""Residual networks for boards and for pixels (MuZero, appendix F; EfficientZero, appendix A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muzero_agent.networks import MuZeroNetwork, Obs, RunningNorm, scale_min_max, zero_linear
from muzero_agent.outline import constant


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around a skip connection, normalised per sample.

    Group normalisation with one group, not batch normalisation: it has no running state, so a
    search with one root and a training batch compute the same function.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(1, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(1, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.residual(x))


def _stem(channels_in: int, channels: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride=stride, padding=1, bias=False),
        nn.GroupNorm(1, channels),
        nn.ReLU(inplace=True),
    )


def _blocks(channels: int, num: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(num)))


def _downsample(channels_in: int, channels: int) -> nn.Sequential:
    """84 or 96 pixels a side to 6: two strided convolutions, two average poolings."""
    half = max(channels // 2, 1)
    return nn.Sequential(
        _stem(channels_in, half, stride=2),
        ResidualBlock(half),
        _stem(half, channels, stride=2),
        ResidualBlock(channels),
        nn.AvgPool2d(3, stride=2, padding=1),
        ResidualBlock(channels),
        nn.AvgPool2d(3, stride=2, padding=1),
    )


def _downsampled(side: int) -> int:
    """Length of a side after `_downsample`: each of its four steps halves it, rounded up."""
    return -(-side // 16)


def action_planes(num_actions: int, height: int, width: int) -> Tensor:
    """The plane by which each action enters g: float32 [A, 1, height, width].

    Where actions are as many as the board has squares (one more may pass), each names a square, and
    where they are as many as it has columns, a column: it is 1 there and 0 elsewhere. Others are
    (index + 1) / A everywhere, as in MuZero's Atari network.
    """
    squares = height * width
    if num_actions in (squares, squares + 1):
        return torch.eye(squares + 1)[:num_actions, :squares].view(-1, 1, height, width)
    if num_actions == width:
        return torch.eye(width).view(-1, 1, 1, width).expand(-1, 1, height, width).clone()
    return _number_planes(num_actions, height, width)


def _number_planes(num_actions: int, height: int, width: int) -> Tensor:
    index = torch.arange(1, num_actions + 1) / num_actions
    return index.view(-1, 1, 1, 1).expand(-1, 1, height, width).clone()


class ResNet(MuZeroNetwork):
    """Convolutional h, g and f; a latent is a stack of planes [channels, height, width].

    An action enters g as a plane of its own, see `action_planes`, plus a learned bias per channel:
    neighbouring indices need not be alike.

    :param image_shape: (channels, height, width) of the observations
    :param num_actions: A
    :param channels: planes of a latent
    :param num_blocks: residual blocks in h and in g
    :param downsample: reduce the height and width 16 times, as for pixels; boards keep theirs
    :param head_width: width of the hidden layer of each head
    :param decoded_planes: how many of the first planes observed `decode` tells; 0: it tells none,
        as with `downsample`
    :param normalize_pixels: scale each pixel by the mean and variance of all seen so far, and clip
        it to [-5, 5] (Burda et al. 2019, arXiv 1810.12894, section 2.4): what moves is little of a
        picture, and group normalisation, other than that of batches, does not take away the rest
    """

    traceable = True
    action_plane: Tensor  # [A, 1, height, width]

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_actions: int,
        *,
        channels: int = 64,
        num_blocks: int = 1,
        downsample: bool = False,
        head_width: int = 64,
        decoded_planes: int = 0,
        normalize_pixels: bool = False,
        support_bound: float = 30.0,
        support_size: int = 61,
    ) -> None:
        super().__init__(num_actions, support_bound, support_size)
        # A batch of one, since memory formats are of four dimensions.
        self.running_norm = RunningNorm(1, *image_shape, clip=5.0) if normalize_pixels else None
        self.encoder = nn.Sequential(
            (_downsample if downsample else _stem)(image_shape[0], channels),
            _blocks(channels, num_blocks),
        )
        height, width = (_downsampled(n) if downsample else n for n in image_shape[1:])
        cells = height * width
        self.action_embedding = nn.Embedding(num_actions, channels)
        # A latent of pixels is no board, whatever its size.
        number = _number_planes if downsample else action_planes
        planes = constant(
            (num_actions, 1, height, width), lambda: number(num_actions, height, width)
        )
        self.register_buffer("action_plane", planes, persistent=False)
        self.transition_in = nn.Conv2d(channels + 1, channels, 3, padding=1, bias=False)
        self.transition_norm = nn.GroupNorm(1, channels)
        self.transition = _blocks(channels, num_blocks)
        self.reward_head = self._head(channels, cells, head_width, self.support.size)
        self.value_head = self._head(channels, cells, head_width, self.support.size)
        self.policy_head = self._head(channels, cells, head_width, num_actions)
        self.projector = nn.Sequential(
            nn.Flatten(),
            nn.Linear(channels * cells, 4 * head_width),
            nn.LayerNorm(4 * head_width),
            nn.ReLU(),
            nn.Linear(4 * head_width, 4 * head_width),
        )
        self.predictor = nn.Sequential(
            nn.Linear(4 * head_width, head_width),
            nn.LayerNorm(head_width),
            nn.ReLU(),
            nn.Linear(head_width, 4 * head_width),
        )
        if decoded_planes > image_shape[0]:
            raise ValueError(f"decoded_planes={decoded_planes}: there are {image_shape[0]}")
        self.decodes = decoded_planes > 0 and not downsample
        self.decoder = nn.Conv2d(channels, decoded_planes, 1) if self.decodes else None
        # Measured on a processor: training on pixels takes 20 to 30% less time, on boards 5 to 12%.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    @staticmethod
    def _head(channels: int, cells: int, width: int, size_out: int) -> nn.Sequential:
        planes = min(channels, 16)
        return nn.Sequential(
            nn.Conv2d(channels, planes, 1, bias=False),
            nn.GroupNorm(1, planes),
            nn.ReLU(inplace=True),
            nn.Flatten(),
            nn.Linear(planes * cells, width),
            nn.LayerNorm(width),
            nn.ReLU(inplace=True),
            zero_linear(width, size_out),
        )

    def representation(self, obs: Obs) -> Tensor:
        assert isinstance(obs, Tensor)
        if self.running_norm is not None:
            obs = self.running_norm(obs)
        return scale_min_max(self.encoder(obs))

    @torch.no_grad()
    def observe(self, obs: Obs) -> None:
        if self.running_norm is not None:
            assert isinstance(obs, Tensor)
            self.running_norm.update(obs)

    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        planes = torch.cat((latent, self.action_plane.index_select(0, action)), 1)
        bias = self.action_embedding(action).view(latent.shape[0], -1, 1, 1)
        hidden = self.transition_norm(self.transition_in(planes) + bias)
        hidden = self.transition(torch.relu(hidden + latent))
        return scale_min_max(hidden), self.reward_head(hidden)

    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy_head(latent), self.value_head(latent)

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(latent) if self.decoder is None else self.decoder(latent)

    def project(self, latent: Tensor) -> Tensor:
        return self.projector(latent)  # type: ignore[no-any-return]

    def predict_projection(self, projection: Tensor) -> Tensor:
        return self.predictor(projection)  # type: ignore[no-any-return]
