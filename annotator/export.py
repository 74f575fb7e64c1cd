"""The labelled dataset: which rows leave, what each says about where its label came from, and its card."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annotator.consensus import consensus
from annotator.history import summaries
from annotator.project import GIVEN, Project
from store import acceptances, annotations, labels, rounds, utterances
from store.annotations import ADJUDICATED
from store.exporters import FORMATS, Field, export, write_text

Rows = Literal["utterances", "answers"]
SPLITS = {"pool": "train", "audit": "audit"}
ANSWERED = ("label", "none_fits")

FIELDS = (
    Field("id", "text"),
    Field("text", "text"),
    Field("label", "text"),
    Field("given_label", "text"),
    Field("kind", "text"),
    Field("source", "text"),
    Field("annotator", "text"),
    Field("answers", "integer"),
    Field("unsure", "flag"),
    Field("comment", "text"),
    Field("conversation", "text"),
    Field("turn", "number"),
    Field("speaker", "text"),
    Field("slice", "text"),
    Field("round", "integer"),
    Field("strategy", "text"),
    Field("between_rounds", "flag"),
    Field("propensity", "number"),
    Field("pool_size", "integer"),
    Field("suggested_label", "text"),
    Field("suggested_probability", "number"),
    Field("withheld", "text"),
    Field("withheld_label", "text"),
    Field("withheld_probability", "number"),
    Field("codebook_version", "integer"),
    Field("milliseconds", "integer"),
    Field("at", "time"),
    Field("model_round", "integer"),
    Field("probabilities", "probabilities"),
    Field("acceptance", "integer"),
    Field("promise", "text"),
)

MEANINGS = {
    "id": "the id the utterance was imported with",
    "text": "the utterance",
    "label": "the label; empty where none fits",
    "given_label": "the label that was given, also where it counts as another since, or as none",
    "kind": "`label`, `none_fits`, `skip`, or `out_of_use` where the label that was given has been retired or split",
    "source": "`expert`, `adjudicated` (by someone who saw what others had said), `given` (came with the file), "
    "`accepted` (the model's, accepted unseen on a promise) or `model` (its likeliest label, seen by nobody)",
    "annotator": "who answered, or who accepted; several are separated by semicolons",
    "answers": "how many answers the label rests on",
    "unsure": "whether an annotator marked the answer as unsure",
    "comment": "what the annotator noted",
    "conversation": "the conversation it belongs to",
    "turn": "its place in the conversation",
    "speaker": "who said it",
    "slice": "`pool` (may be trained on) or `audit` (drawn at random, only for measuring)",
    "round": "the round that put the utterance before the annotator; empty before the first",
    "strategy": "how the utterance was chosen; `audit` and `random` are unbiased; `bulk` is an answer given at once to "
    "all that a search found, not necessarily read one by one",
    "between_rounds": "whether it was chosen after `round` and before the next, from the answers given up to then; "
    "empty where nobody was asked",
    "propensity": "the chance with which it was drawn; empty where it was chosen, not drawn",
    "pool_size": "how many utterances it was chosen from",
    "suggested_label": "what the annotator was shown; empty if nothing",
    "suggested_probability": "the calibrated probability shown with it",
    "withheld": "why a suggestion was not shown: `chance` (drawn, to measure what suggestions do) or `choice` (the "
    "annotator hides them); empty where it was shown or there was none",
    "withheld_label": "what it would have been",
    "withheld_probability": "the calibrated probability of that",
    "codebook_version": "the version of the codebook that the answer was given under",
    "milliseconds": "time from seeing the utterance to answering",
    "at": "when, in UTC",
    "model_round": "the round the probabilities come from",
    "probabilities": "the calibrated probability of every label, where the model has scored the utterance",
    "acceptance": "the number of the act by which the suggestion was accepted unseen; empty for any other label",
    "promise": "the precision that was certified for what that act accepted, on average, and how surely",
}


@dataclass(frozen=True)
class ExportPlan:
    """What to export. `rows`: one an utterance with its consensus label, or one an answer."""

    format: str = "csv"
    rows: Rows = "utterances"
    with_model: bool = False  # also utterances that only the model has labelled


def export_project(project: Project, path: Path, plan: ExportPlan) -> int:
    """Write the dataset, and its card beside it, and return how many rows it has."""
    count = export(export_rows(project, plan), FIELDS, project.codebook().names, path, plan.format, splits=SPLITS)
    card = path / "README.md" if path.is_dir() else path.with_name(f"{path.stem}.README.md")
    write_text(card, dataset_card(project, plan, count))
    return count


def default_filename(project: Project, plan: ExportPlan) -> str:
    """Name an export after its project."""
    return f"{project.folder.resolve().name}{FORMATS[plan.format].suffix}"


def export_rows(project: Project, plan: ExportPlan) -> Iterator[dict[str, Any]]:
    """Stream the rows in import order; every one says where its label comes from."""
    promoted = rounds.promoted(project.db)
    known = _Known(project, promoted)
    by_utterance = defaultdict(list)
    for answer in annotations.answers(project.db):
        by_utterance[answer["utterance_id"]].append(answer)
    agreed = consensus(answer for group in by_utterance.values() for answer in group)
    for utterance in utterances.iterate(project.db):
        given = by_utterance.get(utterance["id"], [])
        if plan.rows == "answers":
            yield from (known.expert_row(utterance, [answer], answer) for answer in given)
        elif utterance["id"] in agreed:
            voices = [answer for answer in given if answer["kind"] in ANSWERED]
            agreeing = [answer for answer in voices if answer["label_id"] == agreed[utterance["id"]]]
            decisive = max(agreeing, key=lambda answer: (answer["strategy"] == ADJUDICATED, answer["id"]))
            yield known.expert_row(utterance, voices, decisive)
        if any(answer["kind"] in ANSWERED for answer in given):
            continue
        if utterance["id"] in known.accepted:
            yield known.accepted_row(utterance)
        elif plan.with_model:
            yield from known.model_row(utterance)


class _Known:
    """What all rows need: label names, round numbers, predictions."""

    def __init__(self, project: Project, promoted: Mapping[str, Any] | None) -> None:
        self.names = labels.names(project.db)
        self.numbers = {row["id"]: row["number"] for row in rounds.history(project.db)}
        self.round = promoted["number"] if promoted else None
        self.accepted = {row["utterance_id"]: row for row in acceptances.standing(project.db)}
        self.predicted: dict[int, dict[str, float]] = {}
        if promoted:
            found = rounds.predictions_of(project.db, promoted)
            known = [i not in found.unknown for i in found.label_ids]
            order = [self.names[i] for i, is_known in zip(found.label_ids, known, strict=True) if is_known]
            rows = np.round(found.probabilities[:, known], 6).tolist()
            self.predicted = {
                int(i): dict(zip(order, row, strict=True)) for i, row in zip(found.utterance_ids, rows, strict=True)
            }

    def expert_row(
        self, utterance: Mapping[str, Any], voices: list[dict[str, Any]], chosen: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Describe an utterance that people have answered."""
        return {
            **self._about(utterance),
            "label": self.names.get(chosen["label_id"]),
            "given_label": self.names.get(chosen["said_label_id"]),
            "kind": chosen["kind"],
            "source": chosen["strategy"] if chosen["strategy"] in (GIVEN, ADJUDICATED) else "expert",
            "annotator": ";".join(dict.fromkeys(answer["annotator"] for answer in voices)),
            "answers": len(voices),
            "unsure": any(answer["unsure"] for answer in voices),
            "comment": "\n".join(answer["comment"] for answer in voices if answer["comment"]),
            "round": self.numbers.get(chosen["round_id"]),
            **{key: chosen[key] for key in ("strategy", "propensity", "pool_size", "codebook_version", "milliseconds")},
            "between_rounds": chosen["heard"] is not None,
            "suggested_label": self.names.get(chosen["suggested_label_id"]),
            "suggested_probability": chosen["suggested_probability"],
            "withheld": chosen["withheld"] or None,
            "withheld_label": self.names.get(chosen["withheld_label_id"]),
            "withheld_probability": chosen["withheld_probability"],
            "at": chosen["at"],
            "acceptance": None,
            "promise": None,
        }

    def accepted_row(self, utterance: Mapping[str, Any]) -> dict[str, Any]:
        """Describe an utterance whose suggestion was accepted unseen, by its label then, whatever is likeliest now."""
        act = self.accepted[utterance["id"]]
        row = dict.fromkeys(field.name for field in FIELDS) | self._about(utterance)
        return row | {
            "label": self.names[act["label_id"]],
            "given_label": self.names[act["said_label_id"]],
            "kind": "label",
            "source": "accepted",
            "annotator": act["annotator"],
            "answers": 0,
            "unsure": False,
            "round": self.numbers[act["round_id"]],
            "codebook_version": act["codebook_version"],
            "suggested_label": self.names[act["label_id"]],
            "suggested_probability": act["probability"],
            "at": act["at"],
            "acceptance": act["acceptance_id"],
            "promise": promised(act),
        }

    def model_row(self, utterance: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Describe an utterance that only the model has labelled; nothing if it has not been scored."""
        predicted = self.predicted.get(utterance["id"])
        if predicted:
            best = max(predicted, key=lambda name: predicted[name])
            row = dict.fromkeys(field.name for field in FIELDS) | self._about(utterance)
            yield row | {"label": best, "kind": "label", "source": "model", "answers": 0, "unsure": False}

    def _about(self, utterance: Mapping[str, Any]) -> dict[str, Any]:
        predicted = self.predicted.get(utterance["id"])
        same = {key: utterance[key] for key in ("text", "conversation", "turn", "speaker", "slice")}
        known = {"model_round": self.round if predicted else None, "probabilities": predicted}
        return {"id": utterance["external_id"], **same, **known}


def dataset_card(project: Project, plan: ExportPlan, count: int) -> str:
    """Write the README of an exported dataset: codebook, counts, how the utterances were chosen, rounds."""
    parts = [
        f"# {project.name}",
        f"{count} rows, exported as {FORMATS[plan.format].shown}, one {plan.rows.rstrip('s')} a row.",
        f"## Codebook, version {project.codebook().version}\n\n{project.codebook().instruction}",
        "\n".join(
            f"- **{label.name}**: {label.definition or '(no definition)'}" for label in project.codebook().labels
        ),
        "\n".join(_out_of_use(project)),
        "## Counts\n\n" + _counts(project, plan),
        "## Before you compute anything\n\n" + _WARNING,
        "## Accepted unseen\n\n" + _accepted(project),
        "## Rounds\n\n" + _rounds(project),
        "## Columns\n\n" + "\n".join(f"- `{field.name}`: {MEANINGS[field.name]}" for field in FIELDS),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _out_of_use(project: Project) -> Iterator[str]:
    """Say what became of the labels that may no longer be given."""
    known = labels.names(project.db)
    for row in labels.every(project.db):
        if row["merged_into"] is not None:
            yield f"- *{row['name']}* was merged; its answers count as *{known[row['counts_as']]}*."
        elif row["retired_at"] is not None:
            yield f"- *{row['name']}* is out of use; its answers count as no label."


def promised(act: Mapping[str, Any]) -> str:
    """Put an acceptance's promise into words."""
    return f"at least {act['target']:.0%} right, at {act['confidence']:.0%} confidence"


def _accepted(project: Project) -> str:
    """List every act of accepting unseen, those that ended too."""
    lines = ["| acceptance | round | suggestions | promise | spot checks | found wrong | now |", "|---" * 7 + "|"]
    for act in reversed(acceptances.history(project.db)):
        now = f"{act['ended']}: {act['reason']}" if act["ended"] else "stands"
        cells = (act["id"], act["round_number"], act["size"], promised(act), act["checks"], act["errors"], now)
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) if len(lines) > 2 else "No suggestion has been accepted unseen."


_WARNING = (
    "Only rows with `slice` = `audit` or `strategy` = `random` are a random sample. The others were chosen because "
    "the model was unsure: shares of labels and accuracies computed from them describe the choice, not the data. "
    "Rows with `source` = `model` or `accepted` were seen by nobody. The promise of the latter holds for all that one "
    "act accepted, on average, and not for each label or each row."
)


def _counts(project: Project, plan: ExportPlan) -> str:
    table: Counter[tuple[str, str, str]] = Counter(
        (row["label"] or row["kind"], row["source"], row["slice"]) for row in export_rows(project, plan)
    )
    lines = [f"| {label} | {source} | {part} | {n} |" for (label, source, part), n in sorted(table.items())]
    return "\n".join(["| label | source | slice | rows |", "|---|---|---|---|", *lines])


def _rounds(project: Project) -> str:
    lines = [
        "| round | backbone | trained on | audit answers | accuracy (95 % interval) | NLL | ECE |",
        "|---" * 7 + "|",
    ]
    for one in reversed(summaries(project)):
        if one.state == "promoted":
            accuracy = f"{one.accuracy} ({one.interval})" if one.accuracy else "not measured"
            cells = (one.number, one.backbone, one.trained_on, one.audited_on, accuracy, one.nll, one.ece)
            lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines)
