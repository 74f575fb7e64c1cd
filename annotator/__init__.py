"""Annotator: experts label utterances, a language model learns from them and says what to ask next.

`loop.run_round` is the product in one function: read it first. `store` keeps every answer, `model` gives the
exact probability of every label, and this package is the only one that knows both. The command line is
`cli`, the app is `streamlit_app.py` with `pages`; both are thin.
"""

__version__ = "0.1.0"
