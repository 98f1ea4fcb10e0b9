"""Generation: the prompt, the first new token, and the last one. Needs torch."""

from __future__ import annotations

import functools
import inspect
from typing import Any, Callable

from workbench.errors import WorkbenchError
from workbench.vram.plan import QUANTIZED_KV_DTYPES, Plan
from workbench.vram.simulate import quantized_cache
from workbench.vram.simulate.training import label_weights


def run_steps(
    model: Any, plan: Plan, stack: str, device: str, tracker: Any, progress: Callable[[str, int], None]
) -> None:
    """Run prefill, the first decoding step and the last.

    Between the two the cache is grown at once: a dynamic cache only gets longer from step to step.

    Args:
        model: as loaded.
        plan: the job.
        stack: path of the model's layers, to attribute the cache to them.
        device: where tensors are.
        tracker: records.
        progress: told phase and step before each.

    Raises:
        WorkbenchError: ``unsupported-plan`` for a cache in another dtype than the model's, which transformers has not.
    """
    import torch

    if plan.kv_dtype not in ("auto", plan.dtype, *QUANTIZED_KV_DTYPES):
        raise WorkbenchError(
            "unsupported-plan",
            f"A KV cache in {plan.kv_dtype} beside a model in {plan.dtype} is not simulated: transformers keeps the "
            "model's dtype.",
            "The estimate covers it; or simulate with kv_dtype auto.",
        )
    label_weights(model, plan, tracker)
    with torch.no_grad():
        progress("prefill", 1)
        tracker.begin("prefill", 1)
        with tracker.working_on("batch"):
            ids = torch.ones((plan.batch, plan.sequence_length), dtype=torch.int64, device=device)
            inputs: dict[str, Any] = {"input_ids": ids}
            if plan.padded:
                inputs["attention_mask"] = torch.ones_like(ids)
        parameters = inspect.signature(type(model).forward).parameters
        if not _generates(model):
            _forward(model, inputs, {}, tracker)
            return
        _generate(torch, model, plan, stack, device, tracker, progress, inputs, "logits_to_keep" in parameters)


def _generates(model: Any) -> bool:
    can = getattr(model, "can_generate", None)
    return bool(can()) if can is not None else False


def _generate(
    torch: Any,
    model: Any,
    plan: Plan,
    stack: str,
    device: str,
    tracker: Any,
    progress: Callable[[str, int], None],
    inputs: dict[str, Any],
    keeps_last: bool,
) -> None:
    options: dict[str, Any] = {"use_cache": True}
    if keeps_last:
        options["logits_to_keep"] = 1
    key = "input_ids"
    if model.config.is_encoder_decoder:
        key = "decoder_input_ids"
        inputs["encoder_outputs"] = model.get_encoder()(inputs.pop("input_ids"))
        inputs[key] = torch.ones((plan.batch, 1), dtype=torch.int64, device=device)
    elif plan.cache == "static":
        options["past_key_values"] = _static_cache(model, plan)
    elif plan.kv_dtype in QUANTIZED_KV_DTYPES:
        options["past_key_values"] = quantized_cache.make(model, plan)
    cache = _forward(model, inputs, options, tracker)
    steps = max(plan.new_tokens - 1, 0)
    name = "cache_params" if cache is not None and not hasattr(cache, "get_seq_length") else "past_key_values"
    options[name] = cache
    for step in sorted({1, steps} - {0})[:2] if steps else ():
        if step > 2:
            tracker.begin("between", step - 1)
            _grow(torch, cache, step - 2, stack, tracker)
        progress("decode", step)
        tracker.begin("decode", step)
        inputs[key] = torch.ones((plan.batch, 1), dtype=torch.int64, device=device)
        _tell_length(cache, plan.sequence_length + step - 1)
        if "attention_mask" in inputs:
            length = plan.sequence_length + step
            inputs["attention_mask"] = torch.ones((plan.batch, length), dtype=torch.int64, device=device)
        _forward(model, inputs, options, tracker)


def _static_cache(model: Any, plan: Plan) -> Any:
    from transformers import StaticCache

    longest = plan.sequence_length + max(plan.new_tokens - 1, 0)
    cache = StaticCache(config=model.config, max_cache_len=longest)
    _tell_length(cache, 0)
    return cache


def _tell_length(cache: Any, tokens: int) -> None:
    """Static layers keep their length in a tensor, which some models read: one without data has none to tell."""
    for layer in getattr(cache, "layers", ()):
        if type(layer).__name__.startswith("Static"):
            layer.get_seq_length = functools.partial(int, tokens)


def _forward(model: Any, inputs: dict[str, Any], options: dict[str, Any], tracker: Any) -> Any:
    outputs = model(**inputs, **options)
    logits = getattr(outputs, "logits", None)
    if logits is not None and options:
        tracker.label(logits, "logits")
        # The last position in float32, as ``generate`` samples from it.
        tracker.label(logits[:, -1, :].float(), "logits")
    cache = getattr(outputs, "past_key_values", None)
    if cache is None:
        cache = getattr(outputs, "cache_params", None)
    for tensor in cache_tensors(cache):
        tracker.label(tensor, "kv_cache")
    return cache


def cache_tensors(cache: Any) -> list[Any]:
    """All tensors that a cache of transformers holds."""
    if cache is None:
        return []
    parts = [getattr(cache, name, None) for name in ("self_attention_cache", "cross_attention_cache")]
    found = []
    for part in [part for part in parts if part is not None] or [cache]:
        for layer in getattr(part, "layers", None) or [part]:
            found += _tensors(list(vars(layer).values()))
    return found


def _tensors(values: list[Any]) -> list[Any]:
    found = []
    for value in values:
        if hasattr(value, "untyped_storage"):
            found.append(value)
        elif isinstance(value, (list, tuple)):
            found += _tensors(list(value))
        elif isinstance(value, dict):
            found += _tensors(list(value.values()))
    return found


def _grow(torch: Any, cache: Any, tokens: int, stack: str, tracker: Any) -> None:
    """Give every layer that grows with the text `tokens` more."""
    for index, layer in enumerate(getattr(getattr(cache, "self_attention_cache", cache), "layers", ())):
        keys = getattr(layer, "keys", None)
        with tracker.working_on(f"{stack}.{index}" if stack else "cache"):
            if quantized_cache.grow(layer, tokens, tracker):
                continue
            if keys is None or keys.dim() != 4 or not type(layer).__name__.startswith("Dynamic"):
                continue
            window = getattr(layer, "sliding_window", None)
            if window is None:
                for name in ("keys", "values"):
                    old = getattr(layer, name)
                    shape = (*old.shape[:2], old.shape[2] + tokens, old.shape[3])
                    setattr(layer, name, torch.empty(shape, dtype=old.dtype, device=old.device))
                    tracker.label(getattr(layer, name), "kv_cache")
                    del old
            elif hasattr(layer, "cumulative_length"):
                _grow_window(torch, layer, tokens, tracker)


def _grow_window(torch: Any, layer: Any, tokens: int, tracker: Any) -> None:
    """A sliding layer keeps at most its window, as a view that leaves out the oldest token."""
    held = layer.keys.shape[2]
    wanted = min(held + tokens, layer.sliding_window - 1)
    if wanted > held:
        for name in ("keys", "values"):
            old = getattr(layer, name)
            shape = (*old.shape[:2], wanted, old.shape[3])
            setattr(layer, name, torch.empty(shape, dtype=old.dtype, device=old.device))
            tracker.label(getattr(layer, name), "kv_cache")
            del old
    if isinstance(layer.cumulative_length, int):
        layer.cumulative_length += tokens
