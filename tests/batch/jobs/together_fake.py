"""Together's ``/v1/files`` and ``/v1/batches``: a redirect to a signed URL of another host, upper-case states, a bare
list. The store is another server, so another origin."""

from __future__ import annotations

import json
from typing import Any

from tests.batch.jobs.fakes import OpenAIBatches, form_of, refusal, reply
from tests.servers.canned import Answer, Request, answer


class Store:
    """Where signed URLs lead. It takes what it is sent, once the trouble is over."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.requests: list[Request] = []
        self.trouble: list[Answer] = []

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.trouble:
            return self.trouble.pop(0)
        path, _, query = request.target.partition("?")
        if (request.method, query) != ("PUT", "X-Amz-Signature=s3cr3t"):
            return answer(b"<Error><Code>AccessDenied</Code></Error>", 403, content_type="application/xml")
        self.files[path.rpartition("/")[2]] = request.body
        return answer(b"", content_type="application/xml")


class TogetherBatches(OpenAIBatches):
    """Rows as for `OpenAIBatches`. ``progress`` is what running batches report."""

    def __init__(self, store: Store, store_url: str) -> None:
        super().__init__()
        self.status = "COMPLETED"
        self.store, self.store_url = store, store_url
        self.names: dict[str, str] = {}
        self.uploads: list[dict[str, Any]] = []
        self.error: str | None = None
        self.progress = 0.0

    def __call__(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        waiting = self.trouble.get(f"{request.method} {path}")
        if waiting:
            if path == "/v1/batches" and self.created_silently:
                self.create(request)
            return waiting.pop(0)
        match request.method, path.removeprefix("/v1").strip("/").split("/"):
            case "POST", ["files"]:
                form = {name: value.decode() for name, (_, value) in form_of(request).items()}
                self.uploads.append(form)
                name = f"file-{len(self.uploads)}"
                self.names[name] = form["file_name"]
                target = f"{self.store_url}/bucket/{name}?X-Amz-Signature=s3cr3t"
                return answer(b"", 302, {"Location": target, "X-Together-File-Id": name})
            case "POST", ["files", name, "preprocess"]:
                self.files[name] = self.store.files[name]
                return reply(self.file(name))
            case "GET", ["files"]:
                return reply({"data": [self.file(name) for name in self.names]})
            case "GET", ["batches"]:
                return reply([self.shape(name) for name in self.batches][::-1])
            case "POST", ["batches"]:
                return reply({"job": self.create(request), "warning": ""}, 201)
            case "POST", ["batches", name, "cancel"]:
                self.status = "CANCELLED"
                return reply(self.shape(name))
            case _:
                pass
        if path.startswith(("/v1/files", "/v1/batches")):
            return super().__call__(request)
        return refusal(404, f"no {path}")

    def file(self, name: str) -> dict[str, Any]:
        size = len(self.files.get(name, b""))
        more = {"filename": self.names[name], "FileType": "jsonl", "purpose": "batch-api", "created_at": 1}
        return {"id": name, "object": "file", "bytes": size, **more}

    def create(self, request: Request) -> dict[str, Any]:
        name = f"batch-{len(self.batches)}"
        assert request.json["input_file_id"] in self.files
        self.batches[name] = request.json | {"id": name}
        return self.shape(name, "VALIDATING")

    def shape(self, name: str, status: str | None = None) -> dict[str, Any]:
        asked = self.batches[name]
        return {
            "id": name,
            "user_id": "u",
            "input_file_id": asked["input_file_id"],
            "file_size_bytes": 1,
            "status": status or (self.status if isinstance(self.status, str) else self.status[0]),
            "job_deadline": "2026-01-02T00:00:00Z",
            "created_at": "2026-01-01T00:00:00Z",
            "endpoint": asked["endpoint"],
            "progress": self.progress,
            "model_id": "m",
        }

    def look(self, name: str) -> dict[str, Any]:
        status = self.status if isinstance(self.status, str) else self.status.pop(0)
        batch = self.shape(name, status) | {"error": self.error}
        if status in {"COMPLETED", "EXPIRED", "CANCELLED"}:
            good, bad = self.outcome(self.rows(name)[: self.done])
            bad = [{"custom_id": row["custom_id"], "error": self.why(row)} for row in bad]
            batch["progress"] = 100.0
            for key, lines in (("output_file_id", good), ("error_file_id", bad)):
                batch[key] = f"{key}-{name}" if lines else ""
                if lines:
                    self.files[batch[key]] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
        return batch

    @staticmethod
    def why(row: dict[str, Any]) -> dict[str, Any]:
        response = row["response"]
        if response is None:
            return {"message": "expired", "code": "batch_expired"}
        return {key: response["body"]["error"][key] for key in ("message", "code")}
