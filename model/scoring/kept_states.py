"""Keep the hidden states of the lower layers on disk, so that rounds begin behind these layers.

For each text these are the states of its tokens and, behind them, of the inner nodes of the label trie. They depend on
the backbone, the instruction and the labels, which a key names; files with another key are deleted. A file that cannot
be read is deleted too, and its states are computed again.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from model.scoring.packing import Bodies

_LOG = logging.getLogger(__name__)
LIMIT = 2 * 10**9  # bytes of a project's files
SHARE = 0.1  # of the free disk space that may be used
_HASH = 16  # bytes that stand for a text


class KeptStates:
    """States of texts up to a depth, in memory until `flush` writes them into a file of the folder.

    At most `LIMIT` bytes are kept, and what is added at once takes at most a tenth of the free disk space.
    """

    def __init__(self, folder: Path, key: str, depth: int) -> None:
        self.depth = depth  # the number of layers that have been computed
        self.folder, self.key = folder, key
        self._places: dict[bytes, tuple[Any, int, int, int]] = {}  # hash of a text -> file, first row, end, checksum
        self._new: dict[bytes, torch.Tensor] = {}
        self._written = 0  # bytes
        self.full = False  # no more are kept
        for path in sorted(folder.glob("*.tmp")):  # of a process that ended while writing
            path.unlink(missing_ok=True)
        for path in sorted(folder.glob("*.safetensors")):
            self._open(path)

    def __contains__(self, body: tuple[int, ...]) -> bool:
        """Return whether a text's states are kept."""
        name = _name(body)
        return name in self._places or name in self._new

    def get(self, body: tuple[int, ...], /) -> torch.Tensor | None:
        """Return the (tokens + inner nodes, width) states of a text; None if they are not kept, or damaged."""
        name = _name(body)
        if name in self._new or name not in self._places:
            return self._new.get(name)
        part, first, end, checksum = self._places[name]
        states: torch.Tensor = part[first:end]
        if _checksum(states) == checksum:
            return states
        _LOG.warning("Hidden states in %s are damaged and are computed again.", self.folder)
        del self._places[name]
        return None

    def add(self, bodies: Bodies, states: Sequence[torch.Tensor]) -> None:
        """Keep (tokens + inner nodes, width) states of each text, if there is room and they are finite."""
        size = _size([*self._new.values(), *states])
        if self.full or self._written + size > LIMIT or size > SHARE * _free(self.folder):
            self.full = True
        elif all(bool(torch.isfinite(one).all()) for one in states):
            self._new |= {_name(body): one.cpu() for body, one in zip(bodies, states, strict=True)}

    def flush(self) -> None:
        """Write what was added since the last call. A full or read-only disk costs time only: it raises nothing."""
        if not self._new:
            return
        new, self._new = self._new, {}
        try:
            self._write(new)
        except (OSError, SafetensorError) as error:
            self.full = True
            _LOG.warning("No more hidden states are kept in %s: %s", self.folder, error)

    def _write(self, new: dict[bytes, torch.Tensor]) -> None:
        self.folder.mkdir(mode=0o700, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self.folder, suffix=".tmp")
        os.close(handle)
        content = {
            "states": torch.cat(list(new.values())),
            "ends": torch.tensor(np.cumsum([len(states) for states in new.values()])),
            "names": torch.frombuffer(bytearray(b"".join(new)), dtype=torch.uint8).view(-1, _HASH),
            "checksums": torch.tensor([_checksum(states) for states in new.values()]),
        }
        try:
            save_file(content, temporary, metadata={"key": self.key})
            final = Path(temporary).with_suffix(".safetensors")
            os.replace(temporary, final)
            self._open(final)
        finally:
            Path(temporary).unlink(missing_ok=True)

    def clear(self) -> None:
        """Delete all states, and keep none from now on."""
        self._places, self._new, self.full = {}, {}, True
        for path in self.folder.glob("*.safetensors"):
            with suppress(OSError):
                path.unlink()

    def _open(self, path: Path) -> None:
        """Index the states in a file; delete it if its key is another or it cannot be read."""
        with suppress(OSError, SafetensorError, KeyError, ValueError):
            file: Any = safe_open(path, framework="pt")
            if (file.metadata() or {}).get("key") == self.key:
                ends, checksums = (file.get_tensor(name).tolist() for name in ("ends", "checksums"))
                names = [row.tobytes() for row in file.get_tensor("names").numpy()]
                part = file.get_slice("states")
                found = zip([0, *ends[:-1]], ends, checksums, strict=True)
                self._places |= {name: (part, *place) for name, place in zip(names, found, strict=True)}
                self._written += path.stat().st_size
                return
        _LOG.info("Deleted %s: its states are of another backbone or codebook, or damaged.", path)
        with suppress(OSError):
            path.unlink()


def _name(body: Sequence[int]) -> bytes:
    return hashlib.blake2b(np.asarray(body, dtype=np.int64).tobytes(), digest_size=_HASH).digest()


def _checksum(states: torch.Tensor) -> int:
    return zlib.crc32(states.contiguous().view(torch.uint8).numpy().tobytes())


def _size(states: Sequence[torch.Tensor]) -> int:
    return sum(one.numel() * one.element_size() for one in states)


def _free(folder: Path) -> int:
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free
