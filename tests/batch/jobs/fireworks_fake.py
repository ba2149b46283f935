"""Fireworks' control plane: accounts, datasets, batch inference jobs; answers behind signed URLs of another server."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qs

from tests.batch.jobs.fakes import chat, form_of, reply
from tests.servers.canned import Answer, Request, answer, stream

ACCOUNT = "accounts/acct"


def status(code: int, message: str, grpc: int) -> Answer:
    return reply({"code": grpc, "message": message, "details": []}, code)


class SignedStore:
    """What `FireworksJobs.files` holds, to whoever has a signature that still counts; and to nobody with a key."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.valid = 0
        self.requests: list[Request] = []
        self.trouble: list[Answer] = []

    def __call__(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.trouble:
            return self.trouble.pop(0)
        path, _, query = request.target.partition("?")
        if query != f"X-Goog-Signature={self.valid}":
            return answer(b"<Error><Code>ExpiredToken</Code></Error>", 400, content_type="application/xml")
        body = self.files[path.removeprefix("/bucket/")]
        return stream(*[body[at : at + 101] for at in range(0, len(body), 101)], content_type="application/json")


class FireworksJobs:
    """Rows whose text begins with ``bad`` fail, ``lost`` ones vanish; answers come in reverse order.

    Attributes:
        state: of every job, without ``JOB_STATE_``; a list is played one look at a time.
        done: how many rows have an answer; None for all.
        uploading: how many looks a dataset needs until it is ready.
        trouble: answers to give first, by ``"METHOD path"``.
        silently: do what was asked although the answer is trouble.
    """

    def __init__(self, store: SignedStore, store_url: str) -> None:
        self.store, self.store_url = store, store_url
        self.accounts = [ACCOUNT]
        self.datasets: dict[str, dict[str, Any]] = {}
        self.rows: dict[str, bytes] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.state: str | list[str] = "COMPLETED"
        self.done: int | None = None
        self.uploading = 1
        self.complaint = {"code": "OK", "message": ""}
        self.trouble: dict[str, list[Answer]] = {}
        self.silently = False
        self.signed = 0

    def __call__(self, request: Request) -> Answer:
        assert request.headers["authorization"] == "Bearer fw-secret"
        path, _, query = request.target.partition("?")
        path = path.removeprefix("/v1/")
        waiting = self.trouble.get(f"{request.method} {path}")
        if waiting:
            if self.silently:
                self.act(request, path, query)
            return waiting.pop(0)
        return self.act(request, path, query)

    def act(self, request: Request, path: str, query: str) -> Answer:
        what = path.removeprefix(f"{ACCOUNT}/")
        match request.method, what.split("/"):
            case "GET", ["accounts"]:
                return reply({"accounts": [{"name": name} for name in self.accounts], "nextPageToken": ""})
            case "POST", ["datasets"]:
                return self.new_dataset(request.json)
            case "POST", ["datasets", name] if name.endswith(":upload"):
                return self.upload(request, name.removesuffix(":upload"))
            case "GET", ["datasets", name] if name.endswith(":getDownloadEndpoint"):
                return self.endpoints(name.removesuffix(":getDownloadEndpoint"))
            case "GET", ["datasets", name] if name in self.datasets:
                return reply(self.dataset(name))
            case "DELETE", ["datasets", name]:
                del self.datasets[name]
                return reply({})
            case "POST", ["batchInferenceJobs"]:
                return self.new_job(parse_qs(query)["batchInferenceJobId"][0], request.json)
            case "GET", ["batchInferenceJobs", name] if name in self.jobs:
                return reply(self.look(name))
            case "DELETE", ["batchInferenceJobs", name] if name in self.jobs:
                self.jobs[name]["deleted"] = True
                return reply({})
        return status(404, "resource not found", 5)

    def new_dataset(self, asked: dict[str, Any]) -> Answer:
        assert set(asked) == {"datasetId", "dataset"}
        name = asked["datasetId"]
        assert len(name) <= 63
        if name in self.datasets:
            return status(409, "already exists", 6)
        if "exampleCount" not in asked["dataset"]:
            return status(400, "example_count is required for uploaded datasets", 3)
        self.datasets[name] = asked["dataset"] | {"left": self.uploading}
        return reply(self.dataset(name))

    def dataset(self, name: str) -> dict[str, Any]:
        kept = self.datasets[name]
        if name in self.rows and kept["left"]:
            kept["left"] -= 1
        ready = name in self.rows and not kept["left"]
        return {
            "name": f"{ACCOUNT}/datasets/{name}",
            "state": "READY" if ready else "UPLOADING",
            "status": self.complaint,
            "exampleCount": kept["exampleCount"],
            "userUploaded": {},
        }

    def upload(self, request: Request, name: str) -> Answer:
        file_name, body = form_of(request)["file"]
        assert name in self.datasets
        self.rows[name] = body
        full = f"{ACCOUNT}/datasets/{name}"
        return reply({"id": full, "object": "file", "bytes": len(body), "filename": file_name, "purpose": "dataset"})

    def new_job(self, name: str, asked: dict[str, Any]) -> Answer:
        if name in self.jobs:
            return status(409, "already exists", 6)
        dataset = asked["inputDatasetId"].removeprefix(f"{ACCOUNT}/datasets/")
        assert dataset in self.rows
        self.jobs[name] = asked | {"dataset": dataset, "output": f"bij-{len(self.jobs)}", "deleted": False}
        return reply(self.shape(name, "VALIDATING"))

    def shape(self, name: str, state: str) -> dict[str, Any]:
        job = self.jobs[name]
        return {
            "name": f"{ACCOUNT}/batchInferenceJobs/{name}",
            "state": f"JOB_STATE_{state}",
            "status": {"code": "INVALID_ARGUMENT", "message": "row 1: invalid role"}
            if state == "FAILED"
            else {"code": "OK", "message": ""},
            "model": job["model"],
            "inputDatasetId": job["inputDatasetId"],
            "outputDatasetId": f"{ACCOUNT}/datasets/{job['output']}",
            "inferenceParameters": {"extraBody": "{}"},
            "jobProgress": None,
        }

    def look(self, name: str) -> dict[str, Any]:
        state = self.state if isinstance(self.state, str) else self.state.pop(0)
        state = "DELETING_CLEANING_UP" if self.jobs[name]["deleted"] else state
        good, bad = self.outcome(name)
        progress = {"totalInputRequests": len(good), "successfullyProcessedRequests": 0, "failedRequests": 0}
        if state in {"COMPLETED", "EXPIRED", "CANCELLED", "EARLY_STOPPED"}:
            folder = f"dataset/{self.jobs[name]['output']}"
            self.store.files[f"{folder}/BIJOutputSet.jsonl"] = b"".join(good)
            self.store.files[f"{folder}/error-data"] = b"".join(bad)
            progress |= {"successfullyProcessedRequests": len(good), "failedRequests": len(bad), "percent": 100}
        return self.shape(name, state) | {"jobProgress": progress}

    def outcome(self, name: str) -> tuple[list[bytes], list[bytes]]:
        good, bad = [], []
        rows = [json.loads(line) for line in self.rows[self.jobs[name]["dataset"]].splitlines()]
        for row in rows[: self.done][::-1]:
            assert "model" not in row["body"]
            text = row["body"]["messages"][-1]["content"]
            if text.startswith("bad"):
                line = {"custom_id": row["custom_id"], "error": {"message": "too rude", "code": "bad_words"}}
                bad.append(json.dumps(line).encode() + b"\n")
            elif not text.startswith("lost"):
                good.append(
                    json.dumps({"custom_id": row["custom_id"], "response": chat(f"re: {text}")}).encode() + b"\n"
                )
        return good, bad

    def endpoints(self, name: str) -> Answer:
        names = [path for path in self.store.files if path.startswith(f"dataset/{name}/")]
        if not names:
            return status(404, "resource not found", 5)
        self.store.valid += 1  # the signatures before this one have run out
        urls = {path: f"{self.store_url}/bucket/{path}?X-Goog-Signature={self.store.valid}" for path in names[::-1]}
        return reply({"filenameToSignedUrls": urls})
