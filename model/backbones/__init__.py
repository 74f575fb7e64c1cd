"""Pretrained language models: the catalog, what fits this machine, and loading."""
