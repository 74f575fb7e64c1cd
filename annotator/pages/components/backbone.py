"""What the catalog states of the chosen language model, and consent to its license where that is needed."""

import streamlit as st

from annotator.backbones import described
from annotator.i18n import say
from annotator.pages.components import layout
from model.backbones.catalog import CATALOG, Entry
from model.backbones.packages import accept, is_accepted


def about(name: str) -> None:
    """Show what a language model of the catalog is, and ask for consent to a license that nobody has accepted yet."""
    entry = CATALOG.get(name)
    if entry is None:
        return
    layout.html("quiet", described(entry))
    if entry.terms:
        _terms(entry)


def _terms(entry: Entry) -> None:
    link = f"[{layout.plain(entry.license)}]({entry.terms})"
    if is_accepted(entry):
        st.caption(say("The license was accepted: {license}.", license=link))
        return
    st.markdown(
        say("{license} apply. The model is fetched with the next round, once somebody has accepted them.", license=link)
    )
    st.checkbox(
        say("I have read and accept the {license}", license=entry.license),
        key=f"accept-{entry.name}",
        on_change=_accept,
        args=(entry.name,),
    )


@layout.guarded
def _accept(name: str) -> None:
    accept(CATALOG[name], layout.annotator())
