"""Whom to trust. Verification is always on; the certificates are the system's."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from pathlib import Path

from ..errors import ConfigError


def trusted() -> ssl.SSLContext:
    """The process's context for verified TLS: system certificates, or those of ``SSL_CERT_FILE`` / ``SSL_CERT_DIR``.

    Reading the system's certificates takes some 20 ms, so it happens once, and only when https is spoken.

    Raises:
        ConfigError: a variable names a file or directory that is not there.
    """
    return _context(os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


@lru_cache(maxsize=4)
def _context(file: str | None, directory: str | None) -> ssl.SSLContext:
    # OpenSSL reads the two variables by itself but says nothing when they lead nowhere: then no host is trusted.
    if file and not Path(file).is_file():
        raise ConfigError(f"SSL_CERT_FILE names {file}, which is not a file", path="SSL_CERT_FILE")
    for part in (directory or "").split(os.pathsep):
        if part and not Path(part).is_dir():
            raise ConfigError(f"SSL_CERT_DIR names {part}, which is not a directory", path="SSL_CERT_DIR")
    try:
        context = ssl.create_default_context()
        paths = ssl.get_default_verify_paths()
        if not (paths.cafile or paths.capath or context.cert_store_stats()["x509_ca"]):
            import certifi  # a Python that knows no system certificates (some standalone builds)

            context.load_verify_locations(certifi.where())
    except (ssl.SSLError, OSError) as error:
        raise ConfigError(f"the TLS certificates cannot be read: {error}", path="SSL_CERT_FILE") from error
    return context


@lru_cache(maxsize=1)
def unused() -> ssl.SSLContext:
    """A context that trusts nobody, for connections that speak plain http: made in microseconds."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
