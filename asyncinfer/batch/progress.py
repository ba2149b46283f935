"""Reports of a running batch: to a callback, and to a small file. Rule: a report that fails never stops the batch."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .summary import BatchProgress

_log = logging.getLogger("asyncinfer.batch")


class ProgressFile:
    """``{"total", "completed", "failed", "updated_at"}``, replaced as a whole, so that a reader never sees half of it.

    The format is Oumi's: ``updated_at`` is ISO 8601 in UTC.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = Path(path).expanduser()
        self._complained = False

    def write(self, progress: BatchProgress) -> None:
        """Replace the file. The first failure is logged as a warning, further ones only for debugging."""
        state = {
            "total": progress.total,
            "completed": progress.completed,
            "failed": progress.failed,
            "updated_at": datetime.now(UTC).isoformat(),
        }
        fresh = self._path.with_name(f".{self._path.name}.new")
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(json.dumps(state) + "\n", encoding="utf-8")
            fresh.replace(self._path)
        except OSError as error:
            _log.log(
                logging.DEBUG if self._complained else logging.WARNING,
                "cannot write the progress file %s: %s",
                self._path,
                error.strerror,
            )
            self._complained = True
