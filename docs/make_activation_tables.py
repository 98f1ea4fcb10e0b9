"""Writes workbench/vram/activations.json: what is live at the peak, as sums of products of sizes, by family and plan.

Each plan is simulated on four layers of two made-up models of the family. The same operators run in both, so that
every storage is one tensor seen under two sets of sizes, in which each size has primes of its own: that tells which
product of sizes it is (or the sum of two). Live sets thereby become polynomials; those that are the largest nowhere
are dropped. The two middle layers stand for all further ones. Run it again when transformers, peft or bitsandbytes
change: tests compare the table with the simulation.

    python docs/make_activation_tables.py [--resume] [FAMILY ...]
"""

from __future__ import annotations

import itertools
import json
import random
import sys
import time
from collections import Counter
from fractions import Fraction
from importlib import metadata

from workbench.architecture.build import build_skeleton
from workbench.paths import write_atomic
from workbench.vram.activations import PARTS, TABLE, mode
from workbench.vram.dimensions import dimensions
from workbench.vram.plan import Lora, Plan, changed
from workbench.vram.simulate.engine import run
from workbench.vram.simulate.kernels import CUBLAS_WORKSPACE_BYTES
from workbench.vram.simulate.trace import NO_LAYER

LAYERS = 4
STATIC = ("weights", "adapters", "optimizer", "kv_cache")
MODELS = 2
RANKS = (8 * 37, 8 * 43)
TEXTS = ((29, 128 * 31), (47, 128 * 53))
# Query heads, key/value heads, width of a head; widths are multiples of 128, so that roundings leave no rest.
HEADS = ((11 * 13, 11, 32 * 7), (5 * 11, 5, 32 * 3))
WIDTHS = ((11 * 13 * 17 * 128, 19 * 128, 23 * 128), (5 * 11 * 59 * 128, 61 * 128, 67 * 128))
EXPERTS = ((71, 3), (73, 7))

ACTIVATIONS = ["", "h", "q", "k", "d", "a", "i", "v", "r", "m", "x", "e", "mx", "hx", "xe", "as", "s"]
WEIGHTS = ["hq", "hk", "hi", "hv", "hr", "qr", "kr", "ir", "vr", "q", "k", "h", "i", "v", "hh"]
EXPERT_WEIGHTS = ["hm", "ehm", "he", "ehr", "emr", "er"]
MONOMIALS = [
    *[f"bs{rest}" for rest in ACTIVATIONS],
    *["b", "s", "", "sd", "sh", "ss", "r", "d", "a", "e", "bv", "bh"],
    *WEIGHTS,
    *EXPERT_WEIGHTS,
]
MAX_DENOMINATOR = 16384


def llama_like(number: int) -> dict:
    heads, kv_heads, head = HEADS[number]
    hidden, inner, vocab = WIDTHS[number]
    return {
        **{"vocab_size": vocab, "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": LAYERS},
        **{"num_attention_heads": heads, "num_key_value_heads": kv_heads, "head_dim": head},
        **{"max_position_embeddings": 8192, "tie_word_embeddings": False},
    }


def every_head(number: int) -> dict:
    config = llama_like(number)
    return {**config, "num_key_value_heads": config["num_attention_heads"]}


def tied(number: int) -> dict:
    return {**llama_like(number), "tie_word_embeddings": True}


DERIVED_HEADS = ((11 * 13, 11, 128), (5 * 11, 5, 256))
"""For families whose head width is hidden size over heads, within what attention kernels take."""


def derived_heads(number: int) -> dict:
    config = tied(number)
    del config["head_dim"]
    heads, _, head = DERIVED_HEADS[number]
    return {**config, "hidden_size": heads * head}


def gpt2(number: int) -> dict:
    heads, _, head = DERIVED_HEADS[number]
    inner, vocab = WIDTHS[number][1:]
    return {
        **{"vocab_size": vocab, "n_embd": heads * head, "n_layer": LAYERS, "n_head": heads, "n_inner": inner},
        "n_positions": 8192,
    }


def gemma3(number: int) -> dict:
    return {**tied(number), "sliding_window": 512, "layer_types": ["sliding_attention"] * LAYERS}


def mixtral(number: int) -> dict:
    experts, chosen = EXPERTS[number]
    return {**llama_like(number), "num_local_experts": experts, "num_experts_per_tok": chosen}


def qwen3_moe(number: int) -> dict:
    experts, chosen = EXPERTS[number]
    inner = WIDTHS[number][1]
    return {
        **llama_like(number),
        **{"num_experts": experts, "num_experts_per_tok": chosen, "moe_intermediate_size": inner},
    }


FAMILIES = {
    "llama": llama_like,
    "qwen2": derived_heads,
    "qwen3": tied,
    "mistral": lambda number: {**llama_like(number), "sliding_window": None},
    "gemma3_text": gemma3,
    "gemma2": gemma3,
    "phi3": lambda number: {**derived_heads(number), "tie_word_embeddings": False, "pad_token_id": 0},
    "gpt2": gpt2,
    "mixtral": mixtral,
    "qwen3_moe": qwen3_moe,
    "olmo2": derived_heads,
    "smollm3": lambda number: {**derived_heads(number), "pad_token_id": 0},
}


def plans(family: str) -> list[Plan]:
    """What the table is made for."""
    found = []
    for attention, checkpointed in itertools.product(("sdpa", "eager"), (False, True)):
        common = {"attention": attention, "gradient_checkpointing": checkpointed}
        found.append(Plan(job="full", **common))
        found.append(Plan(job="lora", **common))
        found.append(Plan(job="qlora", quant="nf4", double_quant=True, **common))
    for checkpointed in (False, True):
        common = {"gradient_checkpointing": checkpointed}
        found.append(Plan(job="full", dtype="float32", **common))
        found.append(Plan(job="qlora", quant="nf4", double_quant=True, kbit_prepare=False, **common))
        if family in WITH_SEPARATE_PROJECTIONS:
            pair = Lora(targets=("q_proj", "v_proj"))
            found.append(Plan(job="lora", lora=pair, **common))
            found.append(Plan(job="qlora", quant="nf4", double_quant=True, lora=pair, **common))
            attention_only = Lora(targets=("q_proj", "k_proj", "v_proj", "o_proj"))
            found.append(Plan(job="lora", lora=attention_only, **common))
            found.append(Plan(job="qlora", quant="nf4", double_quant=True, lora=attention_only, **common))
            if family in WITH_OLDER_CARDS and checkpointed:
                found.append(Plan(job="lora", dtype="float16", attention="eager", lora=attention_only, **common))
                found.append(Plan(job="lora", dtype="float16", attention="eager", **common))
                for attention in ("efficient", "eager"):
                    old = {"lora": attention_only, "attention": attention, **common}
                    found.append(Plan(job="lora", **old))
                    found.append(Plan(job="qlora", quant="nf4", double_quant=True, **old))
        if family in WITH_OLDER_CARDS:
            found.append(Plan(job="qlora", quant="nf4", double_quant=True, attention="flash", **common))
            found.append(Plan(job="full", attention="efficient", **common))
            found.append(Plan(job="lora", attention="efficient", **common))
            found.append(
                Plan(job="qlora", quant="nf4", double_quant=True, kbit_prepare=False, attention="efficient", **common)
            )
            found.append(Plan(job="lora", lora=Lora(dtype="bfloat16"), **common))
    for values in ({}, {"quant": "nf4", "double_quant": True}, {"quant": "int8"}):
        found.append(Plan(new_tokens=2, **values))
    found.append(Plan(new_tokens=2, attention="eager"))
    return found


WITH_SEPARATE_PROJECTIONS = (
    "llama",
    "qwen2",
    "qwen3",
    "mistral",
    "gemma3_text",
    "gemma2",
    "olmo2",
    "smollm3",
    "mixtral",
)
WITH_OLDER_CARDS = ("llama", "qwen2", "qwen3", "mistral")


class Unresolved(Exception):
    """A storage whose size is no sum of two products of sizes."""


class Decoder:
    """From the bytes of one storage in each of the models to a polynomial."""

    def __init__(self, sizes: list) -> None:
        self.values = {m: tuple(size.product(m) for size in sizes) for m in MONOMIALS}
        self.values = {m: v for m, v in self.values.items() if all(v)}
        self.known: dict[tuple[int, ...], dict[str, Fraction]] = {(0,) * MODELS: {}}

    def __call__(self, seen_as: tuple[int, ...]) -> dict[str, Fraction]:
        if seen_as not in self.known:
            self.known[seen_as] = self._single(seen_as) or self._pair(seen_as)
        return self.known[seen_as]

    def _single(self, seen_as: tuple[int, ...]) -> dict[str, Fraction]:
        for monomial, values in self.values.items():
            ratios = {Fraction(size, value) for size, value in zip(seen_as, values)}
            if len(ratios) == 1 and nice(next(iter(ratios))):
                return {monomial: ratios.pop()}
        return {}

    def _pair(self, seen_as: tuple[int, ...]) -> dict[str, Fraction]:
        for (one, u), (other, w) in itertools.combinations(self.values.items(), 2):
            determinant = u[0] * w[1] - u[1] * w[0]
            if not determinant:
                continue
            first = Fraction(seen_as[0] * w[1] - seen_as[1] * w[0], determinant)
            second = Fraction(u[0] * seen_as[1] - u[1] * seen_as[0], determinant)
            if nice(first) and nice(second):
                return {one: first, other: second}
        raise Unresolved(seen_as)


def nice(ratio: Fraction) -> bool:
    return 0 < ratio < 65536 and MAX_DENOMINATOR % ratio.denominator == 0


class Live:
    """What is live, as coefficients by part, group of layers and monomial."""

    def __init__(self) -> None:
        self.by_group: dict[int, dict[tuple[str, str], Fraction]] = {group: {} for group in (NO_LAYER, *range(LAYERS))}

    def add(self, part: str, group: int, polynomial: dict[str, Fraction], sign: int) -> None:
        held = self.by_group[group]
        for monomial, coefficient in polynomial.items():
            key = (part, monomial)
            held[key] = held.get(key, Fraction(0)) + sign * coefficient
            if not held[key]:
                del held[key]

    def form(self, repeated: int) -> tuple:
        """Whole at four layers, and more for each further layer."""
        whole: dict[tuple[str, str], Fraction] = {}
        for held in self.by_group.values():
            for key, coefficient in held.items():
                whole[key] = whole.get(key, Fraction(0)) + coefficient
        return frozenset(whole.items()), frozenset(self.by_group[repeated].items())


MULTI_HEAD = {
    "llama": every_head,
    "phi3": lambda number: {**FAMILIES["phi3"](number), "num_key_value_heads": HEADS[number][0]},
    "gpt2": gpt2,
}
"""The same families with a key and a value for each query head."""


def forms_of(family: str, plan: Plan, make=None) -> dict[str, list[tuple]]:
    """Candidates for the peak of each phase."""
    traces, sizes = [], []
    for number in range(MODELS):
        config = {"model_type": family, **(make or FAMILIES[family])(number)}
        batch, length = TEXTS[number]
        one = changed(plan, batch=batch, sequence_length=length, lora_r=RANKS[number])
        traces.append(run(config, one, all_layers=True).trace)
        sizes.append(dimensions(build_skeleton(config), one))
    first = traces[0]
    for other in traces[1:]:
        if other.events != first.events or other.layers != first.layers or other.labels != first.labels:
            raise Unresolved("the two models do not do the same")
    decode = Decoder(sizes)
    return _collect(first, traces, decode, plan)


def _collect(first, traces, decode, plan: Plan) -> dict[str, list[tuple]]:
    wanted = ("forward", "backward") if plan.trains else ("prefill",)
    last_step = max(mark.step for mark in first.marks if mark.name in wanted)
    found: dict[str, set] = {name: set() for name in wanted}
    live = Live()
    seen = _seen(first, wanted, last_step)
    for mark, start, end in first.phase_spans():
        watched = mark.name in wanted and mark.step == last_step
        last_layer = NO_LAYER
        for index in range(start, end):
            event = first.events[index]
            number = event if event >= 0 else ~event
            label = first.labels.get(number)
            scope = first.scopes[index]
            last_layer = scope if scope != NO_LAYER else last_layer
            if label not in STATIC and number in seen and first.sizes[number] != CUBLAS_WORKSPACE_BYTES:
                polynomial = decode(tuple(trace.sizes[number] for trace in traces))
                part = part_of(label, polynomial)
                live.add(part, first.layers[number], polynomial, 1 if event >= 0 else -1)
                # The cache grows with every layer: a prefill peaks in the last one.
                if watched and event >= 0 and (plan.trains or last_layer == LAYERS - 1):
                    found[mark.name].add(live.form(2 if last_layer in (0, 1) else 1))
    return {name: pruned(several) for name, several in found.items()}


def _seen(trace, wanted: tuple[str, ...], last_step: int) -> set[int]:
    """Storages that are live at some time in the phases that matter."""
    live: set[int] = set()
    seen: set[int] = set()
    for mark, start, end in trace.phase_spans():
        watched = mark.name in wanted and mark.step == last_step
        if watched:
            seen |= live
        for event in trace.events[start:end]:
            if event < 0:
                live.discard(~event)
            else:
                live.add(event)
                if watched:
                    seen.add(event)
    return seen


def part_of(label: str | None, polynomial: dict[str, Fraction]) -> str:
    if label == "gradients":
        return "gradients"
    return "logits" if any("v" in monomial and "b" in monomial for monomial in polynomial) else "activations"


SAMPLES = 3000
TOLERANCE = 0.0005


def pruned(several: set) -> list[tuple]:
    """As few as give the largest for likely models, to within the tolerance."""
    forms = list(several)
    totals = [(_summed(whole), _summed(each)) for whole, each in forms]
    randomness = random.Random(7)
    close: list[set[int]] = []
    for _ in range(SAMPLES):
        values, layers = likely(randomness)
        products = {m: value_of(m, values) for m in MONOMIALS}
        sums = [
            sum(c * products[m] for m, c in whole.items())
            + (layers - LAYERS) * sum(c * products[m] for m, c in each.items())
            for whole, each in totals
        ]
        best = max(sums)
        close.append({number for number, value in enumerate(sums) if value >= best * (1 - TOLERANCE)})
    chosen = []
    while close:
        counts = Counter(itertools.chain.from_iterable(close))
        chosen.append(max(sorted(counts), key=counts.__getitem__))
        close = [numbers for numbers in close if chosen[-1] not in numbers]
    return [forms[number] for number in chosen]


def _summed(side: frozenset) -> dict[str, float]:
    found: dict[str, float] = {}
    for (_part, monomial), coefficient in side:
        found[monomial] = found.get(monomial, 0.0) + float(coefficient)
    return found


def likely(randomness: random.Random) -> tuple[dict[str, int], int]:
    """Sizes as models have them."""
    head = randomness.choice((64, 80, 96, 128, 256))
    kv_heads = randomness.choice((1, 2, 4, 8, 16))
    heads = kv_heads * randomness.choice((1, 2, 3, 4, 7, 8))
    hidden = round(heads * head * randomness.choice((1, 1, 1, 0.5, 0.7, 1.5)))
    values = {
        "b": randomness.choice((1, 1, 2, 4, 8, 16)),
        "s": randomness.choice((64, 256, 512, 1024, 2048, 4096, 8192, 32768)),
        "h": hidden,
        "q": heads * head,
        "k": kv_heads * head,
        "d": head,
        "a": heads,
        "i": round(hidden * randomness.uniform(1.5, 7)),
        "m": round(hidden * randomness.uniform(0.3, 3.5)),
        "v": randomness.choice((32_000, 50_000, 128_256, 151_936, 262_144)),
        "r": randomness.choice((4, 8, 16, 32, 64, 128, 256)),
        "x": randomness.choice((1, 2, 4, 8)),
        "e": randomness.choice((8, 16, 64, 128)),
    }
    return values, randomness.choice((4, 12, 16, 24, 32, 48, 80))


def value_of(monomial: str, values: dict[str, int]) -> float:
    result = 1.0
    for letter in monomial:
        result *= values[letter]
    return result


def as_json(form: tuple) -> dict:
    """By part: monomial to the coefficient once and for each layer."""
    whole, each = dict(form[0]), dict(form[1])
    found: dict[str, dict[str, list]] = {}
    for part in PARTS:
        for monomial in sorted({m for p, m in {*whole, *each} if p == part}):
            per_layer = each.get((part, monomial), Fraction(0))
            once = whole.get((part, monomial), Fraction(0)) - LAYERS * per_layer
            found.setdefault(part, {})[monomial] = [number(once), number(per_layer)]
    return found


def number(value: Fraction) -> int | float:
    return int(value) if value.denominator == 1 else float(value)


def text_of(found: dict[str, list[tuple]]) -> str:
    return in_order({phase: [as_json(form) for form in several] for phase, several in found.items()})


def in_order(form: dict[str, list[dict]]) -> str:
    """One text for equal forms."""
    return json.dumps({phase: sorted(several, key=json.dumps) for phase, several in form.items()})


def is_same(family: str, other: str, made: dict, forms: list[str]) -> bool:
    """Whether the layers of two families do the same, judged by the richest plans."""
    if other not in made:
        return False
    probes = [Plan(job="full"), Plan(job="qlora", quant="nf4", double_quant=True, gradient_checkpointing=True)]
    return all(
        made[other]["modes"].get(mode(plan)) is not None
        and forms[made[other]["modes"][mode(plan)]] == text_of(forms_of(family, plan))
        for plan in probes
    )


SAME_LAYERS = {"mistral": "llama"}


def main(families: list[str], resume: bool) -> None:
    versions = {name: metadata.version(name) for name in ("torch", "transformers", "peft", "bitsandbytes")}
    table = json.loads(TABLE.read_text()) if TABLE.exists() else {"families": {}, "forms": []}
    made = {name: table["families"].get(name) for name in FAMILIES if name in table["families"]}
    forms = [in_order(form) for form in table["forms"]]
    wanted = [family for family in families or FAMILIES if family not in SAME_LAYERS]
    for family in wanted:
        skeleton = build_skeleton({"model_type": family, **FAMILIES[family](0)})
        kept = made.get(family, {}).get("modes", {}) if resume else {}
        made[family] = {"architecture": skeleton.architecture, "modes": dict(kept)}
    for family, plan, make, multi in sorted(work(wanted), key=lambda item: is_rare(item[1])):
        key = mode(plan, multi)
        if key in made[family]["modes"]:
            continue
        began = time.monotonic()
        try:
            found = forms_of(family, plan, make)
        except Exception as error:  # one plan that cannot be made leaves the others
            print(f"{family}: {key}: {type(error).__name__}: {str(error)[:200]}", file=sys.stderr)
            continue
        text = text_of(found)
        if text not in forms:
            forms.append(text)
        made[family]["modes"][key] = forms.index(text)
        counts = {phase: len(several) for phase, several in found.items()}
        print(f"{family}: {key}: {counts}, {time.monotonic() - began:.1f} s", file=sys.stderr)
        write(versions, made, forms)
    for family, other in SAME_LAYERS.items():
        if (not families or family in families) and is_same(family, other, made, forms):
            skeleton = build_skeleton({"model_type": family, **FAMILIES[family](0)})
            made[family] = {"architecture": skeleton.architecture, "modes": made[other]["modes"]}
            write(versions, made, forms)


def work(families: list[str]) -> list[tuple]:
    """Family, plan, how its models are made, and whether every head has keys of its own."""
    found = []
    for family in families:
        kinds = [(FAMILIES[family], False)] * (family != "gpt2") + [(MULTI_HEAD.get(family), True)]
        found += [(family, plan, make, multi) for plan in plans(family) for make, multi in kinds if make is not None]
    return found


def is_rare(plan: Plan) -> bool:
    """Whether a plan can wait until the usual ones of all families are done."""
    prepared = plan.job != "qlora" or plan.kbit_prepare
    return plan.attention != "sdpa" or plan.dtype == "float32" or plan.lora != Lora() or not prepared


def write(versions: dict, families: dict, forms: list[str]) -> None:
    """Families, and each distinct set of forms once, one on a line."""
    used = sorted({number for entry in families.values() for number in entry["modes"].values()})
    places = {number: place for place, number in enumerate(used)}
    lines = ["{"]
    lines.append(f'"about": {json.dumps(ABOUT)},')
    lines.append(f'"versions": {json.dumps(versions)},')
    lines.append('"families": {')
    blocks = []
    for name, entry in sorted(families.items()):
        if not entry["modes"]:
            continue
        modes = ",\n".join(f"  {json.dumps(key)}: {places[value]}" for key, value in sorted(entry["modes"].items()))
        blocks.append(
            f'{json.dumps(name)}: {{"architecture": {json.dumps(entry["architecture"])}, "modes": {{\n{modes}}}}}'
        )
    lines.append(",\n".join(blocks))
    lines.append("},")
    lines.append('"forms": [')
    lines.append(",\n".join(forms[number] for number in used))
    lines.append("]")
    lines.append("}")
    # Whole or not at all: the program may read it meanwhile.
    write_atomic(TABLE, ("\n".join(lines) + "\n").encode(), mode=0o644)


ABOUT = (
    "Generated by docs/make_activation_tables.py. A form gives for each part monomials of sizes (letters: see "
    "workbench/vram/dimensions.py) with two coefficients, in bytes: once, and for each layer."
)

if __name__ == "__main__":
    main([name for name in sys.argv[1:] if name != "--resume"], "--resume" in sys.argv)
