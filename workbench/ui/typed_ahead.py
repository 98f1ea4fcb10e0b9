"""Keys typed faster than the focus moves, such as ``/torch`` in one burst, reach the field that the first opened."""

from __future__ import annotations

from textual import events
from textual.app import App
from textual.widget import Widget

WORKER_TURNS = 4
"""Of the event loop, within which a worker gets as far as opening a dialog, if that is what it begins with."""


class TypedAhead(App[int], inherit_bindings=False):
    """Hands keys on that a widget was given before an earlier key moved the focus from it.

    Textual gives a key to the widget that has the focus as the key comes in. What that widget does not use comes back
    to the app, which runs the bindings; by then the key before it may have opened a field for it.
    """

    _handled = 0
    """Keys that came back to the app so far."""

    async def on_event(self, event: events.Event) -> None:
        """Note where a key goes as it comes in; look again where it belongs as it comes back."""
        if not isinstance(event, events.Key):
            await super().on_event(event)
        elif not event.is_forwarded:
            event.__dict__.update(typed_at=self._handled, meant_for=self.focused)
            await super().on_event(event)
        elif event.key == "escape" and _is_hidden(event.__dict__.get("meant_for")):
            # A bench key typed behind it was faster: it must not leave the field that has the focus there.
            return
        elif event.__dict__.get("typed_at", self._handled) != self._handled:
            # A key before it was acted on meanwhile, which may move the focus with the app's next message.
            event.__dict__["typed_at"] = self._handled
            self.call_later(self._look_again, event)
        else:
            await self._act(event)

    async def _act(self, event: events.Key) -> None:
        """Run what a key is bound to, up to the opening of a dialog, so that the next key finds it."""
        import asyncio

        self._handled += 1
        screens = len(self.screen_stack)
        begun = set(self.workers)
        await super().on_event(event)
        for _turn in range(WORKER_TURNS if set(self.workers) - begun else 0):
            if len(self.screen_stack) != screens:
                return
            await asyncio.sleep(0)

    async def _look_again(self, event: events.Key) -> None:
        # Not at the top: the first frame has no text area.
        from textual.widgets import Input, TextArea

        focused: Widget | None = self.focused
        if focused is not event.__dict__.get("meant_for") and isinstance(focused, (Input, TextArea)):
            self._handled += 1
            focused._forward_event(events.Key(event.key, event.character))
        else:
            await self._act(event)


def _is_hidden(widget: Widget | None) -> bool:
    """Whether a widget is on a bench that is not shown any more."""
    nodes = () if widget is None else widget.ancestors_with_self
    return any(isinstance(node, Widget) and not node.display for node in nodes)
