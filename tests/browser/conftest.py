"""A real server on a workspace of its own, with the network cut, and a real Chromium looking at it.

All modules share one server, because starting it takes longer than most tests. Each test has its own project in it.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from playwright.sync_api import BrowserContext, Locator, Page, TimeoutError, expect, sync_playwright

from annotator.exchange import samples
from annotator.exchange.samples import create_sample
from annotator.project import Project
from tests.annotator.scenes import first_rows

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
SWITCHES = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update")
SECOND = 1000
A_LOOK = 200  # ms: what has been on screen for less is not answered
QUIET = 400  # ms without a change, after which a page is taken to be complete
# The script has ended, each part is loaded, nothing fades in or moves, and the page has not changed for so many
# milliseconds.
AT_REST = """quiet => {
    const note = () => { window.changed = performance.now() };
    if (!window.changed) {
        note();
        new MutationObserver(note).observe(document, { subtree: true, childList: true, characterData: true });
    }
    return document.querySelector("[data-test-script-state=notRunning]")
        && !document.querySelector("[data-testid^=stSkeleton]")
        && document.getAnimations().every(one => one.playState !== "running")
        && performance.now() - window.changed > quiet;
}"""
expect.set_options(timeout=60 * SECOND)  # the machine may be at other work: what is waited for comes, or does not


@dataclass
class App:
    """A running server."""

    url: str
    projects: Path
    process: subprocess.Popen[bytes]
    attempts: Path  # what it tried to reach on the network

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Kill it and start another on the same workspace."""
        self.kill()
        again = serve(self.projects)
        self.url, self.process = again.url, again.process


@dataclass
class Visit:
    """A browser page on the app."""

    page: Page
    app: App
    foreign: list[str] = field(default_factory=list)  # addresses asked for outside this machine

    def open(self, name: str = "", project: str = "political-promises", annotator: str = "anna") -> None:
        """Go to a page of the app and wait until it stands."""
        self.page.goto(f"{self.app.url}/{name}?project={project}&annotator={annotator}")
        expect(self.page.get_by_test_id("stSidebar")).to_be_attached()

    def utterance(self) -> str:
        """Return the text to label now, once the page can be answered."""
        expect(self.page.get_by_role("button", name="Skip")).to_be_visible()
        expect(self.page.locator(".st-key-keys button")).to_be_visible()  # what is drawn last
        return self.page.locator(".utterance").inner_text()

    def look(self, utterance_id: int) -> None:
        """Wait until this utterance is in hand and has been on screen long enough to be answered."""
        expect(self.page.locator(f"[data-asked='{utterance_id}']")).to_be_attached()
        self.page.wait_for_function("window.annotatorKeys")
        self.page.wait_for_timeout(A_LOOK)

    def rest(self) -> None:
        """Wait until the page has come to rest."""
        rest(self.page, QUIET)

    def press(self, key: str) -> None:
        """Press a key and wait until another utterance is there."""
        before = self.utterance()
        self.page.wait_for_timeout(A_LOOK)
        self.page.keyboard.press(key)
        expect(self.page.locator(".utterance")).not_to_have_text(before)


def rest(page: Page, quiet: int, limit: int = 60 * SECOND) -> None:
    """Wait until a page has come to rest and has not changed for so many milliseconds."""
    page.wait_for_function(AT_REST, arg=quiet, timeout=limit)


def click(target: Locator) -> None:
    """Click once nothing moves: parts loaded late shift a button between press and release, and the click is lost."""
    expect(target).to_be_visible()
    with suppress(TimeoutError):  # one that shows a running round is redrawn all the time, and moves no button
        rest(target.page, A_LOOK, 20 * SECOND)
    target.click()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def serve(projects: Path) -> App:
    """Start the app on a workspace and wait until it answers."""
    port, attempts = free_port(), projects / "attempts.log"
    offline = {"PYTHONPATH": str(ROOT / "tests" / "offline"), "ANNOTATOR_OFFLINE_LOG": str(attempts)}
    command = [sys.executable, "-m", "annotator.cli.main", "serve", "--port", str(port), "--projects", str(projects)]
    with (projects / "server.log").open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | offline, stdout=log, stderr=log, cwd=ROOT)
    if not answers(port):
        process.kill()
        process.wait()
        raise AssertionError((projects / "server.log").read_text())
    return App(f"http://127.0.0.1:{port}", projects, process, attempts)


def answers(port: int) -> bool:
    """Wait up to a minute for a server."""
    for _ in range(300):
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/_stcore/health", timeout=2).close()
            return True
        except OSError:
            time.sleep(0.2)
    return False


def need_chromium() -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium on the PATH: install the package chromium to run the browser tests")


@pytest.fixture(scope="package")
def context() -> Iterator[BrowserContext]:
    """A browser whose pages share a cache, because loading the framework's scripts takes longer than most tests."""
    need_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        yield browser.new_context()
        browser.close()


@pytest.fixture(scope="package")
def app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    need_chromium()
    running = serve(tmp_path_factory.mktemp("served"))
    yield running
    running.kill()


@pytest.fixture(params=[1280])
def visit(context: BrowserContext, app: App, request: pytest.FixtureRequest) -> Iterator[Visit]:
    page = context.new_page()
    page.set_viewport_size({"width": request.param, "height": 844})
    visit = Visit(page, app)

    def note(outgoing: object) -> None:
        address = str(outgoing.url)  # type: ignore[attr-defined]
        if not address.startswith((app.url, "data:", "blob:", app.url.replace("http", "ws"))):
            visit.foreign.append(address)

    page.on("request", note)
    yield visit
    page.close()


@pytest.fixture
def other(context: BrowserContext, app: App) -> Iterator[Visit]:
    """A second page in a window of its own: of a tab that is hidden, the browser runs timers once a minute."""
    assert context.browser
    page = context.browser.new_page()
    yield Visit(page, app)
    page.close()


@pytest.fixture
def folder(app: App, request: pytest.FixtureRequest) -> Path:
    return app.projects / str(request.node.name).replace("[", "-").replace("]", "")


@pytest.fixture
def talk(folder: Path) -> Iterator[Project]:
    """A sample project on the shared server in which no round starts by itself."""
    with create_sample("client_talk", folder) as project:
        project.config = replace(project.config, retrain_every=0)
        yield project


@pytest.fixture
def speeches(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """The first rows of a sample, in which a round with the starter backbone takes seconds."""
    first_rows("political_promises", 60, tmp_path)
    monkeypatch.setattr(samples, "DATA", tmp_path)
    with create_sample("political_promises", folder) as project:
        yield project
