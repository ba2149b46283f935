"""Each format as its provider sees it: answers written with, and requests read through, the official clients' types."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from base64 import b64decode
from collections.abc import Iterator
from functools import cache
from typing import Any

from anthropic.types import RawMessageStreamEvent
from botocore.session import Session
from botocore.validate import ParamValidator
from google.genai import types as google
from openai.types.chat import ChatCompletionChunk
from openai.types.chat.completion_create_params import CompletionCreateParamsStreaming
from openai.types.responses import ResponseStreamEvent
from openai.types.responses.response_create_params import ResponseCreateParamsStreaming
from pydantic import TypeAdapter

from asyncinfer.providers import PROVIDERS
from asyncinfer.request import Request
from asyncinfer.wire import codec
from asyncinfer.wire.bedrock import ConverseDecoder, encode_request
from asyncinfer.wire.protocol import Decoder
from asyncinfer.wire.sglang.prompt import template_messages
from tests.servers import bedrock_bytes
from tests.wire.anthropic import sdk_types

from .script import Piece, Traits, Turn


class Format(ABC):
    """One provider's side of one format."""

    traits = Traits()
    answer_id = "r1"

    def __init__(self, row: str, model: str, **asked: Any) -> None:
        self.row, self.model, self.asked = row, model, asked

    @property
    def dialect(self) -> Any:
        return PROVIDERS[self.row].dialect

    def encode(self, request: Request) -> Any:
        """The body that we send, decoded."""
        return json.loads(codec(PROVIDERS[self.row].codec).encode(request, self.dialect).body)

    def decoder(self, request: Request) -> Decoder:
        return codec(PROVIDERS[self.row].codec).decoder(request, self.dialect, "text/event-stream")

    @abstractmethod
    def write(self, turn: Turn) -> bytes:
        """The body that the provider sends."""

    @abstractmethod
    def read(self, body: Any) -> Iterator[Piece]:
        """What the provider finds in our request; raises where it would refuse it."""


def halves(text: str) -> list[str]:
    """A text in two pieces, as providers stream it."""
    cut = len(text) // 2
    return [piece for piece in (text[:cut], text[cut:]) if piece]


def sse(*payloads: dict[str, Any], named: bool = False, done: bool = False) -> bytes:
    out = b""
    for payload in payloads:
        out += f"event: {payload['type']}\n".encode() if named else b""
        out += b"data: " + json.dumps(payload).encode() + b"\n\n"
    return out + (b"data: [DONE]\n\n" if done else b"")


def data_url(url: str) -> Piece:
    head, _, data = url.partition(";base64,")
    return Piece("image", head.removeprefix("data:"), b64decode(data, validate=True))


def thawed(value: Any) -> Any:
    """What a client's types keep of a request; they drop what they do not know."""
    if isinstance(value, dict):
        return {key: thawed(item) for key, item in value.items()}
    return value if isinstance(value, (str, bytes)) or not hasattr(value, "__iter__") else [thawed(v) for v in value]


# -- Chat Completions --------------------------------------------------------------------------------------------------

CHAT_REQUEST: TypeAdapter[Any] = TypeAdapter(CompletionCreateParamsStreaming)
REASONING = ("reasoning_content", "reasoning", "reasoning_details")


class Chat(Format):
    """``field``: where the provider has its reasoning; ``details``: it seals it (OpenRouter)."""

    def __init__(self, row: str, model: str, field: str, traits: Traits, *, details: bool = False) -> None:
        super().__init__(row, model)
        self.field, self.traits, self.details = field, traits, details

    def write(self, turn: Turn) -> bytes:
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        for piece in halves(turn.thinking):
            detail = {"type": "reasoning.text", "text": piece, "format": "anthropic-claude-v1", "index": 0}
            deltas.append({self.field: piece, **({"reasoning_details": [detail]} if self.details else {})})
        if self.details:
            sealed = {"type": "reasoning.text", "signature": turn.seal, "format": "anthropic-claude-v1", "index": 0}
            deltas.append({"reasoning_details": [sealed]})
        deltas += [{"content": piece} for piece in halves(turn.text)]
        for at, call in enumerate(turn.calls):
            head = {"index": at, "id": call.id, "type": "function", "function": {"name": call.name, "arguments": ""}}
            deltas.append({"tool_calls": [head]})
            for piece in halves(json.dumps(call.arguments)):
                deltas.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
        chunks = [self._chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
        reason = "tool_calls" if turn.calls else "stop"
        chunks.append(self._chunk(choices=[{"index": 0, "delta": {}, "finish_reason": reason}]))
        usage = {
            "prompt_tokens": turn.usage.input_tokens,
            "completion_tokens": turn.usage.output_tokens,
            "total_tokens": turn.usage.total_tokens,
            "prompt_tokens_details": {"cached_tokens": turn.usage.cached_tokens},
            "completion_tokens_details": {"reasoning_tokens": turn.usage.reasoning_tokens},
        }
        chunks.append(self._chunk(choices=[], usage=usage))
        for chunk in chunks:
            ChatCompletionChunk.model_validate(chunk)
        return sse(*chunks, done=True)

    def _chunk(self, **more: Any) -> dict[str, Any]:
        return {"id": "r1", "object": "chat.completion.chunk", "created": 1, "model": self.model, **more}

    def read(self, body: Any) -> Iterator[Piece]:
        standard = {**body, "messages": [self._standard(message) for message in body["messages"]]}
        assert thawed(CHAT_REQUEST.validate_python(standard)) == standard
        for message in body["messages"]:
            role = message["role"]
            if role == "tool":
                yield Piece("result", message["tool_call_id"], message["content"])
                continue
            details = message.get("reasoning_details")
            if details:
                (block,) = details
                yield Piece("thinking", block["text"], block["signature"])
            elif message.get(self.field):
                yield Piece("thinking", message[self.field])
            content = message.get("content") or []
            for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                if part["type"] == "image_url":
                    yield data_url(part["image_url"]["url"])
                else:
                    yield Piece("system", part["text"]) if role == "system" else Piece("text", role, part["text"])
            for call in message.get("tool_calls") or ():
                function = call["function"]
                yield Piece("call", call["id"], function["name"], json.loads(function["arguments"]))

    @staticmethod
    def _standard(message: dict[str, Any]) -> dict[str, Any]:
        """Without the keys that OpenAI itself does not have."""
        return {key: value for key, value in message.items() if key not in REASONING and key != "name"}


# -- Anthropic ---------------------------------------------------------------------------------------------------------

MESSAGE_EVENT: TypeAdapter[Any] = TypeAdapter(RawMessageStreamEvent)


class Messages(Format):
    def write(self, turn: Turn) -> bytes:
        usage = turn.usage
        counts = {
            "input_tokens": usage.input_tokens - usage.cached_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": 0,
            "output_tokens": 1,
        }
        head = {"id": "r1", "type": "message", "role": "assistant", "model": self.model, "content": []}
        head |= {"stop_reason": None, "stop_sequence": None, "usage": counts}
        events: list[dict[str, Any]] = [{"type": "message_start", "message": head}]
        blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
            (
                {"type": "thinking", "thinking": "", "signature": ""},
                [
                    *({"type": "thinking_delta", "thinking": piece} for piece in halves(turn.thinking)),
                    {"type": "signature_delta", "signature": turn.seal},
                ],
            )
        ]
        if turn.text:
            pieces = [{"type": "text_delta", "text": piece} for piece in halves(turn.text)]
            blocks.append(({"type": "text", "text": ""}, pieces))
        for call in turn.calls:
            block = {"type": "tool_use", "id": call.id, "name": call.name, "input": {}}
            pieces = [{"type": "input_json_delta", "partial_json": piece} for piece in halves(json.dumps(call[2]))]
            blocks.append((block, pieces))
        for at, (block, deltas) in enumerate(blocks):
            events.append({"type": "content_block_start", "index": at, "content_block": block})
            events += [{"type": "content_block_delta", "index": at, "delta": delta} for delta in deltas]
            events.append({"type": "content_block_stop", "index": at})
        thinking = {"output_tokens_details": {"thinking_tokens": usage.reasoning_tokens}}
        counted = {"output_tokens": usage.output_tokens, **thinking}
        reason = {"stop_reason": "tool_use" if turn.calls else "end_turn", "stop_sequence": None}
        events += [{"type": "message_delta", "delta": reason, "usage": counted}, {"type": "message_stop"}]
        for event in events:
            MESSAGE_EVENT.validate_python(event)
        return sse(*events, named=True)

    def read(self, body: Any) -> Iterator[Piece]:
        self._check(body)
        yield Piece("system", body["system"])
        for message in body["messages"]:
            content = message["content"]
            for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
                yield self._piece(message["role"], block)

    def _check(self, body: Any) -> None:
        sdk_types.validate(body)

    @staticmethod
    def _piece(role: str, block: dict[str, Any]) -> Piece:
        kind = block["type"]
        if kind == "thinking":
            return Piece("thinking", block["thinking"], block["signature"])
        if kind == "image":
            source = block["source"]
            return Piece("image", source["media_type"], b64decode(source["data"], validate=True))
        if kind == "tool_use":
            return Piece("call", block["id"], block["name"], block["input"])
        if kind == "tool_result":
            return Piece("result", block["tool_use_id"], block["content"], block.get("is_error", False))
        return Piece("text", role, block["text"])


class RawPredict(Messages):
    """Claude on Vertex AI: the model is in the URL."""

    def _check(self, body: Any) -> None:
        assert body["anthropic_version"] == "vertex-2023-10-16"
        assert "model" not in body
        rest = {key: value for key, value in body.items() if key != "anthropic_version"}
        sdk_types.validate({**rest, "model": self.model})


# -- Gemini ------------------------------------------------------------------------------------------------------------


class Gemini(Format):
    """Gemini 3 seals the first call of an answer, and the text of one that has no calls; its thoughts stay behind."""

    traits = Traits(thinking=False, seals=False, call_seals=True)

    def write(self, turn: Turn) -> bytes:
        parts: list[dict[str, Any]] = [{"text": piece, "thought": True} for piece in halves(turn.thinking)]
        parts += [{"text": piece} for piece in halves(turn.text)]
        for at, call in enumerate(turn.calls):
            part = {"functionCall": {"id": call.id, "name": call.name, "args": call.arguments}}
            parts.append({**part, **({"thoughtSignature": turn.seal} if at == 0 else {})})
        if not turn.calls:
            parts.append({"text": "", "thoughtSignature": turn.seal})
        usage = turn.usage
        counts = {
            "promptTokenCount": usage.input_tokens,
            "candidatesTokenCount": usage.output_tokens - usage.reasoning_tokens,
            "thoughtsTokenCount": usage.reasoning_tokens,
            "cachedContentTokenCount": usage.cached_tokens,
            "totalTokenCount": usage.total_tokens,
        }
        chunks = [
            {"candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}}], **self._names}
            for part in parts
        ]
        chunks[-1]["candidates"][0]["finishReason"] = "STOP"
        chunks[-1]["usageMetadata"] = counts
        for chunk in chunks:
            google.GenerateContentResponse.model_validate(chunk)
        return sse(*chunks)

    @property
    def _names(self) -> dict[str, Any]:
        return {"responseId": "r1", "modelVersion": self.model}

    def read(self, body: Any) -> Iterator[Piece]:
        for part in body["systemInstruction"]["parts"]:
            yield Piece("system", part["text"])
        for tool in body["tools"]:
            google.Tool.model_validate(tool)
        for turn in body["contents"]:
            google.Content.model_validate(turn)  # refuses keys that it does not know
            for part in turn["parts"]:
                yield self._piece({"model": "assistant"}.get(turn["role"], turn["role"]), part)

    @staticmethod
    def _piece(role: str, part: dict[str, Any]) -> Piece:
        if "inlineData" in part:
            return Piece("image", part["inlineData"]["mimeType"], b64decode(part["inlineData"]["data"], validate=True))
        if "functionCall" in part:
            call = part["functionCall"]
            return Piece("call", call["id"], call["name"], call["args"], part.get("thoughtSignature"))
        if "functionResponse" in part:
            response = part["functionResponse"]
            found = response["response"]
            assert response["name"] == ("now" if response["id"] == "call_3" else "wx")
            text = found.get("error", found.get("output"))
            return Piece("result", response["id"], json.dumps(found) if text is None else text, "error" in found)
        if "thoughtSignature" in part:
            assert not part["text"]
            return Piece("thinking", None, part["thoughtSignature"])
        return Piece("text", role, part["text"])


# -- Bedrock -----------------------------------------------------------------------------------------------------------


@cache
def converse_shape() -> Any:
    return Session().get_service_model("bedrock-runtime").operation_model("ConverseStream").input_shape


class Bedrock(Format):
    traits = Traits(reasoning=False)
    answer_id = ""  # its answers have none

    def encode(self, request: Request) -> Any:
        return encode_request(request, self.dialect)

    def decoder(self, request: Request) -> Decoder:
        return ConverseDecoder(request.model.model_name or "", "r1")

    def write(self, turn: Turn) -> bytes:
        reasoning = [{"reasoningContent": {"text": piece}} for piece in halves(turn.thinking)]
        reasoning.append({"reasoningContent": {"signature": turn.seal}})
        blocks: list[tuple[dict[str, Any] | None, list[Any]]] = [(None, reasoning)]
        if turn.text:
            blocks.append((None, [{"text": piece} for piece in halves(turn.text)]))
        for call in turn.calls:
            start = {"toolUse": {"toolUseId": call.id, "name": call.name}}
            blocks.append((start, [{"toolUse": {"input": piece}} for piece in halves(json.dumps(call.arguments))]))
        out = bedrock_bytes.begin()
        for at, (head, deltas) in enumerate(blocks):
            if head is not None:
                out += bedrock_bytes.event("contentBlockStart", contentBlockIndex=at, start=head)
            for delta in deltas:
                out += bedrock_bytes.event("contentBlockDelta", contentBlockIndex=at, delta=delta)
            out += bedrock_bytes.event("contentBlockStop", contentBlockIndex=at)
        usage = turn.usage
        return out + bedrock_bytes.finish(
            "tool_use" if turn.calls else "end_turn",
            inputTokens=usage.input_tokens - usage.cached_tokens,
            outputTokens=usage.output_tokens,
            totalTokens=usage.total_tokens,
            cacheReadInputTokens=usage.cached_tokens,
        )

    def read(self, body: Any) -> Iterator[Piece]:
        report = ParamValidator().validate(body, converse_shape())
        assert not report.has_errors(), report.generate_report()
        for block in body["system"]:
            yield Piece("system", block["text"])
        for turn in body["messages"]:
            for block in turn["content"]:
                yield self._piece(turn["role"], block)

    @staticmethod
    def _piece(role: str, block: dict[str, Any]) -> Piece:
        ((kind, value),) = block.items()
        if kind == "image":
            return Piece("image", f"image/{value['format']}", value["source"]["bytes"])
        if kind == "reasoningContent":
            return Piece("thinking", value["reasoningText"]["text"], value["reasoningText"]["signature"])
        if kind == "toolUse":
            return Piece("call", value["toolUseId"], value["name"], value["input"])
        if kind == "toolResult":
            (content,) = value["content"]
            return Piece("result", value["toolUseId"], content["text"], value.get("status") == "error")
        return Piece("text", role, value)


# -- Responses ---------------------------------------------------------------------------------------------------------

RESPONSE_REQUEST: TypeAdapter[Any] = TypeAdapter(ResponseCreateParamsStreaming)
RESPONSE_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


class Responses(Format):
    traits = Traits(errors=False)

    def write(self, turn: Turn) -> bytes:
        summary = [{"type": "summary_text", "text": turn.thinking}]
        reasoning: dict[str, Any] = {"id": "rs_1", "type": "reasoning", "summary": []}
        sealed = {**reasoning, "summary": summary, "encrypted_content": turn.seal}
        place = {"item_id": "rs_1", "output_index": 0, "summary_index": 0}
        part = {"type": "summary_text", "text": ""}
        events: list[dict[str, Any]] = [
            self._event("created", response=self._response("in_progress", [])),
            self._event("output_item.added", output_index=0, item=reasoning),
            self._event("reasoning_summary_part.added", **place, part=part),
            *(self._event("reasoning_summary_text.delta", **place, delta=piece) for piece in halves(turn.thinking)),
            self._event("reasoning_summary_text.done", **place, text=turn.thinking),
            self._event("reasoning_summary_part.done", **place, part=summary[0]),
            self._event("output_item.done", output_index=0, item=sealed),
        ]
        items = [sealed]
        if turn.text:
            content = {"type": "output_text", "text": turn.text, "annotations": [], "logprobs": []}
            item = {"id": "msg_1", "type": "message", "role": "assistant", "status": "completed", "content": [content]}
            events.append(self._event("output_item.added", output_index=1, item={**item, "content": []}))
            spot = {"item_id": "msg_1", "output_index": 1, "content_index": 0, "logprobs": []}
            events += [self._event("output_text.delta", **spot, delta=piece) for piece in halves(turn.text)]
            events.append(self._event("output_text.done", **spot, text=turn.text))
            events.append(self._event("output_item.done", output_index=1, item=item))
            items.append(item)
        for call in turn.calls:
            at, name = len(items), f"fc_{call.id}"
            arguments = json.dumps(call.arguments)
            head = {"id": name, "type": "function_call", "call_id": call.id, "name": call.name, "arguments": ""}
            spot = {"item_id": name, "output_index": at}
            events.append(self._event("output_item.added", output_index=at, item=head))
            for piece in halves(arguments):
                events.append(self._event("function_call_arguments.delta", **spot, delta=piece))
            whole = {**head, "arguments": arguments, "status": "completed"}
            done = self._event("function_call_arguments.done", **spot, arguments=arguments, name=call.name)
            events += [done, self._event("output_item.done", output_index=at, item=whole)]
            items.append(whole)
        usage = turn.usage
        counts = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
        events.append(self._event("completed", response=self._response("completed", items, usage=counts)))
        for event in events:
            RESPONSE_EVENT.validate_python(event)
        return sse(*events, named=True)

    @staticmethod
    def _event(kind: str, **more: Any) -> dict[str, Any]:
        return {"type": f"response.{kind}", "sequence_number": 0, **more}

    def _response(self, status: str, output: list[Any], **more: Any) -> dict[str, Any]:
        named = {"id": "r1", "object": "response", "created_at": 1, "status": status, "model": self.model}
        defaults = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return {**named, "output": output, **defaults, **more}

    def read(self, body: Any) -> Iterator[Piece]:
        assert thawed(RESPONSE_REQUEST.validate_python(body)) == body
        assert (body["store"], body["include"]) == (False, ["reasoning.encrypted_content"])
        yield Piece("system", body["instructions"])
        for item in body["input"]:
            if item["type"] == "reasoning":
                (part,) = item["summary"]
                yield Piece("thinking", part["text"], item["encrypted_content"])
            elif item["type"] == "function_call":
                yield Piece("call", item["call_id"], item["name"], json.loads(item["arguments"]))
            elif item["type"] == "function_call_output":
                yield Piece("result", item["call_id"], item["output"])
            else:
                yield from self._message(item)

    @staticmethod
    def _message(item: dict[str, Any]) -> Iterator[Piece]:
        content = item["content"]
        for part in [{"type": "input_text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "input_image":
                yield data_url(part["image_url"])
            else:
                yield Piece("text", item["role"], part["text"])


# -- SGLang's own format -----------------------------------------------------------------------------------------------


class Generate(Format):
    """Text only. What the server's chat template is given for the prompt are messages; images travel beside it. It has
    neither tools nor reasoning of its own: an answer is its text, and earlier turns of other engines come through."""

    traits = Traits(seals=False, errors=False, reasoning=False)

    def encode(self, request: Request) -> Any:
        body = json.loads(codec("sglang").encode(request, self.dialect).body)
        return {**body, "messages": template_messages(request)}

    def write(self, turn: Turn) -> bytes:
        usage = turn.usage
        meta = {"id": "r1", "prompt_tokens": usage.input_tokens, "cached_tokens": usage.cached_tokens}
        text, events = "", []
        for piece in halves(turn.text):
            text += piece
            events.append({"text": text, "meta_info": {**meta, "finish_reason": None, "completion_tokens": 1}})
        final = {**meta, "finish_reason": {"type": "stop", "matched": 2}, "completion_tokens": usage.output_tokens}
        events.append({"text": text, "meta_info": final})
        return sse(*events, done=True)

    def read(self, body: Any) -> Iterator[Piece]:
        images = iter(body["image_data"])
        chat = Chat(self.row, self.model, "reasoning_content", self.traits)
        filled = []
        for message in body["messages"]:
            content = message["content"]
            if isinstance(content, list):
                content = [
                    {"type": "image_url", "image_url": {"url": next(images)}} if part["type"] == "image_url" else part
                    for part in content
                ]
            filled.append({**message, "content": content})
        assert next(images, None) is None
        assert body["text"] == "the prompt"
        yield from chat.read({"model": self.model, "messages": filled, "stream": True})


TEXT_REASONING = Traits(seals=False, errors=False)
FORMATS: dict[str, Format] = {
    "openai_chat, vLLM": Chat("remote_vllm", "m", "reasoning", TEXT_REASONING),
    "openai_chat, SGLang": Chat("sglang", "m", "reasoning_content", TEXT_REASONING),
    "openai_chat, DeepSeek": Chat(
        "deepseek", "deepseek-chat", "reasoning_content", Traits(seals=False, errors=False, old_thinking=False)
    ),
    "openai_chat, OpenRouter": Chat(
        "openrouter", "anthropic/claude-x", "reasoning", Traits(errors=False), details=True
    ),
    "anthropic": Messages("anthropic", "claude-opus-4-6"),
    "anthropic on Vertex AI": RawPredict("google_vertex_anthropic", "claude-opus-4-6"),
    "gemini": Gemini("gemini", "gemini-3-pro-preview"),
    "vertex": Gemini("google_vertex", "gemini-3-pro-preview"),
    "bedrock": Bedrock("bedrock", "anthropic.claude-opus-4-6-v1"),
    "openai_responses": Responses("openai_responses", "gpt-5"),
}
GENERATE = Generate("sglang_generate", "m", extra_body={"text": "the prompt"})
