"""What can be wrong with a model from somewhere else, each fault with a name of its own."""

from __future__ import annotations

MOST_CHARACTERS = 2_000


def printable(text: str, most: int = 200) -> str:
    """On one line, without what a terminal would act on, and no longer than is of use."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split())[:most])


class _Complaint:
    """What is told may quote a file or a server, and terminals act on some characters."""

    def __init__(self, *args: object) -> None:
        told = (printable(arg, MOST_CHARACTERS) if isinstance(arg, str) else arg for arg in args)
        super().__init__(*told)


class ModelError(_Complaint, ValueError):
    """A model that cannot be used; nothing of it was run, and nothing was changed."""


class DamagedModelError(ModelError):
    """Files that are not what the model's own description says, or that cannot be read at all."""


class UnsupportedModelError(ModelError):
    """A format or version that this release does not know."""


class UntrustedModelError(ModelError):
    """Loading would run code of the model's author, and nobody said that the author is trusted."""


class ModelNotFoundError(_Complaint, FileNotFoundError):
    """There is no such model, or one of its files is missing."""


class HubError(_Complaint, OSError):
    """The hub could not be asked, or gave something else than was asked for."""
