"""The scripts that change things, on tools that only say what they were asked."""

import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest
import zipfile

import project


def module(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(project.ROOT / "infra" / name))
    made = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(made)
    return made


class Tools:
    """A folder of stand-ins for the PATH: each writes down how it was called, and answers with what it was given."""

    def __init__(self, test, **answers):
        self.folder = test.enterContext(tempfile.TemporaryDirectory(prefix="drover-tools-"))
        self.log = pathlib.Path(self.folder) / "log"
        self.log.touch()
        for tool, answer in answers.items():
            path = pathlib.Path(self.folder) / tool
            path.write_text(f'#!/bin/sh\necho "{tool} $*" >>"{self.log}"\n{answer}\n', encoding="utf-8")
            path.chmod(0o755)

    def run(self, *command, **environment):
        path = {"PATH": f"{self.folder}:{os.environ['PATH']}", "DROVER_TOOLS": self.folder}
        return subprocess.run(
            command,
            cwd=project.ROOT,
            env={**os.environ, **environment, **path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self):
        return self.log.read_text(encoding="utf-8").splitlines()


class Prices(unittest.TestCase):
    def answered(self, *prices):
        """What AWS answers if those are a family's prices."""
        products = [
            json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": {"b": one}}}}})
            for one in ({"unit": "Hrs", "pricePerUnit": {"USD": price}} for price in prices)
        ]
        answer = json.dumps({"PriceList": products})
        return Tools(self, aws=f"cat <<'JSON'\n{answer}\nJSON")

    def test_they_are_what_drover_cost_reads(self):
        tools = self.answered("0.1159200000")
        done = tools.run("infra/prices", "eu-central-1", "m7a")
        self.assertEqual(done.returncode, 0, done.stderr)
        read = json.loads(done.stdout)
        self.assertEqual(read.pop("source"), "AWS Price List, GetProducts")
        self.assertRegex(read.pop("read"), r"^\d{4}-\d\d-\d\d$")
        self.assertEqual(read, {"families": {"m7a": {"eu-central-1": 0.11592}}})
        self.assertIn("Field=instanceType,Value=m7a.large", tools.calls()[0])

    def test_no_price_and_several_are_none(self):
        for prices in ([], ["0.1", "0.2"]):
            done = self.answered(*prices).run("infra/prices", "eu-central-1", "m7a")
            self.assertEqual(done.returncode, 1)
            self.assertIn("m7a.large in eu-central-1: AWS tells no single price", done.stderr)


class PruneImages(unittest.TestCase):
    def setUp(self):
        images = {
            "Images": [
                {
                    "ImageId": f"ami-{day}",
                    "CreationDate": f"2026-11-0{day}T00:00:00Z",
                    "BlockDeviceMappings": [{"Ebs": {"SnapshotId": f"snap-{day}"}}, {"VirtualName": "ephemeral0"}],
                }
                for day in (2, 5, 1, 4, 3)
            ]
        }
        some, none = json.dumps(images), json.dumps({"Images": []})
        answers = f"*processor,Values=x86_64*) echo '{some}';; *describe-images*) echo '{none}';;"
        self.tools = Tools(self, aws=f'case "$*" in {answers} esac')

    def test_the_newest_three_are_kept(self):
        done = self.tools.run("infra/prune-images", "3", STACK="drover")
        self.assertEqual(done.returncode, 0, done.stderr)
        changes = [call for call in self.tools.calls() if "describe" not in call]
        self.assertEqual(
            changes,
            [
                "aws ec2 deregister-image --image-id ami-2",
                "aws ec2 delete-snapshot --snapshot-id snap-2",
                "aws ec2 deregister-image --image-id ami-1",
                "aws ec2 delete-snapshot --snapshot-id snap-1",
            ],
        )

    def test_it_looks_only_at_the_stacks_own(self):
        self.tools.run("infra/prune-images", "3", STACK="other")
        for call in self.tools.calls():
            if "describe-images" in call:
                self.assertIn("--owners self", call)
                self.assertIn("Name=tag:drover:image-of,Values=other", call)

    def test_none_need_be_kept(self):
        self.tools.run("infra/prune-images", "0", STACK="drover")
        self.assertEqual(sum("deregister-image" in call for call in self.tools.calls()), 5)


class Infrastructure(unittest.TestCase):
    def tearDown(self):
        (project.ROOT / "terraform/backend_override.tf").unlink(missing_ok=True)

    def test_nothing_is_applied_without_being_asked_for(self):
        tools = Tools(self, terraform="")
        done = tools.run("infra/infrastructure", "apply", AUTO="")
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse([call for call in tools.calls() if call.startswith("terraform apply")])

    def test_what_is_applied_is_the_plan_that_was_shown(self):
        tools = Tools(self, terraform="")
        done = tools.run("infra/infrastructure", "apply", AUTO="1", STACK="blue", STATE_BUCKET="states")
        self.assertEqual(done.returncode, 0, done.stderr)
        (plan,) = [call.split() for call in tools.calls() if call.startswith("terraform plan")]
        (apply,) = [call.split() for call in tools.calls() if call.startswith("terraform apply")]
        self.assertEqual(plan[plan.index("-out") + 1], apply[-1])
        self.assertIn("stack=blue", plan)
        backend = project.text("terraform/backend_override.tf")
        self.assertIn('bucket       = "states"', backend)
        self.assertIn('key          = "blue/terraform.tfstate"', backend)

    def test_nothing_is_destroyed_under_a_running_machine(self):
        tools = Tools(self, terraform="", aws="echo i-0123456789abcdef0")
        done = tools.run("infra/infrastructure", "destroy", AUTO="1")
        self.assertIn("i-0123456789abcdef0", done.stderr)
        self.assertEqual(len(tools.calls()), 2, "terraform init, and one look at EC2")


class Deploy(unittest.TestCase):
    def test_parameters_are_terraforms_and_ones_own(self):
        outputs = json.dumps({"Stack": "drover", "LaunchTemplateArns": "arn:a,arn:b"})
        tools = Tools(
            self, terraform=f"case \"$*\" in *output*) echo '{outputs}';; esac", sam="", aws="echo '[]'", rustup=""
        )
        done = tools.run("infra/deploy", AUTO="1", STACK="drover", PARAMETERS="Architecture=x86_64 LogLevel=debug")
        self.assertEqual(done.returncode, 0, done.stderr)
        (deploy,) = [call for call in tools.calls() if call.startswith("sam deploy")]
        self.assertIn(
            "--parameter-overrides Stack=drover LaunchTemplateArns=arn:a,arn:b Architecture=x86_64 LogLevel=debug",
            deploy,
        )

    def test_another_stacks_infrastructure_is_refused(self):
        tools = Tools(self, terraform='case "$*" in *output*) echo \'{"Stack": "blue"}\';; esac', sam="", aws="")
        done = tools.run("infra/deploy", AUTO="1", STACK="drover")
        self.assertIn("another stack", done.stderr)
        self.assertFalse([call for call in tools.calls() if call.startswith("sam")])


class Package(unittest.TestCase):
    """The zips, of executables that a stand-in for cargo-lambda left."""

    def package(self, executable, *arguments):
        target = self.enterContext(tempfile.TemporaryDirectory(prefix="drover-target-"))
        for name in (*project.FUNCTIONS, "agent"):
            folder = pathlib.Path(target) / "lambda" / name
            folder.mkdir(parents=True)
            (folder / "bootstrap").write_bytes(executable)
        tools = Tools(
            self, cargo=f'case "$1" in metadata) echo \'{{"target_directory": "{target}"}}\';; esac', rustup=""
        )
        done = tools.run("infra/package", *arguments, ARCH="arm64", LINK="")
        return done, pathlib.Path(target) / "package", tools

    def test_a_zip_is_what_lambda_starts_and_the_same_each_time(self):
        first, second = self.package(b"ELF GLIBC_2.34"), self.package(b"ELF GLIBC_2.34")
        for done, zips, tools in (first, second):
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("cargo lambda build --release --target aarch64-unknown-linux-gnu", tools.calls()[-1])
            for function in project.FUNCTIONS:
                with zipfile.ZipFile(zips / f"{function}-arm64.zip") as packed:
                    (entry,) = packed.infolist()
                    self.assertEqual((entry.filename, entry.external_attr >> 16), ("bootstrap", 0o755))
        same = [(zips / "ingest-arm64.zip").read_bytes() for _, zips, _ in (first, second)]
        self.assertEqual(*same)

    def test_one_that_needs_a_newer_glibc_than_lambdas_is_refused(self):
        done, *_ = self.package(b"ELF GLIBC_2.34 GLIBC_2.36")
        self.assertEqual(done.returncode, 1)
        self.assertIn("glibc 2.36", done.stderr)

    def test_one_that_has_grown_too_large_is_refused(self):
        done, *_ = self.package(os.urandom(3_100_000))
        self.assertEqual(done.returncode, 1)
        self.assertIn("ingest has grown too large", done.stderr)

    def test_the_agents_path_is_all_that_is_printed(self):
        done, zips, _ = self.package(b"ELF", "agent")
        self.assertEqual(done.stdout.strip(), str(zips.parent / "lambda/agent/bootstrap"))


class SamBuild(unittest.TestCase):
    """What `sam build` makes of the template, with a cargo that says what it was asked for and builds nothing."""

    def build(self, architecture):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-sam-")))
        cargo = shutil.which("cargo")
        self.assertIsNotNone(cargo, "cargo is missing")
        tools = Tools(
            self,
            cargo=f"""
            if [ "$1 $2" = "lambda build" ]; then
                mkdir -p "$CARGO_TARGET_DIR/lambda/$(basename "$PWD")"
                echo "$PWD" >"$CARGO_TARGET_DIR/lambda/$(basename "$PWD")/bootstrap"
            else
                exec {cargo} "$@"
            fi""",
        )
        done = tools.run(
            "sam",
            "build",
            "--build-dir",
            str(folder / "build"),
            "--parameter-overrides",
            "LaunchTemplateArns=arn:a,arn:b",
            f"Architecture={architecture}",
            CARGO_TARGET_DIR=str(folder / "target"),
            SAM_CLI_TELEMETRY="0",
            AWS_DEFAULT_REGION="eu-central-1",
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return folder / "build", [call for call in tools.calls() if "lambda build" in call]

    def test_each_function_is_its_own_package_for_the_architecture_that_was_asked_for(self):
        for architecture, command in (
            ("arm64", "cargo lambda build --release --arm64"),
            ("x86_64", "cargo lambda build --release"),
        ):
            built, calls = self.build(architecture)
            self.assertEqual(calls, [command] * 3)
            for function in project.FUNCTIONS:
                packed = (built / function.capitalize() / "bootstrap").read_text(encoding="utf-8")
                self.assertEqual(packed.strip(), str(project.ROOT / function))

    def test_what_is_deployed_has_no_aliases(self):
        # CloudFormation refuses them; SAM writes them out.
        built, _ = self.build("arm64")
        text = (built / "template.yaml").read_text(encoding="utf-8")
        self.assertFalse(re.search(r"(?m)^\s*(- |\w+: )?[&*]\w+$|<<:", text))
        self.assertEqual(text.count("xray:PutTraceSegments"), 3)


class RunnerVersion(unittest.TestCase):
    def setUp(self):
        self.module = module("runner-version")
        self.text = project.text("packer/variables.pkr.hcl")
        self.newest = {
            "tag_name": "v9.999.0",
            "assets": [
                {"name": "actions-runner-linux-x64-9.999.0.tar.gz", "digest": "sha256:" + "a" * 64},
                {"name": "actions-runner-linux-arm64-9.999.0.tar.gz", "digest": "sha256:" + "b" * 64},
                {"name": "actions-runner-linux-arm-9.999.0.tar.gz", "digest": "sha256:" + "c" * 64},
            ],
        }

    def test_an_update_writes_version_and_both_sums(self):
        updated = self.module.updated(self.text, self.newest)
        self.assertIn('"9.999.0"', updated)
        self.assertRegex(updated, f'x86_64\\s+= "{"a" * 64}"')
        self.assertRegex(updated, f'arm64\\s+= "{"b" * 64}"')
        self.assertEqual(len(updated.splitlines()), len(self.text.splitlines()))

    def test_a_release_without_a_sum_is_refused(self):
        del self.newest["assets"][1]
        with self.assertRaises(ValueError):
            self.module.updated(self.text, self.newest)


if __name__ == "__main__":
    unittest.main()
