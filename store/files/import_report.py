"""Report an import: rows added, earlier rows completed, and everything rejected."""

import csv
import io
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from store.files.readers import Kind, Rejected
from store.files.reconciling import Outcome

KINDS: tuple[Kind, ...] = ("row", "label", "change")


@dataclass
class ImportReport:
    """Counts of an import, and the rejected rows, labels and changes."""

    to_label: int = 0
    context: int = 0
    with_label: int = 0
    unchanged: int = 0  # rows already in the project, with the same values
    not_applied: int = 0  # rows already in the project, with changes that were rejected
    completed: int = 0  # rows already in the project, whose new values were all added
    labels_added: int = 0  # labels that completed utterances imported before
    now_to_label: int = 0  # utterances imported before as context
    rejected: list[Rejected] = field(default_factory=list)

    @property
    def already_there(self) -> int:
        """The number of rows whose utterance was in the project before."""
        return self.unchanged + self.not_applied + self.completed

    def kinds(self) -> dict[Kind, int]:
        """Count rejections by kind: whole rows, labels, changes."""
        return dict(Counter(one.kind for one in self.rejected))

    def table(self) -> str:
        """Return all rejections as CSV."""
        text = io.StringIO()
        writer = csv.writer(text)
        writer.writerow(["row", "kind", "reason"])
        writer.writerows((one.row, one.kind, one.reason) for one in self.rejected)
        return text.getvalue()

    def enter(self, outcome: Outcome) -> None:
        """Count the outcome of a row."""
        self.rejected += outcome.rejections
        staged = outcome.staged
        if outcome.already_there:
            self.not_applied += bool(outcome.rejections)
            self.completed += bool(staged and not outcome.rejections)
            self.unchanged += not staged and not outcome.rejections
            self.labels_added += bool(staged and staged.label_id is not None)
            self.now_to_label += bool(staged and staged.slice)
        elif staged:
            self.to_label += not staged.new.context_only
            self.context += staged.new.context_only
            self.with_label += staged.label_id is not None

    def summary(self) -> str:
        """Return the report in plain sentences."""
        labeled = f" ({self.with_label:,} of them with a label)" if self.with_label else ""
        return " ".join(
            [
                f"Added {_counted(self.to_label, 'utterance')} to label{labeled} and {self.context:,} as context; "
                f"{self.unchanged:,} unchanged, {self.not_applied:,} with changes that were not applied, "
                f"{_counted(len(self.rejected), 'problem')} reported.",
                *self._completed(),
                *self._problems(),
            ]
        )

    def _completed(self) -> Iterator[str]:
        if self.labels_added:
            were = "label was added to an utterance" if self.labels_added == 1 else "labels were added to utterances"
            yield f"{self.labels_added:,} {were} imported before."
        if self.now_to_label:
            is_ = "is" if self.now_to_label == 1 else "are"
            yield f"{_counted(self.now_to_label, 'utterance')} imported before as context {is_} to be labeled now."

    def _problems(self) -> Iterator[str]:
        if kinds := self.kinds():
            yield f"Not taken: {', '.join(_counted(kinds[kind], kind) for kind in KINDS if kind in kinds)}."


def _counted(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"
