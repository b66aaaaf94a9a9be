"""Model directories: whole, strict, and safe to share."""

from __future__ import annotations

import hashlib
import json
import math
import os
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from pettingzoo.classic import connect_four_v3
from safetensors.torch import load_file, save_file
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.torch_layers import FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from muzero_agent import MuZero, zoo
from muzero_agent.adapters.envs.pettingzoo import as_turn_based
from muzero_agent.networks import RunningNorm
from muzero_agent.policies import MlpPolicy
from muzero_agent.zoo.cards import build_space, describe_space

from .files import rewrite, seal

FLAT = spaces.Box(np.array([-1, -np.inf], np.float32), np.array([1, np.inf], np.float32))
BOARD = spaces.Box(0, 1, (2, 3, 3), np.float32)


class Blank(gym.Env[Any, Any]):
    """Shows elements of a space; episodes of five steps."""

    def __init__(self, observed: spaces.Space[Any], actions: spaces.Space[Any]) -> None:
        self.observation_space, self.action_space = observed, actions
        self.observation_space.seed(0)
        self.t = 0

    def _observe(self) -> Any:
        observed = self.observation_space.sample()
        if isinstance(observed, dict) and "action_mask" in observed:
            observed["action_mask"][:] = 1
        return observed

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self._observe(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self._observe(), 1.0, self.t == 5, False, {}


CASES: dict[str, tuple[str, spaces.Space[Any], spaces.Space[Any], dict[str, Any]]] = {
    "box": ("MlpPolicy", FLAT, spaces.Discrete(3), {"policy_kwargs": {"net_arch": [16]}}),
    "discrete": ("MlpPolicy", spaces.Discrete(4), spaces.MultiDiscrete([2, 3]), {}),
    "binary": ("MlpPolicy", spaces.MultiBinary(4), spaces.MultiBinary(2), {"search": "puct"}),
    "several": (
        "MlpPolicy",
        spaces.MultiDiscrete([2, 3]),
        spaces.Discrete(2),
        {
            "regret_tolerance": math.inf,
            "learning_rate": 1e-4,
            "train_freq": (1, "episode"),
            "policy_kwargs": {
                "net_arch": {"representation": [8], "dynamics": [8, 8], "prediction": [8]},
                "activation_fn": nn.SiLU,
                "features_extractor_class": FlattenExtractor,
                "optimizer_kwargs": {"eps": 1e-5},
            },
        },
    ),
    "board": (
        "CnnPolicy",
        BOARD,
        spaces.Discrete(9),
        {"policy_kwargs": {"net_arch": {"channels": 8, "num_blocks": 1, "head_width": 8}}},
    ),
    "masked": (
        "CnnPolicy",
        spaces.Dict({"observation": BOARD, "action_mask": spaces.MultiBinary(9)}),
        spaces.Discrete(9),
        {"policy_kwargs": {"net_arch": {"channels": 8, "num_blocks": 1, "head_width": 8}}},
    ),
    "pixels": (
        "CnnPolicy",
        spaces.Box(0, 255, (3, 36, 36), np.uint8),
        spaces.Discrete(2),
        {"policy_kwargs": {"features_extractor_class": NatureCNN, "net_arch": [16]}},
    ),
    "dict": (
        "MultiInputPolicy",
        spaces.Dict({"where": FLAT, "what": spaces.Discrete(3)}),
        spaces.Discrete(2),
        {},
    ),
}


def make(policy: str = "MlpPolicy", env: Any = "CartPole-v1", **settings: Any) -> MuZero:
    small = {"learning_starts": 10, "batch_size": 8, "num_simulations": 4, "seed": 0}
    return MuZero(policy, env, **(small | settings)).learn(30)


@pytest.fixture(scope="module")
def model() -> MuZero:
    return make()


@pytest.fixture
def saved(model: MuZero, tmp_path: Path) -> Path:
    return zoo.save(model, tmp_path / "model")


@pytest.mark.parametrize("case", CASES)
def test_what_is_loaded_thinks_like_what_was_saved(case: str, tmp_path: Path) -> None:
    policy, observed, actions, settings = CASES[case]
    env = Blank(observed, actions)
    model = make(policy, env, **settings)
    directory = zoo.save(model, tmp_path / "deep" / "model")
    loaded = zoo.load(directory)
    assert loaded.observation_space == model.observation_space
    assert loaded.action_space == model.action_space
    assert loaded.num_timesteps == model.num_timesteps
    for _ in range(3):
        obs = env._observe()
        for ours, theirs in zip(loaded.plan(obs), model.plan(obs), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    for name in ("search", "regret_tolerance", "td_steps", "gamma", "train_freq"):
        assert getattr(loaded, name) == getattr(model, name)
    evaluate_policy(loaded, env, n_eval_episodes=1, warn=False)
    evaluate_policy(loaded.policy, env, n_eval_episodes=1, warn=False)


def test_a_directory_holds_tensors_and_json_alone(saved: Path) -> None:
    names = ["config.json", "manifest.json", "model.safetensors"]
    assert sorted(path.name for path in saved.iterdir()) == names
    config = json.loads((saved / "config.json").read_text())
    assert config["format_version"] == 2
    manifest = json.loads((saved / "manifest.json").read_text())
    assert manifest["files"].keys() == {"config.json", "model.safetensors"}
    for name, entry in manifest["files"].items():
        content = (saved / name).read_bytes()
        assert entry == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    content = (saved / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert set(header) - {"__metadata__"}


def test_learning_goes_on_from_a_loaded_model(saved: Path) -> None:
    alone = zoo.load(saved, env="CartPole-v1", learning_starts=0).learn(20)
    several = zoo.load(saved, env=make_vec_env("CartPole-v1", 3)).learn(30)
    assert (alone.n_envs, several.n_envs) == (1, 3)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        zoo.load(saved, env="Acrobot-v1")


def test_arguments_can_be_changed_while_loading(saved: Path) -> None:
    assert zoo.load(saved, num_simulations=9).num_simulations == 9
    with pytest.raises(TypeError, match=r"knows no 'simulations'"):
        zoo.load(saved, simulations=9)
    with pytest.raises(ValueError, match="num_simulations=0"):
        zoo.load(saved, num_simulations=0)


def test_half_precision_is_half_as_large_and_nearly_the_same(model: MuZero, tmp_path: Path) -> None:
    whole, half = (zoo.save(model, tmp_path / d, dtype=d) for d in ("float32", "float16"))
    sizes = [(path / "model.safetensors").stat().st_size for path in (whole, half)]
    assert sizes[1] < 0.6 * sizes[0]
    obs = np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)
    np.testing.assert_allclose(zoo.load(half).plan(obs).prior, model.plan(obs).prior, atol=2e-3)
    with pytest.raises(ValueError, match="float32"):
        zoo.save(model, tmp_path / "x", dtype="int8")


@pytest.mark.parametrize("name", CASES)
def test_spaces_of_models_survive(name: str) -> None:
    for space in CASES[name][1:3]:
        spec = describe_space(space)
        assert build_space(type(spec).model_validate_json(spec.model_dump_json())) == space


@pytest.mark.parametrize(
    "space",
    [
        spaces.MultiDiscrete([2, 3], dtype=np.int32),
        spaces.Box(np.iinfo(np.int64).min, np.iinfo(np.int64).max, (2,), np.int64),
        spaces.Box(0, 255, (2, 2), np.uint8),
        spaces.Box(0, 1, (2, 2), np.dtype(np.bool_)),  # type: ignore[arg-type]
        spaces.Box(-np.inf, np.array([1.5, np.inf], np.float64), (2,), np.float64),
    ],
    ids=str,
)
def test_spaces_with_edges_survive(space: spaces.Space[Any]) -> None:
    spec = describe_space(space)
    restored = build_space(type(spec).model_validate_json(spec.model_dump_json()))
    assert restored == space
    assert restored.dtype == space.dtype


def test_cards(model: MuZero, tmp_path: Path) -> None:
    card = zoo.Card(
        name="muzero-CartPole-v1",
        env="CartPole-v1",
        training_steps=30,
        training_seconds=0.5,
        seed=0,
        command="python train.py",
        versions={"torch": "2"},
        evaluations=[
            zoo.Evaluation(
                metric="mean return", mean=9.5, std=0.5, episodes=20, seed=1, num_simulations=4
            )
        ],
    )
    directory = zoo.save(model, tmp_path / "model", card)
    assert zoo.card(directory) == card
    zoo.load(directory)
    zoo.save(model, directory)  # the new model's card is not the old one's
    with pytest.raises(FileNotFoundError, match=r"has no card\.json"):
        zoo.card(directory)


# -- what comes from somebody else -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda c: c.update(extra=1), "extra"),
        (lambda c: c.pop("policy"), "policy"),
        (lambda c: c.update(policy="os.system"), "policy"),
        (lambda c: c.update(format_version=3), "install a newer release"),
        (lambda c: c.update(format_version=1), "version 1 has `sha256`"),
        (lambda c: c.update(format_version=1, sha256="0" * 64), "which has no manifest"),
        (lambda c: c.update(format_version="2"), "install a newer release"),
        (lambda c: c["arguments"].update(exec="1"), r"knows no \['exec'\]"),
        (lambda c: c["arguments"].update(tensorboard_log="/tmp"), "tensorboard_log"),
        (lambda c: c["arguments"].update(device="meta"), "device"),
        (lambda c: c["arguments"].update(seed=7), "seed"),
        (lambda c: c["arguments"].update(num_simulations=10**8), "100,000"),
        (lambda c: c["arguments"].update(buffer_size=10**30), "buffer_size"),
        (lambda c: c["arguments"].update(gamma=10**400), "gamma"),
        (lambda c: c["arguments"].update(gamma=math.nan), "gamma"),
        (lambda c: c["policy_kwargs"].update(optimizer_class="SGD"), "optimizer_class"),
        (lambda c: c["policy_kwargs"].update(net_arch=[1] * 4000), "net_arch"),
        (lambda c: c.update(dtype="float16"), "different models"),
        (lambda c: c["arguments"].update(batch_size="many"), "batch_size"),
        (lambda c: c["arguments"].update(gamma={"a": 1}), "arguments.gamma"),
        (lambda c: c["policy_kwargs"].update(activation_fn="os.system"), "none of"),
        (lambda c: c["policy_kwargs"].update(features_extractor_class="Evil"), "none of"),
        (lambda c: c["policy_kwargs"].update(net_arch=[3]), "different models"),
        (lambda c: c["policy_kwargs"].update(net_arch=[-3]), "net_arch"),
        (lambda c: c["observation_space"].update(type="Pickle"), "observation_space"),
        (lambda c: c["observation_space"].update(dtype="object"), "dtype"),
        (lambda c: c["observation_space"].update(low=[0.0, 1.0]), "bound"),
        (lambda c: c["observation_space"].update(shape=[1 << 40], low=0.0, high=1.0), "entries"),
        (lambda c: c["observation_space"].update(shape=[3], low=0.0, high=1.0), "different models"),
        (
            lambda c: c.update(
                observation_space={
                    "type": "Dict",
                    "spaces": {str(i): {"type": "Discrete", "n": 2} for i in range(10_001)},
                }
            ),
            "entries",
        ),
        (lambda c: c.update(action_space={"type": "MultiBinary", "n": 10**7}), "action space"),
        (lambda c: c["action_space"].update(n=1 << 40), "action_space"),
        (lambda c: c["action_space"].update(n=100_000), "action space"),
        (lambda c: c["policy_kwargs"].update(net_arch=[1 << 18, 1 << 18]), "different models"),
        (lambda c: c.update(sha256="0" * 64), "a manifest in its place"),
        (lambda c: c.update(sha256="../../etc/passwd"), "sha256"),
    ],
)
def test_a_config_that_is_wrong_is_refused(saved: Path, change: Any, complaint: str) -> None:
    rewrite(saved / "config.json", change)
    with pytest.raises(ValueError, match=complaint):
        zoo.load(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000, b"null"])
def test_what_is_no_json_is_refused(saved: Path, content: bytes) -> None:
    (saved / "config.json").write_bytes(content)
    seal(saved)
    with pytest.raises(ValueError, match=r"config\.json"):
        zoo.load(saved)


def test_weights_that_are_damaged_are_refused(saved: Path) -> None:
    weights = saved / "model.safetensors"
    sound = weights.read_bytes()
    for content in (sound[:-1], sound[:100], b"", sound[:-1] + bytes([sound[-1] ^ 1])):
        weights.write_bytes(content)
        with pytest.raises(zoo.DamagedModelError, match="it is damaged"):
            zoo.load(saved)
    weights.write_bytes(b"PK" + sound)
    seal(saved)
    with pytest.raises(ValueError, match="no safetensors file"):
        zoo.load(saved)


def test_what_is_missing_is_named(tmp_path: Path, saved: Path) -> None:
    with pytest.raises(zoo.ModelNotFoundError, match=r"nowhere' does not exist"):
        zoo.load(tmp_path / "nowhere")
    with pytest.raises(zoo.ModelNotFoundError, match=r"has no config\.json"):
        zoo.load(tmp_path)
    (saved / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"has no model\.safetensors"):
        zoo.load(saved)


def test_what_is_too_large_is_not_read(saved: Path) -> None:
    """Neither what is larger than any, nor what is larger than its manifest says."""
    with (saved / "config.json").open("ab") as file:
        file.truncate(2 << 20)
    with pytest.raises(ValueError, match=r"has 2,097,152 bytes in place of"):
        zoo.load(saved)
    seal(saved)
    with pytest.raises(ValueError, match="larger than"):
        zoo.load(saved)


# -- what cannot be saved --------------------------------------------------------------------------


class Custom(MlpPolicy):
    """Somebody's own."""


class OwnExtractor(FlattenExtractor):
    """Somebody's own, too."""


def test_what_others_could_not_load_is_not_saved(tmp_path: Path) -> None:
    custom: Any = Custom
    with pytest.raises(ValueError, match=r"Custom.*`MuZero\.save`"):
        zoo.save(make(custom), tmp_path / "a")
    own = {"features_extractor_class": OwnExtractor}
    with pytest.raises(ValueError, match=r"OwnExtractor.*`MuZero\.save`"):
        zoo.save(make(policy_kwargs=own), tmp_path / "b")
    normalised = VecNormalize(make_vec_env("CartPole-v1"), norm_reward=False)
    with pytest.raises(ValueError, match=r"VecNormalize\.save"):
        zoo.save(make(env=normalised), tmp_path / "c")
    assert list(tmp_path.iterdir()) == []


def test_other_files_are_left_alone(model: MuZero, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architectures": ["Llama"]}')
    (tmp_path / "other" / "model.safetensors").write_bytes(b"another's weights")
    (tmp_path / ".model.old").mkdir()
    before = sorted(tmp_path.rglob("*"))
    for taken in (tmp_path, tmp_path / "other", tmp_path / "thesis.tex"):
        with pytest.raises(FileExistsError, match="not a model directory"):
            zoo.save(model, taken)
    assert sorted(tmp_path.rglob("*")) == before
    directory = zoo.save(model, tmp_path / "model")
    zoo.save(model, directory)
    assert sorted(set(tmp_path.rglob("*")) - set(directory.rglob("*")) - {directory}) == before


def test_a_link_stays_a_link(model: MuZero, saved: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(saved)
    zoo.save(model, tmp_path / "link", dtype="float16")
    assert (tmp_path / "link").is_symlink()
    assert json.loads((saved / "config.json").read_text())["dtype"] == "float16"


def test_a_save_that_fails_at_the_last_step_puts_the_old_model_back(
    saved: Path, model: MuZero, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if path.name == "new":
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        zoo.save(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


def test_saving_draws_nothing_from_the_global_generator(model: MuZero, tmp_path: Path) -> None:
    torch.manual_seed(0)
    zoo.save(model, tmp_path / "model")
    drawn = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(drawn, torch.rand(1))


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -1.0, [1.0, 2.0]])
def test_the_values_error_has_to_be_one(saved: Path, value: Any) -> None:
    weights = saved / "model.safetensors"
    tensors = load_file(weights)
    del tensors["value_error"]
    if value is not None:
        tensors["value_error"] = torch.tensor(value)
    save_file(tensors, weights)
    seal(saved)
    with pytest.raises(ValueError, match=r"value_error|different models"):
        zoo.load(saved)


def test_half_precision_leaves_statistics_alone(tmp_path: Path) -> None:
    model = make()
    norm = model.policy.target_network.running_norm
    assert isinstance(norm, RunningNorm)
    norm.count.fill_(1e6)
    norm.mean.fill_(1000.3)
    norm.var.fill_(1e-9)
    loaded = zoo.load(zoo.save(model, tmp_path / "model", dtype="float16"))
    restored = loaded.policy.target_network.running_norm
    assert isinstance(restored, RunningNorm)
    assert [float(x) for x in (restored.count, restored.mean[0])] == [1e6, float(norm.mean[0])]
    assert torch.equal(restored.var, norm.var)


def test_a_failure_leaves_the_old_model(
    saved: Path, model: MuZero, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in saved.iterdir()}

    def full(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        zoo.save(model, saved)
    assert {path.name: path.read_bytes() for path in saved.iterdir()} == before
    assert [path.name for path in saved.parent.iterdir()] == [saved.name]


@pytest.mark.parametrize(
    ("loss", "layers"),
    [("consistency_coef", {"projector", "predictor"}), ("reconstruction_coef", {"decoder"})],
)
def test_what_only_one_loss_needs_is_left_out_without_it(
    loss: str, layers: set[str], tmp_path: Path
) -> None:
    small: dict[str, Any] = {
        "policy_kwargs": {"net_arch": {"channels": 4, "head_width": 8}},
        "reanalyse_ratio": 1,
        "batch_size": 8,
        "seed": 0,
    }
    held = []
    for coef in (1.0, 0.0):
        model = MuZero("CnnPolicy", connect_four_v3.env, **(small | {loss: coef}))
        zoo.save(model, tmp_path / str(coef))
        tensors = load_file(tmp_path / str(coef) / "model.safetensors")
        held.append({name.partition(".")[0] for name in tensors})
        loaded = zoo.load(tmp_path / str(coef), env=as_turn_based(connect_four_v3.env))
        obs = {"observation": np.ones((6, 7, 2), np.int8), "action_mask": np.ones(7, np.int8)}
        assert (loaded.plan(obs).q_values == model.plan(obs).q_values).all()
        loaded.learning_starts = 20
        setattr(loaded, loss, 1.0)
        loaded.learn(60)  # with fresh layers
    assert held[0] - held[1] == layers
