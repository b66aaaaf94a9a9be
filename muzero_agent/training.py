"""A run of `muzero-agent train`: what its directory says, and how it begins and goes on."""

from __future__ import annotations

import csv
import json
import re
import shlex
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, PositiveInt, ValidationError
from stable_baselines3.common.logger import configure
from stable_baselines3.common.vec_env import VecEnv

from muzero_agent import zoo
from muzero_agent.adapters.envs.names import runs_foreign_code
from muzero_agent.archive import sync
from muzero_agent.callbacks import ResumedProgressBar
from muzero_agent.categorical import check_same_mean
from muzero_agent.checkpoints import (
    SaveCheckpoints,
    latest_checkpoint,
    load_checkpoint,
    save_checkpoint,
)
from muzero_agent.commands import own_command
from muzero_agent.growth import grown
from muzero_agent.hyperparams import OWN_FILE, load_hyperparams, make_env
from muzero_agent.machine import LIBRARIES, machine, versions
from muzero_agent.muzero import MuZero
from muzero_agent.zoo.directory import TRAINED_BY, check_target, read_config
from muzero_agent.zoo.files import ModelFiles

CONFIG, CHECKPOINTS, LOGS, MODEL = "run.json", "checkpoints", "logs", "model"
OF_ENVIRONMENTS = {  # libraries, and the modules by which they are known to be in use
    "ale-py": "ale_py", "box2d": "Box2D", "chess": "chess", "minatar": "minatar",
    "pettingzoo": "pettingzoo",
}  # fmt: skip
# arguments of `hyperparams.make_env`
PREPROCESSING = ("frame_stack", "atari", "show_actions", "env_kwargs")


class _Config(BaseModel):
    """The schema of run.json, which may come with a model from elsewhere."""

    model_config = ConfigDict(strict=True, extra="forbid")

    env: str
    steps: PositiveInt
    seed: int
    n_envs: PositiveInt
    frame_stack: PositiveInt = 1
    atari: bool = False
    show_actions: bool = False
    env_kwargs: dict[str, bool | int | float] = {}
    set: list[str]
    hyperparams: str | None
    start_from: str | None = None
    machine: dict[str, str] = {}
    command: str


def new_run(
    env: str,
    steps: int | None,
    seed: int,
    settings: list[str],
    settings_file: Path | None,
    n_envs: int | None,
    start_from: Path | None = None,
) -> dict[str, Any]:
    """What run.json holds: all that it takes to begin again."""
    params = load_hyperparams(env, settings_file or OWN_FILE, parse_changes(settings))
    return {
        "env": env,
        "steps": params.n_timesteps if steps is None else steps,
        "seed": seed,
        "n_envs": params.n_envs if n_envs is None else n_envs,
        **{name: getattr(params, name) for name in PREPROCESSING},
        "env_kwargs": dict(params.env_kwargs),
        "set": settings,
        "hyperparams": None if settings_file is None else str(settings_file.resolve()),
        "start_from": None if start_from is None else str(start_from.resolve()),
        "machine": machine(),
        "command": own_command(),
    }


def read_run(out: Path, env: str) -> dict[str, Any]:
    """What run.json in `out` holds, a run of `env`."""
    if not (out / CONFIG).exists():
        raise ValueError(f"{out} holds no run to go on with: leave out --resume to begin one")
    run = _read(out / CONFIG)
    if run["env"] != env:
        raise ValueError(f"{out} is a run of {run['env']}, not of {env}")
    return run


def _read(config: Path) -> dict[str, Any]:
    try:
        return _Config.model_validate_json(config.read_text(encoding="utf-8")).model_dump()
    except ValueError as error:
        fault = str(error)
        if isinstance(error, ValidationError):
            first = error.errors()[0]
            fault = "".join(f"{name}: " for name in first["loc"]) + first["msg"]
        raise ValueError(
            f"{config} is not what `muzero-agent train` writes ({fault}): begin the run anew in "
            "another directory"
        ) from error


def parse_changes(settings: list[str]) -> dict[str, Any]:
    """Arguments of MuZero from KEY=VALUE."""
    changes = {}
    for text in settings:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"--set {text}: give KEY=VALUE")
        if key in ("seed", "device"):
            raise ValueError(f"--set {text}: give --{key} {value}")
        if key == "tensorboard_log":
            raise ValueError(f"--set {text}: give --tensorboard, which logs into the run's logs/")
        try:
            changes[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"--set {text}: the value is not valid YAML: {error}") from error
    return changes


def env_of(model: Path) -> str:
    """The environment's id, from the model's card or from the run that it lies in."""
    config = model.parent / CONFIG
    if (model / "card.json").exists():
        env = zoo.card(model).env
    elif config.exists():
        env = str(_read(config)["env"])
    else:
        raise ValueError(f"{model} does not say which environment it was trained on: give --env")
    if runs_foreign_code(env):
        raise ValueError(
            f"{model} was trained on {env!r}, and making that runs code of the module that it "
            f"names: if you trust it, give --env {env!r}"
        )
    return env


def preprocessing_of(model: Path, env: str) -> dict[str, Any]:
    """As in the run that the model lies in, else as its card tells, else as `train` would have it.

    :raises ValueError: if the card names wrappers that are not known here
    """
    config = model.parent / CONFIG
    if config.exists():
        run = _read(config)
        return {name: run[name] for name in PREPROCESSING}
    if (model / "card.json").exists():
        card = zoo.card(model)
        return _read_wrappers(card.wrappers) | {"env_kwargs": dict(card.env_kwargs)}
    params = load_hyperparams(env)
    return {name: getattr(params, name) for name in PREPROCESSING}


def _wrappers(atari: bool, show_actions: bool, frame_stack: int) -> list[str]:
    """As a card names them."""
    names = ["AtariWrapper"] * atari + ["ShowActions"] * (atari and show_actions)
    return names + [f"VecFrameStack({frame_stack})"] * (frame_stack > 1)


def _read_wrappers(names: list[str]) -> dict[str, Any]:
    """The arguments of `_wrappers` that gave these names."""
    stacks = [re.fullmatch(r"VecFrameStack\((\d{1,3})\)", name) for name in names]
    found: dict[str, Any] = {
        "atari": "AtariWrapper" in names,
        "show_actions": "ShowActions" in names,
        "frame_stack": next((int(stack[1]) for stack in stacks if stack), 1),
    }
    if _wrappers(**found) != names:
        raise ValueError(
            f"the model's card names the wrappers {names}, and known here are AtariWrapper and, "
            "around it, ShowActions, VecFrameStack(2) and more: measure the model in a script of "
            "your own"
        )
    return found


def train(
    run: dict[str, Any],
    out: Path,
    checkpoint_every: int | None,
    checkpoint_replay: bool,
    tensorboard: bool,
    progress: bool,
    device: str,
    say: Callable[[str], None],
) -> bool:
    """Learn what is left of the run's steps, with checkpoints on the way.

    :param out: directory of the run: run.json, checkpoints/, logs/ and in the end model/
    :param checkpoint_every: steps; None for a tenth of all
    :param say: prints a line
    :return: whether it came to its end; otherwise Ctrl-C interrupted it, after which it goes on
        from a checkpoint that was written then
    """
    for name in ("steps", "n_envs"):
        if run[name] < 1:
            raise ValueError(f"--{name.replace('_', '-')} {run[name]}: give at least 1")
    if tensorboard and find_spec("tensorboard") is None:
        raise ValueError("--tensorboard: it is not installed: pip install tensorboard")
    check_target(out / MODEL)  # now, not when all is learned
    preprocessing = {name: run[name] for name in PREPROCESSING}
    envs = make_env(run["env"], run["n_envs"], run["seed"], **preprocessing)
    checkpoint = latest_checkpoint(out / CHECKPOINTS)
    if checkpoint is None:
        if (out / CONFIG).exists():
            say(f"{out} has no checkpoint yet: it begins anew")
        model = _fresh_model(run, envs, device)
    else:
        model = load_checkpoint(checkpoint, envs, device)
    started = model.num_timesteps
    if started >= run["steps"]:
        if _holds(out / MODEL, started):
            raise ValueError(
                f"{out} has learned its {run['steps']:,} steps already: give more --steps, or "
                "another --out"
            )
        say(f"{out} has learned {started:,} steps: what is missing is its model")
        _save(model, run, out, say)  # it was killed before it could
        return True
    try:
        (out / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(f"--out {out} cannot be written: {error}: give another directory") from error
    fresh = out / f".{CONFIG}"
    fresh.write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    sync(fresh)
    fresh.replace(out / CONFIG)  # a run has all of it or none
    formats = ["csv", "tensorboard"] if tensorboard else ["csv"]
    if not progress:
        formats.append("stdout")
    model.set_logger(configure(str(_new_directory(out / LOGS / f"{started:012d}")), formats))
    say(f"{run['env']}: steps {started:,} to {run['steps']:,}, in {out}")
    every = max(1, run["steps"] // 10) if checkpoint_every is None else checkpoint_every
    interrupted = False
    failure: OSError | None = None
    try:
        save = SaveCheckpoints(out / CHECKPOINTS, every, replay=checkpoint_replay)
        model.learn(
            run["steps"] - started,
            callback=[save, ResumedProgressBar()] if progress else save,
            reset_num_timesteps=False,
        )
    except KeyboardInterrupt:
        interrupted = True
    except OSError as error:  # of the logs, where the disk is full, or of an environment
        failure = error
    try:
        save_checkpoint(model, out / CHECKPOINTS, replay=checkpoint_replay)
    except OSError as error:
        kept = _keep_model(model, out / MODEL)
        raise OSError(
            f"the checkpoint at step {model.num_timesteps:,} could not be written: {error}. "
            f"{kept}; older checkpoints are kept"
        ) from (failure or error)
    if failure is not None:
        raise OSError(
            f"learning stopped at step {model.num_timesteps:,}: {failure}. A checkpoint of that "
            f"step is in {out / CHECKPOINTS}; once the cause is mended, --resume goes on from there"
        ) from failure
    if interrupted:
        say(f"Interrupted at {model.num_timesteps:,} steps; --resume goes on from there")
        return False
    model.logger.close()
    _save(model, run, out, say)
    return True


def _keep_model(model: MuZero, path: Path) -> str:
    """Save what is much smaller than a checkpoint, and say whether it was possible."""
    try:
        zoo.save(model, path)
    except OSError as error:
        return f"Nor could the model: {error}. Make room for {path.parent}, and --resume"
    return f"The model is in {path}"


def _holds(directory: Path, steps: int) -> bool:
    """Is the model there that has learned so many steps?"""
    config = directory / "config.json"
    return config.exists() and read_config(ModelFiles(directory)).num_timesteps == steps


def _save(model: MuZero, run: dict[str, Any], out: Path, say: Callable[[str], None]) -> None:
    """Write what a run has learned."""
    zoo.save(model, out / MODEL, make_card(run, model.num_timesteps, _seconds(out / LOGS)))
    say(f"Done: {out / MODEL}. See how it plays: muzero-agent eval {out / MODEL}")


def make_card(run: dict[str, Any], steps: int, seconds: float) -> zoo.Card:
    """Where a model comes from; how good it is has not been measured.

    :param run: what run.json holds
    :param seconds: by the clock
    """
    facts = run["machine"]
    cores = f", {facts['cores']} cores, {facts['system']}" if facts else ""
    known = {name: facts[name] for name in LIBRARIES if facts.get(name)}
    known |= versions([name for name, module in OF_ENVIRONMENTS.items() if module in sys.modules])
    return zoo.Card(
        name=f"muzero-{run['env'].rpartition('/')[2]}",
        env=run["env"],
        env_kwargs=run["env_kwargs"],
        wrappers=_wrappers(run["atari"], run["show_actions"], run["frame_stack"]),
        training_steps=steps,
        training_seconds=seconds,
        seed=run["seed"],
        command=run["command"],
        commit=facts.get("commit") or None,
        hardware=f"{facts['processor']}{cores}" if facts else None,
        versions=known,
        evaluations=[],
    )


def _seconds(logs: Path) -> float:
    """Of learning, by the clock, over all parts of a run; what was lost by a crash counts."""
    total = 0.0
    for path in logs.glob("*/progress.csv"):
        with path.open(encoding="utf-8", newline="") as file:
            times = [row.get("time/time_elapsed") for row in csv.DictReader(file)]
        total += max((float(time) for time in times if time), default=0.0)
    return total


def _new_directory(path: Path) -> Path:
    """The path, or the path with a number behind it: logs of an earlier try are kept."""
    candidate, turn = path, 1
    while candidate.exists():
        turn += 1
        candidate = path.with_name(f"{path.name}-{turn}")
    return candidate


def _fresh_model(run: dict[str, Any], envs: VecEnv, device: str) -> MuZero:
    path = run["hyperparams"] or OWN_FILE
    params = load_hyperparams(run["env"], path, parse_changes(run["set"]))
    if (params.atari, params.show_actions) != (run["atari"], run["show_actions"]):
        raise ValueError(
            "the run was begun when its settings preprocessed observations otherwise, and has no "
            "checkpoint to go on from: begin it anew in another directory, without --resume"
        )
    kwargs = dict(params.kwargs)
    if run["start_from"] is not None:
        means = {"support_mean": support_mean(Path(run["start_from"]))}
        kwargs["policy_kwargs"] = means | (kwargs.get("policy_kwargs") or {})
    try:
        model = MuZero(params.policy, envs, seed=run["seed"], device=device, **kwargs)
    except (TypeError, AssertionError) as error:  # of torch and SB3
        given = " ".join(f"--set {shlex.quote(text)}" for text in run["set"]) or path
        raise ValueError(
            f"{given}: no model can be built with these settings: {error}; see `MuZero`, and "
            "`MuZeroPolicy` for what policy_kwargs takes"
        ) from error
    if run["start_from"] is not None:
        start_from(model, Path(run["start_from"]))
    return model


def support_mean(source: Path) -> str:
    """Of what the predictions of a model directory are means; who starts from its weights has to
    read them alike. See `categorical.Support`."""
    return zoo.load(source, device="cpu").policy.support_mean


def start_from(
    model: MuZero, source: Path, *, grow: bool = False, parts: tuple[str, ...] | None = None
) -> None:
    """Give a model the weights of a model directory.

    Layers that play no part in playing may differ, and stay as they are then: another loss may be
    added.

    :param grow: the model's network may be a larger one; see `growth`
    :param parts: of the network, such as "encoder", that are taken; all of them otherwise
    :raises ValueError: if its networks have other shapes than the model's, or if their predictions
        are read otherwise
    """
    policy = zoo.load(source, device=model.device).policy
    check_same_mean(policy.support_mean, model.policy.support_mean, source)
    known = policy.state_dict()
    own = model.policy.state_dict()
    if grow:
        known = grown(own, known)
    if parts is not None:
        part_of = {name: name.partition(".")[2].partition(".")[0] for name in known}
        known = own | {name: weights for name, weights in known.items() if part_of[name] in parts}
    spare = tuple(layer for layers in TRAINED_BY.values() for layer in layers)
    fresh = {
        name
        for name in own.keys() | known.keys()
        if (own[name].shape if name in own else None)
        != (known[name].shape if name in known else None)
    }
    other = sorted(name for name in fresh if not name.partition(".")[2].startswith(spare))
    if other:
        raise ValueError(
            f"{source}: its networks have other shapes than this run's "
            f"({other[0]}): give a model of an environment with the same spaces, and the settings "
            "that it was made with, see its config.json"
        )
    model.policy.load_state_dict(own | {n: x for n, x in known.items() if n not in fresh})
