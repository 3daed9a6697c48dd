"""A judge's prompt templates, one per kind of question, and the reading of its replies."""

import dataclasses
import hashlib
import json
import re
import tomllib
from pathlib import Path

from pivotrl_jax.records import InputError, Question

DEFAULT = Path(__file__).parents[1] / "assets" / "judge.toml"
WINDOW = 200  # characters at a reply's end in which "last" looks for a label
READS = ("first", "last")
_TAG = re.compile(r"</?\w+>")


@dataclasses.dataclass(frozen=True)
class Template:
    """The prompt for one kind of question; assets/judge.toml explains the fields."""

    system: str
    prompt: str
    equal: str  # the label of the verdict "equal"
    different: str
    read: str  # one of READS: which label decides

    def messages(self, question: Question, swapped: bool) -> list[dict]:
        """Chat messages that ask `question`, with gold and actual exchanged if `swapped`.

        A label inside an action is broken up by a space, since the judge might quote it, and so are the tags
        between which the prompt says that data stands: a policy must not be able to write its own verdict.
        """
        gold, actual = question.gold, question.actual
        texts = {"task": question.task, "gold": gold, "actual": actual}
        if swapped:
            texts |= {"gold": actual, "actual": gold}
        # a lone surrogate can be sampled but not sent: it becomes a question mark
        texts = {name: text.encode("utf-8", "replace").decode() for name, text in texts.items()}
        labels = [re.escape(label) for label in (self.equal, self.different)]
        for mark in (*labels, *(f"(?i:{re.escape(tag)})" for tag in _TAG.findall(self.prompt))):
            texts = {
                name: re.sub(mark, lambda m: f"{m[0][0]} {m[0][1:]}", text) for name, text in texts.items()
            }
        # in one pass, so that placeholders in the texts are not filled in
        prompt = re.sub(r"\{(task|gold|actual)\}", lambda m: texts[m[1]], self.prompt)
        system = [{"role": "system", "content": self.system.strip()}] if self.system.strip() else []
        return [*system, {"role": "user", "content": prompt.strip()}]

    def verdict(self, reply: str) -> bool | None:
        """Whether the reply says "equal"; None if it holds no label.

        Labels are case sensitive, and one that contains the other (INCORRECT, CORRECT) is not mistaken for
        it. A reasoning model's thoughts are ignored.
        """
        reply = _answer(reply)
        labels = sorted((self.equal, self.different), key=len, reverse=True)
        matches = list(re.finditer("|".join(map(re.escape, labels)), reply))
        if not matches:
            return None
        at_end = [m for m in matches if m.start() >= len(reply) - WINDOW]
        match = at_end[-1] if self.read == "last" and at_end else matches[0]
        return match[0] == self.equal


def _answer(reply: str) -> str:
    """The reply after the thoughts, if the server left these in the text; "" if they never end."""
    _, end, after = reply.rpartition("</think>")
    if end:
        return after
    return "" if reply.lstrip().startswith("<think>") else reply


def templates_fingerprint(templates: dict[str, Template]) -> str:
    """A hash that changes whenever a prompt, or the reading of replies, changes."""
    text = json.dumps({kind: dataclasses.asdict(t) for kind, t in templates.items()}, sort_keys=True)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def load(path: str = "") -> dict[str, Template]:
    """Templates by kind: the built-in ones, replaced or extended by those of the user's file. Raises
    InputError naming file, kind and field."""
    templates = _read(DEFAULT)
    return templates | _read(Path(path)) if path else templates


def _read(path: Path) -> dict[str, Template]:
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except OSError as e:
        raise InputError(f"{path}: {e.strerror}; config.judge.templates names a TOML file") from None
    except ValueError as e:  # not TOML, not UTF-8
        raise InputError(f"{path}: not valid TOML ({e}); fix it") from None
    return {kind: _template(path, kind, value) for kind, value in values.items()}


def _template(path: Path, kind: str, value: object) -> Template:
    want = [f.name for f in dataclasses.fields(Template)]
    if not isinstance(value, dict) or set(value) != set(want):
        got = sorted(value) if isinstance(value, dict) else value
        raise InputError(f"{path}: [{kind}] has {got}; want {', '.join(want)}")
    if wrong := [name for name in want if not isinstance(value[name], str)]:
        raise InputError(f"{path}: [{kind}] {wrong[0]} is {value[wrong[0]]!r}; want a string")
    t = Template(**value)
    if t.read not in READS:
        raise InputError(f"{path}: [{kind}] read is {t.read!r}; want {' or '.join(map(repr, READS))}")
    if min(len(t.equal), len(t.different)) < 2 or t.equal == t.different:
        raise InputError(f"{path}: [{kind}] the labels are {t.equal!r} and {t.different!r}; want two words")
    if missing := [name for name in ("{gold}", "{actual}") if name not in t.prompt]:
        raise InputError(f"{path}: [{kind}] prompt lacks {' and '.join(missing)}; add what is compared")
    return t
