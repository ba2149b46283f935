"""A certificate authority that lives as long as a test."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme


class Authority:
    """Makes contexts for servers, and the context or the file with which a client trusts them."""

    def __init__(self) -> None:
        self._ca = trustme.CA()

    def server(self, *names: str) -> ssl.SSLContext:
        """A server's context for these host names or addresses."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._ca.issue_cert(*(names or ("127.0.0.1", "localhost"))).configure_cert(context)
        return context

    def client(self) -> ssl.SSLContext:
        """A context that trusts this authority and nobody else."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self._ca.configure_trust(context)
        return context

    def write(self, folder: Path) -> Path:
        """The authority's certificate as a file, for ``SSL_CERT_FILE``."""
        path = folder / "authority.pem"
        self._ca.cert_pem.write_to_path(str(path))
        return path
