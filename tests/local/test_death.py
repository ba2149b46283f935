"""The decoder thread over a toy model that breaks when it is told to: who is harmed, and who is not."""

from __future__ import annotations

import threading

import anyio
import pytest

from asyncinfer.engines import worker
from asyncinfer.engines.llama_cpp.batch import BatchBinding
from asyncinfer.engines.llama_cpp.server import ServerBinding
from asyncinfer.engines.llama_cpp.settings import Settings
from asyncinfer.engines.llama_cpp.sight import Picture
from asyncinfer.engines.local.ask import Ask
from asyncinfer.engines.worker import Feed, in_thread
from asyncinfer.errors import EngineClosedError, EngineError
from asyncinfer.events import Finish, TextDelta

pytestmark = pytest.mark.anyio


class ToyLibrary:
    """Stands where `library.Library` stands: a model that answers a, b, c ... and breaks when told to."""

    n_ctx = 64
    n_batch = 8
    template = ""
    sight = None

    def __init__(self):
        self.broken = False
        self.bad_chain = None
        self.freed = []
        self.closed = False
        self.longest = 0
        self.read_tokens = 0
        self.copied = []

    def prompt(self, ask):
        return ask.messages[0]["content"]

    def read(self, ask, text):
        if text == "crash":
            raise MemoryError(text)
        return [[ord(char) for char in text]]

    def copy(self, source, sequence):
        self.copied.append((source, sequence))

    def sampler(self, ask, prompt):
        return {"next": ord("a"), "bad": ask.messages[0]["content"] == "bad"}

    def free_sampler(self, chain):
        self.freed.append(chain)

    def keep(self, sequence, length):
        return True

    def decode(self, rows):
        assert 0 < len(rows) <= self.n_batch
        self.longest = max(self.longest, len(rows))
        self.read_tokens += sum(token == ord("p") for token, _, _, _ in rows)
        if self.broken:
            raise EngineError("the device is gone")

    def sample(self, chain, row):
        if chain["bad"]:
            raise ZeroDivisionError
        chain["next"] += 1
        return chain["next"] - 1

    def piece(self, token, special=False):
        return bytes([token])

    def ends(self, token):
        return token > ord("z")

    def close(self):
        self.closed = True


@pytest.fixture
async def toy(monkeypatch):
    library = ToyLibrary()
    monkeypatch.setattr("asyncinfer.engines.llama_cpp.batch.Library", lambda settings: library)
    binding = BatchBinding(Settings(model="toy", slots=3))
    await in_thread(binding.load)
    yield binding, library
    await in_thread(binding.close)
    assert library.closed


def ask(binding, text, **fields):
    feed = Feed()
    binding.submit(Ask(messages=[{"role": "user", "content": text}], **fields), feed)
    return feed


async def read(feed):
    events = []
    while (more := await feed.pull()) is not None:
        events += more
    return "".join(event.text for event in events if type(event) is TextDelta)


ALPHABET = "abcdefghijklmnopqrstuvwxyz"


async def test_more_requests_than_sequences_and_prompts_longer_than_a_batch(toy):
    binding, library = toy
    feeds = [ask(binding, "x" * (1 + 5 * number % 31)) for number in range(20)]
    assert [await read(feed) for feed in feeds] == [ALPHABET] * 20
    assert library.longest == library.n_batch
    assert len(library.freed) == 20


async def test_one_bad_request_takes_nobody_with_it(toy):
    binding, _ = toy
    good, crash, bad = ask(binding, "x"), ask(binding, "crash"), ask(binding, "bad")
    for feed in (crash, bad):
        with pytest.raises(EngineError, match="in this request"):
            await read(feed)
    assert await read(good) == ALPHABET
    assert await read(ask(binding, "again")) == ALPHABET


async def test_a_dead_decoder_fails_every_stream_and_every_later_request(toy):
    binding, library = toy
    library.ends = lambda token: False
    library.piece = lambda token, special=False: b"."
    library.n_ctx = 1 << 40
    feeds = [ask(binding, "x", max_tokens=None) for _ in range(6)]
    await feeds[0].pull()
    library.broken = True
    for feed in feeds:
        with pytest.raises(EngineError, match="the device is gone"):
            await read(feed)
    with pytest.raises(EngineError, match="must be closed"):
        ask(binding, "x")


async def test_closing_fails_what_runs_and_what_waits(toy):
    binding, library = toy
    library.ends = lambda token: False
    library.piece = lambda token, special=False: b"."
    library.n_ctx = 1 << 40
    feeds = [ask(binding, "x", max_tokens=None) for _ in range(5)]
    await feeds[0].pull()
    await in_thread(binding.close)
    for feed in feeds:
        with pytest.raises(EngineClosedError):
            await read(feed)
    with pytest.raises(EngineClosedError):
        ask(binding, "x")


async def test_abort_frees_the_sequence_within_a_step(toy):
    binding, library = toy
    library.ends = lambda token: False
    library.piece = lambda token, special=False: b"."
    library.n_ctx = 1 << 40
    feeds = [ask(binding, "x", max_tokens=None) for _ in range(3)]
    waiting = ask(binding, "y", max_tokens=3)
    for feed in feeds:
        await feed.pull()
    assert not library.freed
    feeds[1].abort()
    with anyio.fail_after(5):
        assert await read(waiting) == "..."


async def test_the_next_prompt_finds_what_the_last_one_left(toy):
    binding, _ = toy
    await read(ask(binding, "abcd"))
    events = []
    feed = ask(binding, "abcdefg")
    while (more := await feed.pull()) is not None:
        events += more
    usage = events[-1].usage
    assert (usage.input_tokens, usage.cached_tokens) == (7, 4)
    assert type(events[-2]) is Finish


async def test_several_answers_read_a_long_prompt_once(toy):
    binding, library = toy
    feed = ask(binding, "p" * 30, n=3)
    assert sorted(await read(feed)) == sorted(ALPHABET * 3)
    assert len(library.copied) == 2
    assert library.read_tokens <= 30 + 2 + 3  # the last token of it for each, and the letter p of each alphabet


async def test_one_of_several_answers_that_fails_takes_the_others_along(toy):
    binding, library = toy
    feed = ask(binding, "bad", n=3)
    with pytest.raises(EngineError, match="in this request"):
        await read(feed)
    assert await read(ask(binding, "good")) == ALPHABET
    assert len(library.freed) <= 4


async def test_one_bad_picture_takes_nobody_with_it(toy):
    binding, library = toy
    freed = []

    class Eyes:
        def free(self, picture):
            freed.append(picture.chunk)

    def show(picture, sequence, position):
        if picture.chunk == "bad":
            raise EngineError("it cannot be decoded")
        return position + 1

    library.sight = Eyes()
    library.show = show
    library.read = lambda ask, text: [[1, 2], Picture(text, 4), [3]]
    good, bad, several = ask(binding, "good"), ask(binding, "bad"), ask(binding, "good", n=2)
    with pytest.raises(EngineError, match="cannot be decoded"):
        await read(bad)
    assert await read(good) == ALPHABET
    assert len(await read(several)) == 2 * len(ALPHABET)
    assert sorted(freed) == ["bad", "good", "good", "good"]


async def test_who_waits_for_a_server_is_told_at_once_though_one_of_its_threads_never_comes_back(monkeypatch):
    gate, inside = threading.Event(), threading.Event()

    class Stuck:
        def handle_chat_completions(self, body, on_chunk):
            inside.set()
            gate.wait()

    binding = ServerBinding(Settings(model="toy", slots=1))
    binding._server = Stuck()
    ask(binding, "runs")
    await in_thread(inside.wait)
    waits = ask(binding, "waits")
    join_all = worker.join_all
    monkeypatch.setattr(worker, "join_all", lambda threads, _: join_all(threads, 0.05))
    with pytest.raises(EngineError, match="did not end"):
        await in_thread(binding.close)
    with pytest.raises(EngineClosedError, match="before this call began"):
        await waits.pull()
    gate.set()
    await in_thread(binding.close)
