"""Measure the time from a key press on the Label page to the next utterance on screen, in Chromium with a real server.

    python -m benchmarks.label_latency [--quick]

Measures a small and a large project, idle and while a round with the starter backbone trains, and as a lower bound (the
floor) the same widgets in a bare app of the same framework. All take turns, so that other load on the machine affects
them equally. The last line is one JSON object: `idle` and `training` of the large project, each with `p50_ms` and
`p95_ms`, and two ratios of medians while nothing trains: `large_over_small`, and `over_floor` of the large project.
"""

import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from playwright.sync_api import Browser, Page, expect, sync_playwright

from annotator.codebook.definition import codebook_of, create_project
from annotator.exchange.imports import add_utterances
from annotator.exchange.samples import SAMPLES
from annotator.loop import run_round
from annotator.project import Project
from annotator.rounds.worker import start_round
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from store import annotations, jobs, utterances
from store.annotations import NewAnnotation
from store.database import immediate
from store.utterances import NewUtterance
from tests.browser.conftest import CHROMIUM, SECOND, SWITCHES, answers, free_port, serve
from tests.fake import FakeClassifier

COMMAND = Command(
    __doc__,
    full={"answers": 300, "block": 20, "small": 1_000, "large": 200_000, "backbone": STARTER},
    quick={"answers": 20, "block": 10, "large": 100_000},
    tiny={"answers": 4, "block": 2, "small": 200, "large": 400, **RANDOM_WEIGHTS},
    figures=("idle", "training", "large_over_small", "over_floor"),
)
READING = 250  # milliseconds between two answers, less than a person takes to read
NEVER = 1_000_000  # answers before an automatic round
LASTING = 1000  # epochs of a round that is canceled at the end

# Records the time from a key press to the first frame with another utterance. Runs before the page's own scripts, which
# may stop the event.
STOPWATCH = """
if (window === top) {
    const shown = () => document.querySelector('.utterance')?.textContent;
    window.painted = [];
    addEventListener('keydown', () => {
        const pressed = performance.now(), before = shown();
        const look = () => {
            const now = shown();
            if (now && now !== before) setTimeout(() => window.painted.push(performance.now() - pressed));
            else if (performance.now() - pressed < 20000) requestAnimationFrame(look);
        };
        requestAnimationFrame(look);
    }, true);
}"""
READY = "window.annotatorKeys || !document.querySelector('[data-asked]')"  # the bare app has no script of its own


@dataclass
class Screen:
    """A browser page on which answers are given, with the time of each."""

    name: str
    page: Page
    milliseconds: list[float] = field(default_factory=list)

    def work(self, count: int) -> None:
        """Answer `count` utterances by key."""
        self.page.bring_to_front()
        for number in range(count):
            self.page.wait_for_timeout(READING)
            self.page.keyboard.press(str(number % 3 + 1))
            self.page.wait_for_function(f"window.painted.length > {len(self.milliseconds)}", timeout=20 * SECOND)
            self.milliseconds.append(float(self.page.evaluate("window.painted.at(-1)")))


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as playwright:
        folder = Path(name)
        for size in ("small", "large"):
            prepare(folder / size, getattr(given, size), given.backbone)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        with running(folder) as address, bare() as floor_address:
            pages = {size: f"{address}/?project={size}&annotator=anna" for size in ("small", "large")}
            pages["floor"] = floor_address
            idle = {screen: opened(browser, screen, url) for screen, url in pages.items()}
            take_turns(list(idle.values()), given)
            with training(folder / "large"):
                busy = {screen: opened(browser, screen, pages[screen]) for screen in ("large", "floor")}
                take_turns(list(busy.values()), given)
        report(idle, busy)


def report(idle: dict[str, Screen], busy: dict[str, Screen]) -> None:
    """Print each page's figures, and the JSON line."""
    for state, desks in (("idle", idle), ("training", busy)):
        for name, screen in desks.items():
            p50, p95, worst = np.percentile(screen.milliseconds, [50, 95, 100])
            print(f"{state:8} {name:5}  median {p50:4.0f} ms, 95 % within {p95:4.0f} ms, slowest {worst:4.0f} ms")
    median = {name: float(np.median(screen.milliseconds)) for name, screen in idle.items()}
    print_last(
        {
            "idle": figures(idle["large"]),
            "training": figures(busy["large"]),
            "large_over_small": round(median["large"] / median["small"], 2),
            "over_floor": round(median["large"] / median["floor"], 2),
        }
    )


def figures(screen: Screen) -> dict[str, float]:
    """Return the median and the 95th percentile."""
    p50, p95 = np.percentile(screen.milliseconds, [50, 95])
    return {"p50_ms": round(p50, 1), "p95_ms": round(p95, 1)}


def take_turns(desks: list[Screen], given: Namespace) -> None:
    """Answer a block on each page in turns; the first three answers of each warm up."""
    for screen in desks:
        screen.work(3)
        del screen.milliseconds[:]
        screen.page.evaluate("window.painted = []")
    for _ in range(given.answers // given.block):
        for screen in desks:
            screen.work(given.block)


def prepare(folder: Path, count: int, backbone: str) -> None:
    """Create a project with some answers and a round with suggestions, and no automatic round.

    A round that is started later does not end by itself.
    """
    with create_project(folder, SAMPLES["client_talk"].codebook) as project:
        add_utterances(project, list(talk(count)))
        with immediate(project.db):
            for number, utterance in enumerate(utterances.ids_in(project.db, "pool")[: count // 20]):
                annotations.record(project.db, NewAnnotation(utterance, "ben", "label", number % 3 + 1, "random", 1))
        run_round(project, FakeClassifier(codebook_of(project).task()), project.config)
        job = jobs.begin(project.db, "the benchmark", annotations.last_id(project.db))
        jobs.finish(project.db, job, "done")
        lasting = replace(project.config.recipe, epochs=LASTING)
        project.config = replace(project.config, retrain_every=NEVER, recipe=lasting, backbone=backbone)


def talk(count: int) -> Iterator[NewUtterance]:
    """Generate conversations of twenty turns."""
    for i in range(count):
        text = f"I have been thinking about evening {i}, and week {i % 53} was hard because of reason {i % 997}."
        yield NewUtterance(f"u{i}", text, f"c{i // 20}", float(i % 20), "client" if i % 2 else "counsellor")


@contextmanager
def running(projects: Path) -> Iterator[str]:
    """Serve the app."""
    app = serve(projects)
    try:
        yield app.url
    finally:
        app.kill()


@contextmanager
def bare() -> Iterator[str]:
    """Serve the bare app with the app's own settings."""
    port = free_port()
    script = str(Path(__file__).with_name("bare_app.py"))
    command = [sys.executable, "-m", "streamlit", "run", script, "--server.headless=true", f"--server.port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert answers(port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@contextmanager
def training(folder: Path) -> Iterator[None]:
    """Run a round in the meantime, then cancel it and wait until it has stopped."""
    with Project.open(folder) as project:
        job = start_round(project, "the benchmark")
        try:
            yield
            ended = jobs.get(project.db, job)
            assert jobs.active(project.db), f"the round ended before the answers did: {ended.error}"
        finally:
            jobs.request_cancel(project.db)
            deadline = time.monotonic() + 60
            while jobs.active(project.db) and time.monotonic() < deadline:
                time.sleep(0.2)


def opened(browser: Browser, name: str, url: str) -> Screen:
    """Open a page and wait until it accepts answers."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.add_init_script(STOPWATCH)
    page.goto(url)
    expect(page.locator(".utterance")).to_be_visible(timeout=60 * SECOND)
    page.wait_for_function(READY)
    page.wait_for_timeout(2 * SECOND)
    return Screen(name, page)


if __name__ == "__main__":
    main()
