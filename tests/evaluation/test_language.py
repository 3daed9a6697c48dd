"""The suite for language models: well-formed items, judges that accept right and reject wrong texts, and
log-probs that are the model's own."""

import collections
import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from support import tiny_run
from support.configs import CONFIGS
from tokenizers import Tokenizer, models, normalizers, processors

from pivotrl_jax.chat import template
from pivotrl_jax.evaluation import evaluation, measures
from pivotrl_jax.evaluation.language import checks, items, scores
from pivotrl_jax.models import decoder, forest
from pivotrl_jax.records import InputError
from pivotrl_jax.rollouts.actor import Completion
from pivotrl_jax.rollouts.rollout import Rollouts
from pivotrl_jax.rollouts.scoring import Scorer
from pivotrl_jax.run import run as run_lib

ALL = [item for family in items.families() for item in items.items(family)]
QUESTIONS = [item for item in ALL if isinstance(item, items.Question)]
CALL = '<tool_call>\n{"name": "search", "arguments": {}}\n</tool_call>'

# ---- items


def test_there_are_six_families_of_a_hundred_different_items():
    counts = collections.Counter(item.family for item in ALL)
    assert list(counts) == items.families() and len(counts) == 6
    assert min(counts.values()) >= 100 and sum(counts.values()) >= 600
    assert len({item.id for item in ALL}) == len(ALL)
    asked = [getattr(item, "beginning", None) or item.question for item in ALL]
    assert len({text.casefold() for text in asked}) == len(ALL), "no phrasing twice"
    assert all(text == text.strip() and "{" not in text for text in asked)


def test_the_right_end_is_among_the_choices_once():
    facts = {q.id.partition("/")[2]: q for q in QUESTIONS if q.family == "fact_answers"}
    choices = [item for item in ALL if isinstance(item, items.Choice)]
    assert {c.id.partition("/")[2] for c in choices} == set(facts)
    for choice in choices:
        judge = facts[choice.id.partition("/")[2]].judge
        assert [i for i, end in enumerate(choice.ends) if judge(end)] == [choice.answer]
        assert len(set(choice.ends)) == len(choice.ends) >= 5
    places = collections.Counter(choice.answer for choice in choices)
    assert len(places) == 6 and max(places.values()) < len(choices) / 3, "no place is the best guess"


def test_passages_are_long_enough_and_begin_with_a_sentence():
    for passage in items.items("text"):
        assert passage.rest.startswith(" ") and not passage.rest.startswith("  ")
        assert len(passage.rest) >= 90 and len(passage.beginning) >= 20
        assert passage.rest[-1] in '."?!'


def test_fewer_items_are_always_the_same_ones_of_every_kind():
    some, more = ([item.id for item in items.items("instructions", n)] for n in (60, 100))
    assert some == more[:60]
    assert len({name.split("/")[1] for name in some}) == len(checks.INSTRUCTIONS)


def test_what_does_not_exist_is_named():
    with pytest.raises(InputError, match="'juggling' does not exist; choose one of fact_choices"):
        items.items("juggling")
    with pytest.raises(InputError, match=r"'text' has 110 items, fewer than 111; set config.evaluate"):
        items.items("text", 111)


# ---- judges

# kind, argument, texts that follow the instruction, texts that do not
INSTRUCTIONS = [
    ("capitals", "dogs", ["DOGS BARK.", "2 DOGS RUN!"], ["Dogs bark.", "DOGS bark.", "123"]),
    ("list", "2", ["1. a\n2. b", "Fish:\n1) a\n2) b"], ["1. a", "1. a\n2. b\n3. c", "- a\n- b", "a, b"]),
    (
        "bullets",
        "3",
        ["- a\n- b\n- c", "Here:\n\n* a\n* b\n* c"],
        ["- a\n- b", "- a\n- b\n- c\n- d", "a, b, c"],
    ),
    ("word", "sand", ["The sand is hot.", "Sand!"], ["A sandy beach.", "The thousand."]),
    ("yes_or_no", "?", ["Yes", " no.\n", '"Yes."'], ["Yes, it is.", "Maybe", "yes no"]),
    (
        "ends_with",
        "by the sea",
        ["We sat by the sea.", "we sat By The Sea"],
        ["by the sea we sat", "the sea"],
    ),
    (
        "starts_with",
        "One day",
        ["One day they met.", '"One day, we met."'],
        ["They met one day.", "One days"],
    ),
    ("no_comma", "a ship", ["The ship sails at dawn."], ["At dawn, the ship sails.", "A ship."]),
    ("fewer_words", "5", ["A sour yellow fruit"], ["A sour yellow fruit indeed", "Sour fruit"]),
    (
        "repeat",
        "The cat sleeps.",
        ["The cat sleeps.", '"The cat sleeps."'],
        ["The cat sleeps. Yes.", "the dog"],
    ),
    (
        "question",
        "work",
        ["What do you do?", '"Do you like it?"'],
        ["I like it.", "Why? Because.", "I help. What do you ask?"],
    ),
]


@pytest.mark.parametrize("kind, argument, good, bad", INSTRUCTIONS, ids=[row[0] for row in INSTRUCTIONS])
def test_instructions_accept_and_reject(kind, argument, good, bad):
    for text in good:
        assert checks.follows(text, kind, argument), text
    for text in [*bad, "", "...", CALL, "<h1>", "<h1> <h2> <p> <a href=x>", "[1, 2]", "ha " * 40]:
        assert not checks.follows(text, kind, argument), text


def test_every_kind_of_instruction_has_a_table():
    asked = {item.id.split("/")[1] for item in items.items("instructions")}
    assert asked == set(checks.INSTRUCTIONS) == {row[0] for row in INSTRUCTIONS}


@pytest.mark.parametrize(
    "text, right",
    [
        ("Paris", True),
        ("The capital of France is **Paris**.", True),
        ("PARIS!", True),
        ("Lyon", False),
        ("Parisian food is good.", False),
        ("", False),
        ("Cities of Europe are " + "Rome and " * 20 + "Paris", False),
    ],
)
def test_facts_are_told_early_and_as_words(text, right):
    assert checks.tells(text, ("Paris",)) is right


@pytest.mark.parametrize(
    "text, number",
    [
        ("12 + 7 = 19.", "19"),
        ("He has 4 + 3 = 7 apples, which is 3 more.", "7"),
        ("12 + 7 = 12 + 7 = 19, 4 days", "19"),
        ("19", "19"),
        ("The answer is 1,200.00", "1200"),
        ("$5.50", "5.50"),
        ("007", "7"),
        ("none", ""),
        ("", ""),
    ],
)
def test_the_number_after_equals_counts_or_the_last(text, number):
    assert checks.result_number(text) == number


def test_right_answers_are_accepted_and_those_of_another_item_are_not():
    for question in items.items("arithmetic"):
        _, kind, numbers = question.id.split("/")
        a, b = map(int, numbers.split(","))
        want = a - b if kind == "books" else a + b
        assert question.judge(f"{a} and {b} make {want}.") and not question.judge(f"It is {want + 1}.")
        assert str(a) in question.question and str(b) in question.question


@pytest.mark.parametrize(
    "text, fine",
    [
        ("I am well, thank you! And you?", True),
        ("Gute Nacht!", True),
        ("I like 2 < 3 and tea.", True),
        ("", False),
        ("🙂", False),
        (CALL, False),
        ("<tool_call>", False),
        ("<h1> <h2> <p>", False),
        ('{"name": "reply"}', False),
        ("I am fine. " * 20, False),
    ],
)
def test_small_talk_is_a_reply_in_words(text, fine):
    assert items.items("small_talk", 1)[0].judge(text) is fine


@settings(max_examples=200, deadline=None)
@given(st.text() | st.text(alphabet="-*\n\"'.,?<>/h1 a0９²İß\ud800{[", max_size=300))
def test_no_judge_raises(text):
    for kind, argument, *_ in INSTRUCTIONS:
        assert checks.follows(text, kind, argument) in (True, False)
    for question in (items.items(family, 1)[0] for family in ("fact_answers", "arithmetic", "small_talk")):
        assert question.judge(text) in (True, False)


# ---- scores


class Says:
    """An actor that gives one reply to everything."""

    def __init__(self, chat, text, finished=True):
        ids = [*chat.encode(text), *([chat.stop_ids[0]] if finished else [])]
        self.completion = Completion(ids, [0.0] * len(ids), [0.0] * len(ids), finished)

    def act(self, params, requests, stream, on_batch=lambda done: None):
        return [[self.completion] for _ in requests]


def shares(chat, text, finished=True):
    """Family -> share of its questions answered rightly by one text."""
    found = scores.ask(Rollouts(Says(chat, text, finished), chat), None, QUESTIONS, None)
    by_family = collections.defaultdict(list)
    for question in QUESTIONS:
        by_family[question.family].append(found[question.id]["correct"])
    return {family: np.mean(values) for family, values in by_family.items()}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("language")
    config = CONFIGS.get_config().copy_and_resolve_references()
    config.model.checkpoint = str(tiny_run.save_random(directory / "hf"))
    config.workdir = str(directory / "run")
    config.evaluate.skills, config.evaluate.skill_items = "language", 2
    return run_lib.open_run(config)


def test_calls_markup_and_cut_replies_are_wrong():
    chat = template.load_chat(tiny_run.ASSETS, False)
    assert set(shares(chat, CALL).values()) == {0.0}
    assert set(shares(chat, "<tool_call>{").values()) == {0.0}
    assert shares(chat, "certainly")["small_talk"] == 1
    assert shares(chat, "certainly", finished=False)["small_talk"] == 0
    assert 0 < shares(chat, "tuesday", finished=False)["fact_answers"] < 0.05


def test_log_probs_are_those_of_the_plain_model(run):
    pieces = [
        forest.Piece(0, [5, 6, 7], [[8, 9], [10]]),
        forest.Piece(1, [11, 12], [[13, 14, 15]]),
    ]
    found = Scorer(run.model_config, run.config.compute, run.mesh)(run.params, [[p] for p in pieces])
    for piece, totals in zip(pieces, found):
        for branch, total in zip(piece.branches, totals):
            ids = [*piece.prompt, *branch]
            logits = decoder.logits(run.model_config, run.params, jnp.array([ids]))[0]
            each = jax.nn.log_softmax(logits)[jnp.arange(len(ids) - 1), jnp.array(ids[1:])]
            assert total == pytest.approx(float(each[len(piece.prompt) - 1 :].sum()), abs=1e-4)


class Asked(Exception):
    """An evaluation that must not be read back is asked for."""

    def __call__(self, *_, **__):
        raise self


def test_a_policy_is_asked_the_whole_suite_and_compared(run, monkeypatch):
    held_out = evaluation.HeldOut([], [], [], [i for f in items.families() for i in items.items(f, 2)])
    found = evaluation.evaluate_run(run, run.params, held_out, "before", "pi")
    assert [answer["id"] for answer in found["skills"]] == [item.id for item in held_out.language]
    assert found["rollout_turns"] == 8
    assert all(0 < a["bits_per_byte"] < 40 for a in found["skills"] if a["family"] == "text")
    summary, same = measures.summarise(found), measures.compare(found, found)
    assert set(summary["families"]) == {*items.families()} - {"text"} and summary["out_of_domain"]["n"] == 10
    assert summary["bits_per_byte"]["n"] == 2 and same["bits_per_byte"]["value"] == 0
    thinking = dataclasses.replace(run, chat=dataclasses.replace(run.chat, keep_thinking=True))
    monkeypatch.setattr(evaluation, "evaluate", Asked())
    with pytest.raises(Asked):
        evaluation.evaluate_run(thinking, run.params, held_out, "before", "pi")
    assert evaluation.evaluate_run(run, run.params, held_out, "before", "pi") == found, "read back"
    monkeypatch.undo()
    other = dataclasses.replace(held_out, language=held_out.language[:-1])
    assert len(evaluation.evaluate_run(run, run.params, other, "before", "pi")["skills"]) == 11


def llama_like(*words):
    """A tokenizer that writes a space before every text, as Llama's does, and begins texts with a token."""
    vocabulary, merges = ["<s>", *sorted({c for word in words for c in word})], []
    for word in words:
        for i in range(1, len(word)):
            if word[: i + 1] not in vocabulary:
                vocabulary.append(word[: i + 1])
                merges.append((word[:i], word[i]))
    made = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, merges))
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return transformers.PreTrainedTokenizerFast(tokenizer_object=made, bos_token="<s>")


def test_an_end_is_tokenised_with_its_prompt():
    tokenizer = llama_like("▁▁", "▁Paris", "▁Rome", "▁is")
    chat = template.Chat(tokenizer, False, (0,))
    trunk, (paris, rome) = scores.continuations(chat, "It is", [" Paris", " Rome"])
    assert tokenizer.convert_ids_to_tokens(paris) == ["▁Paris"] != chat.encode(" Paris")
    assert tokenizer.convert_ids_to_tokens(rome) == ["▁Rome"] and trunk == chat.encode("It is")
    passage = items.Passage("p", "text", "It is", " Paris")
    piece = scores._piece(chat, 0, passage)
    assert (piece.prompt, piece.branches) == ([tokenizer.bos_token_id, *trunk], [paris])


def test_where_a_prompt_s_last_token_depends_on_the_end_all_ends_begin_before_it():
    tokenizer = llama_like("▁is", "▁isn", "▁on")
    chat = template.Chat(tokenizer, False, (0,))
    trunk, branches = scores.continuations(chat, "on is", ["n", " on"])
    assert tokenizer.convert_ids_to_tokens(trunk) == ["▁on"]
    assert [tokenizer.convert_ids_to_tokens(ids) for ids in branches] == [["▁isn"], ["▁is", "▁on"]]


def test_ends_that_a_tokenizer_writes_alike_alone_are_as_they_were():
    chat = template.load_chat(tiny_run.ASSETS, False)
    prompt, ends = chat.render([{"role": "user", "content": "Hm?"}], []) + "It is", [" a cat", " tea", " 12"]
    assert scores.continuations(chat, prompt, ends) == (
        chat.encode(prompt),
        [chat.encode(end) for end in ends],
    )
    choice = items.items("fact_choices", 1)[0]
    piece = scores._piece(chat, 0, choice)
    assert piece.branches == [chat.encode(f" {end}") for end in choice.ends]


def test_bits_per_byte_by_hand(run, monkeypatch):
    """Half a bit for each byte, as natural log-probs."""
    passage = items.items("text", 1)[0]
    bits = 0.5 * len(passage.rest.encode())
    monkeypatch.setattr(scores, "Scorer", lambda *_: lambda *_: [[-bits * math.log(2)]])
    (found,) = scores.score(run, run.params, [passage], jax.random.key(0))
    assert found["bits_per_byte"] == pytest.approx(0.5)
