"""Function docs (tools): checked, and converted between the chat form and the Responses form.

    chat          {"type": "function", "function": {"name", "description", "parameters"}}, or the inner object
    Responses     {"type": "function", "name", "description", "parameters", "strict"}

`tool_shape` and `shaped` let tools go through the Responses form and come back exactly as they were.
"""

from typing import Any

from pivotrl_jax.chat.json_text import same_json, without_nulls
from pivotrl_jax.records import InputError


def read_tools(tools: Any) -> list[dict]:
    """A list of function docs in the chat form, checked; None is an empty list.

    Parameters that are null are left out, and so are tools without a name, which a provider runs itself
    ({"type": "web_search"}): nobody can call them. Raises InputError.
    """
    if tools is None:
        return []
    if not isinstance(tools, list):
        raise InputError(f'"tools" is a {type(tools).__name__}, want a list of function docs')
    tools = [_plain(tool) for tool in tools if not is_built_in(tool)]
    for i, tool in enumerate(tools):
        doc = tool.get("function", tool) if isinstance(tool, dict) else None
        if not isinstance(doc, dict) or not isinstance(doc.get("name"), str):
            raise InputError(f'tools[{i}] is not a function doc; want an object with "name" and "parameters"')
        if not isinstance(doc.get("parameters", {}), dict):
            kind = type(doc["parameters"]).__name__
            raise InputError(f'tools[{i}]: "parameters" is a {kind}, want an object (a JSON schema)')
    return tools


def is_built_in(tool: Any) -> bool:
    """Whether a tool has no name and no docs, since a provider runs it itself ({"type": "web_search"})."""
    kind = tool.get("type") if isinstance(tool, dict) else None
    named = "name" in tool or "function" in tool or "custom" in tool if isinstance(tool, dict) else True
    return isinstance(kind, str) and kind != "function" and not named


def _plain(tool: Any) -> Any:
    """A tool with its schema under "parameters"; Anthropic's docs have it under "input_schema", MCP's under
    "inputSchema"."""
    doc = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(doc, dict):
        return tool
    plain = {k: v for k, v in doc.items() if not (k == "parameters" and v is None)}
    for key in ("input_schema", "inputSchema"):
        if isinstance(plain.get(key), dict) and "parameters" not in plain:
            plain["parameters"] = plain.pop(key)
    schema = plain.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    # a property that is null is Arrow's: a parameter of another function
    if isinstance(properties, dict) and None in properties.values():
        declared = {k: without_nulls(v) for k, v in properties.items() if v is not None}
        plain["parameters"] = {**{k: v for k, v in schema.items() if v is not None}, "properties": declared}
    elif plain.keys() == doc.keys():
        return tool
    return {**tool, "function": plain} if doc is not tool else plain


# ---- chat form <-> Responses form


def flat_tool(tool: dict) -> dict:
    """A tool of the chat form, in the Responses form."""
    doc = tool["function"] if isinstance(tool.get("function"), dict) else tool
    flat = {"type": "function", **{k: v for k, v in doc.items() if k != "type"}}
    flat.setdefault("parameters", {"type": "object", "properties": {}})
    flat.setdefault("strict", False)  # requests must have the field
    return flat


def chat_tool(tool: Any) -> Any:
    """A tool of a NeMo Gym row in the chat form. `strict` stays: their server renders it in prompts."""
    if not isinstance(tool, dict):
        return tool
    doc = tool["function"] if isinstance(tool.get("function"), dict) else tool
    return {"type": "function", "function": {k: v for k, v in doc.items() if k != "type" and v is not None}}


_FORMS = {
    "wrapped": lambda doc: {"type": "function", "function": doc},
    "bare": lambda doc: doc,
    "flat": lambda doc: {"type": "function", **doc},
}


def tool_shape(tools: list[dict]) -> dict | list[dict]:
    """What `shaped` needs to turn the results of `flat_tool` back into `tools`: which chat form they have and
    which fields `flat_tool` added. Tools of mixed forms are returned as they are.
    """
    for form in _FORMS:
        for added in ([], ["strict"], ["parameters", "strict"]):
            shape = {"form": form, "added": added}
            if same_json(shaped([flat_tool(t) for t in tools], shape), tools):
                return shape
    return tools


def shaped(flat: list[dict], shape: dict | list[dict]) -> list[dict]:
    """The tools that `tool_shape` described as `shape`. Raises InputError if it is malformed."""
    if isinstance(shape, list):
        return shape
    if not isinstance(shape, dict) or shape.get("form") not in _FORMS:
        raise InputError(f'"tools" under "pivotrl" is {shape!r}; want a list of tools, or their form')
    drop = {"type", *shape.get("added", [])}
    return [_FORMS[shape["form"]]({k: v for k, v in t.items() if k not in drop}) for t in flat]
