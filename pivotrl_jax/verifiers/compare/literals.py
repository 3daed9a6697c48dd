"""Java and JavaScript literals inside strings -> Python values, as BFCL's type converters read them.

The rules of `bfcl_eval/eval_checker/ast_eval/type_convertor` (bfcl-eval 2026.3.23, Apache-2.0), written
anew. A string that is no literal of the documented type stays a string, which then fails the type check or
counts as a variable. Nothing is evaluated, and nothing raises. Strings longer than MAX_LENGTH stay strings,
so that no pattern takes long.
"""

import re
from typing import Any

MAX_LENGTH = 1000

JAVA_TYPES = {
    "byte": int,
    "short": int,
    "integer": int,
    "float": float,
    "double": float,
    "long": int,
    "boolean": bool,
    "char": str,
    "Array": list,
    "ArrayList": list,
    "Set": set,
    "HashMap": dict,
    "Hashtable": dict,
    "Queue": list,
    "Stack": list,
    "String": str,
    "any": str,
}

JAVASCRIPT_TYPES = {
    "String": str,
    "integer": int,
    "float": float,
    "Bigint": int,
    "Boolean": bool,
    "dict": dict,
    "array": list,
    "any": str,
}

_INTEGER = r"-?\d+"
_REAL = r"-?\d+(\.\d+)?([eE][+-]?\d+)?"


# type -> (pattern of the literal, what to cut off, converter)
_JAVA_SCALARS = {
    "byte": (_INTEGER, "", int),
    "short": (_INTEGER, "", int),
    "integer": (_INTEGER, "", int),
    "long": (_INTEGER + "[lL]", "lL", int),
    "float": (_REAL + "[fF]", "fF", float),
    "double": (_REAL, "", float),
    "boolean": ("true|false", "", lambda text: text == "true"),
}

_JAVASCRIPT_SCALARS = {
    "integer": (_INTEGER, "", int),
    "float": (r"-?\d+(\.\d+)?", "", float),
    "Bigint": (_INTEGER + "n", "n", int),
    "Boolean": ("true|false", "", lambda text: text == "true"),
}


def _scalar(text: str, kind: str, table: dict) -> Any:
    pattern, suffix, convert = table[kind]
    return convert(text.rstrip(suffix)) if re.fullmatch(pattern, text, re.ASCII) else text


def _quoted(text: str, quotes: str) -> bool:
    return any(text.startswith(q) and text.endswith(q) for q in quotes)


def _guess(text: str, quotes: str) -> Any:
    """A literal whose type is not documented."""
    if text in ("true", "false"):
        return text == "true"
    if _quoted(text, quotes):
        return text[1:-1]
    for convert in (int, float):
        try:
            return convert(text)
        except ValueError:
            pass
    return text


# ---- Java


def _java_guess(text: str) -> Any:
    if re.fullmatch(_INTEGER + "[lL]", text) or re.fullmatch(_REAL + "[fF]", text):
        return int(text[:-1]) if text[-1] in "lL" else float(text[:-1])
    return _guess(text, '"')


def _java_list_item(text: str, inner: str | None) -> Any:
    if inner in ("char", "String"):
        return text[1:-1]
    return java_value(text, inner, None) if inner else _java_guess(text)


def _java_array_list(text: str, inner: str | None) -> Any:
    found = re.search(r"new\s+ArrayList<\w*>\(Arrays\.asList\((.+?)\)\)", text)
    if found:
        return [_java_list_item(part.strip(), inner) for part in found[1].split(",")]
    found = re.search(r"new\s+ArrayList<\w*>\(\)\s*\{\{(.+?)\}\}", text, re.DOTALL)
    if found:
        return [_java_list_item(part.strip(), inner) for part in re.findall(r"add\((.+?)\)", found[1])]
    return [] if re.search(r"new\s+ArrayList<\w*>\(\)", text) else text


def _java_array(text: str, inner: str | None) -> Any:
    found = re.search(r"new\s+\w+\[\]\s*\{(.*?)\}", text)
    if not found:
        return text
    parts = [part.strip() for part in found[1].split(",") if part.strip()]
    return [java_value(part, inner, None) if inner else _java_guess(part) for part in parts]


def _java_map(text: str) -> Any:
    found = re.search(r"new\s+HashMap<.*?>\s*\(\)\s*\{([^}]*)\}", text, re.DOTALL)
    if found:
        return {k: _java_guess(v.strip()) for k, v in re.findall(r"put\(\"(.*?)\",\s*(.*?)\)", found[1])}
    return {} if re.search(r"new\s+HashMap<.*?>\s*\(\)", text) else text


def java_value(text: str, kind: str | None, inner: str | None) -> Any:
    """The Python value of a Java literal of type `kind` (with items of type `inner`), or `text` itself."""
    if len(text) > MAX_LENGTH:
        return text
    if kind in _JAVA_SCALARS:
        return _scalar(text, kind, _JAVA_SCALARS)
    if kind == "ArrayList":
        return _java_array_list(text, inner)
    if kind == "Array":
        return _java_array(text, inner)
    return _java_map(text) if kind == "HashMap" else text


# ---- JavaScript


def _javascript_item(text: str, inner: str | None) -> Any:
    return javascript_value(text, inner, None) if inner else _guess(text, "\"'")


def _javascript_array(text: str, inner: str | None) -> Any:
    rows = re.sub(r"\]\s*,\s*\[", "],[", text)
    found = re.match(r"\[\s*\[.*?\]\s*\]|new\s+Array\(\s*\[.*?\]\s*\)", rows)
    if found:
        inners = [row.strip().removeprefix("[") for row in re.findall(r"\[(.*?)\]", found[0])]
        return [[_guess(part.strip(), "\"'") for part in row.split(",")] for row in inners]
    found = re.match(r"\[(.*?)\]|new\s+Array\((.*?)\)", text)
    if not found:
        return text
    body = (found[1] if found[1] is not None else found[2]).strip()
    return [_javascript_item(part.strip(), inner) for part in body.split(",")] if body else []


def _javascript_object(text: str) -> Any:
    if text == "{}":
        return {}
    found = re.match(r"\{(.*?)\}", text)
    if not found:
        return text
    value = {}
    for key, part in re.findall(r"([^:]+):\s*(.*?)(?:,\s*(?=[^,]+:)|$)", found[1]):
        part = part.strip()
        if part.startswith("[") and part.endswith("]"):
            value[key.strip().strip("'\"")] = _javascript_array(part, None)
        else:
            value[key.strip().strip("'\"")] = _guess(part.strip("'\"").strip(), "\"'")
    return value


def javascript_value(text: str, kind: str | None, inner: str | None) -> Any:
    """The Python value of a JavaScript literal of type `kind` (items of type `inner`), or `text` itself."""
    if len(text) > MAX_LENGTH:
        return text
    if kind == "String":
        return text[1:-1] if _quoted(text, "\"'") else text
    if kind in _JAVASCRIPT_SCALARS:
        return _scalar(text, kind, _JAVASCRIPT_SCALARS)
    if kind == "array":
        return _javascript_array(text.strip(), inner)
    return _javascript_object(text.strip()) if kind == "dict" else text
