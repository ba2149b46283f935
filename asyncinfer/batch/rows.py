"""The rows of a JSONL file, one at a time. Rule: a row's bytes are kept; nothing here holds more than one row.

A row is a line that is not blank. Lines end with LF (CRLF is accepted), are UTF-8, and may be gzip-compressed where
the name ends with ``.gz``. Rows are numbered from 0, lines from 1: what a person finds with an editor.
"""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple, cast

from .. import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .. import Conversation


class Row(NamedTuple):
    """One row as it lies in the file.

    Attributes:
        number: position among the rows, 0-based.
        line: line number, 1-based.
        offset: where its line begins, in bytes of the (uncompressed) file.
        raw: the line without its end and without surrounding white space.
    """

    number: int
    line: int
    offset: int
    raw: bytes


class InputFile:
    """A JSONL file to read rows from, several times.

    Raises:
        ConfigError: it does not exist, cannot be read, or is no regular file (rows are read more than once, so a pipe
            will not do).
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.identity = self._identity()

    def _identity(self) -> tuple[int, int, int]:
        try:
            stat = self.path.stat()
            if not self.path.is_file():
                raise ConfigError(f"input {self.path} is not a regular file", path="input_path")
            with self.path.open("rb"):
                pass
        except OSError as error:
            raise ConfigError(f"cannot read input {self.path}: {error.strerror}", path="input_path") from error
        return stat.st_ino, stat.st_size, stat.st_mtime_ns

    def check_unchanged(self) -> None:
        """Raises `ConfigError` if the file is not the one that was there when this object was made."""
        if self._identity() != self.identity:
            raise ConfigError(
                f"input {self.path} changed while the batch was running; every answer is kept in the journal: run the "
                "same command again, and only new or edited rows are asked",
                path="input_path",
            )

    def rows(self, start: Row | None = None) -> Iterator[Row]:
        """All rows, or those from ``start`` on, in order."""
        number, line, offset = (start.number, start.line - 1, start.offset) if start else (0, 0, 0)
        with self._open() as file:
            file.seek(offset)
            for text in file:
                raw = text.strip()
                if offset == 0 and raw.startswith(codecs.BOM_UTF8):
                    raw = raw[len(codecs.BOM_UTF8) :].strip()
                line += 1
                if raw:
                    yield Row(number, line, offset, raw)
                    number += 1
                offset += len(text)

    def _open(self) -> IO[bytes]:
        if self.path.suffix == ".gz":
            import gzip

            return cast("IO[bytes]", gzip.open(self.path, "rb"))
        return self.path.open("rb", buffering=1 << 18)


def _refuse_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite(text: str) -> float:
    number = float(text)
    if number in {float("inf"), float("-inf")}:
        raise ValueError(f"number {text} is too large")
    return number


# Made once: `json.loads` and `json.dumps` make a new one for each call with options.
_decode = json.JSONDecoder(parse_constant=_refuse_constant, parse_float=_finite).decode
_encode = json.JSONEncoder(ensure_ascii=False).encode
_encode_ascii = json.JSONEncoder().encode


def parse_json(raw: bytes) -> Any:
    """The JSON value of a line. Raises `ConfigError`: not UTF-8, or not JSON."""
    try:
        return _decode(raw.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(f"not UTF-8: byte {error.start} of the line is 0x{raw[error.start]:02x}") from error
    except RecursionError as error:
        raise ConfigError("invalid JSON: nested too deeply") from error
    except ValueError as error:
        raise ConfigError(f"invalid JSON: {error}") from error


def parse_row(raw: bytes) -> dict[str, Any]:
    """The JSON object of a row.

    Raises:
        ConfigError: not UTF-8, not JSON, not an object, or one without messages.
    """
    value = parse_json(raw)
    if not isinstance(value, dict):
        raise ConfigError(f"a row must be a JSON object with 'messages', this is {_kind(value)}")
    messages = value.get("messages")
    if messages is None and isinstance(value.get("prompt"), str):
        return value
    if not isinstance(messages, list) or not messages:
        found = "has none" if messages is None else "has an empty list" if messages == [] else "is " + _kind(messages)
        raise ConfigError(f"a row needs a non-empty list 'messages' (or a string 'prompt'); this row {found}")
    return value


def _kind(value: Any) -> str:
    names = {list: "a list", str: "a string", int: "a number", float: "a number", bool: "a boolean", dict: "an object"}
    return "null" if value is None else names.get(type(value), type(value).__name__)


def messages_of(row: dict[str, Any]) -> list[Any]:
    """The messages of a parsed row; a ``prompt`` row is one message of the user."""
    messages = row.get("messages")
    return [{"role": "user", "content": row["prompt"]}] if messages is None else messages


def conversation_of(row: dict[str, Any]) -> Conversation:
    """What a parsed row asks.

    Raises:
        ConfigError: it is JSON, but no conversation; the message says where.
    """
    from .. import Conversation

    if row.get("messages") is None:
        row = {key: value for key, value in row.items() if key != "prompt"} | {"messages": messages_of(row)}
    try:
        return Conversation.from_dict(row)
    except ConfigError:
        raise
    except (ValueError, TypeError) as error:
        raise ConfigError(f"not a conversation: {error}") from error


def to_line(value: Any) -> bytes:
    """One JSON line, UTF-8, with its end. Lone surrogates, which UTF-8 cannot carry, stay escaped."""
    try:
        return _encode(value).encode() + b"\n"
    except UnicodeEncodeError:
        return _encode_ascii(value).encode() + b"\n"
