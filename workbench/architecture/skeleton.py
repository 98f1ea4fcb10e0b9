"""The skeleton: every module and tensor of a model as transformers builds it, without weights. Stdlib only.

`workbench.architecture.build` makes one from a config; everything else here counts, describes or measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Optional

FORMAT_VERSION = 2
"""Raised whenever what a skeleton holds changes meaning; older cached ones are then built again."""

DTYPE_BYTES = {
    "float64": 8,
    "int64": 8,
    "complex64": 8,
    "float32": 4,
    "int32": 4,
    "float16": 2,
    "bfloat16": 2,
    "int16": 2,
    "float8_e4m3fn": 1,
    "float8_e5m2": 1,
    "int8": 1,
    "uint8": 1,
    "bool": 1,
}
"""Bytes per element by torch's name of the dtype."""

FLOAT_DTYPES = ("float32", "bfloat16", "float16", "float64")
"""What a model can be loaded in."""


@dataclass(frozen=True)
class ModuleEntry:
    """One module."""

    name: str
    """Dotted path; the model itself has the empty name."""
    class_name: str
    linear_kind: str = ""
    """``linear`` for exactly torch's Linear, ``conv1d`` for transformers' Conv1D, else empty."""
    layer_kind: str = ""
    """What an adapter can wrap, subclasses included: ``linear``, ``conv1d``, ``embedding`` or ``convolution``."""
    groups: int = 1
    """Of a convolution."""
    is_transposed: bool = False
    """Whether fused experts store their weights as (experts, in, out)."""


@dataclass(frozen=True)
class ParameterEntry:
    """One parameter under one name; a tied parameter has an entry for each of its names."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    module: str
    """Name of the module that holds it."""
    tied_to: Optional[str] = None
    """The first name of the same tensor, or None if this is the first."""
    follows_load_dtype: bool = True
    """Whether loading in another dtype changes this one's, or the model's code fixes it."""

    @property
    def numel(self) -> int:
        """Number of elements."""
        return _product(self.shape)


@dataclass(frozen=True)
class BufferEntry:
    """One buffer."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    persistent: bool
    """Whether checkpoints hold it."""
    follows_load_dtype: bool = True

    @property
    def numel(self) -> int:
        """Number of elements."""
        return _product(self.shape)


@dataclass(frozen=True)
class CacheLayer:
    """What transformers' dynamic cache keeps for one layer of the language model."""

    kind: str
    """``full_attention``, ``sliding_attention``, ``linear_attention``, … ; ``dummy`` keeps nothing."""
    window: Optional[int] = None
    """Tokens that a sliding layer sees."""


@dataclass(frozen=True)
class Skeleton:
    """A model without its weights, in the order in which transformers registers things."""

    architecture: str
    """Class name, such as ``LlamaForCausalLM``."""
    model_type: str
    transformers_version: str
    dtype: str
    """The load dtype that the entries' dtypes are given for."""
    config: dict[str, Any]
    """The config with every default filled in, and with the common names for a family's own ones."""
    modules: tuple[ModuleEntry, ...]
    parameters: tuple[ParameterEntry, ...]
    buffers: tuple[BufferEntry, ...]
    input_embeddings: Optional[str] = None
    """Name of the module that holds the input embedding."""
    output_embeddings: Optional[str] = None
    """Name of the LM head's module."""
    tied_names: tuple[str, ...] = ()
    """All parameter names that transformers ties, sources and targets."""
    keep_in_fp32: tuple[str, ...] = ()
    """Name patterns that stay in float32 when loading in float16."""
    keep_in_fp32_strict: tuple[str, ...] = ()
    """Name patterns that stay in float32 when loading in float16 or bfloat16."""
    cache_layers: tuple[CacheLayer, ...] = ()
    """Empty where the model keeps no cache, or where this transformers does not tell."""
    renamings: tuple[tuple[str, str], ...] = ()
    """What loading replaces in a checkpoint's names: regular expression and replacement, in order."""
    aliases: tuple[tuple[str, str], ...] = ()
    """Common names that stand in `config` beside a family's own ones, dotted: (``hidden_size``, ``n_embd``)."""
    expert_pattern: str = ""
    """Under which model's rules old names of expert projections are read today (``mixtral``, ``qwen2_moe``)."""
    format_version: int = FORMAT_VERSION

    @property
    def unique_parameters(self) -> list[ParameterEntry]:
        """Each tensor once, under its first name."""
        return [entry for entry in self.parameters if entry.tied_to is None]


def skeleton_from_dict(value: dict[str, Any]) -> Skeleton:
    """The skeleton that `dataclasses.asdict` turned into `value`, after a trip through JSON.

    Raises:
        ValueError, TypeError, KeyError: if `value` is anything else.
    """
    if value["format_version"] != FORMAT_VERSION:
        raise ValueError(f"skeleton format {value['format_version']}")
    fields = dict(value)
    fields["modules"] = tuple(ModuleEntry(**entry) for entry in value["modules"])
    fields["parameters"] = tuple(_with_shape(ParameterEntry, entry) for entry in value["parameters"])
    fields["buffers"] = tuple(_with_shape(BufferEntry, entry) for entry in value["buffers"])
    fields["cache_layers"] = tuple(CacheLayer(**entry) for entry in value["cache_layers"])
    for key in ("renamings", "aliases"):
        fields[key] = tuple((str(old), str(new)) for old, new in value[key])
    for key in ("tied_names", "keep_in_fp32", "keep_in_fp32_strict"):
        fields[key] = tuple(value[key])
    return Skeleton(**fields)


def _with_shape(entry_class: Any, entry: dict[str, Any]) -> Any:
    return entry_class(**{**entry, "shape": tuple(int(size) for size in entry["shape"])})


def _product(shape: tuple[int, ...]) -> int:
    numel = 1
    for size in shape:
        numel *= size
    return numel
