"""Estimate the memory a round needs before any weight is loaded. Imports nothing heavy.

Weights, trained parameters and the optimizer's state are counted. Activations kept for the backward pass are derived
from the layers (see `_kept`), for full rows: a batch of short utterances takes less. For T5 they depend on the length
of utterances and on how labels begin. On GPUs, whose allocator retains less, the estimate has hardly been verified;
there, too, rows are halved if memory runs out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from annotator.errors import Message
from model.backbones.shape import Linear, Shape
from model.recipe import LANE, LEAST_TOKENS, Recipe

FP32, BF16 = 4, 2  # bytes of a number
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a 4-bit weight with double quantization: blocks of 64 share an 8-bit scale, 256 of these a 32-bit one
(Dettmers et al. 2023, arXiv 2305.14314, section 3)."""

PROGRAM = 600_000_000  # bytes: Python with torch, transformers and peft, before any weight

_INSTRUCTION = 256  # tokens of an instruction with three labels and definitions, or a dozen without
_HEAP = {"none": 1.6, "nf4": 1.65}
"""Ratio of resident to used memory, as the C library retains freed memory: more when weights are unpacked repeatedly,
and more after several rows than after one. Measured by `benchmarks/memory.py` on glibc and rounded up, because a high
estimate is safer for planning. A GPU's allocator retains less."""

_REGROWN = 2
"""The same ratio for the cache of lanes: in each layer it is reallocated, and the former allocation leaves a hole.
If the C library retains nothing (MALLOC_MMAP_THRESHOLD_), scoring needs half of it."""

_TOKENS_PER_LOGITS = 8  # two dozen tokens of an utterance to three places with logits
_LOGITS = {True: 4, False: 2}  # copies of the logits alive at once, by training or not
_TOGETHER = 256  # tokens of instruction and utterance in T5's attention
_PATHS = 2  # passes of T5's decoder over the encoder states, besides the start token


@dataclass(frozen=True)
class MemoryNeed:
    """Peak memory of a round in bytes, by part."""

    program: int
    weights: int
    trained: int  # LoRA layers or a soft prompt
    gradients: int
    optimizer: int  # two numbers for each trained parameter
    copies: int  # of trained parameters: average, best epoch, originals of full tuning
    activations: int  # of a full row, and memory retained by the C library
    logits: int
    caches: int  # keys and values of a row being scored, and memory retained by the C library

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(asdict(self).values())


def estimate(shape: Shape, recipe: Recipe, width: int = FP32, training: bool = True) -> MemoryNeed:
    """Estimate the memory of a round; `width` is the size in bytes of a weight that is not quantized.

    Without `training`, estimate scoring alone, as with a finished round.
    """
    count, each = _trained(shape, recipe, width) if training else (0, 0)
    is_full = recipe.method == "full"
    copies = is_full + bool(recipe.average) + bool(recipe.holdout)
    # T5 repeats the instruction before each utterance, and its row sizes include it
    at_once = recipe.row_tokens if training else recipe.scored_tokens
    tokens = at_once + (0 if shape.encoder_layers else _INSTRUCTION)
    return MemoryNeed(
        program=PROGRAM,
        weights=weight_bytes(shape, recipe.quantization == "nf4", width),
        trained=0 if is_full else count * each,
        gradients=count * each,
        optimizer=count * (2 if recipe.optimizer.endswith("8bit") else 2 * each),
        copies=count * each * copies,
        activations=round(_kept_of_row(shape, recipe, width, training, tokens) * _HEAP[recipe.quantization]),
        logits=at_once // _TOKENS_PER_LOGITS * shape.vocabulary * FP32 * _LOGITS[training],
        caches=0 if training else round(_cached(shape, recipe, width) * _REGROWN),
    )


def least(shape: Shape, recipe: Recipe, width: int = FP32, training: bool = True) -> int:
    """Return the minimum of bytes, with the smallest number of tokens computed at once.

    A lower bound, so that nothing that could run is refused: it excludes the program, which is loaded already, the
    instruction, caches, and memory retained by the C library.
    """
    shortest = replace(
        recipe, row_tokens=LEAST_TOKENS if training else LEAST_TOKENS // 2
    )  # scoring takes twice as many, see `Recipe`
    need = estimate(shape, shortest, width, training)
    excluded = need.program + need.activations + need.caches
    return need.total - excluded + _kept_of_row(shape, shortest, width, training, LEAST_TOKENS)


def way_out(shape: Shape, recipe: Recipe, free: int, width: int = FP32) -> str:
    """Return a hint for a round that does not fit into memory."""
    in_4bit = estimate(shape, replace(recipe, quantization="nf4"), width).total
    if may_be_quantized(recipe) and in_4bit <= free:
        return Message(
            "Choose 4-bit weights ({memory}), a smaller backbone, or close other programs.", memory=in_gb(in_4bit)
        )
    return Message("Choose a smaller backbone, or close other programs.")


def may_be_quantized(recipe: Recipe) -> bool:
    """Return whether 4-bit weights are an option: not chosen yet, and weights not trained themselves."""
    return recipe.quantization == "none" and recipe.method != "full"


def weight_bytes(shape: Shape, quantized: bool, width: int = FP32) -> int:
    """Return the bytes of the backbone's weights."""
    if not quantized:
        return shape.parameters * width
    return round((shape.parameters - shape.quantizable) * width + shape.quantizable * NF4)


def in_gb(size: float) -> str:
    """Format bytes with two significant digits, the precision of an estimate."""
    return f"{size / 1e9:.1f} GB" if size < 99.5e8 else f"{size / 1e9:.0f} GB"


def _trained(shape: Shape, recipe: Recipe, width: int) -> tuple[int, int]:
    """Return the number of trained parameters and the bytes of one. peft keeps its own in fp32.

    A selection of modules is counted as all modules, which is an upper bound.
    """
    if recipe.method == "full":
        return shape.parameters, width
    if recipe.method == "prompt":
        return recipe.virtual_tokens * shape.hidden * (2 if shape.encoder_layers else 1), FP32
    low_rank = sum(recipe.rank * (linear.inputs + linear.outputs) for linear in shape.linears)
    magnitudes = sum(linear.outputs for linear in shape.linears) if recipe.dora else 0
    share = len(recipe.layers) / shape.layers if recipe.layers else 1
    return round((low_rank + magnitudes) * share), FP32


def _kept_of_row(shape: Shape, recipe: Recipe, width: int, training: bool, tokens: int) -> int:
    """Return the bytes of a row's activations and of its attention mask."""
    kept, layers = _kept(shape, recipe, width, training), max(shape.layers, shape.encoder_layers)
    if not training:
        return tokens * (kept + (0 if shape.encoder_layers else _pairs(shape, width)))
    # all layers, plus the gradients of one; with checkpointing, the inputs of all layers, plus one layer
    each = shape.hidden * width * layers + kept if recipe.checkpointing else kept * (layers + 1)
    return tokens * (each + (0 if shape.encoder_layers else tokens * width))


def _pairs(shape: Shape, width: int) -> int:
    """Return the bytes of one token's attention over its lane: the mask, and the scores of each head.

    A CPU holds inputs and outputs of the softmax, 8 bytes together; a GPU neither.
    """
    return (_INSTRUCTION + LANE) * (width + shape.heads * 2 * FP32)


def _cached(shape: Shape, recipe: Recipe, width: int) -> int:
    """Return the bytes of keys and values of a row being scored, with a copy of the instruction's for each lane.

    T5 encodes each utterance separately and caches none.
    """
    if shape.encoder_layers:
        return 0
    lanes = -(-recipe.scored_tokens // LANE)
    return lanes * (_INSTRUCTION + LANE) * 2 * shape.keys * shape.layers * width


def _kept(shape: Shape, recipe: Recipe, width: int, training: bool) -> int:
    """Return the bytes that one layer keeps of one token until the backward pass.

    Norms keep their input, in fp32. Attention keeps queries, keys and values, expanded to all heads, and its output;
    the feed-forward part keeps gate, activated gate and up. The rest depends on the trained parameters.
    """
    norms = shape.norms * shape.hidden * FP32
    inner = 4 * shape.queries + (3 if shape.gated else 2) * shape.intermediate
    adapted = (*shape.attention, *shape.feed_forward)
    kept = norms + inner * width
    if shape.encoder_layers:
        kept += _kept_by_t5(shape, width)
        adapted += shape.attention[1:3]  # the decoder's keys and values of the encoder states
    return kept + _inputs_kept(shape, recipe, adapted, width) if training else kept


def _inputs_kept(shape: Shape, recipe: Recipe, adapted: tuple[Linear, ...], width: int) -> int:
    """Return the bytes of one token's inputs kept by linear layers that are trained.

    LoRA keeps them in fp32, and with dropout separately for each layer, with the dropout mask.
    """
    together = 2 * shape.hidden + shape.intermediate  # the layers of attention share one input, and so do gate and up
    if recipe.method == "prompt":
        return 0
    if recipe.method == "full":
        return (together + shape.norms * shape.hidden) * width
    low_rank = recipe.rank * len(adapted) * FP32
    apart = sum(linear.inputs for linear in adapted) * FP32
    if recipe.dropout:
        return 2 * apart + low_rank
    return low_rank + (together * FP32 if width == FP32 else apart)


def _kept_by_t5(shape: Shape, width: int) -> int:
    """Return the additional bytes of T5: scores for all pairs of tokens, dropout of its own, a GELU in many steps."""
    pairs = 3 * shape.heads * _TOGETHER * FP32
    noise = 2 * shape.hidden + shape.intermediate
    steps = 4 * shape.intermediate if shape.gated else 0
    read_by_decoder = 2 * shape.queries * (1 + _PATHS)
    return pairs + (noise + steps + read_by_decoder) * width
