"""Two environments side by side, as rows and as an explanation of one difference."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from textual.content import Content

from workbench.text import one_line
from workbench.ui.benches.doctor_subject import Subject
from workbench.ui.widgets.bars import left
from workbench.ui.widgets.row_list import Row, gap, heading

Report = dict[str, Any]


@dataclass(frozen=True)
class Comparison:
    """What differs between the report on screen and another one."""

    left: Subject
    right: Subject
    differences: tuple[dict[str, Any], ...]
    findings: tuple[dict[str, Any], ...]
    """Of both sides, to tell what a difference explains."""
    verdicts: tuple[str, str] = ("", "")

    @classmethod
    def of(
        cls, left: Subject, right: Subject, reports: tuple[Report, Report], differences: list[dict[str, Any]]
    ) -> Comparison:
        """The comparison of two reports."""
        findings = [finding for report in reports for finding in report.get("findings") or ()]
        verdicts = (str(reports[0].get("verdict") or ""), str(reports[1].get("verdict") or ""))
        return cls(left, right, tuple(differences), tuple(findings), verdicts)

    def headline(self) -> Content:
        """How much differs, how much of it matters, and between what."""
        count = len(self.differences)
        matters = sum(bool(item.get("explains")) for item in self.differences)
        if not count:
            told = "Nothing that both tell differs"
        else:
            told = f"{count} {'difference' if count == 1 else 'differences'}"
            told += f", {matters or 'none'} of them {'explain' if matters > 1 else 'explains'} a fault"
        return Content.assemble(
            ("≠ compared", "bold $accent"),
            f"  {told}: ",
            one_line(self.left.name),
            (f" ({self.verdicts[0]})" if self.verdicts[0] else "", "$muted"),
            (" and ", "$muted"),
            one_line(self.right.name),
            (f" ({self.verdicts[1]})" if self.verdicts[1] else "", "$muted"),
            ("  escape goes back", "$muted"),
        )

    def rows(self, search: str = "") -> Iterator[Row]:
        """Those differences first that explain a fault, with the findings they explain."""
        words = search.lower().split()
        shown = [item for item in self.differences if all(word in _text(item) for word in words)]
        yield Row("compare:head", _columns("", self.left.short_name, self.right.short_name, "bold $muted"), None, False)
        for title, explaining in (("EXPLAINS A FAULT", True), ("DIFFERS TOO", False)):
            section = [item for item in shown if bool(item.get("explains")) is explaining]
            if not section:
                continue
            yield heading(title)
            for item in section:
                key = f"difference:{item.get('name')}"
                values = (one_line(str(item.get(side) or "")) for side in ("left", "right"))
                yield Row(key, _columns(str(item.get("name")), *values), item)
                for cause in item.get("explains") or ():
                    line = Content.assemble(("  ↳ ", "$accent"), (str(cause), "$warn"))
                    yield Row(f"{key}:{cause}", line, None, False)
            yield gap(title)
        if not shown:
            told = "Nothing matches." if search else "Nothing differs in what both sides tell."
            yield Row("difference:none", Content.styled(told, "$muted"), {})

    def detail(self, item: dict[str, Any]) -> Content:
        """One difference in full."""
        if not item:
            return Content.styled("A fact that one side does not tell is no difference.", "$muted")
        blocks = [Content.styled(str(item.get("name")), "bold")]
        for subject, side in ((self.left, "left"), (self.right, "right")):
            value = item.get(side)
            blocks.append(Content.assemble((one_line(subject.name), "$muted"), "\n  ", str(value or "unknown")))
        titles = {str(finding.get("id")): str(finding.get("title")) for finding in self.findings}
        causes = [str(cause) for cause in item.get("explains") or ()]
        if causes:
            lines = [Content.assemble("  ", titles.get(cause, ""), (f"  {cause}", "$muted")) for cause in causes]
            blocks.append(Content.assemble(("EXPLAINS", "bold $muted"), "\n", Content("\n").join(lines)))
        return Content("\n\n").join(blocks)


def _text(item: dict[str, Any]) -> str:
    explained = " ".join(str(cause) for cause in item.get("explains") or ())
    return f"{item.get('name')} {item.get('left')} {item.get('right')} {explained}".lower()


def _columns(name: str, one: str, other: str, style: str = "") -> Callable[[int], Content]:
    def line(width: int) -> Content:
        first = min(34, max(18, width * 2 // 5))
        rest = max(8, (width - first - 2) // 2)
        return Content.assemble(left(name, first, style), " ", left(one, rest, style), " ", left(other, rest, style))

    return line
