"""`InferenceEngine`: the class of RLite's document, and how its calls become rows of `Engine.generate_many`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Self, overload

import anyio
import anyio.to_thread

from .. import (
    ConfigError,
    EngineError,
    Failure,
    InferenceEngineType,
    ModelParams,
    Prompt,
    ReplicatedEngine,
    RowsFailed,
)
from .progress import Bar
from .rows import Gathered, in_batches
from .sampling import Sampling, read_sampling

if TYPE_CHECKING:
    from collections.abc import Generator
    from types import TracebackType

    from .. import Engine, Stream
    from .outputs import RequestOutput

_BACKENDS = {"transformers": "native", "hf": "native", "huggingface": "native"}
"""Further names of backends, besides those of the engines."""
_THERE_ARE = "vllm, llamacpp and native"
_OTHER_WORDS = {
    "max_model_len": "model_max_length",
    "dtype": "torch_dtype_str",
    "tokenizer": "tokenizer_name",
    "revision": "model_revision",
}
"""vLLM's names of `ModelParams` fields, so that every backend understands them."""


class InferenceEngine:
    """Completes many prompts at once, on one or more replicas of a model in this machine's devices.

    Args:
        model_path: path of a model or its Hub id; None for the model that comes with the package.
        backend: ``"vllm"``, ``"llamacpp"`` (GGUF) or ``"native"`` (``"transformers"``).

    ``async with`` or `aclose` lets go of the model.

    Raises:
        ConfigError: there is no such backend, or it answers conversations only.
    """

    def __init__(self, model_path: str | None = None, backend: str = "vllm") -> None:
        self._model_path = None if model_path is None else str(model_path)
        try:
            self._backend = InferenceEngineType(_BACKENDS.get(str(backend).lower(), str(backend)))
        except ValueError:
            raise ConfigError(f"there is no backend {backend!r}; there are {_THERE_ARE}", path="backend") from None
        self._engine: Engine | None = None
        self._warned: set[str] = set()

    def build(
        self,
        tensor_parallel_size: int = 1,
        pipeline_parallel_size: int = 1,
        data_parallel_size: int = -1,
        **backend_params: Any,
    ) -> Self:
        """Say how the model is loaded; `generate` loads it when it is first called, ``await engine.build(...)`` now.

        Args:
            tensor_parallel_size: devices that share each layer of one replica.
            pipeline_parallel_size: groups of devices that the layers of one replica are dealt out to.
            data_parallel_size: replicas, fed by least load; -1 for as many as the devices hold (one without GPUs).
            backend_params: fields of `ModelParams`, and whatever else the backend takes (``model_kwargs``), for
                example ``gpu_memory_utilization``; a name that it does not know is warned about.

        Raises:
            ConfigError: a value is wrong, or there are not so many devices.
            EngineError: it was built before; `aclose` it first.
        """
        if self._engine is not None:
            raise EngineError("the engine was built already; close it before building it anew")
        engine = ReplicatedEngine.over_devices(
            self._backend,
            _model_params(self._model_path, backend_params),
            tensor_parallel_size=tensor_parallel_size,
            pipeline_parallel_size=pipeline_parallel_size,
            data_parallel_size=data_parallel_size,
        )
        if not engine.takes_prompts:
            raise ConfigError(
                f"the backend {self._backend.value} answers conversations and completes no bare prompts; those that "
                f"do are {_THERE_ARE}",
                path="backend",
            )
        self._engine = engine
        return self

    @property
    def engine(self) -> Engine:
        """The engine at work, for everything that the others here cannot do: conversations, tools, lists of models."""
        if self._engine is None:
            self.build()
        assert self._engine is not None
        return self._engine

    async def ready(self) -> Self:
        """Return once the model is loaded. Raises what loading raises (`MissingDependencyError`, `EngineError`)."""
        await self.engine.ready()
        return self

    def __await__(self) -> Generator[Any, None, Self]:
        return self.ready().__await__()

    @overload
    async def generate(
        self, prompts: Any, sampling_params: Any = None, *, use_tqdm: bool = True, tqdm_desc: str = ...
    ) -> list[RequestOutput]: ...

    @overload
    async def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        tqdm_desc: str = ...,
        on_error: Literal["raise"],
    ) -> list[RequestOutput]: ...

    @overload
    async def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        tqdm_desc: str = ...,
        on_error: Literal["return"],
    ) -> list[RequestOutput | Failure]: ...

    async def generate(
        self,
        prompts: Any,
        sampling_params: Any = None,
        *,
        use_tqdm: bool = True,
        tqdm_desc: str = "Processed prompts",
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[RequestOutput] | list[RequestOutput | Failure]:
        """Complete prompts; all of them at once, as far as the engine has room.

        Args:
            prompts: a list of texts, of mappings ``{"prompt": text, "multi_modal_data": {"image": image or list}}``,
                of ``{"prompt_token_ids": [...]}``, or of `Prompt`; or one of these alone. No chat template is applied.
            sampling_params: a mapping of vLLM's names, a ``vllm.SamplingParams``, `GenerationParams`, or a list of
                them, one for each prompt. None is vLLM's default: temperature 1.0, 16 tokens.
            use_tqdm: show a progress bar, if stderr is a terminal.
            tqdm_desc: what stands before it.
            on_error: ``"raise"`` raises after all rows have ended; ``"return"`` leaves a `Failure` in a row's place.

        Returns:
            A list with a `RequestOutput` for each prompt, in order.

        Raises:
            ConfigError: a prompt or parameter is wrong; nothing is sent then.
            RowsFailed: some prompt failed; ``.results`` has all outputs, and a `Failure` for each failed one.
        """
        if on_error not in ("raise", "return"):
            raise ConfigError(f"on_error is 'raise' or 'return', not {on_error!r}", path="on_error")
        asked = await _read(_listed(prompts))
        samplings = self._samplings(sampling_params, len(asked))
        if not asked:
            return []
        engine = self.engine
        one = engine.engines[0] if isinstance(engine, ReplicatedEngine) else engine
        batches = in_batches(asked, samplings, several="n" in one.get_supported_params())
        runs = [
            (engine.generate_many([asked[row.at] for row in rows], ordered=False, generation=generation), rows)
            for generation, rows in batches
        ]
        await engine.ready()
        with Bar(len(asked), tqdm_desc, shown=use_tqdm) as bar:
            gathered = Gathered(asked, samplings, batches, bar)
            async with anyio.create_task_group() as group:
                for run, rows in runs:
                    group.start_soon(gathered.follow, run, rows)
        results = gathered.results()
        if gathered.failures and on_error == "raise":
            raise RowsFailed(results)
        return results

    def stream(self, prompt: Any, sampling_params: Any = None) -> Stream:
        """Complete one prompt token by token: see `Engine.stream`, and `generate` for the arguments."""
        return self.engine.stream(Prompt.of(prompt), generation=read_sampling(sampling_params, self._warned).generation)

    def _samplings(self, given: Any, prompts: int) -> list[Sampling]:
        if not isinstance(given, (list, tuple)):
            return [read_sampling(given, self._warned)] * prompts
        if len(given) != prompts:
            raise ConfigError(
                f"{len(given)} sampling_params for {prompts} prompts; give one for all, or one for each",
                path="sampling_params",
            )
        return [read_sampling(one, self._warned) for one in given]

    async def aclose(self) -> None:
        """Let go of the model, its processes and devices; it may be built anew."""
        engine, self._engine = self._engine, None
        if engine is not None:
            await engine.aclose()

    async def __aenter__(self) -> Self:
        return await self.ready()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()


def _listed(prompts: Any) -> list[Any]:
    if isinstance(prompts, (str, dict, Prompt)):
        return [prompts]
    try:
        return list(prompts)
    except TypeError:
        raise ConfigError(f"prompts are a list of prompts, not {type(prompts).__name__}", path="prompts") from None


async def _read(prompts: list[Any]) -> list[Prompt]:
    """Prompts as ours; off the loop where there are images, which are encoded first."""

    def read() -> list[Prompt]:
        return [_prompt(number, prompt) for number, prompt in enumerate(prompts)]

    if any(isinstance(prompt, dict) and prompt.get("multi_modal_data") for prompt in prompts):
        return await anyio.to_thread.run_sync(read)
    return read()


def _prompt(number: int, given: Any) -> Prompt:
    try:
        return Prompt.of(given)
    except ConfigError as error:
        deeper = (error.path or "").removeprefix("prompt")
        raise ConfigError(f"prompts[{number}]: {error.message}", path=f"prompts[{number}]{deeper}") from None


def _model_params(model: str | None, given: dict[str, Any]) -> ModelParams:
    """What is a field of `ModelParams` by our name or vLLM's becomes one; the rest is the backend's own."""
    fields: dict[str, Any] = {}
    kwargs = dict(given.get("model_kwargs") or {})
    for name, value in given.items():
        field = _OTHER_WORDS.get(name, name)
        if name == "model_kwargs" or (value is None and field in _OTHER_WORDS.values()):
            continue
        if field == "torch_dtype_str":
            fields[field] = str(value)  # a torch.dtype prints its name
        elif field in ModelParams.model_fields and field != "model_name":
            fields[field] = value
        else:
            kwargs[name] = value
    if model is not None:
        fields["model_name"] = model
    return ModelParams(**fields, model_kwargs=kwargs)
