"""Out-of-domain skills: right answers, disjoint halves, honest guess rates."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pivotrl_jax.evaluation import skills
from pivotrl_jax.records import InputError


def question(item):
    return item.messages[0]["content"]


def test_every_family_has_a_hundred_held_out_items_disjoint_from_pretraining():
    assert len(skills.families()) >= 6
    for family in skills.families():
        test = skills.items(family, "test", 100, 0)
        pretrain = skills.items(family, "pretrain", 300, 1)
        assert len({question(i) for i in test}) == 100
        assert not {question(i) for i in test} & {question(i) for i in pretrain}, family


def test_items_are_the_same_for_the_same_seed_only():
    assert skills.items("copy", "test", 20, 3) == skills.items("copy", "test", 20, 3)
    assert skills.items("copy", "test", 20, 3) != skills.items("copy", "test", 20, 4)


def test_answers_follow_from_the_questions():
    """Recompute each answer from the words of the question alone."""
    for family in skills.families():
        for item in skills.items(family, "test", 50, 2):
            head, _, tail = question(item).partition(": ")
            words = tail.replace(",", "").replace(".", "").split()
            if family == "copy":
                want = tail
            elif family == "reverse":
                want = " ".join(words[::-1])
            elif family == "sort":
                want = " ".join(sorted(words))
            elif family == "add":
                want = str(int(words[0]) + int(words[2]))
            elif family == "subtract":
                want = str(int(words[0]) - int(words[2]))
            elif family == "count":
                want = str(len(words))
            elif family == "pick":
                want = words[{"first": 0, "second": 1, "third": 2, "last": -1}[head.split()[0]]]
            elif family == "lookup":
                key = words[-1].rstrip("?")
                want = words[words.index(key) + 1]
            elif family == "replace":
                _, old, _, new = head.split()
                want = " ".join(new if w == old else w for w in words)
            else:
                asked = question(item).replace("?", "").replace(".", "").replace(",", "").split()
                (relation,) = [w for w in asked if w in skills.RELATIONS]
                (entity,) = [w for w in asked if w in skills.ENTITIES]
                want = skills.fact(entity, relation)
            assert item.answer == want, item


def test_held_out_facts_are_asked_with_words_but_not_sentences_of_pretraining():
    def form(item):
        return " ".join(
            "E" if w.strip("?.") in skills.ENTITIES else "R" if w.strip("?.") in skills.RELATIONS else w
            for w in question(item).split()
        )

    test = {form(i) for i in skills.items("facts", "test", 300, 0)}
    pretrain = {form(i) for i in skills.items("facts", "pretrain", 1500, 0)}
    assert len(test) == 5 and not test & pretrain
    assert {w for f in test for w in f.split()} <= {w for f in pretrain for w in f.split()}


def test_is_correct_accepts_the_answer_and_rejects_another():
    for family in skills.families():
        for item in skills.items(family, "test", 30, 5):
            assert skills.is_correct(item, item.answer)
            assert skills.is_correct(item, f" {item.answer}.\n")
            assert not skills.is_correct(item, item.answer + " fox")
            assert not skills.is_correct(item, "")


@given(st.text())
def test_is_correct_never_raises(text):
    skills.is_correct(skills.items("copy", "test", 1, 0)[0], text)


def test_guess_rates_bound_a_guesser():
    """A guesser who shuffles or draws from the words of the question stays near the documented rate."""
    rng = random.Random(0)
    for family in ("copy", "reverse", "sort", "pick", "lookup", "facts", "count"):
        sample = skills.items(family, "test", 400, 1)
        right = 0
        for item in sample:
            words = [w.strip(",.?") for w in question(item).partition(": ")[2].split()]
            if family in ("copy", "reverse", "sort"):
                guess = " ".join(rng.sample(words, len(words)))
            elif family == "pick":
                guess = rng.choice(words)
            elif family == "lookup":
                guess = rng.choice(words[1:-3:2])
            elif family == "facts":
                (relation,) = [
                    w for w in skills.RELATIONS if w in question(item).split() or f"{w}?" in question(item)
                ]
                guess = rng.choice(skills.RELATIONS[relation])
            else:
                guess = str(rng.randint(1, 9))
            right += skills.is_correct(item, guess)
        assert abs(right / 400 - skills.chance(family)) < 0.06, family


def test_unknown_names_and_too_many_items_are_one_sentence():
    with pytest.raises(InputError, match="'juggle' does not exist; choose one of copy"):
        skills.items("juggle", "test", 1, 0)
    with pytest.raises(InputError, match="'dev' does not exist; choose one of pretrain, test"):
        skills.items("copy", "dev", 1, 0)
    with pytest.raises(InputError, match="fewer than 5000 different test items"):
        skills.items("add", "test", 5000, 0)
