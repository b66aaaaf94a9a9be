"""Recorded games of chess: PGN, its binary form, batches, and an engine that makes them."""

from __future__ import annotations

import csv
import io
import math
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import chess
import numpy as np
import pytest
import torch
import zstandard
from stable_baselines3.common.logger import configure
from typer.testing import CliRunner

from muzero_agent import MuZero
from muzero_agent.action_geometry import chess_logits, chess_planes
from muzero_agent.adapters.envs.chess import (
    NUM_ACTIONS,
    ChessEnv,
    action_of,
    board_of,
    frame_of,
    frames_of,
    move_of,
    observe,
    observe_many,
    rights_of,
    squares_of,
)
from muzero_agent.batch import Rows
from muzero_agent.cli import app
from muzero_agent.datasets import ChessGames
from muzero_agent.datasets.chess_games import ChessBatches, agreement, episodes, value_of
from muzero_agent.datasets.game_store import COLUMNS, GameStore, cached_store, convert
from muzero_agent.datasets.pgn import (
    MATE,
    NO_ACTION,
    UNKNOWN,
    UNSCORED,
    open_pgn,
    parse_game,
    split_games,
)
from muzero_agent.labelled_games import Labelling, generate, play_game
from muzero_agent.networks import MuZeroNetwork
from muzero_agent.resnet import ResNet
from muzero_agent.types import RootOutput

MATED = """[Event "Fool's mate"]
[Result "0-1"]

{ [%eval 0.2] [%mpv e2e4:30,d2d4:25] } 1. f3 { [%eval -0.9] } e5 { [%eval -0.8] }
(1... e6 { [%eval 9.0] } 2. g4) 2. g4?? { [%eval #-1] [%mpv d8h4:#1,b8c6:120,a7a8:900] } Qh4# 0-1

"""
RESIGNED = """[Event "Cut short"]
[White "[Event is no tag here]"]
[FEN "4k3/P7/8/8/8/8/8/4K3 w - - 0 1"]
[SetUp "1"]
[Result "1-0"]

1. a8=R+ { a comment
[Event "that is none"]
} 1... Ke7 1-0

"""
ILLEGAL = '[Event "x"]\n\n1. e4 e5 2. Qxf7 1-0\n\n'
OTHER = '[Event "x"]\n[Variant "Atomic"]\n\n1. e4 e5 1-0\n\n'
EMPTY = '[Event "x"]\n[Result "1-0"]\n\n1-0\n\n'


def play(moves: int, seed: int) -> list[chess.Board]:
    """Positions of a random game, with their moves."""
    rng, board, boards = random.Random(seed), chess.Board(), [chess.Board()]
    while len(boards) < moves and not board.is_game_over():
        board.push(rng.choice(list(board.legal_moves)))
        boards.append(board.copy())
    return boards


# -- the environment's side ------------------------------------------------------------------------


def test_many_observations_are_those_of_each() -> None:
    boards = [board for seed in range(10) for board in play(120, seed)]
    frames = np.stack([frames_of(board) for board in boards])
    black = np.array([board.turn == chess.BLACK for board in boards])
    rights = np.array([rights_of(board) for board in boards])
    clock = np.array([board.halfmove_clock for board in boards])
    seen = observe_many(frames, black, rights, clock)
    for number, board in enumerate(boards):
        assert np.array_equal(seen[number], observe(board, frames[number]))
    assert len(set(rights.tolist())) > 4


def test_a_frame_gives_the_position_back() -> None:
    en_passant = 0
    for seed in range(30):
        for board in play(100, seed):
            again = board_of(
                frame_of(board, False), not board.turn, rights_of(board), board.halfmove_clock
            )
            assert (
                again.fen(en_passant="fen").split()[:5] == board.fen(en_passant="fen").split()[:5]
            )
            assert set(again.legal_moves) == set(board.legal_moves)
            en_passant += board.has_legal_en_passant()
    assert en_passant > 3


def test_planes_of_the_actions_of_chess() -> None:
    """Where a piece leaves and goes to, rank 8 above; and the same order in what f tells."""
    planes = chess_planes()
    board = chess.Board("8/P7/8/8/8/8/8/4K2k w - - 0 1")
    for action in range(NUM_ACTIONS):
        try:
            source, target = squares_of(action, chess.WHITE)
        except KeyError:
            continue
        (at,) = planes[action, 0].nonzero().tolist()
        assert at == [7 - chess.square_rank(source), chess.square_file(source)]
        (to,) = planes[action, 1].nonzero().tolist()
        assert to == [7 - chess.square_rank(target), chess.square_file(target)]
        under = chess.Move.from_uci("a7a8").promotion
        move = move_of(action, board) if source == chess.A7 and target == chess.A8 else None
        if move is not None and move.promotion not in (None, chess.QUEEN):
            assert move.promotion is not None
            assert move.promotion != under
            assert planes[action, 2].unique().tolist() == pytest.approx([(move.promotion - 1) / 3])
    told = torch.arange(73 * 64.0).view(1, 73, 8, 8)
    logits = chess_logits(told)[0]
    for action in range(NUM_ACTIONS):
        square, plane = divmod(action, 73)
        assert logits[action] == told[0, plane, 7 - square % 8, square // 8]


def test_a_network_that_knows_what_chess_s_actions_are() -> None:
    network: MuZeroNetwork = ResNet((111, 8, 8), NUM_ACTIONS, channels=8, actions="chess")
    latent = network.representation(torch.rand(2, 111, 8, 8))
    policy, _ = network.prediction(latent)
    assert policy.shape == (2, NUM_ACTIONS)
    assert (policy == 0).all()
    network.dynamics(latent, torch.tensor([0, 4671]))
    few = ResNet((111, 8, 8), NUM_ACTIONS, channels=8, num_blocks=3, dynamics_blocks=1)
    assert (len(few.encoder[1]), len(few.transition)) == (3, 1)  # type: ignore[arg-type]
    for wrong in ({"actions": "go"}, {"actions": "chess", "num_actions": 9}):
        arguments: dict[str, Any] = {"num_actions": NUM_ACTIONS} | wrong
        with pytest.raises(ValueError, match="actions="):
            ResNet((111, 8, 8), **arguments)


def test_a_latent_is_turned_as_the_board_is() -> None:
    def network(flip_latent: bool) -> ResNet:
        torch.manual_seed(0)
        return ResNet(
            (111, 8, 8), NUM_ACTIONS, channels=8, dynamics_blocks=0, actions="chess",
            flip_latent=flip_latent,
        )  # fmt: skip

    latent, action = torch.rand(2, 8, 8, 8), torch.tensor([0, 4671])
    plain, _ = network(False).dynamics(latent, action)
    turned, _ = network(True).dynamics(latent, action)
    assert not torch.equal(plain, turned)
    assert torch.equal(plain.flip(2), turned)


# -- PGN -------------------------------------------------------------------------------------------


def test_a_game_as_rows() -> None:
    game = parse_game(MATED)
    assert game is not None
    assert (game.num_moves, game.result, game.terminated) == (4, -1, True)
    assert game.evaluation.tolist() == [20, 90, -80, MATE - 1, UNSCORED]  # of the player to move
    moves = [chess.Move.from_uci(text) for text in ("f2f3", "e7e5", "g2g4", "d8h4")]
    played = [action_of(move, i % 2 == 0) for i, move in enumerate(moves)]
    assert game.action.tolist() == [*played, NO_ACTION]
    best = [action_of(chess.Move.from_uci(text), True) for text in ("e2e4", "d2d4")]
    assert game.candidates[0].tolist() == [*best, NO_ACTION, NO_ACTION]
    assert game.scores[0].tolist() == [30, 25, UNSCORED, UNSCORED]
    assert game.scores[3].tolist() == [MATE - 1, 120, UNSCORED, UNSCORED]  # a7a8 is illegal
    assert (game.state & 1).tolist() == [0, 1, 0, 1, 0]
    assert (game.state >> 1 == 15).all()


def test_what_is_no_game() -> None:
    assert [parse_game(text) for text in (ILLEGAL, OTHER, EMPTY, "")] == [None] * 4
    for fen in ("8/8/8/8/8/8/8/8 w - - 0 1", "nonsense"):
        assert parse_game(RESIGNED.replace("4k3/P7/8/8/8/8/8/4K3 w - - 0 1", fen)) is None
    drawn = parse_game(RESIGNED.replace("1-0", "1/2-1/2"))
    unknown = parse_game(RESIGNED.replace("1-0", "*"))
    assert drawn is not None
    assert unknown is not None
    assert (drawn.result, unknown.result, unknown.terminated) == (0, UNKNOWN, False)


def test_scores_that_are_none() -> None:
    for told in ("x", "#", "1e999", "nan", "--3", "#x"):
        game = parse_game(f'[Event "x"]\n\n{{ [%eval {told}] [%mpv e2e4:{told}] }} 1. e4 *\n\n')
        assert game is not None
        assert game.evaluation[0] in (UNSCORED, MATE - 1001)
        assert (game.scores[0] <= MATE - 1001).all()


def test_a_file_is_split_into_its_games(tmp_path: Path) -> None:
    texts = [MATED, RESIGNED, ILLEGAL, MATED]
    assert list(split_games(io.StringIO("".join(texts)))) == texts
    assert list(split_games(io.StringIO("\n\n" + "".join(texts)))) == ["\n\n" + MATED, *texts[1:]]
    half = len("".join(texts)) // 2
    whole = "".join(texts).encode()
    packed = b"".join(map(zstandard.ZstdCompressor().compress, (whole[:half], whole[half:])))
    (tmp_path / "x.pgn.zst").write_bytes(packed)  # of two frames
    (tmp_path / "x.pgn").write_bytes(whole)
    for path in (tmp_path / "x.pgn.zst", tmp_path / "x.pgn"):
        with open_pgn(path) as (stream, _):
            assert list(split_games(stream)) == texts


# -- the binary form -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("games")
    (folder / "a.pgn").write_text(MATED + RESIGNED + MATED)
    content = zstandard.ZstdCompressor().compress("".join([RESIGNED] * 4 + [MATED]).encode())
    (folder / "b.pgn.zst").write_bytes(content)
    return [folder / "a.pgn", folder / "b.pgn.zst"]


@pytest.fixture(scope="module")
def games(files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> ChessGames:
    return ChessGames.open(files, tmp_path_factory.mktemp("cache"))


def test_the_binary_form_holds_the_same(files: list[Path], tmp_path: Path) -> None:
    for workers in (1, 2):
        convert(files[0], tmp_path / str(workers), workers=workers)
        store = GameStore(tmp_path / str(workers))
        assert (store.num_games, store.num_rows, store.skipped, store.num_moves) == (3, 13, 0, 10)
        parsed = [parse_game(text) for text in (MATED, RESIGNED, MATED)]
        for number, game in enumerate(parsed):
            assert game is not None
            first = int(store.first_row[number])
            rows = slice(first, first + game.num_moves + 1)
            for name in COLUMNS.keys() - {"game"}:
                assert np.array_equal(getattr(store, name)[rows], getattr(game, name))
            assert (store.game[rows] == number).all()
            told = store.result[number], store.terminated[number]
            assert told == (game.result, game.terminated)


def test_a_file_is_converted_once(files: list[Path], tmp_path: Path) -> None:
    path = Path(shutil.copy(files[0], tmp_path / "x.pgn"))
    first = cached_store(path, tmp_path / "cache")
    made = (first.directory / "frames.bin").stat().st_mtime_ns
    assert cached_store(path, tmp_path / "cache").directory == first.directory
    assert (first.directory / "frames.bin").stat().st_mtime_ns == made
    path.write_text(MATED)  # another file under its name
    assert cached_store(path, tmp_path / "cache").num_games == 1
    assert cached_store(first.directory).num_games == 3
    assert len(list((tmp_path / "cache").iterdir())) == 2  # and nothing unfinished


def test_stores_that_are_damaged(files: list[Path], tmp_path: Path) -> None:
    convert(files[0], tmp_path / "x")
    with (tmp_path / "x" / "action.bin").open("ab") as file:
        file.write(b"x")
    with pytest.raises(ValueError, match="it is made anew"):
        GameStore(tmp_path / "x")
    for content in ("", "[]", '{"version": 9, "rows": 1, "games": 1}'):
        (tmp_path / "x" / "store.json").write_text(content)
        with pytest.raises(ValueError, match=r"no store of games|version 9"):
            GameStore(tmp_path / "x")
    (tmp_path / "none.pgn").write_text(ILLEGAL)
    with pytest.raises(ValueError, match="that can be read: 1 of another kind"):
        cached_store(tmp_path / "none.pgn", tmp_path / "cache")
    (tmp_path / "none.pgn").write_text("")
    with pytest.raises(ValueError, match=r"no game of chess that can be read$"):
        cached_store(tmp_path / "none.pgn", tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())
    with pytest.raises(FileNotFoundError, match="no such file of games"):
        cached_store(tmp_path / "nowhere.pgn")


def test_what_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = tmp_path / "x.pgn.zst"
    packed = zstandard.ZstdCompressor().compress
    whole = packed((MATED + ILLEGAL + RESIGNED).encode())
    path.write_bytes(whole)
    with pytest.warns(
        UserWarning, match="of 3 games, left out 1 of another kind of chess, or with ill"
    ):
        convert(path, tmp_path / "some")
    assert GameStore(tmp_path / "some").num_games == 2
    path.write_bytes(packed(MATED.encode()) + whole[: len(whole) // 2])  # a download that ended
    with pytest.warns(UserWarning, match=r"x\.pgn\.zst ends in the middle"):
        convert(path, tmp_path / "cut")
    assert GameStore(tmp_path / "cut").num_games >= 1
    path.write_text(MATED)
    with pytest.raises(ValueError, match=r"x\.pgn\.zst is damaged, or not compressed"):
        convert(path, tmp_path / "plain")
    many = "".join([RESIGNED] * 4_000)  # more than is read at a time, in frames of any size
    path.write_bytes(b"".join(packed(many[i : i + 999].encode()) for i in range(0, len(many), 999)))
    with open_pgn(path) as (stream, _):
        assert stream.read() == many


# -- positions and targets -------------------------------------------------------------------------


def at(store: int, *rows: int) -> Rows:
    return Rows(np.full(len(rows), store), np.array(rows))


def test_positions_are_what_the_environment_shows(games: ChessGames) -> None:
    env = ChessEnv()
    seen = [env.reset()[0]["observation"]]
    moves = [chess.Move.from_uci(text) for text in ("f2f3", "e7e5", "g2g4", "d8h4")]
    seen += [env.step(action_of(move, env.board.turn))[0]["observation"] for move in moves]
    for store, rows in ((0, range(5)), (0, range(8, 13)), (1, range(12, 17))):
        assert np.array_equal(games.observations(at(store, *rows)), np.stack(seen))
    assert len(games) == 13 + 17
    assert games.num_games == 8
    everywhere = games.rows(np.arange(len(games)))
    assert everywhere.env.tolist() == [0] * 13 + [1] * 17
    assert games.last_rows(everywhere)[[0, 4, 5, 12, 13, 29]].tolist() == [4, 4, 7, 12, 2, 16]


def test_a_part_is_held_out(games: ChessGames) -> None:
    first, last = games.split(0.3)
    assert [part.num_games for part in (first, last)] == [2 + 4, 1 + 1]
    rows = [part.rows(np.arange(len(part))) for part in (first, last)]
    assert rows[1].env.tolist() == [0] * 5 + [1] * 5
    assert rows[1].row[0] == 8
    with pytest.raises(ValueError, match="between 0 and 1"):
        games.split(0.0)


def test_values_of_positions(games: ChessGames) -> None:
    result = games.values(at(0, 0, 1, 2, 3, 4), {"result": 1.0})
    assert result.tolist() == [-1, 1, -1, 1, -1]
    told = games.values(at(0, 0, 3), {"evaluation": 1.0})
    assert told.tolist() == pytest.approx([float(value_of(20)), 1.0])
    assert np.isnan(games.values(at(0, 4), {"evaluation": 1.0})).all()
    mixed = games.values(at(0, 0, 4), {"evaluation": 3.0, "result": 1.0})
    assert mixed.tolist() == pytest.approx([0.75 * float(value_of(20)) - 0.25, -1.0])
    assert value_of([0, 90, -90, 29_999]).tolist() == pytest.approx(
        [0, 0.50226, -0.50226, 1.0], abs=1e-3
    )


def test_policies_of_positions(games: ChessGames) -> None:
    wanted: dict[str, Any] = {"temperature": 50.0, "max_drop": math.inf}
    scored, told = games.policies(at(0, 0, 1, 4), "candidates", **wanted)
    best = [action_of(chess.Move.from_uci(text), True) for text in ("e2e4", "d2d4")]
    share = 1 / (1 + math.exp(-5 / 50))
    assert scored[0, best].tolist() == pytest.approx([share, 1 - share])
    assert scored.sum(1).tolist() == pytest.approx([1, 1, 0])
    assert scored[1, action_of(chess.Move.from_uci("e7e5"), False)] == 1  # none was scored
    assert told.tolist() == [True, True, False]
    played, told = games.policies(at(0, 0, 1, 2, 3), "actions", **wanted)
    assert told.all()
    assert played[0, action_of(chess.Move.from_uci("f2f3"), True)] == 1
    # 1. f3 goes from +0.2 to -0.9, 2. g4 from -0.8 to mate
    careful, told = games.policies(at(0, 0, 1, 2, 3), "actions", temperature=50.0, max_drop=0.4)
    assert told.tolist() == [False, True, False, True]
    assert careful.sum(1).tolist() == [0, 1, 0, 1]


def test_batches(games: ChessGames) -> None:
    """Each field of a window, also past the ends of games that ended and that were cut short."""
    batches = ChessBatches(
        games, unroll_steps=3, policy="candidates", values={"result": 1.0}, seed=0
    )
    batch = batches.sample(200)
    seen = set()
    for i in range(200):
        store, row = int(batch.rows.env[i]), int(batch.rows.row[i])
        seen.add((store, row))
        last = int(games.last_rows(at(store, row))[0])
        mate = games.stores[store].terminated[games.stores[store].game[row]]
        left = last - row
        for k in range(4):
            inside = k <= left
            assert batch.policy_mask[i, k] == float(k < left)
            assert batch.value_mask[i, k] == float(inside or mate)
            if inside:
                obs = games.observations(at(store, row + k))[0]
                assert np.array_equal(batch.observations[i, k].numpy(), obs)  # type: ignore[index]
            if k >= left and mate:
                assert batch.values[i, k] == 0
            if k and k <= left:
                assert batch.actions[i, k - 1] == games.stores[store].action[row + k - 1]
            if k:
                assert batch.reward_mask[i, k - 1] == float(inside or mate)
                assert batch.rewards[i, k - 1] == float(bool(mate) and k == left)
                assert batch.consistency_mask[i, k - 1] == float(inside)
    assert len(seen) == 13 - 3 + 17 - 5  # all that have a move
    alone = ChessBatches(games, unroll_steps=0, policy="actions", values={"result": 1.0}, seed=0)
    first = alone.sample(4)
    assert first.actions.shape == (4, 0)
    assert first.observations.shape[:2] == (4, 1)  # type: ignore[union-attr]


def test_agreement_by_hand(games: ChessGames) -> None:
    """Two positions of each mate have scored moves; illegal moves do not count."""
    best = action_of(chess.Move.from_uci("e2e4"), True)
    illegal = action_of(chess.Move.from_uci("a1a8"), True)

    def evaluate(obs: Any) -> RootOutput:
        logits = np.zeros((len(obs), NUM_ACTIONS), np.float32)
        logits[:, best], logits[:, illegal] = 1.0, 2.0
        return RootOutput(logits, np.ones(len(obs), np.float32))

    found = agreement(games, evaluate, positions=1000)
    assert (found.positions, found.top_1) == (6, 0.5)
    assert found.value_error == pytest.approx((1 - float(value_of(20))) / 2, abs=1e-3)


# -- learning --------------------------------------------------------------------------------------


def learner(**changes: Any) -> MuZero:
    arch = {"channels": 16, "num_blocks": 1, "actions": "chess", "decoded_planes": 20}
    settings: dict[str, Any] = {
        "learning_rate": 0.01, "batch_size": 16, "unroll_steps": 2, "consistency_coef": 0.0,
        "num_simulations": 4, "seed": 0, "policy_kwargs": {"net_arch": arch},
    }  # fmt: skip
    return MuZero("CnnPolicy", ChessEnv, **(settings | changes))


def test_a_few_games_are_learned_by_heart(games: ChessGames) -> None:
    """First policy and value alone, then with the dynamics; and self-play goes on."""
    model = learner(target_decay=0.9)
    model.learn_offline(games, 60, unroll_steps=0, value_smoothing=0.5)
    found = agreement(games, model.policy.evaluate, positions=1000)
    assert found.top_1 == 1.0
    assert found.value_error < 0.3
    before = model.policy.network.state_dict()["transition_in.weight"].clone()
    model.learn_offline(games, 3, value_targets={"result": 0.5, "evaluation": 0.5}, bfloat16=True)
    after = model.policy.network.state_dict()["transition_in.weight"]
    assert not torch.equal(before, after)
    model.learning_starts = 2
    model.learn(6)


def test_dynamics_learn_where_a_fixed_representation_leads(
    games: ChessGames, tmp_path: Path
) -> None:
    model = learner()
    network = model.policy.network
    fixed = {
        name: parameter.detach().clone()
        for name, parameter in network.named_parameters()
        if not name.startswith(("transition", "action_embedding"))
    }
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name not in fixed)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn_offline(games, 60, latent_coef=2.0, log_interval=10)
    with (tmp_path / "progress.csv").open(encoding="utf-8", newline="") as file:
        apart = [float(row["train/latent_loss"]) for row in csv.DictReader(file)]
    assert apart[-1] < 0.5 * apart[0]
    assert all(torch.equal(network.get_parameter(name), fixed[name]) for name in fixed)


def test_files_of_games_are_datasets(
    files: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("MUZERO_AGENT_CACHE", str(tmp_path))
    model = learner()
    model.learn_offline(files, 1)
    model.learn_offline(str(files[1]), 1, policy_targets="actions", max_drop=0.4)
    assert len(list((tmp_path / "games").iterdir())) == 2
    weights: list[Any] = []
    for _ in range(2):
        again = learner()
        again.learn_offline(files, 3)
        weights.append(torch.cat([x.flatten() for x in again.policy.network.parameters()]))
    assert torch.equal(*weights)


def test_reading_games_shows_its_progress(
    files: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MUZERO_AGENT_CACHE", str(tmp_path))
    learner().learn_offline(files[0], 1)
    assert capsys.readouterr().err == ""
    learner().learn_offline(files, 1, progress_bar=True)
    shown = capsys.readouterr().err
    assert "a.pgn" not in shown  # it has been read
    assert "b.pgn.zst: 100%" in shown
    assert "1/1" in shown


def test_games_with_searches(games: ChessGames) -> None:
    """In memory, as episodes."""
    few = list(episodes(games, 2))
    assert [len(episode.actions) for episode in few] == [4, 2]
    assert few[0].rewards.tolist() == [0, 0, 0, 1]
    assert few[0].players is not None
    assert few[0].players.tolist() == [0, 1, 0, 1, 0]
    learner().learn_offline(few, 2, value_targets={"search": 0.5, "evaluation": 0.5})


def test_games_of_chess_are_for_models_of_chess(games: ChessGames, files: list[Path]) -> None:
    model = MuZero("MlpPolicy", "CartPole-v1", seed=0)
    with pytest.raises(ValueError, match="the model is of something else"):
        model.learn_offline(games, 1)
    with pytest.raises(ValueError, match="some are files of games"):
        learner().learn_offline([files[0], 3], 1)
    with pytest.raises(ValueError, match=r"give a mixture, such as {'search': 1.0, 'cand"):
        learner().learn_offline(games, 1, policy_targets=["search"])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="latents need unroll_steps of at least 1"):
        learner().learn_offline(games, 1, latent_coef=1.0, unroll_steps=0)
    with pytest.raises(ValueError, match="choose among"):
        learner().learn_offline(games, 1, value_targets="returns")


def test_values_that_nobody_told_cannot_be_learned(tmp_path: Path) -> None:
    for name, text in (("evaluation", RESIGNED), ("result", RESIGNED.replace("1-0", "*"))):
        path = tmp_path / f"{name}.pgn"
        path.write_text(text)
        games = ChessGames.open(path, tmp_path)
        with pytest.raises(ValueError, match="nothing of the kind is told of any"):
            learner().learn_offline(games, 1, value_targets=name)
        learner().learn_offline(games, 1)


# -- an engine's games -----------------------------------------------------------------------------

FAST = Labelling(nodes=50, seed=3)


@pytest.mark.parametrize("name", ["x.pgn", "x.pgn.zst"])
def test_games_are_made_and_made_to_the_end(
    program: Callable[[str], str], tmp_path: Path, name: str
) -> None:
    labelling = Labelling(program("stockfish"), nodes=50, seed=3)
    path = tmp_path / name
    assert generate(path, 2, labelling) == 2
    content = path.read_bytes()
    assert generate(path, 2, labelling) == 0
    path.write_bytes(content[:-7])  # a crash
    assert generate(path, 3, labelling, workers=2) == 2
    convert(path, tmp_path / "store")
    store = GameStore(tmp_path / "store")
    assert (store.num_games, store.skipped) == (3, 0)
    last = np.append(store.first_row[1:], store.num_rows) - 1
    moves = np.setdiff1d(np.arange(store.num_rows), last)
    assert (store.candidates[moves, 0] != NO_ACTION).all()
    assert (store.evaluation[moves] != UNSCORED).all()
    assert (np.abs(store.evaluation[moves] - store.scores[moves, 0]) <= 1).mean() > 0.9
    with pytest.raises(
        ValueError, match=r"nodes 50, .*not of Stockfish .*nodes 51, .*another file"
    ):
        generate(path, 3, Labelling(program("stockfish"), nodes=51, seed=3))
    if path.suffix == ".pgn":
        path.write_text(path.read_text().replace('[White "Stockfish', '[White "Sardine'))
        with pytest.raises(ValueError, match="holds games of Sardine"):
            generate(path, 4, labelling)
    for wrong in ({"games": 0}, {"workers": 0}):
        with pytest.raises(ValueError, match="give at least 1"):
            generate(path, **({"games": 1, "labelling": labelling} | wrong))  # type: ignore[arg-type]


def test_killed_games_leave_no_process_behind(
    tmp_path: Path, program: Callable[[str], str]
) -> None:
    """Workers hold the pipe, too: it ends with the last of them."""
    path = tmp_path / "games.pgn"
    command = [sys.executable, "-m", "muzero_agent.cli", "chess", "generate", str(path)]
    command += ["--engine", program("stockfish"), "--nodes", "50", "--workers", "2"]
    with subprocess.Popen(
        [*command, "--no-progress"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as process:
        deadline = time.monotonic() + 60
        while not (path.exists() and path.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.02)
        process.kill()
        process.communicate(timeout=20)
    assert path.stat().st_size


def test_a_game_of_a_number_is_always_the_same(program: Callable[[str], str]) -> None:
    from muzero_agent.uci_client import start_engine

    engine = start_engine(program("stockfish"))
    engine.configure({"Threads": 1, "Hash": 1})
    first, other, again = (play_game(engine, FAST, number) for number in (0, 1, 0))
    engine.quit()
    assert first == again != other


def test_generating_on_the_command_line(program: Callable[[str], str], tmp_path: Path) -> None:
    command = ["chess", "generate", str(tmp_path / "x.pgn"), "--games", "1", "--nodes", "20"]
    done = CliRunner().invoke(app, [*command, "--engine", program("stockfish"), "--no-progress"])
    assert done.exit_code == 0, done.output
    assert "1 games, of which 1 are new" in done.output
    for wrong in (["--engine", "no-such-engine"], ["--nodes", "0"]):
        assert CliRunner().invoke(app, [*command, *wrong]).exit_code == 2
    assert CliRunner().invoke(app, ["chess", "generate", "x.txt"]).exit_code == 2
