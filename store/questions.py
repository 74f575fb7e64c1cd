"""Store questions: what a project asks of its utterances or conversations. At present each project has one."""

from dataclasses import dataclass
from typing import Literal

from sqlite_utils import Database

from store.database import immediate, select

FIRST = 1  # the question that every project has

Kind = Literal["single", "multi", "ordinal"]
Unit = Literal["utterance", "conversation"]


@dataclass(frozen=True)
class Question:
    """A question: its instruction, what it is asked of, and how it is answered."""

    id: int
    name: str  # of its columns in exports; empty if it is the only question
    instruction: str
    kind: Kind
    unit: Unit
    applies_json: str  # the units it is asked of; {} for all
    none_fits_since: int  # answers “none fits” given under an earlier version of the codebook need a review


def read(db: Database, question_id: int = FIRST) -> Question:
    """Return a question."""
    (found,) = select(db, Question, "FROM question WHERE id = ?", (question_id,))
    return found


def instruct(db: Database, instruction: str, question_id: int = FIRST) -> None:
    """Set the first instruction of a question. Later changes are made by `store/labels.py`, which keeps a history."""
    with immediate(db):
        db.execute("UPDATE question SET instruction = ? WHERE id = ?", (instruction, question_id))
