"""Illegal actions are never taken, in whichever of the three forms the mask comes."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeLimit
from numpy.typing import NDArray
from sb3_contrib.common.maskable import evaluation as maskable
from sb3_contrib.common.maskable.callbacks import MaskableEvalCallback
from sb3_contrib.common.wrappers import ActionMasker
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from muzero_agent import MuZero, zoo
from muzero_agent.bench import worker
from muzero_agent.bench.plan import make_plan
from muzero_agent.evaluation import evaluate_returns, measure
from muzero_agent.render import record

ACTIONS = 4


def legal_at(step: int) -> NDArray[np.int8]:
    """Two of four actions at each step of an episode, others at the next; at every fifth one."""
    legal = np.zeros(ACTIONS, np.int8)
    legal[[step % ACTIONS, (step + (step % 5 > 0)) % ACTIONS]] = 1
    return legal


class Masked(gym.Env[Any, np.int64]):
    """Observes its step, and counts the illegal actions that it is given; they pay best.

    :param form: where the mask is: "method", "observation", "dict" (beside two other entries),
        "board" (beside planes), or "none"
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 - gymnasium declares it so

    def __init__(self, form: str, length: int = 7, *, truncates: bool = False) -> None:
        self.form, self.length, self.truncates = form, length, truncates
        self.t = 0  # step within the episode
        self.action_space = spaces.Discrete(ACTIONS)
        box, mask = spaces.Box(-1, 100, (2,)), spaces.MultiBinary(ACTIONS)
        self.observation_space = {
            "method": box,
            "none": box,
            "observation": spaces.Dict({"observation": box, "action_mask": mask}),
            "dict": spaces.Dict({"a": box, "b": spaces.Discrete(2), "action_mask": mask}),
            "board": spaces.Dict({"observation": spaces.Box(0, 1, (2, 3, 3)), "action_mask": mask}),
        }[form]
        if form == "method":
            self.action_masks = lambda: legal_at(self.t) > 0
        self.illegal = 0
        self.taken: set[tuple[int, int]] = set()

    def observe(self) -> Any:
        box = np.array([self.t, 1], np.float32)
        mask = legal_at(self.t)
        if self.form == "observation":
            return {"observation": box, "action_mask": mask}
        if self.form == "dict":
            return {"a": box, "b": self.t % 2, "action_mask": mask}
        if self.form == "board":
            planes = np.full((2, 3, 3), self.t / 10, np.float32)
            return {"observation": planes, "action_mask": mask}
        return box

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), {}

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        illegal = not legal_at(self.t)[action]
        self.illegal += illegal
        self.taken.add((self.t, int(action)))
        self.t += 1
        over = self.t == self.length
        return self.observe(), 5.0 * illegal, over and not self.truncates, over, {}


POLICIES = {
    "method": "MlpPolicy",
    "none": "MlpPolicy",
    "observation": "MlpPolicy",
    "dict": "MultiInputPolicy",
    "board": "CnnPolicy",
}


def make(env: Any, form: str, **kwargs: Any) -> MuZero:
    small = {"channels": 4, "num_blocks": 1, "head_width": 4}
    settings: dict[str, Any] = {
        "num_simulations": 4,
        "batch_size": 8,
        "learning_starts": 96,
        "gradient_steps": 1,
        "reanalyse_ratio": 7,
        "policy_kwargs": {"net_arch": small if form == "board" else [16]},
        "seed": 0,
    }
    return MuZero(POLICIES[form], env, **(settings | kwargs))


def vectorised(*envs: gym.Env[Any, Any]) -> DummyVecEnv:
    return DummyVecEnv([lambda env=env: env for env in envs])  # type: ignore[misc]


def steps_of(model: MuZero) -> NDArray[np.int64]:
    """The step within its episode of each row of the replay [n_envs, rows], from what is stored."""
    replay = model.replay_buffer
    newest = int(replay.head.min())
    obs: Any = replay.obs
    part = obs["a" if "a" in obs else "observation"] if isinstance(obs, dict) else obs
    steps = part[:, :newest, 0, 0, 0] * 10 if part.ndim == 5 else part[:, :newest, 0]
    return np.asarray(np.rint(steps), np.int64)


@pytest.mark.parametrize("search", ["gumbel", "puct"])
@pytest.mark.parametrize("form", ["method", "observation", "dict", "board"])
def test_no_illegal_action_is_ever_taken_while_learning(form: str, search: str) -> None:
    envs = [Masked(form), Masked(form, length=5)]
    model = make(vectorised(*envs), form, search=search, exploration_rate=0.5)
    model.learn(model.learning_starts)
    legal = {(t, a) for t in range(7) for a in np.flatnonzero(legal_at(t)).tolist()}
    assert not model.replay_buffer.searched.any()  # this was the warm-up
    tried = envs[0].taken | envs[1].taken
    assert tried >= {(t, a) for t, a in legal if t < 5}  # which tries whatever is legal
    model.learn(40, reset_num_timesteps=False)
    assert model.replay_buffer.searched.any()
    assert [env.illegal for env in envs] == [0, 0]
    assert envs[0].taken <= legal


@pytest.mark.parametrize("truncates", [False, True], ids=["terminates", "truncates"])
@pytest.mark.parametrize("form", ["method", "observation", "dict", "board"])
def test_stored_rows_keep_their_masks(form: str, truncates: bool) -> None:
    """And whatever is searched again from them gives no weight to illegal actions."""
    envs = [Masked(form, truncates=truncates) for _ in range(2)]
    model = make(vectorised(*envs), form, learning_starts=30)
    model.learn(100)
    replay, steps = model.replay_buffer, steps_of(model)
    newest = steps.shape[1]
    legal = np.array([[legal_at(step) for step in row] for row in steps]) > 0
    is_last = replay.last_row[:, :newest] == np.arange(newest)
    stored = replay.legal[:, :newest]
    assert (stored[~is_last] == legal[~is_last]).all()
    # The environment's method is asked too late, after the reset.
    known = form != "method"
    assert (stored[is_last] == (legal[is_last] if known else True)).all()
    assert is_last.sum() > 4
    assert replay.searched[:, :newest][~is_last].all()  # the warm-up's rows were searched again
    assert (replay.policy[:, :newest][~legal & ~is_last[..., None]] == 0).all()
    np.testing.assert_allclose(replay.policy[:, :newest][~is_last].sum(-1), 1, atol=1e-4)


class Strict(Masked):
    """Ends learning at the first illegal action. `form` may be "masker", too: sb3-contrib's."""

    def __init__(self, form: str) -> None:
        super().__init__("none" if form == "masker" else form)

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert legal_at(self.t)[action], f"action {action} at {self.t}"
        return super().step(action)


def strict(form: str) -> gym.Env[Any, Any]:
    env = Strict(form)
    return ActionMasker(env, lambda _: legal_at(env.t) > 0) if form == "masker" else env


@pytest.mark.parametrize("kind", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize("form", ["method", "masker", "observation", "dict"])
def test_an_environment_that_forbids_illegal_actions(form: str, kind: Any) -> None:
    """In the warm-up, in searches, behind wrappers and in other processes."""
    started = {"start_method": "fork"} if kind is SubprocVecEnv else {}
    env = kind([lambda: Monitor(strict(form))] * 2, **started)
    try:
        model = make(env, "none" if form == "masker" else form).learn(160)
        assert model._n_updates > 0
        assert steps_of(model).max() == 7
    finally:
        env.close()


def test_tools_of_sb3_contrib_pass_masks_on() -> None:
    """Its evaluation and its callback, with ActionMasker, as users of MaskablePPO have them."""
    callback = MaskableEvalCallback(
        Monitor(strict("masker")), n_eval_episodes=2, eval_freq=30, verbose=0
    )
    model = make(strict("masker"), "none").learn(120, callback=callback)
    assert callback.last_mean_reward == 0
    for deterministic in (False, True):
        for player in (model, model.policy):
            returns = maskable.evaluate_policy(
                player,  # type: ignore[arg-type]
                Monitor(strict("masker")),
                2,
                deterministic=deterministic,
            )
            assert returns == (0, 0)


def test_a_mask_behind_wrappers() -> None:
    env = Masked("method", length=1000)
    make(Monitor(TimeLimit(env, 6)), "method", learning_starts=20).learn(60)
    assert env.illegal == 0
    assert len(env.taken) > 6


def test_without_a_mask_every_action_is_tried() -> None:
    env = Masked("none")
    make(env, "none").learn(120)
    assert env.illegal > 0


# -- predict ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("search", ["gumbel", "puct"])
@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("form", ["none", "observation", "dict", "board"])
def test_predict_takes_legal_actions(form: str, deterministic: bool, search: str) -> None:
    env = Masked(form)
    model = make(env, form, search=search)
    observations, masks = [], []
    for env.t in range(60):
        observations.append(env.observe())
        masks.append(legal_at(env.t))
    given: Any = {"action_masks": np.array(masks)} if form == "none" else {}
    batch: Any = np.array(observations)
    if isinstance(env.observation_space, spaces.Dict):
        keys = env.observation_space.spaces
        batch = {key: np.array([obs[key] for obs in observations]) for key in keys}
    taken = np.zeros((60, ACTIONS), np.int64)
    for predict in (model.predict, model.policy.predict):
        for _ in range(5):
            actions, _ = predict(batch, deterministic=deterministic, **given)
            taken[np.arange(60), actions] += 1
    assert (taken[np.array(masks) == 0] == 0).all()
    varied = int((taken > 0).sum(-1).max())
    assert varied == (1 if deterministic else 2)
    one, mask = observations[3], masks[3]
    action, _ = model.predict(one, action_masks=mask if form == "none" else None)
    assert mask[action]


@pytest.mark.parametrize(
    "mask",
    [[0, 0, 1, 0], [False, False, True, False], [0.0, 0.0, 1.0, 0.0], [[0, 0, 1, 0]]],
    ids=["list", "bool", "float", "row"],
)
def test_kinds_of_masks(mask: Any) -> None:
    model = make(Masked("none"), "none")
    for given in (mask, np.array(mask)):
        for deterministic in (False, True):
            action, _ = model.predict(np.zeros(2), None, None, deterministic, given)
            assert action == 2
            assert action.shape == ()


def test_the_argument_comes_before_the_observation() -> None:
    model = make(Masked("observation"), "observation")
    obs: Any = {"observation": np.zeros(2), "action_mask": np.array([1, 0, 0, 0], np.int8)}
    assert model.predict(obs)[0] == 0
    assert model.predict(obs, action_masks=np.array([0, 0, 0, 1]))[0] == 3


def test_a_plan_shows_what_is_legal() -> None:
    model = make(Masked("none"), "none")
    masks = np.array([legal_at(t) for t in range(10)])
    plan = model.plan(np.zeros((10, 2)), action_masks=masks)
    for field in (plan.policy, plan.prior, plan.visit_counts, plan.q_values):
        assert (field[masks == 0] == 0).all()
    np.testing.assert_allclose(plan.prior.sum(-1), 1, atol=1e-5)
    assert (plan.prior[masks > 0] > 0).all()
    assert masks[np.arange(10), plan.action].all()


def test_predict_warns_where_masks_are_out_of_its_reach(tmp_path: Path) -> None:
    """They are in a method of the environment, which predict and stock tools do not see."""
    env = Masked("method")
    model = make(env, "method", learning_starts=16).learn(16)  # without a search
    file = io.BytesIO()
    model.save(file)
    copied = zoo.export(zoo.save(model, tmp_path / "model"), tmp_path / "copy", dtype="float16")
    model.policy.save(str(tmp_path / "policy"))
    with pytest.warns(UserWarning, match=r"predict\(action_masks=...\)"):
        type(model.policy).load(str(tmp_path / "policy")).predict(env.observe())
    for player in (model, MuZero.load(file), zoo.load(copied)):
        for call in (player.policy.predict, player.predict, player.plan):
            with pytest.warns(UserWarning, match=r"predict\(action_masks=...\)") as told:
                call(env.observe())
            assert [Path(warning.filename) for warning in told] == [Path(__file__)]
        for evaluated in (player, player.policy):
            with pytest.warns(UserWarning, match="EvalCallback"):
                evaluate_policy(evaluated, Monitor(env), 1)
    learned = zoo.load(copied, env=Masked("none")).learn(8)
    with warnings.catch_warnings(action="error"):
        learned.predict(env.observe())


def test_masks_that_are_no_method() -> None:
    env = Masked("none")
    env.action_masks = legal_at(0)  # type: ignore[assignment]
    with pytest.raises(TypeError, match="make it one that takes nothing and returns a mask"):
        make(env, "method", learning_starts=16).learn(16)


def test_faults_of_the_method_itself_are_told_as_they_are() -> None:
    env, nothing = Masked("method"), cast(Any, None)
    env.action_masks = lambda: nothing()
    with pytest.raises(TypeError, match=r"^'NoneType' object is not callable$"):
        make(env, "method", learning_starts=16).learn(16)


def test_a_directory_tells_of_masks_where_there_are_any(tmp_path: Path) -> None:
    """Those of older releases say nothing."""
    for form in ("method", "none", "observation"):
        model = make(Masked(form), form, learning_starts=16).learn(16)
        config = json.loads((zoo.save(model, tmp_path / form) / "config.json").read_text())
        assert config.get("env_has_masks") == (True if form == "method" else None)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("form", ["method", "none", "observation"])
def test_predict_does_not_warn_without_reason(form: str) -> None:
    env = Masked(form)
    model = make(env, form, learning_starts=16).learn(24)
    masks = legal_at(0) if form == "method" else None
    model.predict(env.observe(), action_masks=masks)
    model.plan(env.observe(), action_masks=masks)


# -- the package's own tools, which have the environment at hand -----------------------------------


class Pictured(Masked):
    """Draws frames, and counts the illegal actions of all of its kind."""

    all_illegal = 0

    def __init__(self, form: str = "method", render_mode: str | None = None) -> None:
        super().__init__(form)
        self.render_mode = render_mode

    def step(self, action: np.int64) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        Pictured.all_illegal += int(not legal_at(self.t)[action])
        return super().step(action)

    def render(self) -> Any:
        return np.full((16, 16, 3), 20 * self.t, np.uint8)


@pytest.fixture
def pictured() -> Iterator[str]:
    """The id of an environment."""
    gym.register("PicturedForTests-v0", Pictured)  # type: ignore[arg-type]
    Pictured.all_illegal = 0
    try:
        yield "PicturedForTests-v0"
    finally:
        gym.registry.pop("PicturedForTests-v0")


@pytest.mark.filterwarnings("error:this model learned")
def test_the_packages_evaluation_heeds_masks(pictured: str, tmp_path: Path) -> None:
    """An illegal action pays 5, and the model knows."""
    model = make(Masked("method"), "method", learning_starts=16).learn(16)
    loaded = zoo.load(zoo.save(model, tmp_path / "model"))
    for player in (model, loaded):
        for deterministic in (False, True):
            returns, _ = evaluate_returns(player, pictured, 12, 0, deterministic=deterministic)
            assert returns == [0] * 12
        assert measure(player, pictured, episodes=2)[0].mean == 0
        assert record(player, pictured, tmp_path / "x.gif", width=16) == "7 steps, return 0"
    changes = {"num_simulations": 2, "policy_kwargs": {"net_arch": [8]}}
    (run,) = make_plan(envs=[pictured], algos=["MuZero"], seeds=[0], steps=16, changes=changes)
    assert worker.measure(run).final.returns == [0] * 20
    assert Pictured.all_illegal == 0
    free = make(Masked("none"), "none", learning_starts=16).learn(16)
    evaluate_returns(free, pictured, 12, 0, preprocessing={"env_kwargs": {"form": "none"}})
    assert Pictured.all_illegal > 0


# -- stock tools, which know nothing of masks ------------------------------------------------------


@pytest.mark.parametrize("deterministic", [False, True])
@pytest.mark.parametrize("form", ["observation", "dict"])
def test_evaluate_policy_is_right_for_dicts(form: str, deterministic: bool) -> None:
    model = make(Masked(form), form, learning_starts=24).learn(80)
    env = Masked(form)
    for player in (model, model.policy):
        mean, _ = evaluate_policy(player, Monitor(env), 3, deterministic=deterministic)
        assert mean == 0  # an illegal action pays 5
    assert env.illegal == 0
    assert len(env.taken) >= 7


def test_eval_callback_is_right_for_dicts() -> None:
    env = Masked("observation")
    callback = EvalCallback(Monitor(env), n_eval_episodes=2, eval_freq=20, verbose=0)
    make(Masked("observation"), "observation", learning_starts=24).learn(80, callback=callback)
    assert callback.n_calls == 80
    assert env.taken
    assert env.illegal == 0


def test_an_environment_given_by_its_id() -> None:
    gym.register("MaskedForTests-v0", Masked, kwargs={"form": "observation"})  # type: ignore[arg-type]
    try:
        model = MuZero("MlpPolicy", "MaskedForTests-v0", policy_kwargs={"net_arch": [8]})
    finally:
        gym.registry.pop("MaskedForTests-v0")
    assert model.predict(model.observation_space.sample() | {"action_mask": legal_at(5)})[0] == 1


def test_multi_input_policy_takes_an_observation_and_its_mask() -> None:
    env = Masked("observation")
    model = MuZero(
        "MultiInputPolicy",
        env,
        num_simulations=2,
        batch_size=8,
        learning_starts=16,
        policy_kwargs={"net_arch": [8]},
    )
    assert model.learn(40)._n_updates > 0
    assert env.illegal == 0
