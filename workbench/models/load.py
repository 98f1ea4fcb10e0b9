"""Load a model directory into memory and free it again. Needs torch and transformers: worker only."""

from __future__ import annotations

import contextlib
import importlib
import json
import logging
import re
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Callable, Optional

from workbench.errors import JobCancelled, WorkbenchError
from workbench.job import SILENT, Job
from workbench.models.memory import memory_shortage, release_memory, storages
from workbench.models.placement import Placement, place
from workbench.models.remote_code import require_consent
from workbench.packages import need
from workbench.text import one_line

QUANTS = ("none", "int8", "nf4", "fp4")
DTYPES = ("auto", "float32", "bfloat16", "float16")
ATTENTIONS = ("auto", "sdpa", "eager")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d{1,3})?")
# No public decoder comes near this; a config beyond it would build modules for minutes before failing.
_MAX_LAYERS = 10_000
_LAYER_KEYS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "num_decoder_layers")


@dataclass(frozen=True)
class LoadOptions:
    """How to load a model.

    Attributes:
        quant: ``none``, ``int8`` (LLM.int8), ``nf4`` or ``fp4``, quantized by bitsandbytes while loading.
        double_quant: quantize the 4-bit block constants too.
        dtype: ``auto``, ``float32``, ``bfloat16`` or ``float16``: of the weights left unquantized and of the
            arithmetic.
        device: ``auto``, ``cuda``, ``cuda:N``, ``cpu`` or ``mps``.
        attention: ``auto``, ``sdpa`` or ``eager``.
    """

    quant: str = "none"
    double_quant: bool = False
    dtype: str = "auto"
    device: str = "auto"
    attention: str = "auto"

    def validate(self) -> None:
        """Raise `WorkbenchError` ``bad-option`` for the first value that means nothing."""
        for name, allowed in (("quant", QUANTS), ("dtype", DTYPES), ("attention", ATTENTIONS)):
            value = getattr(self, name)
            if value not in allowed:
                raise WorkbenchError(
                    "bad-option", f"{name} {value!r} is not known.", f"Choose one of {', '.join(allowed)}."
                )
        if not _DEVICE.fullmatch(self.device):
            raise WorkbenchError(
                "bad-option",
                f"Device {self.device!r} is not known.",
                "Choose auto, cpu, mps, cuda or cuda:N.",
            )


@dataclass(frozen=True)
class LoadedFacts:
    """What was loaded, as data that can travel to a client."""

    directory: str
    class_name: str
    model_type: str
    quant: str
    double_quant: bool
    dtype: str
    device: str
    attention: str
    weights_bytes: int
    load_seconds: float
    pickle: bool
    supports_generation: bool
    is_encoder_decoder: bool
    context_length: Optional[int]
    devices: tuple[str, ...] = ()
    """All that hold some of it, where that is more than `device`, which takes the input."""


class LoadedModel:
    """A model in memory: the transformers object and the facts about it.

    Attributes:
        model: the ``PreTrainedModel``, or None after `unload`.
        config: its configuration object.
        directory: where it was read from.
        options: the `LoadOptions` with every ``auto`` replaced by what was chosen.
        facts: everything a client may see.
    """

    def __init__(self, model: Any, options: LoadOptions, facts: LoadedFacts) -> None:
        self.model: Any = model
        self.config: Any = model.config
        self.directory = Path(facts.directory)
        self.options = options
        self.facts = facts

    @property
    def weights_bytes(self) -> int:
        """Bytes of parameters, buffers and quantization state together."""
        return self.facts.weights_bytes

    @property
    def supports_generation(self) -> bool:
        """Whether the class has a language-model head that ``generate`` accepts."""
        return self.facts.supports_generation


def load_model(
    directory: Path,
    options: LoadOptions,
    job: Job = SILENT,
    make_room: Callable[[], object] = lambda: None,
    needed_bytes: Callable[[LoadOptions], int] = lambda _options: 0,
) -> LoadedModel:
    """Load the model in `directory`; nothing is looked up on a network and no code of the model is run.

    A failed or cancelled load leaves no tensor behind.

    Args:
        directory: holds ``config.json`` and safetensors, or a pickle checkpoint that torch can read with
            ``weights_only=True``.
        options: quantization, dtype, device, attention.
        job: progress in tensors (in shards before transformers 5); cancelled between two of them.
        make_room: called once everything but the weights has been found good, before the first of them is read.
        needed_bytes: asked for what a load takes on one GPU, where the device is ``auto`` and there are several: a
            model too large for one is spread over them.

    Raises:
        WorkbenchError: ``bad-option``, ``missing-package``, ``no-device``, ``not-a-model``, ``bad-config``,
            ``unsupported``, ``no-weights``, ``corrupt-file``, ``unsafe-checkpoint``, ``out-of-memory`` or
            ``load-failed``.
        JobCancelled: the caller asked to stop.
    """
    options.validate()
    directory = Path(directory)
    torch = need("torch", "Loading a model")
    need("transformers", "Loading a model")
    chosen_here = options.device == "auto"
    options = resolve_options(options, torch)
    several = chosen_here and options.device.startswith("cuda") and torch.cuda.device_count() > 1
    if options.quant != "none" or options.device != "cpu":
        need("accelerate", "Loading a model")
    if options.quant != "none":
        _require_bitsandbytes()
    pickle = _check_files(directory)
    job.progress("config", 0, detail=directory.name)
    job.check()
    failure: Optional[BaseException] = None
    try:
        return _load(directory, options, pickle, job, make_room, needed_bytes if several else None)
    except JobCancelled:
        failure = JobCancelled()
    except WorkbenchError as error:
        failure = WorkbenchError(error.kind, error.message, error.remedy, error.details)
    except Exception as error:
        failure = _explain(error, directory, options)
        # The traceback's frames hold every tensor read so far.
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
    release_memory()
    raise failure


def unload(loaded: LoadedModel) -> int:
    """Drop the model and give its memory back; returns the bytes of its tensors that are still alive.

    Anything but 0 means that someone else still holds a tensor, such as a frame of an exception.
    """
    if loaded.model is None:
        return 0
    weak = importlib.import_module("torch.multiprocessing.reductions").StorageWeakRef
    watched = [(weak(storage), storage.nbytes()) for storage in storages(loaded.model)]
    loaded.model = None
    loaded.config = None
    release_memory()
    return sum(count_bytes for reference, count_bytes in watched if not reference.expired())


def resolve_options(options: LoadOptions, torch: Any) -> LoadOptions:
    """Replace ``auto`` for device and dtype by what this machine has.

    On CUDA bfloat16 where the card computes in it, else float16; on the CPU bfloat16; float16 for int8
    everywhere, since bitsandbytes casts its inputs to float16 in any case and warns once per layer otherwise.
    """
    device = options.device
    if device == "auto":
        accelerator = "mps" if torch.backends.mps.is_available() else "cpu"
        device = "cuda" if torch.cuda.is_available() else accelerator
    device = _check_device(device, torch)
    dtype = options.dtype
    if dtype == "auto":
        if options.quant == "int8" or device == "mps":
            dtype = "float16"
        elif device == "cpu":
            dtype = "bfloat16"
        else:
            dtype = "bfloat16" if _cuda_has_bfloat16(torch, device) else "float16"
    double_quant = options.double_quant and options.quant in ("nf4", "fp4")
    return LoadOptions(options.quant, double_quant, dtype, device, options.attention)


def _check_device(device: str, torch: Any) -> str:
    if device == "cpu":
        return device
    if device == "mps":
        if torch.backends.mps.is_available():
            return device
        raise WorkbenchError("no-device", "This torch has no mps device.", "Choose cpu.")
    if not torch.cuda.is_available():
        raise WorkbenchError(
            "no-device",
            f"torch {torch.__version__} sees no CUDA device.",
            "Choose cpu, or see the Doctor bench.",
        )
    index = int(device.partition(":")[2] or 0)
    if index >= torch.cuda.device_count():
        raise WorkbenchError(
            "no-device",
            f"There is no {device}: torch sees {torch.cuda.device_count()} CUDA device(s).",
            "Choose a smaller number, or check CUDA_VISIBLE_DEVICES.",
        )
    return f"cuda:{index}"


def _cuda_has_bfloat16(torch: Any, device: str) -> bool:
    with torch.cuda.device(device):
        try:
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
        except TypeError:  # before torch 2.5 the function has no argument and counts emulation
            return bool(torch.cuda.get_device_capability()[0] >= 8)


def _require_bitsandbytes() -> None:
    """Import bitsandbytes without letting it fetch code.

    Where the ``kernels`` package is installed, ``bitsandbytes/backends/{cpu,mps}/ops.py`` download and run a
    kernel from the Hub at import.
    """
    if "bitsandbytes" in sys.modules:
        return
    logger = logging.getLogger("bitsandbytes.backends.cpu.ops")
    hidden = "kernels" not in sys.modules
    level = logger.level
    if hidden:
        sys.modules["kernels"] = None  # type: ignore[assignment]
        logger.setLevel(logging.ERROR)  # it would ask the user to install that package
    try:
        need("bitsandbytes", "Quantizing")
    finally:
        if hidden:
            del sys.modules["kernels"]
            logger.setLevel(level)


def _check_files(directory: Path) -> bool:
    """Make sure `directory` can hold a model; returns whether its weights are a pickle."""
    if not (directory / "config.json").is_file():
        what = "is a LoRA adapter, not a model" if (directory / "adapter_config.json").is_file() else ""
        raise WorkbenchError(
            "not-a-model",
            f"{directory} {what or 'has no config.json'}.",
            "Name the directory of the base model.",
        )
    for stem, pickle in (("model.safetensors", False), ("pytorch_model.bin", True)):
        if (directory / stem).is_file():
            return pickle
        index = directory / f"{stem}.index.json"
        if index.is_file():
            _check_index(index)
            return pickle
    raise WorkbenchError(
        "no-weights",
        f"{directory} has no model.safetensors, no pytorch_model.bin and no index of shards.",
        "Download the weights, or choose another model.",
    )


def _check_index(index: Path) -> None:
    try:
        shards: set[Any] = set(json.loads(index.read_text("utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WorkbenchError(
            "corrupt-file",
            f"{index} is not an index of shards.",
            "Download it again.",
            f"{type(error).__name__}: {error}",
        ) from None
    for name in sorted(shards, key=str):
        if not isinstance(name, str) or Path(name).name != name:
            raise WorkbenchError(
                "corrupt-file",
                f"{index} names the shard {one_line(str(name), 80)!r}, outside of its directory.",
                "Do not use this model.",
            )
        if not (index.parent / name).is_file():
            raise WorkbenchError(
                "no-weights",
                f"{index.parent} lacks the shard {one_line(name, 80)}.",
                "Download the model again.",
            )


def _load(
    directory: Path,
    options: LoadOptions,
    pickle: bool,
    job: Job,
    make_room: Callable[[], object],
    needed_bytes: Optional[Callable[[LoadOptions], int]],
) -> LoadedModel:
    started = time.perf_counter()
    import torch
    import transformers

    config = _load_config(directory, transformers)
    auto_class = _auto_class(config, directory, transformers)
    make_room()
    arguments = _arguments(config, options, auto_class, torch, transformers)
    if needed_bytes is not None:
        free = [int(torch.cuda.mem_get_info(index)[0]) for index in range(torch.cuda.device_count())]
        placement = place(needed_bytes(options), free)
        options = replace(options, device=f"cuda:{placement.index}")
        arguments.update(_placed(placement))
    with _progress_hook(job), _single_warnings(options):
        model, report = auto_class.from_pretrained(
            str(directory),
            config=config,
            local_files_only=True,
            trust_remote_code=_is_its_own(config),
            weights_only=True,
            use_safetensors=not pickle,
            output_loading_info=True,
            **arguments,
        )
    missing = sorted(report.get("missing_keys", ()))
    if missing:
        raise WorkbenchError(
            "corrupt-file",
            f"The checkpoint in {directory} lacks {len(missing)} tensors of {type(model).__name__}, "
            f"such as {one_line(missing[0], 80)}.",
            "Download the model again; it would answer from random weights.",
            "\n".join(missing),
        )
    model.eval()
    return LoadedModel(model, options, _facts(model, directory, options, pickle, started))


def _load_config(directory: Path, transformers: Any) -> Any:
    def read(trust: bool) -> Any:
        return transformers.AutoConfig.from_pretrained(str(directory), local_files_only=True, trust_remote_code=trust)

    try:
        try:
            config = read(trust=False)
        except ValueError as error:
            if "trust_remote_code" not in str(error):
                raise
            require_consent(directory)
            config = read(trust=True)
    except WorkbenchError:
        raise
    except Exception as error:
        raise WorkbenchError(
            "bad-config",
            f"transformers {transformers.__version__} cannot read {directory / 'config.json'}: "
            f"{one_line(str(error), 160)}",
            "Check the file, or upgrade transformers if the architecture is newer than it.",
            f"{type(error).__name__}: {error}",
        ) from None
    text_config = config.get_text_config()
    for key in _LAYER_KEYS:
        layers = getattr(text_config, key, None)
        if isinstance(layers, int) and not 0 <= layers <= _MAX_LAYERS:
            raise WorkbenchError(
                "bad-config",
                f"{directory / 'config.json'} asks for {layers} layers ({key}).",
                "Correct the file, or choose another model.",
            )
    # A config may name another weights file or an attention kernel on the Hub; neither is followed.
    if getattr(config, "transformers_weights", None) is not None:
        config.transformers_weights = None
    return config


def _is_its_own(config: Any) -> bool:
    """Whether this configuration is of a class that the model brought along, which the user allowed."""
    return type(config).__module__.startswith("transformers_modules.")


def _auto_class(config: Any, directory: Path, transformers: Any) -> Any:
    """The Auto class that gives this configuration a head that writes text."""
    kind = type(config)
    if _is_its_own(config) and "AutoModelForCausalLM" in getattr(config, "auto_map", {}):
        return transformers.AutoModelForCausalLM
    names = [str(name) for name in getattr(config, "architectures", None) or ()]
    if getattr(config, "is_encoder_decoder", False):
        if kind in transformers.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING:
            return transformers.AutoModelForSeq2SeqLM
    elif kind in transformers.MODEL_FOR_CAUSAL_LM_MAPPING:
        writes = getattr(config, "is_decoder", False) or any(
            name.endswith(("ForCausalLM", "LMHeadModel")) for name in names
        )
        if writes or kind not in transformers.MODEL_FOR_MASKED_LM_MAPPING:
            return transformers.AutoModelForCausalLM
    image_text = getattr(transformers, "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING", {})
    if kind in image_text:
        return transformers.AutoModelForImageTextToText
    name = names[0] if names else config.model_type
    if kind in transformers.MODEL_FOR_MASKED_LM_MAPPING:
        raise WorkbenchError(
            "unsupported",
            f"{one_line(name, 80)} in {directory} is an encoder-only model: it cannot chat.",
            "Choose a decoder model for Chat; Tokens, Architecture and VRAM take this one.",
        )
    raise WorkbenchError(
        "unsupported",
        f"{one_line(name, 80)} in {directory} has no language-model head that transformers "
        f"{transformers.__version__} knows: it cannot chat.",
        "Choose a causal language model.",
    )


def _arguments(config: Any, options: LoadOptions, auto_class: Any, torch: Any, transformers: Any) -> dict[str, Any]:
    dtype = getattr(torch, options.dtype)
    version = tuple(int(part) for part in re.findall(r"\d+", transformers.__version__)[:2])
    arguments: dict[str, Any] = {"dtype" if version >= (4, 56) else "torch_dtype": dtype}
    if options.attention != "auto":
        arguments["attn_implementation"] = options.attention
    else:
        model_class = auto_class._model_mapping.get(type(config), None)
        if isinstance(model_class, (list, tuple)):
            model_class = model_class[0]
        sdpa = getattr(model_class, "_supports_sdpa", False)
        arguments["attn_implementation"] = "sdpa" if sdpa else "eager"
    if options.device != "cpu" or options.quant != "none":
        arguments["device_map"] = {"": options.device}
    if options.quant != "none":
        arguments["quantization_config"] = _quantization_config(options, dtype, transformers)
    return arguments


def _placed(placement: Placement) -> dict[str, Any]:
    """accelerate puts whole layers on one GPU after the other (``infer_auto_device_map``), none on CPU or disk."""
    if not placement.max_memory:
        return {"device_map": {"": f"cuda:{placement.index}"}}
    return {"device_map": "auto", "max_memory": dict(placement.max_memory)}


def _quantization_config(options: LoadOptions, dtype: Any, transformers: Any) -> Any:
    if options.quant == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=options.quant,
        bnb_4bit_use_double_quant=options.double_quant,
        bnb_4bit_compute_dtype=dtype,
    )


class _ReportingBar:
    """Stands in for transformers' tqdm bars: counts go to the job, and the job can stop the loop."""

    def __init__(self, job: Job, items: Any, total: Optional[int], unit: str) -> None:
        self._job = job
        self._items = items
        self._unit = unit
        self.n = 0
        self.total = total

    def __iter__(self) -> Iterator[Any]:
        for item in self._items:
            self._job.check()
            key = item[0] if isinstance(item, tuple) and item else item
            detail = key if isinstance(key, str) else ""
            self._job.progress("weights", self.n, self.total, self._unit, detail)
            yield item
            self.n += 1
        self._job.progress("weights", self.n, self.total, self._unit)

    def update(self, count: int = 1) -> None:
        self._job.check()
        self.n += count
        self._job.progress("weights", self.n, self.total, self._unit)

    def __enter__(self) -> _ReportingBar:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *_args, **_keywords: None


@contextlib.contextmanager
def _progress_hook(job: Job) -> Iterator[None]:
    """Route transformers' loading bar to `job`: one tick per tensor, before transformers 5 one per shard."""
    from transformers.utils import logging as transformers_logging

    def bar(_factory: Any, args: tuple[Any, ...], keywords: dict[str, Any]) -> _ReportingBar:
        items = args[0] if args else keywords.get("iterable", ())
        total = keywords.get("total")
        if total is None and hasattr(items, "__len__"):
            total = len(items)
        unit = "files" if "shard" in str(keywords.get("desc", "")) else "tensors"
        return _ReportingBar(job, items, total, unit)

    if hasattr(transformers_logging, "set_tqdm_hook"):
        previous = transformers_logging.set_tqdm_hook(bar)
        try:
            yield
        finally:
            transformers_logging.set_tqdm_hook(previous)
        return
    stock = transformers_logging.tqdm
    transformers_logging.tqdm = lambda *args, **keywords: bar(stock, args, keywords)
    try:
        yield
    finally:
        transformers_logging.tqdm = stock


class _OnceFilter(logging.Filter):
    """Lets each message through once."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[str] = set()

    def filter(self, record: logging.LogRecord) -> bool:
        message = str(record.msg)
        new = message not in self._seen
        self._seen.add(message)
        return new


@contextlib.contextmanager
def _single_warnings(options: LoadOptions) -> Iterator[None]:
    """For int8 outside float16 bitsandbytes warns once per layer and token: keep the first only."""
    logger = logging.getLogger("bitsandbytes.autograd._functions")
    if options.quant == "int8" and not any(isinstance(item, _OnceFilter) for item in logger.filters):
        logger.addFilter(_OnceFilter())
    yield


def _facts(model: Any, directory: Path, options: LoadOptions, pickle: bool, started: float) -> LoadedFacts:
    config = model.config
    quantization = getattr(config, "quantization_config", None)
    quant = options.quant
    if quantization is not None and quant == "none":
        method = getattr(quantization, "quant_method", "quantized")
        quant = str(getattr(method, "value", method))
    length = getattr(config.get_text_config(), "max_position_embeddings", None)
    return LoadedFacts(
        directory=str(directory),
        class_name=type(model).__name__,
        model_type=str(config.model_type),
        quant=quant,
        double_quant=options.double_quant,
        dtype=options.dtype,
        device=options.device,
        attention=str(getattr(config, "_attn_implementation", None) or "eager"),
        weights_bytes=sum(storage.nbytes() for storage in storages(model)),
        load_seconds=time.perf_counter() - started,
        pickle=pickle,
        supports_generation=bool(model.can_generate()),
        is_encoder_decoder=bool(getattr(config, "is_encoder_decoder", False)),
        context_length=length if isinstance(length, int) and length > 0 else None,
        devices=_devices(model),
    )


def _devices(model: Any) -> tuple[str, ...]:
    """The devices that accelerate spread a model over; empty for one."""
    places = {str(place) for place in (getattr(model, "hf_device_map", None) or {}).values()}
    names = sorted(f"cuda:{name}" if name.isdecimal() else name for name in places)
    return tuple(names) if len(names) > 1 else ()


def _explain(error: Exception, directory: Path, options: LoadOptions) -> WorkbenchError:
    """Reduce a library's exception to one sentence and a remedy; the rest goes into the details."""
    details = "".join(traceback.format_exception(type(error), error, error.__traceback__))[-8000:]
    text = str(error)
    message = one_line(text, 200)
    memory = memory_shortage(error)
    if memory is not None:
        return WorkbenchError(
            "out-of-memory",
            f"Loading {directory.name} as {_variant(options)} on {options.device} ran out of memory: {memory}",
            "Choose nf4 or a smaller model, or free memory first; the VRAM bench tells what fits.",
            details,
        )
    name = type(error).__name__
    if name == "SafetensorError" or "SafetensorError" in text:
        path = _broken_safetensors(directory)
        return WorkbenchError(
            "corrupt-file", f"{path} is not a whole safetensors file: {message}", "Download it again.", details
        )
    if "bnb_supported_devices" in text:
        return WorkbenchError(
            "unsupported",
            f"The transformers in {sys.executable} does not let bitsandbytes quantize on {options.device}.",
            f"Run: {sys.executable} -m pip install -U transformers bitsandbytes, or load it unquantized.",
            details,
        )
    if "weights_only" in text or "UnpicklingError" in name or "torch.load" in text:
        return WorkbenchError(
            "unsafe-checkpoint",
            f"The pickle checkpoint in {directory} was refused: {message}",
            "Use a safetensors version of this model, or torch >= 2.6 if the message asks for it.",
            details,
        )
    if "size mismatch" in text or "mismatched" in text.lower():
        return WorkbenchError(
            "corrupt-file",
            f"The tensors in {directory} do not have the shapes that its config.json implies: {message}",
            "Config and weights belong to different models: download both again.",
            details,
        )
    return WorkbenchError(
        "load-failed",
        f"Loading {directory} as {_variant(options)} on {options.device} failed: {name}: {message}",
        "See the details; another quantization, dtype or attention may work.",
        details,
    )


def _variant(options: LoadOptions) -> str:
    if options.quant == "none":
        return options.dtype
    return f"{options.quant}{' with double quantization' if options.double_quant else ''}"


def _broken_safetensors(directory: Path) -> Path:
    """The first safetensors file that does not open, for a message that names it."""
    from safetensors import safe_open

    for path in sorted(directory.glob("*.safetensors")):
        try:
            with safe_open(str(path), framework="pt"):
                pass
        except Exception:
            return path
    return directory
