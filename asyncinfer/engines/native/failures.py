"""What torch and Transformers raise, as errors of this package; told apart by their types, never by their words."""

from __future__ import annotations

import logging

from ...errors import AsyncInferError, EngineError

_log = logging.getLogger("asyncinfer")


def typed(error: BaseException, doing: str, *, log: bool = True) -> AsyncInferError:
    """The error to raise.

    Args:
        error: what was raised.
        doing: what failed, for the message: ``"decoding"``.
        log: write the traceback to the log as well: who asked is not always who runs the model.
    """
    if isinstance(error, AsyncInferError):
        return error
    if out_of_memory(error):
        found = EngineError(
            f"the device ran out of memory while {doing}: lower model_kwargs.cache_tokens, gpu_memory_utilization or "
            "n_parallel, or load the model with load_in_4bit"
        )
    else:
        if log:
            _log.error("Transformers failed while %s", doing, exc_info=error)
        said = " ".join(str(error).split())[:400]
        found = EngineError(f"Transformers failed while {doing}: {type(error).__name__}: {said}")
    found.__cause__ = error
    return found


def out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out, on whichever device."""
    import torch

    return isinstance(error, (MemoryError, torch.OutOfMemoryError))
