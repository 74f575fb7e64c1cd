"""Plan the rounds of a project: which settings fit into the memory of this machine."""

from dataclasses import replace

from annotator.codebook.definition import codebook_of
from annotator.config import RoundConfig, changed
from annotator.project import Project
from annotator.rounds.snapshot import read_texts
from model.backbones.catalog import shape_of
from model.backbones.fingerprint import pinned
from model.backbones.machine import this_machine
from model.backbones.memory import Job, Machine
from model.backbones.plan import FREE, Plan, best_first, choose
from model.prompts.lengths import estimate_tokens
from model.types import Utterance
from store import rounds, utterances

_LONGEST, _OTHERS = 64, 400  # utterances whose lengths are measured
_AMPLE = 2  # times the estimated need: enough to skip the tokenizer


def plan(project: Project, backbone: str = "", machine: Machine | None = None) -> Plan | None:
    """Return how the next round will run, or would with another backbone or on another machine.

    Returns None for an architecture whose memory is unknown. Raises BackboneRefused if nothing fits, and
    BackboneMissing if the backbone's configuration is not on this machine and cannot be fetched.
    """
    config = changed(project.config, [f"backbone={backbone}"] if backbone else [])
    job = counted(project, config, machine or this_machine())
    return choose(config.backbone, job) if job else None


def planned(project: Project, config: RoundConfig) -> RoundConfig:
    """Return settings with those that fit this machine in place of the free ones of the recipe.

    Raises BackboneRefused and BackboneMissing, as `plan`.
    """
    machine = this_machine()
    job = estimated(project, config, machine)
    first = best_first(job)[0] if job else None
    if first and first.recipe == config.recipe and _AMPLE * first.need <= machine.free:
        return config
    job = counted(project, config, machine)
    return with_plan(config, choose(config.backbone, job)) if job else config


def with_plan(config: RoundConfig, chosen: Plan) -> RoundConfig:
    """Return settings with the free ones of the recipe as in a plan."""
    free = {name: getattr(chosen.recipe, name) for name in FREE}
    return replace(config, recipe=replace(config.recipe, **free))


def counted(project: Project, config: RoundConfig, machine: Machine) -> Job | None:
    """Return the round to plan, with lengths in tokens of the backbone; None for an unknown architecture.

    Raises BackboneMissing and BackboneRefused.
    """
    from model.load import measure_texts

    backbone = pinned(config.backbone, rounds.revision_of(project.db, config.backbone))
    task, texts = codebook_of(project).task(), sample_texts(project, config)
    shape, lengths = measure_texts(backbone, task, config.recipe, config.template, texts)
    lengths = replace(lengths, count=_scored(project, config))
    return Job(shape, config.recipe, machine, lengths) if shape else None


def estimated(project: Project, config: RoundConfig, machine: Machine) -> Job | None:
    """Return the same without the backbone's tokenizer; None if its shape is unknown until it is fetched."""
    shape, task = shape_of(config.backbone), codebook_of(project).task()
    if shape is None:
        return None
    lengths = estimate_tokens(task, config.template, config.recipe.max_tokens, sample_texts(project, config))
    return Job(shape, config.recipe, machine, replace(lengths, count=_scored(project, config)))


def sample_texts(project: Project, config: RoundConfig) -> list[Utterance]:
    """Return the longest utterances and some of the others, as the model reads them."""
    return read_texts(project, utterances.representative(project.db, _LONGEST, _OTHERS), config.context_turns)


def _scored(project: Project, config: RoundConfig) -> int:
    counts = utterances.count_slices(project.db)
    return counts["audit"] + min(counts["pool"], config.score_limit)
