"""Sorting the worklist of a split: `python -m annotator.codebook.presort FOLDER VERSION`, in a process of its own.

The untrained model reads the utterances of the label that was split and says which part each looks like. That puts
alike ones one after another, the surest first. It is a help and nothing waits for it: where it fails, the worklist
is in the order of the answers.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from annotator.methods.calibration import ZERO_SHOT_TEMPERATURE, Calibrator, label_prior
from annotator.project import Project
from annotator.rounds.batch import AUDIT
from annotator.rounds.worker import LOG, patient
from model.backbones.fingerprint import pinned
from store import annotations, guesses, jobs, labels, rounds, utterances

FEW = 10  # utterances: fewer have been looked at before a backbone is loaded


def start(project: Project, version: int) -> bool:
    """Start to sort what a version left to look at; not while a round runs, and not for a few. Say whether so."""
    if jobs.active(project.db) or len(affected(project, version)) < FEW:
        return False
    command = [
        sys.executable,
        "-m",
        "annotator.codebook.definition.presort",
        str(project.folder.resolve()),
        str(version),
    ]
    with (project.folder / LOG).open("ab") as log:
        subprocess.Popen(
            command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True, env=patient()
        )
    return True


def affected(project: Project, version: int) -> list[int]:
    """Return the utterances a version left to look at, without those that measure the model."""
    audit = set(utterances.ids_in(project.db, AUDIT))
    asked = [row["utterance_id"] for row in annotations.to_look_at(project.db, 0) if row["since"] == version]
    return [i for i in dict.fromkeys(asked) if i not in audit]


def presort(project: Project, version: int) -> int:
    """Let the untrained model guess, in this process; return how many guesses it made.

    What it gives each label whatever it reads is subtracted, as in a first round.
    """
    from model.load import load_classifier  # here, so that starting it imports no torch

    whole = set(labels.events(project.db)[version - 1].labels)
    codebook = project.codebook()
    parts = {row["id"] for row in labels.current(project.db) if row["split_from"] in whole}
    codebook = replace(codebook, labels=tuple(label for label in codebook.labels if label.id in parts))
    ids, config = affected(project, version), project.config
    if len(parts) < 2 or not ids:
        return 0
    backbone = pinned(config.backbone, rounds.revision_of(project.db, config.backbone))
    classifier = load_classifier(backbone, codebook.task(), config.recipe, config.template)
    logits = classifier.zero_shot().logits(project.texts(ids, config.context_turns))
    probabilities = Calibrator(ZERO_SHOT_TEMPERATURE, label_prior(logits))(logits)
    best = [codebook.ids[column] for column in probabilities.argmax(axis=1)]
    pairs = zip(best, probabilities.max(axis=1).tolist(), strict=True)
    guesses.save(project.db, version, dict(zip(ids, pairs, strict=True)))
    return len(ids)


def main() -> None:
    """Sort what the version named on the command line left to look at."""
    with Project.open(Path(sys.argv[1])) as project:
        presort(project, int(sys.argv[2]))


if __name__ == "__main__":
    main()
