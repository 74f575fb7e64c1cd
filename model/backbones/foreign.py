"""Name the errors of foreign libraries."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType


class BareErrors(AbstractContextManager[None]):
    """Turn errors of the class `Exception` itself, as the tokenizer library raises, into ValueError.

    An except clause would catch all other kinds too.
    """

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Raise ValueError in place of a bare Exception."""
        if kind is Exception:
            raise ValueError(str(error)) from error
