"""Query this machine's device, precision and memory. Imports torch only when a GPU is queried."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from model.backbones.memory import BF16, FP32, Machine

if TYPE_CHECKING:
    import torch


def best_device() -> torch.device:
    """Return the GPU if there is one, otherwise the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Return bf16 if the device computes it fast, otherwise fp32: fp16 overflows in T5."""
    import torch

    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_is_quick_at_bf16() else torch.float32


def processor_width() -> int:
    """Return the bytes of a number in the precision preferred on the CPU."""
    return BF16 if _cpu_is_quick_at_bf16() else FP32


def this_machine() -> Machine:
    """Return what this machine offers to a round. Imports torch only where there is a driver of a GPU."""
    if not may_have_gpu():
        return _processor()
    device = best_device()
    return Machine(free_memory(), device.type == "cuda", preferred_dtype(device).itemsize, can_load_4bit())


def machine_without_torch() -> Machine:
    """Return what this machine offers to a round, as the driver of its GPU and the system report it."""
    with suppress(OSError, ValueError, IndexError, subprocess.SubprocessError):
        done = subprocess.run(_QUERY, capture_output=True, text=True, timeout=5, check=True)
        free, capability = done.stdout.splitlines()[0].split(",")
        return Machine(int(free) * 2**20, True, BF16 if float(capability) >= _BF16_FROM else FP32)
    return _processor()


_QUERY = ("nvidia-smi", "--query-gpu=memory.free,compute_cap", "--format=csv,noheader,nounits")
_BF16_FROM = 8.0  # compute capability of NVIDIA's Ampere


def _processor() -> Machine:
    """Return what the processor offers. Where its features are not listed, one of Intel's or AMD's has AVX2."""
    flags = _processor_flags()
    has_avx2 = "avx2" in flags if flags else platform.machine() in ("x86_64", "AMD64")
    return Machine(free_main_memory(), False, processor_width(), has_avx2)


def _cpu_is_quick_at_bf16() -> bool:
    flags = _processor_flags()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def _processor_flags() -> str:
    with suppress(OSError):  # macOS and Windows have no such file, and fp32 works everywhere
        return Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    return ""


def attend_exactly() -> None:
    """Disable an attention kernel that is wrong for rare shapes on GPUs, for the whole process.

    On an H100 with torch 2.11 in fp32, 65 queries, 112 keys and one of our masks, the memory-efficient kernel
    computed a wrong value for the last query: one label in ten was off by 0.4 nats. The other kernels agreed with
    the CPU.
    """
    import torch

    torch.backends.cuda.enable_mem_efficient_sdp(False)


def can_load_4bit() -> bool:
    """Return whether bitsandbytes has kernels for this machine."""
    import torch

    return torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability().startswith("AVX")


def precision_name() -> str:
    """Return the precision in which backbones are loaded on this machine."""
    return str(preferred_dtype(best_device())).removeprefix("torch.")


def gpu_name() -> str | None:
    """Return the name and memory of the GPU; None if there is none."""
    import torch

    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.total_memory / 1e9:.0f} GB"


def may_have_gpu() -> bool:
    """Return, without torch, whether a GPU driver is installed; then main memory is not the limit."""
    return shutil.which("nvidia-smi") is not None


def free_memory() -> int:
    """Return the bytes available to a backbone: of the GPU if there is one, otherwise of main memory."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return free_main_memory()


def free_main_memory() -> int:
    """Return the bytes of main memory free for another process."""
    return int(psutil.virtual_memory().available)


def peak_memory() -> int:
    """Return this process's peak memory in bytes: on the GPU if it has been used, otherwise in main memory."""
    torch = sys.modules.get("torch")  # a process that has not imported it holds nothing on a GPU
    on_gpu = int(torch.cuda.max_memory_allocated()) if torch and torch.cuda.is_available() else 0
    return on_gpu or _peak_resident()


def _peak_resident() -> int:
    # On Linux, getrusage starts from the peak of the parent process.
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii")) if status.is_file() else None
    if found:
        return int(found[1]) * 1024
    if sys.platform == "win32":
        return int(psutil.Process().memory_info().peak_wset)
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024  # bytes on macOS, kB elsewhere
