"""Request type → domain function: one table, put together from one module per domain."""

from __future__ import annotations

from workbench.errors import WorkbenchError
from workbench.session.handlers import architecture, chat, doctor, models, tokens, vram
from workbench.session.protocol import Request, Warm, Warmed
from workbench.session.runtime import Context, Handler, Stage


def _warm(request: Warm, context: Context) -> Warmed:
    try:
        context.runtime.import_torch(context.job)
    except WorkbenchError as error:
        # A missing or broken torch is a finding of the doctor, not a failure of the session.
        context.job.progress("import", 0, None, "", error.message)
    torch = context.runtime.torch
    return Warmed(torch.state, torch.version, torch.error)


HANDLERS: dict[type[Request], Handler] = {
    Warm: Handler((Stage("model", _warm),), outlives_client=True),
    **models.HANDLERS,
    **doctor.HANDLERS,
    **tokens.HANDLERS,
    **architecture.HANDLERS,
    **vram.HANDLERS,
    **chat.HANDLERS,
}


def find(request_type: type[Request]) -> Handler:
    """How a request of this type is answered; requests about the session itself are not in the table."""
    return HANDLERS[request_type]
