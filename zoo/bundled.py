"""The models that come with the package: where they are, without an import of anything heavy."""

from __future__ import annotations

import json
from pathlib import Path

MODELS = Path(__file__).resolve().parent / "models"


_MOST_BYTES = 1 << 20


def bundled() -> list[str]:
    """Their names."""
    return sorted(path.parent.name for path in MODELS.glob("*/config.json"))


def find_model(name: str | Path) -> Path:
    """The directory of a model: of one in the package by its name, or a path.

    A directory that happens to have a bundled model's name is meant by `./name`.

    :raises ValueError: if there is none
    """
    text = str(name)
    if text in bundled() and not isinstance(name, Path):
        return MODELS / text
    if (Path(name) / "config.json").is_file():
        return Path(name)
    raise ValueError(
        f"{text!r} is neither a model directory nor one of the package's models: "
        f"{', '.join(bundled())}"
    )


def num_actions(directory: Path) -> int | None:
    """How many actions a model knows; None if its directory does not tell."""
    try:
        with (directory / "config.json").open("rb") as file:  # may be from anybody
            content = file.read(_MOST_BYTES + 1)
        if len(content) > _MOST_BYTES:
            return None
        number = json.loads(content)["action_space"]["n"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return number if isinstance(number, int) else None
