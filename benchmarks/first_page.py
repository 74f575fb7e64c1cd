"""Measure the time from starting the app to the first utterance on screen, and to import Streamlit as the limit.

    python -m benchmarks.first_page [--quick | --tiny] [--runs 5]

The last line is one JSON object.
"""

import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

from annotator.exchange.samples import create_sample
from benchmarks.command import Command
from benchmarks.measure import print_last
from tests.browser.conftest import CHROMIUM, SECOND, SWITCHES, serve

COMMAND = Command(
    __doc__,
    full={"runs": 5},
    quick={"runs": 3},
    tiny={"runs": 1},
    figures=("seconds_to_first_page", "over_importing_streamlit"),
)


def main() -> None:
    """Measure and print."""
    runs = COMMAND.read().runs
    pages, bare = [], []
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        with create_sample("client_talk", Path(folder) / "client-talk") as project:
            project.config = replace(project.config, retrain_every=0)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        for _ in range(runs):
            began = time.monotonic()
            app = serve(Path(folder))
            page = browser.new_page()
            page.goto(f"{app.url}/?project=client-talk&annotator=anna")
            expect(page.get_by_role("button", name="Skip")).to_be_visible(timeout=60 * SECOND)
            pages.append(time.monotonic() - began)
            app.kill()
            began = time.monotonic()
            subprocess.run([sys.executable, "-c", "import streamlit"], check=True)
            bare.append(time.monotonic() - began)
    seconds = statistics.median(pages)
    limit = statistics.median(bare)
    spread = f"{min(pages):.1f} to {max(pages):.1f}"
    print(f"first utterance after {seconds:.1f} s ({spread}), importing streamlit {limit:.1f} s")
    ratio = round(seconds / limit, 1)
    print_last({"seconds_to_first_page": round(seconds, 2), "over_importing_streamlit": ratio})


if __name__ == "__main__":
    main()
