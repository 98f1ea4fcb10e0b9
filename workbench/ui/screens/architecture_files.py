"""What lies on disk: files, stored types, and where a checkpoint and its config disagree."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

from textual.binding import Binding, BindingType
from textual.content import Content
from textual.widget import Widget

from workbench.text import format_bytes
from workbench.ui.link import SessionLink
from workbench.ui.screens.closer_look import CloserLook
from workbench.ui.strip_text import short_name
from workbench.ui.widgets.bars import bar, left, right
from workbench.ui.widgets.row_list import Row, RowList, gap, heading


class FilesScreen(CloserLook):
    """Files and tensors, as their headers tell; no weights are read."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("y", "copy", "Copy the list", show=False)]
    KEYS = (("↑ ↓", "scroll"), ("y", "copy"), ("?", "keys"))

    def __init__(self, link: SessionLink, model: str, inspection: dict[str, Any]) -> None:
        super().__init__(link, "architecture-files", f"Weights of {short_name(model)}")
        self._inspection = inspection

    def parts(self) -> Iterable[Widget]:
        yield RowList(id="files-rows")

    def on_mount(self) -> None:
        self.say(disagreement(self._inspection) or str((self._inspection.get("files") or {}).get("path") or ""))
        self.query_one(RowList).set_rows(file_rows(self._inspection))
        self.query_one(RowList).focus()

    def action_copy(self) -> None:
        rows = self.query_one(RowList).rows
        self.copy("\n".join(row.content(120).plain.rstrip() for row in rows), "the list")


def disagreement(inspection: dict[str, Any]) -> Content | None:
    """One line where checkpoint and config do not describe the same model."""
    compared = inspection.get("checkpoint") or {}
    counts = [(len(compared.get(name) or ()), word) for name, word in _AGAINST]
    told = ", ".join(f"{count:,} {word}" for count, word in counts if count)
    return Content.assemble(("⚠ ", "$warn"), f"Checkpoint and config disagree: {told}.") if told else None


_AGAINST = (("missing", "tensors missing"), ("extra", "extra"), ("shapes", "of another shape"))


def file_rows(inspection: dict[str, Any]) -> Iterator[Row]:
    """Files, stored types and differences."""
    files, compared = inspection.get("files"), inspection.get("checkpoint")
    if not files or not files.get("files"):
        yield Row("none", Content("No weights of this model are on this box: all is from its config."))
        return
    if files.get("pickle"):
        words = "A pickle can run code when it is read; it is loaded with torch's weights_only, which refuses that."
        yield Row("pickle", Content.assemble(("⚠ ", "$warn"), words))
        yield gap("pickle")
    yield heading("FILES")
    for item in files["files"]:
        size = right(format_bytes(item["size_bytes"]), 12)
        kind = left(item["kind"], 12, "$muted")
        yield Row(f"file:{item['name']}", Content.assemble("  ", left(item["name"], 44), kind, size))
    yield gap("files")
    yield heading("STORED TYPES")
    whole = sum(item["bytes"] for item in files.get("types") or ()) or 1
    for item in files.get("types") or ():
        share = item["bytes"] / whole
        line = Content.assemble(
            "  ", left(item["type"], 12, "bold"), right(f"{item['tensors']:,}", 8), (" tensors", "$muted"),
            right(f"{item['bits_per_weight']:g}", 7), (" bits", "$muted"), right(format_bytes(item["bytes"]), 12),
            right(f"{share:.0%}", 6), "  ", bar(share, 12),
        )  # fmt: skip
        yield Row(f"type:{item['type']}", line)
    if compared:
        yield from _differences(compared)


def _differences(compared: dict[str, Any]) -> Iterator[Row]:
    yield gap("types")
    agrees = not any(compared.get(name) for name, _ in _AGAINST)
    if agrees:
        words = "Every tensor of the model is there, in its shape."
        yield Row("agrees", Content.assemble(("✔ ", "$good"), words))
    for title, name in (("MISSING IN THE CHECKPOINT", "missing"), ("NOT IN THE MODEL", "extra")):
        names = compared.get(name) or ()
        if names:
            yield heading(f"{title}: {len(names):,}")
        for tensor in names:
            yield Row(f"{name}:{tensor}", Content(f"  {tensor}"))
    for title, name in (("ANOTHER SHAPE", "shapes"), ("STORED IN ANOTHER TYPE, CONVERTED WHEN LOADED", "dtypes")):
        items = compared.get(name) or ()
        if items:
            yield heading(f"{title}: {len(items):,}")
        for item in items:
            pair = f"{item['in_checkpoint']} → {item['in_model']}"
            yield Row(f"{name}:{item['name']}", Content.assemble("  ", (pair, "bold"), (f"  {item['name']}", "$muted")))
