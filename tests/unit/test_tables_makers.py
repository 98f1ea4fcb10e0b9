"""The makers of tables in docs/tables, on tiny wheels and on releases whose reading is already in the cache."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from docs.tables import askers, imports, layout, names, requirements
from docs.tables.compare import Event, at_shortest_path, events, without_families, without_members, worth_listing
from docs.tables.imports import imported
from docs.tables.reading import Reading, fits, read_names
from docs.tables.releases import Releases
from workbench import toml

PACKAGE = {
    "thing/__init__.py": "_parts = {'models.one': ['OneModel', 'x y']}\nfrom .cache import *\nfrom os import path\n",
    "thing/cache.py": (
        "import json\nfrom .models.one import helper\nLIMIT: int = 3\n"
        "class Cache:\n    size: int = 0\n    def __init__(self, config, *, device=None): ...\n"
        "    def update(self): ...\n"
        "try:\n    from typing import Self\nexcept ImportError:\n    first_choice, second_choice = 1, 2\n"
    ),
    "thing/models/__init__.py": "",
    "thing/models/one.py": "def helper(size): ...\ndef _inner(): ...\n",
    "thing/models/two.py": "class Hidden: ...\n",
    "thing/broken.py": "print 'Python 2'\n",
    "thing/cli/run.py": "def main(): ...\n",
    "other.py": "def outside(): ...\n",
}


def wheel(folder: Path, files: dict[str, str]) -> Path:
    path = folder / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return path


def test_names_are_read_from_a_wheel(tmp_path: Path) -> None:
    reading = Reading("thing", True, ("cli.**",), ("models.two.",), ("*Cache", "helper"))
    cache = {"LIMIT", "Cache", "helper", "first_choice", "second_choice"}
    assert set(read_names(wheel(tmp_path, PACKAGE), reading)) == {
        *("OneModel", "_parts", "Cache(size)", "Cache(config)", "Cache(device)", "Cache.update", "helper(size)"),
        *cache,
        *(f"cache.{name}" for name in cache),
        *("models.one.helper", "models.one._inner"),
        *("broken.", "cache.", "models.", "models.one.", "models.two."),
    }
    # A package that is not lazy exports what its __init__ files define or import by name.
    plain = set(read_names(wheel(tmp_path, PACKAGE), Reading("thing", skipped=("**", "!."))))
    assert plain == {"_parts"}


def test_of_a_part_all_is_read_and_nothing_is_inherited(tmp_path: Path) -> None:
    code = (
        "class OneAttention(Module):\n    def __init__(self, config):\n        self.heads = config.heads\n"
        "    def forward(self, states): ...\nclass TwoAttention(Module):\n    def __init__(self): self.heads = 1\n"
    )
    reading = Reading("thing", parts=("OneAttention",))
    first = read_names(wheel(tmp_path, {"thing/__init__.py": code}), reading)
    assert {"@OneAttention.heads", "@OneAttention(config)", "@OneAttention.forward(states)"} < set(first)
    second = read_names(
        wheel(tmp_path, {"thing/__init__.py": code.replace("self.heads = config.heads", "pass")}), reading
    )
    assert events({"1.0": first, "2.0": second}) == {Event("removed", "2.0", "OneAttention.heads")}
    gone = [name for name in second if "OneAttention" not in name]
    assert not any("(" in event.name for event in events({"1.0": first, "2.0": gone}))


def test_what_a_lazy_package_loads_is_exported_at_its_root(tmp_path: Path) -> None:
    files = {
        "thing/__init__.py": "from .lazy import define_import_structure\n",
        "thing/models/old/one/modeling.py": "__all__ = ['OldModel']\nclass Other: ...\n",
    }
    found = read_names(wheel(tmp_path, files), Reading("thing", True, outlined=("models.*.**",)))
    assert found == ["OldModel", "define_import_structure", "models.old.one.modeling."]


def test_imports_that_may_fail_or_stand_in_functions_do_not_count(tmp_path: Path) -> None:
    files = {
        "thing/__init__.py": (
            "from peft import LoraConfig\nfrom peft.utils import *\nfrom . import cache\nfrom json import dumps\n"
            "if 1:\n    from peft.utils import one\nelse:\n    from trl import two\n"
            "try:\n    from peft import tried\nexcept ImportError: ...\ndef later():\n    from peft import three\n"
        ),
        "thing/tests/test_it.py": "from peft import four\n",
    }
    found = imported(wheel(tmp_path, files), frozenset({"peft", "trl"}))
    assert found == ["peft.LoraConfig", "peft.utils.one", "trl.two"]


def test_names_come_and_go() -> None:
    releases = {
        "1.0": ["Base.load", "Gone", "Gone.load", "Gone(size)", "Stays", "flickers", "a.Moved", "deep.a.Moved", "mod."],
        "1.1": ["Base.load", "Stays", "New", "New(size)", "New.save", "mod."],
        "1.2": [
            "Base.load",
            "Stays",
            "New",
            "New(size)",
            "New.save",
            "New(later)",
            "flickers",
            "b.Stays",
            "mod.",
            "mod",
        ],
    }
    found = events(releases)
    assert {(event.word, event.version, event.name) for event in found} == {
        *(("removed", "1.1", name) for name in ("Gone", "a.Moved", "deep.a.Moved")),
        *(("added", "1.1", name) for name in ("New", "New.save")),
        *(("added", "1.2", name) for name in ("New(later)", "b.Stays")),
    }
    kept = set(without_members(found))
    assert {event.name for event in found - kept} == {"New.save"}
    listed = at_shortest_path(worth_listing(kept, [], set(), {"Stays"}))
    assert {event.name for event in listed} == {"Gone", "a.Moved", "New", "New(later)"}


def test_what_is_left_out_unless_others_ask_for_it() -> None:
    found = {
        Event("added", "1.0", name) for name in ("A_B", "_private", "x.Inner", "x.y.Deep", "x.y.Asked", "x.KEPT_ON")
    }
    found |= {Event("removed", "2.0", name) for name in ("_went", "A_B", "x.Inner")}
    left_out = [{"names": ["x.*.*"]}, {"names": ["x.*", "!x.KEPT_ON"], "word": "added"}]
    listed = set(worth_listing(found, left_out, {"x.y.Asked"}, set()))
    assert {(event.word, event.name) for event in listed} == {
        *(("added", "x.y.Asked"), ("added", "x.KEPT_ON"), ("removed", "_went"), ("removed", "x.Inner")),
    }
    family = {Event("added", "1.0", name) for name in ("OneConfig", "OneModel", "OneTokenizer", "TwoTokenizer")}
    late = {Event("added", "1.1", "OneProcessor"), Event("added", "1.1", "OneForCausalLM")}
    assert {*family, *late} - set(without_families({*family, *late}, set())) == {Event("added", "1.0", "OneTokenizer")}


@pytest.mark.parametrize(
    ("pattern", "fitting", "other"),
    [
        ("models.*", "models.one", "models.one.two"),
        ("models.**", "models.one.two", "model.one"),
        ("**.TF[A-Z]*", "a.b.TFBert", "a.b.TFs"),
        ("_*.x", "_a.x", "a.x"),
    ],
)
def test_patterns(pattern: str, fitting: str, other: str) -> None:
    assert fits(fitting, [pattern])
    assert not fits(other, [pattern])
    assert not fits(fitting, [pattern, f"!{fitting}"])
    assert fits(fitting, [f"!{other}"], True)


def test_tables_are_made_from_what_was_read_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def keep(kind: str, package: str, version: str, lines: list[str]) -> None:
        path = tmp_path / kind / f"{package}-{version}.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(lines))

    long = [f"parts.name_{number}" for number in range(40)]
    keep("names", "peft", "0.5", ["Old", "Steady"])
    keep("names", "peft", "0.6", ["New", "Steady", *long])
    keep("imports", "trl", "1.8", ["peft.Old", "peft.Steady"])
    keep("imports", "trl", "1.10", ["peft.New", "peft.Steady"])
    requires = ["peft >=0.4,!=0.5 ; extra == 'all'", "torch (<3,>=2.1)", "numpy>=1.17,<2", "trl>=9", "rich>=1"]
    keep("metadata", "trl", "1.8", requires)
    keep("metadata", "trl", "1.9", requires[::-1])
    keep("metadata", "trl", "1.10", [*requires, "peft==0.6"])
    keep("metadata", "trl", "1.11", ["torch"])
    for module in (layout, askers):
        monkeypatch.setattr(module, "TABLES", tmp_path)
    releases = Releases(tmp_path, offline=True)

    def plan(module: object, text: str) -> None:
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.toml"
        path.write_text(text)
        monkeypatch.setattr(module, "PLAN", path)

    versions = '[askers]\ntrl = ["1.8", "1.9", "1.10", "1.11"]\n'
    plan(names, '[everywhere]\nskipped = []\nleft_out = []\n[peft]\nsource = "https://x"\noldest = "0.5"\n')
    plan(imports, f'asked = ["peft"]\nfinal = []\n{versions}[by_hand.a-b.removed]\nX = "c<2"\n')
    floors = '[floors]\nany = "0.0.1"\nnumpy = "1.20"\n[passed_over]\n'
    plan(requirements, f'asked = ["torch", "numpy", "peft", "trl"]\n{floors}{versions}')
    listed = toml.load(names.make(releases) / "peft.toml")
    assert listed["added"]["0.6"].split() == ["New", *sorted(long)]
    assert listed["removed"] == {"0.6": "Old"}
    assert max(map(len, (tmp_path / "names" / "peft.toml").read_text().splitlines())) <= layout.WIDTH
    asking = toml.load(askers.make(releases))
    assert asking["peft"] == {"removed": {"Old": "trl<1.10"}, "added": {"New": "trl>=1.10"}}
    assert asking["a-b"] == {"removed": {"X": "c<2"}}

    asked = toml.load(requirements.make(releases))["trl"]
    assert asked == {"1.8": "numpy<2 torch>=2.1,<3", "1.11": ""}
