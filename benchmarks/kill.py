"""Kill the app repeatedly while answers are given and while a round runs, and count lost answers and broken projects.

    python -m benchmarks.kill [--quick | --tiny] [--times 30] [--seed 0]

Uses a real server, a real browser that labels by keyboard, the starter backbone, and SIGKILL. Every second time only
the server is killed, at a random moment once the page accepts answers; the other times the server and the round are
killed, a random time after the round has reached a stage. The stages take turns. Each time starts with a project that
has answers and a promoted round. Afterward, that round or the new one must be in use and complete. An answer counts as
given once the next utterance is on screen. The last line is one JSON object.
"""

import os
import random
import shutil
import signal
import tempfile
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Error, Page, expect, sync_playwright

from annotator.codebook.definition import codebook_of
from annotator.exchange.samples import create_sample
from annotator.labeling.session import Answer, answer, next_question
from annotator.project import Project
from annotator.rounds.lifecycle import recover
from annotator.rounds.worker import start_round
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from store import annotations, jobs, rounds
from tests.browser.conftest import A_LOOK, CHROMIUM, SECOND, SWITCHES, App, serve

COMMAND = Command(
    __doc__,
    full={"times": 30, "seed": 0, "backbone": STARTER},
    quick={"times": 6, **RANDOM_WEIGHTS},
    tiny={"times": 2, **RANDOM_WEIGHTS},
    figures=("kills", "answers_given", "answers_lost", "projects_broken"),
)
NAME = "client-talk"
ANSWERS = 24  # given before the first kill: enough to train on
STAGES = {
    "load": 5.0,
    "learn": 8.0,
    "save": 0.1,
    "score": 2.0,
    "calibrate": 0.02,
    "promote": 0.05,
}  # seconds within each


def prepare(folder: Path, backbone: str) -> None:
    """Create a project with answers and a round in use."""
    with create_sample("client_talk", folder) as project:
        small = replace(project.config.recipe, epochs=1)
        project.config = replace(project.config, retrain_every=0, recipe=small, score_limit=40, backbone=backbone)
        labels = codebook_of(project).ids
        for number in range(ANSWERS):
            question = next_question(project, "anna")
            assert question is not None
            answer(project, question, "anna", Answer("label", labels[number % len(labels)]))
        start_round(project, "the benchmark")
        while jobs.active(project.db):
            time.sleep(0.5)
        assert rounds.promoted(project.db), (folder / "worker.log").read_text()


def kill_round(folder: Path, stage: str, delay: float) -> str:
    """Kill the round `delay` seconds after it reaches a stage; return the stage it was in, or “over”."""
    with Project.open(folder) as project:
        reached = False
        while (job := jobs.active(project.db)) and not reached:
            reached = job.stage == stage
            time.sleep(0.002)  # the round needs the processor
        time.sleep(delay)
        job = jobs.active(project.db)
        if job is None or job.pid is None:
            return "over"
        os.kill(job.pid, signal.SIGKILL)
        return job.stage


def label_until(page: Page, app: App, ready: threading.Event, over: threading.Event) -> int:
    """Answer until the server has been killed; return how many answers were completed."""
    seen = 0
    with suppress(Error, AssertionError):
        page.goto(f"{app.url}/?project={NAME}&annotator=anna")
        expect(page.get_by_role("button", name="Skip")).to_be_visible(timeout=60 * SECOND)
        ready.set()
        while not over.is_set():
            before = page.locator(".utterance").inner_text()
            page.wait_for_timeout(A_LOOK)
            page.keyboard.press(str(1 + seen % 3))
            with suppress(AssertionError):  # not completed: the key came before the page was ready
                expect(page.locator(".utterance")).not_to_have_text(before, timeout=2 * SECOND)
                seen += 1
    return seen


def whole(project: Project, before: int) -> bool:
    """Return whether a round numbered `before` or later is in use and complete, and no round is unfinished."""
    promoted = rounds.promoted(project.db)
    running = [row for row in rounds.history(project.db) if row.state == "running"]
    if promoted is None or promoted.number < before or running:
        return False
    adapter = project.adapters / promoted.folder
    predictions = rounds.predictions_of(project.db, promoted)
    sound = project.db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"
    return sound and adapter.is_dir() and len(predictions.utterance_ids) > 0 and bool(promoted.metrics)


def run_once(page: Page, workspace: Path, stage: str | None, rng: random.Random) -> dict[str, int]:
    """Label, kill and reopen; count completed and lost answers, and whether the project is broken."""
    folder = workspace / NAME
    with Project.open(folder) as project:
        stored, promoted = annotations.last_id(project.db), rounds.promoted(project.db)
        assert promoted is not None
        if stage:
            start_round(project, "the benchmark")
    app, ready, over, killed = serve(workspace), threading.Event(), threading.Event(), ""

    def strike() -> None:
        nonlocal killed
        if stage:
            killed = kill_round(folder, stage, rng.uniform(0, STAGES[stage]))
        else:
            ready.wait(60)
            time.sleep(rng.uniform(1, 10))
        app.kill()
        over.set()

    killer = threading.Thread(target=strike)
    killer.start()
    seen = label_until(page, app, ready, over)
    killer.join()
    time.sleep(0.2)  # until the killed process is gone
    with Project.open(folder) as project:
        recover(project)
        stored = annotations.last_id(project.db) - stored
        broken = not whole(project, promoted.number)
    counts = {"kills": 1, "answers_given": seen, "answers_lost": max(0, seen - stored), "projects_broken": int(broken)}
    return counts | ({f"killed_at_{killed}": 1} if killed else {})


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    rng = random.Random(given.seed)
    total: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as temporary, sync_playwright() as playwright:
        template = Path(temporary) / "template"
        prepare(template, given.backbone)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES))
        for number in range(given.times):
            workspace = Path(temporary) / str(number)
            shutil.copytree(template, workspace / NAME)
            stage = list(STAGES)[number // 2 % len(STAGES)] if number % 2 else None
            page = browser.new_page()
            counts = run_once(page, workspace, stage, rng)
            page.close()
            total.update(counts)
            print(f"{number + 1:3} {counts}", flush=True)
    print_last(total)


if __name__ == "__main__":
    main()
