"""Which tensors a job trains, adapters included, with shape and dtype as peft and transformers make them. Stdlib only.

Rules: peft 0.21 ``tuners/lora/layer.py`` (shapes), ``tuners_utils.py`` (``cast_adapter_dtype``), ``utils/other.py``
(``modules_to_save``, ``prepare_model_for_kbit_training``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from workbench.architecture.lora import AdapterCount, LoraPlan, count_adapter
from workbench.architecture.skeleton import DTYPE_BYTES, Skeleton
from workbench.errors import WorkbenchError
from workbench.text import one_line
from workbench.vram.optimizer import Trained
from workbench.vram.plan import Plan
from workbench.vram.weights import fp32_patterns, quantized_modules, resting_dtype

_TOWER = re.compile(r"(^|[._])(vision|visual|audio)", re.IGNORECASE)


def trained_tensors(skeleton: Skeleton, plan: Plan) -> tuple[Trained, ...]:
    """Every tensor that gets a gradient under `plan`, in the order in which an optimizer is given them.

    Raises:
        WorkbenchError: ``bad-lora`` if the targets name nothing that can carry an adapter; ``bad-plan`` for a
            quantized module that is to be trained whole.
    """
    if not plan.trains:
        return ()
    if plan.job == "full":
        patterns = fp32_patterns(skeleton, plan.dtype)
        embeddings = _embeddings(skeleton)
        return tuple(
            Trained(entry.name, entry.shape, resting_dtype(entry, plan, patterns), entry.module in embeddings)
            for entry in skeleton.unique_parameters
        )
    count = adapter_count(skeleton, plan)
    return (*_lora_tensors(count, plan), *_saved_modules(skeleton, count, plan))


def adapter_count(skeleton: Skeleton, plan: Plan) -> AdapterCount:
    """Which modules the adapters of `plan` go on, as peft matches them.

    Raises:
        WorkbenchError: ``bad-lora`` if the targets name nothing, or nothing that can carry an adapter.
    """
    lora = plan.lora
    return count_adapter(
        skeleton,
        LoraPlan(
            targets=lora.targets,
            r=lora.r,
            alpha=lora.alpha,
            rslora=lora.rslora,
            dora=lora.dora,
            modules_to_save=lora.modules_to_save,
        ),
    )


def tower_adapter_bytes(skeleton: Skeleton, plan: Plan) -> int:
    """Of the adapters in a vision or audio tower, which get no gradient from text alone."""
    if not plan.has_adapters or not any(_TOWER.search(module.name) for module in skeleton.modules):
        return 0
    shapes = {entry.module: entry.shape for entry in skeleton.parameters if entry.name.endswith(".weight")}
    towers = [shapes.get(name, ()) for name in adapter_count(skeleton, plan).matched if _TOWER.search(name)]
    widths = sum(shape[0] + shape[1] for shape in towers if len(shape) == 2)
    return plan.lora.r * widths * DTYPE_BYTES[plan.lora.dtype]


def _embeddings(skeleton: Skeleton) -> frozenset[str]:
    return frozenset(module.name for module in skeleton.modules if module.layer_kind == "embedding")


def _lora_tensors(count: AdapterCount, plan: Plan) -> Iterator[Trained]:
    """The two factors of each adapted module, all experts of a fused tensor in one, and DoRA's magnitudes."""
    dtype = plan.lora.dtype
    for target in count.targets:
        rank = target.rank * target.experts
        for _ in range(target.modules):
            yield Trained(f"{target.name}.lora_A", (rank, target.in_features), dtype)
            yield Trained(f"{target.name}.lora_B", (target.out_features, rank), dtype)
            if plan.lora.dora:
                yield Trained(f"{target.name}.lora_magnitude_vector", (target.out_features,), dtype)


def _saved_modules(skeleton: Skeleton, count: AdapterCount, plan: Plan) -> Iterator[Trained]:
    """Whole copies of the modules that ``modules_to_save`` names; the originals stay."""
    quantized = quantized_modules(skeleton) if plan.quant != "none" else frozenset()
    patterns = fp32_patterns(skeleton, plan.dtype)
    embeddings = _embeddings(skeleton)
    for name in count.saved:
        if name in quantized:
            raise WorkbenchError(
                "bad-plan",
                f"modules_to_save names {one_line(name, 60)}, which is quantized and cannot be trained.",
                "Name modules that stay in 16 bit, such as lm_head or embed_tokens.",
            )
        for entry in skeleton.parameters:
            if entry.name.startswith(f"{name}."):
                dtype = resting_dtype(entry, plan, patterns)
                yield Trained(f"{entry.name} (copy)", entry.shape, dtype, entry.module in embeddings)
