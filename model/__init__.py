"""The language model: it knows text and arrays, and nothing of projects or annotators.

Read `classifier.py` first: it says what the rest of this package amounts to for a caller. The modules that
need torch are imported only when `load_classifier` is called, so importing this package is cheap.
"""

from __future__ import annotations

from model.classifier import Adapter, Classifier, load_classifier
from model.task import Label, Task, Utterance

__all__ = ["Adapter", "Classifier", "Label", "Task", "Utterance", "load_classifier"]
