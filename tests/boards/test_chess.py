"""The chess environment: PettingZoo's, move by move, and its rules where they differ."""

from __future__ import annotations

import random
from typing import Any

import chess
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from pettingzoo.classic import chess_v6

from muzero_agent import MuZero
from muzero_agent.adapters.envs.chess import (
    NUM_ACTIONS,
    ChessEnv,
    action_of,
    frames_of,
    move_of,
)
from muzero_agent.adapters.envs.pettingzoo import TurnBasedEnv
from muzero_agent.matches import play_match
from muzero_agent.play import board_text
from muzero_agent.players import ModelPlayer, RandomPlayer


def play(env: ChessEnv, moves: str) -> tuple[Any, float, bool]:
    """The last step of moves in UCI's notation."""
    for move in moves.split():
        action = action_of(chess.Move.from_uci(move), env.board.turn)
        obs, reward, over, _, _ = env.step(action)
    return obs, reward, over


@pytest.mark.parametrize("least", [2_500, pytest.param(10_000, marks=pytest.mark.slow)])
def test_it_is_pettingzoos(least: int) -> None:
    """Observations, masks, rewards and ends in random games that prefer rare moves."""
    rng = random.Random(0)
    game = TurnBasedEnv(chess_v6.raw_env())
    env = ChessEnv(empty_start=True, claim_early=True)
    kinds: dict[str, int] = {}
    ends: dict[float, int] = {}
    positions = 0
    while positions < least:
        expected, told = game.reset()
        obs, info = env.reset()
        over = False
        while not over:
            positions += 1
            assert np.array_equal(obs["action_mask"], expected["action_mask"])
            assert np.array_equal(obs["observation"], expected["observation"])
            assert info == told
            legal = np.flatnonzero(obs["action_mask"]).tolist()
            moves = [move_of(action, env.board) for action in legal]
            assert [action_of(move, env.board.turn) for move in moves] == legal
            assert set(moves) == set(env.board.legal_moves)
            rare = [
                action
                for action, move in zip(legal, moves, strict=True)
                if move.promotion
                or env.board.is_castling(move)
                or env.board.is_en_passant(move)
                or (rng.random() < 0.1 and env.board.is_capture(move))
                or (rng.random() < 0.1 and env.board.piece_type_at(move.from_square) == chess.PAWN)
            ]
            action = rng.choice(rare or legal)
            move = move_of(action, env.board)
            kind = f"promotes {move.promotion}"
            kind = "castles" if env.board.is_castling(move) else kind
            kind = "en passant" if env.board.is_en_passant(move) else kind
            kinds[kind] = kinds.get(kind, 0) + 1
            expected, reward, over, _, told = game.step(action)
            obs, own_reward, own_over, _, info = env.step(action)
            assert (own_reward, own_over) == (reward, over)
            assert game.aec.unwrapped.board.peek() == move
        assert np.array_equal(obs["observation"], expected["observation"])
        ends[reward] = ends.get(reward, 0) + 1
    assert kinds.keys() == {
        "castles",
        "en passant",
        *(f"promotes {piece}" for piece in (None, 2, 3, 4, 5)),
    }
    assert ends[0.0] > 5  # draws


def test_mates_are_won() -> None:
    env = ChessEnv()
    env.reset()
    obs, reward, over = play(env, "f2f3 e7e5 g2g4 d8h4")
    assert (reward, over, env.to_play) == (1.0, True, 0)
    assert not obs["action_mask"].any()
    with pytest.raises(RuntimeError, match="call `reset`"):
        env.step(0)


def test_the_first_position_is_seen() -> None:
    """Of chess_v6's oddities, this one is off."""
    env = ChessEnv()
    obs, _ = env.reset()
    newest = obs["observation"][..., 7:20]
    assert newest[..., :12].sum() == 32
    assert newest[6, :, 0].all()  # own pawns, on the second rank from below
    assert not obs["observation"][..., 20:].any()
    assert not ChessEnv(empty_start=True).reset()[0]["observation"][..., 7:].any()


@pytest.mark.parametrize("early", [True, False])
def test_draws(early: bool) -> None:
    """By threefold repetition: with `claim_early` once a move would lead there."""
    env = ChessEnv(claim_early=early)
    env.reset()
    _, reward, over = play(env, "g1f3 g8f6 f3g1 f6g8 g1f3 g8f6 f3g1")
    assert (reward, over) == (0.0, early)
    if not early:
        obs, reward, over = play(env, "f6g8")
        assert (reward, over) == (0.0, True)
        assert obs["observation"][..., 19].all()  # the position was there before


def test_fifty_moves_and_bare_kings_are_draws() -> None:
    env = ChessEnv()
    env.reset(options={"fen": "7k/8/8/8/8/8/R7/K7 w - - 98 80"})
    assert play(env, "a2b2")[1:] == (0.0, False)
    assert play(env, "h8g8")[1:] == (0.0, True)
    env.reset(options={"fen": "7k/8/8/8/8/8/1r6/K7 w - - 0 1"})
    assert play(env, "a1b2")[1:] == (0.0, True)


def test_fifty_moves_end_with_a_mate_that_comes_first() -> None:
    env = ChessEnv()
    env.reset(options={"fen": "k7/8/1K6/8/8/8/8/7R w - - 99 90"})
    assert play(env, "h1h8")[1:] == (1.0, True)


def test_frames_of_a_game_are_those_of_the_environment() -> None:
    rng = random.Random(1)
    for empty in (True, False):
        env = ChessEnv(empty_start=empty)
        env.reset()
        for _ in range(60):
            assert np.array_equal(frames_of(env.board, empty), env._frames)
            _, _, over, _, _ = env.step(rng.choice(np.flatnonzero(env.action_masks()).tolist()))
            if over:
                env.reset()


def test_it_is_an_environment_of_gymnasium() -> None:
    class Legal(ChessEnv):
        """The checker draws any action."""

        def step(self, action: int) -> Any:
            legal = np.flatnonzero(self.action_masks())
            return super().step(int(legal[action % len(legal)]))

    check_env(Legal(), skip_render_check=True)


def test_what_is_wrong_is_refused() -> None:
    env = ChessEnv()
    with pytest.raises(RuntimeError, match="call `reset`"):
        env.step(0)
    with pytest.raises(ValueError, match="render_mode"):
        ChessEnv(render_mode="human")
    with pytest.raises(ValueError, match="no position of chess"):
        env.reset(options={"fen": "8/8/8/8/8/8/8/8 w - - 0 1"})
    with pytest.raises(ValueError, match="the game is over"):
        env.reset(options={"fen": "7k/8/8/8/8/8/8/K7 w - - 0 1"})
    env.reset()
    with pytest.raises(ValueError, match="illegal in rnbqkbnr"):
        env.step(0)
    with pytest.raises(ValueError, match="no move of chess"):
        action_of(chess.Move.from_uci("a1b4"), chess.WHITE)
    for action in (-1, NUM_ACTIONS, 0):  # the first leads from a1 to the south-west
        with pytest.raises(ValueError, match="off the board"):
            move_of(action, chess.Board())


def test_self_play_and_matches() -> None:
    few: dict[str, Any] = {"learning_starts": 8, "batch_size": 4, "num_simulations": 2, "seed": 0}
    model = MuZero("MlpPolicy", [ChessEnv] * 2, policy_kwargs={"net_arch": [8]}, **few)
    model.learn(48)
    assert (model.num_players, model._n_updates > 0) == (2, True)
    result = play_match(ModelPlayer(model), RandomPlayer(), ChessEnv, pairs=1)
    assert (result.num_games, result.illegal) == (2, 0)
    assert board_text(ChessEnv(), None).startswith("8 r n b q k b n r")


def test_text() -> None:
    env = ChessEnv(render_mode="ansi")
    env.reset()
    assert str(env.render()).startswith("r n b q k b n r")
    assert ChessEnv().render() is None
