"""Which colour a label has: one of ten that stand out from both schemes' backgrounds (3:1), by its place.

A colour is only a help to the eye: name and key are always there too.
"""

COLOURS = (
    "#1f7fb8", "#b3661a", "#3f8f4a", "#b8478f", "#7b6fc4", "#a8801f", "#c0504d", "#3a8f8f", "#7d7d7d", "#8f6b4e",
)  # fmt: skip


def colour_at(position: int) -> str:
    """Return the colour of the label at a place of the codebook, counted from 0."""
    return COLOURS[position % len(COLOURS)]
