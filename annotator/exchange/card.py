"""The parts of the card that goes with an exported dataset. Whatever a person has written is escaped."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from annotator.rounds.statuses import MEANINGS, Status
from annotator.rounds.summaries import summaries
from store import acceptances, labels
from store.files.exporters import SPLITS

WARNING = (
    "Only rows with `slice` = `audit` or `strategy` = `random` are a random sample. The others were chosen because "
    "the model was unsure: shares of labels and accuracies computed from them describe the choice, not the data. "
    "Rows with `source` = `model` or `accepted` were seen by nobody. The promise of the latter holds for all that one "
    "act accepted, on average, and not for each label or each row."
)

READING = {
    "csv": "```python\n"
    'pandas.read_csv("{name}", dtype=str, keep_default_na=False)\n'
    "```\n\n"
    "Without `keep_default_na=False`, labels and texts such as `None`, `NA` or `null` are read as missing; without "
    "`dtype=str`, an id such as `007` becomes a number. A text that a spreadsheet would run as a formula has an "
    "apostrophe in front. The other formats keep every text as it is; `datasets` reads them without guessing types.",
    "jsonl": "```python\n"
    'pandas.read_json("{name}", lines=True, dtype=False)\n'
    'datasets.load_dataset("json", data_files="{name}")\n'
    "```\n\n"
    "Without `dtype=False`, pandas reads an id such as `007` as a number; before version 3 it also needs "
    "`convert_dates=False`.",
    "parquet": '```python\npandas.read_parquet("{name}")\ndatasets.load_dataset("parquet", data_files="{name}")\n```',
    "dataset": "```python\n"
    'datasets.load_dataset("{name}")\n'
    'datasets.load_from_disk("{name}")\n'
    "```\n\n"
    "All rows are in two splits together: `train` (`slice` = `pool`) and `audit`; `load_dataset` leaves out a split "
    "that has no rows. In `label`, -1 stands for no label: `kind` says why there is none.",
}


def escaped(text: str) -> str:
    """Escape a text for Markdown, so that it stays in its line and its cell."""
    marked = re.sub(r"([\\`*\[\]<>|#~&$]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return "<br>".join(marked.splitlines()) if marked.strip() else marked.strip()


def front_matter(folder: Path, slices: Collection[str]) -> str:
    """Return the YAML by which `datasets.load_dataset` finds the split of every slice that has rows.

    It holds a digest of the data: `load_dataset` keeps what it has read by this header, and would take a folder that
    was exported anew for the old one.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*/*.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    splits = [split for part, split in SPLITS.items() if part in slices]  # it fails where one has no rows
    files = "".join(f"  - split: {split}\n    path: {split}/data-*.arrow\n" for split in splits)
    told = f"- config_name: default\n  description: content {digest.hexdigest()}\n  data_files:\n{files}"
    return f"---\nconfigs:\n{told}---\n" if splits else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Write a table; the cells are Markdown already."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def contents(counts: Mapping[Status, int], left_out: Iterable[Status]) -> str:
    """List how many utterances have which status, and whether they are in the file; the sum is all of them."""
    out = set(left_out)
    rows = [
        (f"`{status}`", n, "left out" if status in out else "yes", MEANINGS[status])
        for status, n in counts.items()
        if n or status not in ("accepted", "model")
    ]
    summed = ("**all**", sum(counts.values()), "", "the utterances to be labeled; context is never exported")
    return table(("status", "utterances", "in this file", "meaning"), [*rows, summed])


def codebook(project: Project) -> str:
    """List the labels with their definitions, and what became of those that may no longer be given."""
    found = codebook_of(project)
    used = (f"- **{escaped(one.name)}**: {escaped(one.definition) or '(no definition)'}" for one in found.labels)
    parts = ["\n".join(used), "\n".join(_out_of_use(project))]
    return f"## Codebook, version {found.version}\n\n{escaped(found.instruction)}\n\n" + "\n\n".join(
        filter(None, parts)
    )


def _out_of_use(project: Project) -> Iterator[str]:
    known = labels.names(project.db)
    for row in labels.every(project.db):
        name = escaped(row["name"])
        if row["merged_into"] is not None:
            yield f"- *{name}* was merged; its answers count as *{escaped(known[row['counts_as']])}*."
        elif row["retired_at"] is not None:
            yield f"- *{name}* is out of use; its answers count as no label."


def guaranteed(act: Mapping[str, Any]) -> str:
    """Put an acceptance's promise into words."""
    return f"at least {act['target']:.0%} right, at {act['confidence']:.0%} confidence"


def accepted(project: Project) -> str:
    """List every act of accepting unseen, those that ended too."""
    rows = []
    for act in reversed(acceptances.history(project.db)):
        now = escaped(f"{act['ended']}: {act['reason']}") if act["ended"] else "stands"
        rows.append((act["id"], act["round_number"], act["size"], guaranteed(act), act["checks"], act["errors"], now))
    head = ("acceptance", "round", "suggestions", "promise", "spot checks", "found wrong", "now")
    return table(head, rows) if rows else "No suggestion has been accepted unseen."


def rounds(project: Project) -> str:
    """List the promoted rounds with what was measured of them."""
    rows = []
    for one in reversed(summaries(project)):
        if one.state == "promoted":
            accuracy = f"{one.accuracy} ({one.interval})" if one.accuracy else "not measured"
            cells = (one.number, escaped(one.backbone), one.trained_on, one.audited_on, accuracy, one.nll, one.ece)
            rows.append(cells)
    head = ("round", "backbone", "trained on", "audit answers", "accuracy (95 % interval)", "NLL", "ECE")
    return table(head, rows)
