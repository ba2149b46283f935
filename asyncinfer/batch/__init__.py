"""Batch files: JSONL of conversations in, JSONL with the answers out, in input order, in constant memory, resumable.

`run_file` is all there is to call; `BatchSummary` and `BatchProgress` are what it tells, `BatchError` why it stopped.
"""

from .runner import run_file
from .summary import BatchError, BatchProgress, BatchSummary

__all__ = ["BatchError", "BatchProgress", "BatchSummary", "run_file"]
