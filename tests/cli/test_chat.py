"""The chat, on a real terminal: what is typed, what is shown, what Ctrl-C and Ctrl-D do, what is remembered."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import subprocess
import time

import pytest

from asyncinfer import ConfigError, Message, Role
from asyncinfer.cli.session import Session
from tests.servers.provider import Fail

CTRL_C, CTRL_D = b"\x03", b"\x04"
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, program, *words: object) -> None:
        self.ours, theirs = pty.openpty()
        program.env |= {"TERM": "dumb", "INPUTRC": "/dev/null"}
        self.process = subprocess.Popen(
            program.command(*words),
            cwd=program.folder,
            env=program.environment(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: _control(theirs),  # noqa: PLW1509 -- Ctrl-C needs a controlling terminal
        )
        os.close(theirs)
        self.shown = ""
        self._from = 0

    def until(self, text: str, seconds: float = 30) -> str:
        """Read until ``text`` is shown; return what was shown since the last call."""
        end = time.monotonic() + seconds
        while (found := self.shown.find(text, self._from)) < 0:
            ready, _, _ = select.select([self.ours], [], [], max(0, end - time.monotonic()))
            assert ready, f"{text!r} is not among: {self.shown[self._from :]!r}"
            try:
                data = os.read(self.ours, 4096)
            except OSError:
                data = b""
            assert data, f"it ended; {text!r} is not among: {self.shown[self._from :]!r}"
            self.shown += _ESCAPES.sub("", data.decode(errors="replace"))
        part = self.shown[self._from : found + len(text)]
        self._from = found + len(text)
        return part

    def sees(self, text: str, seconds: float) -> bool:
        """Whether ``text`` is shown in time."""
        try:
            self.until(text, seconds)
        except AssertionError:
            return False
        return True

    def type(self, text: str | bytes) -> None:
        os.write(self.ours, text.encode() + b"\n" if isinstance(text, str) else text)

    def ask(self, text: str) -> str:
        """Type a line; return what is shown up to the next prompt mark."""
        self.type(text)
        self.until(text)
        return self.until("\n> ").removesuffix("\n> ").strip("\n")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.ours)


def _control(fd: int) -> None:
    import fcntl
    import termios

    fcntl.ioctl(fd, termios.TIOCSCTTY, 0)


@pytest.fixture
def terminal(program):
    opened: list[Terminal] = []

    def start(*words: object) -> Terminal:
        opened.append(Terminal(program, *words))
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def last_request(provider) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in provider.stats.requests[-1].body["messages"]]


def test_a_conversation(terminal, provider, at, tmp_path):
    chat = terminal("chat", *at, "--system-prompt", "Be brief")
    assert "fake-1 on remote" in chat.until("Ctrl-D leaves")
    chat.until("\n> ")
    assert chat.ask("first words") == "first words"
    assert chat.ask("second") == "second"
    assert last_request(provider) == [
        ("system", "Be brief"),
        ("user", "first words"),
        ("assistant", "first words"),
        ("user", "second"),
    ]
    assert "user: first words" in chat.ask("/history")
    assert chat.ask("/system Be long") == "system prompt: Be long"
    assert "did you mean /retry" in chat.ask("/rety")
    assert chat.ask("/retry") == "second"
    assert last_request(provider)[0] == ("system", "Be long")
    assert len(last_request(provider)) == 4
    assert "2 messages" not in chat.ask("/save talk.jsonl")
    saved = json.loads((tmp_path / "talk.jsonl").read_text())
    assert [m["role"] for m in saved["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    assert chat.ask("/clear") == "a new conversation"
    assert chat.ask("/history") == "system: Be long"
    assert "loaded 4 messages" in chat.ask("/load talk.jsonl")
    assert chat.ask("/undo") == "forgotten"
    chat.ask("third")
    assert [role for role, _ in last_request(provider)] == ["system", "user", "assistant", "user"]
    assert "fake-2 on remote" in chat.ask("/model fake-2")
    chat.ask("fourth")
    assert provider.stats.requests[-1].body["model"] == "fake-2"
    assert "error: " in chat.ask("/model openai:gpt-4o-mini")
    chat.ask("fifth")
    assert provider.stats.requests[-1].body["model"] == "fake-2"
    assert re.search(r"\d answers, [\d,]+ tokens in", chat.ask("/usage"))
    assert "/exit" in chat.ask("/help")
    chat.type(CTRL_D)
    assert chat.process.wait(30) == 0


def test_longer_texts(terminal, provider, at):
    chat = terminal("chat", *at)
    chat.until("\n> ")
    chat.type("one \\")
    chat.until(". ")
    chat.type("two")
    chat.until("\n> ")
    assert last_request(provider)[-1] == ("user", "one \ntwo")
    for line in ('"""three', "/four", 'five"""'):
        chat.type(line)
    chat.until("five\n> ")
    assert last_request(provider)[-1] == ("user", "three\n/four\nfive")
    chat.type("/exit")
    assert chat.process.wait(30) == 0


def test_ctrl_c_stops_the_answer_and_not_the_program(terminal, provider, at, tmp_path):
    provider.tokens, provider.per_token = 400, 0.05
    chat = terminal("chat", *at)
    chat.until("\n> ")
    chat.type("alpha beta gamma")
    chat.until("alpha beta gamma")
    chat.until("alpha beta")
    chat.type(CTRL_C)
    assert "marked as interrupted" in chat.until("\n> ", 5)
    end = time.monotonic() + 5
    while provider.stats.in_flight and time.monotonic() < end:
        time.sleep(0.01)
    assert provider.stats.in_flight == 0  # the work upstream has stopped, too
    provider.tokens = None
    assert "assistant [interrupted]: alpha beta" in chat.ask("/history")
    chat.ask("/save cut.jsonl")
    saved = json.loads((tmp_path / "cut.jsonl").read_text())
    assert saved["metadata"]["interrupted"] == [1]
    assert saved["messages"][1]["content"].startswith("alpha beta")
    chat.ask("go on")
    sent = last_request(provider)
    assert [role for role, _ in sent] == ["user", "assistant", "user"]
    assert sent[1][1].startswith("alpha beta")
    for _ in range(50):  # readline shows its mark a moment before it waits for keys, and misses a signal in between
        time.sleep(0.1)
        chat.type(CTRL_C)  # at the prompt
        if chat.sees("Ctrl-D or /exit leaves", 1):
            break
    chat.until("\n> ")
    assert chat.ask("still here") == "still here"
    chat.type(CTRL_D)
    assert chat.process.wait(30) == 0


def test_a_failure_is_told_and_the_chat_goes_on(terminal, provider, at):
    provider.fail.append(Fail(status=400, body={"error": {"message": "as told"}}, times=1))
    chat = terminal("infer", "-i", *at)
    chat.until("\n> ")
    shown = chat.ask("question")
    assert "error: as told" in shown
    assert "/retry" in shown
    assert chat.ask("/retry") == "question"
    chat.type(CTRL_D)
    assert chat.process.wait(30) == 0


def test_from_a_pipe_each_line_is_a_turn(program, provider, at):
    done = program("infer", "-i", *at, stdin="one\ntwo\n\nthree")
    assert done.stdout == "one\ntwo\nthree\n"
    assert done.returncode == 0
    assert len(last_request(provider)) == 5
    provider.fail.append(Fail(status=400, times=1))
    assert program("chat", *at, stdin="one\ntwo\n").returncode == 1


def test_a_first_prompt_may_be_an_argument(program, provider, at):
    assert program("chat", "hello", *at, stdin="/history\n").stdout == "hello\n"


def test_the_embedded_model_talks(program):
    done = program("chat", stdin="What is the capital of France?\nHello!\n")
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout.splitlines()[0]
    assert len(done.stdout.splitlines()) >= 2
    assert "embedded" in done.stderr


# -- what a session remembers ------------------------------------------------------------------------------------------


def _talk(*pairs: tuple[Role, str]) -> Session:
    session = Session()
    for role, text in pairs:
        session.add(Message(role=role, content=text))
    return session


def test_marks_survive_saving_loading_and_cutting(tmp_path):
    session = _talk((Role.USER, "a"))
    session.system = "s"
    session.add(Message(role=Role.ASSISTANT, content="b"), interrupted=True)
    session.add(Message(role=Role.USER, content="c"))
    session.add(Message(role=Role.ASSISTANT, content="d"), interrupted=True)
    session.save(tmp_path / "x")
    other = Session()
    other.load(tmp_path / "x")
    assert (other.system, other.interrupted, other.conversation()) == ("s", {1, 3}, session.conversation())
    assert other.undo()
    assert other.interrupted == {1}
    assert other.drop_answer()
    assert other.interrupted == set()
    assert [message.text for message in other.messages] == ["a"]
    assert other.undo()
    assert not other.undo()


@pytest.mark.parametrize("content", [b"", b"\n", b"nonsense\n", b"\xff\xfe", b'{"messages": 5}'])
def test_a_file_that_is_no_conversation_changes_nothing(tmp_path, content):
    session = _talk((Role.USER, "a"))
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ConfigError):
        session.load(tmp_path / "x")
    assert [message.text for message in session.messages] == ["a"]
    with pytest.raises(ConfigError, match="cannot read"):
        session.load(tmp_path / "none")
    with pytest.raises(ConfigError, match="cannot write"):
        session.save(tmp_path / "none" / "x")
