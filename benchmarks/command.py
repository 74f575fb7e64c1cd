"""Command line shared by all benchmarks: the full measurement, a quick one of about a minute, or a tiny run.

A benchmark lists its parameters once, with their values for each size. Its options, its help, and the first line it
prints in smaller sizes all follow from that.
"""

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

TINY = "tiny"  # the name of a backbone with random weights, created on demand
RANDOM_WEIGHTS = {"backbone": TINY}
SCRATCH = "nowhere"  # the name of a temporary folder for results
PROBE_NAMES = ("probe", "scout")  # values of --classifier for the probe alone; “scout” is the name of earlier versions

SIZES = {
    "quick": "about a minute on two slow cores",
    "tiny": "seconds, on sample data or synthetic text: checks that the benchmark runs; its figures are meaningless",
}


@dataclass(frozen=True)
class Command:
    """The command line of a benchmark.

    `full` has every parameter by name; `quick` and `tiny` have those that differ. Each becomes an option with its name
    and type, which overrides the size.
    """

    about: str | None  # the module's docstring
    full: Mapping[str, Any]
    quick: Mapping[str, Any]
    tiny: Mapping[str, Any]
    choices: Mapping[str, Sequence[str]] = field(default_factory=dict)
    figures: tuple[str, ...] = ()  # keys of the last line
    figures_by: str = ""  # the option whose values are also keys of the last line
    gaps: tuple[str, ...] = ()  # keys that are null where something could not be measured
    place: str = ""  # the positional argument

    def parser(self) -> argparse.ArgumentParser:
        """Return the parser of the command line."""
        parser = argparse.ArgumentParser(description=self.about, formatter_class=argparse.RawDescriptionHelpFormatter)
        sizes = parser.add_mutually_exclusive_group()
        for size, meaning in SIZES.items():
            text = f"{meaning}: {self.difference(size)}".replace("%", "%%")
            sizes.add_argument(f"--{size}", dest="size", action="store_const", const=size, default="full", help=text)
        for name, value in self.full.items():
            text = f"default: {_shown(value)}".replace("%", "%%")
            flag, reader = f"--{name.replace('_', '-')}", _reader(value, self.choices.get(name))
            if name == self.place:
                parser.add_argument(name, nargs="?", type=reader, help=text)
            elif isinstance(value, bool):
                parser.add_argument(flag, action=argparse.BooleanOptionalAction)
            else:
                parser.add_argument(flag, type=reader, help=text, metavar=name.upper())
        return parser

    def difference(self, size: str) -> str:
        """Describe how a size differs from the full measurement."""
        changed = {name: value for name, value in self.of(size).items() if value != self.full[name]}
        parts = (f"{name} {_shown(value)} (not {_shown(self.full[name])})" for name, value in changed.items())
        return ", ".join(parts) or "nothing is left out"

    def of(self, size: str) -> dict[str, Any]:
        """Return every parameter of a size."""
        return {**self.full, **{"full": {}, "quick": self.quick, "tiny": self.tiny}[size]}

    def read(self, arguments: Sequence[str] | None = None) -> argparse.Namespace:
        """Parse the command line; for sizes other than the full one, print what is left out."""
        given = vars(self.parser().parse_args(arguments))
        size = given.pop("size")
        values = self.of(size) | {name: value for name, value in given.items() if value is not None}
        if size != "full":
            print(f"--{size}: {self.difference(size)}", flush=True)
        if values.get("backbone") == TINY:
            values["backbone"] = _with_random_weights()
        if values.get("kept") == SCRATCH:
            values["kept"] = str(scratch() / "kept")
        return argparse.Namespace(**values)


def scratch() -> Path:
    """Return a temporary folder that is removed when this process ends."""
    return Path(_scratch().name)


@cache
def _scratch() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


@cache
def _with_random_weights() -> str:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # threads do not pay for tensors this small
    import torch
    from transformers.utils.logging import disable_progress_bar

    from tests.model.tiny import save_llama

    torch.set_num_threads(1)
    disable_progress_bar()
    return save_llama(scratch() / TINY)


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def _reader(example: Any, choices: Sequence[str] | None) -> Callable[[str], Any]:
    """Return the parser of an option's text: of a tuple where the example is one."""

    def read(text: str) -> Any:
        parts = text.split(",") if isinstance(example, tuple) else [text]
        unknown = [part for part in parts if choices and part not in choices]
        if unknown:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is not one of {', '.join(choices or ())}")
        kind = type(example[0] if isinstance(example, tuple) else example)
        try:
            values = tuple(kind(part) for part in parts)
        except ValueError:
            raise argparse.ArgumentTypeError(f"{text!r} is not a value like {_shown(example)}") from None
        return values if isinstance(example, tuple) else values[0]

    return read
