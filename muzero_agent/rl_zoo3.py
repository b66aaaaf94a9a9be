"""rl_zoo3 with MuZero in it.

    python -m muzero_agent.rl_zoo3 train --algo muzero --env CartPole-v1
    python -m muzero_agent.rl_zoo3 enjoy --algo muzero --env CartPole-v1 --no-render
    python -m muzero_agent.rl_zoo3 train --algo muzero --env CartPole-v1 -optimize --n-trials 50

Everything behind `train` and `enjoy` is rl_zoo3's own, with its own arguments. What is added: the
algorithm, under a name that rl_zoo3 has to know before it reads its arguments, what `-optimize`
tries, and this package's tuned settings, unless `-conf` names others. As everywhere in rl_zoo3,
load models that you trust.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

from muzero_agent.hyperparams import OWN_FILE
from muzero_agent.muzero import MuZero

NAME = "muzero"
SCRIPTS = ("train", "enjoy")


def main() -> None:
    """Run one of rl_zoo3's scripts with MuZero registered."""
    script, *arguments = sys.argv[1:] or [""]
    if script not in SCRIPTS:
        sys.exit(f"{script!r} is none of {', '.join(SCRIPTS)}\n{__doc__}")
    try:
        zoo = import_module("rl_zoo3")
        module = import_module(f"rl_zoo3.{script}")
        tuning = import_module("rl_zoo3.hyperparams_opt")
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install 'muzero-agent[rl-zoo]'")
    zoo.ALGOS[NAME] = MuZero
    tuning.HYPERPARAMS_SAMPLER[NAME] = sample
    tuning.HYPERPARAMS_CONVERTER[NAME] = dict  # what is sampled are arguments as they are
    if script == "train" and _algorithm(arguments) == NAME and not _has_conf(arguments):
        arguments += ["-conf", str(OWN_FILE)]
    sys.argv = [f"{sys.argv[0]} {script}", *arguments]
    getattr(module, script)()


def sample(
    trial: Any, n_actions: int, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """Arguments of `MuZero` for a trial of `-optimize`; the others are those of the file.

    Trials count by their returns alone, and more simulations, updates and reanalysis rarely harm
    but cost time: hence the limits.

    :param trial: of Optuna, which draws by what it found so far
    """
    return {
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-2, log=True),
        "batch_size": trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
        "gradient_steps": trial.suggest_int("gradient_steps", 1, 16, log=True),
        "num_simulations": trial.suggest_int("num_simulations", 4, 32, log=True),
        "unroll_steps": trial.suggest_int("unroll_steps", 3, 8),
        "td_lambda": trial.suggest_float("td_lambda", 0.9, 1.0),
        "reanalyse_ratio": trial.suggest_categorical("reanalyse_ratio", [1, 3, 7, 15, 31]),
        "exploration_rate": trial.suggest_float("exploration_rate", 0.0, 0.2),
    }


def _algorithm(arguments: list[str]) -> str | None:
    for i, argument in enumerate(arguments):
        if argument == "--algo" and i + 1 < len(arguments):
            return arguments[i + 1]
        if argument.startswith("--algo="):
            return argument.removeprefix("--algo=")
    return None


def _has_conf(arguments: list[str]) -> bool:
    return any(a.split("=")[0] in ("-conf", "--conf-file") for a in arguments)


if __name__ == "__main__":
    main()
