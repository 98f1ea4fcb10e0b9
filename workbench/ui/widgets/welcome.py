"""What a first run says above the bench: what this is, a model to begin with, and the tour."""

from __future__ import annotations

from textual import work
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from workbench.errors import JobCancelled, WorkbenchError
from workbench.ui.link import SessionLink
from workbench.ui.sample import SAMPLE, fetch_sample, sample_is_here, sample_title, sources_words

WHAT = (
    "Five benches on one model: Doctor checks this environment, Tokens counts, Architecture takes a model apart, "
    "VRAM plans what fits, Chat runs it."
)


class Welcome(Static):
    """Offers the sample model; fetches it on request.

    Args:
        link: to the session.
    """

    class Taken(Message):
        """The sample is on this box and wanted as the model of every bench."""

        def __init__(self, model: str) -> None:
            super().__init__()
            self.model = model

    def __init__(self, link: SessionLink) -> None:
        super().__init__(id="welcome")
        self._link = link
        self._here: bool | None = None
        """Whether the sample is on this box; None while nobody has told."""
        self._said: Content | None = None
        """In place of the offer: how far fetching is, or why it failed."""

    def on_mount(self) -> None:
        self._show()
        self.look()

    @work(group="look", exclusive=True, exit_on_error=False)
    async def look(self) -> None:
        """Find out whether there is anything to fetch."""
        self._here = await sample_is_here(self._link)
        self._show()

    def _show(self) -> None:
        self.update(Content("\n").join([Content(WHAT), self._said or self._offer(), _others()]))

    def _offer(self) -> Content:
        does = "chooses" if self._here else "takes"
        cost = "on this box already" if self._here else sources_words()
        tail = (f": {cost}", "$muted")
        return Content.assemble(("ctrl+g", "bold $accent"), f" {does} {sample_title()}, a small real model", tail)

    @property
    def fetching(self) -> bool:
        """Whether the sample is being fetched."""
        return any(worker.group == "take" and worker.node is self and not worker.is_finished for worker in self.workers)

    def stop(self) -> None:
        """Stop fetching; what came stays for the next try where its source can go on."""
        self.workers.cancel_group(self, "take")

    @work(group="take", exclusive=True, exit_on_error=False)
    async def take(self) -> None:
        """Fetch the sample unless it is here, then ask for it to be chosen."""
        try:
            self._tell("looking for it")
            if not await sample_is_here(self._link):
                await fetch_sample(self._link, self._tell)
        except JobCancelled:
            self._said = None
        except WorkbenchError as error:
            self._said = Content.assemble(("✖ ", "bold $bad"), (error.message, "$bad"), f" {error.remedy}")
        else:
            self._said = None
            self.post_message(self.Taken(SAMPLE))
        finally:
            self._show()

    def _tell(self, progress: str) -> None:
        stops = (("   escape", "bold $accent"), (" stops", "$muted"))
        self._said = Content.assemble((f"Fetching {sample_title()}: ", "bold"), progress, *stops)
        self._show()


def _others() -> Content:
    parts = (("ctrl+o", "another model"), ("? t", "the tour, two minutes"), ("escape", "hides this"))
    return Content("   ").join(Content.assemble((key, "bold $accent"), f" {word}") for key, word in parts)
