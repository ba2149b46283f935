"""The whole configuration of an inference run, and how it is loaded from YAML.

Loading goes through five steps, each with its own file: YAML with places (`yaml_text`), command-line keys
(`overrides`), ``${...}`` (`interpolation`), text fields get their text as written, and validation, whose errors say the
line or the flag.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field, SecretStr

from ..errors import ConfigError
from ..violations import Path, nested_model
from .base import Params
from .engine_type import InferenceEngineType
from .generation import GenerationParams
from .model import ModelParams
from .remote import RemoteParams  # noqa: TC001 - pydantic reads it

if TYPE_CHECKING:
    from typing import Self

    from pydantic import BaseModel

    from .overrides import Override
    from .yaml_text import Source

_OTHER_SECTIONS = frozenset(
    {"data", "training", "peft", "fsdp", "deepspeed", "tasks", "evaluation", "run_name", "output_dir", "enable_wandb"}
)
"""Top-level keys of training and evaluation configurations; harmless in one that is shared."""


def _path(value: Any) -> Any:
    return fspath(value) if isinstance(value, PathLike) else value


def _section(value: Any) -> Any:
    return {} if value is None else value


def _engine(value: Any) -> Any:
    if not isinstance(value, str) or isinstance(value, InferenceEngineType):
        return value
    try:
        return InferenceEngineType(value)
    except ValueError:
        from ..violations import nearest

        names = [engine.name.lower() for engine in InferenceEngineType]
        meant = nearest(value, names)
        hint = f"; did you mean {meant.upper()!r}?" if meant else ""
        raise ValueError(
            f"there is no engine {value!r}{hint} The engines are {', '.join(name.upper() for name in names)}"
        ) from None


FilePath = Annotated[str, BeforeValidator(_path)]


class InferenceConfig(Params):
    """Everything that an inference run needs.

    Attributes:
        model: which model, and how it is loaded.
        generation: how it generates.
        input_path: JSONL file of conversations.
        output_path: JSONL file for the answers.
        progress_path: JSON file that is kept up to date with the run's progress.
        engine: which engine; None lets the package choose by what is configured.
        remote_params: how a remote engine is reached.
    """

    section: ClassVar[str] = ""

    model: Annotated[ModelParams, BeforeValidator(_section)] = Field(default_factory=ModelParams)
    generation: Annotated[GenerationParams, BeforeValidator(_section)] = Field(default_factory=GenerationParams)
    input_path: FilePath | None = None
    output_path: FilePath | None = None
    progress_path: FilePath | None = None
    engine: Annotated[InferenceEngineType | None, BeforeValidator(_engine)] = None
    remote_params: RemoteParams | None = None

    @classmethod
    def from_yaml(cls, path: str | PathLike[str], overrides: Sequence[str | Override] = ()) -> Self:
        """The configuration in a YAML file.

        Args:
            path: the file, UTF-8.
            overrides: command-line words (``["--generation.temperature", "0.2"]``) or parsed overrides; they win.

        Raises:
            ConfigError: the file cannot be read, is not valid YAML, or says something wrong; names path, line and the
                nearest valid key.
        """
        from pathlib import Path as File

        name = fspath(path)
        try:
            text = File(path).read_text(encoding="utf-8-sig")
        except OSError as error:
            raise ConfigError(f"{name}: cannot be read: {error.strerror or error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{name}: not UTF-8 text: {error}") from None
        return cls.from_str(text, overrides, name=name)

    @classmethod
    def from_str(cls, text: str, overrides: Sequence[str | Override] = (), *, name: str = "") -> Self:
        """The configuration in YAML text; ``name`` is what errors call it. See `from_yaml`."""
        from .interpolation import interpolate
        from .overrides import Override, apply_overrides, parse_overrides
        from .yaml_text import read_yaml

        source = read_yaml(text, name)
        if source.value is None:
            source.value = {}
        if not isinstance(source.value, dict):
            kind = type(source.value).__name__
            raise ConfigError(f"{name or 'YAML'}: expected sections (model:, generation:, engine: ...), got a {kind}")
        words = [item for item in overrides if isinstance(item, str)]
        ready = [item for item in overrides if isinstance(item, Override)]
        apply_overrides(source, [*ready, *parse_overrides(words)], cls)
        ignored = [key for key in source.value if key in _OTHER_SECTIONS]
        for key in ignored:
            del source.value[key]
        templates = interpolate(source)
        source.value = _texts(cls, source.value, source, ())
        config = cls.validated(source.value, source.where)
        config.remember_origins(templates)
        config.note_ignored(ignored)
        return config

    def remember_origins(self, templates: dict[Path, str]) -> None:
        """Keep what came from the environment beside the section that holds it, so that it travels with that."""
        for path, template in templates.items():
            owner: Any = self
            rest = list(path)
            while len(rest) > 1 and isinstance(inner := getattr(owner, str(rest[0]), None), Params):
                owner = inner
                del rest[0]
            try:
                value = getattr(owner, str(rest[0]))
                for part in rest[1:]:
                    value = value[part]
            except (AttributeError, KeyError, IndexError, TypeError):
                continue  # the value was moved or dropped while it was validated
            owner.note_origin(tuple(rest), template, value)

    def note_ignored(self, ignored: list[str]) -> None:
        """Say once which keys do nothing: ``ignored`` ones, and what of the model section concerns only training."""
        default = ModelParams()
        of_model = [name for name in ModelParams.training_only if getattr(self.model, name) != getattr(default, name)]
        ignored = ignored + [f"model.{name}" for name in sorted(of_model)]
        if ignored:
            import logging

            logging.getLogger("asyncinfer").warning("ignored, of no use in inference: %s", ", ".join(ignored))


def _texts(model: type[BaseModel], value: Any, source: Source, prefix: Path) -> Any:
    """``value`` with the text as it was written, where a field takes text and the file has ``no`` or ``1e5``."""
    from .overrides import kinds

    if not isinstance(value, dict):
        return value
    changed = dict(value)
    for name, field in model.model_fields.items():
        if name not in value:
            continue
        path = (*prefix, name)
        section = nested_model(field)
        allowed = kinds(field.annotation)
        if section is not None and isinstance(value[name], dict):
            changed[name] = _texts(section, value[name], source, path)
        elif str in allowed or SecretStr in allowed or InferenceEngineType in allowed:
            changed[name] = _as_written(value[name], source, path)
        elif list[str] in allowed and isinstance(value[name], list):
            changed[name] = [_as_written(item, source, (*path, i)) for i, item in enumerate(value[name])]
        elif list[str] in allowed:
            changed[name] = _as_written(value[name], source, path)
        elif dict[str, str] in allowed and isinstance(value[name], dict):
            changed[name] = {key: _as_written(item, source, (*path, key)) for key, item in value[name].items()}
    return changed


def _as_written(value: Any, source: Source, path: Path) -> Any:
    place = source.places.get(path)
    if value is None or isinstance(value, (str, list, dict)) or place is None or place.text is None:
        return value
    return place.text
