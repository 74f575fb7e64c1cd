"""Create sample projects, and list the projects of a workspace."""

import os
from dataclasses import dataclass
from pathlib import Path

from annotator.codebook.definition import create_project
from annotator.codebook.draft import CodebookDraft, read_codebook
from annotator.errors import Message, ProjectUnreadable, UnknownName
from annotator.exchange.imports import import_file
from annotator.i18n import later
from annotator.project import Project
from store import settings
from store.database import FILENAME
from store.files.importers import ImportPlan, detect_columns
from store.files.readers import read_header

DATA = Path(__file__).resolve().parents[2] / "data"


@dataclass(frozen=True)
class Sample:
    """A labeled file with its codebook, written for this software."""

    name: str
    shown: str
    about: str

    @property
    def data(self) -> Path:
        """The file with the utterances."""
        return DATA / f"{self.name}.csv"

    @property
    def codebook(self) -> CodebookDraft:
        """The codebook."""
        return read_codebook(DATA / f"{self.name}.yaml")


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "political_promises", "Political promises", later("Is this sentence a promise that can be checked later?")
        ),
        Sample("client_talk", "Client talk", later("Does the client speak for change, against it, or neither?")),
    )
}


def workspace() -> Path:
    """Return the folder of all projects: ANNOTATOR_PROJECTS, or `projects` in the current folder."""
    return Path(os.environ.get("ANNOTATOR_PROJECTS") or "projects").resolve()


def project_folders(folder: Path) -> list[Path]:
    """Return the project folders in a workspace by name, including unreadable ones. Raises ProjectUnreadable."""
    try:
        found = sorted(folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise ProjectUnreadable(
            Message("The folder of all projects, {folder}, cannot be read.", folder=folder),
            "Check that you may read it and that its disk is connected.",
        ) from error
    return [path for path in found if os.path.lexists(path / FILENAME)]


def create_sample(name: str, folder: Path) -> Project:
    """Create a sample project with its utterances but not their labels. Raises UnknownName."""
    if name not in SAMPLES:
        raise UnknownName.among("sample", name, sorted(SAMPLES))
    sample = SAMPLES[name]
    draft = sample.codebook
    columns = detect_columns(read_header(sample.data))
    only = (columns.speaker or "", draft.speaker) if draft.speaker else None
    project = create_project(folder, draft)
    import_file(project, sample.data, ImportPlan(columns, label_only=only, with_labels=False))
    settings.put(project.db, "sample", name)
    return project


def is_sample(project: Project) -> bool:
    """Return whether a project was created from a sample."""
    return settings.get(project.db, "sample") is not None
