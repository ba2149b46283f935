"""A web app that streams a model's answer to the browser over SSE.

    uvicorn examples.fastapi_sse:app
    curl -N localhost:8000/chat --json '{"messages": [{"role": "user", "content": "What is the capital of France?"}]}'

One engine serves all requests. The answer lives inside ``async with``: when the browser goes away, the server cancels
the response, the block is left, and the work stops upstream. ASYNCINFER_CONFIG names a YAML configuration; without it
the embedded model answers.
"""

import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException
from fastapi.responses import StreamingResponse

from asyncinfer import AsyncInferError, ConfigError, Conversation, Engine, InferenceConfig, open_engine


def sse(event: str, data: dict[str, Any]) -> str:
    return f"event: {event}\ndata: {json.dumps(data)}\n\n"


def create_app(engine: Engine) -> FastAPI:
    """The app around one engine, which opens with it and closes with it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine:
            yield

    app = FastAPI(title="chat", lifespan=lifespan)

    async def answer(conversation: Conversation) -> AsyncIterator[str]:
        try:
            async with engine.stream(conversation) as stream:
                async for token in stream:
                    yield sse("token", {"text": token})
                completion = await stream.completion()
        except AsyncInferError as error:  # the status line has been sent: the error must be an event
            yield sse("error", {"type": type(error).__name__, "message": str(error), "retryable": error.retryable})
        else:
            tokens = completion.usage.output_tokens
            yield sse("done", {"finish_reason": completion.finish_reason, "output_tokens": tokens})

    @app.post("/chat")
    async def chat(body: dict[str, Any]) -> StreamingResponse:
        try:
            conversation = Conversation.from_dict(body)
        except ConfigError as error:
            raise HTTPException(422, str(error)) from error
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}  # no proxy may collect the stream
        return StreamingResponse(answer(conversation), media_type="text/event-stream", headers=headers)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    return app


path = os.environ.get("ASYNCINFER_CONFIG")
app = create_app(open_engine(InferenceConfig.from_yaml(path) if path else None))
