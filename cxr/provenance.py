"""What a later reader needs to place a result: versions, device, code."""

import os
import platform
import subprocess
from typing import Any

import torch

from cxr.cli import ROOT
from cxr.runtime import Runtime


def provenance(run: Runtime) -> dict[str, Any]:
    """Plain values that a checkpoint and JSON can hold."""
    name = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else platform.processor()
    return {
        "torch": str(torch.__version__),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{run.device.type} {name}".strip(),
        "threads": torch.get_num_threads(),
        "bf16": run.bf16,
        "bf16_speedup": run.bf16_speedup,
        "processes": run.world_size,
        "commit": commit(),
    }


def commit() -> str | None:
    """The commit of the code, marked when code differs from it; None outside a git checkout or without git.

    A copy without ``.git`` that lies in another repository has none: git does not look above the root. The pictures
    that a run draws over those in ``images/`` do not count.
    """
    head = _git("rev-parse", "--short=12", "HEAD")
    return head and head + ("-dirty" if _git("diff", "--name-only", "HEAD", "--", "*.py") else "")


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None where it says nothing."""
    try:
        shown = subprocess.run(
            ["git", *arguments],
            cwd=ROOT,
            env={**os.environ, "GIT_CEILING_DIRECTORIES": str(ROOT.parent)},
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return shown.stdout.strip() or None
