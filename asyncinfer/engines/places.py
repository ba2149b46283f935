"""Places in a URL: ``{region}`` and ``{project_id}``, and which of a provider's faces a URL means.

Rule: what somebody wrote into the parameters goes before the environment, the environment before a credentials file.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..errors import ConfigError
from ..providers import PROVIDERS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..params import RemoteParams
    from ..providers import Provider, Urls

_PROJECTS = ("PROJECT_ID", "GOOGLE_CLOUD_PROJECT", "GCLOUD_PROJECT", "CLOUDSDK_CORE_PROJECT")
_REGIONS = ("REGION", "GOOGLE_CLOUD_LOCATION", "GOOGLE_CLOUD_REGION", "CLOUD_ML_REGION")
_EVERYWHERE = "global"
_HOSTS = {
    "://global-aiplatform.googleapis.com": "://aiplatform.googleapis.com",
    "://us-aiplatform.googleapis.com": "://aiplatform.us.rep.googleapis.com",
    "://eu-aiplatform.googleapis.com": "://aiplatform.eu.rep.googleapis.com",
}
"""Vertex AI's hosts of places that are no single region."""


def face(provider: Provider, api_url: str | None) -> Provider:
    """The row that speaks the format found at a URL: the provider's own, or one of its other faces."""
    path = urlsplit(api_url).path.rstrip("/") + "/" if api_url is not None else ""
    for part, name in provider.faces.items():
        if part + "/" in path:  # whole segments, and never those of the host
            return PROVIDERS[name]
    return provider


def project(remote: RemoteParams, model_kwargs: Mapping[str, Any], key: str | None) -> str | None:
    """The project that is named anywhere, or None."""
    from ..transport.google_auth import project_of

    return remote.project_id or _named(model_kwargs, "project_id", _PROJECTS) or project_of(key)


def filled(urls: Urls, remote: RemoteParams, model_kwargs: Mapping[str, Any], key: str | None) -> Urls:
    """URLs with their places filled in.

    Raises:
        ConfigError: no project is named; says where to name it.
    """
    text = f"{urls.base} {urls.query} {urls.models}"
    values: dict[str, str] = {}
    if "{region}" in text:
        values["region"] = remote.region or _named(model_kwargs, "region", _REGIONS) or _EVERYWHERE
    if "{project_id}" in text:
        found = project(remote, model_kwargs, key)
        if found is None:
            raise ConfigError(
                f"the URL needs a project: set remote_params.project_id, or the environment variable {_PROJECTS[0]} "
                f"or {_PROJECTS[1]}",
                path="remote_params.project_id",
            )
        values["project_id"] = found
    for name, value in values.items():
        if not value.replace("-", "").replace(":", "").replace(".", "").isalnum():
            raise ConfigError(f"{name}: {value!r} cannot stand in a URL", path=f"remote_params.{name}")
    full = urls.filled(values)
    for host, real in _HOSTS.items():
        if full.base.startswith((f"https{host}/", f"http{host}/")):
            models = full.models and full.models.replace(host, real, 1)
            return full._replace(base=full.base.replace(host, real, 1), models=models)
    return full


def _named(model_kwargs: Mapping[str, Any], name: str, variables: tuple[str, ...]) -> str | None:
    value = model_kwargs.get(name)
    if isinstance(value, str) and value:
        return value
    return next((os.environ[variable] for variable in variables if os.environ.get(variable)), None)
