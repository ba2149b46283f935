"""From the words of a command line to a configuration and an engine. Rule: the command line wins over the file."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import EMBEDDED_MODEL, ConfigError, InferenceConfig, InferenceEngineType, LlamaCppInferenceEngine, open_engine

if TYPE_CHECKING:
    from .. import ContentItem, Engine, Message

_EMBEDDED_TITLE = f"{EMBEDDED_MODEL} (embedded, 0.9 M parameters; a demo, not an assistant)"
_ENGINE_TITLES = {"llamacpp": "llama.cpp"}
_IN_PROCESS = {"llamacpp", "native", "vllm"}
"""Engines that answer here, whatever `remote_params` say."""


@dataclass(slots=True)
class Choices:
    """What the user chose.

    Attributes:
        config: path of a YAML file, or None.
        engine: name of an engine, or None.
        model: ``provider:model`` or the name of a model, or None.
        seed: of the sampler, or None.
        overrides: ``key=value`` of the configuration.
    """

    config: Path | None = None
    engine: str | None = None
    model: str | None = None
    seed: int | None = None
    overrides: list[str] = field(default_factory=list)

    def load(self) -> InferenceConfig:
        """The configuration. Raises `ConfigError`."""
        overrides = [*self.overrides, *self._shortcuts()]
        if self.config is None:
            return InferenceConfig.from_str("", overrides=overrides)
        return InferenceConfig.from_yaml(self.config, overrides=overrides)

    def switched(self, model: str) -> Choices:
        """The same choices for another model; with ``provider:model``, without what belongs to the former endpoint."""
        kind, colon, _ = model.partition(":")
        if not (colon and _is_engine(kind)):
            return replace(self, model=model)
        kept = [word for word in self.overrides if not word.lstrip("-").startswith("remote_params")]
        return replace(self, model=model, overrides=[*kept, "remote_params=null"])

    def _shortcuts(self) -> list[str]:
        shortcuts = []
        engine, model = self.engine, self.model
        if model is not None:
            kind, colon, name = model.partition(":")
            if colon and _is_engine(kind):
                engine, model = kind, name
            if model:
                shortcuts.append(f"model.model_name={_quoted(model)}")
        if engine is not None:
            shortcuts.append(f"engine={_quoted(engine)}")
        if self.seed is not None:
            shortcuts.append(f"generation.seed={self.seed}")
        return shortcuts


def _quoted(text: str) -> str:
    """The text as a YAML string, whatever is in it; ``${...}`` in it is meant literally."""
    import json

    return json.dumps(text.replace("${", "$${"))


def _is_engine(name: str) -> bool:
    try:
        InferenceEngineType(name)
    except ValueError:
        return False
    return True


def make_engine(config: InferenceConfig) -> Engine:
    """The engine of a configuration; without any, the embedded model."""
    return open_engine(config)


def is_embedded(engine: Engine) -> bool:
    """Whether the model that comes with the package answers."""
    return isinstance(engine, LlamaCppInferenceEngine) and engine.model_params.model_name in {None, EMBEDDED_MODEL}


def describe(engine: Engine) -> str:
    """Which model answers, and where, for a person."""
    title = _ENGINE_TITLES.get(engine.name, engine.name)
    if is_embedded(engine):
        return f"{_EMBEDDED_TITLE} on {title}"
    remote = None if engine.name in _IN_PROCESS else engine.remote_params
    where = f" at {_host(remote.api_url)}" if remote is not None and remote.api_url else ""
    return f"{engine.model_params.model_name or 'the default model'} on {title}{where}"


def _host(url: str) -> str:
    from urllib.parse import urlsplit

    parts = urlsplit(url)
    return f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or url


def user_message(text: str, images: list[str]) -> Message:
    """What the user says, images first. Paths are read here: the user typed them.

    Raises:
        ConfigError: an image cannot be read, or is none.
    """
    from .. import ContentItem, Message, Role, Type

    if not images:
        return Message(role=Role.USER, content=text)
    pieces = [_image(image) for image in images]
    if text:
        pieces.append(ContentItem(type=Type.TEXT, content=text))
    return Message(role=Role.USER, content=pieces)


def _image(source: str) -> ContentItem:
    from .. import ContentItem, Type

    if source.startswith(("http://", "https://", "data:")):
        return ContentItem(type=Type.IMAGE_URL, content=source)
    path = Path(source).expanduser()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read the image {source}: {error.strerror}", path="image") from error
    if not data.startswith((b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF")):
        raise ConfigError(f"{source} is not a PNG, JPEG, GIF or WebP image", path="image")
    return ContentItem(type=Type.IMAGE_BINARY, binary=data)


def rest_of_context(engine: Engine) -> dict[str, Any]:
    """Arguments of a call in a conversation with a person: where nobody said how long an answer may be, a local model
    may use the rest of its context. A provider has a maximum of its own, and gets none from us.
    """
    from .. import GenerationParams

    if engine.remote_params is not None or "max_new_tokens" in engine.generation_params.model_fields_set:
        return {}
    return {"generation": GenerationParams(max_new_tokens=None)}
