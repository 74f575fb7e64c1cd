"""Measure the peak memory of training and scoring, and compare it with the estimate that rounds are planned by.

    python -m benchmarks.memory [--quick | --tiny] [--cells starter-fp32,starter-nf4] [--shape llama-3.1-8b-instruct]

A cell is a shape with a recipe. The backbone is the starter, or one with random weights in the shape of a catalog
entry, which takes the same memory as trained weights. Each measurement runs in its own process and trains on full rows
for one epoch. “ratio” is the estimate divided by the peak; with “kept”, the C library keeps freed memory as it usually
does, and with “returned” it returns every block of 64 kB at once, which separates the estimate from its habits. On a
GPU, its memory is measured, which does not include the program. `--shape` measures another shape in all precisions.
"""

import csv
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any
from unittest import mock

import torch
import transformers
from rich.console import Console
from rich.table import Table

from annotator.codebook.draft import read_codebook
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.measure import print_last
from model.adapter import LanguageModelClassifier
from model.backbones.architecture import shape_from
from model.backbones.backbone import load_backbone
from model.backbones.catalog import SHAPES, STARTER
from model.backbones.machine import best_device, can_load_4bit, peak_memory
from model.backbones.memory import BF16, FP32, Job, Machine, estimate
from model.prompts.lengths import count_tokens
from model.recipe import Recipe
from model.types import Label, Task, Utterance

DATA = Path("data/client_talk.csv")  # the sample in this repository
BATCH = 12  # utterances: a few more than a row takes
ROW_TOKENS = 256  # a row of these with the instruction is half as long as a default one, and takes half the time
CHILD = "import sys; from benchmarks import memory; memory.in_child(*sys.argv[1:])"
RETURNED = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"}
STAGES = ("train", "score")


@dataclass(frozen=True)
class Cell:
    """A shape with a recipe; `precision` is that of weights not in 4 bits."""

    entry: str = STARTER
    precision: str = "fp32"
    changes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def recipe(self) -> Recipe:
        """The recipe, for one epoch of full rows, without the probe."""
        return replace(Recipe(epochs=1, batch_size=BATCH, row_tokens=ROW_TOKENS, probe_weight=0.0), **self.changes)


NF4, CHECKPOINTS = {"quantization": "nf4"}, {"checkpointing": True}
CELLS = {
    "starter-fp32": Cell(),
    "starter-fp32-checkpointing": Cell(changes=CHECKPOINTS),
    "starter-bf16": Cell(precision="bf16"),
    "starter-nf4": Cell(changes=NF4),
    "starter-prompt": Cell(changes={"method": "prompt"}),
    "starter-full": Cell(changes={"method": "full"}),
    "starter-fp32-rows-of-1024": Cell(changes={"row_tokens": 1024, "batch_size": 40}),
    "360m-fp32": Cell("smollm2-360m-instruct"),
    "360m-nf4-checkpointing": Cell("smollm2-360m-instruct", changes=NF4 | CHECKPOINTS),
    "360m-bf16-checkpointing": Cell("smollm2-360m-instruct", "bf16", CHECKPOINTS),
    "t5-small-fp32": Cell("flan-t5-small"),
    "t5-base-fp32-checkpointing": Cell("flan-t5-base", changes=CHECKPOINTS),
    "t5-base-nf4": Cell("flan-t5-base", changes=NF4),
}
PRECISIONS = {"fp32": Cell(), "bf16": Cell(precision="bf16"), "nf4": Cell(precision="bf16", changes=NF4 | CHECKPOINTS)}
COMMAND = Command(
    __doc__,
    full={"cells": tuple(CELLS), "utterances": 2 * BATCH, "shape": "", "backbone": ""},
    quick={"cells": ("starter-fp32", "starter-nf4")},
    tiny={"cells": ("starter-fp32",), "utterances": BATCH, **RANDOM_WEIGHTS},
    choices={"cells": tuple(CELLS), "shape": tuple(SHAPES)},
    figures_by="cells",
)


def at_random(entry: str, folder: str) -> str:
    """Save a random backbone in a catalog entry's shape, in bf16, with the starter's tokenizer; return the folder."""
    shape, tokenizer = SHAPES[entry], load_backbone(STARTER).tokenizer
    common = {"tie_word_embeddings": shape.tied, "eos_token_id": tokenizer.eos_token_id}
    if shape.encoder_layers:
        tokenizer.chat_template = None
        kind: Any = transformers.AutoModelForSeq2SeqLM
        config: Any = transformers.T5Config(
            vocab_size=len(tokenizer), d_model=shape.hidden, d_kv=shape.head_width, d_ff=shape.intermediate,
            num_layers=shape.encoder_layers, num_decoder_layers=shape.layers, num_heads=shape.heads,
            feed_forward_proj="gated-gelu", decoder_start_token_id=0, **common,
        )  # fmt: skip
    else:
        kind = transformers.AutoModelForCausalLM
        config = transformers.LlamaConfig(
            vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
            num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, head_dim=shape.head_width,
            intermediate_size=shape.intermediate, **common,
        )  # fmt: skip
    with torch.device(best_device()):
        kind.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def in_child(source: str, cell: str, stage: str, utterances: str) -> None:
    """Measure in this process and print bytes."""
    print_last(measure_here(source, Cell(**json.loads(cell)), stage, int(utterances)))


def measure_here(source: str, cell: Cell, stage: str, utterances: int) -> dict[str, int]:
    """Measure in this process; return bytes of the weights, of the peak, and of the estimate."""
    recipe, dtype = cell.recipe, {"fp32": torch.float32, "bf16": torch.bfloat16}[cell.precision]
    with mock.patch("model.backbones.backbone.preferred_dtype", return_value=dtype):
        backbone = load_backbone(source, recipe.quantization, recipe)
    draft = read_codebook(DATA.with_suffix(".yaml"))
    task = Task(draft.instruction, tuple(Label(label.name, label.definition) for label in draft.leaves))
    ours = LanguageModelClassifier(backbone, task, recipe, "definitions")
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speaker"] == draft.speaker]
    texts = [Utterance(row["text"]) for row in rows[:utterances]]
    if stage == "train":
        ours.fit(texts, [i % len(task.labels) for i in range(len(texts))])
    else:
        ours.zero_shot().logits(texts)
    shape = shape_from(backbone.model.config)
    assert shape
    machine = Machine(0, best_device().type == "cuda", BF16 if cell.precision == "bf16" else FP32)
    need = estimate(Job(shape, recipe, machine, count_tokens(ours.tokens, texts)), stage == "train")
    certain = need.total - need.retained
    estimated = certain - need.program if machine.gpu else need.total
    return {"peak": peak_memory(), "certain": certain, "estimate": estimated, **asdict(need)}


def in_process(source: str, cell: Cell, stage: str, utterances: int, environment: Mapping[str, str]) -> dict[str, int]:
    """Measure in a process of its own and return bytes."""
    command = [sys.executable, "-c", CHILD, source, json.dumps(asdict(cell)), stage, str(utterances)]
    env = os.environ | environment
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(source: str, cell: Cell, utterances: int) -> dict[str, float]:
    """Measure training and scoring, each with freed memory kept and returned; return estimates over peaks."""
    ratios: dict[str, float] = {}
    for stage in STAGES:
        kept = in_process(source, cell, stage, utterances, {})
        returned = in_process(source, cell, stage, utterances, RETURNED)
        ratios[f"{stage}_gb"] = round(kept["peak"] / 1e9, 2)
        ratios[f"{stage}_estimate_gb"] = round(kept["estimate"] / 1e9, 2)
        ratios[f"{stage}_kept"] = round(kept["estimate"] / kept["peak"], 2)
        ratios[f"{stage}_returned"] = round(kept["certain"] / returned["peak"], 2)
    return ratios


def show(found: Mapping[str, Mapping[str, float]]) -> None:
    """Print the table."""
    table = Table(title="peak memory, GB, and the estimate divided by it")
    for column in ("cell", "", "peak", "estimate", "ratio, kept", "ratio, returned"):
        table.add_column(column, justify="right" if column.startswith(("peak", "est", "ratio")) else "left")
    for name, ratios in found.items():
        for stage in STAGES:
            figures = (ratios[f"{stage}_{which}"] for which in ("gb", "estimate_gb", "kept", "returned"))
            table.add_row(name, stage, *(f"{figure:.2f}" for figure in figures))
    Console(width=100).print(table)


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    cells = {name: CELLS[name] for name in given.cells}
    if given.shape:
        cells = {f"{given.shape}-{name}": replace(cell, entry=given.shape) for name, cell in PRECISIONS.items()}
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        source = cache(lambda entry: entry if entry == STARTER else at_random(entry, f"{folder}/{entry}"))
        for name, cell in cells.items():
            if cell.recipe.quantization == "none" or can_load_4bit():
                found[name] = measure(given.backbone or source(cell.entry), cell, given.utterances)
    show(found)
    print_last(found)


if __name__ == "__main__":
    main()
