"""Believable replies for every request of the app, fixed to the digit so that pictures stay the same."""

from __future__ import annotations

from typing import Any

from tests.stubs import scripted_architecture, scripted_vram
from workbench.session import protocol

MIB, GIB = 2**20, 2**30

STATUS = protocol.SessionStatus(
    session="default",
    pid=4242,
    executable="/home/ada/envs/train/bin/python",
    python_version="3.11.9",
    torch_state="ready",
    torch_version="2.13.0+cu126",
    lanes=(protocol.LaneStatus("model"), protocol.LaneStatus("quick"), protocol.LaneStatus("children")),
    clients=1,
)

MODEL = protocol.ModelStatus(
    name="smollm2-135m-instruct",
    directory="/home/ada/.cache/workbench/smollm2",
    architecture="LlamaForCausalLM",
    quant="nf4",
    double_quant=False,
    dtype="bfloat16",
    device="cuda:0",
    weights_bytes=110 * MIB,
    context_length=8192,
    load_seconds=2.1,
)

REPORT: dict[str, Any] = {
    "schema": 1,
    "command": "doctor",
    "verdict": "broken",
    "passed": 23,
    "unknown": 2,
    "findings": [
        {
            "id": "driver-too-old-for-wheel-cuda",
            "severity": "error",
            "title": "PyTorch cannot use this GPU: its wheel needs CUDA 13, the driver speaks CUDA 12.4",
            "why": "A wheel built for CUDA 13 runs on drivers from 580 on; minor versions do not matter, majors do. "
            "Everything here runs on the CPU instead, fifty times slower.",
            "evidence": {"torch.version.cuda": "13.0", "driver": "550.90.07", "nvidia-smi CUDA": "12.4"},
            "fix": ["pip install torch==2.13.0 --index-url https://download.pytorch.org/whl/cu126"],
            "source": "https://docs.nvidia.com/deploy/cuda-compatibility/",
            "affects": ["chat", "vram"],
        },
        {
            "id": "bitsandbytes-cpu-fallback",
            "severity": "error",
            "title": "bitsandbytes falls back to the CPU",
            "why": "It found no GPU that torch can use.",
            "evidence": {"backend": "cpu"},
            "fix": [],
            "caused_by": "driver-too-old-for-wheel-cuda",
        },
        {
            "id": "hf-cache-low-space",
            "severity": "warning",
            "title": "4.1 GiB free for the Hugging Face cache",
            "why": "A 7B model in 16 bits takes 15 GB.",
            "evidence": {"free": "4.1 GiB", "path": "/home/ada/.cache/huggingface"},
            "fix": ["export HF_HOME=/data/hf"],
            "source": "https://huggingface.co/docs/huggingface_hub/guides/manage-cache",
        },
    ],
    "facts": {
        "platform": {"system": "Linux", "os": "Ubuntu 24.04", "kernel": "6.8.0", "memory_total_bytes": 33 * GIB},
        "python": {"version": "3.11.9", "kind": "venv", "executable": "/home/ada/envs/train/bin/python"},
        "torch": {"version": "2.13.0+cu130", "cuda": "13.0", "arch_list": ["sm_80", "sm_90"], "cuda_available": False},
        "driver": {"version": "550.90.07", "cuda": "12.4", "error": None},
        "gpus": [{"name": "NVIDIA RTX 3060", "compute_capability": "8.6", "memory_bytes": 12 * GIB}],
        "packages": {"bitsandbytes": "0.50.2", "transformers": "5.23.0", "accelerate": "1.9.0"},
        "environment": {"CUDA_VISIBLE_DEVICES": None},
    },
}

HEALTHY: dict[str, Any] = {
    "schema": 1,
    "command": "doctor",
    "verdict": "healthy",
    "passed": 71,
    "unknown": 13,
    "findings": [],
    "facts": {
        "origin": "live",
        "formats": [],
        "platform": {
            "system": "Linux", "os": "Ubuntu 24.04", "kernel": "6.8.0", "machine": "x86_64", "container": "",
            "memory_total_bytes": 64 * GIB, "memlock_bytes": -1,
            "disks": [
                {"purpose": "HF cache", "path": "/home/ada/.cache/huggingface", "free_bytes": 410 * GIB},
                {"purpose": "temp", "path": "/tmp", "free_bytes": 90 * GIB},
            ],
        },
        "python": {"version": "3.12.4", "kind": "conda", "executable": "/opt/conda/envs/llm/bin/python"},
        "torch": {
            "installed": True, "version": "2.13.0+cu126", "build": "cuda", "cuda": "12.6", "cuda_available": True,
            "arch_list": ["sm_80", "sm_86", "sm_90"], "kernel_ok": True, "import_seconds": 2.61,
        },
        "driver": {"version": "550.90.07", "cuda": "12.4", "error": None},
        "gpus": [
            {
                "index": 0, "name": "NVIDIA RTX 3060", "compute_capability": "8.6", "memory_bytes": 12 * GIB,
                "temperature_celsius": 41.0, "power_watts": 12.0, "processes": [],
            }
        ],
        "packages": {"bitsandbytes": "0.50.2", "transformers": "5.23.0", "accelerate": "1.9.0", "peft": "0.18.0"},
        "absent": ["flash-attn", "xformers"],
        "environment": {"HF_TOKEN": "hf_…(masked)"},
        "probes": [
            {
                "step": "torch", "status": "passed", "seconds": 2.6, "detail": "2.13.0+cu126",
                "stderr": "line one\nline two",
            }
        ],
    },
}  # fmt: skip

ENVIRONMENTS: list[dict[str, Any]] = [
    {
        "python": "/home/ada/envs/train/bin/python", "name": "train", "kind": "venv", "python_version": "3.11.9",
        "torch": "2.13.0+cu130", "torch_build": "cuda", "cuda": "13.0", "current": True, "broken": "",
    },
    {
        "python": "/opt/conda/envs/llm/bin/python", "name": "llm", "kind": "conda", "python_version": "3.12.4",
        "torch": "2.13.0+cu126", "torch_build": "cuda", "cuda": "12.6", "current": False, "broken": "",
    },
    {
        "python": "/home/ada/lab/.venv/bin/python", "name": "lab/.venv", "kind": "uv", "python_version": "3.10.2",
        "torch": "2.9.1+cpu", "torch_build": "cpu", "cuda": None, "current": False,
        "broken": "its base interpreter /opt/python3.10 is gone",
    },
    {
        "python": "/usr/bin/python3", "name": "system", "kind": "system", "python_version": "3.12.3",
        "torch": None, "torch_build": None, "cuda": None, "current": False, "broken": "",
    },
]  # fmt: skip

DIFFERENCES: list[dict[str, Any]] = [
    {"name": "torch.cuda", "left": "13.0", "right": "12.6", "explains": ["driver-too-old-for-wheel-cuda"]},
    {"name": "torch.version", "left": "2.13.0+cu130", "right": "2.13.0+cu126", "explains": []},
    {"name": "python.version", "left": "3.11.9", "right": "3.12.4", "explains": []},
    {"name": "packages.peft", "left": "not installed", "right": "0.18.0", "explains": []},
]

SELF_TEST: list[dict[str, Any]] = [
    {
        "step": "gpu", "status": "failed", "seconds": 1.84, "memory_bytes": 410 * MIB,
        "detail": "RuntimeError: the NVIDIA driver on your system is too old",
        "explained_by": "driver-too-old-for-wheel-cuda",
    },
    {
        "step": "load-4bit", "status": "passed", "seconds": 0.93, "memory_bytes": 620 * MIB, "detail": "NF4 on the CPU",
        "explained_by": None,
    },
    {
        "step": "inference", "status": "passed", "seconds": 0.41, "memory_bytes": 655 * MIB, "detail": "8 tokens",
        "explained_by": None,
    },
    {
        "step": "lora", "status": "passed", "seconds": 0.12, "memory_bytes": 660 * MIB, "detail": "r 4, plain layer",
        "explained_by": None,
    },
    {
        "step": "train-step", "status": "passed", "seconds": 0.77, "memory_bytes": 812 * MIB, "detail": "loss 6.21",
        "explained_by": None,
    },
]  # fmt: skip

MODELS: list[dict[str, Any]] = [
    {
        "name": "smollm2-135m-instruct", "kind": "sample", "title": "SmolLM2 135M Instruct", "present": True,
        "fetchable": True, "size_bytes": 92871040, "formats": ["gguf"], "parameters": 134515008,
    },
    {
        "name": "qwen2.5-0.5b-instruct", "kind": "sample", "title": "Qwen2.5 0.5B Instruct", "present": False,
        "fetchable": True, "size_bytes": 1000000000, "formats": [], "parameters": 494032768,
    },
    {
        "name": "mistralai/Mistral-7B-Instruct-v0.3", "kind": "hub", "title": "mistralai/Mistral-7B-Instruct-v0.3",
        "present": True, "fetchable": False, "size_bytes": 14496047104, "formats": ["safetensors"],
        "parameters": 7248023552,
    },
    {
        "name": "llama-3.1-8b", "kind": "catalogue", "title": "meta-llama/Llama-3.1-8B", "present": False,
        "fetchable": True, "size_bytes": None, "formats": [], "parameters": 8030261248,
    },
]  # fmt: skip

CONVERSATION: dict[str, Any] = {
    "id": "c1",
    "title": "Capital of France",
    "messages": [
        {"role": "user", "text": "What is the capital of France?"},
        {
            "role": "assistant",
            "text": "The capital of France is **Paris**.",
            "settings": {"model": "smollm2-135m-instruct", "quant": "nf4", "dtype": "bfloat16"},
            "result": {
                "prompt_tokens": 38, "new_tokens": 8, "reused_tokens": 0, "time_to_first_token_seconds": 0.21,
                "tokens_per_second": 41.0, "finish_reason": "stop", "memory": {"kv_cache_bytes": 17 * MIB},
            },
        },
    ],
}  # fmt: skip


def count_reply(request: protocol.CountTokens) -> list[protocol.Message]:
    """Counts as a tokenizer would that makes a token of every word with the space before it."""
    import re

    results = []
    for model in request.models:
        for item in request.texts:
            text = item["text"]
            pieces, position = [], 0
            for number, match in enumerate(re.findall(r"\s?\S+|\s+", text)):
                pieces.append(
                    {"id": number, "text": match, "start": position, "end": position + len(match), "special": False}
                )
                position += len(match)
            results.append(
                {
                    "model": model, "text": item["name"], "tokens": len(pieces), "vocab_size": 49152,
                    "bytes_per_token": len(text.encode()) / max(1, len(pieces)),
                    "tokens_per_word": len(pieces) / max(1, len(text.split())), "pieces": pieces,
                }
            )  # fmt: skip
    texts = [
        {
            "name": t["name"],
            "bytes": len(t["text"].encode()),
            "characters": len(t["text"]),
            "words": len(t["text"].split()),
        }
        for t in request.texts
    ]
    return [protocol.TokensCounted({"texts": texts, "results": results})]


def recount_reply(request: protocol.RecountTokens) -> list[protocol.Message]:
    """The same counts, the second model's half as many again, and the tokens of the stretch asked for."""
    asked = protocol.CountTokens([{"name": "", "text": request.text}], request.models[:1])
    counted = count_reply(asked)[0]
    assert isinstance(counted, protocol.TokensCounted)
    first = counted.result["results"][0]
    pieces = [
        piece | {"spelling": piece["text"].replace(" ", "Ġ"), "bytes": len(piece["text"].encode()), "whole": True}
        for piece in first.pop("pieces")
    ]
    results = []
    for number, model in enumerate(request.models):
        tokens = first["tokens"] + first["tokens"] * number // 2
        ratios = {"characters_per_token": len(request.text) / max(1, tokens), "context_length": 8192 * (number + 1)}
        results.append(first | ratios | {"model": model, "tokens": tokens})
    shown = [piece for piece in pieces if piece["start"] < request.end and piece["end"] > request.start]
    return [protocol.TokensRecounted(counted.result["texts"][0], results, shown)]


def dataset_result(model: str, rows: int, partial: bool = False) -> dict[str, Any]:
    """A data set of `rows` conversations, the longest of 5,210 tokens."""
    shape = (2, 9, 22, 31, 24, 17, 12, 9, 6, 5, 4, 3, 2, 2, 1, 1, 1, 0, 1, 0, 0, 1)
    bins = [{"low": 100 * i, "high": 100 * i + 99, "rows": rows * share // 153} for i, share in enumerate(shape)]
    bins[-1]["high"] = 5210
    lengths = [
        {
            "length": length, "truncated_rows": 1, "truncated_share": cut, "lost_tokens": 9, "lost_share": cut / 2,
            "padding_share": 1 - 400 / length if length > 400 else 0.2, "batch_padding_share": 0.31,
            "packed_sequences": 90, "packing_efficiency": 0.992, "concatenated_sequences": 80,
            "tokens_per_epoch": int(rows * 430 * (1 - cut / 2)),
        }
        for length, cut in ((512, 0.271), (1024, 0.062), (2048, 0.007), (4096, 0.001), (8192, 0.0))
    ]  # fmt: skip
    longest = [
        {"row": 77 * i + 5, "file": "train.jsonl", "tokens": 5210 - 400 * i, "preview": "Dear all, " * 9}
        for i in range(3)
    ]
    figures = {
        "rows": rows, "total": rows * 430, "mean": 430.2, "p50": 371, "p90": 803, "p95": 1182, "p99": 1911, "max": 5210,
        "histogram": bins, "lengths": [] if partial else lengths, "longest": longest, "model": model,
        "engine": "tokenizers", "vocab_size": 49152, "context_length": 8192, "refused_rows": 0, "error": "",
    }  # fmt: skip
    return {
        "path": "train.jsonl", "format": "jsonl", "field": "messages", "files": 1, "rows": rows,
        "bytes_done": rows * 1800, "bytes_total": 18_000_000, "partial": partial, "seconds": 3.2, "bad_rows": 2,
        "missing_rows": 0, "examples": [{"file": "train.jsonl", "row": 812, "reason": "not JSON"}], "notes": [],
        "models": [figures],
    }  # fmt: skip


def measure_reply(request: protocol.MeasureDataset) -> list[protocol.Message]:
    """A data set that is known by halves, then whole."""
    return [
        protocol.JobProgressed("count", 9_000_000, 18_000_000, "bytes", "5,000 rows"),
        protocol.DatasetUpdated(dataset_result(request.models[0], 5_000, partial=True)),
        protocol.DatasetMeasured(dataset_result(request.models[0], 10_000)),
    ]


def explain_reply(request: protocol.ExplainSplit) -> list[protocol.Message]:
    """A word of three merges."""
    merges = [
        {"rank": 3, "left": "t", "right": "h", "tokens": [" ", "th", "e"]},
        {"rank": 5, "left": "th", "right": "e", "tokens": [" ", "the"]},
        {"rank": 9, "left": " ", "right": "the", "tokens": [" the"]},
    ]
    word = {
        "word": request.text, "start": [" ", "t", "h", "e"], "merges": merges, "segmentations": [], "steps": [],
        "tokens": [" the"], "ids": [262], "agrees": True, "note": "",
    }  # fmt: skip
    return [protocol.SplitExplained({"kind": "BPE", "normalized": request.text, "words": [word]})]


def vocabulary_reply(request: protocol.SearchVocabulary) -> list[protocol.Message]:
    """One token, or two scripts."""
    if request.kind == "script" and not request.query:
        return [protocol.VocabularySearched([], 49152, {"LATIN": 40000, "CYRILLIC": 900})]
    token = {"id": 262, "spelling": "Ġthe", "text": " the", "bytes": 4, "special": False, "whole": True, "rank": 0.005}
    return [protocol.VocabularySearched([token], 49152)]


def languages_reply(request: protocol.CompareLanguages) -> list[protocol.Message]:
    """English and Burmese."""
    samples = [
        {"name": "en", "title": "English", "kind": "language", "script": "Latin", "text": "Hello"},
        {"name": "my", "title": "Burmese", "kind": "language", "script": "Myanmar", "text": "Hello"},
    ]
    cells = [
        {"sample": name, "tokens": 9, "bytes_per_token": 3.0, "characters_per_token": 3.0, "premium": premium}
        for name, premium in (("en", 1.0), ("my", 8.25))
    ]
    rows = [
        {"model": model, "cells": cells, "mean_premium": 8.25, "worst": "my", "worst_premium": 8.25}
        for model in request.models
    ]
    return [protocol.LanguagesCompared({"samples": samples, "rows": rows}, [])]


def splits_reply(request: protocol.CompareSplits) -> list[protocol.Message]:
    """The first by words, the second the same but for its last word."""
    recounted = recount_reply(protocol.RecountTokens(request.text, [request.first], end=10**6))[0]
    assert isinstance(recounted, protocol.TokensRecounted)
    first = [piece | {"same": True} for piece in recounted.pieces]
    last = first[-1] | {"same": False}
    middle = last["start"] + 2
    second = [*first[:-1], last | {"end": middle, "text": last["text"][:2]}]
    second.append(last | {"start": middle, "text": last["text"][2:]})
    comparison = {"first_tokens": len(first), "second_tokens": len(second), "same_share": 0.75}
    comparison |= {"only_first": [], "only_second": [middle], "characters": min(len(request.text), 20_000)}
    return [protocol.SplitsCompared(comparison, [*first[:-1], last], second)]


def prompt_reply(request: protocol.CheckPrompt) -> list[protocol.Message]:
    """A prompt in ChatML with one finding."""
    rendered = "".join(f"<|im_start|>{m['role']}\n{m['content']}<|im_end|>\n" for m in request.messages)
    piece = {"id": 1, "spelling": "<|im_start|>", "text": "<|im_start|>", "start": 0, "end": 12, "bytes": 12}
    pieces = [piece | {"special": True, "whole": True}]
    finding = {
        "id": "x",
        "severity": "warning",
        "title": "The prompt does not open the assistant's turn.",
        "fix": "Do.",
    }
    report = {
        "tokens": 31, "content_tokens": 14, "template_tokens": 17, "template_share": 0.55, "special_tokens": 5,
        "messages": [], "findings": [] if request.generation_prompt else [finding],
    }  # fmt: skip
    return [protocol.PromptChecked(rendered, pieces, report, "{% for message in messages %}", "chat_template.jinja")]


PRICES = protocol.PricesListed(
    [{"name": "H100 SXM 80GB", "low": 1.99, "high": 5.0, "date": "2026-05", "source": "public comparison pages"}],
    [],
    "/home/me/.config/workbench/prices.toml",
)
SCRIPTS: dict[type[protocol.Request], Any] = {
    protocol.Diagnose: lambda request: [
        protocol.DiagnosisUpdated(REPORT | {"findings": [], "verdict": ""}),
        protocol.Diagnosed(REPORT),
    ],
    protocol.DiagnoseText: lambda request: [protocol.Diagnosed(REPORT)],
    protocol.ListEnvironments: lambda request: [
        protocol.JobProgressed("environments", 12, None, "files"),
        protocol.EnvironmentsListed(ENVIRONMENTS),
    ],
    protocol.CompareReports: lambda request: [protocol.ReportsCompared(DIFFERENCES)],
    protocol.RunSelfTest: lambda request: [
        *(protocol.SelfTestStepped(step) for step in SELF_TEST),
        protocol.SelfTested(SELF_TEST),
    ],
    protocol.ResolveModel: lambda request: [protocol.ModelResolved({"name": request.model, "kind": "hub"})],
    protocol.ListModels: lambda request: [protocol.ModelsListed(MODELS)],
    protocol.CountTokens: count_reply,
    protocol.ExplainSplit: explain_reply,
    protocol.SearchVocabulary: vocabulary_reply,
    protocol.CompareLanguages: languages_reply,
    protocol.CompareSplits: splits_reply,
    protocol.CheckPrompt: prompt_reply,
    protocol.ListPrices: lambda request: [PRICES],
    protocol.CompareAutoTokenizer: lambda request: [protocol.AutoTokenizerCompared(False, "", {})],
    protocol.MeasureDataset: measure_reply,
    protocol.RecountTokens: recount_reply,
    **scripted_architecture.scripts(MODEL),
    **scripted_vram.SCRIPTS,
    protocol.LoadModel: lambda request: [
        protocol.JobProgressed("weights", 120, 273, "tensors"),
        protocol.ModelLoaded(MODEL),
    ],
    protocol.UnloadModel: lambda request: [protocol.ModelUnloaded("smollm2-135m-instruct", 110 * MIB)],
    protocol.ListConversations: lambda request: [protocol.ConversationsListed([])],
    protocol.RenameConversation: lambda request: [protocol.ConversationRead(CONVERSATION | {"title": request.title})],
    protocol.DeleteConversation: lambda request: [protocol.ConversationDeleted(request.conversation_id)],
    protocol.FollowConversation: lambda request: [
        protocol.ConversationOpened(CONVERSATION),
        protocol.TokensGenerated(" It lies on the Seine.", 14, "c1"),
        protocol.Followed(CONVERSATION),
    ],
    protocol.ReadLog: lambda request: [protocol.LogRead("/run/user/1000/workbench/default.log", ("worker started",))],
    protocol.Shutdown: lambda request: [protocol.ShutdownNoted(True)],
    protocol.Warm: lambda request: [protocol.Warmed("ready", STATUS.torch_version)],
}
