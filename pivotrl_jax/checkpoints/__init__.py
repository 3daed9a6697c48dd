"""Weights on disk: Hugging Face directories in and out, PEFT adapters, orbax checkpoints of a run.

Start with hf.py; identity.py says when two runs are the same run.
"""
