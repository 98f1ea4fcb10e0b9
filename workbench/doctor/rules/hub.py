"""Rules about the Hub and where models are kept: room, rights, network, licences."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import DiskFacts, ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, from_message, seen
from workbench.doctor.rules.ollama import setting
from workbench.text import format_bytes

LOW_DISK_BYTES = 5 * 2**30


def disk_full(facts: Facts) -> Result:
    """No room where models are kept."""
    error = facts.error("no-space")
    shared = facts.error("nccl-shared-memory")
    if error is not None and ((shared is not None and error.line == shared.line) or in_shared_memory(error)):
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
            _what_is_full(facts, error)
            if full
            else f"Little room is left for models: {format_bytes(where.free_bytes or 0) if where else ''}",
            "Downloads, installs and the tables that datasets keeps of each map() need room where the cache and the "
            "temporary directory are, below the home directory unless told otherwise.",
            {
                **evidence(
                    path=where.path if where else None,
                    free=format_bytes(where.free_bytes) if where and where.free_bytes is not None else None,
                    free_inodes=where.free_inodes if where else None,
                ),
                **seen(error),
            },
            _room(facts, error),
            ISSUES + "huggingface/huggingface_hub/issues/2742",
            affects=("chat",),
            observed=True,
        )
    ]


def in_shared_memory(error: Optional[ErrorFact]) -> bool:
    """Whether the room that ran out is /dev/shm's: multiprocessing puts its arrays there."""
    return error is not None and bool(error.values.get("shared")) and not error.values.get("pip")


def _what_is_full(facts: Facts, error: Optional[ErrorFact]) -> str:
    told = error.values if error is not None else {}
    in_memory = facts.error("tmpfs-told")
    if in_memory is not None and not told.get("saves"):
        where = next((path for path in in_memory.values.values() if path), "the temporary directory")
        return f"{where} is full: it lies in main memory (tmpfs), and is small"
    return "Docker's disk is full" if told.get("image") else "The disk is full"


def _room(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """Room where it ran out, as far as the frames above the error tell what was being written."""
    told = error.values if error is not None else {}
    if facts.platform.service in _IN_NOTEBOOKS and not told.get("saves"):
        return _IN_NOTEBOOKS[facts.platform.service]
    if told.get("image"):
        return _room_for_images(facts)
    if error is not None and ".ollama" in error.text:
        return (
            *setting(facts, "OLLAMA_MODELS", "/a/big/disk/ollama"),
            "ollama list; ollama rm <model that is not needed>",
        )
    if told.get("pip") or facts.error("tmpfs-told"):
        return _room_for_pip(facts)
    if error is not None and re.search(r"\bld: |collect2|\bcc1|fatal error: |\bas: ", error.text):
        return _room_for_build()
    return _room_for_checkpoints(facts) if told.get("saves") else _room_for_models(facts)


def _room_for_images(facts: Facts) -> tuple[str, ...]:
    """Layers, images and the cache of builds lie where the daemon keeps them, whatever room the other disks have."""
    on_desktop = fixes.on_windows(facts) or facts.platform.system == "Darwin" or facts.error("docker-desktop")
    return (
        "docker system df; docker system prune -a   # what takes the room, and away with unused images, containers and "
        "the cache of builds",
        "Docker Desktop: Settings, Resources, Advanced: Disk image location, Virtual disk limit: more; Apply"
        if on_desktop
        else 'df -h /var/lib/docker   # no other room? /etc/docker/daemon.json: {"data-root": "/a/big/disk/docker"}, '
        "then sudo systemctl restart docker",
        "On GitHub's runners first: sudo rm -rf /usr/share/dotnet /usr/local/lib/android /opt/ghc /opt/hostedtoolcache",
        "In a Dockerfile: RUN pip install --no-cache-dir …, and nothing that COPY doubles: COPY --from takes what it "
        "copies once more",
    )


def _room_for_build() -> tuple[str, ...]:
    return (
        "Build in a folder on a disk with room, with TMPDIR there too: export TMPDIR=/a/big/disk/tmp   # df -h: "
        "which has it",
        "or make room: du -xh --max-depth=2 ~ | sort -h | tail; docker system prune; python -m pip cache purge",
    )


def _room_for_checkpoints(facts: Facts) -> tuple[str, ...]:
    """A training run keeps all its checkpoints unless told otherwise, each with an optimizer twice the model's size."""
    sizes = "dir /s <output_dir>" if fixes.on_windows(facts) else "du -sh <output_dir>/*; df -h"
    return (
        f"Delete the older folders checkpoint-<step> in the output folder   # {sizes}: what they take, and which "
        f"disk "
        "has room",
        "save_total_limit=1 in TrainingArguments (save_only_model=True leaves the optimizer out), then "
        "resume_from_checkpoint=True; or output_dir on a disk with room",
    )


# https://www.kaggle.com/docs/notebooks#technical-specifications: 20 GB are kept, and as much besides for a session.
_IN_NOTEBOOKS = {
    "kaggle": (
        'import os; os.environ["HF_HOME"] = "/kaggle/tmp/hf"   # before the first import; /kaggle/working holds 20 GB, '
        "and has to hold the results alone",
        "!du -xh --max-depth=2 /kaggle/working /root /tmp | sort -h | tail   # what takes the room",
    ),
    "colab": (
        "Runtime, Disconnect and delete runtime: the next one starts with an empty disk, and one with a GPU has a "
        "larger one; the room on Drive does not count",
        "or delete what is not needed: !du -xh --max-depth=2 /content /root /tmp | sort -h | tail",
    ),
}


def _room_for_models(facts: Facts) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        return (fixes.export(facts, "HF_HOME", r"D:\hf", "any disk with room; pip uses TEMP"), "hf cache prune")
    if facts.error("modelscope-told"):
        return (
            "export MODELSCOPE_CACHE=/a/big/disk/modelscope   # df -h: which has room; swift keeps there what it makes "
            "of data sets, and models",
            "export HF_HOME=/a/big/disk/hf   # for what comes by way of datasets and the Hub",
            "du -xh --max-depth=2 ~/.cache | sort -h | tail   # what takes the room: delete what is not needed",
        )
    return (
        "export HF_HOME=/a/big/disk/hf   # df -h: which has room; datasets' map() too; TMPDIR: pip; what goes "
        "elsewhere (--local-dir, output_dir) to that disk as well",
        "hf cache prune   # or: hf cache rm, for models that are no longer needed",
        "df -i   # room, and still full? then the number of files is",
    )


def _room_for_pip(facts: Facts) -> tuple[str, ...]:
    """pip unpacks into the temporary directory, which on many systems is a small disk, or main memory."""
    if fixes.on_windows(facts):
        return (
            "mkdir D:\\tmp; $env:TEMP = 'D:\\tmp'; $env:TMP = 'D:\\tmp'   # any disk with 10 GB of room; then the "
            "same command again, in this window",
            "python -m pip cache purge",
            "or the environment itself on that disk: python -m venv D:\\envs\\models",
        )
    return (
        "mkdir -p ~/tmp && export TMPDIR=~/tmp   # then the same command again: torch with CUDA takes 8 GB, and /tmp "
        "is often small",
        "python -m pip cache purge",
        "df -h; df -i   # which disk is full; in Docker: docker system prune",
    )


def cache_unwritable(facts: Facts) -> Result:
    """The Hub cache cannot be written."""
    error = facts.error("cache-permission")
    known = [disk for disk in facts.platform.disks or () if disk.writable is not None]
    if error is None and not known:
        return None
    locked: list[DiskFacts] = [disk for disk in known if disk.writable is False]
    if error is None and not locked:
        return PASSED
    told = error.values.get("path") if error else None
    path: str = (locked[0].path if locked else told) or "~/.cache/huggingface"
    return [
        Finding(
            "hf-home-unwritable",
            "error",
            f"{_what_is_locked(path, locked)} cannot be written",
            "Often a run with sudo or a container left files of root there, or the home directory is read-only.",
            {**evidence(path=path, owner=locked[0].owner if locked else None), **seen(error)},
            (fixes.export(facts, "HF_HOME", r"$HOME\hf", "a folder that you may write to"),)
            if fixes.on_windows(facts)
            else _for_a_group(facts, path)
            if facts.error("cache-shared-told")
            else _writable(facts, error, path),
            ISSUES + "huggingface/transformers/issues/13472",
            affects=("chat",),
            observed=True,
        )
    ]


def _for_a_group(facts: Facts, path: str) -> tuple[str, ...]:
    """What lets several users write to one cache: new files belong to the group, and the group may write."""
    top = re.match(r"(/[\w./-]{2,120}?)/(?:hub|data|datasets|models--[\w.-]+)(?:/|$)", path)
    told = facts.environment.get("HF_HOME", "")
    shared = told if re.fullmatch(r"/[\w./-]{2,120}", told) else "<the shared folder>"
    folder = top[1] if top else shared
    return (
        f"sudo chgrp -R <group> {folder} && sudo chmod -R g+rwX {folder} && sudo find {folder} -type d -exec "
        f"chmod g+s "
        "{} +   # once; all users belong to that group",
        "umask 002   # in each user's shell or service, before Python starts: what it downloads all may then write",
        f"or, whatever the umask: sudo setfacl -R -m g:<group>:rwX -d -m g:<group>:rwX {folder}",
        "or one user downloads, and the others read: export HF_HUB_OFFLINE=1",
    )


_PLACES = (
    ("triton", "TRITON_CACHE_DIR", "Triton's cache of compiled kernels"),
    ("torchinductor", "TORCHINDUCTOR_CACHE_DIR", "The cache of torch.compile"),
    ("torch_extensions", "TORCH_EXTENSIONS_DIR", "The folder of torch's compiled extensions"),
    ("modelscope", "MODELSCOPE_CACHE", "ModelScope's cache"),
    ("matplotlib", "MPLCONFIGDIR", "Matplotlib's folder"),
    ("nltk", "NLTK_DATA", "NLTK's folder"),
    ("tiktoken", "TIKTOKEN_CACHE_DIR", "tiktoken's cache"),
    ("numba", "NUMBA_CACHE_DIR", "Numba's cache"),
    ("torch/", "TORCH_HOME", "The cache of torch.hub"),
    ("huggingface", "HF_HOME", "The Hub cache"),
    ("hub", "HF_HOME", "The Hub cache"),
)


def _place(path: str) -> Optional[tuple[str, str]]:
    return next(((variable, name) for mark, variable, name in _PLACES if mark in path.lower()), None)


def _what_is_locked(path: str, locked: list[DiskFacts]) -> str:
    if locked and locked[0].purpose != "HF cache":
        return "The temporary directory"
    place = _place(path)
    return place[1] if place else "The Hub cache" if locked or "cache" not in path else "A cache"


def _writable(facts: Facts, error: Optional[ErrorFact], path: str) -> tuple[str, ...]:
    """The cache given to who runs here, or another one: the first of them that this user can do."""
    place = _place(path)
    own = re.match(r"~|/(?:home|Users|data/home|users)/", path) is not None
    read_only = error is not None and re.search(r"read.only file system", error.text, re.IGNORECASE) is not None
    variable = place[0] if place else "HF_HOME"
    folder = "~/hf" if own and not read_only and variable == "HF_HOME" else f"/tmp/{_short(variable)}-$(id -u)"
    note = "a folder of this user's own" if variable != "HF_HOME" else _OTHERS if place is None else _ANY_DISK
    other = f"export {variable}={folder}   # {note}"
    chown = f"sudo chown -R $(id -u):$(id -g) {_folder(path)}"
    known = "/" in path and "nonexistent" not in path and not read_only
    container = (
        "In a container: give its user a home, or mount a volume there that belongs to the user's id (chown <uid> on "
        "the host, or docker run --user)."
    )
    # In a container or on a cluster nobody may; and where there is no home, a cache of its own is missed anyway.
    if known and own and not facts.platform.container and facts.platform.service != "slurm":
        return (chown, f"or: {other}", container)
    return (other, *((f"or: {chown}",) if known else ()), container)


_ANY_DISK = "or a folder on any disk with room that this user may write to; docker run: -e HF_HOME=…"
_OTHERS = "and XDG_CACHE_HOME, TRITON_CACHE_DIR, TORCH_HOME for others"


def _short(variable: str) -> str:
    return "hf" if variable == "HF_HOME" else variable.lower()


def _folder(path: str) -> str:
    """The folder to be given to the user: the cache itself, not one file in it."""
    found = re.match(r"(.*?/(?:\.?cache/huggingface|huggingface|\.triton|triton|\.cache|modelscope))(?=/|$)", path)
    folder = found[1] if found else "~/.cache/huggingface"
    return folder if re.fullmatch(r"[\w./~-]+", folder) else "~/.cache/huggingface"


def offline(facts: Facts) -> Result:
    """The Hub cannot be reached, or must not be."""
    error = facts.error("hf-offline")
    names = [name for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE") if _true(facts.environment.get(name))]
    if error is None and not names:
        return PASSED
    mirror = facts.environment.get("HF_ENDPOINT")
    forbidden = not names and error is not None and _FORBIDDEN.search(error.text) is not None
    return [
        Finding(
            "hf-offline",
            "error" if error else "info",
            f"{' and '.join(names)} keep{'s' if len(names) == 1 else ''} the Hub out"
            if names
            else "The Hub is kept out by a setting: HF_HUB_OFFLINE, or local_files_only in the program"
            if forbidden
            else "The Hugging Face Hub is not reached",
            "Only what is already in the cache can be loaded.",
            {**{name: facts.environment[name] for name in names}, **evidence(HF_ENDPOINT=mirror), **seen(error)},
            (
                *(fixes.unset(facts, name) for name in names),
                *((fixes.unset(facts, "HF_ENDPOINT"),) if mirror and error else ()),
                *(_allow(facts) if forbidden else () if names else _ways_to_the_hub(facts, mirror)),
                *_without_network(facts, error),
            ),
            ISSUES + "huggingface/huggingface_hub/issues/4487",
            affects=("chat",),
            observed=error is not None,
        )
    ]


# What the Hub's library says where it is told not to ask, in place of what it says where it gets no answer.
_FORBIDDEN = re.compile(
    r"outgoing traffic has been disabled|OfflineModeIsEnabled|offline mode is enabled", re.IGNORECASE
)


def _allow(facts: Facts) -> tuple[str, ...]:
    where = "in a container or service: where its environment is set; then start the program again"
    return (
        fixes.unset(facts, "HF_HUB_OFFLINE", where),
        "Meant to be offline? Then HF_HOME (or HF_HUB_CACHE) must be the cache that holds the model.",
    )


def _ways_to_the_hub(facts: Facts, mirror: Optional[str]) -> tuple[str, ...]:
    """What opens a way to the Hub where a network closes it."""
    proxy = fixes.export(facts, "HTTPS_PROXY", "http://<proxy>:<port>", "behind a proxy or VPN, in this very shell")
    if mirror:
        return (proxy,)
    blocked = "where huggingface.co itself is blocked: this mirror, before Python starts"
    if facts.platform.container:
        return (
            "docker run -v ~/.cache/huggingface:/root/.cache/huggingface -e HF_HUB_OFFLINE=1 …   # with what the host "
            "has fetched: hf download <model>; other users than root have their home elsewhere",
            "docker run -e HTTPS_PROXY=http://<proxy>:<port> …, or -e HF_ENDPOINT=https://hf-mirror.com …   # where "
            "the host itself needs one; what its shell sets a container does not see",
        )
    return (fixes.export(facts, "HF_ENDPOINT", "https://hf-mirror.com", blocked), f"or: {proxy}")


def _without_network(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """How the files come to a machine that has no network, and how a program is given them."""
    name = error.values.get("name") if error else None
    model = name if name and re.fullmatch(r"[\w.-]{1,96}(?:/[\w.-]{1,96})?", name) else "<model>"
    folder = model.rpartition("/")[2] if model != "<model>" else "<folder>"
    return (
        f"or fetch it on a machine with network: hf download {model} --local-dir {folder}; copy that folder here, "
        f"and "
        f"give the program its whole path in place of {model if name else 'the name'}",
    )


def _true(value: Optional[str]) -> bool:
    # The spellings that huggingface_hub takes for true (its constants.py).
    return (value or "").strip().upper() in ("1", "ON", "YES", "TRUE")


def _page(error: ErrorFact) -> str:
    name = error.values.get("name", "")
    return f"https://huggingface.co/{name}" if re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name) else "the model's page"


def gated(facts: Facts) -> Result:
    """A model that wants its licence accepted."""
    if facts.error("hf-no-such-repository") and not facts.error("hf-gated"):
        return PASSED  # the Hub answers 401 for a name that does not exist, too
    return from_message(
        facts,
        ("hf-gated", "hf-refused"),
        lambda error: Finding(
            "hf-gated-model",
            "error",
            "The Hub refuses access to this model: it is gated or private",
            "This is about permission, not about the environment.",
            seen(error),
            (
                f"Accept the licence on {_page(error)}, and wait where its owner has to agree",
                "hf auth login   # with a token that may read gated repositories; in a container: -e HF_TOKEN",
                fixes.export(facts, "HF_TOKEN", "<your token>", "does the same, where there is no such command"),
                "or, while it is not granted: another owner's copy that is not gated, or another model",
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
