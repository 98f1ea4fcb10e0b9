"""Rules about the Hub and where models are kept: room, rights, network, licences."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import DiskFacts, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, seen
from workbench.text import format_bytes

LOW_DISK_BYTES = 5 * 2**30


def disk_full(facts: Facts) -> Result:
    """No room where models are kept."""
    error = facts.error("no-space")
    shared = facts.error("nccl-shared-memory")
    if error is not None and shared is not None and error.line == shared.line:
        error = None  # what is full is /dev/shm
    disks = [disk for disk in facts.platform.disks or () if disk.free_bytes is not None]
    if error is None and not disks:
        return None
    low = [disk for disk in disks if (disk.free_bytes or 0) < LOW_DISK_BYTES or disk.free_inodes == 0]
    if error is None and not low:
        return PASSED
    where = low[0] if low else None
    full = error is not None or any(disk.free_inodes == 0 or (disk.free_bytes or 0) < 2**28 for disk in low)
    return [
        Finding(
            "hf-cache-disk-full",
            "error" if full else "warning",
            "The disk is full"
            if full
            else f"Little room is left for models: {format_bytes(where.free_bytes or 0) if where else ''}",
            "Downloads and installs need room where the Hub cache and the temporary directory are.",
            {
                **evidence(
                    path=where.path if where else None,
                    free=format_bytes(where.free_bytes) if where and where.free_bytes is not None else None,
                    free_inodes=where.free_inodes if where else None,
                ),
                **seen(error),
            },
            (
                fixes.export(facts, "HF_HOME", r"D:\hf", "any disk with room; pip uses TEMP"),
                "hf cache prune",
            )
            if fixes.on_windows(facts)
            else ("export HF_HOME=/a/big/disk/hf   # and TMPDIR for pip", "hf cache prune", "df -h; df -i"),
            ISSUES + "huggingface/huggingface_hub/issues/2742",
            affects=("chat",),
            observed=True,
        )
    ]


def cache_unwritable(facts: Facts) -> Result:
    """The Hub cache cannot be written."""
    error = facts.error("cache-permission")
    known = [disk for disk in facts.platform.disks or () if disk.writable is not None]
    if error is None and not known:
        return None
    locked: list[DiskFacts] = [disk for disk in known if disk.writable is False]
    if error is None and not locked:
        return PASSED
    path = locked[0].path if locked else (error.values.get("path") if error else None) or "~/.cache/huggingface"
    return [
        Finding(
            "hf-home-unwritable",
            "error",
            f"{'The Hub cache' if not locked or locked[0].purpose == 'HF cache' else 'The temporary directory'} "
            "cannot be written",
            "Often a run with sudo or a container left files of root there, or the home directory is read-only.",
            {**evidence(path=path, owner=locked[0].owner if locked else None), **seen(error)},
            (fixes.export(facts, "HF_HOME", r"$HOME\hf", "a folder that you may write to"),)
            if fixes.on_windows(facts)
            else (
                *(
                    ("sudo chown -R $(id -u):$(id -g) ~/.cache/huggingface",)
                    if path and "nonexistent" not in path and "/" in path
                    else ()
                ),
                "export HF_HOME=/somewhere/writable/hf   # TIKTOKEN_CACHE_DIR, TORCH_HOME, XDG_CACHE_HOME for others",
                "In a container: give its user a home, or mount a volume there that belongs to the user's id (chown "
                "<uid> on the host, or docker run --user).",
            ),
            ISSUES + "huggingface/transformers/issues/13472",
            affects=("chat",),
            observed=True,
        )
    ]


def offline(facts: Facts) -> Result:
    """The Hub cannot be reached, or must not be."""
    error = facts.error("hf-offline")
    names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _true(facts.environment.get(name))]
    if error is None and not names:
        return PASSED
    mirror = facts.environment.get("HF_ENDPOINT")
    fix = tuple(fixes.unset(facts, name) for name in names) or ("Check the network, and the proxy in HTTPS_PROXY.",)
    return [
        Finding(
            "hf-offline",
            "error" if error else "info",
            f"{' and '.join(names)} keep{'s' if len(names) == 1 else ''} the Hub out"
            if names
            else "The Hugging Face Hub is not reached",
            "Only what is already in the cache can be loaded.",
            {**{name: facts.environment[name] for name in names}, **evidence(HF_ENDPOINT=mirror), **seen(error)},
            (
                *fix,
                *((fixes.unset(facts, "HF_ENDPOINT"),) if mirror and error else ()),
                "or fetch it on a machine with network: hf download <model>",
            ),
            ISSUES + "huggingface/huggingface_hub/issues/4487",
            affects=("chat",),
            observed=error is not None,
        )
    ]


def _true(value: Optional[str]) -> bool:
    # The spellings that huggingface_hub takes for true (its constants.py).
    return (value or "").strip().upper() in ("1", "ON", "YES", "TRUE")


def gated(facts: Facts) -> Result:
    """A model that wants its licence accepted."""
    return from_message(
        facts,
        ("hf-gated",),
        lambda error: Finding(
            "hf-gated-model",
            "error",
            "The Hub refuses access to this model: it is gated or private",
            "This is about permission, not about the environment.",
            seen(error),
            (
                "Accept the licence on the model's page, and wait where its owner has to agree",
                "hf auth login   # with a token that may read gated repositories; in a container: -e HF_TOKEN",
            ),
            "https://huggingface.co/docs/hub/models-gated",
            affects=("chat",),
            observed=True,
        ),
    )


RULES: tuple[Rule, ...] = (
    disk_full,
    cache_unwritable,
    offline,
    gated,
)
