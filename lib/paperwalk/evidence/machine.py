"""What a result was measured with: processor or GPU, versions, memory, time, and the commit of the code."""

import json
import os
import platform
import re
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

PACKAGES = ("torch", "numpy", "scipy", "tokenizers", "transformers", "numba", "safetensors", "papermill", "rouge-score")


def machine() -> dict[str, Any]:
    """{"device", "cores", "python", "packages", "peak_memory_bytes"} of this process."""
    import psutil

    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return {
        "device": device_name(),
        "cores": psutil.cpu_count(),
        "python": platform.python_version(),
        "packages": versions,
        "peak_memory_bytes": _peak_memory(),
    }


def device_name() -> str:
    """Name of the GPU that this process uses, or of the processor."""
    import sys

    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.get_device_name()
    try:
        names = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        names = []
    return (names or [platform.processor() or platform.machine()])[0]


def _peak_memory():
    """Sum of the largest resident memory of this process and of its living children, in bytes."""
    import psutil

    total = 0
    for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
        try:
            peak = re.search(r"VmHWM:\s*(\d+)", Path(f"/proc/{process.pid}/status").read_text())
            total += int(peak[1]) * 1024 if peak else process.memory_info().rss
        except (OSError, psutil.Error):  # no /proc, or the process has ended meanwhile
            continue
    return total or psutil.Process().memory_info().rss


def commit(folder: Path) -> dict:
    """{"git_commit", "git_dirty"} of the repository that the folder lies in; PAPERWALK_COMMIT names those of a copy.

    Results files do not count: what an earlier run wrote leaves the tree as clean as it was.
    """
    if "PAPERWALK_COMMIT" in os.environ:
        return json.loads(os.environ["PAPERWALK_COMMIT"])

    def git(*arguments):
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else None

    try:
        changed = git("status", "--porcelain", "--", ":/", ":(top,exclude,glob)book/*/results/**")
        return {"git_commit": git("rev-parse", "HEAD") or "unknown", "git_dirty": changed != ""}
    except OSError:  # no git
        return {"git_commit": "unknown", "git_dirty": True}
