"""Define the codebook of a project: its labels, the groups they are in, and the task they make for the model."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Self

from annotator.codebook.draft import COLORS, SEPARATOR, CodebookDraft, LabelDraft
from annotator.config import RoundConfig
from annotator.project import Project
from model.prompts.verbalizer import label_words
from model.types import Group, Label, Task
from store import labels, questions, settings
from store.database import create_database, immediate
from store.labels import Fields


@dataclass(frozen=True)
class CodebookLabel:
    """A label of a project, or a group of labels, with its permanent id."""

    id: int
    name: str
    definition: str
    examples: tuple[str, ...]
    words: str
    key: str
    color: str = ""
    is_group: bool = False
    parent_id: int | None = None  # the group it is in

    @classmethod
    def of(cls, row: labels.Label, parent_id: int | None = None) -> Self:
        """Return a stored label or group; one without a color gets one by its id."""
        color = row.color or list(COLORS)[(row.id - 1) % len(COLORS)]
        written = (row.name, row.definition, row.examples, row.words, row.key)
        return cls(row.id, *written, color, bool(row.is_group), parent_id)


@dataclass(frozen=True)
class Codebook:
    """The labels and groups in use, as a tree. A flat codebook has no groups."""

    instruction: str
    nodes: tuple[CodebookLabel, ...]  # labels and groups, each group before what it holds
    version: int

    @classmethod
    def of(cls, instruction: str, rows: Iterable[labels.Label], version: int) -> Self:
        """Return the codebook of stored labels, in use or not, in any order."""
        known = {row.id: row for row in rows}
        used = [row for row in labels.in_order(known) if row.in_use]
        return cls(instruction, tuple(CodebookLabel.of(row, labels.group_of(known, row)) for row in used), version)

    @cached_property
    def labels(self) -> tuple[CodebookLabel, ...]:
        """The labels to choose from, in the order of the columns of all probability arrays."""
        return tuple(node for node in self.nodes if not node.is_group)

    @cached_property
    def groups(self) -> tuple[CodebookLabel, ...]:
        """The groups of labels, outer ones first."""
        return tuple(node for node in self.nodes if node.is_group)

    def held(self, group_id: int | None) -> tuple[CodebookLabel, ...]:
        """Return the labels and groups directly in a group; those at the top for None."""
        return tuple(node for node in self.nodes if node.parent_id == group_id)

    def above(self, node_id: int) -> tuple[CodebookLabel, ...]:
        """Return the groups that a label or group is in, from the top."""
        parent = self.node(node_id).parent_id
        return () if parent is None else (*self.above(parent), self.node(parent))

    def under(self, group_id: int) -> tuple[int, ...]:
        """Return the ids of all labels in a group, at any depth."""
        return tuple(label.id for label in self.labels if group_id in (one.id for one in self.above(label.id)))

    def path(self, node_id: int) -> str:
        """Return the names of a label or group and of all groups it is in, such as “Domain / Category”."""
        return SEPARATOR.join(node.name for node in (*self.above(node_id), self.node(node_id)))

    def node(self, node_id: int) -> CodebookLabel:
        """Return a label or group by id."""
        return self._by_id[node_id]

    @cached_property
    def _by_id(self) -> dict[int, CodebookLabel]:
        return {node.id: node for node in self.nodes}

    @property
    def ids(self) -> tuple[int, ...]:
        """The labels' ids in order."""
        return tuple(label.id for label in self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        """The labels' names in order."""
        return tuple(label.name for label in self.labels)

    def label(self, label_id: int) -> CodebookLabel:
        """Return a label by id."""
        return self.labels[self.ids.index(label_id)]

    def id_of(self, name: str) -> int | None:
        """Return the id of the label with this name, path or label words, ignoring case; None if there is none."""
        words_of = {label.id: label_words(_model_label(label)) for label in self.labels}
        name_, as_words = (text.casefold() for text in (name.strip(), label_words(Label(name))))
        by_name = (label.id for label in self.labels if label.name.casefold() == name_)
        by_path = (label.id for label in self.labels if self.path(label.id).casefold() == name_)
        by_words = (label_id for label_id, words in words_of.items() if words.casefold() in (name_, as_words))
        return next(by_path, next(by_name, next(by_words, None)))

    def task(self) -> Task:
        """Return the task for the model: the instruction and the labels, each with the groups it is in."""
        return Task(self.instruction, tuple(_model_label(label, self.above(label.id)) for label in self.labels))


def _model_label(label: CodebookLabel, above: Iterable[CodebookLabel] = ()) -> Label:
    groups = tuple(Group(group.name, group.definition) for group in above)
    return Label(label.name, label.definition, label.words, label.examples, groups)


def codebook_of(project: Project) -> Codebook:
    """Return the current codebook."""
    instruction, version = questions.read(project.db).instruction, labels.version(project.db)
    return Codebook.of(instruction, labels.every(project.db), version)


def create_project(folder: Path, draft: CodebookDraft, config: RoundConfig | None = None) -> Project:
    """Create a project with a codebook and without utterances. Raises ProjectExists, BadCodebook."""
    draft = draft.checked()
    project = Project(folder, create_database(folder))
    with immediate(project.db):
        settings.put(project.db, "name", draft.name or folder.name)
        questions.instruct(project.db, draft.instruction)
        project.config = replace(config or RoundConfig(), context_turns=draft.context_turns)
        _add(project, draft.labels)
    return project


def _add(project: Project, drafts: Sequence[LabelDraft], group_id: int | None = None) -> None:
    for draft in drafts:
        written: Fields = draft.model_dump(exclude={"labels"}) | ({} if draft.labels is None else {"is_group": 1})
        added = labels.add(project.db, **written, parent_id=group_id)
        _add(project, draft.labels or (), added)
