"""On which terms the votes of a row decide.

They are defined where votes are weighed while they come in, so that what stops early and what decides in the end hold
to the same ones.
"""

from batchllm.ballot import Rule, Terms, Ties, least_votes

__all__ = ["Rule", "Terms", "Ties", "least_votes"]
