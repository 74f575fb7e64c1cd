"""Derive the number of weights from an architecture's dimensions. Imports nothing heavy.

This allows estimating the memory of a backbone from its catalog entry or config.json alone, without torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple


class Linear(NamedTuple):
    """A linear layer, which LoRA can adapt and 4-bit loading can quantize."""

    inputs: int
    outputs: int
    is_wo: bool = False  # T5's output projection, never quantized: its outputs overflow in formats coarser than bf16

    @property
    def weights(self) -> int:
        """The number of weights."""
        return self.inputs * self.outputs


class Count(NamedTuple):
    """Weights counted on the modules of an architecture."""

    weights: int
    in_linears: int  # of linear layers, except the output layer over the vocabulary
    widths: int  # inputs and outputs of these layers, added up


@dataclass(frozen=True)
class Shape:
    """Dimensions of an architecture, named as in config.json where those names are clear."""

    hidden: int
    layers: int  # of the decoder
    heads: int
    key_heads: int  # fewer than heads where queries share keys and values
    head_width: int
    intermediate: int
    vocabulary: int
    tied: bool = True  # the output layer is the embedding
    gated: bool = True  # the feed-forward part has a gate
    biased: bool = False  # queries, keys and values have a bias (Qwen2)
    head_norms: bool = False  # queries and keys are normalized (Qwen3, Gemma 3)
    norms: int = 2  # per layer
    encoder_layers: int = 0  # 0: causal
    distances: int = 0  # buckets of T5's relative positions
    cross_norms: int = 1  # a decoder layer has these more, for cross-attention
    others: int = 0  # weights outside the language model, as of a part that reads images; never trained
    fused: bool = False  # one linear layer for queries, keys and values, and one for gate and up (Phi-3)
    recomputes: bool = True  # activations can be computed again in the backward pass
    counted: Count | None = None  # in place of sums over the dimensions, for architectures not described by them

    @property
    def queries(self) -> int:
        """Width of the queries, and of the output of attention."""
        return self.heads * self.head_width

    @property
    def keys(self) -> int:
        """Width of the keys, and of the values."""
        return self.key_heads * self.head_width

    @property
    def attention(self) -> tuple[Linear, ...]:
        """Linear layers of one attention part: queries, keys, values, output."""
        key, output = Linear(self.hidden, self.keys), Linear(self.queries, self.hidden)
        if self.fused:
            return Linear(self.hidden, self.queries + 2 * self.keys), output
        return Linear(self.hidden, self.queries), key, key, output

    @property
    def feed_forward(self) -> tuple[Linear, ...]:
        """Linear layers of one feed-forward part: gate, up, down."""
        parts = 2 if self.gated else 1
        wide = (Linear(self.hidden, self.intermediate),) * parts
        if self.fused:
            wide = (Linear(self.hidden, parts * self.intermediate),)
        return *wide, Linear(self.intermediate, self.hidden, is_wo=self.distances > 0)

    @cached_property
    def linears(self) -> tuple[Linear, ...]:
        """All linear layers except the output layer over the vocabulary."""
        decoder = self.attention * (2 if self.encoder_layers else 1) + self.feed_forward
        return decoder * self.layers + (self.attention + self.feed_forward) * self.encoder_layers

    @cached_property
    def parameters(self) -> int:
        """The number of all weights."""
        if self.counted:
            return self.counted.weights
        embeddings = self.vocabulary * self.hidden * (1 if self.tied else 2)
        biases = (self.queries + 2 * self.keys) * self.layers if self.biased else 0
        linear = sum(linear.weights for linear in self.linears)
        return linear + embeddings + biases + self._norms + self._distances + self.others

    @cached_property
    def quantizable(self) -> int:
        """The number of weights that 4-bit loading quantizes: those of linear layers, except T5's `wo`."""
        if self.counted:
            return self.counted.in_linears
        return sum(linear.weights for linear in self.linears if not linear.is_wo)

    @cached_property
    def widths(self) -> int:
        """Inputs and outputs of all linear layers, added up: a LoRA layer has `rank` times as many weights."""
        return self.counted.widths if self.counted else sum(one.inputs + one.outputs for one in self.linears)

    @property
    def _norms(self) -> int:
        if self.encoder_layers:
            in_decoder = (self.norms + self.cross_norms) * self.layers
            return (self.norms * self.encoder_layers + in_decoder + 2) * self.hidden
        of_heads = 2 * self.head_width * self.layers if self.head_norms else 0
        return (self.norms * self.layers + 1) * self.hidden + of_heads

    @property
    def _distances(self) -> int:
        return 2 * self.distances * self.heads  # one table each for encoder and decoder


Config = Mapping[str, Any]  # the content of a config.json

_LIKE_LLAMA: dict[str, dict[str, Any]] = {
    "llama": {},
    "mistral": {},
    "ministral": {},
    "ministral3": {},
    "smollm3": {},
    "phi3": {"fused": True},
    "qwen2": {"biased": True},
    "qwen3": {"head_norms": True},
    "gemma": {},
    "gemma2": {"norms": 4},
    "gemma3_text": {"norms": 4, "head_norms": True},
}
_TIED = ("gemma", "smollm3")  # kinds whose output layer is the embedding unless the configuration states otherwise


def read_shape(config: Config) -> Shape | None:
    """Read the shape from the content of config.json; None for an unknown architecture."""
    kind = config.get("model_type")
    try:
        if kind in _LIKE_LLAMA:
            return _like_llama(config, **_LIKE_LLAMA[kind])
        return _t5(config) if kind == "t5" else None
    except KeyError:  # edited by hand, or by a version that omits defaults
        return None


def _like_llama(config: Config, **special: Any) -> Shape:
    heads = config["num_attention_heads"]
    return Shape(
        config["hidden_size"],
        config["num_hidden_layers"],
        heads,
        config.get("num_key_value_heads") or heads,
        config.get("head_dim") or config["hidden_size"] // heads,
        config["intermediate_size"],
        config["vocab_size"],
        tied=config.get("tie_word_embeddings", str(config["model_type"]).startswith(_TIED)),
        **special,
    )


def _t5(config: Config) -> Shape:
    heads, layers = config["num_heads"], config["num_layers"]
    # transformers 5 reports every T5 as tied; the value of the file is in another field
    tied = config.get("scale_decoder_outputs", config.get("tie_word_embeddings", True))
    return Shape(
        config["d_model"],
        config.get("num_decoder_layers") or layers,
        heads,
        heads,
        config["d_kv"],
        config["d_ff"],
        config["vocab_size"],
        tied=tied,
        gated=str(config.get("feed_forward_proj", "relu")).startswith("gated"),
        encoder_layers=layers,
        distances=config.get("relative_attention_num_buckets", 32),
    )
