"""The tools of coding agents (SWE-agent, OpenHands, mini-swe-agent, Codex, OpenCode and others) in one form.

    str_replace_editor {"command": "str_replace", "path": "a.py", "old_str": "x", "new_str": "y"}
    edit {"filePath": "a.py", "oldString": "x", "newString": "y"}

are both Operation("edit", "replace", path="a.py", old="x", new="y"). A tool's family follows from its name,
and what an editor does from its arguments. Tools outside these families are not normalised.
"""

import dataclasses
import math
import re
import shlex
from typing import Any

from pivotrl_jax.chat.dialects.base import types_of
from pivotrl_jax.records import Call, InputError
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare.arguments import as_object
from pivotrl_jax.verifiers.compare.paths import WHOLE, Lines, as_int, as_lines

# the names that the released verifier knows
CATEGORIES = {
    "edit": "str_replace_editor text_editor file_editor code_editor edit_file modify_file update_file "
    "file_edit edit modify apply_patch patch_file apply_diff apply_changes write write_file save_file "
    "create_file",
    "bash": "execute_bash run_bash bash_exec shell_run shell bash terminal shell_command shell_cmd "
    "run_shell_cmd exec_command exec_cmd",
    "search": "grep search_text find_pattern text_search glob find_files file_glob match_files grep_files "
    "search_files find_in_files code_search list_dir ls show_dir ls_dir list_directory",
    "read": "read read_file view_file cat_file view file_view inspect show_file read_file_content",
    "finish": "finish submit",
    "think": "think",
    "planning": "task_tracker todo_tracker plan_tracker todo_read todo_write update_plan list_tasks "
    "update_tasks read_todos write_todos edit_plan modify_plan",
}

# names that it does not know
_MORE = {
    "edit": "str_replace_based_edit_tool string_replace_editor editor create insert multi_edit multiedit "
    "replace str_replace replace_in_file replace_file_content undo_edit",
    "bash": "run_command run_terminal_cmd run_in_terminal run_shell_command execute_command local_shell "
    "container_exec shell_exec",
    "search": "find_file search_dir search_file search find list search_file_content ripgrep rg",
    "read": "open open_file cat",
    "finish": "attempt_completion task_done complete",
    "planning": "todowrite todoread",
}

FAMILIES = {
    name.replace("_", ""): family
    for table in (CATEGORIES, _MORE)
    for family, names in table.items()
    for name in names.split()
}

PATHS = ("path", "file_path", "filePath", "filename", "file", "file_name", "absolute_path", "target_file")
DIRECTORIES = ("path", "dir", "directory", "dir_path", "directory_path", "root", "file", "file_path")
OLD = ("old_str", "old_string", "oldString", "old_text", "search", "old")
NEW = ("new_str", "new_string", "newString", "new_text", "replace", "replacement_text", "replacement", "new")
CONTENT = ("content", "file_text", "contents", "fileText", "text")
PATCHES = ("patch", "diff", "input")
COMMANDS = ("command", "cmd")
WORKDIRS = ("workdir", "cwd", "working_directory")
PATTERNS = ("pattern", "search_term", "query", "regex", "file_name", "glob", "name")

# one of these tells a tool of a family from another one of that name
_NEEDS = {
    "edit": {*PATHS, *PATCHES, "command", "start_line"},
    "bash": {*COMMANDS},
    "search": {*PATTERNS, *DIRECTORIES},
    "read": {*PATHS},
}

LOOKS = ("view", "search", "find", "list")  # kinds of calls that change nothing

EDITOR = {
    "view": "view",
    "create": "create",
    "str_replace": "replace",
    "insert": "insert",
    "undo_edit": "undo",
}


# arguments for people or for a sandbox: they do not change what is done to the repository
_REMARKS = {"security_risk", "thought", "thoughts", "explanation", "reasoning", "summary"}
FREE = {
    **dict.fromkeys(("edit", "search", "read"), _REMARKS),
    "bash": _REMARKS
    | {"description", "justification", "yield_time_ms", "max_output_tokens", "sandbox_permissions"}
    | {"with_escalated_permissions", "login"},
    "think": _REMARKS | {"content", "text"},
    "finish": _REMARKS | {"message"},
    "planning": _REMARKS | {"plan", "todos", "task_list", "tasks", "description"},
}

LIMITS = {"timeout": 1, "timeout_ms": 1000, "timeoutMs": 1000}  # -> parts of a second

# what the known tools do where these are left out
_DEFAULTS = {
    **dict.fromkeys(
        "replace_all replaceAll allow_multiple multiline -i run_in_background is_background".split(), False
    ),
    **dict.fromkeys(("background", "is_input", "tty", "restart"), False),
    "expected_replacements": 1,
    "chars": "",
}


def is_default(name: str, value: Any, schema: Any = None) -> bool:
    """Whether an argument says what leaving it out says; `schema` is its own. Null says more where it is
    allowed and the default is something else."""
    declared = as_object(schema).get("default")
    if value is None:
        return declared is None or "null" not in types_of(schema)
    if isinstance(value, str) and name == "is_input":
        value = value == "true"  # OpenHands writes it as a string
    defaults = [default for default in (declared, _DEFAULTS.get(name)) if default is not None]
    return any(type(value) is type(d) and value == d for d in defaults[:1])


@dataclasses.dataclass(frozen=True)
class Operation:
    """What one call does. A field is None where the call does not give it."""

    family: str
    kind: str  # "view", "create", "replace", "insert", "lines", "undo", "patch", "bash", "search", ...
    path: str | None = None
    lines: Lines | None = None  # viewed or replaced; for an insertion, its line as both ends
    old: str | None = None
    new: str | None = None  # the inserted text, a whole file, or a patch
    command: str | None = None
    workdir: str | None = None
    pattern: str | None = None
    rest: dict = dataclasses.field(default_factory=dict)  # the other arguments
    problem: str = ""  # what is wrong with an argument that cannot be read
    limit: float | None = None  # seconds that a command may take


def family(name: str) -> str:
    """The family of a tool, "" for none. Case, `_` and `-` are ignored."""
    return FAMILIES.get(name.lower().replace("_", "").replace("-", ""), "") if len(name) < 100 else ""


class _Arguments:
    """Arguments that are taken one by one, and the first problem found with them."""

    def __init__(self, given: dict, kind: str):
        free = FREE.get(kind, ())
        self.rest = {name: value for name, value in given.items() if value is not None and name not in free}
        self.problem = ""

    def take(self, names: tuple[str, ...]) -> Any:
        name = next((name for name in names if name in self.rest), None)
        return None if name is None else self.rest.pop(name)

    def text(self, names: tuple[str, ...]) -> str | None:
        value = self.take(names)
        if value is None or isinstance(value, str):
            return value
        self.problem = self.problem or f"{names[0]} is a {type(value).__name__}, want a string"
        return None

    def number(self, names: tuple[str, ...]) -> int | None:
        value = self.take(names)
        number = as_int(value)
        if value is not None and number is None:
            self.problem = self.problem or f"{names[0]} is not a line number"
        return number

    def limit(self) -> float | None:
        name = next((name for name in LIMITS if name in self.rest), None)
        seconds = as_int(self.rest.get(name))
        if name is None or seconds is None or seconds <= 0:
            return None  # what cannot be read stays among the other arguments
        del self.rest[name]
        return seconds / LIMITS[name]

    def command(self) -> str | None:
        """A shell text, or a list of words: ["bash", "-lc", "ls"]."""
        name = next((name for name in COMMANDS if isinstance(self.rest.get(name), list)), None)
        if name is None:
            return self.text(COMMANDS)
        words = self.rest.pop(name)
        if all(isinstance(word, str) for word in words):
            return shlex.join(words)
        self.problem = self.problem or "the command holds something that is not a string"
        return None

    def lines(self) -> Lines | None:
        """The lines viewed, in any of the tools' notations; None if the call names none."""
        if "view_range" in self.rest:
            value = self.rest.pop("view_range")
            found = WHOLE if value in ([], "") else as_lines(value)
            if found is None:
                self.problem = self.problem or "view_range is not a range of lines"
            return found
        first = self.number(("offset", "start_line", "startLine", "line_number", "start"))
        count = self.number(("limit", "num_lines", "max_lines"))
        last = self.number(("end_line", "endLine", "end"))
        if first is None and count is None and last is None:
            return None
        first = max(first or 1, 1)
        last = first + count - 1 if last is None and count is not None else last
        if last is not None and last < first and last != -1:
            self.problem = self.problem or "the range of lines is empty"
        # tools read 2000 lines by default: the whole of most files
        open_end = last is None or last == -1 or (first == 1 and last >= 2000)
        return Lines(first, None if open_end else last)

    def all(self, **parts: Any) -> Operation:
        return Operation(rest=self.rest, problem=self.problem, **parts)


def _edit(name: str, given: _Arguments) -> Operation:
    command = given.rest.get("command")
    if command is not None:  # the sub-command of an editor
        given.rest.pop("command")
        kind = EDITOR.get(command, f"editor {command[:40]}") if isinstance(command, str) else "editor"
    elif any(key in given.rest for key in PATCHES):
        kind = "patch"
    elif "start_line" in given.rest and any(key in given.rest for key in NEW):
        kind = "lines"
    elif any(key in given.rest for key in OLD):
        kind = "replace"
    elif any(key in given.rest for key in ("insert_line", "line")):
        kind = "insert"
    else:
        undo = name.lower().startswith("undo")
        kind = "undo" if undo else "create"
    if kind == "patch":
        return given.all(family="edit", kind=kind, new=given.text(PATCHES), path=given.text(PATHS))
    path = given.text(PATHS)
    if kind == "view":
        return given.all(family="edit", kind=kind, path=path, lines=given.lines() or WHOLE)
    if kind == "create":
        return given.all(family="edit", kind=kind, path=path, new=given.text(CONTENT))
    if kind == "replace":
        old, new = given.text(OLD), given.text(NEW)
        # replacing by nothing deletes
        return given.all(family="edit", kind=kind, path=path, old=old, new=new or ("" if old else new))
    if kind == "insert":
        at = given.number(("insert_line", "line", "line_number"))
        lines = None if at is None else Lines(at, at)
        return given.all(family="edit", kind=kind, path=path, lines=lines, new=given.text((*NEW, *CONTENT)))
    if kind == "lines":
        return given.all(family="edit", kind=kind, path=path, lines=given.lines(), new=given.text(NEW))
    return given.all(family="edit", kind=kind, path=path)


def _searches(name: str) -> str:
    """What a tool does: "list" a directory, "find" files by name, or "search" their text."""
    name = name.lower().replace("_", "").replace("-", "")
    if re.search("grep|text|content|code|infiles|pattern|searchdir|rg", name):
        return "search"
    if re.search("^ls|^list|showdir", name):
        return "list"
    return "find" if re.search("glob|find|match", name) else "search"


def operation(call: Call) -> Operation | None:
    """What a call does; None for a tool of no family, and for one that has its name from a family but none of
    its arguments: create(title=...). `call.arguments` is an object; never raises.
    """
    kind = family(call.name)
    if call.arguments and call.arguments.keys().isdisjoint(_NEEDS.get(kind, call.arguments)):
        return None
    given = _Arguments(call.arguments, kind)
    if kind == "edit":
        return _edit(call.name, given)
    if kind == "bash":
        return given.all(
            family=kind, kind=kind, command=given.command(), workdir=given.text(WORKDIRS), limit=given.limit()
        )
    if kind == "read":
        return given.all(family=kind, kind="view", path=given.text(PATHS), lines=given.lines() or WHOLE)
    if kind == "search":
        # the pattern first: find_file's file_name is what it looks for
        pattern = given.text(PATTERNS)
        does = _searches(call.name)
        return given.all(family=kind, kind=does, pattern=pattern, path=given.text(DIRECTORIES))
    if kind == "planning":
        command = given.rest.get("command")
        does = "view plan" if re.search("read|list|view", call.name, re.IGNORECASE) else "plan"
        return given.all(family=kind, kind=f"{does} {command[:40]}" if isinstance(command, str) else does)
    return given.all(family=kind, kind=kind) if kind else None


@dataclasses.dataclass(frozen=True)
class TargetConfig:
    """The options of NeMo Gym's server for coding agents, under its names."""

    reward_mode: str = "binary"
    enable_target_match: bool = True
    enable_argument_similarity: bool = True
    similarity_threshold: float = 0.4
    similarity_full_credit: float = 0.8
    enable_diff_size_shaping: bool = True
    diff_size_alpha: float = 0.1


def read_config(case: dict) -> TargetConfig:
    """`case["config"]` over the released defaults; keys other than these options are ignored. Raises
    InputError for a value of the wrong type.
    """
    given = case.get("config")
    if given is None:
        return TargetConfig()
    if not isinstance(given, dict):
        raise InputError(f'"config" of the case is {show(given)}; want an object')
    options = {}
    for option in dataclasses.fields(TargetConfig):
        value = given.get(option.name, option.default)
        kind = (int, float) if option.type is float else option.type
        right = isinstance(value, kind) and isinstance(value, bool) == (option.type is bool)
        if not right or (option.type is float and not math.isfinite(value)):
            raise InputError(f'"{option.name}" of the config is {show(value)}; want a {option.type.__name__}')
        options[option.name] = value
    return TargetConfig(**options)
