"""Enough of S3's REST interface for whoever puts, gets and lists: path-style, XML, parts, pages. Over real HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from urllib.parse import parse_qsl, unquote
from xml.sax.saxutils import escape

from .canned import Answer, Request, answer, stream

_XML = '<?xml version="1.0" encoding="UTF-8"?>\n'


class Buckets:
    """See the module.

    Attributes:
        objects: content by ``"bucket/key"``.
        parts: of uploads that have not ended, by their id.
        page: keys of one page of a listing.
        piece: bytes of one chunk of a download.
    """

    def __init__(self, *names: str) -> None:
        self.names = set(names)
        self.objects: dict[str, bytes] = {}
        self.parts: dict[str, dict[int, bytes]] = {}
        self.page = 2
        self.piece = 997
        self.begun = 0

    def __call__(self, request: Request) -> Answer:
        target, _, query = request.target.partition("?")
        asked = dict(parse_qsl(query, keep_blank_values=True))
        bucket, _, key = unquote(target).lstrip("/").partition("/")
        if bucket not in self.names:
            return refusal(404, "NoSuchBucket", "The specified bucket does not exist")
        place = f"{bucket}/{key}"
        match request.method:
            case "GET" if not key:
                return self.listing(bucket, asked)
            case "GET" if place in self.objects:
                return self.download(self.objects[place])
            case "GET":
                return refusal(404, "NoSuchKey", "The specified key does not exist.")
            case "POST" if "uploads" in asked:
                self.begun += 1
                self.parts[f"up-{self.begun}"] = {}
                return xml("InitiateMultipartUploadResult", f"<UploadId>up-{self.begun}</UploadId>")
            case "PUT" if "partNumber" in asked:
                self.parts[asked["uploadId"]][int(asked["partNumber"])] = body_of(request)
                return answer(b"", headers={"etag": etag(body_of(request))})
            case "POST" if "uploadId" in asked and asked["uploadId"] not in self.parts:
                return refusal(404, "NoSuchUpload", "The specified upload does not exist.")
            case "POST" if "uploadId" in asked:
                parts = self.parts.pop(asked["uploadId"])
                assert sorted(parts) == list(range(1, len(parts) + 1))
                assert request.body.count(b"<ETag>") == len(parts)
                self.objects[place] = b"".join(parts[number] for number in sorted(parts))
                return xml("CompleteMultipartUploadResult", f"<Key>{escape(key)}</Key>")
            case "DELETE" if "uploadId" in asked:
                del self.parts[asked["uploadId"]]
                return [b"HTTP/1.1 204 No Content\r\n\r\n"]
            case "PUT":
                self.objects[place] = body_of(request)
                return answer(b"", headers={"etag": etag(self.objects[place])})
        return refusal(405, "MethodNotAllowed", request.method)

    def download(self, content: bytes) -> Answer:
        pieces: Iterator[bytes] = (content[at : at + self.piece] for at in range(0, len(content), self.piece))
        return stream(*pieces, content_type="binary/octet-stream")

    def listing(self, bucket: str, asked: dict[str, str]) -> Answer:
        assert asked["list-type"] == "2"
        before = f"{bucket}/{asked.get('prefix', '')}"
        keys = sorted(place.partition("/")[2] for place in self.objects if place.startswith(before))
        start = int(asked.get("continuation-token", 0))
        rows = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>1</Size></Contents>" for key in keys[start : start + self.page]
        )
        more = start + self.page < len(keys)
        token = f"<NextContinuationToken>{start + self.page}</NextContinuationToken>" if more else ""
        return xml("ListBucketResult", f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}{rows}")


def body_of(request: Request) -> bytes:
    """The content, without the framing of a body that is signed as it goes."""
    if "aws-chunked" not in request.headers.get("content-encoding", ""):
        return request.body
    content, rest = b"", request.body
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        count = int(size.partition(b";")[0], 16)
        if not count:
            break
        content, rest = content + rest[:count], rest[count + 2 :]
    return content


def etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


def xml(name: str, inner: str) -> Answer:
    space = "http://s3.amazonaws.com/doc/2006-03-01/"
    return answer(f'{_XML}<{name} xmlns="{space}">{inner}</{name}>'.encode(), content_type="application/xml")


def refusal(status: int, code: str, message: str) -> Answer:
    body = f"{_XML}<Error><Code>{code}</Code><Message>{message}</Message><RequestId>REQ</RequestId></Error>"
    return answer(body.encode(), status, content_type="application/xml")
