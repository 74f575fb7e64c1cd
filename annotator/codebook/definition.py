"""Define the codebook: read it from YAML, store its labels, and turn it into the model's task."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotator.config import RoundConfig
from annotator.errors import BadCodebook, Message
from annotator.i18n import later
from annotator.project import Project
from model.prompts.verbalizer import check_words, label_words
from model.types import Label, Task
from store import labels, questions, settings
from store.database import create_database, immediate

INSTRUCTION = "Choose the label that fits the utterance."
# One key per label. C and R are shortcuts of the browser; s, u, n, q and m are taken on the label page.
KEYS = "1234567890abdefghijklopvwxyz"
# Ten colors with a contrast of 3:1 to the light and the dark background. Name and key are always shown as well.
COLORS = MappingProxyType(
    {
        later("blue"): "#1f7fb8",
        later("orange"): "#b3661a",
        later("green"): "#3f8f4a",
        later("pink"): "#b8478f",
        later("violet"): "#7b6fc4",
        later("ochre"): "#a8801f",
        later("brick"): "#c0504d",
        later("teal"): "#3a8f8f",
        later("gray"): "#7d7d7d",
        later("brown"): "#8f6b4e",
    }
)
Color = Literal["", "blue", "orange", "green", "pink", "violet", "ochre", "brick", "teal", "gray", "brown"]


class LabelDraft(BaseModel):
    """A label as written in a codebook file."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True)
    name: str = Field(min_length=1, max_length=200)
    definition: str = ""
    examples: list[str] = []
    words: str = ""
    key: str = Field("", max_length=1)
    color: Color = ""

    @model_validator(mode="before")
    @classmethod
    def _spelled_by_earlier_versions(cls, written: Any) -> Any:
        if not isinstance(written, dict) or "colour" not in written:
            return written
        color = written["colour"]
        return {name: value for name, value in written.items() if name != "colour"} | {
            "color": "gray" if color == "grey" else color
        }


class CodebookDraft(BaseModel):
    """A codebook as written in a file. `speaker`: only turns of this speaker are labeled."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = ""
    instruction: str = INSTRUCTION
    speaker: str | None = None
    context_turns: int = Field(3, ge=0, le=20)
    labels: list[LabelDraft] = Field(min_length=2)

    def checked(self) -> Self:
        """Return the codebook with a key for every label. Raises BadCodebook if labels conflict."""
        check_words([Label(label.name, words=label.words) for label in self.labels])
        names = [label.name.casefold() for label in self.labels]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise BadCodebook(
                Message("Label names used twice: {repeated}.", repeated=", ".join(sorted(repeated))),
                "Rename one of each.",
            )
        chosen = [label.key.lower() for label in self.labels if label.key]
        if repeated := {key for key in chosen if chosen.count(key) > 1} | (set(chosen) - set(KEYS)):
            raise BadCodebook(
                Message("Keys used twice or not available: {repeated}.", repeated=", ".join(sorted(repeated))),
                Message("Use each of these at most once: {keys}", keys=KEYS),
            )
        free = iter([key for key in KEYS if key not in chosen] + [""] * len(self.labels))
        keyed = [label.model_copy(update={"key": label.key.lower() or next(free)}) for label in self.labels]
        return self.model_copy(update={"labels": keyed})


@dataclass(frozen=True)
class CodebookLabel:
    """A label of a project, with its permanent id."""

    id: int
    name: str
    definition: str
    examples: tuple[str, ...]
    words: str
    key: str
    color: str = ""

    @classmethod
    def of(cls, row: labels.Label) -> Self:
        """Return a stored label; one without a color gets one by its id."""
        color = row.color or list(COLORS)[(row.id - 1) % len(COLORS)]
        return cls(row.id, row.name, row.definition, row.examples, row.words, row.key, color)


@dataclass(frozen=True)
class Codebook:
    """The labels in use, in the order of the columns of all probability arrays."""

    instruction: str
    labels: tuple[CodebookLabel, ...]
    version: int

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
        """Return the id of the label with this name or these label words, ignoring case; None if there is none."""
        words_of = {label.id: label_words(_model_label(label)) for label in self.labels}
        name_, as_words = (text.casefold() for text in (name.strip(), label_words(Label(name))))
        by_name = (label.id for label in self.labels if label.name.casefold() == name_)
        by_words = (label_id for label_id, words in words_of.items() if words.casefold() in (name_, as_words))
        return next(by_name, next(by_words, None))

    def task(self) -> Task:
        """Return the task for the model: the instruction and the labels."""
        return Task(self.instruction, tuple(_model_label(label) for label in self.labels))


def _model_label(label: CodebookLabel) -> Label:
    return Label(label.name, label.definition, label.words, label.examples)


def draft_from_names(names: list[str], name: str = "") -> CodebookDraft:
    """Return a codebook of names alone, such as the labels found in a file."""
    return parse_codebook({"name": name, "labels": [{"name": label} for label in names]})


def read_labels(text: str, known: Sequence[str] = ()) -> list[dict[str, str]]:
    """Parse labels, one per line, as “name: definition”; names in `known` may contain a colon."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        longest = max((name for name in known if line == name or line.startswith(f"{name}:")), key=len, default="")
        name, _, definition = (longest, "", line[len(longest) + 1 :]) if longest else _at_colon(line)
        found.append({"name": name.strip(), "definition": definition.strip()})
    return found


def _at_colon(line: str) -> tuple[str, str, str]:
    # Only a colon before a space or at the end separates: “7:30” is a name.
    name, colon, definition = (line + " ").partition(": ")
    return name, colon, definition


def read_codebook(path: Path) -> CodebookDraft:
    """Read a YAML codebook from a file. Raises BadCodebook, which names the line or field at fault."""
    if not path.is_file():
        raise BadCodebook(Message("There is no codebook file {path}.", path=path), "Check the path.")
    try:
        return parse_codebook_text(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise BadCodebook(
            Message("The codebook {path} is not UTF-8 text: {error}.", path=path, error=error), "Save it as UTF-8."
        ) from error


def parse_codebook_text(text: str) -> CodebookDraft:
    """Read a YAML codebook from text. Raises BadCodebook."""
    try:
        return parse_codebook(yaml.safe_load(text))
    except yaml.YAMLError as error:
        raise BadCodebook(
            Message("The codebook is not valid YAML: {error}", error=error), "See data/political_promises.yaml."
        ) from error


def parse_codebook(content: Any) -> CodebookDraft:
    """Validate the content of a codebook file. Raises BadCodebook."""
    try:
        return CodebookDraft.model_validate(content).checked()
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BadCodebook(
            Message("The codebook cannot be used: {faults}.", faults=faults), "See data/political_promises.yaml."
        ) from error


def codebook_yaml(draft: CodebookDraft) -> str:
    """Return a codebook as YAML that `read_codebook` can read."""
    content = draft.model_dump(exclude_defaults=True) | {"labels": [_plain(label) for label in draft.labels]}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Writes text with Unicode line breaks in double quotes; in other styles YAML reads them as newlines."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _plain(label: LabelDraft) -> dict[str, Any]:
    return {key: value for key, value in label.model_dump().items() if value}


def codebook_of(project: Project) -> Codebook:
    """Return the current codebook."""
    rows = tuple(CodebookLabel.of(row) for row in labels.current(project.db))
    return Codebook(questions.read(project.db).instruction, rows, labels.version(project.db))


def create_project(folder: Path, draft: CodebookDraft, config: RoundConfig | None = None) -> Project:
    """Create a project with a codebook and without utterances. Raises ProjectExists, BadCodebook."""
    draft = draft.checked()
    project = Project(folder, create_database(folder))
    with immediate(project.db):
        settings.put(project.db, "name", draft.name or folder.name)
        questions.instruct(project.db, draft.instruction)
        project.config = replace(config or RoundConfig(), context_turns=draft.context_turns)
        for label in draft.labels:
            labels.add(project.db, **label.model_dump())
    return project
