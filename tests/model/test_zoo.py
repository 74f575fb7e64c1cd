"""Every architecture that writes text is equal to plain transformers, or refused with a reason and a hint."""

from __future__ import annotations

from pathlib import Path

import pytest
from transformers.models.auto import modeling_auto

from tests.model import zoo, zoo_check


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in zoo.SHARE else [pytest.mark.soak]) for n in zoo.names()]
)
def test_an_architecture_is_equal_to_plain_transformers_or_refused(name: str, tmp_path: Path) -> None:
    found = zoo_check.examine(name, zoo.save(name, tmp_path))
    assert not found.wrong, found
    assert found.equal or (found.refused and found.hint), found
    assert bool(found.refused) == (name in zoo.REFUSED), found


def test_every_architecture_that_transformers_knows_is_in_the_zoo_or_missing_for_a_reason() -> None:
    known = {
        *modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        *modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    }
    assert known <= {*zoo.names(), *zoo.ABSENT}
    assert set(zoo.SHARE) <= set(zoo.names())
    assert set(zoo.names()) >= zoo.REFUSED
    assert len(set(zoo.names()) - zoo.REFUSED) >= 45


def test_a_difference_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plainly = zoo_check.plainly
    monkeypatch.setattr(zoo_check, "plainly", lambda *given: plainly(*given) + 1e-3)
    found = zoo_check.examine("llama", zoo.save("llama", tmp_path))
    assert found.wrong == "other numbers than plain transformers"
