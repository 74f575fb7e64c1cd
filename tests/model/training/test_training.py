"""Every setting of a recipe has its effect or is refused; and no memory limit changes the result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from annotator.errors import BackboneRefused, RoundCancelled, TooFewAnswers
from model import constants
from model.adapter import LanguageModelClassifier, RoundAdapter
from model.backbones.backbone import Backbone, load_backbone
from model.backbones.machine import can_load_4bit
from model.description import read_recipe
from model.recipe import LEARNING_RATES, Recipe
from model.restore import restore
from model.training.optimizer import trainable
from model.training.training import Budget, _in_training, _Learner, _loss
from model.training.tuning import start_tuning
from tests.model.tiny import quick, toy, without_dropout

TASK, UTTERANCES, LABELS = toy()
FEW, FEW_LABELS = UTTERANCES[:6], LABELS[:6]


def fitted(backbone: Backbone, **changes: Any) -> RoundAdapter:
    return LanguageModelClassifier(backbone, TASK, quick(**changes), "options").fit(FEW, FEW_LABELS)


def logits_after(backbone: Backbone, **changes: Any) -> np.ndarray:
    return fitted(backbone, **changes).logits(FEW)


class FixedScorer:
    """A scorer with fixed log-likelihoods."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.logits = logits

    def loglik(self, bodies: Any) -> torch.Tensor:
        return self.logits

    def chosen_loglik(self, bodies: Any, labels: np.ndarray) -> torch.Tensor:
        return self.logits[torch.arange(len(labels)), torch.from_numpy(labels)]


def loss_on(logits: torch.Tensor, labels: np.ndarray, **changes: Any) -> float:
    return float(_loss(labels, quick(**changes))(FixedScorer(logits), [], np.arange(len(labels))))  # type: ignore[arg-type]


def test_class_weights_follow_the_inverse_square_root_of_frequency() -> None:
    labels = np.array([0, 0, 0, 0, 1])
    logits = torch.tensor([[0.3, -1.0, 2.0]]).repeat(5, 1)
    nll = -logits[0].log_softmax(0)
    rare = np.array([1 / 2, 1.0])  # 1 / sqrt(4), 1 / sqrt(1)
    scale = 5 / (4 * rare[0] + rare[1])
    assert loss_on(logits, labels, class_weights=True) == pytest.approx(
        float(4 * scale * rare[0] * nll[0] + scale * rare[1] * nll[1]), rel=1e-6
    )
    assert loss_on(logits, labels) == pytest.approx(float(4 * nll[0] + nll[1]), rel=1e-6)


def test_t7_label_smoothing_is_spread_over_the_labels() -> None:
    labels, logits = np.array([2]), torch.tensor([[0.3, -1.0, 2.0]])
    nll = -logits[0].log_softmax(0)
    assert loss_on(logits, labels, label_smoothing=0.3) == pytest.approx(
        float(0.7 * nll[2] + 0.3 * nll.mean()), rel=1e-6
    )


def test_the_token_loss_is_that_of_the_right_label_alone() -> None:
    labels, logits = np.array([2, 0]), torch.tensor([[-4.0, -5.0, -1.5], [-0.5, -3.0, -2.0]])
    assert loss_on(logits, labels, loss="tokens") == pytest.approx(1.5 + 0.5)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit", "paged_adamw", "paged_adamw_8bit"])
def test_every_optimiser_learns_or_is_refused_where_it_cannot(llama: Backbone, optimizer: str) -> None:
    if optimizer.startswith("paged") and not torch.cuda.is_available():
        with pytest.raises(BackboneRefused, match="Choose adamw_8bit"):
            fitted(llama, optimizer=optimizer)
        return
    classifier = LanguageModelClassifier(llama, TASK, quick(optimizer=optimizer, epochs=6), "options")
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
    """The gradient of a batch computed in parts is that of the whole, also for T5, unlike that of the usual trainer."""
    without_dropout(backbone)  # drawn anew for every part
    np.testing.assert_allclose(logits_after(backbone, **change), logits_after(backbone), atol=2e-3)


@pytest.mark.parametrize("changes", [{}, {"method": "prompt"}, {"quantization": "nf4"}], ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma3", "t5"])
def test_checkpointing_keeps_less_through_peft_and_gives_the_same_gradients(
    folders: dict[str, str], name: str, changes: dict[str, Any]
) -> None:
    """With dropout, which is drawn the same when activations are computed again; T5 draws it for more tokens."""
    if "quantization" in changes and not can_load_4bit():
        pytest.skip("no 4-bit kernels")
    kept, gradients = zip(*(backward(folders[name], checkpointing=on, **changes) for on in (False, True)), strict=True)
    assert kept[1] < kept[0] / 2
    assert len(gradients[0]) == len(gradients[1]) > 0
    for plain, again in zip(*gradients, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-4, atol=1e-6 + 1e-4 * float(plain.abs().max()))


def backward(folder: str, **changes: Any) -> tuple[int, list[torch.Tensor]]:
    """Compute a row forward and backward; return the bytes kept in between, and the gradients."""
    recipe = quick(dropout=0.3, **changes)
    ours = LanguageModelClassifier(load_backbone(folder, recipe.quantization), TASK, recipe, "options")
    torch.manual_seed(0)
    ours.backbone.tuning = start_tuning(ours.backbone, recipe)
    if ours.backbone.family == "encoder-decoder":
        without_dropout(ours.backbone)
    weights = trainable(ours.backbone)
    for weight in weights:  # LoRA begins at zero, where half of the gradients are zero
        torch.nn.init.normal_(weight, std=0.1)
    kept: dict[int, torch.Tensor] = {}  # held, so that no address is given twice

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    own = {weight.untyped_storage().data_ptr() for weight in ours.backbone.model.parameters()}
    bodies = [ours.tokens.body(utterance) for utterance in UTTERANCES]
    with _in_training(ours.backbone, recipe, 10.0), torch.autograd.graph.saved_tensors_hooks(pack, lambda kept: kept):
        loss = ours._scorer.loglik(bodies).logsumexp(dim=1).sum()
        bytes_kept = sum(one.untyped_storage().nbytes() for place, one in kept.items() if place not in own)
        loss.backward()
    return bytes_kept, [weight.grad for weight in weights if weight.grad is not None]


def test_checkpointing_is_refused_with_a_hint_where_the_architecture_has_none(
    llama: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(llama.model), "supports_gradient_checkpointing", False)
    with pytest.raises(BackboneRefused, match="cannot compute activations again") as caught:
        fitted(llama, checkpointing=True)
    assert "recipe.checkpointing" in caught.value.hint
    assert not llama.model.training
    fitted(llama, epochs=1)


def test_t5_neftune_is_refused_where_it_would_do_nothing(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["t5"])
    with pytest.raises(BackboneRefused, match="NEFTune has no effect"):
        fitted(backbone, neftune=5.0)
    assert not backbone.model.training


def test_neftune_adds_noise_while_learning_and_none_afterwards(llama: Backbone) -> None:
    plain = logits_after(llama)
    adapter = fitted(llama, neftune=5.0)
    noisy = adapter.logits(FEW)
    assert np.abs(plain - noisy).max() > 1e-4
    np.testing.assert_array_equal(adapter.logits(FEW), noisy)


def test_training_stops_when_the_held_out_loss_no_longer_falls(llama: Backbone) -> None:
    classifier = LanguageModelClassifier(
        llama, TASK, quick(epochs=8, holdout=0.25, patience=2, learning_rate=0.0), "options"
    )
    shares: list[float] = []
    classifier.fit(UTTERANCES, LABELS, shares.append)
    assert shares[-1] == 3 / 8  # the first epoch is the best, two more are waited for


@pytest.mark.parametrize("holdout", [0.92, 1.0, 3.0])
def test_a_holdout_that_leaves_nothing_to_train_on_is_refused(llama: Backbone, holdout: float) -> None:
    fitted(llama, epochs=1, holdout=0.8)  # one is left
    with pytest.raises(
        TooFewAnswers, match=f"holdout of {holdout} holds out .* of 6 labels and leaves .* for training"
    ) as caught:
        fitted(llama, epochs=1, holdout=holdout)
    assert "holdout to 0.2" in caught.value.hint


def learner_of(backbone: Backbone, steps: int, **changes: Any) -> _Learner:
    fitted(backbone, epochs=1)  # so that there is something to train
    return _Learner(backbone, quick(**changes), steps)


def test_the_best_epoch_is_kept_and_not_the_last(llama: Backbone) -> None:
    learner = learner_of(llama, 4)
    over = []
    for epoch, loss in enumerate([3.0, 1.0, 2.0, 1.5]):
        learner.weights[0].data.fill_(epoch)
        learner.record_held_out_loss(loss)
        over.append(learner.is_over(2))
    learner.finish()
    assert over == [False, False, False, True]
    assert (learner.weights[0] == 1).all()  # the epoch whose loss was 1.0


def test_the_weights_of_the_last_steps_are_averaged(llama: Backbone) -> None:
    learner = learner_of(llama, 8, average=0.5, learning_rate=0.0)
    for step in range(8):
        learner.weights[0].data.fill_(step)
        learner.step()
    learner.finish()
    assert torch.allclose(learner.weights[0], torch.tensor((4 + 5 + 6 + 7) / 4))


@pytest.mark.parametrize(("changes", "times"), [({}, 1), ({"depth": "upper"}, constants.UPPER_RATE)])
def test_a_learning_rate_that_is_not_given_suits_what_is_trained(
    llama: Backbone, changes: dict[str, Any], times: float
) -> None:
    learner = learner_of(llama, 4, learning_rate=None, warmup=0.0, **changes)
    assert learner.optimizer.param_groups[0]["lr"] == times * LEARNING_RATES["lora"]


METHODS: list[dict[str, Any]] = [
    {"method": "prompt", "learning_rate": 3e-2, "epochs": 8},
    {"method": "full", "learning_rate": 3e-3, "epochs": 4},
]


def nll(logits: np.ndarray) -> float:
    return float(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor(LABELS)))


@pytest.mark.parametrize("change", METHODS, ids=lambda change: change["method"])
def test_every_method_learns_is_saved_read_back_and_taken_off(
    backbone: Backbone, change: dict[str, Any], tmp_path: Path
) -> None:
    classifier = LanguageModelClassifier(without_dropout(backbone), TASK, quick(**change), "options")
    before = classifier.zero_shot().logits(UTTERANCES)
    adapter = classifier.fit(UTTERANCES, LABELS)
    learned = adapter.logits(UTTERANCES)
    assert nll(learned) < 0.8 * nll(before)
    adapter.save(tmp_path)
    np.testing.assert_array_equal(classifier.zero_shot().logits(UTTERANCES), before)
    np.testing.assert_allclose(restore(tmp_path).logits(UTTERANCES), learned, atol=1e-4)


def test_packed_rows_behind_a_soft_prompt_equal_one_utterance_at_a_time(backbone: Backbone) -> None:
    classifier = LanguageModelClassifier(backbone, TASK, quick(method="prompt", virtual_tokens=7), "options")
    adapter = classifier.fit(FEW, FEW_LABELS)
    alone = np.concatenate([adapter.logits([utterance]) for utterance in FEW])
    np.testing.assert_allclose(adapter.logits(FEW), alone, atol=1e-4)
    scorer = classifier._scorer
    with torch.inference_mode():  # without the cache, as in training
        packed = scorer.loglik([classifier.tokens.body(utterance) for utterance in FEW])
    np.testing.assert_allclose(packed.cpu().numpy(), alone, atol=1e-4)


def test_4_bit_weights_cannot_be_trained_themselves(folders: dict[str, str]) -> None:
    backbone = load_backbone(folders["llama"], "nf4")
    with pytest.raises(BackboneRefused, match="4-bit weights cannot be trained"):
        fitted(backbone, method="full")


# Stopped and resumed --------------------------------------------------------------------------------------------


def stopped_after(share: float) -> Callable[[float], None]:
    def stop(done: float) -> None:
        if done > share:
            raise RoundCancelled("Stopped.")

    return stop


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
@pytest.mark.parametrize("method", ["lora", "prompt", "full"])
def test_what_was_stopped_goes_on_from_the_last_epoch_and_ends_the_same(
    folders: dict[str, str], tmp_path: Path, method: str, optimizer: str
) -> None:
    change: dict[str, Any] = {"method": method, "average": 0.6, "optimizer": optimizer}
    change |= {"dropout": 0.1} if method == "lora" else {}
    unfinished = tmp_path / "unfinished.pt"
    recipe = quick(**change, learning_rate=1e-3)
    expected = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options").fit(FEW, FEW_LABELS)
    first = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options")
    with pytest.raises(RoundCancelled):
        first.fit(FEW, FEW_LABELS, stopped_after(0.6), unfinished)
    assert unfinished.is_file()
    shares: list[float] = []
    again = LanguageModelClassifier(load_backbone(folders["llama"]), TASK, recipe, "options")
    found = again.fit(FEW, FEW_LABELS, shares.append, unfinished)
    assert shares == [1.0]  # three of four epochs had been finished
    np.testing.assert_array_equal(found.logits(FEW), expected.logits(FEW))
    assert not list(tmp_path.iterdir())


def test_a_state_that_cannot_be_read_costs_time_and_nothing_else(llama: Backbone, tmp_path: Path) -> None:
    for number, content in enumerate([b"", b"cut short", b"PK\x03\x04" + b"0" * 100]):
        unfinished = tmp_path / f"{number}.pt"
        unfinished.write_bytes(content)
        shares: list[float] = []
        classifier = LanguageModelClassifier(llama, TASK, quick(), "options")
        classifier.fit(FEW, FEW_LABELS, shares.append, unfinished)
        assert shares == [0.25, 0.5, 0.75, 1.0]


def test_another_training_set_does_not_resume_from_the_checkpoint(llama: Backbone, tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished.pt"
    classifier = LanguageModelClassifier(llama, TASK, quick(), "options")
    with pytest.raises(RoundCancelled):
        classifier.fit(FEW, FEW_LABELS, stopped_after(0.6), unfinished)
    shares: list[float] = []
    classifier.fit(FEW, FEW_LABELS[::-1], shares.append, unfinished)
    assert shares == [0.25, 0.5, 0.75, 1.0]


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
    expected = LanguageModelClassifier(llama, TASK, quick(), "options").zero_shot().logits(UTTERANCES)
    ran = out_of_memory_above(llama, 100)
    found = LanguageModelClassifier(llama, TASK, quick(), "options").zero_shot().logits(UTTERANCES)
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
    stored = {"rank": 8, "layers": [1, 2], "no_longer_known": 3}
    assert read_recipe({"recipe": stored}) == Recipe(rank=8, layers=(1, 2))
