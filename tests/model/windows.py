"""Tiny models whose layers attend to a window or a chunk, one for each form of configuration."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import transformers as hf

from tests.model import tiny

WINDOW = 40
MIXED = ["sliding_attention", "full_attention"]
_NO_SIGHT = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}


def _all(kind: Any, **more: Any) -> Any:
    return kind(**tiny.sizes(), num_key_value_heads=2, sliding_window=WINDOW, **more)


def _mixed(kind: Any, **more: Any) -> Any:
    return _all(kind, layer_types=MIXED, **more)


def _nested() -> Any:
    text = {**tiny.sizes(), "num_key_value_heads": 2, "head_dim": 16, "sliding_window": WINDOW, "layer_types": MIXED}
    images = {"image_token_index": 5, "boi_token_index": 6, "eoi_token_index": 7}
    return hf.Gemma3Config(text_config=text, vision_config=_NO_SIGHT, mm_tokens_per_image=1, **images)


def _llama4(**more: Any) -> Any:
    kinds = ["chunked_attention", "full_attention"]
    return hf.Llama4TextConfig(
        **tiny.sizes(), num_key_value_heads=2, head_dim=16, intermediate_size_mlp=64, attention_chunk_size=WINDOW,
        layer_types=kinds, no_rope_layers=[1, 0], num_local_experts=2, moe_layers=[], pad_token_id=0, **more,
    )  # fmt: skip


def gpt_neo(window: int) -> Any:
    """Return a GPT-Neo, which counts its window in columns of the row."""
    return hf.GPTNeoConfig(
        vocab_size=tiny.sizes()["vocab_size"], hidden_size=64, num_layers=2, num_heads=4, window_size=window,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=2048, initializer_range=0.15,
    )  # fmt: skip


CONFIGS: dict[str, Callable[[], Any]] = {
    "mistral": lambda: _all(hf.MistralConfig),
    "mixtral": lambda: _all(hf.MixtralConfig, **_EXPERTS),
    "phi3": lambda: _all(hf.Phi3Config, pad_token_id=0),
    "starcoder2": lambda: _all(hf.Starcoder2Config),
    "qwen2": lambda: _all(hf.Qwen2Config, use_sliding_window=True, max_window_layers=1),
    "qwen2 without": lambda: _all(hf.Qwen2Config, use_sliding_window=False),
    "qwen3 moe": lambda: _all(
        hf.Qwen3MoeConfig, use_sliding_window=True, head_dim=16, num_experts=4, num_experts_per_tok=2,
        moe_intermediate_size=32,
    ),
    "gemma2": lambda: _mixed(hf.Gemma2Config, head_dim=16),
    "gemma3": lambda: _mixed(hf.Gemma3TextConfig, head_dim=16),
    "gemma3 nested": _nested,
    "cohere2": lambda: _mixed(hf.Cohere2Config),
    "gpt-oss": lambda: _mixed(hf.GptOssConfig, head_dim=16, num_local_experts=4),
    "olmo3": lambda: _mixed(hf.Olmo3Config),
    "exaone4": lambda: _mixed(hf.Exaone4Config),
    "ministral": lambda: _mixed(hf.MinistralConfig, head_dim=16),
    "modernbert": lambda: hf.ModernBertDecoderConfig(
        **tiny.sizes(), local_attention=WINDOW, layer_types=MIXED, pad_token_id=0, cls_token_id=0, sep_token_id=0
    ),
    "llama4": _llama4,
    "llama4 that counts columns": lambda: _llama4(attn_temperature_tuning=True, floor_scale=400),
}  # fmt: skip


def save(config: Any, folder: Path) -> str:
    """Save a random model of a configuration, with the tokenizer of the other tiny models."""
    kind = hf.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)]
    return tiny.save(kind, config, folder)


def longrope(original: int) -> Any:
    """Return a Phi-3 that turns positions by other angles where a text is longer than so many tokens."""
    rope = {
        "rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8,
        "original_max_position_embeddings": original,
    }  # fmt: skip
    return hf.Phi3Config(
        **tiny.sizes(), num_key_value_heads=2, pad_token_id=0, rope_parameters=rope,
        original_max_position_embeddings=original,
    )  # fmt: skip
