"""Commands that start programs, as users write them."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path


def split_command(command: str, windows: bool = os.name == "nt") -> list[str]:
    """A program and its arguments, quoted where they hold spaces.

    :param windows: a backslash separates directories there, and quotes nothing
    :raises ValueError: if there is no program, or a quote is not closed
    """
    try:
        if not windows:
            words = shlex.split(command)
        elif command.count('"') % 2:
            raise ValueError("No closing quotation")
        else:
            words = [word.replace('"', "") for word in re.findall(r'(?:[^\s"]|"[^"]*")+', command)]
    except ValueError as error:
        raise ValueError(f"{command!r} is no command: {error}") from error
    if not words:
        raise ValueError(f"{command!r} is no command: it names no program")
    return words


def own_command() -> str:
    """The command that this process is, as it was typed, without where the program lies."""
    program = Path(sys.argv[0])
    name = "python -m muzero_agent" if program.name == "__main__.py" else program.name
    return f"{name} {shlex.join(sys.argv[1:])}"
