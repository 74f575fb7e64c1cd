"""Build tiny random models of all architectures of transformers, saved like real ones.

A configuration starts from the defaults of its class, with the sizes below for every field of such a name. `CHANGES`
has what an architecture needs besides, and variants; `ABSENT` those that are not in the zoo.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto import modeling_auto

from tests.model import tiny

WINDOW = 40  # tokens: shorter than the instruction
_MOST = 20_000_000  # parameters of a tiny model
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "emb_dim", "embedding_size"), 64),
    "word_embed_proj_dim": 64,
    **dict.fromkeys(("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(("num_decoder_layers", "num_encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_head", "n_heads"), 4),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 4),
    **dict.fromkeys(("num_encoder_attention_heads", "num_decoder_attention_heads"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_kv_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv", "kv_channels", "attention_head_dim", "attention_head_size"), 16),
    **dict.fromkeys(("qk_nope_head_dim", "qk_rope_head_dim", "v_head_dim", "kv_lora_rank", "q_lora_rank"), 16),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "dff"), 96),
    **dict.fromkeys(("ffn_hidden_size", "n_inner", "feed_forward_size"), 96),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "moe_num_experts"), 4),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "n_ctx"), 2048),
    **dict.fromkeys(("initializer_range", "init_std"), 0.15),
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "first_k_dense_replace": 1,
    "state_size": 8, "mamba_d_state": 8, "lru_width": 64, "mamba_n_heads": 4,
    "mamba_d_head": 32, "index_topk": 4096, "index_head_dim": 16, "index_n_heads": 2,
}  # fmt: skip
_MIXED = {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"]}
_SMALL_GEMMA4 = {"vocab_size_per_layer_input": 400, "hidden_size_per_layer_input": 16, "global_head_dim": 16}
_LIKE_JAMBA = {"attn_layer_period": 2, "attn_layer_offset": 1, "expert_layer_period": 2, "expert_layer_offset": 1}
_NO_SIGHT = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
_BERTS = (
    "bert", "bert-generation", "big_bird", "camembert", "data2vec-text", "electra", "ernie", "megatron-bert", "rembert",
    "roberta", "roberta-prelayernorm", "roc_bert", "roformer", "xlm-roberta", "xlm-roberta-xl", "xmod",
)  # fmt: skip

CHANGES: dict[str, dict[str, Any]] = {
    **{name: {"is_decoder": True} for name in _BERTS},
    "roc_bert": {"is_decoder": True, "pronunciation_vocab_size": 20, "shape_vocab_size": 20, "enable_shape": False},
    "bert that sees both sides": {"model_type": "bert", "is_decoder": False},
    "falcon with alibi": {"model_type": "falcon", "alibi": True},
    "falcon with bias": {"model_type": "falcon", "bias": True, "new_decoder_architecture": True},
    "dots1": {"n_shared_experts": 1},
    "falcon_h1": {"mamba_d_ssm": 128},
    "gemma3": {"vision_config": _NO_SIGHT, "mm_tokens_per_image": 1, "text_config": _MIXED, "image_token_index": 5,
               "boi_token_index": 6, "eoi_token_index": 7},
    "gemma3n_text": {"num_kv_shared_layers": 0, "vocab_size_per_layer_input": 300, "hidden_size_per_layer_input": 16,
                     "laurel_rank": 8, "activation_sparsity_pattern": [0.0, 0.0], **_MIXED},
    "gemma4_text": _SMALL_GEMMA4,
    "gpt_neo": {"attention_types": [[["global", "local"], 1]], "window_size": 600},
    "gpt_neo with a short window": {"model_type": "gpt_neo", "attention_types": [[["global", "local"], 1]],
                                    "window_size": WINDOW},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 16, "n_groups": 2},
    "zamba": {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 2},
    "zamba2": {"layers_block_type": ["mamba", "hybrid"], "n_mamba_heads": 8},
    "jamba": _LIKE_JAMBA | {"use_mamba_kernels": False},
    "bamba": {"attn_layer_indices": [1]},
    "zaya": {"num_experts_per_tok": 1},
    "reformer": {"is_decoder": True, "axial_pos_shape": [32, 64], "axial_pos_embds_dim": [32, 32],
                 "attn_layers": ["local", "lsh"]},
    "longcat_flash": {"expert_ffn_hidden_size": 32, "zero_expert_num": 2, "moe_topk": 2},
    "recurrent_gemma": {"num_hidden_layers": 3},
    "codegen": {"rotary_dim": 8},
    "gptj": {"rotary_dim": 8},
    "ernie4_5_moe": {"moe_k": 2},
    "xmod": {"is_decoder": True, "default_language": "en_XX"},
    "qwen3_5": {"text_config": {}, "vision_config": {}}, "qwen3_5_moe": {"text_config": {}, "vision_config": {}},
    "qwen4_exp": {"text_config": {}, "vision_config": {}},
    "gemma4": {"text_config": _SMALL_GEMMA4},
    "t5gemma": {"encoder": {}, "decoder": {"bos_token_id": 2}, "decoder_start_token_id": None},
    "t5gemma2": {"encoder": {"text_config": {}, "vision_config": _NO_SIGHT}, "decoder": {}},
    "mistral with a short window": {"model_type": "mistral", "sliding_window": WINDOW},
    "mixtral with a short window": {"model_type": "mixtral", "sliding_window": WINDOW},
    "phi3 with a short window": {"model_type": "phi3", "sliding_window": WINDOW},
    "starcoder2 with a short window": {"model_type": "starcoder2", "sliding_window": WINDOW},
    "qwen2 with a short window": {"model_type": "qwen2", "sliding_window": WINDOW, "use_sliding_window": True,
                                  "max_window_layers": 1},
    "qwen3 with a short window": {"model_type": "qwen3", "sliding_window": WINDOW, "use_sliding_window": True,
                                  "max_window_layers": 1},
    **{f"{name} with a short window": {"model_type": name, **_MIXED}
       for name in ("gemma2", "gemma3_text", "cohere2", "gpt_oss", "olmo3", "exaone4", "ministral")},
    "llama4_text": {"attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", "full_attention"],
                    "no_rope_layers": [1, 0], "intermediate_size_mlp": 64, "moe_layers": [1]},
    "llama4": {"text_config": {"attention_chunk_size": WINDOW, "layer_types": ["chunked_attention", "full_attention"],
                               "no_rope_layers": [1, 0], "intermediate_size_mlp": 64, "moe_layers": []},
               "vision_config": _NO_SIGHT},
    "gated t5": {"model_type": "t5", "feed_forward_proj": "gated-gelu"},
    "longt5 with a short window": {"model_type": "longt5", "local_radius": 15},
    "longt5 with global attention": {"model_type": "longt5", "encoder_attention_type": "transient-global"},
    "bart with a forced start": {"model_type": "bart", "forced_bos_token_id": 1},
    "mbart": {"decoder_start_token_id": 0},
    "mbart without a start": {"model_type": "mbart", "decoder_start_token_id": None},
    "led": {"attention_window": [16, 16], "max_encoder_position_embeddings": 2048},
    "bigbird_pegasus": {"block_size": 8},
    "switch_transformers": {"num_sparse_encoder_layers": 1, "num_sparse_decoder_layers": 1},
    **{name: {"decoder_start_token_id": 1} for name in ("m2m_100", "seamless_m4t", "seamless_m4t_v2")},
    "nllb-moe": {"decoder_start_token_id": 1, "encoder_sparse_step": 2, "decoder_sparse_step": 2},
    "xlm": {"emb_dim": 64},
    "fsmt": {"langs": ["en", "de"], "src_vocab_size": 200, "tgt_vocab_size": 200},
}  # fmt: skip
ABSENT = {
    **dict.fromkeys(
        ("audioflamingo3", "glmasr", "granite_speech", "granite_speech_plus", "musicflamingo", "nemo_speechlm",
         "qwen2_audio", "qwen3_asr", "vibevoice_asr", "voxtral", "voxtral_realtime", "moss_transcribe_diarize",
         "whisper", "moshi"), "reads sound",
    ),
    **dict.fromkeys(("musicgen", "musicgen_melody"), "writes music"),
    **dict.fromkeys(("fuyu", "git", "got_ocr2", "trocr", "emu3", "mllama", "phi4_multimodal"), "reads images"),
    **dict.fromkeys(("gemma4_assistant", "gemma4_unified_assistant"), "drafts for another model"),
    **dict.fromkeys(("cohere_compass_text", "dbrx", "zamba"), "its class does not build a model of two layers"),
    **dict.fromkeys(("dots3_note", "gemma4_unified"), "is large whatever its text part; that is in the zoo"),
    "gemma3n": "needs another package for images; its text part is in the zoo",
    "encoder-decoder": "two models of other architectures",
    "blt": "reads bytes in patches of a second model",
}  # fmt: skip
SHARE = (  # of all, in `make test`: one of each kind of difficulty
    "llama", "mistral with a short window", "gemma3", "gpt_oss with a short window", "llama4_text", "qwen3_moe",
    "laguna", "deepseek_v3", "gpt2", "t5gemma", "bart with a forced start", "mbart without a start",
    "bigbird_pegasus", "bloom", "mamba", "hy_v4",
)  # fmt: skip
REFUSED = {
    "axk2", "bailing_hybrid", "bamba", "bert that sees both sides", "bigbird_pegasus", "bloom", "camembert", "cpmant",
    "data2vec-text", "deepseek_v32", "deepseek_v4", "dots3_note_text", "falcon with alibi",
    "falcon_h1", "falcon_mamba", "fsmt", "glm_moe_dsa", "gpt_neo with a short window", "granitemoehybrid", "hy_v4",
    "inkling2_text", "inkling_text", "jamba", "kimi_linear", "lfm2", "lfm2_moe", "lfm3", "mamba", "mamba2",
    "mbart without a start", "minimax", "mpt", "nemotron_h", "nllb-moe", "olmo_hybrid", "openai-gpt", "prophetnet",
    "qwen3_5", "qwen3_5_moe", "qwen3_5_moe_text", "qwen3_5_text", "qwen3_next", "qwen4_exp", "qwen4_exp_text",
    "recurrent_gemma", "reformer", "roberta", "roberta-prelayernorm", "roformer", "rwkv",
     "switch_transformers", "xlm", "xlm-roberta", "xlm-roberta-xl", "xlnet", "xlstm", "xmod",
    "zamba2", "zaya",
}  # fmt: skip


def names() -> list[str]:
    """Return the architectures of transformers that write text, and the variants."""
    known = {
        **modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        **modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }
    return [name for name in dict.fromkeys([*known, *CHANGES]) if name not in ABSENT]


def config_of(name: str) -> Any:
    """Return the configuration of a tiny model."""
    changes = dict(CHANGES.get(name, {}))
    return _configure(transformers.CONFIG_MAPPING[changes.pop("model_type", name)], changes)


def save(name: str, folder: Path) -> str:
    """Save a tiny model with random weights; return its folder."""
    config = config_of(name)
    reads_first = config.is_encoder_decoder
    kind = transformers.AutoModelForSeq2SeqLM if reads_first else transformers.AutoModelForCausalLM
    with torch.device("meta"):
        size = sum(weight.numel() for weight in kind.from_config(config).parameters())
    if size > _MOST:
        raise MemoryError(f"{name} has {size} parameters")
    place = tiny._save(kind.from_config, config, _tokenizer(reads_first), folder)
    _run(kind.from_pretrained(place, dtype=torch.float32).eval())
    return place


@torch.inference_mode()
def _run(model: Any) -> None:
    """Compute a text with a model, so that what cannot compute anything is not taken for a refusal."""
    ids = torch.arange(5, 37)[None]
    model(
        input_ids=ids, use_cache=False, **({"decoder_input_ids": ids[:, :2]} if model.config.is_encoder_decoder else {})
    )


def _tokenizer(reads_first: bool) -> Any:
    return tiny._unigram() if reads_first else tiny._byte_level(tiny.CHATML)


def _configure(kind: Any, changes: Mapping[str, Any]) -> Any:
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    given = {name: size for name, size in _SIZES.items() if name in fields}
    if "kv_lora_rank" in fields:  # keys and values of all heads come from one projection
        given["num_key_value_heads"] = 4
    given |= {name: 0 for name, value in fields.items() if name.endswith("_token_id") and _is_number(value)}
    if "vocab_size" in fields:
        given["vocab_size"] = len(tiny._byte_level(tiny.CHATML))
    if fields.get("is_encoder_decoder"):
        given |= {"vocab_size": len(tiny._unigram()), "eos_token_id": 1, "decoder_start_token_id": 0}
    for name, part in (getattr(kind, "sub_configs", None) or {}).items():
        if name in changes and hasattr(part, "__dataclass_fields__"):
            given[name] = _configure(part, changes[name]).to_dict()
    return kind(
        **(given | {name: value for name, value in changes.items() if name not in given or not isinstance(value, dict)})
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
