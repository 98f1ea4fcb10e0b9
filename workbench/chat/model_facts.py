"""What the decode loop must know of a model class. Needs transformers."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from typing import Any

from workbench.models.load import LoadedModel


def misfit(loaded: LoadedModel) -> str:
    """Why the own loop does not fit this class, or an empty string.

    The loop feeds plain ids and the cache. A class that prepares its inputs in its own way, or whose state is
    recurrent (fed in several chunks, some classes silently start from nothing), goes through ``generate``.
    """
    from transformers import GenerationMixin

    model = loaded.model
    name = loaded.facts.class_name
    if loaded.facts.is_encoder_decoder:
        return f"{name} is an encoder-decoder model"
    if getattr(model, "_is_stateful", False):
        return f"{name} has a recurrent state"
    if type(model).prepare_inputs_for_generation is not GenerationMixin.prepare_inputs_for_generation:
        return f"{name} prepares its inputs in its own way"
    parameters = inspect.signature(model.forward).parameters
    if not {"input_ids", "past_key_values", "use_cache"} <= set(parameters):
        return f"{name} takes no cache"
    return ""


def logits_keyword(model: Any) -> str:
    """What `model` calls the number of last positions whose logits it shall compute; empty where it has none.

    The others are vocabulary × prompt floats for nothing.
    """
    parameters = inspect.signature(model.forward).parameters
    return next((name for name in ("logits_to_keep", "num_logits_to_keep") if name in parameters), "")


def end_ids(model: Any) -> frozenset[int]:
    """End tokens as ``generate`` finds them: of the generation config, else of the config."""
    for source in (getattr(model, "generation_config", None), model.config.get_text_config(decoder=True)):
        value = getattr(source, "eos_token_id", None)
        if isinstance(value, int):
            return frozenset({value})
        if value:
            return frozenset(int(item) for item in value)
    return frozenset()


@contextlib.contextmanager
def optimized_for_decode(model: Any) -> Iterator[None]:
    """``generate``'s own switch of the experts' kernel for one-token steps, where transformers has it."""
    switch = getattr(model, "_optimize_model_for_decode", None)
    if switch is None:
        yield
        return
    with switch():
        yield
