"""Networks for chess: what is attacked is seen, and moves are told by the squares at both ends."""

from __future__ import annotations

import random
from typing import Any

import chess
import numpy as np
import pytest
import torch
from torch import Tensor

from muzero_agent import MuZero
from muzero_agent.action_geometry import CHESS_ACTIONS, chess_squares
from muzero_agent.adapters.envs.chess import FRAMES, ChessEnv, frame_of, move_of, observe
from muzero_agent.chess_attacks import ATTACK_PLANES, ChessAttacks
from muzero_agent.growth import grown
from muzero_agent.outline import outlining
from muzero_agent.planner import LatentModel
from muzero_agent.resnet import ResNet, _ChessHead

SHAPE = (111, 8, 8)
SMALL: dict[str, Any] = {"channels": 4, "head_width": 4, "actions": "chess"}


def seen(boards: list[chess.Board]) -> Tensor:
    """Their observations [B, 111, 8, 8], without the positions before."""
    frames = np.zeros((FRAMES, 13), np.uint64)
    found = []
    for board in boards:
        frames[0] = frame_of(board, repeated=False)
        found.append(observe(board, frames))
    return torch.as_tensor(np.stack(found)).permute(0, 3, 1, 2).float()


def attacked(board: chess.Board) -> Tensor:
    """What `ChessAttacks` should find, by python-chess: [14, 8, 8]."""
    own = board if board.turn == chess.WHITE else board.mirror()
    number = torch.zeros(2, 6, 64)
    for square, piece in own.piece_map().items():
        for target in own.attacks(square):
            row, column = 7 - chess.square_rank(target), chess.square_file(target)
            number[int(piece.color == chess.BLACK), piece.piece_type - 1, 8 * row + column] += 1
    several = number.sum(1, keepdim=True) > 1
    return torch.cat((number.clamp(max=1), several.float()), 1).view(-1, 8, 8)


def positions() -> list[chess.Board]:
    """Of random games; in some a pawn has just gone two squares, and is shown elsewhere."""
    rng = random.Random(0)
    found = []
    for _ in range(10):
        board = chess.Board()
        for _ in range(80):
            moves = list(board.legal_moves)
            if not moves:
                break
            board.push(rng.choice(moves))
            found.append(board.copy(stack=False))
    assert sum(board.ep_square is not None for board in found) > 20
    assert len({board.turn for board in found}) == 2
    return found


@pytest.mark.parametrize("bfloat16", [False, True])
def test_attacks_are_those_of_the_rules(bfloat16: bool) -> None:
    boards = positions()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        found = ChessAttacks()(seen(boards))
    assert found.shape == (len(boards), ATTACK_PLANES, 8, 8)
    assert torch.equal(found.float(), torch.stack([attacked(board) for board in boards]))


def test_squares_are_those_of_the_moves() -> None:
    """For White; an action that leads off the board stays on the square that it leaves."""
    squares = chess_squares()
    board = chess.Board.empty()
    off = 0
    for action in range(CHESS_ACTIONS):
        source, target = divmod(int(squares[action]), 64)
        try:
            move = move_of(action, board)
        except ValueError:
            off += 1
            assert action // 73 == 8 * (source % 8) + 7 - source // 8
            continue
        assert (source, target) == (move.from_square ^ 56, move.to_square ^ 56)
    assert off > 0


def test_a_product_of_squares_tells_one_move() -> None:
    """With planes that tell nothing, a query of one square and a key of another do."""
    network = ResNet(SHAPE, CHESS_ACTIONS, policy_attention=2, **SMALL)
    latent = torch.zeros(1, 4, 8, 8)
    latent[0, 0, 6, 4] = 1.0  # e2
    latent[0, 1, 4, 4] = 1.0  # e4
    with torch.no_grad():
        for name, layer in (("queries", 0), ("keys", 1)):
            part = getattr(network.policy_head, name)
            part.weight.zero_()
            part.bias.zero_()
            part.weight[0, layer] = 3.0
        logits = network.prediction(latent)[0][0]
    (action,) = logits.nonzero()[:, 0].tolist()
    assert logits[action] == pytest.approx(9 / 2**0.5)
    assert move_of(action, chess.Board()) == chess.Move.from_uci("e2e4")


def test_squares_tell_nothing_at_first_and_learn() -> None:
    network = ResNet(SHAPE, CHESS_ACTIONS, policy_attention=8, **SMALL)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    latent = network.representation(seen(positions()[:4])).detach()
    assert network.prediction(latent)[0].abs().max() == 0
    head = network.policy_head
    assert isinstance(head, _ChessHead)
    before = head.keys.weight.clone()
    for _ in range(2):
        optimizer.zero_grad()
        network.prediction(latent)[0].log_softmax(1)[:, 100].sum().neg().backward()
        optimizer.step()
    assert head.queries.weight.abs().max() > 0
    assert not torch.equal(head.keys.weight, before)


def test_what_does_not_learn_is_not_saved() -> None:
    network = ResNet(SHAPE, CHESS_ACTIONS, attacks=True, policy_attention=2, **SMALL)
    assert not [name for name in network.state_dict() if "attacks" in name or "squares" in name]


def test_an_outline_has_the_shapes() -> None:
    with outlining():
        outline = ResNet(SHAPE, CHESS_ACTIONS, attacks=True, policy_attention=2, **SMALL)
    network = ResNet(SHAPE, CHESS_ACTIONS, attacks=True, policy_attention=2, **SMALL)
    for (name, real), (_, drawn) in zip(
        network.named_buffers(), outline.named_buffers(), strict=True
    ):
        assert (real.shape, real.dtype) == (drawn.shape, drawn.dtype), name


@pytest.mark.parametrize(
    ("shape", "num_actions", "arch", "says"),
    [
        ((2, 8, 8), CHESS_ACTIONS, {**SMALL, "attacks": True}, "111 planes"),
        (SHAPE, 10, {"attacks": True}, "actions='chess'"),
        (SHAPE, 10, {"policy_attention": 4}, "actions='chess'"),
        (SHAPE, CHESS_ACTIONS, {**SMALL, "policy_attention": -1}, "positive width"),
    ],
)
def test_other_games_are_refused(
    shape: tuple[int, int, int], num_actions: int, arch: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        ResNet(shape, num_actions, **arch)


def test_a_larger_network_begins_as_the_smaller_one() -> None:
    """With more blocks, planes and squares; then all of it learns."""
    torch.manual_seed(0)
    small = ResNet(SHAPE, CHESS_ACTIONS, num_blocks=1, dynamics_blocks=1, **SMALL)
    torch.nn.init.normal_(small.get_parameter("policy_head.planes.3.weight"))
    large = ResNet(
        SHAPE, CHESS_ACTIONS, num_blocks=3, dynamics_blocks=2, attacks=True, policy_attention=2,
        **SMALL,
    )  # fmt: skip
    large.load_state_dict(grown(large.state_dict(), small.state_dict()))
    obs, actions = seen(positions()[:16]), torch.arange(16)
    results = []
    for network in (small, large):
        latent = network.representation(obs)
        after, reward = network.dynamics(latent, actions)
        results.append((latent, after, reward, *network.prediction(after)))
    for before, now in zip(*results, strict=True):
        torch.testing.assert_close(now, before)
    torch.stack([part.square().sum() for part in results[1]]).sum().backward()
    for name, first in (
        ("encoder.0.0", 111),
        ("encoder.1.2.residual.4", 0),
        ("transition.1.residual.4", 0),
        ("policy_head.queries", 0),
    ):
        gradient = large.get_parameter(f"{name}.weight").grad
        assert gradient is not None
        assert gradient.flatten(1)[:, 9 * first :].any() if gradient.ndim > 1 else gradient.any()


def test_networks_do_not_shrink() -> None:
    small = ResNet(SHAPE, CHESS_ACTIONS, **SMALL).state_dict()
    large = ResNet(SHAPE, CHESS_ACTIONS, num_blocks=2, attacks=True, **SMALL).state_dict()
    with pytest.raises(ValueError, match="never less"):
        grown(small, large)
    wide = ResNet(SHAPE, CHESS_ACTIONS, **{**SMALL, "channels": 8}).state_dict()
    with pytest.raises(ValueError, match="not have other channels"):
        grown(wide, small)
    seen_more = ResNet((112, 8, 8), CHESS_ACTIONS, **SMALL).state_dict()
    with pytest.raises(ValueError, match="does not grow"):
        grown(small, seen_more)


def test_positions_are_told_the_same_by_a_trace() -> None:
    """To the last bit, for any number of them, also behind moves that are imagined; and for new
    weights."""
    arch = SMALL | {"num_blocks": 1, "attacks": True, "policy_attention": 4, "flip_latent": True}
    model = MuZero("CnnPolicy", ChessEnv, seed=0, policy_kwargs={"net_arch": arch})
    policy, network = model.policy, model.policy.target_network
    boards = positions()
    observations = seen(boards).permute(0, 2, 3, 1).bool().numpy()
    imagined = LatentModel(network, 600, discount=-1.0, terminal_rewards=True)
    for seed in range(2):
        torch.manual_seed(seed)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        imagined.plant([(seen(boards[:1]), np.ones(network.num_actions, np.bool_))])
        node = 1
        for number in (1, 8, 3, 16, 1, 5):
            found = policy.evaluate(observations[:number])
            with torch.inference_mode():
                wanted = network.initial_inference(seen(boards[:number]))
                parents = [leaf % node for leaf in range(number)]  # nodes that there are
                latents, actions = imagined._latents[parents], torch.arange(number)
                behind = network.recurrent_inference(latents, actions)
            assert np.array_equal(found.prior_logits, wanted.policy_logits.numpy())
            assert np.array_equal(found.value, wanted.scalars[0].numpy())
            stepped = imagined.step(parents, range(number))
            assert np.array_equal(stepped.prior_logits, behind.policy_logits.numpy())
            assert torch.equal(imagined._latents[node : node + number], behind.latent)
            node += number
    assert policy._first.is_traced
    assert imagined._traced.is_traced
