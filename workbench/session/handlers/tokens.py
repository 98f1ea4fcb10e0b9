"""Counting tokens."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from workbench.errors import WorkbenchError
from workbench.models.tokenizer_source import tokenizer_path
from workbench.session.protocol import CountTokens, Request, TokensCounted
from workbench.session.runtime import Context, Handler, Runtime, quick
from workbench.tokens.count import count_text, text_figures
from workbench.tokens.tokenizer import TextTokenizer, load_tokenizer


def tokenizer_of(runtime: Runtime, model: str, job: Any) -> TextTokenizer:
    """The tokenizer of a model by any of its names; loaded once per worker.

    Raises:
        WorkbenchError: the model is unknown, not on this box, or has no tokenizer that can be read.
    """
    slot = runtime.slot
    if slot is not None and slot.status.name == model:
        tokenizer: TextTokenizer = slot.tokenizer
        return tokenizer
    path = tokenizer_path(model, job)
    cache: dict[str, TextTokenizer] = runtime.services.setdefault("tokenizers", {})
    if path not in cache:
        cache[path] = load_tokenizer(path)
    return cache[path]


def _count(request: CountTokens, context: Context) -> TokensCounted:
    figures = [asdict(text_figures(item["text"], item.get("name", ""))) for item in request.texts]
    results: list[dict[str, Any]] = []
    for model in request.models:
        try:
            tokenizer = tokenizer_of(context.runtime, model, context.job)
            results.extend(_count_under(tokenizer, model, request, context))
        except WorkbenchError as error:
            if len(request.models) == 1:
                raise
            results.append({"model": model, "error": str(error)})
    return TokensCounted({"texts": figures, "results": results})


def _count_under(tokenizer: TextTokenizer, model: str, request: CountTokens, context: Context) -> list[dict[str, Any]]:
    counted = []
    for item in request.texts:
        context.job.check()
        count = count_text(
            item["text"],
            tokenizer,
            special=request.special,
            plain=request.plain,
            pieces=request.pieces,
            ids=request.ids,
            name=item.get("name", ""),
        )
        found = {key: value for key, value in asdict(count).items() if value is not None}
        counted.append({**found, "model": model})
    return counted


HANDLERS: dict[type[Request], Handler] = {CountTokens: quick(_count)}
