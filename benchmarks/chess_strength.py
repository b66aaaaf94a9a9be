"""How strong a chess model is: matches of its engine with others, and with itself.

    python benchmarks/chess_strength.py zoo/models/chess --out runs/strength --jobs 2
    python benchmarks/chess_strength.py zoo/models/chess --out runs/strength --only rules-64

The engine is `muzero-uci` as a chess program starts it. Each match is of pairs of games that begin
with the same random moves, each player having White once. Stockfish with `Skill Level` n chooses
its move by a search of n + 1 plies, whatever time it has, and errs at random. A match has a file in
--out, written after each pair of games, so the same command goes on after an interruption. In the
end the table of all is printed, and the Elo ratings that follow for this engine.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Event
from typing import Any

from tqdm import tqdm

from muzero_agent.adapters.envs.chess import ChessEnv
from muzero_agent.machine import commit, machine
from muzero_agent.matches import MatchResult, play_match
from muzero_agent.players import Player, RandomPlayer
from muzero_agent.programs import UciPlayer

ENGINE = Path(sys.executable).with_name("muzero-uci")
OPENING_MOVES = 4  # random ones
LOOK = 5.0  # seconds between two looks at how far matches are
PLANNERS = ("rules", "latent")
NODES = (1, 16, 64, 256)


@dataclass(frozen=True)
class Side:
    """A player of a match, as the arguments of a `UciPlayer`; without a command, random moves."""

    command: str = ""
    nodes: int | None = None
    seconds: float | None = None
    depth: int | None = None
    options: Mapping[str, str | int] = field(default_factory=dict)

    def start(self, model: str, stack: ExitStack) -> Player:
        """The player; `{model}` in its command stands for a model directory."""
        if not self.command:
            return RandomPlayer()
        command = self.command.format(engine=ENGINE, model=model)
        return stack.enter_context(
            UciPlayer(
                command,
                seconds=self.seconds,
                nodes=self.nodes,
                depth=self.depth,
                options=self.options,
            )
        )


def ours(
    planner: str,
    nodes: int | None = None,
    seconds: float | None = None,
    threads: int = 1,
    temperature: float = 0.0,
) -> Side:
    """The engine of this package. So many positions go to the network at once that a search of few
    nodes is still one of several steps."""
    at_once = 16 if nodes is None else max(1, min(16, nodes // 8))
    options: dict[str, str | int] = {
        "Planner": planner,
        "MinibatchSize": at_once,
        "Threads": threads,
        "Temperature": str(temperature),
    }
    return Side("{engine} --model {model}", nodes=nodes, seconds=seconds, options=options)


def skill(level: int) -> Side:
    """Stockfish that errs."""
    return Side("stockfish", nodes=5_000, options={"Skill Level": level})


RATED = {"skill-0": 1320, "skill-2": 1608}
"""Elo ratings of opponents, which Stockfish's developers found by matches with other engines."""
TEMPERATURES = (0.0, 0.5, 1.0, 2.0, 4.0)
"""Of moves drawn from the policy, each of which plays the one before."""

OPPONENTS = {
    "random": Side(),
    "skill-0": skill(0),
    "skill-2": skill(2),
    "gnuchess": Side("gnuchess --uci", depth=1),
    "toga2": Side("toga2", depth=1),
}


def points() -> dict[str, tuple[Side, Side, int]]:
    """All matches: the first player, the second, and the number of games."""
    found = {
        f"{planner}-{nodes}-{name}": (
            ours(planner, nodes),
            OPPONENTS[name],
            400 if planner == "rules" and nodes in (1, 64) else 100,
        )
        for planner in PLANNERS
        for nodes in NODES
        for name in ("skill-0", "skill-2")
    }
    for name in ("random", "gnuchess", "toga2"):
        found |= {
            f"{planner}-{nodes}-{name}": (ours(planner, nodes), OPPONENTS[name], 100)
            for planner, nodes in (("latent", 1), ("rules", 64))
        }
    for nodes in NODES:
        found[f"latent-{nodes}-rules-{nodes}"] = (ours("latent", nodes), ours("rules", nodes), 100)
    for fewer, more in pairwise(NODES):
        for planner in PLANNERS:
            name = f"{planner}-{more}-{planner}-{fewer}"
            found[name] = (ours(planner, more), ours(planner, fewer), 100)
    for name in ("skill-0", "skill-2"):
        side = ours("rules", seconds=1.0, threads=2)
        found[f"rules-1s-{name}"] = (side, OPPONENTS[name], 40)
    for lower, higher in pairwise(TEMPERATURES):
        weaker, stronger = (ours("rules", 1, temperature=drawn) for drawn in (higher, lower))
        found[f"temperature-{higher}-{lower}"] = (weaker, stronger, 200)
    return found


def num_games(name: str, most: int | None) -> int:
    """Of a match, of which there may be at most so many."""
    games = points()[name][2]
    return games if most is None else min(games, most)


def told_so_far(out: Path, name: str) -> dict[str, Any] | None:
    """What the file of a match says."""
    path = out / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def games_played(out: Path, name: str) -> int:
    """Games in the file of a match."""
    told = told_so_far(out, name)
    return 0 if told is None else int(told["games"])


def result_of(told: dict[str, Any]) -> MatchResult:
    """The scores in a file."""
    scores = [(first, second) for first, second in told["scores"]]
    return MatchResult(told["first"], told["second"], scores, told.get("illegal", 0))


def play(name: str, model: str, out: Path, seed: int, games: int, ended: Event) -> None:
    """One match, or what is left of it; its file is written after each pair, until `ended`."""
    first, second, _ = points()[name]
    weights = hashlib.sha256((Path(model) / "model.safetensors").read_bytes()).hexdigest()
    told = told_so_far(out, name) or {}
    if (told.get("weights", weights), told.get("seed", seed)) != (weights, seed):
        raise ValueError(
            f"{out / name}.json is of another model or seed: go on with that, or give another --out"
        )
    commits = list(dict.fromkeys([*told.get("commits", []), commit()]))
    begun = time.monotonic() - told.get("seconds", 0)

    def keep(found: MatchResult) -> None:
        content = found.summary() | {
            "match": name,
            "scores": found.scores,
            "elo": found.elo(),
            "seed": seed,
            "weights": weights,
            "seconds": round(time.monotonic() - begun),
            "commits": commits,
            "machine": machine(),
        }
        fresh = out / f".{name}.json"
        fresh.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
        fresh.replace(out / f"{name}.json")
        if ended.is_set():
            raise KeyboardInterrupt

    with ExitStack() as stack:
        play_match(
            first.start(model, stack),
            second.start(model, stack),
            ChessEnv,
            pairs=games // 2,
            opening_moves=OPENING_MOVES,
            seed=seed,
            at_once=1,
            so_far=result_of(told) if "scores" in told else None,
            after=keep,
        )


def report(out: Path) -> str:
    """A table of what has been played."""
    rows = [
        "| match | games | won-drawn-lost | score | 95% interval | Elo difference |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name in points():
        told = told_so_far(out, name)
        if told is None:
            continue
        found = result_of(told)
        low, high = found.interval()
        elo, elo_low, elo_high = found.elo()
        counts = "-".join(str(found.count(score)) for score in (1.0, 0.5, 0.0))
        rows.append(
            f"| {name} | {found.num_games} | {counts} | {100 * found.score:.1f}% | "
            f"{100 * low:.1f} to {100 * high:.1f}% | "
            f"{elo:+.0f} ({elo_low:+.0f} to {elo_high:+.0f}) |"
        )
    return "\n".join(rows)


def ratings(out: Path) -> dict[str, tuple[float, float]]:
    """Elo ratings of this engine by the rules, and half their 95% intervals, of what was played.

    Of so many nodes ("rules-64"): the mean over opponents of a known rating, weighted by how sure
    each match is. Of one node with a temperature ("temperature-1.0"): one below the other.
    """
    found: dict[str, tuple[float, float]] = {}
    for nodes in NODES:
        player = f"rules-{nodes}"
        told = [
            (rating + elo, (high - low) / 2)
            for opponent, rating in RATED.items()
            for elo, low, high in [elo_of(out, f"{player}-{opponent}")]
            if math.isfinite(high - low)
        ]
        if told:
            weights = [half**-2 for _, half in told]
            mean = sum(w * elo for w, (elo, _) in zip(weights, told, strict=True)) / sum(weights)
            found[player] = (mean, sum(weights) ** -0.5)
    before = found.get("rules-1")
    for lower, higher in pairwise(TEMPERATURES):
        elo, low, high = elo_of(out, f"temperature-{higher}-{lower}")
        if before is None or not math.isfinite(high - low):
            break
        before = (before[0] + elo, math.hypot(before[1], (high - low) / 2))
        found[f"temperature-{higher}"] = before
    return found


def elo_of(out: Path, name: str) -> tuple[float, float, float]:
    """The difference of a match, with its interval; NaN of one that was not played."""
    told = told_so_far(out, name)
    return (math.nan,) * 3 if told is None else result_of(told).elo()


def main() -> None:
    """Play what is not finished."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("model", help="model directory")
    parser.add_argument("--out", type=Path, required=True, help="directory of the results")
    parser.add_argument("--only", nargs="*", help="matches whose names begin so; default: all")
    parser.add_argument("--games", type=int, help="at most, of each match; default: all")
    parser.add_argument("--jobs", type=int, default=1, help="matches at once")
    parser.add_argument("--seed", type=int, default=1000)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    games = {
        name: num_games(name, arguments.games)
        for name in points()
        if arguments.only is None or name.startswith(tuple(arguments.only))
    }
    ended = Event()

    def played() -> int:
        return sum(min(games[name], games_played(arguments.out, name)) for name in games)

    with ThreadPoolExecutor(arguments.jobs) as pool:  # who plays is a process of its own
        playing = {
            pool.submit(play, name, arguments.model, arguments.out, arguments.seed, most, ended)
            for name, most in games.items()
            if games_played(arguments.out, name) < most
        }
        try:
            with tqdm(total=sum(games.values()), initial=played(), unit="game") as bar:
                while playing:
                    done, playing = wait(playing, timeout=LOOK)
                    for match in done:
                        match.result()
                    bar.update(played() - bar.n)
        finally:
            ended.set()
            pool.shutdown(cancel_futures=True)
    print(report(arguments.out))
    for player, (elo, half) in ratings(arguments.out).items():
        print(f"{player}: Elo {elo:.0f} ± {half:.0f}")


if __name__ == "__main__":
    main()
