"""The journal after any accident: what was appended is found, what is damaged is not believed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asyncinfer.batch import BatchError
from asyncinfer.batch.index import AnswerIndex
from asyncinfer.batch.journal import ANSWER, FAILURE, MAGIC, SETTINGS, Journal, decode, encode

digests = st.binary(min_size=16, max_size=16)
few_digests = st.sampled_from([bytes([n]) * 16 for n in range(5)])
values = st.dictionaries(st.text(max_size=5), st.text(max_size=30) | st.integers() | st.none(), max_size=3)
records = st.lists(st.tuples(st.sampled_from([ANSWER, FAILURE, SETTINGS]), few_digests | digests, values), max_size=12)
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=80, deadline=None)


def write(path: Path, entries) -> list[int]:
    path.unlink(missing_ok=True)
    journal = Journal(path)
    offsets = [journal.append(*entry) for entry in entries]
    journal.close()
    return offsets


def answers_in(path: Path, wanted) -> Counter[bytes]:
    """Digests of the answers that a fresh opening finds, by asking for each once too often."""
    journal = Journal(path)
    reader = journal.reader()
    found: Counter[bytes] = Counter()
    for digest in set(wanted):
        while (offset := journal.take(digest)) is not None:
            assert isinstance(reader.read(offset), dict)
            found[digest] += 1
    reader.close()
    journal.close()
    return found


@given(digests, values, st.sampled_from([ANSWER, FAILURE, SETTINGS]))
def test_a_record_reads_back(digest, value, kind):
    line = encode(kind, digest, value)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert decode(line) == (kind, digest)


@given(digests, values, st.data())
def test_a_changed_byte_is_noticed(digest, value, data):
    line = encode(ANSWER, digest, value)
    position = data.draw(st.integers(0, len(line) - 2))
    byte = data.draw(st.integers(0, 255).filter(lambda b: b != line[position]))
    damaged = line[:position] + bytes([byte]) + line[position + 1 :]
    found = decode(damaged)
    # the checksum's own hex digits may be spelled in capitals; that changes nothing
    assert found is None or damaged.lower() == line.lower()


@given(records)
@same_folder
def test_every_answer_is_found_once(tmp_path, entries):
    path = tmp_path / "j"
    offsets = write(path, entries)
    journal = Journal(path)
    reader = journal.reader()
    for offset, (_, _, value) in zip(offsets, entries, strict=True):
        assert reader.read(offset) == value
    reader.close()
    journal.close()
    assert answers_in(path, [d for _, d, _ in entries]) == Counter(d for k, d, _ in entries if k == ANSWER)


@given(records, st.data())
@same_folder
def test_cut_at_any_byte_it_keeps_every_whole_record_and_goes_on(tmp_path, entries, data):
    path = tmp_path / "j"
    offsets = write(path, entries)
    size = path.stat().st_size
    cut = data.draw(st.integers(0, size))
    os.truncate(path, cut)
    ends = [*offsets[1:], size] if offsets else []
    # a record whose line end alone is missing counts as whole
    whole = [entry for entry, end in zip(entries, ends, strict=True) if end - 1 <= cut]
    more = [(ANSWER, b"\xff" * 16, {"later": n}) for n in range(2)]
    journal = Journal(path)
    for entry in more:
        journal.append(*entry)
    journal.close()
    expected = Counter(d for k, d, _ in whole + more if k == ANSWER)
    assert answers_in(path, [d for _, d, _ in [*entries, *more]]) == expected


@given(records, st.binary(max_size=200))
@same_folder
def test_garbage_at_the_end_costs_nothing_but_itself(tmp_path, entries, garbage):
    path = tmp_path / "j"
    write(path, entries)
    with path.open("ab") as file:
        file.write(garbage)
    journal = Journal(path)
    journal.append(ANSWER, b"\xfe" * 16, {})
    journal.close()
    expected = Counter(d for k, d, _ in entries if k == ANSWER) + Counter([b"\xfe" * 16])
    assert answers_in(path, [b"\xfe" * 16, *(d for _, d, _ in entries)]) == expected


@given(st.lists(few_digests | digests, max_size=300), st.lists(few_digests, max_size=20))
def test_the_index_is_a_multimap(added, asked):
    index = AnswerIndex()
    expected: dict[bytes, list[int]] = {}
    for offset, digest in enumerate(added, start=21):
        index.add(digest, offset)
        expected.setdefault(digest, []).append(offset)
    for digest in [*asked, *added, *added]:
        found = index.take(digest)
        if expected.get(digest):
            assert found in expected[digest]
            expected[digest].remove(found)
        else:
            assert found is None


def test_a_million_equal_rows_cost_no_more_than_different_ones():
    index = AnswerIndex()
    for offset in range(1, 50_001):
        index.add(b"s" * 16, offset)
    assert sorted(index.take(b"s" * 16) for _ in range(50_000)) == list(range(1, 50_001))
    assert index.take(b"s" * 16) is None


def test_one_writer_only(tmp_path):
    first = Journal(tmp_path / "j")
    with pytest.raises(BatchError, match="another process"):
        Journal(tmp_path / "j")
    first.close()
    Journal(tmp_path / "j").close()


def test_the_lock_ends_with_the_process(tmp_path):
    code = (
        "import sys, pathlib; from asyncinfer.batch.journal import Journal\n"
        "journal = Journal(pathlib.Path(sys.argv[1])); print('locked', flush=True); input()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, tmp_path / "j"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout.readline().strip() == b"locked"
        with pytest.raises(BatchError, match="another process"):
            Journal(tmp_path / "j")
        process.kill()
        process.wait()
        Journal(tmp_path / "j").close()


def test_a_foreign_file_is_left_alone(tmp_path):
    path = tmp_path / "j"
    path.write_bytes(b"my thesis\n")
    with pytest.raises(BatchError, match="move it away"):
        Journal(path)
    assert path.read_bytes() == b"my thesis\n"


def test_a_full_disk_is_said_and_loses_nothing(tmp_path, monkeypatch):
    path = tmp_path / "j"
    journal = Journal(path)
    journal.append(ANSWER, b"a" * 16, {"n": 1})
    real = os.write

    def full(fd, data):
        if len(data) > 10:
            return real(fd, bytes(data)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(BatchError, match="No space left"):
        journal.append(ANSWER, b"b" * 16, {"n": 2})
    monkeypatch.undo()
    journal.append(ANSWER, b"c" * 16, {"n": 3})
    journal.close()
    assert answers_in(path, [b"a" * 16, b"b" * 16, b"c" * 16]) == Counter([b"a" * 16, b"c" * 16])


def test_a_journal_starts_with_its_magic_line(tmp_path):
    Journal(tmp_path / "j").close()
    assert (tmp_path / "j").read_bytes() == MAGIC
