"""Which names came with a release or went with one, and which of them are worth a place in the table."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from docs.tables.reading import OWN, TAKEN, fits

LONGEST_GAP = 2
"""A name that is missing in so many releases in between, at most, is taken to have been there all the time."""

_METHOD = re.compile(r"[A-Z]\w+\.\w+")


@dataclass(frozen=True, order=True)
class Event:
    """A name that came with a minor release, or was there no more from it on."""

    word: str
    """"added" or "removed", as the table calls it."""
    version: str
    name: str
    """Its path; that of a module has no dot at its end here."""

    @property
    def last(self) -> str:
        """The name without its path."""
        return self.name.rpartition(".")[2]

    @property
    def of_class(self) -> bool:
        """Whether it is an argument or a method."""
        return "(" in self.name or _METHOD.fullmatch(self.name) is not None


def events(releases: dict[str, list[str]]) -> set[Event]:
    """What came and went between the releases, which are given oldest first.

    What a module only ever took from another one (TAKEN) is left out. A method that another class still has did not go:
    it is inherited now; nor did an argument of what has none now. In the same way it came, if at all, before. Of a
    class that inherits nothing (OWN) a member went as long as the class is there.
    """
    versions = list(releases)
    callables = [{name.partition("(")[0] for name in names if "(" in name} for names in releases.values()]
    methods = [
        {name.partition(".")[2] for name in names if _METHOD.fullmatch(name) or name.startswith(f"{TAKEN}*.")}
        for names in releases.values()
    ]
    seen: dict[str, list[int]] = {}
    for position, names in enumerate(releases.values()):
        for name in {name.lstrip(TAKEN + OWN) for name in names}:
            seen.setdefault(name, []).append(position)
    own = {name.lstrip(OWN) for names in releases.values() for name in names}
    of_parts = {name.lstrip(OWN) for names in releases.values() for name in names if name.startswith(OWN)}
    classes = [{name.rpartition(".")[2] for name in names if "(" not in name} for names in releases.values()]

    def elsewhere(name: str, position: int) -> bool:
        """Whether nothing can be said of a member that a release has not: inherited, or its class is not there."""
        if name in of_parts:
            return re.split(r"[(.]", name)[0] not in classes[position]
        return _inherited(name, methods[position], callables[position])

    found = set()
    for name, positions in seen.items():
        first, last = positions[0], positions[-1]
        if name not in own or f"{name}." in seen or last - first + 1 - len(positions) > LONGEST_GAP:
            continue
        if first > 0 and not elsewhere(name, first - 1):
            found.add(Event("added", versions[first], name.rstrip(".")))
        went = last + 1
        if went < len(versions) and not elsewhere(name, went):
            found.add(Event("removed", versions[went], name.rstrip(".")))
    return found


def _inherited(name: str, methods: set[str], callables: set[str]) -> bool:
    """Whether a method, or an argument, that a class has no more is another class's, by what a release has."""
    if "(" in name:
        return name.partition("(")[0] not in callables
    return _METHOD.fullmatch(name) is not None and name.partition(".")[2] in methods


def worth_listing(
    found: set[Event], left_out: Iterable[dict[str, Any]], asked: set[str], steady: set[str]
) -> Iterator[Event]:
    """What somebody may meet.

    What other packages import is listed in any case. Constants are not, and a private name only if it went, as others
    use such names all the same; unless a pattern of `left_out` takes them out with ``!``.

    Args:
        found: what came and went.
        left_out: rules with the patterns "names", and "word" where they hold only for what was added or removed.
        asked: names that other packages import.
        steady: names that were there all the time; in which modules the exported ones stand as well matters to nobody.
    """
    patterns = {
        word: [name for rule in left_out if rule.get("word", word) == word for name in rule["names"]]
        for word in ("added", "removed")
    }
    gone = {event.name for event in found if event.word == "removed"}
    for event in found:
        constant = event.last.isupper() and "_" in event.last
        private = event.last.startswith("_") and event.name not in gone
        exported = event.last in steady and not event.of_class
        if event.name in asked or not (exported or fits(event.name, patterns[event.word], constant or private)):
            yield event


def without_members(found: Iterable[Event]) -> Iterator[Event]:
    """All but arguments and methods of a class that the package exports and that came or went with them."""
    events = set(found)
    for event in events:
        owners = {re.split(r"[(.]", event.name)[0], event.name.partition("(")[0]} - {event.name}
        if not event.of_class or not any(Event(event.word, event.version, owner) in events for owner in owners):
            yield event


def without_contents(found: Iterable[Event]) -> Iterator[Event]:
    """All but what came with the module or class that it is in, or went with it."""
    events = set(found)
    for event in events:
        parts = event.name.partition("(")[0].split(".")
        above = (".".join(parts[:count]) for count in range(1, len(parts)))
        if not any(Event(event.word, event.version, name) in events for name in above):
            yield event


FAMILY = re.compile(
    r"(\w+?)(?:For[A-Z]\w+|PreTrainedModel|(?:Image|Video)?Processor(?:Fast)?|Tokenizer(?:Fast)?|FeatureExtractor"
    r"|(?:Text|Vision|Audio)?(?:Config|Model))"
)
HEADS = ("Config", "Model", "ForCausalLM", "ForConditionalGeneration")


def without_families(found: Iterable[Event], asked: set[str]) -> Iterator[Event]:
    """All but the classes of a model that came as a whole; what other packages import, `asked`, stays.

    The Doctor (``workbench/doctor/changes.py``) knows such classes by the first of HEADS.
    """
    events = list(found)
    came = {event.name: event.version for event in events if event.word == "added"}
    for event in events:
        family = FAMILY.fullmatch(event.name) if event.word == "added" else None
        heads = [family[1] + end for end in HEADS] if family else []
        first = next((head for head in heads if head in came), event.name)
        if first == event.name or event.name in {*heads, *asked} or came[first] != event.version:
            yield event


def at_shortest_path(found: Iterable[Event]) -> set[Event]:
    """Each name once for a release: where several modules have it, the one that is the least deep."""
    best: dict[tuple[str, str, str], Event] = {}
    for event in sorted(found):
        key = (event.word, event.version, event.name if event.of_class else event.last)
        if key not in best or event.name.count(".") < best[key].name.count("."):
            best[key] = event
    return set(best.values())
