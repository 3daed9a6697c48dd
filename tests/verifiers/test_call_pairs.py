"""Pairs of realistic calls, each labelled by hand: 1 where both do the same, 0 where they do not."""

import pytest
from support.hostile_actions import act

from pivotrl_jax.records import Candidate
from pivotrl_jax.verifiers import VERIFIERS
from pivotrl_jax.verifiers.cases import calls_message

TEXT = {"type": "string"}
PAIRS = []


def add(verifier, tool, field, rows, schema=TEXT):
    PAIRS.extend((verifier, tool, field, schema, *row) for row in rows)


def reward(verifier, tool, field, schema, want, got):
    parameters = {"type": "object", "properties": {field: schema}, "required": [field]}
    message = calls_message([(tool, {field: want})])
    tools = [{"name": tool, "parameters": parameters}]
    state = Candidate("t@1", "t", 0, [], tools, message, verifier, {}, "t")
    return VERIFIERS[verifier].verify(state, act((tool, {field: got}))).reward


add(
    "tool_call",
    "send_message",
    "message",
    [
        ("Please return my order", "please return my order", 1),
        ("Please return my order", "Please return my order.\n", 1),
        ("Please return my order", "Please return  my order", 1),
        ("Thanks", "thanks", 1),
        ("Paris", "paris", 1),
        ("Thanks for your help", "Thanks for your help!", 1),
        ("It's ready", "It’s ready", 1),
        ("Open 9-5 on weekdays", "Open 9–5 on weekdays", 1),
        ("We meet—as agreed—at noon", "We meet — as agreed — at noon", 1),
        ("See you soon ", "See you soon", 1),
        ("Dear Ann,\n\nThe room is free.\n", "Dear Ann,\n\nThe room is free.", 1),
        ("Hello\r\nworld", "Hello\nworld", 1),
        ("Use promo code X7", "Use promo code x7", 0),
        ("Use promo code SAVE", "use promo code save", 0),
        ("The PIN word is Horse", "the PIN word is horse", 0),
        ("Your password: Horse", "your password: horse", 0),
        ("Order ABC is late", "order abc is late", 0),
        ("Ticket QWER shipped", "ticket qwer shipped", 0),
        ("Ann pays Bob", "Bob pays Ann", 0),
        ("Yes, please", "No, please", 0),
        ("I can come", "I can't come", 0),
        ("I can come", "I cannot come", 0),
        ("Pay 50 dollars", "Pay 15 dollars", 0),
        ("Pay $50 now", "Pay €50 now", 0),
        ("Add 5 kg", "Add 5 g", 0),
        ("Add 5 Mb", "Add 5 MB", 0),
        ("On 5 May", "On 6 May", 0),
        ("At 5 pm", "At 5 am", 0),
        ("Tell IT about it", "Tell it about it", 0),
        ("Take vitamin A daily", "Take vitamin a daily", 0),
        ("Send it to the US", "send it to the us", 0),
        ("Gate code is Blue", "gate code is blue", 0),
        ("Log in as Ann", "log in as ann", 0),
        ("WiFi is BlueHorse", "wifi is bluehorse", 0),
        ("Your username is Ann Lee", "your username is ann lee", 0),
        ("Reference Kilo Echo", "reference kilo echo", 0),
        ("Bring 1,000 chairs", "Bring 1000 chairs", 0),
        ("Is it ready?", "Is it ready", 0),
        ("Between 5 and 7", "Between 7 and 5", 0),
        ("Voucher Summer", "voucher summer", 0),
        ("Write #Launch", "write #launch", 0),
        ("Email Ann@x.org", "email ann@x.org", 0),
        ("Call before noon", "Call after noon", 0),
        ("All but one", "All and one", 0),
        ("Run ls -R", "Run ls -r", 0),
        ("a\n  b", "a\n b", 0),
        ("Set x to Y", "Set x to y", 0),
        ("Deploy McCoy", "deploy mccoy", 0),
        ("The key is under the Mat", "The key is under the mat", 0),
        ("Turn left", "Turn right", 0),
        ("Ship both", "Ship all", 0),
    ],
)
add(
    "tool_call",
    "create_ticket",
    "title",
    [
        ("Login broken", "login broken", 1),
        ("Login broken", "Login broken.", 1),
        ("Main", "main", 0),
        ("Login broken", "Login not broken", 0),
        ("API down", "api down", 0),
    ],
)
add(
    "tool_call",
    "create_event",
    "location",
    [
        ("New York", "new york", 1),
        ("Oslo", "oslo", 1),
        ("SFO", "sfo", 0),
        ("Room B", "room b", 0),
        ("São Paulo", "Sao Paulo", 0),
    ],
)
add(
    "tool_call",
    "get_weather",
    "city",
    [
        ("Paris", "paris", 1),
        ("Paris", "Paris ", 1),
        ("Paris", "Paris\n", 1),
        ("Paris", "Lyon", 0),
        ("LA", "la", 0),
        ("St. Louis", "st. louis", 1),
        ("Paris, France", "Paris", 0),
    ],
)
for tool in [
    "search_symbols",
    "find_references",
    "query_data",
    "run_sql",
    "jq_filter",
    "find_elements",
    "search_code",
    "evaluate_formula",
    "get_metrics",
    "graph_query",
    "find_definition",
    "list_data",
    "run_query",
    "promql",
    "execute_request",
]:
    add("tool_call", tool, "query", [("User Name", "user name", 0), ("Foo", "foo", 0)])
    add("search", tool, "query", [("User Name", "user name", 0), ("User Name", "Name User", 0)])
add("tool_call", "post_request", "body", [("Some Text", "some text", 0), ("Some Text", "Some  Text", 0)])
add("tool_call", "set_cell", "formula", [("Sum Of A", "sum of a", 0)])
add("tool_call", "set_cell", "text", [("Sum Of A", "sum of a", 0)])
FIELDS = "regex pattern jq selector css_selector jsonpath locator where filter condition code coupon_code"
for f in f"{FIELDS} username branch topic_name_regex cell_range".split():
    add("tool_call", "do_it", f, [("Foo Bar", "foo bar", 0), ("foo bar", "foo bar ", 0)])
for about in [
    "ID of the message",
    "The channel of the message",
    "Language of the message",
    "The message id",
    "Recipient of the note",
    "Which column holds the comment",
    "Type of question",
    "Number of sentences",
    "The queue from which messages are read",
    "Message format: short or long",
    "Message type",
    "Tag of the note",
    "The name of the message bus",
    "Title-cased label? no",
    "Identifies the note to delete",
    "A regex over the message",
    "Coupon shown in the message",
    "Sender for the message",
    "Folder of the notes",
]:
    add("tool_call", "do_it", "x", [("Foo Bar", "foo bar", 0)], {"type": "string", "description": about})
for about in [
    "The message to send",
    "A note for the driver",
    "A short summary of the call.",
    "Message text",
    "The user's question",
    "Reason for the cancellation",
    "Optional comment",
    "Question in natural language",
    "Free text",
    "An explanation why",
]:
    add(
        "tool_call",
        "do_it",
        "x",
        [("Foo Bar", "foo bar", 1), ("Foo Bar", "foo not bar", 0)],
        {"type": "string", "description": about},
    )
add(
    "search",
    "search",
    "query",
    [
        ("flights from Paris to Rome", "flights to Rome from Paris", 1),
        ("flights from Paris", "flights to Paris", 0),
        ("flights from Paris to Rome", "flights Paris Rome", 0),
        ("when did Rome fall", "where did Rome fall", 0),
        ("events before 1990", "events after 1990", 0),
        ("fiction books", "non-fiction books", 0),
        ("is sugar safe", "isn't sugar safe", 0),
        ("coffee with milk", "coffee without milk", 0),
        ("books by King", "books about King", 0),
        ("does Ann love Bob", "does Bob love Ann", 0),
        ("Google buys Motorola", "Motorola buys Google", 0),
        ("chocolate milk", "milk chocolate", 0),
        ("cats or dogs", "cats and dogs", 0),
        ("who is president of France", "who was president of France", 0),
        ("iPhone 12 vs Galaxy 21", "iPhone 21 vs Galaxy 12", 0),
        ("vitamin A deficiency symptoms list", "vitamin deficiency symptoms list", 0),
        ("WHO report on malaria Africa", "report on malaria Africa", 0),
        ("best laptop for students budget", "worst laptop for students budget", 0),
        ("best laptop for students budget", "laptop for students budget", 0),
        ("population of Lagos", "Lagos population", 1),
        ("What is the population of Lagos?", "population of Lagos", 1),
        ("capital of France", "France capital", 1),
        ("how many people live in Lagos", "why many people live in Lagos", 0),
        ("why is the sky blue", "how is the sky blue", 0),
        ("who killed Caesar", "who did Caesar kill", 0),
        ("temperature above 5", "temperature below 5", 0),
        ("AI conferences 2024", "ai conference 2024", 1),
        ("Tesla stock price", "tesla stock prices", 1),
        ("flights between Oslo and Bern", "flights between Bern and Oslo", 0),
        ("don't use aspirin", "use aspirin", 0),
        ("dont use aspirin", "use aspirin", 0),
        ("Paris without kids", "Paris with kids", 0),
        ("films since 1990", "films until 1990", 0),
        ("bugs in Windows", "Windows bugs", 1),
        ("foo[0] error", "foo[1] error", 0),
        ("def foo(x)", "def foo (x)", 0),
        ("a->b meaning", "a b meaning", 0),
        ("largest lake", "smallest lake", 0),
        ("first president", "president", 0),
        ("5 km in miles", "5 miles in km", 0),
        ("convert euro to dollar", "convert dollar to euro", 0),
        ("Einstein's birthplace", "birthplace of Einstein", 1),
        ("war of the roses", "roses of the war", 0),
        ("male nurses", "nurses", 0),
        ("is it safe", "is it safe?", 1),
        ("Lagos\n", "Lagos", 1),
        ("pre-war films", "post-war films", 0),
        ("free museums Oslo city", "museums Oslo city", 0),
    ],
)
add(
    "search",
    "search",
    "query",
    [("Foo Bar", "foo bar", 0)],
    {"type": "string", "description": "A regular expression"},
)
add("search", "find", "pattern", [("foo.*bar", "foo bar", 0), ("a[0]", "a 0", 0)])
add(
    "search",
    "open",
    "url",
    [
        ("https://a.com/#/one", "https://a.com/#/two", 0),
        ("https://a.com/#one", "https://a.com/", 1),
        ("https://a.com/x", "http://www.a.com/x/", 1),
    ],
)
add(
    "tau2",
    "calculate",
    "expression",
    [
        ("1 2", "12", 0),
        ("2 + 2", "2+2", 1),
        ("(1 + 2) * 3", "(1+2)*3", 1),
        ("2 * * 3", "2 ** 3", 0),
        ("1 - 2", "1 + 2", 0),
        ("1 .5", "1.5", 0),
    ],
)
add("tau2", "create_task", "title", [("Big Meeting", "big meeting", 0), ("Big Meeting", "Big Meeting.", 0)])
add(
    "tau2",
    "cancel_reservation",
    "reason",
    [("no longer needed", "No longer needed", 0), ("no longer needed", "no longer needed", 1)],
)
add("tau2", "search_flights", "city", [("New York", "new york", 1), ("JFK", "jfk", 0)])
add("tau2", "book_reservation", "payment_id", [("gift_card_1", "Gift_card_1", 0)])
add(
    "tool_call",
    "send_email",
    "body",
    [
        ("Your booking: Tango Lima", "your booking: tango lima", 0),
        ("Dear Ann, see you at 5.", "dear Ann, see you at 5", 1),
        ("Pay A then B", "Pay B then A", 0),
        ("no", "No", 1),
        ("no", "yes", 0),
        ("NO", "no", 0),
        ("I will not come", "I will come", 0),
        ("won't come today", "will come today", 0),
        ("Costs 5.0 euros", "Costs 5 euros", 0),
        ("minus 5 degrees", "5 degrees today", 0),
        ("-5 degrees today", "5 degrees today", 0),
        ("at 10:30 today", "at 10:30 today.", 1),
        ("1/2 cup", "1/3 cup", 0),
        ("2026-05-01 works", "2026-05-02 works", 0),
        ("Hi there", "Hi, there", 0),
        ("The safe opens with Blue", "The safe opens with blue", 0),
        ("Room named Blue", "Room named blue", 0),
    ],
)
add(
    "tool_call",
    "open_ticket",
    "description",
    [
        ("Error in My Script", "error in my script", 0),
        ("Router reboots often", "router reboots often", 1),
        ("Router reboots often", "Router reboots rarely", 0),
        ("Set DNS to Google", "set dns to google", 0),
    ],
)
add("tool_call", "add_contact", "name", [("Ann Lee", "ann lee", 0)])
add("tool_call", "mcp__github__create_issue", "title", [("Fix Bug", "fix bug", 1)])
add("tool_call", "mcp__fs__write", "text", [("Foo Bar", "foo bar", 0)])
add("tool_call", "browser_type", "text", [("Foo Bar", "foo bar", 0)])
add(
    "tool_call",
    "rag_search",
    "query",
    [("Refund Policy", "refund policy", 1), ("refund policy", "policy refund", 0)],
)
add("tool_call", "query_knowledge_base", "query", [("Refund Policy", "refund policy", 1)])
add("tool_call", "salesforce_soql", "query", [("Foo Bar", "foo bar", 0)])
add("tool_call", "vector_search", "query", [("Foo Bar", "foo bar", 1)])
add(
    "tool_call",
    "web_search",
    "query",
    [("User Agent", "user agent", 1), ("title:Foo bar", "title:foo bar", 0)],
)
add("tool_call", "create_playlist", "songs", [("Blue Horse", "blue horse", 1)])
add("tool_call", "slack_post", "channel", [("General Chat", "general chat", 0)])
add("tool_call", "update_page", "find_text", [("Foo Bar", "foo bar", 0)])
add("tool_call", "translate", "text", [("Polish people", "polish people", 0)])
add(
    "search",
    "search",
    "query",
    [
        ("US population", "population", 0),
        ("why did Rome fall", "did Rome fall", 0),
        ("apples and oranges difference", "apples oranges difference", 1),
        ("Lagos to Abuja distance", "Abuja to Lagos distance", 0),
        ("dog bites man statistics", "man bites dog statistics", 0),
        ("countries with no army", "countries with army", 0),
        ("not-for-profit hospitals", "for-profit hospitals", 0),
        ("gluten-free pasta recipe", "gluten pasta recipe", 0),
        ("unsafe cars", "safe cars", 0),
        ("cheap flights Oslo Bern May", "flights Oslo Bern May", 0),
        ("side effects of aspirin", "aspirin side effects", 1),
        ("effects of aspirin on heart", "effects of heart on aspirin", 0),
        ("king of Spain", "king in Spain", 1),
        ("Java", "JavaScript", 0),
        ("what causes rain", "rain causes what", 0),
        ("parents of Ann", "children of Ann", 0),
        ("son of David", "David's son", 1),
        ("David of son", "son of David", 0),
        ("can't dogs eat grapes", "can dogs eat grapes", 0),
        ("should I eat grapes", "can I eat grapes", 0),
        ("news on Apple", "Apple news", 1),
        ("population of Lagos in 2020", "Lagos population 2020", 1),
        ("Who is the CEO of Apple?", "who is the CEO of Apple", 1),
        ("CEO of Apple", "who is the CEO of Apple", 0),
        ("films with Tom Hanks and Meg Ryan", "films with Meg Ryan and Tom Hanks", 0),
        ("teacher salary Oslo 2020", "average teacher salary Oslo 2020", 1),
        ("few trees", "trees", 0),
        ("highest mountain Africa snow", "mountain Africa snow", 0),
        ("Ann loves Bob", "Bob loves Ann", 0),
        ("Apple vs Google", "Google vs Apple", 0),
        ("price of Bitcoin per day", "Bitcoin price per day", 1),
        ("women presidents list Africa", "presidents list Africa", 0),
    ],
)


@pytest.mark.parametrize(("verifier", "tool", "field", "schema", "want", "got", "same"), PAIRS)
def test_a_pair_is_decided_as_labelled_both_ways(verifier, tool, field, schema, want, got, same):
    for one, other in ((want, got), (got, want)):
        assert reward(verifier, tool, field, schema, one, one) == 1
        assert reward(verifier, tool, field, schema, one, other) == same
