"""Which model an engine plays."""

from __future__ import annotations

from pathlib import Path

MODELS = Path(__file__).resolve().parents[2] / "zoo" / "models"


def find_model(name: str) -> Path:
    """The directory of a model: a path, or the name of one in the package.

    :raises ValueError: if there is none
    """
    for path in (Path(name), MODELS / name):
        if (path / "config.json").is_file():
            return path
    bundled = sorted(path.name for path in MODELS.glob("*") if (path / "config.json").is_file())
    raise ValueError(
        f"{name!r} is neither a model directory nor one of the package's models: "
        f"{', '.join(bundled)}"
    )
