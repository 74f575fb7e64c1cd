"""A backbone with a task: train it, ask it, save what it has learned, read that back."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from annotator.errors import BackboneChanged, BackboneRefused, NotFinite, ProjectError
from model.backbones.backbone import Backbone
from model.description import description_of, write_description
from model.finite import check_finite
from model.probe.probe import PROBE_FILE, Probe, blank, blend, compare_only, fit_probe
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import label_words
from model.recipe import Recipe, check_recipe
from model.scoring.hidden_states import MADE_OF, spelled
from model.scoring.packing import Bodies
from model.scoring.scoring import make_scorer, score
from model.training.training import Budget, Checkpoint, TrainingExample, train
from model.training.tuning import Tuning, load_tuning, start_tuning, weights_in
from model.types import Frame, Logits, Origin, Progress, States, Task, Utterance, no_progress

_LOG = logging.getLogger(__name__)
_RESTORE = "Restore the folder from a backup, or retrain."


class LanguageModelClassifier:
    """A backbone with a task. Holds one adapter at a time: a new `fit` or `load` retires the last one."""

    def __init__(
        self, backbone: Backbone, task: Task, recipe: Recipe, template: str, frame: Frame | None = None
    ) -> None:
        self.backbone = backbone
        self.task = task
        self.recipe = recipe
        self.tokens = PromptTokens(backbone.tokenizer, backbone.family, task, template, recipe.max_tokens, frame)
        self._scorer = make_scorer(backbone, self.tokens)
        self._read: dict[Utterance, NDArray[np.float32]] = {}

    @property
    def reading(self) -> str:
        """Name all that states depend on: whose weights, and every token around an utterance."""
        around = [*self.tokens.prefix, *self.tokens.suffix]
        return short_hash([MADE_OF, self.origin.fingerprint, self.recipe.quantization, self.recipe.max_tokens, around])

    @property
    def origin(self) -> Origin:
        """From which weights the backbone was loaded."""
        return self.backbone.origin

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Take over states that were computed before, so that they are not again."""
        self._read.update(zip(utterances, states, strict=True))

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Read utterances with nothing trained: (n, width)."""
        found = [self._read.get(utterance) for utterance in utterances]
        read = iter(
            self._states([one for one, known in zip(utterances, found, strict=True) if known is None], progress)
        )
        return np.array([next(read) if known is None else known for known in found], dtype=np.float32)

    def _states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        if not utterances:
            return np.empty((0, 0), dtype=np.float32)
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        own = [self.tokens.own(utterance, body) for utterance, body in zip(utterances, bodies, strict=True)]
        read: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(bodies)

        def ask(row: list[int]) -> None:
            states = self._scorer.states([bodies[i] for i in row], [own[i] for i in row])
            for i, state in zip(row, states.cpu().numpy(), strict=True):
                read[i] = state

        with self.backbone.tuning.off() if self.backbone.tuning else nullcontext():
            self._in_rows(bodies, ask, progress, lead=())  # the mean over an utterance takes all its tokens
        heard = np.array(read)
        check_finite("hidden states", heard)
        return np.hstack([heard, spelled([utterance.text for utterance in utterances], heard.shape[1] // 2)])

    @cached_property
    def described(self) -> States:
        """What the backbone makes of the codebook's words for each label, (k, width): read as if somebody said them.

        The mean over the label's words, its definition and its examples.
        """
        texts = [[label_words(label), label.definition, *label.examples] for label in self.task.labels]
        said = [[Utterance(text) for text in of_label if text.strip()] for of_label in texts]
        read = self._states([one for of_label in said for one in of_label])
        ends = np.cumsum([len(of_label) for of_label in said])[:-1]
        return np.array([part.mean(axis=0) for part in np.split(read, ends)], dtype=np.float32)

    def zero_shot(self) -> RoundAdapter:
        """Answer from the instruction, and compare what has been read with what the codebook says of each label."""
        read = np.array(list(self._read.values()))
        if self.recipe.probe_weight and len(read):
            return self._with(Tuning(self._bare()), compare_only(read, self.described))
        return self._with(
            Tuning(self._bare()), blank(*self.described.T.shape) if self.recipe.probe_weight == 1 else None
        )

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> RoundAdapter:
        """Train a fresh adapter: warm starts generalise worse (Ash and Adams 2020, arXiv 1910.08475).

        After each epoch the state is written to `unfinished`; the same call takes it up there if it is stopped.
        Raises NotFinite, after which nothing is left of it.
        """
        check_recipe(self.recipe)
        probe = fit_probe(self.states(utterances), labels, self.described) if self.recipe.probe_weight else None
        if self.recipe.probe_weight == 1:
            return self._with(Tuning(self._bare()), probe)
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        example = TrainingExample(bodies, np.asarray(labels), self.recipe)
        checkpoint = Checkpoint(unfinished, self._fingerprint(example)) if unfinished else None
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            tuning = start_tuning(self._bare(), self.recipe)
            adapter = self._with(tuning, probe)
            try:
                train(self.backbone, self._scorer, example, progress, checkpoint)
            except NotFinite:  # what has been learned so far led there, and is not to be gone on from
                self._bare()
                if unfinished:
                    unfinished.unlink(missing_ok=True)
                raise
        if unfinished:
            unfinished.unlink(missing_ok=True)
        return adapter

    def load(self, folder: Path) -> RoundAdapter:
        """Read an adapter.

        Raises ProjectError if the folder is not what `RoundAdapter.save` left, BackboneChanged if it was trained with
        other weights than this classifier's.
        """
        described = whole(folder)
        check_origin(described, self.backbone)
        return self._with(load_tuning(self._bare(), folder), _scout_in(folder) if described.get("reading") else None)

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score with whatever adapter is attached now. Raises NotFinite."""
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        result = np.empty((len(bodies), len(self.task.labels)))

        def ask(row: list[int]) -> None:
            texts = [bodies[i] for i in row]
            result[row] = score(self._scorer, texts, self.tokens.trie, self.recipe.tolerance)

        self._in_rows(bodies, ask, progress, self.tokens.lead)
        check_finite("logits", result)
        return result

    def _in_rows(
        self, bodies: Bodies, ask: Callable[[list[int]], None], progress: Progress, lead: Sequence[int]
    ) -> None:
        """Ask about all bodies, as many at once as memory takes, those with a lead apart from those without.

        Their company decides nothing, so that an utterance gets the same numbers in any, rounding included.
        """
        leads = np.array([list(body[: len(lead)]) == list(lead) for body in bodies], dtype=np.bool_)
        budget, done = Budget(self.recipe.scored_tokens), 0

        def ask_within(row: list[int], tokens: int) -> None:
            for part in self._scorer.rows([bodies[i] for i in row], tokens):
                ask([row[i] for i in part])

        with torch.inference_mode(), self._scorer.session(lead) if bodies else nullcontext():
            for places, begin in (
                (np.flatnonzero(leads).tolist(), nullcontext),
                (np.flatnonzero(~leads).tolist(), self._scorer.without_shared),
            ):
                with begin() if places else nullcontext():
                    group = [bodies[i] for i in places]
                    self._scorer.check(group, budget.tokens)
                    for cut in self._scorer.rows(group, budget.tokens):
                        row = [places[i] for i in cut]
                        budget.run(lambda tokens, row=row: ask_within(row, tokens))  # type: ignore[misc]
                        done += len(row)
                        progress(done / len(bodies))

    def _bare(self) -> Backbone:
        if self.backbone.tuning is not None:
            self.backbone.tuning.remove()
            self.backbone.tuning = None
        return self.backbone

    def _with(self, tuning: Tuning, probe: Probe | None = None) -> RoundAdapter:
        self.backbone.tuning = tuning
        return RoundAdapter(self, tuning, probe)

    def _fingerprint(self, example: TrainingExample) -> str:
        """Name what is learned and how: another lesson must not be taken up where this one stopped."""
        told = [
            self.origin.fingerprint,
            self.tokens.prefix,
            asdict(self.recipe),
            example.bodies,
            example.labels.tolist(),
        ]
        return hashlib.sha256(json.dumps(told).encode()).hexdigest()


class RoundAdapter:
    """What one round has learned, attached to its backbone."""

    def __init__(self, classifier: LanguageModelClassifier, tuning: Tuning, probe: Probe | None = None) -> None:
        self._classifier = classifier
        self._tuning = tuning  # every fit and every load makes a new one
        self._probe = probe

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score every label for every utterance: (n, k)."""
        self._check_live()
        owner = self._classifier
        if self._probe is None or not utterances:
            return owner.logits(utterances, progress)
        weight = owner.recipe.probe_weight
        heard = self._probe.loglik(owner.states(utterances, progress if weight == 1 else no_progress))
        return heard if weight == 1 else blend(owner.logits(utterances, progress), heard, weight)

    def heard(self, utterances: Sequence[Utterance]) -> Logits | None:
        """Return what the scout says alone: (n, k); None where there is none."""
        return self._probe.loglik(self._classifier.states(utterances)) if self._probe and utterances else None

    def save(self, folder: Path) -> None:
        """Write weights, if any were trained, and everything needed to score again elsewhere."""
        self._check_live()
        owner = self._classifier
        self._tuning.save(folder)
        if self._probe:
            self._probe.save(folder)
        description = {
            "backbone": owner.backbone.name,
            "template": owner.tokens.template,
            "task": asdict(owner.task),
            "recipe": asdict(owner.recipe),
            "reading": owner.reading if self._probe else None,
            "frame": asdict(owner.tokens.frame),
            **asdict(owner.origin),
        }
        write_description(folder, description)

    def _check_live(self) -> None:
        if self._classifier.backbone.tuning is not self._tuning:
            raise BackboneRefused("This adapter has been replaced by a later one.", "Load it again from its folder.")


def check_origin(described: dict[str, Any], backbone: Backbone) -> None:
    """Refuse weights that are others than those a round was trained with; a round that names none takes any."""
    trained_with = described.get("fingerprint", "")
    if trained_with and trained_with != backbone.origin.fingerprint:
        raise BackboneChanged(
            f"The weights of “{backbone.name}” are others than those this round was trained with.",
            "Put the former weights back, or retrain.",
        )


def whole(folder: Path) -> dict[str, Any]:
    """Return the description of a round. Raises ProjectError if its folder lacks a file that was written."""
    weights_in(folder)
    described = description_of(folder)
    if described.get("reading") and not (folder / PROBE_FILE).is_file():
        raise ProjectError(f"{folder} lacks {PROBE_FILE}.", _RESTORE)
    return described


def _scout_in(folder: Path) -> Probe:
    """Read the scout of a round that has one. Raises ProjectError if it is damaged."""
    try:
        probe = Probe.load(folder)
    except (SafetensorError, OSError, ValueError) as error:
        raise ProjectError(f"{folder / PROBE_FILE} cannot be read: {error}.", _RESTORE) from error
    if probe is None or not all(np.isfinite(array).all() for array in vars(probe).values()):
        raise ProjectError(f"{folder / PROBE_FILE} does not hold what a round has learned.", _RESTORE)
    return probe


def short_hash(content: list[Any]) -> str:
    """Return a short hash of JSON content."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
