"""What we ask of SGLang's own format: the fields of its server's ``GenerateRequest`` and ``SamplingParams``."""

from __future__ import annotations

import base64
import json

import pytest

from asyncinfer.errors import ConfigError, ProtocolError
from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec
from asyncinfer.wire.sglang.prompt import ask_tokens, read_tokens

from ..requests import make_request

NATIVE, CHAT = PROVIDERS["sglang_generate"].dialect, PROVIDERS["sglang"].dialect
PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
TOOL = {"type": "function", "function": {"name": "wx"}}

# The fields that SGLang 0.5.23 takes (python/sglang/api/v1/api_types.py); sampling_params refuses any other.
SAMPLING = {
    "max_new_tokens",
    "stop",
    "stop_token_ids",
    "stop_regex",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "min_new_tokens",
    "n",
    "json_schema",
    "regex",
    "ebnf",
    "structural_tag",
    "ignore_eos",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "no_stop_trim",
    "stream_interval",
    "logit_bias",
    "sampling_seed",
    "custom_params",
}
FIELDS = {
    "text",
    "input_ids",
    "stream",
    "sampling_params",
    "return_logprob",
    "top_logprobs_num",
    "return_text_in_logprobs",
    "image_data",
    "video_data",
    "audio_data",
    "lora_path",
    "rid",
}


def encode(**request):
    extra = {"text": "Hi", **request.pop("extra_body", {})}
    wire = codec("sglang").encode(make_request(extra_body=extra, **request), NATIVE)
    assert wire.path == "/generate"
    body = json.loads(wire.body)
    assert body.keys() <= FIELDS
    assert body["sampling_params"].keys() <= SAMPLING
    return body


def test_the_least():
    # 128 tokens would be the server's own idea of enough
    assert encode() == {"text": "Hi", "stream": True, "sampling_params": {"max_new_tokens": None}}
    assert "stream" not in encode(stream=False)


def test_parameters_under_their_names():
    sampling = encode(
        max_new_tokens=5,
        min_new_tokens=2,
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        repetition_penalty=1.1,
        stop_strings=["END"],
        stop_token_ids=[7],
        logit_bias={11: -5.0},
        seed=3,
        skip_special_tokens=False,
        n=2,
    )["sampling_params"]
    assert sampling == {
        "max_new_tokens": 5,
        "min_new_tokens": 2,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "frequency_penalty": 0.2,
        "presence_penalty": 0.3,
        "repetition_penalty": 1.1,
        "stop": ["END"],
        "stop_token_ids": [7],
        "logit_bias": {"11": -5.0},
        "sampling_seed": 3,
        "skip_special_tokens": False,
        "n": 2,
    }
    assert encode(top_k=0)["sampling_params"]["top_k"] == -1


def test_log_probabilities():
    body = encode(top_logprobs=3)
    assert (body["return_logprob"], body["top_logprobs_num"], body["return_text_in_logprobs"]) == (True, 3, True)
    assert "top_logprobs_num" not in encode(logprobs=True)
    assert "return_logprob" not in encode(logprobs=False, top_logprobs=3)


@pytest.mark.parametrize(
    ("guided", "field", "value"),
    [
        ({"json": {"type": "object"}}, "json_schema", '{"type":"object"}'),
        ({"regex": "a+"}, "regex", "a+"),
        ({"choice": ["yes", "n.o"]}, "regex", r"(yes|n\.o)"),
        ({"grammar": 'root ::= "a"'}, "ebnf", 'root ::= "a"'),
    ],
)
def test_the_form_of_the_answer(guided, field, value):
    assert encode(guided_decoding=guided)["sampling_params"] == {"max_new_tokens": None, field: value}


def test_lora_and_the_last_word():
    body = encode(
        model_fields={"adapter_model": "my-lora"},
        temperature=0.1,
        extra_body={"input_ids": [1, 2], "rid": "r", "sampling_params": {"stop_regex": "x+", "temperature": 0.9}},
    )
    assert (body["lora_path"], body["input_ids"], body["rid"]) == ("my-lora", [1, 2], "r")
    assert body["sampling_params"] == {"max_new_tokens": None, "temperature": 0.9, "stop_regex": "x+"}


def test_images():
    data = base64.b64encode(PNG).decode()
    url, binary = {"type": "image_url", "content": "https://x/y.png"}, {"type": "image_binary", "binary": data}
    assert encode(messages=[{"role": "user", "content": [url]}])["image_data"] == "https://x/y.png"
    both = encode(messages=[{"role": "user", "content": [url, {"type": "text", "content": "and"}, binary]}])
    assert both["image_data"] == ["https://x/y.png", f"data:image/png;base64,{data}"]
    video = {"type": "video_url", "content": "https://x/y.mp4"}
    assert encode(messages=[{"role": "user", "content": [video]}])["video_data"] == "https://x/y.mp4"


@pytest.mark.parametrize(
    "item",
    [
        {"type": "image_path", "content": "/etc/passwd"},
        {"type": "image_url", "content": "/etc/passwd"},  # would name a file of the server's
        {"type": "image_url", "content": "file:///etc/passwd"},
    ],
)
def test_a_servers_own_files_are_never_named(item):
    with pytest.raises(ConfigError, match="was not read"):
        encode(messages=[{"role": "user", "content": [item]}])


def test_what_cannot_be_said():
    with pytest.raises(ConfigError, match="v1/chat/completions"):
        encode(tools=[TOOL])
    assert "tools" not in encode(tools=[TOOL], tool_choice="none")
    with pytest.raises(ConfigError, match="no document_url"):
        encode(messages=[{"role": "user", "content": [{"type": "document_url", "content": "https://x/a.pdf"}]}])
    with pytest.raises(ConfigError, match="takes a prompt"):
        codec("sglang").encode(make_request(), NATIVE)
    assert codec("sglang").unsupported(make_request(num_beams=4, reasoning_effort="low"), NATIVE) == [
        "num_beams",
        "reasoning_effort",
    ]


def test_asking_for_the_tokens_of_a_conversation():
    data = base64.b64encode(PNG).decode()
    wire = ask_tokens(
        make_request(
            [
                {"role": "system", "content": "Be brief."},
                {
                    "role": "user",
                    "content": [{"type": "image_binary", "binary": data}, {"type": "text", "content": "?"}],
                },
                {"role": "assistant", "content": "x", "reasoning_content": "hm"},
                {"role": "user", "content": "and?"},
            ],
            model_fields={"chat_template_kwargs": {"enable_thinking": False}},
        )
    )
    assert wire.path == "/tokenize"
    assert json.loads(wire.body) == {
        "model": "m",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {
                "role": "user",
                # its place is all that the template needs: the bytes go once, with the prompt
                "content": [{"type": "image_url", "image_url": {"url": "image"}}, {"type": "text", "text": "?"}],
            },
            {"role": "assistant", "content": "x", "reasoning_content": "hm"},
            {"role": "user", "content": "and?"},
        ],
        "chat_template_kwargs": {"enable_thinking": False},
    }


def test_the_tokens():
    assert read_tokens(b'{"tokens":[1,2],"count":2,"max_model_len":9}') == [1, 2]
    for body in (b"", b"[]", b"{}", b'{"tokens":[]}', b'{"tokens":["a"]}', b'{"tokens":[[1]]}', b'{"tokens":[true]}'):
        with pytest.raises(ProtocolError):
            read_tokens(body)


def test_the_compatible_endpoint_takes_what_sglang_adds():
    body = json.loads(
        codec("openai_chat")
        .encode(
            make_request(
                [
                    {"role": "user", "content": "a"},
                    {"role": "assistant", "content": "x", "reasoning_content": "hm"},
                    {"role": "user", "content": "b"},
                ],
                top_k=4,
                min_p=0.1,
                repetition_penalty=1.2,
                stop_token_ids=[3],
                min_new_tokens=1,
                skip_special_tokens=False,
                guided_decoding={"choice": ["a", "b"]},
                model_fields={"adapter_model": "lora", "chat_template_kwargs": {"enable_thinking": True}},
                extra_body={"stop_regex": "x+", "separate_reasoning": False, "rid": "r"},
            ),
            CHAT,
        )
        .body
    )
    assert body["messages"][1]["reasoning_content"] == "hm"
    expected = {
        "top_k": 4,
        "min_p": 0.1,
        "repetition_penalty": 1.2,
        "stop_token_ids": [3],
        "min_tokens": 1,
        "skip_special_tokens": False,
        "regex": "(a|b)",
        "lora_path": "lora",
        "chat_template_kwargs": {"enable_thinking": True},
        "stop_regex": "x+",
        "separate_reasoning": False,
        "rid": "r",
    }
    assert {name: body[name] for name in expected} == expected
    grammar = codec("openai_chat").encode(make_request(guided_decoding={"grammar": "root ::= x"}), CHAT).body
    assert json.loads(grammar)["ebnf"] == "root ::= x"
