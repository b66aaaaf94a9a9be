"""A game of chess that an engine is asked about."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import chess

from muzero_agent.adapters.envs.chess import action_of
from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState

if TYPE_CHECKING:
    from muzero_agent.adapters.engines.mind import Mind

RULES = ChessRules()

LATENT_ERROR = 4.0
"""See `Mind`. What moves cost does not tell 1, 2, 4 and 8 apart (docs/chess.md, What a move costs);
the matches in the learned model were played with this one."""


class ChessGame:
    """Where a game began, and what was played: what `position` tells."""

    def __init__(self) -> None:
        self.board = chess.Board()
        self._fen = self.board.fen()
        self.moves: list[chess.Move] = []
        self._actions: list[int] = []

    def set(self, fen: str | None, moves: Sequence[str], chess960: bool = False) -> str | None:
        """Take over a position.

        :param fen: None for the usual beginning
        :param moves: in UCI's notation; from the first illegal one on they are dropped
        :return: what is wrong with it, if something is. A position that is none changes nothing.
        """
        try:
            board = chess.Board(chess.STARTING_FEN if fen is None else fen, chess960=chess960)
        except ValueError as error:
            return f"no position: {error}"
        wrong = board.status() & ~chess.STATUS_BAD_CASTLING_RIGHTS & ~chess.STATUS_INVALID_EP_SQUARE
        if wrong:
            return f"no position: {wrong!r}"
        if board.status() & chess.STATUS_INVALID_EP_SQUARE:
            board.ep_square = None  # else nothing would be captured there
        self.board, self._fen = board, board.fen(en_passant="fen")  # which is seen, legal or not
        self.moves, self._actions = [], []
        for text in moves:
            try:
                move = board.parse_uci(text)
            except ValueError as error:
                return f"illegal move: {error}"
            if not move:  # "0000", which chess.Board plays
                return f"illegal move: {text!r} is none"
            self.moves.append(move)
            self._actions.append(action_of(move, board.turn))
            board.push(move)
        return None

    @property
    def start(self) -> str:
        """What tells one beginning from another."""
        return f"{self._fen} {'Chess960' if self.board.chess960 else ''}"

    def actions(self) -> list[int]:
        """Of both players, from the start on."""
        return list(self._actions)

    def state(self) -> ChessState:
        """By the rules, with what came before."""
        state = ChessState(chess.Board(self._fen, chess960=self.board.chess960))
        for move in self.moves:
            state = RULES.play_move(state, move)
        return state


def chess_mind(
    directory: Path, device: str, planner: str = "rules", latent_error: float = LATENT_ERROR
) -> Mind:
    """A mind for chess, ready to think by this planner.

    A state takes 2 kB, a position has 218 legal moves at most.

    :param latent_error: see `Mind`
    """
    # Heavy; a position is told before anything has to think about it.
    from muzero_agent import zoo
    from muzero_agent.adapters.engines.mind import Mind

    model = zoo.load(directory, device=device)
    mind = Mind(model, RULES, state_bytes=2000, slots=48, most_legal=218, latent_error=latent_error)
    mind.warm_up(ChessGame(), planner)
    return mind
