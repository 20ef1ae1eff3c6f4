"""Deploys Drover on ministack, an emulator of AWS by other authors, with the project's own scripts.

The commands of docs/install.md run in their order, a job runs from its webhook to its end, the table is backed up and
restored, and at last the stack is uninstalled. Only what the emulator lacks is replaced or loosened; each such place is
marked "emulator:". With --iam, ministack enforces the policies of the functions' and the machine's roles.

    check.py [--iam] EXECUTABLES

EXECUTABLES is a folder with ingest, scaler, janitor, agent and drover for this machine. They become a release on this
machine, which the guide then downloads.
"""

import argparse
import functools
import hashlib
import http.server
import json
import os
import pathlib
import platform
import re
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import zipfile

import guide
from ec2 import Ec2
from github import APP_ID, FIRST_JOB, OWNER, GitHub

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACCOUNT, REGION, STACK = "123456789012", "eu-central-1", "drover"
CANONICAL = "099720109477"
ARCHITECTURE = {"x86_64": "x86_64", "aarch64": "arm64"}[platform.machine()]
FUNCTIONS = ("ingest", "scaler", "janitor")


class Check:
    def __init__(self, executables, iam):
        self.executables, self.iam = executables.resolve(), iam
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="drover-deploy-"))
        self.checkout = self.work / "drover"
        self.passed = self.failed = 0
        self.processes = []
        self.started = time.monotonic()

    # ------------------------------------------------------------------------------------------------------ reporting

    def step(self, name, function, *arguments):
        """Runs a step and reports its result and its seconds. Returns whether it succeeded."""
        began = time.monotonic()
        try:
            function(*arguments)
        except Exception as error:  # a step may fail in any way, and the others still run
            self.failed += 1
            print(f"FAILED  {name}\n{str(error)[-3000:]}", flush=True)
            return False
        self.passed += 1
        print(f"ok  {time.monotonic() - began:5.0f} s  {name}", flush=True)
        return True

    def shell(self, command, **environment):
        """Runs a command of the guide. Later commands see its variables and its folder."""
        session, folder = self.work / "session", self.work / "folder"
        script = f"""
            . {session}
            cd "$(cat {folder})"
            set -euo pipefail
            {command}
            export -p >{session}
            pwd >{folder}
        """
        return self.run("bash", "-c", script, **environment)

    def run(self, *command, **environment):
        done = subprocess.run(
            command,
            env={**self.environment, **environment},
            cwd=self.checkout if self.checkout.exists() else self.work,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if done.returncode != 0:
            raise RuntimeError(f"exit status {done.returncode} of {shlex.join(command)[-300:]}:\n{done.stdout}")
        return done.stdout

    def aws(self, *arguments, **environment):
        return json.loads(self.run("aws", *arguments, "--output", "json", **environment) or "null")

    def drover(self, *arguments):
        return self.run("bash", "-c", f". {self.work}/session; exec drover {shlex.join(arguments)}")

    def eventually(self, what, condition, seconds=240):
        until = time.monotonic() + seconds
        while not (result := condition()):
            if time.monotonic() > until:
                raise RuntimeError(f"not within {seconds} s: {what}")
            time.sleep(1)
        return result

    # --------------------------------------------------------------------------------------------------------- set-up

    def start(self):
        """Starts ministack, GitHub and a server with a release, and copies the checkout."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.endpoint = f"http://127.0.0.1:{port}"
        self.github = GitHub()
        # emulator: what ec2.py says.
        ec2 = Ec2(self.endpoint, self.parameter, [f"{REGION}{letter}" for letter in "abc"])
        for folder in ("bin", "s3", "home", "cache/target", "releases", "runner", "stripped"):
            (self.work / folder).mkdir(parents=True)
        (self.work / "folder").write_text(str(self.work), encoding="utf-8")
        emulator = {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            # Functions inherit this.
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ENDPOINT_URL_EC2": ec2.url,
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "MINISTACK_HOST": "127.0.0.1",
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "MINISTACK_REGION": REGION,
            "MINISTACK_AUTOCREATE_AWS_MANAGED": "1",
            "S3_DATA_DIR": str(self.work / "s3"),
            "HOME": str(self.work / "home"),
            "LAMBDA_EXECUTOR": "local",
            "IOT_MTLS_ENABLED": "0",
            "AUTH": "true" if self.iam else "false",
        }
        with open(self.work / "ministack.log", "wb") as log:
            self.processes.append(subprocess.Popen(["ministack"], env=emulator, stdout=log, stderr=log))
        self.environment = self.tools(port)
        self.copy_checkout()
        self.make_release()
        (self.work / "session").write_text("", encoding="utf-8")
        self.eventually("ministack answers", self.emulator_answers, 60)
        self.prepare_account()
        self.environment["AWS_ENDPOINT_URL_EC2"] = ec2.url

    def parameter(self, name):
        return self.aws("ssm", "get-parameter", "--name", name)["Parameter"]["Value"]

    def emulator_answers(self):
        try:
            with urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=1) as answer:
                return answer.status == 200
        except OSError:
            return False

    def tools(self, port):
        """The environment of the guide's commands."""
        kept = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "TF_VAR_", "DROVER_"))
        }
        deploy = os.environ["DROVER_DEPLOY_TOOLS"]
        own = pathlib.Path(sys.executable).parent
        folders = (self.work / "bin", self.executables, own, f"{deploy}/bin", kept["PATH"])
        found = {
            **kept,
            "PATH": ":".join(map(str, folders)),
            "DROVER_TOOLS": deploy,
            "DROVER": "drover",
            "CARGO_TARGET_DIR": str(self.work / "cache/target"),
            "AUTO": "1",
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": REGION,
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_PAGER": "",
            "CHECKPOINT_DISABLE": "1",
            "SAM_CLI_TELEMETRY": "0",
            "DROVER_GITHUB_API_URL": self.github.url,
            "GITHUB_API_URL": self.github.url,
            # emulator: its buckets have no host names of their own.
            "TF_CLI_ARGS_init": "-backend-config=use_path_style=true",
        }
        # Use an installed AWS provider; otherwise Terraform downloads it.
        if plugins := kept.get("TF_PLUGIN_DIR"):
            configuration = self.work / "terraform.rc"
            configuration.write_text(f'provider_installation {{\n  filesystem_mirror {{ path = "{plugins}" }}\n}}\n')
            found["TF_CLI_CONFIG_FILE"] = str(configuration)
        found.pop("TF_PLUGIN_DIR", None)
        found.pop("STATE_BUCKET", None)
        return found

    def copy_checkout(self):
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
            cwd=ROOT,
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for name in filter(None, listed.split("\0")):
            if (ROOT / name).exists():
                (self.checkout / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.checkout / name)
        template = self.checkout / "template.yaml"
        template.write_text(self.loosened(template.read_text(encoding="utf-8")), encoding="utf-8")
        # emulator: no machine to set up. Everything around Packer is the project's own.
        tags = f"{{Key=drover:image-of,Value={STACK}}},{{Key=drover:processor,Value={ARCHITECTURE}}}"
        self.write_tool(
            "packer",
            f"""if [ "$1" = version ]; then echo Packer v1.11.2; exit; fi
            image="$(aws ec2 register-image --name drover-$RANDOM --architecture {ARCHITECTURE} \\
                --root-device-name /dev/sda1 --query ImageId --output text \\
                --tag-specifications 'ResourceType=image,Tags=[{tags}]')"
            echo '{{"builds": [{{"artifact_id": "{REGION}:'$image'"}}]}}' >manifest.json""",
        )
        version = re.search(r'version = "= ([\d.]+)"', (ROOT / "packer/plugins.pkr.hcl").read_text(encoding="utf-8"))[1]
        plugin = self.work / f"cache/packer-plugin-amazon-{version}"
        plugin.mkdir()
        (plugin / "complete").touch()

    def loosened(self, template):
        """The template without what the emulator cannot do."""
        for alarm in ("BootTableAlarm", "ErrorsAlarm", "ThrottlesAlarm", "JanitorSilentAlarm"):
            # emulator: no alarms on metric math.
            template = removed(template, rf"\n  {alarm}:\n.*?(?=\n  [A-Z#])")
        # emulator: it takes a parameter of type Number for a string here, and its poller then fails.
        template = replaced(template, "MaximumConcurrency: !Ref ScalerMaximumConcurrency", "MaximumConcurrency: 5")
        if self.iam:
            # emulator: no TLS.
            template = removed(template, r"\n          - Sid: OnlyByTls.*?\"false\" \} \}")
        # emulator: the host names of function URLs exist in AWS only.
        url = "!GetAtt IngestUrl.FunctionUrl"
        number = f'!Select [0, !Split [".", !Select [2, !Split ["/", {url}]]]]'
        own = f'!Sub ["{self.endpoint}/_aws/lambda-url/${{Id}}/", {{ Id: {number} }}]'
        template = replaced(template, f"!If [ByFunctionUrl, {url},", f"!If [ByFunctionUrl, {own},")
        return template

    def write_tool(self, name, script):
        path = self.work / "bin" / name
        path.write_text(f"#!/usr/bin/env bash\nset -euo pipefail\n{script}\n", encoding="utf-8")
        path.chmod(0o755)

    def make_release(self):
        """Puts the executables into a release on this machine."""
        version = re.search(r'(?m)^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(encoding="utf-8"))[1]
        self.release = f"v{version}"
        folder = self.work / "releases" / self.release
        folder.mkdir()
        for name in (*FUNCTIONS, "agent", "drover"):
            stripped = self.work / "stripped" / name
            self.run("strip", "--strip-all", "-o", str(stripped), str(self.executables / name))
            if name in FUNCTIONS:
                zipped = folder / f"{name}-{ARCHITECTURE}.zip"
                with zipfile.ZipFile(zipped, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
                    archive.write(stripped, "bootstrap")
            elif name == "agent":
                shutil.copy(stripped, folder / f"agent-{ARCHITECTURE}")
            else:
                packed = folder / f"drover-{platform.machine()}-unknown-linux-gnu.tar.gz"
                self.run("tar", "-czf", str(packed), "-C", str(stripped.parent), "drover")
            stripped.unlink()
        sums = [f"{hashlib.sha256(it.read_bytes()).hexdigest()}  {it.name}\n" for it in sorted(folder.iterdir())]
        (folder / "SHA256SUMS").write_text("".join(sums), encoding="utf-8")
        handler = functools.partial(QuietFiles, directory=str(self.work / "releases"))
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.environment["RELEASE_URL"] = f"http://127.0.0.1:{server.server_port}"

    def prepare_account(self):
        """What exists in every account of AWS, and what the guide expects in an organisation's."""
        # emulator: Canonical's images are none of its own; an account's number as the access key is that account.
        canonical = {"AWS_ACCESS_KEY_ID": CANONICAL}
        for architecture, name in (("x86_64", "amd64"), ("arm64", "arm64")):
            image = self.aws(
                *("ec2", "register-image", "--architecture", architecture, "--root-device-name", "/dev/sda1"),
                *("--virtualization-type", "hvm", "--name"),
                f"ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-{name}-server-20261101",
                **canonical,
            )["ImageId"]
            public = ("--launch-permission", "Add=[{Group=all}]")
            self.run("aws", "ec2", "modify-image-attribute", "--image-id", image, *public, **canonical)
        document = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        self.run(
            "aws", "iam", "create-policy", "--policy-name", "organisation", "--policy-document", json.dumps(document)
        )
        self.run("openssl", "genrsa", "-traditional", "-out", str(self.work / "app.pem"), "2048")

    # ------------------------------------------------------------------------------------------------------ the guide

    def follow_the_guide(self):
        setup = f"CARGO_TARGET_DIR={os.environ.get('CARGO_TARGET_DIR', '')} make setup"
        replacements = guide.Replacements(
            {
                "git clone YOUR-COPY-OF-DROVER drover && cd drover": f"cd {self.checkout}",
                "make setup": setup if os.environ.get("CARGO_TARGET_DIR") else "env -u CARGO_TARGET_DIR make setup",
                "YOUR-BUCKET": "drover-states",
                "drover explain JOB": f"drover explain {FIRST_JOB}",
                # emulator: functions are processes of this machine.
                "AlarmEmail=you@example.com": f"AlarmEmail=you@example.com Architecture={ARCHITECTURE} "
                f"GitHubApiUrl={self.github.url}",
                "infra/install.sh ": f"DROVER_INSTALL_DIR={self.work}/bin infra/install.sh ",
                # The page for a browser has tests of its own. emulator: a secret without a value seems to have one.
                "drover init YOUR-ORG": f"drover init {OWNER} --replace --app-id {APP_ID} --key {self.work}/app.pem",
            }
        )
        after = {
            "make infrastructure": [
                ("a second plan changes nothing", self.shell, "infra/infrastructure plan -detailed-exitcode"),
            ],
            "make deploy": [
                ("a second deployment has nothing to do", self.deploy_again),
                *([("policies without what the emulator does not know", self.loosen_policies)] if self.iam else []),
            ],
            "drover pools apply": [
                ("an unsigned delivery is refused", self.send_unsigned),
                ("a job runs, from its webhook to its end", self.run_a_job, ["drover", "linux"]),
                ("a pool with shapes is applied", self.apply_shapes),
                ("a job runs on the machine that its label asks for", self.run_a_job_with_a_shape),
            ],
        }
        tfvars = self.checkout / "terraform/terraform.tfvars"
        for step in self.documented():
            if step.language == "hcl":
                # emulator: its launch templates forget the key, and Terraform then finds a difference.
                text = re.sub(r"(?m)^ebs_kms_key_arn .*\n", "", step.text)
                with open(tfvars, "a", encoding="utf-8") as file:
                    file.write(text)
                continue
            if not self.step(step.text, self.shell, replacements.apply(step.text)):
                raise RuntimeError(f"{step.heading}: this command fails")
            for beginning, more in after.items():
                if step.text.startswith(beginning):
                    for name, function, *arguments in more:
                        self.step(name, function, *arguments)
        if unused := replacements.unused():
            raise RuntimeError(f"the documents no longer contain {unused}")

    def documented(self):
        """The commands of docs/install.md, then those of other pages for a stack that is installed."""
        yield from guide.steps((self.checkout / "docs/install.md").read_text(encoding="utf-8"))
        for step in guide.steps((self.checkout / "docs/changing.md").read_text(encoding="utf-8")):
            if step.heading == "Backup and restore":
                yield step

    def deploy_again(self):
        # Without PARAMETERS: CloudFormation keeps them.
        output = self.shell("infra/deploy")
        if "No changes to deploy" not in output:
            raise RuntimeError(output)

    def loosen_policies(self):
        """Allows what the emulator's evaluator denies because it lacks the condition keys."""
        launch = ["ec2:RunInstances", "ec2:CreateTags"]
        for role, actions in (
            # emulator: no condition keys of launch templates and of CreateTags.
            ("scaler", launch),
            ("janitor", launch),
            # emulator: no dynamodb:LeadingKeys.
            ("runner", ["dynamodb:GetItem", "dynamodb:DeleteItem"]),
        ):
            statement = {"Effect": "Allow", "Action": actions, "Resource": "*"}
            document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
            policy = ("--policy-name", "emulator", "--policy-document", document)
            self.run("aws", "iam", "put-role-policy", "--role-name", f"{STACK}-{role}", *policy)

    # ---------------------------------------------------------------------------------------------------------- a job

    def send_unsigned(self):
        request = urllib.request.Request(self.github.hook["url"], data=b"{}")
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                raise RuntimeError(f"ingest answered {answer.status}")
        except urllib.error.HTTPError as error:
            if error.code != 401:
                raise

    def machines(self):
        filters = (f"Name=tag:drover:stack,Values={STACK}", "Name=instance-state-name,Values=pending,running")
        found = self.aws("ec2", "describe-instances", "--filters", *filters)
        return [it for group in found["Reservations"] for it in group["Instances"]]

    def apply_shapes(self):
        pools = self.work / "shapes.toml"
        architecture = {"x86_64": "x64", "arm64": "arm64"}[ARCHITECTURE]
        pools.write_text(
            f"""{(self.checkout / "pools.toml").read_text(encoding="utf-8")}
            [[pool]]
            name = "any"
            launch_templates = {{ {architecture} = "drover-runner" }}
            market = "spot"
            max = 4

            [pool.shapes]
            cpu = "1..4"
            ram = "2..16"
            arch = ["{architecture}"]
            usd_per_hour = 0.1
            """,
            encoding="utf-8",
        )
        self.drover("pools", "apply", str(pools))

    def run_a_job_with_a_shape(self):
        wanted = {"x86_64": "m7i.xlarge", "arm64": "m8g.xlarge"}[ARCHITECTURE]
        machine = self.run_a_job(["any/4cpu"])
        if machine["InstanceType"] != wanted:
            raise RuntimeError(f"{wanted} is the cheapest machine with four vCPUs, not {machine}")

    def run_a_job(self, labels):
        """Returns its machine."""
        job = self.github.queue_job(labels)
        (machine,) = self.eventually("a machine is launched", self.machines)
        self.boot(machine)
        self.eventually(
            "drover explain says that the job is done", lambda: ": done" in self.drover("explain", str(job))
        )
        self.eventually("drover ps is empty", lambda: json.loads(self.drover("ps", "--json")) == [])
        if self.github.runners:
            raise RuntimeError(f"GitHub still has {self.github.runners}")
        if self.machines():
            raise RuntimeError("a machine still runs")
        return machine

    def boot(self, machine):
        """What the image does: starts the agent with the credentials of the machine's role."""
        instance = machine["InstanceId"]
        role = self.aws("iam", "get-role", "--role-name", f"{STACK}-runner")["Role"]["Arn"]
        session = ("--role-arn", role, "--role-session-name", instance)
        credentials = self.aws("sts", "assume-role", *session)["Credentials"]
        runner = self.work / "runner/run.sh"
        runner.write_text(
            f'#!/bin/sh\ncurl -sf --data "$ACTIONS_RUNNER_INPUT_JITCONFIG" {self.github.url}/_runner\n',
            encoding="utf-8",
        )
        runner.chmod(0o755)
        # emulator: a machine that powers off is not terminated.
        self.write_tool(
            "poweroff-machine",
            f"""unset AWS_SESSION_TOKEN
            export AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test
            exec aws ec2 terminate-instances --instance-ids {instance} >/dev/null""",
        )
        output = self.run(
            "agent",
            AWS_ACCESS_KEY_ID=credentials["AccessKeyId"],
            AWS_SECRET_ACCESS_KEY=credentials["SecretAccessKey"],
            AWS_SESSION_TOKEN=credentials["SessionToken"],
            AWS_REGION=REGION,
            DROVER_BOOT_TABLE=f"{STACK}-boot",
            DROVER_REPORTS_TABLE=f"{STACK}-reports",
            DROVER_RUNNER_DIR=str(runner.parent),
            DROVER_POWEROFF=str(self.work / "bin/poweroff-machine"),
            DROVER_AGENT_WAIT="2m",
        )
        if self.aws("dynamodb", "scan", "--table-name", f"{STACK}-boot", "--select", "COUNT")["Count"] != 0:
            raise RuntimeError(f"the boot item can still be read:\n{output}")

    # ------------------------------------------------------------------------------------------------------ uninstall

    def uninstall(self):
        self.shell("make uninstall", POLL_SECONDS="1", QUIET_SECONDS="5")
        if self.github.runners or self.machines():
            raise RuntimeError(f"left behind: {self.github.runners} {self.machines()}")
        roles = [it["RoleName"] for it in self.aws("iam", "list-roles")["Roles"] if it["RoleName"].startswith(STACK)]
        tables = self.aws("dynamodb", "list-tables")["TableNames"]
        if roles or tables != [STACK]:
            raise RuntimeError(f"left behind: {roles} {tables}")

    def close(self, keep):
        for process in self.processes:
            process.terminate()
            process.wait()
        if keep:
            print(f"kept: {self.work}")
        else:
            shutil.rmtree(self.work, ignore_errors=True)


class QuietFiles(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


def replaced(text, part, replacement):
    if part not in text:
        raise ValueError(f"the template no longer contains {part}")
    return text.replace(part, replacement)


def removed(text, pattern):
    shorter, count = re.subn(pattern, "", text, flags=re.S)
    if count != 1:
        raise ValueError(f"{count} places in the template match {pattern}")
    return shorter


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--iam", action="store_true")
    arguments.add_argument("--keep", action="store_true")
    arguments.add_argument("executables", type=pathlib.Path)
    given = arguments.parse_args()
    check = Check(given.executables, given.iam)
    try:
        check.start()
        check.follow_the_guide()
        check.step("make uninstall", check.uninstall)
    except RuntimeError as error:
        check.failed += 1
        print(error)
    finally:
        if check.github.unknown:
            print("GitHub was asked for what it does not know:", *sorted(set(check.github.unknown)), sep="\n  ")
        check.close(given.keep)
    print(f"\n{check.passed} passed, {check.failed} failed, {time.monotonic() - check.started:.0f} s")
    sys.exit(check.failed > 0)


if __name__ == "__main__":
    main()
