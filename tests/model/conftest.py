"""Backbones of every family: saved to a folder once, loaded afresh for every test by the real loader."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from model.backbones.backbone import Backbone, load_backbone
from tests.model import tiny

SAVERS: dict[str, Callable[[Path], str]] = {
    "llama": tiny.save_llama,
    "qwen2": tiny.save_qwen2,
    "qwen3": tiny.save_qwen3,
    "gemma3": tiny.save_gemma3,
    "mistral": tiny.save_mistral,
    "t5": tiny.save_t5,
    "flan-t5": lambda folder: tiny.save_t5(folder, separate_head=True),
}
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
DEVICE = torch.device(os.environ.get("ANNOTATOR_TEST_DEVICE", "cpu"))
ROUNDING = 0.0 if DEVICE.type == "cpu" else 1e-5  # within which the same is computed twice


@pytest.fixture(autouse=True, scope="module")
def plain_machine() -> Iterator[None]:
    """Load in fp32 on the CPU, or the device asked for, whatever this machine has: the tolerances are for fp32."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("model.backbones.backbone.best_device", lambda: DEVICE)
        patch.setattr("model.backbones.backbone.preferred_dtype", lambda device: torch.float32)
        yield


@pytest.fixture(autouse=True, scope="session")
def one_thread() -> Iterator[None]:
    """Compute on one thread: with tensors this small, threads spend their time waiting for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Save one tiny model of each kind."""
    return {name: save(tmp_path_factory.mktemp(name)) for name, save in SAVERS.items()}


@pytest.fixture
def llama(folders: dict[str, str]) -> Backbone:
    """Load the tiny Llama."""
    return load_backbone(folders["llama"])


@pytest.fixture
def t5(folders: dict[str, str]) -> Backbone:
    """Load the tiny T5."""
    return load_backbone(folders["t5"])


@pytest.fixture(params=["llama", "t5", *(pytest.param(kind, marks=pytest.mark.soak) for kind in ("qwen2", "flan-t5"))])
def backbone(request: pytest.FixtureRequest, folders: dict[str, str]) -> Backbone:
    """Load a tiny model of each family in turn; the soak loads two of each."""
    return load_backbone(folders[request.param])


@pytest.fixture(params=list(SAVERS))
def any_backbone(request: pytest.FixtureRequest, folders: dict[str, str]) -> Backbone:
    """Load each tiny model in turn."""
    return load_backbone(folders[request.param])
