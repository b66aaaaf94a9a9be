"""rl_zoo3 with MuZero in it.

    python -m muzero_agent.rl_zoo3 train --algo muzero --env CartPole-v1
    python -m muzero_agent.rl_zoo3 enjoy --algo muzero --env CartPole-v1 --no-render

Everything behind `train` and `enjoy` is rl_zoo3's own, with its own arguments. What is added: the
algorithm, under a name that rl_zoo3 has to know before it reads its arguments, and this package's
tuned settings, unless `-conf` names others. As everywhere in rl_zoo3, load models that you trust.
"""

from __future__ import annotations

import sys
from importlib import import_module

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
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed: pip install 'muzero-agent[rl-zoo]'")
    zoo.ALGOS[NAME] = MuZero
    if script == "train" and _algorithm(arguments) == NAME and not _has_conf(arguments):
        arguments += ["-conf", str(OWN_FILE)]
    sys.argv = [f"{sys.argv[0]} {script}", *arguments]
    getattr(module, script)()


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
