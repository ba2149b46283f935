"""Amazon Bedrock's Converse and ConverseStream, client side.

``encode`` (with ``blocks`` and ``families``) makes the arguments of a call, as dictionaries, for whoever signs and
sends them; ``frames`` cuts AWS's event stream into messages and ``decode`` turns those, or a whole document, into
events; ``refusals`` gives an exception of the service its type and verdict.

Rule: as everywhere in `wire`, nothing is sent here. Names and shapes are those of the service's public model.
"""

from __future__ import annotations

from .decode import ConverseDecoder, read_document
from .encode import answers_by_call, encode_request, unsupported
from .refusals import refusal

__all__ = ["ConverseDecoder", "answers_by_call", "encode_request", "read_document", "refusal", "unsupported"]
