"""The embedded model: a very small real chat model that comes with the package, as GGUF and as safetensors.

It makes ``asyncinfer chat`` work with nothing configured, and lets tests run every local engine on one and the same
model. It knows capitals, small sums, counting, a little JSON and one tool; see ``files/README.md``. ``build`` is the
script that made it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final, Literal

EMBEDDED_MODEL: Final = "asyncinfer-tiny"
"""Its name: what ``ModelParams.model_name`` may be instead of a path."""

_FILES = Path(__file__).parent / "files"


def embedded_model(kind: Literal["gguf", "hf"] = "gguf") -> Path:
    """Where the embedded model lies: the GGUF file for llama.cpp, or the folder for Transformers and vLLM."""
    return _FILES / "tiny-f16.gguf" if kind == "gguf" else _FILES / "hf"
