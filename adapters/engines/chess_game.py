"""A game of chess that an engine is asked about, and the model that thinks about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import chess

if TYPE_CHECKING:
    from muzero_agent.adapters.envs.chess_rules import ChessState
    from muzero_agent.thinking import Thinker

STATE_BYTES = 2_000
"""That a position by the rules takes, beside its node: python-chess's board, frames."""
MOST_LEGAL = 218
"""Legal moves that a position of chess has at most."""
LATENT_CHILDREN = 64
"""Moves that a node of the learned model keeps: it knows none to be illegal."""


class ChessGame:
    """Where a game began, and what was played: what `position` tells."""

    def __init__(self) -> None:
        self.board = chess.Board()
        self.fen = chess.STARTING_FEN
        self.moves: list[chess.Move] = []

    def set(self, fen: str | None, moves: Sequence[str], chess960: bool = False) -> str | None:
        """Take over a position.

        :param fen: None for the usual beginning
        :param moves: in UCI's notation; from the first illegal one on they are dropped
        :return: what is wrong with it, if something is. A position that is none changes nothing.
        """
        try:
            board = chess.Board(fen or chess.STARTING_FEN, chess960=chess960)
        except ValueError as error:
            return f"no position: {error}"
        wrong = board.status() & ~chess.STATUS_BAD_CASTLING_RIGHTS & ~chess.STATUS_INVALID_EP_SQUARE
        if wrong:
            return f"no position: {wrong!r}"
        self.board, self.fen, self.moves = board, board.fen(), []
        for text in moves:
            try:
                move = board.parse_uci(text)
            except ValueError as error:
                return f"illegal move: {error}"
            self.moves.append(move)
            board.push(move)
        return None

    def state(self) -> ChessState:
        """By the rules, with what came before."""
        from muzero_agent.adapters.envs.chess_rules import ChessRules, ChessState

        rules = ChessRules()
        state = ChessState(chess.Board(self.fen, chess960=self.board.chess960))
        for move in self.moves:
            state = rules.play_move(state, move)
        return state


class ChessMind:
    """A model of chess, and what it thinks at present.

    :param directory: of the model
    :param device: of its network
    """

    def __init__(self, directory: Path, device: str = "auto") -> None:
        from muzero_agent import zoo
        from muzero_agent.adapters.envs.chess import NUM_ACTIONS
        from muzero_agent.search import kernels  # compiled here, not in the first move

        assert kernels.FINE == 0
        self.model = zoo.load(directory, device=device)
        if getattr(self.model.action_space, "n", None) != NUM_ACTIONS:
            raise ValueError(f"{directory} is no model of chess: {self.model.action_space}")
        self._thinker: Thinker[Any] | None = None
        self._made_for: tuple[Any, ...] = ()
        self._fen, self._moves, self._all_moves = "", list[chess.Move](), False

    def warm_up(self) -> None:
        """Think a little, so that the first move finds everything in place."""
        thinker = self.thinker(ChessGame(), [], "rules", 16, 16, 1.25)
        for _ in range(4):
            thinker.grow()
        self.forget()

    def forget(self) -> None:
        """Begin anew with the next position."""
        self._all_moves = False

    def thinker(
        self,
        game: ChessGame,
        allowed: Sequence[chess.Move],
        planner: str,
        megabytes: int,
        leaves: int,
        c_puct: float,
        keep: bool = True,
    ) -> Thinker[Any]:
        """What thinks about the game's position; with what it thought of it before, if it can.

        :param allowed: moves to choose among; empty: all
        :param planner: "rules" or "latent"
        :param megabytes: memory that it may take
        :param leaves: see `Thinker`
        :param c_puct: see `muzero_policy`, c1
        :param keep: whether to go on with the tree of the position before
        """
        from muzero_agent.adapters.envs.chess import action_of

        made_for = (planner, megabytes, c_puct)
        if self._thinker is None or self._made_for != made_for:
            self._thinker, self._made_for = self._make(*made_for), made_for
            self.forget()
        thinker = self._thinker
        thinker.leaves = leaves
        if not (keep and not allowed and self._follow(game, thinker)):
            actions = [action_of(move, game.board.turn) for move in allowed] or None
            thinker.begin(self._root(game, planner), actions)
        self._fen, self._moves, self._all_moves = game.fen, list(game.moves), not allowed
        return thinker

    def _follow(self, game: ChessGame, thinker: Thinker[Any]) -> bool:
        """Go on with the tree, if the game went on from where it was."""
        from muzero_agent.adapters.envs.chess import action_of

        known = len(self._moves)
        if not self._all_moves or (self._fen, self._moves) != (game.fen, game.moves[:known]):
            return False
        turn = chess.Board(self._fen).turn if known % 2 == 0 else not chess.Board(self._fen).turn
        for move in game.moves[known:]:
            if not thinker.follow(action_of(move, turn)):
                return False
            turn = not turn
        return True

    def _root(self, game: ChessGame, planner: str) -> Any:
        state = game.state()
        if planner == "rules":
            return state
        from muzero_agent.adapters.envs.chess import legal_actions, mask_of
        from muzero_agent.adapters.envs.chess_rules import ChessRules

        obs = self.model.policy.network_input(ChessRules().observe(state)[None])
        return obs, mask_of(legal_actions(game.board)).astype(bool)

    def _make(self, planner: str, megabytes: int, c_puct: float) -> Thinker[Any]:
        import numpy as np

        from muzero_agent.adapters.envs.chess import NUM_ACTIONS
        from muzero_agent.adapters.envs.chess_rules import ChessRules
        from muzero_agent.planner import LatentModel
        from muzero_agent.rules_planner import MOST_Q_RANGE, RulesModel
        from muzero_agent.search.anytime import AnytimeSearch, node_bytes
        from muzero_agent.thinking import Thinker

        policy = self.model._configured_policy()
        by_rules = planner == "rules"
        latent = 0
        if not by_rules:
            shape = policy.network_input(np.zeros((1, 8, 8, 111), np.bool_))
            latent = 4 * policy.target_network.initial_inference(shape).latent[0].numel()
        slots = 48 if by_rules else LATENT_CHILDREN
        size = node_bytes(slots) + (STATE_BYTES if by_rules else latent)
        max_nodes = max((megabytes << 20) // size, 256)
        search = AnytimeSearch(
            NUM_ACTIONS,
            max_nodes,
            children=None if by_rules else LATENT_CHILDREN,
            most_legal=MOST_LEGAL,
            slots_per_node=slots,
            prove=by_rules,
            pb_c_init=c_puct,
            min_q_range=max(min(policy.min_q_range, MOST_Q_RANGE), 1e-3),
        )
        model: Any = (
            RulesModel(ChessRules(), policy.evaluate)
            if by_rules
            else LatentModel(
                policy.target_network,
                max_nodes,
                discount=policy.discount,
                terminal_rewards=policy.terminal_rewards,
            )
        )
        return Thinker(model, search)
