"""A project: a folder with a database, its settings, and the adapters of its rounds.

Opening one opens a database connection, which belongs to the thread that opened it. Close it, or use it as a
context manager.
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
        """Open an existing project and finish an import that was cut off; read-only where nothing can be written.

        `patience`: seconds to wait for another program that writes. Raises NoProject, ProjectError.
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
        """The name people see."""
        return str(settings.get(self.db, "name", self.folder.name))

    @property
    def config(self) -> RoundConfig:
        """How the next round is made."""
        return settings.read(self.db, "config", {}, lambda stored: RoundConfig.from_json(json.dumps(stored)))

    @config.setter
    def config(self, config: RoundConfig) -> None:
        settings.put(self.db, "config", json.loads(config.to_json()))

    @property
    def adapters(self) -> Path:
        """The folder with one subfolder per round."""
        return self.folder / "adapters"
