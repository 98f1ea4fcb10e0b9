"""Looking into the loaded model: its modules, a prompt's way through it, attention, embeddings. Model lane."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any, Callable, Optional, TypeVar, Union

from workbench.architecture.attention import read_attention
from workbench.architecture.embeddings import Words, compare_tokens, embedding_norms, map_words, nearest_tokens
from workbench.architecture.live import LiveNode, inspect_loaded
from workbench.architecture.trace import TraceOptions, trace_model
from workbench.chat.template import find_template, make_prompt
from workbench.errors import WorkbenchError
from workbench.session.handlers.models import load_slot, make_ready
from workbench.session.protocol import (
    AttentionRead,
    CompareTokens,
    EmbeddingNorms,
    EmbeddingNormsRead,
    InspectLoaded,
    LoadedInspected,
    LoadModel,
    MapWords,
    ModelTraced,
    NearestTokens,
    NearestTokensFound,
    ReadAttention,
    Reply,
    Request,
    TokensCompared,
    TraceModel,
    WordsMapped,
)
from workbench.session.runtime import Context, Handler, LoadedSlot, Stage
from workbench.tokens.vocabulary import Vocabulary

Look = Union[InspectLoaded, TraceModel, ReadAttention, NearestTokens, CompareTokens, EmbeddingNorms, MapWords]
L = TypeVar("L", bound=Look)


def _make_ready(request: Look, context: Context) -> Optional[Path]:
    if isinstance(request, (TraceModel, ReadAttention)) and not request.prompt:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    return make_ready(request.load, context) if request.load is not None else None


def _on_slot(look: Callable[[L, LoadedSlot, Context], Reply]) -> Handler:
    """A handler that looks into the loaded model, loading it first if the request says which."""

    def run(request: L, context: Context) -> Reply:
        wanted: Optional[LoadModel] = request.load
        if wanted is not None:
            load_slot(wanted, context)
        slot = context.runtime.require_slot()
        try:
            return look(request, slot, context)
        finally:
            context.runtime.touch_model()

    return Handler((Stage("children", _make_ready), Stage("model", run)))


def _text_of(slot: LoadedSlot, context: Context) -> Callable[[int], str]:
    services = context.runtime.services
    kept, vocabulary = services.get("loaded_vocabulary", (None, None))
    if kept is not slot.tokenizer:
        vocabulary = Vocabulary(slot.tokenizer)
        services["loaded_vocabulary"] = (slot.tokenizer, vocabulary)

    def text_of(token: int) -> str:
        try:
            return str(vocabulary.by_id(token).text)
        except WorkbenchError:
            return f"[{token}]"  # embedding tables are padded beyond the tokenizer

    return text_of


def _prompt(prompt: str, chat: bool, slot: LoadedSlot, context: Context) -> tuple[str, list[int]]:
    """The text that the model sees, and its tokens."""
    if not chat:
        return prompt, slot.tokenizer.encode(prompt, add_special_tokens=True)
    template = find_template(Path(slot.status.directory))
    made = make_prompt([{"role": "user", "content": prompt}], template, context.job)
    return made.text, slot.tokenizer.encode(made.text, add_special_tokens=made.add_special_tokens)


def _words(slot: LoadedSlot, context: Context) -> Words:
    return Words(slot.tokenizer.encode, _text_of(slot, context), slot.tokenizer.vocab_size)


def _inspect(_request: InspectLoaded, slot: LoadedSlot, _context: Context) -> LoadedInspected:
    live = inspect_loaded(slot.loaded)
    result = {
        "parameters": live.parameters,
        "bytes": live.bytes,
        "by_dtype": live.by_dtype,
        "by_device": live.by_device,
        "by_quantization": live.by_quantization,
        "device_bytes": live.device_bytes,
        "tree": _node(live.tree),
    }
    return LoadedInspected(slot.status, result)


def _node(node: LiveNode) -> dict[str, Any]:
    return {
        "name": node.name,
        "path": node.path,
        "class": node.class_name,
        "parameters": node.parameters,
        "shape": list(node.shape) if node.shape is not None else None,
        "dtype": node.dtype,
        "bytes": node.bytes,
        "count": node.repeat,
        "tied_to": node.tied_to,
        "device": node.device,
        "quantization": node.quantization,
        "buffer": node.buffer,
        "children": [_node(child) for child in node.children],
    }


def _trace(request: TraceModel, slot: LoadedSlot, context: Context) -> ModelTraced:
    text, ids = _prompt(request.prompt, request.chat, slot, context)
    options = TraceOptions(request.lens, request.lens_positions)
    found = trace_model(slot.loaded, ids, _text_of(slot, context), options, context.job, text)
    return ModelTraced(slot.status, asdict(found))


def _attention(request: ReadAttention, slot: LoadedSlot, context: Context) -> AttentionRead:
    _, ids = _prompt(request.prompt, request.chat, slot, context)
    text_of = _text_of(slot, context)
    found = read_attention(slot.loaded, ids, request.layer, text_of, request.heads, context.job)
    return AttentionRead(slot.status, asdict(found))


def _nearest(request: NearestTokens, slot: LoadedSlot, context: Context) -> NearestTokensFound:
    found = nearest_tokens(
        slot.loaded,
        _words(slot, context),
        request.text,
        request.id,
        request.table,
        request.measure,
        request.count,
        context.job,
    )
    return NearestTokensFound(slot.status, asdict(found))


def _compare(request: CompareTokens, slot: LoadedSlot, context: Context) -> TokensCompared:
    found = compare_tokens(slot.loaded, _words(slot, context), request.texts, request.table, context.job)
    return TokensCompared(slot.status, asdict(found))


def _norms(request: EmbeddingNorms, slot: LoadedSlot, context: Context) -> EmbeddingNormsRead:
    found = embedding_norms(slot.loaded, _words(slot, context), request.table, request.count, context.job)
    return EmbeddingNormsRead(slot.status, asdict(found))


def _map(request: MapWords, slot: LoadedSlot, context: Context) -> WordsMapped:
    found = map_words(slot.loaded, _words(slot, context), request.words, request.table, context.job)
    return WordsMapped(slot.status, asdict(found))


HANDLERS: dict[type[Request], Handler] = {
    InspectLoaded: _on_slot(_inspect),
    TraceModel: _on_slot(_trace),
    ReadAttention: _on_slot(_attention),
    NearestTokens: _on_slot(_nearest),
    CompareTokens: _on_slot(_compare),
    EmbeddingNorms: _on_slot(_norms),
    MapWords: _on_slot(_map),
}
