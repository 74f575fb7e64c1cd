"""Check what this machine can run, without loading a model; `prospect` does so without importing torch."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import psutil

from annotator.errors import NoProject, ProjectError
from annotator.i18n import respell, say, say_many
from annotator.project import Project
from model.backbones.catalog import CATALOG, SHAPES, STARTER, Entry, cache_folder, package_file
from model.backbones.fingerprint import place_of
from model.backbones.machine import this_machine
from model.backbones.memory import BF16, Job, in_gb
from model.backbones.plan import LABELS, Plan, best_first, rank_catalog, way_out
from model.recipe import Recipe
from store import rounds
from store.health import problems


@dataclass(frozen=True)
class Finding:
    """The result of one check: what was checked, whether it passed, and the reason."""

    subject: str
    can: bool
    reason: str


@dataclass(frozen=True)
class Prospect:
    """How a round with a backbone runs on a machine, as text; with notes and a hint if it fits only just, or not."""

    needs: str
    fits: bool
    hint: str = ""
    notes: str = ""


def prospect(backbone: str, job: Job | None) -> Prospect:
    """Plan a round. A backbone of unknown size is taken to fit."""
    if job is None:
        return Prospect(say("memory needs are known once it is loaded"), True)
    plans = best_first(job)
    best, free = plans[0], respell(in_gb(job.machine.free))
    if not best.may_fit:
        return Prospect(
            say("needs at least {size}, {free} free", size=respell(in_gb(best.need)), free=free), False, way_out(job)
        )
    line = sentence(backbone, best)
    if not best.fits:
        return Prospect(line, True, way_out(job), say("Memory suffices only just."))
    exact = [plan for plan in plans if plan.same]
    if best.same or not exact:
        return Prospect(line, True)
    least = respell(in_gb(min(plan.need for plan in exact)))
    return Prospect(
        line, True, "", say("This changes results slightly; without it, a round needs at least {size}.", size=least)
    )


def sentence(backbone: str, plan: Plan, minutes: float | None = None) -> str:
    """Return a plan in one line: its settings, its memory, and the time of a round if it is known."""
    need, free = in_gb(plan.need).removesuffix(" GB"), in_gb(plan.job.machine.free)
    made = {
        "backbone": backbone, "settings": settings_of(plan), "need": respell(need), "free": respell(free),
    }  # fmt: skip
    if minutes is None:
        return say("{backbone}: {settings}; {need} of {free}", **made)
    return say(
        "{backbone}: {settings}; {need} of {free}; a round of {n} labels takes about {time}",
        n=LABELS, time=_duration(minutes), **made,
    )  # fmt: skip


def in_words(recipe: Recipe, precision: str) -> list[str]:
    """Return the settings that a plan chooses in words: weights, checkpointing, rows, optimizer."""
    optimizers = {
        "adamw_8bit": say("8-bit optimizer"),
        "paged_adamw": say("paged optimizer"),
        "paged_adamw_8bit": say("paged 8-bit optimizer"),
    }
    parts = (
        say("4-bit") if recipe.quantization == "nf4" else precision,
        say("checkpointing") if recipe.checkpointing else "",
        say("rows of {n}", n=recipe.row_tokens),
        optimizers.get(recipe.optimizer, ""),
    )
    return [part for part in parts if part]


def settings_of(plan: Plan) -> str:
    """Return the settings of a plan in words."""
    return ", ".join(in_words(plan.recipe, "bf16" if plan.job.width == BF16 else "fp32"))


def _duration(minutes: float) -> str:
    if minutes < _LONG:
        return say_many("{n} minute", "{n} minutes", max(1, round(minutes)))
    return say_many("{n} hour", "{n} hours", round(minutes / 60))


_LONG = 90  # minutes, from which a time is given in hours


def examine() -> list[Finding]:
    """Check the machine, the packages and the backbones."""
    return [*_machine(), *_packages(), *_backbones()]


def problems_of(folder: Path) -> list[str]:
    """Return the problems of a project's files; empty if there are none. Raises NoProject."""
    try:
        with Project.open(folder) as project:
            found = problems(project.db)
            in_use = rounds.promoted(project.db)
    except NoProject:
        raise
    except ProjectError as error:
        return [error.message]
    if in_use and not (adapter := folder / "adapters" / in_use.folder).is_dir():
        found.append(f"the adapter of the round in use is missing: {adapter}")
    return found


def _machine() -> list[Finding]:
    memory, disk = psutil.virtual_memory(), shutil.disk_usage(_existing(cache_folder()))
    enough_disk = disk.free > 2e9
    return [
        Finding("Python", sys.version_info >= (3, 11), platform.python_version()),
        Finding("processor", True, f"{os.cpu_count()} cores, {platform.machine()}; {_precision()}"),
        Finding("memory", memory.available > 2e9, f"{memory.available / 1e9:.1f} GB free of {memory.total / 1e9:.1f}"),
        Finding("disk", enough_disk, f"{disk.free / 1e9:.0f} GB free in the backbone cache ({cache_folder()})"),
        _gpu(),
        _four_bit(),
    ]


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())


def _precision() -> str:
    from model.backbones.machine import precision_name

    return f"backbones are loaded in {precision_name()}"


def _gpu() -> Finding:
    from model.backbones.machine import gpu_name

    name = gpu_name()
    missing = "no CUDA device found, or a CPU build of torch; training runs on the processor"
    return Finding("GPU", name is not None, name or missing)


def _four_bit() -> Finding:
    from model.backbones.machine import can_load_4bit

    can = can_load_4bit()
    return Finding("4-bit (QLoRA)", can, "bitsandbytes NF4" if can else "needs a CUDA GPU or an x86-64 with AVX2")


def _packages() -> list[Finding]:
    findings = []
    for package in ("torch", "transformers", "peft", "bitsandbytes", "datasets", "sqlite-utils", "streamlit"):
        try:
            findings.append(Finding(package, True, version(package)))
        except PackageNotFoundError:
            findings.append(Finding(package, False, "not installed; run `make install`"))
    return findings


def _backbones() -> list[Finding]:
    """Plan a round with each backbone of the catalog, those that suit this machine best first."""
    job = Job(SHAPES[STARTER], machine=this_machine())
    plans = rank_catalog(job)
    base = next(plan.operations for name, plan in plans if name == STARTER)
    return [_backbone(CATALOG[name], replace(job, shape=SHAPES[name]), plan.operations / base) for name, plan in plans]


def _backbone(entry: Entry, job: Job, times: float) -> Finding:
    found, (is_here, where) = prospect(entry.name, job), _whereabouts(entry)
    time = f"; {times:.1f} times as long as the starter" if found.fits and entry.name != STARTER else ""
    return Finding(f"{entry.name} ({entry.family})", found.fits and is_here, f"{found.needs}{time}; {where}")


def at_hand(backbone: str) -> bool:
    """Return whether the weights of a backbone are on this machine: a catalog name, a folder or a hub id."""
    entry = CATALOG.get(backbone)
    return _whereabouts(entry)[0] if entry else Path(backbone).is_dir() or _in_hub_cache(backbone.partition("@")[0])


def _whereabouts(entry: Entry) -> tuple[bool, str]:
    """Return whether the weights are on this machine, and where they come from."""
    if entry.parts:
        is_here = place_of(entry.name, "") is not None
        terms = f"not here; `annotator fetch {entry.name}` shows its license ({entry.license})"
        return is_here, f"fetched; {entry.license}" if is_here else terms
    if entry.package:
        found = package_file(entry) is not None
        return found, entry.note if found else f"{entry.package} is not installed; `make install`"
    if _in_hub_cache(entry.source):
        return True, f"downloaded; {entry.license}"
    terms = ", ".join(filter(None, (entry.license, "gated" * entry.gated, entry.note)))
    return False, f"not downloaded; will be fetched from the hub on first use ({terms})"


def _in_hub_cache(hub_id: str) -> bool:
    if find_spec("huggingface_hub") is None:
        return False
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(hub_id, "config.json"), str)
