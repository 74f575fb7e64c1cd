"""Decide from a row's other columns whether its label is a person's answer.

Annotation tools also export rejected or skipped items and predictions of models, whose labels are not answers. The
rules cover our own exports, those of Prodigy, Label Studio, doccano and Argilla, and similar flat files.
"""

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Any

from annotator.errors import Message
from store.files.readers import Cells

_VERDICTS = {
    *("answer", "approval", "kind", "state", "status", "verdict"),
    *(f"{what}_status" for what in ("annotation", "label", "response", "review", "task")),
}
_NO_ANSWER = {
    *("reject", "rejected", "ignore", "ignored", "skip", "skipped", "discard", "discarded", "cancel", "cancelled"),
    *("canceled", "draft", "pending", "invalid", "declined", "refused", "withdrawn", "none_fits", "out_of_use"),
    *("disputed", "undone", "unlabeled", "unlabelled", "not_accepted", "not_approved", "no_answer"),
}
_NO_ANSWER_IF_TRUE = {
    *("skip", "skipped", "reject", "rejected", "ignore", "ignored", "discard", "discarded", "cancelled", "canceled"),
    *("draft", "invalid", "excluded", "prediction", "predicted", "model", "auto_labeled", "auto_labelled"),
    *("pre_annotated", "preannotated", "pre_labeled", "prelabeled", "machine_labeled", "model_labeled"),
}
_NO_ANSWER_IF_FALSE = {"accept", "accepted", "approved", "confirmed", "manual", "human", "human_labeled"}
_ORIGINS = {
    *("source", "origin", "provenance", "label_source", "label_origin", "annotation_source", "annotation_origin"),
    *("annotation_type", "label_type", "annotator", "annotator_type", "annotated_by", "labeled_by", "labelled_by"),
    *("created_by", "coder", "rater"),
}
_MACHINE = re.compile(
    r"(the_)?(language_)?(model|machine|predict(ion|ions|ed)|auto|automatic|automated|pre_?(annotat|label)\w*|llm|gpt"
    r"|chatgpt|classifier|accepted|auto_?(accepted|labell?ed)|weak_supervision|distant_supervision)([_:.\d].*)?"
)
_MACHINE_COLUMN = re.compile(
    r"(pred|predicted|prediction|suggested|suggestion|model|machine|auto)(_(label|class|category))?"
)
_TRUE, _FALSE = {"true", "1", "1.0", "yes", "y", "t", "x"}, {"false", "0", "0.0", "no", "n", "f"}
_Test = Callable[[str], bool]


def why_no_answer(values: Cells, label_column: str) -> str | None:
    """Return why a row's label is not a person's answer; None if nothing indicates that."""
    label = str(values.get(label_column, "")).strip()
    if _MACHINE_COLUMN.fullmatch(_plain(label_column)):
        return Message(
            "Its label “{label}” was not imported: column “{label_column}” contains predictions, judging by its name.",
            label=label,
            label_column=label_column,
        )
    for column, value in values.items():
        is_no_answer = _test_of(column)
        if is_no_answer is None or column == label_column:
            continue
        for one in _each(value):
            if is_no_answer(_plain(one)):
                return Message(
                    "Its label “{label}” was not imported as a person's answer: column “{column}” contains “{one}”.",
                    label=label,
                    column=column,
                    one=one,
                )
    return None


@lru_cache(maxsize=10_000)
def _test_of(column: str) -> _Test | None:
    """Return a test whether a value in this column means that the label is not an answer; None for most columns."""
    name = re.sub("^(is|was|has_been)_", "", _plain(column))
    tests: list[_Test] = [
        *([_NO_ANSWER.__contains__] if name in _VERDICTS else []),
        *([_TRUE.__contains__] if name in _NO_ANSWER_IF_TRUE else []),
        *([_FALSE.__contains__] if name in _NO_ANSWER_IF_FALSE else []),
        *([lambda value: _MACHINE.fullmatch(value) is not None] if name in _ORIGINS else []),
    ]
    return (lambda value: any(test(value) for test in tests)) if tests else None


def _each(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        yield from (one for one in value if isinstance(one, str))
    elif isinstance(value, str) and value:
        yield value


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "_", name.strip().casefold())
