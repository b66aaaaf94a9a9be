"""Learning from recorded play: MuZero Unplugged (Schrittwieser et al. 2021, arXiv 2104.06294)."""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from tqdm import tqdm

from muzero_agent.batch import Batch
from muzero_agent.datasets.episodes import read_episodes
from muzero_agent.datasets.recorded import fill, observations_of
from muzero_agent.reanalyse import Sweep
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.updates import Updates

if TYPE_CHECKING:
    from muzero_agent.adapters.envs.chess_rules import ChessState
    from muzero_agent.datasets.chess_games import ChessGames
    from muzero_agent.muzero import MuZero
    from muzero_agent.planner import Plan

POLICY_TARGETS = ("search", "actions", "good_actions")
CHESS_POLICY_TARGETS = ("search", "candidates", "actions")
AUTO_POLICY: Mapping[str, float] = {"search": 1.0, "actions": 1.0}
VALUE_TARGETS = ("search", "result", "evaluation")
SEARCHED = 64  # states of episodes with each update, unless told otherwise
AHEAD = 2  # batches that are drawn while another is learned


@dataclass(frozen=True)
class OfflineSettings:
    """What `MuZero.learn_offline` takes; see there."""

    policy_targets: str | Mapping[str, float]
    value_targets: str | Mapping[str, float]
    max_drop: float
    softness: float
    unroll_steps: int
    batch_size: int
    reanalyse_ratio: int | None
    value_smoothing: float
    latent_coef: float
    excursions: float
    bfloat16: bool
    trust: bool

    def check(self) -> None:
        """Raise ValueError for what cannot work."""
        for name, least in (("unroll_steps", 0), ("batch_size", 1), ("reanalyse_ratio", 0)):
            number = getattr(self, name)
            if name == "reanalyse_ratio" and number is None:
                continue
            whole = isinstance(number, int | np.integer) and not isinstance(number, bool)
            if not whole or number < least:
                raise ValueError(f"{name}={number!r}: give a whole number of at least {least}")
        for name in ("max_drop", "softness"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a positive number")
        if self.latent_coef > 0 and self.batch_size < 2:
            raise ValueError(
                f"latent_coef={self.latent_coef!r}, batch_size={self.batch_size!r}: latents are "
                "measured by their variance in the batch: give a batch_size of at least 2"
            )
        if not 0 <= self.excursions <= 1:
            raise ValueError(f"excursions={self.excursions!r}: give a share, from 0 to 1")
        if self.excursions > 0 and self.unroll_steps < 1:
            raise ValueError(
                f"excursions={self.excursions!r}, unroll_steps={self.unroll_steps!r}: excursions "
                "need unroll_steps of at least 1"
            )
        if self.latent_coef > 0 and self.unroll_steps < 1:
            raise ValueError(
                f"latent_coef={self.latent_coef!r}, unroll_steps={self.unroll_steps!r}: imagined "
                "latents need unroll_steps of at least 1"
            )
        for name in ("value_smoothing", "latent_coef"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ValueError(f"{name}={getattr(self, name)!r}: give a number of at least 0")

    def policy_weights(self) -> Mapping[str, float]:
        """Of policy targets from episodes."""
        return _weights("policy_targets", self.policy_targets, AUTO_POLICY, POLICY_TARGETS)

    def value_weights(self, auto: Mapping[str, float], known: Sequence[str]) -> Mapping[str, float]:
        """Of value targets.

        :param auto: what "auto" means
        :param known: those that the dataset has
        """
        return _weights("value_targets", self.value_targets, auto, known)


def _weights(
    name: str,
    given: str | Mapping[str, float],
    auto: Mapping[str, float],
    known: Sequence[str],
) -> Mapping[str, float]:
    """A mixture of targets.

    :raises ValueError: for others than the known ones, and for weights that cannot be
    """
    if given == "auto":
        return auto
    if not isinstance(given, str | Mapping):
        raise ValueError(
            f"{name}={given!r}: choose among {list(known)}, or give a mixture, such as "
            f"{dict.fromkeys(known[:2], 1.0)}"
        )
    weights = {given: 1.0} if isinstance(given, str) else dict(given)
    if not weights.keys() <= {*known}:
        raise ValueError(
            f"{name}={given!r}: choose among {list(known)}, or give a mixture of these"
        )
    sizes = [float(weight) for weight in weights.values()]
    if not all(0 <= size < math.inf for size in sizes) or not sum(sizes) > 0:
        raise ValueError(f"{name}={given!r}: weights are 0 or more, and not all 0")
    return {key: size for key, size in zip(weights, sizes, strict=True) if size > 0}


class _Source(Protocol):
    """Where batches come from."""

    def sample(self, batch_size: int) -> Batch:
        """Draw a batch."""
        ...

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        """A batch was learned, whose first values the network told as these, [B]."""
        ...

    def close(self) -> None:
        """Nothing more is needed."""
        ...


def learn_offline(
    model: MuZero,
    dataset: Any,
    gradient_steps: int,
    settings: OfflineSettings,
    *,
    callback: MaybeCallback,
    log_interval: int,
    tb_log_name: str,
    reset_num_timesteps: bool,
    progress_bar: bool,
) -> None:
    """See `MuZero.learn_offline`."""
    settings.check()
    if type(gradient_steps) is not int or gradient_steps < 0 or log_interval < 1:
        raise ValueError(
            f"gradient_steps={gradient_steps!r}, log_interval={log_interval!r}: give whole "
            "numbers, of at least 0 and 1"
        )
    started = 0 if reset_num_timesteps else model.num_timesteps
    total_timesteps = started + gradient_steps  # a name that callbacks look for
    # SB3's bar counts environments, of which there need not be any here.
    with (
        closing(_source(model, dataset, settings, progress_bar)) as source,
        tqdm(
            total=total_timesteps, initial=started, unit="update", disable=not progress_bar
        ) as bar,
        _training(model, settings),
    ):
        model.num_timesteps = started
        if reset_num_timesteps:
            model._num_timesteps_at_start = 0
        model._total_timesteps = total_timesteps
        if not model._custom_logger:
            model._logger = configure_logger(
                model.verbose, model.tensorboard_log, tb_log_name, reset_num_timesteps
            )
        hook = model._init_callback(callback)
        model._last_obs = None  # `learn` begins anew
        updates = model._updates()
        history: list[torch.Tensor] = []
        waited, since = 0.0, time.perf_counter()
        hook.on_training_start(locals(), globals())
        while model.num_timesteps < total_timesteps:
            hook.on_rollout_start()
            model._update_current_progress_remaining(model.num_timesteps, total_timesteps)
            asked = time.perf_counter()
            batch = source.sample(settings.batch_size)
            waited += time.perf_counter() - asked
            history.append(_update(model, source, batch, settings, updates))
            model.num_timesteps += 1
            model._n_updates += 1
            hook.on_rollout_end()
            bar.update()
            if len(history) == log_interval or model.num_timesteps == total_timesteps:
                updates.finish()
                model._record_losses(history)
                history.clear()
                now = time.perf_counter()
                model.logger.record("time/share_for_batches", waited / (now - since))
                waited, since = 0.0, now
                model.logger.dump(model.num_timesteps)
            hook.update_locals(locals())
            if not hook.on_step():
                break
    hook.on_training_end()


def _update(
    model: MuZero, source: _Source, batch: Batch, settings: OfflineSettings, updates: Updates
) -> torch.Tensor:
    """One update; its losses, in the order of `Losses`."""
    model._update_learning_rate(model.policy.optimizer)
    model._warn_of_clipping(batch)
    with torch.autocast(model.device.type, torch.bfloat16, enabled=settings.bfloat16):
        losses = model._loss(batch, settings.latent_coef)
    updates.apply(losses.total)
    source.learned(batch, losses.root_value.detach().float())
    return torch.stack(losses[:-1]).detach()


@contextmanager
def _training(model: MuZero, settings: OfflineSettings) -> Generator[None]:
    """The network in training mode, and value targets as they are wanted; in the end as before."""
    support = model.policy.network.support
    support.smoothing = settings.value_smoothing
    model.policy.set_training_mode(True)
    try:
        yield
    finally:
        support.smoothing = 0.0
        model.policy.set_training_mode(False)
        model._updates().finish()


# -- sources ---------------------------------------------------------------------------------------


def _source(model: MuZero, dataset: Any, settings: OfflineSettings, progress_bar: bool) -> _Source:
    games = _chess_games(dataset, progress_bar)
    if games is not None:
        return _GamesOfChess(model, games, settings)
    if settings.policy_targets == "candidates":
        raise ValueError('policy_targets="candidates": games of chess alone have scored moves')
    if settings.excursions > 0:
        raise ValueError(
            f"excursions={settings.excursions!r}: only games of chess (PGN) can be left by other "
            "moves"
        )
    if settings.unroll_steps < 1:
        raise ValueError("unroll_steps=0: give at least 1; games of chess alone do without")
    return _Recorded(model, dataset, settings)


def _chess_games(dataset: Any, progress_bar: bool) -> ChessGames | None:
    """The games of chess that a dataset is or names; None if it is something else.

    :param progress_bar: for files that are read for the first time
    """
    many = dataset if isinstance(dataset, list | tuple) else [dataset]
    paths = [str(item) for item in many if isinstance(item, str | os.PathLike)]
    named = [path for path in paths if path.lower().endswith((".pgn", ".pgn.zst"))]
    if type(dataset).__name__ != "ChessGames" and not named:
        return None
    from muzero_agent.datasets.chess_games import ChessGames

    if isinstance(dataset, ChessGames):
        return dataset
    if len(named) < len(many):
        raise ValueError(f"dataset={dataset!r}: some are files of games of chess and some are not")
    return ChessGames.open(named, progress_bar=progress_bar)


TOLD = {"evaluation": 1.0, "result": 1e-6}  # the latter where there is no other
OFFLINE = {"regret_tolerance": math.inf}
"""Of the replay: were returns cut off where a search hopes for more, nobody would test the hope."""


class _Recorded:
    """Episodes in memory, some of whose states are searched anew with each batch."""

    def __init__(self, model: MuZero, dataset: Any, settings: OfflineSettings) -> None:
        self.model = model
        given = settings.reanalyse_ratio
        self.ratio = SEARCHED if given is None else given
        values = settings.value_weights({"search": 1.0}, VALUE_TARGETS)
        policies = settings.policy_weights()
        self.searches = "search" in values or not policies.keys() <= {"actions"}
        if self.searches and self.ratio < 1:
            raise ValueError("reanalyse_ratio=0: targets from searches need at least 1")
        self.replay = fill(
            read_episodes(dataset, trust=settings.trust),
            model.observation_space,
            model.action_space,
            num_players=model.num_players,
            policy_weights=policies,
            max_drop=settings.max_drop,
            value_weights=values,
            device=model.device,
            seed=_seed(model),
            **(model._replay_settings() | OFFLINE | {"unroll_steps": settings.unroll_steps}),
        )
        self.replay.typical_error = float(model.policy.value_error) or None
        self.sweep = Sweep()
        for seen in observations_of(self.replay):
            model.policy.network.observe(model._tensors(model._normalized(seen)))
        model._updates().finish()

    def sample(self, batch_size: int) -> Batch:
        if self.searches:
            self._search()
        return self.replay.sample(batch_size, env=self.model._vec_normalize_env)

    def _search(self) -> None:
        """From the next states of the sweep."""
        model, replay = self.model, self.replay
        rows = self.sweep.rows(replay, self.ratio)
        plan = model._configured_policy().plan(
            model._normalized(replay.observations_at(rows)),
            legal_actions=replay.legal[rows.env, rows.row % replay.capacity],
            noise=_noise(model),
            temperature=1.0,
            rng=model._rng,
        )
        replay.update_search(rows, plan.policy, plan.mixed_value, plan.regret())

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        error = (values - batch.values[:, 0]).abs() * batch.value_mask[:, 0]
        self.replay.update_errors(batch.rows, error.cpu().numpy())
        self.model.policy.value_error.fill_(self.replay.typical_error or 0.0)

    def close(self) -> None:
        pass


class _GamesOfChess:
    """Positions on the disk; batches are drawn by a thread while another is learned."""

    def __init__(self, model: MuZero, games: ChessGames, settings: OfflineSettings) -> None:
        from muzero_agent.adapters.envs.chess_rules import ChessRules
        from muzero_agent.datasets.chess_games import ChessBatches
        from muzero_agent.datasets.excursions import Excursions
        from muzero_agent.datasets.game_searches import GameSearches

        _check_chess(model)
        self.model = model
        policies = _weights(
            "policy_targets", settings.policy_targets, {"candidates": 1.0}, CHESS_POLICY_TARGETS
        )
        recorded = [name for name in policies if name != "search"]
        if len(recorded) > 1:
            raise ValueError(
                f"policy_targets={settings.policy_targets!r}: of 'candidates' and 'actions' give "
                "one: where no moves were scored, candidates are what was played"
            )
        weights = settings.value_weights(TOLD, VALUE_TARGETS)
        # By them values are judged: their distance from what searches make of them tells little.
        self._told = {name: weights[name] for name in weights if name != "search"} or TOLD
        asked = settings.value_targets != "auto" and "search" not in weights
        if asked and not games.tells(*weights):
            raise ValueError(
                f"value_targets={settings.value_targets!r}: nothing of the kind is told of any of "
                "these positions (evaluations are comments such as [%eval 0.35]): choose among "
                f"{list(VALUE_TARGETS)}"
            )
        compares = (
            max(model.consistency_coef, model.reconstruction_coef or 0.0, settings.latent_coef) > 0
        )
        self.batches = ChessBatches(
            games,
            unroll_steps=settings.unroll_steps,
            policy=recorded[0] if recorded else "actions",
            values=weights,
            temperature=settings.softness,
            max_drop=settings.max_drop,
            following=settings.unroll_steps > 0 and (compares or settings.excursions > 0),
            device=model.device,
            seed=_seed(model),
        )
        self._planner = RulesPlanner(ChessRules())
        self._searches: GameSearches | None = None
        if "search" in {*policies, *weights}:
            windows = _searched_windows(
                settings, alone={*policies} == {"search"} or {*weights} == {"search"}
            )
            self._searches = GameSearches(games, self._plan, policies, weights, windows)
        self._excursions = Excursions(
            games, model.policy.evaluate, settings.excursions, seed=_seed(model) + 1
        )
        self._ahead = Prefetched(lambda: self.batches.sample(settings.batch_size), AHEAD)

    def sample(self, batch_size: int) -> Batch:
        batch = self._ahead.next()
        # Not ahead of time, since the network is asked.
        last = np.full(batch_size, batch.actions.shape[1])
        if self._excursions.rate > 0:
            last = self._excursions.leave(batch)
        if self._searches is not None:
            self._searches.renew(batch, last)
        return batch

    def _plan(self, states: Sequence[ChessState]) -> Plan:
        return self.model._configured_policy().plan_by_rules(
            states,
            self._planner,
            noise=_noise(self.model),
            temperature=1.0,
            rng=self.model._rng,
        )

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        told = self.batches.games.values(batch.rows, self._told)
        errors = np.abs(values.cpu().numpy() - told)
        if np.isnan(errors).all():
            return
        mean, policy = float(np.nanmean(errors)), self.model.policy
        before = float(policy.value_error)
        policy.value_error.fill_(before + 0.02 * (mean - before) if before > 0 else mean)

    def close(self) -> None:
        self._ahead.close()


def _searched_windows(settings: OfflineSettings, *, alone: bool) -> int:
    """Of each batch.

    :param alone: whether there are no other policies, or values, to learn
    :raises ValueError: if there would be none to learn in some windows
    """
    size, positions = settings.batch_size, settings.unroll_steps + 1
    if settings.reanalyse_ratio is None:
        return size
    windows = min(settings.reanalyse_ratio // positions, size)
    least = size if alone else 1
    if windows < least:
        raise ValueError(
            f"reanalyse_ratio={settings.reanalyse_ratio}: {'all' if alone else 'some'} windows of "
            f"a batch, of {positions} positions, are searched for these targets: give at least "
            f"{least * positions}, or None"
        )
    return windows


def _noise(model: MuZero) -> float:
    """Of searches for targets, as in `learn`."""
    return 0.0 if model.search == "gumbel" else 1.0


def _check_chess(model: MuZero) -> None:
    from muzero_agent.adapters.envs.chess import NUM_ACTIONS
    from muzero_agent.policies import network_space

    space = network_space(model.observation_space)
    fits = isinstance(space, spaces.Box) and space.shape == (8, 8, 111)
    if not fits or model._num_actions != NUM_ACTIONS or model.num_players != 2:
        raise ValueError(
            "the dataset holds games of chess, and the model is of something else: make it with "
            'MuZero("CnnPolicy", ChessEnv), of muzero_agent.adapters.envs.chess'
        )


def _seed(model: MuZero) -> int:
    """Of what is drawn from a dataset: another one for each part of a run."""
    return int(np.random.SeedSequence([model.seed or 0, model.num_timesteps]).generate_state(1)[0])


class Prefetched:
    """Results of a function, which a thread calls ahead of time, in order.

    :param function: called again and again
    :param ahead: results that may wait
    """

    def __init__(self, function: Callable[[], Batch], ahead: int) -> None:
        self._function = function
        self._pool = ThreadPoolExecutor(1)
        self._waiting = deque(self._pool.submit(function) for _ in range(ahead))

    def next(self) -> Batch:
        """The next result, or the error that the function raised."""
        self._waiting.append(self._pool.submit(self._function))
        return self._waiting.popleft().result()

    def close(self) -> None:
        """End the thread."""
        self._pool.shutdown(cancel_futures=True)
