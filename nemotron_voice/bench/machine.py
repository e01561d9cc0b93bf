"""The machine and the versions that figures belong to."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any, Final

import torch

from nemotron_voice import __version__
from nemotron_voice.errors import ConfigurationError
from nemotron_voice.model.int8_linear import WeightLimit, weight_limit
from nemotron_voice.model.kernels import kernels, sources

# What decides how fast matrix products are.
_INSTRUCTIONS: Final = (
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "amx_bf16",
    "amx_int8",
    "asimddp",
    "bf16",
    "i8mm",
    "sve",
)


def describe() -> dict[str, Any]:
    """Processor, memory, GPUs, versions; for every file of results."""
    cpu = _cpu()
    return {
        "cpu": cpu.get("model name") or platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": _instructions(cpu),
        "memory_gb": round(_memory_bytes() / 1e9, 1),
        "gpus": _gpus(),
        "os": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "torch": torch.__version__,
        "own_kernels": _own_kernels(),
        "int8_weights": _int8_weights(),
        "nemotron_voice": __version__,
    }


def summary(machine: dict[str, Any]) -> str:
    """In one line."""
    gpus = f", {', '.join(machine['gpus'])}" if machine["gpus"] else ""
    extras = [name for name in machine["instructions"] if name.startswith(("amx", "avx512_"))]
    instructions = f" ({', '.join(extras)})" if extras else ""
    ours = machine.get("own_kernels", [])  # older results say it otherwise, or say nothing of them
    if machine.get("fused_int8"):
        ours = ["fused.c"]
        ours += ["product.c"] if machine.get("int8_weights") == WeightLimit.PAIRS else []
    own = f" with {', '.join(ours[:-1])}{' and ' * (len(ours) > 1)}{ours[-1]}" if ours else ""
    return (
        f"{machine['cpu']}, {machine['cores']} cores{instructions}"
        f"{gpus}, {machine['memory_gb']:g} GB; torch {machine['torch']}, "
        f"nemotron-voice {machine['nemotron_voice']}{own}"
    )


def _own_kernels() -> list[str]:
    """Names of the sources of which something runs here."""
    if kernels() is None:
        return []
    names = [source.name for source in sources()]
    return [name for name in names if name != "product.c" or _int8_weights() == WeightLimit.PAIRS]


def _int8_weights() -> str | None:
    try:
        return weight_limit()
    except ConfigurationError:  # no int8 in this build of PyTorch
        return None


def _cpu() -> dict[str, str]:
    """The first processor of /proc/cpuinfo; empty where there is none."""
    path = Path("/proc/cpuinfo")
    if not path.is_file():
        return {}
    first = path.read_text(encoding="utf-8").split("\n\n", 1)[0]
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _instructions(cpu: dict[str, str]) -> list[str]:
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return [name for name in _INSTRUCTIONS if name in flags]


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _gpus() -> list[str]:
    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
