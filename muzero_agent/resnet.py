"""Residual networks for boards and for pixels (MuZero, appendix F; EfficientZero, appendix A.1)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from muzero_agent.action_geometry import (
    CHESS_ACTIONS,
    GEOMETRIES,
    action_planes,
    chess_logits,
    chess_planes,
    chess_squares,
    number_planes,
)
from muzero_agent.chess_attacks import ATTACK_PLANES, ChessAttacks
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


def _downsample_strided(channels_in: int, channels: int) -> nn.Sequential:
    """The same by three convolutions, the first of which sees 7 x 7 pixels and keeps a quarter of
    each side. Most of the time of `_downsample` goes into its large, flat pictures."""
    half = max(channels // 2, 1)
    return nn.Sequential(
        nn.Conv2d(channels_in, half, 7, stride=4, padding=3, bias=False),
        nn.GroupNorm(1, half),
        nn.ReLU(inplace=True),
        _stem(half, channels, stride=2),
        _stem(channels, channels, stride=2),
    )


ENCODERS = {"residual": _downsample, "strided": _downsample_strided}
"""How pixels are reduced: as in EfficientZero, or in less time."""
_REDUCTION = 16  # of each side
# Standard deviations of a pixel, where each is scaled by its own. h looks at few, lest a rare pixel
# drown all others. But a ball of a pixel or two is tens of deviations: were no more told of it than
# h looks at, leaving it out would cost the decoder next to nothing.
LOOKED_AT, TOLD = 5.0, 30.0


def _downsampled(side: int) -> int:
    """Length of a side that is reduced in steps, each of which rounds up."""
    return -(-side // _REDUCTION)


def _pixel_decoder(channels: int, planes: int) -> nn.Sequential:
    """Latents to pictures, a square of `_REDUCTION` pixels a side for each cell."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(64, planes * _REDUCTION**2, 1),
        nn.PixelShuffle(_REDUCTION),
    )


class _ChessHead(nn.Module):
    """Logits of the actions of chess, told as planes by the squares that pieces leave.

    :param attention: width of queries and keys; None: there are none. To the logit of a move comes
        the product of the query of the square that a piece leaves and the key of the one it goes
        to, which lie far apart for convolutions (the attention policy of Leela Chess Zero: Monroe
        and Chalmers 2024, arXiv 2409.12272)
    """

    squares: Tensor  # int64 [A]: 64 * from + to, of a move that leads off the board from + from

    def __init__(self, channels: int, attention: int | None) -> None:
        super().__init__()
        self.planes = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(1, channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels, CHESS_ACTIONS // 64, 1),
        )
        nn.init.zeros_(self.planes[-1].weight)  # type: ignore[arg-type]
        nn.init.zeros_(self.planes[-1].bias)  # type: ignore[arg-type]
        self.attention = attention
        if attention is not None:
            self.queries = nn.Conv2d(channels, attention, 1)
            self.keys = nn.Conv2d(channels, attention, 1)
            nn.init.zeros_(self.queries.weight)
            assert self.queries.bias is not None
            nn.init.zeros_(self.queries.bias)
            squares = constant((CHESS_ACTIONS,), chess_squares)
            self.register_buffer("squares", squares.long(), persistent=False)

    def forward(self, latent: Tensor) -> Tensor:
        logits: Tensor = chess_logits(self.planes(latent))
        if self.attention is None:
            return logits
        queries, keys = self.queries(latent).flatten(2), self.keys(latent).flatten(2)
        products: Tensor = queries.mT @ keys * self.attention**-0.5  # [B, from, to]
        return torch.add(logits, products.flatten(1).index_select(1, self.squares))


class ResNet(MuZeroNetwork):
    """Convolutional h, g and f; a latent is a stack of planes [channels, height, width].

    An action enters g as planes of its own, see `action_geometry`, plus a learned bias per channel:
    neighbouring indices need not be alike.

    :param image_shape: (channels, height, width) of the observations
    :param num_actions: A
    :param channels: planes of a latent
    :param num_blocks: residual blocks in h and in g
    :param dynamics_blocks: in g, if another number than in h
    :param actions: "auto": what an action is on the board is seen by how many there are. "chess":
        they are those of `adapters.envs.chess`; g sees from where a piece goes where, and f tells
        them as planes (AlphaZero, arXiv 1712.01815, table S2)
    :param attacks: h sees, beside the observations of chess, which squares are attacked; see
        `chess_attacks`
    :param policy_attention: width of queries and keys of squares that tell the moves of chess
        between them, beside planes; None: planes alone
    :param flip_latent: g turns the latent upside down once the action is in it. For games whose
        observations are turned with each move, so that the player to move is always below, as in
        chess: else h has to carry both views, since convolutions do not reach across the board
    :param downsample: reduce the height and width 16 times, as for pixels; boards keep theirs
    :param encoder: how, see `ENCODERS`
    :param action_rows: how many of the last rows of each plane show the action that led to it, in
        blocks from left to right, see `adapters.envs.atari.ShowActions`: h learns a bias for each
        channel from the last of them, as MuZero's h sees past actions everywhere (appendix E). They
        are no part of the picture: neither moved nor decoded
    :param head_width: width of the hidden layer of each head
    :param decoded_planes: how many of the planes observed `decode` tells, the first ones of boards
        and of pixels the last ones, which are the newest of stacked frames; 0: it tells none
    :param normalize_pixels: scale each pixel by the mean and variance of all seen so far, and clip
        it to [-5, 5] (Burda et al. 2019, arXiv 1810.12894, section 2.4): what moves is little of a
        picture, and group normalisation, other than that of batches, does not take away the rest
    """

    traceable = True
    traceable_representation = True
    action_plane: Tensor  # [A, P, height, width]

    def __init__(
        self,
        image_shape: tuple[int, int, int],
        num_actions: int,
        *,
        channels: int = 64,
        num_blocks: int = 1,
        dynamics_blocks: int | None = None,
        actions: str = "auto",
        attacks: bool = False,
        policy_attention: int | None = None,
        flip_latent: bool = False,
        downsample: bool = False,
        encoder: str = "residual",
        action_rows: int = 0,
        head_width: int = 64,
        decoded_planes: int = 0,
        normalize_pixels: bool = False,
        support_bound: float = 30.0,
        support_size: int = 61,
        support_mean: str = "transformed",
    ) -> None:
        super().__init__(num_actions, support_bound, support_size, support_mean)
        # A batch of one, since memory formats are of four dimensions.
        self.running_norm = RunningNorm(1, *image_shape, clip=TOLD) if normalize_pixels else None
        self.attacks = ChessAttacks() if attacks else None
        seen = image_shape[0] + (ATTACK_PLANES if attacks else 0)
        if encoder not in ENCODERS:
            raise ValueError(f"net_arch: encoder={encoder!r}: choose one of {list(ENCODERS)}")
        self.downsample = self.shifts = downsample
        self.encoder = nn.Sequential(
            (ENCODERS[encoder] if downsample else _stem)(seen, channels),
            _blocks(channels, num_blocks),
        )
        self.flip_latent = flip_latent
        self.action_rows = action_rows
        self.picture_height = image_shape[1] - action_rows
        self.seen_actions = None
        if action_rows:
            self.action_width = image_shape[2] // num_actions
            if not (downsample and 0 < action_rows < image_shape[1] and self.action_width):
                raise ValueError(
                    f"net_arch: action_rows={action_rows}: below pictures that are downsampled, of "
                    f"at least {num_actions} columns, one for each action, as ShowActions makes "
                    f"them; here are observations of {image_shape}"
                )
            self.seen_actions = nn.Linear(image_shape[0] * num_actions, channels, bias=False)
        sides = (self.picture_height, image_shape[2])
        height, width = (_downsampled(n) if downsample else n for n in sides)
        cells = height * width
        self.action_embedding = nn.Embedding(num_actions, channels)
        if actions not in GEOMETRIES:
            raise ValueError(f"actions={actions!r}: choose one of {list(GEOMETRIES)}")
        chess = actions == "chess"
        if chess and (num_actions, height, width) != (CHESS_ACTIONS, 8, 8):
            raise ValueError(
                f"actions='chess': they are {CHESS_ACTIONS} on 8 x 8 squares, and here "
                f"{num_actions} on {height} x {width}"
            )
        if attacks and not (chess and image_shape[0] == 111):
            raise ValueError(
                "attacks=True: they are seen in the 111 planes of chess, with actions='chess'; "
                f"here are {image_shape[0]} planes, and actions={actions!r}"
            )
        if policy_attention is not None and not (chess and policy_attention > 0):
            raise ValueError(
                f"policy_attention={policy_attention}: give a positive width, and actions='chess'"
            )
        # A latent of pixels is no board, whatever its size.
        number = number_planes if downsample else action_planes
        planes = constant(
            (num_actions, 3 if chess else 1, height, width),
            chess_planes if chess else lambda: number(num_actions, height, width),
        )
        self.register_buffer("action_plane", planes, persistent=False)
        self.transition_in = nn.Conv2d(
            channels + planes.shape[1], channels, 3, padding=1, bias=False
        )
        self.transition_norm = nn.GroupNorm(1, channels)
        self.transition = _blocks(
            channels, num_blocks if dynamics_blocks is None else dynamics_blocks
        )
        self.reward_head = self._head(channels, cells, head_width, self.support.size)
        self.value_head = self._head(channels, cells, head_width, self.support.size)
        self.policy_head = (
            _ChessHead(channels, policy_attention)
            if chess
            else self._head(channels, cells, head_width, num_actions)
        )
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
        self.decoded_planes = decoded_planes
        self.decodes = decoded_planes > 0
        self.decoder: nn.Module | None = None
        if self.decodes and downsample:
            self.decoder = _pixel_decoder(channels, decoded_planes)
        elif self.decodes:
            self.decoder = nn.Conv2d(channels, decoded_planes, 1)
        # Measured on a processor: training on pixels takes 20 to 30% less time, on boards 5 to 12%.
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.running_norm is not None:  # pictures come as they are stored, a plane at a time
            self.running_norm.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]

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
        return self.encode(self.seen(obs))

    @torch.no_grad()
    def seen(self, obs: Obs) -> Tensor:
        assert isinstance(obs, Tensor)
        return obs if self.running_norm is None else self.running_norm(obs)

    def encode(self, seen: Obs) -> Tensor:
        assert isinstance(seen, Tensor)
        if self.running_norm is not None:
            seen = seen.clamp(-LOOKED_AT, LOOKED_AT)
        if self.attacks is not None:
            seen = torch.cat((seen, self.attacks(seen)), 1)
        if self.seen_actions is None:
            return scale_min_max(self.encoder(seen))
        width = self.action_width
        shown = seen[:, :, -1, width // 2 :: width][:, :, : self.num_actions].flatten(1)
        hidden = self.encoder[0](seen[:, :, : self.picture_height])
        hidden = hidden + self.seen_actions(shown)[:, :, None, None]
        return scale_min_max(self.encoder[1](hidden))

    @torch.no_grad()
    def observe(self, obs: Obs) -> None:
        if self.running_norm is not None:
            assert isinstance(obs, Tensor)
            self.running_norm.update(obs)

    def dynamics(self, latent: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        planes = torch.cat((latent, self.action_plane.index_select(0, action)), 1)
        bias = self.action_embedding(action).view(latent.shape[0], -1, 1, 1)
        hidden = self.transition_norm(self.transition_in(planes) + bias)
        hidden = torch.relu(hidden + latent)
        hidden = self.transition(hidden.flip(2) if self.flip_latent else hidden)
        return scale_min_max(hidden), self.reward_head(hidden)

    def prediction(self, latent: Tensor) -> tuple[Tensor, Tensor]:
        return self.policy_head(latent), self.value_head(latent)

    def decode(self, latent: Tensor) -> Tensor:
        return super().decode(latent) if self.decoder is None else self.decoder(latent)

    def decoded_part(self, seen: Tensor) -> Tensor:
        planes = self.decoded_planes
        return seen[:, -planes:, : self.picture_height] if self.downsample else seen[:, :planes]

    def reconstruction_errors(self, latent: Tensor, seen: Tensor) -> Tensor:
        """Of pixels the mean squared error: where they are scaled by their own variance, what moves
        counts as much as it is rare."""
        if not self.downsample:
            return super().reconstruction_errors(latent, seen)
        part = self.decoded_part(seen)
        told = self.decode(latent)[..., : part.shape[2], : part.shape[3]]
        return (told - part).square().flatten(1).mean(1)

    def shifted(self, seen: Tensor, offsets: Tensor) -> Tensor:
        """Where pixels are scaled by their own mean and variance, what differs from the mean
        picture moves, by as many standard deviations, and the mean stays where it is."""
        if not self.shifts:
            return super().shifted(seen, offsets)
        height, width = self.picture_height, seen.shape[3]
        down, right = offsets.unbind(1)
        rows = (torch.arange(height, device=seen.device) - down[:, None]).clamp_(0, height - 1)
        columns = (torch.arange(width, device=seen.device) - right[:, None]).clamp_(0, width - 1)
        pixels = (rows[:, :, None] * width + columns[:, None]).flatten(1)[:, None]  # [B, 1, H * W]
        picture, below = seen[:, :, :height], seen[:, :, height:]
        moved = picture.flatten(2).gather(2, pixels.expand(-1, seen.shape[1], -1))
        moved = moved.view(picture.shape)
        return torch.cat((moved, below), 2) if below.shape[2] else moved

    def project(self, latent: Tensor) -> Tensor:
        return self.projector(latent)  # type: ignore[no-any-return]

    def predict_projection(self, projection: Tensor) -> Tensor:
        return self.predictor(projection)  # type: ignore[no-any-return]
