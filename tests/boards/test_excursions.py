"""Windows that leave their games: each of their fields, by the rules; and learning from them."""

from __future__ import annotations

import io
import random
from pathlib import Path
from typing import Any

import chess
import chess.pgn
import numpy as np
import pytest
import torch

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import (
    NUM_ACTIONS,
    ChessEnv,
    frames_of,
    legal_actions,
    observe,
)
from muzero_agent.batch import Batch
from muzero_agent.datasets import ChessGames
from muzero_agent.datasets.chess_games import ChessBatches
from muzero_agent.datasets.excursions import Excursions
from muzero_agent.types import Observation, RootOutput

STEPS = 3


def game_of(seed: int, moves: int) -> chess.pgn.Game:
    """Random moves, of which some repeat the position."""
    rng, board = random.Random(seed), chess.Board()
    for _ in range(moves):
        board.push(rng.choice(list(board.legal_moves)))
    for text in ("g1f3", "g8f6", "f3g1", "f6g8"):
        if chess.Move.from_uci(text) in board.legal_moves:
            board.push_uci(text)
    board.push(rng.choice(list(board.legal_moves)))
    return chess.pgn.Game.from_board(board)


@pytest.fixture(scope="module")
def played() -> list[list[chess.Board]]:
    """Of each game its positions, with their moves."""
    mated = chess.pgn.read_game(io.StringIO("1. f3 e5 2. g4 d6 3. h3 Qh4# 0-1"))
    assert mated is not None
    games = [mated, game_of(1, 0), game_of(2, 20), game_of(3, 31)]
    return [[game.board(), *(node.board() for node in game.mainline())] for game in games]


@pytest.fixture(scope="module")
def games(played: list[list[chess.Board]], tmp_path_factory: pytest.TempPathFactory) -> ChessGames:
    path = tmp_path_factory.mktemp("games") / "games.pgn"
    texts = [str(chess.pgn.Game.from_board(boards[-1])) for boards in played]
    path.write_text("\n\n".join(texts) + "\n\n", encoding="utf-8")
    return ChessGames.open(path, path.parent / "cache")


def said(obs: Observation) -> RootOutput:
    """By a network: another policy and value for each observation, always the same for one."""
    assert isinstance(obs, np.ndarray)
    seeds = [int(np.packbits(one).astype(np.uint64).sum()) for one in obs]
    logits = [np.random.default_rng(seed).normal(size=NUM_ACTIONS) for seed in seeds]
    values = [np.random.default_rng(seed).uniform(-1, 1) for seed in seeds]
    return RootOutput(np.array(logits, np.float32), np.array(values, np.float32))


def indifferent(obs: Observation) -> RootOutput:
    return RootOutput(np.zeros((len(obs), NUM_ACTIONS), np.float32), np.zeros(len(obs), np.float32))


def batch_of(games: ChessGames, size: int, seed: int) -> Batch:
    batches = ChessBatches(
        games, unroll_steps=STEPS, policy="actions", values={"result": 1.0}, seed=seed
    )
    return batches.sample(size)


def test_what_follows_is_told_by_the_rules(
    games: ChessGames, played: list[list[chess.Board]]
) -> None:
    store = games.stores[0]
    before, batch = batch_of(games, 400, seed=1), batch_of(games, 400, seed=1)
    last = Excursions(games, said, 0.5, seed=2).leave(batch)
    left, mated, repeated, again = 0, 0, 0, 0
    for i in range(400):
        row = int(batch.rows.row[i])
        number = int(store.game[row])
        positions = played[number][row - int(store.first_row[number]) :]
        new = [torch.equal(batch.policies[i, k], before.policies[i, k]) for k in range(STEPS + 1)]
        leaving = new.index(False) - 1 if False in new else STEPS
        assert leaving < len(positions) - 1 or leaving == STEPS
        assert last[i] == leaving
        for name in ("observations", "policies", "values", "policy_mask", "value_mask"):
            now, then = (getattr(some, name)[i, : leaving + 1] for some in (batch, before))
            assert torch.equal(now, then), name
        for name in ("actions", "rewards", "reward_mask", "consistency_mask"):
            now, then = (getattr(some, name)[i, :leaving] for some in (batch, before))
            assert torch.equal(now, then), name
        if leaving == STEPS:
            continue
        left += 1
        board = positions[leaving].copy()
        repeated += board.is_repetition(2)
        for k in range(leaving, STEPS):
            assert batch.reward_mask[i, k] == batch.value_mask[i, k + 1] == 1
            over = board.is_game_over()
            assert batch.consistency_mask[i, k] == float(not over)
            if over:
                assert batch.rewards[i, k] == batch.values[i, k + 1] == 0
                assert batch.policy_mask[i, k + 1] == 0
                continue
            board.push(legal_actions(board)[int(batch.actions[i, k])])
            assert batch.rewards[i, k] == float(board.is_checkmate())
            obs = observe(board, frames_of(board))
            shown = batch.observations[i, k + 1].numpy()  # type: ignore[index]
            frames = k + 1 - leaving  # of which those that were left do not count as repeated
            recent = [7 + 13 * frame + 12 for frame in range(frames)]
            again += bool(obs[..., recent].any())
            assert np.array_equal(np.delete(shown, recent, -1), np.delete(obs, recent, -1))
            obs[..., recent] = shown[..., recent]
            mated += board.is_checkmate()
            assert batch.policy_mask[i, k + 1] == float(not board.is_game_over())
            if board.is_game_over():
                assert batch.values[i, k + 1] == 0
                continue
            legal = list(legal_actions(board))
            policy = batch.policies[i, k + 1].numpy()
            mates = [action for action, move in legal_actions(board).items() if mating(board, move)]
            if mates:
                assert batch.values[i, k + 1] == 1
                assert policy[mates].sum() == pytest.approx(1, abs=1e-4)
            else:
                expected = said(obs[None])
                assert batch.values[i, k + 1] == expected.value[0]
                weights = np.exp(expected.prior_logits[0, legal])
                assert policy[legal] == pytest.approx(weights / weights.sum(), rel=1e-4)
            assert policy.sum() == pytest.approx(1, abs=1e-4)
    assert 150 < left < 250
    assert mated > 0
    assert repeated > 0
    assert again < 5  # seldom


def mating(board: chess.Board, move: chess.Move) -> bool:
    after = board.copy()
    after.push(move)
    return after.is_checkmate()


def test_all_moves_of_windows_are_left_alike_and_all_legal_moves_played(games: ChessGames) -> None:
    start = int(games.stores[0].first_row[1])
    knights = ChessGames(games.stores, [(1, 2)])  # which go out and come back
    leaving, first = [0] * STEPS, set()
    excursions = Excursions(knights, indifferent, 1.0, seed=0)
    for seed in range(3):
        before, batch = batch_of(knights, 400, seed), batch_of(knights, 400, seed)
        excursions.leave(batch)
        for i in np.flatnonzero(batch.rows.row == start):
            differ = (batch.policies[i] != before.policies[i]).any(-1)
            at = int(differ.nonzero()[0]) - 1
            leaving[at] += 1
            if at == 0:
                first.add(int(batch.actions[i, 0]))
    assert leaving[0] > 70  # of 20 moves
    assert first == set(legal_actions(chess.Board()))
    assert min(leaving) > 0.6 * sum(leaving) / STEPS


def test_near_the_end_of_a_game_the_moves_that_are_left_are_left_alike(games: ChessGames) -> None:
    excursions = Excursions(games, indifferent, 1.0, seed=0)
    leaving = [0, 0]
    for seed in range(3):
        before, batch = batch_of(games, 400, seed), batch_of(games, 400, seed)
        ends = games.last_rows(batch.rows)
        excursions.leave(batch)
        for i in np.flatnonzero(batch.rows.row == ends - 2):
            same = torch.equal(batch.actions[i, 0], before.actions[i, 0])
            leaving[int(same)] += 1
    assert 0.4 < leaving[1] / sum(leaving) < 0.65  # a random move may be that which was played


def test_none_leave_at_a_rate_of_none(games: ChessGames) -> None:
    before, batch = batch_of(games, 16, seed=1), batch_of(games, 16, seed=1)
    assert (Excursions(games, said, 0.0).leave(batch) == STEPS).all()
    for now, then in zip(batch[:-1], before[:-1], strict=True):
        assert torch.equal(now, then)  # type: ignore[arg-type]


def test_the_learned_model_comes_to_know_what_bad_moves_lead_to(games: ChessGames) -> None:
    """Without excursions its latents fit those that were played, with them those of others, too."""
    knights = ChessGames(games.stores, [(1, 2)])
    apart = {rate: distance(learned(knights, rate)) for rate in (0.0, 0.5)}
    assert apart[0.5] < 0.7 * apart[0.0], apart


def learned(games: ChessGames, rate: float) -> MuZero:
    arch = {"channels": 16, "num_blocks": 1, "actions": "chess"}
    model = MuZero(
        "CnnPolicy", ChessEnv, learning_rate=0.01, batch_size=16, unroll_steps=1, seed=0,
        consistency_coef=0.0, reconstruction_coef=0.0, policy_kwargs={"net_arch": arch},
    )  # fmt: skip
    for name, parameter in model.policy.network.named_parameters():
        parameter.requires_grad_(name.startswith(("transition", "action_embedding")))
    return model.learn_offline(games, 60, latent_coef=2.0, excursions=rate)


def distance(model: MuZero) -> float:
    """Of latents behind all first moves from those of the positions, by their variance."""
    board = chess.Board()
    network = model.policy.network.eval()

    def represent(boards: list[chess.Board]) -> torch.Tensor:
        seen = np.stack([observe(board, frames_of(board)) for board in boards])
        latents: torch.Tensor = network.representation(model.policy.network_input(seen))
        return latents

    actions, after = [], []
    for action, move in legal_actions(board).items():
        actions.append(action)
        after.append(board.copy())
        after[-1].push(move)
    with torch.inference_mode():
        latent = represent([board]).expand(len(actions), -1, -1, -1)
        imagined, _ = network.dynamics(latent, torch.tensor(actions))
        real = represent(after)
    return float((imagined - real).square().mean() / real.var(0).mean())


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"excursions": 1.5}, "excursions=1.5: give a share"),
        ({"excursions": -0.1}, "give a share"),
        ({"excursions": 0.5, "unroll_steps": 0}, "need unroll_steps of at least 1"),
    ],
)
def test_what_cannot_be(games: ChessGames, changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        MuZero("CnnPolicy", ChessEnv).learn_offline(games, 1, **changes)


def test_other_data_have_no_rules(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only games of chess"):
        MuZero("MlpPolicy", "CartPole-v1").learn_offline([], 1, excursions=0.5)
