"""The language model: it knows text and arrays, and nothing of projects or annotators.

Read `types.py` first: the protocols by which the rest of the product uses a model. `load.py` is the only door to
torch, so importing this package is cheap.
"""
