"""Local engine 1: llama.cpp, for GGUF models on CPU or GPU, over either of two Python bindings.

``settings`` reads ``model_kwargs``; behind the small seam in ``binding``
stand ``xllamacpp`` (prebuilt, an in-process llama-server) and ``llama-cpp-python`` (compiled by its user, driven here
token by token). Rule: nothing but ``server`` and ``library`` knows a binding, and neither is imported before an engine
starts.
"""

from __future__ import annotations

from .engine import LlamaCppInferenceEngine

__all__ = ["LlamaCppInferenceEngine"]
