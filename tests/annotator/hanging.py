"""A round's process that hangs as soon as it begins to load: `python -m tests.annotator.hanging FOLDER JOB`."""

from __future__ import annotations

import sys
import time

from annotator.rounds import worker
from model import types


def hang(*_: object) -> None:
    time.sleep(600)


if __name__ == "__main__":
    types.load_classifier = hang  # type: ignore[assignment]
    worker._BEAT_SECONDS = float(sys.argv[3])
    worker.main()
