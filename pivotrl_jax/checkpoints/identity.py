"""Is this the same run? One rule for runs, profiles, checkpoints and evaluations."""

from typing import Any


class _Absent:
    def __str__(self) -> str:
        return "absent"


ABSENT = _Absent()


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict):
        return {prefix: value}
    join = f"{prefix}." if prefix else ""
    return {key: leaf for name in value for key, leaf in flatten(value[name], join + name).items()}


def differences(there: dict[str, Any], here: dict[str, Any], limit: int = 4) -> list[str]:
    different = [
        (key, a, b)
        for key in [*here, *(key for key in there if key not in here)]
        for a, b in [(there.get(key, ABSENT), here.get(key, ABSENT))]
        if a != b
    ]
    sentences = [f"{key} is {a} there and {b} here" for key, a, b in different[:limit]]
    return sentences + ([f"and {len(different) - limit} more"] if len(different) > limit else [])
