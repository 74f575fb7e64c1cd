"""Combine a backbone with a task: train an adapter, score utterances, save and load."""

from __future__ import annotations

import hashlib
import json
import logging
import string
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from annotator.errors import BackboneChanged, BackboneRefused, Message, NotFinite, ProjectError
from model.backbones.backbone import Backbone
from model.backbones.fingerprint import short_hash
from model.description import check_files, check_origin, read_description, write_description
from model.finite import check_finite
from model.probe.probe import PROBE_FILE, Probe, blank, blend, fit_probe, zero_shot_probe
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import label_words
from model.recipe import Recipe, check_recipe
from model.scoring.hidden_states import STATE_FORMAT, spelling_states
from model.scoring.packing import Bodies
from model.scoring.scoring import make_scorer, score
from model.training.training import Budget, Checkpoint, TrainingSet, train
from model.training.tuning import Tuning, load_tuning, start_tuning, weights_in
from model.types import Extent, Frame, Logits, Origin, Progress, States, Task, Utterance, no_progress

_LOG = logging.getLogger(__name__)
_AT_ONCE = 512  # texts whose states are kept before they are written to disk
_RESTORE = "Restore the folder from a backup, or retrain."
_SAMPLE = f"{string.printable} Don't: 12,345.67 · año, Żółć, Füße, ещё, 退款, 返金, 환불, عربي 🫠"


class LanguageModelClassifier:
    """A backbone with a task. Holds one adapter at a time: `fit` and `load` invalidate the previous one."""

    def __init__(
        self, backbone: Backbone, task: Task, recipe: Recipe, template: str, frame: Frame | None = None
    ) -> None:
        self.backbone = backbone
        self.task = task
        self.recipe = recipe
        self.tokens = PromptTokens(backbone.tokenizer, backbone.family, task, template, recipe.max_tokens, frame)
        self._scorer = make_scorer(backbone, self.tokens)
        self._cached_states: dict[Utterance, NDArray[np.float32]] = {}

    @property
    def reading(self) -> str:
        """Return a key of everything states depend on: the weights, and every token around an utterance."""
        around, recipe = [*self.tokens.prefix, *self.tokens.suffix], self.recipe
        weights = recipe.quantization if recipe.precision == "auto" else f"{recipe.quantization}, {recipe.precision}"
        return short_hash([STATE_FORMAT, self.origin.fingerprint, weights, recipe.max_tokens, around])

    @property
    def tokenization(self) -> str:
        """Return a key of the tokens that prompt, labels and a sample of text become: other files change it."""
        tokens, trie = self.tokens, self.tokens.trie
        labels = [trie.edge_nodes.tolist(), trie.edge_tokens.tolist(), trie.edge_labels.tolist()]
        return short_hash([tokens.prefix, tokens.suffix, [*self._scorer.begin], labels, tokens.of_text(_SAMPLE)])

    def keep_in(self, folder: Path) -> None:
        """Keep hidden states of the layers that are not adapted in a folder, so that rounds begin behind them."""
        self._scorer.keep_states(folder, f"{self.reading}, {self.tokenization}")

    @property
    def origin(self) -> Origin:
        """The weights the backbone was loaded from."""
        return self.backbone.origin

    def remember(self, utterances: Sequence[Utterance], states: States) -> None:
        """Cache states that were computed earlier."""
        self._cached_states.update(zip(utterances, states, strict=True))

    def states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        """Return the (n, width) hidden states of the untrained backbone."""
        cached = [self._cached_states.get(utterance) for utterance in utterances]
        missing = [utterance for utterance, state in zip(utterances, cached, strict=True) if state is None]
        computed = iter(self._states(missing, progress))
        return np.array([next(computed) if state is None else state for state in cached], dtype=np.float32)

    def _states(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> States:
        if not utterances:
            return np.empty((0, 0), dtype=np.float32)
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        own_slices = [
            self.tokens.own_slice(utterance, body) for utterance, body in zip(utterances, bodies, strict=True)
        ]
        computed: list[NDArray[np.float32]] = [np.empty(0, dtype=np.float32)] * len(bodies)

        def compute(row: list[int]) -> None:
            states = self._scorer.states([bodies[i] for i in row], [own_slices[i] for i in row])
            for i, state in zip(row, states.cpu().numpy(), strict=True):
                computed[i] = state

        self._read(bodies, compute, progress)
        hidden = np.array(computed)
        check_finite("hidden states", hidden)
        spelling = spelling_states([utterance.text for utterance in utterances], hidden.shape[1] // 2)
        return np.hstack([hidden, spelling])

    def _read(self, bodies: Bodies, compute: Callable[[list[int]], None], progress: Progress) -> None:
        """Compute hidden states of the untrained backbone, and keep those of the lower layers."""
        with self.backbone.tuning.off() if self.backbone.tuning else nullcontext():
            self._for_each_row(bodies, compute, progress, lead=())  # the mean is over all tokens of an utterance
        if self._scorer.kept:
            self._scorer.kept.flush()

    @cached_property
    def label_states(self) -> States:
        """Return (k, width) hidden states of the labels, each text of the codebook encoded like an utterance.

        Each row is the mean over a label's words, definition and examples.
        """
        texts = [[label_words(label), label.definition, *label.examples] for label in self.task.labels]
        by_label = [[Utterance(text) for text in of_label if text.strip()] for of_label in texts]
        states = self._states([one for of_label in by_label for one in of_label])
        ends = np.cumsum([len(of_label) for of_label in by_label])[:-1]
        return np.array([part.mean(axis=0) for part in np.split(states, ends)], dtype=np.float32)

    def zero_shot(self) -> RoundAdapter:
        """Return an untrained adapter, blended with similarities between cached states and those of the labels."""
        states = np.array(list(self._cached_states.values()))
        if self.recipe.probe_weight and len(states):
            return self._attach(Tuning(self._remove_tuning()), zero_shot_probe(states, self.label_states))
        return self._attach(
            Tuning(self._remove_tuning()), blank(*self.label_states.T.shape) if self.recipe.probe_weight == 1 else None
        )

    def fit(
        self,
        utterances: Sequence[Utterance],
        labels: Sequence[int],
        progress: Progress = no_progress,
        unfinished: Path | None = None,
    ) -> RoundAdapter:
        """Train a fresh adapter: warm starts generalize worse (Ash and Adams 2020, arXiv 1910.08475).

        After each epoch the state is written to `unfinished`, from which the same call resumes if it was stopped.
        Raises NotFinite, after discarding that state.
        """
        check_recipe(self.recipe)
        probe = fit_probe(self.states(utterances), labels, self.label_states) if self.recipe.probe_weight else None
        if self.recipe.probe_weight == 1:
            return self._attach(Tuning(self._remove_tuning()), probe)
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        training_set = TrainingSet(bodies, np.asarray(labels), self.recipe)
        checkpoint = Checkpoint(unfinished, self._fingerprint(training_set)) if unfinished else None
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            tuning = start_tuning(self._remove_tuning(), self.recipe)
            adapter = self._attach(tuning, probe)
            try:
                train(self.backbone, self._scorer, training_set, progress, checkpoint)
            except NotFinite:  # resuming from this state would diverge again
                self._remove_tuning()
                if unfinished:
                    unfinished.unlink(missing_ok=True)
                raise
        if unfinished:
            unfinished.unlink(missing_ok=True)
        return adapter

    def load(self, folder: Path) -> RoundAdapter:
        """Load an adapter from its folder.

        Raises ProjectError if the folder is not as `RoundAdapter.save` left it, BackboneChanged if it was trained with
        weights other than this classifier's.
        """
        description = complete_description(folder)
        check_origin(description, self.backbone.name, self.origin)
        if description.get("tokenization") not in (None, self.tokenization):
            raise BackboneChanged(
                Message("“{name}” tokenizes text otherwise than when this round was trained.", name=self.backbone.name),
                "Restore the former files of its tokenizer and its generation_config.json, or retrain.",
            )
        return self._attach(
            load_tuning(self._remove_tuning(), folder), _read_probe(folder) if description.get("reading") else None
        )

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score with the adapter that is attached. Raises NotFinite."""
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        result = np.empty((len(bodies), len(self.task.labels)))

        def compute(row: list[int]) -> None:
            texts = [bodies[i] for i in row]
            result[row] = score(self._scorer, texts, self.tokens.trie, self.recipe.tolerance)

        with self._begun(bodies):
            self._for_each_row(bodies, compute, progress, self.tokens.lead)
        check_finite("logits", result)
        return result

    def _begun(self, bodies: Bodies) -> AbstractContextManager[None]:
        """Begin passes with kept states, after computing those that are missing; not if lower layers are trained."""
        kept, tuning = self._scorer.kept, self.backbone.tuning
        if not kept or (tuning and tuning.unchanged_layers() < kept.depth):
            return nullcontext()
        missing = [body for body in bodies if tuple(body) not in kept]
        for part in (missing[start : start + _AT_ONCE] for start in range(0, len(missing), _AT_ONCE)):
            if not kept.full:
                self._keep(part)
        return self._scorer.begin_with_kept(bodies, self.recipe.scored_tokens)

    def _keep(self, bodies: Bodies) -> None:
        def compute(row: list[int]) -> None:
            texts = [bodies[i] for i in row]
            self._scorer.states(texts, [slice(0, len(body)) for body in texts])

        self._read(bodies, compute, no_progress)

    def _for_each_row(
        self, bodies: Bodies, compute: Callable[[list[int]], None], progress: Progress, lead: Sequence[int]
    ) -> None:
        """Compute all bodies in rows as large as memory allows, those that begin with `lead` apart from the others.

        The split depends on each body alone, so an utterance gets the same numbers, rounding included, in any batch.
        """
        leads = np.array([list(body[: len(lead)]) == list(lead) for body in bodies], dtype=np.bool_)
        budget, done = Budget(self.recipe.scored_tokens), 0

        def compute_within(row: list[int], tokens: int) -> None:
            for part in self._scorer.rows([bodies[i] for i in row], tokens):
                compute([row[i] for i in part])

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
                        budget.run(lambda tokens, row=row: compute_within(row, tokens))  # type: ignore[misc]
                        done += len(row)
                        progress(done / len(bodies))

    def _remove_tuning(self) -> Backbone:
        if self.backbone.tuning is not None:
            self.backbone.tuning.remove()
            self.backbone.tuning = None
        return self.backbone

    def _attach(self, tuning: Tuning, probe: Probe | None = None) -> RoundAdapter:
        self.backbone.tuning = tuning
        return RoundAdapter(self, tuning, probe)

    def _fingerprint(self, training_set: TrainingSet) -> str:
        """Hash the training set and the recipe: a checkpoint must not be resumed with another one.

        Rows and checkpointing may differ, as when a round is resumed with less memory.
        """
        content = [
            self.origin.fingerprint,
            self.tokens.prefix,
            asdict(replace(self.recipe, row_tokens=Recipe.row_tokens, checkpointing=False)),
            training_set.bodies,
            training_set.labels.tolist(),
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


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
        probed = self._probe.loglik(owner.states(utterances, progress if weight == 1 else no_progress))
        return probed if weight == 1 else blend(owner.logits(utterances, progress), probed, weight)

    def probe_logits(self, utterances: Sequence[Utterance]) -> Logits | None:
        """Return the (n, k) logits of the probe alone; None if there is no probe."""
        return self._probe.loglik(self._classifier.states(utterances)) if self._probe and utterances else None

    def extent(self, utterances: Sequence[Utterance]) -> Extent:
        """Count the weights that were trained, and the utterances with characters unknown to the tokenizer."""
        weights, tokens = self._tuning.count(), self._classifier.tokens
        return Extent(**weights, unspelled=sum(not tokens.spells(utterance) for utterance in utterances))

    def save(self, folder: Path) -> None:
        """Write the trained weights, if any, and everything needed to score elsewhere."""
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
            "tokenization": owner.tokenization,
            **asdict(owner.origin),
        }
        write_description(folder, description)

    def _check_live(self) -> None:
        if self._classifier.backbone.tuning is not self._tuning:
            raise BackboneRefused("This adapter has been replaced by a later one.", "Load it again from its folder.")


def complete_description(folder: Path) -> dict[str, Any]:
    """Return the description of a round. Raises ProjectError if a file of its folder is missing or another's."""
    weights_in(folder)
    description = read_description(folder)
    check_files(folder, description)
    if description.get("reading") and not (folder / PROBE_FILE).is_file():
        raise ProjectError(
            Message("{probe_file} is missing from {folder}.", probe_file=PROBE_FILE, folder=folder), _RESTORE
        )
    return description


def _read_probe(folder: Path) -> Probe:
    """Load the probe of a round. Raises ProjectError if it is damaged."""
    try:
        probe = Probe.load(folder)
    except (SafetensorError, OSError, ValueError) as error:
        raise ProjectError(
            Message("{n} cannot be read: {error}.", n=folder / PROBE_FILE, error=error), _RESTORE
        ) from error
    if probe is None or not all(np.isfinite(array).all() for array in vars(probe).values()):
        raise ProjectError(Message("{n} does not contain a trained quick classifier.", n=folder / PROBE_FILE), _RESTORE)
    return probe
