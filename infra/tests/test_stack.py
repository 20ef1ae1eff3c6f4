"""Translates template.yaml with SAM's translator and creates the stack in an emulated CloudFormation.

The emulator ignores what it does not support: function URLs, alarms, metric filters, policies of queues and topics, and
some properties. cfn-lint and test_template check those.
"""

import io
import json
import time
import unittest
import zipfile

import project
from emulator import REGION, Emulator
from project import FUNCTIONS
from samtranslator.translator.transform import transform

BUCKET = "zips"


class NoManagedPolicies:
    """An empty loader of managed policies for the translator. The template uses none of SAM's policy templates."""

    def load(self):
        return {}


def translated_template():
    """The template without SAM's resource types, with the functions' code in a bucket."""
    template = project.template()
    for resource in template["Resources"].values():
        if resource["Type"] == "AWS::Serverless::Function":
            resource["Properties"]["CodeUri"] = {"Bucket": BUCKET, "Key": "bootstrap.zip"}
    translated = transform(template, parameters(), NoManagedPolicies())
    # The emulator allows message groups only for FIFO queues.
    for resource in translated["Resources"].values():
        for target in resource["Properties"].get("Targets", []):
            target.pop("SqsParameters", None)
    # The emulator does not support function URLs.
    del translated["Outputs"]["WebhookUrl"]
    return translated


def parameters():
    given = {name: value for name, value in project.PARAMETERS.items() if "::" not in name}
    return {name: ",".join(value) if isinstance(value, list) else value for name, value in given.items()}


class Stack(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        emulator = cls.enterClassContext(Emulator())
        cls.client = staticmethod(emulator.client)
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as it:
            it.writestr("bootstrap", "not started here")
        cls.client("s3").create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})
        cls.client("s3").put_object(Bucket=BUCKET, Key="bootstrap.zip", Body=packed.getvalue())
        given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters().items()]
        cls.client("cloudformation").create_stack(
            StackName="drover",
            TemplateBody=json.dumps(translated_template()),
            Parameters=given,
            Capabilities=["CAPABILITY_NAMED_IAM"],
        )
        (stack,) = cls.client("cloudformation").describe_stacks(StackName="drover")["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE", stack
        cls.outputs = {it["OutputKey"]: it["OutputValue"] for it in stack["Outputs"]}

    def function(self, name):
        return self.client("lambda").get_function_configuration(FunctionName=f"drover-{name}")

    def attributes(self, url):
        return self.client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]

    def test_the_outputs_name_the_tables(self):
        dynamodb = self.client("dynamodb")
        for output, keys in (("Table", ["pk", "sk"]), ("BootTable", ["pk"])):
            table = dynamodb.describe_table(TableName=self.outputs[output])["Table"]
            self.assertEqual([it["AttributeName"] for it in table["KeySchema"]], keys)
            self.assertEqual(table["BillingModeSummary"]["BillingMode"], "PAY_PER_REQUEST")

    def test_failed_messages_go_to_the_dead_letter_queue(self):
        queue, dead = self.attributes(self.outputs["QueueUrl"]), self.attributes(self.outputs["DeadLettersUrl"])
        redrive = json.loads(queue["RedrivePolicy"])
        self.assertEqual(redrive["deadLetterTargetArn"], dead["QueueArn"])
        self.assertEqual(queue["VisibilityTimeout"], str(6 * self.function("scaler")["Timeout"]))
        self.assertEqual(queue["SqsManagedSseEnabled"], "true")

    def test_the_scaler_reads_the_queue(self):
        (source,) = self.client("lambda").list_event_source_mappings()["EventSourceMappings"]
        self.assertEqual(source["EventSourceArn"], self.attributes(self.outputs["QueueUrl"])["QueueArn"])
        self.assertTrue(source["FunctionArn"].endswith(":drover-scaler"))
        self.assertEqual(source["BatchSize"], 10)

    def test_each_function_has_its_own_role_and_log_group(self):
        for name in FUNCTIONS:
            function = self.function(name)
            self.assertEqual((function["Runtime"], function["Handler"]), ("provided.al2023", "bootstrap"))
            self.assertTrue(function["Role"].endswith(f":role/drover-{name}"))
            groups = self.client("logs").describe_log_groups(logGroupNamePrefix=f"/aws/lambda/drover-{name}")[
                "logGroups"
            ]
            self.assertEqual([it["retentionInDays"] for it in groups], [30])

    def test_the_environment_names_the_created_resources(self):
        for name in FUNCTIONS:
            variables = self.function(name)["Environment"]["Variables"]
            self.assertEqual(variables["DROVER_STACK"], "drover")
            self.assertEqual(variables["DROVER_QUEUE_URL"], self.outputs["QueueUrl"])
            if name != "ingest":
                self.assertEqual(variables["DROVER_TABLE"], self.outputs["Table"])
                self.assertEqual(variables["DROVER_BOOT_TABLE"], self.outputs["BootTable"])
                self.assertEqual(variables["DROVER_RUNNER_ROLE_ID"], "AROAEXAMPLE")
            reports = "drover-reports" if name == "janitor" else None
            self.assertEqual(variables.get("DROVER_REPORTS_TABLE"), reports)

    def test_the_control_plane_policy_matches_the_template(self):
        iam = self.client("iam")
        policy = iam.get_policy(PolicyArn="arn:aws:iam::123456789012:policy/drover-control-plane")["Policy"]
        document = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])[
            "PolicyVersion"
        ]["Document"]
        statements = {it["Sid"]: it for it in document["Statement"]}
        self.assertEqual(
            statements["MainTable"]["Resource"], f"arn:aws:dynamodb:{REGION}:123456789012:table/{self.outputs['Table']}"
        )
        self.assertEqual(
            statements["BootTable"]["Resource"],
            f"arn:aws:dynamodb:{REGION}:123456789012:table/{self.outputs['BootTable']}",
        )
        self.assertEqual(statements["PassTheMachinesRole"]["Resource"], project.PARAMETERS["RunnerRoleArn"])
        self.assertEqual(
            statements["LaunchTaggedMachines"]["Condition"]["ArnEquals"],
            {"ec2:LaunchTemplate": project.PARAMETERS["LaunchTemplateArns"]},
        )
        limit = statements["LaunchAVolumeOfAnotherSize"]["Condition"]["NumericLessThanEquals"]
        self.assertEqual(limit["ec2:VolumeSize"], project.PARAMETERS["LargestVolumeGib"])

    def test_z_instance_events_reach_the_queue_unchanged(self):
        terminated = {"instance-id": "i-0123456789abcdef0", "state": "terminated"}
        started = {"instance-id": "i-0123456789abcdef0", "state": "running"}
        spot = {"instance-id": "i-0123456789abcdef0", "instance-action": "terminate"}
        entries = [
            {
                "Source": "aws.ec2",
                "DetailType": "EC2 Instance State-change Notification",
                "Detail": json.dumps(terminated),
            },
            {
                "Source": "aws.ec2",
                "DetailType": "EC2 Instance State-change Notification",
                "Detail": json.dumps(started),
            },
            {"Source": "aws.ec2", "DetailType": "EC2 Spot Instance Interruption Warning", "Detail": json.dumps(spot)},
            {"Source": "aws.ec2", "DetailType": "EBS Volume Notification", "Detail": "{}"},
        ]
        # The emulator would also send every event to the target of the schedule, which fails. Removing the target would
        # break other tests, so this test's name makes it run last.
        targets = self.client("events").list_targets_by_rule(Rule="drover-janitor")["Targets"]
        self.client("events").remove_targets(Rule="drover-janitor", Ids=[it["Id"] for it in targets])
        self.client("events").put_events(Entries=entries)
        arrived = []
        until = time.monotonic() + 20
        while len(arrived) < 2 and time.monotonic() < until:
            answer = self.client("sqs").receive_message(
                QueueUrl=self.outputs["QueueUrl"], MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            arrived += [json.loads(message["Body"]) for message in answer.get("Messages", [])]
        # The scaler parses these events in shared/domain/src/notice.rs.
        self.assertCountEqual(
            [(it["detail-type"], it["detail"]) for it in arrived],
            [(entries[0]["DetailType"], terminated), (entries[2]["DetailType"], spot)],
        )

    def test_the_janitor_runs_every_minute(self):
        rule = self.client("events").describe_rule(Name="drover-janitor")
        self.assertEqual((rule["ScheduleExpression"], rule["State"]), ("rate(1 minute)", "ENABLED"))
        (target,) = self.client("events").list_targets_by_rule(Rule="drover-janitor")["Targets"]
        self.assertTrue(target["Arn"].endswith(":drover-janitor"))


if __name__ == "__main__":
    unittest.main()
