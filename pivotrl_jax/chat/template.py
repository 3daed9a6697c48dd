"""Messages and tools <-> token ids, by the checkpoint's own chat template; completion text -> action.

`transformers` serves for the tokenizer and its template only. Messages are OpenAI chat messages whose
`tool_calls[i]["function"]["arguments"]` is a dict (see `records`).
"""

import dataclasses
import functools
import json
import os
from pathlib import Path
from typing import Any

from pivotrl_jax.chat.actions import _END_THINK, _THINK, parse_action
from pivotrl_jax.records import Action, InputError, Message

_KEPT = "[[kept thinking {}]]"  # stands for a think block while the template runs


# ---- messages -> token ids


def _well_formed(text: str) -> str:
    """`text` with lone surrogates, which no tokenizer takes, replaced by U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


@dataclasses.dataclass(frozen=True)
class Chat:
    """A tokenizer, its template, and what happens to thinking in the history.

    keep_thinking False ("strip"): the template's own behaviour; Qwen3's drops the thinking of every assistant
    turn before the last user message. keep_thinking True ("keep"): every assistant turn appears in the
    history as it was when it was the last one, thinking included. For turns before the last user message the
    block is written by us (`<think>\\n...\\n</think>\\n\\n`, where Qwen3 puts it): the template sees a
    placeholder in `content`, which is replaced in the rendered text. If the template writes an empty block
    for a last turn without thinking, "keep" keeps that too.
    """

    tokenizer: Any  # transformers.PreTrainedTokenizerBase
    keep_thinking: bool
    stop_ids: tuple[int, ...]

    def _template(self, messages: list[Message], tools: list[dict], add_generation_prompt: bool) -> str:
        import jinja2

        try:
            return self.tokenizer.apply_chat_template(
                messages, tools=tools or None, tokenize=False, add_generation_prompt=add_generation_prompt
            )
        except (jinja2.TemplateError, TypeError, ValueError) as e:
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
        return prompt.rstrip().endswith(_THINK)

    def render(self, messages: list[Message], tools: list[dict], add_generation_prompt: bool = True) -> str:
        """The text of the conversation. Raises InputError when the template refuses the messages."""
        if not self.keep_thinking:
            return self._template(messages, tools, add_generation_prompt)
        last_user = max((i for i, m in enumerate(messages) if m["role"] == "user"), default=-1)
        shown: list[Message] = []
        blocks: dict[int, str] = {}
        for i, message in enumerate(messages):
            reasoning = (message.get("reasoning_content") or "").strip("\n")
            rewritten = i < last_user or not reasoning  # else the template keeps the thinking itself
            if message["role"] == "assistant" and i < len(messages) - 1 and rewritten:
                block = f"{_THINK}\n{reasoning}\n{_END_THINK}\n\n" if reasoning else self._empty_thinking
                if block:
                    blocks[i] = block
                    message = {k: v for k, v in message.items() if k != "reasoning_content"}
                    message["content"] = _KEPT.format(i) + (message.get("content") or "")
            shown.append(message)
        text = self._template(shown, tools, add_generation_prompt)
        for i, block in blocks.items():
            mark = _KEPT.format(i)
            if shown[i]["content"] == mark and shown[i].get("tool_calls"):
                # the template took the mark for content and set it apart from the call by a newline
                text = text.replace(mark + "\n", mark, 1)
            text = text.replace(mark, block, 1)
        return text

    def encode(self, text: str) -> list[int]:
        """Token ids of rendered text; nothing is added. Lone surrogates become U+FFFD."""
        # verbose=False: no warning about model_max_length; prompts have a limit of their own
        return list(self.tokenizer.encode(_well_formed(text), add_special_tokens=False, verbose=False))

    def decode(self, ids: list[int]) -> str:
        """The text of a completion: a stop token at its end is left off, all other tokens stay."""
        ids = list(ids)
        if ids and ids[-1] in self.stop_ids:
            ids = ids[:-1]
        return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def parse(self, text: str) -> Action:
        """`parse_action`, aware of whether this template's prompt opens the thinking itself."""
        return parse_action(text, self.opens_thinking)

    def prompt_ids(self, messages: list[Message], tools: list[dict]) -> list[int]:
        """What the policy is given before it acts: the history and the generation prompt."""
        return self.encode(self.render(messages, tools))

    def completion_ids(self, messages: list[Message], tools: list[dict], demonstration: Message) -> list[int]:
        """What the policy would have sampled to produce `demonstration`, the stop token included.

        Raises InputError when the template does not continue its own prompt, or ends the turn with no stop
        token.
        """
        prompt = self.render(messages, tools)
        text = self.render([*messages, demonstration], tools, add_generation_prompt=False)
        if not text.startswith(prompt):
            raise InputError(
                "the chat template renders an assistant turn that does not continue the generation prompt; "
                "use a checkpoint whose template does"
            )
        ids = self.encode(text[len(prompt) :])
        stops = [i for i, token in enumerate(ids) if token in self.stop_ids]
        if not stops:
            raise InputError(
                f"the chat template ends an assistant turn with none of the stop tokens {self.stop_ids}; "
                "add the one it uses to eos_token_id in generation_config.json"
            )
        return ids[: stops[-1] + 1]

    def training_segments(
        self, messages: list[Message], tools: list[dict]
    ) -> list[tuple[list[int], list[bool]]]:
        """The trajectory as (token ids, trained?) segments: completions with their stop token are trained.

        Each prompt and each completion is tokenized by itself, as in sampling. While a later prompt begins
        with the ids so far, it extends the segment, so that an append-only template gives one segment; where
        the template rewrites history a new segment (prompt + completion) begins.
        """
        segments: list[tuple[list[int], list[bool]]] = []
        for i, message in enumerate(messages):
            if message["role"] != "assistant" or i == 0:  # an opening greeting answers no prompt
                continue
            prompt = self.prompt_ids(messages[:i], tools)
            completion = self.completion_ids(messages[:i], tools, message)
            if not segments or prompt[: len(segments[-1][0])] != segments[-1][0]:
                segments.append(([], []))
            ids, trained = segments[-1]
            trained += [False] * (len(prompt) - len(ids)) + [True] * len(completion)
            ids += prompt[len(ids) :] + completion
        return segments


def _stop_ids(directory: str, tokenizer: Any) -> tuple[int, ...]:
    """End-of-turn ids: eos_token_id of generation_config.json (one or a list), then the tokenizer's own."""
    from transformers.utils import cached_file

    path = cached_file(directory, "generation_config.json", _raise_exceptions_for_missing_entries=False)
    eos = json.loads(Path(path).read_text(encoding="utf-8")).get("eos_token_id") if path else None
    ids = eos if isinstance(eos, list) else [eos]
    return tuple(dict.fromkeys(i for i in [*ids, tokenizer.eos_token_id] if i is not None))


def load_chat(directory: str | Path, keep_thinking: bool) -> Chat:
    """Tokenizer, template and stop tokens of a checkpoint: a folder in Hugging Face layout, or a hub name.

    Raises InputError when there is no tokenizer, no chat template or no stop token.
    """
    os.environ.setdefault(
        "TRANSFORMERS_NO_ADVISORY_WARNINGS", "1"
    )  # that PyTorch is absent is as it should be
    from transformers import AutoTokenizer

    directory = str(directory)
    try:
        tokenizer = AutoTokenizer.from_pretrained(directory)
    except (OSError, ValueError) as e:
        raise InputError(
            f"{directory}: no tokenizer can be loaded ({str(e).splitlines()[0]}); give a folder in "
            "Hugging Face layout or the name of a model on the hub"
        ) from None
    if not tokenizer.chat_template:
        raise InputError(f"{directory}: the tokenizer has no chat template; use a chat model's checkpoint")
    stop_ids = _stop_ids(directory, tokenizer)
    if not stop_ids:
        raise InputError(f"{directory}: no stop token; set eos_token_id in generation_config.json")
    return Chat(tokenizer, keep_thinking, stop_ids)
