"""Nulls that Arrow adds to NeMo Gym's rows when they go through `datasets` or parquet and back to JSON.

Arrow gives every object in a column the keys of all of them, and null where there was none. So a call that
never had the argument `limit` comes back with `limit: null`, which no policy would write, and a function doc
gets the parameters of every other function, each null.
"""

from typing import Any

from pivotrl_jax.chat.json_text import without_nulls
from pivotrl_jax.trajectories.readers.files import without_undeclared_nulls

_MAY_BE_NULL = ("default", "const", "enum", "example", "examples")  # of a JSON schema

Schemas = dict[str, dict]  # a function's name -> the schema of its arguments


def dropped(row: dict) -> dict:
    """The row without such nulls: in its function docs, its calls and its expected action.

    Of a call whose arguments are an object, those that are null are dropped unless the function declares
    them. Arguments in a JSON text are what a model wrote, and stay.
    """
    row = {k: v for k, v in row.items() if v is not None}
    schemas: Schemas = {}
    params = row.get("responses_create_params")
    if isinstance(params, dict):
        params = row["responses_create_params"] = {k: v for k, v in params.items() if v is not None}
    for holder, key in ((row, "declared_tools"), (params, "tools")):
        if isinstance(holder, dict) and isinstance(holder.get(key), list):
            holder[key] = [without_nulls(t) if _has_added(t) else t for t in holder[key]]
            schemas |= dict(filter(None, map(_schema, holder[key])))
    if isinstance(params, dict) and isinstance(params.get("input"), list):
        params["input"] = [_item(item, schemas) for item in params["input"]]
    for key in ("expected_action", "expected_answers"):
        if isinstance(row.get(key), list):
            row[key] = [_item(item, schemas) for item in row[key]]
        elif key in row:
            row[key] = _item(row[key], schemas)
    return row


def _has_added(doc: Any) -> bool:
    """Whether a null stands where a function doc has none: then all its nulls are Arrow's."""
    if isinstance(doc, dict):
        return any((v is None or _has_added(v)) and k not in _MAY_BE_NULL for k, v in doc.items())
    return isinstance(doc, list) and any(map(_has_added, doc))


def _schema(tool: Any) -> tuple[str, dict] | None:
    """(name of a function doc, schema of its arguments); None for anything else."""
    doc = tool.get("function", tool) if isinstance(tool, dict) else None
    if not isinstance(doc, dict) or not isinstance(doc.get("name"), str):
        return None
    return doc["name"], doc["parameters"] if isinstance(doc.get("parameters"), dict) else {}


def _item(item: Any, schemas: Schemas) -> Any:
    """An item, a call or an expected action."""
    if not isinstance(item, dict):
        return item
    item = {k: v for k, v in item.items() if v is not None}
    for key in ("tool_calls", "calls"):
        if isinstance(item.get(key), list):
            item[key] = [_item(call, schemas) for call in item[key]]
    if isinstance(item.get("function"), dict):
        item["function"] = _item(item["function"], schemas)
    if isinstance(item.get("arguments"), dict):
        name = item.get("name")
        schema = schemas.get(name) if isinstance(name, str) else None
        item["arguments"] = without_undeclared_nulls(item["arguments"], schema)
    return item
