"""Chat messages <-> token ids <-> actions. Pure Python; never imports jax.

Start with actions.py (completion text -> action); template.py renders prompts with the checkpoint's template;
prefixes.py encodes all prompts of a conversation at once.
"""
