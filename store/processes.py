"""Processes that work on a project, identified by pid and start time: a pid is reused, a start time is not."""

import os

import psutil


def this_process() -> tuple[int, float]:
    """Return the pid of this process and when it was started, in seconds since 1970."""
    return os.getpid(), psutil.Process().create_time()


def find_process(pid: int, started: float) -> psutil.Process | None:
    """Return the process with this pid and start time, None if it has ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 1
        return process if same and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
