"""The forms in which calls are written in a text, one file per family; base.py says what a dialect is.

DIALECTS is the table; `read` reads a text in one of them, `attempted_call` finds a call in any other form.
"""

import re
from collections import Counter
from collections.abc import Iterable

from pivotrl_jax.chat.dialects import plain, tags, tokens
from pivotrl_jax.chat.dialects.base import Dialect, Schemas, TextCalls

DIALECTS: dict[str, Dialect] = {d.name: d for d in (*tags.DIALECTS, *tokens.DIALECTS, *plain.DIALECTS)}
HERMES = "hermes"


def read(text: str, dialect: str, schemas: Schemas) -> TextCalls:
    """What a text says and calls in a dialect, which is a key of DIALECTS. Never raises on any text."""
    return DIALECTS[dialect].read(text, schemas)


# marks of calls in forms that are not read
_CLINE = (
    "read_file|write_to_file|execute_command|list_files|search_files|replace_in_file|use_mcp_tool"
    "|access_mcp_resource|ask_followup_question|attempt_completion|apply_diff|new_task|switch_mode|browser_action"
    "|list_code_definition_names|insert_content|search_and_replace|codebase_search|update_todo_list"
)
_SEARCHES = "web_search|wiki_search|crawl_page|codemode"
_FOREIGN = re.compile(
    r"<TOOL_CALL>|<tool_call [^>\n]{0,80}>|<\|tool_call_start\|>|<start_function_call>"
    r"|<\|action_start\|>|<\|START_ACTION\|>|｜DSML｜|<invoke>|<function name=|<function_calls?>"
    r"|<tool_use>|✿FUNCTION✿|<execute>|<execute_browse>|<interpreter>|<end_code>|<seed:tool_call>"
    r"|\"action_input\"\s*:|\"tool_calls\"\s*:\s*\[|\bfunctools\[\s*\{"
    rf"|^[ \t]*<(?:{_CLINE})>|^[ \t]*<search>[^<\n]{{1,400}}</search>"
    r"|^<code>[ \t]*$|<tool_input>|<(?:call|API|api|tool|function)>\s*[A-Za-z_][\w.]{0,127}\s*(?:\(|</)"
    r"|^Action:[ \t]*(?:Operation|Answer)[ \t]*$|^Code:[ \t]*\n```py"
    r"|<keystrokes[ >]|<response>\s{0,9}<analysis>|<\|begin_(?:search_|of_)query\|>|<\|tools_prefix\|>"
    rf"|(?:^|>)[ \t]*<(?:{_SEARCHES})>|<(?:{_SEARCHES})>[^<\n]{{1,400}}</|^API-Request:[ \t]*\["
    r"|^Tool:[^\n]{1,128}\n\s{0,9}Tool Input:|^Function:[ \t]*[\w.]{1,128}[ \t]*\n[ \t]*Arguments:[ \t]*\{"
    r"|```python\n[ \t]*tool_call\(",
    re.MULTILINE,
)
# a call as JSON, whatever its names are called
_JSON_CALL = re.compile(
    r'\{\s*"(?:name|tool|tool_name|function|function_name|action)"\s*:\s*"[^"\n]{1,128}"\s*,'
    r'\s*"(?:arguments|args|parameters|tool_args|tool_input|tool_arguments|kwargs)"\s*:'
    r'|\{\s*"type"\s*:\s*"function"\s*,\s*"function"\s*:\s*\{\s*"name"\s*:|\{\s*"function_call"\s*:\s*\{'
)
_NAMED = re.compile(r'"(?:name|tool|tool_name|function|function_name|action)"\s*:\s*"([^"\n]{1,128})"')
# a text that is one call in Python: f(a="b")
_PYTHON_CALL = re.compile(r"\A\s*[A-Za-z_][\w.]{0,127}\([ \t]*\w{1,64}[ \t]*=[ \t]*[\"'\[{\d].*\)\s*\Z")

# actions in a browser or on a screen: ```click [12]```, <action>fill('12', 'x')</action>, Action: TYPE
_VERBS = (
    "click|dblclick|double_click|left_click|right_click|hover|fill|type|press|scroll|goto|go_back|go_forward"
    "|select_option|drag_and_drop|upload_file|tab_focus|new_tab|close_tab|stop|noop|send_msg_to_user"
    "|report_infeasible"
)
_BROWSES = re.compile(
    rf"next action I will perform is\s{{0,9}}```|^[ \t]*```\n?[ \t]*(?:{_VERBS}) \["
    rf"|^[ \t]*```(?:{_VERBS})\([^\n]{{0,2000}}\)```\s*\Z|```\n[ \t]*(?:{_VERBS})\([\"'][A-Za-z]?\d+[\"']"
    rf"|\A\s*(?:{_VERBS})(?:\([^\n]{{0,2000}}\)| \[[^\n]{{0,2000}}\])\s*\Z"
    r"|^<action>(?:[^<]{1,2000}</action>|\s{0,9}\w{1,128}[ \t]*[(\[])"
    rf"|^(?:Action|ACTION):[ \t]*(?:\w{{1,128}}\((?:[\"'\d)]|\w{{1,64}}=)|(?i:{_VERBS}) \[\d"
    r"|(?:CLICK|TYPE|SELECT)\b)"
    r"|^(?:#{1,6} )?Code:?[ \t]*\n\n?```(?:python|code)\n(?:pyautogui|computer)\.\w{1,64}\("
    r"|^(?:do\(action|exit\(message)=[\"']",
    re.MULTILINE,
)

# calls and actions in forms of public sets of demonstrations that no policy here is asked to write
_GESTURES = (
    f"{_VERBS}|tap|long_press|swipe|open_app|open_url|input_text|enter|navigate_back|navigate_home|press_back"
    "|press_home|press_enter|go_home|complete|impossible|finished"
)
_ELSEWHERE = re.compile(
    # of other models' templates
    r"<\|tool▁calls?▁begin\|>|<longcat_tool_call>|<\|tool_call>call:|<\|tool_call:begin\|>|<\|recipient\|>"
    r"|<tool-call>|<tool name=[\"']|<tool_name>[^<\n]{1,128}</tool_name>|<api_?call>|<execute_tool>"
    r"|<run_ipython>|<invoke_tool>|<mcp_call[ >]|\[TOOL_CALL\]"
    r"|^Tool:[ \t]*[\w.]{1,128}[ \t]*\nInput:[ \t]*\{"
    r"|^(?:Function|Tool|API)[ _]?[Cc]all:[ \t]*\[?[\w.]{1,128}\("
    # ToolAlpaca, DSPy, ReWOO, Lumos
    r"|^\[\[ ## next_tool_name ## \]\]"
    r"|^[ \t]*ASSISTANT Action(?: Input)?:|^#E\d{1,3} = \w{1,128}\["
    r"|(?:^|; |: )R\d{1,3}(?:, R\d{1,3}){0,9} = \w{1,128}\("
    # code and what it printed, in one turn (ToRA)
    r"|^```[ \t]*\n{1,2}```(?:tool_)?output[ \t]*$"
    # Synatra
    rf"|^# step \d{{1,3}}:(?s:.){{0,4000}}?^(?:{_VERBS})\("
    # OS-Atlas, AITZ, CogAgent, Aguvis
    rf"|^[ \t]*(?:(?i:actions?)|Grounded Operation|Action Decision|Next Action):[ \t]*\n?[ \t]*(?:CLICK|TYPE"
    r"|SELECT|SCROLL|OPEN_APP|PRESS_BACK|PRESS_HOME|PRESS_RECENT|ENTER|LONG_PRESS|SWIPE|TAP|WAIT|COMPLETE)\b"
    r"|^(?:pyautogui|computer|mobile|browser)\.\w{1,64}\([^\n]{0,2000}\)\s*\Z"
    r"|\A[ \t]*(?i:search|click|lookup|finish|think)\[[^\n]{0,2000}\]\s*\Z"
    # JSON: under other names, AutoGPT, browser-use, Anthropic's blocks, gestures on a screen
    r"|\{\s*\"(?:name|tool|tool_name|function|action|api|api_name)\"\s*:\s*\"[^\"\n]{1,128}\"\s*,"
    r"\s*\"(?:input|inputs|params|parameters|args|arguments|kwargs)\"\s*:\s*\{"
    r"|\{\s*\"(?:arguments|parameters)\"\s*:\s*\{[^{}]{0,2000}\}\s*,\s*\"name\"\s*:\s*\""
    r"|\A\s*(?:```\w*\s*)?\{(?s:.){0,20000}?\"command\"\s*:\s*\{\s*\"(?:name|args)\"\s*:|\"action\"\s*:\s*\[\s*\{\s*\"\w{1,64}\"\s*:"
    r"|\{[^{}\n]{0,200}\"type\"\s*:\s*\"tool_use\"\s*,"
    rf"|\{{\s*\"(?:action|action_type)\"\s*:\s*\"(?i:{_GESTURES})\"",
    re.MULTILINE,
)
_FENCED = re.compile(r"^```(?s:.)*?^```", re.MULTILINE)
# searches and code between tags: ASearcher, Tool-Star, ARPO
_TAGGED = re.compile(r"(?:^|>)[ \t]*<(search|access|python|bash|shell|terminal|ipython)>", re.MULTILINE)

# actions in words of an environment's own: "THOUGHT: ... ACTION: go to desk 1", "Think: ... Act: answer(1)"
_THINKS = re.compile(r"^[ \t]*(?:THOUGHT|Thought|Think):", re.MULTILINE)
ACTS = re.compile(r"^[ \t]*(?:ACTION|Action|Act):[ \t]*\n?[ \t]*\S", re.MULTILINE)

# how results begin, where they stand in a user's message
OBSERVATION = re.compile(
    r"\s*(?:<returncode>|<output>|<tool_response>|<function_results>|<function_response>|<information>|<interpreter>"
    r"|OBSERVATION\b|Observation\b|(?i:EXECUTION RESULT)|\[Command |Your command |<\|observation\|>|✿RESULT✿"
    r"|\[\w{1,64} for '|```(?:output|tool_output)|Tool output:|Function output:|FUNCTION RESPONSE"
    r"|API output:)"
)


def attempted_call(text: str, schemas: Schemas, dialect: str = "") -> str:
    """The form of a call, whole or broken, in a text that has none in `dialect`; "" if there is none.

    Broken calls, JSON, Python and ReAct count if they name a documented function, since a text may speak of
    tags. `dialect` "": the text is what a server left after it took the calls out, so that what is broken
    counts anyway.
    """

    def counts() -> bool:
        return not dialect or any(
            re.search(rf"(?<!\w){re.escape(f)}(?!\w)", text) for f in list(schemas)[:MAX_NAMES]
        )

    for name, other in DIALECTS.items():
        if name != dialect and other.sure and any(mark in text for mark in other.marks):
            found = other.read(text, schemas)
            if found.calls or (found.fault and counts()):
                return name
    if (mark := _FOREIGN.search(text)) and counts():
        return mark[0].strip()[:40]
    if _JSON_CALL.search(text) and any(match[1] in schemas for match in _NAMED.finditer(text)):
        return "JSON"
    for name in ("pythonic", "react"):  # which a text can hold by chance, but not with a documented name
        calls = DIALECTS[name].read(text, schemas).calls if name != dialect else ()
        if calls and all(call.name in schemas for call in calls):
            return name
    return ""


def thinks_and_acts(text: str) -> bool:
    """Whether a text holds an action in words after a thought."""
    thought = _THINKS.search(text)
    return bool(thought and ACTS.search(text, thought.end()))


def shows_a_call(text: str, schemas: Schemas) -> bool:
    """Whether a text has the mark of a call, read or not, of any dialect, or names a documented function in
    JSON or before a bracket at the start of a line."""
    for dialect in DIALECTS.values():
        if dialect.sure and any(mark in text for mark in dialect.marks):
            found = dialect.read(text, schemas)
            if found.calls or found.fault:
                return True
    if any(mark.search(text) for mark in (_FOREIGN, _JSON_CALL, _PYTHON_CALL, _BROWSES, _ELSEWHERE)):
        return True
    if _TAGGED.search(text) and any(
        f"</{tag}>" in text for tag in set(_TAGGED.findall(_FENCED.sub("", text)))
    ):
        return True
    if "<code>" in text and "final_answer(" in text:
        return True
    if thinks_and_acts(text):
        return True
    for name in ("json", "pythonic", "functionary"):
        found = read(text, name, schemas)
        if found.calls or found.fault:
            return True
    action = read(text, "react", schemas)
    if action.calls or (action.fault and (schemas or "Thought" in text)):
        return True
    written = (re.escape(name) for name in list(schemas)[:MAX_NAMES])
    return any(
        re.search(
            rf'"(?:name|tool|function|tool_name|function_name|action)"\s*:\s*"{name}"|\{{\s*"{name}"\s*:\s*\{{'
            rf"|^[ \t]*{name}[ \t]*:?[ \t]*\n?[ \t]*\{{\s*[\"}}]"
            rf"|^[ \t`]*(?:<code>\s*)?(?:\w+\s*=\s*)?(?:print\()?{name}\(|^[ \t]*<{name}>",
            text,
            re.MULTILINE,
        )
        for name in written
    )


MAX_NAMES = 512  # documented functions that are looked for in a text


def most_used(texts: Iterable[str]) -> str:
    """The unmistakable dialect in which most of a policy's completions call; HERMES if none does."""
    counts: Counter[str] = Counter()
    for text in texts:
        for name, dialect in DIALECTS.items():
            if dialect.sure and any(mark in text for mark in dialect.marks):
                found = dialect.read(text, {})
                counts[name] += bool(found.calls) and not found.fault
    return max(counts, key=counts.__getitem__) if any(counts.values()) else HERMES
