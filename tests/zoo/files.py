"""Changing the files of a model directory, as somebody might who wants them to be loaded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from muzero_agent.zoo.files import MANIFEST, make_manifest, to_json


def seal(directory: Path) -> None:
    """Write the manifest anew, so that it fits the files."""
    paths = [path for path in directory.iterdir() if path.name != MANIFEST]
    manifest = make_manifest({path.name: path.read_bytes() for path in paths})
    (directory / MANIFEST).write_bytes(to_json(manifest))


def rewrite(path: Path, change: Callable[[Any], Any]) -> None:
    """Change a JSON file in place, and the manifest with it."""
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    if path.name != MANIFEST:
        seal(path.parent)
