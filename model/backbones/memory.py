"""Estimate the memory a round needs before any weight is loaded. Imports nothing heavy.

Weights, trained parameters and the optimizer's state are counted. Activations are derived from the layers (see
`_kept`), for the largest row that the lengths of the texts allow. What the C library retains of freed memory is a part
of its own. On GPUs, whose allocator retains less, the estimate has not been verified; there rows are halved if memory
runs out.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import NamedTuple

from model.backbones.shape import Linear, Shape
from model.prompts.lengths import Lengths
from model.recipe import LANE, LEAST_TOKENS, Recipe, adapted_layers
from model.scoring.trie_search import FEW_NODES

FP32, BF16 = 4, 2  # bytes of a number
_RETURNED = 2**25  # bytes of a block from which glibc always returns it to the system when it is freed
NF4 = (4 + 8 / 64 + 32 / (64 * 256)) / 8
"""Bytes of a 4-bit weight with double quantization: blocks of 64 share an 8-bit scale, 256 of these a 32-bit one
(Dettmers et al. 2023, arXiv 2305.14314, section 3)."""

PROGRAM = {False: 600_000_000, True: 500_000_000}
"""Bytes of the program before any weight. In main memory: Python with torch, transformers and peft. On a GPU: CUDA's
context and kernels; not measured."""

_HOLES = 0.4
"""Share of the memory of computed layers that is not reused, as blocks of other sizes lie between. In main memory these
are all layers of a row even with checkpointing, because gradients are allocated between the layers' activations.
Measured by `benchmarks/memory.py` on glibc; for a GPU's allocator, which serves both from pools of their own, the share
of what is kept at once is an assumption."""

_LOGITS = {True: 4, False: 2}  # copies of the logits alive at once, by training or not


@dataclass(frozen=True)
class Machine:
    """What a machine offers to a backbone: free bytes, of a GPU or main memory, and how it computes."""

    free: int = 0
    gpu: bool = False
    width: int = FP32  # bytes of a number in the precision it computes fastest
    four_bit: bool = True  # it has kernels for 4-bit weights


@dataclass(frozen=True)
class Job:
    """A round whose memory is estimated: the backbone's shape, the recipe, the machine and the texts."""

    shape: Shape
    recipe: Recipe = field(default_factory=Recipe)
    machine: Machine = field(default_factory=Machine)
    lengths: Lengths = field(default_factory=Lengths)

    @property
    def width(self) -> int:
        """Bytes of a number in the precision of the round."""
        return {"auto": self.machine.width, "fp32": FP32, "bf16": BF16}[self.recipe.precision]


class Row(NamedTuple):
    """The largest row of a round: texts computed at once."""

    tokens: int  # with the instruction, once or before each utterance, and the tokens of labels
    utterances: int
    reach: int  # tokens that a token attends to, masked or not


@dataclass(frozen=True)
class MemoryNeed:
    """Peak memory of a round in bytes, by part."""

    program: int
    weights: int
    trained: int  # LoRA layers or a soft prompt
    gradients: int
    optimizer: int  # two numbers for each trained parameter
    copies: int  # of trained parameters: average, best epoch, originals of full tuning
    activations: int  # of a row, until the backward pass
    logits: int
    caches: int  # keys and values of a row being scored
    retained: int  # by the C library, of memory that was freed

    @property
    def total(self) -> int:
        """The sum of all parts."""
        return sum(asdict(self).values())


def peak(job: Job) -> MemoryNeed:
    """Return the memory of a round at its peak: while training or while scoring."""
    scoring = estimate(job, training=False)
    if job.recipe.probe_weight == 1:
        return scoring
    return max(estimate(job), scoring, key=lambda need: need.total)


def row_of(job: Job, size: int, training: bool) -> Row:
    """Return a full row of utterances of `size` tokens, at least one."""
    recipe, lengths = job.recipe, job.lengths
    budget, most = (recipe.row_tokens, recipe.batch_size) if training else (recipe.scored_tokens, lengths.count or 1000)
    before = lengths.instruction + (recipe.virtual_tokens if recipe.method == "prompt" else 0)
    behind = min(lengths.nodes, FEW_NODES)  # by which rows are cut
    if job.shape.encoder_layers:  # padded: each utterance with the instruction
        size, before = before + size, 0
        fitting = max(1, min(most, budget // (size + behind + 1)))
        return Row(fitting * size, fitting, size)
    fitting = max(1, min(most, budget // (size + behind)))
    each = size + (lengths.nodes if training else behind)
    reach = before + (fitting * each if training else max(LANE, each))
    return Row(fitting * each + before * training, fitting, reach)


def largest_row(job: Job, training: bool) -> Row:
    """Return the largest row: of the longest utterances, or of typical ones, which have more labels behind them."""
    return max(row_of(job, size, training) for size in (job.lengths.longest, job.lengths.typical))


def estimate(job: Job, training: bool = True) -> MemoryNeed:
    """Estimate the memory of a round while it trains; without `training`, while it scores."""
    recipe, row = job.recipe, largest_row(job, training)
    count, each = _trained(job) if training else (0, 0)
    is_full = recipe.method == "full"
    activations, caches = _activations(job, row, training), 0 if training else _cached(job, row)
    return MemoryNeed(
        program=PROGRAM[job.machine.gpu],
        weights=weight_bytes(job.shape, recipe.quantization == "nf4", job.width),
        trained=0 if is_full else count * each,
        gradients=count * each,
        optimizer=_optimizer(job, count, each),
        copies=count * each * (is_full + bool(recipe.average) + bool(recipe.holdout)),
        activations=activations,
        logits=_places(job, row, training) * job.shape.vocabulary * FP32 * _LOGITS[training],
        caches=caches,
        retained=_retained(job, row, training) + caches,  # a layer's cache grows by reallocation, which leaves a hole
    )


def least(job: Job, training: bool = True) -> int:
    """Return the minimum of bytes, with the smallest number of tokens computed at once.

    A lower bound, so that nothing that could run is refused: it excludes the program, which is loaded already, the
    instruction, caches, and memory retained by the C library.
    """
    shortest = replace(job.recipe, row_tokens=LEAST_TOKENS if training else LEAST_TOKENS // 2)  # see `scored_tokens`
    texts = Lengths(0, LEAST_TOKENS, LEAST_TOKENS, 1, 0, 0)
    need = estimate(replace(job, recipe=shortest, lengths=texts), training)
    return need.total - need.program - need.caches - need.retained


def weight_bytes(shape: Shape, quantized: bool, width: int = FP32) -> int:
    """Return the bytes of the backbone's weights."""
    if not quantized:
        return shape.parameters * width
    return round((shape.parameters - shape.quantizable) * width + shape.quantizable * NF4)


def in_gb(size: float) -> str:
    """Format bytes with two significant digits, the precision of an estimate."""
    return f"{size / 1e9:.1f} GB" if size < 99.5e8 else f"{size / 1e9:.0f} GB"


def _trained(job: Job) -> tuple[int, int]:
    """Return the number of trained parameters and the bytes of one. peft keeps its own in fp32.

    A selection of modules is counted as all modules, which is an upper bound.
    """
    shape, recipe = job.shape, job.recipe
    if recipe.method == "full":
        return shape.parameters, job.width
    if recipe.method == "prompt":
        return recipe.virtual_tokens * shape.hidden * (2 if shape.encoder_layers else 1), FP32
    magnitudes = sum(linear.outputs for linear in shape.linears) if recipe.dora else 0
    return round((recipe.rank * shape.widths + magnitudes) * _adapted(job) / shape.layers), FP32


def _adapted(job: Job) -> int:
    """Return the number of layers that LoRA adapts."""
    shape, recipe = job.shape, job.recipe
    chosen = recipe.layers if shape.encoder_layers else adapted_layers(recipe, shape.layers)
    return len(chosen) or shape.layers


def layers_through(job: Job) -> int:
    """Return the number of layers that gradients pass through: those above the lowest one that is adapted."""
    shape, recipe = job.shape, job.recipe
    if shape.encoder_layers or recipe.method != "lora":
        return max(shape.layers, shape.encoder_layers)
    return shape.layers - min(adapted_layers(recipe, shape.layers), default=0)


def _optimizer(job: Job, count: int, each: int) -> int:
    """Return the bytes of two numbers for each trained parameter; pages of a GPU's memory can be moved off it."""
    kind = job.recipe.optimizer
    if kind.startswith("paged") and job.machine.gpu:
        return 0
    return count * (2 if kind.endswith("8bit") else 2 * each)


def _places(job: Job, row: Row, training: bool) -> int:
    """Return the places of a row with logits: the end of each utterance and each node behind it.

    Scoring with a large codebook expands as many nodes at once as the row has tokens.
    """
    if not training and job.lengths.nodes > FEW_NODES:
        return row.tokens
    return row.utterances * (1 + job.lengths.nodes)


def _activations(job: Job, row: Row, training: bool) -> int:
    """Return the bytes of a row's activations and of its attention mask."""
    shape, width = job.shape, job.width
    kept, layers = _kept(job, row, training), layers_through(job)
    if not training:
        return row.tokens * (kept + (0 if shape.encoder_layers else _pairs(job, row)))
    # these layers, plus the gradients of one; with checkpointing, the inputs of these layers, plus one layer
    each = shape.hidden * width * layers + kept if job.recipe.checkpointing else kept * (layers + 1)
    return row.tokens * (each + (0 if shape.encoder_layers else row.tokens * width))


def _retained(job: Job, row: Row, training: bool) -> int:
    """Return the bytes of computed layers that the C library, or a GPU's allocator, does not reuse.

    In main memory, weights unpacked from 4 bits are blocks like activations. While scoring, each layer's cache is
    allocated behind them, so that the next layer reuses none of this memory.
    """
    if job.machine.gpu:
        return round(_HOLES * _activations(job, row, training))
    whole = replace(job, recipe=replace(job.recipe, checkpointing=False))
    share = _HOLES if training or job.shape.encoder_layers else 1
    return round(_HOLES * _activations(whole, row, training) + share * _unpacked(job))


def _unpacked(job: Job) -> int:
    """Return the bytes of weights unpacked from 4 bits, except those so large that they are returned when freed."""
    if job.recipe.quantization == "none":
        return 0
    blocks = [linear.weights * job.width for linear in job.shape.linears if not linear.is_wo]
    return sum(block for block in blocks if block < _RETURNED)


def _pairs(job: Job, row: Row) -> int:
    """Return the bytes of one token's attention over its lane: the mask, and the scores of each head.

    A CPU holds inputs and outputs of the softmax, 8 bytes together; a GPU neither.
    """
    return row.reach * (job.width + (0 if job.machine.gpu else job.shape.heads * 2 * FP32))


def _cached(job: Job, row: Row) -> int:
    """Return the bytes of keys and values of a row being scored, with a copy of the instruction's for each lane.

    T5 encodes each utterance separately and caches none.
    """
    if job.shape.encoder_layers:
        return 0
    lanes = -(-row.tokens // (row.reach - job.lengths.instruction))
    return lanes * row.reach * 2 * job.shape.keys * job.shape.layers * job.width


def _kept(job: Job, row: Row, training: bool) -> int:
    """Return the bytes that one layer keeps of one token until the backward pass.

    Norms keep their input, in fp32. Attention keeps queries, keys and values, expanded to all heads, and its output;
    the feed-forward part keeps gate, activated gate and up. The rest depends on the trained parameters.
    """
    shape = job.shape
    norms = shape.norms * shape.hidden * FP32
    inner = 4 * shape.queries + (3 if shape.gated else 2) * shape.intermediate
    adapted = (*shape.attention, *shape.feed_forward)
    kept = norms + inner * job.width
    if shape.encoder_layers:
        kept += _kept_by_t5(job, row)
        adapted += shape.attention[1:3]  # the decoder's keys and values of the encoder states
    return kept + _inputs_kept(job, adapted) if training else kept


def _inputs_kept(job: Job, adapted: tuple[Linear, ...]) -> int:
    """Return the bytes of one token's inputs kept by linear layers that are trained.

    LoRA keeps them in fp32, and with dropout separately for each layer, with the dropout mask.
    """
    shape, recipe, width = job.shape, job.recipe, job.width
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


def _kept_by_t5(job: Job, row: Row) -> int:
    """Return the additional bytes of T5: scores for all pairs of tokens, dropout of its own, a GELU in many steps."""
    shape, paths = job.shape, job.lengths.paths
    pairs = 3 * shape.heads * row.reach * FP32
    noise = 2 * shape.hidden + shape.intermediate
    steps = 4 * shape.intermediate if shape.gated else 0
    read_by_decoder = 2 * shape.queries * (1 + paths)
    return pairs + (noise + steps + read_by_decoder) * job.width
