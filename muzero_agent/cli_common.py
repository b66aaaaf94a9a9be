"""What the commands share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

MODEL_HELP = (
    "model of the package, model directory, org/repo@COMMIT on the hub, or a .zip of MuZero.save"
)
Threads = Annotated[int, typer.Option(min=1, help="torch's; more than 1 for large networks only")]
MOST_SEED = 2**31 - 1
_EXPLAINED = (ValueError, OSError, RuntimeError, ImportError, FloatingPointError)


@contextmanager
def said_plainly() -> Iterator[None]:
    """Errors that name their cure need no traceback."""
    from gymnasium.error import Error as GymnasiumError

    try:
        yield
    except (typer.Exit, typer.Abort):  # RuntimeErrors, too
        raise
    except BrokenPipeError:  # who reads, such as `head`, has enough
        sys.stderr.close()
        raise typer.Exit(0) from None
    except (GymnasiumError, *_EXPLAINED) as error:
        advice = ", or: pip install 'muzero-agent[box2d]'" if "Box2D" in str(error) else ""
        typer.echo(f"Error: {error}{advice}", err=True)
        raise typer.Exit(2) from error


def check_device(device: str) -> None:
    """Refuse what torch does not know."""
    import torch

    if device == "auto":
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).partition("\n")[0]
        if "device string" in reason:  # and some twenty that torch has heard of
            reason = "torch knows none of that name"
        raise ValueError(f"--device {device}: {reason}: give cpu, cuda or auto") from error


def listed(text: str) -> list[str]:
    """Parts of A,B,C."""
    return [item.strip() for item in text.split(",") if item.strip()]


def find_path(model: str, trust: bool = False) -> Path:
    """The directory of a model, or a zip if its author is trusted."""
    from muzero_agent.zoo.bundled import bundled
    from muzero_agent.zoo.sources import open_model

    path = Path(model).expanduser()
    if trust and path.is_file() and model not in bundled():
        return path
    return open_model(model).directory
