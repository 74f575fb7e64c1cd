"""What this machine offers a language model: device, precision, memory."""

from __future__ import annotations

from pathlib import Path

import psutil
import torch


def best_device() -> torch.device:
    """Choose the GPU if there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def preferred_dtype(device: torch.device) -> torch.dtype:
    """Choose bf16 where the processor is quick at it, fp32 elsewhere: fp16 overflows in T5."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float32
    return torch.bfloat16 if _cpu_is_quick_at_bf16() else torch.float32


def _cpu_is_quick_at_bf16() -> bool:
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="ignore")
    except OSError:  # not Linux; Apple and Windows give no such list, and fp32 is right everywhere
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags


def can_load_4bit() -> bool:
    """Say whether bitsandbytes has kernels for this machine."""
    return torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability().startswith("AVX")


def precision_name() -> str:
    """Name the precision a backbone is loaded in here."""
    return str(preferred_dtype(best_device())).removeprefix("torch.")


def gpu_name() -> str | None:
    """Name the GPU and its memory; None if there is none."""
    if not torch.cuda.is_available():
        return None
    device = torch.cuda.get_device_properties(0)
    return f"{device.name}, {device.total_memory / 1e9:.0f} GB"


def free_memory_gb() -> float:
    """Return the memory free for a backbone, the GPU's if there is one."""
    if torch.cuda.is_available():
        return float(torch.cuda.mem_get_info()[0] / 1e9)
    return float(psutil.virtual_memory().available / 1e9)
