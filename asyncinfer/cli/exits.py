"""How a command ends: one message on stderr and an exit code, never a traceback for what the user can mend.

====  ==================================================================
code  meaning
====  ==================================================================
0     done
1     the engine or provider failed, or a file could not be written
2     the command line or the configuration is wrong
3     a batch is done, but some of its rows failed (they are in a file)
130   stopped by Ctrl-C
141   whoever read the output stopped reading (a closed pipe)
143   stopped by SIGTERM
====  ==================================================================
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress

from .. import AsyncInferError, ConfigError

DONE, FAILED, WRONG_USAGE, SOME_ROWS_FAILED, INTERRUPTED, CLOSED_PIPE, TERMINATED = 0, 1, 2, 3, 130, 141, 143


def say(text: str) -> None:
    """One line on stderr, if anybody still reads it."""
    with suppress(OSError, ValueError):
        print(text, file=sys.stderr, flush=True)


def guarded(command: Callable[[], int]) -> int:
    """Run a command; turn every way it can end into an exit code."""
    try:
        code = command()
        sys.stdout.flush()
    except ConfigError as error:
        say(f"error: {error}")
        return WRONG_USAGE
    except AsyncInferError as error:
        say(f"error: {error}")
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _give_up_stdout()
        return CLOSED_PIPE
    except OSError as error:  # what is left: the answer could not be written
        _give_up_stdout()
        say(f"error: cannot write the answer: {error.strerror or error}")
        return FAILED
    return code


def _give_up_stdout() -> None:
    """Python flushes stdout once more at the end, and would complain: give it somewhere to flush to."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
