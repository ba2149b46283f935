"""What a job's JSON says of how it was asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from ...errors import ConfigError

if TYPE_CHECKING:
    from ...params import InferenceConfig
    from ..base import Engine

FORMAT = "asyncinfer.batch/1"


def parsed_of(text: str) -> dict[str, Any]:
    """The JSON of a job. Raises `ConfigError` for anything else."""
    try:
        value = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"not a batch job: {error}", path="job") from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise ConfigError(f"not a batch job: expected a JSON object of format {FORMAT}", path="job")
    return cast("dict[str, Any]", value)


def config_of(text: Any) -> InferenceConfig | None:
    """The configuration that is kept as YAML; None where none is. Raises `ConfigError`."""
    from ...params import InferenceConfig

    return InferenceConfig.from_str(text) if isinstance(text, str) else None


def asked_of(text: Any) -> dict[str, Any]:
    """What decides the answers."""
    config = config_of(text)
    if config is None:
        return {}
    return {name: getattr(config, name).model_dump(exclude_unset=True) for name in ("model", "generation")}


def engine_of(text: Any) -> Engine:
    """An engine like the one that submitted the job. Raises `ConfigError`."""
    from ..opening import open_engine

    config = config_of(text)
    if config is None or config.engine is None:
        raise ConfigError(
            "this job does not say which engine made it: pass one to from_json(text, engine)", path="engine"
        )
    return open_engine(config)
