"""Annotator: label utterances with a language model that learns as you go.

`loop.run_round` is the product in one function; read it first. `store` knows rows, `model` knows text and arrays, and
this package knows the domain. The names below are the Python face (docs/python.md); each is imported when it is first
used, so that importing a submodule imports nothing else.
"""

from importlib import import_module

__version__ = "0.1.0"

_HOMES = {
    "Project": "annotator.project",
    "RoundConfig": "annotator.config",
    "AnnotatorError": "annotator.errors",
    "create_project": "annotator.codebook.definition",
    "codebook_of": "annotator.codebook.definition",
    "read_codebook": "annotator.codebook.definition",
    "parse_codebook": "annotator.codebook.definition",
    "import_file": "annotator.exchange.imports",
    "add_utterances": "annotator.exchange.imports",
    "export_project": "annotator.exchange.export",
    "ExportPlan": "annotator.exchange.export",
    "create_sample": "annotator.exchange.samples",
    "next_question": "annotator.labeling.session",
    "answer": "annotator.labeling.session",
    "Answer": "annotator.labeling.session",
    "follow_up": "annotator.labeling.after_answer",
    "plan": "annotator.rounds.planning",
    "run_round": "annotator.loop",
    "Labeler": "annotator.rounds.prediction",
    "simulate": "annotator.simulation.oracle",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
