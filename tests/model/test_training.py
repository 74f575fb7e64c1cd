"""Every setting of a recipe does what it says, or is refused; and no memory limit changes what is learned."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from annotator.errors import BackboneRefused
from model.adapter import LoraAdapter, LoraClassifier
from model.backbone import Backbone, load_backbone
from model.recipe import Recipe, read_recipe
from model.training import Budget, _Best, _loss
from tests.model.tiny import quick, toy

TASK, UTTERANCES, LABELS = toy()
FEW, FEW_LABELS = UTTERANCES[:6], LABELS[:6]


def fitted(backbone: Backbone, **changes: Any) -> LoraAdapter:
    return LoraClassifier(backbone, TASK, quick(**changes), "options").fit(FEW, FEW_LABELS)


def logits_after(backbone: Backbone, **changes: Any) -> np.ndarray:
    return fitted(backbone, **changes).logits(FEW)


def test_class_weights_follow_the_inverse_square_root_of_frequency() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    logits = torch.tensor([[0.3, -1.0, 2.0]]).repeat(5, 1)
    nll = -logits[0].log_softmax(0)
    rare = np.array([1 / 2, 1.0])  # 1 / sqrt(4), 1 / sqrt(1)
    scale = 5 / (4 * rare[0] + rare[1])
    found = _loss(labels, quick(class_weights=True))(logits, labels)
    assert float(found) == pytest.approx(float(4 * scale * rare[0] * nll[0] + scale * rare[1] * nll[1]), rel=1e-6)
    assert float(_loss(labels, quick())(logits, labels)) == pytest.approx(float(4 * nll[0] + nll[1]), rel=1e-6)


def test_t7_label_smoothing_is_spread_over_the_labels() -> None:
    labels, logits = np.array([2]), torch.tensor([[0.3, -1.0, 2.0]])
    nll = -logits[0].log_softmax(0)
    found = _loss(labels, quick(label_smoothing=0.3))(logits, labels)
    assert float(found) == pytest.approx(float(0.7 * nll[2] + 0.3 * nll.mean()), rel=1e-6)


def test_the_token_loss_is_that_of_the_right_label_alone() -> None:
    labels, logits = np.array([2, 0]), torch.tensor([[-4.0, -5.0, -1.5], [-0.5, -3.0, -2.0]])
    assert float(_loss(labels, quick(loss="tokens"))(logits, labels)) == pytest.approx(1.5 + 0.5)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_every_optimiser_learns_or_is_refused_where_it_cannot(llama: Backbone, optimizer: str) -> None:
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        with pytest.raises(BackboneRefused, match="Choose adamw_8bit"):
            fitted(llama, optimizer=optimizer)
        return
    classifier = LoraClassifier(llama, TASK, quick(optimizer=optimizer, epochs=6), "options")
    right = classifier.fit(UTTERANCES, LABELS).logits(UTTERANCES).argmax(axis=1) == LABELS
    assert right.mean() > 0.9


@pytest.mark.parametrize(
    "change",
    [{"loss": "tokens"}, {"rslora": True}, {"dora": True}, {"loraplus": 16.0}, {"label_smoothing": 0.2}],
    ids=lambda change: next(iter(change)),
)
def test_every_variant_changes_what_is_learned(llama: Backbone, change: dict[str, Any]) -> None:
    plain, varied = logits_after(llama, epochs=1), logits_after(llama, epochs=1, **change)
    assert np.isfinite(varied).all()
    assert np.abs(plain - varied).max() > 1e-4


def test_only_the_layers_named_are_adapted(llama: Backbone) -> None:
    fitted(llama, epochs=1, layers=(1,))
    adapted = [name for name, weight in llama.model.named_parameters() if weight.requires_grad]
    assert adapted
    assert all(".layers.1." in name for name in adapted)


@pytest.mark.parametrize("change", [{"checkpointing": True}, {"row_tokens": 1}], ids=lambda change: next(iter(change)))
def test_what_saves_memory_changes_nothing_that_is_learned(backbone: Backbone, change: dict[str, Any]) -> None:
    """The gradient of a batch computed in parts is that of the whole, also for T5, where the usual trainer's is not."""
    for module in backbone.model.modules():  # T5 brings dropout of its own, drawn anew for every part
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.0
    np.testing.assert_allclose(logits_after(backbone, **change), logits_after(backbone), atol=2e-3)


def test_t5_neftune_is_refused_where_it_would_do_nothing(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["t5"])
    with pytest.raises(BackboneRefused, match="NEFTune does nothing on this family"):
        fitted(backbone, neftune=5.0)
    assert not backbone.model.training


def test_neftune_adds_noise_while_learning_and_none_afterwards(llama: Backbone) -> None:
    plain = logits_after(llama)
    adapter = fitted(llama, neftune=5.0)
    noisy = adapter.logits(FEW)
    assert np.abs(plain - noisy).max() > 1e-4
    np.testing.assert_array_equal(adapter.logits(FEW), noisy)


def test_training_stops_when_the_held_out_loss_no_longer_falls(llama: Backbone) -> None:
    classifier = LoraClassifier(llama, TASK, quick(epochs=8, holdout=0.25, patience=2, learning_rate=0.0), "options")
    shares: list[float] = []
    classifier.fit(UTTERANCES, LABELS, shares.append)
    assert shares[-1] == 3 / 8  # the first epoch is the best, two more are waited for


def test_the_best_epoch_is_kept_and_not_the_last() -> None:
    weight = torch.zeros(1)
    best = _Best([weight], patience=2)
    over = []
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 1.5]):
        weight.fill_(epoch)
        over.append(best.is_over(loss))
    best.restore()
    assert over == [False, False, False, True]
    assert float(weight) == 1  # the epoch whose loss was 1.0


def out_of_memory_above(backbone: Backbone, tokens: int) -> list[int]:
    """Let the last layer run out of memory on rows longer than so many tokens; return the lengths that ran."""
    ran: list[int] = []

    def check(module: Any, inputs: Any, output: Any) -> None:
        length = output.shape[1]
        if length > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        ran.append(length)

    backbone.model.model.layers[-1].mlp.register_forward_hook(check)
    return ran


def test_memory_that_ends_while_scoring_costs_time_and_no_result(llama: Backbone) -> None:
    expected = LoraClassifier(llama, TASK, quick(), "options").zero_shot().logits(UTTERANCES)
    ran = out_of_memory_above(llama, 100)
    found = LoraClassifier(llama, TASK, quick(), "options").zero_shot().logits(UTTERANCES)
    assert max(ran) <= 100
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_memory_that_ends_while_learning_costs_time_and_no_result(folders: dict[str, str]) -> None:
    expected = logits_after(load_backbone(folders["llama"]))
    tight = load_backbone(folders["llama"])
    ran = out_of_memory_above(tight, 120)
    np.testing.assert_allclose(logits_after(tight), expected, atol=2e-3)
    assert max(ran) <= 120


def test_memory_that_never_suffices_is_refused_with_what_to_do(llama: Backbone) -> None:
    out_of_memory_above(llama, 0)
    with pytest.raises(BackboneRefused, match="Choose a smaller backbone"):
        fitted(llama)


def test_other_errors_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(tokens: int) -> None:
        raise RuntimeError("shapes do not match")

    budget = Budget(1024)
    with pytest.raises(RuntimeError, match="shapes"):
        budget.run(broken)
    assert budget.tokens == 1024


def test_a_recipe_stored_by_another_version_is_read() -> None:
    assert read_recipe({"rank": 8, "layers": [1, 2], "no_longer_known": 3}) == Recipe(rank=8, layers=(1, 2))
