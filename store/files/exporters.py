"""Write rows to files: columns, types, formats, and atomic replacement.

JSONL, Parquet and the data set keep every value unchanged. CSV is meant for spreadsheets: a text that would run as a
formula gets an apostrophe in front (remove one wherever `FORMULA` matches to restore it), and empty texts cannot be
distinguished from missing ones.
"""

import csv
import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet as pq

from annotator.errors import BadFile, BadInput, Message, UnknownName

Kind = Literal["text", "integer", "number", "flag", "time", "probabilities"]
Row = Mapping[str, object]

BATCH = 5_000  # rows in memory at once
SPLITS = MappingProxyType({"pool": "train", "audit": "audit"})
NO_LABEL = -1  # the code for "not labeled" in Hugging Face data sets

# Spreadsheets run texts that start like this, also with full-width characters (OWASP, CSV injection). Leading
# apostrophes are matched too, so "=1" and "'=1" remain distinct and the original can be restored.
FORMULA = re.compile("'*[=+\\-@\t\r\n\0＝＋－＠]")

_ARROW: dict[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "flag": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Field:
    """One column. `probabilities` is a mapping from label to number; tables get a column `p(label)` for each."""

    name: str
    kind: Kind


@dataclass(frozen=True)
class Layout:
    """Settings shared by all writers."""

    fields: Sequence[Field]
    label_names: Sequence[str]
    bom: bool
    splits: Mapping[str, str]

    @cached_property
    def columns(self) -> list[Field]:
        """The columns of a table, with one for each label's probability."""
        return [column for field in self.fields for column in self._spread(field)]

    def _spread(self, field: Field) -> list[Field]:
        if field.kind != "probabilities":
            return [field]
        return [Field(f"p({label})", "number") for label in self.label_names]

    @cached_property
    def column_names(self) -> list[str]:
        """The names of the columns."""
        return [column.name for column in self.columns]

    @cached_property
    def _kinds(self) -> list[tuple[str, Kind]]:
        return [(field.name, field.kind) for field in self.fields]

    def by_field(self, row: Row, convert: "Converters") -> dict[str, Any]:
        """Return the values of a row by field, each converted if it is there."""
        return {name: None if (value := row.get(name)) is None else convert[kind](value) for name, kind in self._kinds}

    def in_columns(self, row: Row, convert: "Converters") -> list[Any]:
        """Return the values of a row in the order of `columns`, each converted if it is there."""
        values: list[Any] = []
        for (_, kind), value in zip(self._kinds, self.by_field(row, convert).values(), strict=True):
            if kind == "probabilities":
                values += map((value or {}).get, self.label_names)
            else:
                values.append(value)
        return values


@dataclass(frozen=True)
class Format:
    """A file format: suffix, displayed name, and writer."""

    suffix: str
    shown: str
    write: Callable[[Iterable[Row], Layout, Path], int]


def export(
    rows: Iterable[Row],
    fields: Sequence[Field],
    label_names: Sequence[str],
    path: Path,
    format: str,
    *,
    bom: bool = True,
    splits: Mapping[str, str] = SPLITS,
) -> int:
    """Write rows to a file, or a folder for `dataset`, and return their number.

    Whatever is at `path` is replaced once everything is written, and unchanged if anything fails. `bom` is for Excel,
    which does not read a CSV without one as UTF-8; `splits` names the data set's split of each slice.
    Raises UnknownName for an unknown format, BadInput for clashing columns or labels, BadFile if writing fails.
    """
    if format not in FORMATS:
        raise UnknownName.among("export format", format, list(FORMATS))
    layout = Layout(fields, label_names, bom, splits)
    _check_names(layout.column_names)
    _check_replaceable(path, folder=not FORMATS[format].suffix)
    with _atomic(path) as unfinished:
        return FORMATS[format].write(rows, layout, unfinished)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically. Raises BadFile if it cannot be written."""
    with _atomic(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def _check_names(names: Sequence[str]) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(
            Message("{n} column names occur twice: {twice}.", n=len(twice), twice=", ".join(twice)),
            "Rename or omit one.",
        )


def _check_replaceable(path: Path, folder: bool) -> None:
    """Raise BadFile if what is at `path` was not written by an export of this kind: a file, or a data set."""
    replaceable = (path / "dataset_dict.json").is_file() if folder else path.is_file()
    if path.exists() and not replaceable:
        raise BadFile(
            Message("{path} already exists and is not an earlier export.", path=path),
            "Choose another name, or move it away first.",
        )


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.unfinished")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield unfinished
        unfinished.chmod(0o700 if unfinished.is_dir() else 0o600)  # texts may be confidential
        _move(unfinished, path)
    except OSError as error:
        raise BadFile(
            Message("{path} cannot be written: {value}.", path=path, value=error.strerror or error),
            "Choose another place.",
        ) from error
    finally:
        _remove(unfinished)


def _move(unfinished: Path, path: Path) -> None:
    if path.is_dir():  # a folder cannot be replaced atomically, so the old one is kept until the new one is in place
        aside = unfinished.with_suffix(".replaced")
        path.rename(aside)
        unfinished.rename(path)
        _remove(aside)
    else:
        os.replace(unfinished, path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    elif path.exists():
        path.unlink()


# Values


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _time(value: datetime | str) -> datetime:
    return value if isinstance(value, datetime) else datetime.fromisoformat(value)


def _escaped(text: str) -> str:
    """Return a text so that no spreadsheet runs it."""
    return f"'{text}" if FORMULA.match(text) else text


Converters = Mapping[Kind, Callable[[Any], Any]]  # from a value that is there to the plain type of its kind
_PLAIN: Converters = {
    "text": _text,
    "integer": int,
    "number": _number,
    "flag": bool,
    "time": _time,
    "probabilities": lambda shares: {label: None if one is None else _number(one) for label, one in shares.items()},
}
_JSON: Converters = {**_PLAIN, "time": lambda value: _time(value).isoformat()}
_CSV: Converters = {
    **_JSON,
    "text": lambda value: _escaped(_text(value)),
    "flag": lambda value: "true" if value else "false",
}


# Writers


def _flat(row: Row, layout: Layout) -> dict[str, Any]:
    """Return a row by column."""
    return dict(zip(layout.column_names, layout.in_columns(row, _PLAIN), strict=True))


def _write_csv(rows: Iterable[Row], layout: Layout, path: Path) -> int:
    written = 0
    with path.open("w", encoding="utf-8-sig" if layout.bom else "utf-8", newline="") as stream:
        writer = csv.writer(stream)  # its defaults are those of RFC 4180
        writer.writerow(map(_escaped, layout.column_names))
        for row in rows:
            writer.writerow(layout.in_columns(row, _CSV))
            written += 1
    return written


def _write_jsonl(rows: Iterable[Row], layout: Layout, path: Path) -> int:
    written, encode = 0, json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode
    with path.open("w", encoding="utf-8", newline="\n") as stream:
        for row in rows:
            stream.write(encode(layout.by_field(row, _JSON)) + "\n")
            written += 1
    return written


def _write_parquet(rows: Iterable[Row], layout: Layout, path: Path) -> int:
    schema, written = _schema(layout), 0
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for batch in _batches(rows):
            writer.write_table(pa.Table.from_pylist([_flat(row, layout) for row in batch], schema))
            written += len(batch)
    return written


def _write_dataset(rows: Iterable[Row], layout: Layout, path: Path) -> int:
    import datasets  # takes half a second and is needed only here; does not import torch until tensors are requested

    datasets.disable_progress_bars()
    tables = _tables_of_splits(rows, layout)
    features = datasets.Features.from_arrow_schema(next(iter(tables.values())).schema)
    if "label" in features:
        features["label"] = datasets.ClassLabel(names=list(layout.label_names))
    info = datasets.DatasetInfo(features=features)
    splits = datasets.DatasetDict(
        {name: datasets.Dataset(table.cast(features.arrow_schema), info=info) for name, table in tables.items()}
    )
    # An empty split needs one shard, otherwise it could not be loaded again.
    splits.save_to_disk(path, num_shards={name: None if len(split) else 1 for name, split in splits.items()})
    return sum(len(split) for split in splits.values())


def _tables_of_splits(rows: Iterable[Row], layout: Layout) -> dict[str, pa.Table]:
    schema = _schema(layout)
    if "label" in schema.names:
        schema = schema.set(schema.get_field_index("label"), pa.field("label", pa.int64()))
    codes = {name: code for code, name in enumerate(layout.label_names)}
    parts: dict[str, list[pa.Table]] = {name: [schema.empty_table()] for name in layout.splits.values()}
    for batch in _batches(rows):
        by_split: dict[str, list[dict[str, Any]]] = {}
        for row in batch:
            by_split.setdefault(_split(row, layout), []).append(_coded(_flat(row, layout), codes))
        for name, flat in by_split.items():
            parts[name].append(pa.Table.from_pylist(flat, schema))
    return {name: pa.concat_tables(tables) for name, tables in parts.items()}


def _split(row: Row, layout: Layout) -> str:
    slice_name = str(row.get("slice"))
    if slice_name not in layout.splits:
        raise BadInput(
            Message("No split is given for the slice “{slice_name}”.", slice_name=slice_name),
            Message("Known: {splits}.", splits=", ".join(layout.splits)),
        )
    return layout.splits[slice_name]


def _coded(flat: dict[str, Any], codes: Mapping[str, int]) -> dict[str, Any]:
    if "label" not in flat:
        return flat
    label = flat["label"]
    if label is not None and label not in codes:
        raise BadInput(
            Message("“{label}” is not one of the {n} labels.", label=label, n=len(codes)),
            Message("They are: {codes}.", codes=", ".join(codes)),
        )
    return {**flat, "label": NO_LABEL if label is None else codes[label]}


def _schema(layout: Layout) -> pa.Schema:
    return pa.schema([pa.field(column.name, _ARROW[column.kind]) for column in layout.columns])


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    stream = iter(rows)
    while batch := list(islice(stream, BATCH)):
        yield batch


FORMATS = {
    "csv": Format(".csv", "CSV (spreadsheet)", _write_csv),
    "jsonl": Format(".jsonl", "JSON Lines", _write_jsonl),
    "parquet": Format(".parquet", "Parquet", _write_parquet),
    "dataset": Format("", "Hugging Face data set (folder)", _write_dataset),
}
