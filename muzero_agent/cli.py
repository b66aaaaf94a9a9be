"""The command line: train, resume, evaluate and compare without a script.

    muzero-agent train CartPole-v1
    muzero-agent train LunarLander-v3 --steps 150000 --set num_simulations=32 --seed 1
    muzero-agent train LunarLander-v3 --resume
    muzero-agent train ALE/Pong-v5
    muzero-agent eval runs/CartPole-v1/model
    muzero-agent train connect_four
    muzero-agent eval runs/connect_four/model --against random,mcts-1000
    muzero-agent play connect_four runs/connect_four/model
    muzero-agent explain connect_four
    muzero-agent zoo list
    muzero-agent bench --suite quick

Libraries are imported inside the commands: `--help` waits for none of them.
"""

from __future__ import annotations

import json
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from muzero_agent.allocator import keep_freed_memory
from muzero_agent.cli_chess import chess_app
from muzero_agent.cli_common import (
    MODEL_HELP,
    MOST_SEED,
    Threads,
    check_device,
    find_path,
    listed,
    said_plainly,
)
from muzero_agent.cli_zoo import explain, zoo_app
from muzero_agent.commands import own_command

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="MuZero: train it and see how well it plays.",
)


app.add_typer(zoo_app, name="zoo")
app.add_typer(chess_app, name="chess")
app.command()(explain)


@app.command()
def train(
    env: Annotated[
        str,
        typer.Argument(
            help="id of a Gymnasium environment; a game: tictactoe, connect_four, chess, go_9x9, "
            "go_19x19; or the import path of one: pettingzoo.classic.connect_four_v3"
        ),
    ],
    steps: Annotated[
        int | None, typer.Option(help="environment steps in all; default: hyperparams.yml")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(file_okay=False, help="directory of the run; default: runs/ENV")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=MOST_SEED, help="of everything; default: 0")
    ] = None,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", help="KEY=VALUE, an argument of MuZero in YAML; may be repeated"),
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--hyperparams",
            exists=True,
            dir_okay=False,
            help="YAML file in place of the package's own",
        ),
    ] = None,
    n_envs: Annotated[int | None, typer.Option(help="environments searched as one batch")] = None,
    start_from: Annotated[
        str | None,
        typer.Option(
            help="model directory, or a name as in eval, whose weights to begin with, in place of "
            "random ones"
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="steps between checkpoints; default: a tenth of all steps")
    ] = None,
    checkpoint_replay: Annotated[bool, typer.Option(help="keep the replay in checkpoints")] = True,
    resume: Annotated[
        bool,
        typer.Option(
            help="go on from the newest checkpoint; of your own runs: it can run its author's code"
        ),
    ] = False,
    tensorboard: Annotated[bool, typer.Option(help="log for TensorBoard")] = False,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
    device: Annotated[str, typer.Option(help="of the networks: cpu, cuda, auto")] = "auto",
    threads: Threads = 1,
) -> None:
    """Train MuZero on an environment, with checkpoints on the way.

    Writes into the run's directory: checkpoints/, logs/ (CSV, and TensorBoard if wanted), and in
    the end model/, which is safe to share. Started again with --resume, a run that was interrupted
    goes on from its newest checkpoint.
    """
    with said_plainly():
        out = Path("runs") / env.replace("/", "-") if out is None else out
        if checkpoint_every is not None and checkpoint_every < 1:
            raise ValueError(f"--checkpoint-every {checkpoint_every}: give at least 1")
        import torch

        from muzero_agent import training

        torch.set_num_threads(threads)
        check_device(device)
        if resume:
            run = training.read_run(out, env)
            if steps is not None:
                run["steps"] = steps
            given = (setting, settings_file, start_from)
            if any(given) or n_envs is not None or seed is not None:
                raise ValueError(
                    "--resume goes on with the run's own settings: leave out --set, --hyperparams, "
                    "--start-from, --n-envs and --seed"
                )
        else:
            begin = None if start_from is None else find_path(start_from)
            run = training.new_run(
                env, steps, seed or 0, setting or [], settings_file, n_envs, begin
            )
            if (out / training.CONFIG).exists():
                raise ValueError(
                    f"{out} holds a run already: go on with --resume, or give another --out"
                )
        keep_freed_memory()
        done = training.train(
            run, out, checkpoint_every, checkpoint_replay, tensorboard, progress, device, typer.echo
        )
        if not done:
            raise typer.Exit(130)


@app.command(name="eval")
def evaluate(
    model: Annotated[
        str,
        typer.Argument(help=MODEL_HELP),
    ],
    env: Annotated[
        str | None, typer.Option(help="id of the environment; default: what it was trained on")
    ] = None,
    episodes: Annotated[int, typer.Option(help="to play; games come in pairs")] = 20,
    seed: Annotated[
        int,
        typer.Option(
            min=0,
            max=MOST_SEED,
            help="of the environment; of games, whose openings all opponents share",
        ),
    ] = 1,
    simulations: Annotated[int | None, typer.Option(help="per move; default: the model's")] = None,
    stochastic: Annotated[bool, typer.Option(help="search with noise")] = False,
    by_rules: Annotated[
        bool, typer.Option(help="of games: look ahead by the true rules, not the learned ones")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            help="of games, default: random; one-ply, alpha-beta-DEPTH, mcts-ROLLOUTS, and "
            "programs: in chess uci:stockfish, in Go 'gtp:gnugo --mode gtp --chinese-rules'"
        ),
    ] = None,
    move_time: Annotated[float, typer.Option(help="seconds a move of UCI engines")] = 0.1,
    option: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE, of UCI engines; may be repeated")
    ] = None,
    openings: Annotated[int, typer.Option(help="of games: random moves that they begin with")] = 2,
    trust: Annotated[
        bool, typer.Option(help="load a .zip, which can run its author's code")
    ] = False,
    write: Annotated[Path | None, typer.Option("--json", help="write the result there")] = None,
    threads: Threads = 1,
) -> None:
    """Play episodes and print the mean return; of a game, a table of matches."""
    with said_plainly():
        import numpy as np
        import torch

        from muzero_agent import zoo
        from muzero_agent.adapters.envs.names import find_game
        from muzero_agent.evaluation import evaluate_game, evaluate_returns, table
        from muzero_agent.training import env_of, preprocessing_of

        if episodes < 1:
            raise ValueError(f"--episodes {episodes}: give at least 1")
        if write is not None and (write.is_dir() or not os.access(write.parent, os.W_OK)):
            raise OSError(f"--json {write} cannot be written: give a file in another directory")
        torch.set_num_threads(threads)
        changes: dict[str, Any] = {} if simulations is None else {"num_simulations": simulations}
        path = find_path(model, trust)
        agent = zoo.load(path, trust=trust, **changes)
        if env is None:
            env = env_of(path)
        if (game := find_game(env)) is not None:
            results = evaluate_game(
                agent, game, listed(against or "random"), pairs=-(-episodes // 2),
                opening_moves=openings, seed=seed, deterministic=not stochastic,
                by_rules=by_rules, seconds=move_time, options=_options(option or []),
            )  # fmt: skip
            typer.echo(f"{env}, {agent.num_simulations} simulations a move, seed {seed}\n")
            typer.echo(table(results))
            if write is not None:
                matches = [result.summary() for result in results]
                found = {
                    "env": env,
                    "seed": seed,
                    "num_simulations": agent.num_simulations,
                    "opening_moves": openings,
                    "by_rules": by_rules,
                    "matches": matches,
                }
                write.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
            return
        for name, given in (("by-rules", by_rules), ("against", against), ("option", option)):
            if given:
                raise ValueError(f"--{name} is of games, and {env} is none: leave it out")
        returns, lengths = evaluate_returns(
            agent, env, episodes, seed, deterministic=not stochastic,
            preprocessing=preprocessing_of(path, env),
        )  # fmt: skip
        result = {
            "env": env,
            "episodes": episodes,
            "seed": seed,
            "num_simulations": agent.num_simulations,
            "mean": float(np.mean(returns)),
            "std": float(np.std(returns)),
            "returns": returns,
        }
        typer.echo(
            f"{env}: mean return {result['mean']:.1f} +- {result['std']:.1f} over {episodes} "
            f"episodes of {np.mean(lengths):.0f} steps, {agent.num_simulations} simulations a move"
        )
        if write is not None:
            write.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


@app.command()
def play(
    game: Annotated[str, typer.Argument(help="as in train: connect_four, ...")],
    model: Annotated[
        str,
        typer.Argument(help=MODEL_HELP),
    ],
    second: Annotated[bool, typer.Option(help="it moves first")] = False,
    tell: Annotated[bool, typer.Option(help="tell the search's opinion at each move")] = False,
    simulations: Annotated[int | None, typer.Option(help="per move; default: the model's")] = None,
    seed: Annotated[int | None, typer.Option(help="of the game")] = None,
    trust: Annotated[
        bool, typer.Option(help="load a .zip, which can run its author's code")
    ] = False,
) -> None:
    """Play a game against a model in the terminal."""
    with said_plainly():
        from muzero_agent import play as terminal
        from muzero_agent import zoo
        from muzero_agent.adapters.envs.names import GAMES, find_game
        from muzero_agent.adapters.envs.pettingzoo import as_game

        make_env = find_game(game)
        if make_env is None:
            raise ValueError(f"{game} is no game: give {', '.join(GAMES)}, or an import path")
        changes: dict[str, Any] = {} if simulations is None else {"num_simulations": simulations}
        agent = zoo.load(find_path(model, trust), trust=trust, **changes)
        env = as_game(make_env())
        if env.observation_space != agent.observation_space:
            raise ValueError(f"{model} was not trained on {game}: what it observes is different")
        terminal.play(
            agent, env, person_first=not second, always_tell=tell,
            ask=lambda text: typer.prompt(text, prompt_suffix=""), say=typer.echo, seed=seed,
        )  # fmt: skip


@app.command()
def bench(
    suite: Annotated[str, typer.Option(help="quick (minutes) or classic (hours)")] = "quick",
    envs: Annotated[str, typer.Option(help="instead of the suite's: A,B")] = "",
    algos: Annotated[str, typer.Option(help="likewise, of MuZero,PPO,DQN,A2C,QRDQN")] = "",
    seeds: Annotated[str, typer.Option(help="likewise: 0,1,2")] = "",
    steps: Annotated[int | None, typer.Option(help="of each run; default: as tuned")] = None,
    cap: Annotated[int | None, typer.Option(help="of tuned steps; default: the suite's")] = None,
    every: Annotated[
        int | None, typer.Option(help="steps between evaluations; default: a tenth of MuZero's")
    ] = None,
    episodes: Annotated[int, typer.Option(help="of an evaluation")] = 20,
    jobs: Annotated[
        int | None,
        typer.Option(help="runs at a time; default: as many as have cores to themselves"),
    ] = None,
    threads: Annotated[int, typer.Option(help="of each run: torch's")] = 1,
    out: Annotated[Path, typer.Option(file_okay=False, help="directory of the results")] = Path(
        "runs/bench"
    ),
    again: Annotated[bool, typer.Option(help="repeat what is finished")] = False,
    setting: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, of MuZero, as in train")
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option(
            "--hyperparams",
            exists=True,
            dir_okay=False,
            help="MuZero's, in place of the package's own",
        ),
    ] = None,
    baselines_file: Annotated[
        Path | None,
        typer.Option("--baselines", exists=True, dir_okay=False, help="the others', likewise"),
    ] = None,
    progress: Annotated[bool, typer.Option(help="show a progress bar")] = True,
) -> None:
    """Compare MuZero with algorithms of Stable-Baselines3, as rl_zoo3 tuned them.

    Writes CSV files, a table and learning curves. Runs that are finished are not repeated, so that
    the same command goes on with a benchmark that was interrupted.
    """
    with said_plainly():
        if find_spec("scipy") is None or find_spec("matplotlib") is None:
            raise ImportError(
                "bench needs more than is installed: pip install 'muzero-agent[baselines]'"
            )
        from muzero_agent.bench import agents, plan, runner
        from muzero_agent.hyperparams import OWN_FILE
        from muzero_agent.training import parse_changes

        runs = plan.make_plan(
            suite, listed(envs), listed(algos), _numbers(seeds), steps=steps, cap=cap,
            every=every, episodes=episodes, threads=threads, changes=parse_changes(setting or []),
            muzero_file=settings_file or OWN_FILE,
            baselines_file=baselines_file or agents.OWN_FILE,
        )  # fmt: skip
        if jobs is None:
            jobs = max(1, (os.cpu_count() or 1) // threads)
        try:
            failures = runner.bench(
                runs, out, jobs=jobs, again=again, progress=progress, command=own_command()
            )
        except KeyboardInterrupt:
            typer.echo("Interrupted; the same command goes on from there")
            raise typer.Exit(130) from None
        if failures:
            raise RuntimeError(f"{len(failures)} of {len(runs)} runs failed; see above")


def _options(texts: list[str]) -> dict[str, str]:
    """Options of an engine, which knows their types."""
    pairs = [text.partition("=") for text in texts]
    for name, equals, _ in pairs:
        if not equals:
            raise ValueError(f"--option {name}: give NAME=VALUE, as in 'Skill Level=0'")
    return {name.strip(): value.strip() for name, _, value in pairs}


def _numbers(text: str) -> list[int]:
    try:
        return [int(item) for item in listed(text)]
    except ValueError:
        raise ValueError(f"--seeds {text}: give whole numbers, as in 0,1,2") from None


def main() -> None:
    """Entry point of `muzero-agent`."""
    app()


if __name__ == "__main__":
    main()
