"""By what a backbone is told from others of its name: a hash of its weights, its shape and its tokenizer.

A file is hashed whole. Its hash is kept beside size, inode, time of modification and time of change, and holds until
one of these differs. The last of them cannot be set back, and a file that changed within two seconds before it was
hashed is hashed again, so that no replaced file passes for the former. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from model.backbones.catalog import CATALOG, cache_folder
from model.types import Origin

WEIGHTS, INDEX, MADE = "model.safetensors", "model.safetensors.index.json", "conversion.json"
_VOCABULARY = ("vocab.json", "merges.txt", "vocab.txt", "*.model", "*.tiktoken")  # where there is no tokenizer.json
_UNREAD = {
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "torch_dtype",
    "dtype",
    "use_cache",
    "chat_template",
}
_SETTLED = 2_000_000_000  # ns after which another change to a file is sure to show in its times
_QUICK = 1_000_000_000  # bytes that may be hashed while a person waits for a page

Check = Callable[[Path], None]
"""Raises BackboneRefused if a file of weights cannot be used."""


def fingerprint_of(folder: Path, check: Check | None = None) -> str:
    """Hash what decides a backbone's numbers: weights, configuration and vocabulary, not the chat template.

    Weights that were converted count by what they were converted from. Raises OSError if a file is missing.
    """
    told: dict[str, Any] = {path.name: digest(path, check) for path in weight_files(folder)}
    if (folder / MADE).is_file():
        told["source"] = read_json(folder / MADE)["source"]
    else:
        names = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else _VOCABULARY
        vocabulary = {path.name: path for name in names for path in folder.glob(name)}
        told |= {name: digest(path) for name, path in vocabulary.items()}
        told |= {name: _settings(folder / name) for name in ("config.json", "tokenizer_config.json")}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """List the files that weights are read from: one, or those that an index names."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError, ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def stamp(path: Path) -> list[int]:
    """Return what changes whenever a file is written or replaced."""
    found = path.stat()
    return [found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns]


def digest(path: Path, check: Check | None = None) -> str:
    """Return the SHA-256 of a file, from memory while the file is the same; checked once as well, if asked."""
    path = path.resolve()
    record, before = _record_of(path), stamp(path)
    known = _read_record(record)
    same = known.get("stamp") == before
    if same and (known["checked"] or check is None):
        return str(known["sha256"])
    adjudicated = time.time_ns() - max(before[3:]) > _SETTLED
    if check is not None:
        check(path)
    with path.open("rb") as file:
        found = str(known["sha256"]) if same else hashlib.file_digest(file, "sha256").hexdigest()
    if adjudicated and stamp(path) == before:
        _write_record(record, {"path": str(path), "stamp": before, "sha256": found, "checked": check is not None})
    return found


def _is_remembered(path: Path) -> bool:
    return bool(_read_record(_record_of(path)).get("stamp") == stamp(path))


def _record_of(path: Path) -> Path:
    return cache_folder() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"


def _read_record(record: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        found = read_json(record)
        if isinstance(found, dict) and {"stamp", "sha256", "checked"} <= found.keys():
            return found
    return {}


def _write_record(record: Path, told: dict[str, Any]) -> None:
    unfinished = record.with_name(f"{record.name}.{os.getpid()}.tmp")
    with suppress(OSError):  # a cache that cannot be written costs time, nothing else
        record.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(told), encoding="utf-8")
        os.replace(unfinished, record)


def _settings(path: Path) -> Any:
    """Read settings without those that say who wrote them, or that a round keeps by itself."""
    if not path.is_file():
        return None
    found = read_json(path)
    return {name: value for name, value in found.items() if name not in _UNREAD} if isinstance(found, dict) else found


# Names and places


def pinned(name: str, revision: str) -> str:
    """Return the name under which exactly this commit of a backbone is loaded."""
    return f"{name}@{revision}" if revision else name


def split_pin(name: str) -> tuple[str, str]:
    """Split off the commit that `pinned` added, empty if it added none."""
    first, _, last = name.rpartition("@")
    return (first, last) if first and len(last) == 40 and set(last) <= set("0123456789abcdef") else (name, "")


def source_of(name: str) -> tuple[str, str]:
    """Return the hub id and the revision wished, as in “org/name@v1.0”; a folder and nothing for a folder."""
    wished = ""
    if name not in CATALOG and "@" in name and not Path(name).exists():
        name, _, wished = name.rpartition("@")
    return CATALOG[name].source if name in CATALOG else name, wished


def snapshot_folder(source: str, revision: str) -> Path:
    """Return where the hub's client keeps the files of one commit."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "snapshots" / revision


def newest_known(name: str) -> str:
    """Return the commit that the hub's branch was at when it was last asked, from this machine; empty if never."""
    from huggingface_hub import constants

    source, wished = source_of(name)
    path = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "refs" / (wished or "main")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def place_of(name: str, revision: str) -> Path | None:
    """Return the folder a backbone's weights lie in on this machine; None if they are not here."""
    entry, source = CATALOG.get(name), source_of(name)[0]
    if entry and entry.package:
        folder = cache_folder() / "backbones" / entry.name
    else:
        folder = snapshot_folder(source, revision) if revision else Path(source)
    return folder if (folder / "config.json").is_file() else None


def has_changed(name: str, made_with: Origin) -> bool:
    """Say whether the weights of a backbone on this machine are others than those a round was made with.

    Weights that are not here, or cannot be read, have not changed: loading them says what is wrong.
    """
    folder = place_of(name, made_with.revision)
    if folder is None or not made_with.fingerprint:
        return False
    try:
        unread = [path for path in weight_files(folder) if not _is_remembered(path.resolve())]
        if sum(path.stat().st_size for path in unread) > _QUICK:
            return False  # told when they are loaded
        return fingerprint_of(folder) != made_with.fingerprint
    except (OSError, ValueError, LookupError):
        return False
