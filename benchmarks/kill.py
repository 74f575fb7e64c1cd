"""Kill the app at random moments, again and again, and count what is lost.

    python -m benchmarks.kill [--times 30] [--seed 0]

A real server, a real browser that labels by keyboard as fast as the page allows, and SIGKILL to the server
(every second time also to the round it has started, at whatever stage that is). An answer counts as given once
the next utterance is on screen. The last line is one JSON object.
"""

import argparse
import json
import os
import random
import signal
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import Error, Page, expect, sync_playwright

from annotator.project import Project
from annotator.samples import create_sample
from annotator.worker import start_round
from store import annotations, jobs, rounds
from tests.browser.conftest import CHROMIUM, SECOND, SWITCHES, App, serve

NAME = "client-talk"


def label_until(page: Page, app: App, moment: float) -> int:
    """Answer until the moment has come, kill the server in the middle of it, return the answers seen through."""
    seen = 0
    page.goto(f"{app.url}/?project={NAME}&annotator=anna")
    expect(page.get_by_role("button", name="Skip")).to_be_visible(timeout=60 * SECOND)
    end = time.monotonic() + moment
    with suppress(Error):
        while time.monotonic() < end:
            before = page.locator(".utterance").inner_text()
            page.keyboard.press(str(1 + seen % 3))
            with suppress(AssertionError):  # not seen through: the key came before the page was ready for it
                expect(page.locator(".utterance")).not_to_have_text(before, timeout=2 * SECOND)
                seen += 1
    app.kill()
    return seen


def whole(project: Project) -> bool:
    """Say whether the round in use has everything a round has, and no other is half made."""
    promoted = rounds.promoted(project.db)
    running = [row for row in rounds.history(project.db) if row["state"] == "running"]
    if promoted is None:
        return not running
    adapter = project.folder / "adapters" / promoted["adapter"]
    predictions = rounds.predictions_of(project.db, promoted)
    return not running and adapter.is_dir() and len(predictions.utterance_ids) > 0 and promoted["metrics"] is not None


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    rng = random.Random(given.seed)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        workspace = Path(folder)
        with create_sample("client_talk", workspace / NAME) as project:
            small = replace(project.config.recipe, epochs=1)
            project.config = replace(project.config, retrain_every=0, recipe=small, score_limit=40)
        page = playwright.chromium.launch(executable_path=CHROMIUM, args=list(SWITCHES)).new_page()
        figures = run(page, workspace, given.times, rng)
    print(json.dumps(figures))


def run(page: Page, workspace: Path, times: int, rng: random.Random) -> dict[str, int]:
    """Kill so many times; count answers seen through, answers found, rounds killed and projects found broken."""
    shown = found = killed_rounds = broken = 0
    stages: dict[str, int] = {}
    for number in range(times):
        with Project.open(workspace / NAME) as project:
            before = annotations.last_id(project.db)
            if number % 2:
                start_round(project, "the benchmark")
        seen = label_until(page, serve(workspace), rng.uniform(0.5, 4.0) + (number % 2) * rng.uniform(0, 10))
        with Project.open(workspace / NAME) as project:
            job = jobs.active(project.db)
            if job and job["pid"]:
                stages[job["stage"]] = stages.get(job["stage"], 0) + 1
                os.kill(job["pid"], signal.SIGKILL)
                killed_rounds += 1
                time.sleep(0.3)
            project.recover()
            stored = annotations.last_id(project.db) - before
            integrity = project.db.execute("PRAGMA integrity_check").fetchone()[0]
            broken += not whole(project) or integrity != "ok"
            promoted = rounds.promoted(project.db)
        shown, found = shown + seen, found + min(seen, stored)
        print(
            f"{number + 1:3} seen through {seen:3}, stored {stored:3}, in use: round {promoted and promoted['number']}"
        )
    return {
        "kills": times,
        "answers_given": shown,
        "answers_lost": shown - found,
        "rounds_killed": killed_rounds,
        **{f"killed_at_{stage or 'start'}": count for stage, count in stages.items()},
        "projects_broken": broken,
    }


if __name__ == "__main__":
    main()
