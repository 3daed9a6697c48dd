"""Which strings of a call are prose, so that they may be compared by words?

Prose needs evidence: the name of the argument, its description or the tool's name must say so, and nothing
may speak for code. Commands, code, queries of databases, patterns, paths, addresses, ids, secrets, JSON and
dates mean something else after a change of case or of a space, so whatever is not known to be prose is exact.
A word in capitals, or with capitals inside, may be a code even in prose, and keeps its case.

All text may come from a model: everything here takes linear time.
"""

import functools
import re
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

MAX_NAME = 200  # what is longer is nobody's name of an argument, and is not read

# names of arguments that hold prose: what people say, and what people, places and works are called
PROSE_NAMES = frozenset(
    """
    message msg comment note title subject summary description desc reason explanation question
    caption feedback remark headline greeting thought thinking prompt instruction answer reply response
    review complaint topic keyword bio memo agenda detail purpose rationale justification announcement
    sentence paragraph story goal request city town country continent region district
    street place location destination origin venue section zone restaurant hotel cuisine airport station
    company school university team task todo event reminder meeting occasion genre recipe ingredient sport
    customer guest passenger person author artist director actor singer band song album movie film book
    dish
    """.split()
)

# names that are prose only where the tool's name says that it looks things up for people
QUERY_NAMES = frozenset("query keyword".split())
LOOKING_TOOLS = frozenset(
    """
    search web google bing internet wiki wikipedia news ask answer retrieve retrieval rag knowledge kb faq
    article lookup browse send
    """.split()
)
# names of which one word may name a thing by its exact spelling: a topic of a queue, a project, a label
LABEL_NAMES = frozenset("topic project team section zone task todo event keyword query title".split())

# names that say nothing by themselves: prose only where the tool's name says that it writes to people
OPEN_NAMES = frozenset("text content body".split())
TALKING_TOOLS = frozenset(
    """
    message msg email mail sms chat tweet comment note reply notify notification announce say speak post
    remind reminder todo ask
    """.split()
)

# names that forbid prose, wherever they stand in the path of an argument
CODE_NAMES = frozenset(
    """
    command cmd commandline cli script code source program snippet shell bash sh zsh powershell terminal
    console python javascript sql nosql graphql cypher sparql jql cql kql spl regex regexp re pattern
    glob grep wildcard selector xpath css html xml json yaml toml csv markdown latex jinja template
    expression expr formula equation predicate condition where clause filter cron schedule rule policy
    path file filename filepath dir directory folder cwd workdir root prefix suffix extension url uri
    link href endpoint host hostname domain ip route slug id ids uid uuid guid key token password passwd
    pwd passphrase passcode pass pin otp secret credential auth authorization bearer seed mnemonic hash
    sha md5 digest checksum signature cookie session date datetime time timestamp timezone serial sku
    barcode isbn vin iban account phone zip postcode postal coordinate latitude longitude ticker symbol
    currency locale branch commit ref revision version diff patch env environment var variable arg args
    argv argument flag option param parameter header payload data config setting metadata schema column
    table database db collection index class function method identifier keystroke stdin old new replace
    replacement find needle insert login username handle jq jmespath jsonpath promql logql lucene dsl locator
    cell coupon voucher promo pin captcha code
    """.split()
)

# names of tools that forbid it: what they are given is run, written to a file or matched
CODE_TOOLS = frozenset(
    """
    bash shell sh zsh powershell terminal console command cmd execute exec run eval code python
    javascript sql nosql graphql cypher sparql jql database db regex regexp grep glob rg file filesystem
    editor edit patch git repo repository codebase docker kubectl kubernetes http curl xpath selector
    log warehouse bigquery postgres mysql sqlite mongo mongodb elastic elasticsearch splunk prometheus
    redis snowflake spreadsheet table config mv cp rm ls cat touch mkdir move copy rename upload
    download save load symbol reference definition usage declaration identifier function method class
    variable ast jq json xml yaml csv css html dom element locator cell sheet excel formula data dataset
    dataframe metric promql logql lucene solr neo4j graph request api rest endpoint webhook template match
    replace substitute secret vault credential env calculate calculator math evaluate solve compute query
    """.split()
)

# ... unless a tool called "query" queries one of these
KNOWLEDGE = frozenset("web internet wiki wikipedia news google faq knowledge kb rag article".split())


def _any_of(phrases: str) -> re.Pattern[str]:
    """A search for any of the phrases, in the singular or plural; their words are joined by "-" here."""
    found = "|".join(re.escape(phrase).replace(r"\-", "[- ]?") for phrase in phrases.split())
    return re.compile(rf"\b(?:{found})(?:s|es)?\b", re.IGNORECASE)


# an argument's description
_CODE_DESCRIPTION = _any_of(
    """
    command command-line shell bash script source-code code program sql graphql cypher jql query-language
    lucene elasticsearch syntax regex regexp regular-expression pattern glob wildcard selector xpath
    expression formula path file filename directory directories folder url uri link id identifier uuid key
    token password passphrase passcode pin secret credential hash json xml yaml html css csv base64 date
    timestamp iso-8601 cron branch commit exact exactly verbatim case-sensitive case-matter literal literally
    javascript typescript python query-syntax search-syntax query-string search-operator boolean-operator
    column field-name table-name locator jsonpath jmespath jq latex coupon voucher username user-name handle
    template placeholder serialized encoded request-body body-of-the-request payload http a1-notation
    """
)
# a tool's description, which says many other things as well
_CODE_TOOL_DESCRIPTION = _any_of(
    """
    command shell bash script code python sql graphql cypher jql query-language lucene elasticsearch regex
    regexp regular-expression glob grep xpath symbol codebase jq jsonpath jmespath css-selector formula
    expression dataframe pandas http-request rest-api
    """
)
# what the field is: "A note for the driver", but not "The channel of the message"
_PROSE_DESCRIPTION = re.compile(
    r"^\W{0,3}(?:(?:the|an?|your|any|some|this|optional|required|short|brief|long|full|detailed|free|personal|"
    r"custom|plain|text|email|chat|internal|public|additional|special|welcome|final|one|customer's|user's|"
    r"human-readable|content|body)\b[ ,:]{0,2}(?:of (?=the |a ))?){0,6}"
    r"(?:messages?|comments?|notes?|questions?|sentences?|reasons?|explanations?|summary|title|subject line|"
    r"full name|name of (?:the|a) (?:person|customer|guest|city))"
    r"(?: (?:text|body|content))?(?=$|[.,;:()!?]| (?:of|for|from|in|that|which|about|explaining|describing|"
    r"shown|why|as|by|with|left|sent|written|to (?:the|a|your|send|show|display|include|add|leave|write|"
    r"post))\b)"
    r"|\bin (?:natural language|plain english|plain language)\b|\bfree-?(?:form)? ?text\b"
    r"|^(?:a )?(?:natural[- ]language|human-readable) (?:question|query|description|text|explanation)\b",
    re.IGNORECASE,
)
MAX_DESCRIPTION = 5_000  # characters of a description that are read

# facets of a schema that make a string exact, whatever its name
_EXACT_FACETS = ("enum", "const", "format", "pattern", "contentMediaType", "contentEncoding", "writeOnly")

_NAME_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_A-Za-z]+")


@functools.lru_cache(maxsize=4096)  # all rollouts of a set share their tools
def name_words(name: str) -> frozenset[str]:
    """The words of an identifier in lower case, plurals also in the singular: searchQueries -> query."""
    found = set()
    for word in _NAME_WORD.findall(name):
        word = word.lower()
        found.add(word)
        if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
            found.add(word[:-3] + "y" if word.endswith("ies") else word[:-1])
    return frozenset(found)


@functools.lru_cache(maxsize=4096)
def _says(phrases: re.Pattern[str], text: str) -> bool:
    return bool(phrases.search(text))


def _texts(schema: dict, *facets: str) -> Iterable[str]:
    for facet in facets:
        value = schema.get(facet)
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield text[:MAX_DESCRIPTION]


def tool_takes_code(name: str, description: Any = "") -> bool:
    """Whether a tool runs, edits or matches what it is given, so that none of its strings is prose."""
    words = name_words(name[:MAX_NAME])
    return bool(
        CODE_TOOLS & words - ({"query"} if words & KNOWLEDGE else set())
        or (isinstance(description, str) and _says(_CODE_TOOL_DESCRIPTION, description[:MAX_DESCRIPTION]))
    )


def speaks_for_code(path: str, schemas: Sequence[dict]) -> bool:
    """Whether the names on the way to an argument, or a schema that it may satisfy, speak for code."""
    if len(path) > MAX_NAME or CODE_NAMES & name_words(path):
        return True
    for schema in schemas:
        if any(schema.get(facet) not in (None, False) for facet in _EXACT_FACETS):
            return True
        if any(_says(_CODE_DESCRIPTION, text) for text in _texts(schema, "description")):
            return True
        if any(CODE_NAMES & name_words(text) for text in _texts(schema, "title")):
            return True
        if any(looks_like_code(text) for text in _texts(schema, "examples", "example", "default")):
            return True
    return False


def speaks_for_prose(name: str, schemas: Sequence[dict], tool: str) -> bool:
    """Whether an argument's name, its tool's name or a description speaks for prose."""
    words, of_tool = name_words(name[:MAX_NAME]), name_words(tool[:MAX_NAME])
    if words & PROSE_NAMES or (words & OPEN_NAMES and of_tool & TALKING_TOOLS):
        return True
    if words & QUERY_NAMES and of_tool & LOOKING_TOOLS:
        return True
    return any(_says(_PROSE_DESCRIPTION, t) for schema in schemas for t in _texts(schema, "description"))


# ---- the look of a value

# one spelling of quotation marks, hyphens, dots and spaces; what has no width is nothing
_SIGNS = str.maketrans(
    {c: '"' for c in "“”„‟"}
    | {c: "'" for c in "‘’‛"}
    | {c: "-" for c in "‐‑−–"}
    | {c: " " for c in "\u00a0\u2009\u202f\u2007"}
    | {"…": "...", "—": " - ", "\u200b": "", "\ufeff": ""}
)


def spelled(text: str) -> str:
    """Prose in one spelling of its signs, without outer white space."""
    return unicodedata.normalize("NFC", text.translate(_SIGNS)).replace("\r\n", "\n").strip(" \n")


_CODE_LOOK = re.compile(
    r"[{}\[\]<>=|\\`^~;&*]"  # what prose does without
    r"|[^\S \u00a0]"  # tabs, line breaks
    r"|(?:^| )\w - "  # x - y
    r"|(?:^| )(?:-{1,2}\w|[./~!%+]\S|'|[#+%/$] )"  # options, paths, operators that stand alone, quoted words
    r"|\w[(.:,+?!/][^\W\d_]"  # f(x), File.txt, status:open, a,b, a/b
    r"|[^\W\d_]/|/[^\W\d_]|\(\)|::|\$(?!\d)|%[^\W\d_]|\+(?:\s|$)"
)
_STATEMENT = re.compile(
    r"(?:select\b.*\bfrom|insert into|update\b.*\bset|delete from|(?:create|drop|alter|truncate) "
    r"(?:or |temp|unique |table|database|index|view|schema|user|role|function|trigger|column|type)|"
    r"with \w+ as|explain select|show (?:tables|databases|columns|create)|grant\b.*\bto|"
    r"revoke\b.*\bfrom|merge into|replace into|match\b.*\breturn)\b",
    re.IGNORECASE,
)
_CODE_START = re.compile(
    r"(?:SELECT|INSERT|UPDATE|DELETE|CREATE|DROP|ALTER|TRUNCATE|GRANT|REVOKE|SHOW|USE|CALL|EXEC|EXECUTE|PRAGMA|BEGIN|"
    r"MATCH|MERGE|FIND|LOOKUP|GET|PUT|POST|PATCH|HEAD|EXPLAIN|DESCRIBE|VACUUM"
    r"|import|def|lambda|const|elif|from \S+ import"
    r"|ls|cd|cat|grep|rg|sed|awk|git|sudo|chmod|chown|rm|mv|cp|mkdir|rmdir|touch|tar|zip|unzip|curl|wget|ssh|scp|"
    r"rsync|kubectl|docker|npm|npx|yarn|pip|apt|apt-get|brew|export|echo|printf|xargs|kill|ps|df|du|ln|env|bash|sh)"
    r"(?: |$)"
)
_OPERATORS = re.compile(r"(?:^| )(?:AND|OR|NOT|XOR|NEAR|JOIN|LIKE|WHERE|FROM|BY)(?: |$)")
_SECRET = re.compile(  # words after which a name, a code or a secret may stand, whose case counts
    r"\b(?:pass(?:words?|phrases?|codes?|wd)|pwd|secrets?|tokens?|bearer|keys?|codes?|pins?|otp|codewords?|"
    r"coupons?|vouchers?|promos?|captcha|credentials?|log ?ins? (?:as|is|are|name|with)|user ?names?|wi-?fi|"
    r"ssid|serial|licen[cs]e|hash|hashtags?|handle|ids?|number|reference|(?:safe|magic|secret) ?words?|"
    r"the word|combination|(?:booking|reservation|confirmation|order|ticket|invoice|case)s?(?: is|(?=:))|"
    r"safe|scripts?|named|called|recovery|security (?:question|answer)|spell(?:ed|ing|s)?|capitals?|"
    r"(?:upper|lower|case)[- ]?(?:case|sensitive)|capitali[sz]ed|letters?|files?|folders?|branch|variables?|"
    r"commands?|regex)\b",
    re.IGNORECASE,
)


def is_statement(text: str) -> bool:
    """Whether a text reads as a statement of SQL or Cypher."""
    return bool(_STATEMENT.match(text))


def looks_like_code(text: str) -> bool:
    """Whether a text must be compared exactly by its look, even in an argument that holds prose.

    Signs, options, paths, calls, operators in capitals, statements of SQL, well-known commands, and words
    such as "password" decide; a single double quote without its partner does too.
    """
    text = text.translate(_SIGNS).strip(" ")
    if _CODE_LOOK.search(text) or _CODE_START.match(text) or _SECRET.search(text):
        return True
    if is_statement(text) or text.count('"') % 2:
        return True
    return bool(_OPERATORS.search(text)) and not text.isupper()


# ---- prose by words

# a word in small letters or with a first capital, with the punctuation around it; McCoy and USA are none
_PLAIN_WORD = re.compile(r"\(*[^\W\d_]+(?:['-][^\W\d_]+)*'?[).,!?:]*")
_UNITS = frozenset(
    "gb mb kb tb gib mib b k m mm cm km g mg kg l ml w kw mw v a s ms hz khz mhz ghz cal kcal j pa kpa "
    "mbps kbps gbps ma mah".split()
)
MIN_SHOUT = 3  # words: two words in capitals may be a code


def _keeps_case(word: str) -> bool:
    """Whether a word has capitals other than the first of a part: USA, iPhone, but not O'Brien."""
    if word[1:].islower():
        return False
    return any(part[1:] != part[1:].lower() for part in re.split("['-]", word))


def _folded(text: str, shouts: bool) -> str:
    """Prose with its plain words in lower case; iPhone, USA, W123, #x and units stay as they are."""
    folded, before = [], ""
    for token in re.split("( +)", text):
        word = token.strip("().,!?:'")
        is_unit = before[-1:].isdigit() and word.lower() in _UNITS  # GB is not Gb
        starts = not before or before[-1] in ".!?:"
        is_letter = len(word) == 1 and word not in "iI" and not (word in "aA" and (starts or word == "a"))
        capitals = not shouts and _keeps_case(word)
        kept = is_unit or is_letter or capitals or not _PLAIN_WORD.fullmatch(token)
        folded.append(token if kept else token.lower())
        before = token if token.strip() else before
    return "".join(folded)


def by_words(text: str, case: bool = False, space: bool = False) -> str:
    """Prose in a form that is equal for two texts of the same words in the same order.

    Forgiven are the case of plain words (unless `case`), runs of spaces (unless `space`), typographic
    quotation marks and hyphens, one full stop at the end, and one exclamation mark after three words or more.
    What stands in double quotes is kept as it is.
    """
    text = unicodedata.normalize("NFC", text.translate(_SIGNS))
    parts = text.split('"')
    shouts = text.isupper() and len(text.split()) >= MIN_SHOUT
    for i in range(0, len(parts), 2):  # every second part is quoted
        if not space:
            parts[i] = re.sub(" +", " ", parts[i])
        if not case:
            parts[i] = _folded(parts[i], shouts)
    text = '"'.join(parts)
    text = text if space else text.strip(" ")
    final = r"[\w)\"][.!]$" if len(text.split()) >= MIN_SHOUT else r"[\w)\"]\.$"
    return text[:-1] if re.search(final, text[-2:]) else text
