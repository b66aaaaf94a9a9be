"""Files of models and replays: a look into them before they are loaded, and what to say if not."""

from __future__ import annotations

import io
import json
import os
import pathlib
import zipfile
import zlib
from collections.abc import Collection, Mapping
from typing import Any

from stable_baselines3.common.save_util import load_from_pkl, open_path

from muzero_agent.categorical import check_same_mean
from muzero_agent.replay import TrajectoryReplayBuffer
from muzero_agent.turns import DEFAULTS, SUPPORT, resolved

OWN_SETTINGS = {"num_simulations", "unroll_steps", "td_steps", "reanalyse_ratio", "search"}
"""Settings by which a saved model is known as one of `MuZero`."""


def describe(path: object) -> str:
    """What to call a file in a message."""
    return f"the file {path}" if isinstance(path, str | pathlib.Path) else "the file"


def read_settings(path: str | pathlib.Path | io.BufferedIOBase) -> dict[str, Any]:
    """The JSON in a file of `MuZero.save`; ValueError for any other. Nothing is unpickled."""
    if isinstance(path, str | pathlib.Path) and pathlib.Path(path).is_dir():
        raise IsADirectoryError(
            f"{path} is a directory: `zoo.load({str(path)!r})` loads what `zoo.save` wrote, and "
            "`MuZero.load` the zip file that `save` of a MuZero model wrote"
        )
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
                if not OWN_SETTINGS & set(settings):  # of which some may be excluded
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


def check_means(path: str | pathlib.Path | io.BufferedIOBase, own: str) -> None:
    """ValueError if the predictions of a saved model are means of something else.

    :param own: `support_mean` of the model that is to take over its weights
    """
    given = read_settings(path).get("policy_kwargs")
    if given is None:
        return  # left out when it was saved: nobody can know
    theirs = given.get("support_mean", "transformed")  # as they were before there was a choice
    check_same_mean(theirs, own, describe(path))


def replacements(
    path: str | pathlib.Path | io.BufferedIOBase, parameters: Collection[str], given: dict[str, Any]
) -> dict[str, Any]:
    """Attributes that take the place of those saved; TypeError for what is none.

    :param parameters: of the constructor
    :param given: by their names as attributes, or as parameters
    """
    settings = read_settings(path)
    known = {*settings, *parameters} - {"policy", "env", "_init_setup_model"}
    new = dict(given)
    if "stats_window_size" in new:  # the one attribute that is not named as its argument
        new["_stats_window_size"] = new.pop("stats_window_size")
    if not new.keys() <= known:
        raise TypeError(
            f"load() knows no {sorted(new.keys() - known)}; choose among "
            f"{sorted(name for name in known if not name.startswith('_'))}"
        )
    num_players = new.get("num_players") or settings.get("num_players", 1)
    if "num_players" in new:
        new["num_players"] = num_players
    for name in DEFAULTS[1].keys() & new.keys():
        new[name] = resolved(num_players, name, new[name])
    if new.get("policy_kwargs") is not None:  # SB3 refuses others than those saved
        saved = settings.get("policy_kwargs") or {}
        new["policy_kwargs"] = _completed(new["policy_kwargs"], saved, num_players)
    return new


def _completed(given: dict[str, Any], saved: Mapping[str, Any], num_players: int) -> dict[str, Any]:
    """Arguments of a policy with what `MuZero` adds to them by itself, as far as the saved ones
    have it: those that a model was made with are those that it keeps."""
    own = {name: x for name, x in SUPPORT[num_players].items() if name in saved}
    whole = own | given
    net_arch, told = whole.get("net_arch") or {}, saved.get("net_arch")
    if isinstance(net_arch, dict) and isinstance(told, dict) and "decoded_planes" in told:
        whole["net_arch"] = {"decoded_planes": told["decoded_planes"], **net_arch}
    return whole


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


def sync(path: pathlib.Path) -> None:
    """Have a file, or the names in a directory, written to the disk itself."""
    if path.is_dir() and os.name == "nt":
        return  # Windows opens no directories
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
