"""Rules about the numbers of GPUs: a program asks for one that is not there, and who took it away."""

from __future__ import annotations

from workbench.doctor import fixes
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import PASSED, Result, Rule, evidence, seen

_COUNT = "nvidia-smi -L   # how many there are; with CUDA_VISIBLE_DEVICES set, only those that it names count"
_MIG = (
    "{set}   # a UUID of nvidia-smi -L: one process for each instance, and in each of them the device is cuda:0",
    "sudo nvidia-smi -mig 0   # where one program is to use several GPUs: several instances are not shown to it",
)
_ONE_FOR_EACH_TASK = (
    "#SBATCH --gpus-per-node=<tasks per node>   # in place of --gpus-per-task, and without --gpu-bind and "
    "--accel-bind: these show each task one GPU, which is cuda:0 there",
    "or torch.cuda.set_device(0) in every task   # with one GPU for each, its number is always 0",
)
_RANKS = (
    "torchrun --nproc_per_node=<number of GPUs> …   # as many processes as nvidia-smi -L lists, and no more than "
    "CUDA_VISIBLE_DEVICES names; accelerate: --num_processes",
    "echo $CUDA_VISIBLE_DEVICES   # in a batch job: ask for that many GPUs",
)
_SAVED = ("torch.load(path, map_location='cuda:0')   # the file was saved from a GPU of a higher number",)
_TENSOR_PARALLEL = (
    "--tensor-parallel-size <number of GPUs>   # as many as nvidia-smi -L lists in this machine or container; more "
    "machines need Ray, or --nnodes",
)
_PLAIN = (
    "Name the device cuda:0   # they count from 0, and CUDA_VISIBLE_DEVICES numbers them anew: the only one that it "
    "shows is cuda:0, whatever nvidia-smi calls it",
)


def _steps(facts: Facts, error: ErrorFact) -> tuple[str, ...]:
    """What to set, by what the report tells of how the program is started."""
    text = error.text.lower()
    if "deserialize" in text:
        return _SAVED
    if "tensor parallel" in text:
        return _TENSOR_PARALLEL
    if facts.error("mig-told") or any(gpu.mig for gpu in facts.gpus or ()):
        return (_MIG[0].replace("{set}", fixes.export(facts, "CUDA_VISIBLE_DEVICES", "MIG-<UUID>")), _MIG[1])
    if facts.error("one-gpu-for-each-task"):
        return _ONE_FOR_EACH_TASK
    return _RANKS if facts.error("several-ranks") else _PLAIN


def no_such_device(facts: Facts) -> Result:
    """The driver was asked for a GPU of a number that the process does not see."""
    error = facts.error("invalid-device-index")
    if error is None:
        return PASSED
    steps = _steps(facts, error)
    return [
        Finding(
            "invalid-device-index",
            "error",
            "The program asks for a GPU of a number that is not there",
            "GPUs count from 0, and only those that the process is shown count: CUDA_VISIBLE_DEVICES, a batch system, "
            "a container or MIG may show fewer than the machine has.",
            {**evidence(CUDA_VISIBLE_DEVICES=facts.environment.get("CUDA_VISIBLE_DEVICES")), **seen(error)},
            (*steps, _COUNT),
            "https://docs.pytorch.org/docs/stable/notes/cuda.html",
            affects=("chat", "vram"),
            observed=True,
        )
    ]


def counted_too_early(facts: Facts) -> Result:
    """torch's list of GPUs and its number of them come apart: the variable was changed after it had counted."""
    error = facts.error("mig-parse")
    if error is None or "num_gpus" not in error.text or facts.error("mig-told"):
        return PASSED
    return [
        Finding(
            "devices-changed-after-the-count",
            "warning",
            "Likely: CUDA_VISIBLE_DEVICES was changed after torch had counted the GPUs",
            "torch counts once. A program that sets the variable in its own code, or in a library that it imports, "
            "after something has touched CUDA gets numbers that no longer fit.",
            seen(error),
            (
                "CUDA_VISIBLE_DEVICES=0 python <program>   # set it where the program is started, not in its code",
                "In the code: os.environ['CUDA_VISIBLE_DEVICES'] before the first import of torch and of what imports "
                "it; with fork: multiprocessing.set_start_method('spawn')",
            ),
            "https://github.com/pytorch/pytorch/issues/107300",
            affects=("chat", "vram"),
        )
    ]


RULES: tuple[Rule, ...] = (no_such_device, counted_too_early)
