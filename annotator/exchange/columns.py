"""The columns of an exported dataset and their meanings."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import get_args, get_type_hints

from store.files.exporters import Field, Kind


@dataclass(frozen=True, kw_only=True)
class ExportRow:
    """A row of an exported dataset: its columns in their order, None where empty, and those of the imported file."""

    id: str
    text: str
    label: str | None = None
    label_path: str | None = None
    given_label: str | None = None
    kind: str = "label"
    source: str = ""
    annotator: str | None = None
    answers: int = 0
    answers_given: str | None = None
    unsure: bool = False
    comment: str | None = None
    conversation: str | None = None
    turn: float | None = None
    speaker: str | None = None
    slice: str
    round: int | None = None
    strategy: str | None = None
    between_rounds: bool | None = None
    propensity: float | None = None
    pool_size: int | None = None
    suggested_label: str | None = None
    suggested_probability: float | None = None
    withheld: str | None = None
    withheld_label: str | None = None
    withheld_probability: float | None = None
    codebook_version: int | None = None
    milliseconds: int | None = None
    at: datetime | None = None
    model_round: int | None = None
    probabilities: Mapping[str, float] | None = None
    acceptance: int | None = None
    promise: str | None = None
    imported: dict[str, object] = field(default_factory=dict)  # by the names of its columns in the export

    def cells(self) -> dict[str, object]:
        """Return the row by column."""
        cells = vars(self) | self.imported
        if "imported" not in self.imported:  # a file may have a column of this name
            del cells["imported"]
        return cells


_KINDS: dict[type, Kind] = {str: "text", int: "integer", float: "number", bool: "flag", datetime: "time"}
_TYPES = {name: next(iter(get_args(hint)), hint) for name, hint in get_type_hints(ExportRow).items()}
FIELDS = tuple(Field(name, _KINDS.get(kind, "probabilities")) for name, kind in _TYPES.items() if name != "imported")

MEANINGS = {
    "id": "the id the utterance was imported with",
    "text": "the utterance",
    "label": "the label; empty if there is none (see `kind`)",
    "label_path": "the label behind the names of the groups it is in",
    "given_label": "the label as originally given, even if it has since been merged or retired",
    "kind": "`label`, `none_fits`, `disputed` (people's answers are tied), `skip` (people have only skipped it), or "
    "`out_of_use` (the label of the answer has been retired or split)",
    "source": "`expert`, `adjudicated` (by someone who saw the others' answers), `given` (imported with the file), "
    "`accepted` (an auto-accepted suggestion) or `model` (the model's likeliest label, not reviewed by anyone)",
    "annotator": "who answered, skipped or accepted; several names are separated by semicolons",
    "answers": "how many people have answered with a label or “none fits”",
    "answers_given": "all standing answers, as a JSON list of objects with `annotator`, `source`, `kind` and `label`, "
    "including an imported label that a person has since replaced; empty if each row is one answer",
    "unsure": "whether an annotator marked the answer as unsure",
    "comment": "the comment of the annotator",
    "conversation": "the conversation it belongs to",
    "turn": "its place in the conversation",
    "speaker": "who said it",
    "slice": "`pool` (may be trained on) or `audit` (drawn at random, for evaluation only)",
    "round": "the round that selected the utterance for labeling; empty before the first round",
    "strategy": "how the utterance was selected; `audit` and `random` are unbiased; `bulk` is one answer for all "
    "results of a search, which were not necessarily read one by one",
    "between_rounds": "whether it was selected between `round` and the next one, using the answers given until then; "
    "empty if nobody was asked",
    "propensity": "the probability with which it was drawn at random; empty if it was not",
    "pool_size": "the number of utterances it was selected from",
    "suggested_label": "the suggestion that the annotator saw; empty if none was shown",
    "suggested_probability": "its calibrated probability",
    "withheld": "why a suggestion was not shown: `chance` (at random, to measure anchoring) or `choice` (the annotator "
    "hides suggestions); empty if it was shown or there was none",
    "withheld_label": "the suggestion that was not shown",
    "withheld_probability": "its calibrated probability",
    "codebook_version": "the version of the codebook that the answer was given under",
    "milliseconds": "time from seeing the utterance to answering",
    "at": "date and time, in UTC",
    "model_round": "the round that the probabilities come from",
    "probabilities": "the calibrated probability of every label, if the model has scored the utterance",
    "acceptance": "the number of the auto-acceptance that the label comes from; empty for any other label",
    "promise": "the certified average precision of that auto-acceptance, with its confidence",
}
