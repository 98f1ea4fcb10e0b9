"""Rules about a GPU's memory that somebody else holds, and about memory that is refused although it is free."""

from __future__ import annotations

from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts, GpuFacts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.symptoms import message_of_symptom
from workbench.doctor.rules.common import ISSUES, PASSED, Result, Rule, evidence, seen
from workbench.text import format_bytes

_MIB = 2**20
# A process has some hundred MiB beside what torch counts (CUDA's context and libraries); a desktop takes up to 1 GiB.
_LEAST_FOREIGN_MIB = 1536
_LEAST_FOREIGN_PART = 0.15
_COMPLAINTS = tuple(map(message_of_symptom, ("gpu-memory-held-by-other-process", "others-use-the-memory")))


def gpu_memory_held(facts: Facts) -> Result:
    """Other processes hold most of a GPU's memory, or so much of it that this one has no room."""
    told = _told_by_torch(facts.error("oom"))
    known = [gpu for gpu in facts.gpus or () if gpu.memory_bytes and gpu.memory_used_bytes is not None]
    held = [gpu for gpu in known if (gpu.memory_used_bytes or 0) > 0.5 * (gpu.memory_bytes or 1)]
    if told is not None:
        return [_told_finding(facts, told)]
    complained_of = facts.error(*_COMPLAINTS)
    if complained_of is not None and facts.error("oom") and not held:
        return [_complained_of(facts, complained_of)]
    if not known:
        return None
    return [_told_by_the_driver(facts, held[0])] if held else PASSED


def _told_by_torch(error: Optional[ErrorFact]) -> Optional[tuple[ErrorFact, int, int]]:
    """What the numbers of torch's own message leave for others, and the whole, in MiB; None where that is little."""
    values = error.values if error is not None else {}
    if error is None or not {"total_mib", "free_mib", "mine_mib"} <= set(values):
        return None
    total = int(values["total_mib"])
    foreign = total - int(values["free_mib"]) - int(values["mine_mib"])
    return (error, foreign, total) if foreign > max(_LEAST_FOREIGN_MIB, _LEAST_FOREIGN_PART * total) else None


def _told_finding(facts: Facts, told: tuple[ErrorFact, int, int]) -> Finding:
    """Torch's message counts its own part; what is missing to the whole belongs to somebody else."""
    error, foreign, total = told
    ranks = _ranks_of_one_run(error)
    return Finding(
        "gpu-memory-held-by-other-process",
        "error",
        f"{format_bytes(foreign * _MIB)} of the GPU's {format_bytes(total * _MIB)} are held by "
        + ("other processes, most likely the other ranks of this run: all on one GPU" if ranks else "another process"),
        "The message counts what this process has and what is free; the rest of the card belongs to others: an earlier "
        "run that did not end, another notebook or server, another user, or workers of this run on the same GPU.",
        {
            **evidence(
                total=format_bytes(total * _MIB),
                this_process=format_bytes(int(error.values["mine_mib"]) * _MIB),
                free=format_bytes(int(error.values["free_mib"]) * _MIB),
                other_processes=error.values.get("others"),
            ),
            **seen(error),
        },
        _RANK_BY_RANK if ranks else _who_holds_it(facts),
        ISSUES + "pytorch/pytorch/issues/35901",
        affects=("chat", "vram"),
        observed=True,
    )


_RANK_BY_RANK = (
    "torch.cuda.set_device(int(os.environ['LOCAL_RANK']))   # in the program, before anything goes to a GPU; "
    "accelerator.device in place of 'cuda' and 'cuda:0'",
    "from_pretrained(..., device_map={'': int(os.environ['LOCAL_RANK'])}), torch.load(..., map_location='cpu')   # "
    "else each rank loads to the first GPU",
    "nvidia-smi   # are these processes the run's own? What an earlier run left: kill <pid>",
)
_LEAST_RANKS = 3


def _ranks_of_one_run(error: ErrorFact) -> bool:
    """Whether the other processes were started together: their numbers are neighbours."""
    numbers = [int(number) for number in error.values.get("others", "").split(",") if number]
    return len(numbers) >= _LEAST_RANKS and numbers[-1] - numbers[0] < 4 * len(numbers)


def _complained_of(facts: Facts, error: ErrorFact) -> Finding:
    return Finding(
        "gpu-memory-held-by-other-process",
        "error",
        "Another process holds the GPU's memory",
        "What is held by others is not there for a model: an earlier run that did not end, a server that keeps its "
        "model, another user, the desktop.",
        seen(error),
        _who_holds_it(facts),
        ISSUES + "vllm-project/vllm/issues/34296",
        affects=("chat", "vram"),
        observed=True,
    )


def _told_by_the_driver(facts: Facts, gpu: GpuFacts) -> Finding:
    out_of_memory = facts.error("oom")
    complained_of = facts.error(*_COMPLAINTS)
    return Finding(
        "gpu-memory-held-by-other-process",
        "error" if out_of_memory else "warning" if complained_of else "info",
        f"{format_bytes(gpu.memory_used_bytes or 0)} of GPU {gpu.index or 0} are in use"
        + (" by a process that nvidia-smi does not list" if gpu.processes == () else " by other processes"),
        "What is held by others is not there for a model. A process in another container, of another user or a "
        "dead one does not show in the list.",
        {
            **evidence(
                memory_used=format_bytes(gpu.memory_used_bytes or 0),
                memory_total=format_bytes(gpu.memory_bytes or 0),
                processes="; ".join(f"{p.pid} {p.name}" for p in (gpu.processes or ())[:8]),
            ),
            **seen(out_of_memory or complained_of),
        },
        _who_holds_it(facts),
        ISSUES + "vllm-project/vllm/issues/34296",
        affects=("chat", "vram"),
        observed=True,
    )


def _who_holds_it(facts: Facts) -> tuple[str, ...]:
    if fixes.on_windows(facts):
        return (
            "nvidia-smi   # the processes on the card: end python.exe of an earlier run, other servers, games, "
            "browsers",
            "Stop-Process -Id <pid>",
        )
    inside = facts.platform.container or facts.platform.service in ("colab", "kaggle")
    return (
        *(
            ("Restart the container, or the notebook's kernel: what an earlier run left goes with it.",)
            if inside
            else ()
        ),
        "sudo fuser -v /dev/nvidia*   # who holds it, other containers and workers of a dead run included",
        "kill -9 <pid>   # of what should not run any more",
    )


def memory_refused_though_free(facts: Facts) -> Result:
    """CUDA says that memory has run out where its own numbers show much more free than was asked for."""
    error = facts.error("oom")
    values = error.values if error is not None else {}
    if error is None or not {"free_mib", "wanted_mib", "mine_mib"} <= set(values):
        return PASSED
    free, wanted = int(values["free_mib"]), int(values["wanted_mib"])
    if free < 2 * wanted + _LEAST_FOREIGN_MIB:
        return PASSED
    windows = fixes.on_windows(facts)
    return [
        Finding(
            "gpu-memory-refused-though-free",
            "error",
            "CUDA refuses memory though much of the GPU's is free"
            + (": Windows' page file is too small for it" if windows else ": a limit on the process, most likely"),
            "Windows sets main memory and page file aside for what a process takes on the GPU."
            if windows
            else "A limit of virtual memory (ulimit -v, a batch system, WSL's memory) stops the process, not the card; "
            "or another process came and went in between.",
            {
                **evidence(free=format_bytes(free * _MIB), asked_for=format_bytes(wanted * _MIB)),
                **seen(error),
            },
            (
                "Raise the page file: System, Advanced, Performance, Advanced, Virtual memory: system managed, on a "
                "disk with room; then restart.",
                "nvidia-smi   # while it loads: does another process fill the card for a moment?",
            )
            if windows
            else (
                "ulimit -v unlimited; ulimit -a   # in the very shell or job script",
                "nvidia-smi -l 1   # while it loads: does another process fill the card for a moment?",
                "In WSL: memory= in %UserProfile%\\.wslconfig, then wsl --shutdown",
            ),
            ISSUES + "pytorch/pytorch/issues/16417",
            affects=("chat", "vram"),
            observed=True,
        )
    ]


def memory_in_validation(facts: Facts) -> Result:
    """Training fits; what is run after it to measure does not."""
    told = facts.error("memory-in-validation")
    full = facts.error("oom")
    if told is None or full is None:
        return PASSED
    packages = {name.lower() for name in facts.packages or ()}
    text = told.text.lower()
    trainer = (
        "per_device_eval_batch_size=1, eval_accumulation_steps=1, prediction_loss_only=True in TrainingArguments   # "
        "the Trainer keeps all logits, tokens x vocabulary, on the GPU until the end of the evaluation"
    )
    own = (
        "with torch.no_grad(): around the whole validation   # model.eval() alone still keeps every graph; results to "
        "keep: .detach().cpu(), loss.item()"
    )
    yolo = "model.train(batch=<half of it>)   # YOLO validates with batches of twice the size of those it trains with"
    if "yolo" in text or "ultralytics" in packages:
        steps = (yolo, own)
    else:
        steps = (trainer, own) if {"transformers", "trl", "unsloth"} & packages else (own, trainer)
    return [
        Finding(
            "validation-needs-more-memory",
            "error",
            "GPU memory runs out in the validation, which takes more of it than training",
            "It runs without gradients only where it is told so, often with bigger batches, and its results are kept "
            "until the end.",
            {**seen(told), **seen(full)},
            (*steps, "torch.cuda.empty_cache() before it, and a smaller batch for validation alone"),
            "https://docs.pytorch.org/docs/stable/notes/faq.html",
            affects=("vram",),
            observed=True,
        )
    ]


def memory_at_saving(facts: Facts) -> Result:
    """Several GPUs hold a part of the model each; to save it whole, one of them gathers it."""
    told = facts.error("memory-at-saving")
    full = facts.error("oom")
    if told is None or full is None:
        return PASSED
    fsdp = (
        "fsdp_state_dict_type: SHARDED_STATE_DICT in accelerate's file   # each rank saves its part; accelerate "
        "merge-weights makes one model of them afterwards",
        "or gather it in main memory: FSDP.state_dict_type(model, StateDictType.FULL_STATE_DICT, "
        "FullStateDictConfig(offload_to_cpu=True, rank0_only=True))",
    )
    zero = (
        '"stage3_gather_16bit_weights_on_model_save": false in DeepSpeed\'s config   # then python zero_to_fp32.py . '
        "<folder> in the checkpoint's folder, on the CPU",
        'or "overlap_comm": false and a smaller stage3_max_live_parameters, which leave room for it',
    )
    of_deepspeed = "zero" in told.text.lower() or facts.error("offload-to-memory") or "deepspeed" in facts.packages
    return [
        Finding(
            "saving-needs-more-memory",
            "error",
            "GPU memory runs out as the model is saved: the parts of all GPUs are gathered on one",
            "While it trains each GPU holds a part. A whole state dict, in float32 even, has no room beside it.",
            {**seen(told), **seen(full)},
            zero if of_deepspeed else fsdp,
            "https://huggingface.co/docs/accelerate/usage_guides/fsdp",
            affects=("vram",),
            observed=True,
        )
    ]


RULES: tuple[Rule, ...] = (gpu_memory_held, memory_refused_though_free, memory_in_validation, memory_at_saving)
