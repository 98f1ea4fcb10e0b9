"""Rules about limits met while running: number formats, memory, shared memory, communication."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.parse.draft import REMARKS
from workbench.doctor.rules.common import (
    ISSUES,
    PASSED,
    Result,
    Rule,
    capabilities,
    evidence,
    from_message,
    gpu_names,
    seen,
)
from workbench.doctor.rules.hub import in_shared_memory
from workbench.doctor.rules.less_memory import less_memory, smaller_job
from workbench.doctor.versions import at_least, older
from workbench.text import format_bytes

SMALL_SHM_BYTES = 256 * 2**20


def bf16_unsupported(facts: Facts) -> Result:
    """No native bfloat16 before Ampere."""
    error = facts.error("bf16-unsupported") or _bf16_told(facts)
    known = capabilities(facts)
    if error is None and not known:
        return None
    old = [(gpu, capability) for gpu, capability in known if older(capability, "8.0")]
    if error is None and not old:
        return PASSED
    name = (error.values.get("gpu") if error else None) or (old[0][0].name if old else None)
    return [
        Finding(
            "bf16-unsupported-gpu",
            "error" if error else "info",
            f"{name or 'This GPU'} has no native bfloat16",
            "bf16 needs compute capability 8.0; below it torch emulates it slowly, and is_bf16_supported() still "
            "says True.",
            {
                **evidence(compute_capability=old[0][1] if old else (error.values.get("cc") if error else None)),
                **seen(error),
            },
            _in_float16(facts, error),
            ISSUES + "vllm-project/vllm/issues/1157",
            affects=("chat", "vram"),
            observed=error is not None,
        )
    ]


def _bf16_told(facts: Facts) -> Optional[ErrorFact]:
    """What a person says that a program said, where a paste holds no message of another fault."""
    others = {error.id for error in facts.errors if not error.id.startswith("symptom ")} - REMARKS
    return None if others else facts.error("bf16-refused-told")


_SERVED = (
    "vllm serve <model> --dtype half   # in Python: LLM(..., dtype='half'); a program that starts vLLM has a setting "
    "of that name (verl: actor_rollout_ref.rollout.dtype=float16, LLaMA-Factory: infer_dtype: float16)"
)
_TRAINED = (
    "bf16=False, fp16=True in TrainingArguments (--bf16 False --fp16 True, in YAML bf16: false, fp16: true), and "
    "tf32=False; DeepSpeed's JSON: bf16 {enabled: false}, fp16 {enabled: true}"
)
_LOADED = "torch_dtype=torch.float16 where the model is loaded, bnb_4bit_compute_dtype=torch.float16 in 4 bits"


def _in_float16(facts: Facts, error: Optional[ErrorFact]) -> tuple[str, ...]:
    """What is told the other format, that of the program at hand first."""
    text = error.text if error else ""
    served = "ompute capability of at least" in text or "_supports_dtype" in text or facts.error("served-by-vllm")
    trained = "etup doesn't support bf16" in text or "pure_bf16" in text or "AMP" in text
    first = _SERVED if served else _TRAINED if trained else _LOADED
    return (first, *(step for step in (_LOADED, _TRAINED, _SERVED) if step != first))


def capability_below_minimum(facts: Facts) -> Result:
    """An engine refuses the card."""
    return from_message(
        facts,
        ("capability-below-7", "capability-required"),
        lambda error: Finding(
            "app-needs-newer-compute-capability",
            "error",
            "This flash-attn is older than this GPU and takes it for one before Ampere"
            if _newer_than_flash_attention(facts)
            else "FlashAttention 2 needs an Ampere GPU (RTX 30, A100) or newer, and this one is older"
            if re.search(r"ampere|flash|capability \d \d is", error.text, re.I)
            else "The program needs a newer GPU than this one",
            "vLLM starts at compute capability 7.0, FlashAttention 2 at 8.0; torch itself may run on the card.",
            {
                **evidence(compute_capability=", ".join(capability for _, capability in capabilities(facts))),
                **seen(error),
            },
            (
                fixes.install(facts, "flash-attn", options="--no-build-isolation", upgrade=True)
                + "   # 2.8.3 knows Blackwell; then restart what runs: Ray's workers keep the old one",
                *_without_flash_attention(facts),
            )
            if _newer_than_flash_attention(facts)
            else _without_flash_attention(facts),
            ISSUES + "vllm-project/vllm/issues/1284",
            affects=("chat",),
            observed=True,
        ),
    )


def _newer_than_flash_attention(facts: Facts) -> bool:
    """Whether flash-attn refuses cards that are all newer than it, as 2.5 does with Blackwell."""
    known = [capability for _, capability in capabilities(facts)]
    error = facts.error("capability-required")
    flash = error is not None and "flashattention" in error.text.lower()
    return flash and bool(known) and all(at_least(item, "10.0") for item in known)


def _without_flash_attention(facts: Facts) -> tuple[str, ...]:
    """How FlashAttention is left out; a model's own code takes it wherever it is installed."""
    if facts.error("capability-below-7") is not None and facts.error("capability-required") is None:
        return ("llama.cpp (a GGUF file) or plain transformers in place of vLLM, which starts at 7.0",)
    asked = "attn_implementation='sdpa' in place of FlashAttention"
    taken = fixes.uninstall(facts, "flash-attn") + "   # a model's own code takes it wherever it is installed"
    steps = (taken, asked) if facts.error("remote-code") else (asked, taken)
    return (*steps, "llama.cpp in place of vLLM on cards below 7.0")


def allocator_fragmentation(facts: Facts) -> Result:
    """CUDA out of memory, with or without much memory reserved and unused."""

    def make(error: ErrorFact) -> Finding:
        at_start = "CUDA error: out of memory" in error.text or facts.error("context-without-memory")
        if at_start and not error.values.get("wanted_mib"):
            return _card_is_full(facts, error)
        amount = float(error.values.get("reserved") or 0) * (1 if error.values.get("unit") == "GiB" else 1 / 1024)
        fragmented = _in_pieces(error, amount) and _would_do(error, amount)
        advice = _allocator_setting(facts, error) if fragmented else ()
        shared = ": other programs use the card too" if facts.error("gpu-is-shared") else ""
        return Finding(
            "allocator-fragmentation" if fragmented else "out-of-memory",
            "error",
            f"{_whose(error)} ran out of memory"
            + (" with much of it reserved but unused" if fragmented else _at_once(error) or shared),
            "torch prints the hint about its allocator's settings every time; they help only when much is reserved and "
            "unallocated." + ("" if fragmented else " Here little is: the job is too big for the card as it is."),
            {**evidence(reserved_unallocated_gib=round(amount, 2) if amount else None), **seen(error)},
            (*advice, *less_memory(facts, error)),
            ISSUES + "pytorch/pytorch/issues/35901",
            affects=("vram", "chat"),
            observed=True,
        )

    return from_message(facts, ("oom",), make)


_MUCH_GIB, _SOME_GIB = 1.0, 0.5
_SOME_PART = 0.03


def _in_pieces(error: ErrorFact, amount: float) -> bool:
    """Whether as much lies unused, in GiB, as to tell of it: some of the card suffices where less was asked for."""
    wanted, total = (float(error.values.get(name) or 0) / 1024 for name in ("wanted_mib", "total_mib"))
    some = max(_SOME_GIB, _SOME_PART * total)
    return amount >= _MUCH_GIB or (amount >= some and 0 < 2 * wanted <= amount)


def _allocator_setting(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """What keeps torch's allocator from cutting its memory into pieces, where it is not set already."""
    # The segments that grow are for Linux alone, and came with the words of torch 2.2.
    grows = not (error.values.get("words") == "old" or facts.platform.system == "Windows" or facts.platform.wsl)
    value = "expandable_segments:True" if grows else "max_split_size_mb:512"
    if value.split(":")[0] in facts.environment.get("PYTORCH_CUDA_ALLOC_CONF", ""):
        return ()
    return (fixes.export(facts, "PYTORCH_CUDA_ALLOC_CONF", value, "" if grows else "before the program starts"),)


def _card_is_full(facts: Facts, error: ErrorFact) -> Finding:
    """Not the words of torch's allocator, which names what it asked for, but CUDA's own: its first request failed."""
    return Finding(
        "out-of-memory",
        "error",
        "CUDA finds no free memory on the GPU: most often other programs hold it already",
        "These are CUDA's own words, not those of torch's allocator, which tells how much it asked for: even the "
        "little that CUDA itself needs at its start, or outside the allocator, is not there.",
        {**evidence(gpus=gpu_names(facts)), **seen(error)},
        (
            "nvidia-smi   # who holds how much: end what is not needed (kill <pid>), or take another GPU "
            "(CUDA_VISIBLE_DEVICES=1)",
            *smaller_job(facts, error),
        ),
        "https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html",
        affects=("vram", "chat"),
        observed=True,
    )


def _would_do(error: ErrorFact, reserved_gib: float) -> bool:
    """Whether what is reserved and unused would have sufficed for what was asked, had it lain in one piece."""
    wanted, free = error.values.get("wanted_mib"), error.values.get("free_mib")
    return not wanted or reserved_gib * 1024 + float(free or 0) >= float(wanted)


_BIG_PART = 0.2
"""The part of a card from which on one request is told of: it is then what has to become smaller."""


def _at_once(error: ErrorFact) -> str:
    """How much was asked for at once, where that alone is a good part of the card."""
    wanted, total = float(error.values.get("wanted_mib") or 0), float(error.values.get("total_mib") or 0)
    if not total or wanted < _BIG_PART * total:
        return ""
    return f": {wanted / 1024:.1f} GiB were asked for at once, on a card of {total / 1024:.1f}"


def memory_grows(facts: Facts) -> Result:
    """Memory that is told to grow from step to step, with or without the error at its end."""
    told = facts.error("memory-grows")
    full = facts.error("oom")
    if told is None:
        return PASSED
    main = facts.error("killed-worker", "host-memory-exhausted")
    gpu = full is not None or (main is None and not re.search(r"(?<![Vv])\bRAM\b|内存", told.text))
    kept = "total += loss.item()   # not loss: it keeps the graph of every step; outputs to keep: .detach().cpu()"
    forward = "with torch.inference_mode(): around generate() and each forward pass that is not trained"
    answers = re.search(r"generate|inference|server|request|answer|prompt|推理|生成|推論", told.text, re.IGNORECASE)
    steps = (
        *((forward, kept) if answers else (kept, forward)),
        "Inputs of bounded length: one long request takes memory that the allocator keeps; one request at a time, "
        "max_new_tokens",
        "print(torch.cuda.memory_summary())   # 'allocated' that grows is held by the program; 'reserved' alone is "
        "cache",
    )
    if not gpu:
        steps = (
            "Datasets as Arrow or memory-mapped files, not Python lists: each worker of a DataLoader copies a list as "
            "it reads it; fewer workers (num_workers=2), persistent_workers=False",
            "dataset.map(..., keep_in_memory=False, writer_batch_size=100); no list that collects outputs",
            *steps[:2],
        )
    return [
        Finding(
            "memory-grows",
            "error" if full or main else "warning",
            ("The GPU's memory" if gpu else "Main memory")
            + " grows from step to step: the program keeps what it no longer needs",
            "A job that is too big fails at once; one that fails later holds on to something: graphs of earlier steps, "
            "outputs on the GPU, a cache, or longer and longer inputs.",
            {**seen(told), **seen(full)},
            steps,
            "https://docs.pytorch.org/docs/stable/notes/faq.html",
            affects=("vram", "chat"),
            observed=True,
        )
    ]


def _whose(error: ErrorFact) -> str:
    named = re.search(r"\b(HIP|XPU|NPU|MUSA|MLU|HPU) out of memory", error.text)
    return f"The GPU ({named[1]})" if named else "CUDA"


def shm_too_small(facts: Facts) -> Result:
    """A container's 64 MB of shared memory."""
    # A worker that just disappears inside a container mostly died of the 64 MB that it has there.
    vanished = facts.error("killed-worker") if facts.platform.container and not fixes.on_windows(facts) else None
    vanished = vanished if vanished and "DataLoader worker" in vanished.text and "exited" in vanished.text else None
    full = facts.error("no-space")
    error = facts.error("shm", "nccl-shared-memory") or (full if in_shared_memory(full) else None) or vanished
    total = facts.platform.shm_total_bytes
    small = bool(facts.platform.container and total is not None and total < SMALL_SHM_BYTES)
    if error is None and total is None:
        return None
    if error is None and not small:
        return PASSED
    return [
        Finding(
            "shm-too-small",
            "error" if error else "warning",
            f"/dev/shm has only {format_bytes(total)}" if small and total is not None else "Shared memory ran out",
            "DataLoader workers and NCCL pass tensors through /dev/shm; a container gets 64 MB of it unless told "
            "otherwise.",
            {
                **evidence(shm=format_bytes(total) if total is not None else None, container=facts.platform.container),
                **seen(error),
            },
            _more_shared_memory(facts),
            ISSUES + "pytorch/pytorch/issues/5040",
            affects=("vram",),
            observed=error is not None,
        )
    ]


def _more_shared_memory(facts: Facts) -> tuple[str, ...]:
    """How this kind of container is given more of it."""
    docker = "docker run --ipc=host …   # or --shm-size=16g; in compose: shm_size: 16gb"
    kubernetes = (
        "In the pod: volumes: [{name: dshm, emptyDir: {medium: Memory}}], and in the container volumeMounts: "
        "[{name: dshm, mountPath: /dev/shm}]   # counts against the pod's memory limit"
    )
    steps = (kubernetes, docker) if facts.platform.container == "kubernetes" else (docker, f"Kubernetes: {kubernetes}")
    return (*steps, "num_workers=0 until then")


# Limits are read at login, and handed down: to what mpirun, Slurm's and other daemons start, those of the daemon.
_MORE_TO_LOCK = (
    "echo '* - memlock unlimited' | sudo tee /etc/security/limits.d/memlock.conf   # then log out and in, and start "
    "the daemons of Slurm, ssh and MPI anew (systemd: LimitMEMLOCK=infinity), for they hand their own limit down",
    "mpirun <its options> bash -c 'ulimit -l'   # or srun, or plain: must say unlimited on every machine",
)


def _more_to_lock(facts: Facts) -> tuple[str, ...]:
    """The limit itself, and how one machine does without what needs it until an administrator has raised it."""
    slurm = (
        "PropagateResourceLimitsExcept=MEMLOCK   # in slurm.conf, as the administrator: else a job takes the limit of "
        "the login node along",
    )
    without = fixes.export(facts, "NCCL_IB_DISABLE", "1", "until then, on one machine: it needs no InfiniBand")
    return (*_MORE_TO_LOCK, *(slurm if facts.platform.service == "slurm" else ()), without)


def _in_docker(facts: Facts, bare: bool) -> str:
    step = "docker run --ulimit memlock=-1 --ipc=host …"
    shown = bare or not facts.platform.container
    return step + ("   # in a container; df -h /dev/shm shows what there is" if shown else "")


def memlock_or_nccl(facts: Facts) -> Result:
    """NCCL or RDMA fails for want of locked memory; between machines, for want of a way to the other."""
    call = facts.error("nccl")
    between = facts.error("several-machines")
    # The line with the call may be one before that with its answer.
    failed = (call, facts.error("nccl-fails"))
    unexplained = any(error and "unhandled system error" in error.text for error in failed)
    if call and between and unexplained and not facts.error("memlock"):
        return [_no_way_to_the_other(facts, call, between)]
    # The call that failed is not told: outside of containers the network is as likely.
    told = facts.error("memlock") is not None or bool(facts.platform.container)
    bare = unexplained and not told
    locked = facts.error("memlock") is not None and not facts.platform.container
    on_cluster = facts.platform.service == "slurm" or facts.error("cluster-files")
    network = (
        "export NCCL_SOCKET_IFNAME=<interface of ip -br addr>   # on one machine: lo; without InfiniBand, or where it "
        "fails: export NCCL_IB_DISABLE=1",
    )
    return from_message(
        facts,
        ("memlock", "nccl"),
        lambda error: Finding(
            "memlock-or-nccl",
            "error",
            "A call to the system failed in NCCL: most likely it finds too little shared memory, or takes a network "
            "that does not work here"
            if bare
            else "The limit on locked memory (ulimit -l) keeps NCCL or RDMA from the InfiniBand card"
            if locked
            else "NCCL cannot get the memory it wants to lock or share",
            "RDMA needs locked memory (ulimit -l), and NCCL needs /dev/shm; containers limit both.",
            {
                **evidence(
                    memlock_bytes=facts.platform.memlock_bytes,
                    shm=format_bytes(facts.platform.shm_total_bytes) if facts.platform.shm_total_bytes else None,
                ),
                **seen(error),
            },
            (
                *(network if bare and on_cluster else ()),
                *(_more_to_lock(facts) if locked else ()),
                *(() if locked and on_cluster else (_in_docker(facts, bare),)),
                *(network if bare and not on_cluster else ()),
                "NCCL_DEBUG=INFO names the call",
            ),
            ISSUES + "NVIDIA/nccl-tests/issues/206",
            observed=True,
        ),
    )


def _no_way_to_the_other(facts: Facts, call: ErrorFact, between: ErrorFact) -> Finding:
    return Finding(
        "network-interface-not-found",
        "error",
        "The processes do not find or reach each other over the network, most likely",
        "NCCL's 'system error' between machines is a connection that fails: it takes the first network interface that "
        "looks right, which may be docker's, a VPN's or one that the other machine has not.",
        {**seen(call), "machines": between.text[:200]},
        (
            "export NCCL_SOCKET_IFNAME=$(ip route get <address of another machine> | grep -oP 'dev \\K\\S+')   "
            "# on every machine: the interface that leads there; GLOO_SOCKET_IFNAME too",
            fixes.export(
                facts, "NCCL_DEBUG", "INFO", "'NET/Socket : Using' names what was taken, 'NCCL WARN' what failed"
            ),
            "In docker: --network=host --ipc=host --ulimit memlock=-1; between machines all ports have to be open",
            fixes.export(facts, "NCCL_IB_DISABLE", "1", "does it run without InfiniBand?"),
        ),
        "https://docs.nvidia.com/deeplearning/nccl/user-guide/docs/env.html",
        affects=("vram",),
        observed=True,
    )


def pynvml_deprecated(facts: Facts) -> Result:
    """A harmless warning of torch."""
    error = facts.error("pynvml")
    installed = facts.package("pynvml")
    if error is None and installed is None:
        return PASSED if facts.lacks("pynvml") else None
    return [
        Finding(
            "pynvml-deprecated",
            "info",
            "The pynvml package is deprecated; the warning is harmless",
            "nvidia-ml-py provides the module pynvml. The package pynvml only adds the warning, wherever nvidia-ml-py "
            "is too: it goes once pynvml is uninstalled.",
            {**evidence(pynvml=installed, nvidia_ml_py=facts.package("nvidia-ml-py")), **seen(error)},
            _without_pynvml(facts),
            "https://pypi.org/project/nvidia-ml-py/",
            observed=error is not None,
        )
    ]


def _without_pynvml(facts: Facts) -> tuple[str, ...]:
    """What ends the warning. pynvml 13 hooks it into every import, by _pynvml_redirector.pth (read in its wheel)."""
    return (
        fixes.uninstall(facts, "pynvml"),
        *((fixes.install(facts, "nvidia-ml-py"),) if not facts.package("nvidia-ml-py") else ()),
        fixes.export(
            facts,
            "PYTHONWARNINGS",
            "'ignore:The pynvml package is deprecated:FutureWarning'",
            "or only silence it, where another package asks for pynvml",
        ),
        f'{fixes.python_command(facts)} -c "import _pynvml_redirector as r; print(r.__file__)"   # still there? it '
        "names the copy: delete that file, and the .pth beside it",
    )


RULES: tuple[Rule, ...] = (
    capability_below_minimum,
    bf16_unsupported,
    memory_grows,
    allocator_fragmentation,
    shm_too_small,
    memlock_or_nccl,
    pynvml_deprecated,
)
