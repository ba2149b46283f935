"""Bedrock's model invocation jobs and the S3 they work on, on loopback. Shapes: botocore's own models, which parse what
is said here and refuse what they do not know."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import parse_qsl, unquote

from tests.servers import s3
from tests.servers.bedrock_bytes import refusal
from tests.servers.canned import Answer, Request, answer

ROLE = "arn:aws:iam::123456789012:role/batches"
_ARN = "arn:aws:bedrock:us-east-1:123456789012:model-invocation-job/"


class BedrockJobs:
    """Rows whose text begins with ``bad`` fail, ``busy`` ones are throttled, ``lost`` ones vanish; answers come in
    reverse order.

    Attributes:
        store: the buckets; there is one, ``rows``.
        status: of every job; a list is played one look at a time.
        done: of each job, how many rows have an answer; None for all.
        counts: whether a job tells how many, or only its manifest does.
        message: why a job failed.
        trouble: answers to give first, by ``"METHOD path"``.
    """

    def __init__(self) -> None:
        self.store = s3.Buckets("rows")
        self.jobs: dict[str, dict[str, Any]] = {}
        self.status: str | list[str] = "Completed"
        self.done: int | None = None
        self.counts = True
        self.message: str | None = None
        self.trouble: dict[str, list[Answer]] = {}
        self.created_silently = False

    def __call__(self, request: Request) -> Answer:
        path, _, query = request.target.partition("?")
        waiting = self.trouble.get(f"{request.method} {path}")
        if waiting:
            if self.created_silently:
                self.create(request)
            return waiting.pop(0)
        if (request.method, path) == ("POST", "/model-invocation-job"):
            return reply({"jobArn": self.create(request)})
        if (request.method, path) == ("GET", "/model-invocation-jobs"):
            named = dict(parse_qsl(query))["nameContains"]
            rows = [self.shape(arn, "Submitted") for arn, job in self.jobs.items() if named in job["jobName"]]
            return reply({"invocationJobSummaries": rows})
        found = re.fullmatch(r"/model-invocation-job/([^/]+)(/stop)?", path)
        if found is None:
            assert "s3/aws4_request" in request.headers["authorization"]
            return self.store(request)
        arn = unquote(found[1])
        if arn not in self.jobs:
            return refusal(404, "ResourceNotFoundException", "no such job")
        if found[2]:
            assert request.method == "POST"
            self.status = "Stopping"
            return reply({})
        return reply(self.shape(arn, self.status if isinstance(self.status, str) else self.status.pop(0)))

    def create(self, request: Request) -> str:
        asked = request.json
        for arn, job in self.jobs.items():
            if job["clientRequestToken"] == asked["clientRequestToken"]:
                return arn
        source = asked["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].removeprefix("s3://")
        assert len(self.store.objects[source].splitlines()) >= 100
        arn = f"{_ARN}job{len(self.jobs):09d}"
        self.jobs[arn] = asked
        return arn

    def rows(self, arn: str) -> list[dict[str, Any]]:
        source = self.jobs[arn]["inputDataConfig"]["s3InputDataConfig"]["s3Uri"].removeprefix("s3://")
        return [json.loads(line) for line in self.store.objects[source].splitlines()]

    def shape(self, arn: str, status: str) -> dict[str, Any]:
        job = self.jobs[arn]
        names = ("jobName", "modelId", "roleArn", "inputDataConfig", "outputDataConfig", "modelInvocationType")
        found = {name: job[name] for name in names}
        found |= {"jobArn": arn, "status": status, "submitTime": "2026-01-01T00:00:00Z"}
        if self.message is not None:
            found["message"] = self.message
        if status not in {"Completed", "PartiallyCompleted", "Stopped", "Expired", "Novel"}:
            return found
        rows = self.rows(arn)
        lines = [line for line in map(self.outcome, rows[: self.done][::-1]) if line is not None]
        good = sum("modelOutput" in line for line in lines)
        counts = {
            "totalRecordCount": len(rows),
            "processedRecordCount": len(lines),
            "successRecordCount": good,
            "errorRecordCount": len(lines) - good,
        }
        folder = job["outputDataConfig"]["s3OutputDataConfig"]["s3Uri"].removeprefix("s3://")
        folder += arn.removeprefix(_ARN)
        self.store.objects[f"{folder}/input.jsonl.out"] = b"".join(json.dumps(x).encode() + b"\n" for x in lines)
        self.store.objects[f"{folder}/manifest.json.out"] = json.dumps(counts | {"inputTokenCount": 3}).encode()
        self.store.objects[f"{folder}/amazon-bedrock-permission-check"] = b""
        return found | {"endTime": "2026-01-01T01:00:00Z"} | (counts if self.counts else {})

    def outcome(self, row: dict[str, Any]) -> dict[str, Any] | None:
        text = row["modelInput"]["messages"][-1]["content"][0]["text"]
        line = {"modelInput": row["modelInput"], "recordId": row["recordId"]}
        if text.startswith("lost"):
            return None
        if text.startswith("bad"):
            return line | {"error": {"errorCode": 400, "errorMessage": "too rude"}}
        if text.startswith("busy"):
            return line | {"error": {"errorCode": "ThrottlingException", "errorMessage": "slow down"}}
        content: list[dict[str, Any]] = [{"text": f"re: {text}"}]
        if text.startswith("think"):
            content.insert(0, {"reasoningContent": {"redactedContent": "c2VhbGVk"}})
        return line | {
            "modelOutput": {
                "output": {"message": {"role": "assistant", "content": content}},
                "stopReason": "end_turn",
                "usage": {"inputTokens": 3, "outputTokens": 2, "totalTokens": 5},
                "metrics": {"latencyMs": 1},
            }
        }


def reply(value: Any) -> Answer:
    return answer(json.dumps(value).encode(), headers={"x-amzn-requestid": "r-1"})
