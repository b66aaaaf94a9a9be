"""Play of a chosen strength: what an Elo rating takes, of positions looked at and of chance."""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple


class Play(NamedTuple):
    """How the engine plays."""

    nodes: int
    """Positions that it looks at for a move; with 1 it plays by its policy."""
    temperature: float
    """At which it draws its moves from that; 0: none is drawn."""


MEASURED = (
    (445, Play(1, 2.0)),
    (1049, Play(1, 1.0)),
    (1344, Play(1, 0.5)),
    (1370, Play(1, 0.0)),
    (1722, Play(16, 0.0)),
    (1895, Play(64, 0.0)),
    (2055, Play(256, 0.0)),
)
"""Elo ratings of the chess model in the package, by the rules, from matches with Stockfish whose
Skill Level 0 counts as 1,320 and 2 as 1,608, and with itself: benchmarks/chess_strength.py."""
ELO = (MEASURED[0][0], MEASURED[-1][0])


def play_of(elo: float) -> Play:
    """What to play like for this rating, between the measured ones by interpolation: of the
    temperature, and of the logarithm of the nodes. Beyond them, as at the last."""
    elo = min(max(elo, ELO[0]), ELO[1])
    above = min(bisect_right(MEASURED, elo, key=lambda point: point[0]), len(MEASURED) - 1)
    (low, weaker), (high, stronger) = MEASURED[above - 1 : above + 1]
    share = (elo - low) / (high - low)
    return Play(
        round(weaker.nodes ** (1 - share) * stronger.nodes**share),
        weaker.temperature + share * (stronger.temperature - weaker.temperature),
    )
