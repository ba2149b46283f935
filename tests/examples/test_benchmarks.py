"""The benchmarks run, on loads too small to measure anything: their figures count what happened, and only that."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.servers.provider import Fail, FakeProvider

ROOT = Path(__file__).parents[2]


def run(script: str, *words: object) -> str:
    command = [sys.executable, f"benchmarks/{script}.py", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=110, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


@pytest.mark.parametrize("shape", ["stream", "json"])
def test_client_cost(shape, tmp_path):
    peers = ["asyncinfer", "raw httpx", "litellm"]
    run("client_cost", "--rounds", 1, "--shapes", shape, "--json", tmp_path / "out.json", "--peers", *peers)
    measured = json.loads((tmp_path / "out.json").read_text())["shapes"][shape]
    assert measured["runs"]["asyncinfer"][0]["us"] > 0
    assert measured["runs"]["raw httpx"][0]["us"] > 0
    said = measured["runs"].get("litellm") or measured["failed"]["litellm"]  # measured, or said to be missing
    assert said


def test_throughput_of_the_embedded_model(tmp_path):
    said = run("throughput", "-c", 1, 2, "-n", 4, "--json", tmp_path / "out.json")
    assert said.startswith("llamacpp: asyncinfer-tiny")
    levels = json.loads((tmp_path / "out.json").read_text())["levels"]
    assert [(level["concurrency"], level["requests"], level["failed"]) for level in levels] == [(1, 4, 0), (2, 4, 0)]
    assert all(0 < level["ttft_p50_ms"] <= level["total_p99_ms"] for level in levels)


def test_failed_requests_are_in_no_other_figure(tmp_path):
    config, out = tmp_path / "config.yaml", tmp_path / "out.json"
    with FakeProvider(tokens=5, fail=[Fail(status=400, every=3)]) as provider:
        remote = {"api_url": provider.url, "api_key": "sk-test"}
        config.write_text(json.dumps({"engine": "REMOTE", "model": {"model_name": "fake-1"}, "remote_params": remote}))
        run("throughput", config, "-c", 2, "-n", 10, "--json", out)
    (level,) = json.loads(out.read_text())["levels"]
    assert (level["requests"], level["failed"]) == (6, 4)  # two of twelve were the warm-up; each third one failed
    assert level["estimated"] == 0


def test_million_rows():
    in_process = cells(run("million_rows", "--rows", 500).splitlines()[-1])
    over_http = cells(run("million_rows", "--rows", 200, "--server", "--unordered").splitlines()[-1])
    assert in_process[:4] == ["echo", "input order", "500", "0"]
    assert over_http[:4] == ["remote", "as finished", "200", "0"]


def test_import_time():
    rows = {cells(line)[0]: cells(line)[2] for line in run("import_time", "--rounds", 1).splitlines()[4:]}
    assert int(rows["import asyncinfer"]) < int(rows["httpx"])


def test_local(tmp_path):
    words = ("--engine", "llamacpp", "--streams", 1, 2, "--tokens", 4, "--repeats", 1, "--json", tmp_path / "out.json")
    said = run("local", *words)
    rows = json.loads((tmp_path / "out.json").read_text())
    assert [row["streams"] for row in rows] == [1, 2] * (len(rows) // 2)
    assert all(row["ours_tokens_per_s"] > 0 < row["direct_tokens_per_s"] for row in rows)
    assert cells(said.splitlines()[-1])[1] == "2"


def test_local_with_a_model_of_any_size(tmp_path):
    """The same weights in both forms: llama.cpp loads the one, and the other has as many of them."""
    folder = tmp_path / "model"
    said = run("random_model", folder, "--hidden", 128, "--layers", 2, "--seed", 7)
    assert said == f"{folder}: 0.5 M parameters\n"
    weights = load_file(folder / "model.safetensors")
    assert len(weights) == 2 + 9 * 2
    assert weights["model.layers.1.mlp.down_proj.weight"].shape == (128, 384)
    words = ("--engine", "llamacpp", "--streams", 1, "--tokens", 4, "--repeats", 1, "--json", tmp_path / "out.json")
    run("local", *words, "--model", folder / "model-f16.gguf")
    assert all(row["ours_tokens_per_s"] > 0 for row in json.loads((tmp_path / "out.json").read_text()))


def test_the_web_app_serves_50_clients_and_health_checks(tmp_path):
    """Every client gets its answers from the model in the app's own process, and nobody waits for them to end."""
    said = run("web_app", "--clients", 50, "--seconds", 1, "--json", tmp_path / "out.json")
    assert said.startswith("50 clients: ")
    measured = json.loads((tmp_path / "out.json").read_text())
    assert measured["failed"] == {}
    assert measured["least_answers_of_a_client"] >= 1
    assert measured["answers"] >= 50
    assert measured["different_texts"] == 1
    assert measured["health"]["failed"] == measured["health_idle"]["failed"] == 0
    assert measured["health"]["checks"] >= 10
    assert 0 < measured["health"]["p50_ms"] <= measured["health"]["p99_ms"] <= measured["health"]["max_ms"]
