"""Choosing a second model from a screen or a bench."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from textual.app import App

from workbench.ui.link import SessionLink

if TYPE_CHECKING:
    from workbench.ui.app import WorkbenchApp


async def pick_model(app: App[Any], link: SessionLink, title: str) -> str:
    """The name of the model that the user picks; empty for none. Called inside a worker."""
    from workbench.ui.screens.model_picker import ModelPicker

    own = cast("WorkbenchApp", app)
    picked = await app.push_screen_wait(ModelPicker(link, own.settings.models.directories, own.session, title=title))
    return picked.name if picked is not None else ""
