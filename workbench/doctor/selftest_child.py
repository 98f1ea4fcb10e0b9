"""The five steps that prove an environment for fine-tuning. Needs torch and transformers inside functions.

Run as a child process of the interpreter under examination; see `workbench.doctor.selftest`.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any, Callable, Optional, TextIO

from workbench.doctor.inside_child import STDERR_OFFSET, answer_with_stacks, stderr_offset

LORA_TARGETS = ("q_proj", "v_proj")
RANK = 4


class Unproven(Exception):
    """A step ran and its result is wrong."""


class Skipped(Exception):
    """A step cannot be tried here; says why."""


class Bench:
    """What the steps hand on to each other."""

    def __init__(self, model_path: str) -> None:
        self.model_path = model_path
        self.device = "cpu"
        self.model: Any = None
        self.quantized = False

    def gpu(self) -> str:
        """See the GPU and run a kernel on it."""
        import torch

        mps = getattr(torch.backends, "mps", None)
        if torch.cuda.is_available():
            self.device = "cuda"
        elif mps is not None and mps.is_available():
            self.device = "mps"
        values = torch.ones(64, 64, device=self.device)
        total = float((values @ values).sum().item())
        if total != 64.0**3:
            raise Unproven(f"a 64x64 matrix product on {self.device} gave {total} in place of {64.0**3}")
        if self.device == "cpu":
            raise Skipped("torch sees no GPU; the other steps run on the CPU")
        name = torch.cuda.get_device_name(0) if self.device == "cuda" else "Apple GPU"
        return f"{name}: a kernel ran and gave the right result"

    def load_4bit(self) -> str:
        """Load a tiny model in 4 bits."""
        import transformers

        transformers.logging.set_verbosity_error()
        try:
            import bitsandbytes

            self.model = self._load_quantized()
        except Exception:
            # The steps after this one are worth knowing all the same.
            self.model = transformers.AutoModelForCausalLM.from_pretrained(self.model_path).to(self.device)
            raise
        count = sum(isinstance(module, bitsandbytes.nn.Linear4bit) for module in self.model.modules())
        if not count:
            raise Unproven("no layer of the model was quantized")
        self.quantized = True
        return (
            f"{count} layers in NF4 with double quantization on {self.device}, bitsandbytes {bitsandbytes.__version__}"
        )

    def _load_quantized(self) -> Any:
        import torch
        import transformers

        native = self.device != "cuda" or torch.cuda.get_device_capability()[0] >= 8
        config = transformers.BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=torch.bfloat16 if native else torch.float16,
        )
        return transformers.AutoModelForCausalLM.from_pretrained(
            self.model_path, quantization_config=config, device_map={"": self.device}
        )

    def inference(self) -> str:
        """One forward pass and a few greedy tokens."""
        import torch

        ids = self._ids(8)
        with torch.no_grad():
            logits = self._loaded()(input_ids=ids).logits
            new = self.model.generate(ids, max_new_tokens=4, do_sample=False, pad_token_id=0)
        if not bool(torch.isfinite(logits.float()).all()):
            raise Unproven("the logits are not finite")
        return (
            f"finite logits of shape {tuple(logits.shape)}, {new.shape[1] - ids.shape[1]} tokens generated{self._how()}"
        )

    def lora(self) -> str:
        """Attach a LoRA adapter."""
        if self.quantized and self.device == "cpu":
            # After a forward pass without gradients bitsandbytes 0.50 keeps CPU weights packed for inference, and
            # what runs through packed weights has no gradient (its nn/modules.py, Linear4bit.forward).
            self.model = self._load_quantized()
        try:
            import peft
        except Exception as error:
            if importlib.util.find_spec("peft") is None:
                return self._plain_lora()
            # The training step is worth knowing all the same.
            self._plain_lora()
            raise Unproven(f"peft is installed, but does not import: {type(error).__name__}: {error}") from error
        model = self._loaded()
        if self.quantized:
            model = peft.prepare_model_for_kbit_training(model)
        config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=list(LORA_TARGETS), task_type="CAUSAL_LM")
        self.model = peft.get_peft_model(model, config)
        return f"{self._trainable():,} trainable parameters with peft {peft.__version__}{self._how()}"

    def _plain_lora(self) -> str:
        model = self._loaded()
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for name, module in list(model.named_modules()):
            if name.rsplit(".", 1)[-1] in LORA_TARGETS:
                parent = model.get_submodule(name.rpartition(".")[0])
                setattr(parent, name.rpartition(".")[2], _lora_linear(module, self.device))
        if not self._trainable():
            raise Unproven(f"the model has no module named {' or '.join(LORA_TARGETS)}")
        return (
            f"{self._trainable():,} trainable parameters with a plain LoRA layer (peft is not installed){self._how()}"
        )

    def train_step(self) -> str:
        """One optimizer step: finite loss, a gradient, and weights that moved."""
        import torch

        model = self._loaded()
        model.train()
        trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
        if not trainable:
            raise Skipped("no adapter is attached")
        before = [parameter.detach().clone() for parameter in trainable]
        optimizer = torch.optim.AdamW(trainable, lr=1e-3)
        ids = self._ids(16)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        value = float(loss.detach())
        norm = math.sqrt(sum(float(p.grad.float().pow(2).sum()) for p in trainable if p.grad is not None))
        if not math.isfinite(value) or not math.isfinite(norm):
            raise Unproven(f"loss {value} or gradient norm {norm} is not finite")
        if norm == 0.0:
            raise Unproven("the gradient is zero everywhere")
        optimizer.step()
        if all(bool((old == new).all()) for old, new in zip(before, trainable)):
            raise Unproven("the optimizer changed nothing")
        return f"loss {value:.3f}, gradient norm {norm:.3g}{self._how()}"

    def _ids(self, length: int) -> Any:
        import torch

        vocab = int(self._loaded().config.vocab_size)
        return (torch.arange(2 * length).reshape(2, length) * 7 % min(vocab, 1000)).to(self.device)

    def _loaded(self) -> Any:
        if self.model is None:
            raise Skipped("no model is loaded")
        return self.model

    def _trainable(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)

    def _how(self) -> str:
        quantized = "" if self.quantized else ", not quantized"
        return f", on the CPU{quantized}" if self.device == "cpu" else quantized


def _lora_linear(base: Any, device: str) -> Any:
    """A linear layer with a trainable low-rank addition."""
    import torch

    class LoraLinear(torch.nn.Module):  # type: ignore[misc, unused-ignore]
        def __init__(self) -> None:
            super().__init__()
            self.base = base
            self.a = torch.nn.Parameter(torch.randn(RANK, base.in_features, device=device) * 0.02)
            self.b = torch.nn.Parameter(torch.zeros(base.out_features, RANK, device=device))

        def forward(self, hidden: Any) -> Any:
            addition = (hidden.to(self.a.dtype) @ self.a.t()) @ self.b.t()
            out = self.base(hidden)
            return out + 2.0 * addition.to(out.dtype)

    return LoraLinear()


def tiny_model(folder: str) -> str:
    """Write a tiny llama with random weights to `folder`, for a box without the sample models."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=256,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
    )
    LlamaForCausalLM(config).save_pretrained(folder, safe_serialization=True)
    return folder


def _memory_bytes(device: str) -> Optional[int]:
    if device == "cuda":
        import torch

        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts in KiB, macOS in bytes (getrusage(2)).
    return peak if sys.platform == "darwin" else peak * 1024


def run_step(name: str, action: Callable[[], str], bench: Bench, out: TextIO) -> None:
    """Run one step and write what came of it."""
    sys.stderr.flush()
    out.write(json.dumps({"step": name, "event": "start", STDERR_OFFSET: stderr_offset()}) + "\n")
    out.flush()
    started = time.perf_counter()
    try:
        status, detail = "passed", action()
    except Skipped as reason:
        status, detail = "skipped", str(reason)
    except Unproven as wrong:
        status, detail = "failed", str(wrong)
    except BaseException as error:
        status, detail = "failed", f"{type(error).__name__}: {error}"[:4000]
    seconds = round(time.perf_counter() - started, 3)
    event = {"step": name, "event": "end", "status": status, "detail": detail, "seconds": seconds}
    try:
        event["memory_bytes"] = _memory_bytes(bench.device)
    except Exception:
        event["memory_bytes"] = None
    out.write(json.dumps(event) + "\n")
    out.flush()


def main() -> None:
    """Run all steps on the model directory named on the command line, or on one made here."""
    # Native libraries print to file descriptor 1; what we say goes over a copy of it.
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    answer_with_stacks()
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(sys.argv[1] if len(sys.argv) > 1 else "")
        run_step("gpu", bench.gpu, bench, out)

        def load() -> str:
            if not (bench.model_path and Path(bench.model_path, "config.json").is_file()):
                bench.model_path = tiny_model(folder)
            return bench.load_4bit()

        run_step("load-4bit", load, bench, out)
        run_step("inference", bench.inference, bench, out)
        run_step("lora", bench.lora, bench, out)
        run_step("train-step", bench.train_step, bench, out)
    os._exit(0)


if __name__ == "__main__":
    main()
