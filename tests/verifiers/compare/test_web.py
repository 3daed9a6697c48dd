"""Queries, addresses, quotes and answers that mean the same, and those that do not."""

import pytest

from pivotrl_jax.verifiers.compare.answers import final_answer, same_answer
from pivotrl_jax.verifiers.compare.web import page, query_difference, same_page, same_passage

# ---- queries

SAME_QUERIES = [
    ("population of Lagos 2020 census", "Lagos population census 2020"),
    ("population of Lagos 2020 census", "What is the population of Lagos? 2020 census"),
    ("Population of Lagos", "POPULATION LAGOS"),
    ("São Paulo mayors", "sao paulo mayor"),
    ("race of 1,000 km", "1000 km race"),
    ("rain 3.00 mm Oslo", "rain 3 mm oslo"),
    ('history of "Deep Learning"', "“deep learning” history"),
    ("largest city Nigeria population", "largest city Nigeria population estimate"),  # 2 * 4 / 9
    ("largest city Nigeria population", "largest city Nigeria"),  # 2 * 3 / 7
    ("flights from Paris to Rome", "flights to Rome from Paris"),
    ("site:gov.uk income tax", "income tax site:gov.uk"),
    ("Einstein's letters", "einstein letters"),
    ("population of Lagos in 2020", "population in 2020 of Lagos"),
    ("long-term effects of sugar", "sugar long term effects"),
    ("side effects of long-term sugar use", "side effects of sugar use"),
    ("GDP of South Africa 2020", "South Africa GDP 2020"),
    ("Paris weather in June", "weather Paris in June"),
    ("the who", "The Who"),
    ("top ten films of Lagos", "top 10 films of Lagos"),
    ("cities of five million people", "cities of 5,000,000 people"),
    ("twenty-two-year-old swimmer of Ohio", "22-year-old swimmer of Ohio"),
    ("which one is the tallest tower in Rome", "which is the tallest tower in Rome"),
    ("!!", " !! "),
]
OTHER_QUERIES = [
    ("Python 3.10 release notes", "Python 3.1 release notes", "other numbers"),
    ("weather in 02139", "weather in 2139", "other numbers"),
    ("population of Lagos 2020 census", "Lagos population growth statistics Nigeria", "other numbers"),
    ("population of Lagos", "population of Laos", "words replaced"),
    ("population of Lagos 2020", "population of Lagos 2021", "other numbers"),
    ("population of Lagos 2020", "population of Lagos", "other numbers"),
    ("great grandfather of Tom Hanks", "grandfather of Tom Hanks", "other small words"),
    ("net income of Ford 2020 report", "income of Ford 2020 report", "other small words"),
    ("real GDP of Norway 2020 quarter", "GDP of Norway 2020 quarter", "other small words"),
    ("median income in Oslo Norway city", "income in Oslo Norway city", "other small words"),
    ("cities of 5 million people", "cities of 5 people", "other numbers"),
    ("cities of 5 million people", "cities of 5 billion people", "other numbers"),
    ("meaning of forty-two", "meaning of forty", "other numbers"),
    ("two men three women", "three men two women", "other numbers"),
    ('"deep learning" history', "deep learning history", "other quoted phrases"),
    ('"deep learning" history', '"learning deep" history', "other quoted phrases"),
    ("flights from Paris to Rome", "flights from Rome to Paris", "other small words"),
    ("films before the war", "films before the flood war", "other small words"),
    ("diet without sugar", "diet sugar", "other small words"),
    ("deaths in 1990 births in 1950 painter", "births in 1990 deaths in 1950 painter", "another order"),
    ("sales in Paris returns in Rome", "returns in Paris sales in Rome", "another order"),
    ("mother of Obama", "mother-in-law of Obama", "another compound"),
    ("vice president of Nigeria in 2010", "president of Nigeria in 2010", "other small words"),
    ("deputy prime minister of Japan 1990", "prime minister of Japan 1990", "other small words"),
    ("GDP of South Africa 2020 growth", "GDP of Africa 2020 growth", "other small words"),
    ("unemployment rate Spain 2019", "unemployment rate Spain youth 2019", "other small words"),
    ("site:gov.uk tax", "site:gov.us tax", "other operators"),
    ("jaguar -car", "jaguar car", "other operators"),
    ("Lagos population", "Lagos", "too few words in common"),
    ("Lagos", "Lagos spam eggs ham toast tea", "too few words in common"),
    ("Lagos population", "Lagos population " + "spam " * 2 + "of eggs ham toast", "too few words in common"),
    ("Lagos", "", "no words in common"),
    ("!!", "??", "no words in common"),
]


@pytest.mark.parametrize(("want", "got"), SAME_QUERIES)
def test_queries_that_ask_the_same(want, got):
    assert query_difference(want, got) == query_difference(got, want) == ""


@pytest.mark.parametrize(("want", "got", "why"), OTHER_QUERIES)
def test_queries_that_ask_something_else(want, got, why):
    assert query_difference(want, got) == why
    assert query_difference(got, want)


# ---- addresses

SAME_PAGES = [
    ("https://www.example.com/a/b/", "http://example.com/a/b"),
    ("https://example.com:443/a", "http://example.com:80/a"),
    ("https://example.com/a#part", "https://example.com/a#:~:text=x"),
    ("https://example.com/?b=2&a=1", "https://example.com?a=1&b=2"),
    ("https://example.com/a?utm_source=x&gclid=1&fbclid=2", "https://example.com/a"),
    ("https://example.com/Foo_%28bar%29", "https://example.com/Foo_(bar)"),
    ("https://example.com/caf%c3%a9?q=a+b", "https://example.com/café?q=a%20b"),
    ("https://EXAMPLE.com/a", "example.com/a"),
    ("https://example.com/a/../b/./c", "https://example.com/b/c"),
]
OTHER_PAGES = [
    ("https://example.com/a", "https://example.org/a"),
    ("https://example.com/a", "https://sub.example.com/a"),
    ("https://example.com/a", "https://example.com/A"),
    ("https://example.com/a", "https://example.com/a/b"),
    ("https://example.com/?id=1", "https://example.com/?id=2"),
    ("https://example.com/?id=1", "https://example.com/"),
    ("https://example.com/?a=1&a=2", "https://example.com/?a=2&a=1"),
    ("https://example.com:8080/", "https://example.com/"),
    ("https://example.com/a%2Fb", "https://example.com/a/b"),
    ("https://example.com/?q=a%2Bb", "https://example.com/?q=a+b"),
    ("ftp://example.com/a", "https://example.com/a"),
    ("https://example.com/a", "the page"),
]


@pytest.mark.parametrize(("want", "got"), SAME_PAGES)
def test_addresses_of_one_page(want, got):
    assert same_page(want, got) and same_page(got, want)


@pytest.mark.parametrize(("want", "got"), OTHER_PAGES)
def test_addresses_of_two_pages(want, got):
    assert not same_page(want, got) and not same_page(got, want)


@pytest.mark.parametrize(
    "text", ["http://[::1", "http://\ud800.com/%ff", "mailto:a@b.c", "localhost", "", "a b.c"]
)
def test_what_is_no_address_is_compared_as_it_is(text):
    page(text)
    assert same_page(text, text) and not same_page(text, text + "x")


# ---- quotes and answers


@pytest.mark.parametrize(
    ("want", "got", "same"),
    [
        ("largest city in Nigeria", "Largest  city, in NIGERIA", True),
        ("largest city in Nigeria", "city in Nigeria", True),
        ("largest city in Nigeria", "the largest city in Nigeria ever", False),  # the page does not say so
        ("largest city in Nigeria", "is the largest city in Nigeria", True),
        ("largest city in Nigeria", "Nigeria", False),  # too little of it
        ("largest city in Nigeria", "largest city of Nigeria", False),
        ("large", "larger", False),  # whole words
        ("--", "--", True),
        ("--", "-", False),
    ],
)
def test_quotes_of_one_passage(want, got, same):
    assert same_passage(want, got, "lagos is the largest city in nigeria with 15 million people") == same


def test_a_longer_quote_is_taken_at_its_word_where_no_page_is_known():
    assert same_passage("largest city", "the largest city ever", None)


SAME_ANSWERS = [
    ("forty-two", "42"),
    ("forty two", "42"),
    ("5 million", "5,000,000"),
    ("5 million", "five million"),
    ("5.2 million", "5,200,000"),
    ("$5 million", "$5,000,000"),
    ("0.5 million", "500,000"),
    ("one hundred and five", "105"),
    ("a hundred", "100"),
    ("a hundred men", "100 men"),
    ("A Thousand Splendid Suns", "Thousand Splendid Suns"),
    ("about a million", "about 1,000,000"),
    ("about one million", "about a million"),
    ("two thousand and twelve", "2012"),
    ("nineteen hundred", "1900"),
    ("one million two hundred thousand", "1,200,000"),
    ("three hundred sixty five", "365"),
    ("Twenty-One Pilots", "21 Pilots"),
    ("five hundred thousand", "500,000"),
    ("-5 million", "-5,000,000"),
    ("1.5 billion people", "1,500,000,000 people"),
    ("ninety-nine", "99"),
    ("twelve hundred", "1200"),
    ("May five 2020", "2020-05-05"),
    ("May 1, 2024", "2024-05-01"),
    ("1st of May 2024", "may 1 2024"),
    ("1,234", "1234.0"),
    ("three", "3"),
    ("The Beatles", "beatles"),
    ("an apple", "Apple."),
    ("$5 million", "5 million dollars"),
    ("5 %", "5 percent"),
    ("-3", "minus 3"),
    ("São Paulo", "sao paulo"),
    ("?", "?"),
]
OTHER_ANSWERS = [
    ("5 million", "5"),
    ("5 million", "5 billion"),
    ("5 million", "50 million"),
    ("5.2 million", "5.02 million"),
    ("forty-two", "forty"),
    ("forty-two", "two"),
    ("forty-two", "40"),
    ("forty-two", "24"),
    ("forty two", "40 2"),
    ("one hundred and five", "100"),
    ("one hundred and five", "100 and 5"),
    ("one hundred", "hundred and one"),
    ("two thousand million", "2000"),
    ("half a million", "1,000,000"),
    ("half a million", "one million"),
    ("two and a half million", "2,000,000"),
    ("two and a half", "2.5"),
    ("several million", "million"),
    ("several million", "1,000,000"),
    ("millions", "1,000,000"),
    ("nineteen eighty-four", "1984"),
    ("nineteen eighty-four", "103"),
    ("5 m", "5 million"),
    ("one two", "12"),
    ("two hundred", "102"),
    ("two hundred", "200th"),
    ("twenty", "twentieth"),
    ("five point two million", "5,200,000"),
    ("point five million", "500,000"),
    ("1.5 million", "15 million"),
    ("-5 million", "5 million"),
    ("1,5 million", "15 million"),
    ("one million", "1"),
    ("a few hundred", "100"),
    ("hundredth", "100"),
    ("forty-two percent", "42"),
    ("twenty to thirty", "2030"),
    ("twenty to thirty", "50"),
    ("a", "1"),
    ("thousandfold", "1000"),
    ("May 1, 2024", "2024-05-02"),
    ("1 May 2024", "5 January 2024"),
    ("1,234", "1,235"),
    ("3", "-3"),
    ("3.5", "35"),
    ("1999", "2000"),
    ("Vitamin A", "vitamin"),
    ("Paris", "Paris, France"),
    ("yes", "no"),
    ("50 %", "50"),
    ("$5", "5"),
    ("?", "!"),
    ("x", "?"),
]


@pytest.mark.parametrize(("want", "got"), SAME_ANSWERS)
def test_answers_that_are_the_same(want, got):
    assert same_answer(want, got) and same_answer(got, want)


@pytest.mark.parametrize(("want", "got"), OTHER_ANSWERS)
def test_answers_that_are_not(want, got):
    assert not same_answer(want, got) and not same_answer(got, want)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Explanation: a river.\nExact Answer: **The Nile**\nConfidence: 90%", "The Nile"),
        ("I think <answer> Nile </answer>", "Nile"),
        ("Answer: Po\nNo, wait.\nFinal answer: Nile", "Nile"),
        ("It is the Nile. ", "It is the Nile."),
        ("The answer: Nile", "The answer: Nile"),
        ("<answer>never closed", "<answer>never closed"),
        (r"$\boxed{42}$", "42"),
        (r"So \boxed{41} is wrong; it is \boxed{42}.", "42"),
        (r"It is \boxed{\frac{1}{2}}, not \boxed{2", r"\frac{1}{2}"),
        (r"It is \boxed{\{1, 2\}}.", r"\{1, 2\}"),
        (r"Final answer: $\boxed{\text{The Nile}}$", "The Nile"),
        (r"<answer>\boxed{Nile}</answer>", "Nile"),
        (r"\boxed{}", r"\boxed{}"),
    ],
)
def test_the_final_answer_is_found(text, answer):
    assert final_answer(text) == answer
