"""vLLM in this process: ``AsyncLLM`` in a worker thread with a loop of its own, its engine in processes below.

Rule: vLLM and PyTorch are imported inside functions, in the worker's thread, and nowhere else.
"""

from __future__ import annotations

from .engine import VLLMInferenceEngine

__all__ = ["VLLMInferenceEngine"]
