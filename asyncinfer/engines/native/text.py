"""Tokens to text, as they come: whole characters only, whatever the tokenizer does with their bytes and spaces."""

from __future__ import annotations

from functools import lru_cache
from typing import Any


class Spelling:
    """What the tokens of one tokenizer stand for.

    Args:
        tokenizer: of Transformers.
        markup: texts that are shown even if the tokenizer has a special token for them, because they mean something to
            who reads the answer (the tags of a tool call).
    """

    def __init__(self, tokenizer: Any, markup: tuple[str, ...] = ()) -> None:
        self.tokenizer = tokenizer
        special = set(tokenizer.all_special_ids)
        known = {tag: tokenizer.convert_tokens_to_ids(tag) for tag in markup}
        self.markup: dict[int, str] = {number: tag for tag, number in known.items() if number in special}
        self._bytes = {char: value for value, char in enumerate(_byte_characters())}
        self._byte_level = _is_byte_level(tokenizer)

    def bytes_of(self, token: int) -> bytes:
        """The bytes of one token, for reports about single tokens."""
        word = self.tokenizer.convert_ids_to_tokens(token)
        if word is None:  # models have more rows than their tokenizer has words
            return b""
        word = str(word)
        if token in self.tokenizer.all_special_ids:
            return word.encode()
        if self._byte_level and all(char in self._bytes for char in word):
            return bytes(self._bytes[char] for char in word)
        if len(word) == 6 and word.startswith("<0x") and word.endswith(">"):
            return bytes([int(word[3:5], 16)])
        return word.replace("\u2581", " ").encode()


class Speller:
    """One answer's tokens in, text out.

    Args:
        spelling: of the tokenizer.
        skip_special: leave special tokens out.
    """

    def __init__(self, spelling: Spelling, *, skip_special: bool) -> None:
        self._spelling = spelling
        self._skip = skip_special
        self._rust: Any = getattr(spelling.tokenizer, "backend_tokenizer", None)
        self._held: list[int] = []  # what came since text was last given out
        self._stream: Any = None
        self._tokens: list[int] = []  # without the Rust library: the window that is decoded anew
        self._shown = 0
        if self._rust is not None:
            self._restart()

    def _restart(self) -> None:
        from tokenizers.decoders import DecodeStream

        self._stream = DecodeStream(skip_special_tokens=self._skip)

    def feed(self, token: int) -> str:
        """The text that this token completes."""
        tag = self._spelling.markup.get(token) if self._skip else None
        if tag is not None:
            text = self.close() + tag
            if self._rust is not None:
                self._restart()
            return text
        if self._rust is None:
            return self._again(token)
        try:
            text = self._stream.step(self._rust, token)
        except Exception:  # noqa: BLE001 -- the library has no class of its own for it
            return self._anew(token)
        if text is None:
            self._held.append(token)
            return ""
        self._held.clear()
        return str(text)

    def _anew(self, token: int) -> str:
        """What was shown reads otherwise with this token: where single bytes have tokens, one that makes no character
        spoils those before it. What was shown stays; the rest is read by itself, and what follows in its light."""
        from tokenizers.decoders import DecodeStream

        text = str(self._rust.decode([*self._held, token], skip_special_tokens=self._skip))
        self._held.clear()
        self._stream = DecodeStream([token], self._skip)
        return text

    def _again(self, token: int) -> str:
        """For tokenizers in Python: decode the last pieces with and without the token; the difference is its text."""
        decode = self._spelling.tokenizer.decode
        self._tokens.append(token)
        before = decode(self._tokens[: self._shown], skip_special_tokens=self._skip)
        after = str(decode(self._tokens, skip_special_tokens=self._skip))
        if after.endswith("\ufffd") or len(after) <= len(before):
            self._held.append(token)
            return ""
        del self._tokens[: self._shown]
        self._shown = len(self._tokens)
        self._held.clear()
        return after[len(before) :]

    def close(self) -> str:
        """What is left of a character that never ended: U+FFFD, or nothing."""
        held, self._held = self._held, []
        self._tokens, self._shown = [], 0
        if not held:
            return ""
        return str(self._spelling.tokenizer.decode(held, skip_special_tokens=self._skip))


def _is_byte_level(tokenizer: Any) -> bool:
    """Whether words are spelled in the 256 characters that stand for bytes (GPT-2's way, most models' today)."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    return "ByteLevel" in str(backend.decoder) if backend is not None else False


@lru_cache(maxsize=1)
def _byte_characters() -> tuple[str, ...]:
    """The character for each byte: itself where it can be printed, else the next free one from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    free = iter(range(0x100, 0x200))
    return tuple(chr(byte) if byte in printable else chr(next(free)) for byte in range(256))
