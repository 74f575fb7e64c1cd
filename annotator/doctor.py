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
from annotator.i18n import respell, say
from annotator.project import Project
from model.backbones.catalog import CATALOG, Entry, cache_folder, package_file, shape_of
from model.backbones.fingerprint import place_of
from model.backbones.memory import estimate, in_gb, least, may_be_quantized, way_out
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
    """Whether a round with a backbone fits into memory, as text; with a hint if it does not, or only just."""

    needs: str
    fits: bool
    hint: str = ""


def prospect(backbone: str, recipe: Recipe, free: int, width: int) -> Prospect:
    """Compare the memory that a round needs with the free bytes. `width`: bytes per weight that is not quantized.

    A backbone of unknown size is taken to fit, and so is one that fits only for short utterances.
    """
    shape = shape_of(backbone)
    if shape is None:
        return Prospect(say("memory needs are known once it is loaded"), True)
    whole, smallest = estimate(shape, recipe, width).total, least(shape, recipe, width)
    in_4bit = estimate(shape, replace(recipe, quantization="nf4"), width).total
    other = say(" ({size} in 4-bit)", size=respell(in_gb(in_4bit))) if may_be_quantized(recipe) else ""
    size, left = respell(in_gb(whole)), respell(in_gb(free))
    needs = say("needs about {size}{other}, {free} free", size=size, other=other, free=left)
    if whole <= free:
        return Prospect(needs, True)
    short = say("not enough for long utterances") if smallest <= free else say("not enough")
    return Prospect(f"{needs}: {short}", smallest <= free, way_out(shape, recipe, free, width))


def examine() -> list[Finding]:
    """Check the machine, the packages and the backbones."""
    return [*_machine(), *_packages(), *(_backbone(entry) for entry in CATALOG.values())]


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


def _backbone(entry: Entry) -> Finding:
    from model.backbones.machine import best_device, free_memory, preferred_dtype

    memory = prospect(entry.name, Recipe(), free_memory(), preferred_dtype(best_device()).itemsize)
    is_here, where = _whereabouts(entry)
    return Finding(f"{entry.name} ({entry.family})", memory.fits and is_here, f"{memory.needs}; {where}")


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
