"""The RLite shape, on the embedded model and on engines that are scripts."""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from rich.console import Console

from asyncinfer import (
    ConfigError,
    Engine,
    EngineError,
    Failure,
    GenerationParams,
    MissingDependencyError,
    Prompt,
    ReplicatedEngine,
    RowsFailed,
    rlite,
)
from tests.engines.scripted import ScriptedEngine, answer

pytestmark = pytest.mark.anyio

PARIS = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
HELLO = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"
GREEDY = {"temperature": 0.0, "max_tokens": 32}


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request):
    return request.param


@pytest.fixture
async def engine():
    async with rlite.InferenceEngine(backend="llamacpp").build(n_threads=1, n_parallel=4) as engine:
        yield engine


class Scripted(ScriptedEngine):
    """Completes a prompt with its own text and the seed; a prompt ``bad`` fails."""

    takes_prompts = True

    def __init__(self, *scripts: Any, **arguments: Any) -> None:
        super().__init__(*(scripts or (self.echo,)), **arguments)

    @staticmethod
    def echo(request):
        text = request.prompt.text or str(request.prompt.token_ids)
        if text == "bad":
            return [EngineError("this one breaks")]
        seed = request.generation.seed
        return answer(*[f"{text}/{seed if seed is not None else ''}"] * request.generation.n)


class OneAtATime(Scripted):
    @classmethod
    def get_supported_params(cls):
        return super().get_supported_params() - {"n"}


@pytest.fixture
def scripted(monkeypatch):
    def make(replica: Engine | None = None):
        replica = replica or OneAtATime()
        monkeypatch.setattr(ReplicatedEngine, "over_devices", lambda *_, **__: replica)
        return rlite.InferenceEngine("model", backend="vllm")

    return make


# -- on a real engine --------------------------------------------------------------------------------------------------


async def test_prompts_in_outputs_back_in_order(engine):
    outputs = await engine.generate([PARIS, HELLO] * 5, sampling_params=GREEDY)
    assert [output.outputs[0].text for output in outputs] == [
        "The capital of France is Paris.",
        "Hello! How can I help you today?",
    ] * 5
    first = outputs[0]
    assert (first.request_id, first.prompt, first.prompt_token_ids, first.finished) == ("0", PARIS, None, True)
    assert (first.num_prompt_tokens, first.outputs[0].finish_reason, first.outputs[0].stop_reason) == (18, "stop", None)
    assert first.outputs[0].token_ids is None
    assert first.completions[0].usage.output_tokens == 8


async def test_the_documents_random_samples(engine):
    outputs = await engine.generate(["Hello, world!"] * 3, use_tqdm=True, tqdm_desc="Generating random samples")
    assert [output.prompt for output in outputs] == ["Hello, world!"] * 3
    assert all(output.completions[0].usage.output_tokens <= 16 for output in outputs)  # vLLM's default


async def test_several_answers_and_seeds(engine):
    asked = {"temperature": 1.5, "max_tokens": 12, "n": 3, "seed": 7}
    (one,), (other,) = [await engine.generate("The", asked) for _ in range(2)]
    assert [output.index for output in one.outputs] == [0, 1, 2]
    assert [output.text for output in one.outputs] == [output.text for output in other.outputs]
    assert len({output.text for output in one.outputs}) > 1  # not one answer three times


async def test_stop_strings_and_their_text(engine):
    asked = {**GREEDY, "stop": " France"}
    (without,) = await engine.generate(PARIS, asked)
    (with_it,) = await engine.generate(PARIS, {**asked, "include_stop_str_in_output": True})
    assert (without.outputs[0].text, without.outputs[0].stop_reason) == ("The capital of", " France")
    assert with_it.outputs[0].text == "The capital of France"


async def test_token_ids_go_back_in_as_a_prompt(engine):
    (first,) = await engine.generate(PARIS, {**GREEDY, "max_tokens": 3, "logprobs": 1})
    (one,) = first.outputs
    assert [place[token].decoded_token for place, token in zip(one.logprobs, one.token_ids, strict=True)] == [
        "The",
        " capital",
        " of",
    ]
    assert one.cumulative_logprob == pytest.approx(
        sum(place[token].logprob for place, token in zip(one.logprobs, one.token_ids, strict=True))
    )
    (again,) = await engine.generate({"prompt_token_ids": one.token_ids}, {"max_tokens": 1})
    assert (again.prompt_token_ids, again.num_prompt_tokens) == (one.token_ids, 3)


async def test_parameters_for_each_prompt(engine):
    short, long = await engine.generate([HELLO, HELLO], [{**GREEDY, "max_tokens": 2}, GREEDY])
    assert (short.outputs[0].finish_reason, long.outputs[0].finish_reason) == ("length", "stop")


async def test_it_streams(engine):
    pieces = [piece async for piece in engine.stream(HELLO, GREEDY)]
    assert "".join(pieces) == "Hello! How can I help you today?"
    assert len(pieces) > 3


async def test_it_is_loaded_late_closed_and_built_again():
    engine = rlite.InferenceEngine(backend="llama_cpp")
    async with engine:
        with pytest.raises(EngineError, match="built already"):
            engine.build()
    await engine.aclose()
    assert await engine.build(n_threads=1, data_parallel_size=2, n_parallel=1) is engine
    assert isinstance(engine.engine, ReplicatedEngine)
    (output,) = await engine.generate(HELLO, GREEDY, use_tqdm=False)
    assert output.outputs[0].text.startswith("Hello!")
    await engine.aclose()


# -- on scripts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [True, False])
async def test_n_answers_from_engines_of_either_kind(scripted, several):
    replica = Scripted(lambda request: n_answers(request)) if several else OneAtATime()
    engine = scripted(replica)
    outputs = await engine.generate(["a", "b"], {"n": 2, "seed": 5})
    assert [len(output.outputs) for output in outputs] == [2, 2]
    assert len(replica.requests) == (2 if several else 4)
    if not several:
        assert [[one.text for one in output.outputs] for output in outputs] == [["a/5", "a/6"], ["b/5", "b/6"]]


def n_answers(request):
    from asyncinfer import Finish, FinishReason, Start, TextDelta

    events = [Start()]
    for index in range(request.generation.n):
        events += [TextDelta(f"{request.prompt.text}{index}", index=index), Finish(FinishReason.STOP, index=index)]
    return events


async def test_one_bad_prompt_loses_no_other(scripted):
    engine = scripted()
    with pytest.raises(RowsFailed) as caught:
        await engine.generate(["a", "bad", "c"])
    assert [bool(result) for result in caught.value.results] == [True, False, True]
    results = await engine.generate(["a", "bad", "c"], on_error="return")
    assert isinstance(results[1], Failure) and results[1].index == 1
    assert results[2].outputs[0].text == "c/"
    with pytest.raises(ConfigError, match="on_error"):
        await engine.generate("a", on_error="ignore")


async def test_nothing_is_sent_if_something_is_wrong(scripted):
    replica = OneAtATime()
    engine = scripted(replica)
    for prompts, sampling in (
        (["a", 3], None),
        (7, None),
        (["a", ""], None),
        (["a"], [{}, {}]),
        (["a"], {"temperature": "hot"}),
        (["a"], {"n": 0}),
        (["a"], 3),
        (["a"], {"ignore_eos": True, "max_tokens": None}),
    ):
        with pytest.raises(ConfigError):
            await engine.generate(prompts, sampling)
    assert not replica.requests
    assert await engine.generate([]) == []


async def test_cancelling_stops_every_row(scripted):
    from tests.engines.scripted import PAUSE

    replica = OneAtATime([*answer("a")[:2], PAUSE])
    engine = scripted(replica)
    with anyio.move_on_after(0.05):
        await engine.generate(["a"] * 10)
    assert replica.requests
    assert replica.open_now == 0


async def test_tokens_and_log_probabilities_by_id(scripted):
    from asyncinfer import TextDelta

    entry = {"token": "x", "logprob": -0.5, "id": 3, "top_logprobs": [{"token": "y", "logprob": -0.1, "id": 4}]}
    script = answer()
    script.insert(1, TextDelta("xx", logprobs=[entry, entry]))
    (output,) = await scripted(OneAtATime(script)).generate([[1, 2]], {"logprobs": 1})
    (one,) = output.outputs
    assert (output.prompt, output.prompt_token_ids) == (None, [1, 2])
    assert (one.token_ids, one.cumulative_logprob) == ([3, 3], -1.0)
    assert one.logprobs == [{4: rlite.Logprob(-0.1, 1, "y"), 3: rlite.Logprob(-0.5, None, "x")}] * 2


async def test_the_bar_is_drawn_on_a_terminal_and_nowhere_else(scripted, monkeypatch, capsys):
    drawn = io.StringIO()
    monkeypatch.setattr("rich.console.Console", lambda **_: Console(file=drawn, force_terminal=True, width=120))
    engine = scripted()
    await engine.generate(["a"] * 3, use_tqdm=False)
    assert not drawn.getvalue()
    await engine.generate(["a"] * 3, tqdm_desc="VLM generating")
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", drawn.getvalue())
    assert "VLM generating" in shown
    assert "3/3" in shown
    monkeypatch.undo()
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")


# -- what is built -----------------------------------------------------------------------------------------------------


def built(monkeypatch, backend="vllm", model="m", **arguments):
    seen = {}

    def over_devices(kind, params, **sizes):
        seen.update(kind=kind, params=params, sizes=sizes)
        return OneAtATime()

    monkeypatch.setattr(ReplicatedEngine, "over_devices", over_devices)
    rlite.InferenceEngine(model_path=model, backend=backend).build(**arguments)
    return SimpleNamespace(**seen)


def test_the_documents_build(monkeypatch):
    seen = built(monkeypatch, tensor_parallel_size=4, gpu_memory_utilization=0.9)
    assert seen.sizes == {"tensor_parallel_size": 4, "pipeline_parallel_size": 1, "data_parallel_size": -1}
    assert (seen.params.model_name, seen.params.model_kwargs) == ("m", {"gpu_memory_utilization": 0.9})


def test_words_of_vllm_become_fields(monkeypatch):
    seen = built(
        monkeypatch,
        backend="transformers",
        max_model_len=512,
        dtype="bfloat16",
        tokenizer="t",
        revision="r",
        trust_remote_code=True,
        chat_template="x",
        model_kwargs={"a": 1},
        b=2,
    )
    params = seen.params
    assert seen.kind.name == "NATIVE"
    assert (params.model_max_length, params.torch_dtype_str, params.tokenizer_name) == (512, "bfloat16", "t")
    assert (params.model_revision, params.trust_remote_code, params.chat_template) == ("r", True, "x")
    assert params.model_kwargs == {"a": 1, "b": 2}


@pytest.mark.parametrize("backend", ["native", "llamacpp"])
def test_a_word_of_vllm_alone_is_warned_about(caplog, backend):
    rlite.InferenceEngine(backend=backend).build(seed=3, swap_space=4)
    said = " ".join(record.getMessage() for record in caplog.records)
    assert "seed" in said and "swap_space" in said


def test_backends_that_cannot():
    with pytest.raises(ConfigError, match="no backend 'tpu'") as caught:
        rlite.InferenceEngine("m", backend="tpu")
    assert caught.value.path == "backend"
    with pytest.raises(ConfigError, match="conversations"):
        rlite.InferenceEngine("m", backend="sglang").build()


async def test_what_is_missing_is_said_at_once(monkeypatch):
    class Missing(OneAtATime):
        async def start(self):
            raise MissingDependencyError("pip install something")

    monkeypatch.setattr(ReplicatedEngine, "over_devices", lambda *_, **__: Missing())
    with pytest.raises(MissingDependencyError):
        await rlite.InferenceEngine("m").generate(["a"] * 5)


# -- sampling parameters -----------------------------------------------------------------------------------------------


def read(given) -> GenerationParams:
    from asyncinfer.rlite.sampling import read_sampling

    return read_sampling(given).generation


def test_defaults_are_vllms():
    for given in (None, {}):
        assert (read(given).temperature, read(given).max_new_tokens) == (1.0, 16)
    ours = GenerationParams(top_k=3)
    assert read(ours) is ours


def test_every_name_has_its_place():
    params = read(
        {
            "max_tokens": 5,
            "min_tokens": 2,
            "temperature": 0.5,
            "top_p": 0.9,
            "top_k": 4,
            "min_p": 0.1,
            "presence_penalty": 0.1,
            "frequency_penalty": 0.2,
            "repetition_penalty": 1.1,
            "seed": 3,
            "stop": ["a", "b"],
            "stop_token_ids": [9],
            "skip_special_tokens": False,
            "logit_bias": {5: 1.0},
            "logprobs": 2,
            "structured_outputs": {"choice": ["x"]},
        }
    )
    assert (params.max_new_tokens, params.min_new_tokens, params.temperature, params.top_p) == (5, 2, 0.5, 0.9)
    assert (params.top_k, params.min_p, params.seed, params.stop_strings) == (4, 0.1, 3, ["a", "b"])
    assert (params.presence_penalty, params.frequency_penalty, params.repetition_penalty) == (0.1, 0.2, 1.1)
    assert (params.stop_token_ids, params.skip_special_tokens, params.logit_bias) == ([9], False, {5: 1.0})
    assert (params.logprobs, params.top_logprobs, params.guided_decoding.choice) == (True, 2, ["x"])


def test_small_words():
    assert read({"logprobs": 0}).logprobs is True
    assert read({"logprobs": None}).logprobs is False
    assert read({"seed": -1}).seed is None
    assert read({"max_tokens": None}).max_new_tokens is None
    assert read({"ignore_eos": True, "max_tokens": 9}).min_new_tokens == 9
    assert read({"structured_outputs": {"json_object": True}}).guided_decoding.json == {"type": "object"}
    assert read({"guided_decoding": SimpleNamespace(regex="a+", backend=None)}).guided_decoding.regex == "a+"


def test_objects_with_such_attributes(caplog):
    given = SimpleNamespace(temperature=0.3, max_tokens=4, stop=[], best_of=None, bad_words=["x"], _private=1)
    assert (read(given).temperature, read(given).max_new_tokens) == (0.3, 4)
    assert "bad_words" in caplog.text
    assert "best_of" not in caplog.text
    with pytest.raises(ConfigError, match="not object"):
        read(object())


def test_what_an_object_leaves_at_its_default_asks_for_nothing(caplog):
    class Struct:
        """Made as msgspec makes vLLM's ``SamplingParams``."""

        __struct_fields__ = ("temperature", "start", "stop_after")
        __struct_defaults__ = (0, 5)

        def __init__(self, start=0, stop_after=5):
            self.temperature, self.start, self.stop_after = 0.5, start, stop_after

    @dataclass
    class Plain:
        temperature: float = 0.7
        start: int = 3

    assert (read(Struct()).temperature, read(Plain()).temperature) == (0.5, 0.7)
    assert not caplog.records
    read(Struct(stop_after=6))
    assert "stop_after" in caplog.text and "start," not in caplog.text


def test_what_is_wrong_is_said_in_the_callers_words():
    for given, name in (({"max_tokens": 0}, "max_tokens"), ({"stop": 5}, "stop"), ({"logprobs": -1}, "logprobs")):
        with pytest.raises(ConfigError, match=rf"sampling_params\.{name}: expected") as caught:
            read(given)
        assert (caught.value.path or "").startswith(f"sampling_params.{name}")


async def test_a_bad_prompt_is_named_by_its_number(scripted):
    with pytest.raises(ConfigError, match=r"prompts\[1\].*empty") as caught:
        await scripted().generate(["a", ""])
    assert caught.value.path == "prompts[1]"
    with pytest.raises(ConfigError) as caught:
        await scripted().generate([{"prompt": "a", "image": 1}])
    assert caught.value.path == "prompts[0].image"


async def test_token_ids_are_those_of_the_log_probabilities(scripted):
    from asyncinfer import Finish, FinishReason, Start, TextDelta

    entry = {"token": "a", "logprob": -0.5, "id": 7, "top_logprobs": [{"token": "b", "logprob": -0.1, "id": 9}]}
    engine = scripted(OneAtATime([Start(), TextDelta("a", logprobs=[entry]), Finish(FinishReason.STOP)]))
    ((one,),) = [output.outputs for output in await engine.generate(["x"], {"logprobs": 1})]
    assert one.token_ids == [7]
    assert {number: place.decoded_token for number, place in one.logprobs[0].items()} == {9: "b", 7: "a"}


def test_an_unknown_name_is_warned_about_once(scripted, caplog):
    engine = scripted()

    async def main():
        with caplog.at_level(logging.WARNING):
            await engine.generate(["a", "b"], [{"tempratur": 1}, {"tempratur": 1}])

    anyio.run(main)
    assert caplog.text.count("tempratur") == 1


async def test_prompts_may_be_ours(scripted):
    (output,) = await scripted().generate(Prompt("a"))
    assert output.outputs[0].text == "a/"
