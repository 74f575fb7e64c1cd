"""A project that cannot be opened, read or written is reported in words, and stays unchanged."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest

from annotator.errors import BadSetting, ProjectDamaged, ProjectError, ProjectReadOnly, ProjectTooNew, ProjectUnreadable
from store import settings, utterances
from store.database import FILENAME, create_database, fault_of, fetch, immediate, open_database, why_frozen
from store.health import problems
from store.utterances import NewUtterance
from tests.disks import filled, read_only, small_disk


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with some rows, closed."""
    folder = tmp_path_factory.mktemp("sound") / "project"
    with closing(create_database(folder)) as db:
        settings.put(db, "name", "calls")
        with immediate(db):
            for n in range(300):
                utterances.add(db, NewUtterance(str(n), f"This is what number {n} said to us." * 5))
    return folder


@pytest.fixture
def project(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "project"))


def put(path: Path, content: bytes) -> None:
    path.write_bytes(content)


def run(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()


def another_program(path: Path) -> None:
    path.unlink()
    run(path, "CREATE TABLE bookmark (address)")


def no_tables(path: Path) -> None:
    path.unlink()
    run(path, "PRAGMA journal_mode = WAL")


def replace_by(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        path.unlink()
        make(path)

    return change


DAMAGES: dict[str, tuple[Callable[[Path], None], type[ProjectError]]] = {
    "no bytes": (lambda path: put(path, b""), ProjectDamaged),
    "no tables": (no_tables, ProjectDamaged),
    "half of it": (lambda path: put(path, path.read_bytes()[: path.stat().st_size // 2]), ProjectDamaged),
    "its first bytes": (lambda path: put(path, path.read_bytes()[:60]), ProjectDamaged),
    "a header of zeros": (lambda path: put(path, bytes(100) + path.read_bytes()[100:]), ProjectDamaged),
    "a text": (lambda path: put(path, b"id,text\n1,hello\n" * 20), ProjectDamaged),
    "a folder": (replace_by(Path.mkdir), ProjectDamaged),
    "a pipe": (replace_by(os.mkfifo), ProjectDamaged),
    "a link to nowhere": (replace_by(lambda path: path.symlink_to("/no/such/file")), ProjectDamaged),
    "a link to itself": (replace_by(lambda path: path.symlink_to(path)), ProjectUnreadable),
    "another program's": (another_program, ProjectDamaged),
    "a table less": (lambda path: run(path, "DROP TABLE annotation"), ProjectDamaged),
    "a trigger less": (lambda path: run(path, "DROP TRIGGER annotation_is_never_deleted"), ProjectDamaged),
    "a column less": (lambda path: run(path, "ALTER TABLE utterance RENAME speaker TO voice"), ProjectDamaged),
    "a later version": (lambda path: run(path, "PRAGMA user_version = 99"), ProjectTooNew),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_project_is_refused_in_words_and_left_as_it_is(project: Path, damage: str) -> None:
    change, expected = DAMAGES[damage]
    path = project / FILENAME
    change(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(expected) as caught:
        open_database(project)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert type(fault_of(project)) is expected
    assert before is None or path.read_bytes() == before


def test_a_project_that_is_mended_opens_again_in_the_same_process(project: Path, sound: Path) -> None:
    path = project / FILENAME
    put(path, b"")
    assert fault_of(project)
    shutil.copyfile(sound / FILENAME, path)
    assert fault_of(project) is None
    open_database(project).close()


def test_looking_whether_a_project_opens_writes_nothing(project: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in project.iterdir()}
    assert fault_of(project) is None
    assert {path.name: path.stat().st_mtime_ns for path in project.iterdir()} == before


@pytest.mark.parametrize("seed", range(60))
def test_flipped_bytes_are_found_or_do_no_harm(project: Path, seed: int) -> None:
    """Whatever is read of a damaged file, no error of SQLite's or of Python's reaches a person."""
    flip, path = random.Random(seed), project / FILENAME
    content = bytearray(path.read_bytes())
    for _ in range(flip.choice([1, 5, 20])):
        content[flip.randrange(len(content))] ^= flip.choice([0xFF, 1, 0x80])
    path.write_bytes(content)
    with suppress(ProjectError), closing(open_database(project)) as db:
        problems(db)
        for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
            fetch(db, f"SELECT * FROM {name}")
        settings.put(db, "name", "written")


def test_most_flips_of_a_byte_are_found(sound: Path, tmp_path: Path) -> None:
    found, flip = 0, random.Random(7)
    for n in range(20):
        folder = Path(shutil.copytree(sound, tmp_path / str(n)))
        content = bytearray((folder / FILENAME).read_bytes())
        for _ in range(20):
            content[flip.randrange(len(content))] ^= 0xFF
        (folder / FILENAME).write_bytes(content)
        found += fault_of(folder) is not None
    assert found >= 12


def test_damage_that_pages_do_not_show_is_listed_by_the_thorough_check(project: Path) -> None:
    path = project / FILENAME
    run(path, "UPDATE utterance SET metadata = '{' WHERE id = 3")
    run(path, "UPDATE utterance SET text = CAST(x'ff41' AS TEXT) WHERE id = 4")
    run(path, "INSERT INTO queue (utterance_id, strategy, pool_size) VALUES (9999, 'random', 1)")
    with closing(open_database(project)) as db:
        assert problems(db) == [
            "row 1 of queue refers to a row of utterance that does not exist",
            "utterance 4 contains bytes that are not text",
            "metadata in row 3 of utterance is not valid JSON",
        ]


def test_a_sound_project_has_no_problems(project: Path) -> None:
    with closing(open_database(project)) as db:
        assert problems(db) == []


@pytest.mark.parametrize("stored", ["{", "", "[1]", "null x", "\x00"])
def test_a_setting_that_cannot_be_read_is_named_and_can_be_reset(project: Path, stored: str) -> None:
    with closing(open_database(project)) as db:
        db.execute("INSERT INTO setting (key, value) VALUES ('config', ?)", (stored,))
        with pytest.raises(BadSetting, match="“config”") as caught:
            settings.get(db, "config", {})
        assert "--reset 'config'" in caught.value.hint
        assert settings.reset(db, "config")
        assert settings.get(db, "config", {}) == {}
        assert not settings.reset(db, "config")


def test_only_its_owner_may_read_a_new_project(tmp_path: Path) -> None:
    create_database(tmp_path / "project").close()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "project").rglob("*")}
    assert modes == {FILENAME: 0o600, "adapters": 0o700}
    assert (tmp_path / "project").stat().st_mode & 0o777 == 0o700


def test_a_project_where_nothing_can_be_written_is_read_and_says_why_it_does_not_change(
    sound: Path, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(sound, disk / "project")
        with read_only(disk), closing(open_database(disk / "project")) as db:
            assert fault_of(disk / "project") is None
            assert why_frozen(db)
            with immediate(db):
                assert settings.get(db, "name") == "calls"
            with pytest.raises(ProjectReadOnly):
                settings.put(db, "name", "other")
        with pytest.raises(ProjectUnreadable), read_only(disk):
            create_database(disk / "new")


def test_answers_that_are_still_in_the_journal_are_never_left_out(sound: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        shutil.copytree(sound, disk / "project")
        with closing(open_database(disk / "project")) as db:
            settings.put(db, "name", "newer")
            shutil.copytree(disk / "project", disk / "whole")
            shutil.copytree(disk / "project", disk / "part", ignore=shutil.ignore_patterns("*-shm"))
        with read_only(disk):
            with closing(open_database(disk / "whole")) as db:
                assert settings.get(db, "name") == "newer"
            with pytest.raises(ProjectReadOnly, match=r"still in project\.db-wal"):
                open_database(disk / "part")


def test_a_project_that_could_not_be_created_leaves_nothing(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        with filled(disk), pytest.raises(ProjectError):
            create_database(disk / "project")
        assert list(disk.iterdir()) == []


def test_any_way_a_damaged_file_is_read_ends_in_the_same_error(project: Path) -> None:
    path = project / FILENAME
    with closing(open_database(project)) as db:  # it is sound, and not looked at again as long as it seems the same
        root = db.execute("SELECT rootpage FROM sqlite_master WHERE name = 'utterance'").fetchone()[0]
    before = path.stat()
    with path.open("r+b") as file:
        file.seek((root - 1) * 4096)
        file.write(os.urandom(4096))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with closing(open_database(project)) as db:
        readers: tuple[Callable[[], object], ...] = (
            lambda: fetch(db, "SELECT * FROM utterance ORDER BY text"),
            lambda: db.execute("SELECT * FROM utterance").fetchall(),
            lambda: list(db.execute("SELECT * FROM utterance")),
            lambda: db.execute("UPDATE utterance SET text = upper(text)"),
        )
        for read in readers:
            with pytest.raises(ProjectDamaged):
                read()


def test_looking_at_a_project_keeps_the_locks_of_its_open_connections(tmp_path: Path) -> None:
    """Closing a file drops all locks of the process; another process then deletes the journal, and answers with it."""
    with closing(create_database(tmp_path / "p")) as db:
        db.execute("SELECT count(*) FROM utterance").fetchone()
        for _ in range(2):
            assert fault_of(tmp_path / "p") is None
            open_database(tmp_path / "p").close()
        write = "import sys; from pathlib import Path; from store import settings; from store.database import *\n"
        write += "db = open_database(Path(sys.argv[1])); settings.put(db, 'name', 'kept'); db.close()"
        subprocess.run([sys.executable, "-c", write, str(tmp_path / "p")], check=True)
        assert (tmp_path / "p" / "project.db-wal").exists(), "this process still has the journal open"
        assert settings.get(db, "name", "") == "kept"
    with closing(open_database(tmp_path / "p")) as again:
        assert settings.get(again, "name", "") == "kept"
