"""Read rows of files of any format: the row number, and values as text by column.

All formats are streamed; no file is loaded into memory as a whole.
"""

import codecs
import csv
import json
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import date, time
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, Literal
from zipfile import BadZipFile

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq
from openpyxl.utils.escape import unescape

from annotator.errors import BadFile, BadInput, Message

FIELD_LIMIT = 10_000_000  # characters of a CSV cell: more than any text, less than a file after an unclosed quote
BATCH = 1_000  # Parquet rows in memory at once
LINES_FOR_HEADER = 1_000  # JSON objects read to collect the keys

Cells = Mapping[str, Any]  # a row by column: texts, and the lists and objects of JSON and Parquet
# Readers yield the number of a row with its values, or with the reason it is invalid.
_Row = tuple[int, Cells | str]
_Cells = tuple[int, list[Any] | str]
Kind = Literal["row", "label", "change"]


@dataclass(frozen=True)
class Rejected:
    """A rejected row, label or change; `row` is the row number as displayed by other programs."""

    row: int
    reason: str
    kind: Kind = field(default="row", compare=False)  # what was rejected: the whole row, its label, or a change


def read_header(path: Path, encoding: str = "utf-8") -> list[str]:
    """Return the columns of a file; for JSONL, the keys of its first objects. Raises BadFile."""
    reader = _reader(path)
    with _translated_errors(path, encoding):
        return reader.header(path, encoding)


def read_rows(path: Path, encoding: str = "utf-8") -> Iterator[tuple[int, Cells] | Rejected]:
    """Stream the rows of a file with their numbers: a table's header is row 1, JSONL counts lines, Parquet from 1.

    Values are text, "" if missing, except lists and objects in JSONL and Parquet. Invalid rows are yielded as Rejected,
    blank ones skipped. Raises BadFile if the file cannot be read.
    """
    reader = _reader(path)
    with _translated_errors(path, encoding):
        for number, row in reader.rows(path, encoding):
            if isinstance(row, str):
                yield Rejected(number, row)
            else:
                yield number, {name: _plain(value) for name, value in row.items()}


@dataclass(frozen=True)
class _Reader:
    header: Callable[[Path, str], list[str]]
    rows: Callable[[Path, str], Iterator[_Row]]


@contextmanager
def _translated_errors(path: Path, encoding: str) -> Iterator[None]:
    try:
        codecs.lookup(encoding)
    except LookupError:
        raise BadInput(
            Message("There is no encoding “{encoding}”.", encoding=encoding), "Common encodings: utf-8, utf-16, cp1252."
        ) from None
    try:
        yield
    except UnicodeDecodeError as error:
        raise BadFile(
            Message(
                "{name} is not in {encoding}: {path} ({reason}).",
                name=path.name,
                encoding=encoding,
                path=_where_undecodable(path, encoding),
                reason=error.reason,
            ),
            "Save it as UTF-8, or choose its encoding (Excel in Western Europe: cp1252).",
        ) from error
    except (OSError, BadZipFile, EOFError, pa.ArrowException) as error:
        raise BadFile(
            Message("{name} cannot be read: {error}.", name=path.name, error=error),
            "Check that another program can open it.",
        ) from error


def _where_undecodable(path: Path, encoding: str) -> str:
    # The error's position refers to a buffer, so the file is decoded again to find the position in the file.
    decoder, offset, lines = codecs.getincrementaldecoder(encoding)(), 0, 1
    with path.open("rb") as stream:
        for chunk in chain(iter(lambda: stream.read(1 << 16), b""), [b""]):
            pending = len(decoder.getstate()[0])
            try:
                decoder.decode(chunk, final=not chunk)
            except UnicodeDecodeError as error:
                lines += chunk[: max(0, error.start - pending)].count(b"\n")
                return f"byte {offset - pending + error.start + 1:,}, in line {lines:,}, cannot be decoded"
            offset, lines = offset + len(chunk), lines + chunk.count(b"\n")
    return "a value cannot be decoded"


def _reader(path: Path) -> _Reader:
    reader = READERS.get(path.suffix.lower())
    if reader is None:
        raise BadFile(
            Message("“{suffix}” files cannot be imported.", suffix=path.suffix),
            Message("Supported formats: {readers}.", readers=", ".join(READERS)),
        )
    if not path.is_file():
        raise BadFile(Message("There is no file {path}.", path=path), "Check the name and the folder.")
    return reader


def _table(read: Callable[[Path, str], Iterator[_Cells]]) -> _Reader:
    """Make a reader for a format with a header row."""

    def header(path: Path, encoding: str) -> list[str]:
        return _header(path, next(read(path, encoding), (1, "it is empty"))[1])

    def rows(path: Path, encoding: str) -> Iterator[_Row]:
        cells = read(path, encoding)
        names = _header(path, next(cells, (1, Message("it is empty")))[1])
        for number, row in cells:
            if isinstance(row, str):
                yield number, row
            elif len(row) != len(names):
                yield number, Message("It has {n:,} fields, but the header has {n2:,}.", n=len(row), n2=len(names))
            else:
                yield number, dict(zip(names, row, strict=True))

    return _Reader(header, rows)


def _header(path: Path, cells: list[Any] | str) -> list[str]:
    if isinstance(cells, str):
        raise BadFile(
            Message("{name} has no header row: {cells}.", name=path.name, cells=cells),
            "The first row must name the columns.",
        )
    return _check_unique(path, [str(_plain(cell)).strip() or f"column {place}" for place, cell in enumerate(cells, 1)])


def _check_unique(path: Path, names: list[str]) -> list[str]:
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        raise BadFile(
            Message("{name} has columns of the same name: {twice}.", name=path.name, twice=", ".join(twice)),
            "Rename all but one.",
        )
    return names


def _csv_cells(path: Path, encoding: str) -> Iterator[_Cells]:
    csv.field_size_limit(FIELD_LIMIT)
    with path.open(encoding=_with_bom(encoding), newline="") as stream:
        first = next((line for line in stream if line.strip()), "")
        stream.seek(0)
        # strict: otherwise an unclosed quotation mark silently consumes the following rows.
        reader = csv.reader(stream, delimiter=_delimiter(path, first), strict=True)
        for number in count(1):
            start = reader.line_num + 1
            try:
                cells = next(reader, None)
            except csv.Error as error:
                yield (
                    number,
                    Message(
                        "Lines {start:,} to {line_num:,} of the file are not valid CSV: {error}.",
                        start=start,
                        line_num=reader.line_num,
                        error=error,
                    ),
                )
                continue
            if cells is None:
                return
            if cells:
                yield number, list(cells)


def _delimiter(path: Path, header_line: str) -> str:
    if path.suffix.lower() == ".tsv":
        return "\t"
    return max(",;\t", key=lambda mark: len(next(csv.reader([header_line], delimiter=mark), [])))


def _plain(value: Any) -> Any:
    """Convert a value to text, equally for all formats; keep nested values."""
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return str(value).lower()
        case float():
            return "" if math.isnan(value) else str(int(value)) if value.is_integer() else str(value)
        case date() | time():
            return value.isoformat()
        case list() | dict():
            return json.loads(json.dumps(value, default=str, ensure_ascii=False))
    return str(value)


def _with_bom(encoding: str) -> str:
    return "utf-8-sig" if codecs.lookup(encoding).name == "utf-8" else encoding


def _excel_cells(path: Path, _: str) -> Iterator[_Cells]:
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
    except KeyError as error:  # a zip archive of another kind
        raise BadFile(
            Message("{name} is not an Excel file: {args}", name=path.name, args=error.args[0]), "Save it as .xlsx."
        ) from error
    with closing(book):
        sheet = book.worksheets[0]
        sheet.reset_dimensions()  # some programs write wrong dimensions, which would truncate rows
        width = 0
        for number, cells in enumerate(sheet.iter_rows(values_only=True), 1):
            row = [unescape(cell) if isinstance(cell, str) else cell for cell in cells]
            while row and row[-1] is None:
                row.pop()
            width = width or len(row)  # the header's
            if row:
                yield number, row + [None] * (width - len(row))


def _jsonl_objects(path: Path, encoding: str) -> Iterator[_Row]:
    with path.open(encoding=_with_bom(encoding), newline="\n") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                value = json.loads(line, parse_constant=lambda _: None)
            except (ValueError, RecursionError) as error:
                yield number, Message("The line is not valid JSON: {error}.", error=error)
                continue
            yield number, value if isinstance(value, dict) else Message("The line is not a JSON object.")


def _jsonl_header(path: Path, encoding: str) -> list[str]:
    keys: dict[str, None] = {}
    for _, row in islice(_jsonl_objects(path, encoding), LINES_FOR_HEADER):
        keys |= dict.fromkeys(row) if isinstance(row, dict) else {}
    if not keys:
        raise BadFile(
            Message("{name} contains no JSON object.", name=path.name),
            'Write one object per line, such as {"text": "…"}.',
        )
    return list(keys)


def _parquet_header(path: Path, _: str) -> list[str]:
    return _check_unique(path, list(pq.read_schema(path).names))


def _parquet_rows(path: Path, _: str) -> Iterator[_Row]:
    with pq.ParquetFile(path) as file:
        # Some programs store text as bytes; invalid UTF-8 raises here.
        types = [
            pa.string() if column.type in (pa.binary(), pa.large_binary()) else column.type
            for column in file.schema_arrow
        ]
        schema = pa.schema(zip(file.schema_arrow.names, types, strict=True))
        batches = (batch.cast(schema).to_pylist() for batch in file.iter_batches(batch_size=BATCH))
        yield from enumerate(chain.from_iterable(batches), 1)


READERS = {
    ".csv": _table(_csv_cells),
    ".tsv": _table(_csv_cells),
    ".jsonl": _Reader(_jsonl_header, _jsonl_objects),
    ".ndjson": _Reader(_jsonl_header, _jsonl_objects),
    ".parquet": _Reader(_parquet_header, _parquet_rows),
    ".xlsx": _table(_excel_cells),
}
