"""Measure alternatives in turns, compare them turn by turn, and print the results."""

import json
import math
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table


@dataclass(frozen=True)
class Way:
    """An alternative to measure: `run` handles `items` items."""

    name: str
    items: int
    run: Callable[[], Any]


def wait_for_gpu() -> None:
    """Wait until the GPU has finished, because calls return before it has."""
    torch = sys.modules.get("torch")
    if torch and torch.cuda.is_available():
        torch.cuda.synchronize()


def take_turns(ways: Sequence[Way], times: int) -> dict[str, np.ndarray]:
    """Run each way once to warm up, then all in turns; return items per second, (times,) each."""
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for turn in range(times + 1):
        for way in ways:
            start = time.perf_counter()
            way.run()
            wait_for_gpu()
            if turn:
                seconds[way.name].append(time.perf_counter() - start)
    return {way.name: way.items / np.array(seconds[way.name]) for way in ways}


def show(title: str, rates: Mapping[str, np.ndarray], unit: str, ours: str = "ours") -> None:
    """Print a table with the median and range of each way, and the ratio of ours to it, turn by turn."""
    table = Table(title=title)
    for column in ("", unit, "lowest to highest", "ours is"):
        table.add_column(column, justify="left" if not column else "right")
    for name, rate in rates.items():
        ratio = np.median(rates[ours] / rate)
        table.add_row(name, f"{np.median(rate):.2f}", f"{rate.min():.2f} to {rate.max():.2f}", f"{ratio:.2f} ×")
    Console(width=100).print(table)


def over(rates: Mapping[str, np.ndarray], name: str, ours: str = "ours") -> float:
    """Return how many times as fast ours is, as the median over turns."""
    return round(float(np.median(rates[ours] / rates[name])), 3)


def print_last(result: Mapping[str, Any]) -> None:
    """Print the JSON object that ends every benchmark, with null for what could not be measured."""
    print(json.dumps(_measured(result), allow_nan=False))


def _measured(value: Any) -> Any:
    """Return a value with None in place of every number that is not finite."""
    if isinstance(value, Mapping):
        return {key: _measured(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_measured(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
