"""From a typed name to a model: every kind of name, every kind of broken one."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.models import catalogue, hub_cache, samples, weights
from workbench.models.listing import list_models
from workbench.models.resolve import resolve
from workbench.paths import data_dir

SAMPLES = paths.data_dir("sample_models")
TINY = SAMPLES / "tiny-llama"


def cache_repository(hub_id: str, files: dict[str, bytes | Path], commit: str = "a" * 40, ref: bool = True) -> Path:
    """Lay out a repository as huggingface_hub does: blobs, and a snapshot that links to them."""
    folder = hub_cache.cache_folder() / ("models--" + hub_id.replace("/", "--"))
    snapshot = folder / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (folder / "blobs").mkdir(exist_ok=True)
    (folder / "refs").mkdir(exist_ok=True)
    if ref:
        (folder / "refs" / "main").write_text(commit)
    for name, content in files.items():
        blob = folder / "blobs" / f"{commit[:4]}-{name}"
        if isinstance(content, Path):
            shutil.copy(content, blob)
        else:
            blob.write_bytes(content)
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))
    return snapshot


def tiny_files() -> dict[str, bytes | Path]:
    return {name: TINY / name for name in ("config.json", "model.safetensors", "tokenizer.json")}


@pytest.mark.parametrize("name", ["tiny-llama", "Tiny-Llama", "TINY-LLAMA", " tiny-llama "])
def test_sample_by_name_in_any_case(name: str) -> None:
    found = resolve(name)
    assert (found.name, found.kind, found.path) == ("tiny-llama", "sample", str(TINY))
    assert found.has_weights
    assert found.config is not None
    assert found.config["num_key_value_heads"] == 2


def test_every_sample_resolves_and_ships_what_it_says() -> None:
    for sample in samples.samples().values():
        found = resolve(sample.name)
        assert found.kind == "sample"
        assert found.has_weights != found.fetchable
        if sample.sources[0].kind == "folder":
            assert found.formats == ("safetensors",)
            folder = Path(found.path or "")
            assert sum(file.stat().st_size for file in folder.iterdir()) < 10**6


def test_sample_that_is_not_here_is_fetchable_and_can_be_planned_with() -> None:
    found = resolve("smollm2-135m-instruct")
    assert (found.path, found.fetchable, found.has_weights) == (None, True, False)
    assert found.config is not None
    assert found.config["hidden_size"] == 576


@pytest.mark.parametrize("name", ["llama-3.1-8b", "Llama-3.1-8B", "meta-llama/Llama-3.1-8B"])
def test_catalogue_by_name_or_hub_id(name: str) -> None:
    found = resolve(name)
    assert (found.name, found.kind, found.parameters) == ("llama-3.1-8b", "catalogue", 8_030_261_248)
    assert found.config is not None
    assert found.config["architectures"] == ["LlamaForCausalLM"]
    assert found.config_source


def test_real_weights_are_preferred_to_the_catalogue() -> None:
    snapshot = cache_repository("meta-llama/Llama-3.1-8B", tiny_files())
    found = resolve("llama-3.1-8b")
    assert (found.kind, found.path, found.formats) == ("hub", str(snapshot), ("safetensors",))
    names = [item.name for item in list_models()]
    assert "meta-llama/Llama-3.1-8B" in names
    assert "llama-3.1-8b" not in names


def test_hub_id_in_the_cache_and_not_in_it() -> None:
    cache_repository("some-org/some.model", tiny_files())
    here = resolve("some-org/some.model")
    assert (here.kind, here.has_weights, here.fetchable) == ("hub", True, False)
    assert resolve("SOME-ORG/Some.Model").name == "some-org/some.model"
    there = resolve("some-org/other")
    assert (there.kind, there.has_weights, there.fetchable, there.hub_id) == ("hub", False, True, "some-org/other")


@pytest.mark.parametrize("variable", ["HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"])
def test_cache_variables_are_honoured(variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(tmp_path / "elsewhere"))
    cache_repository("org/x", tiny_files())
    assert (tmp_path / "elsewhere").is_dir()
    assert resolve("org/x").has_weights


def test_newest_snapshot_without_a_ref_and_partial_downloads() -> None:
    cache_repository("org/x", tiny_files(), ref=False)
    assert resolve("org/x").has_weights
    config_only = cache_repository("org/y", {"config.json": b'{"model_type": "llama"}'})
    found = resolve("org/y")
    assert (found.path, found.has_weights, found.fetchable) == (str(config_only), False, True)
    assert hub_cache.find("org/z") is None


def test_cache_size_counts_each_blob_once() -> None:
    cache_repository("org/x", {"config.json": b"{}", "model.safetensors": bytes(1000)})
    repository = hub_cache.find("org/x")
    assert repository is not None
    assert repository.size_bytes == 1002


def test_hub_link_to_a_missing_blob_is_one_line() -> None:
    snapshot = cache_repository("org/x", tiny_files())
    (snapshot / "config.json").resolve().unlink()
    with pytest.raises(WorkbenchError, match="link to a file that is not there"):
        resolve("org/x")
    listed = next(item for item in list_models() if item.name == "org/x")
    assert not listed.present
    assert listed.problem


def test_interrupted_download_can_be_fetched_again() -> None:
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    snapshot = cache_repository(
        "org/x",
        {
            "config.json": b"{}",
            "model.safetensors.index.json": index.encode(),
            "model-00001-of-00002.safetensors": b"x",
            "model-00002-of-00002.safetensors": b"x",
        },
    )
    assert resolve("org/x").has_weights
    (snapshot / "model-00002-of-00002.safetensors").resolve().unlink()
    found = resolve("org/x")
    assert (found.has_weights, found.fetchable) == (False, True)
    listed = next(item for item in list_models() if item.name == "org/x")
    assert (listed.present, listed.fetchable) == (False, True)
    assert "in part" in listed.problem


def test_directory_file_inside_it_and_relative_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve(str(TINY)).kind == "directory"
    assert resolve(str(TINY / "config.json")).path == str(TINY)
    assert resolve(str(TINY / "model.safetensors")).path == str(TINY)
    monkeypatch.chdir(SAMPLES)
    assert resolve("./tiny-llama").kind == "directory"


def test_folder_that_is_no_model_does_not_hide_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "work" / "bloom").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    assert resolve("bloom").kind == "catalogue"
    (tmp_path / "work" / "bloom" / "config.json").write_text("{}")
    assert resolve("bloom").kind == "directory"


def make(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize(
    ("files", "kind", "says"),
    [
        ({}, "no-model", "holds no model"),
        ({"model.safetensors": b"x"}, "no-model", "no config.json"),
        ({"adapter_config.json": b"{}"}, "no-model", "LoRA adapter"),
        ({"config.json": b""}, "bad-config", "line 1, column 1"),
        ({"config.json": b"{'a': 1}"}, "bad-config", "is not JSON"),
        ({"config.json": b"[1, 2]"}, "bad-config", "not an object"),
        ({"config.json": b"\xff\xfe"}, "bad-config", "UTF-8"),
        ({"config.json": b"[" * 200_000}, "bad-config", "is not JSON"),
        ({"config.json": b" " * (16 * 2**20 + 1)}, "bad-config", "larger"),
        ({"a.gguf": b"GGUF", "b.gguf": b"GGUF"}, "no-model", "2 GGUF files"),
        ({"a.gguf": b"GGUF nothing"}, "corrupt-file", "a.gguf"),
    ],
)
def test_bad_directory_is_one_line(files: dict[str, bytes], kind: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match=says) as caught:
        resolve(str(make(tmp_path / "model", files)))
    assert caught.value.kind == kind
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", "nothing-of-this-name", "a/b/c", "../nowhere", "/nowhere", "no.gguf", "x\0y", "a--b/c", "org/", "é/ü"]
)
def test_unknown_name_says_what_names_there_are(name: str) -> None:
    with pytest.raises(WorkbenchError, match="workbench models list") as caught:
        resolve(name)
    assert caught.value.kind == "unknown-model"
    assert "\0" not in str(caught.value)


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("tiny-lama", "tiny-llama"), ("smollm2-135m-instuct", "smollm2-135m-instruct"), ("llama-3.1-8", "llama-3.1-8b")],
)
def test_nearest_names_are_offered(typed: str, meant: str) -> None:
    with pytest.raises(WorkbenchError, match=meant):
        resolve(typed)


def test_listing_has_every_sample_and_entry_and_travels_as_json() -> None:
    listed = list_models()
    names = [item.name for item in listed]
    assert len(names) == len(set(names))
    assert set(samples.samples()) | set(catalogue.entries()) <= set(names)
    assert json.loads(json.dumps([asdict(item) for item in listed]))
    for name in names:
        assert json.dumps(asdict(resolve(name)))


def test_catalogue_is_exact_where_it_says_so() -> None:
    entries = catalogue.entries().values()
    assert sum(entry.verified for entry in entries) >= 100
    for entry in entries:
        assert entry.name == entry.name.lower()
        assert entry.source
        assert entry.config["model_type"]
        assert not entry.verified or entry.published_parameters


def test_needs_the_standard_library_alone() -> None:
    code = (
        "import sys\n"
        "import workbench.models.fetch, workbench.models.listing, workbench.models.gguf_convert\n"
        "from workbench.models.resolve import resolve\n"
        "resolve('tiny-llama'); resolve('gpt2')\n"
        "heavy = {'torch', 'transformers', 'numpy', 'huggingface_hub', 'gguf', 'safetensors', 'tokenizers'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = str(Path(paths.__file__).parents[1])
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": root}
    )
    assert ended.stdout.strip() == "[]", ended.stderr


def test_directories_of_the_settings_are_listed_with_the_models_in_them(tmp_path: Path) -> None:
    shutil.copytree(data_dir("sample_models") / "tiny-llama", tmp_path / "shelf" / "mine")
    (tmp_path / "shelf" / "notes").mkdir()
    (tmp_path / "shelf" / "broken.gguf").write_bytes(b"GGUF")
    listed = list_models(directories=[str(tmp_path / "shelf"), str(tmp_path / "absent")])
    found = {Path(item.name).name: item for item in listed if item.kind == "directory"}
    assert set(found) == {"mine", "broken.gguf", "absent"}
    assert found["mine"].present
    assert found["mine"].formats == ("safetensors",)
    assert found["broken.gguf"].problem
    assert found["absent"].problem


def test_what_could_be_read_for_ever_is_no_model(tmp_path: Path) -> None:
    pipe, folder = tmp_path / "pipe.gguf", tmp_path / "model"
    folder.mkdir()
    os.mkfifo(pipe)
    for name in (str(pipe), "/dev/zero"):
        with pytest.raises(WorkbenchError, match="is a pipe, a device or a socket"):
            resolve(name)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    os.mkfifo(folder / "model.safetensors")
    assert not resolve(str(folder)).has_weights
    with pytest.raises(WorkbenchError, match="holds no weights"):
        weights.check_weights(folder)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to(pipe)
    with pytest.raises(WorkbenchError, match="is no file"):
        resolve(str(folder))
