"""The small language of the pretraining corpus: every word here is one token of the tiny tokenizer.

The pool of values deliberately shares no word with the values of the toolbox's train and test rows;
`corpus.py` drops any that do.
"""

NOUNS = {
    "robot": "robots", "plant": "plants", "ticket": "tickets", "recipe": "recipes", "boat": "boats",
    "room": "rooms", "lamp": "lamps", "parcel": "parcels", "song": "songs", "book": "books",
    "order": "orders", "team": "teams", "garden": "gardens", "loan": "loans", "poster": "posters",
    "truck": "trucks", "bottle": "bottles", "camera": "cameras", "report": "reports", "task": "tasks",
    "photo": "photos", "letter": "letters", "visit": "visits", "trip": "trips", "box": "boxes",
    "guest": "guests", "alarm": "alarms", "project": "projects",
}  # fmt: skip

# Verbs by meaning. Descriptions use the first few of each, requests use all.
VERBS = {
    "create": "make add create start open register put".split(),
    "set": "set change update edit".split(),
    "delete": "remove delete drop cancel".split(),
    "find": "find show get check read".split(),
    "list": "list show get read".split(),
    "move": "move send bring take".split(),
    "count": "count".split(),
}

# Field -> (kind, phrases of a request). {v} is the value, {n} the noun's name.
FIELDS = {
    "color": ("word", ["with color {v}", "color {v}", "in {v}"]),
    "owner": ("word", ["for {v}", "with owner {v}", "owner {v}"]),
    "place": ("word", ["in {v}", "at place {v}", "place {v}"]),
    "label": ("word", ["with label {v}", "label {v}"]),
    "kind": ("word", ["of kind {v}", "kind {v}"]),
    "group": ("word", ["in group {v}", "group {v}", "with group {v}"]),
    "person": ("word", ["for {v}", "with {v}", "person {v}"]),
    "day": ("day", ["on {v}", "day {v}", "for {v}"]),
    "hour": ("hour", ["at {v}", "at hour {v}", "hour {v}"]),
    "size": ("int", ["with size {v}", "size {v}", "of size {v}"]),
    "price": ("int", ["with price {v}", "price {v}", "for price {v}"]),
    "level": ("int", ["with level {v}", "level {v}", "at level {v}"]),
    "amount": ("int", ["with amount {v}", "amount {v}"]),
    "rank": ("int", ["with rank {v}", "rank {v}"]),
    "weight": ("float", ["with weight {v}", "weight {v}"]),
    "note": ("text", ['with note "{v}"', "with the note {v}", "saying {v}", 'saying "{v}"']),
    "title": ("text", ['with title "{v}"', 'title "{v}"', "with title {v}"]),
    "text": ("text", ['with text "{v}"', 'text "{v}"', "saying {v}"]),
    "urgent": ("flag", ["urgent", "make it urgent"]),
    "public": ("flag", ["public", "make it public"]),
    "tags": ("tags", ["with tags {v}", "tags {v}"]),
    "path": ("path", ["at path {v}", "in {v}", "path {v}"]),
    "status": ("status", ["with status {v}", "status {v}"]),
}

DAYS = "monday tuesday wednesday thursday friday saturday sunday".split()
STATUSES = "open closed ready waiting done".split()

VALUES = """acorn actor agent album alder amber anchor angel ankle anvil april atlas attic badge bagel baker
balloon bamboo bandit banner barber barley baron basil basin beacon beaver berry bishop bison blossom border
bottom bowl boxer bracket brave breeze bronze broom bubble bucket bugle bullet bundle burger butler cabbage
cactus camel canal canvas canyon cargo carrot casket cattle cellar cereal chalk chapel charm cheese chess
chimney cider cinema circus citrus clay clerk clock clover cobalt cobra cocoa coffee collar colony column
cookie cottage couch cradle crane crater cricket crystal cushion cyclone daisy dancer dawn debate decade
deputy dinner divan doctor dollar dolphin domino donkey dough dove dream dune dwarf echo eclipse elbow elder
elm ember emerald empire envelope epoch falcon farmer fiddle fig flint flour fog forge fossil fudge galaxy
gallon""".split()

# Words of the templates in generic.py and corpus.py that are in none of the lists above.
TEMPLATE_WORDS = """
a again all and another are arguments array as at be boolean by call called can could do done error false
float for from good great have hello help hi i id in integer is it kind list me more my name named need new
next no none not now null number object of ok on one please saying should sorry string taken tell thank
thanks that the then there this to tool tools true user want was welcome what which with yes you assistant
system free result success move target read txt little
""".split()


def all_words() -> set[str]:
    """Every word of the generic pretraining language."""
    words = {*NOUNS, *NOUNS.values(), *FIELDS, *DAYS, *STATUSES, *VALUES, *TEMPLATE_WORDS}
    return words.union(*VERBS.values())
