"""One conversation of three answers, told in nobody's format, and the pieces that a provider should find of it.

A format (see `formats`) writes the answers as its provider would and reads our requests as its provider would; what it
reads is a list of `Piece`, the same for all.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from asyncinfer.conversation import ContentItem, Message, Role, Type
from asyncinfer.events import Usage

PNG = bytes.fromhex("89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de")
JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(16)
WEBP = b"RIFF\x24\x00\x00\x00WEBPVP8 " + bytes(16)
SYSTEM = "Be brief – über alles."
WX = {
    "type": "function",
    "function": {
        "name": "wx",
        "description": "Weather.",
        "parameters": {"type": "object", "properties": {"c": {"type": "string"}}},
    },
}
NOW = {"type": "function", "function": {"name": "now", "description": "Time.", "parameters": {"type": "object"}}}
TOOLS = [WX, NOW]

QUESTION = Message(
    role=Role.USER,
    content=[
        ContentItem(type=Type.TEXT, content="Where is this? 中🙂"),
        ContentItem(type=Type.IMAGE_BINARY, binary=PNG),
        # Its name lies: what counts is what the bytes are.
        ContentItem(type=Type.IMAGE_PATH, content="photo.png", binary=JPEG),
        ContentItem(type=Type.TEXT, content="And this?"),
        ContentItem(type=Type.IMAGE_BINARY, binary=WEBP),
    ],
)
THANKS = "Thanks. And tomorrow?"


class Piece(NamedTuple):
    """One thing that a provider finds in a request, in its order.

    ``kind`` is ``system``, ``text`` (with the role), ``image`` (media type, bytes), ``thinking`` (text, and what seals
    it), ``call`` (id, name, arguments, and what seals it) or ``result`` (id, text, whether it is an error).
    """

    kind: str
    a: Any = None
    b: Any = None
    c: Any = None
    d: Any = None


class Call(NamedTuple):
    id: str
    name: str
    arguments: dict[str, Any]


class Result(NamedTuple):
    id: str
    text: str
    is_error: bool = False


@dataclass
class Turn:
    """One answer, and what the caller's tools made of its calls."""

    thinking: str
    seal: str
    text: str
    usage: Usage
    calls: list[Call] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def messages(self) -> list[Message]:
        """The tool messages that follow the answer."""
        return [
            Message(
                role=Role.TOOL,
                content=result.text,
                tool_call_id=result.id,
                name=next(call.name for call in self.calls if call.id == result.id),
                **({"is_error": True} if result.is_error else {}),
            )
            for result in self.results
        ]


TURNS = [
    Turn(
        "Need the weather of two places – «Zoë 🙂».",
        "c2lnbmF0dXJlLTE+Pz8/",
        "Looking …",
        Usage(130, 38, 100, 0, 9),
        # Ids as every format allows them; those of other providers are another test.
        [Call("call_1", "wx", {"c": "Oslo"}), Call("call_2", "wx", {"c": "Bodø 中"}), Call("call_3", "now", {})],
        [Result("call_1", "rain"), Result("call_2", "no such town", is_error=True), Result("call_3", '{"t": 3}')],
    ),
    Turn(
        "Once more.\n\nCarefully.",
        "c2lnbmF0dXJlLTIvLw==",
        "",
        Usage(210, 20, 0, 0, 5),
        [Call("call_4", "wx", {"c": 'Bo"d\\o', "days": [1, 2.5, None, True]})],
        [Result("call_4", "fog")],
    ),
    Turn("So it rains.", "c2lnbmF0dXJlLTM=", "It rains in Oslo.", Usage(260, 12, 200, 0, 4)),
]


@dataclass(frozen=True)
class Traits:
    """What a format can carry at all.

    Attributes:
        seals: thinking travels with its signature, or encrypted.
        call_seals: so does the first call of an answer, in the place of the thinking.
        thinking: thinking goes back as text.
        old_thinking: also that of answers before the last user message.
        errors: a tool's result can be marked as an error.
        reasoning: the usage tells of reasoning tokens.
    """

    seals: bool = True
    call_seals: bool = False
    thinking: bool = True
    old_thinking: bool = True
    errors: bool = True
    reasoning: bool = True


def expected(answered: int, traits: Traits, *, thanked: bool) -> list[Piece]:
    """What a provider must find in the request after so many answers."""
    pieces = [
        Piece("system", SYSTEM),
        Piece("text", "user", "Where is this? 中🙂"),
        Piece("image", "image/png", PNG),
        Piece("image", "image/jpeg", JPEG),
        Piece("text", "user", "And this?"),
        Piece("image", "image/webp", WEBP),
    ]
    for turn in TURNS[:answered]:
        if traits.thinking and (traits.old_thinking or (turn.calls and not thanked)):
            pieces.append(Piece("thinking", turn.thinking, turn.seal if traits.seals else None))
        if turn.text:
            pieces.append(Piece("text", "assistant", turn.text))
        for at, call in enumerate(turn.calls):
            sealed = turn.seal if traits.call_seals and at == 0 else None
            pieces.append(Piece("call", call.id, call.name, call.arguments, sealed))
        pieces += [Piece("result", r.id, r.text, r.is_error if traits.errors else None) for r in turn.results]
    if thanked:
        pieces.append(Piece("text", "user", THANKS))
    return pieces
