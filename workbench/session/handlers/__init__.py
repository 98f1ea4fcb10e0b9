"""Request type → domain function: which module of this package answers which requests.

The modules are imported at their first request, so the worker answers `Hello` before it reads any domain code.
"""

from __future__ import annotations

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
    "doctor": (
        protocol.Diagnose,
        protocol.DiagnoseText,
        protocol.CompareReports,
        protocol.ListEnvironments,
        protocol.RunSelfTest,
    ),
    "tokens": (protocol.CountTokens, protocol.RecountTokens, protocol.MeasureDataset),
    "vocabulary": (
        protocol.ExplainSplit,
        protocol.SearchVocabulary,
        protocol.CompareLanguages,
        protocol.CompareSplits,
        protocol.CheckPrompt,
        protocol.CompareAutoTokenizer,
    ),
    "architecture": (
        protocol.InspectModel,
        protocol.CountAdapter,
        protocol.CheckDesign,
        protocol.ListFamilies,
        protocol.SaveDesign,
        protocol.CompareModels,
    ),
    "trace": (
        protocol.InspectLoaded,
        protocol.TraceModel,
        protocol.ReadAttention,
        protocol.NearestTokens,
        protocol.CompareTokens,
        protocol.EmbeddingNorms,
        protocol.MapWords,
    ),
    "prices": (protocol.ListPrices,),
    "vram_simulation": (protocol.SimulateMemory,),
    "vram_measurement": (protocol.MeasureMemory, protocol.MeasureLoaded, protocol.ListMeasurements),
    "vram": (
        protocol.EstimateMemory,
        protocol.EstimateModules,
        protocol.SurveyGpus,
        protocol.FitPlan,
        protocol.DrawCurve,
        protocol.WritePlan,
        protocol.OpenPlan,
        protocol.ListRulesOfThumb,
        protocol.BreakEvenWithApi,
    ),
    "answers": (protocol.Generate, protocol.FollowConversation),
    "servers": (protocol.FindServers,),
    "comparison": (protocol.CompareVariants,),
    "inside": (protocol.ReadPrompt, protocol.ReadAnswer, protocol.ReadDistribution, protocol.ReadSampling),
    "chat": (
        protocol.ListConversations,
        protocol.OpenConversation,
        protocol.RenameConversation,
        protocol.DeleteConversation,
        protocol.ShowMessage,
        protocol.StopAnswer,
        protocol.SearchConversations,
        protocol.ExportConversations,
        protocol.ListPresets,
        protocol.SavePreset,
        protocol.DeletePreset,
    ),
}
"""Everything but the requests about the session itself, which `workbench.session.connection` answers at once."""


_MODULE_OF = {request_type: name for name, types in MODULES.items() for request_type in types}


def find(request_type: type[Request]) -> Handler:
    """How requests of this type are answered."""
    module = importlib.import_module(f"{__name__}.{_MODULE_OF[request_type]}")
    handlers: dict[type[Request], Handler] = module.HANDLERS
    return handlers[request_type]
