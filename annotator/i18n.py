"""Translate the texts of the app: the code has the English ones, a catalog per language the translations.

A catalog is a gettext file, `locale/<code>.po`. Texts are translated when they are shown; texts in constants are marked
with `later`. Only the app sets a language. Everywhere else the language is English, so rows, files and the output of
the command line do not depend on it.
"""

from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from numbers import Number
from pathlib import Path
from string import Formatter
from typing import Any, NamedTuple

from annotator.errors import Message

ENGLISH = "en"
FOLDER = Path(__file__).with_name("locale")
CODES = (ENGLISH, *sorted(path.stem for path in FOLDER.glob("*.po")))


def _choice() -> str:
    return ENGLISH


def follow(choice: Callable[[], str]) -> None:
    """Set the function that returns the code of the current language. The app's differs from session to session."""
    global _choice
    _choice = choice


def best(requested: str | None) -> str:
    """Return the code of the available language for a browser's, such as “de-AT”; English if there is none."""
    code = (requested or "").replace("_", "-").partition("-")[0].lower()
    return code if code in CODES else ENGLISH


def named(code: str) -> str:
    """Return a language's name in that language."""
    from babel import Locale

    name = str(Locale.parse(code).display_name)
    return name[0].upper() + name[1:]


def now() -> str:
    """Return the code of the current language."""
    return _choice()


def later(text: str) -> str:
    """Return a text as it is, marked for the catalog; `say` translates it when it is shown."""
    return text


def say(text: str, sense: str = "", /, **values: object) -> str:
    """Translate a text and format it with the values. `sense` distinguishes meanings that share one English text."""
    catalog = _catalog(_choice())
    if catalog is None or not text:
        return text.format(**values) if values else text
    translated = catalog.pgettext(sense, text) if sense else catalog.gettext(text)
    return catalog.writer.vformat(translated, (), values) if values else translated


def say_many(one: str, many: str, n: float, /, **values: object) -> str:
    """Translate a text in the plural form for `n`, and format it with `n` and the values."""
    catalog = _catalog(_choice())
    if catalog is None:
        return (one if n == 1 else many).format(n=n, **values)
    return catalog.writer.vformat(catalog.ngettext(one, many, int(n)), (), {"n": n, **values})


def number(value: float, form: str) -> str:
    """Format a number by itself, with the signs of the language."""
    catalog = _catalog(_choice())
    return format(value, form) if catalog is None else catalog.writer.format_field(value, form)


def respell(figure: str) -> str:
    """Replace the signs in a formatted number, such as “4.7 GB”, with those of the language."""
    catalog = _catalog(_choice())
    return figure if catalog is None else figure.translate(catalog.writer.table)


class Signs(NamedTuple):
    """The signs of a language in numbers."""

    decimal: str = "."
    group: str = ","
    percent: str = "%"


def signs() -> Signs:
    """Return the signs of the current language, for libraries that format numbers themselves."""
    catalog = _catalog(_choice())
    return Signs() if catalog is None else catalog.writer.signs


def translate(text: str) -> str:
    """Translate a message of an error or of a row, values included; English where the catalog lacks it."""
    catalog, message = _catalog(_choice()), Message.of(text)
    if catalog is None or not text:
        return str(text)
    values = {name: translate(value) if isinstance(value, Message) else value for name, value in message.values.items()}
    found = catalog.gettext(message.id)
    return catalog.writer.vformat(found, (), values) if values else found


class _Writer(Formatter):
    """Formatter that uses the signs of a language in numbers."""

    def __init__(self, code: str) -> None:
        from babel import Locale

        locale = Locale.parse(code)
        symbols, percent = locale.number_symbols["latn"], locale.percent_formats[None].suffix[0]
        self.signs = Signs(symbols["decimal"], symbols["group"], percent)
        self.table = str.maketrans(dict(zip(Signs(), self.signs, strict=True)))

    def format_field(self, value: Any, format_spec: str) -> str:
        """Format one value; a number with a format specification gets the signs of the language."""
        written = str(super().format_field(value, format_spec))
        return written.translate(self.table) if format_spec and isinstance(value, Number) else written


class _Catalog(NamedTuple):
    """A loaded catalog with the functions that translate texts, plurals and numbers."""

    gettext: Callable[[str], str]
    pgettext: Callable[[str, str], str]
    ngettext: Callable[[str, str, int], str]
    writer: _Writer


@lru_cache
def _catalog(code: str) -> _Catalog | None:
    """Load a catalog; None for English, which has none."""
    if code == ENGLISH:
        return None
    from gettext import GNUTranslations

    from babel.messages.mofile import write_mo
    from babel.messages.pofile import read_po

    with (FOLDER / f"{code}.po").open("rb") as file:
        catalog = read_po(file, code)
    compiled = BytesIO()
    write_mo(compiled, catalog)
    compiled.seek(0)
    known = GNUTranslations(compiled)
    return _Catalog(known.gettext, known.pgettext, known.ngettext, _Writer(code))
