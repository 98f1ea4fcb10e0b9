"""The Python code that does what a plan says: loading and generating, or training. Stdlib only.

The code is for current transformers and peft (TRL on request), is complete, and is run by the tests on a tiny model.
"""

from __future__ import annotations

from typing import Any

from workbench.errors import WorkbenchError
from workbench.vram.plan import ALL_LINEAR, FOUR_BIT, QUANTIZED_KV_DTYPES, Plan, check_plan

STYLES = ("trainer", "trl")
_OPTIMIZERS = {
    "adamw-8bit": "adamw_8bit",
    "paged-adamw-8bit": "paged_adamw_8bit",
    "adafactor": "adafactor",
    "sgd": "sgd",
}


def code_for(plan: Plan, model: str, style: str = "trainer") -> str:
    """A Python program for `plan` on `model`, a Hub id or a folder.

    Args:
        plan: any plan.
        model: as ``from_pretrained`` takes it.
        style: for training: transformers' ``trainer``, or ``trl``'s SFTTrainer.

    Raises:
        WorkbenchError: ``bad-plan``; ``bad-option`` for another style, and for what no Trainer does (tp, pp).
    """
    check_plan(plan)
    if style not in STYLES:
        raise WorkbenchError("bad-option", f"No code in the style {style!r:.40}.", f"Choose {' or '.join(STYLES)}.")
    if not plan.trains:
        return _joined(_header(plan, model, "run"), _inference_imports(plan), _names(plan, model), _inference(plan))
    if plan.parallel in ("tp", "pp"):
        raise WorkbenchError(
            "bad-option",
            f"No training code for {plan.parallel}: transformers' Trainer does not split a model that way.",
            "Choose fsdp, zero3 or ddp.",
        )
    imports = _training_imports(plan, style)
    body = _trl(plan) if style == "trl" else _trainer(plan)
    return _joined(_header(plan, model, "train"), imports, _names(plan, model), _loading(plan), _adapters(plan), body)


def _joined(*parts: str) -> str:
    return "\n\n".join(part.strip("\n") for part in parts if part.strip()) + "\n"


def _header(plan: Plan, model: str, name: str) -> str:
    what = "Answers a prompt" if name == "run" else f"Trains ({plan.job})"
    return f'"""{what} as planned: {_described(plan)}."""'


def _described(plan: Plan) -> str:
    parts = [plan.dtype, *([plan.quant] if plan.quant != "none" else []), f"batch {plan.batch}"]
    parts.append(f"{plan.sequence_length} tokens")
    return ", ".join(parts)


def _inference_imports(plan: Plan) -> str:
    names = ["AutoModelForCausalLM", "AutoTokenizer", *(["BitsAndBytesConfig"] if plan.quant != "none" else [])]
    return f"import torch\nfrom transformers import {', '.join(names)}"


def _training_imports(plan: Plan, style: str) -> str:
    names = ["AutoModelForCausalLM", "AutoTokenizer"]
    names += ["BitsAndBytesConfig"] * (plan.quant != "none")
    lines = ["import json", "", "import torch", "from accelerate import PartialState"]
    if style == "trl":
        lines.append("from datasets import Dataset")
    if plan.has_adapters:
        prepare = ", prepare_model_for_kbit_training" if plan.prepares_kbit else ""
        lines.append(f"from peft import LoraConfig, get_peft_model{prepare}")
    if plan.attention == "efficient":
        lines.append("from torch.nn.attention import SDPBackend, sdpa_kernel")
    if style == "trainer":
        names += ["Trainer", "TrainingArguments", "default_data_collator"]
    lines.append(_import("transformers", names))
    if style == "trl":
        lines.append("from trl import SFTConfig, SFTTrainer")
    return "\n".join(lines)


def _import(package: str, names: list[str]) -> str:
    line = f"from {package} import {', '.join(names)}"
    if len(line) <= 100:
        return line
    return "\n".join([f"from {package} import (", *(f"    {name}," for name in names), ")"])


def _names(plan: Plan, model: str) -> str:
    lines = [f"MODEL = {model!r}"]
    if plan.trains:
        lines.append('DATA = "train.jsonl"  # one object a line, its text under "text"')
        lines.append('OUTPUT = "output"')
        lines.append(f"SEQUENCE_LENGTH = {plan.sequence_length}")
    else:
        lines.append('PROMPTS = ["The capital of France is"]' + (f" * {plan.batch}" if plan.batch > 1 else ""))
    return "\n".join(lines)


def _loading(plan: Plan) -> str:
    lines = ["tokenizer = AutoTokenizer.from_pretrained(MODEL)"]
    arguments = [f"dtype=torch.{plan.dtype}", f'attn_implementation="{_attention(plan)}"']
    if plan.quant != "none":
        lines.append(_quantization(plan))
        arguments.append("quantization_config=quantization")
        place = 'device_map={"": PartialState().local_process_index if torch.cuda.is_available() else "cpu"}'
        arguments.append(place if plan.trains else 'device_map="auto"')
    elif not plan.trains:
        arguments.append(_split(plan))
    lines.append(_call("model = AutoModelForCausalLM.from_pretrained", ["MODEL", *filter(None, arguments)]))
    if plan.prepares_kbit:
        checkpointing = (
            ', gradient_checkpointing_kwargs={"use_reentrant": False}' if plan.gradient_checkpointing else ""
        )
        lines.append(
            "# Turns everything that is not quantized to float32.\n"
            "model = prepare_model_for_kbit_training(\n"
            f"    model, use_gradient_checkpointing={plan.gradient_checkpointing}{checkpointing}\n)"
        )
    return "\n".join(lines)


def _split(plan: Plan) -> str:
    return 'tp_plan="auto"' if plan.parallel == "tp" else 'device_map="auto"'


def _attention(plan: Plan) -> str:
    return {"eager": "eager", "flash": "flash_attention_2"}.get(plan.attention, "sdpa")


def _quantization(plan: Plan) -> str:
    if plan.quant == "int8":
        return "quantization = BitsAndBytesConfig(load_in_8bit=True)"
    arguments = [
        "load_in_4bit=True",
        f'bnb_4bit_quant_type="{plan.quant}"',
        f"bnb_4bit_use_double_quant={plan.double_quant}",
        f"bnb_4bit_compute_dtype=torch.{plan.dtype}",
    ]
    if plan.parallel in ("fsdp", "zero3") and plan.quant in FOUR_BIT:
        arguments.append(f"bnb_4bit_quant_storage=torch.{plan.dtype}")
    return _call("quantization = BitsAndBytesConfig", arguments)


def _adapters(plan: Plan) -> str:
    if not plan.has_adapters:
        return ""
    lora = plan.lora
    targets: Any = ALL_LINEAR if lora.targets == (ALL_LINEAR,) else list(lora.targets)
    arguments = [
        f"r={lora.r}",
        f"lora_alpha={lora.alpha}",
        f"lora_dropout={lora.dropout}",
        f"target_modules={targets!r}",
        *([f"modules_to_save={list(lora.modules_to_save)!r}"] if lora.modules_to_save else []),
        *(["use_rslora=True"] if lora.rslora else []),
        *(["use_dora=True"] if lora.dora else []),
        'task_type="CAUSAL_LM"',
    ]
    lines = [_call("lora = LoraConfig", arguments)]
    if lora.dtype == "float32":
        lines.append("model = get_peft_model(model, lora)  # peft makes the adapters float32")
    else:
        lines.append("model = get_peft_model(model, lora, autocast_adapter_dtype=False)")
        lines.append("for name, parameter in model.named_parameters():")
        lines.append('    if "lora_" in name:  # on quantized weights peft makes them float32 all the same')
        lines.append(f"        parameter.data = parameter.data.to(torch.{lora.dtype})")
    lines.append("model.print_trainable_parameters()")
    return "\n".join(lines)


def _arguments(plan: Plan) -> list[str]:
    """What Trainer and SFTTrainer share."""
    optimizer = _OPTIMIZERS.get(plan.optimizer, "adamw_torch_fused" if plan.fused else "adamw_torch")
    arguments = [
        "output_dir=OUTPUT",
        f"per_device_train_batch_size={plan.batch}",
        f"gradient_accumulation_steps={plan.accumulation}",
        f"gradient_checkpointing={plan.gradient_checkpointing}",
        *(['gradient_checkpointing_kwargs={"use_reentrant": False}'] if plan.gradient_checkpointing else []),
        f'optim="{optimizer}"',
        f"learning_rate={2e-4 if plan.has_adapters else 1e-5}",
        "num_train_epochs=1",
        # Weights are in the plan's dtype already; autocast on top would keep further copies.
        "bf16=False",
        "fp16=False",
        "logging_steps=1",
        'save_strategy="no"',
        'report_to="none"',
    ]
    if plan.chunked_loss:
        arguments.append("use_liger_kernel=True")
    if plan.parallel == "fsdp":
        arguments.append('fsdp="full_shard auto_wrap"')
        arguments.append('fsdp_config={"fsdp_version": 2}')
    if plan.parallel.startswith("zero"):
        arguments.append(f"deepspeed={_deepspeed(plan)!r}")
    return arguments


def _deepspeed(plan: Plan) -> dict[str, Any]:
    zero: dict[str, Any] = {"stage": int(plan.parallel[-1])}
    if plan.offload == "optimizer":
        zero["offload_optimizer"] = {"device": "cpu"}
    return {
        "zero_optimization": zero,
        "bf16": {"enabled": plan.dtype == "bfloat16"},
        "fp16": {"enabled": plan.dtype == "float16"},
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
    }


def _trainer(plan: Plan) -> str:
    lines = [
        'with open(DATA, encoding="utf-8") as file:',
        '    texts = [json.loads(line)["text"] for line in file]',
    ]
    if plan.padded:
        lines += [
            "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
            'rows = tokenizer(texts, truncation=True, padding="max_length", max_length=SEQUENCE_LENGTH)',
            "examples = [",
            "    {",
            '        "input_ids": ids,',
            '        "attention_mask": mask,',
            '        "labels": [token if seen else -100 for token, seen in zip(ids, mask)],',
            "    }",
            '    for ids, mask in zip(rows["input_ids"], rows["attention_mask"])',
            "]",
        ]
    else:
        lines += [
            "# All texts one after the other, cut into pieces of one length: no padding.",
            "end = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []",
            'tokens = [token for text in texts for token in tokenizer(text)["input_ids"] + end]',
            "pieces = range(0, len(tokens) - SEQUENCE_LENGTH + 1, SEQUENCE_LENGTH)",
            "examples = [",
            '    {"input_ids": tokens[at : at + SEQUENCE_LENGTH], "labels": tokens[at : at + SEQUENCE_LENGTH]}',
            "    for at in pieces",
            "]",
        ]
    lines += [
        "",
        _call("arguments = TrainingArguments", _arguments(plan)),
        "trainer = Trainer(",
        "    model=model, args=arguments, train_dataset=examples, data_collator=default_data_collator",
        ")",
        *_train(plan),
    ]
    return "\n".join(lines)


def _trl(plan: Plan) -> str:
    arguments = [
        *_arguments(plan),
        'dataset_text_field="text"',
        "max_length=SEQUENCE_LENGTH",
        f"packing={not plan.padded}",
    ]
    lines = [
        'with open(DATA, encoding="utf-8") as file:',
        '    texts = Dataset.from_list([{"text": json.loads(line)["text"]} for line in file])',
        "",
        _call("arguments = SFTConfig", arguments),
        "trainer = SFTTrainer(model=model, args=arguments, train_dataset=texts, processing_class=tokenizer)",
        *_train(plan),
    ]
    return "\n".join(lines)


def _train(plan: Plan) -> list[str]:
    if plan.attention == "efficient":
        run = ["with sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION):", "    trainer.train()"]
    else:
        run = ["trainer.train()"]
    return [*run, "if torch.cuda.is_available():", *_peak(), "trainer.save_model()"]


def _peak() -> list[str]:
    return [
        '    print(f"peak allocated {torch.cuda.max_memory_allocated() / 2**30:.2f} GiB, "',
        '          f"reserved {torch.cuda.max_memory_reserved() / 2**30:.2f} GiB")',
    ]


def _inference(plan: Plan) -> str:
    arguments = ["**inputs", f"max_new_tokens={max(1, plan.new_tokens)}"]
    if plan.cache == "static":
        arguments.append('cache_implementation="static"')
    if plan.kv_dtype == "fp8":
        arguments += ['cache_implementation="quantized"', 'cache_config={"backend": "fp8"}']
    elif plan.kv_dtype in QUANTIZED_KV_DTYPES:
        bits = plan.kv_dtype[len("int") :]
        arguments += [
            'cache_implementation="quantized"',
            f'cache_config={{"backend": "quanto", "nbits": {bits}}}',
        ]
    lines = [
        _loading(plan),
        "tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token",
        'inputs = tokenizer(PROMPTS, return_tensors="pt", padding=True).to(model.device)',
        _call("output = model.generate", arguments),
        'for text in tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True):',
        "    print(text)",
        "if torch.cuda.is_available():",
        *_peak(),
    ]
    return "\n".join(lines)


def _call(name: str, arguments: list[str]) -> str:
    inline = f"{name}({', '.join(arguments)})"
    if len(inline) <= 100:
        return inline
    return "\n".join([f"{name}(", *(f"    {argument}," for argument in arguments), ")"])
