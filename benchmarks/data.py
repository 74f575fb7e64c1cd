"""Labeled data sets for the benchmarks: public ones, and the two samples in this repository."""

import os
from dataclasses import replace
from pathlib import Path

from annotator.exchange.samples import SAMPLES
from annotator.simulation.oracle import Plan
from model.backbones.catalog import STARTER

DATA = Path(os.environ.get("ANNOTATOR_DATA", "../shared/data"))  # public data sets, see README.md
PUBLIC = {
    "trec": Plan(DATA / "trec" / "data.csv"),
    "snips": Plan(DATA / "snips" / "data.csv"),
    "banking77": Plan(DATA / "banking77" / "data.csv"),
    "goemotions": Plan(DATA / "goemotions" / "data.csv"),
    "annomi": Plan(DATA / "annomi" / "client_talk.csv", DATA / "annomi" / "utterances.csv"),
}
SETS = PUBLIC | {name: Plan(sample.data) for name, sample in SAMPLES.items()}


def existing(path: Path) -> Path:
    """Return a file's path if it exists; otherwise end the program with a hint."""
    if not path.is_file():
        raise SystemExit(f"{path} is missing. ANNOTATOR_DATA names the folder of the public data sets; see README.md.")
    return path


def plan_of(name: str, backbone: str = STARTER) -> Plan:
    """Return the simulation plan of a data set with a backbone."""
    plan = SETS[name]
    for path in filter(None, (plan.data, plan.context)):
        existing(path)
    return replace(plan, config=replace(plan.config, backbone=backbone))
