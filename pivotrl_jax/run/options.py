"""Every field of a config: default, unit or choices, and effect. The defaults are the embedded run.

    python -m pivotrl_jax.train --help                                     prints all of it
    python -m pivotrl_jax.train --config=configs/bfcl.py --explain=grpo    prints one section, with its values

A config file starts from `defaults()` and says what differs. `sizes.py` has the settings for each model size.
"""

from ml_collections import ConfigDict

from pivotrl_jax.environments.toolbox.demonstrations import STYLES
from pivotrl_jax.run.fields import (
    ABOVE_ZERO,
    ADDRESS,
    FINITE,
    JSON_OBJECT,
    NOT_NEGATIVE,
    PROBABILITY,
    SHARE,
    SHARE_OR_NONE,
    TEXT,
    Rule,
    at_least,
    config_of,
    field,
    name_of_table,
    number,
    one_of,
    options_of,
    sections_of,
    seeds,
    tuple_of,
)
from pivotrl_jax.run.options_evaluation import Evaluate, Validation
from pivotrl_jax.run.options_tracking import Track
from pivotrl_jax.run.options_training import (
    DTYPES,
    E2e,
    Grpo,
    Profile,
    Reprofile,
    Rollouts,
    Sft,
    section,
)

AXIS = Rule(lambda n: n == -1 or at_least(1).test(n), "a whole number from 1 up, or -1")
FOLDS = tuple_of(lambda x: min(x, default=0) >= 0, "numbers of folds, e.g. (0, 1)")
USER_TURNS = tuple_of(
    lambda x: not x or (len(x) == 2 and 2 <= x[0] <= x[1] <= 9),
    "two numbers from 2 to 9, the lower first, e.g. (6, 8), or ()",
)
NAMES = Rule(lambda x: isinstance(x, (tuple, list)) and all(map(TEXT.test, x)), "a tuple of names")
LENGTHS = tuple_of(lambda x: min(x, default=0) >= 1, "row lengths, e.g. (1024, 2048)")


@section
class Lora:
    """Low-rank adapters."""

    rank: int = field(0, "Rank of the adapters; 0 trains every parameter instead.", at_least(0), unit="rank")
    alpha: float = field(32.0, "The adapters' output is scaled by alpha / rank.", ABOVE_ZERO, unit="a factor")
    merged_dtype: str = field(
        "float32",
        "Precision of the merged weights in hf/, which are then evaluated; bfloat16 loses small updates.",
        DTYPES,
    )


@section
class Model:
    """The policy, and the reference that it starts from."""

    checkpoint: str = field(
        "embedded",
        "The weights, tokenizer and chat template to start from.",
        unit="'embedded', 'smollm2', 'smollm2_pi0', a directory in Hugging Face layout, a .gguf file, or a "
        "name on the hub; a directory or name may be a PEFT adapter's",
    )
    dtype: str = field("float32", "Precision of the arithmetic.", DTYPES)
    param_dtype: str = field(
        "float32",
        "Precision of the parameters; bfloat16 is for a base that stays frozen under adapters.",
        DTYPES,
    )
    lora: Lora = Lora()
    keep_thinking: bool = field(
        False,
        "Keep old <think> blocks in the history. False leaves it to the chat template; Qwen3's strips them.",
    )
    chat_template: str = field(
        "",
        "The chat template to use and to export, for a checkpoint whose own has no tools. '' takes its own.",
        unit="'', the name of one in assets/chat_templates ('smollm2_hermes'), or a .jinja file",
    )
    chat_template_arguments: str = field(
        "{}",
        "Given to the chat template at every rendering.",
        JSON_OBJECT,
        unit="""a JSON object, e.g. '{"enable_thinking": false}'""",
    )


@section
class Mesh:
    """How many devices each axis of the mesh has. One axis may be -1: it takes the devices that are left."""

    data: int = field(1, "Rows are divided over this axis, and parameters are copied.", AXIS, unit="devices")
    fsdp: int = field(-1, "Rows and parameters are divided over this axis.", AXIS, unit="devices")
    expert: int = field(1, "Experts of a mixture are divided over this axis.", AXIS, unit="devices")
    tensor: int = field(1, "Heads and hidden units are divided over this axis.", AXIS, unit="devices")


@section
class Data:
    """Where demonstrations come from, and which of their turns are used."""

    source: str = field(
        "toolbox",
        "Where the demonstrations come from.",
        unit="'toolbox' (the embedded world), 'bfcl' (BFCL's rows), your own environment as "
        "'package.module:name', or paths of trajectories, separated by commas: files, folders, hf:owner/name",
    )
    demonstrations: int = field(
        64, "toolbox: how many episodes the expert plays.", at_least(1), unit="episodes"
    )
    style: str = field(
        "diverse",
        "toolbox: how the expert does what can be done in several ways.",
        one_of(STYLES),
    )
    detours: float = field(
        0.0,
        "toolbox: how often the expert makes a slip or takes an idle look before an action.",
        number(PROBABILITY.test, "a chance from 0 to 1"),
        unit="probability per action",
    )
    words: str = field(
        "split",
        "toolbox: which names, items and titles users speak of.",
        one_of(
            {
                "split": "pretraining, training and test have their own",
                "shared": "all have those of pretraining; test still combines phrases as no other does",
            }
        ),
    )
    user_turns: tuple = field(
        (),
        "toolbox: how often the user speaks in a task, at least and at most; () is mostly twice, up to 5.",
        USER_TURNS,
        unit="user turns, e.g. (6, 8)",
    )
    held_out_tasks: int = field(
        200, "toolbox: tasks that are kept for the evaluation.", at_least(1), unit="tasks"
    )
    held_out_seed: int = field(
        0,
        "toolbox: which tasks are held out. Choose a recipe on another number than the one you report.",
        seeds(),
        unit="seed",
    )
    categories: tuple = field(
        ("multi_turn_base", "multi_turn_miss_func", "multi_turn_miss_param", "multi_turn_long_context"),
        "bfcl: which categories are read. Single-turn ones, e.g. 'simple_python', are scored by bfcl_ast.",
        NAMES,
        unit="names of BFCL's categories",
    )
    format: str = field(
        "auto", "paths: the reader of the files. 'auto' recognises each file.", name_of_table("readers")
    )
    tools: str = field(
        "", "paths: function docs for trajectories that have none.", unit="path of a JSON list, or ''"
    )
    verifier: str = field(
        "",
        "paths: the verifier of every turn. '' takes the one that belongs to the format.",
        name_of_table("verifiers"),
    )
    verifier_options: ConfigDict = field(
        {},
        "paths: what every turn's case tells its verifier, e.g. level='name'.",
        unit="whatever the verifier reads",
    )
    min_reward: float = field(
        1.0,
        "paths: trajectories with a lower recorded reward are left out; those without one are kept.",
        number(FINITE.test, "a number"),
        unit="reward of a trajectory",
    )
    min_pass_rate: float = field(
        0.0,
        "paths: rows with a lower published pass rate are left out; those without one are kept and counted.",
        number(PROBABILITY.test, "a share from 0 to 1"),
        unit="share of the publisher's rollouts that passed",
    )
    max_pass_rate: float = field(
        1.0,
        "paths: rows with a higher published pass rate are left out; those without one are kept and counted.",
        number(PROBABILITY.test, "a share from 0 to 1"),
        unit="share of the publisher's rollouts that passed",
    )
    pass_rate_field: str = field(
        "",
        "paths: where a row's pass rate is, if several policies were measured. '' takes the first of "
        "pass_rate, pass_rate_passed / pass_rate_total, and reward_mean of source_model_info or *_info.",
        unit="a field of the rows, e.g. 'qwen_235b_info', or ''",
    )
    skip_error_turns: bool = field(True, "paths: do not imitate turns whose call was answered by an error.")
    max_repeats: int = field(
        50,
        "paths: how often the same action may occur in the trajectories trained on; 0 sets no cap.",
        at_least(0),
        unit="turns",
    )
    on_bad_row: str = field(
        "skip",
        "paths: what happens at a row that cannot be read.",
        one_of({"skip": "name it and go on", "stop": "end the program"}),
    )
    held_out_share: float = field(
        0.25,
        "bfcl, paths: the part of the scenarios that is kept for the evaluation.",
        SHARE_OR_NONE,
        unit="share of scenarios",
    )
    folds: int = field(
        0,
        "bfcl, paths: deal the scenarios into this many folds, the same for every seed; 0 splits them by "
        "held_out_share instead.",
        at_least(0),
        unit="folds",
    )
    train_folds: tuple = field((), "With folds: those that are trained on.", FOLDS, unit="numbers from 0 up")
    held_out_folds: tuple = field(
        (), "With folds: those that are kept for the evaluation.", FOLDS, unit="numbers from 0 up"
    )
    limit: int = field(0, "Use at most this many trajectories; 0 uses all.", at_least(0), unit="trajectories")
    max_prompt_tokens: int = field(
        960, "Turns with a longer prompt are left out.", at_least(1), unit="tokens"
    )


@section
class Compute:
    """Shapes and memory of the programs. Only speed and memory depend on these."""

    row_lengths: tuple = field(
        (1024, 2048),
        "Lengths of packed rows; each has its own program. A prompt and its completion must fit the longest.",
        LENGTHS,
        unit="tokens",
    )
    attention_chunk: int = field(
        128, "Attention is computed for this many queries at a time.", at_least(1), unit="tokens"
    )
    log_prob_chunk: int = field(
        128, "Logits are computed for this many tokens at a time.", at_least(1), unit="tokens"
    )
    remat: str = field(
        "nothing",
        "What the backward pass computes again instead of keeping it.",
        one_of(
            {
                "nothing": "fastest, most memory",
                "dots": "everything but the results of matrix products",
                "full": "every layer, least memory",
            }
        ),
    )


@section
class Sampling:
    """How the policy draws tokens, in profiling, training and evaluation."""

    temperature: float = field(
        1.0,
        "Logits are divided by it; 0 is greedy, which cannot be trained on.",
        NOT_NEGATIVE,
        unit="a factor",
    )
    top_p: float = field(
        1.0,
        "Draw from the likeliest tokens that make up this much; training wants 1.",
        SHARE,
        unit="probability",
    )
    top_k: int = field(
        0, "Draw from this many likeliest tokens; 0 is all, which training wants.", at_least(0), unit="tokens"
    )
    min_p: float = field(
        0.0,
        "Leave out tokens less likely than this times the likeliest; training wants 0.",
        number(PROBABILITY.test, "a number from 0 to 1"),
        unit="share of the highest probability",
    )
    max_tokens: int = field(64, "Longer completions are cut.", at_least(1), unit="tokens")


@section
class Judge:
    """A language model that decides what verifiers leave open, behind an OpenAI-compatible endpoint."""

    base_url: str = field(
        "", "Where the judge is, e.g. http://localhost:8000/v1; '' is no judge.", ADDRESS, unit="URL"
    )
    model: str = field("", "The judge's model.", unit="a name that the endpoint knows")
    api_key_env: str = field(
        "OPENAI_API_KEY", "Where the key is read from; it is never written.", unit="an environment variable"
    )
    templates: str = field(
        "",
        "Prompts of your own, in the form of pivotrl_jax/assets/judge.toml; '' takes that file's.",
        unit="path of a TOML file, or ''",
    )
    swap: bool = field(
        True, "Where the first answer is yes, ask again with the two actions exchanged; both must agree."
    )
    reward_if_swap_fails: float = field(
        0.0, "The reward where the two answers disagree.", FINITE, unit="reward"
    )
    concurrency: int = field(16, "Requests that are open at the same time.", at_least(1), unit="requests")
    timeout: float = field(60.0, "How long one request may take.", ABOVE_ZERO, unit="seconds")
    retries: int = field(5, "How often a failed request is sent again.", at_least(0), unit="requests")


@section
class Options:
    """A run."""

    name: str = field("bfcl", "The run's name in its report.", unit="a name")
    seed: int = field(0, "Seed of everything that the run draws at random.", seeds(), unit="seed")
    workdir: str = field("runs/bfcl", "Where the run writes everything.", unit="directory")
    resume: bool = field(True, "Resume from what the work directory holds; False starts over.")
    method: str = field(
        "pivotrl",
        "What is trained.",
        one_of(
            {
                "pivotrl": "GRPO on the pivots",
                "sft": "supervised fine-tuning on the same trajectories",
                "e2e_rl": "GRPO on whole episodes of the same tasks",
                "random_turns": "GRPO on unfiltered candidates",
            }
        ),
    )
    reward: str = field(
        "functional",
        "The verifier of rollouts in profiling and training. 'functional': each candidate's own, which "
        "scores evaluations in any case; 'exact': the demonstration's text (the paper's ablation), and "
        "'exact_string': with the arguments in its order.",
        name_of_table("verifiers"),
        unit="'functional', or a verifier for all candidates",
    )
    model: Model = Model()
    mesh: Mesh = Mesh()
    data: Data = Data()
    compute: Compute = Compute()
    sampling: Sampling = Sampling()
    judge: Judge = Judge()
    rollouts: Rollouts = Rollouts()
    profile: Profile = Profile()
    validation: Validation = Validation()
    reprofile: Reprofile = Reprofile()
    grpo: Grpo = Grpo()
    sft: Sft = Sft()
    e2e: E2e = E2e()
    evaluate: Evaluate = Evaluate()
    track: Track = Track()


OPTIONS = {option.name: option for option in options_of(Options())}
SECTIONS = dict(sections_of(Options()))


def defaults() -> ConfigDict:
    """The embedded world and checkpoint; CPU, minutes, offline. Not locked, so that a config file can change
    it."""
    return config_of(Options())
