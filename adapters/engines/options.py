"""Options of an engine: what it offers, and what a host may set them to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MOST = 2**31 - 1
HASH, MINIBATCH, C_PUCT = 256, 16, 1.25
"""What engines begin with: megabytes, positions, and c1 of PUCT."""


@dataclass(frozen=True)
class Option:
    """One option, by UCI's types.

    :param kind: check, spin, combo, string or button
    :param default: bool, int or str; of a button None
    :param least, most: of a spin
    :param choices: of a combo, without spaces
    :param changed: called with the new value, which it may refuse by an error
    """

    name: str
    kind: str
    default: Any = None
    least: int = 0
    most: int = MOST
    choices: tuple[str, ...] = ()
    changed: Callable[[Any], object] | None = None

    def uci(self) -> str:
        """As UCI declares it."""
        words = [f"option name {self.name} type {self.kind}"]
        if self.kind == "check":
            words.append(f"default {str(self.default).lower()}")
        elif self.kind == "string":
            words.append(f"default {self.default or '<empty>'}")
        elif self.kind != "button":
            words.append(f"default {self.default}")
        if self.kind == "spin":
            words.append(f"min {self.least} max {self.most}")
        words += [f"var {choice}" for choice in self.choices]
        return " ".join(words)

    def read(self, text: str) -> Any:
        """The value that a host means.

        :raises ValueError: if there is none such
        """
        if self.kind == "check":
            if text.lower() not in ("true", "false"):
                raise ValueError(f"{self.name}: {text!r} is neither true nor false")
            return text.lower() == "true"
        if self.kind == "spin":
            try:
                number = int(text)
            except ValueError:
                raise ValueError(f"{self.name}: {text!r} is no whole number") from None
            if not self.least <= number <= self.most:
                raise ValueError(f"{self.name}: {number} is not in {self.least} .. {self.most}")
            return number
        if self.kind == "combo":
            for choice in self.choices:
                if choice.lower() == text.lower():
                    return choice
            raise ValueError(f"{self.name}: {text!r} is none of {', '.join(self.choices)}")
        return "" if text == "<empty>" else text


class Options:
    """The options of an engine, by name in any case."""

    def __init__(self, *options: Option) -> None:
        self._options = {option.name.lower(): option for option in options}
        self._values = {name: option.default for name, option in self._options.items()}

    def __iter__(self) -> Iterator[Option]:
        return iter(self._options.values())

    def __getitem__(self, name: str) -> Any:
        return self._values[name.lower()]

    def set(self, name: str, text: str) -> None:
        """Set an option, or press a button; what its `changed` refuses is not set.

        :raises ValueError: for an unknown name, or a value that is none
        """
        option = self._options.get(name.lower())
        if option is None:
            raise ValueError(f"no option is called {name!r}")
        before = self._values[name.lower()]
        self._values[name.lower()] = value = option.read(text)
        if option.changed is not None:
            try:
                option.changed(value)
            except Exception:
                self._values[name.lower()] = before
                raise
