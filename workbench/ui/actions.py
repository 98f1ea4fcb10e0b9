"""Every action once: its key, footer word, palette entry, help line and tooltip all come from here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from textual.binding import Binding

BENCHES: tuple[tuple[str, str, str], ...] = (
    ("doctor", "Doctor", "Doctor"),
    ("tokens", "Tokens", "Tokens"),
    ("architecture", "Architecture", "Arch"),
    ("vram", "VRAM", "VRAM"),
    ("chat", "Chat", "Chat"),
)
"""Bench id, title, and title for narrow terminals, in the order of their keys 1 to 5."""

BENCH_TITLES = {bench: title for bench, title, _ in BENCHES}
APP = "app"


@dataclass(frozen=True)
class Action:
    """Something the user can do, from anywhere or on one bench."""

    id: str
    """Stable name, for ``[keys]`` in the settings."""
    keys: str
    """Comma-separated; empty for what is reached through the palette only."""
    action: str
    """Textual action, found on the app or on the bench that `scope` names."""
    title: str
    """Palette entry and help line: an imperative."""
    help: str
    scope: str = APP
    footer: str = ""
    """Word beside the key in the footer; empty keeps it out of there."""
    priority: bool = False
    palette: bool = True

    @property
    def palette_title(self) -> str:
        """The title with the bench it belongs to, so that a search for the bench lists what it can do."""
        return self.title if self.scope == APP else f"{BENCH_TITLES[self.scope].lower()}: {self.title}"

    def binding(self) -> Binding:
        """This action as a key binding."""
        return Binding(
            self.keys,
            self.action,
            self.footer or self.title,
            show=bool(self.footer),
            tooltip=self.help,
            id=self.id,
            priority=self.priority,
        )


def _switches() -> Iterable[Action]:
    for number, (bench, title, _) in enumerate(BENCHES, 1):
        yield Action(f"bench-{bench}", str(number), f"show_bench('{bench}')", f"Show {title}", f"Go to {title}.")
    for number, (bench, title, _) in enumerate(BENCHES, 1):
        yield Action(
            f"bench-{bench}-anywhere",
            f"alt+{number},f{number}",
            f"show_bench('{bench}')",
            f"Show {title}",
            "Works inside a text field too.",
            priority=True,
            palette=False,
        )


def _chat() -> Iterable[Action]:
    for name, key, far, does, title, said, footer in (
        ("write", "w", "", "write", "Write a message", "Move into the message field.", ""),
        ("stop", "escape", "", "stop", "Stop the answer", "Keeps what was written.", "stop"),
        ("new", "ctrl+n", "", "new", "New conversation", "The old one is kept.", ""),
        ("conversations", "o", "alt+c", "conversations", "Conversations", "Open, rename, export, delete.", "chats"),
        ("sampling", "s", "alt+s", "sampling", "Sampling", "Each knob, and what it does to a token.", "sampling"),
        ("change", "e", "", "change", "Edit a message", "Sends it in other words, as a branch of its own.", ""),
        ("again", "r", "", "again", "Answer again", "Another answer beside this one.", ""),
        ("go-on", "c", "", "go_on", "Continue the answer", "Where it stopped at its limit or was stopped.", ""),
        ("branch-before", "left", "", "branch(-1)", "Branch before", "Shows the branch before this one.", ""),
        ("branch-after", "right", "", "branch(1)", "Next branch", "Shows the branch after this one.", ""),
        ("inside", "i", "alt+i", "inside", "Look inside the answer", "Its tokens, and what stood beside them.", ""),
        ("system", "p", "alt+p", "system", "System prompt", "Edit it; keep several by name.", ""),
        ("prompts", "t", "alt+t", "prompts", "Prompts kept by name", "Keep a prompt, or write one kept.", ""),
        ("raw", "m", "alt+m", "toggle_raw", "Complete without template", "The model goes on with the bare text.", ""),
        ("server", "u", "alt+u", "server", "Chat with a server", "A model behind an OpenAI-compatible server.", ""),
        ("attach", "a", "alt+a", "attach", "Attach a text file", "It goes with the next message.", ""),
        ("detach-files", "A", "", "detach_files", "Take the files off again", "The message goes without them.", ""),
        ("find", "slash", "alt+g", "find", "Find in conversations", "In this one and in all.", ""),
        ("numbers", "n", "alt+n", "numbers", "Numbers", "Speed, context and memory beside the estimate.", ""),
        ("variants", "v", "", "variants", "What quantizing costs", "Variants measured side by side.", ""),
        ("fold", "space", "", "fold", "Unfold a long message", "Or fold it again.", ""),
        ("copy", "y", "", "copy", "Copy the message", "As it was written.", ""),
        ("copy-all", "Y", "", "copy_all", "Copy the conversation", "As Markdown.", ""),
        ("export", "x", "", "export", "Export the conversation", "Markdown or JSONL, to a file.", ""),
    ):
        yield Action(f"chat-{name}", key, does, title, said, "chat", "" if far else footer)
        if far:
            anywhere = "Works inside the message field too."
            yield Action(f"chat-{name}-anywhere", far, does, title, anywhere, "chat", footer, True, palette=False)


ACTIONS: tuple[Action, ...] = (
    *_switches(),
    Action("choose-model", "ctrl+o", "choose_model", "Choose the model", "Choose the model of every bench."),
    Action("load-model", "ctrl+l", "load_model", "Load the model", "Load it: quantization, dtype and device."),
    Action("unload-model", "", "unload_model", "Unload the model", "Free the memory the loaded model takes."),
    Action("stop-job", "", "stop_job", "Stop what the session does", "Cancel the running load, answer or trace."),
    Action("restart-session", "ctrl+r", "restart_session", "Start the session again", "After it died or was ended."),
    Action("session-log", "f9", "session_log", "Show the session log", "Everything the worker and its libraries said."),
    Action("error-details", "f7,exclamation_mark", "error_details", "Show error details", "All of the last error."),
    Action(
        "choose-theme", "ctrl+t", "choose_theme", "Choose a theme", "Try the themes; yours lie in your config folder."
    ),
    Action("take-sample", "ctrl+g", "take_sample", "Take the sample model", "A small real one; fetched if need be."),
    Action("tour", "", "tour", "Take the tour", "The five benches in two minutes, on a small model."),
    Action("help", "question_mark,f8", "help", "Show help", "Every key of this bench and of the app."),
    Action(
        "detach",
        "alt+d",
        "detach",
        "Detach",
        "Leave the screen; the session, its model and a running answer go on.",
        priority=True,
    ),
    Action("quit", "q,ctrl+q", "quit", "Quit", "End the app and its session, unless another terminal uses it."),
    Action(
        "interrupt",
        "ctrl+c",
        "interrupt",
        "Stop or quit",
        "Copies the selection; else stops what runs; pressed again within 5 s, quits.",
        priority=True,
        palette=False,
    ),
    Action("doctor-self-test", "t", "self_test", "Run the self-test", "Five real steps.", "doctor", "self-test"),
    Action("doctor-environments", "v", "environments", "Examine another one", "Of this box.", "doctor", "environments"),
    Action("doctor-compare", "c", "compare", "Compare", "With another environment or a paste.", "doctor", "compare"),
    Action(
        "doctor-paste", "p", "paste_report", "Examine a pasted report", "Of another machine.", "doctor", "paste report"
    ),
    Action("doctor-export", "e", "export", "Export Markdown", "Write the report to a file.", "doctor", "export"),
    Action("doctor-export-json", "E", "export_json", "Export JSON", "What workbench doctor --json gives.", "doctor"),
    Action("doctor-again", "r", "again", "Examine again", "Examine the environment anew.", "doctor"),
    Action("doctor-own", "b", "own", "Back to the own one", "From another environment or a paste.", "doctor"),
    Action("doctor-copy", "y", "copy", "Copy the fix", "Or whatever the cursor is on.", "doctor"),
    Action("doctor-copy-report", "Y", "copy_report", "Copy the whole report", "As Markdown, for an issue.", "doctor"),
    Action("doctor-search", "slash", "search", "Search", "In findings and facts.", "doctor"),
    Action("doctor-stop", "escape", "stop", "Stop or go back", "A self-test, a search, a comparison.", "doctor"),
    Action("tokens-edit", "i", "edit", "Edit the text", "Move into the text.", "tokens", "edit"),
    Action("tokens-add", "a", "add", "Add a tokenizer", "Count under one more; remembered.", "tokens", "add"),
    Action("tokens-remove", "delete,minus", "remove", "Remove a tokenizer", "The one under the cursor.", "tokens"),
    Action("tokens-compare", "t", "compare", "Go to the tokenizers", "Then the arrow keys choose one.", "tokens"),
    Action("tokens-walk", "p", "walk", "Walk the tokens", "The arrow keys move over them.", "tokens", "tokens"),
    Action("tokens-dataset", "d", "dataset", "Measure a data set", "Counts every row.", "tokens", "data set"),
    Action("tokens-last", "D", "last_dataset", "Last data set", "Back to its figures, as they were.", "tokens"),
    Action("tokens-vram", "v", "send_length", "Send p95 to VRAM", "As sequence length.", "tokens", "p95 to VRAM"),
    Action("tokens-vocabulary", "slash", "vocabulary", "Search the vocabulary", "By id, text or regex.", "tokens"),
    Action("tokens-languages", "l", "languages", "Compare languages", "Which tokenizer is fair to which.", "tokens"),
    Action("tokens-split", "c", "side_by_side", "Put two side by side", "Where they split otherwise.", "tokens"),
    Action("tokens-template", "m", "template", "Render a conversation", "Through the chat template.", "tokens"),
    Action("tokens-tax", "u,dollar_sign", "tax", "Compute the token tax", "A year of use in money.", "tokens"),
    Action("tokens-special", "s", "toggle_special", "Count special tokens", "With or without them.", "tokens"),
    Action("tokens-clear", "x", "clear", "Clear the text", "Start with an empty text.", "tokens"),
    Action("tokens-copy", "y", "copy", "Copy the figures", "Copy the counts.", "tokens"),
    Action(
        "architecture-toggle",
        "space,right",
        "unfold",
        "Open or fold",
        "The module under the cursor.",
        "architecture",
        "open",
    ),
    Action("architecture-search", "slash", "search", "Search a module", "By name or class.", "architecture", "search"),
    Action("architecture-diagram", "b", "diagram", "Block diagram", "On the whole screen.", "architecture", "diagram"),
    Action("architecture-design", "d", "design", "Design your own", "Edit its config.", "architecture", "design"),
    Action("architecture-trace", "t", "trace", "Trace a prompt", "Look inside a run.", "architecture", "trace"),
    Action("architecture-facts", "f", "facts", "Explain the facts", "Each with its meaning.", "architecture"),
    Action("architecture-view", "v", "view", "Loaded or config", "Which tree is shown.", "architecture"),
    Action("architecture-lora", "l", "lora", "LoRA targets", "What an adapter trains and weighs.", "architecture"),
    Action("architecture-embeddings", "e", "embeddings", "Embeddings", "Neighbours, norms, a map.", "architecture"),
    Action("architecture-compare", "c", "compare", "Compare", "With another model, side by side.", "architecture"),
    Action("architecture-memory", "m", "memory", "Memory in VRAM", "What it takes of the plan.", "architecture"),
    Action("architecture-files", "w", "files", "Weights on disk", "Files, types, differences.", "architecture"),
    Action("architecture-fold", "left", "fold", "Fold or go up", "To the module that holds it.", "architecture"),
    Action("architecture-all", "a", "toggle_all", "Open or fold all", "The whole tree.", "architecture"),
    Action("architecture-each", "x", "each", "List equal layers", "One by one, or folded.", "architecture"),
    Action("architecture-sort", "s", "sort", "Sort by size", "By size, or as the model runs.", "architecture"),
    Action("architecture-copy", "y", "copy", "Copy the row", "Name, class, count and shape.", "architecture"),
    Action("architecture-copy-markdown", "Y", "copy_markdown", "Copy as Markdown", "The whole tree.", "architecture"),
    Action("architecture-copy-json", "J", "copy_json", "Copy as JSON", "The whole tree.", "architecture"),
    Action("architecture-clear", "escape", "clear", "Clear the search", "And show all again.", "architecture"),
    Action("vram-simulate", "s", "simulate", "Simulate the step", "Then again: its timeline.", "vram", "simulate"),
    Action("vram-measure", "m", "measure", "Measure it", "Two steps for real, in a process of their own.", "vram"),
    Action("vram-fit", "f", "fit", "Make it fit", "The cheapest set of changes.", "vram", "make it fit"),
    Action("vram-undo", "u", "undo", "Undo the last edit", "As often as you like.", "vram", "undo"),
    Action("vram-gpus", "t", "gpus", "Table of GPUs", "What each could run; choose one.", "vram", "GPUs"),
    Action("vram-plots", "p", "plots", "Plots", "Memory over length, batch, rank.", "vram", "plots"),
    Action("vram-batch", "b", "solve('batch')", "Largest batch that fits", "Sets it.", "vram"),
    Action("vram-sequence", "e", "solve('seq')", "Longest sequence that fits", "Sets it.", "vram"),
    Action("vram-load", "l", "load_plan", "Load this plan", "Load the model as planned here, for Chat.", "vram"),
    Action("vram-money", "d,dollar_sign", "money", "Time and money", "Hours, dollars, rent or API.", "vram"),
    Action("vram-compare", "c", "compare", "Two plans side by side", "This one and another.", "vram"),
    Action("vram-out", "o", "out", "Code, plan file, Markdown", "Copy, save, or open a plan.", "vram"),
    Action("vram-why", "w", "why", "Where the numbers come from", "Rule by rule.", "vram"),
    Action("vram-kept", "h", "kept", "Measurements kept", "All of this box; open one as the plan.", "vram"),
    Action("vram-rules", "r", "rules", "Rules of thumb", "Beside the right numbers.", "vram"),
    Action("vram-find", "slash", "find", "Find a field", "By its name or value.", "vram"),
    Action("vram-reset", "0", "reset", "Reset the plan", "Back to the defaults.", "vram"),
    Action("vram-copy", "y", "copy", "Copy the budget", "Plan and table.", "vram"),
    Action("vram-copy-markdown", "Y", "copy_markdown", "Copy as Markdown", "For an issue.", "vram"),
    Action("vram-stop", "escape", "stop", "Stop what runs", "A simulation, a measurement.", "vram"),
    *_chat(),
)


LIST_KEYS: dict[str, tuple[str, str]] = {
    "list-up": ("up,k", "Row above"),
    "list-down": ("down,j", "Row below"),
    "list-page-up": ("pageup,ctrl+b", "Page up"),
    "list-page-down": ("pagedown,ctrl+f", "Page down"),
    "list-first": ("home,g", "First row"),
    "list-last": ("end,G", "Last row"),
}
"""Moving in any list, by the id for ``[keys]``: keys and what they do."""

EMACS_KEYS = {
    "list-up": "up,k,ctrl+p",
    "list-down": "down,j,ctrl+n",
    "list-page-up": "pageup,alt+v",
    "list-page-down": "pagedown,ctrl+v",
    "list-first": "home,g,alt+less_than_sign",
    "list-last": "end,G,alt+greater_than_sign",
}
"""With ``emacs_keys`` of the settings, where ctrl+p moves up."""
EMACS_PALETTE = "alt+x"


def actions_of(scope: str) -> tuple[Action, ...]:
    """The actions of the app or of one bench."""
    return tuple(action for action in ACTIONS if action.scope == scope)


def bindings_of(scope: str) -> list[Binding]:
    """Key bindings of the app or of one bench."""
    return [action.binding() for action in actions_of(scope) if action.keys]


def unknown_key_settings(keys: dict[str, str]) -> list[str]:
    """One line for each entry of ``[keys]`` that names no action."""
    known = {action.id for action in ACTIONS} | set(LIST_KEYS)
    return [
        f"settings.toml: keys.{name} names no action; see help for their names." for name in keys if name not in known
    ]


def key_clashes(keys: dict[str, str]) -> list[str]:
    """One line for each key that ``[keys]`` gives to an action although the same place has it for something else.

    Textual tells no clash between bindings that have ids.
    """
    found: dict[str, None] = {}
    does = {action.id: action.action for action in ACTIONS}
    for bench in BENCH_TITLES:
        taken: dict[str, list[str]] = {}
        here = [(action.id, action.keys) for action in ACTIONS if action.scope in (APP, bench)]
        here += [(name, default) for name, (default, _) in LIST_KEYS.items()]
        for name, default in here:
            for key in keys.get(name, default).split(","):
                if key.strip():
                    taken.setdefault(key.strip(), []).append(name)
        for key, names in taken.items():
            if len({does.get(name, name) for name in names}) > 1 and any(name in keys for name in names):
                found[f"settings.toml: {key} is the key of {' and '.join(names)}; see [keys]."] = None
    return list(found)
