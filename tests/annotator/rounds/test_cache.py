"""Test that results are cached by key, also when sessions use the cache at the same time."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from annotator.rounds.cache import FEW, Cache, cache_key
from tests.annotator.scenes import change, label_pool, new_project


def test_it_is_found_once_for_the_same_grounds_and_anew_for_others():
    latest: Cache[list[str]] = Cache()
    first = latest.get("a", lambda: ["first"])
    assert latest.get("a", lambda: ["again"]) is first
    assert latest.get("b", lambda: ["other"]) == ["other"]
    assert latest.get("a", lambda: ["anew"]) == ["anew"], "one is kept"


def test_nothing_found_is_a_finding_too():
    latest: Cache[None] = Cache()
    asked: list[int] = []
    for _ in range(2):
        assert latest.get("a", lambda: asked.append(1)) is None
    assert len(asked) == 1


def test_sessions_that_ask_at_once_each_get_their_own():
    latest: Cache[int] = Cache()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda i: latest.get(i % 4, lambda: i % 4), range(2_000)))
    assert found == [i % 4 for i in range(2_000)]


def test_a_few_answers_change_no_grounds_and_many_do(tmp_path):
    with new_project(tmp_path / "p", 60) as project:
        change(project, retrain_every=0)
        assert cache_key(project, FEW) == cache_key(project, 2 * FEW - 1) != cache_key(project, 2 * FEW)
        label_pool(project, 3)
        assert cache_key(project, FEW) == cache_key(project, FEW)
