"""Which GPU people name in their own words, and programs when they start. Needs the tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Optional

from workbench.doctor.parse.draft import Draft
from workbench.doctor.parse.fields import gpu_vendor, name_gpu
from workbench.doctor.tables import gpu_capability

# InvokeAI, SD.Next and kohya_ss, ComfyUI, each as it names the device that it runs on.
_DEVICES = (
    re.compile(
        r"Torch detected GPU: (?P<name>.{3,60}?)(?: VRAM|$)(?:.{0,30}Arch \((?P<major>\d{1,2}), (?P<minor>\d)\))?"
    ),
    re.compile(r"device=(?P<name>[A-Z][\w .-]{3,60}?) n=\d.{0,60}capability=\((?P<major>\d{1,2}), (?P<minor>\d)\)"),
    re.compile(r"^Device: cuda(?::\d{1,2})? (?P<name>.{3,60}?)(?: : \w+)?\s*$"),
    re.compile(r"Using torch device: (?P<name>NVIDIA .{3,60}?)\s*$"),
)
_GEFORCE = re.compile(
    r"(?<![a-z])(?P<line>RTX|GTX|GeForce)[ -]?(?P<number>\d{3,4})(?![\dM])[ -]?(?P<kind>Ti\b|Super\b|D\b)?", re.I
)
_PROFESSIONAL = re.compile(
    r"\bRTX (?:PRO \d{4}|A\d{4}|\d{4} Ada)\b"
    r"|(?:\b|(?<=GPU))(?:A40|A100|A800|A6000|H100|H200|H800|GB[23]00|B[23]00|L40S|V100|P100|P40|K80|GB10|GH200)"
    r"(?![\w-]*\.\w)(?=\b|[sS]\b|-)|\b(?:Tesla|NVIDIA|GPU:?) (?:T4|L4|A10G?)\b"
    r"|\bTesla (?:M[46]0|P4)\b|\b(?:T4|L4|A10G?) GPUs?\b|\bDGX Spark\b",
    re.I,
)
_JETSON = re.compile(
    r"\bJetson\b.{0,30}?\b(?P<kind>AGX Orin|Orin(?: Nano| NX| AGX)?|AGX Xavier|Xavier|Thor|TX2|Nano)\b", re.I
)
_JETSON_WORDS = re.compile(
    r"\b(?:my|a|an|the|on|for|with|NVIDIA) Jetson\b|\bJet ?[Pp]ack ?(?:version ?)?[4-7]\b|\bL4T\b|-tegra\b"
    r"|\b(?:AGX|NX) (?:Orin|Xavier)\b|\bOrin (?:NX|Nano|AGX)\b|\bjetson@[\w-]{1,40}[:~ ]|/home/jetson/",
    re.I,
)
_RADEON = re.compile(
    r"(?<![a-z])(?:Radeon ?)?(?:RX[ -]?(?P<number>\d{3,4})|(?P<bare>[5679]\d00)(?= ?XT))[ -]?(?P<kind>XTX|XT|GRE|M)?\b",
    re.I,
)
# As lspci, rocminfo and people name chips and integrated ones.
_AMD_CHIP = re.compile(
    r"\b(?:Navi ?(?:1[04]|2[1-4]|3[1-3]|4[48])"
    r"|Vega ?(?:10|20|56|64)|Radeon VII|Renoir|Lucienne|Cezanne|Barcelo"
    r"|Rembrandt|Phoenix1|Hawk Point|Strix (?:Halo|Point)|AI MAX\+? ?(?:PRO )?3\d\d|R9[67]00D?(?= AI| PRO)"
    r"|Lexa|Ellesmere|Baffin|Polaris ?\d\d|(?<=Radeon )(?:[67][68]0M|8[89]0M|80[56]0S))\b",
    re.I,
)
_INSTINCT = re.compile(r"\bMI(?:100|2[15]0X?|300[XA]|325X|35[05]X)\b")
_RADEON_PRO = re.compile(r"\bWX ?(?P<number>\d{4})\b")
_AMD = re.compile(
    r"\bAMD (?:GPU|card|graphics|Radeon|(?:on |for )?windows|显卡)"
    r"|\bAMD显卡|\bRadeon\b|\brocm-(?:libs|dev|core|hip-\w{2,9})\b"
    r"|\bstable-diffusion-webui-(?:directml|amdgpu)\b|\bamdgpu-install\b",
    re.I,
)
_INTEGRATED = re.compile(
    r"\b(?:integrated|on-?board|iGPU|APU|Ryzen|[67][68]0M|8[89]0M|80[56]0S|Renoir|Lucienne|Cezanne|Barcelo|Rembrandt|"
    r"Phoenix1|Vega ?(?:[3-9]|1[01]))\b|核显|集显",
    re.I,
)
_INTEL = re.compile(r"\bIntel(?:\(R\))? Arc\b|\bArc ?(?:\(TM\) )?[AB]\d{3}M?\b", re.I)
# A bare number is a card only beside a word that says so.
_BARE = re.compile(
    r"(?:\b(?:my|an?|the|on|with|have|dedicated|discrete|GPU|card|\d ?[x*×])[ :]{0,2}|[有用是卡张块]\s?)"
    r"(?P<number>[2345]0[5-9]0)(?:[ -]?(?P<kind>ti)\b|\b)"
    r"|(?<![\w.=-])(?P<number3>[2345]0[5-9]0)[ -]?(?P<kind3>ti)\b"
    r"|\b(?P<number2>[2345]0[5-9]0|10[5-8]0|16[56]0)(?:[ -]?(?P<kind2>ti))? (?:GPUs?|cards?|graphics)\b",
    re.I,
)


def read_started(lines: Sequence[str], draft: Draft) -> None:
    """The device that a program says it found when it started."""
    for line in lines:
        if "evice" not in line and "detected GPU" not in line:
            continue
        found = next(filter(None, (pattern.search(line) for pattern in _DEVICES)), None)
        if found is None or gpu_vendor(found["name"]) is None:
            continue
        groups = found.groupdict()
        if not draft.gpus:
            name_gpu(draft, 0, found["name"].strip())
            if groups.get("major"):
                draft.put(draft.gpu(0), compute_capability=f"{groups['major']}.{groups['minor']}")
        return


# "I'll try an A100 tomorrow": a card that is not in this machine.
_WISHED = re.compile(
    r"(?:'ll|\b(?:will|would|might|could|should|plan(?:ning)? to|going to|want to|think(?:ing)? of|consider(?:ing)?))\s"
    r"(?:also |then |maybe |try to )?(?:try|get|buy|rent|switch|upgrad|mov)\w{0,4}\b(?:(?!\bmy\b)[^.,;!?\n]){0,30}",
    re.I,
)


# "I moved the 4090 into another machine", "replaced my GTX 1080 with an RTX 5070": a card that was in this machine.
_GONE = re.compile(
    r"\b(?:moved|removed|sold|unplugged|replac(?:ed|ing)|swapp(?:ed|ing)|upgrad(?:ed|ing) from|switch(?:ed|ing) from"
    r"|(?:took|taken|pulled) out|got rid of|before I had)\s(?:(?:the|my|an?|our|old|out)\s){0,3}"
    r"(?P<card>[^.,;!?\n]{3,40}?)(?=\s(?:in(?:to)?|to|from|with|by|for|out|and|away|(?:on|last|this|yesterday)\b)\s|[.,;!?\n]|$)",
    re.I,
)


def _gone(lines: Sequence[str]) -> set[str]:
    """The cards that were taken out; a bare number is one beside the words that say so."""
    cards = (match["card"] for line in lines for match in _GONE.finditer(line))
    return {name for card in cards for name in _gpu_names(f"the {card}")}


def read_named(lines: Sequence[str], draft: Draft) -> None:
    """The cards, or at least whose they are, where all that is said of them agrees."""
    lines = [_WISHED.sub(" ", line) for line in lines]
    gone = _gone(lines)
    names = {name for line in lines for name in _gpu_names(line)}
    # Where nothing else is named, it may have come back.
    names = names - gone or names
    # The graphics of a processor stand beside a card in every laptop; they are no card that torch would use.
    integrated = any(gpu_vendor(name) == "nvidia" for name in names)
    names = {name for name in names if not (integrated and gpu_vendor(name) == "amd" and _INTEGRATED.search(name))}
    told = (line for line in lines if _AMD.search(line) and not (integrated and _INTEGRATED.search(line)))
    vendors = {gpu_vendor(name) for name in names} | {"amd" for _ in told}
    if not vendors and any(_INTEL.search(line) for line in lines):
        vendors = {"intel"}
    if not names and any(_JETSON_WORDS.search(line) for line in lines):
        name_gpu(draft, 0, "NVIDIA Jetson")
    if len(vendors) == 1:
        draft.put(draft.platform, gpu_vendors=tuple(vendor for vendor in vendors if vendor))
    if len(vendors) == 1 and len({gpu_capability(name) for name in names}) == 1:
        name_gpu(draft, 0, min(names, key=lambda name: (-len(name), name)))
    elif len(vendors) == 1:
        # A list of what is in a machine names each card in a line of its own.
        listed = [_gpu_names(line)[:1] for line in lines if _LISTED_CARD.match(line)]
        for index, name in enumerate(name for found in listed if len(listed) > 1 for name in found):
            name_gpu(draft, index, name)


_LISTED_CARD = re.compile(r"[\s*•-]{0,8}(?:GPU ?\d?: ?)?NVIDIA (?:GeForce|RTX|Quadro|Tesla)\b.{0,40}$")


def _gpu_names(line: str) -> list[str]:
    names = [_geforce(match["line"], match["number"], match["kind"]) for match in _GEFORCE.finditer(line)]
    names += [_professional(match[0]) for match in _PROFESSIONAL.finditer(line)]
    names += [f"NVIDIA Jetson {match['kind']}" for match in _JETSON.finditer(line)]
    for match in _RADEON.finditer(line):
        names.append(f"AMD Radeon RX {match['number'] or match['bare']} {(match['kind'] or '').upper()}".strip())
    if not names:
        names += [f"AMD {re.sub(r'(?<=Navi|Vega)(?=[0-9])', ' ', match[0])}" for match in _AMD_CHIP.finditer(line)][:1]
    names += [f"AMD Instinct {match[0].upper()}" for match in _INSTINCT.finditer(line)]
    names += [f"AMD Radeon Pro WX {match['number']}" for match in _RADEON_PRO.finditer(line)]
    for match in _BARE.finditer(line):
        names.append(
            _geforce(
                "GeForce",
                match["number"] or match["number2"] or match["number3"],
                match["kind"] or match["kind2"] or match["kind3"],
            )
        )
    return [name for name in names if gpu_capability(name) is not None]


def _geforce(line: str, number: str, kind: Optional[str]) -> str:
    kinds = {"ti": " Ti", "super": " SUPER", "d": " D"}
    if line.upper() == "GEFORCE":
        line = "RTX" if len(number) > 3 and number[0] in "2345" else "GTX"
    return f"NVIDIA GeForce {line.upper()} {number}{kinds.get((kind or '').lower(), '')}"


def _professional(name: str) -> str:
    core = re.sub(r"^(?:NVIDIA|GPU:?|Tesla)\s|\sGPUs?$", "", name, flags=re.I)
    if re.fullmatch(r"A6000", core, re.I):
        core = "RTX A6000"
    return f"NVIDIA {core if ' ' in core else core.upper()}"
