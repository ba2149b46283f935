"""A `Prompt` in a conversation's place: what goes into the model is the text or the tokens, and nothing else."""

from __future__ import annotations

import anyio
import pytest

from asyncinfer import (
    BadRequestError,
    ConfigError,
    ContextLengthError,
    Conversation,
    FallbackEngine,
    FinishReason,
    GenerationParams,
    GuidedDecodingParams,
    Prompt,
    RemoteInferenceEngine,
    RemoteParams,
)

pytestmark = pytest.mark.anyio

CHAT = "<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n"
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}


async def test_the_text_is_completed_word_for_word(engine):
    """With the template's own text in the prompt the answer is the conversation's, token count included."""
    bare, chat = await engine.generate(Prompt(CHAT)), await engine.generate("What is the capital of France?")
    assert bare.text == chat.text == "The capital of France is Paris."
    assert bare.usage.input_tokens == chat.usage.input_tokens == 18
    assert bare.finish_reason is FinishReason.STOP
    begun = await engine.generate(Prompt(CHAT + "The capital of France"))
    assert begun.text == " is Paris."
    assert begun.conversation.messages[0].content == CHAT + "The capital of France"


async def test_tokens_are_completed_as_they_are(engine):
    chat = await engine.generate("Hello")
    tokens = [1, 5, 6]  # which ones is of no matter: three in, three counted
    answer = await engine.generate(Prompt(token_ids=tokens), generation=GenerationParams(max_new_tokens=3))
    assert answer.usage.input_tokens == 3
    assert answer.usage.output_tokens <= 3
    assert chat.text == "Hello! How can I help you today?"


async def test_an_unknown_token_is_refused_and_others_go_on(engine):
    with pytest.raises(BadRequestError, match="token"):
        await engine.generate(Prompt(token_ids=[1, 100_000]))
    assert (await engine.generate(Prompt(CHAT))).text == "The capital of France is Paris."


async def test_a_prompt_that_is_too_long(make):
    engine = make(n_ctx=256, n_parallel=1)
    with pytest.raises(ContextLengthError):
        await engine.generate(Prompt("1 2 3 " * 500))
    await engine.aclose()


async def test_stop_strings_length_and_guides_work_as_in_conversations(engine):
    stopped = await engine.generate(Prompt(CHAT), generation=GenerationParams(stop_strings=[" France"]))
    assert (stopped.text, stopped.finish_reason) == ("The capital of", FinishReason.STOP)
    assert stopped.choices[0].matched == " France"
    short = await engine.generate(Prompt(CHAT), generation=GenerationParams(max_new_tokens=2))
    assert (short.finish_reason, short.usage.output_tokens) == (FinishReason.LENGTH, 2)
    chosen = GenerationParams(guided_decoding=GuidedDecodingParams(choice=["Rome", "Oslo"]))
    assert (await engine.generate(Prompt(CHAT), generation=chosen)).text in {"Rome", "Oslo"}
    schema = {"type": "object", "properties": {"a": {"type": "boolean"}}, "required": ["a"]}
    guided = GenerationParams(guided_decoding=GuidedDecodingParams(json=schema), max_new_tokens=64)
    assert (await engine.generate(Prompt(CHAT), generation=guided)).parsed in ({"a": True}, {"a": False})


@pytest.mark.parametrize("top", [None, 2])
async def test_logprobs_of_a_prompt(engine, top):
    wanted = GenerationParams(logprobs=True, top_logprobs=top, max_new_tokens=3)
    choice = (await engine.generate(Prompt(CHAT), generation=wanted)).choices[0]
    assert [entry["token"] for entry in choice.logprobs] == ["The", " capital", " of"]
    assert all(entry["logprob"] <= 0 for entry in choice.logprobs)
    if top:
        assert all(len(entry["top_logprobs"]) == top for entry in choice.logprobs)


async def test_markup_of_thoughts_stays_in_the_text(engine):
    answer = await engine.generate(
        Prompt("<|im_start|>user\nThink about 3 + 4.<|im_end|>\n<|im_start|>assistant\n<think>\n"),
        generation=GenerationParams(max_new_tokens=40),
    )
    assert answer.message.reasoning_content is None


async def test_prompts_and_conversations_in_one_batch(engine):
    results = await engine.generate_many([Prompt(CHAT), "Hello", Prompt(CHAT)])
    assert [result.text for result in results] == [
        "The capital of France is Paris.",
        "Hello! How can I help you today?",
        "The capital of France is Paris.",
    ]


async def test_a_cancelled_prompt_frees_its_place(engine):
    endless = GenerationParams(max_new_tokens=1500, logit_bias={2: -100})
    async with engine.stream(Prompt(CHAT), generation=endless) as stream:
        async for _ in stream:
            break
    with anyio.fail_after(30):
        assert (await engine.generate("Hello")).text.startswith("Hello!")


async def test_tools_need_a_template(engine):
    with pytest.raises(ConfigError, match="chat template"):
        await engine.generate(Prompt(CHAT), tools=[TOOL])


async def test_a_fallback_passes_prompts_on(engine):
    both = FallbackEngine([engine])
    assert (await both.generate(Prompt(CHAT))).text == "The capital of France is Paris."


async def test_an_engine_that_only_chats_refuses_them():
    engine = RemoteInferenceEngine(remote_params=RemoteParams(api_url="http://127.0.0.1:9"))
    with pytest.raises(ConfigError, match="in your process"):
        engine.stream(Prompt("Once"))
    assert not FallbackEngine([engine]).takes_prompts
    (failed,) = await engine.generate_many([Prompt("Once")])
    assert isinstance(failed.error, ConfigError)


async def test_a_conversation_is_no_prompt():
    with pytest.raises(ConfigError, match="not Conversation"):
        Prompt.of(Conversation(messages=[]))
