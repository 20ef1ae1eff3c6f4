"""Runs the scripts with fake tools that record their calls and change nothing."""

import http.server
import importlib.machinery
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import threading
import unittest
import zipfile

import project
import yaml
from samcli.cli.types import CfnParameterOverridesType


def module(name):
    loader = importlib.machinery.SourceFileLoader(name.replace("-", "_"), str(project.ROOT / "infra" / name))
    loaded = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(loaded)
    return loaded


class Tools:
    """A folder of fake tools for the PATH. Each logs its arguments and then runs the given shell code."""

    def __init__(self, test, **answers):
        self.folder = test.enterContext(tempfile.TemporaryDirectory(prefix="drover-tools-"))
        self.log = pathlib.Path(self.folder) / "log"
        self.log.touch()
        for tool, answer in answers.items():
            path = pathlib.Path(self.folder) / tool
            path.write_text(f'#!/bin/sh\necho "{tool} $*" >>"{self.log}"\n{answer}\n', encoding="utf-8")
            path.chmod(0o755)

    def run(self, *command, checkout=project.ROOT, **environment):
        path = {"PATH": f"{self.folder}:{os.environ['PATH']}", "DROVER_TOOLS": self.folder}
        inherited = {
            name: value for name, value in os.environ.items() if not name.startswith(("TF_VAR_", "GITHUB_", "STATE_"))
        }
        return subprocess.run(
            command,
            cwd=checkout,
            env={**inherited, **environment, **path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    def calls(self):
        return self.log.read_text(encoding="utf-8").splitlines()


class MakeHelp(unittest.TestCase):
    def test_make_lists_every_target_with_one_line(self):
        targets = re.findall(r"^([a-z-]+):", project.text("Makefile"), re.M)
        for arguments in ([], ["help"]):
            done = subprocess.run(
                ["make", "--silent", *arguments], cwd=project.ROOT, capture_output=True, text=True, check=True
            )
            self.assertEqual(re.findall(r"^  ([a-z-]+) +\S", done.stdout, re.M), targets)


class Prices(unittest.TestCase):
    def fake_aws(self, *prices):
        """Fake tools in which AWS returns these prices for an instance family."""
        products = [
            json.dumps({"terms": {"OnDemand": {"a": {"priceDimensions": {"b": one}}}}})
            for one in ({"unit": "Hrs", "pricePerUnit": {"USD": price}} for price in prices)
        ]
        answer = json.dumps({"PriceList": products})
        return Tools(self, aws=f"cat <<'JSON'\n{answer}\nJSON")

    def test_the_output_has_the_format_that_drover_cost_reads(self):
        tools = self.fake_aws("0.1159200000")
        done = tools.run("infra/prices", "eu-central-1", "m7a")
        self.assertEqual(done.returncode, 0, done.stderr)
        read = json.loads(done.stdout)
        self.assertEqual(read.pop("source"), "AWS Price List, GetProducts")
        self.assertRegex(read.pop("read"), r"^\d{4}-\d\d-\d\d$")
        self.assertEqual(read, {"families": {"m7a": {"eu-central-1": 0.11592}}})
        self.assertIn("Field=instanceType,Value=m7a.large", tools.calls()[0])

    def test_an_ambiguous_or_missing_price_is_an_error(self):
        for prices in ([], ["0.1", "0.2"]):
            done = self.fake_aws(*prices).run("infra/prices", "eu-central-1", "m7a")
            self.assertEqual(done.returncode, 1)
            self.assertIn("AWS does not list exactly one price for m7a.large in eu-central-1", done.stderr)


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

    def test_the_three_newest_images_are_kept(self):
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

    def test_only_images_of_the_stack_are_listed(self):
        self.tools.run("infra/prune-images", "3", STACK="other")
        for call in self.tools.calls():
            if "describe-images" in call:
                self.assertIn("--owners self", call)
                self.assertIn("Name=tag:drover:image-of,Values=other", call)

    def test_keeping_no_image_deletes_all(self):
        self.tools.run("infra/prune-images", "0", STACK="drover")
        self.assertEqual(sum("deregister-image" in call for call in self.tools.calls()), 5)


class Checkout:
    """Runs infra/infrastructure in a copy of the checkout, because it writes to terraform/."""

    def setUp(self):
        self.checkout = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-checkout-")))
        shutil.copytree(project.ROOT / "infra", self.checkout / "infra", ignore=shutil.ignore_patterns("tests"))
        self.terraform = self.checkout / "terraform"
        self.terraform.mkdir()

    def infrastructure(self, tools, *arguments, **environment):
        return tools.run("infra/infrastructure", *arguments, checkout=self.checkout, **environment)


class Infrastructure(Checkout, unittest.TestCase):
    def test_apply_without_a_terminal_is_refused(self):
        tools = Tools(self, terraform="")
        done = self.infrastructure(tools, "apply", AUTO="")
        self.assertNotEqual(done.returncode, 0)
        self.assertFalse([call for call in tools.calls() if call.startswith("terraform apply")])

    def test_apply_uses_the_plan_that_was_shown(self):
        tools = Tools(self, terraform="", aws="exit 254")
        done = self.infrastructure(tools, "apply", AUTO="1", STACK="blue", STATE_BUCKET="states")
        self.assertEqual(done.returncode, 0, done.stderr)
        (plan,) = [call.split() for call in tools.calls() if call.startswith("terraform plan")]
        (apply,) = [call.split() for call in tools.calls() if call.startswith("terraform apply")]
        self.assertEqual(plan[plan.index("-out") + 1], apply[-1])
        self.assertIn("stack=blue", plan)
        backend = (self.terraform / "backend_override.tf").read_text(encoding="utf-8")
        self.assertIn('bucket       = "states"', backend)
        self.assertIn('key          = "blue/terraform.tfstate"', backend)

    def test_apply_creates_the_spot_role_that_the_account_lacks(self):
        create = "aws iam create-service-linked-role --aws-service-name spot.amazonaws.com"
        for answer, creates in (
            ("echo An error occurred NoSuchEntity >&2; exit 254", True),
            ("echo '{}'", False),
            ("echo AccessDenied >&2; exit 254", False),
        ):
            with self.subTest(answer):
                aws = f'case "$*" in *AWSServiceRoleForEC2Spot*) {answer};; *get-role*) exit 254;; esac'
                tools = Tools(self, terraform="", aws=aws)
                done = self.infrastructure(tools, "apply", AUTO="1")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(create in tools.calls(), creates)

    def test_apply_lends_the_volumes_key_to_the_spot_role(self):
        key = "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef"
        (self.terraform / "terraform.tfvars").write_text(f'ebs_kms_key_arn = "{key}"\n', encoding="utf-8")
        grant = (
            f"aws kms create-grant --name drover-spot --key-id {key} --grantee-principal"
            " arn:aws:iam::123456789012:role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
            " --operations Decrypt Encrypt GenerateDataKey GenerateDataKeyWithoutPlaintext CreateGrant DescribeKey"
            " ReEncryptFrom ReEncryptTo"
        )
        for role, created, granted, tries in (
            ("echo '{}'", "exit 0", "exit 0", True),
            ("echo '{}'", "exit 0", "exit 254", True),
            ("echo NoSuchEntity >&2; exit 254", "exit 0", "exit 0", True),
            ("echo NoSuchEntity >&2; exit 254", "exit 254", "exit 0", False),
            ("echo AccessDenied >&2; exit 254", "exit 0", "exit 0", False),
        ):
            with self.subTest(role=role, created=created, granted=granted):
                aws = f"""case "$*" in
                    *create-grant*) {granted};;
                    *create-service-linked-role*) {created};;
                    *get-role*AWSServiceRoleForEC2Spot*) {role};;
                    *get-role*) exit 254;;
                    *get-caller-identity*) echo 123456789012;;
                esac"""
                tools = Tools(self, terraform="", aws=aws)
                done = self.infrastructure(tools, "apply", AUTO="1")
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertEqual(grant in tools.calls(), tries)
                # The command to run is printed if it failed.
                self.assertEqual(f"  {grant}\n" in done.stderr, granted == "exit 254")
        (self.terraform / "terraform.tfvars").unlink()
        tools = Tools(self, terraform="", aws='case "$*" in *drover-runner*) exit 254;; esac')
        done = self.infrastructure(tools, "apply", AUTO="1")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertFalse([call for call in tools.calls() if " kms " in call], "without such a key, none is lent")

    def test_destroy_is_refused_while_machines_exist(self):
        tools = Tools(self, terraform="", aws="echo i-0123456789abcdef0")
        done = self.infrastructure(tools, "destroy", AUTO="1")
        self.assertIn("i-0123456789abcdef0", done.stderr)
        self.assertEqual(len(tools.calls()), 2, "expected only terraform init and one call of EC2")


class State(Checkout, unittest.TestCase):
    """Where Terraform's state is. test_terraform moves a real one."""

    STATE = {"resources": [{}], "outputs": {"sam_parameters": {"value": {"Stack": "drover"}}}}
    ROLE = {"type": "aws_iam_role", "name": "runner", "instances": [{"attributes": {"name": "blue-runner"}}]}

    def run_with(self, command="apply", state=None, recorded=None, role_exists=False, terraform="", **environment):
        for name, text in (("terraform.tfstate", state and json.dumps(state)), ("state-bucket", recorded)):
            (self.terraform / name).unlink(missing_ok=True)
            if text:
                (self.terraform / name).write_text(text, encoding="utf-8")
        aws = f'case "$*" in "iam get-role"*) exit {0 if role_exists else 254};; esac'
        tools = Tools(self, terraform=terraform, aws=aws)
        done = self.infrastructure(tools, command, *(["roles"] * (command == "output")), **{"AUTO": "1", **environment})
        return done, [call for call in tools.calls() if call.startswith("terraform")]

    def refused(self, message, **given):
        done, calls = self.run_with(**given)
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(message, done.stderr)
        self.assertFalse([call for call in calls if call.split()[1] in ("plan", "apply", "output", "destroy")], calls)

    def test_the_bucket_is_remembered_for_other_shells(self):
        done, _ = self.run_with(STATE_BUCKET="states")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual((self.terraform / "state-bucket").read_text(encoding="utf-8"), "states\n")
        for command in ("plan", "apply", "output", "destroy"):
            done, _ = self.run_with(command, recorded="states\n")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn('"states"', (self.terraform / "backend_override.tf").read_text(encoding="utf-8"))

    def test_a_plan_that_is_not_applied_does_not_change_the_checkout(self):
        self.run_with("plan", STATE_BUCKET="states")
        self.assertFalse((self.terraform / "state-bucket").exists())

    def test_another_bucket_than_the_recorded_one_is_refused(self):
        self.refused("STATE_BUCKET is other", recorded="states\n", STATE_BUCKET="other")
        self.assertEqual(self.run_with(recorded="states\n", STATE_BUCKET="states")[0].returncode, 0)

    def test_the_first_apply_with_a_bucket_copies_the_local_state(self):
        done, calls = self.run_with(state=self.STATE, STATE_BUCKET="states")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual([call.split()[1] for call in calls], ["init", "state", "state", "state", "plan", "apply"])
        self.assertIn("terraform state push terraform.tfstate", calls)
        self.assertFalse((self.terraform / "terraform.tfstate").exists())
        self.assertTrue((self.terraform / "terraform.tfstate.copied").exists())
        self.assertTrue((self.terraform / "state-bucket").exists())

    def test_a_local_state_is_never_left_behind(self):
        for command in ("plan", "output", "destroy"):
            self.refused("not yet in the bucket states", command=command, state=self.STATE, STATE_BUCKET="states")
        pulled = 'case "$*" in "state pull") echo "{\\"resources\\": [{}]}";; esac'
        self.refused("both", state=self.STATE, STATE_BUCKET="states", terraform=pulled)
        self.refused("cannot ask for confirmation", state=self.STATE, STATE_BUCKET="states", AUTO="")

    def test_the_local_state_of_another_stack_is_neither_used_nor_copied(self):
        for state, stack in ((self.STATE, "blue"), ({"resources": [self.ROLE]}, "drover")):
            self.refused("is the state of another stack", state=state, STACK=stack)
            done, calls = self.run_with(state=state, STACK=stack, STATE_BUCKET="states")
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertFalse([call for call in calls if "push" in call])
            self.assertTrue((self.terraform / "terraform.tfstate").exists())

    def test_an_empty_state_of_an_existing_stack_is_refused(self):
        for command in ("apply", "destroy"):
            self.refused("the stack's state is elsewhere", command=command, role_exists=True)
            self.refused("the stack's state is elsewhere", command=command, role_exists=True, STATE_BUCKET="states")
        listed = 'case "$*" in "state list") echo aws_iam_role.runner;; esac'
        self.assertEqual(self.run_with(role_exists=True, terraform=listed)[0].returncode, 0)


class GitHubIds(Checkout, unittest.TestCase):
    """The ids of the repository whose workflows may assume the roles."""

    ANSWER = '{"id": 7654321, "owner": {"id": 1234567}}'

    def plan(self, variables, gh="exit 1", curl="exit 22", **environment):
        (self.terraform / "terraform.tfvars").write_text(variables, encoding="utf-8")
        tools = Tools(self, terraform="", gh=gh, curl=curl)
        return self.infrastructure(tools, "plan", **environment), tools.calls()

    def test_the_ids_are_looked_up(self):
        repository = 'egress = "public"\ngithub_repository = "octo-org/infrastructure" # its workflows\n'
        for lookup in (
            {"gh": "echo 1234567 7654321"},
            {"curl": f"echo '{self.ANSWER}'"},
            {
                "GITHUB_REPOSITORY": "octo-org/infrastructure",
                "GITHUB_REPOSITORY_ID": "7654321",
                "GITHUB_REPOSITORY_OWNER_ID": "1234567",
            },
        ):
            with self.subTest(lookup):
                done, calls = self.plan(repository, **lookup)
                self.assertEqual(done.returncode, 0, done.stderr)
                self.assertIn("-var github_owner_id=1234567 -var github_repository_id=7654321", calls[-1])
        done, calls = self.plan("", gh="echo 1 2", TF_VAR_github_repository="octo-org/infrastructure")
        self.assertIn("-var github_owner_id=1 -var github_repository_id=2", calls[-1])

    def test_ids_that_are_set_are_not_looked_up(self):
        ids = 'github_repository = "a/b"\ngithub_owner_id = "1"\ngithub_repository_id = "2"\n'
        for variables in (ids, "github_repository = null\n", ""):
            done, calls = self.plan(variables)
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertEqual([call.split()[1] for call in calls], ["init", "plan"])

    def test_a_plan_without_the_ids_is_refused(self):
        for failure in ({}, {"gh": "echo", "curl": "exit 6"}, {"curl": 'echo "{}"'}):
            done, calls = self.plan('github_repository = "octo-org/infrastructure"\n', **failure)
            self.assertEqual(done.returncode, 1)
            self.assertIn("github_owner_id and github_repository_id", done.stderr)
            self.assertFalse([call for call in calls if call.startswith("terraform plan")])

    def test_the_token_is_not_an_argument(self):
        answer = f"cat \"$(echo \"$*\" | sed 's/.*--config \\([^ ]*\\).*/\\1/')\" >&2; echo '{self.ANSWER}'"
        done, calls = self.plan('github_repository = "a/b"\n', curl=answer, GITHUB_TOKEN="secret-token")
        self.assertIn("Authorization: Bearer secret-token", done.stderr)
        self.assertNotIn("secret-token", "".join(calls))


class Deploy(unittest.TestCase):
    PARAMETERS = {"Stack": "drover", "LaunchTemplateArns": "arn:a,arn:b"}
    TAGS = {}

    def deploy(
        self,
        *,
        status="",
        table=False,
        after="CREATE_COMPLETE",
        change_set="exit 0",
        action="Import",
        architecture="",
        **environment,
    ):
        """Deploys with a fake AWS that has a stack with this status and a table. Returns the result and all calls."""
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-stack-")))
        self.template, self.sam_template = folder / "template", folder / "sam.yaml"
        for function in project.FUNCTIONS:
            built = folder / f"target/lambda/{function}/bootstrap"
            built.parent.mkdir(parents=True)
            built.touch()
        (folder / "status").write_text(status, encoding="utf-8")
        described = json.dumps([{"OutputKey": it, "OutputValue": it} for it in Smoke.OUTPUTS])
        aws = f"""cd {folder}
        case "$*" in
            *describe-stacks*StackStatus*)
                [ -s status ] || {{ echo "Stack with id drover does not exist" >&2; exit 254; }}
                # Each question brings the stack a step further.
                cat status; [ ! -s next ] || mv next status;;
            *describe-stacks*Architecture*) echo "{architecture}";;
            *describe-stacks*) echo '{described}';;
            *describe-table*) {"echo drover" if table else "echo ResourceNotFoundException >&2; exit 254"};;
            *" delete-stack "*) : >status;;
            *create-change-set*)
                for it; do case "$it" in file://*) cp "${{it#file://}}" template;; esac; done
                echo REVIEW_IN_PROGRESS >status;;
            *change-set-create-complete*) {change_set};;
            *StatusReason*) echo "the reason";;
            *LogicalResourceId==*) echo {action};;
            *execute-change-set*) echo CREATE_IN_PROGRESS >status; echo {after} >next;;
        esac"""
        outputs = json.dumps(self.PARAMETERS)
        packaged = json.dumps({"Resources": {"Table": {"Properties": {"TableName": {"Ref": "Stack"}}}}})
        # The packaged template is the file that is the last argument.
        sam = f"""case "$1" in package) for last; do :; done; echo '{packaged}' >"$last";; esac
        while [ "$1" != --template-file ]; do shift; done; cp "$2" "{self.sam_template}" """
        cargo = f"""case "$1" in metadata) echo '{{"target_directory": "{folder}/target"}}';; esac"""
        terraform = f"""case "$*" in *artifact_bucket*) echo '"zips"';;
        *"output -json tags"*) echo '{json.dumps(self.TAGS)}';; *output*) echo '{outputs}';; esac"""
        tools = Tools(self, terraform=terraform, sam=sam, aws=aws, cargo=cargo, rustup="")
        given = {"AUTO": "1", "STACK": "drover", "POLL_SECONDS": "0", "LINK": "", "RELEASE": "", **environment}
        done = tools.run("infra/deploy", **given)
        return done, tools.calls()

    def assert_calls(self, calls, *expected, absent=()):
        """Checks that the calls contain these beginnings in this order."""
        positions = [next((at for at, call in enumerate(calls) if call.startswith(it)), None) for it in expected]
        self.assertNotIn(None, positions, (expected, calls))
        self.assertEqual(positions, sorted(positions), calls)
        for it in absent:
            self.assertFalse([call for call in calls if call.startswith(it)], it)

    def test_parameters_come_from_terraform_and_the_environment(self):
        done, calls = self.deploy(PARAMETERS="Architecture=x86_64 LogLevel=debug")
        self.assertEqual(done.returncode, 0, done.stderr)
        (deploy,) = [call for call in calls if call.startswith("sam deploy")]
        self.assertIn(
            "--parameter-overrides Stack=drover LaunchTemplateArns=arn:a,arn:b Architecture=x86_64 LogLevel=debug",
            deploy,
        )
        self.assertIn("--s3-bucket zips ", deploy)
        self.assertNotIn("--tags", deploy)

    def test_sam_understands_an_empty_parameter_and_one_that_ends_with_an_equals_sign(self):
        self.PARAMETERS = {**self.PARAMETERS, "EbsKmsKeyArn": "", "CaCertificates": "aGVsbG8=,d29ybGQ="}
        _, calls = self.deploy()
        (deploy,) = [call for call in calls if call.startswith("sam deploy")]
        given = deploy.split("--parameter-overrides ")[1].split()
        converted = CfnParameterOverridesType().convert(tuple(given), None, None)
        self.assertEqual(converted, self.PARAMETERS)
        _, calls = self.deploy(table=True)
        self.assertIn('"ParameterKey": "EbsKmsKeyArn",     "ParameterValue": ""', " ".join(calls))

    def test_the_stack_has_the_tags_of_the_organisation(self):
        self.TAGS = {"CostCenter": "4711", "Team": "a=b"}
        _, calls = self.deploy()
        (deploy,) = [call for call in calls if call.startswith("sam deploy")]
        self.assertIn("--tags CostCenter=4711 Team=a=b ", deploy)
        _, calls = self.deploy(table=True)
        # The call takes several lines of the log.
        given = json.loads(re.search(r"--tags (\[.*?\]) --import", " ".join(calls))[1])
        self.assertEqual(given, [{"Key": "CostCenter", "Value": "4711"}, {"Key": "Team", "Value": "a=b"}])

    def test_the_functions_are_built_for_the_architecture_of_the_stack(self):
        targets = {"arm64": "aarch64-unknown-linux-gnu", "x86_64": "x86_64-unknown-linux-gnu"}
        for expected, given in (
            ("arm64", {}),
            ("x86_64", {"PARAMETERS": "LogLevel=debug Architecture=x86_64"}),
            # An earlier deployment set it.
            ("x86_64", {"status": "UPDATE_COMPLETE", "architecture": "x86_64"}),
            ("arm64", {"status": "UPDATE_COMPLETE", "architecture": "x86_64", "PARAMETERS": "Architecture=arm64"}),
        ):
            with self.subTest(given):
                done, calls = self.deploy(**given)
                self.assertEqual(done.returncode, 0, done.stderr)
                (build,) = [call for call in calls if call.startswith("cargo lambda build")]
                self.assertIn(f"--target {targets[expected]} ", build)
                template = yaml.load(self.sam_template.read_text(encoding="utf-8"), project.Loader)
                resources = template["Resources"].values()
                code = {it["Properties"]["CodeUri"] for it in resources if "CodeUri" in it["Properties"]}
                names = {f"{function}-{expected}.zip" for function in project.FUNCTIONS}
                self.assertEqual({pathlib.Path(it).name for it in code}, names)

    def test_the_state_of_another_stack_is_rejected(self):
        tools = Tools(self, terraform='case "$*" in *output*) echo \'{"Stack": "blue"}\';; esac', sam="", aws="")
        done = tools.run("infra/deploy", AUTO="1", STACK="drover")
        self.assertIn("another stack", done.stderr)
        self.assertFalse([call for call in tools.calls() if call.startswith("sam")])

    def test_a_stack_without_remains_is_deployed_by_sam(self):
        for status, table in (("", False), ("REVIEW_IN_PROGRESS", False), ("UPDATE_COMPLETE", True)):
            with self.subTest(status):
                done, calls = self.deploy(status=status, table=table)
                self.assertEqual(done.returncode, 0, done.stderr)
                unused = ("sam package", "aws cloudformation create-change-set", "aws cloudformation delete-stack")
                self.assert_calls(calls, "cargo lambda build", "sam deploy", absent=unused)

    def test_a_table_without_a_stack_is_imported(self):
        done, calls = self.deploy(table=True, PARAMETERS="Architecture=x86_64")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assert_calls(
            calls,
            "cargo lambda build",
            "sam package",
            "aws cloudformation create-change-set",
            "aws cloudformation wait change-set-create-complete",
            "aws cloudformation execute-change-set",
            absent=["sam deploy"],
        )
        text = "\n".join(calls)
        create = text[text.index("aws cloudformation create-change-set") :]
        self.assertIn("--change-set-type CREATE --tags [] --import-existing-resources", create)
        parameters = json.JSONDecoder().raw_decode(create[create.index("--parameters ") + len("--parameters ") :])[0]
        self.assertEqual(
            {it["ParameterKey"]: it["ParameterValue"] for it in parameters},
            {**self.PARAMETERS, "Architecture": "x86_64"},
        )
        self.assertIn("export DROVER_TABLE=", done.stdout)
        # CloudFormation would try to create a table whose name is a reference.
        template = json.loads(self.template.read_text(encoding="utf-8"))
        self.assertEqual(template["Resources"]["Table"]["Properties"]["TableName"], "drover")

    def test_a_failed_first_deployment_is_deleted_and_its_table_imported(self):
        for table, then in ((True, "aws cloudformation execute-change-set"), (False, "sam deploy")):
            done, calls = self.deploy(status="ROLLBACK_COMPLETE", table=table)
            self.assertEqual(done.returncode, 0, done.stderr)
            deleted = ("aws cloudformation delete-stack", "aws cloudformation wait stack-delete-complete")
            self.assert_calls(calls, *deleted, "cargo lambda build", then)

    def test_nothing_is_deleted_or_imported_without_confirmation(self):
        for given in ({"status": "ROLLBACK_COMPLETE"}, {"table": True}):
            done, calls = self.deploy(**given, AUTO="")
            self.assertEqual(done.returncode, 1)
            self.assertIn("set AUTO=1", done.stderr)
            changes = ("aws cloudformation delete-stack", "aws cloudformation execute-change-set")
            self.assert_calls(calls, absent=changes)

    def test_a_failed_import_is_an_error(self):
        done, _ = self.deploy(table=True, after="ROLLBACK_COMPLETE")
        self.assertEqual(done.returncode, 1)
        self.assertIn("is in the state ROLLBACK_COMPLETE", done.stderr)
        for failure, message in (({"change_set": "exit 255"}, "the reason"), ({"action": "Add"}, "does not import")):
            done, calls = self.deploy(table=True, **failure)
            self.assertEqual(done.returncode, 1)
            self.assertIn(message, done.stderr)
            self.assert_calls(calls, absent=["aws cloudformation execute-change-set"])

    def test_a_stack_that_needs_an_operator_is_reported_before_the_build(self):
        for status, remedy in (
            ("ROLLBACK_FAILED", "aws cloudformation delete-stack --stack-name drover"),
            ("DELETE_FAILED", "aws cloudformation delete-stack --stack-name drover"),
            ("UPDATE_ROLLBACK_FAILED", "aws cloudformation continue-update-rollback --stack-name drover"),
            ("UPDATE_IN_PROGRESS", "wait until the other deployment has ended"),
        ):
            done, calls = self.deploy(status=status, table=True)
            self.assertEqual(done.returncode, 1, status)
            self.assertIn(remedy, done.stderr)
            self.assert_calls(calls, absent=["cargo lambda build", "sam"])

    def test_an_account_that_cannot_be_read_is_an_error(self):
        tools = Tools(
            self,
            terraform=f"case \"$*\" in *output*) echo '{json.dumps(self.PARAMETERS)}';; esac",
            sam="",
            aws="echo AccessDenied >&2; exit 254",
        )
        done = tools.run("infra/deploy", AUTO="1", STACK="drover")
        self.assertEqual(done.returncode, 1)
        self.assertIn("AccessDenied", done.stderr)
        self.assertFalse([call for call in tools.calls() if call.startswith("sam")])


class Uninstall(Checkout, unittest.TestCase):
    MACHINE = {"instance": "i-1", "pool": "linux", "state": "busy"}
    QUEUED = {"instance": None, "pool": "linux", "state": "queued"}
    RUNNER = {"owner": "octo-org", "runner": "drover_drover_linux_a_1_0_1", "id": 1, "state": "busy"}

    def uninstall(self, ps=(), instances=(), runners=(), failing="", table_format="1", **environment):
        """Uninstalls a stack of which these answers are given one after another; the last answer is repeated."""
        answers = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-uninstall-")))
        for name, given in (("ps", ps), ("ec2", instances), ("runners", runners)):
            for number, one in enumerate([*given, "" if name == "ec2" else []]):
                (answers / f"{name}-{number}").write_text(one if name == "ec2" else json.dumps(one), encoding="utf-8")
        # following NAME: the next answer, or the last one again.
        following = f"""following() {{
            cd "{answers}"
            echo >>"$1"
            cat "$1-$(($(wc -l <"$1") - 1))" 2>/dev/null || cat "$(ls "$1"-* | tail -n 1)"
        }}"""
        described = json.dumps([{"OutputKey": key, "OutputValue": value} for key, value in Smoke.OUTPUTS.items()])
        drover = f"""{following}
        case "$*" in
            {failing or "none"}*) exit 3;;
            "version --json") echo '{{"table_format": {table_format}}}';;
            "pools --json") echo '[{{"pool": "linux"}}, {{"pool": "large"}}]';;
            "ps --json") following ps;;
            "runners --json") following runners;;
        esac"""
        aws = f"""{following}
        case "$*" in *describe-stacks*) echo '{described}';; *describe-instances*) following ec2;; esac"""
        tools = Tools(self, drover=drover, aws=aws)
        (self.checkout / "infra/infrastructure").write_text(
            f'#!/bin/sh\necho "infrastructure $*" >>"{tools.log}"\n', encoding="utf-8"
        )
        given = {"AUTO": "1", "DROVER": "drover", "POLL_SECONDS": "0", "QUIET_SECONDS": "0", **environment}
        done = tools.run("infra/uninstall", checkout=self.checkout, **given)
        return done, [call for call in tools.calls() if not call.startswith("aws cloudformation")]

    def test_everything_is_deleted_after_the_last_machine_and_runner_are_gone(self):
        done, calls = self.uninstall(
            ps=[[self.MACHINE, self.QUEUED], [self.QUEUED]],
            instances=["i-1", "i-1", ""],
            runners=[[self.RUNNER], [self.RUNNER], [self.RUNNER], []],
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(calls[1:4], ["drover pools --json", "drover drain linux", "drover drain large"])
        self.assertEqual(calls[-1], "infrastructure destroy")
        # Three readings with something left, then two without.
        self.assertEqual(calls.count("drover runners --json"), 5)
        self.assertIn("drover_drover_linux_a_1_0_1", done.stdout)
        # `drover retire` refuses a held machine.
        self.assertIn("drover release INSTANCE", done.stdout)

    def test_a_stack_without_pools_is_deleted_at_once(self):
        done, calls = self.uninstall(table_format="null")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(calls, ["drover version --json", "infrastructure destroy"])

    def test_what_appears_between_two_readings_is_waited_for(self):
        done, calls = self.uninstall(ps=[[], [{**self.MACHINE, "state": "launching"}], []])
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(calls.count("drover ps --json"), 4)

    def test_nothing_is_deleted_after_a_failure_or_without_confirmation(self):
        for failing in ("version", "pools", "drain", "ps", "runners"):
            done, calls = self.uninstall(failing=failing)
            self.assertNotEqual(done.returncode, 0, failing)
            self.assertNotIn("infrastructure destroy", calls)
        done, calls = self.uninstall(AUTO="")
        self.assertIn("set AUTO=1", done.stderr)
        self.assertEqual(calls, [])


class Smoke(unittest.TestCase):
    OUTPUTS = {
        "WebhookUrl": "https://hooks.example.com/",
        "Table": "drover",
        "BootTable": "drover-boot",
        "QueueUrl": "https://sqs.example.com/drover",
    }

    def smoke(self, outputs=OUTPUTS, stack="exit 0", curl="echo 401", report='{"failed":0}', error="None", doctor=""):
        described = json.dumps([{"OutputKey": key, "OutputValue": value} for key, value in outputs.items()] or None)
        # `aws lambda invoke` writes the answer to the file that is its last argument.
        aws = f"""case "$*" in
            *describe-stacks*) echo '{described}'; {stack};;
            *invoke*) for last in "$@"; do :; done; echo '{report}' >"$last"; echo {error};;
        esac"""
        tools = Tools(self, aws=aws, curl=curl, drover=doctor)
        done = tools.run("infra/smoke", DROVER="drover", AWS_REGION="eu-central-1")
        return done, tools.calls()

    def test_ingest_the_janitor_and_the_doctor_are_asked(self):
        done, calls = self.smoke()
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertTrue(
            [call for call in calls if call.startswith("curl") and call.endswith(" https://hooks.example.com/")]
        )
        self.assertTrue([call for call in calls if "lambda invoke --function-name drover-janitor" in call])
        self.assertIn("drover doctor", calls)

    def test_each_failure_is_reported(self):
        without_url = {key: value for key, value in self.OUTPUTS.items() if key != "WebhookUrl"}
        for failure in (
            {"stack": "exit 254"},
            {"outputs": {}},
            {"outputs": without_url},
            {"curl": "exit 7"},
            {"curl": "echo 202"},
            {"error": "Unhandled"},
            {"report": '{"failed":1}'},
            {"report": "{}"},
            {"report": "no JSON"},
            {"doctor": "exit 1"},
        ):
            with self.subTest(failure):
                done, _ = self.smoke(**failure)
                self.assertNotEqual(done.returncode, 0)
                self.assertNotIn("runs-on:", done.stdout)

    def canary(self, aws):
        """Runs the last step of the printed workflow as GitHub's runner would."""
        printed = self.smoke()[0].stdout
        workflow = yaml.safe_load(printed[printed.index("name: drover-canary") :])
        script = workflow["jobs"]["canary"]["steps"][-1]["run"]
        tools = Tools(self, aws=aws)
        # The script writes to its working directory.
        done = tools.run("bash", "-c", f"cd {tools.folder} && exec bash -e -c '{script}'")
        return done, tools.calls()

    def test_the_first_job_succeeds_only_if_the_machines_role_may_do_nothing(self):
        denied = "echo An error occurred '(AccessDeniedException)' when calling it >&2; exit 254"
        done, calls = self.canary(denied)
        self.assertEqual((done.returncode, len(calls)), (0, 4), done.stdout + done.stderr)
        tables = [f"--table-name drover{name}" for name in ("", "-boot", "-reports")]
        for allowed in [*tables, "secretsmanager"]:
            with self.subTest(allowed=allowed):
                done, _ = self.canary(f'case "$*" in *"{allowed}"|*{allowed}" "*) exit 0;; esac\n{denied}')
                self.assertEqual(done.returncode, 1, done.stdout)
        self.assertEqual(self.canary("exit 127")[0].returncode, 1, "an AWS CLI that does not work proves nothing")


class Checks(unittest.TestCase):
    def test_no_check_in_a_script_is_exempt_from_errexit(self):
        # With `set -e`, bash ignores the status of a command that begins with `!`.
        for folder in ("infra", "packer/scripts", "packer/files", ".github/workflows", ".ci"):
            for path in filter(pathlib.Path.is_file, (project.ROOT / folder).iterdir()):
                self.assertEqual(re.findall(r"(?m)^\s*! .*$", path.read_text(encoding="utf-8")), [], path.name)

    def test_the_version_of_an_image_is_checked_even_if_none_is_expected(self):
        source = project.text("packer/scripts/verify.sh")
        function = re.search(r"(?m)^is_version\(\) .*$", source)[0]
        for version, expected, status in (
            ("2.338.0", "2.338.0", 0),
            ("2.338.0", "", 0),
            ("2.337.0", "2.338.0", 1),
            ("", "", 1),
        ):
            done = Tools(self).run("bash", "-c", f'{function}\nis_version "{version}"', RUNNER_VERSION=expected)
            self.assertEqual(done.returncode, status, (version, expected))


class Package(unittest.TestCase):
    """Packages executables that the test writes to the folder where cargo-lambda would."""

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

    def test_zip_files_are_reproducible_and_start_on_lambda(self):
        first, second = self.package(b"ELF GLIBC_2.34"), self.package(b"ELF GLIBC_2.34")
        for done, zips, tools in (first, second):
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertIn("cargo lambda build --profile deploy --target aarch64-unknown-linux-gnu", tools.calls()[-1])
            for function in project.FUNCTIONS:
                with zipfile.ZipFile(zips / f"{function}-arm64.zip") as packed:
                    (entry,) = packed.infolist()
                    self.assertEqual((entry.filename, entry.external_attr >> 16), ("bootstrap", 0o755))
        same = [(zips / "ingest-arm64.zip").read_bytes() for _, zips, _ in (first, second)]
        self.assertEqual(*same)

    def test_an_executable_that_needs_a_newer_glibc_is_rejected(self):
        done, *_ = self.package(b"ELF GLIBC_2.34 GLIBC_2.36")
        self.assertEqual(done.returncode, 1)
        self.assertIn("glibc 2.36", done.stderr)

    def test_an_executable_that_is_too_large_is_rejected(self):
        (limit,) = re.findall(r"\[ingest\]=(\d+)", project.text("infra/package"))
        done, *_ = self.package(os.urandom(int(limit) * 1_000_000))
        self.assertEqual(done.returncode, 1)
        self.assertIn("ingest exceeds its size limit", done.stderr)

    def test_packaging_the_agent_prints_only_its_path(self):
        done, zips, _ = self.package(b"ELF", "agent")
        self.assertEqual(done.stdout.strip(), str(zips.parent / "lambda/agent/bootstrap"))


class VerifyImage(unittest.TestCase):
    """Runs the part of verify.sh that needs no image."""

    MODULES = ("growpart", "resizefs", "set_hostname")

    def verify(self, text):
        folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-image-")))
        # cloud-init is in no registry of Python, so its modules are empty files here.
        config = folder / "python/cloudinit/config"
        config.mkdir(parents=True)
        for package in (config.parent, config):
            (package / "__init__.py").touch()
        for module_name in self.MODULES:
            (config / f"cc_{module_name}.py").touch()
        (folder / "99-drover.cfg").write_text(text, encoding="utf-8")
        return Tools(self).run(
            "packer/scripts/verify.sh", "cloud-init", str(folder / "99-drover.cfg"), PYTHONPATH=str(folder / "python")
        )

    def test_the_configuration_of_cloud_init_is_valid(self):
        done = self.verify(project.text("packer/files/99-drover.cfg"))
        self.assertEqual((done.returncode, done.stdout, done.stderr), (0, "", ""))

    def test_a_broken_configuration_of_cloud_init_is_rejected(self):
        valid = project.text("packer/files/99-drover.cfg")
        for broken, message in (
            (valid.replace("cloud_final_modules", "cloud_finale_modules"), "unknown key: cloud_finale_modules"),
            (valid.replace("growpart", "growprat"), "cloud-init has no module growprat"),
            (valid.replace("[Ec2]", "Ec2"), "datasource_list must be a list of names"),
            (valid.replace("  Ec2:", "  Azure:"), "its keys must be in datasource_list"),
            (valid.replace("[Ec2]", "[Ec2"), "cannot read"),
            ("#cloud-config", "is not a mapping"),
        ):
            with self.subTest(message):
                done = self.verify(broken)
                self.assertEqual(done.returncode, 1, done.stdout)
                self.assertIn(message, done.stderr)


class BuildImage(unittest.TestCase):
    """Builds with a fake Packer, and a server in place of GitHub's API."""

    def setUp(self):
        self.checkout = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory(prefix="drover-image-")))
        ignored = shutil.ignore_patterns("tests")
        for folder in ("infra", "packer", "terraform"):
            shutil.copytree(project.ROOT / folder, self.checkout / folder, ignore=ignored)
        shutil.copy(project.ROOT / "Cargo.toml", self.checkout)
        # It downloads the plugin.
        (self.checkout / "infra/packer-plugin").write_text("#!/bin/sh\necho /plugins\n", encoding="utf-8")
        done = Tools(self).run("infra/runner-version", "--pinned", checkout=self.checkout)
        self.pinned = done.stdout.strip()

    def build(
        self,
        *arguments,
        api="http://127.0.0.1:1",
        image_has="2.300.0",
        parameter="echo ami-1",
        version="1.11.2",
    ):
        aws = f"""case "$*" in
            *get-parameter*) {parameter};;
            *image-id,Values=ami-1*drover:runner*) echo {image_has};;
            *describe-images*) echo '{{"Images": []}}';;
        esac"""
        packer = f'if [ "$1" = version ]; then echo Packer v{version}; exit; fi\n'
        packer += """echo '{"builds": [{"artifact_id": "eu-central-1:ami-2"}]}' >manifest.json
        for it in "$@"; do case "$it" in -var-file=*) cat "${it#-var-file=}" >variables.json;; esac; done"""
        cargo = """case "$1" in metadata) echo '{"target_directory": "/target"}';; esac"""
        tools = Tools(self, aws=aws, packer=packer, cargo=cargo, terraform="echo '{}'")
        done = tools.run(
            "infra/build-image", *arguments, checkout=self.checkout, LINK="plain", STACK="drover", GITHUB_API_URL=api
        )
        return done, [call for call in tools.calls() if re.match("packer build|aws ssm put-parameter", call)]

    def api(self):
        """The address of an API in which the pinned runner was released on a known day."""
        path = f"/repos/actions/runner/releases/tags/v{self.pinned}"

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200 if self.path == path else 404)
                self.end_headers()
                self.wfile.write(b'{"published_at": "2026-11-25T00:00:00Z"}')

            def log_message(self, *arguments):
                pass

        server = self.enterContext(http.server.HTTPServer(("127.0.0.1", 0), Handler))
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def test_a_failed_look_up_of_the_runner_stops_the_build(self):
        done, calls = self.build()
        self.assertEqual(calls, [])
        self.assertNotEqual(done.returncode, 0)
        self.assertIn("cannot read its age from GitHub", done.stderr)

    def test_the_image_says_when_its_runner_was_released(self):
        done, calls = self.build(api=self.api())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertEqual(len(calls), 2)
        variables = json.loads((self.checkout / "variables.json").read_text(encoding="utf-8"))
        self.assertEqual(variables["runner_released"], "2026-11-25T00:00:00Z")

    def test_the_image_says_which_version_its_agent_has(self):
        self.build(api=self.api())
        variables = json.loads((self.checkout / "variables.json").read_text(encoding="utf-8"))
        self.assertEqual(
            variables["agent_version"], re.search(r'(?m)^version = "(.*)"$', project.text("Cargo.toml"))[1]
        )

    def test_with_if_new_runner_an_image_that_has_the_pinned_runner_is_kept(self):
        done, calls = self.build("if-new-runner", image_has=self.pinned)
        self.assertEqual((done.returncode, calls), (0, []), done.stderr)
        self.assertIn("nothing to build", done.stdout)
        # An image without a runner, such as the plain Ubuntu of a new stack, has no tag: the AWS CLI prints None.
        api = self.api()
        for other in ("2.300.0", "None"):
            done, calls = self.build("if-new-runner", api=api, image_has=other)
            self.assertEqual((done.returncode, len(calls)), (0, 2), done.stderr)

    def test_an_image_that_no_class_uses_is_not_built(self):
        missing = "echo An error occurred '(ParameterNotFound)' when calling GetParameter >&2; exit 254"
        for only in ("if-used", "if-new-runner"):
            done, calls = self.build(only, parameter=missing)
            self.assertEqual((done.returncode, calls), (0, []), done.stderr)
            self.assertIn("no class uses the image x86_64: nothing to build", done.stdout)
        done, calls = self.build(parameter=missing)
        self.assertEqual((done.returncode, calls), (1, []))
        self.assertIn("add one to runner_classes", done.stderr)
        # Without an answer of AWS, nobody knows.
        for arguments in ([], ["if-used"], ["if-new-runner"]):
            done, calls = self.build(*arguments, parameter="echo AccessDenied >&2; exit 254")
            self.assertEqual((done.returncode, calls), (1, []))
            self.assertIn("AccessDenied", done.stderr)
        done, calls = self.build("if-used", api=self.api())
        self.assertEqual((done.returncode, len(calls)), (0, 2), done.stderr)

    def test_the_workflow_builds_only_images_that_a_class_uses(self):
        steps = yaml.safe_load(project.text(".github/workflows/image.yml"))["jobs"]["build"]["steps"]
        (build,) = (it for it in steps if "make build-image" in it.get("run", ""))
        self.assertRegex(build["env"]["ONLY"], r"&& 'if-new-runner' \|\| 'if-used' }}$")

    def test_a_packer_that_is_too_old_is_refused(self):
        for version in ("1.6.6", "1.10.3", "0.12.0"):
            done, calls = self.build(version=version)
            self.assertEqual((done.returncode, calls), (1, []), version)
            self.assertIn("Packer 1.11 or later is required", done.stderr)
            self.assertIn(f"found: Packer v{version}", done.stderr)
        for version in ("1.11.0", "1.14.2", "2.0.0"):
            done, _ = self.build("if-new-runner", image_has=self.pinned, version=version)
            self.assertEqual(done.returncode, 0, done.stderr)

    def test_a_new_runner_is_looked_for_every_six_hours_and_built_at_once(self):
        workflow = yaml.safe_load(project.text(".github/workflows/image.yml"))
        # YAML 1.1 reads the key `on` as true.
        (often, _) = (it["cron"] for it in workflow[True]["schedule"])
        self.assertRegex(often, r"^\d+ \*/6 \* \* \*$")
        look, build = workflow["jobs"]["new-runner"], workflow["jobs"]["build"]
        self.assertIn(often, look["if"])
        (step,) = (it for it in look["steps"] if it.get("run", "").startswith("infra/runner-version --update"))
        self.assertEqual(step["env"]["GITHUB_TOKEN"], "${{ github.token }}")
        # Otherwise each look would wait for an approval.
        self.assertIn(f"github.event.schedule != '{often}' || needs.new-runner.outputs.newer == 'true'", build["if"])
        steps = build["steps"]
        at, build = next((at, it) for at, it in enumerate(steps) if "make build-image" in it.get("run", ""))
        self.assertIn(often, build["env"]["ONLY"])
        update = next(at for at, it in enumerate(steps) if it.get("run") == "infra/runner-version --update")
        self.assertLess(update, at)
        for step in (steps[update], build):
            self.assertEqual(step["env"]["GITHUB_TOKEN"], "${{ github.token }}")


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

    def test_a_release_without_a_checksum_is_rejected(self):
        del self.newest["assets"][1]
        with self.assertRaises(ValueError):
            self.module.updated(self.text, self.newest)


if __name__ == "__main__":
    unittest.main()
