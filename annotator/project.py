"""Open a project: a folder with a database, its settings, and the adapters of its rounds.

The database connection belongs to the thread that opened the project. Close the project, or use it as a context
manager.
"""

import json
from pathlib import Path
from typing import Self

from sqlite_utils import Database

from annotator.config import RoundConfig
from store import imports, settings
from store.database import open_database, wait_at_most, why_frozen


class Project:
    """A project's folder, its database connection and its settings."""

    def __init__(self, folder: Path, db: Database) -> None:
        self.folder = folder
        self.db = db

    @classmethod
    def open(cls, folder: Path, patience: float | None = None) -> Self:
        """Open an existing project and finish an interrupted import; read-only if the folder cannot be written to.

        `patience`: seconds to wait for a lock of another program. Raises NoProject, ProjectError.
        """
        project = cls(folder, open_database(folder))
        try:
            if patience is not None:
                wait_at_most(project.db, patience)
            if not why_frozen(project.db) and imports.recover(project.db):
                imports.close(project.db)
        except BaseException:
            project.close()
            raise
        return project

    def close(self) -> None:
        """Close the connection."""
        self.db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def name(self) -> str:
        """The display name."""
        return str(settings.get(self.db, "name", self.folder.name))

    @property
    def config(self) -> RoundConfig:
        """The settings of the next round."""
        return settings.read(self.db, "config", {}, lambda stored: RoundConfig.from_json(json.dumps(stored)))

    @config.setter
    def config(self, config: RoundConfig) -> None:
        settings.put(self.db, "config", json.loads(config.to_json()))

    @property
    def adapters(self) -> Path:
        """The folder with one subfolder per round."""
        return self.folder / "adapters"

    @property
    def cache(self) -> Path:
        """The folder with hidden states that rounds would otherwise compute again; it may be deleted."""
        return self.folder / "cache"
