"""`submit`: conversations to a provider's batch API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ... import ConfigError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Iterable

    from ... import BatchJob


async def submit(engine: Any, conversations: Iterable[Any] | AsyncIterable[Any], **options: Any) -> BatchJob:
    """Give conversations to the batch API of an engine's provider.

    Args:
        engine: an engine, or what `asyncinfer.open_engine` takes (``"openai:gpt-4o-mini"``, an `InferenceConfig`).
        conversations: any sync or async iterable.
        options: as for ``engine.batch.submit``: ``generation``, ``inference_config``, ``response_model``, ``tools``,
            ``labels``, ``max_rows``, ``max_bytes``, ``on_part``, ``resume``.

    Returns:
        `BatchJob`, with ``.status()``, ``.wait()``, ``.results()``, ``.cancel()`` and ``.to_json()``.

    Raises:
        ConfigError: the engine has no batch API, there are no rows, or a parameter is wrong.
        AsyncInferError: the provider refuses; ``.partial`` is the job as far as it was created, or None: go on with
            ``submit(..., resume=error.partial)``.
    """
    if isinstance(engine, str) or not hasattr(engine, "generate_many"):
        from ... import open_engine

        engine = open_engine(engine)
    view = getattr(engine, "batch", None)
    if view is None:
        name = getattr(engine, "name", type(engine).__name__)
        raise ConfigError(
            f"{name} has no batch API: use engine.generate_many, or asyncinfer.batch.run_file for files", path="engine"
        )
    job: BatchJob = await view.submit(conversations, **options)
    return job
