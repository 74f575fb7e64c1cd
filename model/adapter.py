"""LoRA and QLoRA: attach an adapter to a backbone, score with it, save it, load it. The backbone stays frozen."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import peft
import torch
from safetensors.torch import save_file

from annotator.errors import BackboneRefused, ProjectError
from model.backbone import Backbone, load_backbone
from model.classifier import Logits, Progress, no_progress
from model.recipe import Recipe, read_recipe
from model.scoring import make_scorer, score
from model.task import Label, Task, Utterance
from model.tokens import PromptTokens
from model.training import Budget, train

_NAME = "round"
_WEIGHTS = "adapter_model.safetensors"
_CONFIG = "adapter_config.json"
_DESCRIPTION = "round.json"


class LoraClassifier:
    """A backbone with a task. Holds one adapter at a time: a new `fit` or `load` retires the last one."""

    def __init__(self, backbone: Backbone, task: Task, recipe: Recipe, template: str) -> None:
        self.backbone = backbone
        self.task = task
        self.recipe = recipe
        self.tokens = PromptTokens(backbone.tokenizer, backbone.family, task, template, recipe.max_tokens)
        self._scorer = make_scorer(backbone, self.tokens)

    def zero_shot(self) -> LoraAdapter:
        """Answer from the instruction alone, without any adapter."""
        self._detach()
        return LoraAdapter(self)

    def fit(
        self, utterances: Sequence[Utterance], labels: Sequence[int], progress: Progress = no_progress
    ) -> LoraAdapter:
        """Train a fresh adapter: warm starts generalise worse (Ash and Adams 2020, arXiv 1910.08475)."""
        self._detach()
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        with torch.random.fork_rng():
            torch.manual_seed(self.recipe.seed)
            self.backbone.model = self._attach_fresh()
            train(self.backbone.model, self._scorer, bodies, np.asarray(labels), self.recipe, progress)
        return LoraAdapter(self)

    def load(self, folder: Path) -> LoraAdapter:
        """Read an adapter. Raises ProjectError if the folder is not what `LoraAdapter.save` left."""
        self._detach()
        if _has_weights(folder):
            model = peft.PeftModel.from_pretrained(self.backbone.model, str(folder), adapter_name=_NAME)
            self.backbone.model = model.eval()
        return LoraAdapter(self)

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score with whatever adapter is attached now."""
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        result = np.empty((len(bodies), len(self.task.labels)))
        budget, done = Budget(self.recipe.row_tokens), 0

        def ask(row: list[int], tokens: int) -> None:
            for part in self._scorer.rows([bodies[i] for i in row], tokens):
                chosen = [row[i] for i in part]
                texts = [bodies[i] for i in chosen]
                result[chosen] = score(self._scorer, texts, self.tokens.trie, self.recipe.tolerance)

        with torch.inference_mode(), self._scorer.session() if bodies else nullcontext():
            for row in self._scorer.rows(bodies, budget.tokens):
                budget.run(lambda tokens, row=row: ask(row, tokens))  # type: ignore[misc]
                done += len(row)
                progress(done / len(bodies))
        return result

    def _attach_fresh(self) -> Any:
        recipe = self.recipe
        config = peft.LoraConfig(
            r=recipe.rank,
            lora_alpha=recipe.alpha,
            lora_dropout=recipe.dropout,
            target_modules=recipe.target_modules,
            exclude_modules=_all_layers_but(recipe.layers) if recipe.layers else None,
            use_rslora=recipe.rslora,
            use_dora=recipe.dora,
            task_type="CAUSAL_LM" if self.backbone.family == "causal" else "SEQ_2_SEQ_LM",
        )
        with warnings.catch_warnings():
            # peft 0.21 asks transformers 5.23 by a name that goes away in version 6
            warnings.filterwarnings("ignore", ".is_gradient_checkpointing. is deprecated", FutureWarning)
            return peft.get_peft_model(self.backbone.model, config, adapter_name=_NAME)

    def _detach(self) -> None:
        if isinstance(self.backbone.model, peft.PeftModel):
            self.backbone.model = self.backbone.model.unload()


class LoraAdapter:
    """What one round has learned, attached to its backbone."""

    def __init__(self, classifier: LoraClassifier) -> None:
        self._classifier = classifier
        self._model = classifier.backbone.model  # every fit and every load makes a new one

    def logits(self, utterances: Sequence[Utterance], progress: Progress = no_progress) -> Logits:
        """Score every label for every utterance: (n, k)."""
        self._check_live()
        return self._classifier.logits(utterances, progress)

    def save(self, folder: Path) -> None:
        """Write weights, if any were trained, and everything needed to score again elsewhere."""
        self._check_live()
        owner = self._classifier
        model = owner.backbone.model
        if isinstance(model, peft.PeftModel):
            state = peft.get_peft_model_state_dict(model, adapter_name=_NAME)
            save_file({name: tensor.contiguous().cpu() for name, tensor in state.items()}, folder / _WEIGHTS)
            model.peft_config[_NAME].save_pretrained(folder)  # _CONFIG
        description = {
            "backbone": owner.backbone.name,
            "template": owner.tokens.template,
            "task": asdict(owner.task),
            "recipe": asdict(owner.recipe),
        }
        (folder / _DESCRIPTION).write_text(json.dumps(description, indent=2, ensure_ascii=False), encoding="utf-8")

    def _check_live(self) -> None:
        if self._classifier.backbone.model is not self._model:
            raise BackboneRefused("This adapter has been replaced by a later one.", "Load it again from its folder.")


def _all_layers_but(layers: Sequence[int]) -> str:
    """Match the modules of all other layers. peft takes numbers of layers only with a list of module names."""
    return rf".*\.(layers|block)\.(?!({'|'.join(map(str, layers))})\.)\d+\..*"


def restore(folder: Path) -> LoraAdapter:
    """Load the backbone a folder names and the adapter in it. Raises ProjectError, BackboneMissing."""
    _has_weights(folder)
    described = json.loads((folder / _DESCRIPTION).read_text(encoding="utf-8"))
    labels = (Label(**{**label, "examples": tuple(label["examples"])}) for label in described["task"]["labels"])
    task, recipe = Task(described["task"]["instruction"], tuple(labels)), read_recipe(described["recipe"])
    backbone = load_backbone(described["backbone"], recipe.quantization)
    return LoraClassifier(backbone, task, recipe, described["template"]).load(folder)


def _has_weights(folder: Path) -> bool:
    """Tell a round with weights from a zero-shot one. Only safetensors: other formats can run code when opened."""
    found = {path.name for path in folder.glob("*")}
    trained = any(name.startswith("adapter_") for name in found)
    missing = {_DESCRIPTION, *((_WEIGHTS, _CONFIG) if trained else ())} - found
    if missing:
        raise ProjectError(
            f"{folder} lacks {' and '.join(sorted(missing))}.", "Restore the folder from a backup, or retrain."
        )
    return trained
