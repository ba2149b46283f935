"""Every row, by its name and by its hosts."""

from __future__ import annotations

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


_ENDINGS = [(host, row) for host, row in _HOSTS.items() if host.startswith((".", "-"))]
