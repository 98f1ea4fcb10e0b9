"""Counting tokens."""

from __future__ import annotations

import contextlib
import functools
import itertools
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Optional, Union

from workbench.architecture.config import context_length, text_config
from workbench.chat.template import ChatTemplate, find_template, render_chat, render_chats
from workbench.errors import WorkbenchError
from workbench.job import Job
from workbench.models.resolve import resolve
from workbench.models.tokenizer_source import tokenizer_path
from workbench.session.protocol import (
    CountTokens,
    DatasetMeasured,
    DatasetUpdated,
    MeasureDataset,
    RecountTokens,
    Request,
    TokensCounted,
    TokensRecounted,
)
from workbench.session.runtime import Context, Handler, Runtime, Stage, quick
from workbench.tokens.count import count_text, text_figures
from workbench.tokens.dataset import (
    EXHAUSTIONS_ALLOWED,
    DatasetMeasure,
    MeasuredModel,
    measure_dataset,
    unmeasured_model,
)
from workbench.tokens.pieces import Piece
from workbench.tokens.recount import TextCounter
from workbench.tokens.tokenizer import TextTokenizer, load_tokenizer
from workbench.tokens.vocabulary import Vocabulary


@dataclass(frozen=True)
class LoadedTokenizer:
    tokenizer: TextTokenizer
    directory: Path
    """Where a chat template would stand; the tokenizer's own file if it is no directory."""


def tokenizer_of(runtime: Runtime, model: str, job: Job) -> LoadedTokenizer:
    """The tokenizer of a model by any of its names; loaded once per worker.

    Raises:
        WorkbenchError: the model is unknown, not on this box, or has no tokenizer that can be read.
    """
    slot = runtime.slot
    if slot is not None and slot.status.name == model:
        return LoadedTokenizer(slot.tokenizer, Path(slot.status.directory))
    path = tokenizer_path(model, job)
    cache: dict[str, LoadedTokenizer] = runtime.services.setdefault("tokenizers", {})
    if path not in cache:
        cache[path] = LoadedTokenizer(load_tokenizer(path), Path(path))
    return cache[path]


def _count(request: CountTokens, context: Context) -> TokensCounted:
    figures = [asdict(text_figures(item["text"], item.get("name", ""))) for item in request.texts]
    results: list[dict[str, Any]] = []
    for model in request.models:
        try:
            loaded = tokenizer_of(context.runtime, model, context.job)
            results.extend(_count_under(loaded, model, request, context))
        except WorkbenchError as error:
            if len(request.models) == 1:
                raise
            results.append({"model": model, "text": None, "tokens": None, "error": str(error)})
    return TokensCounted({"texts": figures, "results": results})


def _count_under(loaded: LoadedTokenizer, model: str, request: CountTokens, context: Context) -> list[dict[str, Any]]:
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
        if loaded.tokenizer.note:
            found["note"] = loaded.tokenizer.note
        counted.append({**found, "model": model})
    return counted


def _wrapped(text: str, directory: Path, model: str, job: Job) -> str:
    """`text` as one user message in the model's own chat template, ready for its answer."""
    template = find_template(directory) if directory.is_dir() else None
    if template is None:
        raise WorkbenchError("no-template", f"{model} has no chat template.", "Count the text without --chat.")
    return render_chat([{"role": "user", "content": text}], template, job=job)


@dataclass
class _Counter:
    counter: TextCounter
    lock: threading.Lock


def _recount(request: RecountTokens, context: Context) -> TokensRecounted:
    figures = text_figures(request.text)
    results: list[dict[str, Any]] = []
    pieces: list[dict[str, Any]] = []
    for model in request.models:
        context.job.check()
        try:
            kept = _counter_of(model, request.special, context)
            with kept.lock:
                context.job.check()
                count = kept.counter.update(request.text, figures)
                note = kept.counter.tokenizer.note
                if model == request.selected:
                    pieces = _pieces_of(kept.counter, request, context)
        except WorkbenchError as error:
            results.append({"model": model, "error": str(error)})
            continue
        found = {key: value for key, value in asdict(count).items() if value is not None}
        results.append({**found, "model": model, "context_length": _known_context(model, context), "note": note})
    return TokensRecounted(asdict(figures), results, pieces)


def _counter_of(model: str, special: bool, context: Context) -> _Counter:
    """What counted this model's tokens of the last text; of another load of the tokenizer a new one."""
    loaded = tokenizer_of(context.runtime, model, context.job)
    counters: dict[tuple[str, bool], _Counter] = context.runtime.services.setdefault("token-counters", {})
    kept = counters.get((model, special))
    if kept is None or kept.counter.tokenizer is not loaded.tokenizer:
        kept = _Counter(TextCounter(loaded.tokenizer, special=special), threading.Lock())
        counters[model, special] = kept
    return kept


def _pieces_of(counter: TextCounter, request: RecountTokens, context: Context) -> list[dict[str, Any]]:
    tokenizer = counter.tokenizer
    if request.special and len(request.text) <= request.end - request.start:
        found = tokenizer.encode_pieces(request.text, True)
    else:
        found = counter.pieces(request.start, request.end)
    return shown_pieces(found, request.text, tokenizer, context)


def shown_pieces(found: Sequence[Piece], text: str, tokenizer: TextTokenizer, context: Context) -> list[dict[str, Any]]:
    """Tokens of a stretch of `text` as `TokensRecounted` has them."""
    ends = [0, *itertools.accumulate((piece.end for piece in found), max)]
    starts = [*(piece.start for piece in found[1:]), len(text)]
    shown = []
    for piece, reached, following in zip(found, ends, starts):
        # Tokens that share a character with a neighbour are its bytes.
        part = piece.start < piece.end and (piece.start < reached or following < piece.end)
        token = vocabulary_of(tokenizer, context).by_id(piece.id) if part else None
        shown.append(
            {
                # Not asdict: this is done for each token on screen after every keystroke.
                "id": piece.id,
                "start": piece.start,
                "end": piece.end,
                "special": piece.special,
                "text": token.text if token else piece.text,
                "spelling": tokenizer.id_token(piece.id),
                "bytes": token.bytes if token else len(text[piece.start : piece.end].encode("utf-8")),
                "whole": token is None,
            }
        )
    return shown


def vocabulary_of(tokenizer: TextTokenizer, context: Context) -> Vocabulary:
    """All tokens of a tokenizer, read once."""
    kept: dict[int, tuple[TextTokenizer, Vocabulary]] = context.runtime.services.setdefault("vocabularies", {})
    found = kept.get(id(tokenizer))
    if found is None or found[0] is not tokenizer:
        found = kept[id(tokenizer)] = (tokenizer, Vocabulary(tokenizer))
    return found[1]


def _known_context(model: str, context: Context) -> Optional[int]:
    known: dict[str, Optional[int]] = context.runtime.services.setdefault("context-lengths", {})
    if model not in known:
        known[model] = _context_length(model)
    return known[model]


def _measure(request: MeasureDataset, context: Context) -> DatasetMeasured:
    models: list[MeasuredModel] = []
    failed: dict[str, WorkbenchError] = {}
    for model in request.models:
        try:
            models.append(_measured_model(model, request.template, context))
        except WorkbenchError as error:
            failed[model] = error
    if failed and not models:
        raise next(iter(failed.values()))

    def with_failed(measure: DatasetMeasure) -> dict[str, Any]:
        known = {entry.model: entry for entry in measure.models}
        known.update({model: unmeasured_model(model, str(error)) for model, error in failed.items()})
        return {**asdict(measure), "models": [asdict(known[model]) for model in request.models if model in known]}

    measured = measure_dataset(
        request.path,
        models,
        field=request.field or None,
        special=request.special,
        contents=bool(request.field) or not request.template,
        job=context.job,
        on_update=lambda measure: context.emit(DatasetUpdated(with_failed(measure))),
    )
    return DatasetMeasured(with_failed(measured))


def _measured_model(model: str, with_template: bool, context: Context) -> MeasuredModel:
    loaded = tokenizer_of(context.runtime, model, context.job)
    template = find_template(loaded.directory) if with_template and loaded.directory.is_dir() else None
    render = functools.partial(_rendered, template, context.job) if template is not None else None
    return MeasuredModel(model, loaded.tokenizer, render, _context_length(model))


def _rendered(
    template: ChatTemplate, job: Job, conversations: Sequence[list[dict[str, Any]]]
) -> list[Union[str, WorkbenchError]]:
    return render_chats(
        conversations, template, add_generation_prompt=False, give_up_after=EXHAUSTIONS_ALLOWED, job=job
    )


def _context_length(model: str) -> Optional[int]:
    # A bare tokenizer file has no config; then only the usual lengths are looked at.
    with contextlib.suppress(WorkbenchError):
        config = resolve(model).config
        return context_length(text_config(config)) if config is not None else None
    return None


HANDLERS: dict[type[Request], Handler] = {
    CountTokens: quick(_count),
    RecountTokens: quick(_recount),
    MeasureDataset: Handler((Stage("children", _measure),)),
}
