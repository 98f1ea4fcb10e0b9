"""Converts a GGUF file, once, into a directory that transformers loads. Needs numpy, inside functions.

The directory lies in the cache: config.json, generation_config.json, bfloat16 safetensors, tokenizer files. Tensor
names and the changes that converters make to weights (rows of q and k reordered for rotary pairs, one added to
Gemma's norms, Conv1D transposed) follow llama.cpp's converter; here they are undone. Memory stays at about one
tensor in bfloat16.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Optional

from workbench import paths
from workbench.errors import WorkbenchError
from workbench.job import SILENT, Job
from workbench.models import gguf, weights
from workbench.models.download import no_space, require_space
from workbench.models.exclusive import exclusive
from workbench.models.fetch import fetch
from workbench.models.gguf_blocks import decode_rows, require_decoders
from workbench.models.gguf_config import config_from_gguf, eos_token_ids
from workbench.models.gguf_tokenizer import convert_tokenizer
from workbench.models.resolve import ResolvedModel
from workbench.text import one_line

CONVERTER_VERSION = 1
SHARD_BYTES = 4 * 10**9
CHUNK_ELEMENTS = 4 * 2**20
NOTE_FILE = "workbench.json"

_TOP = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_ATTENTION = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_GATED_MLP = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_QK_NORMS = {"attn_q_norm": "self_attn.q_norm", "attn_k_norm": "self_attn.k_norm"}
_LLAMA = {**_ATTENTION, **_GATED_MLP, "ffn_norm": "post_attention_layernorm"}
_SANDWICH_NORMS = {
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "pre_feedforward_layernorm",
    "post_ffw_norm": "post_feedforward_layernorm",
}
# Tensors of one layer by the model_type of the config; {} stands for the number of an expert.
_LAYERS: dict[str, dict[str, str]] = {
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_QK_NORMS},
    "gemma": _LLAMA,
    "gemma2": {**_ATTENTION, **_GATED_MLP, **_SANDWICH_NORMS},
    "gemma3_text": {**_ATTENTION, **_GATED_MLP, **_SANDWICH_NORMS, **_QK_NORMS},
    "mixtral": {
        **_ATTENTION,
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate_inp": "block_sparse_moe.gate",
        "ffn_gate_exps": "block_sparse_moe.experts.{}.w1",
        "ffn_up_exps": "block_sparse_moe.experts.{}.w3",
        "ffn_down_exps": "block_sparse_moe.experts.{}.w2",
    },
    "qwen3_moe": {
        **_ATTENTION,
        **_QK_NORMS,
        "ffn_norm": "post_attention_layernorm",
        "ffn_gate_inp": "mlp.gate",
        "ffn_gate_exps": "mlp.experts.{}.gate_proj",
        "ffn_up_exps": "mlp.experts.{}.up_proj",
        "ffn_down_exps": "mlp.experts.{}.down_proj",
    },
    "phi3": {
        "attn_norm": "input_layernorm",
        "attn_qkv": "self_attn.qkv_proj",
        "attn_output": "self_attn.o_proj",
        "ffn_norm": "post_attention_layernorm",
        "ffn_up": "mlp.gate_up_proj",
        "ffn_down": "mlp.down_proj",
    },
    "gpt2": {
        "attn_norm": "ln_1",
        "attn_qkv": "attn.c_attn",
        "attn_output": "attn.c_proj",
        "ffn_norm": "ln_2",
        "ffn_up": "mlp.c_fc",
        "ffn_down": "mlp.c_proj",
    },
}
_GPT2_TOP = {
    "token_embd": "transformer.wte",
    "position_embd": "transformer.wpe",
    "output_norm": "transformer.ln_f",
    "output": "lm_head",
}
# Already in the config as rotary scaling.
_IN_CONFIG = ("rope_freqs", "rope_factors_long", "rope_factors_short")
_PAIRED_ROTARY = ("llama", "mixtral")
_NORMS_PLUS_ONE = ("gemma", "gemma2", "gemma3_text")
_NAME = re.compile(r"(?:blk\.(?P<layer>\d+)\.)?(?P<part>[a-z0-9_]+)\.(?P<kind>weight|bias)")


@dataclass(frozen=True)
class _Output:
    """One tensor to write: where it comes from and what is undone on the way.

    Attributes:
        rotary_heads: number of heads whose rows are put back from pairs to halves; 0 for none.
        expert: index of the expert to take out of a stack; None for the whole tensor.
        add: added to each value.
    """

    name: str
    shape: tuple[int, ...]
    source: gguf.GgufTensor
    rotary_heads: int = 0
    transposed: bool = False
    expert: Optional[int] = None
    add: float = 0.0

    @property
    def size_bytes(self) -> int:
        count = 2
        for length in self.shape:
            count *= length
        return count


def ensure_directory(resolved: ResolvedModel, job: Job = SILENT) -> Path:
    """A directory that transformers can load `resolved` from: fetched when it is not here, converted when it is GGUF.

    Raises:
        WorkbenchError: as `fetch`, `convert_gguf` and `check_weights`.
        JobCancelled: if the job is stopped.
    """
    here = fetch(resolved, job)
    path = Path(here.path or "")
    weights.check_weights(path)
    if path.is_file():
        return convert_gguf(path, job)
    if here.formats == (weights.GGUF,):
        return convert_gguf(path / weights.find_weights(path).files[0], job)
    return path


def convert_gguf(path: Path, job: Job = SILENT) -> Path:
    """The converted form of the GGUF file at `path`; made if the cache does not hold it yet.

    The directory appears only when it is complete. Of several processes one converts and the others wait.

    Raises:
        WorkbenchError: ``unsupported`` for an architecture, tensor or tokenizer that is not known, ``corrupt-file``,
            ``missing-package``, ``no-disk-space``.
        JobCancelled: if the job is stopped; nothing stays behind.
    """
    header = gguf.read_gguf(path)
    target = converted_directory(header)
    if (target / NOTE_FILE).is_file():
        return target
    base = target.parent
    with exclusive(base / f".{target.name}.lock", job, f"converts {path.name}"):
        if (target / NOTE_FILE).is_file():
            return target
        _convert(header, target, job)
    return target


def converted_directory(header: gguf.GgufHeader) -> Path:
    """Where the converted form of a GGUF file is kept: named after the file, its size, time and header."""
    path = Path(header.path)
    start = min((tensor.offset_bytes for tensor in header.tensors), default=header.file_bytes)
    info = path.stat()
    digest = hashlib.sha256(f"{CONVERTER_VERSION} {info.st_size} {info.st_mtime_ns}".encode())
    with path.open("rb") as file:
        digest.update(file.read(min(start, 2**26)))
    stem = re.sub(r"[^\w.-]", "-", path.stem)[:80]
    return paths.cache_dir() / "converted" / f"{stem}-{digest.hexdigest()[:12]}"


def conversion_note(directory: Path) -> str:
    """What the conversion could not do exactly, one line; empty if nothing, or if `directory` is no converted one."""
    try:
        note = json.loads((directory / NOTE_FILE).read_text(encoding="utf-8")).get("note", "")
    except (OSError, ValueError, AttributeError):
        return ""
    return note if isinstance(note, str) else ""


def _convert(header: gguf.GgufHeader, target: Path, job: Job) -> None:
    config = config_from_gguf(header)
    outputs = plan(header, config)
    require_decoders(header.tensors)
    tokenizer = convert_tokenizer(header)
    base = target.parent
    needed = sum(output.size_bytes for output in outputs)
    require_space(base, needed)
    for abandoned in base.glob(f".{target.name}-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=base))
    try:
        _write_json(work / "config.json", config)
        _write_json(work / "generation_config.json", _generation_config(header, config))
        _write_json(work / "tokenizer.json", tokenizer.tokenizer)
        _write_json(work / "tokenizer_config.json", tokenizer.tokenizer_config)
        _write_weights(header, outputs, work, job)
        note = {"source": header.path, "converter": CONVERTER_VERSION, "note": tokenizer.note}
        _write_json(work / NOTE_FILE, note)
        os.rename(work, target)
    except OSError as error:
        if "No space left" in str(error):
            raise no_space(base, needed) from None
        raise WorkbenchError(
            "write-failed", f"Cannot write to {base}: {error.strerror}.", "Check its permissions and its disk."
        ) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _generation_config(header: gguf.GgufHeader, config: dict[str, Any]) -> dict[str, Any]:
    ends = eos_token_ids(header)
    values = {
        "bos_token_id": config.get("bos_token_id"),
        "eos_token_id": ends[0] if len(ends) == 1 else ends or None,
        "pad_token_id": config.get("pad_token_id"),
    }
    return {key: value for key, value in values.items() if value is not None}


def plan(header: gguf.GgufHeader, config: dict[str, Any]) -> list[_Output]:
    """What to write, in the order of the file.

    Raises:
        WorkbenchError: ``unsupported`` for a tensor without a place in the architecture, ``corrupt-file`` if shapes do
            not fit the header.
    """
    outputs = [output for tensor in header.tensors for output in _outputs(header, tensor, config)]
    if len({output.name for output in outputs}) != len(outputs):
        raise _odd_tensor(header, "two tensors have the same place")
    _check_complete(header, outputs, config.get("num_hidden_layers") or config["n_layer"])
    return outputs


@dataclass(frozen=True)
class Place:
    """A tensor of a GGUF file under the name that transformers has for it."""

    name: str
    dtype: str
    """The ggml type it is stored in."""
    shape: tuple[int, ...]


def places(header: gguf.GgufHeader, config: dict[str, Any]) -> tuple[list[Place], list[str]]:
    """Where each tensor belongs in the model of `config`, and the names of those that have no place in it."""
    found: list[Place] = []
    odd: list[str] = []
    for tensor in header.tensors:
        try:
            found += [Place(output.name, tensor.type, output.shape) for output in _outputs(header, tensor, config)]
        except (WorkbenchError, KeyError):
            odd.append(tensor.name)
    return found, odd


def _check_complete(header: gguf.GgufHeader, outputs: list[_Output], layers: int) -> None:
    """Raise ``corrupt-file`` unless every layer has the same tensors; the first part of a split file does not."""
    parts: dict[int, set[str]] = {}
    for output in outputs:
        match = re.match(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.*)", output.name)
        if match:
            parts.setdefault(int(match[1]), set()).add(match[2])
    whole = set().union(*parts.values())
    lacking = [layer for layer in range(layers) if parts.get(layer) != whole]
    if lacking or len(parts) != layers:
        raise WorkbenchError(
            "corrupt-file",
            f"{one_line(header.path)} does not hold every tensor of its {layers} layers.",
            "Of a split model, merge the parts first: llama-gguf-split --merge. Else download it again.",
        )


def _outputs(header: gguf.GgufHeader, tensor: gguf.GgufTensor, config: dict[str, Any]) -> Iterator[_Output]:
    match = _NAME.fullmatch(tensor.name)
    if match is None or tensor.size_bytes is None:
        raise _odd_tensor(header, f"{tensor.name} of type {tensor.type} is not known")
    part, kind, layer = match["part"], match["kind"], match["layer"]
    if part in _IN_CONFIG:
        return
    model_type = config["model_type"]
    if layer is None:
        place = (_GPT2_TOP if model_type == "gpt2" else _TOP).get(part)
    else:
        inner = _LAYERS[model_type].get(part)
        root = "transformer.h" if model_type == "gpt2" else "model.layers"
        place = f"{root}.{int(layer)}.{inner}" if inner else None
    if place is None:
        raise _odd_tensor(header, f"{tensor.name} has no place in {model_type}")
    if "{}" in place:
        for expert in range(_experts(header, tensor, config)):
            yield _Output(f"{place.format(expert)}.{kind}", tensor.shape[1:], tensor, expert=expert)
        return
    # Conv1D keeps its weights the other way round.
    transposed = model_type == "gpt2" and layer is not None and len(tensor.shape) == 2
    yield _Output(
        name=f"{place}.{kind}",
        shape=tensor.shape[::-1] if transposed else tensor.shape,
        source=tensor,
        rotary_heads=_rotary_heads(header, tensor, part, config),
        transposed=transposed,
        add=-1.0 if part.endswith("norm") and model_type in _NORMS_PLUS_ONE else 0.0,
    )


def _experts(header: gguf.GgufHeader, tensor: gguf.GgufTensor, config: dict[str, Any]) -> int:
    count = config.get("num_local_experts") or config.get("num_experts")
    if len(tensor.shape) != 3 or tensor.shape[0] != count:
        raise _odd_tensor(header, f"{tensor.name} is not a stack of {count} experts")
    return int(count)


def _rotary_heads(header: gguf.GgufHeader, tensor: gguf.GgufTensor, part: str, config: dict[str, Any]) -> int:
    if config["model_type"] not in _PAIRED_ROTARY or part not in ("attn_q", "attn_k"):
        return 0
    heads = int(config["num_attention_heads" if part == "attn_q" else "num_key_value_heads"])
    if not tensor.shape or tensor.shape[0] % (2 * heads):
        raise _odd_tensor(header, f"{tensor.name} does not divide into {heads} heads")
    return heads


def _odd_tensor(header: gguf.GgufHeader, why: str) -> WorkbenchError:
    return WorkbenchError(
        "unsupported",
        f"{one_line(header.path)} cannot be converted: {one_line(why, 160)}.",
        "Use the model's safetensors files instead.",
    )


def _write_weights(header: gguf.GgufHeader, outputs: list[_Output], folder: Path, job: Job) -> None:
    shards: list[list[_Output]] = [[]]
    for output in outputs:
        if shards[-1] and sum(item.size_bytes for item in shards[-1]) + output.size_bytes > SHARD_BYTES:
            shards.append([])
        shards[-1].append(output)
    names = ["model.safetensors"]
    if len(shards) > 1:
        names = [f"model-{index:05d}-of-{len(shards):05d}.safetensors" for index in range(1, len(shards) + 1)]
    done = 0
    with open(header.path, "rb") as source:
        for name, shard in zip(names, shards):
            with open(folder / name, "wb") as file:
                file.write(_safetensors_header(shard))
                for output in shard:
                    job.progress("convert", done, len(outputs), "tensors", output.name)
                    _write_tensor(source, output, file, job)
                    done += 1
                file.flush()
                os.fsync(file.fileno())
    job.progress("convert", done, len(outputs), "tensors")
    if len(shards) > 1:
        weight_map = {output.name: name for name, shard in zip(names, shards) for output in shard}
        total = sum(output.size_bytes for output in outputs)
        index = {"metadata": {"total_size": total}, "weight_map": weight_map}
        _write_json(folder / "model.safetensors.index.json", index)


def _safetensors_header(outputs: list[_Output]) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for output in outputs:
        end = position + output.size_bytes
        entries[output.name] = {"dtype": "BF16", "shape": output.shape, "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    # Padded with spaces so that the data begins at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def _write_tensor(source: BinaryIO, output: _Output, file: BinaryIO, job: Job) -> None:
    if not output.rotary_heads and not output.transposed:
        for chunk in _bfloat16_rows(source, output, job):
            file.write(chunk.data)
        return
    import numpy

    whole = numpy.concatenate(list(_bfloat16_rows(source, output, job)))
    whole = whole.reshape(output.source.shape)
    if output.rotary_heads:
        # Stored (head, pair, 2): the two of a pair side by side; transformers wants all firsts, then all seconds.
        pairs = whole.reshape(output.rotary_heads, -1, 2, *whole.shape[1:])
        whole = pairs.swapaxes(1, 2).reshape(whole.shape)
    if output.transposed:
        whole = whole.T
    file.write(numpy.ascontiguousarray(whole).data)


def _bfloat16_rows(source: BinaryIO, output: _Output, job: Job) -> Iterator[Any]:
    """The tensor's values as bfloat16 bit patterns (uint16), some rows at a time, each chunk flat."""
    import numpy

    tensor = output.source
    row_elements = tensor.shape[-1] if tensor.shape else 1
    rows = tensor.elements // max(1, row_elements)
    first = 0
    if output.expert is not None:
        rows //= tensor.shape[0]
        first = output.expert * rows
    row_bytes = (tensor.size_bytes or 0) * row_elements // max(1, tensor.elements)
    rows_at_once = max(1, CHUNK_ELEMENTS // max(1, row_elements))
    source.seek(tensor.offset_bytes + first * row_bytes)
    for start in range(0, rows, rows_at_once):
        job.check()
        count = min(rows_at_once, rows - start)
        values = decode_rows(numpy.frombuffer(source.read(count * row_bytes), dtype=numpy.uint8), tensor)
        if output.add:
            values = values + numpy.float32(output.add)
        yield to_bfloat16(values)


def to_bfloat16(values: Any) -> Any:
    """float32 values as bfloat16 bit patterns, rounded to nearest, ties to even, as torch does; NaN stays NaN."""
    import numpy

    bits = values.view(numpy.uint32)
    rounded = ((bits + (0x7FFF + ((bits >> 16) & 1))) >> 16).astype(numpy.uint16)
    rounded[numpy.isnan(values)] = 0x7FC0
    return rounded


def _write_json(path: Path, value: dict[str, Any]) -> None:
    with path.open("w", encoding="utf-8") as file:
        json.dump(value, file, ensure_ascii=False, indent=None if path.name == "tokenizer.json" else 2)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
