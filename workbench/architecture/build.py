"""Builds the skeleton of a config on the meta device. Needs torch and transformers: worker only.

Nothing here touches a process-wide switch of torch (default dtype, default device, weight initialisation
flags), as another thread may be generating at the same moment; the one library hook that sees all
threads ignores the others.
"""

from __future__ import annotations

import contextlib
import copy
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any, Optional

from workbench.architecture.skeleton import (
    FLOAT_DTYPES,
    BufferEntry,
    CacheLayer,
    ModuleEntry,
    ParameterEntry,
    Skeleton,
)
from workbench.architecture.validate import MAX_PARAMETERS, check_config
from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.reference import nearest
from workbench.packages import missing, need
from workbench.text import one_line

MAX_MODULES = 300_000
"""A 405B model has 1,600 modules, the largest mixture with separate experts tens of thousands."""

# Keys that would make a library fetch code, kernels or weights, or choose other classes than the plain ones.
_IGNORED_KEYS = (
    "auto_map",
    "quantization_config",
    "attn_implementation",
    "_attn_implementation",
    "experts_implementation",
    "_experts_implementation",
    "_name_or_path",
    "name_or_path",
    "custom_pipelines",
    "torch_dtype",
    "dtype",
)

_PURPOSE = "Building a model's skeleton"
# Stands for "the dtype the model is loaded in" while building: no model's code asks for it by name.
_PLACEHOLDER = "bfloat16"


def build_skeleton(config: dict[str, Any], job: Job = SILENT, dtype: Optional[str] = None) -> Skeleton:
    """The modules and tensors of the model that `config` describes, as transformers would build it.

    Args:
        config: the content of a ``config.json``; ``architectures`` chooses the class where it is known.
        job: reports modules built; checked at every module.
        dtype: the load dtype to state; by default the config's own, else float32 as transformers takes it.

    Raises:
        WorkbenchError: ``bad-config``, ``unknown-architecture``, ``remote-code`` (the model needs code from
            its repository, which is never run), ``missing-package``.
        JobCancelled: if the caller asked to stop.
    """
    check_config(config)
    load_dtype = dtype or _stated_dtype(config) or "float32"
    if load_dtype not in FLOAT_DTYPES:
        raise WorkbenchError(
            "bad-config", f"{one_line(load_dtype, 60)} is no load dtype.", f"Choose one of {', '.join(FLOAT_DTYPES)}."
        )
    job.progress("modules", 0, None, "modules", str(config["model_type"]))
    torch, transformers = _libraries()
    prepared = _without_ignored_keys(config)
    parsed = _parse_config(transformers, prepared, config)
    model_class, parsed = _model_class(transformers, parsed, config)
    with _one_line_errors(config), torch.device("meta"), _load_dtype_mode(torch), _module_guard(torch, job):
        model = model_class(parsed)
        model.tie_weights()
    skeleton = _read_off(torch, transformers, model, parsed, load_dtype)
    total = sum(entry.numel for entry in skeleton.unique_parameters)
    if total > MAX_PARAMETERS:
        raise WorkbenchError(
            "bad-config",
            f"A model of this config would have {total:,} parameters.",
            f"At most {MAX_PARAMETERS:.0e} are taken for meant.",
        )
    return skeleton


def model_class_of(config: dict[str, Any]) -> tuple[Any, Any]:
    """The class that transformers builds `config` with, and the config object that it takes.

    Raises:
        WorkbenchError: as `build_skeleton` does.
    """
    check_config(config)
    transformers = _libraries()[1]
    return _model_class(transformers, _parse_config(transformers, _without_ignored_keys(config), config), config)


def transformers_version() -> str:
    """The installed version of transformers, without importing it.

    Raises:
        WorkbenchError: ``missing-package``.
    """
    from importlib import metadata

    try:
        return metadata.version("transformers")
    except metadata.PackageNotFoundError:
        raise missing("transformers", _PURPOSE) from None


def _libraries() -> tuple[Any, Any]:
    return need("torch", _PURPOSE), need("transformers", _PURPOSE)


def _without_ignored_keys(config: dict[str, Any]) -> dict[str, Any]:
    kept = {key: copy.deepcopy(value) for key, value in config.items() if key not in _IGNORED_KEYS}
    for key, value in kept.items():
        if key.endswith("config") and isinstance(value, dict):
            kept[key] = {name: inner for name, inner in value.items() if name not in _IGNORED_KEYS}
    return kept


def _stated_dtype(config: dict[str, Any]) -> Optional[str]:
    for section in (config, config.get("text_config")):
        if isinstance(section, dict):
            stated = section.get("dtype") or section.get("torch_dtype")
            if isinstance(stated, str) and stated != "auto":
                return stated.replace("torch.", "")
    return None


def _parse_config(transformers: Any, prepared: dict[str, Any], config: dict[str, Any]) -> Any:
    model_type = prepared["model_type"]
    if model_type not in transformers.CONFIG_MAPPING:
        if config.get("auto_map"):
            raise WorkbenchError(
                "remote-code",
                f"The model type {one_line(model_type, 60)} is code in its own repository ({_code_files(config)}), "
                "which is never run here.",
                "Read that code; a model that transformers itself knows needs none.",
            )
        close = nearest(model_type, transformers.CONFIG_MAPPING)
        hint = f"Nearest: {', '.join(close)}. Else" if close else "Check the spelling, or"
        raise WorkbenchError(
            "unknown-architecture",
            f"transformers {transformers.__version__} does not know the model type {one_line(model_type, 60)}.",
            f"{hint} upgrade: {sys.executable} -m pip install -U transformers",
        )
    with _one_line_errors(config):
        return transformers.CONFIG_MAPPING[model_type].from_dict(prepared)


def _code_files(config: dict[str, Any]) -> str:
    """Repositories and files that the config would have run: ``repo--module.Class``, or ``module.Class`` of its own."""
    mapped = config.get("auto_map")
    named = mapped.values() if isinstance(mapped, dict) else ()
    files = []
    for reference in named:
        for one in reference if isinstance(reference, (list, tuple)) else [reference]:
            if isinstance(one, str):
                repository, _, code = one.rpartition("--")
                file = code.rpartition(".")[0] + ".py"
                files.append(f"{file} of {repository}" if repository else file)
    return one_line(", ".join(dict.fromkeys(files)), 160) or "auto_map"


def _model_class(transformers: Any, parsed: Any, config: dict[str, Any]) -> tuple[Any, Any]:
    """The class that ``architectures`` names if it fits the config, else the one for the most specific task.

    With it the config it takes: the language part alone where the named class is only that part.
    """
    text = parsed.get_text_config(decoder=True)
    named = config.get("architectures")
    for name in named if isinstance(named, list) else []:
        if isinstance(name, str) and name.isidentifier():
            found = getattr(transformers, name, None)
            wanted = getattr(found, "config_class", None)
            if isinstance(wanted, type) and isinstance(parsed, wanted):
                return found, parsed
            if isinstance(wanted, type) and isinstance(text, wanted):
                return found, text
    for auto_name in _auto_classes(parsed):
        mapping = getattr(transformers, auto_name)._model_mapping
        if type(parsed) in mapping:
            try:
                found = mapping[type(parsed)]
            except ValueError:
                # A few are registered under a class that the library does not have.
                continue
            return (found[0] if isinstance(found, (list, tuple)) else found), parsed
    raise WorkbenchError(
        "unknown-architecture",
        f"transformers {transformers.__version__} has a config but no model for {parsed.model_type}.",
        "Choose another model type.",
    )


def _auto_classes(parsed: Any) -> list[str]:
    causal = ["AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel"]
    if getattr(parsed, "is_encoder_decoder", False):
        return ["AutoModelForSeq2SeqLM", *causal]
    if hasattr(parsed, "text_config") and hasattr(parsed, "vision_config"):
        return ["AutoModelForImageTextToText", *causal]
    if getattr(parsed, "is_decoder", False):
        return causal
    # Encoders of the BERT kind are registered as causal models too, which they are only with is_decoder.
    return ["AutoModelForMaskedLM", *causal]


# As transformers 5 checks the kinds of a config's values.
_FIELD = re.compile(r"Field '(\w+)' expected ([\w\[\], .|]+), got [^(]* \(value: (.*)\)")
_KINDS = {"int": "a whole number", "float": "a number", "str": "a text", "bool": "true or false"}


@contextlib.contextmanager
def _one_line_errors(config: dict[str, Any]) -> Iterator[None]:
    """Whatever a library raises on a config, as one line: its last line says what is wrong."""
    try:
        yield
    except (WorkbenchError, JobCancelled, MemoryError):
        raise
    except ImportError as error:
        wanted = re.search(r"pip install ([\w.-]+)", str(error))
        package = wanted.group(1) if wanted else error.name or "another package"
        raise missing(package, f"A {one_line(str(config.get('model_type')), 60)} model") from None
    except Exception as error:
        raise _one_line_error(error, one_line(str(config.get("model_type")), 60)) from None


def _one_line_error(error: Exception, model_type: str) -> WorkbenchError:
    field = _FIELD.search(str(error))
    if field is not None:
        key, wanted, given = field[1], _KINDS.get(field[2], field[2]), "null" if field[3] == "None" else field[3]
        return WorkbenchError(
            "bad-config",
            f"{key} is {one_line(given, 60)}; transformers takes {wanted} there in a {model_type} config.",
            "Correct that value.",
            details=f"{type(error).__name__}: {error}"[:4000],
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    said = f"{lines[-1]} is missing" if isinstance(error, KeyError) else lines[-1]
    missing_value = "NoneType" in str(error) or isinstance(error, (AttributeError, KeyError, TypeError))
    return WorkbenchError(
        "bad-config",
        f"transformers cannot build a {model_type} model of this config: {one_line(said, 200).rstrip('.')}.",
        "A value it needs is missing: take the model's whole config.json." if missing_value else "Correct that value.",
        details=f"{type(error).__name__}: {error}"[:4000],
    )


def _load_dtype_mode(torch: Any) -> Any:
    """A context in which floating tensors whose dtype the model's code leaves open get the placeholder dtype.

    It stands for ``torch.set_default_dtype``, which would change what every other thread computes. Open is the
    dtype of a float32 tensor that was made from no floating tensor and without naming a dtype.
    """
    from torch.overrides import TorchFunctionMode

    placeholder = getattr(torch, _PLACEHOLDER)
    names_a_dtype = {torch.Tensor.float, torch.Tensor.to, torch.Tensor.type, torch.Tensor.view, torch.from_numpy}

    class LoadDtypeMode(TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            given = kwargs or {}
            if getattr(func, "__module__", "") == "torch.nn.init":
                # Values of tensors without storage: a quarter of the time for nothing.
                return args[0] if args else given.get("tensor")
            made = func(*args, **given)
            if (
                isinstance(made, torch.Tensor)
                and made.dtype == torch.float32
                and given.get("dtype") is None
                and func not in names_a_dtype
                and not any(_is_floating(torch, value) for value in (*args, *given.values()))
            ):
                return made.to(placeholder)
            return made

    return LoadDtypeMode()


def _is_floating(torch: Any, value: Any) -> bool:
    if isinstance(value, torch.Tensor):
        return bool(value.is_floating_point())
    if isinstance(value, (list, tuple)):
        return any(_is_floating(torch, item) for item in value)
    return hasattr(value, "__array__")


@contextlib.contextmanager
def _module_guard(torch: Any, job: Job) -> Iterator[None]:
    """Count the modules that this thread registers: progress, cancelling, and an end to endless ones."""
    mine = threading.get_ident()
    count = 0

    def on_registration(parent: Any, name: str, child: Any) -> None:
        nonlocal count
        if threading.get_ident() != mine:
            return
        count += 1
        if count % 64 == 0:
            job.check()
            job.progress("modules", count, None, "modules", name)
        if count > MAX_MODULES:
            raise WorkbenchError(
                "bad-config",
                f"A model of this config has more than {MAX_MODULES:,} modules.",
                "Check the number of layers and experts.",
            )

    handle = torch.nn.modules.module.register_module_module_registration_hook(on_registration)
    try:
        yield
    finally:
        handle.remove()


def _read_off(torch: Any, transformers: Any, model: Any, parsed: Any, dtype: str) -> Skeleton:
    modules = tuple(_module_entry(torch, name, module) for name, module in model.named_modules())
    return Skeleton(
        architecture=type(model).__name__,
        model_type=str(parsed.model_type),
        transformers_version=str(transformers.__version__),
        dtype=dtype,
        config=_full_config(parsed),
        modules=modules,
        parameters=tuple(_parameters(model, dtype)),
        buffers=tuple(_buffers(model, dtype)),
        input_embeddings=_module_name(model, _quiet_call(model, "get_input_embeddings")),
        output_embeddings=_module_name(model, _quiet_call(model, "get_output_embeddings")),
        tied_names=_tied_names(model),
        keep_in_fp32=tuple(sorted(getattr(model, "_keep_in_fp32_modules", None) or ())),
        keep_in_fp32_strict=tuple(sorted(getattr(model, "_keep_in_fp32_modules_strict", None) or ())),
        cache_layers=_cache_layers(parsed),
        renamings=_renamings(model),
        aliases=_aliases(parsed),
        expert_pattern=_expert_pattern(str(parsed.model_type)),
    )


def _module_entry(torch: Any, name: str, module: Any) -> ModuleEntry:
    return ModuleEntry(
        name=name,
        class_name=type(module).__name__,
        linear_kind=_linear_kind(torch, module),
        layer_kind=_layer_kind(torch, module),
        groups=int(getattr(module, "groups", 1)) if isinstance(module, torch.nn.modules.conv._ConvNd) else 1,
        is_transposed=getattr(module, "is_transposed", False) is True,
    )


def _layer_kind(torch: Any, module: Any) -> str:
    if isinstance(module, torch.nn.Linear):
        return "linear"
    if isinstance(module, torch.nn.Embedding):
        return "embedding"
    if isinstance(module, (torch.nn.Conv1d, torch.nn.Conv2d, torch.nn.Conv3d)):
        return "convolution"
    return _linear_kind(torch, module)


def _expert_pattern(model_type: str) -> str:
    """Which model's conversion of checkpoints this one shares, as far as adapters depend on it."""
    try:
        from transformers import conversion_mapping

        if conversion_mapping.get_checkpoint_conversion_mapping(model_type) is None:
            return ""
        found = {**conversion_mapping._MODEL_TO_CONVERSION_PATTERN, "mixtral": "mixtral"}.get(model_type, "")
    except (ImportError, AttributeError):
        # Before version 5 experts are modules of their own.
        return ""
    return found if found in ("mixtral", "qwen2_moe") else ""


def _linear_kind(torch: Any, module: Any) -> str:
    # bitsandbytes' integration takes torch's Linear by exact type and Conv1D with its subclasses.
    if type(module) is torch.nn.Linear:
        return "linear"
    return "conv1d" if any(base.__name__ == "Conv1D" for base in type(module).__mro__) else ""


def _parameters(model: Any, dtype: str) -> Iterator[ParameterEntry]:
    first_names: dict[int, str] = {}
    for name, tensor in model.named_parameters(remove_duplicate=False):
        tied_to = first_names.get(id(tensor))
        first_names.setdefault(id(tensor), name)
        stated, follows = _dtype(tensor, dtype)
        module = name.rpartition(".")[0]
        yield ParameterEntry(name, tuple(tensor.shape), stated, module, tied_to, follows)


def _buffers(model: Any, dtype: str) -> Iterator[BufferEntry]:
    not_persistent = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        for name in module._non_persistent_buffers_set
    }
    for name, tensor in model.named_buffers():
        stated, follows = _dtype(tensor, dtype)
        yield BufferEntry(name, tuple(tensor.shape), stated, name not in not_persistent, follows)


def _dtype(tensor: Any, dtype: str) -> tuple[str, bool]:
    name = str(tensor.dtype).replace("torch.", "")
    return (dtype, True) if name == _PLACEHOLDER else (name, False)


def _quiet_call(model: Any, method: str) -> Any:
    # Models without such a module raise instead of returning None.
    try:
        return getattr(model, method)()
    except (NotImplementedError, AttributeError):
        return None


def _module_name(model: Any, wanted: Any) -> Optional[str]:
    return next((name for name, module in model.named_modules() if module is wanted), None)


def _tied_names(model: Any) -> tuple[str, ...]:
    keys = getattr(model, "all_tied_weights_keys", None)
    if not isinstance(keys, dict):
        # transformers 4: only the targets are declared.
        return tuple(sorted(getattr(model, "_tied_weights_keys", None) or ()))
    return tuple(sorted(set(keys) | set(keys.values())))


def _cache_layers(parsed: Any) -> tuple[CacheLayer, ...]:
    try:
        # Only current releases have it; older ones are served by the config's own layer types.
        from transformers.cache_utils import get_layer_types_and_kwargs

        kinds, arguments = get_layer_types_and_kwargs(parsed.get_text_config(decoder=True))
    except (ImportError, AttributeError, TypeError, ValueError):
        return ()
    windows = (given.get("sliding_window") for given in arguments)
    return tuple(
        CacheLayer(str(kind), window if isinstance(window, int) else None) for kind, window in zip(kinds, windows)
    )


def _renamings(model: Any) -> tuple[tuple[str, str], ...]:
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
    except ImportError:
        # Before version 5 names in checkpoints and models are the same.
        return ()
    return tuple(
        (source, rule.target_patterns[0])
        for rule in get_model_conversion_mapping(model)
        if type(rule).__name__ == "WeightRenaming" and len(rule.target_patterns) == 1
        for source in rule.source_patterns
    )


def _full_config(parsed: Any) -> dict[str, Any]:
    """The config as plain JSON values, with the common names beside a family's own (n_embd: hidden_size)."""
    import json

    full: dict[str, Any] = json.loads(json.dumps(parsed.to_dict(), default=str))
    _add_common_names(parsed, full)
    for key in getattr(parsed, "sub_configs", None) or ():
        if isinstance(full.get(key), dict):
            _add_common_names(getattr(parsed, key), full[key])
    return full


def _aliases(parsed: Any) -> tuple[tuple[str, str], ...]:
    found = [(common, own) for common, own in (getattr(parsed, "attribute_map", None) or {}).items()]
    for key in getattr(parsed, "sub_configs", None) or ():
        inner = getattr(getattr(parsed, key, None), "attribute_map", None) or {}
        found += [(f"{key}.{common}", f"{key}.{own}") for common, own in inner.items()]
    return tuple(sorted(found))


def _add_common_names(parsed: Any, full: dict[str, Any]) -> None:
    for common, own in (getattr(parsed, "attribute_map", None) or {}).items():
        if own in full:
            full.setdefault(common, full[own])
