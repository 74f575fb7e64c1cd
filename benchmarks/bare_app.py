"""Lower bound for `benchmarks/label_latency.py`: the Label page's widgets in a bare app that stores nothing.

The sidebar has page links, two fields and a button. One fragment has an HTML block for the text, a button and an HTML
block for each label, seven more buttons, a checkbox, a text field and two lines of text. A key changes the text.
"""

import streamlit as st

MEANING = "The client speaks in favor of the change being discussed, by voicing a wish, ability, reason or need."


def advance() -> None:
    """Advance to the next text."""
    st.session_state["number"] = st.session_state.get("number", 0) + 1


@st.fragment
def panel() -> None:
    """Show a text and its buttons."""
    number = st.session_state.get("number", 0)
    st.html('<div class="status">So many of so many</div>')
    turns = "".join(f'<div class="turn">turn {number + i}</div>' for i in range(3))
    st.html(f'<div class="reading">{turns}<div class="utterance">Utterance number {number}.</div></div>')
    for key in ("1", "2", "3"):
        with st.container(horizontal=True):
            st.button(f"label {key}", key=f"label-{key}", shortcut=key, on_click=advance, width=230)
            with st.container(width="stretch"):
                st.html(f'<div class="bar">{number % 7}</div><div class="definition">{MEANING}</div>')
    with st.container(horizontal=True, vertical_alignment="center"):
        for key, name, icon in (("n", "None fits", None), ("s", "Skip", None), ("u", "Undo", ":material/undo:")):
            st.button(name, key=name, shortcut=key, on_click=advance, icon=icon)
        st.checkbox("Unsure", key="unsure", help="What it means.")
        st.button("Why?", key="why", type="tertiary", shortcut="w", help="What it means.")
    st.text_input("Comment", key="comment", max_chars=2000)
    st.html(f'<div class="quiet">Why this one: {number}.</div>')
    with st.container(horizontal=True):
        for name, shortcut in (("Examples", "e"), ("Conversation", "t"), ("Keys", None)):
            st.button(name, key=name, type="tertiary", shortcut=shortcut)


def page() -> None:
    """Show the sidebar and the panel."""
    with st.sidebar:
        st.selectbox("Project", ["bare"])
        st.text_input("Your name", "anna")
        st.button("Preferences", icon=":material/tune:")
    panel()


def nothing() -> None:
    """Serve as content of the other pages."""


st.set_page_config(layout="wide")
others = [st.Page(nothing, title=name, url_path=name) for name in ("search", "rounds", "insights", "data", "export")]
st.navigation([st.Page(page, title="label", default=True), *others]).run()
