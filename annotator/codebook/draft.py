"""Read and write codebook files: YAML with an instruction and labels, which groups may hold at any depth.

The format is described in docs/codebook.md, and for editors and programs in docs/codebook.schema.json.
"""

from __future__ import annotations

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from annotator.errors import BadCodebook, Message
from annotator.i18n import later
from model.prompts.verbalizer import check_words
from model.types import Label

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


SEPARATOR = " / "  # between the names of groups and label in a path


class LabelDraft(BaseModel):
    """A label as written in a codebook file, or a group of labels, which has `labels`."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True)
    name: str = Field(min_length=1, max_length=200)
    definition: str = Field(default="", description="Read by annotators and by the model.")
    examples: list[str] = []
    words: str = Field(default="", description="The words the model predicts for this label, if not its name.")
    key: str = Field(default="", max_length=1, description="Unique in its group; by default the next free one.")
    color: Color = ""
    labels: list[LabelDraft] | None = Field(default=None, description="Makes this entry a group that holds these.")

    @model_validator(mode="before")
    @classmethod
    def _spelled_by_earlier_versions(cls, written: Any) -> Any:
        if not isinstance(written, dict) or "colour" not in written:
            return written
        color = written["colour"]
        return {name: value for name, value in written.items() if name != "colour"} | {
            "color": "gray" if color == "grey" else color
        }

    @model_validator(mode="after")
    def _has_no_answers_as_a_group(self) -> Self:
        if self.labels is not None and (self.examples or self.words):
            raise ValueError("a group is not an answer, so it has neither examples nor words")
        return self


class CodebookDraft(BaseModel):
    """A codebook as written in a file."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)
    name: str = ""
    instruction: str = INSTRUCTION
    speaker: str | None = Field(default=None, description="Only turns of this speaker are labeled.")
    context_turns: int = Field(default=3, ge=0, le=20, description="Turns before an utterance that are read with it.")
    labels: list[LabelDraft] = Field(min_length=1)

    @property
    def leaves(self) -> list[LabelDraft]:
        """The labels to choose from, without the groups, in order."""
        return [leaf for leaf, _ in _leaves(self.labels)]

    def checked(self) -> Self:
        """Return the codebook with a key for every label and group. Raises BadCodebook if labels conflict."""
        check_words([Label(leaf.name, words=leaf.words) for leaf in self.leaves])
        # A file names a label by its name or its path, so that neither may be that of another.
        _refuse_repeated(text for leaf, path in _leaves(self.labels) for text in {_folded(leaf.name), _folded(path)})
        return self.model_copy(update={"labels": _keyed(self.labels)})


def every_draft(drafts: Sequence[LabelDraft]) -> Iterator[LabelDraft]:
    """Yield all labels and groups, each group before what it holds."""
    for draft in drafts:
        yield draft
        yield from every_draft(draft.labels or ())


def _leaves(drafts: Sequence[LabelDraft], above: str = "") -> Iterator[tuple[LabelDraft, str]]:
    """Yield the labels to choose from, each with its path."""
    for draft in drafts:
        if draft.labels is None:
            yield draft, above + draft.name
        else:
            yield from _leaves(draft.labels, f"{above}{draft.name}{SEPARATOR}")


def _refuse_repeated(names: Iterable[str]) -> None:
    if repeated := [name for name, count in Counter(map(_folded, names)).items() if count > 1]:
        raise BadCodebook(
            Message("Label names used twice: {repeated}.", repeated=", ".join(sorted(repeated))),
            "Rename one of each.",
        )


def _folded(name: str) -> str:
    """Return a name without what people do not see or do not mean: its Unicode form and case."""
    return unicodedata.normalize("NFC", name).casefold()


def _keyed(siblings: Sequence[LabelDraft]) -> list[LabelDraft]:
    """Return the labels and groups of a group, each with a key among them."""
    _refuse_repeated(draft.name for draft in siblings)
    chosen = [draft.key.lower() for draft in siblings if draft.key]
    if repeated := {key for key in chosen if chosen.count(key) > 1} | (set(chosen) - set(KEYS)):
        raise BadCodebook(
            Message("Keys used twice or not available: {repeated}.", repeated=", ".join(sorted(repeated))),
            Message("Use each of these at most once: {keys}", keys=KEYS),
        )
    free = iter([key for key in KEYS if key not in chosen] + [""] * len(siblings))
    below = [None if draft.labels is None else _keyed(draft.labels) for draft in siblings]
    return [
        draft.model_copy(update={"key": draft.key.lower() or next(free), "labels": held})
        for draft, held in zip(siblings, below, strict=True)
    ]


def draft_from_names(names: list[str], name: str = "") -> CodebookDraft:
    """Return a codebook of names alone, such as the labels found in a file; paths become groups of labels."""
    return parse_codebook({"name": name, "labels": [{"name": label} for label in names]}, paths=True)


def nested(drafts: list[LabelDraft]) -> list[LabelDraft]:
    """Return labels whose names are paths, such as “Domain / Category”, as groups of labels; others unchanged.

    Names are paths if each has the separator, two begin alike, and the groups make a valid codebook.
    """
    heads = [draft.name.partition(SEPARATOR)[0] for draft in drafts]
    if all(SEPARATOR in draft.name for draft in drafts) and len(set(heads)) < len(heads):
        with suppress(BadCodebook, ValidationError):
            return CodebookDraft(labels=_nested(drafts)).checked().labels
    return drafts


def _nested(drafts: Sequence[LabelDraft]) -> list[LabelDraft]:
    below: dict[tuple[str, bool], list[LabelDraft]] = {}
    for draft in drafts:
        head, _, rest = draft.name.partition(SEPARATOR)
        below.setdefault((head, bool(rest)), []).append(draft.model_copy(update={"name": rest or head}))
    return [
        one
        for (head, is_group), held in below.items()
        for one in ([LabelDraft(name=head, labels=_nested(held))] if is_group else held)
    ]


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
    except RecursionError as error:
        raise BadCodebook("The codebook has too many groups inside each other.", "Use fewer levels.") from error


def parse_codebook(content: Any, paths: bool = False) -> CodebookDraft:
    """Validate the content of a codebook file; `paths`: names may be paths of groups. Raises BadCodebook."""
    try:
        draft = CodebookDraft.model_validate(content)
        return draft.model_copy(update={"labels": nested(draft.labels) if paths else draft.labels}).checked()
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise BadCodebook(
            Message("The codebook cannot be used: {faults}.", faults=faults), "See data/political_promises.yaml."
        ) from error


def codebook_yaml(draft: CodebookDraft) -> str:
    """Return a codebook as YAML that `read_codebook` can read."""
    content = draft.model_dump(exclude_defaults=True) | {"labels": [_plain(label) for label in draft.labels]}
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def schema() -> str:
    """Return the JSON schema of codebook files, as docs/codebook.schema.json has it."""
    return json.dumps(CodebookDraft.model_json_schema(), indent=2) + "\n"


class _Dumper(yaml.SafeDumper):
    """Writes text with Unicode line breaks in double quotes; in other styles YAML reads them as newlines."""


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = '"' if set(text) & set("\x85\u2028\u2029") else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _text)


def _plain(label: LabelDraft) -> dict[str, Any]:
    written = {name: value for name, value in label.model_dump(exclude={"labels"}).items() if value}
    return written | ({"labels": [_plain(one) for one in label.labels]} if label.labels is not None else {})
