"""Request type → domain function: which module of this package answers which requests.

The modules are imported at their first request, so the worker answers `Hello` before it reads any domain code.
"""

from __future__ import annotations

import functools
import importlib

from workbench.session import protocol
from workbench.session.protocol import Request
from workbench.session.runtime import Handler

MODULES: dict[str, tuple[type[Request], ...]] = {
    "models": (
        protocol.Warm,
        protocol.ListModels,
        protocol.ResolveModel,
        protocol.FetchModel,
        protocol.LoadModel,
        protocol.UnloadModel,
    ),
    "doctor": (protocol.Diagnose, protocol.DiagnoseText, protocol.ListEnvironments, protocol.RunSelfTest),
    "tokens": (protocol.CountTokens,),
    "architecture": (protocol.InspectModel,),
    "vram": (protocol.EstimateMemory,),
    "chat": (
        protocol.Generate,
        protocol.FollowConversation,
        protocol.ListConversations,
        protocol.OpenConversation,
        protocol.RenameConversation,
        protocol.DeleteConversation,
    ),
}
"""Everything but the requests about the session itself, which `workbench.session.connection` answers at once."""


@functools.cache
def find(request_type: type[Request]) -> Handler:
    """How requests of this type are answered."""
    for name, types in MODULES.items():
        if request_type in types:
            module = importlib.import_module(f"{__name__}.{name}")
            handlers: dict[type[Request], Handler] = module.HANDLERS
            return handlers[request_type]
    raise LookupError(request_type.__name__)
