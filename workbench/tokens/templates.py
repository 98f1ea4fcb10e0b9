"""What can go wrong between a conversation and its tokens, seen in the rendered prompt. Stdlib only.

Rendering itself is not done here: every function takes the text that a chat template has made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional

from workbench.tokens.huggingface import HuggingFaceTokenizer
from workbench.tokens.tokenizer import TextTokenizer

_BOS_NAMES = ("<s>", "<bos>", "<|begin_of_text|>", "<|startoftext|>", "<｜begin▁of▁sentence｜>", "<BOS_TOKEN>")
_MAX_FINDINGS = 50


@dataclass(frozen=True)
class PromptFinding:
    """Something that makes the prompt's tokens others than meant.

    Attributes:
        id: ``double-bos``, ``missing-bos``, ``missing-generation-prompt``, ``special-in-text`` or ``unused-content``.
        severity: ``error``, ``warning`` or ``info``.
        title: one line.
        why: what happens because of it.
        fix: what to do.
        message: index of the message it is about, or None.
        start: character offset, in that message's content or else in the prompt.
        end: exclusive.
        token: the marker it is about; may be empty.
    """

    id: str
    severity: str
    title: str
    why: str
    fix: str
    message: Optional[int] = None
    start: int = 0
    end: int = 0
    token: str = ""


@dataclass(frozen=True)
class MessageCost:
    """One message of the conversation."""

    index: int
    role: str
    content_tokens: int
    """Of the content by itself, markers in it taken as text."""
    start: int
    """Where its content stands in the prompt; -1 if the template changed or dropped it."""
    end: int


@dataclass(frozen=True)
class PromptReport:
    """What a conversation costs once it is rendered."""

    tokens: int
    """Of the whole prompt, as the model gets it."""
    content_tokens: int
    """Tokens that lie in the contents of the messages."""
    template_tokens: int
    """All others: headers, separators, default system prompts, tool descriptions."""
    template_share: float
    special_tokens: int
    """How many of the tokens are markers."""
    messages: list[MessageCost]
    findings: list[PromptFinding]


def check_prompt(
    messages: Sequence[dict[str, Any]],
    rendered: str,
    tokenizer: TextTokenizer,
    *,
    rendered_with_generation: Optional[str] = None,
    add_special_tokens: bool = False,
) -> PromptReport:
    """Examine a rendered conversation.

    Args:
        messages: as given to the template, with ``role`` and ``content``.
        rendered: the template's text, as it will be sent.
        tokenizer: of the same model.
        rendered_with_generation: the same rendered with ``add_generation_prompt=True``, to see whether `rendered`
            lacks it. None leaves that out.
        add_special_tokens: whether the tokenizer will be asked to add its own special tokens (wrong for templates
            that write them; that is what this finds).

    Raises:
        WorkbenchError: ``bad-text`` for a lone surrogate.
    """
    pieces = tokenizer.encode_pieces(rendered, add_special_tokens)
    places = _places(messages, rendered)
    costs = [
        MessageCost(
            index,
            str(message.get("role", "")),
            len(tokenizer.encode(text, False, False)) if (text := _content(message)) else 0,
            *place,
        )
        for index, (message, place) in enumerate(zip(messages, places))
    ]
    covered = [(start, end) for start, end in places if start >= 0]
    inside = sum(1 for piece in pieces if any(start < piece.end and piece.start < end for start, end in covered))
    findings = [
        *_bos_findings(rendered, tokenizer, add_special_tokens),
        *_generation_findings(messages, rendered, rendered_with_generation),
        *_smuggled(messages, tokenizer),
        *_dropped(messages, places),
    ]
    return PromptReport(
        tokens=len(pieces),
        content_tokens=inside,
        template_tokens=len(pieces) - inside,
        template_share=(len(pieces) - inside) / len(pieces) if pieces else 0.0,
        special_tokens=sum(1 for piece in pieces if piece.special),
        messages=costs,
        findings=findings[:_MAX_FINDINGS],
    )


def smuggled_tokens(text: str, tokenizer: TextTokenizer) -> list[tuple[str, int, int]]:
    """Markers that a tokenizer reads out of typed text: token, start and end in characters.

    They act like the template's own: a user who types ``<|im_end|>`` ends the turn.
    """
    # Ids that also come out when markers are taken as text are ordinary tokens, such as runs of spaces.
    ordinary = set(tokenizer.encode(text, False, False))
    if isinstance(tokenizer, HuggingFaceTokenizer):
        markers = tokenizer.added_ids - ordinary
    else:
        markers = frozenset(tokenizer.special_tokens().values()) - ordinary
    found = []
    for piece in tokenizer.encode_pieces(text, False, True):
        spelling = tokenizer.id_token(piece.id) if piece.id in markers else ""
        # A model's unknown token stands for something else than its own name.
        if spelling and spelling in text[piece.start : piece.end]:
            found.append((spelling, piece.start, piece.end))
    return found


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))


def _places(messages: Sequence[dict[str, Any]], rendered: str) -> list[tuple[int, int]]:
    """Where each message's content stands in the prompt, in order; templates may trim it."""
    places = []
    position = 0
    for message in messages:
        text = _content(message)
        start = rendered.find(text, position) if text else -1
        if start < 0 and text.strip():
            text = text.strip()
            start = rendered.find(text, position)
        places.append((start, start + len(text)) if start >= 0 else (-1, -1))
        position = max(position, start + len(text)) if start >= 0 else position
    return places


def _bos_findings(rendered: str, tokenizer: TextTokenizer, add_special_tokens: bool) -> list[PromptFinding]:
    bos = _bos_of(tokenizer)
    if bos is None:
        return []
    own_id, name = bos
    ids = tokenizer.encode(rendered, add_special_tokens)
    if ids[:2] == [own_id, own_id]:
        return [
            PromptFinding(
                "double-bos",
                "error",
                f"The prompt begins with {name} twice.",
                "The template writes it and the tokenizer adds it again; the model has never seen two.",
                "Tokenize the rendered prompt with add_special_tokens=False.",
                token=name,
                end=len(name),
            )
        ]
    if own_id not in ids[:1] and _adds(tokenizer, own_id):
        return [
            PromptFinding(
                "missing-bos",
                "warning",
                f"The prompt does not begin with {name}.",
                "The tokenizer puts it before every text, so the model was trained with it; this template leaves it "
                "out and the tokenizer is not asked for it.",
                "Check what the model's card says; tokenize with add_special_tokens=True if it wants one.",
                token=name,
            )
        ]
    return []


def _bos_of(tokenizer: TextTokenizer) -> Optional[tuple[int, str]]:
    """Id and name of the token that begins a text: what the tokenizer adds in front, else one with a known name."""
    added = tokenizer.encode("a", True)
    plain = tokenizer.encode("a", False)
    special = {token_id: token for token, token_id in tokenizer.special_tokens().items()}
    if len(added) > len(plain) and added[0] in special and added[: len(plain)] != plain:
        return added[0], special[added[0]]
    named = [(token_id, token) for token_id, token in special.items() if token in _BOS_NAMES]
    return named[0] if len(named) == 1 else None


def _adds(tokenizer: TextTokenizer, token_id: int) -> bool:
    return tokenizer.encode("a", True)[:1] == [token_id]


def _generation_findings(
    messages: Sequence[dict[str, Any]], rendered: str, with_generation: Optional[str]
) -> list[PromptFinding]:
    if with_generation is None or not messages or messages[-1].get("role") == "assistant":
        return []
    if rendered == with_generation:
        return []
    if not with_generation.startswith(rendered):
        return []
    header = with_generation[len(rendered) :]
    return [
        PromptFinding(
            "missing-generation-prompt",
            "warning",
            "The prompt does not open the assistant's turn.",
            f"The template would end it with {header!r}; without that the model may go on as the user.",
            "Render with add_generation_prompt=True.",
            start=len(rendered),
            end=len(rendered),
        )
    ]


def _smuggled(messages: Sequence[dict[str, Any]], tokenizer: TextTokenizer) -> list[PromptFinding]:
    return [
        PromptFinding(
            "special-in-text",
            "error" if message.get("role") in ("user", "tool") else "warning",
            f"The {message.get('role', '')} message types the special token {token}.",
            "It is read as the token itself, not as text, and can end a turn or open another one.",
            "Encode contents apart from the template with special tokens as text, or take the marker out.",
            index,
            start,
            end,
            token,
        )
        for index, message in enumerate(messages)
        for token, start, end in smuggled_tokens(_content(message), tokenizer)
    ]


def _dropped(messages: Sequence[dict[str, Any]], places: Sequence[tuple[int, int]]) -> list[PromptFinding]:
    return [
        PromptFinding(
            "unused-content",
            "info",
            f"The content of message {index + 1} ({message.get('role', '')}) is not in the prompt as it was written.",
            "The template changes or leaves it out (earlier reasoning, a system prompt it does not know).",
            "Look at the rendered prompt.",
            index,
        )
        for index, (message, place) in enumerate(zip(messages, places))
        if place[0] < 0 and _content(message).strip()
    ]
