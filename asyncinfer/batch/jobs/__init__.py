"""Provider batch jobs: rows that are left to a provider's batch API, for about half the price, within hours.

`submit` gives a `asyncinfer.BatchJob`, which outlives the program as JSON; `submit_file`, `resume_file` and
`collect_file` do the same from a JSONL file to a JSONL file.
"""

from .files import collect_file, resume_file, submit_file
from .submission import submit

__all__ = ["collect_file", "resume_file", "submit", "submit_file"]
