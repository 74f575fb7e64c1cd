"""Compare tiny random models of all architectures of transformers with plain transformers, one label at a time.

    python -m benchmarks.zoo [--quick | --tiny] [--architectures llama,t5]

Each is saved, loaded as a local folder, and scored: texts one at a time and in company, after two steps of LoRA, and
after restoring the round from disk. Figures are the largest difference of a label's log-likelihood in nats; up to 1e-4
is equal. An architecture that differs must be refused with a reason and a hint; any other outcome is silently wrong.
The models are random: the table proves arithmetic, not that a family labels well.
"""

import tempfile
import warnings
from pathlib import Path
from unittest import mock

import torch
import transformers
from rich.console import Console
from rich.table import Table

from benchmarks.command import Command
from benchmarks.measure import print_last
from tests.model import zoo, zoo_check
from tests.model.zoo_check import Finding

ALL = "all"
COMMAND = Command(
    __doc__,
    full={"architectures": (ALL,)},
    quick={"architectures": zoo.SHARE},
    tiny={"architectures": ("llama", "mamba")},
    figures=("architectures", "equal", "refused", "silently_wrong"),
)


def examine(name: str) -> Finding:
    """Save and examine one architecture."""
    with tempfile.TemporaryDirectory() as folder:
        return zoo_check.examine(name, zoo.save(name, Path(folder)))


def show(findings: list[Finding]) -> None:
    """Print the table."""
    table = Table(title="largest difference from plain transformers, nats")
    for column in ("architecture", "equal", "batch", "trained", "restored", "refused"):
        table.add_column(column, overflow="fold")
    for found in findings:
        stages = (found.alone, found.together, found.trained, found.restored)
        shown = ["" if off is None or found.refused else f"{off:.0e}" for off in stages]
        table.add_row(found.name, *shown, found.wrong or found.refused)
    Console(width=150).print(table)


def main() -> None:
    """Examine and print."""
    given = COMMAND.read()
    names = zoo.names() if given.architectures == (ALL,) else list(given.architectures)
    torch.set_num_threads(1)  # threads do not pay for tensors this small
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    with mock.patch("model.backbones.backbone.preferred_dtype", return_value=torch.float32), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        findings = [examine(name) for name in names]
    show(findings)
    equal, wrong = ([found for found in findings if kind(found)] for kind in (is_equal, lambda found: found.wrong))
    figures = {"equal": len(equal), "refused": len(findings) - len(equal) - len(wrong), "silently_wrong": len(wrong)}
    print_last({"architectures": len(findings), **figures, "absent": len(zoo.ABSENT)})


def is_equal(found: Finding) -> bool:
    """Return whether an architecture is equal at each stage."""
    return found.equal and not found.wrong


if __name__ == "__main__":
    main()
