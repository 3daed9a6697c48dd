"""The offline half of PivotRL: candidates -> self-check -> profile under pi_0 -> pivots.

Start with selection.py (what a pivot is); profiling.py samples the rollouts, adaptive.py stops early.
"""
