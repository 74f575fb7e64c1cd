"""Compute log-likelihoods of labels from logits.

log p(label | utterance) is the sum of the log-probabilities of the label's tokens under the model's full vocabulary,
in fp32.
"""

from __future__ import annotations

import numpy as np
import torch

from model.prompts.verbalizer import LabelTrie
from model.scoring.packing import Ints
from model.scoring.trie_search import Logs, edges_of


def label_loglik(logits: torch.Tensor, trie: LabelTrie) -> torch.Tensor:
    """Sum the log-probabilities along each label's path.

    `logits`: (n, nodes, vocabulary) at every trie node. Returns (n, labels) in fp32, whatever the model's
    precision: the sum loses nothing in fp32, but three digits in bf16.
    """
    logits = logits.float()
    nodes, chosen, paths = (torch.from_numpy(a) for a in (trie.edge_nodes, trie.edge_tokens, trie.paths))
    nodes, chosen, paths = nodes.to(logits.device), chosen.to(logits.device), paths.to(logits.device)
    edges = logits[:, nodes, chosen] - logits.logsumexp(dim=-1)[:, nodes]  # (n, edges)
    return edges @ paths.T


def edge_loglik(logits: torch.Tensor, nodes: Ints, trie: LabelTrie) -> Logs:
    """Return the log-probabilities of all edges of some nodes, from (nodes, vocabulary) logits at them."""
    place, edges = edges_of(nodes, trie)
    at = torch.from_numpy(place).to(logits.device)
    tokens = torch.from_numpy(trie.edge_tokens[edges]).to(logits.device)
    logits = logits.float()
    return (logits[at, tokens] - logits.logsumexp(dim=-1)[at]).double().cpu().numpy()


def path_loglik(roots: torch.Tensor, below: torch.Tensor, labels: Ints, trie: LabelTrie) -> torch.Tensor:
    """Sum the log-probabilities along the path of one label for each utterance.

    `roots`: (n, vocabulary) logits at the root; `below`: the same at the inner nodes of each label's
    path, one utterance after the other. Returns (n,) in fp32.
    """
    paths = [trie.inner_path(label) for label in labels]
    owners = np.concatenate([np.arange(len(labels)), np.repeat(np.arange(len(labels)), [len(p) for p in paths])])
    tokens = np.concatenate([trie.tokens_at(np.zeros(1, np.int64), label) for label in labels])
    tokens = np.concatenate([tokens, *(trie.tokens_at(p, label) for p, label in zip(paths, labels, strict=True))])
    logits = torch.cat([roots, below]).float()
    loglik = -torch.nn.functional.cross_entropy(logits, torch.from_numpy(tokens).to(logits.device), reduction="none")
    return loglik.new_zeros(len(labels)).index_add(0, torch.from_numpy(owners).to(loglik.device), loglik)
