"""The files of one batch, all beside its output. Rule: every name is derived from the output's, in this one place.

For ``answers.jsonl``: ``answers.jsonl.journal`` (while work is left), ``answers.failures.jsonl`` (if rows failed),
``answers.jsonl.bak``, ``.bak2`` ... (earlier, different files of that name: each is kept), and hidden:
``.answers.jsonl.receipt`` and, while the output is being assembled, ``.answers.jsonl.part`` and
``.answers.failures.jsonl.part``.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import ConfigError
from .summary import BatchError


class Places:
    """Where a batch writes.

    Raises:
        ConfigError: the output would overwrite the input, or is no regular file.
        BatchError: its directory cannot be created.
    """

    def __init__(self, input_path: str | Path, output_path: str | Path) -> None:
        output = Path(output_path).expanduser().resolve()  # a symlink stays, and what it points to is replaced
        if output.exists() and not output.is_file():
            raise ConfigError(f"output {output_path} exists and is not a regular file", path="output_path")
        self.output = output
        self.journal = output.with_name(f"{output.name}.journal")
        self.failures = output.with_name(f"{output.stem}.failures{output.suffix}")
        self.receipt = output.with_name(f".{output.name}.receipt")
        self.output_part = output.with_name(f".{output.name}.part")
        self.failures_part = output.with_name(f".{self.failures.name}.part")
        source = Path(input_path).expanduser().resolve()
        for path, what in ((output, "output"), (self.failures, "failures file"), (self.journal, "journal")):
            if path == source or (path.exists() and source.exists() and path.samefile(source)):
                raise ConfigError(
                    f"the {what} of this batch would be {path}, which is its input: choose another output_path",
                    path="output_path",
                )
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BatchError(f"cannot create the directory {output.parent}: {error.strerror}") from error

    @property
    def backup(self) -> Path:
        """Where an earlier output goes: a name that is free, so that answers once paid for are never overwritten."""
        path, number = self.output.with_name(f"{self.output.name}.bak"), 1
        while os.path.lexists(path):
            number += 1
            path = self.output.with_name(f"{self.output.name}.bak{number}")
        return path

    def sync_directory(self) -> None:
        """Make renames in the output's directory survive a power loss, where the system can."""
        if os.name != "posix":
            return
        fd = os.open(self.output.parent, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
