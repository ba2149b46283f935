"""The first request of a process must not hold the loop that others run on: what it imports is imported in a thread."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.servers.canned import CannedServer, answer, stream

PROGRAM = """
import sys, threading
import anyio
from asyncinfer import {engine}, ModelParams, RemoteParams

WATCHED = {{"httpx", "httpcore", "google.auth", "google.oauth2.service_account", "cryptography"}}
where = {{}}

class Spy:
    def find_spec(self, name, path=None, target=None):
        if name in WATCHED:
            where[name] = threading.current_thread() is threading.main_thread()

sys.meta_path.insert(0, Spy())

async def main():
    remote = RemoteParams(api_url={url!r}, api_key={key!r}, project_id="p", region="r")
    engine = {engine}(ModelParams(model_name="m"), remote_params=remote)
    assert not where, where
    print((await engine.generate("hi")).text, sorted(where), any(where.values()))

anyio.run(main, backend={backend!r})
"""
SAYS_OK = b'data: {"choices": [{"index": 0, "delta": {"content": "ok"}, "finish_reason": "stop"}]}\n\ndata: [DONE]\n\n'
GEMINI = {"candidates": [{"content": {"role": "model", "parts": [{"text": "ok"}]}, "index": 0, "finishReason": "STOP"}]}


def run(backend: str, **fill: str) -> str:
    code = PROGRAM.format(backend=backend, **fill)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_http_is_loaded_in_a_thread(backend: str) -> None:
    with CannedServer(stream(SAYS_OK)) as server:
        said = run(backend, engine="RemoteInferenceEngine", url=server.url, key="k-123456789")
    assert said == "ok ['httpcore', 'httpx'] False"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_googles_credentials_are_loaded_and_asked_for_in_a_thread(backend: str) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
    token = json.dumps({"access_token": "ya29.t", "expires_in": 3600, "token_type": "Bearer"}).encode()
    answers = (answer(token), stream(b"data: " + json.dumps(GEMINI).encode() + b"\r\n\r\n"))
    with CannedServer(*answers) as server:
        account = {"type": "service_account", "private_key": pem, "client_email": "a@b", "token_uri": f"{server.url}/t"}
        said = run(backend, engine="GoogleVertexInferenceEngine", url=server.url, key=json.dumps(account))
    assert said.startswith("ok ['cryptography', 'google.auth', ")
    assert said.endswith("'httpcore', 'httpx'] False")
