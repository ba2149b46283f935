"""Batch files: JSONL of conversations in, JSONL with the answers out, in input order, in constant memory, resumable.

`run_file` asks row by row; `BatchSummary` and `BatchProgress` are what it tells, `BatchError` why it stopped. `submit`
(and `submit_file`, `resume_file`, `collect_file`) leave the rows to a provider's batch API: a `BatchJob` comes of it.
"""

from .. import BatchJob, BatchState, BatchStatus
from .jobs import collect_file, resume_file, submit, submit_file
from .runner import run_file
from .summary import BatchError, BatchProgress, BatchSummary

__all__ = [
    "BatchError",
    "BatchJob",
    "BatchProgress",
    "BatchState",
    "BatchStatus",
    "BatchSummary",
    "collect_file",
    "resume_file",
    "run_file",
    "submit",
    "submit_file",
]
