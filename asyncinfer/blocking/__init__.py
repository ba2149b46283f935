"""The same engines for scripts and notebooks that have no event loop.

Every public name of `asyncinfer` is here too, so an example runs by changing its import line; the engine classes are
replaced by blocking ones of the same name. All of them work on one background event loop, in one thread, whatever
loop the caller may be running itself.

::

    from asyncinfer.blocking import OpenAIInferenceEngine, ModelParams

    engine = OpenAIInferenceEngine(ModelParams(model_name="gpt-4o-mini"))
    for token in engine.stream("Why is the sky blue?"):
        print(token, end="")

Provider batches too: ``job = engine.batch.submit(conversations)``, then ``job.wait()`` and ``for row in job.results()``
(see `BatchJob`).
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import asyncinfer

from .jobs import BatchJob, BlockingBatch, BlockingResults
from .loop import run
from .offline import InferenceEngine
from .stream import BlockingStream

if TYPE_CHECKING:
    from types import TracebackType

    from .. import Completion, Conversation, Engine, Failure, InferenceConfig

__all__ = [
    "BatchJob",
    "BlockingBatch",
    "BlockingEngine",
    "BlockingResults",
    "BlockingStream",
    "InferenceEngine",
    "open_engine",
]


class BlockingEngine:
    """An engine whose methods block. Takes what the async class of the same name takes."""

    async_class: type[Engine]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._engine = self.async_class(*args, **kwargs)

    @staticmethod
    def around(engine: Engine) -> BlockingEngine:
        """The blocking face of an engine that is there already."""
        mirror = _mirror(type(engine))
        blocking = mirror.__new__(mirror)
        vars(blocking)["_engine"] = engine
        return blocking

    def stream(self, conversation: Conversation | str, **overrides: Any) -> BlockingStream:
        """See `asyncinfer.Engine.stream`."""
        return BlockingStream(self._engine.stream(conversation, **overrides))

    def generate(self, conversation: Conversation | str, **overrides: Any) -> Completion:
        """See `asyncinfer.Engine.generate`."""

        async def call() -> Completion:
            return await self._engine.generate(conversation, **overrides)

        completion: Completion = run(call)
        return completion

    def generate_many(
        self, conversations: Iterable[Conversation | str], **overrides: Any
    ) -> list[Completion | Failure]:
        """See `asyncinfer.Engine.generate_many`; always a list, in input order."""

        async def call() -> list[Completion | Failure]:
            return await self._engine.generate_many(conversations, **overrides)

        results: list[Completion | Failure] = run(call)
        return results

    def infer_online(
        self,
        input: Iterable[Conversation],  # noqa: A002 -- the documents' own name
        inference_config: InferenceConfig | None = None,
    ) -> list[Conversation]:
        """Answer each conversation; returns them with the answers appended, in input order.

        Raises:
            RowsFailed: some row failed; raised after all rows have ended, with all results in ``.results``.
        """
        results = self.generate_many(input, inference_config=inference_config)
        failures = [result for result in results if not result]
        if failures:
            raise asyncinfer.RowsFailed(results)
        return [result.conversation for result in results]

    infer = infer_online

    def infer_from_file(
        self, input_filepath: str | Path, inference_config: InferenceConfig | None = None
    ) -> list[Conversation]:
        """Answer each conversation of a JSONL file. ``inference_config.output_path``, where set, is written too.

        Raises:
            ConfigError: the file cannot be read, or a line is no conversation.
            RowsFailed: as for `infer_online`.
        """
        answered = self.infer_online(_read(input_filepath), inference_config)
        if inference_config is not None and inference_config.output_path:
            with Path(inference_config.output_path).open("w", encoding="utf-8") as file:
                file.writelines(f"{conversation.to_json()}\n" for conversation in answered)
        return answered

    def list_models(self, *, chat_only: bool = False) -> list[str]:
        """See `asyncinfer.Engine.list_models`."""

        async def call() -> list[str]:
            return await self._engine.list_models(chat_only=chat_only)

        models: list[str] = run(call)
        return models

    @property
    def batch(self) -> BlockingBatch:
        """The provider's batch API: see `BlockingBatch`. Raises `ConfigError` for an engine that has none."""
        return BlockingBatch(self._engine)

    @classmethod
    def get_supported_params(cls) -> set[str]:
        """See `asyncinfer.Engine.get_supported_params`."""
        return cls.async_class.get_supported_params()

    def close(self) -> None:
        """Let go of what the engine holds."""
        run(self._engine.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _read(path: str | Path) -> list[Conversation]:
    """The conversations of a JSONL file; blank lines are skipped. Raises `ConfigError` with the line's number."""
    conversations = []
    try:
        with Path(path).open(encoding="utf-8-sig") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    try:
                        conversations.append(asyncinfer.Conversation.from_json(line))
                    except asyncinfer.ConfigError as error:
                        raise asyncinfer.ConfigError(f"{path}, line {number}: {error.message}") from None
    except OSError as error:
        raise asyncinfer.ConfigError(f"cannot read {path}: {error.strerror}", path="input_path") from error
    return conversations


def open_engine(*args: Any, **kwargs: Any) -> BlockingEngine:
    """See `asyncinfer.open_engine`."""
    return BlockingEngine.around(asyncinfer.open_engine(*args, **kwargs))


def _mirror(engine_class: type[Engine]) -> type[BlockingEngine]:
    found = globals().get(engine_class.__name__)
    if found is None:
        found = type(
            engine_class.__name__,
            (BlockingEngine,),
            {"async_class": engine_class, "__doc__": engine_class.__doc__, "__module__": __name__},
        )
        globals()[engine_class.__name__] = found
    mirrored: type[BlockingEngine] = found
    return mirrored


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    value = getattr(asyncinfer, name)
    if isinstance(value, type) and issubclass(value, asyncinfer.Engine):
        return _mirror(value)
    return value
