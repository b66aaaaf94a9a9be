"""Games of a chess engine with itself, each position labelled by its search: PGN to learn from.

A game's moves are drawn, so that play varies and blunders are met by their refutation: what to
learn is the label, not the move. Game n of a seed is the same whoever plays it and when, as far as
the engine is deterministic.
"""

from __future__ import annotations

import io
import math
import os
import random
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import chess
import chess.engine
import chess.pgn
import zstandard
from tqdm import tqdm

from muzero_agent.commands import split_command
from muzero_agent.datasets.pgn import split_games
from muzero_agent.processes import end_with_parent
from muzero_agent.uci_client import start_engine

BEST, SOFT = 0.70, 0.26  # how often the best move is played, and one of the scored; else any
SOFTNESS = 60.0  # centipawns: by so much a scored move is worse that is played 1/e times as often
MOST_OPENING_MOVES = 12
WORST_START = 600  # centipawns
MOST_PLIES = 240
DECIDED, DECIDED_PLIES = 1_500, 6  # half of the games end after so many plies beyond so much
MATE = 100_000


@dataclass(frozen=True)
class Labelling:
    """How games are made.

    :param engine: command that starts a UCI engine
    :param nodes: of each search
    :param multipv: moves that are scored
    :param hash_mb: of the engine
    :param seed: of openings and of the draw among moves
    """

    engine: str = "stockfish"
    nodes: int = 2_500
    multipv: int = 4
    hash_mb: int = 16
    seed: int = 0

    def check(self) -> None:
        """Raise ValueError for what cannot be."""
        for name, least in (("nodes", 1), ("multipv", 1), ("hash_mb", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: give at least {least}")
        split_command(self.engine)

    def __str__(self) -> str:
        return f"nodes {self.nodes}, MultiPV {self.multipv}, seed {self.seed}"


def generate(
    out: str | os.PathLike[str],
    games: int,
    labelling: Labelling,
    *,
    workers: int = 1,
    progress_bar: bool = False,
) -> int:
    """Play games, and append them to a file as they end.

    Games that the file holds already are not played again, so the same call goes on after an
    interruption, of which a torn last game is cut off.

    :param out: .pgn or .pgn.zst
    :param games: that the file is to hold
    :param workers: processes, each with an engine of one thread
    :return: games that were played
    :raises ValueError: if the file holds games of another kind, or the engine does not start
    """
    labelling.check()
    if games < 1 or workers < 1:
        raise ValueError(f"games={games}, workers={workers}: give at least 1")
    path = Path(out)
    if not path.name.endswith((".pgn", ".pgn.zst")):
        raise ValueError(f"{path}: give a file that ends in .pgn or .pgn.zst")
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whether it starts is told here, and not by a broken pool.
    engine = start_labelling(labelling)
    name = _name(engine, labelling)
    engine.quit()
    done = _mend(path, name, labelling)
    missing = iter([number for number in range(games) if number not in done])
    played = 0
    with (
        ProcessPoolExecutor(
            workers, mp_context=get_context("spawn"), initializer=_begin, initargs=(labelling,)
        ) as pool,
        tqdm(total=games, initial=len(done), unit="game", disable=not progress_bar) as bar,
        path.open("ab") as file,
    ):
        waiting: set[Future[str]] = set()
        for number in missing:
            waiting.add(pool.submit(_play, number))
            if len(waiting) >= 2 * workers:
                played += _write_finished(waiting, path, file.fileno(), bar)
        while waiting:
            played += _write_finished(waiting, path, file.fileno(), bar)
    return played


def _write_finished(waiting: set[Future[str]], path: Path, file: int, bar: tqdm[Any]) -> int:
    finished, still = wait(waiting, return_when=FIRST_COMPLETED)
    for future in finished:
        text = future.result().encode()
        if path.suffix == ".zst":  # a frame a game: a torn one is known by its missing end
            text = zstandard.ZstdCompressor(level=9).compress(text)
        os.write(file, text)
        bar.update()
    os.fsync(file)
    waiting.clear()
    waiting.update(still)
    return len(finished)


def _mend(path: Path, engine: str, labelling: Labelling) -> set[int]:
    """Numbers of the games in a file, whose torn end is cut off.

    :param engine: its name
    :raises ValueError: if they were made in another way
    """
    if not path.exists():
        return set()
    content = path.read_bytes()
    whole = list(_frames(content) if path.suffix == ".zst" else _texts(content))
    size, done = 0, set[int]()
    for length, text in whole:
        headers = chess.pgn.read_headers(io.StringIO(text))
        told = (
            ("", "")
            if headers is None
            else (headers.get("White", ""), headers.get("Annotator", ""))
        )
        if headers is None or told != (engine, str(labelling)):
            raise ValueError(
                f"{path} holds games of {told[0] or 'somebody'} ({told[1] or 'made otherwise'}), "
                f"not of {engine} ({labelling}): give what these were made with, or another file"
            )
        done.add(int(headers["Round"]))
        size += length
    if size < len(content):
        with path.open("r+b") as file:
            file.truncate(size)
    return done


def _frames(content: bytes) -> Iterator[tuple[int, str]]:
    """Complete frames of zstandard: their sizes, and the text of each."""
    rest = content
    while rest:
        decompressor = zstandard.ZstdDecompressor().decompressobj()
        try:
            text = decompressor.decompress(rest)
        except zstandard.ZstdError:
            return
        if not decompressor.eof:
            return
        left = decompressor.unused_data
        yield len(rest) - len(left), text.decode()
        rest = left


def _texts(content: bytes) -> Iterator[tuple[int, str]]:
    """Complete games of a plain file."""
    for text in split_games(io.StringIO(content.decode(errors="replace"), newline="\n")):
        if text.endswith("\n\n"):
            yield len(text.encode()), text


# -- in a process of its own -----------------------------------------------------------------------

_ENGINE: list[tuple[chess.engine.SimpleEngine, Labelling]] = []


def start_labelling(labelling: Labelling) -> chess.engine.SimpleEngine:
    """The engine, of one thread."""
    engine = start_engine(labelling.engine)
    known = {"Threads": 1, "Hash": labelling.hash_mb}
    engine.configure({name: value for name, value in known.items() if name in engine.options})
    return engine


def _name(engine: chess.engine.SimpleEngine, labelling: Labelling) -> str:
    """As it tells it, as files have it."""
    return " ".join(engine.id.get("name", labelling.engine).split())


def _begin(labelling: Labelling) -> None:
    end_with_parent()
    _ENGINE.append((start_labelling(labelling), labelling))


def _play(number: int) -> str:
    ((engine, labelling),) = _ENGINE
    return play_game(engine, labelling, number)


def play_game(engine: chess.engine.SimpleEngine, labelling: Labelling, number: int) -> str:
    """A game as PGN."""
    rng = random.Random(f"{labelling.seed} {number}")
    game_key = object()  # of another object the engine knows that a game begins
    board, label = _opening(engine, labelling, rng, game_key)
    node: chess.pgn.GameNode = (game := chess.pgn.Game())
    game.setup(board)
    name = _name(engine, labelling)
    told = {"Event": "labelled play", "White": name, "Black": name, "Round": str(number)}
    game.headers.update(told | {"Annotator": str(labelling)})
    for unknown in ("Site", "Date"):
        del game.headers[unknown]
    ends_early, decided = rng.random() < 0.5, 0
    result = "*"
    while True:
        node.comment = _comment(board, label)
        decided = decided + 1 if abs(_score(label[0], board.turn)) > DECIDED else 0
        if ends_early and decided > DECIDED_PLIES:
            better = _score(label[0], chess.WHITE) > 0
            result = "1-0" if better else "0-1"
            break
        move = _draw(board, label, rng)
        node = node.add_variation(move)
        board.push(move)
        outcome = board.outcome()
        if outcome is not None or board.is_repetition(3) or board.halfmove_clock >= 100:
            result = "1/2-1/2" if outcome is None else outcome.result()
            break
        if len(board.move_stack) >= MOST_PLIES:
            result = "1/2-1/2"
            break
        label = _search(engine, labelling, board, game_key)
    game.headers["Result"] = result
    return f"{game.accept(chess.pgn.StringExporter(columns=None))}\n\n"


_Label = list[chess.engine.InfoDict]


def _search(
    engine: chess.engine.SimpleEngine, labelling: Labelling, board: chess.Board, game_key: object
) -> _Label:
    found = engine.analyse(
        board,
        chess.engine.Limit(nodes=labelling.nodes),
        multipv=labelling.multipv,
        game=game_key,
    )
    label = [info for info in found if info.get("pv") and "score" in info]
    if not label:
        raise ValueError(f"the engine tells no move and no score of {board.fen()}")
    return label


def _opening(
    engine: chess.engine.SimpleEngine, labelling: Labelling, rng: random.Random, game_key: object
) -> tuple[chess.Board, _Label]:
    """Some random moves from the start, after which neither side is far ahead."""
    while True:
        board = chess.Board()
        for _ in range(rng.randint(0, MOST_OPENING_MOVES)):
            moves = list(board.legal_moves)
            if not moves:
                break
            board.push(rng.choice(moves))
        if board.outcome() is not None:
            continue
        label = _search(engine, labelling, board, game_key)
        if abs(_score(label[0], board.turn)) <= WORST_START:
            return chess.Board(board.fen()), label


def _draw(board: chess.Board, label: _Label, rng: random.Random) -> chess.Move:
    chance = rng.random()
    if chance < BEST:
        return label[0]["pv"][0]
    if chance < BEST + SOFT:
        scores = [_score(info, board.turn) for info in label]
        weights = [math.exp((score - max(scores)) / SOFTNESS) for score in scores]
        return rng.choices([info["pv"][0] for info in label], weights)[0]
    return rng.choice(list(board.legal_moves))


def _score(info: chess.engine.InfoDict, color: chess.Color) -> int:
    """Centipawns for one side; mates count as very many."""
    return info["score"].pov(color).score(mate_score=MATE)


def _comment(board: chess.Board, label: _Label) -> str:
    white = label[0]["score"].white()
    mate = white.mate()
    evaluation = f"{(white.score() or 0) / 100:.2f}" if mate is None else f"#{mate}"
    moves = []
    for info in label:
        own = info["score"].pov(board.turn)
        told = own.score() if own.mate() is None else f"#{own.mate()}"
        moves.append(f"{info['pv'][0].uci()}:{told}")
    return f"[%eval {evaluation}] [%mpv {','.join(moves)}]"
