"""The pictures of the documentation can be taken anew."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.browser.conftest import CHROMIUM

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.soak
@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH")
def test_every_picture_of_the_documentation_is_taken_from_the_running_app(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "docs.figures", "--into", str(tmp_path)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    taken = {path.name for path in tmp_path.glob("*.png")}
    assert taken == {path.name for path in (ROOT / "docs" / "pictures").glob("*.png")}
