"""`annotator plan`: how a round with a backbone would run on this machine, or on others."""

import re
from collections.abc import Sequence
from pathlib import Path

import click
from rich.table import Table

from annotator.cli.terminal import FOLDER, console
from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig, changed
from annotator.doctor import at_hand, prospect, sentence, settings_of
from annotator.project import Project
from annotator.rounds.planning import counted, estimated, sample_texts
from model.backbones.machine import processor_width, this_machine
from model.backbones.memory import BF16, Job, Machine, in_gb
from model.backbones.plan import LABELS, Plan, best_first

_TIMED = 64  # utterances that are trained on and scored to foretell the time
_GB = re.compile(r"(\d+(?:\.\d+)?)\s*(?:GB)?", re.IGNORECASE)


def _sizes(_: click.Context, __: click.Parameter, text: str | None) -> list[int]:
    """Parse `12GB` or `8,12,16` into bytes."""
    found = [_GB.fullmatch(part.strip()) for part in text.split(",")] if text else []
    if not all(found):
        raise click.BadParameter("write sizes as 12GB or 8,12,16")
    return [round(float(size[1]) * 1e9) for size in found if size]


@click.command()
@click.argument("project", type=FOLDER)
@click.option("--backbone", help="Catalog name, hub id or folder; default: that of the project.")
@click.option("--memory", callback=_sizes, help="Plan for GPUs with this memory, as in 12GB or 8,12,16,24,80.")
@click.option("--processor", is_flag=True, help="With --memory: plan for a processor with this much free memory.")
@click.option(
    "--probe/--no-probe", default=True, help="Train and score for some seconds to foretell the time of a round."
)
def plan(project: Path, backbone: str | None, memory: Sequence[int], processor: bool, probe: bool) -> None:
    """Show how a round would run: precision, 4-bit weights, checkpointing, rows, memory and time."""
    with Project.open(project) as opened:
        config = changed(opened.config, [f"backbone={backbone}"] if backbone else [])
        here = this_machine()
        width = processor_width() if processor else BF16
        machines = [Machine(size, not processor, width, here.four_bit or not processor) for size in memory] or [here]
        is_here = at_hand(config.backbone)
        jobs = [(counted if is_here else estimated)(opened, config, machine) for machine in machines]
        for job in jobs:
            found = prospect(config.backbone, job)
            minutes = _minutes(opened, config, job) if job and probe and is_here and not memory else None
            line = sentence(config.backbone, best_first(job)[0], minutes) if job and minutes else found.needs
            for text in filter(None, (line, found.notes, found.hint)):
                console.print(text, highlight=False)
        if len(jobs) == 1 and jobs[0]:
            console.print(_table(best_first(jobs[0])))
    if not is_here:
        console.print(f"Lengths are estimated and the time is unknown until {config.backbone} has been fetched.")


def _minutes(project: Project, config: RoundConfig, job: Job) -> float | None:
    """Return the minutes of a round, from training and scoring for some seconds; None if it does not fit."""
    from model.load import measure_pace

    best = best_first(job)[0]
    texts = sample_texts(project, config)[:_TIMED]
    if not best.may_fit or not texts:
        return None
    console.print("Training and scoring for some seconds to foretell the time …")
    pace = measure_pace(config.backbone, codebook_of(project).task(), best.recipe, config.template, texts)
    training = LABELS * config.recipe.epochs / pace.trained if config.recipe.probe_weight < 1 else 0.0
    return (training + job.lengths.count / pace.scored) / 60


def _table(plans: Sequence[Plan]) -> Table:
    """Return the best plan for each kind of weights and checkpointing, the fastest first, and why it was not chosen."""
    table = Table("settings", "memory", "time", "")
    for place, plan in enumerate(_one_of_each(plans)):
        reason = "chosen" if place == 0 else "slower"
        if not plan.same and plans[0].same:
            reason = "changes results"
        if not plan.fits:
            reason = "chosen: fits only just" if place == 0 and plan.may_fit else "too large"
        times = f"{plan.cost / plans[0].cost:.1f} ×"
        table.add_row(settings_of(plan), in_gb(plan.need), times, reason)
    return table


def _one_of_each(plans: Sequence[Plan]) -> list[Plan]:
    """Return the first plan of each combination of settings other than rows, which are compared within it."""
    kinds: dict[tuple[object, ...], Plan] = {}
    for plan in plans:
        recipe = plan.recipe
        kinds.setdefault((recipe.precision, recipe.quantization, recipe.checkpointing, recipe.optimizer), plan)
    return list(kinds.values())
