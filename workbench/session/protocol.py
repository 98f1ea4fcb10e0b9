"""Every message between a client and the model session, and the codec that carries them. Stdlib only.

Reading this file from top to bottom tells what the session can do.

One message is one line of UTF-8 JSON: ``{"v": 1, "id": 7, "type": "generate", "body": {...}}``. The client chooses
`id`; every event and the final reply echo it. Each request gets any number of events and exactly one reply:
its own reply type, `Failed` or `Cancelled`. Broadcasts carry id 0. Unknown fields are ignored, so either side
may be newer; an unknown type is answered with `Failed(kind="unknown-request")`.

Bytes are ``int`` in fields named ``*_bytes``; durations are ``float`` seconds in fields named ``*_seconds``.
"""

from __future__ import annotations

import dataclasses
import errno
import functools
import json
import re
import traceback
import typing
from dataclasses import dataclass, field
from typing import Any, Optional, Union

from workbench.errors import JobCancelled, WorkbenchError

PROTOCOL_VERSION = 1

MAX_FRAME_BYTES = 32 * 2**20
"""Longest line either side reads; a longer one is answered with ``frame-too-large`` and the connection ends."""

BROADCAST_ID = 0


class Message:
    """Base of everything that crosses the socket."""


class Request(Message):
    """Asked by a client; named by an imperative verb."""


class Event(Message):
    """Sent while a request runs, or broadcast; named by a past participle."""


class Reply(Message):
    """The one final answer to a request."""


# --- State -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelStatus:
    """The loaded model as it stands in the worker."""

    name: str
    """As the user named it."""
    directory: str
    architecture: str
    """Class name, such as ``LlamaForCausalLM``."""
    quant: str
    """``none``, ``int8``, ``nf4`` or ``fp4``."""
    double_quant: bool
    dtype: str
    """Compute type: ``bfloat16``, ``float16`` or ``float32``."""
    device: str
    weights_bytes: int
    context_length: Optional[int] = None
    load_seconds: float = 0.0
    note: str = ""
    """What a user should know about this load, such as "pickle checkpoint"."""
    decoding: str = ""
    """Which way of decoding was measured to be the fastest, with the figures; empty where there was no choice."""


@dataclass(frozen=True)
class LaneStatus:
    """What one lane does now."""

    name: str
    """``model``, ``quick`` or ``children``."""
    job: str = ""
    """Wire name of the running request; empty when idle."""
    phase: str = ""
    done: int = 0
    total: Optional[int] = None
    unit: str = ""
    queued: int = 0


@dataclass(frozen=True)
class SessionStatus:
    """A whole snapshot; sent to every watching client when anything in it changes."""

    session: str
    pid: int
    executable: str
    python_version: str
    torch_state: str = "not imported"
    """``not imported``, ``importing``, ``ready``, ``missing`` or ``broken``."""
    torch_version: str = ""
    torch_error: str = ""
    model: Optional[ModelStatus] = None
    lanes: tuple[LaneStatus, ...] = ()
    clients: int = 0
    resident_bytes: int = 0
    """Resident memory of the worker process."""
    device_bytes: Optional[int] = None
    """Memory the worker's allocator holds on the GPU; None without one."""
    tokens_per_second: Optional[float] = None
    """Decode speed of the last answer."""
    conversation_id: str = ""
    """The conversation being answered now; empty when none is."""
    unload_in_seconds: Optional[float] = None
    """Idle time left until the model is unloaded; None while it is in use or not loaded."""


# --- Replies and events that any request may get -----------------------------------------------------------


@dataclass(frozen=True)
class Failed(Reply):
    """The request failed; one line to show, details one key away."""

    kind: str
    message: str
    remedy: str = ""
    details: str = ""

    def error(self) -> WorkbenchError:
        """The failure as the exception that domain code raised in the worker."""
        return WorkbenchError(self.kind, self.message, self.remedy, self.details)


@dataclass(frozen=True)
class Cancelled(Reply):
    """The request was stopped by `Cancel`, by unloading or by the end of the session."""

    reason: str = "stopped on request"


@dataclass(frozen=True)
class JobProgressed(Event):
    """Real counts of a running job, at most ten a second; a later one replaces an earlier one."""

    phase: str
    done: int
    total: Optional[int] = None
    unit: str = ""
    detail: str = ""


@dataclass(frozen=True)
class StatusChanged(Event):
    """Broadcast to watching clients."""

    status: SessionStatus


@dataclass(frozen=True)
class LogAppended(Event):
    """Broadcast to watching clients: new lines of the session log, repeats already folded."""

    lines: tuple[str, ...]


@dataclass(frozen=True)
class SessionEnding(Event):
    """Broadcast before the worker leaves, with the reason."""

    reason: str


# --- The session itself ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Hello(Request):
    """First message of a client. Reply: `Welcome`, or `Failed(kind="protocol-version")`."""

    protocol_version: int = PROTOCOL_VERSION
    client: str = "cli"
    watch: bool = False
    """Whether to receive the broadcasts `StatusChanged` and `LogAppended`."""


@dataclass(frozen=True)
class Welcome(Reply):
    """Answered before anything heavy is imported."""

    protocol_version: int
    workbench_version: str
    started_at: float
    """Unix time of the worker's start."""
    requests: tuple[str, ...]
    """Wire names this worker understands."""
    status: SessionStatus
    outdated: str = ""
    """What was changed under the running worker, code or packages, so that it should be restarted."""


@dataclass(frozen=True)
class GetStatus(Request):
    """Reply: `StatusReported`."""


@dataclass(frozen=True)
class StatusReported(Reply):
    status: SessionStatus


@dataclass(frozen=True)
class Cancel(Request):
    """Stop another request of this client, or of any client for the lane owner. Reply: `CancelNoted`.

    The stopped request itself ends with `Cancelled`, a running answer with `Generated`.
    """

    request_id: int = 0
    """Id of a request of this client; 0 stops whatever the lane runs, whoever asked for it."""
    lane: str = "model"


@dataclass(frozen=True)
class CancelNoted(Reply):
    found: bool


@dataclass(frozen=True)
class Warm(Request):
    """Import torch and transformers now, so that the first load or inspection does not wait. Reply: `Warmed`."""


@dataclass(frozen=True)
class Warmed(Reply):
    torch_state: str
    """As in `SessionStatus`."""
    torch_version: str = ""
    torch_error: str = ""


@dataclass(frozen=True)
class ReadLog(Request):
    """Reply: `LogRead`."""

    lines: int = 200


@dataclass(frozen=True)
class LogRead(Reply):
    path: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Shutdown(Request):
    """End the worker. Reply: `ShutdownNoted`."""

    force: bool = False
    """Without it the worker stays while other clients are attached."""


@dataclass(frozen=True)
class ShutdownNoted(Reply):
    ending: bool
    other_clients: int = 0


# --- Models ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ListModels(Request):
    """Samples, the local Hub cache, the catalogue. Reply: `ModelsListed`."""

    directories: tuple[str, ...] = ()
    """Further places to list models of; absolute."""


@dataclass(frozen=True)
class ModelsListed(Reply):
    models: list[dict[str, Any]]
    """`workbench.models.listing.ModelListing` as dictionaries."""


@dataclass(frozen=True)
class ResolveModel(Request):
    """Find a model by name without downloading. Reply: `ModelResolved`."""

    model: str


@dataclass(frozen=True)
class ModelResolved(Reply):
    model: dict[str, Any]
    """`workbench.models.resolve.ResolvedModel` as a dictionary."""


@dataclass(frozen=True)
class FetchModel(Request):
    """Bring a model's weights to this box. Events: `JobProgressed`. Reply: `ModelFetched`."""

    model: str


@dataclass(frozen=True)
class ModelFetched(Reply):
    model: dict[str, Any]


@dataclass(frozen=True)
class LoadModel(Request):
    """Fetch and convert if needed, then load; a loaded model is unloaded first. Events: `JobProgressed`.

    Reply: `ModelLoaded`. A failed or cancelled load leaves no model and no memory behind.
    """

    model: str
    quant: str = "none"
    double_quant: bool = False
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"


@dataclass(frozen=True)
class ModelLoaded(Reply):
    model: ModelStatus


@dataclass(frozen=True)
class UnloadModel(Request):
    """Free the model and its caches. Reply: `ModelUnloaded`."""


@dataclass(frozen=True)
class ModelUnloaded(Reply):
    name: str
    """Empty when no model was loaded."""
    freed_bytes: int = 0
    remaining_bytes: int = 0
    """Tensor bytes still alive afterwards; 0 unless something leaks."""


# --- Doctor ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Diagnose(Request):
    """Examine the worker's own interpreter. Events: `DiagnosisUpdated`. Reply: `Diagnosed`."""

    live: bool = True
    """Also import torch, launch a kernel and load bitsandbytes in a child process with a time limit."""
    environment: Optional[dict[str, str]] = None
    """The client's own variables, by `workbench.doctor.environment.carried_environment`; None for the worker's."""
    updates: bool = True
    """Whether to tell what is known so far after every step."""
    files_of: str = ""
    """An interpreter too old for a worker of its own: only the files beside it are read, nothing is run."""


@dataclass(frozen=True)
class DiagnosisUpdated(Event):
    """A report with what is known so far."""

    report: dict[str, Any]


@dataclass(frozen=True)
class Diagnosed(Reply):
    report: dict[str, Any]
    """The object that ``workbench doctor --json`` prints."""


@dataclass(frozen=True)
class DiagnoseText(Request):
    """Examine a pasted report of another machine. Reply: `Diagnosed`."""

    text: str


@dataclass(frozen=True)
class ListEnvironments(Request):
    """The Python environments of this box. Reply: `EnvironmentsListed`."""

    directories: tuple[str, ...] = ()
    """Where to look besides the usual places, such as the client's working directory."""
    environment: Optional[dict[str, str]] = None
    """As in `Diagnose`."""


@dataclass(frozen=True)
class EnvironmentsListed(Reply):
    environments: list[dict[str, Any]]


@dataclass(frozen=True)
class CompareReports(Request):
    """What differs between two diagnosed environments. Reply: `ReportsCompared`."""

    left: dict[str, Any]
    """A report as in `Diagnosed`."""
    right: dict[str, Any]


@dataclass(frozen=True)
class ReportsCompared(Reply):
    differences: list[dict[str, Any]]
    """`workbench.doctor.compare.Difference` as dictionaries, those that explain a fault first."""


@dataclass(frozen=True)
class RunSelfTest(Request):
    """The five steps that prove an environment for fine-tuning. Events: `SelfTestStepped`. Reply: `SelfTested`."""

    environment: Optional[dict[str, str]] = None
    """As in `Diagnose`."""
    report: Optional[dict[str, Any]] = None
    """The report, as in `Diagnosed`, that the steps are to be explained by and to add to."""


@dataclass(frozen=True)
class SelfTestStepped(Event):
    step: dict[str, Any]


@dataclass(frozen=True)
class SelfTested(Reply):
    steps: list[dict[str, Any]]
    report: Optional[dict[str, Any]] = None
    """The request's report with what the steps have shown, where it had one."""


# --- Tokens ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CountTokens(Request):
    """Count texts under tokenizers. Reply: `TokensCounted`."""

    texts: list[dict[str, str]]
    """Each ``{"name": ..., "text": ...}``."""
    models: list[str]
    special: bool = False
    """Add the tokenizer's own special tokens."""
    plain: bool = False
    """Count special tokens typed in the text as plain text."""
    chat: bool = False
    """Wrap each text as one user message in the model's chat template."""
    ids: bool = False
    pieces: bool = False


@dataclass(frozen=True)
class TokensCounted(Reply):
    result: dict[str, Any]
    """The object that ``workbench tokens --json`` prints; a model that failed has ``error`` in its results."""


@dataclass(frozen=True)
class RecountTokens(Request):
    """Count a text that is being edited, at the price of the edit. Reply: `TokensRecounted`."""

    text: str
    models: list[str]
    special: bool = False
    """Add each tokenizer's own special tokens."""
    selected: str = ""
    """The model whose tokens are wanted; empty for counts only."""
    start: int = 0
    end: int = 0
    """Characters of the text whose tokens are wanted."""


@dataclass(frozen=True)
class TokensRecounted(Reply):
    figures: dict[str, Any]
    """`workbench.tokens.count.TextFigures` as a dictionary."""
    results: list[dict[str, Any]]
    """By model, in the order asked for: the counts with ``context_length``, or ``error``."""
    pieces: list[dict[str, Any]]
    """Tokens of the stretch: ``id``, ``text`` as it is to be read, ``spelling``, ``start``, ``end``, ``bytes``,
    ``special``, ``whole`` (False where it is no whole character)."""


@dataclass(frozen=True)
class ExplainSplit(Request):
    """Why a tokenizer splits a short text as it does. Reply: `SplitExplained`."""

    text: str
    model: str


@dataclass(frozen=True)
class SplitExplained(Reply):
    explanation: dict[str, Any]
    """`workbench.tokens.explain.SplitExplanation` as a dictionary."""


@dataclass(frozen=True)
class SearchVocabulary(Request):
    """Look tokens up in a vocabulary. Events: `JobProgressed`. Reply: `VocabularySearched`."""

    model: str
    kind: str = "text"
    """``text`` (also an id), ``regex``, ``script``, ``longest``, ``special``, ``bytes`` or ``unreachable``."""
    query: str = ""


@dataclass(frozen=True)
class VocabularySearched(Reply):
    tokens: list[dict[str, Any]]
    """`workbench.tokens.vocabulary.Token` as dictionaries; ``note`` says why one is unreachable."""
    size: int
    scripts: dict[str, int] = field(default_factory=dict)
    """Tokens by script, most first; for an empty query of kind ``script``."""
    more: bool = False
    """Whether further tokens were found and left out."""


@dataclass(frozen=True)
class CompareLanguages(Request):
    """The built-in parallel samples under several tokenizers. Reply: `LanguagesCompared`."""

    models: list[str]


@dataclass(frozen=True)
class LanguagesCompared(Reply):
    table: dict[str, Any]
    """`workbench.tokens.languages.PremiumTable` as a dictionary."""
    errors: list[str]
    """One line for each tokenizer that could not be read."""


@dataclass(frozen=True)
class CompareSplits(Request):
    """One text under two tokenizers. Reply: `SplitsCompared`."""

    text: str
    first: str
    second: str


@dataclass(frozen=True)
class SplitsCompared(Reply):
    comparison: dict[str, Any]
    """`workbench.tokens.compare.SplitComparison` as a dictionary, without its stretches; ``characters`` says how many
    of the text were compared."""
    first: list[dict[str, Any]]
    """Tokens as in `TokensRecounted`, with ``same``: whether the other has the same boundaries here."""
    second: list[dict[str, Any]]


@dataclass(frozen=True)
class CheckPrompt(Request):
    """A conversation as the model's chat template renders it. Reply: `PromptChecked`."""

    model: str
    messages: list[dict[str, str]]
    """Each with ``role`` and ``content``."""
    generation_prompt: bool = True


@dataclass(frozen=True)
class PromptChecked(Reply):
    rendered: str
    pieces: list[dict[str, Any]]
    """Tokens of the prompt, as in `TokensRecounted`."""
    report: dict[str, Any]
    """`workbench.tokens.templates.PromptReport` as a dictionary."""
    template: str
    """Source."""
    file: str


@dataclass(frozen=True)
class CompareAutoTokenizer(Request):
    """Whether the installed AutoTokenizer gives the ids of the tokenizer file. Reply: `AutoTokenizerCompared`.

    A child process imports transformers, once for each state of the file and version of transformers.
    """

    model: str
    only_known: bool = False
    """Answer only what an earlier comparison found."""


@dataclass(frozen=True)
class AutoTokenizerCompared(Reply):
    differs: bool
    line: str
    """The finding in one line; empty where nothing is known or nothing can be compared."""
    result: dict[str, Any]
    """`workbench.tokens.autotokenizer.AutoTokenizerDifference` as a dictionary; empty like `line`."""


@dataclass(frozen=True)
class MeasureDataset(Request):
    """Count every row of a data set. Events: `JobProgressed`, `DatasetUpdated`. Reply: `DatasetMeasured`.

    `Cancel` ends it with what was counted so far, marked ``partial``.
    """

    path: str
    """File, directory, or Hub id of a data set in the local cache; absolute if a path."""
    models: list[str]
    field: str = ""
    """Which field of a row to count; empty finds it."""
    special: bool = False
    template: bool = True
    """Render rows of messages through each model's own chat template."""


@dataclass(frozen=True)
class DatasetUpdated(Event):
    """What is known so far."""

    result: dict[str, Any]


@dataclass(frozen=True)
class DatasetMeasured(Reply):
    result: dict[str, Any]
    """`workbench.tokens.dataset.DatasetMeasure` as a dictionary; what ``workbench tokens --dataset --json`` prints."""


# --- Architecture: from the config alone -------------------------------------------------------------------


@dataclass(frozen=True)
class ListPrices(Request):
    """What GPUs and APIs cost, by the dated table that the user can replace. Reply: `PricesListed`."""


@dataclass(frozen=True)
class PricesListed(Reply):
    gpus: list[dict[str, Any]]
    """Each `workbench.vram.prices.Price` as a dictionary, with its ``name``: dollars an hour for one GPU."""
    apis: list[dict[str, Any]]
    """Each `workbench.vram.prices.ApiPrice` as a dictionary, with its ``name``: dollars for a million tokens."""
    own_table: str
    """Where the user's own table stands or would stand."""


@dataclass(frozen=True)
class InspectModel(Request):
    """Build a config on the meta device and count it exactly. Events: `JobProgressed`. Reply: `ModelInspected`."""

    model: str
    """Any name of a model, or ``family:llama`` for a small model of that family to design from."""
    changes: dict[str, Any] = field(default_factory=dict)
    """Config values to replace before building; a dotted key reaches into a section."""
    depth: Optional[int] = None
    """Levels under ``modules``; the ``tree`` is always whole."""
    lora: dict[str, Any] = field(default_factory=dict)
    """Fields of `workbench.architecture.lora.LoraPlan`; empty for no adapter."""
    gpu: str = ""
    """Name or memory size of the GPU for the bounds on speed; empty for some well-known ones."""
    context: int = 4096
    """Tokens in the KV cache for the figures of decoding."""


@dataclass(frozen=True)
class ModelInspected(Reply):
    result: dict[str, Any]
    """The object that ``workbench inspect --json`` prints, and under ``tree`` the folded module tree.

    ``parameters`` is `ParameterCounts`, ``facts`` `ArchitectureFacts`, ``explained`` a list of `Fact` (``key``,
    ``label``, ``value``, ``chip``, ``line``, ``text``, ``sources``), ``diagram`` a list of `Stage` (``name``, ``path``,
    ``repeat``, ``parallel``, ``blocks``: each ``kind``, ``label``, ``path``, ``line``, ``width``), ``compute``
    `ComputeFigures`, ``lora`` `AdapterCount` or null, ``files`` `ModelFiles` or null, ``checkpoint``
    `CheckpointComparison` or null, ``config`` the whole config, ``changed`` the dotted keys that were replaced. All of
    them are dataclasses of `workbench.architecture` as dictionaries.
    """


@dataclass(frozen=True)
class CountAdapter(Request):
    """What a LoRA adapter trains and weighs. Reply: `AdapterCounted`."""

    model: str
    lora: dict[str, Any]
    """Fields of `workbench.architecture.lora.LoraPlan`."""
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class AdapterCounted(Reply):
    result: dict[str, Any]
    """`workbench.architecture.lora.AdapterCount` as a dictionary: ``trainable``, ``base``, ``share``,
    ``adapter_bytes``, ``by_component``, ``targets`` (each ``name``, ``modules``, ``rank``, ``parameters``),
    ``matched`` (whole module names), ``notes``."""
    presets: list[dict[str, Any]]
    """`workbench.architecture.lora.Preset` as dictionaries: ``name``, ``line``, ``targets``, ``trainable``."""


@dataclass(frozen=True)
class CheckDesign(Request):
    """Whether an edited config can be a model, without building it. Reply: `DesignChecked`."""

    model: str
    """As in `InspectModel`."""
    changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DesignChecked(Reply):
    problems: list[dict[str, Any]]
    """`workbench.architecture.design.Problem` as dictionaries: ``key``, ``value``, ``reason``, ``nearest`` (valid
    values, the nearest first). Empty where nothing speaks against building it."""
    fields: list[dict[str, Any]]
    """`workbench.architecture.design.Field` as dictionaries: ``key``, ``label``, ``group``, ``kind`` (``integer``,
    ``number``, ``boolean``, ``choice``, ``text`` or ``list``), ``value``, ``original``, ``least``, ``most``, ``step``,
    ``choices``, ``line``."""


@dataclass(frozen=True)
class ListFamilies(Request):
    """Families to design a model of from scratch. Reply: `FamiliesListed`."""


@dataclass(frozen=True)
class FamiliesListed(Reply):
    families: list[dict[str, Any]]
    """`workbench.architecture.design.Family` as dictionaries: ``name`` (``family:llama``), ``label``, ``line``."""


@dataclass(frozen=True)
class SaveDesign(Request):
    """Write an edited config as a config.json that transformers reads. Reply: `DesignSaved`."""

    model: str
    changes: dict[str, Any]
    path: str
    """Absolute: a folder (made if need be) or a .json file."""
    overwrite: bool = False


@dataclass(frozen=True)
class DesignSaved(Reply):
    path: str
    """The file written. Its folder is a model that every bench and command can name."""


@dataclass(frozen=True)
class CompareModels(Request):
    """Two models side by side, from their configs. Reply: `ModelsCompared`."""

    first: str
    second: str
    first_changes: dict[str, Any] = field(default_factory=dict)
    second_changes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelsCompared(Reply):
    result: dict[str, Any]
    """`workbench.architecture.compare.ModelComparison` as a dictionary: ``first`` and ``second`` (names), ``counts``,
    ``facts`` and ``config`` (lists of ``key``, ``label``, ``first``, ``second``, ``same``), ``only_first`` and
    ``only_second`` (modules, equal ones folded), ``shapes`` (as the lists above)."""


# --- Architecture: the loaded model ------------------------------------------------------------------------
# `load` names the model to look into, loaded first unless it stands already, in one step with the look; None takes
# whatever is loaded. A trace leaves no hook and no setting behind: the next answer is what it would have been.


@dataclass(frozen=True)
class InspectLoaded(Request):
    """The modules of the loaded model as they stand in the worker. Reply: `LoadedInspected`."""

    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class LoadedInspected(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.live.LiveModel` as a dictionary: ``parameters``, ``bytes`` (which is the model's
    ``weights_bytes``), ``by_dtype``, ``by_device``, ``by_quantization`` (bytes), ``device_bytes``, and ``tree``: nodes
    with the keys of `ModelInspected`'s ``tree`` (``name``, ``path``, ``class``, ``parameters``, ``shape``, ``dtype``,
    ``bytes``, ``count``, ``tied_to``, ``children``) and ``device``, ``quantization`` and ``buffer``."""


@dataclass(frozen=True)
class TraceModel(Request):
    """Run a prompt through the model and look at every layer. Events: `JobProgressed`. Reply: `ModelTraced`."""

    prompt: str
    chat: bool = False
    """Wrap the prompt as one user message in the model's chat template."""
    lens: int = 5
    """Tokens per cell of the logit lens; 0 leaves it out."""
    lens_positions: int = 64
    """The last so many positions of the prompt are read; 0 reads all."""
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class ModelTraced(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.traced.ModelTrace` as a dictionary."""


@dataclass(frozen=True)
class ReadAttention(Request):
    """Attention weights of one layer, head by head. Events: `JobProgressed`. Reply: `AttentionRead`."""

    prompt: str
    layer: int
    """Index of the layer as in `ModelTraced`."""
    heads: list[int] = field(default_factory=list)
    """The heads wanted; empty for all that fit into the reply."""
    chat: bool = False
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class AttentionRead(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.traced.AttentionMaps` as a dictionary."""


@dataclass(frozen=True)
class NearestTokens(Request):
    """The tokens nearest to a text in an embedding table. Reply: `NearestTokensFound`."""

    text: str = ""
    """Taken as typed: a leading space matters. A text of several tokens stands for their mean."""
    id: Optional[int] = None
    """A token by its id, instead of a text."""
    table: str = "input"
    """``input`` (embedding) or ``output`` (LM head)."""
    measure: str = "cosine"
    """``cosine`` or ``dot``."""
    count: int = 20
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class NearestTokensFound(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.embedded.Neighbours` as a dictionary."""


@dataclass(frozen=True)
class CompareTokens(Request):
    """Texts against each other in an embedding table. Reply: `TokensCompared`."""

    texts: list[str]
    table: str = "input"
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class TokensCompared(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.embedded.Similarities` as a dictionary."""


@dataclass(frozen=True)
class EmbeddingNorms(Request):
    """Norms of all vectors of an embedding table, and the outliers. Reply: `EmbeddingNormsRead`."""

    table: str = "input"
    count: int = 20
    """How many of the smallest and of the largest."""
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class EmbeddingNormsRead(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.embedded.NormSummary` as a dictionary."""


@dataclass(frozen=True)
class MapWords(Request):
    """Words in two dimensions, by principal components. Reply: `WordsMapped`."""

    words: list[str]
    table: str = "input"
    load: Optional[LoadModel] = None


@dataclass(frozen=True)
class WordsMapped(Reply):
    model: ModelStatus
    result: dict[str, Any]
    """`workbench.architecture.embedded.WordMap` as a dictionary."""


# --- VRAM --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EstimateMemory(Request):
    """Bytes of a plan, what to change, what it costs. Reply: `MemoryEstimated`."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    """Fields of `workbench.vram.plan.Plan`; those left out have their defaults; ``lora`` is a dictionary."""
    gpus: list[str] = field(default_factory=list)
    """Names or sizes to hold it against; empty means the GPUs of this box."""
    solve: str = ""
    """``batch`` or ``seq`` to find the largest that fits each GPU."""
    dataset_tokens: int = 0
    """Tokens of the data set once through, for training time and money."""
    epochs: float = 1.0
    suggest: bool = True
    """Whether to look for changes that save memory; off while a field is being typed."""


@dataclass(frozen=True)
class MemoryEstimated(Reply):
    result: dict[str, Any]
    """The object that ``workbench vram --json`` prints: ``model``, ``plan``, ``estimate`` (bytes by category and
    ``total``, at the peak of the GPU that holds most), ``known`` and ``why`` by category (``exact``,
    ``table``, ``rule`` or ``not covered``), ``allocated_bytes`` (all tensors at the peak, to compare with torch's
    ``max_memory_allocated``), ``peak_phase``,
    ``phases`` (`Phase`), ``static`` (exact parts whole), ``context_length`` (of the model, or null), ``warnings``,
    ``gpus`` (`Fit`, by the best rung there is), ``suggestions``
    (`Suggestion`), ``cost`` (`Cost` for the first GPU: ranges as ``{"low", "high"}``), ``launch`` (commands),
    ``solved`` (`Solved`, one for each GPU, where asked), ``stored`` (`StoredWeights` of a checkpoint that is quantized
    already, or null), ``simulation`` (as in `MemorySimulated`, of exactly this plan where one is kept, without its
    timeline, or null), ``measurement`` and ``errors`` (as in `MemoryMeasured`, of exactly this model and plan, or null
    and empty), ``versions`` (of what the rules were read from). They are dataclasses of `workbench.vram` as
    dictionaries."""


@dataclass(frozen=True)
class SurveyGpus(Request):
    """A plan against every GPU of the catalogue. Reply: `GpusSurveyed`."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)
    """Names or sizes that come first; the whole catalogue follows."""


@dataclass(frozen=True)
class GpusSurveyed(Reply):
    rows: list[dict[str, Any]]
    """`workbench.vram.solve.GpuRow` as dictionaries: ``name``, ``capacity_bytes``, ``total_bytes``, ``free_bytes``,
    ``fits``, ``verdict``, ``largest_batch``, ``longest_sequence`` (null if not even 1), ``notes``, ``by`` (the rung
    that says whether it fits), ``beyond_context`` (of the longest sequence), ``named`` (by the request)."""


@dataclass(frozen=True)
class FitPlan(Request):
    """The cheapest set of changes with which a plan fits a GPU. Reply: `PlanFitted`."""

    model: str
    gpu: str
    """Name or size."""
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class PlanFitted(Reply):
    plan: dict[str, Any]
    """The plan with the changes made; as it was where it fits already."""
    changes: list[dict[str, Any]]
    """`workbench.vram.suggestions.Suggestion` as dictionaries, in the order in which they were made."""
    total_bytes: int
    fits: bool
    """False if no set of changes is enough."""
    by: str = "estimate"
    """The rung that says so of the plan with its changes: ``estimate``, or ``simulation`` or ``measurement`` where one
    is kept of it."""


@dataclass(frozen=True)
class DrawCurve(Request):
    """Memory over one field of a plan. Reply: `CurveDrawn`."""

    model: str
    field_name: str
    """``sequence_length``, ``batch``, ``new_tokens``, ``lora_r`` or ``gpus``."""
    values: list[int]
    """At most 200."""
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class CurveDrawn(Reply):
    points: list[dict[str, Any]]
    """One for each value: ``value``, ``total``, and the bytes of every category."""
    overtakes: list[dict[str, Any]]
    """Where the largest category changes: ``value``, ``category``, ``before``."""


@dataclass(frozen=True)
class EstimateModules(Request):
    """What some modules take of a plan's budget. Reply: `ModulesEstimated`."""

    model: str
    modules: list[str]
    """Dotted names of modules or tensors; the empty name is the model."""
    plan: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModulesEstimated(Reply):
    part: dict[str, int]
    """`workbench.vram.module_bytes.ModuleBytes` of these modules, as a dictionary."""
    whole: dict[str, int]
    """The same of the model."""


@dataclass(frozen=True)
class WritePlan(Request):
    """A plan as text, and into a file if one is named. Reply: `PlanWritten`."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    gpus: list[str] = field(default_factory=list)
    form: str = "toml"
    """``toml`` (opens again), ``code`` (loading, or training with Trainer), ``trl`` (training with SFTTrainer) or
    ``markdown``."""
    path: str = ""
    """Absolute; empty for the text alone."""
    overwrite: bool = False
    dataset_tokens: int = 0
    epochs: float = 1.0


@dataclass(frozen=True)
class PlanWritten(Reply):
    text: str
    path: str
    """The file written, or empty."""


@dataclass(frozen=True)
class OpenPlan(Request):
    """Read a plan file. Reply: `PlanOpened`."""

    path: str
    """Absolute."""


@dataclass(frozen=True)
class PlanOpened(Reply):
    model: str
    """Empty if the file names none."""
    plan: dict[str, Any]
    gpus: list[str]
    dataset_tokens: int
    epochs: float


@dataclass(frozen=True)
class ListRulesOfThumb(Request):
    """Well-known teaching tables beside the right numbers. Events: `JobProgressed`. Reply: `RulesOfThumbListed`."""


@dataclass(frozen=True)
class RulesOfThumbListed(Reply):
    rows: list[dict[str, Any]]
    """`workbench.vram.reference_tables.Comparison` as dictionaries: ``title``, ``model``, ``thumb``, ``thumb_bytes``,
    ``right_bytes``, ``estimate``, ``plan``, ``ratio``, ``why``."""
    why: list[str]
    """Why such tables mislead, one sentence each."""


@dataclass(frozen=True)
class BreakEvenWithApi(Request):
    """A rented GPU against an API. Reply: `BrokenEven`."""

    model: str
    gpu: str
    plan: dict[str, Any] = field(default_factory=dict)
    answers_per_day: int = 1000
    agent_multiplier: float = 1.0
    """Model calls that an agent makes for each answer asked for."""
    api: str = ""
    """Name of an API in prices.toml; empty takes the prices below."""
    input_per_million: float = 0.0
    output_per_million: float = 0.0


@dataclass(frozen=True)
class BrokenEven(Reply):
    result: dict[str, Any]
    """`workbench.vram.cost.BreakEven` as a dictionary."""


@dataclass(frozen=True)
class SimulateMemory(Request):
    """A plan's step run on tensors without data, in a child process that cancelling kills. Reply: `MemorySimulated`."""

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    """As in `EstimateMemory`."""
    only_kept: bool = False
    """Answer with a simulation made before, or with none; nothing is run."""


@dataclass(frozen=True)
class MemorySimulated(Reply):
    model: str
    plan: dict[str, Any]
    simulation: Optional[dict[str, Any]]
    """Fields of `workbench.vram.simulate.result.Simulation`, the estimate's keys among them; None if none is kept."""


@dataclass(frozen=True)
class MeasureMemory(Request):
    """A plan run for real, two steps, in a child process that cancelling kills; kept. Reply: `MemoryMeasured`.

    Phases of `JobProgressed`: ``import``, ``load``, ``prepare``, ``forward``, ``backward``, ``optimizer``; ``prefill``,
    ``decode``; ``done`` is the step. What does not fit the free memory is refused before anything is loaded.
    """

    model: str
    plan: dict[str, Any] = field(default_factory=dict)
    """As in `EstimateMemory`."""
    device: str = "auto"
    """``auto`` takes the GPU if there is one; ``cpu``, ``cuda``."""
    only_kept: bool = False
    """Answer with a point measured before, or with none; nothing is run."""


@dataclass(frozen=True)
class MeasureLoaded(Request):
    """What the loaded model holds now, by category. Reply: `MemoryMeasured`, with the plan that corresponds to it."""


@dataclass(frozen=True)
class MemoryMeasured(Reply):
    model: str
    plan: dict[str, Any]
    measurement: Optional[dict[str, Any]]
    """Fields of `workbench.vram.measured.Measurement` with ``measured_at`` (seconds since the epoch), or of
    `workbench.vram.measure_loaded.Standing`; the estimate's keys among them; None if none is kept."""
    errors: dict[str, dict[str, Optional[float]]] = field(default_factory=dict)
    """``estimate``, ``simulation`` where it was made, ``cpu_simulation`` of a run on the CPU (the same steps simulated
    with its operators; ``allocated`` and ``total`` alone): how far each lies from what was measured, in per cent of the
    latter, by category, ``allocated`` (all tensors at the peak) and ``total``; null where that means nothing. On the
    CPU ``total`` is without overhead on both sides."""


@dataclass(frozen=True)
class ListMeasurements(Request):
    """Points measured on this box, the newest first. Reply: `MeasurementsListed`."""

    model: str = ""
    """Of this model only, by the name under which it was measured."""
    limit: int = 200


@dataclass(frozen=True)
class MeasurementsListed(Reply):
    points: list[dict[str, Any]]
    """`workbench.vram.measured.Point` as dictionaries: ``id``, ``measured_at``, ``model``, ``plan``,
    ``measurement``."""
    note: str = ""
    """What happened to a damaged file, one line."""


# --- Chat --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RemoteModel:
    """A model behind an OpenAI-compatible server."""

    url: str
    """Such as ``http://localhost:8000/v1``."""
    model: str = ""
    """Empty takes the server's only or first one."""
    api_key: str = field(default="", repr=False)
    """Sent as a bearer token; never kept."""


@dataclass(frozen=True)
class Generate(Request):
    """Answer a prompt with the loaded model. Events: `JobProgressed` (prefill), `AnswerStarted`, `TokensGenerated`.

    Reply: `Generated`, also after `Cancel`. The answer goes on and is saved when the client goes away.
    """

    prompt: str
    conversation_id: str = ""
    """The conversation to continue; empty starts a new one."""
    system: str = ""
    raw: bool = False
    """Complete the prompt as it is, without chat template or history."""
    sampling: dict[str, Any] = field(default_factory=dict)
    """Fields of `workbench.chat.sampling.SamplingOptions`."""
    save: bool = True
    """Keep the exchange in the history."""
    load: Optional[LoadModel] = None
    """The model that must answer: loaded first unless it stands already, and in one step with the answer, so that no
    other client's model comes between. None takes whatever is loaded."""
    after: Optional[str] = None
    """The message that `prompt` follows, so that an earlier one is sent again in other words; empty for none, which
    begins the conversation anew. None takes the last one shown."""
    again: str = ""
    """An answer of this conversation to give once more, beside it; `prompt` is then left empty."""
    extend: bool = False
    """With `again`: go on writing that very answer."""
    keep_tokens: Optional[int] = None
    """With `again`: how many tokens of that answer stay; None keeps none, or all with `extend`."""
    then_token: Optional[int] = None
    """With `again`: the token that follows those kept, which forks the answer there."""
    alternatives: int = 0
    """How many of the most probable tokens are recorded for each place of the answer, for `ReadAnswer`."""
    overflow: str = "refuse"
    """What to do when the conversation is longer than the context: ``refuse``, or ``drop-oldest`` exchanges."""
    remote: Optional[RemoteModel] = None
    """A server that answers instead of a local model, on the children lane: it waits for no local work. It takes no
    `load`, `keep_tokens` or `then_token`; `extend` and `raw` where its `ServersFound` entry says so in ``can``."""


@dataclass(frozen=True)
class AnswerStarted(Event):
    """The prompt as the model will see it is known."""

    conversation_id: str
    prompt_tokens: int
    note: str = ""


@dataclass(frozen=True)
class TokensGenerated(Event):
    """Newly completed text, gathered by the worker to at most 15 events a second; never dropped."""

    text: str
    count: int
    """Tokens of the answer so far."""
    conversation_id: str = ""


@dataclass(frozen=True)
class Generated(Reply):
    conversation_id: str
    result: dict[str, Any]
    """The object that ``workbench chat --json`` prints."""


@dataclass(frozen=True)
class FollowConversation(Request):
    """Attach to an answer in progress. Events: `ConversationOpened`, then `TokensGenerated`. Reply: `Followed`."""

    conversation_id: str


@dataclass(frozen=True)
class ConversationOpened(Event):
    conversation: dict[str, Any]


@dataclass(frozen=True)
class Followed(Reply):
    """The answer ended."""

    conversation: dict[str, Any]


@dataclass(frozen=True)
class StopAnswer(Request):
    """Stop the answer being written in a conversation, whoever asked for it. Reply: `CancelNoted`."""

    conversation_id: str


@dataclass(frozen=True)
class ListConversations(Request):
    """Reply: `ConversationsListed`, newest first."""

    limit: int = 200


@dataclass(frozen=True)
class ConversationsListed(Reply):
    conversations: list[dict[str, Any]]
    note: str = ""
    """What happened to a damaged file, one line."""


@dataclass(frozen=True)
class OpenConversation(Request):
    """Reply: `ConversationRead`."""

    conversation_id: str


@dataclass(frozen=True)
class ConversationRead(Reply):
    conversation: dict[str, Any]


@dataclass(frozen=True)
class RenameConversation(Request):
    """Reply: `ConversationRead`."""

    conversation_id: str
    title: str


@dataclass(frozen=True)
class DeleteConversation(Request):
    """Reply: `ConversationDeleted`."""

    conversation_id: str


@dataclass(frozen=True)
class ConversationDeleted(Reply):
    conversation_id: str


@dataclass(frozen=True)
class ShowMessage(Request):
    """Show the branch through a message, down to its newest one. Reply: `ConversationRead`.

    Messages name their ``siblings``: the branches that part at their place.
    """

    conversation_id: str
    message_id: str


@dataclass(frozen=True)
class SearchConversations(Request):
    """Find words in all messages, letter case aside. Reply: `ConversationsFound`."""

    words: str
    limit: int = 100


@dataclass(frozen=True)
class ConversationsFound(Reply):
    found: list[dict[str, Any]]
    """`workbench.chat.conversations.Found` as dictionaries, the newest first."""


@dataclass(frozen=True)
class ExportConversations(Request):
    """Conversations as text, their shown branches. Reply: `ConversationsExported`."""

    conversation_ids: list[str] = field(default_factory=list)
    """Empty takes all."""
    form: str = "markdown"
    """``markdown``, or ``jsonl`` in the ``messages`` form that fine-tuning wants."""


@dataclass(frozen=True)
class ConversationsExported(Reply):
    text: str
    count: int


@dataclass(frozen=True)
class ListPresets(Request):
    """Reply: `PresetsListed`."""

    kind: str = ""
    """``prompt``, ``system`` or ``sampling``; empty for all."""


@dataclass(frozen=True)
class SavePreset(Request):
    """Keep a text or sampling options under a name, in place of what had it. Reply: `PresetsListed` of that kind."""

    kind: str
    name: str
    body: dict[str, Any]
    """``{"text": …}`` of a prompt or system prompt; fields of `SamplingOptions` of sampling options."""


@dataclass(frozen=True)
class DeletePreset(Request):
    """Reply: `PresetsListed` of that kind."""

    kind: str
    name: str


@dataclass(frozen=True)
class PresetsListed(Reply):
    presets: list[dict[str, Any]]


@dataclass(frozen=True)
class ReadPrompt(Request):
    """The exact text that the loaded model would see, or saw before an answer. Reply: `PromptRead`."""

    prompt: str = ""
    """The message being written; may be empty."""
    conversation_id: str = ""
    after: Optional[str] = None
    """As in `Generate`."""
    answer: str = ""
    """An answer whose prompt is wanted; `prompt` and `after` are then left alone."""
    system: str = ""
    raw: bool = False


@dataclass(frozen=True)
class PromptRead(Reply):
    text: str
    tokens: int
    context_length: Optional[int]
    pieces: list[dict[str, Any]]
    """``id``, ``text`` and ``special`` of each token."""
    note: str = ""


@dataclass(frozen=True)
class ReadAnswer(Request):
    """The tokens of an answer with what else could have stood there. Reply: `AnswerRead`."""

    conversation_id: str
    message_id: str
    score: bool = False
    """Run the answer through the loaded model where nothing was recorded."""
    alternatives: int = 8


@dataclass(frozen=True)
class AnswerRead(Reply):
    tokens: list[dict[str, Any]]
    """`workbench.chat.answers.TokenStep` as dictionaries; ``logprob`` and ``entropy_bits`` are None where unknown."""
    source: str
    """``recorded`` as it was written, ``scored`` now, or empty if nothing is known but the text."""
    note: str = ""


@dataclass(frozen=True)
class ReadDistribution(Request):
    """The distribution of one token before and after each sampling filter. Reply: `DistributionRead`."""

    sampling: dict[str, Any] = field(default_factory=dict)
    count: int = 12
    """How many of the most probable tokens."""
    prompt: str = ""
    """The message being written: its answer's first token is looked at."""
    conversation_id: str = ""
    after: Optional[str] = None
    answer: str = ""
    """An answer of the conversation to look into instead."""
    position: int = 0
    """With `answer`: the token of it that is looked at."""
    system: str = ""
    raw: bool = False


@dataclass(frozen=True)
class DistributionRead(Reply):
    result: dict[str, Any]
    """`workbench.chat.distribution.Distribution` as a dictionary."""


@dataclass(frozen=True)
class ReadSampling(Request):
    """The sampling options, what each means, and what the loaded model's own config says. Reply: `SamplingRead`."""


@dataclass(frozen=True)
class SamplingRead(Reply):
    options: list[dict[str, Any]]
    """``name``, ``line`` (what it does), ``default`` (used when nothing is given), ``model`` (what the model's
    generation config says, or None), ``low``, ``high``."""


@dataclass(frozen=True)
class CompareVariants(Request):
    """What quantizing costs: the same text and prompt under several variants of one model, loaded in turn.

    Events: `JobProgressed`, `VariantMeasured`. Reply: `VariantsCompared`, also of what is there after `Cancel`.
    """

    model: str
    variants: list[str]
    """``fp32``, ``bf16``, ``fp16``, ``int8``, ``nf4``, ``nf4-dq``, ``fp4``, ``fp4-dq``; the first is the reference."""
    text: str = ""
    """What perplexity and divergence are measured on; empty takes the built-in one."""
    prompt: str = ""
    """Answered greedily by every variant, if given."""
    max_new_tokens: int = 128
    layers: bool = False
    """Measure the error of each quantized layer's weights as well."""
    device: str = "auto"


@dataclass(frozen=True)
class VariantMeasured(Event):
    """One variant is done."""

    variant: dict[str, Any]


@dataclass(frozen=True)
class VariantsCompared(Reply):
    result: dict[str, Any]
    """`workbench.chat.compare.Comparison` as a dictionary; what ``workbench chat --compare --json`` prints."""


@dataclass(frozen=True)
class FindServers(Request):
    """OpenAI-compatible servers at the usual ports of this box, or the one at an address. Reply: `ServersFound`."""

    url: str = ""
    """Empty looks at this box's ports; else a server that cannot be asked is a failure."""
    api_key: str = field(default="", repr=False)


@dataclass(frozen=True)
class ServersFound(Reply):
    servers: list[dict[str, Any]]
    """`workbench.chat.remote_servers.Server` as dictionaries; ``cannot`` holds a line for each thing that is not to be
    had there."""


# --- Codec -------------------------------------------------------------------------------------------------


class ProtocolError(Exception):
    """A line that is not a message of this protocol.

    Attributes:
        kind: ``bad-json``, ``bad-message``, ``unknown-request``, ``bad-field`` or ``protocol-version``.
        message_id: the id of the offending message where it could be read, else 0.
    """

    def __init__(self, kind: str, text: str, message_id: int = 0) -> None:
        super().__init__(text)
        self.kind = kind
        self.message_id = message_id


@dataclass(frozen=True)
class Frame:
    """One message with the id that ties it to its request."""

    id: int
    message: Message


def wire_name(message_type: type[Message]) -> str:
    """``TokensGenerated`` → ``tokens_generated``."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", message_type.__name__).lower()


def _leaves(base: type[Message]) -> list[type[Message]]:
    found = []
    for child in base.__subclasses__():
        found.extend(_leaves(child) if child in (Request, Event, Reply) else [child])
    return found


@functools.cache
def registry() -> dict[str, type[Message]]:
    """Every message type by its wire name."""
    return {wire_name(message_type): message_type for message_type in _leaves(Message)}


def encode(message_id: int, message: Message) -> bytes:
    """One message as one line. Non-ASCII text is escaped, so a line holds no stray line separator."""
    frame = {
        "v": PROTOCOL_VERSION,
        "id": message_id,
        "type": wire_name(type(message)),
        # Not asdict: it copies every value, which takes longer than writing them.
        "body": {item.name: getattr(message, item.name) for item in dataclasses.fields(message)},  # type: ignore[arg-type]
    }
    return json.dumps(frame, separators=(",", ":"), default=dataclasses.asdict).encode("ascii") + b"\n"


def decode(line: bytes) -> Frame:
    """Read one line.

    Raises:
        ProtocolError: with the id of the message where that much could be read.
    """
    try:
        frame = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ProtocolError("bad-json", f"not a line of JSON: {error}") from None
    if not isinstance(frame, dict):
        raise ProtocolError("bad-message", "a message is a JSON object")
    message_id = frame.get("id")
    if not isinstance(message_id, int) or isinstance(message_id, bool) or message_id < 0:
        raise ProtocolError("bad-message", "a message needs a whole number as id")
    if frame.get("v") != PROTOCOL_VERSION:
        raise ProtocolError(
            "protocol-version",
            f"this side speaks protocol version {PROTOCOL_VERSION}, the message has {frame.get('v')!r:.20}",
            message_id,
        )
    name = frame.get("type")
    message_type = registry().get(name) if isinstance(name, str) else None
    if message_type is None:
        raise ProtocolError("unknown-request", f"unknown message type {str(name)[:60]!r}", message_id)
    body = frame.get("body", {})
    try:
        message = rebuild(message_type, body)
    except (TypeError, ValueError) as error:
        raise ProtocolError("bad-field", f"{name}: {error}", message_id) from None
    return Frame(message_id, message)


def rebuild(message_type: type[Message], body: Any) -> Message:
    """A message from its body as plain JSON values. Raises TypeError where a value has the wrong type."""
    message: Message = _convert(message_type, body)
    return message


@functools.cache
def _hints(record: Any) -> dict[str, Any]:
    return typing.get_type_hints(record)


def _convert(expected: Any, value: Any) -> Any:
    """`value` from JSON as the type `expected`, checked; unknown fields of a dataclass are dropped."""
    if expected is Any:
        return value
    origin, arguments = typing.get_origin(expected), typing.get_args(expected)
    if origin is Union:
        return None if value is None else _convert(arguments[0], value)
    if origin in (tuple, list):
        if not isinstance(value, (list, tuple)):
            raise TypeError(f"expected a list, got {type(value).__name__}")
        return origin(_convert(arguments[0], item) for item in value)
    if origin is dict:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        return {key: _convert(arguments[1], item) for key, item in value.items()}
    if dataclasses.is_dataclass(expected):
        record: Any = expected
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, got {type(value).__name__}")
        hints = _hints(record)
        return record(**{key: _convert(hints[key], item) for key, item in value.items() if key in hints})
    if expected is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, expected) or (expected is int and isinstance(value, bool)):
        raise TypeError(f"expected {expected.__name__}, got {type(value).__name__}")
    return value


_DISK_TROUBLE = (errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EPERM, errno.EDQUOT)


def failure(error: BaseException) -> Reply:
    """Any exception of a job as the reply that ends its request."""
    if isinstance(error, JobCancelled):
        return Cancelled()
    if isinstance(error, WorkbenchError):
        return Failed(error.kind, error.message, error.remedy, error.details)
    if isinstance(error, OSError) and error.errno in _DISK_TROUBLE:
        where = f" {error.filename}" if error.filename else ""
        return Failed(
            "cannot-write",
            f"Cannot write{where}: {error.strerror}.",
            "Free space or make it writable; XDG_CACHE_HOME and XDG_STATE_HOME put such files elsewhere.",
        )
    return Failed(
        "internal",
        f"Unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}",
        "The session log (workbench session log) has the traceback.",
        "".join(traceback.format_exception(type(error), error, error.__traceback__))[-20_000:],
    )
