"""The batch APIs of providers, in the exact shapes of the wire, on loopback. A test says how far a job is."""

from __future__ import annotations

import email.parser
import email.policy
import json
import re
from typing import Any

from tests.servers.canned import Answer, Request, answer, stream


def reply(value: Any, status: int = 200) -> Answer:
    return answer(json.dumps(value).encode(), status)


def refusal(status: int, message: str, code: str | None = None) -> Answer:
    return reply({"error": {"message": message, "type": "invalid_request_error", "code": code}}, status)


def form_of(request: Request) -> dict[str, tuple[str | None, bytes]]:
    """A multipart form, read by the standard library: name -> (file name, content)."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head + request.body)
    return {
        str(part.get_param("name", header="content-disposition")): (
            part.get_filename(),
            part.get_payload(decode=True).removesuffix(b"\r\n"),
        )
        for part in message.iter_parts()
    }


def chat(text: str) -> dict[str, Any]:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "gpt-4o-mini-2024-07-18",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": text, "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
    }


class OpenAIBatches:
    """``/v1/files`` and ``/v1/batches``. Rows whose text begins with ``bad`` fail, ``lost`` ones vanish; answers come
    in reverse order.

    Attributes:
        status: of every batch: what `look` will see. A list is played one look at a time.
        done: of each batch, how many rows have an answer; None for all.
        trouble: answers to give first, by ``"METHOD path"``.
    """

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.status: str | list[str] = "completed"
        self.done: int | None = None
        self.errors: Any = None
        self.trouble: dict[str, list[Answer]] = {}
        self.forms: list[dict[str, tuple[str | None, bytes]]] = []
        self.created_silently = False

    def __call__(self, request: Request) -> Answer:
        path = request.target.partition("?")[0]
        waiting = self.trouble.get(f"{request.method} {path}")
        if waiting:
            if path == "/v1/batches" and self.created_silently:
                self.create(request)
            return waiting.pop(0)
        match request.method, path.removeprefix("/v1").strip("/").split("/"):
            case "POST", ["files"]:
                form = form_of(request)
                self.forms.append(form)
                name = f"file-{len(self.files)}"
                self.files[name] = form["file"][1]
                return reply({"id": name, "object": "file", "bytes": len(form["file"][1]), "purpose": "batch"})
            case "GET", ["files", name, "content"]:
                body = self.files[name]
                return stream(*[body[at : at + 97] for at in range(0, len(body), 97)], content_type="application/octet")
            case "POST", ["batches"]:
                return reply(self.create(request))
            case "GET", ["batches"]:
                return reply({"object": "list", "data": list(self.batches.values())[::-1], "has_more": False})
            case "GET", ["batches", name]:
                return reply(self.look(name))
            case "POST", ["batches", name, "cancel"]:
                self.status = "cancelling"
                return reply(self.batches[name] | {"status": "cancelling"})
        return refusal(404, f"no {path}")

    def create(self, request: Request) -> dict[str, Any]:
        name = f"batch_{len(self.batches)}"
        asked = request.json
        assert asked["input_file_id"] in self.files
        self.batches[name] = asked | {"id": name, "object": "batch", "status": "validating", "created_at": 1}
        return self.batches[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.files[self.batches[name]["input_file_id"]].splitlines()]

    def look(self, name: str) -> dict[str, Any]:
        status = self.status if isinstance(self.status, str) else self.status.pop(0)
        rows = self.rows(name)
        batch = self.batches[name] | {"status": status, "errors": self.errors}
        if status in {"completed", "expired", "cancelled", "retired"}:
            good, bad = self.outcome(rows[: self.done])
            batch["completed_at"] = 5 if status in {"completed", "retired"} else None
            for key, lines in (("output_file_id", good), ("error_file_id", bad)):
                batch[key] = None
                if lines:
                    batch[key] = f"{key}-{name}"
                    self.files[batch[key]] = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
            batch["request_counts"] = {"total": len(rows), "completed": len(good), "failed": len(bad)}
        else:
            batch["request_counts"] = {"total": len(rows), "completed": 0, "failed": 0}
        return batch

    def outcome(self, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
        good, bad = [], []
        for row in rows[::-1]:
            text = row["body"]["messages"][-1]["content"]
            line = {"id": "batch_req_1", "custom_id": row["custom_id"], "error": None}
            if text.startswith("lost"):
                continue
            if text.startswith("bad"):
                body = {"error": {"message": "too rude", "type": "invalid_request_error", "code": "bad_words"}}
                bad.append(line | {"response": {"status_code": 400, "request_id": "req_b", "body": body}})
            else:
                body = chat(f"re: {text}")
                good.append(line | {"response": {"status_code": 200, "request_id": "req_g", "body": body}})
        if self.done is not None:
            expired = {"code": "batch_expired", "message": "This request could not be executed before it expired."}
            bad.append({"id": "x", "custom_id": "row-999999", "response": None, "error": expired})
        return good, bad


class AnthropicBatches:
    """``/v1/messages/batches``; texts as for `OpenAIBatches`, ``old`` ones expire and ``off`` ones are cancelled."""

    def __init__(self) -> None:
        self.batches: dict[str, dict[str, Any]] = {}
        self.status: str | list[str] = "ended"
        self.trouble: dict[str, list[Answer]] = {}

    def __call__(self, request: Request) -> Answer:
        waiting = self.trouble.get(f"{request.method} {request.target}")
        if waiting:
            return waiting.pop(0)
        assert any("sk-ant-test" in value for value in request.headers.values())
        assert request.headers["anthropic-version"]
        if (request.method, request.target) == ("POST", "/v1/messages/batches"):
            name = f"msgbatch_{len(self.batches)}"
            self.batches[name] = request.json
            return reply(self.shape(name, "in_progress"))
        found = re.fullmatch(r"/v1/messages/batches/(\w+)(/\w+)?", request.target)
        assert found is not None
        name, verb = found.groups()
        if verb == "/cancel" and request.method == "POST":
            self.status = "canceling"
            return reply(self.shape(name, "canceling"))
        if verb == "/results":
            lines = [json.dumps(row).encode() + b"\n" for row in map(self.result, self.requests(name)[::-1])]
            return stream(*lines, content_type="application/binary")
        return reply(self.shape(name, self.status if isinstance(self.status, str) else self.status.pop(0)))

    def requests(self, name: str) -> list[dict[str, Any]]:
        return [row for row in self.batches[name]["requests"] if not self.text(row).startswith("lost")]

    @staticmethod
    def text(row: dict[str, Any]) -> str:
        content = row["params"]["messages"][-1]["content"]
        return content if isinstance(content, str) else content[0]["text"]

    def shape(self, name: str, status: str) -> dict[str, Any]:
        kinds = [self.result(row)["result"]["type"] for row in self.requests(name)] if status == "ended" else []
        names = ("succeeded", "errored", "canceled", "expired")
        return {
            "id": name,
            "type": "message_batch",
            "processing_status": status,
            "request_counts": {"processing": 0 if kinds else 3} | {kind: kinds.count(kind) for kind in names},
            "ended_at": "2026-01-01T00:00:00Z" if status == "ended" else None,
            "created_at": "2026-01-01T00:00:00Z",
            "results_url": "https://elsewhere.invalid/results" if status == "ended" else None,
        }

    def result(self, row: dict[str, Any]) -> dict[str, Any]:
        text = self.text(row)
        message = {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": "claude-test",
            "content": [{"type": "text", "text": f"re: {text}"}],
            "stop_reason": "end_turn",
            "stop_sequence": None,
            "usage": {"input_tokens": 3, "output_tokens": 2},
        }
        error = {"type": "error", "error": {"type": "invalid_request_error", "message": "too rude"}, "request_id": "r"}
        results: dict[str, dict[str, Any]] = {
            "bad": {"type": "errored", "error": error},
            "old": {"type": "expired"},
            "off": {"type": "canceled"},
        }
        return {
            "custom_id": row["custom_id"],
            "result": results.get(text[:3], {"type": "succeeded", "message": message}),
        }
