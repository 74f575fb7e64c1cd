"""Compare log-likelihoods with plain transformers, one label at a time, at each stage of a model's life."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from annotator.errors import AnnotatorError
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.restore import restore
from model.types import Utterance
from tests.model import tiny

TASK = tiny.LABEL_SETS["words that begin one another"]
TEXTS = [*tiny.UTTERANCES[:2], Utterance("I want my money back. " * 12), tiny.UTTERANCES[3]]
CLOSE = 1e-4  # nats


@dataclass
class Finding:
    """What came of an architecture: its largest differences in nats at each stage, or why it was refused."""

    name: str
    alone: float | None = None
    together: float | None = None
    trained: float | None = None
    restored: float | None = None
    refused: str = ""
    hint: str = ""
    wrong: str = ""

    @property
    def equal(self) -> bool:
        stages = (self.alone, self.together, self.trained, self.restored)
        return all(off is not None and off <= CLOSE for off in stages)


def examine(name: str, folder: str) -> Finding:
    """Load, score, train two steps, score, save and restore a model; never raises what the product raises."""
    found = Finding(name)
    try:
        _live(found, folder)
    except AnnotatorError as error:
        found.refused, found.hint = str(error.message), str(error.hint)
        found.wrong = "" if found.hint else "refused without a hint"
    except Exception as error:
        found.wrong = f"{type(error).__name__}: {error}"
    if not (found.equal or found.refused or found.wrong):
        found.wrong = "other numbers than plain transformers"
    return found


def _live(found: Finding, folder: str) -> None:
    backbone = load_backbone(folder)
    classifier = LanguageModelClassifier(backbone, TASK, tiny.quick(epochs=2), "options")
    zero_shot = classifier.zero_shot()
    together = zero_shot.logits(TEXTS)
    alone = np.concatenate([zero_shot.logits([text]) for text in TEXTS])
    expected = plainly(classifier, _plain(folder))
    found.alone, found.together = _off(alone, expected), _off(together, expected)
    adapter = classifier.fit(TEXTS, [0, 1, 2, 3])
    after = adapter.logits(TEXTS)
    expected = plainly(classifier, backbone.model)
    found.trained = _off(after, expected)
    if np.abs(after - together).max() < 1e-3:
        found.wrong = "training changes nothing"
    with tempfile.TemporaryDirectory() as kept:
        adapter.save(Path(kept))
        found.restored = _off(restore(Path(kept)).logits(TEXTS), expected)


def _plain(folder: str) -> Any:
    """Load a model by transformers alone."""
    config = transformers.AutoConfig.from_pretrained(folder)
    kind = transformers.AutoModelForSeq2SeqLM if config.is_encoder_decoder else transformers.AutoModelForCausalLM
    return kind.from_pretrained(folder, dtype=torch.float32).eval()


@torch.inference_mode()
def plainly(classifier: LanguageModelClassifier, model: Any) -> np.ndarray:
    """Return (n, k) log-likelihoods computed one label at a time, without a cache, a mask or a batch."""
    rows = []
    for text in TEXTS:
        prompt = [*classifier.tokens.prefix, *classifier.tokens.body(text)]
        rows.append([_alone(model, prompt, answer) for answer in tiny.answers(classifier.tokens)])
    return np.array(rows)


def _alone(model: Any, prompt: list[int], answer: list[int]) -> float:
    if not model.config.is_encoder_decoder:
        return float(tiny._causal_alone(model, prompt, answer))
    forced = model.generation_config.forced_bos_token_id
    start = model.config.decoder_start_token_id
    begin = [model.config.decoder.bos_token_id if start is None else start, *([] if forced is None else [forced])]
    asked, said = (torch.tensor([ids]) for ids in (prompt, [*begin, *answer[:-1]]))
    logits = model(input_ids=asked, decoder_input_ids=said, use_cache=False).logits[0]
    return float(tiny._sum(logits[len(begin) - 1 :], answer))


def _off(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max())
