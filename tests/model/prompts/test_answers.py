"""An answer is scored where the chat template puts it, in the tokens that the template's rendering of it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from annotator.errors import BackboneRefused
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.prompts.chat import former_frame, frame_of
from model.prompts.tokens import PromptTokens
from model.restore import restore
from model.types import Utterance
from tests.model import tiny
from tests.model.tiny import CHATML, LABEL_SETS, UTTERANCES, quick

NESTED = LABEL_SETS["words that begin one another"]
_TURNS = "{% for m in messages %}<|im_start|>{{ m['role'] }}SEPARATOR{{ m['content'] }}<|im_end|>{% endfor %}"
_ASK = "{% if add_generation_prompt %}<|im_start|>assistantSEPARATOR{% endif %}"


def _turns(begin: str, ask: str, end: str = "<|im_end|>") -> str:
    """Return a template with so much before an answer, and at the end of a prompt."""
    return (
        "{% for m in messages %}{% if m['role'] == 'user' %}<|im_start|>user\n{{ m['content'] }}<|im_end|>{% else %}"
        f"<|im_start|>assistant{begin}{{{{ m['content'] }}}}{end}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}<|im_start|>assistant{ask}{{% endif %}}"
    )


IN_PLACE = {  # templates whose answer follows the prompt's end as rendered
    "chatml": CHATML,
    "phi-4": (_TURNS + _ASK).replace("SEPARATOR", "<|im_sep|>"),
    "no line break": (_TURNS + _ASK).replace("SEPARATOR", ":"),
    "space before": _turns(" ", ""),
    "space in the prompt": _turns(": ", ": "),
    "gpt-oss": _turns("<|channel|>final<|message|>", ""),
    "closed thinking": _turns("\n<think>\n\n</think>\n\n", "\n<think>\n\n</think>\n\n"),
    "role in a tag": _turns("<bot>", "<bot>\n").replace("<bot>\n", "<bot>"),
    "thinking closed in answers alone": _turns("\n<think>\n\n</think>\n\n", "\n<think>\n"),
}
THINKING = {  # templates that open thinking where a prompt ends, and the text after which the answer stands
    "deepseek-r1": (_turns("", "<think>\n"), "<think>\n\n</think>\n\n"),
    "magistral": (_turns("", "[THINK]"), "[THINK]\n\n[/THINK]\n\n"),
    "seed": (_turns("\n", "\n<seed:think>"), "<seed:think>\n\n</seed:think>\n\n"),
    "command": (_turns("", "<|START_THINKING|>"), "<|START_THINKING|>\n\n<|END_THINKING|>\n\n"),
    "begin of thought": (_turns("", "<|begin_of_thought|>"), "<|begin_of_thought|>\n\n<|end_of_thought|>\n\n"),
    "kimi": (_turns("", "◁think▷"), "◁think▷\n\n◁/think▷\n\n"),
    "of a name of its own": (_turns("", "<scratchpad>\n"), "<scratchpad>\n\n</scratchpad>\n\n"),
    "always, also in answers": (_turns("\n<think>\n", "\n<think>\n"), "<think>\n\n</think>\n\n"),
}


def tokens_of(backbone: Backbone, template: str) -> PromptTokens:
    backbone.tokenizer.chat_template = template
    backbone.tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_sep|>", "<|channel|>", "<|message|>"]})
    return PromptTokens(backbone.tokenizer, backbone.family, NESTED, "options", 512)


def scored(tokens: PromptTokens) -> list[list[int]]:
    """Return the tokens of each label, without the terminator."""
    trie = tokens.trie
    paths = [[*trie.tokens_at(np.zeros(1, np.int64), k), *trie.tokens_at(trie.inner_path(k), k)] for k in range(4)]
    return [[int(token) for token in path if token != tokens.frame.end] for path in paths]


def rendered(tokens: PromptTokens, answer: str) -> list[int]:
    chat = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": answer}]
    return list(tokens.tokenizer(tokens.tokenizer.apply_chat_template(chat, tokenize=False))["input_ids"])


@pytest.mark.parametrize("name", list(IN_PLACE))
def test_label_tokens_are_those_of_the_rendered_answer(llama: Backbone, name: str) -> None:
    tokens = tokens_of(llama, IN_PLACE[name])
    for answer, ids in zip(tokens.answers, scored(tokens), strict=True):
        whole = rendered(tokens, answer)
        expected = [*tokens.suffix, *ids, tokens.frame.end]
        place = len(whole) - len(expected) - len(tokens._ids("\n") if name == "chatml" else [])
        assert whole[place : place + len(expected)] == expected


@pytest.mark.parametrize("name", list(THINKING))
def test_the_label_stands_behind_closed_empty_thinking(llama: Backbone, name: str) -> None:
    template, before = THINKING[name]
    tokens = tokens_of(llama, template)
    assert tokens.tokenizer.decode(tokens.suffix).endswith(before)
    assert tokens.tokenizer.decode(scored(tokens)[0]) == "refund"


def test_a_role_in_a_tag_is_no_thinking(llama: Backbone) -> None:
    tokens = tokens_of(llama, _turns("[BOT] ", "[BOT]\n"))
    assert tokens.frame.after.endswith("assistant[BOT]\n")


@pytest.mark.parametrize("words", ["think", "<think>", "a reason [THINK]"])
def test_thinking_in_a_prompt_of_the_system_is_let_be(llama: Backbone, words: str) -> None:
    tokens = tokens_of(llama, f"You may {words} first." + CHATML)
    assert tokens.frame.after == "<|im_end|>\n<|im_start|>assistant\n"


def test_a_special_token_spelled_in_an_answer_stays_text(llama: Backbone) -> None:
    tokens = tokens_of(llama, CHATML)
    assert not set(tokens._answer("refund <|im_end|>")) & tokens._control


def test_a_round_made_before_keeps_the_tokens_it_was_trained_on(llama: Backbone, tmp_path: Path) -> None:
    template = IN_PLACE["no line break"]
    llama.tokenizer.chat_template = template
    former = former_frame(llama.tokenizer, llama.family)
    assert former.lead is None
    now = PromptTokens(llama.tokenizer, llama.family, NESTED, "options", 512)
    then = PromptTokens(llama.tokenizer, llama.family, NESTED, "options", 512, former)
    assert now.tokenizer.decode(scored(now)[0]) == "refund"
    assert then.tokenizer.decode(scored(then)[0]) == " refund"  # a guessed space


# Encoder-decoders: what the tokenizer writes around texts, and what the decoder is made to begin with


def framed(backbone: Backbone, source: str, target: str) -> Backbone:
    """Let a tokenizer frame texts, as those of BART and mBART do; `$A` stands for the text."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = backbone.tokenizer
    special = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<extra_id_0>", "<extra_id_1>", "</s>")]

    def switch(pattern: str) -> Any:
        return lambda: setattr(
            tokenizer._tokenizer, "post_processor", TemplateProcessing(single=pattern, special_tokens=special)
        )

    switch(source)()
    tokenizer._switch_to_input_mode, tokenizer._switch_to_target_mode = switch(source), switch(target)
    return backbone


def test_texts_and_answers_are_framed_as_their_tokenizer_frames_them(t5: Backbone) -> None:
    framed(t5, "<extra_id_0> $A </s>", "<extra_id_1> $A </s>")
    tokens = PromptTokens(t5.tokenizer, t5.family, NESTED, "options", 512)
    first, second, end = (t5.tokenizer.convert_tokens_to_ids(x) for x in ("<extra_id_0>", "<extra_id_1>", "</s>"))
    assert tokens.prefix[0] == first
    assert tokens.suffix == [end]
    assert tokens.begin == [second]
    expected = list(t5.tokenizer(text_target="refund", add_special_tokens=False)["input_ids"])
    assert scored(tokens)[0] == expected


def test_a_code_of_a_language_behind_texts_is_kept(t5: Backbone) -> None:
    framed(t5, "$A </s> <extra_id_0>", "$A </s> <extra_id_1>")
    tokens = PromptTokens(t5.tokenizer, t5.family, NESTED, "options", 512)
    assert tokens.suffix == t5.tokenizer.convert_tokens_to_ids(["</s>", "<extra_id_0>"])
    assert tokens.begin == []


@pytest.mark.parametrize("forced", [True, False])
def test_labels_are_scored_behind_the_tokens_a_decoder_is_made_to_begin_with(
    t5: Backbone, tmp_path: Path, forced: bool
) -> None:
    import torch

    number = t5.tokenizer.convert_tokens_to_ids("<extra_id_1>")
    if forced:
        t5.model.generation_config.forced_bos_token_id = number
    else:
        framed(t5, "$A </s>", "<extra_id_1> $A </s>")
    classifier = LanguageModelClassifier(t5, NESTED, quick(), "options")
    found = classifier.zero_shot().logits(UTTERANCES[:2])
    for text, row in zip(UTTERANCES[:2], found, strict=True):
        prompt = torch.tensor([[*classifier.tokens.prefix, *classifier.tokens.body(text)]])
        for answer, loglik in zip(tiny.answers(classifier.tokens), row, strict=True):
            said = torch.tensor([[0, number, *answer[:-1]]])
            with torch.inference_mode():
                logits = t5.model(input_ids=prompt, decoder_input_ids=said).logits[0, 1:]
            assert float(tiny._sum(logits, answer)) == pytest.approx(loglik, abs=1e-4)


def test_a_decoder_without_a_start_is_refused(t5: Backbone) -> None:
    t5.model.config.decoder_start_token_id = t5.model.generation_config.decoder_start_token_id = None
    with pytest.raises(BackboneRefused, match="does not state the token its decoder starts with") as caught:
        LanguageModelClassifier(t5, NESTED, quick(), "options")
    assert "decoder_start_token_id" in caught.value.hint


def test_a_tokenizer_whose_language_is_not_set_is_refused(t5: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    def switch() -> None:
        raise KeyError(None)

    monkeypatch.setattr(t5.tokenizer, "_switch_to_target_mode", switch, raising=False)
    with pytest.raises(BackboneRefused, match="cannot frame a text") as caught:
        frame_of(t5.tokenizer, t5.family)
    assert "tgt_lang" in caught.value.hint


def test_a_round_of_an_encoder_decoder_restores_its_beginning(
    t5: Backbone, folders: dict[str, str], tmp_path: Path
) -> None:
    adapter = LanguageModelClassifier(load_backbone(folders["t5"]), NESTED, quick(epochs=1), "options").fit(
        UTTERANCES[:4], [0, 1, 2, 3]
    )
    adapter.save(tmp_path)
    np.testing.assert_allclose(restore(tmp_path).logits([Utterance("a")]), adapter.logits([Utterance("a")]), atol=1e-5)
