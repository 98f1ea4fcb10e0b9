"""Finding, fetching, loading and unloading models."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Optional

from workbench.chat.decode_trial import settle
from workbench.chat.generate import Generator
from workbench.errors import WorkbenchError
from workbench.models.fetch import fetch
from workbench.models.gguf_convert import conversion_note, ensure_directory
from workbench.models.listing import list_models
from workbench.models.load import LoadedFacts, LoadedModel, LoadOptions, load_model, unload
from workbench.models.resolve import resolve
from workbench.session.handlers.shortage import with_suggestions
from workbench.session.protocol import (
    FetchModel,
    ListModels,
    LoadModel,
    ModelFetched,
    ModelLoaded,
    ModelResolved,
    ModelsListed,
    ModelStatus,
    ModelUnloaded,
    Request,
    ResolveModel,
    UnloadModel,
    Warm,
    Warmed,
)
from workbench.session.runtime import Context, Handler, LoadedSlot, Runtime, Stage, always, quick
from workbench.tokens.tokenizer import load_tokenizer

CONVERSATION_TOKENS = 4096
"""Of context that a model shall have room for where it is decided on how many GPUs it goes."""


def _warm(request: Warm, context: Context) -> Warmed:
    # A missing or broken torch is a finding of the doctor, not a failure of the session.
    with contextlib.suppress(WorkbenchError):
        context.runtime.import_torch(context.job)
    torch = context.runtime.torch
    return Warmed(torch.state, torch.version, torch.error)


def _list(request: ListModels, context: Context) -> ModelsListed:
    return ModelsListed([asdict(listing) for listing in list_models(context.job, request.directories)])


def _resolve(request: ResolveModel, context: Context) -> ModelResolved:
    return ModelResolved(asdict(resolve(request.model, context.job)))


def _fetch(request: FetchModel, context: Context) -> ModelFetched:
    return ModelFetched(asdict(fetch(resolve(request.model, context.job), context.job)))


def make_ready(request: LoadModel, context: Context) -> Optional[Path]:
    """Weights on this box in a form that loads; None if the very same load stands already. Children lane."""
    LoadOptions(request.quant, request.double_quant, request.dtype, request.device, request.attention).validate()
    if _already_loaded(request, context.runtime):
        return None
    return ensure_directory(resolve(request.model, context.job), context.job)


def _load(request: LoadModel, context: Context) -> ModelLoaded:
    return ModelLoaded(load_slot(request, context).status)


def load_slot(request: LoadModel, context: Context) -> LoadedSlot:
    """The loaded model that the request asks for, loaded now unless it stands already. Model lane."""
    runtime, job = context.runtime, context.job
    slot = _already_loaded(request, runtime)
    if slot is not None:
        return slot
    directory = context.carried or ensure_directory(resolve(request.model, job), job)
    runtime.import_torch(job)
    options = LoadOptions(request.quant, request.double_quant, request.dtype, request.device, request.attention)
    try:
        loaded = load_model(
            directory,
            options,
            job,
            make_room=lambda: unload_slot(runtime),
            needed_bytes=lambda settled: _needed_bytes(request.model, settled, context),
        )
    except WorkbenchError as error:
        otherwise = "free memory first"
        raise with_suggestions(error, request.model, options, CONVERSATION_TOKENS, otherwise, context) from None
    try:
        tokenizer = load_tokenizer(str(directory))
        generator = Generator(loaded, tokenizer, decoding=settle(loaded, job=job))
        slot = LoadedSlot(_status(request, loaded, generator), loaded, tokenizer, generator, request)
    except BaseException:
        unload(loaded)
        raise
    runtime.slot, runtime.tokens_per_second = slot, None
    runtime.touch_model()
    runtime.changed()
    return slot


def _needed_bytes(model: str, options: LoadOptions, context: Context) -> int:
    """What VRAM estimates for a load and a conversation of some length; 0 where it cannot tell."""
    from workbench.session.handlers.vram import estimator_of
    from workbench.vram.measure_loaded import corresponding_plan

    try:
        _, estimator = estimator_of(model, context)
        return estimator.estimate(corresponding_plan(options, CONVERSATION_TOKENS)).total
    except WorkbenchError:
        return 0


def _already_loaded(request: LoadModel, runtime: Runtime) -> Optional[LoadedSlot]:
    slot = runtime.slot
    return slot if slot is not None and slot.request == request else None


def _status(request: LoadModel, loaded: LoadedModel, generator: Generator) -> ModelStatus:
    facts = loaded.facts
    return ModelStatus(
        name=request.model,
        directory=facts.directory,
        architecture=facts.class_name,
        quant=facts.quant,
        double_quant=facts.double_quant,
        dtype=facts.dtype,
        device=facts.device,
        weights_bytes=facts.weights_bytes,
        context_length=facts.context_length,
        load_seconds=facts.load_seconds,
        note="; ".join(
            part for part in (_spread_note(facts), _pickle_note(facts), conversion_note(Path(facts.directory))) if part
        ),
        decoding=generator.decoding.told,
    )


def _spread_note(facts: LoadedFacts) -> str:
    return f"spread over {', '.join(facts.devices)}" if facts.devices else ""


def _pickle_note(facts: LoadedFacts) -> str:
    return "pickle checkpoint, read with weights_only" if facts.pickle else ""


def _unload(request: UnloadModel, context: Context) -> ModelUnloaded:
    return unload_slot(context.runtime)


def unload_slot(runtime: Runtime) -> ModelUnloaded:
    """Free the loaded model, if any; on the model lane only."""
    slot, runtime.slot = runtime.slot, None
    if slot is None:
        return ModelUnloaded("")
    name, weights_bytes, loaded = slot.status.name, slot.status.weights_bytes, slot.loaded
    slot.generator.close()
    del slot
    remaining_bytes = unload(loaded)
    runtime.changed()
    return ModelUnloaded(name, weights_bytes - remaining_bytes, remaining_bytes)


HANDLERS: dict[type[Request], Handler] = {
    Warm: Handler((Stage("model", _warm),), outlives_client=always),
    ListModels: quick(_list),
    ResolveModel: quick(_resolve),
    FetchModel: Handler((Stage("children", _fetch),), outlives_client=always),
    LoadModel: Handler((Stage("children", make_ready), Stage("model", _load)), outlives_client=always),
    UnloadModel: Handler((Stage("model", _unload),), outlives_client=always),
}
