"""Gemini's batches on loopback: the resumable upload, operations, the download. Shapes: ai.google.dev, "Batch API"."""

from __future__ import annotations

import json
import re
from typing import Any

from tests.batch.jobs.fakes import reply
from tests.servers.canned import Answer, Request, answer, stream


def refusal(status: int, message: str, word: str = "INVALID_ARGUMENT") -> Answer:
    return reply({"error": {"code": status, "message": message, "status": word}}, status)


class GeminiBatches:
    """``/upload/v1beta/files``, ``/v1beta/models/M:batchGenerateContent``, ``/v1beta/batches`` and
    ``/download/v1beta/files``. Rows whose text begins with ``bad`` fail, ``busy`` ones found no capacity, ``lost`` ones
    vanish, ``shut`` ones are blocked; answers come in reverse order.

    Attributes:
        origin: of this server, for the URLs that it names.
        state: of every batch; a list is played one look at a time.
        done: of each batch, how many rows have an answer; None for all.
        trouble: answers to give first, by ``"METHOD path"``.
        cuts: how many bytes each of the first uploads loses the connection after.
        forgets: the answer to a finished upload is lost.
    """

    def __init__(self) -> None:
        self.origin = ""
        self.files: dict[str, bytes] = {}
        self.partly: dict[str, bytes] = {}
        self.ended: set[str] = set()
        self.starts: list[Request] = []
        self.uploads: list[tuple[str, int, int]] = []
        self.batches: dict[str, dict[str, Any]] = {}
        self.state: str | list[str] = "BATCH_STATE_SUCCEEDED"
        self.done: int | None = None
        self.error: dict[str, Any] | None = None
        self.trouble: dict[str, list[Answer]] = {}
        self.cuts: list[int] = []
        self.forgets = 0
        self.created_silently = False

    def __call__(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        if path != "/upload/there":
            assert request.headers["x-goog-api-key"] == "AIza-very-secret"
        waiting = self.trouble.get(f"{request.method} {path}")
        if waiting:
            if path.endswith(":batchGenerateContent") and self.created_silently:
                self.create(path, request)
            return waiting.pop(0)
        if path == "/upload/v1beta/files":
            return self.start(request)
        if path == "/upload/there":
            return self.upload(request, query.removeprefix("upload_id="))
        if path.startswith("/download/v1beta/files/"):
            assert query == "alt=media"
            body = self.files[path.removeprefix("/download/v1beta/").removesuffix(":download")]
            return stream(*[body[at : at + 97] for at in range(0, len(body), 97)], content_type="application/octet")
        if path.endswith(":batchGenerateContent"):
            return reply(self.create(path, request))
        if (request.method, path) == ("GET", "/v1beta/batches"):
            return reply({"operations": [self.shape(name, "BATCH_STATE_PENDING") for name in self.batches]})
        found = re.fullmatch(r"/v1beta/(batches/\w+)(:cancel)?", path)
        assert found is not None, request.target
        if found[2]:
            assert request.method == "POST"
            assert not request.body
            self.state = "BATCH_STATE_CANCELLED"
            return reply({})
        return reply(self.shape(found[1], self.state if isinstance(self.state, str) else self.state.pop(0)))

    # -- files ---------------------------------------------------------------------------------------------------------

    def start(self, request: Request) -> Answer:
        assert request.headers["x-goog-upload-protocol"] == "resumable"
        assert request.headers["x-goog-upload-command"] == "start"
        self.starts.append(request)
        name = f"u{len(self.starts)}"
        self.partly[name] = b""
        headers = {
            "x-goog-upload-url": f"{self.origin}/upload/there?upload_id={name}",
            "x-goog-upload-status": "active",
            "x-goog-upload-chunk-granularity": "8388608",
        }
        return answer(b"", headers=headers)

    def upload(self, request: Request, name: str) -> Answer:
        command = request.headers["x-goog-upload-command"]
        if command == "query":
            state = "final" if name in self.ended else "active"
            received = str(len(self.partly[name]))
            return answer(b"", headers={"x-goog-upload-status": state, "x-goog-upload-size-received": received})
        assert command == "upload, finalize"
        start = int(request.headers["x-goog-upload-offset"])
        self.uploads.append((name, start, len(request.body)))
        assert start == len(self.partly[name])
        if self.cuts:
            self.partly[name] += request.body[: self.cuts.pop(0)]
            return ["reset"]
        self.partly[name] += request.body
        asked = self.starts[int(name[1:]) - 1]
        assert len(self.partly[name]) == int(asked.headers["x-goog-upload-header-content-length"])
        self.ended.add(name)
        if self.forgets:
            self.forgets -= 1
            return ["reset"]
        self.files[f"files/{name}"] = self.partly[name]
        file = {"name": f"files/{name}", "sizeBytes": str(len(self.partly[name])), "state": "ACTIVE"}
        return answer(json.dumps({"file": file}).encode(), headers={"x-goog-upload-status": "final"})

    # -- batches -------------------------------------------------------------------------------------------------------

    def create(self, path: str, request: Request) -> dict[str, Any]:
        asked = request.json["batch"]
        assert asked["inputConfig"]["fileName"] in self.files
        name = f"batches/b{len(self.batches)}"
        model = path.removeprefix("/v1beta/").removesuffix(":batchGenerateContent")
        self.batches[name] = {"model": model, "displayName": asked["displayName"], **asked["inputConfig"]}
        return self.shape(name, "BATCH_STATE_PENDING")

    def shape(self, name: str, state: str) -> dict[str, Any]:
        made = self.batches[name]
        rows = [json.loads(line) for line in self.files[made["fileName"]].splitlines()]
        kind = "type.googleapis.com/google.ai.generativelanguage.v1beta.GenerateContentBatch"
        batch: dict[str, Any] = {
            "@type": kind,
            "model": made["model"],
            "displayName": made["displayName"],
            "inputConfig": {"fileName": made["fileName"]},
            "createTime": "2026-01-01T00:00:00.000000001Z",
            "updateTime": "2026-01-01T00:00:00.000000001Z",
            "batchStats": {"requestCount": str(len(rows)), "pendingRequestCount": str(len(rows))},
            "state": state,
            "name": name,
        }
        operation: dict[str, Any] = {"name": name, "metadata": batch}
        if state not in {"BATCH_STATE_PENDING", "BATCH_STATE_RUNNING", "BATCH_STATE_NOVEL"}:
            operation["done"] = True
            if state.endswith("CANCELLED"):
                operation["error"] = {"code": 1, "message": "The operation was cancelled."}
            if self.error is not None:
                operation["error"] = self.error
        if state.partition("_STATE_")[2] in {"SUCCEEDED", "EXPIRED", "CANCELLED", "RETIRED"}:
            lines = [line for line in map(self.outcome, rows[: self.done][::-1]) if line is not None]
            file = f"files/batch-{name.removeprefix('batches/')}"
            self.files[file] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            good = sum("response" in line for line in lines)
            batch["output"] = {"responsesFile": file}
            batch["batchStats"] = {
                "requestCount": str(len(rows)),
                "successfulRequestCount": str(good),
                "failedRequestCount": str(len(lines) - good),
            }
            if "error" not in operation:
                operation["response"] = {"@type": f"{kind}Output", "responsesFile": file}
        return operation

    def outcome(self, row: dict[str, Any]) -> dict[str, Any] | None:
        text = row["request"]["contents"][-1]["parts"][0]["text"]
        if text.startswith("lost"):
            return None
        if text.startswith("bad"):
            return {"key": row["key"], "error": {"code": 3, "message": "too rude"}}
        if text.startswith("busy"):
            return {"key": row["key"], "error": {"code": 14, "message": "The model is overloaded."}}
        counted = {"promptTokenCount": 3, "candidatesTokenCount": 2, "totalTokenCount": 5}
        found: dict[str, Any] = {"usageMetadata": counted, "modelVersion": "gemini-x-001", "responseId": "r1"}
        if text.startswith("shut"):
            return {"key": row["key"], "response": found | {"promptFeedback": {"blockReason": "SAFETY"}}}
        content = {"role": "model", "parts": [{"text": f"re: {text}"}]}
        found["candidates"] = [{"content": content, "finishReason": "STOP", "index": 0}]
        return {"key": row["key"], "response": found}
