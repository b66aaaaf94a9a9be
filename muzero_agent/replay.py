"""Trajectories in, training batches out.

Each environment owns a ring of rows, a row a state. A row holds what was seen and searched in that
state, the action taken and the reward that followed; the last state of an episode has a row of its
own, without an action, since truncation bootstraps from its value. Every observation is stored
once, and every frame of a stack (`frames`). Rows are numbered from the first ever written
("absolute" row numbers), so that an episode is a range of numbers whatever the ring has wrapped to.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize

from muzero_agent import augmentation
from muzero_agent.actions import num_actions
from muzero_agent.batch import Batch, Rows, Tensors
from muzero_agent.frames import observation_store
from muzero_agent.sum_tree import SumTree
from muzero_agent.targets import lambda_returns
from muzero_agent.types import Observation, Symmetries

NEWEST = 0.2
"""Share of an environment's rows whose actions count as today's policy, whatever the search finds.

Where an episode failed for another reason than its last actions, the search hopes in every state of
it for the action not taken, whose outcome nobody has seen. Did value targets stop in front of all
of these, none would learn of the failure, and the hope would feed itself.
"""

OPEN = np.iinfo(np.int64).max
"""`last_row` of an episode that still goes on."""


class TrajectoryReplayBuffer(ReplayBuffer):
    """Replay of whole trajectories, sampled as windows of `unroll_steps` transitions.

    :param buffer_size: rows in all, shared out evenly among the environments; a step takes one and
        the last state of an episode one more.
    :param unroll_steps: K
    :param td_steps: n of the value targets, see `targets.lambda_returns`
    :param td_lambda: lambda of the value targets
    :param gamma: discount of a step
    :param regret_tolerance: where the newest search finds another action better than the one taken
        by more than this many times the value's typical error, value targets stop in front of the
        transition, unless it is among the newest fifth held: what followed from a mistake of an
        old policy says little of today's, while of a new one the mistake may be the search's. inf
        never stops.
    :param priority_exponent: 0 samples uniformly; alpha > 0 samples rows by priority ** alpha
        (MuZero, appendix G), where priority = |predicted value - value target| when it was last
        drawn
    :param priority_beta: exponent, above 0, of the importance weights. At 1, MuZero's, they undo
        what priorities do: what is drawn often counts the less (docs/learning.md)

    `symmetries`, if set, are those under which each window that is drawn is seen, one by lot.
    """

    symmetries: Symmetries | None = None
    newest: float = NEWEST

    def __init__(
        self,
        buffer_size: int,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        device: torch.device | str = "auto",
        n_envs: int = 1,
        optimize_memory_usage: bool = False,
        *,
        unroll_steps: int = 5,
        td_steps: int = 5,
        td_lambda: float = 1.0,
        gamma: float = 0.997,
        regret_tolerance: float = math.inf,
        priority_exponent: float = 0.0,
        priority_beta: float = 0.4,
        seed: int | None = None,
    ) -> None:
        # Skips ReplayBuffer.__init__, which allocates arrays of single transitions.
        super(ReplayBuffer, self).__init__(
            buffer_size, observation_space, action_space, device, n_envs=n_envs
        )
        self.capacity = max(buffer_size // n_envs, unroll_steps + 2)
        self.buffer_size = self.capacity
        self.num_actions = num_actions(action_space)
        self.unroll_steps = unroll_steps
        self.td_steps = td_steps
        self.td_lambda = td_lambda
        self.gamma = gamma
        self.regret_tolerance = regret_tolerance
        self.priority_exponent = priority_exponent
        self.priority_beta = priority_beta
        self.handle_timeout_termination = True
        self.rng = np.random.default_rng(seed)
        self._allocated = False
        self.reset()

    # -- writing ---------------------------------------------------------------------------------

    def _allocate(self) -> None:
        """Allocate on first use: a model that is loaded to play needs no buffer."""
        shape = (self.n_envs, self.capacity)
        self.store = observation_store(self.observation_space, *shape)
        self.action = np.zeros(shape, np.int64)
        self.reward = np.zeros(shape, np.float32)
        self.policy = np.zeros((*shape, self.num_actions), np.float32)
        self.value = np.zeros(shape, np.float32)  # root value after search; NaN: not known yet
        # How much better the best action looks in the newest search than the action taken.
        self.regret = np.zeros(shape, np.float32)
        self.player = np.zeros(shape, np.int8)  # to move; owns the row's value and reward
        self.legal = np.ones((*shape, self.num_actions), np.bool_)
        self.searched = np.zeros(shape, np.bool_)  # policy and value come from a search
        self.last_row = np.full(shape, OPEN)  # absolute number of the episode's last row
        self.terminated = np.zeros(shape, np.bool_)  # on the episode's last row: it absorbs
        if self.priority_exponent > 0:
            self.priorities = SumTree(self.n_envs * self.capacity)
            self.max_priority = 1.0
        self._allocated = True

    def reset(self) -> None:
        """Forget everything."""
        self.typical_error: float | None = None  # running mean of |value - target|
        self.head = np.zeros(self.n_envs, np.int64)  # next absolute row to write
        self.start = np.zeros(self.n_envs, np.int64)  # first row of the open episode
        self._num_transitions = 0  # rows held whose successor is held
        self._several_players = False
        self.pos = 0
        self.full = False
        if self._allocated:
            self._allocate()

    def size(self) -> int:
        """Rows held, over all environments."""
        return int(np.minimum(self.head, self.capacity).sum())

    def add(self, *_args: Any, **_kwargs: Any) -> None:
        """What SB3's replays take, single transitions, this one does not."""
        raise NotImplementedError(
            "the replay of MuZero holds trajectories: append states by `add_step`, and the last "
            "one of each episode by `end_episode`"
        )

    def add_step(
        self,
        env: int,
        obs: Observation,
        action: int,
        reward: float,
        policy: NDArray[np.float32],
        value: float,
        regret: float,
        legal: NDArray[np.bool_] | None,
        *,
        searched: bool,
        player: int = 0,
    ) -> None:
        """Append a state and the transition from it to the open episode of `env`.

        :param obs: one observation, unnormalised
        :param policy: float32 [A], the search's action weights
        :param value: the search's root value; NaN where there is none, as in the warm-up
        :param regret: by how much the action falls short of the best in the search
        :param legal: bool [A]; None: all actions are legal
        :param searched: whether policy and value come from a search; False in the warm-up
        :param player: who is to move; values and rewards are theirs
        """
        if not self._allocated:
            self._allocate()
        slot = int(self.head[env] % self.capacity)
        self.store.put(env, slot, obs)
        forgotten = self.head[env] - self.capacity
        if forgotten >= 0 and self.last_row[env, slot] != forgotten:
            self._num_transitions -= 1
        if self.head[env] > self.start[env]:
            self._num_transitions += 1
        self.action[env, slot] = action
        self.reward[env, slot] = reward
        self.policy[env, slot] = policy
        self.value[env, slot] = value
        self.regret[env, slot] = regret
        self.legal[env, slot] = True if legal is None else legal
        self.searched[env, slot] = searched
        self.player[env, slot] = player
        self._several_players |= player != 0
        self.last_row[env, slot] = OPEN
        self.terminated[env, slot] = False
        if self.priority_exponent > 0:
            self._admit_predecessor(env, slot)
        self.head[env] += 1
        self.pos = int(self.head.max() % self.capacity)
        self.full = bool(self.head.min() >= self.capacity)

    def end_episode(
        self,
        env: int,
        obs: Observation,
        value: float,
        *,
        terminated: bool,
        player: int = 0,
        legal: NDArray[np.bool_] | None = None,
    ) -> None:
        """Append the last state of the open episode of `env`, and close it.

        :param value: value of the last state, from which truncation bootstraps; NaN: not known yet
        :param terminated: True if the episode ended by itself: its last state has value 0
        :param legal: bool [A], for searches from a truncated state; None, or none, counts as all
        """
        value = 0.0 if terminated else value
        legal = None if legal is None or not legal.any() else legal
        policy = np.zeros(self.num_actions, np.float32)
        self.add_step(env, obs, 0, 0.0, policy, value, 0.0, legal, searched=False, player=player)
        self._close(env, int(self.head[env]) - 1, terminated)

    def close_open_episodes(self) -> None:
        """Turn unfinished episodes into truncated ones that end at the last state stored."""
        for env in range(self.n_envs):
            if self.head[env] > self.start[env]:
                self._close(env, int(self.head[env]) - 1, terminated=False)

    def _close(self, env: int, last_row: int, terminated: bool) -> None:
        first = max(int(self.start[env]), last_row + 1 - self.capacity)
        slots = np.arange(first, last_row + 1) % self.capacity
        self.last_row[env, slots] = last_row
        self.terminated[env, last_row % self.capacity] = terminated
        self.start[env] = last_row + 1

    # -- reading ---------------------------------------------------------------------------------

    def _ends(self, rows: Rows) -> NDArray[np.int64]:
        """Absolute number of the last row of each row's episode; open ones end at the newest."""
        last = self.last_row[rows.env, rows.row % self.capacity]
        ends: NDArray[np.int64] = np.minimum(last, self.head[rows.env] - 1)
        return ends

    def sample_rows(self, batch_size: int) -> tuple[Rows, NDArray[np.float32]]:
        """Draw rows that have a successor, with their importance weights float32 [B].

        Uniform over rows, or in proportion to priority ** priority_exponent; weights are
        (N P)^-beta, scaled by their maximum (Schaul et al. 2016, section 3.4).
        """
        if not self.can_sample():
            raise RuntimeError("the replay holds no transition yet: collect steps before sampling")
        held = np.minimum(self.head, self.capacity)
        if self.priority_exponent > 0:
            leaf, probability = self.priorities.sample(batch_size, self.rng)
            env, slot = np.divmod(leaf, self.capacity)
            rows = Rows(env, self.absolute(env, slot))
            weights = (held.sum() * probability) ** -self.priority_beta
            return rows, (weights / weights.max()).astype(np.float32)
        env = np.empty(batch_size, np.int64)
        row = np.empty(batch_size, np.int64)
        bounds = np.cumsum(held)
        missing = np.arange(batch_size)
        while len(missing):
            flat = self.rng.integers(bounds[-1], size=len(missing))
            env[missing] = np.searchsorted(bounds, flat, side="right")
            oldest = (self.head - held)[env[missing]]
            row[missing] = oldest + flat - (bounds - held)[env[missing]]
            drawn = Rows(env[missing], row[missing])
            missing = missing[self._ends(drawn) == drawn.row]
        return Rows(env, row), np.ones(batch_size, np.float32)

    def can_sample(self) -> bool:
        """Whether a transition with both of its states is held."""
        return self._num_transitions > 0

    def absolute(self, env: NDArray[np.int64], slot: NDArray[np.int64]) -> NDArray[np.int64]:
        """The newest absolute row number that lies in each slot."""
        newest = self.head[env] - 1
        return newest - (newest - slot) % self.capacity

    def observations_at(self, rows: Rows) -> Observation:
        """Unnormalised observations [B, ...] (or [B, T, ...] for rows of that shape)."""
        if not self._allocated:  # arrays of no rows have a shape, too
            self._allocate()
        return self.store.get(rows.env, rows.row % self.capacity)

    @property
    def obs(self) -> Observation:
        """Observations of all slots [n_envs, capacity, ...], to look at: images take much room."""
        return self.store.get(slice(None), slice(None))

    def value_targets(
        self,
        rows: Rows,
        num_targets: int,
        env: VecNormalize | None = None,
        *,
        monte_carlo: bool = False,
    ) -> NDArray[np.float32]:
        """Value targets float32 [B, num_targets] of the rows and of those after them; NaN where the
        value that one would end with is not known yet.

        :param env: normalises rewards if given
        :param monte_carlo: returns to the episode's end, whatever the settings say
        """
        ends = self._ends(rows)
        longest = int((ends - rows.row).max())
        td_steps = max(longest, 1) if monte_carlo else self.td_steps
        horizon = max(num_targets - 1, 1, min(num_targets - 1 + td_steps, longest))
        left = (ends - rows.row)[:, None]  # transitions
        offsets = np.arange(horizon + 1)  # [T + 1]
        slot = (rows.row[:, None] + np.minimum(offsets, left)) % self.capacity
        states = slot + (rows.env * self.capacity)[:, None]  # of raveled arrays, which are faster
        values = self.value.ravel().take(states)  # past the end the last state's, as it is
        moves = offsets[1:] <= left  # the transition into this state exists
        index = states[:, :-1]
        rewards = self.reward.ravel().take(index)
        if env is not None:
            rewards = env.normalize_reward(rewards).astype(np.float32)
        rewards *= moves
        discounts = np.where(moves, np.float32(self.gamma), np.float32(1))
        if self._several_players:
            player = self.player.ravel().take(states)
            # What is good for the player who moves next is bad for one who moves now (zero-sum).
            discounts[moves & (player[:, 1:] != player[:, :-1])] *= -1
        return lambda_returns(
            values,
            rewards,
            discounts,
            num_targets=num_targets,
            td_steps=td_steps,
            td_lambda=1.0 if monte_carlo else self.td_lambda,
            on_policy=None if monte_carlo else self._on_policy(rows, index, moves),
        )

    def _on_policy(
        self, rows: Rows, index: NDArray[np.int64], moves: NDArray[np.bool_]
    ) -> NDArray[np.bool_] | None:
        """Whether actions are of today's policy: the newest search finds them as good as any,
        within tolerance, or they are among the newest, whatever it finds.

        :param index: of raveled arrays [B, T], from the rows on
        """
        if self.typical_error is None or math.isinf(self.regret_tolerance):
            return None
        most = np.float32(self.regret_tolerance * self.typical_error)
        held = np.minimum(self.head, self.capacity)[rows.env, None]
        age = self.head[rows.env, None] - (rows.row[:, None] + np.arange(index.shape[1]))
        on_policy: NDArray[np.bool_] = (
            (self.regret.ravel().take(index) <= most) | (age <= self.newest * held) | ~moves
        )
        return on_policy

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> Batch:  # type: ignore[override]
        """Draw a training batch.

        :param env: normalises observations and rewards if given
        """
        rows, weights = self.sample_rows(batch_size)
        steps = self.unroll_steps
        ends = self._ends(rows)[:, None]
        row = rows.row[:, None] + np.arange(steps + 1)  # [B, K + 1]
        inside = row <= ends
        slot = np.minimum(row, ends) % self.capacity
        env_index = np.broadcast_to(rows.env[:, None], slot.shape)
        terminated = self.terminated[rows.env[:, None], ends % self.capacity]  # [B, 1]

        moves = inside[:, 1:]
        random_actions = self.rng.integers(self.num_actions, size=(batch_size, steps))
        actions = np.where(moves, self.action[env_index, slot][:, :-1], random_actions)
        rewards = np.where(moves, self.reward[env_index, slot][:, :-1], np.float32(0))
        observations = self.observations_at(Rows(env_index, slot))
        values = self.value_targets(rows, steps + 1, env)
        valued = ((row < ends) | terminated) & ~np.isnan(values)
        policies, told = self._policies(env_index, slot)
        if self.symmetries is not None:
            which = augmentation.draw(self.symmetries, batch_size, self.rng)
            observations = augmentation.turn_observations(self.symmetries, which, observations)
            actions = augmentation.turn_actions(self.symmetries, which, actions)
            policies = augmentation.turn_policies(self.symmetries, which, policies)
        if env is not None:
            observations = env.normalize_obs(observations)
            rewards = np.where(moves, env.normalize_reward(rewards), 0)
        return Batch(
            observations=self._tensors(observations),
            actions=self._tensor(actions),
            rewards=self._tensor(rewards.astype(np.float32)),
            values=self._tensor(np.nan_to_num(values)),
            policies=self._tensor(policies),
            reward_mask=self._tensor((moves | terminated).astype(np.float32)),
            value_mask=self._tensor(valued.astype(np.float32)),
            policy_mask=self._tensor((inside & told).astype(np.float32)),
            consistency_mask=self._tensor(moves.astype(np.float32)),
            weights=self._tensor(weights),
            rows=rows,
        )

    def _policies(
        self, env: NDArray[np.int64], slot: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Policy targets float32 [..., A] of slots [...], and where there are any."""
        return self.policy[env, slot], self.searched[env, slot]

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        return torch.as_tensor(array, device=self.device)

    def _tensors(self, obs: Observation) -> Tensors:
        if isinstance(obs, dict):
            return {key: self._tensor(part) for key, part in obs.items()}
        return self._tensor(obs)

    # -- refreshing ------------------------------------------------------------------------------

    def update_search(
        self,
        rows: Rows,
        policy: NDArray[np.float32],
        value: NDArray[np.float32],
        regret: NDArray[np.float32],
    ) -> None:
        """Replace the stored search results of rows by newer ones (Reanalyse).

        Terminal states keep value 0, and last states have no policy to learn.

        :param policy: float32 [B, A]
        :param value: float32 [B]
        :param regret: float32 [B, A], by how much each action falls short of the best
        """
        slot = rows.row % self.capacity
        is_last = self.last_row[rows.env, slot] == rows.row
        terminal = is_last & self.terminated[rows.env, slot]
        self.value[rows.env, slot] = np.where(terminal, np.float32(0), value)
        self.policy[rows.env, slot] = policy
        taken = self.action[rows.env, slot]
        self.regret[rows.env, slot] = regret[np.arange(len(taken)), taken]
        self.searched[rows.env, slot] = ~is_last

    def update_errors(
        self, rows: Rows, error: NDArray[np.float32], weights: NDArray[np.float32] | None = None
    ) -> None:
        """Learn how wrong values are: the typical error, and priorities where they count.

        :param error: float32 [B], |value - target| of rows that were sampled
        :param weights: float32 [B], the importance weights of how they were drawn, and 0 where
            there is no target. Such rows keep their priorities. None: all count alike
        """
        weights = np.ones_like(error) if weights is None else weights
        if self.priority_exponent > 0:  # the typical error is to be that of all rows
            weights = weights ** (1.0 / self.priority_beta)
        known = weights > 0
        if not known.any():
            return
        mean = float(np.average(error, weights=weights))
        previous = mean if self.typical_error is None else self.typical_error
        self.typical_error = previous + 0.02 * (mean - previous)
        if self.priority_exponent > 0:
            priority = error[known].astype(np.float64) + 1e-3  # nothing is never drawn again
            self.max_priority = max(self.max_priority, float(priority.max()))
            leaf = (rows.env * self.capacity + rows.row % self.capacity)[known]
            self.priorities.set(leaf, priority**self.priority_exponent)

    def _admit_predecessor(self, env: int, slot: int) -> None:
        """A row can be drawn once its successor is there; new rows get the largest priority seen,
        so that each is trained on soon."""
        slots, weights = [slot], [0.0]
        if self.head[env] > self.start[env]:
            slots.append((slot - 1) % self.capacity)
            weights.append(self.max_priority**self.priority_exponent)
        self.priorities.set(env * self.capacity + np.array(slots), np.array(weights))

    def check_valid(self) -> None:
        """Raise ValueError if the bookkeeping of episodes is inconsistent."""
        if self._allocated:
            self.store.check_valid()
        for env in range(self.n_envs):
            oldest = max(0, int(self.head[env]) - self.capacity)
            rows = np.arange(oldest, self.head[env])
            if not len(rows):
                continue
            last = self.last_row[env, rows % self.capacity]
            is_open = rows >= self.start[env]
            closed = last[~is_open]
            if (
                (last[is_open] != OPEN).any()
                or (closed >= self.start[env]).any()
                or (closed < rows[~is_open]).any()
                or (self.last_row[env, closed % self.capacity] != closed).any()
                or (np.diff(closed) < 0).any()
            ):
                raise ValueError(f"the episode boundaries of environment {env} are inconsistent")
            slot = rows % self.capacity
            infinite = np.isinf(self.value[env, slot]) | ~np.isfinite(self.reward[env, slot])
            if infinite.any():
                raise ValueError(f"environment {env} holds values or rewards that are not finite")
