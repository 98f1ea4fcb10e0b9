"""Packages whose setup fetches a ready-made wheel of their project, once it is told not to look for a compiler."""

from __future__ import annotations

from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.facts import Facts
from workbench.doctor.tables import build_of
from workbench.doctor.versions import older

# The last flash-attn with wheels for a torch before the one named: as its releases list them. Those of 2.8 that are
# named after torch 2.6 were made with 2.7, and do not load (https://github.com/Dao-AILab/flash-attention/issues/1717).
_LAST_FLASH_ATTN = (("2.0", "2.5.8"), ("2.2", "2.6.3"), ("2.7", "2.7.4.post1"))


def without_nvcc(facts: Facts, package: str = "") -> tuple[str, ...]:
    """The command that installs `package`, or the one whose build failed, without nvcc; empty where there is none.

    The setup asks for nvcc before it looks for the wheel, so that a toolkit that is missing or too old stops it
    although nothing would be compiled.
    """
    failed = facts.error("build-failed")
    package = package or (failed.values.get("package", "") if failed else "")
    row = build_of(package) or {}
    if "skip_build" not in row or fixes.on_windows(facts) or facts.torch.build in ("cpu", "rocm", "xpu"):
        return ()
    asked = (failed.values.get("target") if failed else None) or ""
    target = (
        asked if asked.replace("_", "-").startswith(f"{package}==") else _with_a_wheel(package, facts.torch.version)
    )
    command = fixes.install(facts, target, options="--no-build-isolation --no-cache-dir")
    return (
        f"{row['skip_build']}=TRUE {command}   # the project's own wheel for this torch and Python, for which no nvcc "
        f"is needed; where there is none ({row['wheels']}), the import fails, and nvcc is needed after all:",
    )


def _with_a_wheel(package: str, torch: Optional[str]) -> str:
    last = next((release for bound, release in _LAST_FLASH_ATTN if older(torch, bound)), None)
    return f"{package}=={last}" if package == "flash-attn" and last else package


def ready_wheels(facts: Facts, row: Optional[dict[str, Any]]) -> str:
    """Where ready-made wheels of a package are, on Windows those that others make where the project makes none."""
    row = row or {}
    return str((row.get("windows_wheels") if fixes.on_windows(facts) else None) or row.get("wheels") or "")
