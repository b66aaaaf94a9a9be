"""Learning from recorded play: MuZero Unplugged (Schrittwieser et al. 2021, arXiv 2104.06294)."""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Mapping
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from stable_baselines3.common.type_aliases import MaybeCallback
from stable_baselines3.common.utils import configure_logger
from tqdm import tqdm

from muzero_agent.batch import Batch, Rows
from muzero_agent.datasets.episodes import read_episodes
from muzero_agent.datasets.recorded import fill, observations_of
from muzero_agent.offline_chess import ChessSource, chess_games
from muzero_agent.offline_common import (
    VALUE_TARGETS,
    OfflineSettings,
    Source,
    draws_seed,
    search_noise,
)
from muzero_agent.reanalyse import Sweep
from muzero_agent.updates import Updates, record_losses

if TYPE_CHECKING:
    from muzero_agent.muzero import MuZero

POLICY_TARGETS = ("search", "actions", "good_actions")
AUTO_POLICY: Mapping[str, float] = {"search": 1.0, "actions": 1.0}
SEARCHED = 64  # states with each update, unless told otherwise
OFFLINE = {"regret_tolerance": math.inf}
"""Of the replay: were returns cut off where a search hopes for more, nobody would test the hope."""


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
                record_losses(model.logger, model._n_updates, history)
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
    model: MuZero, source: Source, batch: Batch, settings: OfflineSettings, updates: Updates
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


def _source(model: MuZero, dataset: Any, settings: OfflineSettings, progress_bar: bool) -> Source:
    games = chess_games(dataset, progress_bar)
    if games is not None:
        return ChessSource(model, games, settings)
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


class _Recorded:
    """Episodes in memory, some of whose states are searched anew with each batch."""

    def __init__(self, model: MuZero, dataset: Any, settings: OfflineSettings) -> None:
        self.model = model
        given = settings.reanalyse_ratio
        self.ratio = SEARCHED if given is None else given
        values = settings.value_weights({"search": 1.0}, VALUE_TARGETS)
        policies = settings.policy_weights(AUTO_POLICY, POLICY_TARGETS)
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
            seed=draws_seed(model),
            **(model._replay_settings() | OFFLINE | {"unroll_steps": settings.unroll_steps}),
        )
        self.replay.typical_error = float(model.policy.value_error) or None
        self.sweep = Sweep()
        # From their values the returns of truncated episodes go on, which nobody recorded.
        self.ends = self.replay.truncated_ends() if "result" in values else np.zeros(0, np.int64)
        for seen in observations_of(self.replay):
            model.policy.network.observe(model.policy.network_input(model._normalized(seen)))
        model._updates().finish()

    def sample(self, batch_size: int) -> Batch:
        if self.searches:
            self._search(self.sweep.rows(self.replay, self.ratio))
        elif len(self.ends):
            due, self.ends = self.ends[: self.ratio], np.roll(self.ends, -self.ratio)
            self._search(Rows(np.zeros_like(due), due))
        return self.replay.sample(batch_size, env=self.model._vec_normalize_env)

    def _search(self, rows: Rows) -> None:
        model, replay = self.model, self.replay
        if not len(rows.row):
            return
        plan = model._configured_policy().plan(
            model._normalized(replay.observations_at(rows)),
            legal_actions=replay.legal[rows.env, rows.row % replay.capacity],
            noise=search_noise(model),
            temperature=1.0,
            rng=model._rng,
        )
        replay.update_search(rows, plan.policy, plan.mixed_value, plan.regret())

    def learned(self, batch: Batch, values: torch.Tensor) -> None:
        self.model._learn_errors(self.replay, batch, values)

    def close(self) -> None:
        pass
