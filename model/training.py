"""Training of an adapter: the loss over the labels, the optimiser, the schedule, and what to do when memory ends.

The loss is the cross-entropy of the label among the labels, on the very log-likelihoods that scoring uses: what is
trained is what is asked (cf. Liu et al. 2022, arXiv 2205.05638). A batch is computed in packed rows whose gradients
add up to that of the batch's mean loss, so how it is cut changes nothing but the memory it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import get_cosine_schedule_with_warmup

from annotator.errors import BackboneRefused
from model.classifier import Progress
from model.recipe import Recipe
from model.scoring import Scorer

Bodies = Sequence[Sequence[int]]
Loss = Callable[[torch.Tensor, np.ndarray], torch.Tensor]
T = TypeVar("T")

LEAST_TOKENS = 64  # a row of fewer holds no utterance worth labelling


@dataclass
class Budget:
    """How many tokens are computed at once. Halves when memory runs out, and stays so."""

    tokens: int

    def run(self, work: Callable[[int], T]) -> T:
        """Do the work with so many tokens at once; again with half as many for as long as memory runs out.

        Raises BackboneRefused if even the smallest row does not fit.
        """
        while True:
            try:
                return work(self.tokens)
            except RuntimeError as error:
                if not should_reduce_batch_size(error):
                    raise
                if self.tokens <= LEAST_TOKENS:
                    raise BackboneRefused(
                        f"Memory ran out with {self.tokens} tokens computed at once.",
                        "Choose a smaller backbone, 4-bit weights, or lower max_tokens.",
                    ) from error
            clear_device_cache(garbage_collection=True)  # outside the handler, which holds the failed tensors
            self.tokens //= 2


def train(model: Any, scorer: Scorer, bodies: Bodies, labels: np.ndarray, recipe: Recipe, progress: Progress) -> None:
    """Train what requires gradients. Leaves the model in evaluation mode, whatever happens."""
    kept, held_out = _hold_out(len(bodies), recipe)
    batches = [kept[batch] for batch in _epochs(len(kept), recipe)]
    weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = _optimizer(model, recipe)
    schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * len(batches)), len(batches))
    loss_of, budget, best = _loss(labels, recipe), Budget(recipe.row_tokens), _Best(weights, recipe.patience)

    def backward(batch: np.ndarray, tokens: int) -> None:
        optimizer.zero_grad()  # also what a row that ran out of memory has left
        for row in scorer.rows([bodies[i] for i in batch], tokens):
            chosen = batch[row]
            loss = loss_of(scorer.loglik([bodies[i] for i in chosen]), labels[chosen]) / len(batch)
            loss.backward()  # type: ignore[no-untyped-call]

    per_epoch = len(batches) // recipe.epochs
    with _in_training(model, recipe, float(np.mean([len(body) for body in bodies]))):
        for step, batch in enumerate(batches, start=1):
            budget.run(lambda tokens, batch=batch: backward(batch, tokens))  # type: ignore[misc]
            torch.nn.utils.clip_grad_norm_(weights, recipe.clip)
            optimizer.step()
            schedule.step()
            progress(step / len(batches))
            if step % per_epoch == 0 and len(held_out):
                model.eval()
                mean = _mean_loss(scorer, bodies, labels, held_out, budget)
                model.train()
                if best.is_over(mean):
                    break
    best.restore()


@contextmanager
def _in_training(model: Any, recipe: Recipe, mean_length: float) -> Iterator[None]:
    hook = None
    try:
        hook = _add_noise(model, recipe.neftune, mean_length) if recipe.neftune else None
        model.train()
        if recipe.checkpointing:
            model.activation_checkpointing_enable({"use_reentrant": False})
        yield
    finally:  # also when a person stops the round: dropout must not outlive it
        if hook:
            hook.remove()
        if recipe.checkpointing:
            model.activation_checkpointing_disable()
        model.eval()


def _add_noise(model: Any, strength: float, mean_length: float) -> Any:
    """Add uniform noise to token embeddings while training: NEFTune (Jain et al. 2023, arXiv 2310.05914)."""
    if model.config.is_encoder_decoder:
        raise BackboneRefused(
            "NEFTune does nothing on this family: its encoder does not read the embeddings it would change.",
            "Set neftune to 0.",
        )

    def noisy(module: Any, _: Any, embedded: torch.Tensor) -> torch.Tensor:
        reach = strength / (mean_length * embedded.shape[-1]) ** 0.5
        return embedded + torch.empty_like(embedded).uniform_(-reach, reach)

    return model.get_input_embeddings().register_forward_hook(noisy)


def _optimizer(model: Any, recipe: Recipe) -> Any:
    """Make the optimiser named; with `loraplus`, the B matrices learn that many times faster (arXiv 2402.12354)."""
    import bitsandbytes
    from peft.optimizers import create_loraplus_optimizer

    kinds = {
        "adamw": torch.optim.AdamW,
        "adamw_8bit": bitsandbytes.optim.AdamW8bit,
        "paged_adamw": bitsandbytes.optim.PagedAdamW32bit,
        "paged_adamw_8bit": bitsandbytes.optim.PagedAdamW8bit,
    }
    if recipe.optimizer.startswith("paged") and not torch.cuda.is_available():
        raise BackboneRefused("Paged optimisers move their state off a GPU, and there is none.", "Choose adamw_8bit.")
    kind, options = kinds[recipe.optimizer], {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay}
    if recipe.loraplus == 1:
        return kind([weight for weight in model.parameters() if weight.requires_grad], **options)
    return create_loraplus_optimizer(model, kind, loraplus_lr_ratio=recipe.loraplus, **options)


def _hold_out(n: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Split row numbers into those trained on and those that say when to stop."""
    held_out = np.random.default_rng([recipe.seed, n]).permutation(n)[: round(recipe.holdout * n)]
    return np.setdiff1d(np.arange(n), held_out), held_out


def _epochs(n: int, recipe: Recipe) -> list[np.ndarray]:
    """Shuffle anew for every epoch and cut into batches."""
    rng = np.random.default_rng(recipe.seed)
    cuts = range(recipe.batch_size, n, recipe.batch_size)
    return [batch for _ in range(recipe.epochs) for batch in np.split(rng.permutation(n), cuts)]


def _mean_loss(scorer: Scorer, bodies: Bodies, labels: np.ndarray, rows: np.ndarray, budget: Budget) -> float:
    """Return the mean negative log-probability of the labels among the labels."""

    def total(tokens: int) -> float:
        lost = 0.0
        for part in scorer.rows([bodies[i] for i in rows], tokens):
            loglik = scorer.loglik([bodies[i] for i in rows[part]])
            truth = torch.from_numpy(labels[rows[part]]).to(loglik.device)
            lost += float(torch.nn.functional.cross_entropy(loglik, truth, reduction="sum"))
        return lost

    with torch.no_grad():
        return budget.run(total) / len(rows)


class _Best:
    """The weights of the epoch with the lowest held-out loss, and how long ago that was."""

    def __init__(self, weights: Sequence[torch.Tensor], patience: int) -> None:
        self.weights, self.patience = weights, patience
        self.loss, self.waited = np.inf, 0
        self.kept: list[torch.Tensor] = []

    def is_over(self, loss: float) -> bool:
        """Take note of an epoch; say whether there has been no better one for long enough."""
        if loss < self.loss:
            self.loss, self.waited = loss, 0
            self.kept = [weight.detach().clone() for weight in self.weights]
            return False
        self.waited += 1
        return self.waited >= self.patience

    @torch.no_grad()
    def restore(self) -> None:
        """Put the best epoch's weights back, if any epoch was judged."""
        for weight, kept in zip(self.weights, self.kept, strict=False):
            weight.copy_(kept)


def _loss(labels: np.ndarray, recipe: Recipe) -> Loss:
    """Return the summed loss of a row's utterances, weighed over labels."""
    counts = np.bincount(labels)
    rarity = 1 / np.sqrt(np.maximum(counts, 1))
    rarity *= len(labels) / (rarity * counts).sum()  # mean weight one: the learning rate keeps its meaning

    def loss(loglik: torch.Tensor, truth: np.ndarray) -> torch.Tensor:
        target = torch.from_numpy(truth).to(loglik.device)
        if recipe.loss == "tokens":  # the usual one: the label's tokens among all tokens
            each = -loglik.gather(1, target[:, None])[:, 0]
        else:
            each = torch.nn.functional.cross_entropy(
                loglik, target, reduction="none", label_smoothing=recipe.label_smoothing
            )
        if recipe.class_weights:
            each = each * torch.from_numpy(rarity[truth]).to(each)
        return each.sum()

    return loss
