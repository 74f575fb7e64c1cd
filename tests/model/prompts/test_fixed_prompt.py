"""A chat template renders the same text every day, and a round keeps the prompt it was trained with."""

from __future__ import annotations

import json
import os
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers.utils import chat_template_utils

from annotator.errors import BackboneRefused, ProjectError
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.prompts.chat import former_frame, frame_of
from model.restore import restore
from model.scoring.generation import explain
from tests.model.tiny import CHATML, UTTERANCES, quick, save_llama, toy, unseal

TASK, TEXTS, LABELS = toy()
DATED = (
    "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    "<|im_start|>system\nToday Date: {{ date_string }}<|im_end|>\n" + CHATML
)
IN_PARTS = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'][0]['text'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def on(monkeypatch: pytest.MonkeyPatch, day: datetime) -> None:
    """Set the clock used by chat templates."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def with_template(backbone: Backbone, template: str) -> Backbone:
    backbone.tokenizer.chat_template = template
    return backbone


@pytest.fixture
def dated(tmp_path: Path) -> str:
    folder = tmp_path / "dated"
    save_llama(folder)
    (folder / "chat_template.jinja").write_text(DATED)
    return str(folder)


def classifier_of(name: str, **changes: Any) -> LanguageModelClassifier:
    return LanguageModelClassifier(load_backbone(name), TASK, quick(epochs=1, **changes), "options")


@pytest.mark.parametrize("probe", [0.0, 0.5])
def test_a_round_says_the_same_the_next_day_and_its_states_count_as_read(
    dated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: float
) -> None:
    folder = tmp_path / "round"
    folder.mkdir()
    on(monkeypatch, datetime(2026, 11, 27))
    trained = classifier_of(dated, probe_weight=probe)
    adapter = trained.fit(TEXTS, LABELS)
    adapter.save(folder)
    expected, reading = adapter.logits(TEXTS), trained.reading
    on(monkeypatch, datetime(2027, 1, 3))
    np.testing.assert_allclose(restore(folder).logits(TEXTS), expected, atol=1e-5)
    assert classifier_of(dated, probe_weight=probe).reading == reading
    assert "Today Date" in json.loads((folder / "round.json").read_text())["frame"]["before"]


def test_a_round_keeps_its_prompt_when_the_template_beside_the_weights_is_written_anew(
    dated: str, tmp_path: Path
) -> None:
    folder = tmp_path / "round"
    folder.mkdir()
    adapter = classifier_of(dated, probe_weight=0.5).fit(TEXTS, LABELS)
    adapter.save(folder)
    expected = adapter.logits(TEXTS)
    (Path(dated) / "chat_template.jinja").write_text("You are a poet." + CHATML)
    np.testing.assert_allclose(restore(folder).logits(TEXTS), expected, atol=1e-5)
    assert np.abs(classifier_of(dated).zero_shot().logits(TEXTS) - expected).max() > 1e-3


@pytest.mark.parametrize("probe", [0.0, 0.5])
def test_a_round_that_noted_no_prompt_gets_the_date_of_the_day_it_was_made_and_notes_it(
    dated: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, probe: float
) -> None:
    folder, day = tmp_path / "round", datetime(2026, 3, 5, 12)
    folder.mkdir()
    backbone = load_backbone(dated)
    frame = former_frame(backbone.tokenizer, "causal", day.date())
    assert "05 Mar 2026" in frame.before
    classifier = LanguageModelClassifier(backbone, TASK, quick(epochs=1, probe_weight=probe), "options", frame)
    adapter = classifier.fit(TEXTS, LABELS)
    adapter.save(folder)
    expected = adapter.logits(TEXTS)
    old_reading = as_an_earlier_version_left_it(folder, classifier)
    os.utime(folder / "round.json", (day.timestamp(), day.timestamp()))
    for _ in range(2):
        np.testing.assert_allclose(restore(folder).logits(TEXTS), expected, atol=1e-5)
    noted = json.loads((folder / "round.json").read_text())
    assert "05 Mar 2026" in noted["frame"]["before"]
    assert noted["fingerprint"] == backbone.origin.fingerprint
    assert noted["noted"]
    assert noted["reading"] != old_reading or not probe


def as_an_earlier_version_left_it(folder: Path, classifier: LanguageModelClassifier) -> str | None:
    """Remove from a description what earlier versions did not write, with the reading in their format."""
    from model import adapter
    from model.scoring.hidden_states import STATE_FORMAT

    described = json.loads((folder / "round.json").read_text())
    for name in ("frame", "fingerprint", "revision", "seal", "files", "tokenization"):
        del described[name]
    if described["reading"]:
        recipe, tokens = classifier.recipe, classifier.tokens
        content = [STATE_FORMAT, classifier.backbone.name, recipe.quantization, recipe.max_tokens, tokens.prefix]
        described["reading"] = adapter.short_hash(content)
    (folder / "round.json").write_text(json.dumps(described))
    reading: str | None = described["reading"]
    return reading


def test_reasons_are_asked_for_in_the_frame_of_the_round(dated: str, tmp_path: Path) -> None:
    from model import load

    folder = tmp_path / "round"
    folder.mkdir()
    classifier = classifier_of(dated)
    classifier.zero_shot().save(folder)
    expected = explain(classifier, UTTERANCES[0])
    (Path(dated) / "chat_template.jinja").write_text("You are a poet." * 9 + CHATML)
    assert load.explain_label(dated, TASK, quick(), UTTERANCES[0], folder) == expected


@pytest.mark.parametrize(
    "template",
    [
        "{{ strftime_now('%A %a %B %b %c %x %X %p %s %j %Y-%m-%d') }}" + CHATML,
        "{{ ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'] | random }}{{ range(1000) | random }}" + CHATML,
        "{{ lipsum(n=1, html=false) }}" + CHATML,
    ],
)
def test_a_template_cannot_write_anything_that_differs_from_one_time_to_the_next(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch, template: str
) -> None:
    with_template(llama, template)
    found = []
    for year in (2025, 2026, 2027):
        on(monkeypatch, datetime(year, 1, 2, 3, 4, 5))
        found.append(frame_of(llama.tokenizer, "causal"))
    assert found[0] == found[1] == found[2]
    assert len(found[0].before) > 20


def test_a_template_that_writes_an_address_is_refused(llama: Backbone) -> None:
    with_template(llama, "{{ raise_exception }}" + CHATML)
    with pytest.raises(BackboneRefused, match="address of an object"):
        frame_of(llama.tokenizer, "causal")


def test_a_template_that_takes_messages_in_parts_writes_what_one_for_text_does(llama: Backbone) -> None:
    plain = frame_of(llama.tokenizer, "causal")
    assert frame_of(with_template(llama, IN_PARTS).tokenizer, "causal") == plain


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m['content'",
        "{{ raise_exception('no') }}",
        "{{ messages[3]['content'] }}",
        "nothing",
        CHATML + CHATML,
        CHATML.replace("m['content']", "m['content'] | lower"),
        CHATML.replace("m['content']", "m['content'] | e"),
        CHATML.replace("m['content']", "m['content'] | tojson"),
        CHATML.replace("m['content']", "m['content'][:2000]"),
        CHATML.replace("m['content']", "m['content'] | replace('\n', ' ')"),
        CHATML.replace("m['content']", "m['content'].split() | join(' ')"),
        CHATML.replace("{{ m['content'] }}", "{% if m['role'] == 'user' %}{{ m['content'] }}{% endif %}"),
    ],
)
def test_a_template_that_cannot_be_used_is_refused_with_a_hint(llama: Backbone, template: str) -> None:
    with_template(llama, template)
    with pytest.raises(BackboneRefused, match="chat template of this backbone cannot be used") as caught:
        LanguageModelClassifier(llama, TASK, quick(), "options")
    assert "choose another backbone" in caught.value.hint


def test_a_tokenizer_without_an_end_of_text_is_refused(llama: Backbone, t5: Backbone) -> None:
    for backbone in (with_template(llama, ""), t5):
        backbone.tokenizer.eos_token = None
        with pytest.raises(BackboneRefused, match="no end-of-text token"):
            LanguageModelClassifier(backbone, TASK, quick(), "options").zero_shot().logits(UTTERANCES)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[: len(text) // 2], "cannot be read"),
        (lambda text: "[]", "does not describe a round"),
        (lambda text: "", "cannot be read"),
        (lambda text: re.sub('"backbone": "[^"]*",', "", text), "has no backbone"),
        (lambda text: text.replace('"labels":', '"marks":'), "does not contain the task"),
        (lambda text: text.replace('"before"', '"behind"'), "does not contain the prompt"),
        (lambda text: re.sub('"end": [0-9]+', '"end": "last"', text), "does not contain the prompt"),
        (lambda text: re.sub('"name": "joy"', '"name": 3', text), "does not contain the task"),
        (lambda text: re.sub('"rank": 4', '"rank": "many"', text), "does not contain the recipe"),
        (lambda text: re.sub('"probe_weight": 0.0', '"probe_weight": NaN', text), "does not contain the recipe"),
        (lambda text: re.sub('"max_tokens": 512', '"max_tokens": -3', text), "does not contain the recipe"),
    ],
)
def test_half_a_description_is_refused_in_words(llama: Backbone, tmp_path: Path, damage: Any, message: str) -> None:
    LanguageModelClassifier(llama, TASK, quick(), "options").zero_shot().save(tmp_path)
    path = unseal(tmp_path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ProjectError, match=message) as caught:
        restore(tmp_path)
    assert "retrain" in caught.value.hint
