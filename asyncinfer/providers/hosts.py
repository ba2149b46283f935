"""Every row, by its name and by its hosts."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from .rows import ROWS

if TYPE_CHECKING:
    from .row import Provider

PROVIDERS: dict[str, Provider] = {row.name: row for row in ROWS}
"""Every row by its name."""


_HOSTS: dict[str, Provider] = {
    host: row
    for row in ROWS
    for host in (*row.hosts, *([urlsplit(row.base_url).hostname or ""] if row.base_url else []))
    if host not in {"127.0.0.1", "localhost"}  # what listens on this machine is for the user to say
}


def provider_for_host(host: str) -> Provider | None:
    """The row of a well-known host (``"api.groq.com"``, a port is ignored), or None."""
    host = host.lower().partition(":")[0].rstrip(".")
    found = _HOSTS.get(host)
    if found is None:
        found = next((row for ending, row in _ENDINGS if host.endswith(ending)), None)
    return found


@lru_cache(maxsize=1024)
def model_family(model: str) -> str:
    """The beginning by which some row's `Provider.families` tells a model apart, ``""`` where none does."""
    full = model.lower()
    bare = full.rpartition("/")[2]
    return next((start for start in _FAMILIES if (full if "/" in start else bare).startswith(start)), "")


_FAMILIES = tuple(start for row in ROWS for start in row.families)

_ENDINGS = [(host, row) for host, row in _HOSTS.items() if host.startswith((".", "-"))]
