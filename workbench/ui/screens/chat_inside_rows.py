"""What the screen that looks inside an answer shows, as lines."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from math import exp
from typing import Any

from textual.content import Content

from workbench.ui.screens.chat_sampling_chart import percent
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.pieces import visible
from workbench.ui.widgets.probability_view import probability, token_words
from workbench.ui.widgets.row_list import Row

LEVELS = "▁▂▃▄▅▆▇█"


def quoted(text: str) -> str:
    """A token's text with its white space visible, on one line."""
    return visible(text).replace("\n", "") or "▯"


def alternative_rows(token: dict[str, Any]) -> Iterator[Row]:
    """What else could have stood there, the most probable first; the token itself is marked."""
    known, here = list(token["alternatives"]), chosen_key(token)
    keys = [_key(other["id"], other["text"]) for other in known]
    for number, (key, other) in enumerate(zip(keys, known, strict=True), 1):
        yield Row(key, _line(str(number), other, key == here), other)
    if here not in keys and token.get("logprob") is not None:
        # Its rank is not recorded: only that it is below those.
        chosen = {"id": token["id"], "text": token_words(token), "logprob": token["logprob"]}
        yield Row(here, _line("…", chosen, True), chosen)


def chosen_key(token: dict[str, Any]) -> str:
    """The row of the token itself among its alternatives."""
    return _key(token["id"], token_words(token))


def _key(token_id: int, text: str) -> str:
    return str(token_id) if token_id >= 0 else f"text:{text}"  # a server may tell no ids


def _line(number: str, other: dict[str, Any], here: bool) -> Callable[[int], Content]:
    share = exp(other["logprob"])

    def line(width: int) -> Content:
        room = max(8, min(24, width - 32))
        return Content.assemble(
            ("▸ " if here else "  ", "bold $accent"),
            right(number, 2, "$muted"),
            "  ",
            left(quoted(str(other["text"])), room, "bold" if here else ""),
            right(percent(share), 8),
            "  ",
            bar(share, max(4, min(40, width - room - 18))),
        )

    return line


def token_line(token: dict[str, Any], index: int, count: int) -> Content:
    """The token under the cursor in figures."""
    known, entropy = probability(token), token.get("entropy_bits")
    share = "was given" if token.get("given") and known is None else "probability unknown"
    parts = [
        f"token {index + 1:,} of {count:,}",
        quoted(token_words(token)),
        f"id {token['id']}" if token["id"] >= 0 else "",
        percent(known) if known is not None else share,
    ]
    if entropy is not None:
        parts.append(f"entropy {entropy:.2f} bits")
    return Content.assemble(
        (parts[1], "bold"), ("   " + " · ".join(part for part in (parts[0], *parts[2:]) if part), "$muted")
    )


def answer_line(tokens: list[dict[str, Any]]) -> str:
    """The answer as a whole: how sure the model was."""
    logs = [token["logprob"] for token in tokens if token.get("logprob") is not None]
    if not logs:
        return f"{len(tokens):,} tokens"
    low = sum(exp(value) < 0.5 for value in logs)
    bits = [token["entropy_bits"] for token in tokens if token.get("entropy_bits") is not None]
    mean = f" · mean entropy {sum(bits) / len(bits):.2f} bits" if bits else ""
    return f"{len(tokens):,} tokens, {low:,} below 50 % · perplexity {exp(-sum(logs) / len(logs)):.2f}{mean}"


def entropy_line(tokens: list[dict[str, Any]], cursor: int, width: int) -> Content:
    """Entropy along the answer; the highest is said, the cursor's place is marked."""
    bits = [token.get("entropy_bits") or 0.0 for token in tokens]
    if width < 40 or all(token.get("entropy_bits") is None for token in tokens):
        return Content("")
    most = max(bits)
    tail = f"  most {most:.1f} bits"
    room = min(len(bits), width - len(tail) - 9)
    cells: list[Content | tuple[str, str]] = [("entropy  ", "$muted")]
    for cell in range(room):
        start, end = cell * len(bits) // room, max(cell * len(bits) // room + 1, (cell + 1) * len(bits) // room)
        level = max(bits[start:end]) / most if most else 0.0
        style = "reverse $accent" if start <= cursor < end else "$accent"
        cells.append((LEVELS[min(7, int(level * 8))], style))
    return Content.assemble(*cells, (tail, "$muted"))
