"""`run_file` from the outside: order, faith to the rows, failures, resume, and what may never happen."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import anyio
import pytest

from asyncinfer import (
    AuthenticationError,
    BadRequestError,
    ConfigError,
    GenerationParams,
    InferenceConfig,
    ModelParams,
    RateLimitError,
    RemoteParams,
    ServerError,
    TextDelta,
)
from asyncinfer.batch import BatchError, BatchProgress, run_file

from .echo import Echo

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request) -> str:
    return request.param


@pytest.fixture
def rows(tmp_path):
    """Writes rows (values, or raw lines) to in.jsonl."""

    def write(*values, name="in.jsonl") -> Path:
        path = tmp_path / name
        lines = [v if isinstance(v, bytes) else json.dumps(v).encode() for v in values]
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        return path

    return write


def ask(text: str, **more):
    return {"messages": [{"role": "user", "content": text}], **more}


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def answers(path: Path) -> list[str]:
    return [row["messages"][-1]["content"] for row in read(path)]


def questions_answered(path: Path) -> list[str]:
    return [text.rsplit(" #", 1)[0] for text in answers(path)]


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


# -- the output --------------------------------------------------------------------------------------------------------


async def test_answers_come_in_input_order_however_they_finish(rows, tmp_path):
    source = rows(*(ask(f"q{n}") for n in range(100)))
    summary = await run_file(Echo(pace=0.01), source, tmp_path / "deep" / "er" / "out.jsonl")
    assert questions_answered(summary.output_path) == [f"q{n}" for n in range(100)]
    assert (summary.total, summary.completed, summary.failed, summary.resumed) == (100, 100, 0, 0)
    assert (summary.input_tokens, summary.output_tokens) == (300, 500)
    assert summary.ok
    assert summary.failures_path is None
    assert names(summary.output_path.parent) == {"out.jsonl", ".out.jsonl.receipt"}


async def test_a_row_keeps_everything_it_had(rows, tmp_path):
    row = {
        "conversation_id": "c1",
        "x": [1.0, 12345678901234567890123, None, {"y": "\u2028 ü 😀"}],
        "messages": [
            {"role": "system", "content": "s", "weight": 0},
            {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": None},
        ],
        "metadata": {"mine": 1, "finish_reason": "old"},
        "tools": None,
    }
    source = rows(row, {"messages": row["messages"], "metadata": None})
    await run_file(Echo(), source, tmp_path / "out.jsonl")
    first, second = read(tmp_path / "out.jsonl")
    assert list(first) == list(row)
    assert first["messages"][:-1] == row["messages"]
    assert first["messages"][-1]["role"] == "assistant"
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert first["metadata"] == {"mine": 1, "finish_reason": "stop", "usage": usage}
    assert {k: v for k, v in first.items() if k not in {"messages", "metadata"}} == {
        k: v for k, v in row.items() if k not in {"messages", "metadata"}
    }
    assert second["metadata"] == {"usage": usage, "finish_reason": "stop"}


async def test_half_a_surrogate_pair_survives(rows, tmp_path):
    source = rows(b'{"messages": [{"role": "user", "content": "q"}], "odd": "\\ud83d"}')
    await run_file(Echo(), source, tmp_path / "out.jsonl")
    assert read(tmp_path / "out.jsonl")[0]["odd"] == "\ud83d"


async def test_lines_as_editors_write_them(rows, tmp_path):
    source = rows(
        b"\xef\xbb\xbf" + json.dumps(ask("bom")).encode() + b"\r",
        b"   ",
        b"",
        b"  " + json.dumps({"prompt": "plain", "id": 7}).encode(),
    )
    source.write_bytes(source.read_bytes().rstrip(b"\n"))  # no line end at the end
    await run_file(Echo(), source, tmp_path / "out.jsonl")
    assert questions_answered(tmp_path / "out.jsonl") == ["bom", "plain"]
    assert read(tmp_path / "out.jsonl")[1]["id"] == 7


async def test_gzip(tmp_path):
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(b"".join(json.dumps(ask(f"q{n}")).encode() + b"\n" for n in range(20))))
    failing = Echo(fail=lambda text: ServerError("x") if text == "q11" else None)
    assert (await run_file(failing, source, tmp_path / "out.jsonl")).failed == 1
    await run_file(Echo(), source, tmp_path / "out.jsonl")
    assert questions_answered(tmp_path / "out.jsonl") == [f"q{n}" for n in range(20)]


async def test_a_torn_gzip_is_an_error_of_the_input(tmp_path):
    source = tmp_path / "in.jsonl.gz"
    source.write_bytes(gzip.compress(os.urandom(2000).hex().encode())[:500])
    with pytest.raises(BatchError, match="cannot read the input"):
        await run_file(Echo(), source, tmp_path / "out.jsonl")


async def test_no_rows(rows, tmp_path):
    summary = await run_file(Echo(), rows(), tmp_path / "out.jsonl")
    assert (summary.total, summary.ok) == (0, True)
    assert (tmp_path / "out.jsonl").read_bytes() == b""


# -- failures ----------------------------------------------------------------------------------------------------------


async def test_failed_rows_are_beside_the_output_and_are_all_that_is_tried_again(rows, tmp_path):
    def fail(text):
        if text == "q3":
            return RateLimitError("slow down", status=429, provider="p", request_id="r1", code="rate", retry_after=0)
        return BadRequestError("no", status=400) if text == "q5" else None

    out = tmp_path / "out.jsonl"
    source = rows(*(ask(f"q{n}", n=n) for n in range(8)))
    summary = await run_file(Echo(fail=fail), source, out)
    assert (summary.completed, summary.failed, summary.ok) == (6, 2, False)
    assert questions_answered(out) == ["q0", "q1", "q2", "q4", "q6", "q7"]
    assert summary.failures_path == tmp_path / "out.failures.jsonl"
    third, fifth = read(summary.failures_path)
    assert third == {
        "index": 3,
        "line": 4,
        "error_type": "RateLimitError",
        "message": "slow down",
        "status": 429,
        "retryable": True,
        "provider": "p",
        "code": "rate",
        "request_id": "r1",
        "conversation": ask("q3", n=3),
    }
    assert (fifth["index"], fifth["error_type"], fifth["retryable"]) == (5, "BadRequestError", False)

    first = {row["n"]: row for row in read(out)}
    healthy = Echo()
    summary = await run_file(healthy, source, out)
    assert sorted(healthy.asked) == ["q3", "q5"]
    assert (summary.completed, summary.resumed, summary.failures_path) == (8, 6, None)
    assert questions_answered(out) == [f"q{n}" for n in range(8)]
    assert {row["n"]: row for row in read(out) if row["n"] not in {3, 5}} == first
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", ".out.jsonl.receipt"}


async def test_bad_lines_are_failed_rows_with_their_line(rows, tmp_path):
    bad = [b"nonsense", b"[1]", b'{"messages": []}', b'{"messages": 5}', b"{}", b'{"messages": [{"role": "user"}]}']
    bad += [b'{"messages": [{"role": "poet", "content": "x"}]}', b"\xff\xfe", b'{"messages": NaN}', b"[" * 100_000]
    source = rows(ask("first"), b"", *bad, ask("last"))
    summary = await run_file(Echo(), source, tmp_path / "out.jsonl")
    assert questions_answered(tmp_path / "out.jsonl") == ["first", "last"]
    failures = read(tmp_path / "out.failures.jsonl")
    assert [row["index"] for row in failures] == list(range(1, 1 + len(bad)))
    assert [row["line"] for row in failures] == list(range(3, 3 + len(bad)))
    assert {row["error_type"] for row in failures} == {"ConfigError"}
    assert failures[0]["text"] == "nonsense"
    assert failures[1]["conversation"] == [1]
    assert summary.failed == len(bad)


async def test_strict_refuses_the_file_before_anything_is_asked(rows, tmp_path):
    engine = Echo()
    with pytest.raises(ConfigError, match=r"in\.jsonl, line 3: invalid JSON"):
        await run_file(engine, rows(ask("a"), ask("b"), b"{"), tmp_path / "out.jsonl", strict=True)
    assert engine.asked == []


async def test_an_error_that_every_row_meets_stops_the_batch(rows, tmp_path):
    source = rows(*(ask(f"q{n}") for n in range(1000)))
    engine = Echo(fail=lambda text: AuthenticationError("the key is wrong", status=401))
    with pytest.raises(BatchError, match=r"10 rows in a row failed with AuthenticationError.*the key is wrong"):
        await run_file(engine, source, tmp_path / "out.jsonl")
    assert len(engine.asked) < 200
    healthy = Echo()
    await run_file(healthy, source, tmp_path / "out.jsonl")
    assert questions_answered(tmp_path / "out.jsonl") == [f"q{n}" for n in range(1000)]


async def test_a_partial_answer_of_a_failed_row_is_kept(rows, tmp_path):
    class Torn(Echo):
        async def produce(self, request):
            yield TextDelta(text="half an ans")
            raise ServerError("gone")

    await run_file(Torn(), rows(ask("q")), tmp_path / "out.jsonl")
    (failure,) = read(tmp_path / "out.failures.jsonl")
    assert failure["error_type"] == "StreamInterrupted"
    assert failure["partial"]["text"] == "half an ans"


# -- resume ------------------------------------------------------------------------------------------------------------


async def cancel_after(count: int, engine: Echo, source: Path, out: Path, **more) -> None:
    with anyio.CancelScope() as scope:

        def watch(progress: BatchProgress) -> None:
            if progress.completed >= count:
                scope.cancel()

        await run_file(engine, source, out, on_progress=watch, **more)
    assert scope.cancelled_caught
    assert not out.exists()


async def test_cancelled_and_run_again_it_repeats_nothing_that_was_finished(rows, tmp_path):
    source = rows(*(ask(f"q{n}") for n in range(300)))
    out = tmp_path / "out.jsonl"
    await cancel_after(40, Echo(pace=0.05), source, out)
    second = Echo()
    summary = await run_file(second, source, out)
    assert summary.resumed >= 40
    assert len(second.asked) == 300 - summary.resumed
    assert questions_answered(out) == [f"q{n}" for n in range(300)]
    assert len(set(answers(out))) == 300


async def test_equal_rows_each_get_an_answer_of_their_own(rows, tmp_path):
    source = rows(*(ask("same") for _ in range(200)))
    out = tmp_path / "out.jsonl"
    await cancel_after(20, Echo(pace=0.05), source, out)
    second = Echo()
    summary = await run_file(second, source, out)
    assert len(second.asked) == 200 - summary.resumed
    assert len(set(answers(out))) == 200


async def test_other_parameters_never_meet_an_old_answer(rows, tmp_path):
    source = rows(*(ask(f"q{n}") for n in range(200)))
    out = tmp_path / "out.jsonl"
    cold = GenerationParams(temperature=0.0)
    await cancel_after(20, Echo(pace=0.05, generation_params=cold), source, out)
    others = [
        (Echo(pace=0.05, generation_params=GenerationParams(temperature=0.7)), None),
        (Echo(pace=0.05, generation_params=cold), InferenceConfig(generation=GenerationParams(temperature=0.7))),
        (Echo(ModelParams(model_name="other"), pace=0.05, generation_params=cold), None),
        (Echo(ModelParams(model_kwargs={"a": 1}), pace=0.05, generation_params=cold), None),
        (Echo(remote_params=RemoteParams(api_url="http://other"), pace=0.05, generation_params=cold), None),
        (type("Other", (Echo,), {"name": "other"})(pace=0.05, generation_params=cold), None),
    ]
    seen: list[BatchProgress] = []
    for engine, config in others[1:]:
        with anyio.CancelScope() as scope:

            def watch(progress: BatchProgress, scope=scope) -> None:
                seen.append(progress)
                if progress.completed:
                    scope.cancel()

            await run_file(engine, source, out, inference_config=config, on_progress=watch)
    assert {progress.resumed for progress in seen} == {0}
    # ... and going back finds what these parameters had made; limits and retries are no such parameters
    back = Echo(generation_params=cold, remote_params=RemoteParams(num_workers=3, api_key="sk-other-key"))
    assert (await run_file(back, source, out)).resumed >= 20


async def test_an_edited_row_is_asked_and_a_moved_one_is_not(rows, tmp_path):
    out = tmp_path / "out.jsonl"
    source = rows(*(ask(f"q{n}") for n in range(10)), ask("bad"))
    engine = Echo(fail=lambda text: BadRequestError("x") if text == "bad" else None)
    await run_file(engine, source, out)
    first = dict(zip(questions_answered(out), answers(out), strict=True))
    rows(ask("new"), *(ask(f"q{n}", note="edited") if n == 4 else ask(f"q{n}") for n in reversed(range(10))))
    second = Echo()
    await run_file(second, source, out)
    assert sorted(second.asked) == ["new", "q4"]
    assert questions_answered(out) == ["new", *(f"q{n}" for n in reversed(range(10)))]
    again = dict(zip(questions_answered(out), answers(out), strict=True))
    assert all(again[q] == first[q] for q in first if q != "q4")
    assert again["q4"] != first["q4"]


async def test_a_complete_batch_that_gets_other_rows_asks_only_those(rows, tmp_path):
    out = tmp_path / "out.jsonl"
    odd = {"prompt": "plain", "id": 7}
    mine = ask("mine", metadata={"a": 1, "usage": "old"})
    rows(ask("q0"), ask("same"), ask("same"), odd, mine, ask("q1", x=[1.0, None, "\u2028 ü"]))
    await run_file(Echo(), tmp_path / "in.jsonl", out)
    before = {line: line for line in out.read_bytes().splitlines()}

    # Rows are added and moved: nothing of the old output is lost, so no copy of it stays.
    more = [
        ask("new"),
        ask("q1", x=[1.0, None, "\u2028 ü"]),
        ask("same"),
        odd,
        mine,
        ask("same"),
        ask("same"),
        ask("q0"),
    ]
    rows(*more)
    engine = Echo()
    summary = await run_file(engine, tmp_path / "in.jsonl", out)
    assert sorted(engine.asked) == ["new", "same"]
    assert (summary.total, summary.completed, summary.resumed, summary.replaced) == (8, 8, 6, None)
    assert questions_answered(out) == ["new", "q1", "same", "plain", "mine", "same", "same", "q0"]
    assert before.keys() <= set(out.read_bytes().splitlines())
    assert len(set(answers(out))) == 8
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", ".out.jsonl.receipt"}

    # One is edited: its former answer is in the copy that is kept.
    paid = set(out.read_bytes().splitlines())
    rows(*more[:-1], ask("q0", note="edited"))
    engine = Echo()
    summary = await run_file(engine, tmp_path / "in.jsonl", out)
    assert engine.asked == ["q0"]
    assert summary.replaced == tmp_path / "out.jsonl.bak"
    assert set(summary.replaced.read_bytes().splitlines()) == paid
    assert len(paid - set(out.read_bytes().splitlines())) == 1

    # Other parameters, and outputs that somebody edited, are no source of answers.
    engine = Echo(generation_params=GenerationParams(seed=1))
    await run_file(engine, tmp_path / "in.jsonl", out)
    assert len(engine.asked) == 8
    out.write_bytes(out.read_bytes() + b"\n")
    rows(*more, ask("q9"))
    engine = Echo(generation_params=GenerationParams(seed=1))
    await run_file(engine, tmp_path / "in.jsonl", out)
    assert len(engine.asked) == 9


async def test_an_output_that_cannot_be_read_again_is_kept_and_not_in_the_way(rows, tmp_path):
    source, out = rows(ask("a")), tmp_path / "out.jsonl.gz"  # what is written is no gzip, whatever it is called
    await run_file(Echo(), source, out)
    rows(ask("a"), ask("b"))
    engine = Echo()
    summary = await run_file(engine, source, out)
    assert sorted(engine.asked) == ["a", "b"]
    assert summary.replaced == tmp_path / "out.jsonl.gz.bak"


async def test_a_batch_that_grows_and_is_interrupted_asks_nothing_twice(rows, tmp_path):
    """Equal rows, too: what was taken over before the interruption is not taken over again."""
    out = tmp_path / "out.jsonl"
    source = rows(*(ask("same") for _ in range(20)))
    await run_file(Echo(), source, out)
    first = set(answers(out))
    rows(*(ask("same") for _ in range(20)), *(ask(f"q{n}") for n in range(100)))
    engine = Echo(pace=0.05)
    with anyio.CancelScope() as scope:
        await run_file(engine, source, out, on_progress=lambda seen: scope.cancel() if seen.completed >= 25 else None)
    assert scope.cancelled_caught
    again = Echo()
    summary = await run_file(again, source, out)
    assert "same" not in engine.asked + again.asked
    assert summary.resumed >= 25
    assert 0 < len(again.asked) < 100
    assert set(answers(out)[:20]) == first
    assert len(set(answers(out))) == 120
    assert summary.replaced is None


async def test_a_complete_batch_is_left_alone_until_told_otherwise(rows, tmp_path):
    source, out = rows(ask("a"), ask("b")), tmp_path / "out.jsonl"
    await run_file(Echo(), source, out)
    before = out.read_bytes()
    engine = Echo()
    summary = await run_file(engine, source, out)
    assert (summary.already_complete, summary.completed, engine.asked) == (True, 2, [])
    assert out.read_bytes() == before
    await run_file(engine, source, out, overwrite=True)
    assert sorted(engine.asked) == ["a", "b"]
    assert out.read_bytes() != before
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", ".out.jsonl.receipt"}


async def test_another_output_in_the_way_is_kept(rows, tmp_path):
    source, out = rows(ask("a")), tmp_path / "out.jsonl"
    out.write_text("precious\n")
    summary = await run_file(Echo(), source, out)
    assert summary.replaced == tmp_path / "out.jsonl.bak"
    assert summary.replaced.read_text() == "precious\n"
    first = out.read_bytes()
    summary = await run_file(Echo(generation_params=GenerationParams(seed=1)), source, out)
    assert summary.replaced == tmp_path / "out.jsonl.bak2"
    assert summary.replaced.read_bytes() == first != out.read_bytes()
    assert (tmp_path / "out.jsonl.bak").read_text() == "precious\n"


async def test_an_output_that_was_edited_is_not_taken_for_complete(rows, tmp_path):
    source, out = rows(ask("a"), ask("b")), tmp_path / "out.jsonl"
    await run_file(Echo(), source, out)
    out.write_bytes(out.read_bytes()[:20])
    summary = await run_file(Echo(), source, out)
    assert (summary.already_complete, summary.completed) == (False, 2)
    assert questions_answered(out) == ["a", "b"]


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("failing", [False, True])
async def test_killed_between_any_two_steps_of_the_end(rows, tmp_path, monkeypatch, failing):
    """Every rename and removal in turn is the last thing that happens; the next run always mends it."""
    step = 0
    real = {name: getattr(Path, name) for name in ("replace", "unlink")}
    left = [0]

    def dying(name):
        def call(self, *args, **kwargs):
            if left[0] == 0:
                raise Killed
            left[0] -= 1
            return real[name](self, *args, **kwargs)

        return call

    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        out = folder / "out.jsonl"
        source = rows(ask("a"), b"bad" if failing else ask("b"), ask("c"))
        for name in real:
            monkeypatch.setattr(Path, name, dying(name))
        left[0] = step
        engine = Echo()
        finished = True
        try:
            await run_file(engine, source, out)
        except Killed:
            finished = False
        monkeypatch.undo()
        assert len(engine.asked) == (2 if failing else 3)
        after = Echo()
        summary = await run_file(after, source, out)
        assert after.asked == []
        assert summary.failed == failing
        assert questions_answered(out) == (["a", "c"] if failing else ["a", "b", "c"])
        assert not (folder / "out.jsonl.bak").exists() or not finished
        kept = names(folder) - {"out.jsonl.bak", ".out.jsonl.receipt.new"}
        assert kept == {"out.jsonl", ".out.jsonl.receipt"} | (
            {"out.failures.jsonl", "out.jsonl.journal"} if failing else set()
        )
        if finished:
            break
        step += 1
    assert step >= 3


# -- what may not be ---------------------------------------------------------------------------------------------------


async def test_two_runs_of_one_output_do_not_meet(rows, tmp_path):
    source, out = rows(*(ask(f"q{n}") for n in range(50))), tmp_path / "out.jsonl"
    async with anyio.create_task_group() as group:
        group.start_soon(run_file, Echo(pace=0.2), source, out)
        await anyio.sleep(0.1)
        with pytest.raises(BatchError, match="another process is working on this output"):
            await run_file(Echo(), source, out)
    assert questions_answered(out) == [f"q{n}" for n in range(50)]


async def test_no_file_ever_holds_a_secret(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("SOME_PROVIDER_API_KEY", "key-from-environment")
    key = "sk-very-secret-key"

    def fail(text):
        return BadRequestError(f"bad key {key} or key-from-environment", code=key) if text == "b" else None

    remote = RemoteParams(api_key=key, extra_headers={"Authorization": "Bearer tok-en-in-header"}, api_url="http://x")
    engine = Echo(ModelParams(model_kwargs={"hf_token": "hf_in_kwargs"}), fail=fail, remote_params=remote)
    await run_file(engine, rows(ask("a"), ask("b")), tmp_path / "out.jsonl", progress_path=tmp_path / "p.json")
    everything = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    for secret in (key, "key-from-environment", "tok-en-in-header", "hf_in_kwargs"):
        assert secret.encode() not in everything
    assert "bad key *** or ***" in read(tmp_path / "out.failures.jsonl")[0]["message"]


async def test_paths_that_cannot_be(rows, tmp_path):
    source = rows(ask("a"))
    (tmp_path / "link.jsonl").symlink_to(source)
    with pytest.raises(ConfigError, match="which is its input"):
        await run_file(Echo(), source, tmp_path / "link.jsonl")
    failures = rows(ask("a"), name="x.failures.jsonl")
    with pytest.raises(ConfigError, match="which is its input"):
        await run_file(Echo(), failures, tmp_path / "x.jsonl")
    with pytest.raises(ConfigError, match="No such file"):
        await run_file(Echo(), tmp_path / "none.jsonl", tmp_path / "out.jsonl")
    with pytest.raises(ConfigError, match="not a regular file"):
        await run_file(Echo(), source, tmp_path)
    with pytest.raises(BatchError, match="cannot create the directory"):
        await run_file(Echo(), source, source / "out.jsonl")
    with pytest.raises(ConfigError, match="needs an output_path"):
        await run_file(Echo(), source)


async def test_outputs_that_differ_in_their_ending_share_nothing(rows, tmp_path):
    """At the same time, one failing: each has its journal, its failures and its receipt."""
    source = rows(*(ask(f"q{n}") for n in range(20)))
    outs = [tmp_path / "out.jsonl", tmp_path / "out.txt", tmp_path / "out"]
    engine = Echo(pace=0.02, fail=lambda text: BadRequestError("x") if text == "q3" else None)
    async with anyio.create_task_group() as group:
        for out in outs:
            group.start_soon(run_file, engine, source, out)
    assert len(engine.asked) == 60
    assert all(len(answers(out)) == 19 for out in outs)
    failures = {"out.failures.jsonl", "out.failures.txt", "out.failures"}
    journals = {f"{out.name}.journal" for out in outs}
    receipts = {f".{out.name}.receipt" for out in outs}
    assert names(tmp_path) == {"in.jsonl"} | {out.name for out in outs} | failures | journals | receipts


async def test_a_full_disk_at_the_end_loses_no_answer(rows, tmp_path, monkeypatch):
    source, out = rows(ask("a"), ask("b")), tmp_path / "out.jsonl"

    def full(fd):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("asyncinfer.batch.assembly.os.fsync", full)
        patch.setattr("asyncinfer.batch.journal.Journal.sync", lambda self: None)
        with pytest.raises(BatchError, match="No space left on device"):
            await run_file(Echo(), source, out)
    assert names(tmp_path) == {"in.jsonl", "out.jsonl.journal"}
    engine = Echo()
    assert (await run_file(engine, source, out)).resumed == 2
    assert engine.asked == []


async def test_an_input_that_changes_meanwhile_is_noticed(rows, tmp_path):
    source, out = rows(*(ask(f"q{n}") for n in range(20))), tmp_path / "out.jsonl"

    def grow(text):
        if text == "q9":
            with source.open("ab") as file:
                file.write(json.dumps(ask("later")).encode() + b"\n")

    with pytest.raises(ConfigError, match="changed while the batch was running"):
        await run_file(Echo(fail=grow), source, out)
    assert not out.exists()
    engine = Echo()
    await run_file(engine, source, out)
    assert engine.asked == ["later"]
    assert questions_answered(out)[-1] == "later"


# -- reports -----------------------------------------------------------------------------------------------------------


async def test_progress_is_told_and_filed(rows, tmp_path):
    source = rows(*(ask(f"q{n}") for n in range(60)), b"bad")
    seen: list[BatchProgress] = []
    target = tmp_path / "sub" / "progress.json"
    await run_file(Echo(pace=0.3), source, tmp_path / "out.jsonl", on_progress=seen.append, progress_path=target)
    state = json.loads(target.read_text())
    assert list(state) == ["total", "completed", "failed", "updated_at"]
    assert (state["total"], state["completed"], state["failed"]) == (61, 60, 1)
    assert state["updated_at"].endswith("+00:00")
    assert [progress.phase for progress in seen] == sorted(
        (progress.phase for progress in seen), key=["reading", "running", "writing"].index
    )
    assert seen[-1].completed == 60
    assert seen[-1].seconds_left == 0
    assert max(progress.in_flight for progress in seen) > 1
    assert seen[-1].output_tokens == 300


async def test_a_progress_file_that_cannot_be_written_stops_nothing(rows, tmp_path, caplog):
    blocked = tmp_path / "file"
    blocked.write_text("")
    summary = await run_file(Echo(), rows(ask("a")), tmp_path / "out.jsonl", progress_path=blocked / "p.json")
    assert summary.ok
    assert [record.message for record in caplog.records if "progress file" in record.message and record.levelno == 30]


async def test_an_error_of_the_callback_reaches_the_caller_bare(rows, tmp_path):
    def broken(progress):
        if progress.completed:
            raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        await run_file(
            Echo(pace=0.5), rows(*(ask(f"q{n}") for n in range(30))), tmp_path / "out.jsonl", on_progress=broken
        )


async def test_paths_may_come_from_the_configuration(rows, tmp_path):
    source = rows(ask("a"))
    config = InferenceConfig(input_path=str(source), output_path=str(tmp_path / "out.jsonl"))
    await run_file(Echo(), inference_config=config)
    assert questions_answered(tmp_path / "out.jsonl") == ["a"]
