"""The engines there are, by name."""

from __future__ import annotations

from enum import StrEnum


class InferenceEngineType(StrEnum):
    """Which engine answers. Any spelling is accepted: ``"llamacpp"``, ``"LLAMACPP"``, ``"llama_cpp"``, ``"LlamaCpp"``;
    `GOOGLE_GEMINI` is ``"gemini"`` too."""

    ANTHROPIC = "ANTHROPIC"
    BEDROCK = "BEDROCK"
    CEREBRAS = "CEREBRAS"
    DEEPSEEK = "DEEPSEEK"
    FIREWORKS = "FIREWORKS"
    GOOGLE_GEMINI = "GEMINI"
    GOOGLE_VERTEX = "GOOGLE_VERTEX"
    HUGGING_FACE_ROUTER = "HUGGING_FACE_ROUTER"
    LAMBDA = "LAMBDA"
    LLAMACPP = "LLAMACPP"
    NATIVE = "NATIVE"
    OPENAI = "OPENAI"
    OPENROUTER = "OPENROUTER"
    PARASAIL = "PARASAIL"
    REMOTE = "REMOTE"
    REMOTE_VLLM = "REMOTE_VLLM"
    SAMBANOVA = "SAMBANOVA"
    SGLANG = "SGLANG"
    TOGETHER = "TOGETHER"
    VLLM = "VLLM"

    @classmethod
    def _missing_(cls, value: object) -> InferenceEngineType | None:
        return _SPELLINGS.get(_folded(value)) if isinstance(value, str) else None


def _folded(name: str) -> str:
    return "".join(character for character in name.casefold() if character.isalnum())


_SPELLINGS: dict[str, InferenceEngineType] = {
    **{_folded(engine.name): engine for engine in InferenceEngineType},
    **{_folded(engine.value): engine for engine in InferenceEngineType},
    "vertex": InferenceEngineType.GOOGLE_VERTEX,
    "vertexai": InferenceEngineType.GOOGLE_VERTEX,
    "hfrouter": InferenceEngineType.HUGGING_FACE_ROUTER,
    "togetherai": InferenceEngineType.TOGETHER,
    "awsbedrock": InferenceEngineType.BEDROCK,
}
