"""Exact log-likelihoods of all labels: packed rows, the trie search, hidden states, constrained text."""
