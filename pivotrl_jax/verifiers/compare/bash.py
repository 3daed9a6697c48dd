"""Do two shell commands of a coding agent do the same? They are compared step by step (steps.py).

The same programs must run in the same order, joined by the same operators, with the same redirections,
variables, operands and flags. Where one might ask, the answer is no: another column, pattern or count,
quoting that expands otherwise, `;` for `&&`. A text that cannot be followed equals only itself.

The exceptions, and why they are safe:
- A path may be written otherwise: `./a`; absolute for relative where that leads to the same file, or, if the
  history does not tell, where it can for a command that only reads or runs it.
- A `cd` of one side only may lead to the directory in which the agent works, as the history says; or
  anywhere, if everything only reads files, and these are the same: `cd src && cat a`, `cat src/a`.
- The order and spelling of known flags, and flags that only change how a shown result looks (flags.py):
  `ls -la` for `ls`, `grep -n`, `pytest -q`. Where the output goes on into a pipe or a file, these count.
- The order of the files of `rm`, `touch`, `git add` and `git rm`; quotes around `.[dev]` of `pip install`.
- The same lines of a file by another tool: `sed -n '1,20p'`, `head -20`, `cat f | head -n 20` (views.py), and
  `cat f | grep x` for `grep x f`.
- A Python program (`-c`, here-document) with other spaces, comments or quotes: its syntax tree decides.
- A time limit of a minute or more around a test run, a search or `pip install`, any around what ends at once,
  and variables that only concern the display (steps.py).
- `env A=1` around a program, `bash -c` around what needs no variables and changes none, `&> a` for
  `> a 2>&1`, `|&` for `2>&1 |`, and `. a` for `source a`.
- `2>&1` where all is shown, `2>/dev/null` of a command that only reads, `| cat`, and `| tail -n 10` (or
  more) after a test run that ends the text.
"""

import re

from pivotrl_jax.records import Message, Verdict
from pivotrl_jax.verifiers.common import show
from pivotrl_jax.verifiers.compare import edits
from pivotrl_jax.verifiers.compare.flags import sort_flags
from pivotrl_jax.verifiers.compare.operands import (
    Directories,
    compare_arguments,
    discards,
    ends_alike,
    name_of,
    no,
    only_reads,
    same_file,
    same_program,
)
from pivotrl_jax.verifiers.compare.paths import at, is_workplace, known_directory, normal_path
from pivotrl_jax.verifiers.compare.shell import Redirect
from pivotrl_jax.verifiers.compare.steps import Script, Step, needs_own_shell, script
from pivotrl_jax.verifiers.compare.views import shown

TEST_RUNS = {"pytest", "tox", "nox"}
MIN_LIMIT = 60  # seconds; a limit of less may cut a run short
MIN_TAIL = 10  # lines of a test run's output that hold its summary
_ENDS = {*TEST_RUNS, "pip install", *"find grep rg du tree sort".split()}
_QUICK = set("ls cat head nl wc df uniq cut diff file stat sed".split())  # end at once
_EDIT = re.compile(r"edit (\d{1,7}:\d{1,7})\n")
_END_OF_EDIT = "end_of_edit"
_TAIL = re.compile(r"-(?:n ?)?(\d{1,6})")

Pipeline = list[Step]


# ---- the text in pipelines, and where it runs


def _cut(pipeline: Pipeline) -> Pipeline:
    """A pipeline without a last command that only cuts what is shown of a test run, or pages nothing."""
    if len(pipeline) < 2 or pipeline[-1].joined != "|" or pipeline[-1].redirects or pipeline[-1].env:
        return pipeline
    last = pipeline[-1]
    count = _TAIL.fullmatch(" ".join(word.form for word in last.words)) if last.name == "tail" else None
    if count and int(count[1]) >= MIN_TAIL and name_of(pipeline[-2]) in TEST_RUNS:
        return pipeline[:-1]
    return pipeline[:-1] if last.name == "cat" and not last.words and pipeline[-2].name == "git" else pipeline


def _pipelines(steps: tuple[Step, ...], is_list: bool) -> list[Pipeline]:
    found: list[Pipeline] = []
    for step in steps:
        if step.joined in ("|", "|&") and found:
            found[-1].append(step)
        else:
            found.append([step])
    found = [_with_file(pipeline) for pipeline in found] if is_list else found
    return [*found[:-1], _cut(found[-1])] if found and is_list else found


def _with_file(pipeline: Pipeline) -> Pipeline:
    """A pipeline that begins with `cat a | grep x` as one with `grep x a`, which finds the same."""
    if len(pipeline) < 2 or (pipeline[0].name, pipeline[1].name) != ("cat", "grep"):
        return pipeline
    (cat, grep), rest = pipeline[:2], pipeline[2:]
    flags = sort_flags("grep", [word.form for word in grep.words])
    plain = len(cat.words) == 1 and cat.words[0].literal and cat.words[0].form[:1] != "-"
    if not plain or cat.env or cat.redirects or grep.env or flags is None or grep.joined != "|":
        return pipeline
    letters = {flag for flag, _ in flags.flags}
    named = letters & {*"HlLrRf"} or len(flags.operands) != 1  # these show the name, or read another file
    if named or any("<" in r.operator for r in grep.redirects):
        return pipeline
    return [grep._replace(joined=cat.joined, words=(*grep.words, cat.words[0])), *rest]


def _without_cd(found: Script, workdir: str | None) -> tuple[str | None, str, Script]:
    """(the directory to which the text changes first or is sent, how the rest is joined, the rest)."""
    if len(found.steps) < 2:
        return workdir, "&&", found
    first, second = found.steps[:2]
    moves = first.name == "cd" and not first.joined and not first.env and not first.redirects
    if not moves or second.joined not in ("&&", ";") or len(first.words) != 1 or not first.words[0].literal:
        return workdir, "&&", found
    there = normal_path(first.words[0].text)
    there = normal_path(f"{workdir}/{there}") if workdir and not there.startswith(("/", "~")) else there
    return there, second.joined, found._replace(steps=(second._replace(joined=""), *found.steps[2:]))


def _directories(
    gold: tuple[str | None, str], actual: tuple[str | None, str], messages: list[Message], reads: bool
) -> Directories | Verdict:
    """Where the commands run, whose texts begin with a change to (directory, how the rest is joined)."""
    known = known_directory(messages)
    wanted, found = gold[0], actual[0]
    if wanted is not None and found is not None:
        if not same_file(wanted, found, Directories(known), reads):
            return no("operands", f"cd: {show(found)}, want {show(wanted)}")
        if gold[1] != actual[1]:
            return no("operators", f"cd is joined by {show(actual[1])}, want {show(gold[1])}")
        return Directories(next((d for d in (wanted, found) if d.startswith("/")), None))
    one = wanted if wanted is not None else found
    if one is None or is_workplace(one, messages):
        return Directories(known if one is None or not one.startswith("/") else one)
    return Directories(apart=tuple(known if there is None else at(there, known) for there in (wanted, found)))


# ---- one command


def _silent(step: Step, is_shown: bool) -> tuple[Redirect, ...]:
    """The redirections without those that only decide which messages are shown."""
    if is_shown and [(r.operator, r.target.form) for r in step.redirects] == [("2>&", "1")]:
        return ()
    if sum("2" in r.operator or "&" in r.operator for r in step.redirects) > 1:
        return step.redirects  # in 2>&1 2>/dev/null the last one decides
    return tuple(r for r in step.redirects if not (discards(r) and only_reads(step)))


def _same_document(gold: Redirect, actual: Redirect, step: Step) -> bool:
    want, got = gold.target, actual.target
    if want.form == got.form:
        return True
    if not (want.literal and got.literal) or want.form[:2] != got.form[:2]:
        return False  # expanded, or still open
    if step.name == "python" and (not step.words or step.words[0].form == "-"):
        return same_program(want.text, got.text)
    written = _written(step)
    return bool(written) and edits.compare_text(want.text, got.text, written) is None


def _written(step: Step) -> str:
    """The file that `cat > file` or `tee file` writes anew; "" for other commands."""
    files = [r.target.text for r in step.redirects if r.operator == ">"]
    if step.name == "cat" and not step.words and len(files) == 1:
        return files[0]
    return step.words[0].text if step.name == "tee" and len(step.words) == 1 and not files else ""


def _compare_redirects(gold: Step, actual: Step, where: Directories, is_shown: bool) -> Verdict | None:
    both = [_silent(step, is_shown) for step in (gold, actual)]
    if [r.operator for r in both[0]] != [r.operator for r in both[1]]:
        return no("redirect", f"redirects {show(_spoken(both[1]))}, want {show(_spoken(both[0]))}")
    for want, got in zip(*both):
        if want.operator == "<<":
            if not _same_document(want, got, gold):
                verdict = edits.compare_text(want.target.form, got.target.form, _written(gold))
                return no("heredoc", verdict.details if verdict else "the contents are expanded otherwise")
        elif want.operator == "<<<" or "&" in want.operator:
            if want.target.form != got.target.form:
                return no("redirect", f"{show(got.target.form)}, want {show(want.target.form)}")
        elif not same_file(want.target.form, got.target.form, where, reads=False):
            return no("redirect", f"to {show(got.target.form)}, want {show(want.target.form)}")
    return None


def _spoken(redirects: tuple[Redirect, ...]) -> list[str]:
    return [f"{r.operator}{r.target.form[:40]}" for r in redirects]


def _patch(step: Step) -> str | None:
    """The patch that `apply_patch` is given."""
    texts = [r.target for r in step.redirects if r.operator in ("<<", "<<<")] or list(step.words)
    return texts[0].text if len(texts) == 1 and texts[0].literal else None


def _beside(step: Step) -> list[tuple[str, str]]:
    """The redirections besides the patch."""
    return [(r.operator, r.target.form) for r in step.redirects if r.operator not in ("<<", "<<<")]


def _may_be_limited(*steps: Step) -> bool:
    """Whether the commands end by themselves, and have time to: a server may be meant to be stopped."""
    if steps[0].name in _QUICK:
        return True
    return name_of(steps[0]) in _ENDS and all(s.limit is None or s.limit >= MIN_LIMIT for s in steps)


def _compare_step(gold: Step, actual: Step, where: Directories, is_shown: bool) -> Verdict | None:
    if gold.env != actual.env:
        return no("variables", f"sets {show(actual.env)}, want {show(gold.env)}")
    if gold.limit != actual.limit and not _may_be_limited(gold, actual):
        return no("time_limit", f"{show(actual.limit)} seconds, want {show(gold.limit)}")
    if gold.name == actual.name == "apply_patch" and where.apart is None:
        patches = [_patch(gold), _patch(actual)]
        if None not in patches and _beside(gold) == _beside(actual):
            return edits.compare_files(*patches, where.common) or edits.compare_patch(*patches)
    verdict = _compare_redirects(gold, actual, where, is_shown)
    is_shown = is_shown and not any(">" in r.operator for r in _silent(gold, is_shown))
    return verdict or compare_arguments(gold, actual, where, is_shown)


# ---- whole texts


def runs_briefly(text: str) -> bool:
    """Whether a text runs only what ends at once, so that a time limit hardly matters."""
    found = script(text)
    return found is not None and all(step.name in {*_QUICK, "cd"} for step in found.steps)


def _compare_edit(gold: str, actual: str) -> Verdict | None:
    """SWE-agent's `edit 10:12`, typed into the shell."""
    lines = [_EDIT.match(text) for text in (gold, actual)]
    if lines[1] is None or lines[0][1] != lines[1][1]:
        return no("range", "edits other lines, or none")
    texts = [text[line.end() :].rstrip() for line, text in zip(lines, (gold, actual))]
    if texts[0].endswith(_END_OF_EDIT) != texts[1].endswith(_END_OF_EDIT):
        return no("incomplete", f"only one of the two ends with {_END_OF_EDIT}")
    return edits.compare_lines(*(text.removesuffix(_END_OF_EDIT) for text in texts))


def _view(pipeline: Pipeline) -> tuple | None:
    """(the file, its lines) that a pipeline shows, if that is all it does."""
    plain = all(not step.env and not _silent(step, True) for step in pipeline)
    return shown([(step.name, step.words) for step in pipeline]) if plain else None


Views = list[tuple | None]  # for each pair of pipelines: what both show, or None


def _views(gold: list[Pipeline], actual: list[Pipeline]) -> Views:
    pairs = ((_view(want), _view(got)) for want, got in zip(gold, actual))
    return [pair if all(pair) else None for pair in pairs]


def _compare_shape(gold: list[Pipeline], actual: list[Pipeline], views: Views) -> Verdict | None:
    """Compare which programs run, and what joins them. Two views may be other programs."""
    names, joins = [], []
    for pipelines in (gold, actual):
        viewed = [i < len(views) and views[i] is not None for i in range(len(pipelines))]
        names.append([name_of(step) for p, is_view in zip(pipelines, viewed) if not is_view for step in p])
        joins.append([s.joined for p, is_view in zip(pipelines, viewed) for s in (p[:1] if is_view else p)])
    if names[0] != names[1]:
        return no("head", f"runs {show(names[1])}, want {show(names[0])}")
    if joins[0] != joins[1]:
        return no("operators", f"joined by {show(joins[1])}, want {show(joins[0])}")
    return None


def _compare_views(views: Views, where: Directories, arguments: bool) -> Verdict | None:
    for want, got in filter(None, views):
        same = ends_alike(want[0], got[0]) and same_file(want[0], got[0], where, reads=True)
        if arguments and not same:
            return no("operands", f"shows {show(got[0])}, want {show(want[0])}")
        if want[1] != got[1]:
            return no("range", f"shows lines {show(tuple(got[1]))}, want {show(tuple(want[1]))}")
    return None


def compare(
    gold: tuple[str, str | None], actual: tuple[str, str | None], messages: list[Message], arguments: bool
) -> Verdict | None:
    """Compare the (command, working directory) of two calls that follow `messages`; None if they do the same.

    Without `arguments`, only the names of commands, what joins them, their directory and the lines that
    they show are compared.
    """
    if gold[0].strip("\n") == actual[0].strip("\n") and gold[1] == actual[1]:
        return None
    if _EDIT.match(gold[0]):
        return _compare_edit(gold[0], actual[0])
    scripts = script(gold[0]), script(actual[0])
    if None in scripts:
        which = "demonstrated" if scripts[0] is None else "given"
        return no("unreadable", f"the {which} command cannot be followed and is not the same text")
    if not scripts[1].steps:
        return no("incomplete", "no command")
    if scripts[0].wrapped != scripts[1].wrapped and any(map(needs_own_shell, scripts)):
        return no("head", "one of the two runs in a shell of its own")
    is_list = all(found.is_list for found in scripts)
    moved = [_without_cd(found, workdir) for found, (_, workdir) in zip(scripts, (gold, actual))]
    reads = all(only_reads(step) for _, _, found in moved for step in found.steps)
    where = _directories(moved[0][:2], moved[1][:2], messages, reads)
    both = [_pipelines(found.steps, is_list) for _, _, found in moved]
    views = _views(*both) if is_list and len(both[0]) == len(both[1]) else []
    verdict = _compare_shape(*both, views)
    if verdict is None and moved[0][2].end != moved[1][2].end:  # left to run in the background
        verdict = no("operators", f"ends in {show(moved[1][2].end)}, want {show(moved[0][2].end)}")
    if verdict is not None or isinstance(where, Verdict):
        return verdict or where
    if where.apart is not None and not arguments:
        return no("head", f"runs in {show(where.apart[1])}, want {show(where.apart[0])}")
    moves = any(step.name in ("cd", "pushd", "popd") for _, _, found in moved for step in found.steps[:-1])
    where = where._replace(moves=moves)
    verdict = _compare_views(views, where, arguments)
    for i, (wanted, found) in enumerate(zip(*both)):
        viewed = i < len(views) and views[i] is not None
        for want, got in zip(wanted, found):
            if verdict is None and not viewed and (arguments or want.name == "cd"):
                verdict = _compare_step(want, got, where, is_list and want is wanted[-1])
    return verdict
