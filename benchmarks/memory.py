"""Peak memory of loading, training and asking a backbone: fp32, bf16 and 4-bit; beside what we foretell.

    python -m benchmarks.memory [--quick | --tiny] [--shape llama-3.1-8b-instruct] [--precisions bf16,nf4]

Each in a process of its own. “promised” is what the weights should take: four or two bytes each, or the 4.127 bits
of a 4-bit weight with double quantisation; “weights” is what their tensors take, “held” how much the process has
grown when they, and the tokenizer, are loaded (on Linux less in bf16, which stays in the file until it is needed).
Training takes a full row, which is the most that a round can meet; a batch of short utterances takes less. On a GPU
its memory is measured, and the program is not in it. The backbone is the starter, or one of the catalog's shape with
weights at random: they take as much memory as those that have learned.
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

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "nf4": torch.float32}  # of what is not in 4 bits
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
    """Return the shipped recipe in this precision, for one epoch of full rows."""
    return Recipe(quantization="nf4" if precision == "nf4" else "none", epochs=1, batch_size=BATCH)


def foretold(entry: str, precision: str, stage: str) -> MemoryNeed:
    """Return our estimate. Only the weights count until something is computed."""
    shape = shape_of(entry)
    if shape is None:
        raise SystemExit(f"The shape of {entry} is not known: name one of the catalog, or a local folder.")
    return estimate(shape, recipe_of(precision), PRECISIONS[precision].itemsize, stage == "train")


def at_random(entry: str, folder: str) -> str:
    """Save a backbone of a catalog entry's shape into a folder, in bf16, with the starter's tokenizer; return it."""
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
    """Return the bytes that this process holds now, without the files it has mapped."""
    if torch.cuda.is_available():
        return int(torch.cuda.memory_allocated())
    gc.collect()
    memory = psutil.Process().memory_info()
    return int(memory.rss - getattr(memory, "shared", 0))


def in_child(source: str, precision: str, stage: str, utterances: str) -> None:
    """Do it in this process; print bytes."""
    print_last(measure_here(source, precision, stage, int(utterances)))


def measure_here(source: str, precision: str, stage: str, utterances: int) -> dict[str, int]:
    """Do it in this process; return bytes."""
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
    """Return the bytes of the backbone's weights, with the scales and tables of those in 4 bits."""
    total = 0
    for weight in backbone.model.parameters():
        state = getattr(weight, "quant_state", None)
        levels = [state, state.state2] if state else []
        total += weight.nbytes + sum(level.absmax.nbytes + level.code.nbytes for level in levels)
    return int(total)


def measure(source: str, precision: str, utterances: int) -> dict[str, dict[str, int]]:
    """Train, and ask, in a fresh process each, so that nothing is counted that another has left."""
    found = {stage: in_process(source, precision, stage, utterances) for stage in ("train", "score")}
    return {"load": found["score"] | {"peak": found["score"]["loaded"]}, **found}


def in_process(source: str, precision: str, stage: str, utterances: int) -> dict[str, int]:
    """Do it in a process of its own."""
    command = [sys.executable, "-c", CHILD, source, precision, stage, str(utterances)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def show(entry: str, found: Mapping[str, Mapping[str, Mapping[str, int]]]) -> None:
    """Print the table."""
    table = Table(title=f"{entry}, {recipe_of('fp32').row_tokens} tokens in a row, GB")
    for column in ("", "", "promised", "weights", "held", "peak", "foretold"):
        table.add_column(column, justify="right" if column else "left")
    for precision, stages in found.items():
        for stage, bytes_of in stages.items():
            need = foretold(entry, precision, stage)
            row = (need.weights, bytes_of["weights"], bytes_of["held"], bytes_of["peak"], expected(need, stage))
            table.add_row(precision, stage, *(f"{size / 1e9:.2f}" for size in row))
    Console(width=100).print(table)


def expected(need: MemoryNeed, stage: str) -> int:
    """Return the bytes foretold for the peak."""
    computed = need.total - need.weights - need.program if stage != "load" else 0
    return need.weights + computed + (0 if best_device().type == "cuda" else need.program)


def ratios(entry: str, precision: str, stages: Mapping[str, Mapping[str, int]]) -> dict[str, float]:
    """Compare with what is promised and foretold: 1 is as said, more is more memory than said."""
    peaks = {stage: found["peak"] for stage, found in stages.items()}
    guaranteed, loaded = foretold(entry, precision, "load").weights, stages["load"]
    result = {f"{stage}_gb": round(peak / 1e9, 3) for stage, peak in peaks.items()}
    result["over_promise"] = round(loaded["weights"] / guaranteed, 3)
    result["held_over_promise"] = round(loaded["held"] / guaranteed, 3)
    result["of_estimate"] = round(peaks["train"] / expected(foretold(entry, precision, "train"), "train"), 3)
    result["score_of_estimate"] = round(peaks["score"] / expected(foretold(entry, precision, "score"), "score"), 3)
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
