"""Compare the speed of scoring labels with common alternatives and with the limit.

    python -m benchmarks.scoring [--quick | --tiny]

The limit is a plain forward pass over as many tokens as the utterances have, without instruction and labels, in full
batches without padding. It has three variants: one row per utterance; longer rows, which are faster in bf16 on a CPU;
and longer rows with eager attention, which our scoring uses there. The common start of all utterances is left out of
the limit, because we compute it once. All use the same precision and take turns, the slow ones on fewer utterances
sampled evenly over all lengths. “padded, last token” and transformers get utterances of similar length together, which
saves padding; Outlines gets them in order. Of the alternatives, only “naive” gives the same numbers; “padded, last
token” covers only the first token of each label, and the last two give no probabilities.
"""

import copy
import csv
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import outlines
import torch

from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import plan_of
from benchmarks.measure import Way, over, print_last, show, take_turns
from model.adapter import LanguageModelClassifier
from model.backbones.backbone import load_backbone
from model.backbones.catalog import STARTER
from model.prompts.prompt import LARGE
from model.prompts.verbalizer import label_words
from model.recipe import LANE, Recipe
from model.scoring.packing import common_start
from model.types import Label, Task, Utterance

BATCH = 16


def client_talk(data: str = "client_talk") -> tuple[Task, list[Utterance]]:
    """Return client talk: three labels with definitions, about a hundred tokens of instruction."""
    labels = (
        Label("change", "The client leans towards changing: wish, ability, reason, need, commitment, a step taken."),
        Label("neutral", "Neither: facts, questions, answers, listening."),
        Label("sustain", "The client leans towards staying the same: no wish, no ability, reasons against, doubt."),
    )
    task = Task("Label what the client says about the behaviour that is talked about.", labels)
    return task, read_texts(plan_of(data).data)


def banking77() -> tuple[Task, list[Utterance]]:
    """Return questions to a bank: 77 labels by name."""
    path = plan_of("banking77").data
    with path.open(encoding="utf-8", newline="") as file:
        names = sorted({row["label"] for row in csv.DictReader(file)})
    task = Task("What does the customer want to know?", tuple(Label(name) for name in names))
    return task, read_texts(path)


def read_texts(path: Path) -> list[Utterance]:
    """Read every seventh text of the test split."""
    with path.open(encoding="utf-8", newline="") as file:
        return [Utterance(row["text"]) for row in csv.DictReader(file) if row["label"] and row["split"] == "test"][::7]


def annomi() -> tuple[Task, list[Utterance]]:
    """Return client talk from real conversations."""
    return client_talk("annomi")


def many_labels() -> tuple[Task, list[Utterance]]:
    """Return synthetic questions with 24 labels, a large codebook."""
    things, troubles = ("card", "order", "parcel", "refund", "account", "password"), ("lost", "late", "new", "wrong")
    names = [f"{thing} {trouble}" for thing in things for trouble in troubles]
    task = Task("What does the customer want to know?", tuple(Label(name) for name in names))
    return task, [Utterance(f"My {name} since day {day}, what now?") for day, name in enumerate(names)]


TASKS = {"annomi": annomi, "banking77": banking77, "client_talk": client_talk, "many_labels": many_labels}
COMMAND = Command(
    __doc__,
    full={"only": ("annomi", "banking77"), "times": 5, "share": 1.0, "backbone": STARTER},
    quick={"only": ("annomi",), "times": 2, "share": 0.25},
    tiny={"only": ("client_talk", "many_labels"), "times": 1, "share": 0.125, **RANDOM_WEIGHTS},
    choices={"only": tuple(TASKS)},
    figures_by="only",
)


def mixture(texts: Sequence[Utterance], count: int) -> list[Utterance]:
    """Return `count` texts sampled evenly over all lengths, in their order."""
    by_length = sorted(range(len(texts)), key=lambda place: len(texts[place].text))
    return [texts[place] for place in sorted(by_length[int((i + 0.5) * len(texts) / count)] for i in range(count))]


class Others:
    """The alternatives, on the same backbone and prompts."""

    def __init__(self, ours: LanguageModelClassifier) -> None:
        self.model, self.tokens = ours.backbone.model, ours.tokens
        self.tokenizer = copy.copy(ours.backbone.tokenizer)
        self.words = [label_words(label) for label in ours.task.labels]
        self.answers = [self.tokenizer(word, add_special_tokens=False)["input_ids"] for word in self.words]

    def prompts(self, utterances: Sequence[Utterance]) -> list[list[int]]:
        """Return whole prompts as token ids."""
        return [[*self.tokens.prefix, *self.tokens.body(utterance)] for utterance in utterances]

    def limit(self, utterances: Sequence[Utterance], budget: int, length: int = 0, attention: str = "sdpa") -> None:
        """Compute as many tokens as the utterances have, without padding, in rows of `length` or their mean length."""
        bodies = [self.tokens.body(utterance) for utterance in utterances]
        shared = len(common_start(bodies))
        tokens = torch.tensor([token for body in bodies for token in body[shared:]], device=self.model.device)
        length = length or len(tokens) // len(bodies)
        rows = tokens[: len(tokens) // length * length].view(-1, length)
        self.model.set_attn_implementation(attention)
        for batch in torch.split(rows, max(1, budget // length)):
            self.model(input_ids=batch, use_cache=False, logits_to_keep=1)
        self.model.set_attn_implementation("sdpa")

    def naive(self, utterances: Sequence[Utterance]) -> None:
        """Compute prompt and label together, one batch with all labels per utterance."""
        for prompt in self.prompts(utterances):
            for start in range(0, len(self.answers), BATCH):
                rows = [[*prompt, *answer] for answer in self.answers[start : start + BATCH]]
                ids, mask = self.pad(rows, left=False)
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                logits[:, len(prompt) - 1 :].float().log_softmax(dim=-1)

    def padded(self, utterances: Sequence[Utterance]) -> None:
        """Compute whole prompts in padded batches; read the first token of each label."""
        for ids, mask in self.batches(utterances):
            self.model(input_ids=ids, attention_mask=mask, use_cache=False, logits_to_keep=1)

    def generate(self, utterances: Sequence[Utterance]) -> None:
        """Generate with transformers, allowing only tokens that continue a label."""
        end = self.tokenizer.eos_token_id

        def allowed(_: int, ids: torch.Tensor) -> list[int]:
            tail = ids[length:].tolist()
            return [(*a, end)[len(tail)] for a in self.answers if a[: len(tail)] == tail] or [end]

        for ids, mask in self.batches(utterances):
            length = ids.shape[1]
            longest = max(len(answer) for answer in self.answers) + 1
            self.model.generate(
                input_ids=ids, attention_mask=mask, prefix_allowed_tokens_fn=allowed, do_sample=False,
                max_new_tokens=longest, pad_token_id=end,
            )  # fmt: skip

    def outlines(self) -> Any:
        """Return a function that generates with Outlines in batches."""
        words = sorted(self.words, key=len, reverse=True)  # longest first, or shorter ones hide longer ones
        generator = outlines.Generator(outlines.from_transformers(self.model, self.tokenizer), Literal[tuple(words)])

        def run(utterances: Sequence[Utterance]) -> None:
            texts = [self.tokenizer.decode(prompt) for prompt in self.prompts(utterances)]
            for start in range(0, len(texts), BATCH):
                generator.batch(texts[start : start + BATCH], max_new_tokens=12)

        return run

    def batches(self, utterances: Sequence[Utterance]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Return batches of prompts of similar length, padded on the left."""
        prompts = sorted(self.prompts(utterances), key=len)
        return [self.pad(prompts[i : i + BATCH], left=True) for i in range(0, len(prompts), BATCH)]

    def pad(self, rows: Sequence[Sequence[int]], left: bool) -> tuple[torch.Tensor, torch.Tensor]:
        """Return ids and mask."""
        ids = torch.nn.utils.rnn.pad_sequence(
            [torch.tensor(row) for row in rows], batch_first=True, padding_side="left" if left else "right"
        )
        sizes = torch.tensor([len(row) for row in rows])[:, None]
        place = torch.arange(ids.shape[1])
        mask = (place >= ids.shape[1] - sizes if left else place < sizes).long()
        return ids.to(self.model.device), mask.to(self.model.device)


@torch.inference_mode()
def compare(title: str, task: Task, texts: list[Utterance], given: Namespace) -> dict[str, float]:
    """Measure all ways on one task, with a share of the usual numbers of utterances.

    A large codebook is scored with codes, as the product recommends, and also with the labels' words.
    """
    backbone, is_large = load_backbone(given.backbone), len(task.labels) > LARGE
    in_words = LanguageModelClassifier(backbone, task, Recipe(), "definitions")
    ours = LanguageModelClassifier(backbone, task, Recipe(), "codes") if is_large else in_words
    others = Others(in_words)
    with_outlines = others.outlines()
    many = texts[: round(200 * given.share)]
    few = mixture(many, round((16 if is_large else 32) * given.share))
    fewest = mixture(many, 1 if is_large else max(1, len(few) // 4))  # 77 labels times 600 tokens take a minute
    words = [Way("ours, in words", len(few), lambda: in_words.logits(few))] if is_large else []
    budget = ours.recipe.scored_tokens
    limits = [
        Way("limit", len(many), lambda: others.limit(many, budget)),
        Way("limit, long rows", len(many), lambda: others.limit(many, budget, LANE)),
        Way("limit, as we attend", len(many), lambda: others.limit(many, budget, LANE, "eager")),
    ]
    ways = [
        Way("ours", len(many), lambda: ours.logits(many)),
        *words,
        *limits,
        Way("padded, last token", len(few), lambda: others.padded(few)),
        Way("naive", len(fewest), lambda: others.naive(fewest)),
        Way("transformers.generate", len(few), lambda: others.generate(few)),
        Way("outlines", len(few), lambda: with_outlines(few)),
    ]
    rates = take_turns(ways, given.times)
    length = sum(len(ours.tokens.body(text)) for text in many) / len(many)
    show(f"{title}: {len(task.labels)} labels, {len(ours.tokens.prefix)} tokens of instruction, "
         f"{length:.0f} of an utterance, {backbone.dtype}", rates, "utterances/s")  # fmt: skip
    limit = max((way.name for way in limits), key=lambda name: float(np.median(rates[name])))
    names = {"of_limit": limit, "over_naive": "naive", "over_padded": "padded, last token",
             "over_generate": "transformers.generate", "over_outlines": "outlines"}  # fmt: skip
    return {"utterances_per_second": round(float(rates["ours"].mean()), 2)} | {
        key: over(rates, name) for key, name in names.items()
    }


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    print_last({name: compare(name, *TASKS[name](), given) for name in given.only})


if __name__ == "__main__":
    main()
