"""Entry point of the app: declare the pages, run the chosen one, and serve the app behind the access gate."""

import gc

import streamlit as st
from starlette.middleware import Middleware

from annotator import gate
from annotator.errors import BadInput
from annotator.i18n import say
from annotator.pages import codebook, data, export, insights, label, review, rounds, search
from annotator.pages.components import browser, layout, pending


@st.cache_resource
def freeze_imports() -> None:
    """Exclude imported modules from garbage collection, once per process.

    Streamlit collects after every run, before the browser has received all of it. Scanning every module each time
    would take longer than the rest of the work for a key press.
    """
    gc.collect()
    gc.freeze()


def main() -> None:
    """Run the app once, as Streamlit does for every interaction."""
    freeze_imports()
    st.set_page_config(page_title="Annotator", page_icon=layout.ICON, layout="wide")
    names = layout.prepare_visit()
    pages = [
        st.Page(label.show, title=say("Label", "page"), icon=":material/edit_note:", url_path="label", default=True),
        st.Page(search.show, title=say("Search", "page"), icon=":material/search:", url_path="search"),
        st.Page(review.show, title=say("Review", "page"), icon=":material/rate_review:", url_path="review"),
        st.Page(codebook.show, title=say("Codebook"), icon=":material/menu_book:", url_path="codebook"),
        st.Page(rounds.show, title=say("Rounds"), icon=":material/model_training:", url_path="rounds"),
        st.Page(insights.show, title=say("Insights"), icon=":material/monitoring:", url_path="insights"),
        st.Page(data.show, title=say("Data"), icon=":material/database:", url_path="data"),
        st.Page(export.show, title=say("Export"), icon=":material/download:", url_path="export"),
    ]
    chosen = st.navigation(pages)
    browser.style()
    with layout.errors_shown():
        pending.show()
        layout.sidebar(names)
        layout.show_last_error()
        chosen.run()


def refuse_open_address() -> None:
    """Exit before serving if other machines could reach the server and this was not requested."""
    try:
        gate.refuse_open_address(st.get_option("server.address"), gate.exposed())
    except BadInput as error:
        raise SystemExit(str(error)) from error


if __name__ == "__main__":
    main()
else:  # imported by the server: `streamlit run` finds `app` in this file and serves it
    refuse_open_address()
    app = st.App(__file__, middleware=[Middleware(gate.Gate)], on_script_error=layout.show_unexpected)
