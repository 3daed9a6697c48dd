"""Do two queries, addresses or quotes of a search mean the same?

Model output may be of any length and kind, so everything here takes linear time and treats numbers as text. A
text many times as long as the demonstrated one is not read.
"""

import re
import unicodedata
from collections.abc import Collection
from urllib.parse import SplitResult, quote, unquote_plus, unquote_to_bytes, urlsplit

from rapidfuzz.distance import Indel

from pivotrl_jax.verifiers.compare.numbers import counted

QUERY_SIMILARITY = 0.8  # 2 of 6 words may be left out, or 1 of 3


# words that may be added or left out; every other small word counts (SMALL_WORDS)
STOP_WORDS = frozenset(
    """a an the of in on at for and is are was were be been do does did has have had what which that this
    these those it its me i you your we our can could would should please find search show list tell
    my""".split()
)

_NOT = "not no without never none except excluding exclude nor neither"
_WAYS = """from to by before after between than versus vs over under since until against with into about as
    via through during per above below within outside inside near behind"""
# small words that change what is asked, each together with the topic word after it
DIRECTIONS = frozenset(f"{_NOT} non anti pre post pro ex {_WAYS}".split())
# and those that need no topic word
SMALL_WORDS = frozenset(
    """who when where why how or only all any every some both either best worst first last most least more
    less fewer largest smallest highest lowest biggest longest shortest cheapest max min maximum minimum top
    bottom cheap expensive men women boys girls
    high low big small old new latest oldest newest early late male female up down off out free open closed
    great grand co junior senior adult child net gross real nominal median daily weekly monthly
    quarterly annual indoor outdoor
    north south east west northern southern eastern western vice deputy assistant acting half step youth
    true false yes former future next previous again still yet same different other another""".split()
)
# what is asked of two things changes with their order: who pays whom
_AUXILIARIES = frozenset("is are was were do does did has have had can could would should will".split())
_TENSES = (
    {"is", "are", "do", "does", "has", "have"},
    {"was", "were", "did", "had"},
    {"can", "could"},
    {"should"},
)
_SPELLINGS = {"whom": "who", "versus": "vs", "excluding": "exclude"}

_NEGATED = re.compile(r"\b(?:(ca|wo|sha)n't|(\w+)n't|cannot|(do|does|is|are|was|did)nt)\b|\bcant\b|\bwont\b")
_CAPITALS = re.compile(
    r"(?<!\S)[\"(]?(AND|OR|NOT|NEAR|IT|US|WHO|A|ALL|NO|MAY|CAN|IS|IN|ON|AT|BE|DO)[\")?.,]?(?!\S)"
)
# a search engine has no use for these; what holds one is a pattern or code
_PATTERN = re.compile(r"[{}\[\]`\\;|*^=]|->|::|\w\(")
_OPERATOR = re.compile(r"-?(?:site|filetype|ext|intitle|inurl|intext|before|after|lang):\S+|-[^\W\d_]\S*")
_WORD = re.compile(r"\d+(?:[.,]\d+)+|\w+")
_COMPOUND = re.compile(r"\b\w+(?:[-‐]\w+)+")
_POSSESSIVE = re.compile(r"'s\b")
_QUOTED = re.compile(r'"([^"]{1,2000})"')
_QUOTES = str.maketrans({c: '"' for c in "“”„«»"} | {c: "'" for c in "‘’‛"})


def plain(text: str) -> str:
    """In lower case, without accents of Latin and Greek letters (elsewhere a mark makes another letter), with
    one kind of width and of quotation marks."""
    text = unicodedata.normalize("NFKD", text.translate(_QUOTES)).casefold()
    kept, takes_accents = [], True
    for c in text:
        if not unicodedata.combining(c):
            takes_accents = c < "\u0400" or "\u1e00" <= c < "\u2000"
        elif takes_accents:
            continue
        kept.append(c)
    return unicodedata.normalize("NFC", "".join(kept))


_INITIALS = re.compile(r"(?<![\w.])[^\W\d_]\.(?: ?[^\W\d_]\.)+")


def undotted(text: str) -> str:
    """The text with U.S. as US, and J. K. as JK."""
    return _INITIALS.sub(lambda m: m[0].replace(".", "").replace(" ", ""), text)


def _number(word: str) -> str:
    """1,234.00 -> 1234: a number without thousands' commas and a fraction of zeros; others unchanged."""
    if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", word):
        word = word.replace(",", "")
    if re.fullmatch(r"[0-9]+(?:\.[0-9]+)?", word):
        whole, _, part = word.partition(".")
        return whole + ("." + part if part.strip("0") else "")  # 3.10 is not 3.1, nor 02139 2139
    return word


def words(text: str, names: bool = False) -> list[str]:
    """The words of `text` in plain form, numbers by value, without punctuation. `names`: 's stays, since
    Wendy's is not Wendy."""
    text = _POSSESSIVE.sub("s" if names else " ", plain(text).replace("_", " "))
    return [_number(word) for word in _WORD.findall(text)]


def too_long(want: str, got: str) -> bool:
    """Whether `got` is so much longer than `want` that it cannot mean the same."""
    return len(got) > 1000 + 4 * len(want)


def _singular(word: str) -> str:
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    return (
        word[:-1] if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")) else word
    )


# ---- signs, which `words` drops

# C++ is not C, 5 < x is not 5 > x, and -5 is not 5
SIGN_CHARACTER = "+#<>=^|~@°±×÷≤≥≠≈→€£¥²³¹⁰⁴⁵⁶⁷⁸⁹\\\\"
_SIGNED = re.compile(rf"[{SIGN_CHARACTER}$%]|(?<![\w.])[-−]\d|\d/\d")


def signs(text: str, pattern: re.Pattern[str] = _SIGNED) -> list[str]:
    """The words of `text` that hold a sign of a formula, a currency or a name such as C#."""
    return [word.casefold().strip(".,;:!?()\"'*_") for word in text.split() if pattern.search(word)]


def _holds(long: list[str], short: list[str]) -> bool:
    """Whether the items of `short` follow one another in `long`."""
    return "\n".join(["", *short, ""]) in "\n".join(["", *long, ""])


# ---- queries


def _asked(text: str) -> list[str]:
    """The words of a query, "isn't" as "is not" and numbers in words as digits."""
    spelled = _NEGATED.sub(lambda m: f"{m[2] or m[3] or 'can'} not", plain(text))
    return counted([_SPELLINGS.get(word, word) for word in words(spelled)], pronouns=True)


def _topic(all_words: list[str]) -> list[str]:
    """The words that a query is about, in order; a letter is one after a noun (vitamin A)."""
    last = len(all_words) - 1
    return [
        _singular(w)
        for i, w in enumerate(all_words)
        if w not in STOP_WORDS or (w in ("a", "i") and i and (i == last or all_words[i - 1] in _LETTERED))
    ]


_LETTERED = frozenset("vitamin hepatitis influenza plan class type grade section group series part".split())


def _small_words(all_words: list[str]) -> set[tuple[str, str]]:
    """Small words, those of direction with the topic word after them: Paris to Rome, not Rome to Paris."""
    return {(word, "") for word in all_words if word in SMALL_WORDS} | _after(all_words, DIRECTIONS)


# ordinals, months, and what tells one model from another; "may" and "march" are verbs as well
_TELLING = frozenset(
    """second third fourth fifth sixth seventh eighth ninth tenth
    january february april june july august september
    october november december monday tuesday wednesday thursday friday saturday sunday plus mini ultra lite
    """.split()
)
_ROMAN = re.compile(r"x{0,3}(?:ix|iv|v?i{0,3})")
_LETTER = re.compile(r"(?<![\w.'’&-])[B-HJ-Z](?![\w.'’&+#-])")  # Model S, Malcolm X; no initial, and not "I"


def _numerals(all_words: list[str], letters: set[str]) -> set[str]:
    """Ordinals, Roman numerals, months, and the letters that are names."""
    numerals = {w for w in all_words if w in _TELLING or (len(w) > 1 and _ROMAN.fullmatch(w))}
    return numerals | letters.intersection(all_words)


def _tenses(all_words: list[str]) -> set[int]:
    return {i for i, tense in enumerate(_TENSES) if tense.intersection(all_words)}


def _after(all_words: list[str], small: Collection[str]) -> set[tuple[str, str]]:
    """Each of the small words in a query, with the topic word that follows it."""
    found = set()
    for i, word in enumerate(all_words):
        if word in small:
            after = next((w for w in all_words[i + 1 : i + 4] if w not in STOP_WORDS), "")
            found.add((word, _singular(after)))
    return found


def _reordered(ours: list[str], theirs: list[str]) -> bool:
    """Whether two queries name things in another order, and nothing says that this means the same.

    "area of Lagos" is "Lagos area", and what follows "from" or "to" may stand anywhere, but "milk chocolate"
    is not "chocolate milk", "births in 1990, deaths in 1950" are not "deaths in 1990, births in 1950", and in
    a question the order says who does what.
    """
    topics = [[w for w in dict.fromkeys(_topic(w)) if not w[0].isdigit()] for w in (ours, theirs)]
    first, second = ([w for w in one if w in other] for one, other in (topics, topics[::-1]))
    if first == second:
        return False
    if any(_AUXILIARIES.intersection(w) or "who" in w for w in (ours, theirs)):
        return True
    places = [_places(w) for w in (ours, theirs)]
    if all(places):
        things = [{what for what, *_ in each} for each in places]
        where = [{tuple(rest) for _, *rest in each} for each in places]
        return where[0] != where[1] or (things[0] == things[1] and places[0] != places[1])
    moves = any(places) or all(DIRECTIONS.intersection(w) for w in (ours, theirs))
    return not moves


def _places(all_words: list[str]) -> set[tuple[str, str, str]]:
    """(what, preposition, where) of "births in 1990": topic words before and after it; in "people of Lagos in
    2020" the people are before both."""
    found, what, small = set(), "", ""
    for word in all_words:
        if word in _PLACES:
            small = word
        elif word not in STOP_WORDS:
            if small:
                found.add((what, small, _singular(word)))
            else:
                what = _singular(word)
            small = ""
    return found


_PLACES = frozenset("of in for on at".split())


def _parts_a_compound(text: str, topic: Collection[str]) -> bool:
    """Whether a word with a hyphen (mother-in-law) is in a topic by some of its parts only."""
    parted = ({w in topic for w in _topic(_asked(c))} for c in _COMPOUND.findall(plain(text)))
    return any(len(parts) > 1 for parts in parted)


def _quoted(text: str) -> set[tuple[str, ...]]:
    return {tuple(words(q)) for q in _QUOTED.findall(text.translate(_QUOTES))}


def _capitals(text: str) -> set[str]:
    """The words whose capitals tell them from others (IT, US); the first one may be a sentence's "A"."""
    return set() if text.isupper() else set(_CAPITALS.findall(re.sub(r"\A\W*A\b", "", text)))


def same_marks(want: str, got: str) -> bool:
    """Whether two queries have the same quoted phrases, operators and words in capitals."""
    return all(set(of(want)) == set(of(got)) for of in (_quoted, _operators, _capitals))


def query_difference(want: str, got: str, threshold: float = QUERY_SIMILARITY) -> str:
    """Why `got` asks something else than `want`, "" if it does not.

    Case, accents, punctuation, plurals, stop words and repeated words are ignored, and so is word order where
    a word such as "of" explains it. Numbers, signs (C++, < 5), quoted phrases, operators (site:, -word) and
    small words (not, or, who, first; "from Paris") must be the same. Other words may be added or left out as
    long as 2 * common / (words of both) reaches `threshold`, but not replaced: another word may be another
    city, nor is a word with a hyphen taken apart. Patterns and code must be equal.
    """
    if want.split() == got.split():
        return ""
    if too_long(want, got):
        return "too few words in common"
    want, got = undotted(want), undotted(got)
    if _PATTERN.search(want) or _PATTERN.search(got):
        return "other code"
    ours, theirs = _asked(want), _asked(got)
    letters = {letter.lower() for text in (want, got) for letter in _LETTER.findall(text)}
    for kind, of in (
        ("quoted phrases", lambda text, _: _quoted(text)),
        ("operators", lambda text, _: set(_operators(text))),
        ("signs", lambda text, _: set(signs(text))),
        ("numbers", lambda _, all_words: [w for w in dict.fromkeys(all_words) if any(map(str.isdecimal, w))]),
        ("numerals", lambda _, all_words: _numerals(all_words, letters)),
        ("small words", lambda _, all_words: _small_words(all_words)),
        ("words in capitals", lambda text, _: _capitals(text)),
    ):
        if of(want, ours) != of(got, theirs):
            return f"other {kind}"
    tenses = _tenses(ours), _tenses(theirs)
    if all(tenses) and tenses[0] != tenses[1]:
        return "another tense"
    topic, other = (sorted(set(_topic(w)) or set(w)) for w in (ours, theirs))
    if not topic or not other:
        return "no words in common"
    if set(topic) - set(other) and set(other) - set(topic):
        return "words replaced"
    if _parts_a_compound(want, other) or _parts_a_compound(got, topic):
        return "another compound"
    if not _operators(want) and _reordered(ours, theirs):  # an operator may stand anywhere
        return "another order"
    similar = Indel.normalized_similarity(topic, other) > threshold - 1e-9
    return "" if similar else "too few words in common"


def _operators(text: str) -> list[str]:
    return [w for w in plain(text).split() if _OPERATOR.fullmatch(w)]


# ---- addresses

_TRACKING = re.compile(
    r"utm_\w*|(?:g|fb|ms|y|tt|tw|dc|ig)cl(?:id|src)|gbraid|wbraid|mc_[ce]id|igshid|igsh|_ga|_gl|_hs\w+|ref_src|ref_url|"
    r"srsltid|mkt_tok|oly_\w+_id|vero_id|yclid|spm|si|cmpid|s_cid",
    re.IGNORECASE | re.ASCII,
)

_PORTS = {"http": "80", "https": "443"}
MAX_ADDRESS = 10_000
_SAFE = "!$&'()*+,;=:@~-._"


def _segments(path: str) -> list[str]:
    """A path's parts in one spelling: %7E becomes ~, %2F does not become a slash, dots are resolved."""
    segments: list[str] = []
    for part in path.split("/"):
        if part == "..":
            del segments[-1:]
        elif part not in ("", "."):
            segments.append(quote(unquote_to_bytes(part), safe=_SAFE))
    return segments


def page(address: str) -> tuple | None:
    """A web address in normal form, equal for two addresses of one page; None for other texts.

    Ignored are http or https, "www.", the default port, a final slash, the fragment (but not "#/route"),
    tracking parameters, the order of parameters, and the percent-encoding of characters.
    """
    text = address.strip()
    if not text or len(text.split()) > 1 or len(text) > MAX_ADDRESS:
        return None
    try:
        return _page(urlsplit(text if "://" in text else "https://" + text.removeprefix("//")))
    except ValueError:  # an unmatched bracket, a lone surrogate
        return None


def _page(parts: SplitResult) -> tuple | None:
    host, port = (parts.hostname or "").rstrip("."), parts.netloc.rpartition("@")[2].rpartition("]")[2]
    if parts.scheme not in ("http", "https") or "." not in host.strip("."):
        return None
    port = port.partition(":")[2]
    port = "" if port == _PORTS[parts.scheme] else port
    fields = [f.partition("=") for f in parts.query.split("&") if f]
    spelled = [(unquote_plus(key), equals and unquote_plus(value)) for key, equals, value in fields]
    query = sorted((f for f in spelled if not _TRACKING.fullmatch(f[0])), key=lambda f: f[0])
    route = parts.fragment if parts.fragment[:1] in ("/", "!") else ""  # a page of a one-page application
    return host.removeprefix("www."), port, tuple(_segments(parts.path)), tuple(query), route


def same_page(want: str, got: str) -> bool:
    """Whether two addresses lead to the same page; texts that are no addresses must be equal."""
    ours = page(want)
    return want.strip() == got.strip() if ours is None else ours == page(got)


# ---- quotes


_REGEX = re.compile(r"[{}\[\]\\^|*]|\.\+|\(\?")


def same_passage(want: str, got: str, pages: str | None) -> bool:
    """Whether two quotes are of the same passage: one contains the other, word by word, and is at most
    twice as long. A quote longer than `want` must occur in `pages` (the words of the pages so far, None if
    unknown).
    """
    if want.split() == got.split():
        return True
    if too_long(want, got) or _REGEX.search(want) or _REGEX.search(got):
        return False
    ours, theirs = words(want), words(got)
    if not ours or not theirs:
        return want.split() == got.split()
    long, short = (ours, theirs) if len(ours) >= len(theirs) else (theirs, ours)
    signed = (signs(want), signs(got)) if long is ours else (signs(got), signs(want))
    if not _holds(*signed) or (len(ours) == len(theirs) and signed[0] != signed[1]):
        return False
    if 2 * len(short) < len(long) or f" {' '.join(short)} " not in f" {' '.join(long)} ":
        return False
    return len(theirs) <= len(ours) or pages is None or f" {' '.join(theirs)} " in f" {pages} "
