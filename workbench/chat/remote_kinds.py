"""What each OpenAI-compatible server takes beyond the OpenAI API, and what none can do. Stdlib only.

Sources, read in the servers' own code and pages:
vLLM https://docs.vllm.ai/en/latest/serving/openai_compatible_server/ (extra parameters; ``--max-logprobs`` is 20);
SGLang https://docs.sglang.ai/basic_usage/openai_api_completions.html;
llama.cpp ``tools/server/README.md`` (``repeat_penalty``); Ollama ``openai/openai.go`` (``ChatCompletionRequest``);
TGI ``router/src/lib.rs`` (``ChatRequest``, top_logprobs at most 5); LM Studio https://lmstudio.ai/docs (supported
payload parameters); transformers ``cli/serving/chat_completion.py`` (unknown fields are refused, logprobs ignored).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from workbench.chat.options import SamplingOptions

MOST_ALTERNATIVES = 20

CANNOT = (
    "KV cache: the server keeps its own; what it reuses is known only if it says so.",
    "Exact prompt: the server puts the messages into its template and does not show the result.",
    "Forking at a token: no server takes an answer begun by token ids.",
    "Distribution before and after each filter: only the most probable tokens come, before any filter.",
    "Memory: a server does not tell what it holds.",
)
"""What no server can do here, a line each."""


@dataclass(frozen=True)
class Kind:
    """A kind of server.

    Attributes:
        id: stable name.
        title: as people call it.
        extras: sampling options beyond OpenAI's that it takes, with the name of each there.
        logprobs: how many alternatives it gives at most; 0 if it gives no log-probabilities.
        sure: whether it is known what it takes; else everything is sent and may be ignored.
        continues: whether it can go on writing an answer (``continue_final_message``).
        completes: whether ``/v1/completions`` takes the prompt as it is.
        shortens: whether it drops the beginning of a conversation that is too long, instead of refusing it.
    """

    id: str
    title: str
    extras: dict[str, str] = field(default_factory=dict)
    logprobs: int = MOST_ALTERNATIVES
    sure: bool = True
    continues: bool = False
    completes: bool = True
    shortens: bool = False


_ALL = {"top_k": "top_k", "min_p": "min_p", "repetition_penalty": "repetition_penalty"}

KINDS = {
    kind.id: kind
    for kind in (
        Kind("vllm", "vLLM", _ALL, continues=True),
        Kind("sglang", "SGLang", _ALL, continues=True),
        Kind("llama.cpp", "llama.cpp", {**_ALL, "repetition_penalty": "repeat_penalty"}),
        Kind("ollama", "Ollama", completes=False, shortens=True),
        Kind("tgi", "TGI", logprobs=5),
        Kind("lmstudio", "LM Studio", {"top_k": "top_k", "repetition_penalty": "repeat_penalty"}),
        Kind("transformers", "transformers serve", logprobs=0),
        Kind("unknown", "OpenAI-compatible", _ALL, sure=False),
    )
}

NEVER_SENT = {"no_repeat_ngram_size": 0, "prompt_lookup": 0}
"""Options that no server takes, with the value that changes nothing."""
NEUTRAL = {"top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}


def can(kind: Kind) -> list[str]:
    """The sampling options and abilities of a kind, by their names here."""
    names = ["chat", "temperature", "top_p", *kind.extras, "max_new_tokens", "stop", "seed", "greedy"]
    names += ["raw"] if kind.completes else []
    names += ["logprobs"] if kind.logprobs else []
    return names + (["extend"] if kind.continues else [])


def cannot(kind: Kind) -> list[str]:
    """What is not to be had there, a line each."""
    lines = list(CANNOT)
    missing = [name for name in _ALL if name not in kind.extras] + list(NEVER_SENT)
    lines.append(f"Sampling: {kind.title} does not take {', '.join(name.replace('_', '-') for name in missing)}.")
    if not kind.logprobs:
        lines.append(f"Looking inside: {kind.title} gives no log-probabilities.")
    if not kind.completes:
        lines.append(f"Completion without a template: {kind.title} puts its own around the prompt.")
    if kind.shortens:
        lines.append(f"Overflow: {kind.title} drops the beginning of a long conversation without saying so.")
    if not kind.continues:
        lines.append("Writing on: an answer cannot be continued; ask for more in a message.")
    if not kind.sure:
        lines.append("Options: an unknown server may ignore some without saying so.")
    return lines


@dataclass(frozen=True)
class Parameters:
    """Sampling options as fields of a request.

    Attributes:
        fields: what is sent.
        left_out: options that were asked for and are not sent.
        optional: fields that a server may refuse; the request is then sent again without them.
    """

    fields: dict[str, Any]
    left_out: list[str]
    optional: frozenset[str]


def parameters(kind: Kind, given: dict[str, Any], options: SamplingOptions, alternatives: int, raw: bool) -> Parameters:
    """The fields of a request.

    What the user did not give is left to the server, whose own defaults know the model; only the length is always
    bounded.

    Args:
        kind: of the server.
        given: the options that the user gave, by name.
        options: the same with our defaults for the rest, checked.
        alternatives: how many alternatives of each token are wanted.
        raw: for ``/v1/completions``, whose form of log-probabilities is another.
    """
    fields: dict[str, Any] = {"max_tokens": options.max_new_tokens}
    left_out = [name for name, neutral in NEVER_SENT.items() if given.get(name, neutral) != neutral]
    optional = set()
    if options.is_greedy:
        fields["temperature"] = 0
    else:
        fields.update({name: given[name] for name in ("temperature", "top_p") if given.get(name) is not None})
    for name, neutral in NEUTRAL.items():
        if options.is_greedy and name != "repetition_penalty":
            continue  # they change nothing there
        if given.get(name, neutral) == neutral and not (name == "top_k" and name in given):
            continue
        if name in kind.extras:
            field_name = kind.extras[name]
            # 0 keeps all tokens everywhere but in vLLM and SGLang, where -1 does (0 too, in newer ones).
            fields[field_name] = -1 if name == "top_k" and not given[name] and kind.continues else given[name]
            if not kind.sure:
                optional.add(field_name)
        elif given[name] != neutral:
            left_out.append(name)
    if options.stop:
        fields["stop"] = list(options.stop)
    if options.seed is not None:
        fields["seed"] = options.seed
    if alternatives > 0 and kind.logprobs:
        count = min(alternatives, kind.logprobs)
        fields.update({"logprobs": count} if raw else {"logprobs": True, "top_logprobs": count})
        optional.update(("logprobs", "top_logprobs"))
    if kind.id != "transformers":
        fields["stream_options"] = {"include_usage": True}
        optional.add("stream_options")
    return Parameters(fields, left_out, frozenset(optional))
