"""Running a prompt through a loaded model with hooks that are gone afterwards. Needs torch: worker only."""

from __future__ import annotations

import contextlib
import inspect
import traceback
from collections.abc import Sequence
from typing import Any, Callable, Optional, TypeVar

from workbench.errors import JobCancelled, WorkbenchError
from workbench.models.load import LoadedModel
from workbench.models.memory import memory_shortage, release_memory
from workbench.text import one_line

T = TypeVar("T")

MAX_TRACE_TOKENS = 2048
"""The whole prompt goes through in one pass, as a trace wants every position of a layer at once."""


class Hooks(contextlib.AbstractContextManager["Hooks"]):
    """Forward hooks that are removed on the way out, whatever happened inside."""

    def __init__(self) -> None:
        self._handles: list[Any] = []

    def before(self, module: Any, run: Callable[[tuple[Any, ...], dict[str, Any]], None]) -> None:
        """Call `run(arguments, keywords)` before `module` runs."""
        # A hook that returns a value would replace what it watches.
        self._handles.append(
            module.register_forward_pre_hook(lambda _module, args, kwargs: run(args, kwargs), with_kwargs=True)
        )

    def after(self, module: Any, run: Callable[[Any], None]) -> None:
        """Call `run(output)` after `module` ran."""
        self._handles.append(module.register_forward_hook(lambda _module, _args, output: run(output)))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()


def check_prompt(loaded: LoadedModel, ids: Sequence[int], most: int = MAX_TRACE_TOKENS) -> None:
    """Refuse a prompt that the model or a trace cannot take.

    Raises:
        WorkbenchError: ``no-model``, ``bad-prompt`` or ``prompt-too-long``.
    """
    if loaded.model is None:
        raise WorkbenchError("no-model", "The model was unloaded.", "Load it again.")
    if not ids:
        raise WorkbenchError("bad-prompt", "The prompt is empty.", "Type something.")
    rows = loaded.model.get_input_embeddings().weight.shape[0]
    if not 0 <= min(ids) <= max(ids) < rows:
        raise WorkbenchError(
            "bad-prompt",
            f"The prompt holds token {max(ids)}, but the model's embedding has {rows} rows.",
            "Tokenizer and model do not belong together: load the tokenizer of this model.",
        )
    length = loaded.facts.context_length
    if length is not None and len(ids) > length:
        raise WorkbenchError(
            "prompt-too-long", f"The prompt has {len(ids):,} tokens; the model's context is {length:,}.", "Shorten it."
        )
    if len(ids) > most:
        raise WorkbenchError(
            "prompt-too-long", f"The prompt has {len(ids):,} tokens; this look takes {most:,} at most.", "Shorten it."
        )


def run_forward(loaded: LoadedModel, ids: Sequence[int], keep: int = 1, **extra: Any) -> Any:
    """One forward pass over the whole prompt without a KV cache; the model's output.

    Args:
        loaded: a model.
        ids: the prompt.
        keep: positions, from the end, of which logits are wanted; where the class cannot be told so, all come.
        extra: further arguments of the model.
    """
    import torch

    model = loaded.model
    inputs = torch.tensor([list(ids)], device=loaded.facts.device)
    keywords: dict[str, Any] = {**extra, "use_cache": False, "return_dict": True}
    known = inspect.signature(model.forward).parameters
    if not any(item.kind is inspect.Parameter.VAR_KEYWORD for item in known.values()):
        keywords = {key: value for key, value in keywords.items() if key in known}
    if "logits_to_keep" in known and not loaded.facts.is_encoder_decoder:
        keywords["logits_to_keep"] = keep
    if loaded.facts.is_encoder_decoder:
        keywords["decoder_input_ids"] = torch.tensor([[decoder_start(model)]], device=loaded.facts.device)
    with torch.inference_mode():
        return model(input_ids=inputs, **keywords)


def decoder_start(model: Any) -> int:
    """The token from which a decoder behind an encoder starts."""
    for config in (model.generation_config, model.config, model.config.get_text_config()):
        for key in ("decoder_start_token_id", "bos_token_id", "pad_token_id"):
            value = getattr(config, key, None)
            if isinstance(value, int):
                return value
    return 0


def explained(loaded: LoadedModel, tokens: int, what: str, work: Callable[[], T]) -> T:
    """Do `work`; a library's exception becomes one sentence, and what its frames hold is freed.

    Raises:
        WorkbenchError: as `work` raises it, else ``out-of-memory`` or ``trace-failed``.
        JobCancelled: the caller asked to stop.
    """
    failure: Optional[BaseException] = None
    try:
        return work()
    except JobCancelled:
        failure = JobCancelled()
    except WorkbenchError as error:
        failure = WorkbenchError(error.kind, error.message, error.remedy, error.details)
    except Exception as error:
        failure = _explain(error, loaded, tokens, what)
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
    release_memory()
    raise failure


def _explain(error: Exception, loaded: LoadedModel, tokens: int, what: str) -> WorkbenchError:
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:]
    memory = memory_shortage(error)
    if memory is not None:
        return WorkbenchError(
            "out-of-memory",
            f"Out of memory on {loaded.facts.device} in {what} of {tokens:,} tokens: {memory}",
            "Shorten the prompt, or load the model in nf4.",
            details,
        )
    return WorkbenchError(
        "trace-failed",
        f"{loaded.facts.class_name} failed in {what} of {tokens:,} tokens: "
        f"{type(error).__name__}: {one_line(str(error), 200)}",
        "See the details; after a CUDA error restart the session.",
        details,
    )


def first_tensor(value: Any) -> Any:
    """The first floating tensor of a module's output or arguments; None if there is none."""
    import torch

    if isinstance(value, torch.Tensor):
        return value if value.is_floating_point() else None
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            found = first_tensor(item)
            if found is not None:
                return found
    return None


def hidden_input(arguments: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """The tensor that a module works on."""
    found = first_tensor(keywords.get("hidden_states"))
    return found if found is not None else first_tensor([*arguments, *keywords.values()])
