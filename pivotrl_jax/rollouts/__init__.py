"""Sampling: prompts -> completions -> verified rollouts, for single turns and for whole episodes.

Start with rollout.py; actor.py batches requests, sampler.py is the compiled decode loop.
"""
