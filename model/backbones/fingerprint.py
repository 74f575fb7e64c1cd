"""Compute the fingerprint of a backbone: a hash of its weights, configuration and tokenizer.

Whole files are hashed. A hash is cached with size, inode, modification time and change time of the file, until one of
these differs. The change time cannot be set back, and a hash taken within two seconds of a change is not cached, so a
replaced file is always noticed. Imports no torch.
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
_VOCABULARY = (
    "*vocab.json",
    "merges.txt",
    "vocab.txt",
    "*.model",
    "*.spm",
    "*.tiktoken",
)  # read if there is no tokenizer.json
_UNREAD = {
    "transformers_version",
    "_name_or_path",
    "name_or_path",
    "torch_dtype",
    "dtype",
    "use_cache",
    "chat_template",
}
_STABLE = 2_000_000_000  # ns after which another change of a file is certain to change its times
_QUICK = 1_000_000_000  # bytes that may be hashed while a page loads

Check = Callable[[Path], None]
"""Raises BackboneRefused if a weights file cannot be used."""


def fingerprint_of(folder: Path, check: Check | None = None) -> str:
    """Hash everything that determines a backbone's numbers: weights, configuration and vocabulary, not the template.

    Converted weights are identified by the hash of their source. Raises OSError if a file is missing.
    """
    content: dict[str, Any] = {path.name: digest(path, check) for path in weight_files(folder)}
    if (folder / MADE).is_file():
        content["source"] = read_json(folder / MADE)["source"]
    else:
        names = ["tokenizer.json"] if (folder / "tokenizer.json").is_file() else _VOCABULARY
        vocabulary = {path.name: path for name in names for path in folder.glob(name)}
        content |= {name: digest(path) for name, path in vocabulary.items()}
        content |= {name: _settings(folder / name) for name in ("config.json", "tokenizer_config.json")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def weight_files(folder: Path) -> list[Path]:
    """Return the weights files: one, or those named in an index. Raises OSError, ValueError."""
    if (folder / WEIGHTS).is_file() or not (folder / INDEX).is_file():
        return [folder / WEIGHTS]
    try:
        return [folder / name for name in sorted(set(read_json(folder / INDEX)["weight_map"].values()))]
    except (LookupError, TypeError, AttributeError) as error:
        raise ValueError(f"{INDEX} names no files") from error


def read_json(path: Path) -> Any:
    """Read a JSON file. Raises OSError, ValueError."""
    return json.loads(path.read_text(encoding="utf-8"))


def stamp(path: Path) -> list[int]:
    """Return device, inode, size and times of a file, which change whenever it is written or replaced."""
    status = path.stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def digest(path: Path, check: Check | None = None) -> str:
    """Return the SHA-256 of a file, cached while the file is unchanged; run `check` on it once, if given."""
    path = path.resolve()
    record, before = _record_of(path), stamp(path)
    cached = _read_record(record)
    same = cached.get("stamp") == before
    if same and (cached["checked"] or check is None):
        return str(cached["sha256"])
    is_stable = time.time_ns() - max(before[3:]) > _STABLE
    if check is not None:
        check(path)
    with path.open("rb") as file:
        sha256 = str(cached["sha256"]) if same else hashlib.file_digest(file, "sha256").hexdigest()
    if is_stable and stamp(path) == before:
        _write_record(record, {"path": str(path), "stamp": before, "sha256": sha256, "checked": check is not None})
    return sha256


def _is_cached(path: Path) -> bool:
    return bool(_read_record(_record_of(path)).get("stamp") == stamp(path))


def _record_of(path: Path) -> Path:
    return cache_folder() / "digests" / f"{hashlib.sha256(str(path).encode()).hexdigest()[:32]}.json"


def _read_record(record: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        content = read_json(record)
        if isinstance(content, dict) and {"stamp", "sha256", "checked"} <= content.keys():
            return content
    return {}


def _write_record(record: Path, content: dict[str, Any]) -> None:
    unfinished = record.with_name(f"{record.name}.{os.getpid()}.tmp")
    with suppress(OSError):  # without a cache it only takes longer
        record.parent.mkdir(parents=True, exist_ok=True)
        unfinished.write_text(json.dumps(content), encoding="utf-8")
        os.replace(unfinished, record)


def _settings(path: Path) -> Any:
    """Read settings without those that do not affect numbers or are stored in the round."""
    if not path.is_file():
        return None
    content = read_json(path)
    if not isinstance(content, dict):
        return content
    return {name: value for name, value in content.items() if name not in _UNREAD}


# Names and places


def pinned(name: str, revision: str) -> str:
    """Return the name that loads exactly this commit of a backbone."""
    return f"{name}@{revision}" if revision else name


def split_pin(name: str) -> tuple[str, str]:
    """Split off the commit added by `pinned`; empty if there is none."""
    first, _, last = name.rpartition("@")
    return (first, last) if first and len(last) == 40 and set(last) <= set("0123456789abcdef") else (name, "")


def source_of(name: str) -> tuple[str, str]:
    """Return the hub id and the revision, if any, of a name such as “org/name@v1.0”; a folder is returned as it is."""
    revision = ""
    if name not in CATALOG and "@" in name and not Path(name).exists():
        name, _, revision = name.rpartition("@")
    return CATALOG[name].source if name in CATALOG else name, revision


def snapshot_folder(source: str, revision: str) -> Path:
    """Return the folder in which the hub's client stores the files of one commit."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "snapshots" / revision


def newest_known(name: str) -> str:
    """Return the last commit of the hub's branch known to this machine; empty if none is."""
    from huggingface_hub import constants

    source, revision = source_of(name)
    path = Path(constants.HF_HUB_CACHE) / f"models--{source.replace('/', '--')}" / "refs" / (revision or "main")
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def place_of(name: str, revision: str) -> Path | None:
    """Return the folder of a backbone's weights on this machine; None if they are missing."""
    entry, source = CATALOG.get(name), source_of(name)[0]
    if entry and entry.package:
        folder = cache_folder() / "backbones" / entry.name
    else:
        folder = snapshot_folder(source, revision) if revision else Path(source)
    return folder if (folder / "config.json").is_file() else None


def has_changed(name: str, made_with: Origin) -> bool:
    """Return whether the weights of a backbone on this machine differ from those a round was trained with.

    False for weights that are missing or unreadable: loading them reports the error.
    """
    folder = place_of(name, made_with.revision)
    if folder is None or not made_with.fingerprint:
        return False
    try:
        unread = [path for path in weight_files(folder) if not _is_cached(path.resolve())]
        if sum(path.stat().st_size for path in unread) > _QUICK:
            return False  # detected when they are loaded
        return fingerprint_of(folder) != made_with.fingerprint
    except (OSError, ValueError, LookupError):
        return False


def short_hash(content: list[Any]) -> str:
    """Return a short hash of JSON content."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:16]
