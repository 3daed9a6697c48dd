"""The report's HTML: safe text, the page around the sections, and the pivot browser.

Everything that came from data passes through `text` (or `clip`) and lands between tags, never inside one. The
page's script is constant and holds no data; the page's own security policy allows that script and what it
adds itself, the files of candidates.py, and no other.
"""

import base64
import hashlib
import html
import json
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pivotrl_jax.records import Message, Pivot, Rollout
from pivotrl_jax.report.style import SCRIPT, STYLE

MAX_PIVOTS = 300
MAX_ACTIONS = 16  # distinct actions shown per pivot
TAIL_MESSAGES = 6

# Bytes of escaped text from data, for all pivots; with markup and plots the page stays under 3 MB.
_PAGE_ROOM = 1_200_000
_PIVOT_ROOM = 24_000  # the same, for one pivot

# Characters that hide, reorder or break text: controls (tab and line feed apart), zero-width and bidi ones,
# lone surrogates, non-characters. They are shown as \uXXXX. Right-to-left letters are text and stay.
_UNSEEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
)


def visible(value: Any) -> str:
    """`value` as a string in which every unseen character is written as its \\uXXXX escape."""
    return _UNSEEN.sub(lambda m: f"\\u{ord(m.group()):04x}", str(value))


def text(value: Any) -> str:
    """`value` as HTML text. Nothing in it can open or close a tag or an attribute."""
    return html.escape(visible(value))


def clip(value: Any, room: int) -> str:
    """`text(value)` cut to about `room` bytes, with a sentence saying how many characters were left out."""
    # Escaping only ever lengthens, so what lies past `room` characters can never be shown.
    value = str(value)
    pieces, used = [], 0
    for count, character in enumerate(value[: room + 1]):
        piece = html.escape(visible(character), quote=False)
        used += len(piece.encode())
        if used > room:
            return "".join(pieces) + f'<i class="cut"> … {len(value) - count:,} more characters</i>'
        pieces.append(piece)
    return "".join(pieces)


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


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A small table of text cells; the first column names its row."""
    out = ['<div class="scroll"><table>']
    if header:
        out.append("<thead><tr>" + "".join(f"<th>{text(h)}</th>" for h in header) + "</tr></thead>")
    out.append("<tbody>")
    for row in rows:
        first, *rest = row or [""]
        cells = "".join(f"<td>{text(c)}</td>" for c in rest)
        out.append(f"<tr><th>{text(first)}</th>{cells}</tr>")
    return "".join(out) + "</tbody></table></div>"


def _marks(rewards: Sequence[float]) -> str:
    return "".join("●" if r >= 1 else "○" if r <= 0 else "◐" for r in rewards[:64])


def grade(reward: float | None) -> str:
    if reward is None:
        return "open"
    return "pass" if reward >= 1 else "part" if reward > 0 else "fail"


def _level(strings: Iterable[str], room: int) -> int:
    """The most bytes each string may take so that all take at most `room`; what short ones do not need goes
    to the long ones."""
    return level_of((len(text(s[:room]).encode()) for s in strings), room)


def level_of(lengths: Iterable[int], room: int) -> int:
    """The same for strings of these lengths."""
    sizes = sorted(lengths)
    for i, size in enumerate(sizes):
        if size * (len(sizes) - i) > room:
            return room // (len(sizes) - i)
        room -= size
    return max(sizes, default=0)


def merge(rollouts: Sequence[Rollout]) -> list[list[Rollout]]:
    """Groups of equal actions: the best reward first, and common actions before rare ones."""
    same: dict[tuple, list[Rollout]] = {}
    for rollout in rollouts:
        key = (rollout.reward, rollout.reason, rollout.details, rollout.text, rollout.finished)
        same.setdefault(key, []).append(rollout)
    return sorted(same.values(), key=_rank)


def _rank(group: Sequence[Rollout]) -> tuple:
    first = group[0]
    return first.reward is None, -(first.reward or 0), -len(group), first.sample


def _action(group: Sequence[Rollout], level: int) -> str:
    first = group[0]
    times = f" <b>×{len(group)}</b>" if len(group) > 1 else ""
    cut = "" if first.finished else " (cut at the token limit)"
    reward = "–" if first.reward is None else f"{first.reward:g}"
    details = f'<div class="why">{clip(first.details, level)}</div>' if first.details else ""
    return (
        f'<div class="action {grade(first.reward)}"><div><b class="reward">{reward}</b>{times} '
        f"<code>{clip(first.reason, 40)}</code>{cut}{details}</div>"
        f'<pre dir="auto">{clip(first.text, level)}</pre></div>'
    )


def _pivot(pivot: Pivot, rollouts: Sequence[Rollout], order: int, room: int) -> str:
    candidate, profile = pivot.candidate, pivot.profile
    kind = "call" if candidate.is_call else "text"
    tail = [(m.get("role", "?"), message_text(m)) for m in candidate.messages[-TAIL_MESSAGES:]]
    gold = message_text(candidate.demonstration)
    merged = merge(rollouts)
    groups, left_out = merged[:MAX_ACTIONS], merged[MAX_ACTIONS:]
    words = [said for _, said in tail] + [gold] + [s for g in groups for s in (g[0].text, g[0].details)]
    level = _level(words, room)

    def note(count: int, what: str) -> str:
        return f'<p class="note">{count} {what}</p>' if count else ""

    prompt = "".join(
        f'<div class="message"><b>{clip(role, 40)}</b><pre dir="auto">{clip(said, level)}</pre></div>'
        for role, said in tail
    )
    actions = "".join(_action(group, level) for group in groups)
    if not actions:
        actions = '<p class="note">No rollouts of this candidate in the working directory.</p>'
    return (
        f'<details class="pivot" data-kind="{kind}" data-mean="{float(profile.mean):.6g}"'
        f' data-order="{order}"><summary><span class="mean">{profile.mean:.2f}</span>'
        f'<span class="kind {kind}">{kind}</span><span class="marks">{_marks(profile.rewards)}</span>'
        f'<span class="gist">{clip(" ".join(gold[:400].split()), 160)}</span></summary><div class="inside">'
        f'<p class="note"><code>{clip(candidate.id, 200)}</code> · turn {int(candidate.turn)} · verifier '
        f"{clip(profile.verifier, 80)} · mean {profile.mean:.3f}, variance {profile.variance:.3f}"
        f"{f' · {int(profile.abstained)} undecided' if profile.abstained else ''}</p>"
        f"<h4>End of the prompt</h4>"
        f"{note(len(candidate.messages) - len(tail), 'earlier messages left out.')}{prompt}"
        f'<h4>Demonstration</h4><pre dir="auto" class="gold">{clip(gold, level)}</pre>'
        f"<h4>Sampled actions</h4>{actions}"
        f"{note(sum(map(len, left_out)), 'further actions left out.')}</div></details>"
    )


def pivot_browser(pivots: Sequence[Pivot], rollouts_of: Callable[[str], Sequence[Rollout]]) -> str:
    """Search box, sort order and one expandable row per pivot; `rollouts_of` takes a candidate id.

    At most MAX_PIVOTS are shown, spread evenly over the file, and the page says how many were left out.
    """
    shown, note = list(pivots), ""
    if len(pivots) > MAX_PIVOTS:
        shown = [pivots[i * len(pivots) // MAX_PIVOTS] for i in range(MAX_PIVOTS)]
        note = (
            f'<p class="note">{len(shown)} of {len(pivots):,} pivots, spread evenly over the file; '
            f"{len(pivots) - len(shown):,} left out.</p>"
        )
    room = min(_PIVOT_ROOM, _PAGE_ROOM // max(1, len(shown)))
    rows = "".join(_pivot(p, rollouts_of(p.candidate.id), i, room) for i, p in enumerate(shown))
    return (
        f'{note}<form id="controls" hidden><label>Filter <input type="search" id="filter" '
        'placeholder="any text: a function, a reason, an id"></label>'
        '<label>Turns <select id="kind"><option value="">all</option><option value="call">call</option>'
        '<option value="text">text</option></select></label>'
        '<label>Sort <select id="sort"><option value="order">as in the file</option>'
        '<option value="up">mean, low to high</option><option value="down">mean, high to low</option>'
        '</select></label><output id="shown"></output></form>'
        '<p class="note">One mark per sampled action: ● full reward, ◐ part, ○ none.</p>'
        f'<div id="pivots">{rows}</div>'
    )


def section(title: str, body: str, lead: str = "") -> str:
    """One section; `title` and `lead` are the program's own words."""
    lead = f'<p class="lead">{lead}</p>' if lead else ""
    return f"<section><h2>{title}</h2>{lead}{body}</section>"


def figure(title: str, svg: str, caption: str = "") -> str:
    """One plot with its title; both are the program's own words."""
    caption = f'<p class="note">{caption}</p>' if caption else ""
    return f"<figure><figcaption>{title}</figcaption>{svg}{caption}</figure>"


def page(title: str, body: str) -> str:
    """The whole document. `title` is data, `body` is finished HTML."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        f"style-src 'unsafe-inline'; script-src 'sha256-{digest}' 'strict-dynamic'; base-uri 'none'; "
        "form-action 'none'\">"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(title)}</title>'
        f"<style>{STYLE}</style></head>\n<body><main>{body}</main>\n<script>{SCRIPT}</script></body></html>\n"
    )
