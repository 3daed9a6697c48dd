"""The learning half: one file per method (pivotrl.py, sft.py, e2e_rl.py) on one loop.

Start with pivotrl.py; losses.py has the losses, learner.py the compiled update.
"""
