"""What ../RESULTS.md claims and what decides it, for `results_page.py`: the rows of regime/ and smollm2/."""

NO_FILTER, NO_FUNCTION = "without the pivot filter it is worse", "without the functional reward it is worse"
KEEPS = "out of domain, PivotRL keeps what pi_0 had (within 0.02)"

REGIME = (  # claim, the name of regime's difference, the paper's number, side of the claim, what decides it
    (
        "with the pivot filter it is better, after 10 steps",
        "pivots less random turns, 10 steps",
        "63.81 against 59.68",
        1,
        "visits: each pivot is new, and three times as much of the batch varies",
    ),
    (
        "... after 40 steps",
        "the same, 40 steps",
        "63.81 against 59.68",
        1,
        "visits: about one each; the lead shrinks as pivots are learnt",
    ),
    (
        "reward std is higher on pivots, steps 1 to 10",
        "std on pivots over random turns, steps 1 to 10",
        "figure",
        1,
        "the filter: it keeps what varied under pi_0",
    ),
    (
        "reward std lasts on pivots: steps 26 to 40",
        "the same, steps 26 to 40 (should fail: under 3)",
        "figure",
        1,
        "visits: at about one each it is still higher",
    ),
    (
        "without the functional reward it is worse (expert in pi_0's style)",
        "T1: exact less functional, 40 steps",
        "57.34 against 63.81",
        -1,
        "pi_0 words most actions as the expert does",
    ),
    (
        "... (expert with habits that pi_0 lacks)",
        "T2: string match less functional, 40 steps",
        "57.34 against 63.81",
        -1,
        "pi_0 seldom words an action as the expert does",
    ),
    (
        KEEPS,
        "T1: PivotRL less pi_0, pretrain split",
        "+0.21",
        1,
        "it picks among what pi_0 says",
    ),
    (
        "out of domain, SFT loses (expert in pi_0's style)",
        "T1: SFT less pi_0, pretrain split",
        "-9.83",
        -1,
        "demonstrations are likely under pi_0, so that little moves there",
    ),
    (
        "... (expert with habits that pi_0 lacks)",
        "T2: SFT less pi_0, pretrain split",
        "-9.83",
        -1,
        "SFT takes the habits over everywhere: its KL there is forty times as large",
    ),
    (
        "in domain, PivotRL above SFT (expert in pi_0's style)",
        "T1: PivotRL less SFT",
        "+4.17",
        1,
        "SFT learns from all turns, PivotRL from the pivots",
    ),
    (
        "... (expert with habits that pi_0 lacks)",
        "T2: PivotRL less SFT",
        "+4.17",
        1,
        "SFT ends below pi_0: the style costs more than the actions give",
    ),
    (
        "end-to-end RL needs more rollouts, profiling not counted (long episodes)",
        "T3: its rollouts over those of PivotRL",
        "4x",
        1,
        "how many turns share one reward",
    ),
    (
        "... profiling counted",
        "T3: the same, profiling counted",
        "4x",
        1,
        "whether the profile serves one run or several",
    ),
)

TALK = "turns without a call pass with any words, so that talking is learnt first"
LANGUAGE = (  # measure, claim, the paper's number, one arm, the other, side of the claim, what decides it
    ("all rows", "in domain, PivotRL gains on pi_0", "+14.11", "pivotrl", "pi_0", 1, TALK),
    ("call turns", "... on the turns that want a call", "", "pivotrl", "pi_0", 1, "the same"),
    (
        "all rows",
        "in domain, PivotRL above SFT (four epochs)",
        "+4.17",
        "pivotrl",
        "sft_4",
        1,
        "SFT sees every row; 40 % of the groups fail whole and teach PivotRL nothing",
    ),
    ("all rows", "... (one epoch)", "+4.17", "pivotrl", "sft_1", 1, "one epoch moves little"),
    (
        "all rows",
        NO_FILTER,
        "59.68 against 63.81",
        "random_turns",
        "pivotrl",
        -1,
        "half of all groups are mixed without a filter",
    ),
    ("out of domain", KEEPS, "+0.21", "pivotrl", "pi_0", 1, "it picks among what pi_0 says"),
    (
        "out of domain",
        "out of domain, SFT loses (four epochs)",
        "-9.83",
        "sft_4",
        "pi_0",
        -1,
        "all 106 refusals are one placeholder sentence, which becomes its answer to nearly everything",
    ),
    (
        "out of domain",
        "... (one epoch)",
        "-9.83",
        "sft_1",
        "pi_0",
        -1,
        "steps: the placeholder is hardly learnt yet",
    ),
)
