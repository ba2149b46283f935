"""Real servers, each in a process of its own, with a window into what they are doing."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
MODELS = ROOT / "asyncinfer" / "models" / "files"


@dataclass
class RealServer:
    """A server under test.

    Attributes:
        url: its base URL.
        key: the API key it asks for, or None.
        engine: which engine of ours talks to it.
        running, made: names of its metrics: requests in progress, tokens generated.
    """

    url: str
    key: str | None
    engine: str
    running: str
    made: str
    model: str = "tiny"

    def metric(self, name: str) -> float:
        """The value of a counter or gauge of the server's own metrics page."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        text = httpx.get(f"{self.url}/metrics", headers=headers, timeout=10).text
        found = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE)
        assert found, f"{name} is not in\n{text}"
        return sum(map(float, found))


@contextmanager
def llama_server() -> Iterator[RealServer]:
    """llama.cpp's own server, as the prebuilt binding carries it."""
    key = "sk-llama"
    with subprocess.Popen(
        [sys.executable, "-m", "tests.real.llama_server", str(MODELS / "tiny-f16.gguf"), key],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().strip()
            yield RealServer(url, key, "remote", "llamacpp:requests_processing", "llamacpp:tokens_predicted_total")
        finally:
            process.kill()


@contextmanager
def vllm_server() -> Iterator[RealServer]:
    """vLLM's own server, run by the interpreter that ``ASYNCINFER_VLLM_PYTHON`` names."""
    python = os.environ["ASYNCINFER_VLLM_PYTHON"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (
        f"{python} -m vllm.entrypoints.openai.api_server --model {MODELS / 'hf'} --served-model-name tiny "
        f"--host 127.0.0.1 --port {port} --dtype float32 --enforce-eager --max-model-len 1024 --max-num-seqs 16 "
        "--enable-auto-tool-choice --tool-call-parser hermes"
    )
    environment = {
        **os.environ,
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
    }
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command.split(), stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                assert process.poll() is None, _tail(log)
                try:
                    if httpx.get(f"{url}/health", timeout=2).status_code == 200:
                        break
                except httpx.TransportError:
                    time.sleep(0.5)
            else:
                raise AssertionError(_tail(log))
            yield RealServer(url, None, "remote_vllm", "vllm:num_requests_running", "vllm:generation_tokens_total")
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            # Its engine and workers are processes of their own, and outlive a server that was stopped while it started.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _tail(log: object) -> str:
    log.seek(0)  # type: ignore[attr-defined]
    return log.read()[-4000:].decode(errors="replace")  # type: ignore[attr-defined,no-any-return]
