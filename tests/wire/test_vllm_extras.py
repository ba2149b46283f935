"""Every parameter that vLLM adds to Chat Completions can be reached: by a field of ours, else by extra_body."""

from __future__ import annotations

import json

import pytest

from asyncinfer.providers import PROVIDERS
from asyncinfer.wire import codec

from .requests import make_request

VLLM = PROVIDERS["remote_vllm"].dialect

TYPED = {
    "top_k": {"top_k": 4},
    "min_p": {"min_p": 0.1},
    "repetition_penalty": {"repetition_penalty": 1.2},
    "stop_token_ids": {"stop_token_ids": [3]},
    "min_tokens": {"min_new_tokens": 2},
    "skip_special_tokens": {"skip_special_tokens": False},
    "reasoning_effort": {"reasoning_effort": "low"},
    "chat_template_kwargs": {"model_fields": {"chat_template_kwargs": {"enable_thinking": False}}},
}
OTHERS = (
    "length_penalty use_beam_search include_stop_str_in_output ignore_eos spaces_between_special_tokens "
    "truncate_prompt_tokens truncation_side prompt_logprobs allowed_token_ids bad_words echo add_generation_prompt "
    "continue_final_message add_special_tokens documents chat_template media_io_kwargs mm_processor_kwargs priority "
    "request_id session_id return_token_ids return_tokens_as_token_ids return_token_offsets return_prompt_text "
    "cache_salt kv_transfer_params vllm_xargs repetition_detection stream_interval watermarking thinking_token_budget "
    "include_reasoning"
)


def encode(**request):
    return json.loads(codec("openai_chat").encode(make_request(**request), VLLM).body)


@pytest.mark.parametrize("wire", TYPED)
def test_the_documented_ones_have_a_field(wire):
    asked = TYPED[wire]
    (value,) = asked.values()
    body = encode(**asked)
    assert body[wire] == (value["chat_template_kwargs"] if wire == "chat_template_kwargs" else value)
    assert codec("openai_chat").unsupported(make_request(**asked), VLLM) == []


@pytest.mark.parametrize(
    ("guided", "outputs"),
    [
        ({"regex": "a+"}, {"regex": "a+"}),
        ({"choice": ["a", "b"]}, {"choice": ["a", "b"]}),
        ({"grammar": "root ::= x"}, {"grammar": "root ::= x"}),
    ],
)
def test_structured_outputs(guided, outputs):
    assert encode(guided_decoding=guided)["structured_outputs"] == outputs
    schema = encode(guided_decoding={"json": {"type": "object"}})
    assert schema["response_format"]["json_schema"]["schema"] == {"type": "object"}
    assert "structured_outputs" not in schema


@pytest.mark.parametrize("name", [*OTHERS.split(), "structured_outputs"])
def test_every_other_one_goes_through(name):
    assert encode(extra_body={name: {"x": 1}})[name] == {"x": 1}
    assert codec("openai_chat").unsupported(make_request(extra_body={name: 1}), VLLM) == []


def test_lora_is_a_model_of_its_own():
    assert encode(model_fields={"adapter_model": "my-lora"})["model"] == "my-lora"
