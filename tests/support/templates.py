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
    template = _FRAME.replace("CALLS", _EACH.replace("BODY", body) if body else "")
    return load_chat(save_tokenizer(folder, template), False, template_arguments)
