"""The language model. This package handles text and arrays, not projects or annotators.

Read `types.py` first: it defines the protocols through which the rest of the product uses a model. Only `load.py`
leads to torch, so importing this package is cheap.
"""
