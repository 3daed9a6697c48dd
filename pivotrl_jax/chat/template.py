"""Messages and tools <-> token ids, with the checkpoint's own tokenizer and chat template.

Only the tokenizer of `transformers` is used. Messages are in the form of records.py: OpenAI chat messages
whose `tool_calls[i]["function"]["arguments"]` is a dict.
"""

import dataclasses
import functools
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pivotrl_jax.chat import clock, dialects
from pivotrl_jax.chat.actions import THINK, parse_action
from pivotrl_jax.chat.dialects.base import schemas_of
from pivotrl_jax.chat.past_turns import PastTurns, unmarked
from pivotrl_jax.chat.stops import read_stop_ids
from pivotrl_jax.records import Action, Call, InputError, Message

SHIPPED = Path(__file__).parents[1] / "assets" / "chat_templates"

# A call that shows in which dialect a template writes calls.
_PROBE = Call("probe_tool", {"text": "a b", "count": 3})
_PROBE_SCHEMA = {"type": "object", "properties": {"text": {"type": "string"}, "count": {"type": "integer"}}}
_PROBE_TOOL = {"name": _PROBE.name, "description": "Count.", "parameters": _PROBE_SCHEMA}
_PROBE_CALL = {"id": "call00000", "type": "function", "function": dataclasses.asdict(_PROBE)}


# ---- messages -> token ids


def well_formed(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class Unwritable(InputError):
    """A turn that no policy can be shown, or could write, in this chat template."""


class HoldsStop(Unwritable):
    """A demonstration with a stop token inside."""


@dataclasses.dataclass(frozen=True)
class Chat:
    """A tokenizer, its template, and what happens to thinking in the history.

    If `keep_thinking` is False, the template decides; Qwen3's drops the thinking of every assistant
    turn before the last user message. If it is True, every assistant turn appears in the history as it did
    when it was the last turn, with the thinking that the template writes there (past_turns.py). A template
    that writes none is left alone.

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

        if not all(conversations):
            raise InputError("there are no messages for the chat template; give at least one")
        try:
            return self.tokenizer.apply_chat_template(
                conversations,
                tools=tools or None,
                chat_template=clock.stopped(self.tokenizer.get_chat_template(None, tools or None)),
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                **self.template_arguments,
            )
        except (jinja2.TemplateError, TypeError, ValueError, ArithmeticError, RecursionError) as e:
            raise InputError(
                f"the chat template refuses these messages ({e}); check their roles and contents"
            ) from None

    @functools.cached_property
    def _past_turns(self) -> PastTurns:
        return PastTurns(lambda conversations, tools: self._templates(conversations, tools, False))

    @functools.cached_property
    def writes_thinking(self) -> bool:
        """Whether the template writes the `reasoning_content` of the last turn."""
        return "[[thought]]" in self._last_turn({"reasoning_content": "[[thought]]"})

    @functools.cached_property
    def _has_thinking(self) -> bool:
        return self.writes_thinking or THINK in self._last_turn({})

    def _last_turn(self, more: dict) -> str:
        answer = {"role": "assistant", "content": "b", **more}
        return self._template([{"role": "user", "content": "a"}, answer], [], False)

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

    def check_calls(self, messages: Iterable[Message]) -> None:
        """Raises Unwritable if some message has calls and the template writes none."""
        if not self.dialect and any(message.get("tool_calls") for message in messages):
            raise Unwritable(
                "the chat template writes no tool calls; name one that does with "
                "--config.model.chat_template, e.g. smollm2_hermes"
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
        if not self.keep_thinking or not self._has_thinking:
            return self._templates(conversations, tools, generation)
        marked = [self._past_turns.marked(messages, tools) for messages in conversations]
        texts = self._templates([messages for messages, _ in marked], tools, generation)
        return [unmarked(text, written) for text, (_, written) in zip(texts, marked)]

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text, without extra special tokens. Lone surrogates become U+FFFD."""
        # verbose=False: no warning about model_max_length, since a limit of our own applies
        return list(self.tokenizer.encode(well_formed(text), add_special_tokens=False, verbose=False))

    @functools.cached_property
    def _marks_starts(self) -> bool:
        """Whether the tokenizer puts a space before a text (sentencepiece's do), and takes it off again."""
        return self.encode("\na")[len(self.encode("\n")) :] != self.encode("a")

    def _encode_after(self, prompt: str, text: str) -> list[int]:
        """Token ids of `text` where it continues `prompt`."""
        if not self._marks_starts:
            return self.encode(text)
        for before in (prompt, "\n"):
            ids, whole = self.encode(before), self.encode(before + text)
            if whole[: len(ids)] == ids:
                return whole[len(ids) :]
        raise InputError(
            f"the tokenizer joins the start of {text[:40]!r} with what is before it; use another checkpoint"
        )

    def decode(self, ids: list[int]) -> str:
        """The text of a completion. A stop token at its end is dropped; all other special tokens stay."""
        ids = list(ids)
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        if not self._marks_starts:
            return self._text(ids)
        before = [self.stop_ids[0]]  # so that a space that was sampled stays
        return self._text([*before, *ids])[len(self._text(before)) :]

    def _text(self, ids: list[int]) -> str:
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
                ids = self._encode_after(*self._continuation(ask, tools, answer))
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
        ends it without a stop token; Unwritable if it leaves out a call; and HoldsStop for a demonstration
        that holds a stop token: sampling would end there.
        """
        prompt, text = self._continuation(messages, tools, demonstration)
        beside = text  # what the turn says, which may name the function too
        for key in ("reasoning_content", "content"):
            beside = beside.replace((demonstration.get(key) or "").strip(), "", 1)
        names = [call["function"]["name"] for call in demonstration.get("tool_calls") or ()]
        if lost := [name for name in names if name not in beside]:
            raise Unwritable(f"the chat template does not write this turn's call of {lost[0][:80]}")
        ids = self._encode_after(prompt, text)
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
        return ids[: early + 1]  # a template may close the conversation with another stop token

    @functools.cached_property
    def _special_ids(self) -> frozenset[int]:
        added = self.tokenizer.added_tokens_decoder
        return frozenset([*self.tokenizer.all_special_ids, *(i for i, t in added.items() if t.special)])

    def _continuation(self, messages: list[Message], tools: list[dict], answer: Message) -> tuple[str, str]:
        """(the prompt, all that the template writes for `answer` after it)."""
        prompt = self.render(messages, tools)
        text = self.render([*messages, answer], tools, add_generation_prompt=False)
        if not text.startswith(prompt):
            raise InputError(
                "the chat template renders an assistant turn that does not continue the generation prompt; "
                "use a checkpoint whose template does"
            )
        return prompt, text[len(prompt) :]


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
        tokenizer = AutoTokenizer.from_pretrained(directory, trust_remote_code=False)
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
    stop_ids = read_stop_ids(directory, tokenizer)
    if not stop_ids:
        raise InputError(f"{directory}: no stop token; set eos_token_id in generation_config.json")
    return Chat(tokenizer, keep_thinking, stop_ids, template_arguments or {})
