"""What the machine is: versions, memory, and the two ceilings that kernels are measured against."""

import json
import os
import platform
import subprocess
import sys
from importlib import metadata
from typing import Any

import psutil
import torch

from paperwalk.runs import write_atomically

PACKAGES = ("torch", "triton", "numpy", "scipy", "numba", "transformers", "tokenizers", "pandas", "liger-kernel")


def probe(megabytes: int = 4096, side: int = 8192) -> dict:
    """The machine in words and numbers; copies of `megabytes` and products of matrices (side, side) on its GPU."""
    found: dict[str, Any] = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": os.cpu_count(),
    }
    found |= {"memory_GB": round(psutil.virtual_memory().total / 1e9, 1), "packages": {}}
    for name in PACKAGES:
        try:
            found["packages"][name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found["packages"][name] = None
    if not torch.cuda.is_available():
        return found | {"gpu": None}
    properties = torch.cuda.get_device_properties(0)
    return found | {
        "gpu": properties.name,
        "driver": _driver(),
        "cuda": torch.version.cuda,
        "multiprocessors": properties.multi_processor_count,
        "gpu_memory_GB": round(properties.total_memory / 1e9, 1),
        "l2_MB": round(properties.L2_cache_size / 1e6, 1),
        "copy_TB_a_second": round(_copy(megabytes), 3),
        "bf16_TFLOP_a_second": round(_product(side, torch.bfloat16), 1),
        "float32_TFLOP_a_second": round(_product(side // 2, torch.float32), 1),
        "launches_a_second": round(_launches()),
    }


def _driver():
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"


def _seconds(work, times):
    """Median seconds of one call, by the device's clock."""
    taken = []
    for _ in range(times + 3):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        work()
        end.record()
        torch.cuda.synchronize()
        taken.append(start.elapsed_time(end) / 1000)
    return sorted(taken[3:])[times // 2]


def _copy(megabytes):
    source = torch.randint(256, (megabytes * 10**6,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return 2 * source.numel() / _seconds(lambda: target.copy_(source), 9) / 1e12


def _product(side, dtype):
    a, b = (torch.randn(side, side, device="cuda", dtype=dtype) for _ in range(2))
    return 2 * side**3 / _seconds(lambda: a @ b, 9) / 1e12


def _launches(number=2000):
    """Small operations that one Python thread hands to the device in a second."""
    x = torch.zeros(64, device="cuda")

    def many():
        for _ in range(number):
            x.add_(1)

    return number / _seconds(many, 3)


if __name__ == "__main__":
    write_atomically(sys.argv[1], json.dumps(probe(), indent=1) + "\n")
