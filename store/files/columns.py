"""Names of the columns that an export takes over from imported files."""

from collections.abc import Iterable

PREFIX = "imported_"  # before the name of an imported column that one of ours has taken


def imported_columns(names: Iterable[str], taken: Iterable[str]) -> dict[str, str]:
    """Name the columns of what was imported without a meaning for us: its name in the file -> its name in an export.

    A name that one of our columns has, upper and lower case aside, gets `PREFIX` in front, as often as it takes.
    """
    names, ours = list(names), {name.casefold() for name in taken}
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
