"""What policies say to five prompts, in transformers: `python experiments/smollm2/transcript.py NAME=DIR ...`

Loads every checkpoint with AutoModelForCausalLM and AutoTokenizer, nothing of ours, and prints greedy replies
as a Markdown list.
"""

import argparse
import json

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city today.",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "The city."},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            },
            "required": ["city"],
        },
    },
}
PROMPTS = [
    ("What is the weather like in Nairobi, in celsius?", [WEATHER]),
    ("Compare the weather in Oslo and in Madrid for me.", [WEATHER]),
    ("Please book me a table for two at seven.", [WEATHER]),
    ("What is the capital of France?", []),
    ("Tell me one thing that helps against a cold, in a single sentence.", []),
]


def reply(model, tokenizer, question: str, tools: list[dict]) -> str:
    messages = [{"role": "user", "content": question}]
    ids = tokenizer.apply_chat_template(
        messages, tools=tools or None, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    out = model.generate(**ids, max_new_tokens=96, do_sample=False)
    return tokenizer.decode(out[0, ids["input_ids"].shape[1] :], skip_special_tokens=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoints", nargs="+", help="name=directory")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    names = dict(c.split("=", 1) for c in parser.parse_args().checkpoints)
    policies = {
        name: (
            AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32),
            AutoTokenizer.from_pretrained(path),
        )
        for name, path in names.items()
    }
    for question, tools in PROMPTS:
        print(f"- **{question}**" + (" (with `get_weather`)" if tools else ""))
        for name, (model, tokenizer) in policies.items():
            print(f"  - {name}: `{json.dumps(reply(model, tokenizer, question, tools), ensure_ascii=False)}`")


if __name__ == "__main__":
    main()
