"""The libraries under our local engines, used directly, as well as they can be: the other side of `local.py`."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import json
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple


class Order(NamedTuple):
    """One measurement: so many requests, so many of them at a time, of so many tokens each."""

    streams: int
    tokens: int
    requests: int


class Setup(NamedTuple):
    """What both sides of a pair are loaded with."""

    model: str | None
    slots: int
    context: int
    threads: int
    end: int


def folder(setup: Setup) -> str:
    from asyncinfer.models import embedded_model

    return setup.model or str(embedded_model("hf"))


def file(setup: Setup) -> str:
    from asyncinfer.models import embedded_model

    return setup.model or str(embedded_model("gguf"))


async def in_tasks(order: Order, request: Callable[[], Any]) -> int:
    """Requests by as many tasks as there are streams; the tokens that they made."""
    numbers = iter(range(order.requests))
    made = 0

    async def worker() -> None:
        nonlocal made
        for _ in numbers:
            new = await request()
            made += new

    async with asyncio.TaskGroup() as group:
        for _ in range(order.streams):
            group.create_task(worker())
    return made


class ServerThreads:
    """xllamacpp: a thread for each stream, every chunk decoded for its text."""

    def __init__(self, setup: Setup, prompt: str) -> None:
        self._setup = setup
        self._prompt = prompt

    async def load(self) -> None:
        import xllamacpp

        setup = self._setup
        params = xllamacpp.CommonParams()
        params.model.path = file(setup)
        params.n_parallel = setup.slots
        params.n_ctx = setup.slots * setup.context
        params.kv_unified = False
        params.warmup = False
        params.cache_ram_mib = 0
        params.fit_params = False
        params.verbosity = -1
        if setup.threads:
            params.cpuparams.n_threads = params.cpuparams_batch.n_threads = setup.threads
        self._server = xllamacpp.Server(params)
        self._server.handle_completions({"prompt": "a", "max_tokens": 1})

    async def run(self, order: Order) -> int:
        body = json.dumps(
            {
                "messages": [{"role": "user", "content": self._prompt}],
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": order.tokens,
                "temperature": 0,
                "logit_bias": [[self._setup.end, -100]],
            }
        )
        numbers, lock, made = iter(range(order.requests)), threading.Lock(), 0

        def take() -> Iterator[int]:
            while True:
                with lock:
                    number = next(numbers, None)
                if number is None:
                    return
                yield number

        def stream() -> None:
            nonlocal made
            for _ in take():
                text: list[str] = []
                usage: list[int] = []

                def on_chunk(chunk: str, text=text, usage=usage) -> bool:
                    said = json.loads(chunk)
                    for choice in said["choices"]:
                        text.append(choice["delta"].get("content") or "")
                    if said.get("usage"):
                        usage.append(said["usage"]["completion_tokens"])
                    return False

                self._server.handle_chat_completions(body, on_chunk)
                assert any(text)
                with lock:
                    made += usage[-1]

        threads = [threading.Thread(target=stream) for _ in range(order.streams)]
        for thread in threads:
            thread.start()
        for thread in threads:
            await asyncio.to_thread(thread.join)
        return made

    async def close(self) -> None:
        del self._server


class BatchLoop:
    """llama-cpp-python's C functions: one loop that decodes a token of every sequence in each step, and no more.

    The template is a string of its own: nothing is cheaper.
    """

    def __init__(self, setup: Setup, prompt: str) -> None:
        self._setup = setup
        self._asked = prompt

    async def load(self) -> None:
        import llama_cpp as lib

        setup = self._setup
        self._lib: Any = lib
        self._quiet = lib.llama_log_callback(lambda *_: None)
        lib.llama_log_set(self._quiet, ctypes.c_void_p(0))
        lib.llama_backend_init()
        self._model = lib.llama_model_load_from_file(file(setup).encode(), lib.llama_model_default_params())
        what = lib.llama_context_default_params()
        what.n_ctx, what.n_seq_max, what.kv_unified = setup.slots * setup.context, setup.slots, False
        what.n_batch = what.n_ubatch = 2048
        what.no_perf = True
        if setup.threads:
            what.n_threads = what.n_threads_batch = setup.threads
        self._ctx = lib.llama_init_from_model(self._model, what)
        self._vocab = lib.llama_model_get_vocab(self._model)
        self._memory = lib.llama_get_memory(self._ctx)
        self._batch = lib.llama_batch_init(2048, 0, 1)
        self._pieces: dict[int, bytes] = {}

    def _sampler(self) -> Any:
        lib = self._lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        bias = (lib.llama_logit_bias * 1)((self._setup.end, -100.0))
        size = lib.llama_vocab_n_tokens(self._vocab)
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_logit_bias(size, 1, bias))
        lib.llama_sampler_chain_add(chain, lib.llama_sampler_init_greedy())
        return chain

    def _prompt(self) -> list[int]:
        text = f"<|im_start|>user\n{self._asked}<|im_end|>\n<|im_start|>assistant\n".encode()
        ids = (self._lib.llama_token * 256)()
        count = self._lib.llama_tokenize(self._vocab, text, len(text), ids, 256, False, True)
        return list(ids[:count])

    def _piece(self, token: int) -> bytes:
        known = self._pieces.get(token)
        if known is None:
            buffer = ctypes.create_string_buffer(64)
            count = self._lib.llama_token_to_piece(self._vocab, token, buffer, 64, 0, False)
            known = self._pieces[token] = buffer.raw[:count]
        return known

    async def run(self, order: Order) -> int:
        return await asyncio.to_thread(self._run, order)

    def _run(self, order: Order) -> int:
        lib, batch, made = self._lib, self._batch, 0
        waiting = order.requests
        running: dict[int, list[Any]] = {}  # sequence -> [sampler, position, next token, text, tokens made]
        held: set[int] = set()  # sequences whose memory still holds the prompt
        while waiting or running:
            rows: list[tuple[int, int, int, bool]] = []
            for sequence in range(order.streams):
                one = running.get(sequence)
                if one is None and waiting:
                    waiting -= 1
                    prompt = self._prompt()
                    running[sequence] = [self._sampler(), len(prompt), -1, [], 0]
                    begin = len(prompt) - 1 if sequence in held else 0
                    lib.llama_memory_seq_rm(self._memory, sequence, begin, -1)
                    held.add(sequence)
                    last = len(prompt) - 1
                    rows += [(prompt[at], at, sequence, at == last) for at in range(begin, last + 1)]
                elif one is not None:
                    rows.append((one[2], one[1], sequence, True))
                    one[1] += 1
            batch.n_tokens = len(rows)
            for at, (token, position, sequence, wanted) in enumerate(rows):
                batch.token[at], batch.pos[at], batch.n_seq_id[at] = token, position, 1
                batch.seq_id[at][0], batch.logits[at] = sequence, wanted
            assert lib.llama_decode(self._ctx, batch) == 0
            for at, (_, _, sequence, wanted) in enumerate(rows):
                if not wanted:
                    continue
                one = running[sequence]
                one[2] = lib.llama_sampler_sample(one[0], self._ctx, at)
                one[3].append(self._piece(one[2]).decode("utf-8", "replace"))
                one[4] += 1
                if one[4] == order.tokens:
                    made += one[4]
                    lib.llama_sampler_free(one[0])
                    del running[sequence]
        return made

    async def close(self) -> None:
        self._lib.llama_batch_free(self._batch)
        self._lib.llama_free(self._ctx)
        self._lib.llama_model_free(self._model)


class Async:
    """vLLM's ``AsyncLLM`` on this very loop, with deltas."""

    def __init__(self, setup: Setup, prompt: str) -> None:
        self._setup = setup
        self._prompt = prompt

    async def load(self) -> None:
        from vllm import AsyncEngineArgs
        from vllm.platforms import current_platform
        from vllm.v1.engine.async_llm import AsyncLLM

        setup = self._setup
        more = {"enforce_eager": True} if current_platform.is_cpu() else {}
        self._engine = AsyncLLM.from_engine_args(
            AsyncEngineArgs(
                model=folder(setup),
                max_num_seqs=setup.slots,
                max_model_len=setup.context,
                disable_log_stats=True,
                **more,
            )
        )
        tokenizer = self._engine.get_tokenizer()
        if asyncio.iscoroutine(tokenizer):
            tokenizer = await tokenizer
        self._tokenizer = tokenizer
        self._numbers = itertools.count()

    async def run(self, order: Order) -> int:
        from vllm import SamplingParams
        from vllm.inputs import TokensPrompt
        from vllm.sampling_params import RequestOutputKind

        sampling = SamplingParams(
            temperature=0.0,
            max_tokens=order.tokens,
            min_tokens=order.tokens,
            output_kind=RequestOutputKind.DELTA,
        )

        async def request() -> int:
            made, text = 0, []
            prompt = TokensPrompt(prompt_token_ids=prompt_ids(self._tokenizer, self._prompt))
            async for output in self._engine.generate(prompt, sampling, f"direct-{next(self._numbers)}"):
                for one in output.outputs:
                    text.append(one.text)
                    made += len(one.token_ids)
            assert any(text)
            return made

        return await in_tasks(order, request)

    async def close(self) -> None:
        self._engine.shutdown()


def prompt_ids(tokenizer: Any, prompt: str) -> list[int]:
    messages = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def load_transformers(setup: Setup) -> tuple[Any, Any]:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    if setup.threads:
        torch.set_num_threads(setup.threads)
    where = "cuda:0" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder(setup), dtype="auto", device_map=where)
    return model.eval(), AutoTokenizer.from_pretrained(folder(setup))


class Manager:
    """Transformers' continuous batching: results are handed to this loop, and decoded as they come."""

    def __init__(self, setup: Setup, prompt: str) -> None:
        self._setup = setup
        self._prompt = prompt

    async def load(self) -> None:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        model, self._tokenizer = load_transformers(self._setup)
        self._numbers = itertools.count()
        pages = self._setup.slots * (self._setup.context // 32)
        self._manager = model.init_continuous_batching(
            generation_config=GenerationConfig(do_sample=False, eos_token_id=-1, pad_token_id=0),
            continuous_batching_config=ContinuousBatchingConfig(
                num_blocks=max(64, pages), page_size=32, max_batch_tokens=512, use_cuda_graph=False,
                use_async_batching=False,
            ),
        )  # fmt: skip
        self._manager.start()

    async def run(self, order: Order) -> int:
        async def request() -> int:
            number = f"direct-{next(self._numbers)}"
            results: asyncio.Queue[Any] = asyncio.Queue()
            self._manager.register_result_handler(number, results.put_nowait)
            self._manager.add_request(
                prompt_ids(self._tokenizer, self._prompt),
                request_id=number,
                max_new_tokens=order.tokens,
                streaming=True,
                eos_token_id=-1,
            )
            shown, text = 0, []
            while True:
                result = await results.get()
                assert result.error is None, result.error
                new = result.generated_tokens[shown:]
                if new:
                    text.append(self._tokenizer.decode(new))
                    shown += len(new)
                if result.is_finished():
                    assert any(text)
                    return shown

        return await in_tasks(order, request)

    async def close(self) -> None:
        await asyncio.to_thread(self._manager.stop, block=True, timeout=10)


class OneByOne:
    """``model.generate``, one request after the other, streamed through the library's own streamer."""

    def __init__(self, setup: Setup, prompt: str) -> None:
        self._setup = setup
        self._prompt = prompt

    async def load(self) -> None:
        self._model, self._tokenizer = load_transformers(self._setup)

    async def run(self, order: Order) -> int:
        return await asyncio.to_thread(self._run, order)

    def _run(self, order: Order) -> int:
        import torch
        from transformers.generation.streamers import BaseStreamer

        tokenizer = self._tokenizer

        class Reader(BaseStreamer):
            def __init__(self) -> None:
                self.text: list[str] = []

            def put(self, value: Any) -> None:
                self.text.append(tokenizer.decode(value.reshape(-1).tolist()))

            def end(self) -> None:
                pass

        made = 0
        for _ in range(order.requests):
            ids = torch.tensor([prompt_ids(tokenizer, self._prompt)], device=self._model.device)
            with torch.inference_mode():
                out = self._model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=order.tokens,
                    min_new_tokens=order.tokens,
                    pad_token_id=0,
                    streamer=Reader(),
                )
            made += out.shape[1] - ids.shape[1]
        return made

    async def close(self) -> None:
        pass


DIRECT: dict[str, Callable[[Setup, str], Any]] = {
    "xllamacpp, a thread each": ServerThreads,
    "llama_cpp, own batch loop": BatchLoop,
    "vllm AsyncLLM": Async,
    "transformers, its batching": Manager,
    "transformers, one by one": OneByOne,
}
