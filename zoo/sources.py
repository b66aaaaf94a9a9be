"""Which model a name means: the first of these that there is, and no other in its place.

1. A model of the package, by its name. A directory of that name is meant by "./name".
2. A directory, or a zip of `MuZero.save` whose author is trusted.
3. "org/repo" on the Hugging Face Hub, at a commit.
"""

from __future__ import annotations

import difflib
import logging
import re
from pathlib import Path

from muzero_agent.zoo.bundled import MODELS, bundled
from muzero_agent.zoo.errors import ModelNotFoundError, UntrustedModelError
from muzero_agent.zoo.files import ModelFiles

log = logging.getLogger(__name__)

_ON_THE_HUB = re.compile(r"([\w.-]+/[\w.-]+?)(?:@([\w.-]+))?", re.ASCII)


def open_model(
    name: str | Path,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    local_files_only: bool = False,
) -> ModelFiles:
    """The files of the model that is meant; where they were found is logged.

    :param name: of a model in the package, a directory, or "org/repo", also "org/repo@revision"
    :param revision: of a repository on the hub: the hash of a commit
    :param cache_dir: of what the hub gave; None: `huggingface_hub`'s
    :param local_files_only: ask no hub
    :raises ModelNotFoundError: if there is none
    :raises UntrustedModelError: if it is a file that can hold code
    """
    if isinstance(name, str) and name in bundled():
        log.info("%s: a model of the package, %s", name, MODELS / name)
        return ModelFiles(MODELS / name)
    path = Path(name).expanduser()
    if path.is_dir():
        log.info("%s: a directory, %s", name, path.resolve())
        return ModelFiles(path)
    if path.exists():
        raise UntrustedModelError(
            f"{path} is no model directory; a .zip of `MuZero.save` holds pickles, which can run "
            "its author's code: give trust=True (--trust) if you trust them"
        )
    if isinstance(name, str) and (match := _ON_THE_HUB.fullmatch(name)) is not None:
        from muzero_agent.zoo import hub  # takes long to import

        repo, commit = match[1], match[2] or revision
        if revision is not None and commit != revision:
            raise ValueError(f"{name} with revision={revision!r}: give one of the two")
        files = hub.fetch(repo, commit, cache_dir=cache_dir, local_files_only=local_files_only)
        log.info("%s: %s on the hub at commit %s, %s", name, repo, commit, files.directory)
        return files
    close = difflib.get_close_matches(str(name), bundled(), n=1)
    raise ModelNotFoundError(
        f"{str(name)!r} does not exist{f'; did you mean {close[0]}?' if close else ''}: give a "
        f"model of the package ({', '.join(bundled())}), a directory, or org/repo on the hub"
    )
