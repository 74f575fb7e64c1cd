"""In which language people are told things: English stands in the code where it is read, a catalogue has the rest.

A translation is one file, `locale/<code>.po`, in the manner of gettext. What is told is looked up when it is shown, so
tables that are made at import mark what they hold with `later`. Wherever nobody has chosen, which is everywhere but in
the app, English is spoken: rows, files and the command line say the same whoever reads them.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from numbers import Number
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

ENGLISH = "en"
FOLDER = Path(__file__).with_name("locale")
CODES = (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.po")))


def _choice() -> str:
    return ENGLISH


def follow(choice: Callable[[], str]) -> None:
    """Ask `choice` from now on which language to speak. The app does: it differs from one visit to the next."""
    global _choice
    _choice = choice


def best(wished: str | None) -> str:
    """Return the language there is for what a browser asks for, as in “de-AT”; English where there is none."""
    code = (wished or "").replace("_", "-").partition("-")[0].lower()
    return code if code in CODES else ENGLISH


def named(code: str) -> str:
    """Return what a language calls itself."""
    from babel import Locale

    name = str(Locale.parse(code).display_name)
    return name[0].upper() + name[1:]


def now() -> str:
    """Return the code of the language that is spoken."""
    return _choice()


def later(text: str) -> str:
    """Mark a text that is translated when it is shown."""
    return text


def say(text: str, sense: str = "", /, **values: object) -> str:
    """Translate a text, then write the values into it. `sense` tells apart what English has one word for."""
    spoken = _spoken(_choice())
    if spoken is None or not text:
        return text.format(**values) if values else text
    said = spoken.pgettext(sense, text) if sense else spoken.gettext(text)
    return spoken.writer.vformat(said, (), values) if values else said


def say_many(one: str, many: str, n: float, /, **values: object) -> str:
    """Translate a text that counts something, in the form that goes with `n`, and write `n` and the values into it."""
    spoken = _spoken(_choice())
    if spoken is None:
        return (one if n == 1 else many).format(n=n, **values)
    return spoken.writer.vformat(spoken.ngettext(one, many, int(n)), (), {"n": n, **values})


def number(value: float, form: str) -> str:
    """Write a number that stands by itself, with the signs of the language."""
    spoken = _spoken(_choice())
    return format(value, form) if spoken is None else spoken.writer.format_field(value, form)


def respell(figure: str) -> str:
    """Write a figure that was written elsewhere, as in “4.7 GB”, with the signs of the language."""
    spoken = _spoken(_choice())
    return figure if spoken is None else figure.translate(spoken.writer.table)


class Signs(NamedTuple):
    """With which signs a language writes numbers."""

    decimal: str = "."
    group: str = ","
    percent: str = "%"


def signs() -> Signs:
    """Return the signs of the language, for what writes numbers by itself."""
    spoken = _spoken(_choice())
    return Signs() if spoken is None else spoken.writer.signs


def tell_stored(text: str) -> str:
    """Translate what was said elsewhere, in English: an error, or what another process left in a row.

    The catalogue has such sentences with numbered places, as in “There is no file {0}.”; what stands in these places is
    kept. A sentence it does not have stays English.
    """
    spoken = _spoken(_choice())
    if spoken is None or not text:
        return text
    if (said := spoken.gettext(text)) != text:
        return said
    for pattern, said in spoken.retold:
        if found := pattern.fullmatch(text):
            return said.format(*found.groups())
    return text


class _Writer(Formatter):
    """Writes numbers with the signs of a language."""

    def __init__(self, code: str) -> None:
        from babel import Locale

        locale = Locale.parse(code)
        symbols, percent = locale.number_symbols["latn"], locale.percent_formats[None].suffix[0]
        self.signs = Signs(symbols["decimal"], symbols["group"], percent)
        self.table = str.maketrans(dict(zip(Signs(), self.signs, strict=True)))

    def format_field(self, value: Any, format_spec: str) -> str:
        """Write one value; a number with the signs of the language where it is given a form."""
        written = str(super().format_field(value, format_spec))
        return written.translate(self.table) if format_spec and isinstance(value, Number) else written


class _Spoken(NamedTuple):
    """A language as it is spoken: how texts, plurals and numbers are said in it."""

    gettext: Callable[[str], str]
    pgettext: Callable[[str, str], str]
    ngettext: Callable[[str, str, int], str]
    writer: _Writer
    retold: tuple[tuple[re.Pattern[str], str], ...]


@lru_cache
def _spoken(code: str) -> _Spoken | None:
    """Read a catalogue; None for English, which has none."""
    if code == ENGLISH:
        return None
    from gettext import GNUTranslations

    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with (FOLDER / f"{code}.po").open("rb") as file:
        catalogue = read_po(file, code)
    compiled = BytesIO()
    write_mo(compiled, catalogue)
    compiled.seek(0)
    known = GNUTranslations(compiled)
    numbered = [(str(one.id), str(one.string)) for one in catalogue if isinstance(one.id, str) and "{0}" in one.id]
    longest_first = sorted(numbered, key=lambda pair: -len(pair[0]))
    retold = tuple((_pattern(english), said) for english, said in longest_first)
    return _Spoken(known.gettext, known.pgettext, known.ngettext, _Writer(code), retold)


def _pattern(english: str) -> re.Pattern[str]:
    """Make an expression that finds what stands in the numbered places of a sentence."""
    return re.compile(re.sub(r"\\\{\d+\\\}", "(.+?)", re.escape(english)), re.DOTALL)
