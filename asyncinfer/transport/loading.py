"""Loading what HTTP needs, away from the event loop. Rule: no HTTP library is imported before `load` is called.

httpx, httpcore and what they bring along are some hundred modules, and the system's certificates are a large file: the
first request of a process would hold its loop for a tenth of a second.
"""

from __future__ import annotations

import sys

from ..errors import ConfigError


def loaded() -> bool:
    """Whether nothing is left that takes long."""
    return f"{__package__}.httpx_transport" in sys.modules and "httpcore" in sys.modules


def load(*, secure: bool) -> None:
    """Import the general lane and all that it imports later; with ``secure``, read the certificates too."""
    import httpcore  # noqa: F401 -- httpx imports it when the first client is made

    from . import httpx_transport, tls  # noqa: F401

    if secure:
        try:
            tls.trusted()
        except ConfigError:
            return  # said by the request that needs them
