"""Train an adapter: the loss over the labels, the steps, checkpoints, and recovery when memory runs out.

The loss is the cross-entropy over the labels, on the same log-likelihoods that scoring uses (cf. Liu et al. 2022, arXiv
2205.05638). A batch is computed in packed rows whose gradients add up to that of the batch's mean loss, so the size of
the rows affects only memory.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from transformers import get_cosine_schedule_with_warmup

from annotator.errors import BackboneRefused, Message, NotFinite, TooFewAnswers
from model.backbones.backbone import Backbone
from model.recipe import LEAST_TOKENS, Recipe, default_rate
from model.scoring.packing import Bodies
from model.scoring.scoring import Scorer
from model.training.optimizer import make_optimizer, trainable
from model.types import Progress

Loss = Callable[[Scorer, Bodies, np.ndarray], torch.Tensor]
T = TypeVar("T")


@dataclass
class Budget:
    """The number of tokens computed at once. Halved for good when memory runs out."""

    tokens: int

    def run(self, work: Callable[[int], T]) -> T:
        """Call `work` with the budget; halve it and retry while memory runs out.

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
                        Message("Memory ran out with {tokens} tokens computed at once.", tokens=self.tokens),
                        "Choose a smaller backbone, 4-bit weights, or lower max_tokens.",
                    ) from error
            clear_device_cache(garbage_collection=True)  # outside the handler, which holds the failed tensors
            self.tokens //= 2


@dataclass(frozen=True)
class TrainingSet:
    """Tokenized utterances, their labels, and the recipe."""

    bodies: Bodies
    labels: np.ndarray  # (n,) indices into the codebook
    recipe: Recipe


@dataclass(frozen=True)
class Checkpoint:
    """The file with the state of unfinished training, and the fingerprint of its training set."""

    path: Path
    fingerprint: str

    def write(self, state: dict[str, Any]) -> None:
        """Replace the last state atomically."""
        half = self.path.with_name(f"{self.path.name}.tmp")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        random = [torch.get_rng_state(), *torch.cuda.get_rng_state_all()]
        torch.save(state | {"fingerprint": self.fingerprint, "random": random}, half)
        os.replace(half, self.path)

    def read(self) -> dict[str, Any] | None:
        """Return the last state if readable and of the same training set, and restore the random number generators."""
        try:
            state: dict[str, Any] = torch.load(self.path, map_location="cpu", weights_only=True)  # runs no code
        except (OSError, EOFError, RuntimeError, pickle.UnpicklingError):  # missing, or truncated by a power failure
            return None
        if not isinstance(state, dict) or state.get("fingerprint") != self.fingerprint:
            return None
        torch.set_rng_state(state["random"][0])
        torch.cuda.set_rng_state_all(state["random"][1:])
        return state


def train(
    backbone: Backbone,
    scorer: Scorer,
    training_set: TrainingSet,
    progress: Progress,
    checkpoint: Checkpoint | None = None,
) -> None:
    """Train the weights that require gradients. Leaves the model in evaluation mode, also after an error."""
    recipe, bodies = training_set.recipe, training_set.bodies
    kept, held_out = _hold_out(len(bodies), recipe)
    batches = [kept[batch] for batch in _epochs(len(kept), recipe)]
    learner = _Learner(backbone, recipe, len(batches))
    step = learner.resume(checkpoint)
    loss_of, budget = _loss(training_set.labels, recipe), Budget(recipe.row_tokens)
    longest = sorted(bodies, key=len)[-recipe.batch_size :]
    backbone.model.eval()  # newly added layers are in training mode, with dropout
    scorer.check(longest, budget.tokens)

    def backward(batch: np.ndarray, tokens: int) -> None:
        learner.optimizer.zero_grad()  # also gradients left by a row that ran out of memory
        for row in scorer.rows([bodies[i] for i in batch], tokens):
            chosen = batch[row]
            loss = loss_of(scorer, [bodies[i] for i in chosen], chosen) / len(batch)
            learner.check(loss.detach())
            learner.accelerator.backward(loss)

    per_epoch = len(batches) // recipe.epochs
    frozen = nullcontext() if recipe.neftune else scorer.frozen_below(bodies, budget.tokens)  # noise enters below
    with frozen, _in_training(backbone, recipe, float(np.mean([len(body) for body in bodies]))):
        while step < len(batches) and not learner.is_over(recipe.patience):
            batch = batches[step]
            budget.run(lambda tokens, batch=batch: backward(batch, tokens))  # type: ignore[misc]
            learner.step()
            step += 1
            if step % per_epoch == 0 and len(held_out):
                backbone.model.eval()
                learner.record_held_out_loss(_mean_loss(scorer, training_set, held_out, budget))
                backbone.model.train()
            if step % per_epoch == 0 and checkpoint and step < len(batches):
                checkpoint.write(learner.state() | {"step": step})
            progress(step / len(batches))
    learner.finish()


class _Learner:
    """The state of training: weights, optimizer, the average of the weights, the best epoch."""

    def __init__(self, backbone: Backbone, recipe: Recipe, steps: int) -> None:
        self.weights = trainable(backbone)
        self.clip = recipe.clip
        self.accelerator = Accelerator()
        optimizer = make_optimizer(backbone, recipe)
        schedule = get_cosine_schedule_with_warmup(optimizer, round(recipe.warmup * steps), steps)
        self.optimizer, self.schedule = self.accelerator.prepare(optimizer, schedule)
        self.steps, self.default_rate = steps, default_rate(recipe, backbone.family == "causal")
        self.rate = self.default_rate if recipe.learning_rate is None else recipe.learning_rate
        self.steps_left, self.to_average = steps, max(1, round(recipe.average * steps)) if recipe.average else 0
        self.average: list[torch.Tensor] = []
        self.averaged = 0
        self.best: list[torch.Tensor] = []
        self.best_loss, self.waited = float("inf"), 0

    def check(self, value: torch.Tensor | float) -> None:
        """Raise NotFinite for a loss, gradient or weight that is infinite or undefined."""
        if np.isfinite(float(value)):
            return
        step = min(self.steps - self.steps_left + 1, self.steps)
        raise NotFinite(
            Message(
                "Training stopped at step {step} of {steps}: with a learning rate of {rate:g} its "
                "numbers are infinite or undefined.",
                step=step,
                steps=self.steps,
                rate=self.rate,
            ),
            Message(
                "Lower recipe.learning_rate; {default_rate:g} is the default. The previous round stays in use.",
                default_rate=self.default_rate,
            ),
        )

    def step(self) -> None:
        """Take one optimizer step, and update the average of the weights in the last steps."""
        norm = self.accelerator.clip_grad_norm_(self.weights, self.clip)
        if norm is not None:
            self.check(norm)
        self.optimizer.step()
        self.schedule.step()
        self.steps_left -= 1
        if self.steps_left < self.to_average:
            self.averaged += 1
            if not self.average:
                self.average = _copies(self.weights)
            for mean, weight in zip(self.average, self.weights, strict=True):
                mean.lerp_(weight.detach(), 1 / self.averaged)

    def record_held_out_loss(self, loss: float) -> None:
        """Record the held-out loss of an epoch, and its weights if the loss is the lowest so far."""
        self.check(loss)
        if loss < self.best_loss:
            self.best_loss, self.waited, self.best = loss, 0, _copies(self.weights)
        else:
            self.waited += 1

    def is_over(self, patience: int) -> bool:
        """Return whether patience has run out."""
        return self.waited >= patience

    @torch.no_grad()
    def finish(self) -> None:
        """Load the best epoch's weights if there is held-out data, otherwise the average of the last steps, if any."""
        for weight, kept in zip(self.weights, self.best or self.average, strict=False):
            weight.copy_(kept)
        for weight in self.weights:
            self.check(weight.abs().max())

    def state(self) -> dict[str, Any]:
        """Return the state as plain values and tensors."""
        plain = {
            name: getattr(self, name) for name in ("steps_left", "average", "averaged", "best", "best_loss", "waited")
        }
        optimizer = {"optimizer": self.optimizer.state_dict(), "schedule": self.schedule.state_dict()}
        return plain | optimizer | {"weights": _copies(self.weights)}

    @torch.no_grad()
    def resume(self, checkpoint: Checkpoint | None) -> int:
        """Resume from a checkpoint of the same training set; return the number of completed steps."""
        state = checkpoint.read() if checkpoint else None
        if state is None:
            return 0
        for weight, kept in zip(self.weights, state["weights"], strict=True):
            weight.copy_(kept)
        for name in ("average", "best"):
            setattr(self, name, [t.to(w.device) for t, w in zip(state[name], self.weights, strict=False)])
        for name in ("steps_left", "averaged", "best_loss", "waited"):
            setattr(self, name, state[name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        return int(state["step"])


def _copies(weights: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in weights]


@contextmanager
def _in_training(backbone: Backbone, recipe: Recipe, mean_length: float) -> Iterator[None]:
    model, hook = backbone.model, None
    try:
        hook = _add_noise(model, recipe.neftune, mean_length) if recipe.neftune else None
        model.train()
        if recipe.checkpointing:
            _enable_checkpointing(backbone)
        yield
    finally:  # also when the round is canceled: dropout must not stay on
        if hook:
            hook.remove()
        if recipe.checkpointing:
            model.activation_checkpointing_disable()
        model.eval()


def _enable_checkpointing(backbone: Backbone) -> None:
    """Recompute activations of each layer. Raises BackboneRefused if the architecture cannot."""
    if not backbone.model.supports_gradient_checkpointing:
        raise BackboneRefused(
            Message("The backbone “{name}” cannot compute activations again.", name=backbone.name),
            "Set recipe.checkpointing to false, and recipe.row_tokens lower to save memory.",
        )
    backbone.model.activation_checkpointing_enable({"use_reentrant": False})


def _add_noise(model: Any, strength: float, mean_length: float) -> Any:
    """Add uniform noise to token embeddings while training: NEFTune (Jain et al. 2023, arXiv 2310.05914)."""
    if model.config.is_encoder_decoder:
        raise BackboneRefused(
            "NEFTune has no effect on encoder-decoder models: the encoder does not read the embeddings it changes.",
            "Set neftune to 0.",
        )

    def noisy(module: Any, _: Any, embedded: torch.Tensor) -> torch.Tensor:
        reach = strength / (mean_length * embedded.shape[-1]) ** 0.5
        return embedded + torch.empty_like(embedded).uniform_(-reach, reach)

    return model.get_input_embeddings().register_forward_hook(noisy)


def _hold_out(n: int, recipe: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """Split indices into training and held-out data. Raises TooFewAnswers if no training data is left."""
    count = min(round(recipe.holdout * n), n)
    if count == n:
        raise TooFewAnswers(
            Message(
                "A holdout of {holdout} holds out {n} of {n2} labels and leaves {n3} for training.",
                holdout=recipe.holdout,
                n=count,
                n2=n,
                n3=n - count,
            ),
            "Set holdout to 0.2, a common value, or to 0 to train on all labels.",
        )
    held_out = np.random.default_rng([recipe.seed, n]).permutation(n)[:count]
    return np.setdiff1d(np.arange(n), held_out), held_out


def _epochs(n: int, recipe: Recipe) -> list[np.ndarray]:
    """Return batches of indices, reshuffled for every epoch."""
    rng = np.random.default_rng(recipe.seed)
    cuts = range(recipe.batch_size, n, recipe.batch_size)
    return [batch for _ in range(recipe.epochs) for batch in np.split(rng.permutation(n), cuts)]


def _mean_loss(scorer: Scorer, training_set: TrainingSet, rows: np.ndarray, budget: Budget) -> float:
    """Return the mean cross-entropy over the labels."""
    bodies = training_set.bodies

    def total(tokens: int) -> float:
        lost = 0.0
        for part in scorer.rows([bodies[i] for i in rows], tokens):
            loglik = scorer.loglik([bodies[i] for i in rows[part]])
            truth = torch.from_numpy(training_set.labels[rows[part]]).to(loglik.device)
            lost += float(torch.nn.functional.cross_entropy(loglik, truth, reduction="sum"))
        return lost

    with torch.no_grad():
        return budget.run(total) / len(rows)


def _loss(labels: np.ndarray, recipe: Recipe) -> Loss:
    """Return a function for the summed loss of a row's utterances, with optional class weights."""
    counts = np.bincount(labels)
    rarity = 1 / np.sqrt(np.maximum(counts, 1))
    rarity *= len(labels) / (rarity * counts).sum()  # mean weight of one: the learning rate stays comparable

    def loss(scorer: Scorer, bodies: Bodies, rows: np.ndarray) -> torch.Tensor:
        truth = labels[rows]
        if recipe.loss == "tokens":  # the standard loss: the label's tokens over the whole vocabulary
            each = -scorer.chosen_loglik(bodies, truth)
        else:
            loglik = scorer.loglik(bodies)
            target = torch.from_numpy(truth).to(loglik.device)
            each = torch.nn.functional.cross_entropy(
                loglik, target, reduction="none", label_smoothing=recipe.label_smoothing
            )
        if recipe.class_weights:
            each = each * torch.from_numpy(rarity[truth]).to(each)
        return each.sum()

    return loss
