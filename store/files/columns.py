"""Name the imported columns of an export."""

from collections.abc import Iterable

PREFIX = "imported_"  # for imported columns with the name of one of our own


def imported_columns(names: Iterable[str], reserved: Iterable[str]) -> dict[str, str]:
    """Return a mapping from names of imported metadata columns to their names in an export.

    A name that one of our columns has, ignoring case, gets `PREFIX`, repeated until it is unique.
    """
    names, ours = list(names), {name.casefold() for name in reserved}
    free = {name: name for name in names if name.strip() and name.casefold() not in ours}
    used = ours | {name.casefold() for name in free}
    for name in names:
        if name not in free:
            other = PREFIX + name
            while other.casefold() in used:
                other = PREFIX + other
            free[name] = other
            used.add(other.casefold())
    return {name: free[name] for name in names}
