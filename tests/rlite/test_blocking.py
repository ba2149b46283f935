"""The document's examples, as they stand, with another import line."""

from __future__ import annotations

import pytest

import asyncinfer.blocking as rlite
from asyncinfer import ConfigError, EngineError, RowsFailed

HELLO = "<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"


def test_the_documents_examples():
    engine = rlite.InferenceEngine(
        model_path=None,
        backend="llamacpp",
    )
    engine.build(
        tensor_parallel_size=1,
        n_threads=1,
    )
    outputs = engine.generate(
        ["Hello, world!"] * 3,
        use_tqdm=True,
        tqdm_desc="Generating random samples",
    )
    assert [output.prompt for output in outputs] == ["Hello, world!"] * 3
    (output,) = engine.generate(HELLO, {"temperature": 0.0, "max_tokens": 20})
    assert output.outputs[0].text == "Hello! How can I help you today?"
    assert "".join(engine.stream(HELLO, {"temperature": 0.0})) == "Hello! How can I help you today?"
    for _ in engine.stream(HELLO):
        break
    with pytest.raises(RowsFailed):
        engine.generate([HELLO, [10**6]])
    engine.close()
    with engine.build(n_threads=1) as again:
        assert again.generate([HELLO])


def test_a_model_that_cannot_be_loaded_is_said_by_build():
    engine = rlite.InferenceEngine("no/such/file.gguf", backend="llamacpp")
    for _ in range(2):  # and it may be tried again
        with pytest.raises(EngineError, match="no such file"):
            engine.build()
    with pytest.raises(ConfigError):
        rlite.InferenceEngine("m", backend="abacus")
