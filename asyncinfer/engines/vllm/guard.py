"""The ``if __name__ == "__main__":`` that a script needs before it may start processes.

vLLM computes in processes of its own. They are spawned (a fork of a process with threads may hang), and a spawned
process imports the main script once more, as something else than ``__main__``. A script without the guard would then
load the model again, in each of them: it is told so before anything is loaded.
"""

from __future__ import annotations

import ast
import multiprocessing
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import EngineError

if TYPE_CHECKING:
    from types import FrameType

_ADVICE = (
    "vLLM starts processes that import this script again. Put the code that uses the engine under\n\n"
    '    if __name__ == "__main__":\n'
)


def check() -> None:
    """Raise `EngineError` if this call comes from a script's top level, outside the guard."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise EngineError(f"an engine is opened while a process that vLLM has started imports the script. {_ADVICE}")
    script = _script()
    if script is None:
        return
    line = _running_line()
    if line is not None and not _guarded(script, line):
        raise EngineError(f'{script}, line {line}, is not under `if __name__ == "__main__":`. {_ADVICE}')


def _script() -> Path | None:
    """The file that a spawned process would import again, if any."""
    main = sys.modules.get("__main__")
    spec = getattr(main, "__spec__", None)
    if spec is not None and (spec.name == "__main__" or spec.name.endswith(".__main__")):
        return None  # `python -m package`: multiprocessing leaves it alone
    name = getattr(main, "__file__", None)
    return Path(name) if name and name.endswith((".py", ".pyw")) else None


def _running_line() -> int | None:
    """The line at which the script's own top level waits; None once it has come to its end."""
    # The only way to see another thread's place; this call may come from a worker or a second loop.
    frame: FrameType | None = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001
    found = None
    while frame is not None:
        if frame.f_code.co_name == "<module>" and frame.f_globals.get("__name__") == "__main__":
            found = frame.f_lineno
        frame = frame.f_back
    return found


def _guarded(script: Path, line: int) -> bool:
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"))
    except (OSError, ValueError, SyntaxError):
        return True  # it cannot be judged; vLLM will say what it thinks of it
    return any(
        isinstance(node, ast.If)
        and any(isinstance(part, ast.Name) and part.id == "__name__" for part in ast.walk(node.test))
        and node.lineno <= line <= (node.end_lineno or node.lineno)
        for node in tree.body
    )
