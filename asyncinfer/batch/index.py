"""Where the answers of a journal lie, by what they answer. Rule: some 40 bytes a row, whatever a row holds.

A dictionary of a million digests costs 200 MB in Python; these arrays cost 40. Equal rows share a digest, so this is a
multimap: each answer is taken once.
"""

from __future__ import annotations

from array import array

_LOAD = 0.6
"""Share of the table that may be in use; linear probing stays short below it."""


class AnswerIndex:
    """Digest (16 bytes) -> offsets, each of which is taken once.

    The table is open-addressed: a slot holds the number of the newest record of a digest, plus one; `_older` chains
    records of the same digest, so that a million equal rows cost no more than a million different ones.
    """

    def __init__(self, expected: int = 0) -> None:
        self._digests = bytearray()
        self._offsets = array("Q")
        self._older = array("L" if array("I").itemsize < 4 else "I")
        self._used = 0
        self._table = self._empty(expected)

    def __len__(self) -> int:
        return len(self._offsets)

    def _empty(self, records: int) -> array[int]:
        size = 64
        while size * _LOAD <= records:
            size *= 2
        self._mask = size - 1
        return array(self._older.typecode, bytes(size * self._older.itemsize))

    def _slot(self, digest: bytes) -> int:
        """The slot of this digest, or the free one where it belongs."""
        table, digests, mask = self._table, self._digests, self._mask
        slot = int.from_bytes(digest[:8], "little") & mask
        while (record := table[slot]) and digests[record * 16 - 16 : record * 16] != digest:
            slot = (slot + 1) & mask
        return slot

    def add(self, digest: bytes, offset: int) -> None:
        """Note an answer. ``offset`` is not 0: a journal begins with its header."""
        slot = self._slot(digest)
        newest = self._table[slot]
        self._digests += digest
        self._offsets.append(offset)
        self._older.append(newest)
        self._table[slot] = len(self._offsets)
        if not newest:
            self._used += 1
            if self._used > (self._mask + 1) * _LOAD:
                self._grow()

    def take(self, digest: bytes) -> int | None:
        """The offset of an answer that nobody has taken yet, or None."""
        slot = self._slot(digest)
        record = self._table[slot]
        if not record:
            return None
        offset = self._offsets[record - 1]
        if not offset:
            return None
        older = self._older[record - 1]
        if older:
            self._table[slot] = older
        else:
            self._offsets[record - 1] = 0  # the slot must stay in use: others probe past it
        return offset

    def _grow(self) -> None:
        heads = [record for record in self._table if record]
        self._table = self._empty(2 * len(heads))
        for record in heads:
            self._table[self._slot(bytes(self._digests[record * 16 - 16 : record * 16]))] = record
