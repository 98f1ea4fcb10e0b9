"""Conversations as Markdown for people and as JSONL in the ``messages`` form that fine-tuning wants. Stdlib only."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timezone

from workbench.chat.conversations import Conversation, Message

_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})", re.MULTILINE)
_HEADINGS = {"system": "System prompt", "user": "User", "assistant": "Assistant", "tool": "Tool"}
_STATES = {
    "partial": "unfinished",
    "cancelled": "stopped by the user",
    "failed": "ended by an error",
}


def to_markdown(conversation: Conversation) -> str:
    """A conversation as Markdown: a heading per message, the text as it stands, figures of each answer below."""
    lines = [f"# {_heading(conversation.title) or 'Conversation'}", ""]
    when = datetime.fromtimestamp(conversation.created, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    lines += [f"{f'Model: {_heading(conversation.model)} · ' if conversation.model else ''}{when}", ""]
    for message in conversation.messages:
        lines += [f"## {_HEADINGS.get(message.role, message.role)}", "", _closed(message.text), ""]
        remark = _remark(message)
        if remark:
            lines += [f"*{remark}*", ""]
    return "\n".join(lines).rstrip() + "\n"


def to_jsonl(conversations: Sequence[Conversation], only_complete: bool = True) -> str:
    """One line per conversation: ``{"messages": [{"role": …, "content": …}, …]}``.

    Args:
        conversations: with their messages.
        only_complete: end each before its first message that is not complete, and leave out conversations
            without an answer, as training on cut answers teaches to stop early.
    """
    lines = []
    for conversation in conversations:
        messages = []
        for message in conversation.messages:
            if only_complete and message.state != "complete":
                break
            messages.append({"role": message.role, "content": message.text})
        while only_complete and messages and messages[-1]["role"] != "assistant":
            messages.pop()
        if messages:
            lines.append(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
    return "".join(lines)


def _heading(text: str) -> str:
    return " ".join(text.split())


def _closed(text: str) -> str:
    """Close a code block that a cut answer leaves open, or it would swallow what follows."""
    open_fence = ""
    for match in _FENCE.finditer(text):
        fence = match.group(1)
        if not open_fence:
            open_fence = fence
        elif fence[0] == open_fence[0] and len(fence) >= len(open_fence):
            open_fence = ""
    return f"{text}\n{open_fence}" if open_fence else text


def _remark(message: Message) -> str:
    parts = [_STATES[message.state]] if message.state in _STATES else []
    figures = message.figures
    if isinstance(figures.get("new_tokens"), int):
        parts.append(f"{figures['new_tokens']} tokens")
    if isinstance(figures.get("tokens_per_second"), (int, float)) and figures["tokens_per_second"] > 0:
        parts.append(f"{figures['tokens_per_second']:.1f} tokens/s")
    return " · ".join(parts)
