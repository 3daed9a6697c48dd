"""Small chat templates that write calls in different forms, around one ChatML frame."""

from pathlib import Path

from pivotrl_jax.chat.template import Chat, load_chat
from support.qwen3_chat import save_tokenizer

_FRAME = """
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {{- '<|im_start|>assistant\\n' + (message.content or '') }}
        CALLS
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""

_EACH = "{%- for call in message.tool_calls or [] %}{%- set f = call.function %}BODY{%- endfor %}"

FORMS = {
    "hermes": """{{- '<tool_call>\\n{"name": "' + f.name + '", "arguments": ' + (f.arguments | tojson) }}
        {{- '}\\n</tool_call>' }}""",
    "qwen3_coder": """{{- '<tool_call>\\n<function=' + f.name + '>\\n' }}
        {%- for key, value in f.arguments.items() %}
            {{- '<parameter=' + key + '>\\n' + (value if value is string else value | tojson) }}
            {{- '\\n</parameter>\\n' }}
        {%- endfor %}
        {{- '</function>\\n</tool_call>' }}""",
    "json": """{{- '{"name": "' + f.name + '", "parameters": ' + (f.arguments | tojson) + '}' }}""",
    "mistral": """{{- '[TOOL_CALLS]' + f.name + '[ARGS]' + (f.arguments | tojson) }}""",
}
UNKNOWN = """{{- '<<CALL ' + f.name + ' WITH ' + (f.arguments | tojson) + '>>' }}"""


def chat(folder: Path, body: str, **template_arguments) -> Chat:
    """A chat whose template writes each call by `body`; "" writes none."""
    return load_chat(save_tokenizer(folder, framed(body)), False, template_arguments)


def framed(body: str) -> str:
    """A template that writes each call by `body`; "" writes none."""
    return _FRAME.replace("CALLS", _EACH.replace("BODY", body) if body else "")


def chat_of_two(folder: Path, default: str, tool_use: str) -> Chat:
    """A chat with a template for conversations without tools and one for those with tools."""
    named = save_tokenizer(folder, default) / "additional_chat_templates"
    named.mkdir()
    (named / "tool_use.jinja").write_text(tool_use, "utf-8")
    return load_chat(folder, False)
