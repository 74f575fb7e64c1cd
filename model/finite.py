"""Reject numbers that are infinite or undefined before anything is computed from them."""

from __future__ import annotations

from typing import Any, NoReturn

import numpy as np

from annotator.errors import Message, NotFinite


def check_finite(what: str, *values: Any) -> None:
    """Raise NotFinite unless all numbers and arrays are finite; None is ignored."""
    for value in values:
        if value is None or np.isfinite(np.asarray(value, dtype=np.float64)).all():
            continue
        raise NotFinite(
            Message("Some numbers are infinite or undefined ({what}), so they cannot be used.", what=what),
            "The previous round stays in use. Lower the learning rate or choose another backbone, then retrain.",
        )


def refuse_model(name: str) -> NoReturn:
    """Raise NotFinite: a backbone or its adapter computes numbers that are not finite."""
    raise NotFinite(
        Message("The backbone “{name}” computes numbers that are infinite or undefined.", name=name),
        "If it was trained, lower the learning rate. Otherwise its weights are damaged, or too large for the "
        "precision of this machine: choose another backbone.",
    )
