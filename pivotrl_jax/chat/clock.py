"""The date that a chat template is told when it asks for today's: 26 July 2024, midnight, always."""

# code of strftime -> what it gives
DATE = dict(
    zip(
        "%d %-d %e %b %B %m %-m %Y %y %H %I %M %S %p %a %A %j %F %D %T".split(),
        "26 26 26 Jul July 07 7 2024 24 00 12 00 00 AM Fri Friday 208 2024-07-26 07/26/24 00:00:00".split(),
    )
)
_REPLACED = "".join(f" | replace('{code}', '{value}')" for code, value in DATE.items())
_CLOCK = f"""
{{%- macro strftime_now(format) -%}}
    {{%- set date = format{_REPLACED} -%}}
    {{%- if '%' in date -%}}
        {{{{- raise_exception('strftime_now(' ~ format ~ ') has a code other than {" ".join(DATE)}') -}}}}
    {{%- endif -%}}
    {{{{- date -}}}}
{{%- endmacro -%}}
"""


def stopped(template: str) -> str:
    """The template with a clock of its own, where it asks for the time."""
    return _CLOCK + template if "strftime_now" in template else template
