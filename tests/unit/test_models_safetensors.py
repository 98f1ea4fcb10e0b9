"""Headers of safetensors files and their index, good and hostile."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.models.safetensors_header import read_checkpoint, read_header, read_index
from workbench.models.weights import check_weights, find_weights

TINY = paths.data_dir("sample_models") / "tiny-llama"


def build(header: Any, data: bytes = b"") -> bytes:
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + data


def entry(shape: list[Any], begin: Any, end: Any, dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def test_every_tensor_of_a_real_file() -> None:
    tensors = {tensor.name: tensor for tensor in read_checkpoint(TINY)}
    assert tensors["model.layers.0.self_attn.k_proj.weight"].shape == (32, 64)
    assert sum(tensor.elements for tensor in tensors.values()) == 238_144
    assert {tensor.dtype for tensor in tensors.values()} == {"BF16"}
    assert max(t.offset_bytes + t.size_bytes for t in tensors.values()) == (TINY / "model.safetensors").stat().st_size


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0",
        (2**62).to_bytes(8, "little") + b"{}",
        build(b"not json"),
        build(b"[1]"),
        build(b'{"a":' * 100_000),
        build({"a": 1}),
        build({"a": entry([2], 0, 8, "F99")}, bytes(8)),
        build({"a": entry([2], 0, 8, ["F32"])}, bytes(8)),
        build({"a": entry([-2], 0, 8)}, bytes(8)),
        build({"a": entry([True], 0, 4)}, bytes(4)),
        build({"a": entry([2**70], 0, 8)}, bytes(8)),
        build({"a": entry([2], 0, 4)}, bytes(4)),
        build({"a": entry([2], 8, 0)}, bytes(8)),
        build({"a": entry([2], 0, 8)}, bytes(7)),
        build({"a": entry([2], 0, 8)}, bytes(9)),
        build({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)),
        build({"a": entry([2], 4, 12)}, bytes(12)),
    ],
)
def test_bad_header_is_one_line(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(WorkbenchError, match=r"model\.safetensors") as caught:
        read_header(path)
    assert caught.value.kind == "corrupt-file"
    assert "\n" not in str(caught.value)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_changed_byte_breaks_the_reader(data: Any, tmp_path: Path) -> None:
    raw = bytearray(
        build({"__metadata__": {"format": "pt"}, "a": entry([2, 3], 0, 24), "b": entry([], 24, 28)}, bytes(28))
    )
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path / "model.safetensors"
    path.write_bytes(bytes(raw))
    with contextlib.suppress(WorkbenchError):
        read_header(path)


def sharded(folder: Path, weight_map: dict[str, Any]) -> Path:
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (folder / "s1.safetensors").write_bytes(build({"a": entry([2], 0, 8)}, bytes(8)))
    return folder


def test_shards_are_joined(tmp_path: Path) -> None:
    assert [tensor.name for tensor in read_checkpoint(sharded(tmp_path, {"a": "s1.safetensors"}))] == ["a"]


@pytest.mark.parametrize("name", ["../s1.safetensors", "/etc/passwd", "sub/s1.safetensors", "..", "", "a\\b", 3])
def test_index_that_leaves_the_directory_is_refused(name: Any, tmp_path: Path) -> None:
    sharded(tmp_path, {"a": name})
    with pytest.raises(WorkbenchError, match="not a file beside it"):
        read_index(tmp_path / "model.safetensors.index.json")


def test_index_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WorkbenchError, match="lacks the shard s2"):
        check_weights(sharded(tmp_path, {"a": "s1.safetensors", "b": "s2.safetensors"}))
    with pytest.raises(WorkbenchError, match="tensor b"):
        check_weights(sharded(tmp_path, {"a": "s1.safetensors", "b": "s1.safetensors"}))


def test_truncated_file_and_dangling_link_are_found(tmp_path: Path) -> None:
    whole = (TINY / "model.safetensors").read_bytes()
    (tmp_path / "model.safetensors").write_bytes(whole[:-1000])
    with pytest.raises(WorkbenchError) as caught:
        check_weights(tmp_path)
    assert caught.value.kind == "corrupt-file"
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(WorkbenchError, match="link to a file that is not there"):
        check_weights(tmp_path)


def test_pickles_are_recognised_without_being_opened(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x02cposix\nsystem\nX\x04\0\0\0exitR.")
    check_weights(tmp_path)
    assert find_weights(tmp_path).formats == ("pickle",)
    (tmp_path / "pytorch_model.bin").write_bytes(b"PK\3\4 cut off")
    with pytest.raises(WorkbenchError, match="cut off"):
        check_weights(tmp_path)
    with pytest.raises(WorkbenchError, match="holds no weights"):
        check_weights(tmp_path / "none")
