"""Generation in the shape of RLite and of vLLM's ``LLM``: prompts in, a list of outputs back, on any local engine.

::

    from asyncinfer import rlite

    engine = rlite.InferenceEngine(model_path="path/to/model", backend="vllm")
    engine.build(tensor_parallel_size=4, gpu_memory_utilization=0.9)
    outputs = await engine.generate(["Hello, world!"] * 3, sampling_params={"temperature": 0.7, "n": 2})
    print(outputs[0].outputs[1].text)

`asyncinfer.blocking` has the same class for programs without an event loop: ``import asyncinfer.blocking as rlite``.
Rule: a stranger to the engines; whatever it does, any program could do with the public names of `asyncinfer`.
"""

from __future__ import annotations

from .engine import InferenceEngine
from .outputs import CompletionOutput, Logprob, RequestOutput

__all__ = ["CompletionOutput", "InferenceEngine", "Logprob", "RequestOutput"]
