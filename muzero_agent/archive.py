"""Files of models and replays: a look into them before they are loaded, and what to say if not."""

from __future__ import annotations

import io
import json
import pathlib
import zipfile
import zlib
from typing import Any

from stable_baselines3.common.save_util import load_from_pkl, open_path

from muzero_agent.replay import TrajectoryReplayBuffer


def describe(path: object) -> str:
    """What to call a file in a message."""
    return f"the file {path}" if isinstance(path, str | pathlib.Path) else "the file"


def read_settings(path: str | pathlib.Path | io.BufferedIOBase) -> dict[str, Any]:
    """The JSON in a file of `MuZero.save`; ValueError for any other. Nothing is unpickled."""
    incomplete = "is not a zip archive, or is incomplete"
    fault = incomplete
    file = open_path(path, "r", suffix="zip")
    position = file.tell()
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info.header_offset for info in archive.infolist()}
            if (damaged := archive.testzip()) is not None:
                fault = f"is damaged: {damaged} in it does not match its checksum"
            elif min(members.values(), default=0) > 0:
                fault = incomplete  # what was found is an archive inside, of weights
            elif any(name.endswith("/data.pkl") for name in members):
                fault = "is of `torch.save`; `MlpPolicy.load` reads what `policy.save` wrote"
            elif "data" not in members:
                fault = f"is a zip archive of something else: it holds {list(members)[:5]}"
            else:
                settings = json.loads(archive.read("data"))
                if not {"num_simulations", "unroll_steps"} & set(settings):  # one may be excluded
                    fault = "is the model of another algorithm"
                elif "policy.pth" not in members:
                    fault = "holds no weights"
                else:
                    return settings  # type: ignore[no-any-return]
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise ValueError(_advice(path, fault)) from error
    finally:
        if file is path:
            file.seek(position)
        else:
            file.close()
    raise ValueError(_advice(path, fault))


def read_replay(
    path: str | pathlib.Path | io.BufferedIOBase, verbose: int = 0
) -> TrajectoryReplayBuffer:
    """The replay in a file of `MuZero.save_replay_buffer`; ValueError for any other.

    It is unpickled, which runs code of whoever wrote it.
    """
    try:
        replay = load_from_pkl(path, verbose)
    except OSError:
        raise
    except Exception as error:
        raise ValueError(
            f"{describe(path)} cannot be unpickled: give what `save_replay_buffer` wrote"
        ) from error
    if not isinstance(replay, TrajectoryReplayBuffer):
        raise ValueError(
            f"{describe(path)} holds {type(replay)}: give what `MuZero.save_replay_buffer` wrote"
        )
    return replay


def _advice(path: object, fault: str) -> str:
    return f"{describe(path)} {fault}. `MuZero.load` reads what `save` of a MuZero model wrote"
