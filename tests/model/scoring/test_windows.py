"""Layers with a window attend to the same window in a packed row; models that cannot are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from annotator.errors import BackboneRefused, NotFinite, UtteranceTooLong
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.scoring.causal import CausalScorer
from model.scoring.windows import Windows
from model.types import Utterance
from tests.model import tiny, windows
from tests.model.scoring.test_scoring import NESTED, assert_close, classifier_of, lora_weights, plainly
from tests.model.tiny import UTTERANCES, brute_force

LONG = [Utterance("I want my money back. " * times + f"number {times}") for times in (1, 3, 9, 20)]
TEXTS = [*LONG, *UTTERANCES]


def learned_from(classifier: LanguageModelClassifier, texts: list[Utterance], budget: int) -> np.ndarray:
    """Return the log-likelihoods used in training: uncached rows with the whole trie."""
    bodies, found = [classifier.tokens.body(text) for text in texts], np.empty((len(texts), 4))
    with torch.inference_mode():
        for row in classifier._scorer.rows(bodies, budget):
            found[row] = classifier._scorer.loglik([bodies[i] for i in row]).numpy()
    return found


def gradient_of(model: Any, loss: torch.Tensor) -> torch.Tensor:
    """Return the gradient of trained weights, except layers for images."""
    found = torch.autograd.grad(loss, lora_weights(model), allow_unused=True)
    return torch.cat([part.flatten() for part in found if part is not None])


def loaded(config: Any, folder: Path) -> Backbone:
    return load_backbone(windows.save(config, folder))


@pytest.mark.parametrize("kind", list(windows.CONFIGS))
def test_texts_beyond_the_window_are_scored_and_learned_as_the_model_reads_them(kind: str, tmp_path: Path) -> None:
    classifier = classifier_of(loaded(windows.CONFIGS[kind](), tmp_path), NESTED)
    expected, adapter = plainly(classifier, TEXTS), classifier.zero_shot()
    assert_close(adapter.logits(TEXTS), expected)
    assert_close(np.concatenate([adapter.logits([text]) for text in LONG]), expected[: len(LONG)])
    assert_close(learned_from(classifier, TEXTS, 1024), expected)


@pytest.mark.parametrize("kind", ["mistral", "gemma3 nested", "llama4 that counts columns"])
def test_gradients_beyond_the_window_equal_those_of_one_text_at_a_time(kind: str, tmp_path: Path) -> None:
    labels = [0, 1, 2, 3]
    classifier = classifier_of(loaded(windows.CONFIGS[kind](), tmp_path), NESTED, epochs=1)
    classifier.fit(LONG, labels)
    model, tokens = classifier.backbone.model, classifier.tokens
    bodies = [tokens.body(text) for text in LONG]
    for row in classifier._scorer.rows(bodies, 1024):
        packed = classifier._scorer.loglik([bodies[i] for i in row])
        truth = torch.tensor([labels[i] for i in row])
        together = gradient_of(model, torch.nn.functional.cross_entropy(packed, truth))
        each = [
            gradient_of(model, -brute_force(classifier.backbone, tokens, LONG[i]).log_softmax(0)[labels[i]])
            for i in row
        ]
        expected = torch.stack(each).mean(dim=0)
        assert expected.norm() > 0.01
        assert (together - expected).norm() < 1e-3 * expected.norm()


def test_a_window_shorter_than_the_instruction_is_kept(tmp_path: Path) -> None:
    config = transformers.MistralConfig(**tiny.sizes(), num_key_value_heads=2, sliding_window=5)
    classifier = classifier_of(loaded(config, tmp_path), NESTED)
    assert len(classifier.tokens.prefix) > 5
    assert_close(classifier.zero_shot().logits(TEXTS), plainly(classifier, TEXTS))


def test_rows_are_cut_to_a_window_that_counts_columns(tmp_path: Path) -> None:
    texts = [Utterance(f"my card is lost {number} " * 3) for number in range(12)]
    classifier = classifier_of(loaded(windows.gpt_neo(256), tmp_path), NESTED)
    expected, bodies = plainly(classifier, texts), [classifier.tokens.body(text) for text in texts]
    assert sum(map(len, bodies)) > 256
    assert_close(classifier.zero_shot().logits(texts), expected)
    assert_close(learned_from(classifier, texts, 1024), expected)


def test_rows_of_a_large_codebook_are_cut_to_a_window_that_counts_columns(tmp_path: Path) -> None:
    task = tiny.task_of(*(f"{thing} {trouble}" for thing in tiny.THINGS for trouble in tiny.TROUBLES[:4]))
    texts = [Utterance(f"my card is lost {number}") for number in range(6)]
    classifier = LanguageModelClassifier(
        loaded(windows.gpt_neo(1000), tmp_path), task, tiny.quick(row_tokens=4000), "options"
    )
    expected = plainly(classifier, texts)
    assert_close(classifier.zero_shot().logits(texts), expected)
    bodies = [classifier.tokens.body(text) for text in texts]
    with torch.inference_mode():
        for row in classifier._scorer.rows(bodies, 4000):
            assert_close(classifier._scorer.loglik([bodies[i] for i in row]).numpy(), expected[row])


def test_a_text_that_overfills_a_window_that_counts_columns_is_refused(tmp_path: Path) -> None:
    classifier = classifier_of(loaded(windows.gpt_neo(256), tmp_path), NESTED)
    with pytest.raises(UtteranceTooLong, match=r"take \d+ tokens; .* attends to 256 at once"):
        classifier.zero_shot().logits(TEXTS)
    with pytest.raises(UtteranceTooLong, match=r"take \d+ tokens; .* attends to 256 at once"):
        classifier.fit(TEXTS, [0, 1, 2, 3, 0, 1, 2, 3, 0])


def test_a_text_past_the_original_length_of_longrope_is_refused(tmp_path: Path) -> None:
    classifier = classifier_of(loaded(windows.longrope(200), tmp_path), NESTED)
    assert_close(classifier.zero_shot().logits(UTTERANCES), plainly(classifier, UTTERANCES))
    with pytest.raises(UtteranceTooLong, match=r"take \d+ tokens; .* reads 200"):
        classifier.zero_shot().logits(TEXTS)


def test_positions_of_a_nested_configuration_limit_texts_too(tmp_path: Path) -> None:
    config = windows.CONFIGS["gemma3 nested"]()
    config.text_config.max_position_embeddings = 200
    with pytest.raises(UtteranceTooLong, match=r"take \d+ tokens; .* reads 200"):
        classifier_of(loaded(config, tmp_path), NESTED).zero_shot().logits(TEXTS)


def test_a_text_beyond_the_positions_of_an_encoder_is_refused(tmp_path: Path) -> None:
    tokenizer = tiny._unigram()
    config = transformers.BartConfig(
        vocab_size=len(tokenizer), d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=100,
        decoder_start_token_id=0, pad_token_id=0, bos_token_id=1, eos_token_id=1, forced_eos_token_id=None,
    )  # fmt: skip
    backbone = load_backbone(tiny._save(transformers.BartForConditionalGeneration, config, tokenizer, tmp_path))
    with pytest.raises(UtteranceTooLong, match=r"take \d+ tokens; .* reads 100"):
        classifier_of(backbone, NESTED).zero_shot().logits(TEXTS)


def unread(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ignore the windows of configurations, as for an unknown model."""
    monkeypatch.setattr("model.scoring.causal.read_windows", lambda config: Windows())


@pytest.mark.parametrize(
    ("kind", "does"),
    [
        *((kind, does) for kind in ("mistral", "gemma3 nested", "llama4") for does in ("scores", "learns")),
        ("llama4 that counts columns", "learns"),  # the lanes that are scored are shorter than what it counts
    ],
)
def test_a_window_that_no_configuration_tells_of_is_found_at_the_lengths_in_use(
    kind: str, does: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread(monkeypatch)
    classifier = classifier_of(loaded(windows.CONFIGS[kind](), tmp_path), NESTED)
    with pytest.raises(BackboneRefused, match=r"different numbers for a text of \d+ tokens"):
        classifier.zero_shot().logits(TEXTS) if does == "scores" else classifier.fit(LONG, [0, 1, 2, 3])


def test_a_window_that_counts_columns_is_found_in_the_rows_that_are_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    unread(monkeypatch)
    classifier = classifier_of(loaded(windows.gpt_neo(256), tmp_path), NESTED)
    texts = [Utterance(f"my card is lost {number} " * 3) for number in range(12)]
    with pytest.raises(BackboneRefused, match="different numbers"):
        classifier.fit(texts, [number % 4 for number in range(12)])


def test_lengths_are_tried_once(llama: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, compute = list[int](), CausalScorer.at_ends

    def at_ends(scorer: CausalScorer, bodies: Any, *rest: Any) -> torch.Tensor:
        asked.append(len(bodies[0]))
        return compute(scorer, bodies, *rest)

    monkeypatch.setattr(CausalScorer, "at_ends", at_ends)
    adapter = classifier_of(llama, NESTED).zero_shot()
    for text in (LONG[3], LONG[0], LONG[3]):
        adapter.logits([text])
    assert len(asked) == 1
    adapter.logits([Utterance("I want my money back. " * 30)])
    assert len(asked) == 2
    assert asked[1] > asked[0]


def test_numbers_of_a_model_that_are_not_finite_are_refused(llama: Backbone) -> None:
    classifier = classifier_of(llama, NESTED)
    with torch.no_grad():
        llama.model.get_output_embeddings().weight[7] = torch.nan
    with pytest.raises(NotFinite, match="infinite or undefined"):
        classifier.zero_shot().logits(UTTERANCES)
