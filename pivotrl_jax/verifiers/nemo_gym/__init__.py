"""The rewards of the verifiers that NVIDIA released, reproduced with their holes.

Start with tool_call.py; the strict verifiers one folder up do not depend on this one.
"""
