"""Messages and tools <-> token ids, with the checkpoint's own tokenizer and chat template.

Only the tokenizer of `transformers` is used. Messages are in the form of records.py: OpenAI chat messages
whose `tool_calls[i]["function"]["arguments"]` is a dict.
"""

import dataclasses
import functools
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import dialects
from pivotrl_jax.chat.actions import END_THINK, THINK, parse_action
from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.records import Action, Call, InputError, Message

SHIPPED = Path(__file__).parents[1] / "assets" / "chat_templates"

_PLACEHOLDER = "[[kept thinking {}]]"  # of a think block, while the template runs

# A call that shows in which dialect a template writes calls.
_PROBE = Call("probe_tool", {"text": "a b", "count": 3})
_PROBE_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "count": {"type": "integer"}}}
_PROBE_TOOL = {"name": _PROBE.name, "description": "Count.", "parameters": _PROBE_SCHEMA}
_PROBE_CALL = {"id": "call00000", "type": "function", "function": dataclasses.asdict(_PROBE)}


# ---- messages -> token ids


# what a template that asks for the time is told: 26 July 2024, midnight
_DATE = dict(
    zip(
        "%d %b %B %Y %y %m %H %I %M %S %p %a %A %j".split(),
        "26 Jul July 2024 24 07 00 12 00 00 AM Fri Friday 208".split(),
    )
)
_CLOCK = (
    "{%- macro strftime_now(format) -%}{{ format"
    + "".join(f" | replace('{code}', '{value}')" for code, value in _DATE.items())
    + " }}{%- endmacro -%}"
)


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class HoldsStop(InputError):
    """A demonstration with a stop token inside."""


@dataclasses.dataclass(frozen=True)
class Chat:
    """A tokenizer, its template, and what happens to thinking in the history.

    If `keep_thinking` is False, the template decides; Qwen3's drops the thinking of every assistant
    turn before the last user message. If it is True, every assistant turn appears in the history as it did
    when it was the last turn, thinking included. The template cannot do that for turns before the last user
    message. It therefore gets a placeholder in their `content`, and the rendered placeholder is replaced by
    `<think>\\n...\\n</think>\\n\\n`, or by the empty block that the template writes for a last turn without
    thinking, if it writes one.

    `template_arguments` are given to the template at every rendering (`enable_thinking`). A template that
    asks for today's date (Llama 3.2's) is always told the date to which Llama's falls back, 26 July 2024:
    prompts depend on data and config alone.
    """

    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    keep_thinking: bool
    stop_ids: tuple[int, ...]
    template_arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def _template(self, messages: list[Message], tools: list[dict], add_generation_prompt: bool) -> str:
        return self._templates([messages], tools, add_generation_prompt)[0]

    def _templates(
        self, conversations: list[list[Message]], tools: list[dict], add_generation_prompt: bool
    ) -> list[str]:
        import jinja2

        own = self.tokenizer.chat_template
        frozen = {"chat_template": _CLOCK + own} if isinstance(own, str) and "strftime_now" in own else {}
        if not all(conversations):
            raise InputError("there are no messages for the chat template; give at least one")
        try:
            return self.tokenizer.apply_chat_template(
                conversations,
                tools=tools or None,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **frozen,
                **self.template_arguments,
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as e:
            raise InputError(
                f"the chat template refuses these messages ({e}); check their roles and contents"
            ) from None

    @functools.cached_property
    def _empty_thinking(self) -> str:
        """What the template writes before the content of a last turn that has no thinking."""
        ask, answer = {"role": "user", "content": "a"}, {"role": "assistant", "content": "[[content]]"}
        text = self._template([ask, answer], [], False)
        prompt = self._template([ask], [], True)
        return text[len(prompt) : text.index("[[content]]")] if text.startswith(prompt) else ""

    @functools.cached_property
    def opens_thinking(self) -> bool:
        """Whether the generation prompt itself ends in `<think>` (Qwen3 Thinking-2507)."""
        prompt = self._template([{"role": "user", "content": "a"}], [], True)
        return prompt.rstrip().endswith(THINK)

    @functools.cached_property
    def dialect(self) -> str:
        """The form in which the template writes calls, a key of `dialects.DIALECTS`; "" if it writes none.

        Raises InputError if it writes calls in a form that no dialect reads.
        """
        ask = [{"role": "user", "content": "a"}]
        answer = {"role": "assistant", "content": "", "tool_calls": [_PROBE_CALL]}
        tools = [{"type": "function", "function": _PROBE_TOOL}]
        try:
            text = self.decode(self.completion_ids(ask, tools, answer))
        except InputError:
            return ""  # a template that has no calls
        if _PROBE.name not in text:
            return ""
        schemas = schemas_of(tools)
        for name in dialects.DIALECTS:
            if parse_action(text, self.opens_thinking, name, schemas).calls == (_PROBE,):
                return name
        raise InputError(
            f"the chat template writes calls in a form that is not known: {text[:200]!r}; use a checkpoint "
            f"whose template writes one of {', '.join(dialects.DIALECTS)}"
        )

    def check_dialect(self) -> None:
        """Raises InputError if the template writes calls in a form that no dialect reads."""
        _ = self.dialect

    def render(self, messages: list[Message], tools: list[dict], add_generation_prompt: bool = True) -> str:
        """The text of the conversation. Raises InputError when the template refuses the messages."""
        return self._render([list(messages)], tools, add_generation_prompt)[0]

    def render_all(
        self, conversations: Sequence[Sequence[Message]], tools: list[dict]
    ) -> list[str | InputError]:
        """The prompts of several conversations with the same tools, each as `render` gives it. Where `render`
        raises an InputError, it stands in the prompt's place."""
        try:
            return self._render([list(messages) for messages in conversations], tools, True)
        except InputError as e:
            if len(conversations) == 1:
                return [e]
        return [text for messages in conversations for text in self.render_all([messages], tools)]

    def _render(self, conversations: list[list[Message]], tools: list[dict], generation: bool) -> list[str]:
        if not self.keep_thinking:
            return self._templates(conversations, tools, generation)
        marked = [self._marked(messages) for messages in conversations]
        texts = self._templates([messages for messages, _ in marked], tools, generation)
        return [_unmarked(text, *placed) for text, placed in zip(texts, marked)]

    def _marked(self, messages: list[Message]) -> tuple[list[Message], dict[int, str]]:
        """(the messages with a placeholder where the template would not keep the thinking, index -> what the
        placeholder stands for)."""
        last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        marked: list[Message] = []
        blocks: dict[int, str] = {}
        for i, message in enumerate(messages):
            reasoning = (message.get("reasoning_content") or "").strip("\n")
            rewritten = i < last_user or not reasoning  # otherwise the template keeps the thinking itself
            if message["role"] == "assistant" and i < len(messages) - 1 and rewritten:
                block = f"{THINK}\n{reasoning}\n{END_THINK}\n\n" if reasoning else self._empty_thinking
                if block:
                    blocks[i] = block
                    message = {k: v for k, v in message.items() if k != "reasoning_content"}
                    message["content"] = _PLACEHOLDER.format(i) + (message.get("content") or "")
            marked.append(message)
        return marked, blocks

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text, without extra special tokens. Lone surrogates become U+FFFD."""
        # verbose=False: no warning about model_max_length, since a limit of our own applies
        return list(self.tokenizer.encode(well_formed(text), add_special_tokens=False, verbose=False))

    def decode(self, ids: list[int]) -> str:
        """The text of a completion. A stop token at its end is dropped; all other special tokens stay."""
        ids = list(ids)
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def parse(self, text: str, tools: Sequence[dict] = ()) -> Action:
        """The action of a completion, which begins inside thinking if the template's prompt opens it.

        `tools` are the function docs in the prompt: in some dialects they give arguments their types.
        """
        dialect = self.dialect or dialects.HERMES
        return parse_action(text, self.opens_thinking, dialect, schemas_of(tools))

    def prompt_ids(self, messages: list[Message], tools: list[dict]) -> list[int]:
        """Token ids of what the policy sees before it acts: the history and the generation prompt."""
        return self.encode(self.render(messages, tools))

    def check_turn_ends(self) -> None:
        """Raises InputError if the template ends an assistant turn, of words or of a call, with no stop
        token: no completion would then finish."""
        ask, words = [{"role": "user", "content": "a"}], {"role": "assistant", "content": "b"}
        call = {"role": "assistant", "content": "", "tool_calls": [_PROBE_CALL]}
        for answer, tools in ((words, []), (call, [{"type": "function", "function": _PROBE_TOOL}])):
            try:
                ids = self._continuation(ask, tools, answer)
            except InputError:
                continue  # no calls, or no such messages: said where a turn needs them
            if not set(ids) & set(self.stop_ids):
                text, stops = self.tokenizer.decode(ids), self.tokenizer.convert_ids_to_tokens(self.stop_ids)
                raise InputError(
                    f"the chat template ends an assistant turn with {text[-24:]!r}, which has none of the "
                    f"stop tokens {stops}, so no completion would finish; add its last special token to "
                    "eos_token_id in generation_config.json, or use the chat model's checkpoint"
                )

    def unknown_ids(self, ids: Sequence[int]) -> list[int]:
        """The ids that belong to no token. An embedding may have more rows than the tokenizer has tokens;
        a policy can sample these rows, and they decode to nothing."""
        return [i for i in ids if i not in self._known_ids]

    @functools.cached_property
    def _known_ids(self) -> frozenset[int]:
        return frozenset([*self.tokenizer.get_vocab().values(), *self.stop_ids])

    def completion_ids(self, messages: list[Message], tools: list[dict], demonstration: Message) -> list[int]:
        """The token ids that the policy would sample to produce `demonstration`, stop token included.

        Raises InputError if the template renders the turn as anything but a continuation of the prompt, or
        ends it without a stop token, and for a demonstration that holds one: sampling would end there.
        """
        ids = self._continuation(messages, tools, demonstration)
        stops = [i for i, token in enumerate(ids) if token in self.stop_ids]
        if not stops:
            raise InputError(
                f"the chat template ends an assistant turn with none of the stop tokens {self.stop_ids}; "
                "add the one it uses to eos_token_id in generation_config.json"
            )
        early = next(i for i in stops if i == stops[-1] or ids[i] in self._special_ids)
        if any(
            token not in self.stop_ids and self.decode([token]).strip() for token in ids[early : stops[-1]]
        ):
            raise HoldsStop(
                f"the demonstration holds {self.tokenizer.convert_ids_to_tokens(ids[early])!r}, a stop "
                "token: whatever is sampled ends there"
            )
        return ids[: stops[-1] + 1]

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)])

    def _continuation(self, messages: list[Message], tools: list[dict], answer: Message) -> list[int]:
        """The token ids of all that the template writes for `answer` after the prompt."""
        prompt = self.render(messages, tools)
        text = self.render([*messages, answer], tools, add_generation_prompt=False)
        if not text.startswith(prompt):
            raise InputError(
                "the chat template renders an assistant turn that does not continue the generation prompt; "
                "use a checkpoint whose template does"
            )
        return self.encode(text[len(prompt) :])


def _unmarked(text: str, marked: list[Message], blocks: dict[int, str]) -> str:
    """The text with what the placeholders of `Chat._marked` stand for."""
    for i, block in blocks.items():
        mark = _PLACEHOLDER.format(i)
        if marked[i]["content"] == mark and marked[i].get("tool_calls"):
            # the template took the placeholder for content and put a newline between it and the call
            text = text.replace(mark + "\n", mark, 1)
        text = text.replace(mark, block, 1)
    return text


def _stop_ids(directory: str, tokenizer: Any) -> tuple[int, ...]:
    """Ids that end a turn: eos_token_id of generation_config.json (one or a list), and the tokenizer's."""
    from transformers.utils import cached_file

    path = cached_file(directory, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    eos = json.loads(Path(path).read_text(encoding="utf-8")).get("eos_token_id") if path else None
    ids = eos if isinstance(eos, list) else [eos]
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer.eos_token_id] if i is not None))


def read_template(name: str) -> str:
    """The text of a chat template: one of assets/chat_templates, or a file. Raises InputError."""
    shipped = SHIPPED / f"{name}.jinja"
    path = shipped if shipped.is_file() else Path(name)
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError):
        names = ", ".join(sorted(file.stem for file in SHIPPED.glob("*.jinja")))
        raise InputError(f"chat template {name}: no such file; give a path, or one of {names}") from None


def load_chat(
    directory: str | Path,
    keep_thinking: bool,
    template_arguments: Mapping[str, Any] | None = None,
    chat_template: str = "",
) -> Chat:
    """Tokenizer, template and stop tokens of a checkpoint: a folder in Hugging Face layout, or a hub name.

    `template_arguments` are given to the chat template at every rendering. `chat_template` names one to use
    instead of the checkpoint's own (see `read_template`). Raises InputError if there is no tokenizer, no chat
    template or no stop token.
    """
    # silences the advice to install PyTorch, which is not needed
    os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")
    from transformers import AutoTokenizer

    directory = str(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError) as e:
        raise InputError(
            f"{directory}: no tokenizer can be loaded ({str(e).splitlines()[0]}); give a folder in "
            "Hugging Face layout or the name of a model on the hub"
        ) from None
    if chat_template:
        tokenizer.chat_template = read_template(chat_template)
    if not tokenizer.chat_template:
        raise InputError(
            f"{directory}: the tokenizer has no chat template; use a chat model's checkpoint, or name a "
            "template with --config.model.chat_template"
        )
    stop_ids = _stop_ids(directory, tokenizer)
    if not stop_ids:
        raise InputError(f"{directory}: no stop token; set eos_token_id in generation_config.json")
    return Chat(tokenizer, keep_thinking, stop_ids, template_arguments or {})
