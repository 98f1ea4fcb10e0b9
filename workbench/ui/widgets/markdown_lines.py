"""Markdown as lines of styled text for a width: one pass, no widgets, nothing in it is obeyed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual.content import Content

CODE_STYLE = "$foreground on $surface"
CODE_MARGIN = "  "


@dataclass(frozen=True)
class Block:
    """A run of text with what stands before its first and its further lines."""

    content: Content
    first: Content
    rest: Content
    kind: str = "text"
    """``text`` wraps at words, ``code`` at any character, ``rule`` is a line across."""
    gap: bool = True
    """Whether an empty line comes before it."""


@cache
def _parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable(["table", "strikethrough"])


def markdown_lines(text: str, width: int, highlight: bool = True) -> list[Content]:
    """Render `text` for `width` cells.

    Args:
        highlight: colour code by its language; worth it for text that no longer grows.
    """
    lines: list[Content] = []
    for block in _blocks(_parser().parse(text), width, highlight):
        if block.gap and lines:
            lines.append(Content(""))
        lines.extend(_laid_out(block, width))
    return lines


def stable_length(text: str) -> int:
    """How much of a growing text will not be shown otherwise when more comes: all before its last top-level block."""
    fenced = False
    stable = position = 0
    blank = False
    for line in text.splitlines(keepends=True):
        opens_block = blank and line[:1] not in (" ", "\t", "\n") and not fenced
        if opens_block:
            stable = position
        if line.lstrip().startswith(("```", "~~~")):
            fenced = not fenced
        blank = not line.strip()
        position += len(line)
    return stable


def _laid_out(block: Block, width: int) -> Iterator[Content]:
    room = max(8, width - block.first.cell_length)
    if block.kind == "rule":
        yield Content.assemble(block.first, ("─" * room, "$faint"))
        return
    prefix = block.first
    for line in block.content.split("\n", allow_blank=True):
        if block.kind == "code":
            pieces = [piece.pad_right(max(0, room - piece.cell_length)) for piece in line.expand_tabs(4).fold(room)]
            pieces = [Content.assemble((piece.plain, CODE_STYLE)).add_spans(piece.spans) for piece in pieces]
        else:
            pieces = line.wrap(room) if line else [line]
        for piece in pieces:
            yield Content.assemble(prefix, piece)
            prefix = block.rest


@dataclass
class _Place:
    """Where the walk stands: the prefixes that lists and quotes put before lines."""

    first: Content
    rest: Content
    tight: bool = False
    fresh: bool = True


def _blocks(tokens: list[Token], width: int, highlight: bool) -> Iterator[Block]:
    places = [_Place(Content(""), Content(""))]
    numbers: list[int | None] = []
    heading = ""
    list_starts = False
    i = 0
    while i < len(tokens):
        token = tokens[i]
        kind, place = token.type, places[-1]
        if kind in ("bullet_list_open", "ordered_list_open"):
            list_starts = not numbers
            numbers.append(int(token.attrGet("start") or 1) if kind.startswith("ordered") else None)
        elif kind in ("bullet_list_close", "ordered_list_close"):
            numbers.pop()
        elif kind == "list_item_open":
            places.append(_item(place, numbers))
        elif kind == "blockquote_open":
            bar = Content.styled("│ ", "$accent")
            places.append(_Place(place.first + bar, place.rest + bar))
        elif kind in ("list_item_close", "blockquote_close"):
            places.pop()
        elif kind == "heading_open":
            heading = token.tag
        elif kind == "inline":
            content = _inline(token.children or [])
            if heading:
                content, heading = content.stylize("bold $accent"), ""
            yield _placed(places, content, gap=list_starts or not _is_tight(tokens, i))
            list_starts = False
        elif kind in ("fence", "code_block"):
            yield _placed(places, _code(token, highlight), kind="code")
        elif kind == "html_block":
            yield _placed(places, Content(token.content.rstrip("\n")))
        elif kind == "hr":
            yield _placed(places, Content(""), kind="rule")
        elif kind == "table_open":
            end = next(j for j in range(i, len(tokens)) if tokens[j].type == "table_close")
            yield _placed(places, _table(tokens[i:end], width - place.first.cell_length))
            i = end
        i += 1


def _item(place: _Place, numbers: list[int | None]) -> _Place:
    number = numbers[-1]
    if number is None:
        marker = "• "
    else:
        marker = f"{number}. "
        numbers[-1] = number + 1
    return _Place(place.rest + Content.styled(marker, "$accent"), place.rest + Content(" " * len(marker)), fresh=True)


def _is_tight(tokens: list[Token], i: int) -> bool:
    """Whether this text is a paragraph of a list without empty lines between its items."""
    return i > 0 and tokens[i - 1].type == "paragraph_open" and tokens[i - 1].hidden


def _placed(places: list[_Place], content: Content, kind: str = "text", gap: bool = True) -> Block:
    place = places[-1]
    first = place.first if place.fresh else place.rest
    place.fresh = False
    return Block(content, first, place.rest, kind, gap)


def _code(token: Token, highlight: bool) -> Content:
    code = token.content.rstrip("\n")
    language = token.info.strip().split(" ")[0] if token.info else ""
    if highlight and language and len(code) < 20_000:
        from textual.highlight import highlight as colour

        return colour(code, language=language)
    return Content(code)


def _inline(children: list[Token]) -> Content:
    parts: list[Content | tuple[str, str] | str] = []
    styles: list[str] = []
    links: list[str] = []
    for token in children:
        kind = token.type
        if kind in ("strong_open", "em_open", "s_open"):
            styles.append({"strong_open": "bold", "em_open": "italic", "s_open": "strike"}[kind])
        elif kind in ("strong_close", "em_close", "s_close"):
            styles.pop()
        elif kind == "link_open":
            styles.append("underline")
            links.append(str(token.attrGet("href") or ""))
        elif kind == "link_close":
            styles.pop()
            target = links.pop()
            if target and not (parts and str(parts[-1][0] if isinstance(parts[-1], tuple) else parts[-1]) == target):
                parts.append((f" ({target})", "$muted"))
        elif kind in ("softbreak", "hardbreak"):
            parts.append("\n")
        elif kind == "code_inline":
            parts.append((token.content, " ".join([*styles, "$accent"])))
        elif kind == "image":
            parts.append((f"[image: {token.content}]", "$muted"))
        else:
            parts.append((token.content, " ".join(styles)))
    return Content.assemble(*parts)


def _table(tokens: list[Token], width: int) -> Content:
    rows: list[list[Content]] = []
    for token in tokens:
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "inline":
            rows[-1].append(_inline(token.children or []))
    columns = max(len(row) for row in rows)
    widths = [max((row[c].cell_length for row in rows if c < len(row)), default=1) for c in range(columns)]
    room = max(columns * 4, width - 2 * (columns - 1))
    while sum(widths) > room:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for number, row in enumerate(rows):
        cells = [
            (row[c] if c < len(row) else Content("")).truncate(widths[c], ellipsis=True, pad=True)
            for c in range(columns)
        ]
        line = Content("  ").join(cells)
        lines.append(line.stylize("bold") if number == 0 else line)
        if number == 0:
            lines.append(Content.styled("  ".join("─" * column for column in widths), "$faint"))
    return Content("\n").join(lines)
