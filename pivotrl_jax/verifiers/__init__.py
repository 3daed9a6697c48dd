"""Verifiers by name: VERIFIERS["tool_call"].verify(candidate, action) -> Verdict."""
