"""The floor of `benchmarks/label_latency.py`: the label page's widgets in a bare app that stores nothing.

One HTML block for what is read, a button and an HTML block a label, three more buttons, a checkbox, a text field and
a line of text, three more buttons, in one fragment; a key changes the text.
"""

import streamlit as st

st.set_page_config(layout="wide")
with st.sidebar:
    st.selectbox("Project", ["bare"])
    st.text_input("Your name", "anna")


def advance() -> None:
    """Go to the next text."""
    st.session_state["number"] = st.session_state.get("number", 0) + 1


@st.fragment
def panel() -> None:
    """Show a text and its buttons."""
    number = st.session_state.get("number", 0)
    st.html('<div class="status">So many of so many</div>')
    turns = "".join(f'<div class="turn">turn {number + i}</div>' for i in range(3))
    st.html(f'<div class="reading">{turns}<div class="utterance">Utterance number {number}.</div></div>')
    for key in ("1", "2", "3"):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.button(f"label {key}", key=f"label-{key}", shortcut=key, on_click=advance, width=230)
            with st.container(width="stretch"):
                st.html(f'<div class="definition">What label {key} means, {number}.</div>')
    with st.container(horizontal=True, vertical_alignment="center"):
        for key, name in (("n", "None fits"), ("s", "Skip"), ("u", "Undo")):
            st.button(name, key=name, shortcut=key, on_click=advance)
        st.checkbox("Unsure", key="unsure")
        st.button("Why?", key="why", type="tertiary")
    st.text_input("Comment", key="comment")
    st.html(f'<div class="quiet">Why this one: {number}.</div>')
    with st.container(horizontal=True):
        for name in ("Examples", "Conversation", "Keys"):
            st.button(name, key=name, type="tertiary")


panel()
