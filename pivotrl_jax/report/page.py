"""The report's HTML: templates in assets/report/, and what makes text from data safe to show.

Every value goes through jinja2's autoescape, and unseen characters in it are written out. The page's one
script is constant and holds no data: what it shows comes from a block of JSON in the page, or from the files
of candidates.py, and it makes text nodes of that. The page's security policy allows that script and what it
adds itself, and no other.
"""

import base64
import functools
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup

from pivotrl_jax.records import Message

ASSETS = Path(__file__).parents[1] / "assets" / "report"
GENERATOR = "pivotrl_jax report"  # how a page says that this program wrote it

# Characters that hide, reorder or break text: controls (tab and line feed apart), zero-width and bidi ones,
# lone surrogates, non-characters. They are shown as \uXXXX. Right-to-left letters are text and stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)


def visible(value: Any) -> str:
    """`value` as a string in which every unseen character is written as its \\uXXXX escape."""
    return _UNSEEN.sub(lambda m: f"\\u{ord(m.group()):04x}", str(value))


def clip(value: Any, room: int) -> str:
    """`value` cut to `room` characters, saying how many were left out."""
    text = str(value)
    return text if len(text) <= room else f"{text[:room]} … {len(text) - room:,} more characters"


def _json(value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        return repr(value)


def message_text(message: Message) -> str:
    """A chat message for people: thinking, content, then one line `name(argument=value, ...)` per call."""
    lines = []
    if message.get("reasoning_content"):
        lines.append(f"<think>{message['reasoning_content']}</think>")
    if message.get("content"):
        content = message["content"]
        lines.append(content if isinstance(content, str) else _json(content))
    for call in message.get("tool_calls") or []:
        function = call.get("function", {}) if isinstance(call, dict) else {}
        arguments = function.get("arguments")
        if isinstance(arguments, dict):
            inside = ", ".join(f"{name}={_json(value)}" for name, value in arguments.items())
        else:
            inside = _json(arguments)
        lines.append(f"{function.get('name', '?')}({inside})")
    return "\n".join(lines) or "(empty)"


# ---- templates


def _written(value: Any) -> Any:
    return value if isinstance(value, Markup) else visible(value)


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(ASSETS),
        autoescape=True,
        finalize=_written,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(name: str, **values: Any) -> Markup:
    """A template of assets/report/ with these values."""
    return Markup(_environment().get_template(f"{name}.html").render(values))


def asset(name: str) -> str:
    """A file of assets/report/."""
    return (ASSETS / name).read_text("utf-8")


def join(parts: Iterable[Markup]) -> Markup:
    """Finished pieces, one after another."""
    return Markup("").join(parts)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]], wide: bool = False) -> Markup:
    """A small table of text cells; the first column names its row. `wide`: cells are sentences, which a
    narrow screen must not squeeze."""
    return render("table", header=header, rows=[list(row) or [""] for row in rows], wide=wide)


def figure(title: str, svg: str, caption: str = "") -> Markup:
    """One plot with its title. `svg` is made by plots.py."""
    return render("figure", title=title, svg=Markup(svg), caption=caption)


def figures(drawn: Iterable[Markup]) -> Markup:
    """Plots side by side."""
    return Markup('<div class="plots">{}</div>').format(join(drawn))


def more(title: str, body: Markup) -> Markup:
    """What is shown when it is opened."""
    return Markup('<details class="more"><summary>{}</summary>{}</details>').format(title, body)


def titled(title: str, body: Markup) -> Markup:
    """A part of a section."""
    return Markup("<div><h4>{}</h4>{}</div>").format(title, body)


def lead(words: str) -> Markup:
    """A sentence under a heading."""
    return Markup('<p class="lead">{}</p>').format(visible(words))


def missing(file: str) -> Markup:
    """In the place of what needs a file."""
    return lead(f"Left out: there is no {file} in this directory.")


def section(title: str, body: Markup, words: str = "") -> Markup:
    """One section, with a sentence under its heading."""
    return render("section", title=title, body=body, lead=words)


def page(title: str, body: Markup) -> str:
    """The whole document."""
    script = asset("report.js")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    style, script = Markup(asset("report.css")), Markup(script)
    return str(
        render("page", title=title, body=body, style=style, script=script, digest=digest, generator=GENERATOR)
    )
