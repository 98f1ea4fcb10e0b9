"""Training steps: adapters, optimizer, forward, backward, step. Needs torch; peft for adapters."""

from __future__ import annotations

from typing import Any, Callable

from workbench.errors import WorkbenchError
from workbench.packages import need
from workbench.vram.plan import ALL_LINEAR, Plan
from workbench.vram.simulate.device import replaced

STEPS = 2
"""The optimizer's state exists from the end of the first step; the second stands for all others."""
LOSS_CHUNK_TOKENS = 1024
"""Tokens whose logits are held at once under a chunked loss."""


def prepare(model: Any, plan: Plan, tracker: Any, empty_cache: Callable[[], None]) -> Any:
    """Make `model` ready to train as `plan` says.

    Args:
        model: as loaded.
        plan: the training job.
        tracker: records what is made.
        empty_cache: called where peft gives cached memory back to the driver.

    Returns:
        The model to call; with adapters, peft's around the given one.
    """
    import torch

    tracker.begin("prepare", 0)
    if plan.prepares_kbit:
        _to_float32(torch, model, tracker)
        empty_cache()
    if plan.has_adapters:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        model = _with_adapters(torch, model, plan, tracker)
    if plan.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model.train()
    return model


def _to_float32(torch: Any, model: Any, tracker: Any) -> None:
    """What peft's ``prepare_model_for_kbit_training`` does to all that is not quantized, one tensor at a time."""
    converted: dict[int, Any] = {}
    for path, module in list(model.named_modules()):
        for key, parameter in list(module._parameters.items()):
            if parameter is None or parameter.dtype not in (torch.float16, torch.bfloat16):
                continue
            name = f"{path}.{key}"
            if id(parameter) not in converted:
                with tracker.working_on(name):
                    converted[id(parameter)] = torch.nn.Parameter(parameter.detach().to(torch.float32))
            # The old tensor goes at once: peft replaces a parameter's data in place.
            module._parameters[key] = converted[id(parameter)]
            del parameter
    model.config.dtype = torch.float32


def _with_adapters(torch: Any, model: Any, plan: Plan, tracker: Any) -> Any:
    peft = need("peft", "Simulating adapters")
    lora = plan.lora
    targets: Any = ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets)
    settings = peft.LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        target_modules=targets,
        lora_dropout=lora.dropout,
        use_rslora=lora.rslora,
        use_dora=lora.dora,
        modules_to_save=list(lora.modules_to_save) or None,
        bias="none",
        task_type=_task(model),
    )
    create = peft.LoraModel._create_and_replace

    def create_at(*arguments: Any, **named: Any) -> Any:
        with tracker.working_on(named.get("current_key") or ""):
            return create(*arguments, **named)

    try:
        with (
            replaced(peft.LoraModel, "_create_and_replace", create_at),
            replaced(torch.Tensor, "__deepcopy__", _cloned),
        ):
            adapted = peft.get_peft_model(model, settings, autocast_adapter_dtype=lora.dtype == "float32")
    except ValueError as error:
        raise WorkbenchError(
            "bad-plan",
            f"peft cannot add adapters to {', '.join(lora.targets)}: {str(error).splitlines()[0][:200]}",
            "Name modules that this model has, such as q_proj and v_proj, or all-linear.",
        ) from None
    _cast_adapters(torch, adapted, getattr(torch, lora.dtype))
    return adapted


def _cloned(tensor: Any, memo: dict[int, Any]) -> Any:
    """A copy that is made by an operator: torch copies the storage of a tensor without data behind its back."""
    import torch

    if id(tensor) not in memo:
        copy = tensor.detach().clone()
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        memo[id(tensor)] = torch.nn.Parameter(copy, tensor.requires_grad) if is_parameter else copy
    return memo[id(tensor)]


def _cast_adapters(torch: Any, adapted: Any, dtype: Any) -> None:
    """Adapters to `dtype`; whole modules trained beside them keep the model's."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for layer in adapted.modules():
        if not isinstance(layer, BaseTunerLayer):
            continue
        for module in layer.modules():
            for key, parameter in list(module._parameters.items()):
                if parameter is not None and parameter.requires_grad and parameter.dtype != dtype:
                    module._parameters[key] = torch.nn.Parameter(parameter.detach().to(dtype))


def dequantized(module: Any) -> Any:
    """peft's ``dequantize_module_weight``, which knows quantized weights by the name of a class that they lack here."""
    import bitsandbytes

    weight = module.weight
    if getattr(weight, "quant_state", None) is not None:
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    scales = getattr(weight, "SCB", None)
    if scales is None and hasattr(module, "state"):
        scales = module.state.SCB
    return weight if scales is None else bitsandbytes.functional.int8_vectorwise_dequant(weight.data, scales)


def _task(model: Any) -> Any:
    name = type(model).__name__
    if name.endswith(("ForCausalLM", "LMHeadModel")):
        return "CAUSAL_LM"
    return "SEQ_2_SEQ_LM" if getattr(model.config, "is_encoder_decoder", False) else None


def run_steps(model: Any, plan: Plan, device: str, tracker: Any, progress: Callable[[str, int], None]) -> None:
    """Run `STEPS` training steps.

    Args:
        model: as `prepare` returns it.
        plan: the training job.
        device: where its tensors are.
        tracker: records.
        progress: told phase and step before each.
    """
    import torch

    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    label_weights(model, plan, tracker)
    # With its state in CPU memory, the optimizer steps there.
    optimizer = make_optimizer(torch, model, trainable, plan) if plan.offload == "none" else None
    for step in range(1, STEPS + 1):
        for _part in range(min(plan.accumulation, 2)):
            progress("forward", step)
            tracker.begin("forward", step)
            with tracker.working_on("batch"):
                batch = make_batch(torch, model, plan, device)
            loss, kept = _forward(torch, model, batch, plan, tracker)
            progress("backward", step)
            tracker.begin("backward", step)
            loss.backward()
            for parameter in trainable:
                if parameter.grad is not None:
                    tracker.label(parameter.grad, "gradients")
        progress("optimizer", step)
        tracker.begin("optimizer", step)
        if optimizer is not None:
            optimizer.step()
            _label_states(torch, optimizer, tracker)
        tracker.begin("zero-grad", step)
        model.zero_grad(set_to_none=True)
        del loss, kept, batch


def _forward(torch: Any, model: Any, batch: dict[str, Any], plan: Plan, tracker: Any) -> tuple[Any, Any]:
    if plan.chunked_loss:
        return _chunked_loss(torch, model, batch, tracker), None
    outputs = model(**batch, use_cache=False) if _takes_cache(model) else model(**batch)
    logits = getattr(outputs, "logits", None)
    if logits is not None:
        tracker.label(logits, "logits")
    return outputs.loss, outputs if plan.keep_outputs else None


def _takes_cache(model: Any) -> bool:
    return hasattr(model.config, "use_cache")


def _chunked_loss(torch: Any, model: Any, batch: dict[str, Any], tracker: Any) -> Any:
    """The loss computed on `LOSS_CHUNK_TOKENS` at a time, each chunk's logits made again in the backward pass."""
    from torch.utils.checkpoint import checkpoint

    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    head = whole.get_output_embeddings()
    if head is None or whole.config.is_encoder_decoder:
        raise WorkbenchError(
            "unsupported-plan",
            f"A chunked loss of {type(whole).__name__} is not simulated: it is made for models that write on.",
            "Simulate with the whole loss.",
        )
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    hidden = whole.base_model(**inputs, use_cache=False)[0]
    hidden = hidden.reshape(-1, hidden.shape[-1])
    labels = batch["labels"].reshape(-1)

    def piece(states: Any, targets: Any) -> Any:
        logits = head(states).float()
        return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")

    losses = [
        checkpoint(piece, states, targets, use_reentrant=False)
        for states, targets in zip(hidden.split(LOSS_CHUNK_TOKENS), labels.split(LOSS_CHUNK_TOKENS))
    ]
    return torch.stack(losses).sum() / labels.numel()


def make_batch(torch: Any, model: Any, plan: Plan, device: str) -> dict[str, Any]:
    """Token ids, labels and, where batches are padded, a mask."""
    shape = (plan.batch, plan.sequence_length)
    ids = torch.ones(shape, dtype=torch.int64, device=device)
    if type(model).__name__.endswith("ForSequenceClassification"):
        labels = torch.zeros(plan.batch, dtype=torch.int64, device=device)
    else:
        labels = ids.clone()
    batch = {"input_ids": ids, "labels": labels}
    if plan.padded:
        batch["attention_mask"] = torch.ones(shape, dtype=torch.int64, device=device)
        batch["attention_mask"][:, -1] = 0
    return batch


def make_optimizer(torch: Any, model: Any, trainable: list[Any], plan: Plan) -> Any:
    """The optimizer of `plan` for the parameters `trainable` of `model`, as transformers' Trainer makes it."""
    if plan.optimizer in ("adamw", "sgd"):
        made = {"adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[plan.optimizer]
        return made(trainable, lr=1e-4, fused=plan.fused, foreach=not plan.fused)
    if plan.optimizer == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(trainable, lr=1e-4, scale_parameter=False, relative_step=False)
    bitsandbytes = need("bitsandbytes", f"The optimizer {plan.optimizer}")
    # Simulated, paged states are the same bytes in managed memory, which stays on the GPU as long as there is room.
    paged = plan.optimizer.startswith("paged") and trainable[0].is_cuda
    optimizer = bitsandbytes.optim.AdamW(trainable, lr=1e-4, optim_bits=8, is_paged=paged)
    # Trainer asks for 32-bit states of embeddings (``create_optimizer``). bitsandbytes' own list of such exceptions is
    # one for the whole process and would keep the model alive: this optimizer gets another.
    optimizer.mng = exceptions = object.__new__(bitsandbytes.optim.GlobalOptimManager)
    exceptions.initialize()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            exceptions.register_module_override(module, "weight", {"optim_bits": 32})
    return optimizer


def label_weights(model: Any, plan: Plan, tracker: Any) -> None:
    """Say which storages are parameters, buffers and quantization state."""
    for parameter in model.parameters():
        is_adapter = plan.has_adapters and parameter.requires_grad
        tracker.label(parameter, "adapters" if is_adapter else "weights")
        for tensor in quantization_tensors(parameter):
            tracker.label(tensor, "weights")
    for buffer in model.buffers():
        tracker.label(buffer, "weights")


def quantization_tensors(parameter: Any) -> list[Any]:
    """The tensors that bitsandbytes keeps beside a quantized weight."""
    state = getattr(parameter, "quant_state", None)
    found = [getattr(parameter, "SCB", None)]
    if state is not None:
        found += [state.absmax, state.code, state.offset]
        if state.nested:
            found += [state.state2.absmax, state.state2.code]
    return [tensor for tensor in found if hasattr(tensor, "untyped_storage")]


def _label_states(torch: Any, optimizer: Any, tracker: Any) -> None:
    for state in optimizer.state.values():
        for value in state.values():
            if isinstance(value, torch.Tensor):
                tracker.label(value, "optimizer")
