"""How much memory a round needs, known before any weight is loaded. Imports nothing heavy.

Weights, what is trained, and the optimiser's state are counted. What is kept of each token for the way back is
derived from the layers (see `_kept`), for rows that are full: a batch of short utterances takes less. For T5 it
depends on how long utterances are and how labels begin. On a GPU, which holds back less, it has hardly been measured;
there, too, rows are halved if memory runs out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace

from model.backbones.shape import Linear, Shape
from model.recipe import LANE, LEAST_TOKENS, Recipe

FP32, BF16 = 4, 2  # bytes of a number
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a 4-bit weight with double quantisation: blocks of 64 share an 8-bit scale, 256 of these a 32-bit one
(Dettmers et al. 2023, arXiv 2305.14314, section 3)."""

PROGRAM = 600_000_000  # bytes: Python with torch, transformers and peft, before any weight

_INSTRUCTION = 256  # tokens before the first utterance of a row: three labels with definitions, or a dozen without
_HEAP = {"none": 1.6, "nf4": 1.65}
"""What the C library holds of memory that was given back, beside what is used: more where weights are unpacked again
and again, and more after several rows than after one. Measured by `benchmarks/memory.py` on glibc, and rounded up: who
plans with a number is better served by one that is a little high. A GPU's own allocator does better."""

_REGROWN = 2
"""The same for what lanes have cached: in every layer it moves to a larger piece, and the smaller one leaves a hole.
With a C library that is kept from holding any back (MALLOC_MMAP_THRESHOLD_), a round scores in half of it."""

_ASKED = 8  # tokens to one place where a label is asked: two dozen of an utterance, three of its labels
_LOGITS = {True: 4, False: 2}  # copies of the logits alive at once: as computed, picked out, and on the way back
_TOGETHER = 256  # tokens of instruction and utterance that T5's attention pairs with each other
_PATHS = 2  # times that T5's decoder takes up what the encoder has read, beside the start


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes at the peak of a round, part by part."""

    program: int
    weights: int
    trained: int  # what is put on the weights: LoRA layers, a soft prompt
    gradients: int
    optimizer: int  # two numbers for each trained
    copies: int  # of what is trained: its average, its best, what full tuning puts back
    activations: int  # of a full row, and what the C library holds back
    logits: int
    caches: int  # keys and values of instruction and utterances while a row is scored, and what the C library holds

    @property
    def total(self) -> int:
        """Add up the parts."""
        return sum(asdict(self).values())


def estimate(shape: Shape, recipe: Recipe, width: int = FP32, training: bool = True) -> MemoryNeed:
    """Estimate what a round needs; `width` are the bytes in which weights are loaded that are not quantised.

    Without `training`: what it takes to ask only, as for a round that is done.
    """
    count, each = _trained(shape, recipe, width) if training else (0, 0)
    is_full = recipe.method == "full"
    copies = is_full + bool(recipe.average) + bool(recipe.holdout)
    # T5 has the instruction before each utterance, and its rows count it
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
        logits=at_once // _ASKED * shape.vocabulary * FP32 * _LOGITS[training],
        caches=0 if training else round(_cached(shape, recipe, width) * _REGROWN),
    )


def least(shape: Shape, recipe: Recipe, width: int = FP32, training: bool = True) -> int:
    """Return the bytes without which nothing can be done, however few tokens are computed at once.

    A lower bound, so that nothing is refused that could run: without the program, which is there already when it is
    asked for, without instruction, caches, and what the C library holds back.
    """
    shortest = replace(recipe, row_tokens=LEAST_TOKENS if training else LEAST_TOKENS // 2)  # of two, see `estimate`
    need = estimate(shape, shortest, width, training)
    rounded_up = need.program + need.activations + need.caches
    return need.total - rounded_up + _kept_of_row(shape, shortest, width, training, LEAST_TOKENS)


def way_out(shape: Shape, recipe: Recipe, free: int, width: int = FP32) -> str:
    """Say what to do where a round does not fit."""
    in_4bit = estimate(shape, replace(recipe, quantization="nf4"), width).total
    if may_be_quantized(recipe) and in_4bit <= free:
        return f"Choose 4-bit weights ({in_gb(in_4bit)}), a smaller backbone, or close other programs."
    return "Choose a smaller backbone, or close other programs."


def may_be_quantized(recipe: Recipe) -> bool:
    """Say whether 4-bit weights are a choice: if they are not taken yet, and are not trained themselves."""
    return recipe.quantization == "none" and recipe.method != "full"


def weight_bytes(shape: Shape, quantized: bool, width: int = FP32) -> int:
    """Return the bytes of the backbone's weights."""
    if not quantized:
        return shape.parameters * width
    return round((shape.parameters - shape.quantizable) * width + shape.quantizable * NF4)


def in_gb(size: float) -> str:
    """Write bytes for people: two figures are as much as an estimate is good for."""
    return f"{size / 1e9:.1f} GB" if size < 99.5e8 else f"{size / 1e9:.0f} GB"


def _trained(shape: Shape, recipe: Recipe, width: int) -> tuple[int, int]:
    """Return how many weights are trained, and the bytes of one. peft keeps its own in fp32 whatever the backbone is.

    A choice of modules is counted as all of them: it can only need less.
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
    """Return the bytes of what is kept of a whole row, and the mask that says which of its tokens see each other."""
    kept, layers = _kept(shape, recipe, width, training), max(shape.layers, shape.encoder_layers)
    if not training:
        return tokens * (kept + (0 if shape.encoder_layers else _pairs(shape, width)))
    # all layers, and one more for the gradients of that which is worked on; or what goes from one to the next, and one
    each = shape.hidden * width * layers + kept if recipe.checkpointing else kept * (layers + 1)
    return tokens * (each + (0 if shape.encoder_layers else tokens * width))


def _pairs(shape: Shape, width: int) -> int:
    """Return the bytes of one token paired with all that its lane has: the mask, and each head's attention to them.

    A processor holds what goes into the softmax and what comes out of it, with a cast either in 8 bytes; a GPU neither.
    """
    return (_INSTRUCTION + LANE) * (width + shape.heads * 2 * FP32)


def _cached(shape: Shape, recipe: Recipe, width: int) -> int:
    """Return the bytes of the keys and values of a row that is scored: each lane has the instruction's, too.

    T5 reads each utterance apart and keeps nothing of others.
    """
    if shape.encoder_layers:
        return 0
    lanes = -(-recipe.scored_tokens // LANE)
    return lanes * (_INSTRUCTION + LANE) * 2 * shape.keys * shape.layers * width


def _kept(shape: Shape, recipe: Recipe, width: int, training: bool) -> int:
    """Return the bytes that one layer keeps of one token until the way back.

    Norms keep their input, in fp32. Attention keeps queries, keys and values, spread to all heads, and what it
    returns; the feed-forward part keeps gate, activated gate and up. The rest depends on what is trained.
    """
    norms = shape.norms * shape.hidden * FP32
    inner = 4 * shape.queries + (3 if shape.gated else 2) * shape.intermediate
    adapted = (*shape.attention, *shape.feed_forward)
    kept = norms + inner * width
    if shape.encoder_layers:
        kept += _kept_by_t5(shape, width)
        adapted += shape.attention[1:3]  # the decoder's keys and values of what the encoder has read
    return kept + _inputs_kept(shape, recipe, adapted, width) if training else kept


def _inputs_kept(shape: Shape, recipe: Recipe, adapted: tuple[Linear, ...], width: int) -> int:
    """Return the bytes of the inputs that linear layers keep of one token, because their own weights are trained.

    LoRA keeps them in fp32, and after dropout for each layer apart, beside the dropout's noise.
    """
    together = 2 * shape.hidden + shape.intermediate  # attention and gate read one input each, by several layers
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
    """Return the bytes T5 keeps besides: it pairs all tokens, has dropout of its own and a GELU in many steps."""
    pairs = 3 * shape.heads * _TOGETHER * FP32
    noise = 2 * shape.hidden + shape.intermediate
    steps = 4 * shape.intermediate if shape.gated else 0
    read_by_decoder = 2 * shape.queries * (1 + _PATHS)
    return pairs + (noise + steps + read_by_decoder) * width
