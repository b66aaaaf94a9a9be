"""The command line of the zoo: list, show, check, measure, copy, share and picture models.

muzero-agent zoo list
muzero-agent zoo eval connect_four
muzero-agent zoo gif cartpole
muzero-agent zoo pack runs/CartPole-v1/model zoo/models/cartpole --episodes 100
muzero-agent explain connect_four
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from muzero_agent.cli_common import Threads, find_path, listed, said_plainly

if TYPE_CHECKING:
    from rich.table import Table

    from muzero_agent.zoo.cards import Evaluation

zoo_app = typer.Typer(no_args_is_help=True, help="Pretrained models, and your own to share.")

NOT_MEASURED = (
    "the card tells no result: `muzero-agent zoo pack MODEL DIRECTORY` measures, and writes it down"
)

Name = Annotated[
    str, typer.Argument(help="model of the package, model directory, or org/repo@COMMIT on the hub")
]


@zoo_app.command(name="list")
def list_models() -> None:
    """The models that come with the package."""
    with said_plainly():
        from muzero_agent import zoo

        table = _table("name", "environment", "result", ("MB", "right"), "licence")
        for entry in zoo.available():
            result = "\n".join(map(_headline, entry.evaluations)) or "not measured"
            size = f"{entry.num_bytes / 1e6:.1f}"
            table.add_row(entry.name, entry.env, result, size, entry.licence)
        _print(table)


@zoo_app.command()
def show(name: Name) -> None:
    """What a model says of itself: how good it is, and where it comes from."""
    with said_plainly():
        from muzero_agent import zoo
        from muzero_agent.zoo.readme import metric, origin

        card = zoo.card(name)
        about = _table("", "", title=card.name, header=False)
        for key, value in origin(card).items():
            about.add_row(key, value.replace("`", ""))
        _print(about)
        results = _table(
            "measured", ("mean", "right"), ("95% interval", "right"), ("episodes", "right"),
            "against", ("simulations", "right"),
        )  # fmt: skip
        for e in card.evaluations:
            low, high = e.bounds()
            results.add_row(
                metric(e), f"{e.mean:.4g}", f"{low:.4g} to {high:.4g}", str(e.episodes),
                e.opponent or "", str(e.num_simulations),
            )  # fmt: skip
        if card.evaluations:
            _print(results)
        else:
            typer.echo(NOT_MEASURED)
        if card.notes:
            typer.echo(card.notes)


@zoo_app.command()
def verify(
    names: Annotated[list[str] | None, typer.Argument(help="default: all bundled")] = None,
) -> None:
    """Read all files of models, compare them with their manifests, and build the models."""
    with said_plainly():
        from muzero_agent import zoo
        from muzero_agent.zoo.bundled import bundled

        for name in names or bundled():
            for file in zoo.verify(name):
                typer.echo(f"{name}: {file.name}, {file.num_bytes:,} bytes, sha256 {file.sha256}")


@zoo_app.command(name="eval")
def evaluate(
    name: Name,
    episodes: Annotated[
        int | None, typer.Option(help="of each evaluation; default: as many as the card tells of")
    ] = None,
    threads: Threads = 1,
) -> None:
    """Measure once more what a model's card tells; the exit code is 1 if it does not hold."""
    with said_plainly():
        import torch

        from muzero_agent import zoo
        from muzero_agent.evaluation import agrees, measure_again
        from muzero_agent.training import env_of, preprocessing_of
        from muzero_agent.zoo.readme import metric

        if episodes is not None and episodes < 1:
            raise ValueError(f"--episodes {episodes}: give at least 1")
        torch.set_num_threads(threads)
        path = find_path(name)
        card, model = zoo.card(path), zoo.load(path)
        if not card.evaluations:
            raise ValueError(NOT_MEASURED)
        preprocessing = preprocessing_of(path, env_of(path))
        wrong = 0
        table = _table(
            "measured", "against", ("told", "right"), ("95% interval", "right"), ("now", "right"),
            ("episodes", "right"), "",
        )  # fmt: skip
        for told in card.evaluations:
            low, high = told.bounds()
            row = [metric(told), told.opponent or "", f"{told.mean:.4g}"]
            row.append(f"{low:.4g} to {high:.4g}")
            found = measure_again(model, card, told, episodes, preprocessing)
            if found is None:
                table.add_row(*row, "", "", "another program measures it")
                continue
            holds = agrees(told, found)
            wrong += not holds
            verdict = "holds" if holds else "DOES NOT HOLD"
            table.add_row(*row, f"{found.mean:.4g}", str(found.episodes), verdict)
        _print(table)
        if wrong:
            raise typer.Exit(1)


@zoo_app.command()
def export(
    name: Name,
    directory: Annotated[Path, typer.Argument(help="new, empty, or a model's")],
) -> None:
    """Copy a model into a directory of its own, in the newest format."""
    with said_plainly():
        from muzero_agent import zoo

        typer.echo(zoo.export(name, directory))


@zoo_app.command()
def pack(
    model: Annotated[Path, typer.Argument(help="model directory of a run of `train`")],
    directory: Annotated[Path, typer.Argument(help="new, empty, or a model's")],
    episodes: Annotated[int, typer.Option(help="of each evaluation")] = 100,
    seed: Annotated[int, typer.Option(help="of the evaluation")] = 1000,
    simulations: Annotated[int | None, typer.Option(help="per move; default: the model's")] = None,
    against: Annotated[str, typer.Option(help="of games: opponents, as in eval")] = "random",
    by_rules: Annotated[
        bool, typer.Option(help="of games: measure the search by the rules, too")
    ] = False,
    dtype: Annotated[str, typer.Option(help="of the weights: float32 or float16")] = "float16",
    notes: Annotated[str, typer.Option(help="for the card; default: those it has")] = "",
    licence: Annotated[str, typer.Option(help="of the model; default: what the card says")] = "",
    threads: Threads = 1,
) -> None:
    """Make a zoo's model of a trained one: measure it as it will be stored, and write its card."""
    with said_plainly():
        import tempfile

        import torch

        from muzero_agent import zoo
        from muzero_agent.evaluation import measure
        from muzero_agent.training import env_of, preprocessing_of

        if episodes < 2:
            raise ValueError(f"--episodes {episodes}: give at least 2")
        torch.set_num_threads(threads)
        card = zoo.card(model)
        env = env_of(model)
        preprocessing = preprocessing_of(model, env)
        with tempfile.TemporaryDirectory() as folder:
            stored = zoo.export(
                model, Path(folder) / "model", dtype=dtype, num_simulations=simulations
            )
            agent = zoo.load(stored)
            found = [
                evaluation
                for rules in ([True, False] if by_rules else [False])
                for evaluation in measure(
                    agent, env, against=listed(against), episodes=episodes, seed=seed,
                    by_rules=rules, preprocessing=preprocessing,
                )
            ]  # fmt: skip
            card = card.model_copy(
                update={
                    "evaluations": found,
                    "notes": notes or card.notes,
                    "licence": licence or card.licence,
                    "name": f"muzero-{directory.name}",
                }
            )
            zoo.export(stored, directory, card=card)
        for evaluation in found:
            typer.echo(in_short(evaluation))
        typer.echo(directory)


@zoo_app.command()
def push(
    name: Name,
    repo: Annotated[str, typer.Argument(help="org/name on the hub; made if it does not exist")],
    private: Annotated[bool, typer.Option(help="if it is made")] = False,
    message: Annotated[str, typer.Option(help="of the commit")] = "Upload a model of muzero-agent",
) -> None:
    """Share a model on the Hugging Face Hub, where you are logged in by `hf auth login`."""
    with said_plainly():
        from muzero_agent import zoo

        commit = zoo.push(name, repo, private=private, message=message)
        typer.echo(f"zoo.load({repo!r}, revision={commit!r})")


@zoo_app.command()
def gif(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="default: NAME.gif")] = None,
    seed: Annotated[int, typer.Option(help="of the environment; of a game's first moves")] = 0,
    simulations: Annotated[int | None, typer.Option(help="per move; default: the model's")] = None,
    most_steps: Annotated[int, typer.Option(help="of the episode")] = 1000,
    openings: Annotated[int, typer.Option(help="of games: random moves that it begins with")] = 0,
    width: Annotated[int, typer.Option(help="in pixels")] = 360,
) -> None:
    """Draw an episode of a model; of a game, one against itself."""
    with said_plainly():
        import torch

        from muzero_agent import zoo
        from muzero_agent.render import record
        from muzero_agent.training import env_of, preprocessing_of

        torch.set_num_threads(1)
        path = find_path(name)
        changes: dict[str, Any] = {} if simulations is None else {"num_simulations": simulations}
        env = env_of(path)
        target = Path(f"{Path(name).name.partition('@')[0]}.gif") if out is None else out
        if target.suffix != ".gif":
            raise ValueError(f"--out {target}: give a file that ends in .gif")
        episode = record(
            zoo.load(path, **changes), env, target, seed=seed, most_steps=most_steps,
            opening_moves=openings, width=width, preprocessing=preprocessing_of(path, env),
        )  # fmt: skip
        typer.echo(f"{target}: {episode}")


def explain(
    name: Name,
    env: Annotated[
        str | None, typer.Option(help="id of the game; default: what it was trained on")
    ] = None,
    moves: Annotated[
        str, typer.Option(help="that lead to the position, in the game's notation: '3 3 2'")
    ] = "",
    fen: Annotated[str | None, typer.Option(help="position of chess, in place of moves")] = None,
    out: Annotated[Path | None, typer.Option(help=".png or .svg; default: NAME.png")] = None,
    simulations: Annotated[int | None, typer.Option(help="default: the model's")] = None,
    by_rules: Annotated[bool, typer.Option(help="look ahead by the true rules")] = False,
    seed: Annotated[int, typer.Option(help="of the game")] = 0,
) -> None:
    """Draw what the search thinks of a game's position: visits and values over the board."""
    with said_plainly():
        import torch

        from muzero_agent import zoo
        from muzero_agent.explaining import explain_position
        from muzero_agent.training import env_of

        torch.set_num_threads(1)
        path = find_path(name)
        changes: dict[str, Any] = {} if simulations is None else {"num_simulations": simulations}
        target = Path(f"{Path(name).name.partition('@')[0]}.png") if out is None else out
        opinion = explain_position(
            zoo.load(path, **changes), env or env_of(path), target, moves=moves.split(), fen=fen,
            by_rules=by_rules, seed=seed,
        )  # fmt: skip
        typer.echo(opinion)
        typer.echo(f"\n{target}")


def _headline(e: Evaluation) -> str:
    by = " by the rules" * e.by_rules
    if e.metric.startswith("points of a game"):
        return f"{100 * e.mean:.1f}% against {e.opponent}{by}, {e.num_simulations} simulations"
    return f"{e.metric} {e.mean:.4g}"


def in_short(e: Evaluation) -> str:
    """A result in words, with its interval."""
    low, high = e.bounds()
    by = " by the rules" * e.by_rules
    if e.metric.startswith("points"):
        what = f"{100 * e.mean:.1f}% [{100 * low:.1f}, {100 * high:.1f}] of the points{by}"
    else:
        what = f"{e.metric} {e.mean:.4g} [{low:.4g}, {high:.4g}]"
    against = f" against {e.opponent}" if e.opponent else ""
    return f"{what}{against}, {e.episodes} episodes, {e.num_simulations} simulations"


def _table(*columns: str | tuple[str, Any], title: str = "", header: bool = True) -> Table:
    from rich.table import Table

    table = Table(title=title or None, title_justify="left", show_header=header)
    for column in columns:
        if isinstance(column, str):
            table.add_column(column, overflow="fold")
        else:
            table.add_column(column[0], justify=column[1], overflow="fold")
    return table


def _print(table: Table) -> None:
    from rich.console import Console

    Console(highlight=False, markup=False).print(table)
