"""The words of the toolbox world: values that differ between splits, and closed sets that all splits share.

Every value is one lower-case word of letters or an integer below 100. No value word of one split occurs in
another, so a test task can only be solved by copying from the conversation.
"""

SPLITS = ("pretrain", "train", "test")

_PEOPLE = {
    "pretrain": """
        adam agnes albert alice amos anna arthur basil beth boris bruno carla cecil clara colin cora
        daisy denis diana doris edgar edith ella elmer emil erik esther fanny felix flora frank
        freda george gerda gloria greta gustav hanna harold hector heidi helen henry hilda hugo ida
        igor irene isaac ivan jakob jane jonas judith julia karl katya kurt laura lena""",
    "train": """
        leo linda lisa louis lucas lucia lydia magda marco maria martin martha maud maurice mia mila
        mirna nadia nancy nathan nelly nick nina nora norman olaf olga oliver oscar otto pablo paula
        pedro peter petra philip quentin rachel ralph ramona regina rita robert roger romeo rosa
        rufus ruth sally samuel sandra sarah selma simon sofia stella susan sven tanja tamara""",
    "test": """
        tessa theo thomas tilda tobias ulla ursula vera victor vincent viola walter wanda wilma
        xavier yannick yvonne zelda zeno zora abel alma amelia anton astrid benno berta bianca
        carlos celia conrad dalia david dora edmund elena elsa ernest eva fabian fiona franz gilda
        gordon gwen hazel herman ingrid jasper joel kevin klara lars lorenz mabel nigel ophelia
        percy rhoda sylvia""",
}

_ITEMS = {
    "pretrain": """
        apple bacon barley basket beans berry biscuit blanket bottle bowl bread broom brush bucket
        butter button cabbage candle carpet carrot celery chair cheese cherry clock coat coffee comb
        cookie corn cotton cream cucumber cup curtain dress drill egg envelope fan fish flour fork
        garlic ginger glass glove glue grape hammer hat honey jacket jam kettle knife ladder lamp
        lemon lettuce""",
    "train": """
        mango map mask mat melon milk mirror mop muffin mug mushroom nail napkin needle noodle nut
        oil olive onion orange oven paddle pan pants paper pasta peach peanut pear pen pencil pepper
        pillow pizza plate plum potato pumpkin purse radish raisin razor ribbon rice rope ruler
        salad salt sauce scarf scissors shampoo shelf shirt shoe shovel skirt soap sock sofa""",
    "test": """
        soup spinach sponge spoon stapler stool string sugar sweater syrup table tape tea tent toast
        tomato towel tray tulip turnip umbrella vase vest vinegar waffle wallet walnut wheel whistle
        wool yarn yogurt almond anchor apron axe bagel banana beet belt bench brick cocoa crayon
        diaper drum flute guitar helmet hinge hose ink jar lantern lentil magnet marble mustard oats
        piano""",
}

_TITLES = {
    "pretrain": """
        accent advice album alert amount angle answer arrow artist aspect auction audit author award
        baby badge ballet banquet barrel battle beacon beauty bicycle birthday border branch bridge
        budget bullet burden cabin camera canal cancer canvas captain career castle cellist census
        ceremony chapter charity chess choir church cinema circus climate clinic coach college
        comedy concert contest copper council courage cousins crew""",
    "train": """
        course cousin cricket crisis crystal culture custom dance debate decade defense degree
        dentist desert design detail diary dinner doctor dragon drama dream duty eagle echo economy
        editor effort election empire energy engine essay exam exhibit expert fabric factory failure
        fashion festival fever fiction finance flight forest fortune fossil frame freedom funeral
        galaxy gallery game genius gesture gift glory glow goal""",
    "test": """
        giant glacier grammar hamster harbor harvest health history hobby holiday horizon hospital
        hotel hunger idea income insect island jewel journal journey judge jungle justice kingdom
        knight labor lecture legend lesson library license lottery luggage lunch machine market
        marriage medal meeting memory merit mission moment motor mountain museum mystery nation
        nature network novel nurse ocean office opera orbit outfit oxygen parade""",
}


def _split(table: dict[str, str]) -> dict[str, tuple[str, ...]]:
    return {split: tuple(text.split()) for split, text in table.items()}


# kind -> split -> words. Titles name events, files, tasks, songs and message texts.
WORDS: dict[str, dict[str, tuple[str, ...]]] = {
    "people": _split(_PEOPLE),
    "items": _split(_ITEMS),
    "titles": _split(_TITLES),
}
DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
ROOMS = ("kitchen", "bedroom", "bathroom", "hall", "garage", "attic", "cellar", "balcony")
PLACES = ("home", "work", "school", "travel", "money", "music")  # file folders and task boards
CARDS = ("silver", "golden", "green", "blue")
