"""An argument, method or name that the other side of a call does not know. Needs the tables."""

from __future__ import annotations

import re
from typing import Optional

from workbench.doctor import fixes
from workbench.doctor.changes import Change, Verdict, by_time, change_of_call, change_of_missing, judge
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import evidence, seen
from workbench.doctor.rules.unknown.apart import apart, half_upgraded, in_words, undecided
from workbench.doctor.rules.unknown.packages import FAMILY, PIP_CHECK, RESTART, callers_of

_CALL = re.compile(
    r"(?P<call>[\w.<>]{1,120})\(\) got (?:an unexpected keyword argument|multiple values for argument) "
    r"'(?P<argument>\w{1,80})'"
    r"|(?P<positional>[\w.<>]{1,120})\(\) (?:takes|missing) [\w ]{1,60}positional argument"
    r"(?:s?: '(?P<missing>\w{1,80})')?"
    r"|(?:type object |')(?P<object>[A-Za-z]\w{1,60})'? (?:object )?has no attribute '(?P<member>\w{1,80})'"
    r"|name '(?P<undefined>\w{1,80})' is not defined"
)

# Classes and functions by the package that they are of; the first pattern that fits counts.
_OWNERS = (
    (re.compile(r"_?[Uu]nsloth\w+"), "unsloth"),
    (
        re.compile(r"(?:SFT|DPO|PPO|GRPO|KTO|ORPO|CPO|Reward|RLOO|BCO|XPO|NashMD|OnlineDPO|GKD)(?:Trainer|Config)"),
        "trl",
    ),
    (re.compile(r"(?:Async)?EngineArgs|SamplingParams|LLMEngine|AsyncLLM\w*"), "vllm"),
    (re.compile(r"PeftAdapterMixin"), "transformers"),  # transformers' own way to adapters
    (re.compile(r"Lora(?:Config|Layer|Model|Linear)\w*|Peft(?:Model|Config|Mixed|Type)\w*|IA3\w*"), "peft"),
    (re.compile(r"Accelerator\w*|GradientAccumulationPlugin|DataLoaderConfiguration|PartialState"), "accelerate"),
    (re.compile(r"(?:Seq2Seq)?Trainer|(?:Seq2Seq)?TrainingArguments|is_\w+_available"), "transformers"),
    (re.compile(r"\w+(?:For[A-Z][A-Za-z]{5,40}|LMHeadModel|TokenizerFast)"), "transformers"),
    (re.compile(r"\w+(?:DiffusionPipeline|DiffusionXLPipeline)|UNet2DConditionModel|AutoencoderKL"), "diffusers"),
)

# What the classes of transformers inherit: a table tells of the class that has it.
_BASES = (
    (
        re.compile(r"\w+Tokenizer(?:Fast)?"),
        ("PreTrainedTokenizerBase", "PreTrainedTokenizer", "PreTrainedTokenizerFast"),
    ),
    (re.compile(r"\w+Processor"), ("ProcessorMixin",)),
    (re.compile(r"\w+Cache"), ("Cache",)),
    (re.compile(r"\w+Config"), ("PretrainedConfig",)),
    (re.compile(r"\w+(?:For[A-Z]\w+|Model|LMHeadModel)"), ("PreTrainedModel", "GenerationMixin")),
)

# Who calls a package, where no traceback tells: transformers' Trainer is built on accelerate.
_USUAL_CALLER = {"accelerate": "transformers"}


def call_refused(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    """An argument, method or name that the other side of a call does not know."""
    found = _CALL.search(error.text)
    if found is None:
        return None
    callers = callers_of(error)
    call = found["call"] or found["positional"] or found["object"] or found["undefined"]
    argument, what = found["argument"] or "", found["argument"] or found["member"] or found["undefined"] or call
    whole = call if found["call"] else ".".join(filter(None, (call, found["member"])))
    owner = _owner(call)
    missing = _missing(facts, error, call, found["missing"], callers) if found["missing"] else None
    if missing is not None:
        return missing
    change = None if found["undefined"] else change_of_call(facts, whole, argument, (*callers, owner))
    if change is None and found["member"]:
        change = _inherited(facts, call, what)
    if change is None and owner == "trl" and found["member"] and call.endswith("Trainer"):
        change = change_of_call(
            facts, f"Trainer.{what}", "", ("transformers",)
        )  # they are all Trainers of transformers
    caller = callers[0] if callers else _USUAL_CALLER.get(change.package, "") if change else ""
    if change is not None:
        beside = next((name for name in callers if name not in ("", change.package)), "")
        verdict = judge(facts, caller if caller != change.package else beside, change.package, change)
        return apart(facts, error, verdict, in_words(verdict, what)) if verdict else None
    trainer = next((name for name in callers if name in FAMILY), "")
    if owner == "vllm" and argument and trainer:
        return apart(facts, error, Verdict(owner, trainer), f"it does not know {argument}, which {trainer} gives it")
    return _call_across(facts, error, call, what, callers)


def _inherited(facts: Facts, call: str, member: str) -> Optional[Change]:
    """What the table says of a method that a class of transformers has from one of its bases."""
    bases = next((bases for pattern, bases in _BASES if pattern.fullmatch(call)), ())
    found = (change_of_call(facts, f"{base}.{member}", "", ("transformers",)) for base in bases)
    return next((change for change in found if change is not None and change.package == "transformers"), None)


def _missing(facts: Facts, error: ErrorFact, call: str, argument: str, callers: tuple[str, ...]) -> Optional[Finding]:
    """An argument that the callee wants and the caller knows no more, or not yet."""
    change = change_of_missing(facts, call, argument, (*callers, _owner(call)))
    if change is None:
        return None
    caller = next((name for name in callers if name not in ("", change.package)), "")
    verdict = judge(facts, caller, change.package, change)
    release = f"{change.package} {change.version}"
    words = f"{change.name} must be given {'only up to' if change.added else 'since'} {release}"
    return apart(facts, error, verdict, words) if verdict else None


def _owner(call: str) -> str:
    """The package that a class or function is of, by its name; ``""`` when that is not known."""
    return next((name for pattern, name in _OWNERS if pattern.fullmatch(call.split(".")[0])), "")


def _call_across(facts: Facts, error: ErrorFact, call: str, what: str, callers: tuple[str, ...]) -> Optional[Finding]:
    """A call between two packages of which only their releases' times can tell which is too old."""
    owner = _owner(call)
    if not callers and owner == "transformers":
        if call.startswith("is_"):  # only its own files ask it what is available
            return half_upgraded(facts, error, owner, what)
        return undecided(facts, error, "", owner, what)
    packages = [name for name in dict.fromkeys((*callers[:3], owner)) if name]
    family = [name for name in packages if name in FAMILY]
    together = [family[0], "unsloth_zoo" if "unsloth" in family[0] else "transformers"] if family else []
    # Of nothing at all no version tells anything: a file or an answer was not there.
    if not family or call == "NoneType" or (callers and not callers[0] and not owner):
        return None
    others = [name for name in ("transformers", *packages) if name != family[0]]
    verdict = next(filter(None, (by_time(facts, family[0], other) for other in others)), None)
    if verdict is not None:
        return apart(facts, error, verdict, f"{what} is not what the other side of the call knows")
    return Finding(
        "package-versions-do-not-fit",
        "error",
        f"{family[0]} and a package beside it do not agree on {what}",
        "It was written for another version of a package that it calls, most often transformers.",
        {**evidence(**{family[0].replace("-", "_"): facts.package(family[0])}), **seen(error)},
        (
            fixes.install(facts, *together, upgrade=True),
            "If that does not mend it, take the release of transformers that it names in its requirements: "
            f"{fixes.python_command(facts)} -c \"import importlib.metadata as m; print(m.requires('{family[0]}'))\"",
            RESTART,
        ),
        PIP_CHECK,
        affects=("chat",),
        observed=True,
    )
