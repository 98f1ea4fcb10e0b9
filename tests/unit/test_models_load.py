"""Loading for real: every quantization to the byte, nothing left after a failure, nothing run or looked up."""

from __future__ import annotations

import gc
import json
import pickle
import shutil
import socket
from pathlib import Path

import pytest

from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import Job
from workbench.models.load import LoadOptions, load_model, unload
from workbench.paths import data_dir
from workbench.settings import settings_path

pytestmark = pytest.mark.model


@pytest.fixture
def tiny_llama() -> Path:
    return data_dir("sample_models") / "tiny-llama"


class Recorder(Job):
    """Keeps what was reported and stops at a given tensor."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.seen: list[tuple[str, int, int | None, str]] = []
        self.stop_at = stop_at

    def progress(self, phase, done, total=None, unit="", detail=""):
        self.seen.append((phase, done, total, detail))

    def check(self) -> None:
        if self.stop_at is not None and len(self.seen) >= self.stop_at:
            raise JobCancelled


def live_tensor_bytes() -> int:
    import torch

    gc.collect()
    return sum(item.nbytes for item in gc.get_objects() if issubclass(type(item), torch.Tensor))


def linked_copy(source: Path, target: Path) -> Path:
    """A model directory of links, in which a test may replace one file."""
    target.mkdir()
    for path in source.iterdir():
        (target / path.name).symlink_to(path)
    return target


@pytest.mark.parametrize(
    ("options", "weights_bytes", "dtype"),
    [
        (LoadOptions(device="cpu"), 269_030_272, "bfloat16"),
        (LoadOptions(device="cpu", dtype="float32"), 538_060_288, "float32"),
        (LoadOptions("int8", device="cpu"), 163_484_032, "float16"),
        (LoadOptions("nf4", double_quant=True, device="cpu"), 111_692_152, "bfloat16"),
        (LoadOptions("fp4", device="cpu"), 116_426_752, "bfloat16"),
    ],
    ids=lambda value: f"{value.quant}-{value.dtype}" if isinstance(value, LoadOptions) else "",
)
def test_weights_are_counted_to_the_byte_and_freed(smollm2_dir, options, weights_bytes, dtype):
    job = Recorder()
    before = live_tensor_bytes()
    loaded = load_model(smollm2_dir, options, job)
    assert loaded.weights_bytes == weights_bytes
    assert loaded.facts.dtype == dtype
    assert loaded.facts.device == "cpu"
    assert loaded.supports_generation
    assert not loaded.facts.pickle
    assert ("weights", 272, 272, "") in job.seen
    assert any(detail == "model.layers.29.mlp.up_proj.weight" for *_, detail in job.seen)
    assert unload(loaded) == 0
    assert live_tensor_bytes() - before < 100_000


def test_unload_tells_what_is_still_held(smollm2_dir):
    loaded = load_model(smollm2_dir, LoadOptions(device="cpu"))
    held = loaded.model.model.norm.weight
    assert unload(loaded) == held.nbytes
    assert unload(loaded) == 0


@pytest.mark.parametrize("quant", ["none", "nf4"])
def test_a_cancelled_load_stops_at_the_next_tensor_and_leaves_nothing(smollm2_dir, quant):
    before = live_tensor_bytes()
    job = Recorder(stop_at=60)
    with pytest.raises(JobCancelled) as caught:
        load_model(smollm2_dir, LoadOptions(quant, device="cpu"), job)
    assert len(job.seen) == 60
    assert caught.value.__context__ is None
    assert live_tensor_bytes() - before < 100_000
    if quant == "none":
        assert unload(load_model(smollm2_dir, LoadOptions(device="cpu"))) == 0


def test_running_out_of_memory_leaves_nothing_and_says_how_much(smollm2_dir):
    import torch

    class Hungry(Recorder):
        def check(self) -> None:
            if len(self.seen) > 100:
                torch.empty(2**55, dtype=torch.uint8)

    before = live_tensor_bytes()
    with pytest.raises(WorkbenchError) as caught:
        load_model(smollm2_dir, LoadOptions(device="cpu"), Hungry())
    assert caught.value.kind == "out-of-memory"
    assert "32,768 TiB more were needed" in caught.value.message
    assert live_tensor_bytes() - before < 100_000


def test_a_truncated_file_is_named(smollm2_dir, tmp_path):
    directory = linked_copy(smollm2_dir, tmp_path / "cut")
    weights = directory / "model.safetensors"
    with weights.open("rb") as file:
        head = file.read(200_000)
    weights.unlink()
    weights.write_bytes(head)
    with pytest.raises(WorkbenchError) as caught:
        load_model(directory, LoadOptions(device="cpu"))
    assert caught.value.kind == "corrupt-file"
    assert str(weights) in caught.value.message


def test_missing_tensors_are_an_error_not_random_weights(tiny_llama, tmp_path):
    from safetensors.torch import load_file, save_file

    directory = linked_copy(tiny_llama, tmp_path / "lacking")
    tensors = load_file(tiny_llama / "model.safetensors")
    tensors.pop("model.layers.0.mlp.up_proj.weight")
    (directory / "model.safetensors").unlink()
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    with pytest.raises(WorkbenchError, match=r"lacks 1 tensors.*up_proj") as caught:
        load_model(directory, LoadOptions(device="cpu"))
    assert caught.value.kind == "corrupt-file"


def test_wrong_shapes_are_an_error(tiny_llama, tmp_path):
    directory = linked_copy(tiny_llama, tmp_path / "shapes")
    config = json.loads((tiny_llama / "config.json").read_text())
    config["intermediate_size"] += 8
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match="do not have the shapes") as caught:
        load_model(directory, LoadOptions(device="cpu"))
    assert caught.value.kind == "corrupt-file"


def test_a_pickle_loads_with_weights_only_and_says_so(tiny_llama, tmp_path):
    import torch
    from safetensors.torch import load_file

    directory = linked_copy(tiny_llama, tmp_path / "pickled")
    (directory / "model.safetensors").unlink()
    torch.save(load_file(tiny_llama / "model.safetensors"), directory / "pytorch_model.bin")
    loaded = load_model(directory, LoadOptions(device="cpu"))
    assert loaded.facts.pickle
    unload(loaded)


def test_a_hostile_pickle_is_refused_and_does_not_run(tiny_llama, tmp_path):
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self):
            return (Path.touch, (canary,))

    directory = linked_copy(tiny_llama, tmp_path / "hostile")
    (directory / "model.safetensors").unlink()
    (directory / "pytorch_model.bin").write_bytes(pickle.dumps({"model.norm.weight": Hostile()}))
    with pytest.raises(WorkbenchError) as caught:
        load_model(directory, LoadOptions(device="cpu"))
    assert caught.value.kind == "unsafe-checkpoint"
    assert not canary.exists()


OWN_CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
open({canary!r}, "w")
class OwnConfig(LlamaConfig):
    model_type = "homemade"
class OwnModel(LlamaForCausalLM):
    config_class = OwnConfig
"""


def test_code_of_the_repository_runs_once_it_is_named_and_until_it_changes(tiny_llama, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    canary = tmp_path / "canary"
    directory = linked_copy(tiny_llama, tmp_path / "remote")
    config = json.loads((tiny_llama / "config.json").read_text())
    config["model_type"] = "homemade"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "own.py").write_text(OWN_CODE.format(canary=str(canary)))

    def refusal():
        with pytest.raises(WorkbenchError) as caught:
            load_model(directory, LoadOptions(device="cpu"))
        assert not canary.exists()
        return caught.value

    error = refusal()
    assert error.kind == "remote-code"
    assert "own.py" in error.message
    assert str(directory) in error.message
    consent = error.remedy.partition("trusted_code = ")[2]
    settings_path().parent.mkdir(parents=True, exist_ok=True)
    settings_path().write_text(f"[models]\ntrusted_code = {consent}\n")
    loaded = load_model(directory, LoadOptions(device="cpu"))
    assert loaded.facts.class_name == "OwnModel"
    assert canary.exists()
    unload(loaded)
    canary.unlink()
    (directory / "own.py").write_text(OWN_CODE.format(canary=str(canary)) + "# other\n")
    assert refusal().remedy.partition("trusted_code = ")[2] != consent
    for elsewhere in ("someone/else--own.OwnConfig", "../own.OwnConfig", "absent.OwnConfig"):
        (directory / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": elsewhere}}))
        assert refusal().kind == "unsupported"


def test_nothing_is_looked_up_on_a_network(smollm2_dir, monkeypatch):
    tried: list[object] = []

    def refuse(*arguments, **_keywords):
        tried.append(arguments)
        raise OSError("no network in this test")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    unload(load_model(smollm2_dir, LoadOptions(device="cpu")))
    assert tried == []


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ({"num_hidden_layers": 10**12}, "bad-config", "1000000000000 layers"),
        ({"num_hidden_layers": -1}, "bad-config", "-1 layers"),
        ({"model_type": "no-such-type"}, "bad-config", "cannot read"),
        ({"model_type": "bert", "architectures": ["BertForMaskedLM"]}, "unsupported", "encoder-only"),
    ],
)
def test_configs_that_cannot_be_loaded(tiny_llama, tmp_path, change, kind, words):
    directory = linked_copy(tiny_llama, tmp_path / "changed")
    config = json.loads((tiny_llama / "config.json").read_text()) | change
    (directory / "config.json").unlink()
    (directory / "config.json").write_text(json.dumps(config))
    with pytest.raises(WorkbenchError, match=words) as caught:
        load_model(directory, LoadOptions(device="cpu"))
    assert caught.value.kind == kind


def test_directories_without_a_model(tiny_llama, tmp_path):
    with pytest.raises(WorkbenchError, match=r"no config\.json"):
        load_model(tmp_path, LoadOptions(device="cpu"))
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(WorkbenchError, match="LoRA adapter"):
        load_model(tmp_path, LoadOptions(device="cpu"))
    shutil.copy(tiny_llama / "config.json", tmp_path)
    with pytest.raises(WorkbenchError, match=r"no model\.safetensors"):
        load_model(tmp_path, LoadOptions(device="cpu"))
    index = tmp_path / "model.safetensors.index.json"
    for content, words in (
        ("[]", "not an index"),
        ('{"weight_map": {"a": "../secret.safetensors"}}', "outside of its directory"),
        ('{"weight_map": {"a": "model-00002.safetensors"}}', "lacks the shard model-00002"),
    ):
        index.write_text(content)
        with pytest.raises(WorkbenchError, match=words):
            load_model(tmp_path, LoadOptions(device="cpu"))


@pytest.mark.parametrize(
    "options",
    [
        LoadOptions("int3"),
        LoadOptions(dtype="half"),
        LoadOptions(device="tpu"),
        LoadOptions(device="cuda:99"),
        LoadOptions(attention="flash"),
    ],
)
def test_options_that_mean_nothing(tiny_llama, options):
    with pytest.raises(WorkbenchError) as caught:
        load_model(tiny_llama, options)
    assert caught.value.kind in ("bad-option", "no-device")
    assert "\n" not in caught.value.message
