"""Local engine 2: Transformers, for any model it can load, on CPU or GPU.

``settings`` reads ``ModelParams``, ``loading`` makes a model of them, ``prompts`` turns requests into tokens. Two ways
lead through the model: ``paged`` (the continuous batching of Transformers: every answer of one sequence) and ``whole``
(``model.generate``: beams, images, models that the former cannot serve). ``sampling`` picks tokens on both, ``guide``
says which ones may come, ``row`` makes events of them, and ``runner`` owns the threads.

Rule: torch, transformers, peft and llguidance are imported inside functions, none before an engine starts.
"""

from __future__ import annotations

from .engine import NativeTextInferenceEngine

__all__ = ["NativeTextInferenceEngine"]
