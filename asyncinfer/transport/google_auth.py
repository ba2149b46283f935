"""Google's credentials: from a key, a file or the machine's defaults to request headers that are always fresh.

google-auth knows the ways to a token; it is asked in a thread, never on an event loop, by one thread at a time however
many calls wait (on any loops), and speaks HTTP through httpx like everything here. A token that is near its end is
still used while the next one is fetched behind it.

Rule: google-auth is imported by those who need it, inside functions. No token, key or content of a file is ever in a
message.
"""

from __future__ import annotations

import copy
import json
import os
import threading
import time
import warnings
import weakref
from collections.abc import Callable, Mapping
from datetime import UTC
from importlib import import_module
from pathlib import Path
from typing import Any

from ..errors import (
    AsyncInferError,
    AuthenticationError,
    ConfigError,
    MissingDependencyError,
    RetryKind,
    TransportError,
)
from ..loops import Waiter, running

SCOPE = "https://www.googleapis.com/auth/cloud-platform"
_NEAR = 225.0  # seconds before a token's end: fetch the next one
_OVER = 20.0  # seconds before it: a request sent now could arrive too late
_SUSPECT = 60.0  # a token this young that was refused is no better the second time
_TIMEOUT = 30.0
_DEFAULTS = (
    "no Google credentials were found: name a service account's file in remote_params.api_key or "
    "GOOGLE_APPLICATION_CREDENTIALS, or run `gcloud auth application-default login`"
)


def google_auth(key: str | None) -> tuple[str, GoogleCredential | None]:
    """How to sign with what a user gave.

    Args:
        key: the path or the JSON text of a credentials file, an access token (``ya29...``), an API key, or None for
            the machine's application default credentials.

    Returns:
        A scheme of `transport.auth` for what is sent as it is, else ``"none"`` and the credential to ask for headers.
    """
    if key is None or _is_account(key):
        return "none", _shared(key)
    return ("bearer" if key.startswith("ya29.") else "x-goog-api-key"), None


def project_of(key: str | None) -> str | None:
    """The project that a credentials file names, if there is one; without a key, that of the environment's file."""
    source = key if key is not None and _is_account(key) else os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not source:
        return None
    try:
        found = _read(source)
    except ConfigError:
        return None  # said when the credentials are used
    project = found.get("project_id") or found.get("quota_project_id")
    return project if isinstance(project, str) else None


def _is_account(key: str) -> bool:
    return key.lstrip().startswith("{") or key.endswith(".json") or os.sep in key


def _read(source: str) -> dict[str, Any]:
    """A credentials file, or its text, as JSON. Raises `ConfigError` that never shows the content."""
    inline = source.lstrip().startswith("{")
    named = "remote_params.api_key" if inline else source
    try:
        value = json.loads(source if inline else Path(source).expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cannot read the Google credentials file {source}: {error.strerror}", path="remote_params.api_key"
        ) from None
    except ValueError:
        raise ConfigError(f"{named} is not a JSON credentials file", path="remote_params.api_key") from None
    if not isinstance(value, dict):
        raise ConfigError(f"{named} is not a JSON credentials file", path="remote_params.api_key")
    return value


class _Token:
    """Headers, and until when they hold (seconds since the epoch; None: for good)."""

    __slots__ = ("born", "expiry", "headers", "suspect")

    def __init__(self, headers: dict[str, str], expiry: float | None, born: float, *, suspect: bool) -> None:
        self.headers = headers
        self.expiry = expiry
        self.born = born
        self.suspect = suspect

    def left(self, now: float) -> float:
        return float("inf") if self.expiry is None else self.expiry - now


class _Flight:
    """One refresh that is under way, and who waits for it."""

    __slots__ = ("error", "token", "waiters")

    def __init__(self) -> None:
        self.waiters: list[Waiter] = []
        self.token: _Token | None = None
        self.error: AsyncInferError | None = None


class GoogleCredential:
    """One account, shared by every engine of the process that uses it; safe on any number of loops and threads.

    Args:
        source: path or JSON text of a credentials file, or None for application default credentials.
        now: the wall clock, in seconds since the epoch.
    """

    def __init__(self, source: str | None, *, now: Callable[[], float] = time.time) -> None:
        self._source = source
        self._now = now
        self._lock = threading.Lock()
        self._token: _Token | None = None
        self._flight: _Flight | None = None
        self._refused = False
        self._credentials: Any = None

    async def headers(self) -> Mapping[str, str]:
        """The headers that prove who asks. Waits only where there is no valid token.

        Raises:
            ConfigError: there are no credentials, or their file is broken.
            AuthenticationError: Google refuses them.
            MissingDependencyError: google-auth is not installed.
            TransportError: the token service cannot be reached.
        """
        token = self._token
        left = 0.0 if token is None else token.left(self._now())
        if token is not None and left > _NEAR:
            return token.headers
        waiter = None
        with self._lock:
            flight = self._flight
            begins = flight is None
            if flight is None:
                if self._token is not None and self._token is not token:  # fetched meanwhile
                    return self._token.headers
                flight = self._flight = _Flight()
            if token is None or left <= _OVER:
                waiter = running().waiter()
                flight.waiters.append(waiter)
        if begins:
            threading.Thread(target=self._refresh, args=(flight,), name="google-token", daemon=True).start()
        if waiter is None:
            assert token is not None
            return token.headers
        await waiter.wait()
        if flight.error is not None:
            raise copy.copy(flight.error)
        assert flight.token is not None
        return flight.token.headers

    def refused(self, sent: Mapping[str, str]) -> bool:
        """The service answered 401 to these headers: forget their token. Whether another one may be taken."""
        with self._lock:
            token = self._token
            if token is None or token.headers.get("authorization") != sent.get("authorization"):
                return True  # another call saw to it already
            if token.suspect and self._now() - token.born < _SUSPECT:
                return False
            self._token, self._refused = None, True
            return True

    def _refresh(self, flight: _Flight) -> None:
        """In a thread of its own."""
        try:
            flight.token = self._fetch()
        except AsyncInferError as error:
            flight.error = error
        except BaseException as error:  # noqa: BLE001 -- nobody else would tell those who wait
            flight.error = AuthenticationError(f"fetching a Google token failed: {type(error).__name__}")
        with self._lock:
            self._flight = None
            if flight.token is not None:
                self._token = flight.token
        for waiter in flight.waiters:
            waiter.wake()

    def _fetch(self) -> _Token:
        try:
            google_errors = import_module("google.auth.exceptions")
        except ImportError:
            raise MissingDependencyError(
                "Google's credentials need the package google-auth: pip install 'asyncinfer[google]'"
            ) from None
        try:
            if self._credentials is None:
                self._credentials = _load(self._source)
            credentials = self._credentials
            credentials.refresh(_Request())
        except google_errors.DefaultCredentialsError as error:
            if self._source is None:
                raise ConfigError(_DEFAULTS, path="remote_params.api_key") from error
            said = f"these are no Google credentials: {_said(error)}"
            raise ConfigError(said, path="remote_params.api_key") from None
        except google_errors.TransportError as error:
            raise TransportError(f"Google's token service cannot be reached: {_said(error)}") from None
        except google_errors.GoogleAuthError as error:
            retry = RetryKind.TRANSIENT if getattr(error, "retryable", False) else RetryKind.NEVER
            raise AuthenticationError(f"Google refuses the credentials: {_said(error)}", retry=retry) from None
        headers: dict[str, str] = {}
        credentials.apply(headers)
        expiry = credentials.expiry
        suspect, self._refused = self._refused, False
        return _Token(
            {name.lower(): value for name, value in headers.items()},
            None if expiry is None else expiry.replace(tzinfo=UTC).timestamp(),
            self._now(),
            suspect=suspect,
        )


def _said(error: Exception) -> str:
    """The first words of an error of google-auth: a sentence, without the response that it may carry."""
    return str(error.args[0])[:300] if error.args else type(error).__name__


_KINDS = {
    "service_account": ("google.oauth2.service_account", "from_service_account_info"),
    "authorized_user": ("google.oauth2.credentials", "from_authorized_user_info"),
}
"""What most files hold: the module of google-auth that reads it, and the method of its ``Credentials``."""


def _load(source: str | None) -> Any:
    auth: Any = import_module("google.auth")
    if source is None:
        return auth.default(scopes=[SCOPE], request=_Request())[0]
    info = _read(source)
    try:
        if info.get("type") in _KINDS:
            module, method = _KINDS[info["type"]]
            return getattr(import_module(module).Credentials, method)(info, scopes=[SCOPE])
        with warnings.catch_warnings():  # it warns of files from strangers; this one the user named
            warnings.simplefilter("ignore", DeprecationWarning)
            return auth.load_credentials_from_dict(info, scopes=[SCOPE], request=_Request())[0]
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"the Google credentials file is broken ({type(error).__name__}): download it again",
            path="remote_params.api_key",
        ) from None


class _Response:
    """What google-auth reads of a response."""

    __slots__ = ("data", "headers", "status")

    def __init__(self, status: int, headers: Mapping[str, str], data: bytes) -> None:
        self.status = status
        self.headers = headers
        self.data = data


class _Request:
    """google-auth's way to send a request, over httpx."""

    def __call__(
        self,
        url: str,
        method: str = "GET",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
        **_: Any,
    ) -> _Response:
        import httpx

        from .tls import trusted, unused

        secure = url.startswith("https:")
        try:
            # What is asked over plain http is the machine's own metadata server: no proxy stands before it.
            with httpx.Client(verify=trusted() if secure else unused(), trust_env=secure) as client:
                response = client.request(method, url, content=body, headers=headers, timeout=timeout or _TIMEOUT)
        except httpx.HTTPError as error:
            failure: Any = import_module("google.auth.exceptions").TransportError
            raise failure(str(error) or type(error).__name__) from None
        return _Response(response.status_code, response.headers, response.content)


_known: weakref.WeakValueDictionary[tuple[str | None, ...], GoogleCredential] = weakref.WeakValueDictionary()
_known_lock = threading.Lock()


def _shared(source: str | None) -> GoogleCredential:
    key = (source, os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") if source is None else None)
    with _known_lock:
        found = _known.get(key)
        if found is None:
            found = _known[key] = GoogleCredential(source)
        return found
