"""Compare training speed and the time to the same held-out loss with common trainers.

    python -m benchmarks.training [--quick | --tiny]       (with trl: pip install --editable '.[benchmark]')

All use the same backbone, LoRA layers, optimizer, prompts, precision and effective batch of 8, in turns: ours (packed
after one instruction, cross-entropy over the labels), transformers' Trainer (padded batches of similar length, loss on
the answer's tokens), TRL's SFTTrainer on prompt and completion, and as the limit a forward and backward pass over the
utterances' own tokens, without instruction and labels. Steps are timed from the second on.
Without trl, SFTTrainer is skipped with a note, and `over_sft` is null.
"""

import contextlib
import copy
import csv
import io
import tempfile
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Dataset

from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import plan_of
from benchmarks.measure import over, print_last, show, wait_for_gpu
from benchmarks.scoring import TASKS
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.backbones.catalog import STARTER
from model.backbones.machine import best_device
from model.recipe import LEARNING_RATES, Recipe
from model.training.tuning import start_tuning
from model.types import Utterance

RECIPE = Recipe(epochs=1, probe_weight=0.0)  # the adapter alone, as the others train it
COMMAND = Command(
    __doc__,
    full={
        "data": "annomi", "learn": 200, "held_out": 150, "times": 4, "steps": 5, "to_loss": (6, 12, 25),
        "backbone": STARTER,
    },
    quick={"times": 1, "steps": 3, "to_loss": ()},
    tiny={"data": "client_talk", "learn": 48, "held_out": 20, "times": 1, "steps": 2, "to_loss": (2, 6),
          **RANDOM_WEIGHTS},
    choices={"data": ("annomi", "client_talk")},
    figures=("examples_per_second", "over_trainer", "over_sft", "of_limit"),
    gaps=("over_sft",),
)  # fmt: skip
Timed = Callable[[int], list[float]]  # trains for a number of steps; returns the seconds of each


class Course:
    """The training and held-out examples shared by all trainers: client talk."""

    def __init__(self, given: Namespace) -> None:
        n, held_out = given.learn, given.held_out
        self.task, _ = TASKS[given.data]()
        names = [label.name for label in self.task.labels]
        with plan_of(given.data).data.open(encoding="utf-8", newline="") as file:
            rows = [row for row in csv.DictReader(file) if row["label"] and row["split"] == "train"]
        chosen = np.random.default_rng(0).permutation(len(rows))[: n + held_out]
        self.texts = [Utterance(rows[i]["text"]) for i in chosen[:n]]
        self.labels = [names.index(rows[i]["label"]) for i in chosen[:n]]
        self.other_texts = [Utterance(rows[i]["text"]) for i in chosen[n:]]
        self.other_labels = torch.tensor([names.index(rows[i]["label"]) for i in chosen[n:]])
        self.ours = LanguageModelClassifier(load_backbone(given.backbone), self.task, RECIPE, "definitions")
        tokens = self.ours.tokens
        self.tokenizer = copy.copy(tokens.tokenizer)
        self.tokenizer.pad_token = self.tokenizer.pad_token or self.tokenizer.eos_token
        answers = [tokens.tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
        self.prompts = [[*tokens.prefix, *tokens.body(text)] for text in self.texts]
        self.answers = [answers[label] for label in self.labels]

    def held_out_loss(self) -> float:
        """Return the cross-entropy over the labels on held-out utterances, with the layers attached now."""
        logits = torch.from_numpy(self.ours.logits(self.other_texts))
        return float(torch.nn.functional.cross_entropy(logits, self.other_labels))

    def attach(self) -> Any:
        """Attach new LoRA layers to the backbone."""
        self.ours.zero_shot()  # detaches the layers before
        torch.manual_seed(0)
        self.ours.backbone.tuning = start_tuning(self.ours.backbone, RECIPE)
        return self.ours.backbone.model.train()

    def learn(self, steps: int) -> list[float]:
        """Train as the product does."""
        n, clock = steps * RECIPE.batch_size, _Clock()
        clock.tick()
        self.ours.fit(self.texts[:n], self.labels[:n], lambda _: clock.tick())
        return np.diff(clock.ticks).tolist()

    def trainer(self, steps: int) -> list[float]:
        """Train with transformers' Trainer."""
        pairs = list(zip(self.prompts, self.answers, strict=True))[: steps * RECIPE.batch_size]
        rows = [
            {"input_ids": p + a, "labels": [-100] * len(p) + a, "attention_mask": [1] * len(p + a)} for p, a in pairs
        ]
        collator = transformers.DataCollatorForSeq2Seq(self.tokenizer)
        clock = _Clock()
        transformers.Trainer(
            self.attach(), _arguments(transformers.TrainingArguments, steps), data_collator=collator,
            train_dataset=Dataset.from_list(rows), callbacks=[clock],
        ).train()  # fmt: skip
        return clock.seconds

    def sft(self, steps: int) -> list[float]:
        """Train with TRL's SFTTrainer."""
        from trl.trainer.sft_config import SFTConfig
        from trl.trainer.sft_trainer import SFTTrainer

        decode = self.tokenizer.decode
        pairs = list(zip(self.prompts, self.answers, strict=True))[: steps * RECIPE.batch_size]
        rows = [{"prompt": decode(prompt), "completion": decode(answer)} for prompt, answer in pairs]
        clock = _Clock()
        SFTTrainer(
            self.attach(), _arguments(SFTConfig, steps), train_dataset=Dataset.from_list(rows),
            processing_class=self.tokenizer, callbacks=[clock],
        ).train()  # fmt: skip
        return clock.seconds

    def limit(self, steps: int) -> list[float]:
        """Run forward and backward passes over as many tokens as the utterances have, without padding."""
        model = self.attach()
        bodies = [self.ours.tokens.body(text) for text in self.texts[: steps * RECIPE.batch_size]]
        clock = _Clock()
        for start in range(0, len(bodies), RECIPE.batch_size):
            batch = bodies[start : start + RECIPE.batch_size]
            tokens = torch.tensor([token for body in batch for token in body], device=model.device)
            rows = tokens[: len(tokens) // len(batch) * len(batch)].view(len(batch), -1)
            clock.tick()
            model(input_ids=rows, use_cache=False, logits_to_keep=1).logits.mean().backward()
            clock.tick()
        return clock.seconds


class _Clock(transformers.TrainerCallback):  # type: ignore[misc]
    def __init__(self) -> None:
        self.ticks: list[float] = []

    def tick(self) -> None:
        wait_for_gpu()
        self.ticks.append(time.perf_counter())

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.tick()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.tick()

    @property
    def seconds(self) -> list[float]:
        return list(np.diff(self.ticks)[::2])


def _arguments(kind: Any, steps: int) -> Any:
    return kind(
        output_dir=tempfile.gettempdir(), per_device_train_batch_size=RECIPE.batch_size, max_steps=steps,
        learning_rate=LEARNING_RATES["lora"], lr_scheduler_type="cosine", warmup_steps=RECIPE.warmup,
        train_sampling_strategy="group_by_length", save_strategy="no", report_to="none",
        use_cpu=best_device().type == "cpu", bf16=False, disable_tqdm=True, logging_strategy="no",
        max_grad_norm=RECIPE.clip, seed=0,
    )  # fmt: skip


def speeds(course: Course, times: int, steps: int) -> dict[str, np.ndarray]:
    """Return (times,) examples per second for each way, measured in turns."""
    ways: dict[str, Timed] = {
        "ours": course.learn, "limit": course.limit, "Trainer": course.trainer,
    }  # fmt: skip
    if find_spec("trl"):
        ways["SFTTrainer"] = course.sft
    else:
        print("SFTTrainer is skipped: the package trl is not installed.")
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(times):
        for name, way in ways.items():
            with contextlib.redirect_stdout(io.StringIO()):  # the trainers print their summaries
                rates[name].append(RECIPE.batch_size / float(np.mean(way(steps)[1:])))
    return {name: np.array(rate) for name, rate in rates.items()}


def times_to_loss(course: Course, steps: Sequence[int]) -> dict[str, float]:
    """Train for increasing numbers of steps; return the seconds each way needs to a held-out loss that both reach."""
    curves: dict[str, list[tuple[float, float]]] = {"ours": [], "Trainer": []}
    for name, way in (("ours", course.learn), ("Trainer", course.trainer)):
        for n in steps:
            with contextlib.redirect_stdout(io.StringIO()):
                seconds = sum(way(n))
            course.ours.backbone.model.eval()
            curves[name].append((seconds, course.held_out_loss()))
            print(f"{name}: {n} steps, {seconds:.0f} s, held-out loss {curves[name][-1][1]:.3f}", flush=True)
    reached = max(min(loss for _, loss in curve) for curve in curves.values())
    return {name: min(seconds for seconds, loss in curve if loss <= reached) for name, curve in curves.items()}


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    transformers.utils.logging.set_verbosity_error()
    course = Course(given)
    rates = speeds(course, given.times, given.steps)
    show(f"training on client talk, batches of {RECIPE.batch_size}, {course.ours.backbone.dtype}", rates, "examples/s")
    result: dict[str, float | None] = {"examples_per_second": round(float(np.median(rates["ours"])), 2)}
    names = {"over_trainer": "Trainer", "over_sft": "SFTTrainer", "of_limit": "limit"}
    result |= {key: over(rates, name) if name in rates else None for key, name in names.items()}
    if given.to_loss:
        to_loss = times_to_loss(course, given.to_loss)
        result["over_trainer_to_same_loss"] = round(to_loss["Trainer"] / to_loss["ours"], 2)
    print_last(result)


if __name__ == "__main__":
    main()
