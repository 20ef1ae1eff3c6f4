"""The part of GitHub's API that a deployment needs, written from GitHub's REST documentation, not from Drover's code.

It delivers signed webhooks to the address that the app got, and lets a runner take one job. What it does not know is
answered with 404.
"""

import base64
import datetime
import hashlib
import hmac
import http.server
import json
import re
import threading
import urllib.error
import urllib.request
import uuid

APP_ID, FIRST_JOB = 42, 1000
OWNER, REPOSITORY = "octo-org", "octo-org/widgets"
PERMISSIONS = {"organization_self_hosted_runners": "write", "actions": "read", "checks": "write", "metadata": "read"}
GROUP = {
    "id": 1,
    "name": "Default",
    "visibility": "all",
    "default": True,
    "allows_public_repositories": False,
    "restricted_to_workflows": False,
}
ACCOUNT = {"login": OWNER, "id": 1}
REPOSITORY_JSON = {"id": 1, "name": "widgets", "full_name": REPOSITORY, "private": True, "owner": ACCOUNT}


def now(seconds=0):
    time = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return time.strftime("%Y-%m-%dT%H:%M:%SZ")


class GitHub:
    """One organisation that has installed one app."""

    def __init__(self):
        self.lock = threading.RLock()
        self.runners, self.jobs, self.deliveries, self.unknown = {}, {}, [], []
        self.registered = 0
        self.hook = {"url": "", "content_type": "form", "insecure_ssl": "0", "secret": ""}
        github = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def answer(self):
                length = int(self.headers.get("content-length") or 0)
                body = self.rfile.read(length)
                status, answer = github.route(self.command, self.path, body)
                data = b"" if answer is None else json.dumps(answer).encode()
                self.send_response(status)
                for name, value in (
                    ("content-type", "application/json"),
                    ("content-length", len(data)),
                    ("date-received", now()),
                    ("x-ratelimit-limit", 5000),
                    ("x-ratelimit-remaining", 4900),
                    ("x-ratelimit-reset", int(datetime.datetime.now().timestamp()) + 3600),
                ):
                    self.send_header(name, str(value))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST = do_PATCH = do_DELETE = answer

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    # ------------------------------------------------------------------------------------------------ what GitHub does

    def queue_job(self, labels):
        """Queues a job and delivers `queued`. Returns the id of the job."""
        with self.lock:
            number = FIRST_JOB + len(self.jobs)
            self.jobs[number] = {
                "id": number,
                "run_id": 2000 + number,
                "run_attempt": 1,
                "workflow_name": "CI",
                "name": "test",
                "status": "queued",
                "conclusion": None,
                "created_at": now(),
                "started_at": now(),
                "completed_at": None,
                "labels": labels,
                "head_sha": "0" * 40,
                "head_branch": "main",
                "html_url": f"https://github.com/{REPOSITORY}/actions/runs/{2000 + number}/job/{number}",
                "steps": [],
                "runner_id": None,
                "runner_name": None,
                "runner_group_id": None,
                "runner_group_name": None,
            }
        self.deliver("queued", number)
        return number

    def deliver(self, action, number):
        event = {"action": action, "workflow_job": self.jobs[number], "repository": REPOSITORY_JSON}
        event |= {"organization": ACCOUNT, "installation": {"id": 7}, "sender": {"login": "octocat", "id": 2}}
        self.send({"guid": str(uuid.uuid4()), "body": json.dumps(event).encode(), "action": action})

    def send(self, delivery, redelivery=False):
        with self.lock:
            signature = hmac.new(self.hook["secret"].encode(), delivery["body"], hashlib.sha256).hexdigest()
            request = urllib.request.Request(self.hook["url"], data=delivery["body"])
        for name, value in (
            ("content-type", "application/json"),
            ("user-agent", "GitHub-Hookshot/0000000"),
            ("x-github-event", "workflow_job"),
            ("x-github-delivery", delivery["guid"]),
            ("x-hub-signature-256", f"sha256={signature}"),
        ):
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                status = answer.status
        except urllib.error.HTTPError as error:
            status = error.code
        with self.lock:
            number = len(self.deliveries) + 1
            self.deliveries.append({**delivery, "id": number, "at": now(), "status": status, "redelivery": redelivery})

    def take_job(self, jit_config):
        """A runner with this JIT config takes the oldest job that has its labels, and is gone afterwards."""
        name = base64.b64decode(jit_config).decode()
        with self.lock:
            runner = next(it for it in self.runners.values() if it["name"] == name)
            labels = {it["name"] for it in runner["labels"]}
            number = next(
                it["id"] for it in self.jobs.values() if it["status"] == "queued" and set(it["labels"]) <= labels
            )
            runner |= {"status": "online", "busy": True}
            self.jobs[number] |= {
                "status": "in_progress",
                "runner_id": runner["id"],
                "runner_name": name,
                "runner_group_id": 1,
                "runner_group_name": "Default",
            }
        self.deliver("in_progress", number)
        with self.lock:
            self.jobs[number] |= {"status": "completed", "conclusion": "success", "completed_at": now()}
            del self.runners[runner["id"]]
        self.deliver("completed", number)

    # ------------------------------------------------------------------------------------------------------- the API

    def route(self, method, path, body):
        path, _, query = path.partition("?")
        for wanted, pattern, handler in self.ROUTES:
            if method == wanted and (found := re.fullmatch(pattern, path)):
                if handler in (GitHub.post_runner, GitHub.post_attempt):
                    # These call back, so they do not hold the lock.
                    return handler(self, found, body, query)
                with self.lock:
                    return handler(self, found, body, query)
        self.unknown.append(f"{method} {path}")
        return 404, {"message": "Not Found"}

    def get_app(self, *_):
        about = {"id": APP_ID, "slug": "drover", "name": "drover", "html_url": "https://github.com/apps/drover"}
        return 200, {**about, "permissions": PERMISSIONS, "events": ["workflow_job"], "owner": ACCOUNT}

    def hook_config(self, _found, body, _query):
        self.hook |= json.loads(body or b"{}")
        return 200, {**self.hook, "secret": "********"}

    def get_deliveries(self, *_):
        return 200, [
            {
                "id": it["id"],
                "guid": it["guid"],
                "delivered_at": it["at"],
                "redelivery": it["redelivery"],
                "duration": 0.1,
                "status": "OK" if it["status"] < 300 else "Invalid HTTP Response",
                "status_code": it["status"],
                "event": "workflow_job",
                "action": it["action"],
                "installation_id": 7,
                "repository_id": 1,
            }
            for it in reversed(self.deliveries)
        ]

    def post_attempt(self, found, *_):
        delivery = next(it for it in self.deliveries if it["id"] == int(found[1]))
        self.send({name: delivery[name] for name in ("guid", "body", "action")}, redelivery=True)
        return 202, {}

    def get_installation(self, *_):
        page = "https://github.com/organizations/octo-org/settings/installations/7"
        about = {"id": 7, "app_id": APP_ID, "suspended_at": None, "html_url": page, "account": ACCOUNT}
        return 200, {**about, "permissions": PERMISSIONS, "events": ["workflow_job"], "repository_selection": "all"}

    def post_token(self, *_):
        token = {"token": "ghs_0123456789abcdef", "expires_at": now(3600), "repository_selection": "all"}
        return 201, {**token, "permissions": PERMISSIONS}

    def get_repositories(self, *_):
        return 200, {"total_count": 1, "repositories": [REPOSITORY_JSON]}

    def post_jitconfig(self, _found, body, _query):
        asked = json.loads(body)
        missing = {"name", "runner_group_id", "labels"} - set(asked)
        if missing:
            return 422, {"message": f"Invalid request: {sorted(missing)} are missing"}
        if any(it["name"] == asked["name"] for it in self.runners.values()):
            return 409, {"message": "Already exists"}
        self.registered += 1
        runner = {
            "id": self.registered,
            "name": asked["name"],
            "os": "unknown",
            "status": "offline",
            "busy": False,
            "ephemeral": True,
            "runner_group_id": asked["runner_group_id"],
            "labels": [{"name": it, "type": "custom"} for it in asked["labels"]],
        }
        self.runners[self.registered] = runner
        return 201, {"runner": runner, "encoded_jit_config": base64.b64encode(asked["name"].encode()).decode()}

    def get_runners(self, _found, _body, query):
        name = re.search(r"(?:^|&)name=([^&]+)", query)
        runners = [it for it in self.runners.values() if not name or it["name"] == name[1]]
        return 200, {"total_count": len(runners), "runners": runners}

    def runner(self, found, *_):
        runner = self.runners.get(int(found[1]))
        return (200, runner) if runner else (404, {"message": "Not Found"})

    def delete_runner(self, found, *_):
        runner = self.runners.get(int(found[1]))
        if not runner:
            return 404, {"message": "Not Found"}
        if runner["busy"]:
            return 422, {"message": "Runner is currently running a job and cannot be deleted."}
        del self.runners[runner["id"]]
        return 204, None

    def get_groups(self, *_):
        return 200, {"total_count": 1, "runner_groups": [GROUP]}

    def get_group(self, *_):
        return 200, GROUP

    def get_job(self, found, *_):
        job = self.jobs.get(int(found[1]))
        return (200, job) if job else (404, {"message": "Not Found"})

    def get_runs(self, *_):
        return 200, {"total_count": 0, "workflow_runs": []}

    def get_runner_release(self, *_):
        return 200, {"tag_name": "v0.0.0", "published_at": now(), "assets": []}

    def post_runner(self, _found, body, _query):
        self.take_job(body.decode())
        return 200, {}

    ACTIONS = r"(?:/orgs/[^/]+|/repos/[^/]+/[^/]+)/actions"
    ROUTES = (
        ("GET", "/app", get_app),
        ("GET", "/app/hook/config", hook_config),
        ("PATCH", "/app/hook/config", hook_config),
        ("GET", "/app/hook/deliveries", get_deliveries),
        ("POST", r"/app/hook/deliveries/(\d+)/attempts", post_attempt),
        ("GET", "/(?:orgs/[^/]+|repos/[^/]+/[^/]+)/installation", get_installation),
        ("POST", "/app/installations/7/access_tokens", post_token),
        ("GET", "/installation/repositories", get_repositories),
        ("POST", f"{ACTIONS}/runners/generate-jitconfig", post_jitconfig),
        ("GET", f"{ACTIONS}/runners", get_runners),
        ("GET", rf"{ACTIONS}/runners/(\d+)", runner),
        ("DELETE", rf"{ACTIONS}/runners/(\d+)", delete_runner),
        ("GET", f"{ACTIONS}/runner-groups", get_groups),
        ("GET", f"{ACTIONS}/runner-groups/1", get_group),
        ("GET", rf"{ACTIONS}/jobs/(\d+)", get_job),
        ("GET", f"{ACTIONS}/runs", get_runs),
        ("GET", "/repos/actions/runner/releases/.*", get_runner_release),
        # GitHub's runner would use another protocol for this.
        ("POST", "/_runner", post_runner),
    )
