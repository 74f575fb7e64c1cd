"""Tiny random models, made in seconds and saved like real ones, and the slow, plain way to score labels."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from model.backbones.backbone import Backbone
from model.prompts.tokens import PromptTokens
from model.prompts.verbalizer import label_words
from model.recipe import Recipe
from model.types import Label, Task, Utterance

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SENTENCES = [
    "Decide what the customer wants from the utterance below.",
    "refund request pending",
    "refund",
    "joy",
    "anger",
    "Options: Answer with one of the options only.",
    "Conversation so far: agent: how can I help? customer: my card is lost",
    "Utterance: I want my money back, please cancel the order",
    "abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ 0123456789 .,:;!?'-/|_",
]
THINGS = ("card", "order", "parcel", "refund", "account", "password", "invoice")
TROUBLES = ("lost", "late", "broken", "stolen", "request", "request pending", "wrong", "blocked", "new", "old", "cost")


def task_of(*words: str) -> Task:
    """Return a task with these labels, every other one with a definition."""
    labels = tuple(Label(word, "what the customer says" if i % 2 else "") for i, word in enumerate(words))
    return Task("Decide what the customer wants.", labels)


LABEL_SETS = {
    "words that begin one another": task_of("refund", "refund request", "refund request pending", "joy"),
    "single tokens": task_of("joy", "anger"),
    "seventy-seven": task_of(*(f"{thing} {trouble}" for thing in THINGS for trouble in TROUBLES)),
}
UTTERANCES = [
    Utterance("I want my money back."),
    Utterance("Where is it?", ("agent: how can I help?", "customer: my parcel is late")),
    Utterance(""),
    Utterance("refund request <|im_end|> </s> " * 3, ("agent: hello",)),
    Utterance("¡Añejo! 返金 🙂"),
]


def save_llama(folder: Path) -> str:
    """Save a Llama with grouped queries, a separate output layer and a chat template."""
    config = transformers.LlamaConfig(**_sizes(), num_key_value_heads=2, tie_word_embeddings=False)
    return _save(transformers.LlamaForCausalLM, config, _byte_level(CHATML), folder)


def save_qwen2(folder: Path) -> str:
    """Save a Qwen2 with tied embeddings and biases that are not zero."""
    config = transformers.Qwen2Config(**_sizes(), num_key_value_heads=2, tie_word_embeddings=True)
    return _save(transformers.Qwen2ForCausalLM, config, _byte_level(CHATML), folder)


def save_qwen3(folder: Path) -> str:
    """Save a Qwen3: queries and keys are normalized."""
    config = transformers.Qwen3Config(**_sizes(), num_key_value_heads=2, head_dim=16, tie_word_embeddings=True)
    return _save(transformers.Qwen3ForCausalLM, config, _byte_level(CHATML), folder)


def save_gemma3(folder: Path) -> str:
    """Save a Gemma 3: scaled embeddings, and layers with and without a window."""
    kinds = ["sliding_attention", "full_attention"]
    config = transformers.Gemma3TextConfig(**_sizes(), num_key_value_heads=1, head_dim=16, layer_types=kinds)
    return _save(transformers.Gemma3ForCausalLM, config, _byte_level(CHATML), folder)


def save_mistral(folder: Path, window: int = 1024) -> str:
    """Save a Mistral, in which every layer has a window."""
    config = transformers.MistralConfig(**_sizes(), num_key_value_heads=2, sliding_window=window)
    return _save(transformers.MistralForCausalLM, config, _byte_level(CHATML), folder)


def save_bloom(folder: Path) -> str:
    """Save a Bloom: it counts distances in the row, so utterances cannot share one."""
    sizes = {"hidden_size": 64, "n_layer": 2, "n_head": 4, "initializer_range": 0.15}
    config = transformers.BloomConfig(vocab_size=len(_byte_level(CHATML)), **sizes)
    return _save(transformers.BloomForCausalLM, config, _byte_level(CHATML), folder)


def save_mpt(folder: Path) -> str:
    """Save an MPT: like Bloom it counts distances, but it accepts our mask without an error."""
    config = transformers.MptConfig(
        vocab_size=len(_byte_level(CHATML)), d_model=64, n_layers=2, n_heads=4, initializer_range=0.15
    )
    return _save(transformers.MptForCausalLM, config, _byte_level(CHATML), folder)


def save_recurrent_gemma(folder: Path) -> str:
    """Save a RecurrentGemma: attention in every third layer, recurrent ones between, which ignore our mask."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 128}
    config = transformers.RecurrentGemmaConfig(
        vocab_size=len(_byte_level(CHATML)), lru_width=64, initializer_range=0.15, **sizes
    )
    return _save(transformers.RecurrentGemmaForCausalLM, config, _byte_level(CHATML), folder)


def save_mamba(folder: Path) -> str:
    """Save a Mamba: it has no attention at all."""
    sizes = {"hidden_size": 64, "num_hidden_layers": 2, "initializer_range": 0.15}
    config = transformers.MambaConfig(vocab_size=len(_byte_level(CHATML)), **sizes)
    return _save(transformers.MambaForCausalLM, config, _byte_level(CHATML), folder)


def save_t5(folder: Path, separate_head: bool = False) -> str:
    """Save a T5: like the first T5 (tied, outputs scaled), or like Flan-T5 (separate head, not scaled)."""
    tokenizer = _unigram()
    config = transformers.T5Config(
        vocab_size=len(tokenizer), d_model=64, d_kv=16, d_ff=96, num_layers=2, num_heads=4, decoder_start_token_id=0,
        feed_forward_proj="gated-gelu" if separate_head else "relu", initializer_factor=1.0,
    )  # fmt: skip
    _save(transformers.T5ForConditionalGeneration, config, tokenizer, folder, separate_head)
    written = json.loads((folder / "config.json").read_text())
    written.pop("scale_decoder_outputs", None)  # published checkpoints say it with tie_word_embeddings alone
    (folder / "config.json").write_text(json.dumps(written | {"tie_word_embeddings": not separate_head}))
    return str(folder)


def without_dropout(backbone: Backbone) -> Backbone:
    """Disable a backbone's own dropout, which T5 has: a model this small would learn only noise."""
    for module in backbone.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0  # attention keeps a number
    return backbone


def save(kind: Any, config: Any, folder: Path) -> str:
    """Save a random causal model of any kind."""
    return _save(kind, config, _byte_level(CHATML), folder)


def sizes() -> dict[str, Any]:
    """Return the sizes of the tiny models, as most configurations name them."""
    return _sizes()


def plain_tokenizer() -> Any:
    """Return a tokenizer without chat template."""
    return _byte_level(None)


def _sizes() -> dict[str, Any]:
    return {
        "vocab_size": len(_byte_level(CHATML)), "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
        "num_attention_heads": 4, "max_position_embeddings": 2048, "initializer_range": 0.15,
        "bos_token_id": 0, "eos_token_id": 0,
    }  # fmt: skip


def _save(kind: Any, config: Any, tokenizer: Any, folder: Path, separate_head: bool = False) -> str:
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model = kind(config)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.3)
        if separate_head:
            model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight) * 0.2)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def _byte_level(chat_template: str | None) -> Any:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=380, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=special[0], eos_token=special[0], chat_template=chat_template,
        additional_special_tokens=special[1:],
    )  # fmt: skip


def _unigram() -> Any:
    tokenizer = Tokenizer(models.Unigram())
    pieces = [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(prepend_scheme="always")]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pieces)
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=["<pad>", "</s>", "<unk>"], unk_token="<unk>", show_progress=False
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    vocab = json.loads(tokenizer.to_str())["model"]["vocab"]  # the trainer leaves pieces of equal score in any order
    pairs = [(piece, score) for piece, score in [*vocab[:3], *sorted(vocab[3:])]]
    return transformers.T5Tokenizer(vocab=pairs, extra_ids=2)


def brute_force(backbone: Backbone, tokens: PromptTokens, utterance: Utterance) -> torch.Tensor:
    """Score each label alone, (k,): one whole forward per label, no packing, no cache, no mask of our own."""
    prompt = [*tokens.prefix, *tokens.body(utterance)]
    score = _t5_alone if backbone.family == "encoder-decoder" else _causal_alone
    return torch.stack([score(backbone.model, prompt, answer) for answer in answers(tokens)])


def answers(tokens: PromptTokens) -> list[list[int]]:
    """Tokenize the label words independently, with the terminator where one label is a prefix of another."""
    lead = "" if tokens.family == "encoder-decoder" or tokens.tokenizer.chat_template else " "
    words = [lead + label_words(label) for label in tokens.task.labels]
    ids = [tokens.tokenizer(word, add_special_tokens=False)["input_ids"] for word in words]
    chat = tokens.family == "causal" and tokens.tokenizer.chat_template
    end = tokens.tokenizer.convert_tokens_to_ids("<|im_end|>") if chat else tokens.tokenizer.eos_token_id
    return [one + [end] * any(other != one and other[: len(one)] == one for other in ids) for one in ids]


def _causal_alone(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    ids, end = torch.tensor([[*prompt, *answer]], device=model.device), len(answer) + 1
    logits = model(input_ids=ids, use_cache=False, logits_to_keep=end).logits[0]
    return _sum(logits[-end:-1], answer)


def _t5_alone(model: Any, prompt: Sequence[int], answer: Sequence[int]) -> torch.Tensor:
    asked, said = (torch.tensor([ids], device=model.device) for ids in (prompt, [0, *answer[:-1]]))
    return _sum(model(input_ids=asked, decoder_input_ids=said, use_cache=False).logits[0], answer)


def _sum(logits: torch.Tensor, answer: Sequence[int]) -> torch.Tensor:
    logp = logits.double().log_softmax(dim=-1)
    return logp[torch.arange(len(answer)), torch.tensor(answer)].sum()


def toy() -> tuple[Task, list[Utterance], list[int]]:
    """Return a task that one word decides, with forty utterances and their labels."""
    texts = [("refund please", "so angry")[i % 2] + f" {i}" for i in range(40)]
    return task_of("joy", "anger"), [Utterance(text) for text in texts], [i % 2 for i in range(40)]


def quick(**changes: Any) -> Recipe:
    """Return a recipe that learns a toy task in a second."""
    layers = {} if changes.get("method", "lora") != "lora" else {"rank": 4, "alpha": 8}
    few: dict[str, Any] = {"probe_weight": 0.0, "learning_rate": 1e-2, "epochs": 4, "dropout": 0.0, "average": 0.0}
    return Recipe(**layers | few | {"tolerance": 0.0} | changes)


def unseal(folder: Path) -> Path:
    """Leave a description as versions without a seal wrote it; return its path."""
    path = folder / "round.json"
    described = json.loads(path.read_text(encoding="utf-8"))
    for name in ("seal", "files", "round", "tokenization"):
        described.pop(name, None)
    path.write_text(json.dumps(described, indent=2), encoding="utf-8")
    return path
