"""Counting tokens."""

from __future__ import annotations

import contextlib
import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional

from workbench.architecture.config import context_length, text_config
from workbench.chat.template import ChatTemplate, find_template, render_chat
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.models.resolve import resolve
from workbench.models.tokenizer_source import tokenizer_path
from workbench.session.protocol import (
    CountTokens,
    DatasetMeasured,
    DatasetUpdated,
    MeasureDataset,
    Request,
    TokensCounted,
)
from workbench.session.runtime import Context, Handler, Runtime, Stage, quick
from workbench.tokens.count import count_text, text_figures
from workbench.tokens.dataset import MeasuredModel, measure_dataset
from workbench.tokens.tokenizer import TextTokenizer, load_tokenizer


@dataclass(frozen=True)
class _Loaded:
    tokenizer: TextTokenizer
    directory: Path
    """Where a chat template would stand; the tokenizer's own file if it is no directory."""


def _tokenizer_of(runtime: Runtime, model: str, job: Job) -> _Loaded:
    """The tokenizer of a model by any of its names; loaded once per worker.

    Raises:
        WorkbenchError: the model is unknown, not on this box, or has no tokenizer that can be read.
    """
    slot = runtime.slot
    if slot is not None and slot.status.name == model:
        return _Loaded(slot.tokenizer, Path(slot.status.directory))
    path = tokenizer_path(model, job)
    cache: dict[str, _Loaded] = runtime.services.setdefault("tokenizers", {})
    if path not in cache:
        cache[path] = _Loaded(load_tokenizer(path), Path(path))
    return cache[path]


def _count(request: CountTokens, context: Context) -> TokensCounted:
    figures = [asdict(text_figures(item["text"], item.get("name", ""))) for item in request.texts]
    results: list[dict[str, Any]] = []
    for model in request.models:
        try:
            loaded = _tokenizer_of(context.runtime, model, context.job)
            results.extend(_count_under(loaded, model, request, context))
        except WorkbenchError as error:
            if len(request.models) == 1:
                raise
            results.append({"model": model, "text": None, "tokens": None, "error": str(error)})
    return TokensCounted({"texts": figures, "results": results})


def _count_under(loaded: _Loaded, model: str, request: CountTokens, context: Context) -> list[dict[str, Any]]:
    counted = []
    for item in request.texts:
        context.job.check()
        name = item.get("name", "")
        text = _wrapped(item["text"], loaded.directory, model, context.job) if request.chat else item["text"]
        count = count_text(
            text,
            loaded.tokenizer,
            special=request.special and not request.chat,
            plain=request.plain and not request.chat,
            pieces=request.pieces,
            ids=request.ids,
            name=name,
        )
        found = {key: value for key, value in asdict(count).items() if value is not None}
        if request.chat:
            found["rendered_bytes"] = len(text.encode("utf-8"))
        counted.append({**found, "model": model})
    return counted


def _wrapped(text: str, directory: Path, model: str, job: Job) -> str:
    """`text` as one user message in the model's own chat template, ready for its answer."""
    template = find_template(directory) if directory.is_dir() else None
    if template is None:
        raise WorkbenchError("no-template", f"{model} has no chat template.", "Count the text without --chat.")
    return render_chat([{"role": "user", "content": text}], template, job=job)


def _measure(request: MeasureDataset, context: Context) -> DatasetMeasured:
    models = [_measured_model(model, request.template, context) for model in request.models]
    measured = measure_dataset(
        request.path,
        models,
        field=request.field or None,
        special=request.special,
        job=context.job,
        on_update=lambda measure: context.emit(DatasetUpdated(asdict(measure))),
    )
    return DatasetMeasured(asdict(measured))


def _measured_model(model: str, with_template: bool, context: Context) -> MeasuredModel:
    loaded = _tokenizer_of(context.runtime, model, context.job)
    template = find_template(loaded.directory) if with_template and loaded.directory.is_dir() else None
    render = functools.partial(_rendered, template, context.job) if template is not None else None
    return MeasuredModel(model, loaded.tokenizer, render, _context_length(model))


def _rendered(template: ChatTemplate, job: Job, messages: list[dict[str, Any]]) -> str:
    return render_chat(messages, template, add_generation_prompt=False, job=job)


def _context_length(model: str) -> Optional[int]:
    # A bare tokenizer file has no config; then only the usual lengths are looked at.
    with contextlib.suppress(WorkbenchError):
        config = resolve(model).config
        return context_length(text_config(config)) if config is not None else None
    return None


HANDLERS: dict[type[Request], Handler] = {
    CountTokens: quick(_count),
    MeasureDataset: Handler((Stage("children", _measure),)),
}
