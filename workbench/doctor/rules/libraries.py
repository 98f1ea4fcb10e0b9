"""What an unknown error about a shared library tells: which one, who asks for it, whose it is. Needs the tables."""

from __future__ import annotations

import re
from typing import Any, Optional

from workbench.doctor import fixes
from workbench.doctor.changes import installed_version, pip_name
from workbench.doctor.facts import ErrorFact, Facts
from workbench.doctor.findings import Finding
from workbench.doctor.rules.common import MODEL_BENCHES, evidence, seen
from workbench.doctor.rules.matching_builds import matching_build
from workbench.doctor.rules.unknown.packages import again, may_install
from workbench.doctor.tables import table

_LOADER = "https://man7.org/linux/man-pages/man8/ld.so.8.html"
_LIBRARY = r"(?P<library>[\w.+-]{2,60}\.so[.\d]{0,12})"
_ABSENT = re.compile(
    rf"{_LIBRARY}: cannot open shared object file|Library not loaded: \S{{0,120}}/(?P<dylib>[\w.+-]{{3,60}}\.dylib)"
)
_SYMBOL = re.compile(rf"(?P<folder>/[^\s:'\"]{{0,200}}/)?{_LIBRARY}: undefined symbol: (?P<symbol>\w{{2,200}})")
# On a Mac the file that asks stands in a line of its own, after the symbol with C's underscore before it.
_SYMBOL_ON_MAC = re.compile(
    r"dlopen\((?P<folder>/[^\s:'\",]{0,200}/)(?P<library>[\w.+-]{2,60}\.so)[^\n]{0,20}: "
    r"Symbol not found: \(?_(?P<symbol>[\w$]{2,200})"
)
_VERSION = re.compile(
    r"(?P<folder>/[^\s:'\"]{0,200}/)?(?P<library>[\w.+-]{2,60}\.so[.\d]{0,12}): "
    r"version [`'](?P<version>[^'\s]{2,60})' not found"
    r"(?: \(required by (?P<asker>[^)\s]{2,200}))?"
)
_DAMAGED = re.compile(
    rf"(?P<folder>/[^\s:'\"]{{0,200}}/)?{_LIBRARY}: "
    r"(?:invalid ELF header|wrong ELF class|file too short|ELF load command)"
)
_DLL = re.compile(
    r"(?:Could not find module|[Ee]rror loading) ['\"](?P<path>[^'\"\n]{3,200}\.(?:dll|pyd))|"
    r"DLL load failed(?: while importing (?P<module>\w{2,60}))?"
)
# "The specified procedure could not be found" in the languages of Windows.
_PROCEDURE = re.compile(
    r"procedure|program could not|Prozedur|procédure|procedimiento|procedura|процедур|指定的程序|プロシージャ|프로시저",
    re.I,
)
# Windows' error 182, in its languages: the file that was found is not the one that was meant.
_CANNOT_RUN = re.compile(
    r"operating system cannot run|操作系统无法运行|não pode executar|kann \S{1,4} nicht ausführen|ne peut pas exécuter"
    r"|no puede ejecutar|作業系統無法執行|オペレーティング システムは \S{1,3}を実行できません|не может выполнить",
    re.I,
)
_PACKAGE = re.compile(r"(?:site|dist)-packages[/\\](\w{2,60})[/\\.]")
# The path cut down to the package's own folder.
_SHORT = re.compile(r"(?<![\w/\\.])([a-z]\w{2,60})/_\w{1,40}\.so: undefined symbol")


def library_error(facts: Facts, error: ErrorFact) -> Optional[list[Finding]]:
    """A finding on an unknown exception, where it is about a library that does not load."""
    finding = (
        _damaged(facts, error) or _version(facts, error) or _symbol(facts, error) or _absent(facts, error)
    ) or _dll(facts, error)
    return [finding] if finding else None


def _row(kind: str, text: str) -> Optional[dict[str, Any]]:
    return next((row for row in table("libraries")[kind] if re.match(row["match"], text)), None)


def _asker(error: ErrorFact) -> str:
    """The package whose compiled part is loaded: named in the message, else last in the traceback."""
    inside = _PACKAGE.search(error.text) or _SHORT.search(error.text)
    name = inside[1] if inside else error.values.get("importer", "")
    return pip_name(name) if name else ""


def _versions(facts: Facts, asker: str) -> dict[str, str]:
    names = {asker.replace("-", "_"): installed_version(facts, asker)} if asker else {}
    return evidence(
        **names, torch__version=facts.torch.version, LD_LIBRARY_PATH=facts.environment.get("LD_LIBRARY_PATH")
    )


def _finding(
    facts: Facts, error: ErrorFact, title: str, why: str, steps: tuple[str, ...], source: str = _LOADER
) -> Finding:
    return Finding(
        "library-does-not-load",
        "error",
        title,
        why,
        {**_versions(facts, _asker(error)), **seen(error)},
        steps,
        source,
        affects=MODEL_BENCHES,
        observed=True,
    )


def _steps(facts: Facts, steps: list[str], asker: str) -> tuple[str, ...]:
    return tuple(made for step in steps for made in _made(facts, step, asker))


def _made(facts: Facts, step: str, asker: str) -> tuple[str, ...]:
    if step.startswith("install "):
        return (fixes.install(facts, *step.split()[1:]),)
    if step.startswith("upgrade "):
        return (fixes.install(facts, asker, upgrade=True) if may_install(facts, asker) else again(facts, asker),)
    if step.startswith("build "):
        for_torch = "a build for the torch that is here: python -m pip show torch"
        return matching_build(facts, asker) or (f"Install {asker or 'the package'} again in {for_torch}",)
    return (step.replace("{asker}", asker or "the package"),)


def _on_nix(facts: Facts, library: str) -> tuple[str, ...]:
    """Nix keeps libraries in its store, and what pip installs looks for them where other systems have them."""
    return (
        "export LD_LIBRARY_PATH=$(nix eval --raw nixpkgs#stdenv.cc.cc.lib)/lib:$(nix eval --raw nixpkgs#zlib)/lib:"
        "$(nix eval --raw nixpkgs#glib.out)/lib:/run/opengl-driver/lib:$LD_LIBRARY_PATH   # first: nix build --no-link "
        "nixpkgs#stdenv.cc.cc.lib nixpkgs#zlib nixpkgs#glib",
        "in a shell.nix or flake: LD_LIBRARY_PATH = lib.makeLibraryPath (with pkgs; [ stdenv.cc.cc.lib zlib glib ])",
        "for the whole NixOS, for Pythons that Nix did not build (uv's): programs.nix-ld.enable = true; "
        "programs.nix-ld.libraries = with pkgs; [ stdenv.cc.cc.lib zlib glib ];",
        f"nix-locate {library}   # the package of another library",
    )


def _absent(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _ABSENT.search(error.text)
    if found is None:
        return None
    library = found["library"] or found["dylib"]
    asker = _asker(error)
    row = _row("absent", library)
    who = asker or "A program"
    if facts.error("nix") and re.match(
        r"lib(?:stdc\+\+|z|gcc_s|GL|glib|gthread|gomp|X11|Xext|SM|sndfile|ffi|ssl)(?![a-z])", library
    ):
        return _finding(
            facts,
            error,
            f"{who} does not find {library}: under Nix the system's libraries lie in its store",
            "What pip and uv install was made for systems that have their libraries in /usr/lib; Nix has them nowhere "
            "where the loader looks.",
            _on_nix(facts, library),
            "https://nix.dev/permalink/stub-ld",
        )
    if row is not None:
        return _finding(
            facts,
            error,
            f"{who} does not find {library}: {row['whose']}",
            row["why"],
            _steps(facts, [step.replace("{major}", _major_of(library)) for step in row["fix"]], asker),
            row["source"],
        )
    if found["dylib"]:
        return _finding(
            facts,
            error,
            f"{who} does not find the library {library}",
            "On a Mac a compiled file names the folders in which it looks; in none of them is a file of this name: an "
            "upgrade took it away, or Homebrew or conda brought another number of it.",
            (
                again(facts, asker),
                f"find / -name '{library}' 2>/dev/null   # is it anywhere? Homebrew's lie in /opt/homebrew/lib (Intel: "
                "/usr/local/lib); brew reinstall the package that has it",
            ),
            "https://developer.apple.com/library/archive/documentation/DeveloperTools/Conceptual/DynamicLibraries/",
        )
    return _finding(
        facts,
        error,
        f"{who} does not find the library {library}",
        "The loader looks in the folders of LD_LIBRARY_PATH, in those named inside the file that asks, and in the "
        "system's; in none of them is a file of this name.",
        (
            f"ldconfig -p | grep {library.split('.so')[0]}; find / -name '{library}*' 2>/dev/null   # is it anywhere?",
            "If it is: export LD_LIBRARY_PATH=<that folder>:$LD_LIBRARY_PATH",
            f"else: apt-file search {library}, and install the package that has it; or install "
            f"{asker or 'what asks for it'} in a build for this system",
        ),
    )


def _major_of(library: str) -> str:
    """The number at the end of a library's name; a star where it has none, which takes every release."""
    found = re.search(r"\.so\.(\d{1,3})", library)
    return found[1] if found else "*"


def _symbol(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _SYMBOL.search(error.text) or _SYMBOL_ON_MAC.search(error.text)
    if found is None:
        return None
    row, asker = _row("symbol", found["symbol"]), _asker(error)
    outside = bool(
        found["folder"] and re.match(r"/(?:usr|opt|lib)\b", found["folder"]) and not _PACKAGE.search(error.text)
    )
    who = found["library"] if outside or not asker else asker
    whose = row["whose"] if row else "a library that it is loaded with"
    why = row["why"] if row else "One of the two was built with another version of the other."
    steps = _steps(facts, row["fix"], asker) if row else ()
    path = facts.environment.get("LD_LIBRARY_PATH")
    if outside or path:
        steps = (fixes.unset(facts, "LD_LIBRARY_PATH", "the system's copy then no longer comes first"), *steps)
    return _finding(
        facts,
        error,
        f"{who} does not fit {whose}: {found['symbol'][:60]} is missing",
        why,
        steps or (again(facts, asker),),
        row["source"] if row else _LOADER,
    )


def _version(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _VERSION.search(error.text)
    if found is None:
        return None
    folder = found["folder"] or ""
    system = not re.search(r"(?:site|dist)-packages", folder)
    note = "" if not folder else f" in {folder.rstrip('/')}"
    return _finding(
        facts,
        error,
        f"The {found['library']} that is found first{note} is too old: it has not {found['version']}",
        (f"{found['asker']} wants a newer one. " if found["asker"] else "What is loaded wants a newer one. ")
        + "A folder in LD_LIBRARY_PATH or the system's copy comes before the one that belongs to the environment."
        if system
        else "Two packages of the environment bring this library in different versions.",
        (
            fixes.unset(facts, "LD_LIBRARY_PATH", "then the environment's own comes first"),
            f"ldconfig -p | grep {found['library'].split('.so')[0]}   # the copies that the system knows",
        )
        if system
        else (again(facts, _asker(error)),),
    )


def _damaged(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _DAMAGED.search(error.text)
    if found is None:
        return None
    asker = _asker(error)
    return _finding(
        facts,
        error,
        f"The file {found['library']} is damaged, or made for another kind of processor or system",
        "A download or a copy broke off, an environment was moved from another machine, or a linker's text file "
        "stands in place of the library.",
        (again(facts, asker), "uname -m; file " + f"{found['folder'] or ''}{found['library']}   # what it is"),
    )


def _dll(facts: Facts, error: ErrorFact) -> Optional[Finding]:
    found = _DLL.search(error.text)
    if found is None:
        return None
    asker = _asker(error)
    named = (found["path"] or "").replace("\\\\", "\\").split("\\")[-1] or found["module"] or "a compiled module"
    whose = f"Windows cannot load {named}" + (f" of {asker}" if asker else "")
    redistributable = (
        "Install the newest Microsoft Visual C++ Redistributable: https://aka.ms/vs/17/release/vc_redist.x64.exe"
    )
    if _CANNOT_RUN.search(error.text):
        return _finding(
            facts,
            error,
            f"{whose}: a DLL of the same name, of another program, comes first",
            "Error 182: of two files with one name Windows took the wrong one: libiomp5md.dll and MKL's are brought by "
            "Anaconda, Intel's tools, MATLAB and others, and whoever has put its folder on PATH is first.",
            (
                "where.exe libiomp5md.dll mkl_rt.dll zlibwapi.dll   # those outside of this environment's Python are "
                "in the way: take their folders out of PATH (System, Environment variables), and open a new window",
                again(facts, asker or "torch"),
                f"or an environment of its own, 64-bit, in which nothing else is: {fixes.new_environment('3.10')}",
            ),
            "https://github.com/pytorch/pytorch/issues/36868",
        )
    if _PROCEDURE.search(error.text):
        return _finding(
            facts,
            error,
            f"{whose}: it was compiled for another version of what it is loaded with",
            "The DLLs that it needs are there, and one of them has not the function that it looks for: another torch, "
            "Python or CUDA is here than the one that it was built with.",
            (
                again(facts, asker),
                "What was compiled here itself: build it again, in its own folder, with the torch that is here now: "
                "python -m pip install --no-build-isolation --force-reinstall --no-deps .",
                f"or: {redistributable[0].lower()}{redistributable[1:]}",
            ),
            "https://docs.pytorch.org/docs/stable/cpp_extension.html",
        )
    return _finding(
        facts,
        error,
        f"{whose}: a DLL that it needs is missing or of another version",
        "The message names the file that was asked for, not the one below it that is missing: Microsoft's C++ runtime, "
        "or the DLLs of the CUDA or torch that the package was built with.",
        (
            redistributable,
            again(facts, asker),
            *(
                ()
                if asker
                else ("an extension of one's own: import torch before it, since torch's DLLs lie in torch\\lib",)
            ),
        ),
        "https://learn.microsoft.com/en-us/cpp/windows/latest-supported-vc-redist",
    )
