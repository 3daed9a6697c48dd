"""Sampling: prompts -> completions -> verified rollouts, at single turns and in whole episodes.

Start with rollout.py; actor.py batches requests, sampler.py is the compiled decode loop.
"""
