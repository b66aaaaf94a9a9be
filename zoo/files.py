"""The files of a model directory: which there may be, and how they are read.

A file is read once, whole, up to a limit; its size and hash are compared with the manifest's before
anything looks into it. Names that are not in the short list below are never opened, whoever asks,
so that no manifest can point elsewhere.

    manifest.json       size and SHA-256 of each of the others
    config.json         constructor arguments and spaces
    model.safetensors   the weights
    card.json           where it comes from, and how good it is (optional)
    README.md           the same for people and for hubs (beside a card)

Directories of format version 1 have no manifest: config.json holds the hash of the weights.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from muzero_agent.zoo.cards import FORMAT_VERSION, Config, FileEntry, Manifest
from muzero_agent.zoo.errors import (
    DamagedModelError,
    ModelNotFoundError,
    UnsupportedModelError,
    printable,
)

WEIGHTS, CONFIG, CARD, README = "model.safetensors", "config.json", "card.json", "README.md"
MANIFEST = "manifest.json"
MOST_BYTES = {WEIGHTS: 2 << 30, CONFIG: 1 << 20, CARD: 1 << 20, README: 1 << 20, MANIFEST: 1 << 16}
"""More is not read, and other names are not known."""

_Schema = TypeVar("_Schema", bound=BaseModel)


class ModelFiles:
    """The files of one model directory.

    :param directory: it; links in it may not lead out of it, but in a cache of `huggingface_hub`,
        where they lead to files beside it
    :raises ModelNotFoundError: if there is no such directory
    :raises DamagedModelError: if its manifest cannot be read
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        if not self.directory.is_dir():
            raise ModelNotFoundError(f"{self.directory} is no directory")
        own = self.directory.resolve()
        self._within = [own, *blobs_of(own)]
        self.manifest: Manifest | None = None  # None: of version 1
        if self.has(MANIFEST):
            self.manifest = parse(Manifest, self._content(MANIFEST), self.path(MANIFEST))

    def path(self, name: str) -> Path:
        """Where a file stands."""
        return self.directory / name

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        path = self.path(name)
        return path.is_symlink() or path.exists()

    def names(self) -> list[str]:
        """Of the files that belong to the model, in the list's order."""
        return [name for name in MOST_BYTES if self.has(name)]

    def read(self, name: str) -> bytes:
        """A file's content, which is what the manifest says.

        :raises ModelNotFoundError: if it is missing
        :raises DamagedModelError: if it is another file than the manifest describes
        """
        if self.manifest is None:
            return self._content(name)
        entry = self.manifest.files.get(name)  # type: ignore[call-overload]
        if entry is None and self.has(name):
            raise DamagedModelError(
                f"{self.path(name)} is not in {MANIFEST}: somebody added it; remove it, or fetch "
                "the model again"
            )
        if entry is None:
            return self._content(name)  # complains
        content = self._content(name, entry.size)
        if describe(content) != entry:
            raise DamagedModelError(
                f"{self.path(name)} is not the file that {MANIFEST} describes: its hash differs; "
                "it is damaged, so fetch it again"
            )
        return content

    def parse(self, schema: type[_Schema], name: str) -> _Schema:
        """A JSON file, by a strict schema.

        :raises ModelError: naming the file and what is wrong with it
        """
        return parse(schema, self.read(name), self.path(name))

    def _content(self, name: str, size: int | None = None) -> bytes:
        """:param size: that is told; a file of another is not read"""
        path, most = self.path(name), MOST_BYTES[name]
        if not path.is_file():
            raise ModelNotFoundError(f"{self.directory} has no {name}: {self._advice(name)}")
        if not any(path.resolve().is_relative_to(within) for within in self._within):
            raise DamagedModelError(
                f"{path} is a link out of its directory, which is not followed: put the file "
                "itself there (`cp -L`)"
            )
        with path.open("rb") as file:
            held = os.fstat(file.fileno()).st_size  # so much memory is taken, whatever comes
            if size is not None and held != size:
                raise DamagedModelError(
                    f"{path} is not the file that {MANIFEST} describes: it has {held:,} bytes in "
                    f"place of {size:,}; it is damaged or incomplete, so fetch it again"
                )
            content = file.read(min(held, most) + 1)
        if len(content) > most:
            raise DamagedModelError(f"{path} is larger than {most:,} bytes")
        return content

    def _advice(self, name: str) -> str:
        told = self.manifest.files if self.manifest is not None else {}
        if name in told:
            return f"{MANIFEST} tells of one, so the model is incomplete: fetch it again"
        if name == CARD:
            return (
                "nobody said where the model comes from: `zoo.save(model, directory, card=...)` "
                "writes one, and so do `muzero-agent train` and `zoo pack`"
            )
        return "give a directory that `zoo.save` wrote"


def blobs_of(directory: Path) -> list[Path]:
    """Where links may lead of a directory that is in a cache of `huggingface_hub`: to the files of
    its repository, and from there to those that repositories share. Empty elsewhere.

    :param directory: CACHE/models--org--name/snapshots/COMMIT
    """
    if directory.parent.name != "snapshots" or not directory.parents[1].name.startswith("models--"):
        return []
    stores = [directory.parents[1] / "blobs", directory.parents[2] / "blobs"]
    return [store for store in stores if store.is_dir() and store.resolve() == store]


def describe(content: bytes) -> FileEntry:
    """A file's line in the manifest."""
    return FileEntry(sha256=hashlib.sha256(content).hexdigest(), size=len(content))


def make_manifest(files: dict[str, bytes]) -> Manifest:
    """The manifest of a directory with these files."""
    entries = {name: describe(content) for name, content in files.items()}
    return Manifest(format_version=FORMAT_VERSION, files=entries)  # type: ignore[arg-type]


def parse(schema: type[_Schema], content: bytes, path: Path) -> _Schema:
    """JSON from somewhere else, by a strict schema.

    :param path: what to call it in complaints
    :raises UnsupportedModelError: if its version is another than this release reads
    :raises DamagedModelError: if it does not keep to the schema
    """
    try:
        version = json.loads(content, object_pairs_hook=_once).get("format_version", FORMAT_VERSION)
        if not (isinstance(version, int) and 1 <= version <= FORMAT_VERSION):
            raise UnsupportedModelError(
                f"{path} has format version {printable(str(version))}, and this release reads "
                f"versions up to {FORMAT_VERSION}: install a newer release of muzero-agent"
            )
        return schema.model_validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        where = printable(".".join(map(str, first["loc"])))
        raise DamagedModelError(f"{path}: {where}: {first['msg']}") from error
    except (UnicodeDecodeError, AttributeError, json.JSONDecodeError, RecursionError) as error:
        raise DamagedModelError(f"{path} is no JSON object: {error}") from error
    except ValueError as error:  # numbers of too many digits
        if isinstance(error, UnsupportedModelError):
            raise
        raise DamagedModelError(f"{path}: {error}") from error


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON; of two entries with one name, readers take now the first, now the last."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} is there twice")
        found[name] = value
    return found


def to_json(content: BaseModel) -> bytes:
    """As it is written to a file."""
    optional = {"sha256": None, "env_has_masks": False} if isinstance(content, Config) else {}
    dropped = {name for name, default in optional.items() if getattr(content, name) == default}
    return (content.model_dump_json(indent=2, exclude=dropped) + "\n").encode()
