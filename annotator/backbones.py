"""Describe the backbones of the catalog: size, license, languages, and what has to be done before the first use."""

from annotator.i18n import now, say
from model.backbones.catalog import Entry, Languages


def described(entry: Entry) -> str:
    """Return the size, the license and the languages of a backbone, with the note of the catalog, as one line."""
    parts = [size_of(entry), entry.license, languages_of(entry.languages)]
    if entry.multilingual:
        parts.append(say("recommended for texts that are not in English"))
    if entry.gated:
        parts.append(say("the hub asks for an account and for consent to the license"))
    if entry.note:
        parts.append(say(entry.note))
    return "; ".join(parts)


def size_of(entry: Entry) -> str:
    """Return the number of parameters in words."""
    if entry.millions < 1000:
        return say("{n} million parameters", n=entry.millions)
    return say("{n:.1f} billion parameters", n=entry.millions / 1000)


def languages_of(languages: Languages) -> str:
    """Return the names of the main languages in the current language, and how many others there are."""
    from babel import Locale  # slow to import, and not needed on most pages
    from babel.lists import format_list

    names = [str(Locale.parse(now()).languages[code]) for code in languages.main]
    others = languages.count - len(names)
    if others <= 0:
        return str(format_list(names, locale=now()))
    return say("{languages} and {n} more languages", languages=", ".join(names), n=others)
