"""The model of a plan as it stands after loading: built without data, its tensors made in loading's order.

Needs torch and transformers, bitsandbytes for a quantized model. The order is that of ``from_pretrained`` in
transformers 5 (``core_model_loading.py``): one block of the expected size is asked for and given back, then each
tensor in the natural order of its name; one that is to be quantized comes in 16 bit, is packed, and goes.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from typing import Any, Callable

from workbench.architecture.build import model_class_of
from workbench.vram.plan import Plan
from workbench.vram.simulate.layers import TEMPLATE, LayerChoice, choose_layers
from workbench.vram.simulate.trace import NO_LAYER

_OVERLOOKED_ATTRIBUTES = ("training", "layer_idx", "layer_index", "layer_id", "idx", "block_idx", "layer_number")


@dataclass
class Built:
    """A model on the meta device, with some of its layers left out."""

    model: Any
    stack: str
    """Path of the list of layers that was shortened, or empty."""
    choice: LayerChoice
    total_layers: int
    quantizer: Any = None


def build(config: dict[str, Any], plan: Plan, all_layers: bool) -> Built:
    """The model of `config` on the meta device, without the layers that repeat others.

    Raises:
        WorkbenchError: as for a skeleton.
    """
    import torch

    model_class, parsed = model_class_of(config)
    supported = getattr(model_class, "_supports_sdpa", False)
    parsed._attn_implementation = "sdpa" if supported and plan.attention != "eager" else "eager"
    if getattr(parsed, "is_encoder_decoder", False):
        # Labels are shifted with these; which tokens they are takes no memory.
        for key in ("decoder_start_token_id", "pad_token_id"):
            setattr(parsed, key, getattr(parsed, key, None) or 0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, plan.dtype))
    try:
        with torch.device("meta"):
            model = model_class(parsed)
        model.tie_weights()
        built = _shorten(torch, model, all_layers)
        if plan.quant != "none":
            built.quantizer = _prepare_quantizer(torch, model, plan)
    finally:
        torch.set_default_dtype(before)
    return built


def groups_of(built: Built) -> Callable[[str], tuple[str, int]]:
    """Path of a module to the same with ``*`` for its layer's number, and to the group of that layer."""
    if not built.stack:
        return lambda path: (path, NO_LAYER)
    pattern = re.compile(rf"^(.*{re.escape(built.stack)}\.)(\d+)(?=\.|$)")
    groups = built.choice.groups

    def group_of(path: str) -> tuple[str, int]:
        found = pattern.match(path)
        if found is None:
            return path, NO_LAYER
        return f"{found.group(1)}*{path[found.end() :]}", groups[int(found.group(2))]

    return group_of


def _shorten(torch: Any, model: Any, all_layers: bool) -> Built:
    stacks = [
        (path, module)
        for path, module in model.named_modules()
        if isinstance(module, torch.nn.ModuleList) and _is_stack(module)
    ]
    if not stacks or getattr(model.config, "is_encoder_decoder", False):
        return Built(model, "", LayerChoice((), (), 0), 0)
    # Of several, as in a model that also sees, the language model's is the largest.
    path, layers = max(stacks, key=lambda stack: sum(tensor.numel() for tensor in stack[1].parameters()))
    total = len(layers)
    choice = choose_layers([_signature(layer) for layer in layers])
    owner = model.get_submodule(path.rpartition(".")[0])
    if all_layers or not choice.copies or not _rename_layers(model, owner, layers, choice):
        whole = tuple(range(total))
        return Built(model, path, LayerChoice(whole, whole, 0), total)
    setattr(owner, path.rpartition(".")[2], torch.nn.ModuleList([layers[number] for number in choice.kept]))
    return Built(model, path, choice, total)


def _is_stack(modules: Any) -> bool:
    kinds = {type(module).__name__ for module in modules}
    return len(modules) > 1 and any(name.endswith(("Layer", "Block")) for name in kinds)


def _signature(layer: Any) -> Hashable:
    """All that can make one layer work otherwise than another: its modules, shapes and plain attributes."""
    parts: list[Hashable] = []
    for name, module in layer.named_modules():
        attributes = tuple(
            sorted(
                (key, repr(value))
                for key, value in vars(module).items()
                if key not in _OVERLOOKED_ATTRIBUTES
                and not key.startswith("_")
                and isinstance(value, (bool, int, float, str, type(None)))
            )
        )
        shapes = tuple((key, tuple(value.shape)) for key, value in module.named_parameters(recurse=False))
        parts.append((name, type(module).__name__, attributes, shapes))
    return tuple(parts)


def _rename_layers(model: Any, owner: Any, layers: Any, choice: LayerChoice) -> bool:
    """Number the kept layers anew, in the modules and in the lists of the configs; False if those do not fit."""
    total = len(layers)
    held = [model.config, *(module.config for module in owner.modules() if hasattr(module, "config"))]
    configs = {id(text): text for text in (config.get_text_config(decoder=True) for config in held)}.values()
    if any(getattr(config, "num_hidden_layers", None) != total for config in configs):
        return False
    for config in configs:
        for key, value in list(vars(config).items()):
            if isinstance(value, (list, tuple)) and len(value) == total:
                setattr(config, key, [value[number] for number in choice.kept])
        config.num_hidden_layers = len(choice.kept)
    for position, number in enumerate(choice.kept):
        for module in layers[number].modules():
            for key in _OVERLOOKED_ATTRIBUTES[1:]:
                if getattr(module, key, None) == number and isinstance(getattr(module, key), int):
                    setattr(module, key, position)
    return True


def load(built: Built, plan: Plan, device: str, tracker: Any, is_fake: bool, moved: bool) -> None:
    """Give every tensor of the model its place on `device`, in the order in which loading does.

    Args:
        built: changed in place.
        plan: says dtype and quantization.
        device: where to.
        tracker: records what is made.
        is_fake: whether tensors have no data; else they get some, and modules are quantized for real.
        moved: whether the model was loaded on the CPU and moved as a whole, module by module.
    """
    import torch

    model = built.model
    dtype = getattr(torch, plan.dtype)
    fp32 = _fp32_patterns(torch, model, dtype)
    quantizer = built.quantizer
    if is_fake and not moved:
        _warm_up(torch, built, device, tracker)
    made: dict[int, Any] = {}
    places = list(_places(model)) if moved else sorted(_places(model), key=lambda place: _natural(place[0]))
    for name, owner, key in places:
        tensor = getattr(owner, key)
        with tracker.working_on(name):
            placed = made.get(id(tensor))
            if placed is None:
                placed = _place(torch, model, quantizer, name, owner, key, tensor, fp32, device, is_fake)
                made[id(tensor)] = placed
        owner._parameters[key] = placed
    for name, module in model.named_modules():
        for key, buffer in list(module._buffers.items()):
            if buffer is not None:
                with tracker.working_on(f"{name}.{key}"):
                    module._buffers[key] = _buffer(torch, module, key, buffer, f"{name}.{key}", fp32, dtype, device)
    _place_plain_tensors(torch, model, device, tracker)
    model.eval()


def _places(model: Any) -> Iterator[tuple[str, Any, str]]:
    for path, module in model.named_modules():
        for key, parameter in module._parameters.items():
            if parameter is not None:
                yield (f"{path}.{key}" if path else key), module, key


def _place(
    torch: Any,
    model: Any,
    quantizer: Any,
    name: str,
    owner: Any,
    key: str,
    tensor: Any,
    fp32: list[str],
    device: str,
    is_fake: bool,
) -> Any:
    quantized = quantizer is not None and quantizer.param_needs_quantization(model, name)
    if quantized:
        return _quantized(torch, model, owner, tensor, device, is_fake)
    dtype = tensor.dtype
    if any(re.search(pattern, name) for pattern in fp32) and tensor.is_floating_point():
        dtype = torch.float32
    return torch.nn.Parameter(_filled(torch, tuple(tensor.shape), dtype, device), requires_grad=tensor.requires_grad)


def _filled(torch: Any, shape: tuple[int, ...], dtype: Any, device: str) -> Any:
    tensor = torch.empty(shape, dtype=dtype, device=device)
    return tensor.uniform_(-0.05, 0.05) if dtype.is_floating_point else tensor.zero_()


def _quantized(torch: Any, model: Any, owner: Any, tensor: Any, device: str, is_fake: bool) -> Any:
    """The weight of a bitsandbytes module as loading leaves it.

    Its own parameter classes cannot hold a tensor without data; the modules only ask for their attributes.
    """
    import bitsandbytes

    shape = tuple(tensor.shape)
    if owner.source_cls.__name__ == "Conv1D":
        # The stand-in was made for (in, out) already; what is quantized is the transposed checkpoint weight.
        shape = (owner.out_features, owner.in_features)
    is_int8 = isinstance(owner, bitsandbytes.nn.Linear8bitLt)
    dtype = torch.float16 if is_int8 else model.dtype
    # bitsandbytes quantizes to int8 on the way from the CPU only (Int8Params.to).
    weight = _filled(torch, shape, dtype, device if is_fake else "cpu")
    attributes = dict(vars(tensor))
    if not is_fake:
        if is_int8:
            return bitsandbytes.nn.Int8Params(weight, requires_grad=False, has_fp16_weights=False).to(device)
        return bitsandbytes.nn.Params4bit(weight, requires_grad=False, **attributes).to(device)
    if is_int8:
        packed, scales, _ = bitsandbytes.functional.int8_vectorwise_quant(weight)
        parameter = torch.nn.Parameter(packed, requires_grad=False)
        parameter.CB, parameter.SCB, parameter.has_fp16_weights = parameter.data, scales, False
        # The outliers' columns depend on the data; without a threshold there are none.
        owner.state.threshold = 0.0
        return parameter
    packed, state = bitsandbytes.functional.quantize_4bit(
        weight,
        blocksize=tensor.blocksize,
        compress_statistics=tensor.compress_statistics,
        quant_type=tensor.quant_type,
        quant_storage=tensor.quant_storage,
    )
    parameter = torch.nn.Parameter(packed, requires_grad=False)
    for key, value in attributes.items():
        setattr(parameter, key, value)
    parameter.quant_state, parameter.bnb_quantized = state, True
    owner.quant_state = state
    return parameter


def _buffer(torch: Any, module: Any, key: str, buffer: Any, name: str, fp32: list[str], dtype: Any, device: str) -> Any:
    kept = buffer.dtype
    persistent = key not in module._non_persistent_buffers_set
    if persistent and buffer.is_floating_point() and any(re.search(pattern, name) for pattern in fp32):
        kept = torch.float32
    return _filled(torch, tuple(buffer.shape), kept, device)


def _place_plain_tensors(torch: Any, model: Any, device: str, tracker: Any) -> None:
    """Tensors that a module keeps as a plain attribute, such as the unscaled frequencies of a rotary embedding."""
    for path, module in model.named_modules():
        for key, value in list(vars(module).items()):
            if isinstance(value, torch.Tensor) and value.device.type == "meta":
                buffer = module._buffers.get(key.replace("original_", ""))
                with tracker.working_on(f"{path}.{key}"):
                    setattr(
                        module, key, buffer if buffer is not None else _filled(torch, value.shape, value.dtype, device)
                    )


def _fp32_patterns(torch: Any, model: Any, dtype: Any) -> list[str]:
    names: set[str] = set()
    if dtype == torch.float16:
        names |= set(getattr(model, "_keep_in_fp32_modules", None) or ())
    if dtype in (torch.float16, torch.bfloat16):
        names |= set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    return [name.replace("*", ".*") for name in names]


def _prepare_quantizer(torch: Any, model: Any, plan: Plan) -> Any:
    """Let transformers replace the modules that bitsandbytes takes, as it does when it loads."""
    from transformers import BitsAndBytesConfig
    from transformers.quantizers.auto import AutoHfQuantizer

    dtype = getattr(torch, plan.dtype)
    if plan.quant == "int8":
        config = BitsAndBytesConfig(load_in_8bit=True)
    else:
        config = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=plan.quant,
            bnb_4bit_use_double_quant=plan.double_quant,
            bnb_4bit_compute_dtype=dtype,
        )
    quantizer = AutoHfQuantizer.from_config(config, pre_quantized=False)
    quantizer.preprocess_model(model=model, device_map=None, dtype=dtype)
    setattr(model, "is_loaded_in_8bit" if plan.quant == "int8" else "is_loaded_in_4bit", True)
    model.is_quantized = True
    model.hf_quantizer = quantizer
    return quantizer


def _warm_up(torch: Any, built: Built, device: str, tracker: Any) -> None:
    """What ``caching_allocator_warmup`` asks for: the expected size of the whole model."""
    total = 0.0
    seen = set()
    group_of = groups_of(built)
    for name, owner, key in _places(built.model):
        tensor = getattr(owner, key)
        if id(tensor) not in seen:
            seen.add(id(tensor))
            size = float(tensor.element_size())
            if built.quantizer is not None:
                size = built.quantizer.param_element_size(built.model, name, tensor)
            stands_for = 1 + built.choice.copies if group_of(name)[1] == TEMPLATE else 1
            total += tensor.numel() * size * stands_for
    with tracker.working_on("allocator warm-up"):
        torch.empty(int(total // 2), dtype=torch.float16, device=device)


def _natural(name: str) -> list[tuple[int, Any]]:
    return [(0, int(part)) if part.isdigit() else (1, part) for part in name.split(".")]
