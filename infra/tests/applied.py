"""Examples of terraform/examples, applied to an emulated AWS."""

import atexit
import functools
import json
import os
import pathlib
import shutil
import subprocess
import tempfile

import project
from emulator import Emulator


class Example:
    """A copy of an example from terraform/examples, so that state and plug-ins stay out of the checkout."""

    def __init__(self, emulator, name):
        self.emulator = emulator
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="drover-terraform-"))
        shutil.copytree(
            project.ROOT / "terraform",
            self.folder / "terraform",
            ignore=shutil.ignore_patterns(".terraform*", "*.tfstate*"),
        )
        self.root = self.folder / "terraform/examples" / name
        plugins = os.environ.get("TF_PLUGIN_DIR")
        self.run("init", "-input=false", *([f"-plugin-dir={plugins}"] if plugins else []))

    def run(self, *arguments, **variables):
        environment = {**self.emulator.environment, **{f"TF_VAR_{name}": value for name, value in variables.items()}}
        # A CLI configuration with mirrors would override -plugin-dir.
        environment.pop("TF_CLI_CONFIG_FILE", None)
        done = subprocess.run(
            ["terraform", *arguments], cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise AssertionError(f"terraform {' '.join(arguments)}:\n{done.stdout[-4000:]}{done.stderr[-4000:]}")
        return done.stdout

    def apply(self, **variables):
        self.run("apply", "-input=false", "-auto-approve", "-no-color", **variables)

    def output(self):
        return json.loads(self.run("output", "-json", "drover"))

    def destroy(self, **variables):
        self.run("destroy", "-input=false", "-auto-approve", "-no-color", **variables)

    def close(self):
        shutil.rmtree(self.folder)


@functools.cache
def new_vpc():
    """The applied example new-vpc, for all test modules of a process. Its folder has the logs of the provider's calls:
    apply.log, and plan.log for a plan after that."""
    emulator = Emulator().__enter__()
    atexit.register(emulator.__exit__)
    example = Example(emulator, "new-vpc")
    atexit.register(example.close)
    emulator.environment |= {"TF_LOG_PROVIDER": "DEBUG", "TF_LOG_PATH": str(example.folder / "apply.log")}
    example.apply()
    emulator.environment |= {"TF_LOG_PATH": str(example.folder / "plan.log")}
    example.run("plan", "-input=false")
    del emulator.environment["TF_LOG_PROVIDER"], emulator.environment["TF_LOG_PATH"]
    return example


def managed_policies(iam):
    def document(policy):
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
        return version["PolicyVersion"]["Document"]

    return {it["PolicyName"]: document(it) for it in iam.list_policies(Scope="Local")["Policies"]}
