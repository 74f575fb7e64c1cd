"""The same utterances as files of every format, written by other libraries."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openpyxl
import pyarrow as pa
import pyarrow.parquet as pq

ROWS: list[dict[str, Any]] = [
    {"id": "a1", "text": "Hello, how\ncan I help?", "label": "", "conversation": "c1", "turn": 1, "speaker": "agent"},
    {"id": "a2", "text": "My “card” is lost; 100 € gone", "label": "loss", "conversation": "c1", "turn": 2},
    {"id": "a3", "text": "=1+1 is a text, too\t🙂", "label": "other", "conversation": "c2", "turn": 1.5},
]
for _row in ROWS:
    _row.setdefault("speaker", "client")
    _row["stars"] = 4


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> Path:
    with path.open("w", newline="", encoding=encoding) as stream:
        writer = csv.DictWriter(stream, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_tsv(path: Path, rows: list[dict[str, Any]]) -> Path:
    return write_csv(path, rows, delimiter="\t")


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def write_xlsx(path: Path, rows: list[dict[str, Any]]) -> Path:
    book = openpyxl.Workbook()
    sheet = book.worksheets[0]
    for row in [list(rows[0]), *(list(row.values()) for row in rows)]:
        sheet.append(row)
        for cell in sheet[sheet.max_row]:
            cell.data_type = "s" if isinstance(cell.value, str) else cell.data_type
    book.save(path)
    return path


WRITERS: dict[str, Callable[[Path, list[dict[str, Any]]], Path]] = {
    ".csv": write_csv,
    ".tsv": write_tsv,
    ".jsonl": write_jsonl,
    ".ndjson": write_jsonl,
    ".parquet": write_parquet,
    ".xlsx": write_xlsx,
}


def texts(path: Path, content: str) -> Path:
    path.write_bytes(content.encode())
    return path
