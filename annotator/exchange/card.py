"""Write the parts of the data card. Text written by people is escaped."""

import hashlib
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from annotator.codebook.definition import codebook_of
from annotator.project import Project
from annotator.rounds.statuses import MEANINGS, Status
from annotator.rounds.summaries import summaries
from store import acceptances, labels
from store.acceptances import Acceptance, Accepted
from store.files.exporters import SPLITS

WARNING = (
    "Only rows with `slice` = `audit` or `strategy` = `random` are a random sample. The others were chosen because "
    "the model was unsure: label shares and accuracies computed from them describe the selection, not the data. "
    "Rows with `source` = `model` or `accepted` were not reviewed by anyone. The guarantee of accepted rows holds on "
    "average over everything accepted in one act, not for each label or row."
)

READING = {
    "csv": "```python\n"
    'pandas.read_csv("{name}", dtype=str, keep_default_na=False)\n'
    "```\n\n"
    "Without `keep_default_na=False`, labels and texts such as `None`, `NA` or `null` are read as missing; without "
    "`dtype=str`, an id such as `007` becomes a number. A text that a spreadsheet would run as a formula starts with "
    "an added apostrophe. The other formats keep every text unchanged; `datasets` reads them without guessing types.",
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
    "The rows are in two splits: `train` (`slice` = `pool`) and `audit`; `load_dataset` omits a split without rows. "
    "In `label`, -1 means no label; `kind` gives the reason.",
}


def escaped(text: str) -> str:
    """Escape a text for Markdown, so that it stays within its line and table cell."""
    marked = re.sub(r"([\\`*\[\]<>|#~&$]|(?<!\w)_|_(?!\w))", r"\\\1", text)
    return "<br>".join(marked.splitlines()) if marked.strip() else marked.strip()


def front_matter(folder: Path, slices: Collection[str]) -> str:
    """Return the YAML header from which `datasets.load_dataset` reads the split of every slice that has rows.

    It contains a digest of the data, because `load_dataset` caches by this header and would otherwise return old data
    for a folder that was exported again.
    """
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.glob("*/*.arrow")):
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "blake2b").digest())
    splits = [split for part, split in SPLITS.items() if part in slices]  # load_dataset fails on a split without rows
    files = "".join(f"  - split: {split}\n    path: {split}/data-*.arrow\n" for split in splits)
    config = f"- config_name: default\n  description: content {digest.hexdigest()}\n  data_files:\n{files}"
    return f"---\nconfigs:\n{config}---\n" if splits else ""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a Markdown table; the cells are already Markdown."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def contents(counts: Mapping[Status, int], left_out: Iterable[Status]) -> str:
    """Return a table of the number of utterances with each status, and whether they are in the file."""
    out = set(left_out)
    rows = [
        (f"`{status}`", n, "left out" if status in out else "yes", MEANINGS[status])
        for status, n in counts.items()
        if n or status not in ("accepted", "model")
    ]
    total = ("**all**", sum(counts.values()), "", "the utterances to be labeled; context is never exported")
    return table(("status", "utterances", "in this file", "meaning"), [*rows, total])


def codebook(project: Project) -> str:
    """List the labels with their definitions, and the labels that have been merged or retired."""
    found = codebook_of(project)
    used = (
        f"{'  ' * len(found.above(one.id))}- **{escaped(one.name)}**{' (group)' if one.is_group else ''}: "
        f"{escaped(one.definition) or '(no definition)'}"
        for one in found.nodes
    )
    parts = ["\n".join(used), "\n".join(_retired(project))]
    return f"## Codebook, version {found.version}\n\n{escaped(found.instruction)}\n\n" + "\n\n".join(
        filter(None, parts)
    )


def _retired(project: Project) -> Iterator[str]:
    names = labels.names(project.db)
    for label in labels.every(project.db):
        name = escaped(label.name)
        if label.is_group:
            continue
        if label.merged_into is not None:
            yield f"- *{name}* was merged; its answers count as *{escaped(names[label.counts_as])}*."
        elif label.retired_at is not None:
            yield f"- *{name}* was retired; its answers do not count as a label."


def guaranteed(act: Acceptance | Accepted) -> str:
    """Return the guarantee of an auto-acceptance as text."""
    return f"at least {act.target:.0%} right, at {act.confidence:.0%} confidence"


def accepted(project: Project) -> str:
    """Return a table of all auto-acceptances, including those that have ended."""
    rows = []
    for act in reversed(acceptances.history(project.db)):
        now = escaped(f"{act.ended}: {act.reason}") if act.ended else "in effect"
        rows.append((act.id, act.round_number, act.size, guaranteed(act), act.checks, act.errors, now))
    head = ("acceptance", "round", "suggestions", "guarantee", "spot checks", "errors", "status")
    return table(head, rows) if rows else "No suggestion has been auto-accepted."


def rounds(project: Project) -> str:
    """Return a table of the promoted rounds with their metrics."""
    rows = []
    for one in reversed(summaries(project)):
        if one.state == "promoted":
            accuracy = f"{one.accuracy} ({one.interval})" if one.accuracy else "not measured"
            cells = (one.number, escaped(one.backbone), one.trained_on, one.audited_on, accuracy, one.nll, one.ece)
            rows.append(cells)
    head = ("round", "backbone", "trained on", "audit answers", "accuracy (95 % interval)", "NLL", "ECE")
    return table(head, rows)
