"""MuZero as an algorithm of Stable-Baselines3."""

from __future__ import annotations

import inspect
import io
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple, TypeVar

import numpy as np
import torch
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray
from stable_baselines3.common.base_class import maybe_make_env
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import (
    GymEnv,
    MaybeCallback,
    RolloutReturn,
    Schedule,
    TrainFreq,
)
from stable_baselines3.common.utils import LinearSchedule
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent.actions import num_actions, to_space
from muzero_agent.adapters.envs.atari import warn_of_action_rows, warn_of_compounded_skips
from muzero_agent.adapters.envs.given import as_env
from muzero_agent.architectures import telling_pixels
from muzero_agent.archive import check_means, describe, read_replay, replacements
from muzero_agent.batch import Batch
from muzero_agent.checks import (
    check_arguments,
    check_finite,
    check_last_observations,
    check_legal,
    check_normalize,
    check_shift,
    check_spaces,
    check_terminal_rewards,
    warn_of_clipping,
)
from muzero_agent.exploration import Exploration
from muzero_agent.learner import Learner, Task
from muzero_agent.losses import Losses
from muzero_agent.masks import masks_of, network_space, tells_masks
from muzero_agent.objective import Objective
from muzero_agent.observations import add_batch_dimension, concatenate, row_of
from muzero_agent.offline import learn_offline
from muzero_agent.offline_common import OfflineSettings
from muzero_agent.planner import Plan
from muzero_agent.policies import (
    CnnPolicy,
    MlpPolicy,
    MultiInputPolicy,
    MuZeroPolicy,
    unmasked_alias,
)
from muzero_agent.reanalyse import Sweep
from muzero_agent.replay import TrajectoryReplayBuffer
from muzero_agent.rules_planner import RulesPlanner
from muzero_agent.turns import (
    RECONSTRUCTION,
    SUPPORT,
    Turns,
    check_players,
    players_of,
    resolved,
    symmetries_of,
)
from muzero_agent.types import Observation
from muzero_agent.updates import Updates, record_losses

SelfMuZero = TypeVar("SelfMuZero", bound="MuZero")

DEFAULT_LEARNING_RATE = LinearSchedule(start=1e-3, end=1e-4, end_fraction=1.0)


class _Decision(NamedTuple):
    """What was decided in the current states, kept until their transitions are stored."""

    policy: NDArray[np.float32]  # [n_envs, A]
    value: NDArray[np.float32]  # [n_envs]; NaN where not searched
    regret: NDArray[np.float32]  # [n_envs], of the action taken
    legal: NDArray[np.bool_] | None  # [n_envs, A]
    searched: bool


class MuZero(OffPolicyAlgorithm):
    """MuZero (Schrittwieser et al. 2020, arXiv 1911.08265) behind the interface of SB3.

    Learns a model in a latent space, its policy and its value, and acts by tree search in that
    model. By default the search is that of Gumbel MuZero (Danihelka et al., ICLR 2022).

    :param policy: "MlpPolicy", "CnnPolicy", "MultiInputPolicy", or a subclass of `MuZeroPolicy`
    :param env: environment, its id, a VecEnv, whose environments are searched as one batch, or one
        of Gymnasium's vector environments that reset in the same step (see
        `adapters.envs.gymnasium`). For self-play a turn-based AEC environment of PettingZoo, what
        makes one, or a list of either (see `adapters.envs.pettingzoo`). None only inside `load`
    :param learning_rate: a number or a function of the remaining progress (1 to 0)
    :param buffer_size: states that the replay holds; of images, frames that repeat are kept once
    :param learning_starts: steps of uniformly random legal actions before search and learning
    :param batch_size: windows of `unroll_steps` transitions per update
    :param gamma: discount of a step, that is of a decision: where each lasts four frames, as in
        Atari, 0.997**4 discounts a frame by 0.997. None resolves, here and below, to what suits the
        environment, 0.997, or 1 in turn-based games; see `turns`
    :param train_freq: steps (of each environment) between updates, or (n, "episode")
    :param gradient_steps: updates each time; -1 for as many as steps were taken
    :param num_simulations: network calls of a search
    :param search: "gumbel" (sequential halving over sampled actions; learns with few simulations)
        or "puct" (MuZero's original)
    :param unroll_steps: K, steps for which the model is unrolled in training
    :param td_steps: n, steps of reward at most in a value target; None: 100, in games 1000
    :param td_lambda: lambda of the value target: 1 is the n-step return, 0 the one-step target;
        None: 0.98, in games 1
    :param regret_tolerance: value targets stop in front of a transition whose action the newest
        search finds worse than another by more than this many times the value's typical error, so
        that mistakes of old policies do not count against states; inf never stops, and in the
        newest fifth of the replay none does
    :param reanalyse_ratio: stored states that are searched again with each environment step, in the
        same batch; their values and policies in the replay are renewed
    :param exploration_rate: chance, in each step after the warm-up in which none is being repeated,
        that a uniformly random legal action takes the place of the search's, and is repeated for n
        steps, with a probability in proportion to n**-2 (see `exploration`); a number or a function
        of the remaining progress. With the defaults an eighth of all actions is random. Value
        targets stop in front of those that were mistakes, but for new ones (`regret_tolerance`).
        None: 0.05, in games 0.1
    :param exploration_length: steps for which a random action is repeated at most; 1 repeats none.
        None: 16, in games 1
    :param opening_actions: each episode begins with up to so many random actions, a number drawn
        anew each time, besides those of `exploration_rate`. In games they show positions that good
        players would avoid, and how to play there
    :param temperature: of the draw among actions while learning, a number or a function of the
        remaining progress: factor on Gumbel's noise, or exponent 1 / temperature on PUCT's visits
    :param temperature_moves: steps of each episode that it holds for; what follows is played
        without noise, or as the most visited one, as AlphaZero does after 30 moves; exploration and
        PUCT's noise at the root go on. None: all
    :param num_players: 2 where players take turns and what one wins the other loses, such as
        PettingZoo's games: values and rewards are then those of the player to move. None: what the
        environment says (`num_players`), else 1
    :param terminal_rewards: whether rewards come with the end of an episode alone, and at most 1 in
        size, as results of games do: the search then takes one predicted as r for an end with
        probability |r|. None: in games
    :param value_coef: weight of the value loss
    :param consistency_coef: weight of the loss between predicted and represented next latents
        (EfficientZero, arXiv 2111.00210); 0 turns it off
    :param reconstruction_coef: weight of the loss between what latents tell of the observations and
        these (Scholz et al. 2021, arXiv 2102.05599), which teaches the model the board: for planes
        and flat observations whose entries are from 0 to 1, and for pixels, of which the network
        then tells the newest plane. None: 0, in games 10 where observations are from 0 to 1
    :param compared_steps: of the K unrolled steps, how many these two losses look at, drawn anew
        for each batch and weighed so as to stand for all: each costs a pass of h over the batch
        (of the decoder, where pictures are only told), which for images is much of an update.
        None: all
    :param gradient_scale: factor on the gradient of each latent that enters g (MuZero, appendix G).
        At 0.5 what comes K steps later teaches the first latents 2**-K as much as what they tell
        themselves; at 1 it counts whole, which on Pong made no difference (docs/learning.md)
    :param target_decay: decay per update of the moving average of the network that searches
    :param priority_exponent: 0 samples uniformly; above, in proportion to the value's error to
        this power, with importance weights that make up for it in part (to the power of 0.4)
    :param max_grad_norm: clips the gradient's norm
    :param max_num_considered_actions: actions that Gumbel's root considers
    :param dirichlet_fraction: share of noise in PUCT's root prior
    :param dirichlet_alpha: of that noise; about 10 / (number of legal actions)
    :param augment: whether training sees boards turned and mirrored at random, where the
        environment declares `symmetries` (see `types.Symmetries`)
    :param random_shift: pixels by which training moves pictures at most, up or down and to a side,
        or two numbers, one for each; each window by another random offset, as a whole (DrQ, arXiv
        2004.13649, section 3.1; EfficientZero, appendix A.1): of games with few scenes the network
        learns less by heart. In a direction in which it counts where on the screen something is,
        as where Pong's ball leaves it, that is no longer learned (docs/learning.md): give 0. For
        pixels that "CnnPolicy" reduces. None: not at all
    :param torch_compile: compile the losses with `torch.compile`, which on a CPU needs a C++
        compiler, and a minute or more in each process. Measured on a CPU: 0.63 of the time for the
        forward and backward passes of "MlpPolicy" (it pays from about 30,000 updates on), 0.91 for
        those of "CnnPolicy" on Atari's frames
    :param overlap: whether updates are made in a process of their own (see `learner`), while the
        next `train_freq` steps are played, which then are searched by the weights from before these
        updates. Runs of one seed stay identical; what is saved in the middle of `learn` is without
        the updates under way. Pays for small networks on two idle cores
        (docs/speed.md)
    :param stats_window_size: episodes over which rollout statistics are averaged
    :param tensorboard_log: directory of TensorBoard logs
    :param policy_kwargs: see `MuZeroPolicy`. If not given, `support_mean` is "scalars", and values
        of games are told from -1 to 1 (`support_bound` and `support_size`)
    :param verbose: 0 nothing, 1 information, 2 debugging
    :param seed: seeds everything; two runs with one seed are identical on one machine
    :param device: where the networks are
    :param _init_setup_model: whether to build the networks at once
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {
        "MlpPolicy": MlpPolicy,
        "CnnPolicy": CnnPolicy,
        "MultiInputPolicy": MultiInputPolicy,
    }
    policy: MuZeroPolicy
    replay_buffer: TrajectoryReplayBuffer

    def __init__(
        self,
        policy: str | type[MuZeroPolicy],
        env: GymEnv | VectorEnv[Any, Any, Any] | str | Sequence[Any] | Callable[[], Any] | None,
        learning_rate: float | Schedule = DEFAULT_LEARNING_RATE,
        buffer_size: int = 100_000,
        learning_starts: int = 200,
        batch_size: int = 128,
        gamma: float | None = None,
        train_freq: int | tuple[int, str] = 8,
        gradient_steps: int = 6,
        num_simulations: int = 16,
        search: str = "gumbel",
        unroll_steps: int = 5,
        td_steps: int | None = None,
        td_lambda: float | None = None,
        regret_tolerance: float = 1.0,
        reanalyse_ratio: int = 31,
        exploration_rate: float | Schedule | None = None,
        exploration_length: int | None = None,
        opening_actions: int = 0,
        temperature: float | Schedule = 1.0,
        temperature_moves: int | None = None,
        num_players: int | None = None,
        terminal_rewards: bool | None = None,
        value_coef: float = 0.5,
        consistency_coef: float = 1.0,
        reconstruction_coef: float | None = None,
        compared_steps: int | None = None,
        gradient_scale: float = 0.5,
        target_decay: float = 0.99,
        priority_exponent: float = 0.0,
        max_grad_norm: float = 5.0,
        max_num_considered_actions: int = 16,
        dirichlet_fraction: float = 0.25,
        dirichlet_alpha: float = 0.3,
        augment: bool = True,
        random_shift: int | Sequence[int] | None = None,
        torch_compile: bool = False,
        overlap: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: torch.device | str = "auto",
        _init_setup_model: bool = True,
    ) -> None:
        if env is None and _init_setup_model:
            raise ValueError("env=None: give an environment; only `MuZero.load` works without one")
        if env is not None:
            env = maybe_make_env(as_env(env), verbose)
            check_spaces(env.observation_space, env.action_space)
        self.num_players = players_of(env) if num_players is None else num_players
        resolve = partial(resolved, self.num_players)
        super().__init__(
            unmasked_alias(policy, self.policy_aliases, getattr(env, "observation_space", None)),
            env,  # type: ignore[arg-type]
            learning_rate,
            buffer_size,
            learning_starts,
            batch_size,
            gamma=resolve("gamma", gamma),
            train_freq=train_freq,
            gradient_steps=gradient_steps,
            replay_buffer_class=TrajectoryReplayBuffer,
            policy_kwargs={**SUPPORT[self.num_players], **(policy_kwargs or {})},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            support_multi_env=True,
            seed=seed,
            sde_support=False,
        )
        self.num_simulations = num_simulations
        self.search = search
        self.unroll_steps = unroll_steps
        self.td_steps: int = resolve("td_steps", td_steps)
        self.td_lambda: float = resolve("td_lambda", td_lambda)
        self.regret_tolerance = regret_tolerance
        self.reanalyse_ratio = reanalyse_ratio
        self.exploration_rate: float | Schedule = resolve("exploration_rate", exploration_rate)
        self.exploration_length: int = resolve("exploration_length", exploration_length)
        self.opening_actions = opening_actions
        self.temperature = temperature
        self.temperature_moves = temperature_moves
        self.terminal_rewards: bool = resolve("terminal_rewards", terminal_rewards)
        self.value_coef = value_coef
        self.consistency_coef = consistency_coef
        self.reconstruction_coef = reconstruction_coef  # see `_setup_model`
        self.compared_steps = compared_steps
        self.gradient_scale = gradient_scale
        self.target_decay = target_decay
        self.priority_exponent = priority_exponent
        self.max_grad_norm = max_grad_norm
        self.max_num_considered_actions = max_num_considered_actions
        self.dirichlet_fraction = dirichlet_fraction
        self.dirichlet_alpha = dirichlet_alpha
        self.augment = augment
        self.random_shift = random_shift
        self.torch_compile = torch_compile
        self.overlap = overlap
        self._env_has_masks = False
        self._warned_of_clipping = False
        self._learner: Learner | None = None
        if _init_setup_model:
            self._setup_model()

    # -- setting up ------------------------------------------------------------------------------

    @staticmethod
    def _wrap_env(
        env: GymEnv | VectorEnv[Any, Any, Any], verbose: int = 0, monitor_wrapper: bool = True
    ) -> VecEnv:
        """SB3's hook, through which constructor, `set_env` and `load` pass an environment."""
        wrapped = OffPolicyAlgorithm._wrap_env(as_env(env), verbose, monitor_wrapper)
        warn_of_compounded_skips(wrapped)
        return wrapped

    def _setup_model(self) -> None:
        check_arguments(vars(self))
        self.replay_buffer_kwargs = self._replay_settings()
        if self.reconstruction_coef and issubclass(self.policy_class, CnnPolicy):
            seen = network_space(self.observation_space)
            self.policy_kwargs = telling_pixels(self.policy_kwargs, seen)
        super()._setup_model()
        decodes = self.policy.network.decodes
        if self.reconstruction_coef is None:
            self.reconstruction_coef = RECONSTRUCTION[self.num_players] if decodes else 0.0
        elif self.reconstruction_coef > 0 and not decodes:
            raise ValueError(
                f"reconstruction_coef={self.reconstruction_coef}: this network tells no "
                "observations, which have to be flat, or a board for CnnPolicy, with entries from "
                "0 to 1, or pixels: give 0"
            )
        check_shift(self.random_shift, self.policy.network.shifts, self.policy.network_space)
        self.set_random_seed(self.seed)  # again: now the generators' owners exist
        self._configured_policy()  # it is saved and evaluated by itself as well
        if self.env is not None:
            warn_of_action_rows(self.env, self.policy.network.action_rows)
            _ = self.policy.optimizer  # now, so that what is wrong with its arguments is told
        self._sweep = Sweep()
        self._exploration = Exploration(self.n_envs)
        self._turns = Turns(self.n_envs, self.num_players)
        if self.num_players > 1:
            self._last_obs = None  # a model that is loaded does not know whose turn it was there
        self._decision: _Decision | None = None

    def _replay_settings(self) -> dict[str, Any]:
        return {
            "unroll_steps": self.unroll_steps,
            "td_steps": self.td_steps,
            "td_lambda": self.td_lambda,
            "regret_tolerance": self.regret_tolerance,
            "gamma": self.gamma,
            "priority_exponent": self.priority_exponent,
        }

    def set_random_seed(self, seed: int | None = None) -> None:
        """Seed the environment, torch, numpy and the generators of search and replay."""
        super().set_random_seed(seed)
        act, play, replay = (
            np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(3)
        )
        self._rng = act
        if getattr(self, "policy", None) is not None:
            self.policy.rng = play
        if getattr(self, "replay_buffer", None) is not None:
            self.replay_buffer.rng = replay

    def _configured_policy(self) -> MuZeroPolicy:
        """The policy with this model's present search settings, which users may change."""
        policy = self.policy
        policy.num_simulations = self.num_simulations
        policy.search = self.search
        policy.discount = self.gamma if self.num_players == 1 else -self.gamma
        policy.terminal_rewards = self.terminal_rewards
        policy.max_num_considered_actions = self.max_num_considered_actions
        policy.dirichlet_fraction = self.dirichlet_fraction
        policy.dirichlet_alpha = self.dirichlet_alpha
        policy.env_has_masks = self._env_has_masks
        return policy

    # -- learning --------------------------------------------------------------------------------

    def learn(
        self: SelfMuZero,
        total_timesteps: int,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "MuZero",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMuZero:
        """Learn for `total_timesteps` environment steps; see SB3's `OffPolicyAlgorithm.learn`."""
        learn = partial(
            super().learn,
            total_timesteps,
            callback,
            log_interval,
            tb_log_name,
            reset_num_timesteps,
            progress_bar,
        )
        if not self.overlap:
            return learn()
        try:
            with Learner(self.policy) as self._learner:
                learn()
                self._take_over()
        finally:
            self._learner = None
        return self

    def learn_offline(
        self: SelfMuZero,
        dataset: Any,
        gradient_steps: int,
        *,
        policy_targets: str | Mapping[str, float] = "auto",
        value_targets: str | Mapping[str, float] = "auto",
        max_drop: float = math.inf,
        softness: float = 50.0,
        unroll_steps: int | None = None,
        batch_size: int | None = None,
        reanalyse_ratio: int | None = None,
        value_smoothing: float = 0.0,
        latent_coef: float = 0.0,
        excursions: float = 0.0,
        bfloat16: bool = False,
        trust: bool = False,
        callback: MaybeCallback = None,
        log_interval: int = 100,
        tb_log_name: str = "MuZero",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfMuZero:
        """Learn from recorded play, without an environment (MuZero Unplugged, arXiv 2104.06294).

        Updates count as timesteps here: for callbacks, schedules of the learning rate and logs.
        `learn` may follow, and starts with an empty replay.

        :param dataset: a PGN file, also .zst, or several (extra `chess`); episodes, or a file of
            them (see `datasets.save_episodes`); a dataset of Minari or its id (extra `offline`); a
            replay buffer of SB3 or of this package, or its file. See `datasets`
        :param gradient_steps: updates
        :param policy_targets: "search": the policy of searches with the newest weights, repeated
            all the time (Reanalyse); "actions": what was played; "good_actions": what was played,
            where the newest search finds that worth no less than its policy (Critic Regularized
            Regression, arXiv 2006.15134; with a model ROSMO, 2210.05980); or a mixture of these,
            such as {"search": 3, "actions": 1}: the model knows nothing of what was never tried,
            and searches alone come to hope for just that. "candidates": a softmax of the moves
            that were scored, in games of chess; searches of these go by the rules. "auto":
            candidates in chess, else searches and actions alike
        :param value_targets: "search": from rewards and the newest values, as `learn` has them but
            for `regret_tolerance`, in chess what searches find; "result": the return (of an episode
            that was truncated with the value of its last state, recorded or else the newest), or
            that of the game; "evaluation": recorded values; or a mixture, such as {"result": 0.3,
            "evaluation": 0.7}, in which what was not recorded of a state leaves its weight to the
            others. "auto": evaluation in chess, where none is told the result, else search
        :param max_drop: actions (also where no moves were scored) after which the recorded value of
            the player falls by more than this are blunders, and no targets; of a game from -1 to 1
        :param softness: of that softmax, in centipawns: by so much a move is worse that is
            imitated 1/e times as often
        :param unroll_steps: K; None: the model's own. 0 learns policy and value alone, in games
            of chess
        :param batch_size: None: the model's own
        :param reanalyse_ratio: recorded states that are searched anew with each update. None: 64,
            in turn; in games of chess all K + 1 of each window of the batch, of which fewer may be
            searched where targets are mixed
        :param value_smoothing: see `categorical.Support.smoothing`
        :param latent_coef: weight of the distance of imagined latents from those of the states that
            followed, see `losses.muzero_loss`: the quickest way to learn g where h stays as it is
            (its parameters do not require gradients)
        :param excursions: share of the windows that leave their game, of chess, by a random legal
            move, and that the network's policy plays to the end, which the rules and the network
            label: nobody who plays well shows what bad moves lead to. See `datasets.excursions`
        :param bfloat16: compute the networks in bfloat16, where the processor is quicker at that
        :param trust: whether a file may hold pickles, which run code when loaded
        :param callback: any of SB3's; each update is a step to it
        :param log_interval: updates between two logs, of losses and of the share of the time in
            which batches were waited for, searches included
        :param reset_num_timesteps: False goes on with a run that was interrupted: give the updates
            that remain
        :raises ValueError: for what does not fit the model
        """
        learn_offline(
            self,
            dataset,
            gradient_steps,
            OfflineSettings(
                policy_targets=policy_targets,
                value_targets=value_targets,
                max_drop=max_drop,
                softness=softness,
                unroll_steps=self.unroll_steps if unroll_steps is None else unroll_steps,
                batch_size=self.batch_size if batch_size is None else batch_size,
                reanalyse_ratio=reanalyse_ratio,
                value_smoothing=value_smoothing,
                latent_coef=latent_coef,
                excursions=excursions,
                bfloat16=bfloat16,
                trust=trust,
            ),
            callback=callback,
            log_interval=log_interval,
            tb_log_name=tb_log_name,
            reset_num_timesteps=reset_num_timesteps,
            progress_bar=progress_bar,
        )
        return self

    def _setup_learn(self, *args: Any, **kwargs: Any) -> tuple[int, BaseCallback]:
        if self.env is None:
            raise ValueError("this model has no environment: call `set_env` first")
        check_arguments(vars(self))  # attributes may have changed
        check_shift(self.random_shift, self.policy.network.shifts, self.policy.network_space)
        self._convert_train_freq()
        self._configure_replay(self.replay_buffer)
        if self.replay_buffer.typical_error is None:  # it is new; the model may have learned before
            self.replay_buffer.typical_error = float(self.policy.value_error) or None
        check_players(self.num_players, self.env)
        self.replay_buffer.symmetries = symmetries_of(self.env) if self.augment else None
        normalize = self._vec_normalize_env
        if normalize is not None:
            check_normalize(normalize, self.observation_space, self.reconstruction_coef or 0.0)
        before = self._last_obs
        try:
            result = super()._setup_learn(*args, **kwargs)
            assert self._last_obs is not None
            self._check_finite("observation", self._last_obs)
        except BaseException:
            self._last_obs = None  # reset again next time
            raise
        if self._last_obs is not before:  # the environment was reset
            self.replay_buffer.close_open_episodes()
            self._exploration = Exploration(self.n_envs)
            self._begin_episodes(np.ones(self.n_envs, np.bool_))
        self._env_has_masks = tells_masks(self.env)
        self._configured_policy()  # which warns where masks are missing, also by itself
        return result

    def collect_rollouts(
        self,
        env: VecEnv,
        callback: BaseCallback,
        train_freq: TrainFreq,
        replay_buffer: ReplayBuffer,
        action_noise: ActionNoise | None = None,
        learning_starts: int = 0,
        log_interval: int | None = None,
    ) -> RolloutReturn:
        """Play; see SB3. If it is interrupted, by a callback, an error or Ctrl-C, the last step is
        not in the replay: the next `learn` starts from a reset environment."""
        completed = False
        try:
            rollout = super().collect_rollouts(
                env,
                callback,
                train_freq,
                replay_buffer,
                action_noise,
                learning_starts,
                log_interval,
            )
            completed = rollout.continue_training
            return rollout
        finally:
            if not completed:
                self._last_obs = None
                self._decision = None

    def _sample_action(
        self,
        learning_starts: int,
        action_noise: ActionNoise | None = None,
        n_envs: int = 1,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Search from the current states; at random during the warm-up."""
        obs = self._last_obs
        assert obs is not None
        masks = self._legal_actions(obs)
        legal = np.ones((n_envs, self._num_actions), np.bool_) if masks is None else masks
        zeros = np.zeros(n_envs, np.float32)
        if self.num_timesteps < learning_starts:
            policy = (legal / legal.sum(-1, keepdims=True)).astype(np.float32)
            actions = np.array(
                [
                    self._rng.choice(self._num_actions, p=p / p.sum())
                    for p in policy.astype(np.float64)
                ]
            )
            unknown = np.full(n_envs, np.nan, np.float32)
            self._decision = _Decision(policy, unknown, zeros, masks, searched=False)
        else:
            plan = self._plan_and_reanalyse(obs, legal)
            actions = self._exploration.replace(
                plan.action[:n_envs],
                legal,
                self._now(self.exploration_rate),
                self.exploration_length,
                self._rng,
            )
            regret = plan.regret()[np.arange(n_envs), actions]
            self._decision = _Decision(
                plan.policy[:n_envs], plan.mixed_value[:n_envs], regret, masks, searched=True
            )
        return to_space(self.action_space, actions), actions

    def _plan_and_reanalyse(self, obs: Observation, legal: NDArray[np.bool_]) -> Plan:
        """Search from the current states and, in the same batch, from stored ones, whose results
        are renewed.

        Gumbel's noise is for those that act: its policies leave no action out. PUCT's are visits,
        and without noise an action not visited would soon never be: there it is for all.
        """
        n_envs, replay = self.n_envs, self.replay_buffer
        rows = self._sweep.rows(replay, self.reanalyse_ratio * n_envs)
        stored = self._normalized(replay.observations_at(rows))
        stored_legal = replay.legal[rows.env, rows.row % replay.capacity]
        temperature = self._now(self.temperature)
        noise = np.ones(n_envs + len(rows.env), np.float32)
        heat = np.full(len(noise), temperature, np.float32)
        if self.temperature_moves is not None:
            heat[:n_envs][self._turns.move >= self.temperature_moves] = 0.0
        if self.search == "gumbel":
            noise[:n_envs] = heat[:n_envs]
            noise[n_envs:] = 0.0
        plan = self._configured_policy().plan(
            concatenate(obs, stored),
            legal_actions=np.concatenate([legal, stored_legal]),
            noise=noise,
            temperature=heat,
            rng=self._rng,
        )
        replay.update_search(
            rows, plan.policy[n_envs:], plan.mixed_value[n_envs:], plan.regret()[n_envs:]
        )
        return plan

    def _store_transition(
        self,
        replay_buffer: ReplayBuffer,
        buffer_action: NDArray[Any],
        new_obs: Any,
        reward: NDArray[Any],
        dones: NDArray[Any],
        infos: list[dict[str, Any]],
    ) -> None:
        assert isinstance(replay_buffer, TrajectoryReplayBuffer)
        assert self._last_obs is not None
        decision = self._decision
        assert decision is not None
        self._check_finite("reward", np.asarray(reward))
        self._check_finite("observation", new_obs)
        ended = np.flatnonzero(dones).tolist()
        ends: dict[int, Any] = {i: infos[i].get("terminal_observation") for i in ended}
        check_last_observations(ends)
        for i, last_obs in ends.items():
            self._check_finite("observation", add_batch_dimension(last_obs), env=i)
        normalize = self._vec_normalize_env
        obs: Any = self._last_obs
        if normalize is not None:  # which clips what is infinite
            self._check_finite("observation", normalize.old_obs)
            obs, reward = self._last_original_obs, normalize.get_original_reward()
            self._check_finite("reward", reward)
        if self.terminal_rewards:
            check_terminal_rewards(reward, dones)
        for i in range(self.n_envs):
            replay_buffer.add_step(
                i,
                row_of(obs, i),
                int(buffer_action[i]),
                float(reward[i]),
                decision.policy[i],
                float(decision.value[i]),
                float(decision.regret[i]),
                None if decision.legal is None else decision.legal[i],
                searched=decision.searched,
                player=int(self._turns.to_play[i]),
            )
        self._turns.moved(infos, dones.astype(np.bool_))
        for i, last_obs in ends.items():
            terminated = not infos[i].get("TimeLimit.truncated", False)
            value = 0.0 if terminated else self._value(last_obs)
            legal = self.policy.legal_actions(add_batch_dimension(last_obs), None)
            stored = last_obs if normalize is None else normalize.unnormalize_obs(last_obs)
            replay_buffer.end_episode(
                i,
                stored,
                value,
                terminated=terminated,
                player=int(self._turns.to_play[i]),
                legal=None if legal is None else legal[0],
            )
        self._begin_episodes(dones.astype(np.bool_))
        self.policy.network.observe(self.policy.network_input(self._last_obs))
        self._last_obs = new_obs
        if normalize is not None:
            self._last_original_obs = normalize.get_original_obs()

    def _begin_episodes(self, begun: NDArray[np.bool_]) -> None:
        """Environments were reset where `begun` [n_envs]."""
        assert self.env is not None
        self._turns.begin(self.env.unwrapped.reset_infos, begun)
        self._exploration.begin_episodes(begun, self.opening_actions, self._rng)

    @np.errstate(under="ignore")  # powers of a small discount are 0
    def train(self, gradient_steps: int, batch_size: int = 128) -> None:
        """Update the networks `gradient_steps` times from the replay."""
        if not self.replay_buffer.can_sample():
            return
        policy = self.policy
        policy.set_training_mode(True)
        self._update_learning_rate(policy.optimizer)
        if self._learner is not None:
            self._take_over()
            self._hand_over(self._learner, gradient_steps, batch_size)
            return
        updates = self._updates()
        history: list[torch.Tensor] = []
        for _ in range(gradient_steps):
            batch = self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            self._warn_of_clipping(batch)
            losses = self._loss(batch)
            updates.apply(losses.total)
            self._learn_errors(self.replay_buffer, batch, losses.root_value)
            history.append(torch.stack(losses[:-1]).detach())
        updates.finish()
        self._n_updates += gradient_steps
        record_losses(self.logger, self._n_updates, history)

    def _hand_over(self, learner: Learner, gradient_steps: int, batch_size: int) -> None:
        """Begin updates in the other process."""
        batches = [
            self.replay_buffer.sample(batch_size, env=self._vec_normalize_env)
            for _ in range(gradient_steps)
        ]
        for batch in batches:
            self._warn_of_clipping(batch)
        task = Task(
            batches,
            self._objective(),
            learning_rate=self.policy.optimizer.param_groups[0]["lr"],
            max_grad_norm=self.max_grad_norm,
            target_decay=self.target_decay,
            num=self._n_updates,
            seed=int(self._rng.integers(2**63)),
        )
        learner.submit(task)

    def _take_over(self) -> None:
        """What the other process has learned since batches were handed over to it, if any were."""
        assert self._learner is not None
        learned = self._learner.take_over()
        if learned is None:
            return
        for batch, values in zip(learned.batches, learned.root_values, strict=True):
            self._learn_errors(self.replay_buffer, batch, values)
        self._n_updates += len(learned.batches)
        record_losses(self.logger, self._n_updates, learned.losses)

    def _learn_errors(
        self, replay: TrajectoryReplayBuffer, batch: Batch, values: torch.Tensor
    ) -> None:
        """Tell a replay, and the search, how far the values [B] of a batch's first states lie from
        their targets, where these have any."""
        error = (values - batch.values[:, 0]).abs().cpu().numpy()
        weights = (batch.weights * batch.value_mask[:, 0]).cpu().numpy()
        replay.update_errors(batch.rows, error, weights)
        self.policy.value_error.fill_(replay.typical_error or 0.0)

    def _updates(self) -> Updates:
        return Updates(
            self.policy,
            max_grad_norm=self.max_grad_norm,
            target_decay=self.target_decay,
            num=self._n_updates,
        )

    def _loss(self, batch: Batch, latent_coef: float = 0.0) -> Losses:
        return self._objective(latent_coef).loss(self.policy, batch, self._rng)

    def _objective(self, latent_coef: float = 0.0) -> Objective:
        return Objective(
            value_coef=self.value_coef,
            consistency_coef=self.consistency_coef,
            reconstruction_coef=self.reconstruction_coef or 0.0,
            latent_coef=latent_coef,
            compared_steps=self.compared_steps,
            random_shift=self.random_shift,
            gradient_scale=self.gradient_scale,
            compiled=self.torch_compile,
        )

    def _warn_of_clipping(self, batch: Batch) -> None:
        if not self._warned_of_clipping:
            self._warned_of_clipping = warn_of_clipping(batch, self.policy.network.support)

    # -- playing ---------------------------------------------------------------------------------

    def predict(
        self,
        observation: Observation,
        state: tuple[NDArray[Any], ...] | None = None,
        episode_start: NDArray[np.bool_] | None = None,
        deterministic: bool = False,
        action_masks: NDArray[Any] | None = None,
    ) -> tuple[NDArray[np.int64], tuple[NDArray[Any], ...] | None]:
        """Search, and return the action to play; see `MuZeroPolicy.predict`."""
        return self._configured_policy().predict(
            observation, state, episode_start, deterministic, action_masks
        )

    def plan(
        self,
        observation: Any,
        action_masks: NDArray[Any] | None = None,
        deterministic: bool = True,
        planner: RulesPlanner[Any] | None = None,
    ) -> Plan:
        """Search, and return all that it found: visits, values, principal variations.

        :param observation: one observation, or n of them; for a planner by the rules, a state of
            these, or a list of n
        :param action_masks: [A] or [n, A], nonzero where legal; the rules need none
        :param deterministic: search without noise
        :param planner: None searches in the learned model; a `RulesPlanner` along the true rules,
            with the network to evaluate positions
        :return: arrays of n rows; of one row for one observation
        """
        policy = self._configured_policy()
        if planner is not None:
            if not isinstance(planner, RulesPlanner):
                raise TypeError(
                    f"planner={planner!r}: give RulesPlanner(rules), with rules such as "
                    "ConnectFour(), or None to search in the learned model"
                )
            return policy.plan_by_rules(
                observation if isinstance(observation, list) else [observation],
                planner,
                noise=0.0 if deterministic else 1.0,
                temperature=0.0 if deterministic else 1.0,
                variations=True,
            )
        policy.warn_of_missing_masks(action_masks)
        obs, _ = policy.batched(observation)
        return policy.plan(
            obs,
            legal_actions=policy.legal_actions(obs, action_masks),
            noise=0.0 if deterministic else 1.0,
            temperature=0.0 if deterministic else 1.0,
            variations=True,
        )

    # -- saving ----------------------------------------------------------------------------------

    @classmethod
    def load(
        cls: type[SelfMuZero],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | VectorEnv[Any, Any, Any] | str | None = None,
        device: torch.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        **kwargs: Any,
    ) -> SelfMuZero:
        """Load a model that `save` wrote; see SB3's `BaseAlgorithm.load`.

        Load files that you trust: they may hold pickles, which run code when loaded.

        :param env: environment to learn on in, or its id; to play, none is needed
        :param kwargs: arguments of the constructor that take the place of those saved, for instance
            `num_simulations=200`
        """
        return super().load(
            path,
            None if env is None else maybe_make_env(as_env(env), 0),
            device,
            custom_objects,
            print_system_info,
            force_reset,
            **replacements(path, inspect.signature(cls).parameters.keys(), kwargs),
        )

    def set_parameters(
        self, load_path_or_dict: Any, exact_match: bool = True, device: torch.device | str = "auto"
    ) -> None:
        """Take over weights; see SB3's `BaseAlgorithm.set_parameters`.

        :raises ValueError: if they are of a file whose predictions are read otherwise
        """
        if not isinstance(load_path_or_dict, dict):
            check_means(load_path_or_dict, self.policy.support_mean)
        super().set_parameters(load_path_or_dict, exact_match, device)

    def load_replay_buffer(
        self,
        path: str | pathlib.Path | io.BufferedIOBase,
        truncate_last_traj: bool = True,
    ) -> None:
        """Take over the replay that `save_replay_buffer` wrote, with this model's own settings.

        Load files that you trust: they are pickles, which run code when loaded.

        :param truncate_last_traj: whether episodes that were open end where they were saved; False
            continues them if the environments are still where they were
        """
        replay = read_replay(path, self.verbose)
        for name in ("n_envs", "observation_space", "action_space"):
            if getattr(replay, name) != getattr(self, name):
                raise ValueError(
                    f"the replay in {describe(path)} has {name}={getattr(replay, name)} and the "
                    f"model {getattr(self, name)}: load it into a model that was made with the same"
                )
        replay.check_valid()
        self._configure_replay(replay)
        if truncate_last_traj:
            replay.close_open_episodes()
        replay.device = self.device
        self.replay_buffer = replay
        self._sweep = Sweep()

    def _configure_replay(self, replay: TrajectoryReplayBuffer) -> None:
        """Give it this model's present settings of targets."""
        settings = self._replay_settings()
        if replay.priority_exponent != settings["priority_exponent"]:
            raise ValueError(
                f"the replay was made with priority_exponent={replay.priority_exponent}, the model "
                f"has {self.priority_exponent}: give `MuZero` or `MuZero.load` the same"
            )
        for name, setting in settings.items():
            setattr(replay, name, setting)

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            "_rng",
            "_sweep",
            "_exploration",
            "_decision",
            "_turns",
            "_warned_of_clipping",
            "_learner",
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["policy", "policy.optimizer"], []

    # -- small things ----------------------------------------------------------------------------

    def _now(self, setting: float | Schedule) -> float:
        """A setting at the present progress."""
        return float(setting(self._current_progress_remaining) if callable(setting) else setting)

    @property
    def _num_actions(self) -> int:
        return num_actions(self.action_space)

    def _normalized(self, obs: Observation) -> Observation:
        """As VecNormalize shows observations to the agent, if there is one."""
        if self._vec_normalize_env is None:
            return obs
        return self._vec_normalize_env.normalize_obs(obs)

    @torch.no_grad()
    def _value(self, obs: Observation) -> float:
        """The network's value of one observation."""
        inference = self.policy.target_network.initial_inference(
            self.policy.network_input(add_batch_dimension(obs))
        )
        return float(inference.scalars[0])

    def _legal_actions(self, obs: Observation) -> NDArray[np.bool_] | None:
        """bool [n_envs, A]: from the observation, else from the environment's `action_masks()`."""
        assert self.env is not None
        masks = masks_of(self.env) if self._env_has_masks else None
        legal = self.policy.legal_actions(obs, masks)
        if legal is not None:
            check_legal(legal, self.num_timesteps)
        return legal

    def _check_finite(self, what: str, data: Observation, env: int | None = None) -> None:
        """Raise before NaN or infinity reaches replay or networks."""
        check_finite(what, data, self.num_timesteps, env, self._vec_normalize_env is not None)
