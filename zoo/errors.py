"""What can be wrong with a model from somewhere else, each fault with a name of its own."""

from __future__ import annotations


class ModelError(ValueError):
    """A model that cannot be used; nothing of it was run, and nothing was changed."""


class DamagedModelError(ModelError):
    """Files that are not what the model's own description says, or that cannot be read at all."""


class UnsupportedModelError(ModelError):
    """A format or version that this release does not know."""


class UntrustedModelError(ModelError):
    """Loading would run code of the model's author, and nobody said that the author is trusted."""


class ModelNotFoundError(FileNotFoundError):
    """There is no such model, or one of its files is missing."""


class HubError(OSError):
    """The hub could not be asked, or gave something else than was asked for."""
