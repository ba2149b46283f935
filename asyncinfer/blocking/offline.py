"""RLite's engine without a loop: what the document's examples are written for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self

import asyncinfer

from .loop import run
from .stream import BlockingStream

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType


class InferenceEngine:
    """See `asyncinfer.rlite.InferenceEngine`, which takes the same arguments.

    ::

        import asyncinfer.blocking as rlite

        engine = rlite.InferenceEngine(model_path="path/to/model", backend="vllm")
        engine.build(tensor_parallel_size=4, gpu_memory_utilization=0.9)
        outputs = engine.generate(["Hello, world!"] * 3, use_tqdm=True, tqdm_desc="Generating random samples")
        print(outputs[0].outputs[0].text)
    """

    def __init__(self, model_path: str | None = None, backend: str = "vllm") -> None:
        self._engine = asyncinfer.rlite.InferenceEngine(model_path, backend)

    def build(
        self,
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        data_parallel_size: int = -1,
        **backend_params: Any,
    ) -> Self:
        """Load the model. See `asyncinfer.rlite.InferenceEngine.build`; without it, `generate` loads with defaults."""
        self._engine.build(tensor_parallel_size, pipeline_parallel_size, data_parallel_size, **backend_params)
        try:
            run(self._engine.ready)
        except BaseException:
            run(self._engine.aclose)  # so that it can be built otherwise
            raise
        return self

    def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        tqdm_desc: str = "Processed prompts",
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[Any]:
        """A `RequestOutput` for each prompt, in order. See `asyncinfer.rlite.InferenceEngine.generate`."""

        async def call() -> Any:
            return await self._engine.generate(
                prompts, sampling_params, use_tqdm=use_tqdm, tqdm_desc=tqdm_desc, on_error=on_error
            )

        outputs: list[Any] = run(call)
        return outputs

    def stream(self, prompt: Any, sampling_params: Any = None) -> Iterator[str]:
        """Complete one prompt token by token; leaving the loop early stops the work."""
        return iter(BlockingStream(self._engine.stream(prompt, sampling_params)))

    def close(self) -> None:
        """Let go of the model, its processes and devices."""
        run(self._engine.aclose)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
