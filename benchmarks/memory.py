"""Measure the peak memory of loading, training and scoring with a backbone in fp32, bf16 and 4 bits, and compare it
with our estimate.

    python -m benchmarks.memory [--quick | --tiny] [--shape llama-3.1-8b-instruct] [--precisions bf16,nf4]

Each measurement runs in its own process. “nominal” is the theoretical size of the weights: four or two bytes each, or
4.127 bits for a 4-bit weight with double quantization. “weights” is the size of their tensors, and “held” the growth of
the process after loading them and the tokenizer (less in bf16 on Linux, where weights stay in the mapped file until
needed). Training uses full rows, the most that a round can contain; short utterances take less. On a GPU, its memory is
measured, which does not include the program. The backbone is the starter, or one with random weights in the shape of a
catalog entry, which takes the same memory as trained weights.
"""

import csv
import gc
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

import psutil
import torch
import transformers
from rich.console import Console
from rich.table import Table

from annotator.codebook.definition import read_codebook
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.measure import print_last
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import Backbone, load_backbone
from model.backbones.catalog import CATALOG, SHAPES, STARTER, shape_of
from model.backbones.machine import best_device, can_load_4bit, peak_memory
from model.backbones.memory import MemoryNeed, estimate
from model.recipe import Recipe
from model.types import Label, Task, Utterance

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.float32}  # dtype of weights not in 4 bits
DATA = Path("data/client_talk.csv")  # the sample in this repository
CHILD = "import sys; from benchmarks import memory; memory.in_child(*sys.argv[1:])"
LLAMAS = [name for name, entry in CATALOG.items() if entry.family == "causal" and not SHAPES[name].biased]
BATCH = 40  # utterances: a few more than a row takes
COMMAND = Command(
    __doc__,
    full={"precisions": tuple(PRECISIONS), "utterances": 4 * BATCH, "shape": "", "backbone": STARTER},
    quick={"precisions": ("fp32", "nf4"), "utterances": BATCH},
    tiny={"precisions": ("fp32",), "utterances": BATCH, **RANDOM_WEIGHTS},
    choices={"precisions": tuple(PRECISIONS), "shape": LLAMAS},
    figures_by="precisions",
)


def recipe_of(precision: str) -> Recipe:
    """Return the default recipe in this precision, for one epoch of full rows."""
    return Recipe(quantization="nf4" if precision == "nf4" else "none", epochs=1, batch_size=BATCH)


def estimated(entry: str, precision: str, stage: str) -> MemoryNeed:
    """Return our estimate of the memory need."""
    shape = shape_of(entry)
    if shape is None:
        raise SystemExit(f"The shape of {entry} is unknown. Name a catalog entry or a local folder.")
    return estimate(shape, recipe_of(precision), PRECISIONS[precision].itemsize, stage == "train")


def at_random(entry: str, folder: str) -> str:
    """Save a random backbone in a catalog entry's shape, in bf16, with the starter's tokenizer; return the folder."""
    shape, tokenizer = SHAPES[entry], load_backbone(STARTER).tokenizer
    config = transformers.LlamaConfig(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.key_heads, head_dim=shape.head_width,
        intermediate_size=shape.intermediate, tie_word_embeddings=shape.tied, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    with torch.device(best_device()):
        transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def held() -> int:
    """Return the bytes this process holds now, without mapped files."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    gc.collect()
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def in_child(source: str, precision: str, stage: str, utterances: str) -> None:
    """Measure in this process and print bytes."""
    print_last(measure_here(source, precision, stage, int(utterances)))


def measure_here(source: str, precision: str, stage: str, utterances: int) -> dict[str, int]:
    """Measure in this process and return bytes."""
    recipe, before = recipe_of(precision), held()
    with mock.patch("model.backbones.backbone.preferred_dtype", return_value=PRECISIONS[precision]):
        backbone = load_backbone(source, recipe.quantization)
    found = {"weights": tensor_bytes(backbone), "held": held() - before, "loaded": peak_memory()}
    draft = read_codebook(DATA.with_suffix(".yaml"))
    task = Task(draft.instruction, tuple(Label(label.name, label.definition) for label in draft.labels))
    ours = LanguageModelClassifier(backbone, task, recipe, "definitions")
    with DATA.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["speaker"] == draft.speaker]
    texts = [Utterance(row["text"]) for row in rows[:utterances]]
    if stage == "train":
        ours.fit(texts, [i % len(task.labels) for i in range(len(texts))])
    else:
        ours.zero_shot().logits(texts)
    return found | {"peak": peak_memory()}


def tensor_bytes(backbone: Backbone) -> int:
    """Return the bytes of the backbone's weights, including the scales and tables of 4-bit weights."""
    total = 0
    for weight in backbone.model.parameters():
        state = getattr(weight, "quant_state", None)
        levels = [state, state.state2] if state else []
        total += weight.nbytes + sum(level.absmax.nbytes + level.code.nbytes for level in levels)
    return int(total)


def measure(source: str, precision: str, utterances: int) -> dict[str, dict[str, int]]:
    """Measure training and scoring, each in a fresh process."""
    found = {stage: in_process(source, precision, stage, utterances) for stage in ("train", "score")}
    return {"load": found["score"] | {"peak": found["score"]["loaded"]}, **found}


def in_process(source: str, precision: str, stage: str, utterances: int) -> dict[str, int]:
    """Measure in a process of its own and return bytes."""
    command = [sys.executable, "-c", CHILD, source, precision, stage, str(utterances)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(entry: str, found: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Print the table."""
    table = Table(title=f"{entry}, {recipe_of('fp32').row_tokens} tokens in a row, GB")
    for column in ("", "", "nominal", "weights", "held", "peak", "estimate"):
        table.add_column(column, justify="right" if column else "left")
    for precision, stages in found.items():
        for stage, bytes_of in stages.items():
            need = estimated(entry, precision, stage)
            row = (need.weights, bytes_of["weights"], bytes_of["held"], bytes_of["peak"], expected(need, stage))
            table.add_row(precision, stage, *(f"{size / 1e9:.2f}" for size in row))
    Console(width=100).print(table)


def expected(need: MemoryNeed, stage: str) -> int:
    """Return the estimated peak in bytes. Loading computes nothing, so only the weights count."""
    computed = need.total - need.weights - need.program if stage != "load" else 0
    return need.weights + computed + (0 if best_device().type == "cuda" else need.program)


def ratios(entry: str, precision: str, stages: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Return ratios of measured to nominal and estimated memory; above 1 is more than expected."""
    peaks = {stage: found["peak"] for stage, found in stages.items()}
    nominal, loaded = estimated(entry, precision, "load").weights, stages["load"]
    result = {f"{stage}_gb": round(peak / 1e9, 3) for stage, peak in peaks.items()}
    result["over_promise"] = round(loaded["weights"] / nominal, 3)
    result["held_over_promise"] = round(loaded["held"] / nominal, 3)
    result["of_estimate"] = round(peaks["train"] / expected(estimated(entry, precision, "train"), "train"), 3)
    result["score_of_estimate"] = round(peaks["score"] / expected(estimated(entry, precision, "score"), "score"), 3)
    return result


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    precisions = [name for name in given.precisions if name != "nf4" or can_load_4bit()]
    entry = given.shape or given.backbone
    with tempfile.TemporaryDirectory() as folder:
        source = at_random(given.shape, folder) if given.shape else entry
        found = {name: measure(source, name, given.utterances) for name in precisions}
    show(entry, found)
    print_last({name: ratios(entry, name, stages) for name, stages in found.items()})


if __name__ == "__main__":
    main()
