"""Evaluates the policies with an evaluator that is not part of this project and knows AWS's actions and condition keys.

Each test states requests as AWS documents them: one for each resource that IAM checks for a call. The project's own
comparison of policies with calls is in test_terraform and in testing/sandbox.
"""

import fnmatch
import json
import re
import unittest

import project
from applied import managed_policies, new_vpc
from emulator import REGION
from evaluator import decisions

ACCOUNT = "123456789012"
HERE = f"arn:aws:ec2:{REGION}:{ACCOUNT}"
PUBLIC = f"arn:aws:ec2:{REGION}:"
CLOUDFORMATION = {"aws:CalledVia": ["cloudformation.amazonaws.com"]}


# Terraform ignores that it may not make this call, which it makes with the id of an image.
IGNORED = {"ec2:GetInstanceUefiData", "sts:GetCallerIdentity"}
PREFIXES = {"Secrets Manager": "secretsmanager"}
# Actions that have other names than their calls.
ACTIONS = {
    "s3:GetBucketAccelerateConfiguration": "s3:GetAccelerateConfiguration",
    "s3:GetBucketCors": "s3:GetBucketCORS",
    "s3:GetBucketEncryption": "s3:GetEncryptionConfiguration",
    "s3:GetBucketLifecycleConfiguration": "s3:GetLifecycleConfiguration",
    "s3:GetBucketReplication": "s3:GetReplicationConfiguration",
    "s3:GetObjectLockConfiguration": "s3:GetBucketObjectLockConfiguration",
    "s3:GetPublicAccessBlock": "s3:GetBucketPublicAccessBlock",
    "s3:HeadBucket": "s3:ListBucket",
    "s3:PutPublicAccessBlock": "s3:PutBucketPublicAccessBlock",
}


def calls(log):
    """The actions of the calls that Terraform's provider has logged."""
    found = set()
    for line in log.read_text(encoding="utf-8").splitlines():
        method = re.search(r"rpc\.method=(\w+)", line)
        service = re.search(r'rpc\.service="?([\w ]+?)"?(?: \S+=|$)', line)
        if method and service:
            prefix = PREFIXES.get(service[1], service[1].lower())
            found.add(ACTIONS.get(f"{prefix}:{method[1]}", f"{prefix}:{method[1]}"))
    return found - IGNORED


def image_tags(stack="drover"):
    return {"aws:RequestTag/drover:image-of": stack, "aws:TagKeys": ["Name", "drover:image-of"]}


def owned(stack="drover", tag="image-of"):
    return {f"aws:ResourceTag/drover:{tag}": stack}


class Policies(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        terraform = new_vpc()
        cls.output = terraform.output()
        cls.calls = {name: calls(terraform.folder / f"{name}.log") for name in ("plan", "apply")}
        iam = terraform.emulator.client("iam")
        managed = managed_policies(iam)
        cls.boundary = managed["drover-boundary"]

        def policies(role):
            names = iam.list_role_policies(RoleName=role)["PolicyNames"]
            inline = [iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"] for name in names]
            attached = iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"]
            return inline + [managed[it["PolicyName"]] for it in attached]

        cls.roles = {role["RoleName"]: policies(role["RoleName"]) for role in iam.list_roles()["Roles"]}
        cls.launch_template = cls.output["sam_parameters"]["LaunchTemplateArns"].split(",")[0]
        control_plane = project.template()["Resources"]["ControlPlanePolicy"]["Properties"]["PolicyDocument"]
        parameters = project.PARAMETERS | {
            "LaunchTemplateArns": cls.output["sam_parameters"]["LaunchTemplateArns"].split(","),
            "LargestVolumeGib": cls.output["sam_parameters"]["LargestVolumeGib"],
        }
        cls.control_plane = project.resolved(control_plane, parameters)
        # The tables, queues and secrets are not part of these tests.
        cls.control_plane["Statement"] = [
            it for it in cls.control_plane["Statement"] if "<" not in json.dumps(it["Resource"])
        ]

    def check(self, policies, requests, expected, boundary=None):
        """Requests are pairs or triples of action, resource and context."""
        asked = [
            {"policies": policies, "boundary": boundary, "action": it[0], "resource": it[1], "context": dict(*it[2:])}
            for it in requests
        ]
        for request, answer in zip(asked, decisions(asked), strict=True):
            with self.subTest(action=request["action"], resource=request["resource"], context=request["context"]):
                self.assertEqual(answer, expected)

    # ------------------------------------------------------------------------------------------ the role image

    def builder(self):
        """The requests of a build, as Packer's amazon-ebs builder makes them."""
        on_launch = image_tags() | {"ec2:CreateAction": "RunInstances"}
        on_image = image_tags() | {"ec2:CreateAction": "CreateImage"}
        variables = self.output["packer_variables"]
        return [
            ("ec2:CreateKeyPair", f"{HERE}:key-pair/packer_1", image_tags()),
            ("ec2:CreateTags", f"{HERE}:key-pair/packer_1", image_tags() | {"ec2:CreateAction": "CreateKeyPair"}),
            ("ec2:RunInstances", f"{PUBLIC}:image/ami-1", {"ec2:Owner": "099720109477"}),
            ("ec2:RunInstances", f"{PUBLIC}:image/ami-1", {"ec2:Owner": "amazon"}),
            ("ec2:RunInstances", f"{PUBLIC}:snapshot/snap-1", {"ec2:Owner": "099720109477"}),
            ("ec2:RunInstances", f"{HERE}:instance/*", image_tags()),
            ("ec2:RunInstances", f"{HERE}:volume/*", image_tags()),
            ("ec2:RunInstances", f"{HERE}:network-interface/*", image_tags()),
            ("ec2:RunInstances", f"{HERE}:key-pair/packer_1"),
            ("ec2:RunInstances", f"{HERE}:security-group/{variables['security_group_id']}"),
            ("ec2:RunInstances", f"{HERE}:subnet/{variables['subnet_id']}"),
            *(("ec2:CreateTags", f"{HERE}:{it}/new", on_launch) for it in ("instance", "volume", "network-interface")),
            (
                "iam:PassRole",
                f"arn:aws:iam::{ACCOUNT}:role/drover-builder",
                {"iam:PassedToService": "ec2.amazonaws.com"},
            ),
            ("ssm:StartSession", f"{HERE}:instance/i-1", owned()),
            ("ec2:ModifyInstanceAttribute", f"{HERE}:instance/i-1", owned()),
            ("ec2:StopInstances", f"{HERE}:instance/i-1", owned()),
            ("ec2:CreateImage", f"{HERE}:instance/i-1", owned()),
            ("ec2:CreateImage", f"{PUBLIC}:image/new", image_tags()),
            ("ec2:CreateImage", f"{PUBLIC}:snapshot/new", image_tags()),
            *(("ec2:CreateTags", f"{PUBLIC}:{it}/new", on_image) for it in ("image", "snapshot")),
            *(("ec2:CreateTags", f"{PUBLIC}:{it}/new", image_tags() | owned()) for it in ("image", "snapshot")),
            ("ec2:ModifyImageAttribute", f"{PUBLIC}:image/new", owned()),
            ("ec2:TerminateInstances", f"{HERE}:instance/i-1", owned()),
            ("ec2:DeleteKeyPair", f"{HERE}:key-pair/packer_1", owned()),
            ("ec2:DeregisterImage", f"{PUBLIC}:image/old", owned()),
            ("ec2:DeleteSnapshot", f"{PUBLIC}:snapshot/old", owned()),
            ("ssm:PutParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/drover/image/x86_64"),
        ]

    def test_the_role_image_allows_a_build(self):
        self.check(self.roles["drover-image"], self.builder(), "allowed")

    def test_the_role_image_reaches_no_other_instance_disk_or_image(self):
        kinds = [f"{HERE}:instance/i-2", f"{HERE}:volume/vol-2", f"{PUBLIC}:image/ami-2", f"{PUBLIC}:snapshot/snap-2"]
        self.check(
            self.roles["drover-image"],
            [
                # Its tag cannot be put on a resource that exists, with or without another tag.
                *(("ec2:CreateTags", it, image_tags()) for it in kinds),
                *(("ec2:CreateTags", it, image_tags() | owned("other")) for it in kinds),
                *(("ec2:DeleteTags", it, owned() | {"aws:TagKeys": ["drover:image-of"]}) for it in kinds),
                # What is created has the tag.
                *(
                    ("ec2:CreateTags", it, {"aws:TagKeys": ["Name"], "ec2:CreateAction": "RunInstances"})
                    for it in kinds[:2]
                ),
                ("ec2:RunInstances", f"{HERE}:instance/*", {"aws:TagKeys": ["Name"]}),
                ("ec2:CreateImage", f"{PUBLIC}:image/new", {"aws:TagKeys": ["Name"]}),
                ("ec2:CreateImage", f"{PUBLIC}:snapshot/new", image_tags("other")),
                # No image or snapshot of another machine, and none of another account or team as the source.
                ("ec2:CreateImage", f"{HERE}:instance/i-2"),
                ("ec2:CreateImage", f"{HERE}:instance/i-2", owned("drover-eu")),
                ("ec2:CreateSnapshot", f"{HERE}:volume/vol-2"),
                *(
                    ("ec2:RunInstances", it, {"ec2:Owner": owner})
                    for it in kinds[2:]
                    for owner in (ACCOUNT, "999999999999", "aws-marketplace")
                ),
                # No other subnet, security group or key pair.
                *(
                    ("ec2:RunInstances", f"{HERE}:{it}")
                    for it in ("subnet/subnet-2", "security-group/sg-2", "key-pair/mine")
                ),
                *(
                    (action, f"{HERE}:instance/i-2", owned("drover-eu"))
                    for action in ("ec2:TerminateInstances", "ec2:StopInstances", "ec2:ModifyInstanceAttribute")
                ),
                ("ssm:StartSession", f"{HERE}:instance/i-2"),
                ("ec2:DeleteVolume", f"{HERE}:volume/vol-2"),
                ("ec2:DeregisterImage", f"{PUBLIC}:image/ami-2"),
                ("ec2:DeleteSnapshot", f"{PUBLIC}:snapshot/snap-2"),
                ("iam:PassRole", f"arn:aws:iam::{ACCOUNT}:role/admin", {"iam:PassedToService": "ec2.amazonaws.com"}),
            ],
            "denied",
        )

    # ------------------------------------------------------------------------------------------ launches of runners

    def launch(self, template=None, stack="drover", subnet="drover", is_template_resource="true"):
        """The requests of a launch by scaler, janitor or doctor."""
        of = {"ec2:LaunchTemplate": template or self.launch_template}
        inside = of | {"ec2:IsLaunchTemplateResource": is_template_resource}
        tag = {"aws:RequestTag/drover:stack": stack, "aws:TagKeys": ["drover:stack"]}
        return [
            *(("ec2:RunInstances", f"{HERE}:{it}/*", inside | tag) for it in ("instance", "volume")),
            ("ec2:RunInstances", template or self.launch_template, inside),
            ("ec2:RunInstances", f"{HERE}:security-group/sg-1", inside),
            ("ec2:RunInstances", f"{PUBLIC}:image/ami-1", inside),
            ("ec2:RunInstances", f"{HERE}:subnet/subnet-1", of | owned(subnet, "stack")),
            ("ec2:RunInstances", f"{HERE}:network-interface/*", of),
            *(
                ("ec2:CreateTags", f"{HERE}:{it}/new", tag | {"ec2:CreateAction": "RunInstances"})
                for it in ("instance", "volume")
            ),
            # The launch templates of a stack with tags of the organisation.
            (
                "ec2:CreateTags",
                f"{HERE}:network-interface/new",
                {"aws:RequestTag/drover:part-of": "drover", "ec2:CreateAction": "RunInstances"},
            ),
        ]

    def test_functions_boundary_and_doctor_allow_the_same_launches(self):
        everything = [{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}]
        foreign = f"{HERE}:launch-template/lt-0fedcba9876543210"
        # The requests of other launches that must be denied. The other requests of these launches are harmless.
        refused = [
            # IAM checks the instance of every launch.
            *(it for it in self.launch(foreign) if it[0] == "ec2:RunInstances" and "instance/*" in it[1]),
            *(it for it in self.launch(stack="drover-eu") if "aws:RequestTag/drover:stack" in it[2]),
            *(it for it in self.launch(subnet="drover-eu") if "subnet" in it[1]),
            *(
                it
                for it in self.launch(is_template_resource="false")
                if "ec2:IsLaunchTemplateResource" in it[2] and "launch-template" not in it[1]
            ),
            ("ec2:RunInstances", f"{HERE}:instance/*", {"aws:RequestTag/drover:stack": "drover"}),
            ("ec2:CreateTags", f"{HERE}:instance/i-2", {"aws:RequestTag/drover:stack": "drover"}),
            ("ec2:CreateTags", f"{HERE}:network-interface/eni-2", {"aws:RequestTag/drover:part-of": "drover"}),
        ]
        for policies, boundary in (
            ([self.control_plane], self.boundary),
            (everything, self.boundary),
            (self.roles["drover-deploy"], None),
        ):
            self.check(policies, self.launch(), "allowed", boundary)
            self.check(policies, refused, "denied", boundary)

    def test_the_boundary_has_room_for_twelve_launch_templates(self):
        text = json.dumps(self.boundary, separators=(",", ":"))
        self.assertEqual(text.count(self.launch_template), 1)
        self.assertLessEqual(len(text) + 11 * len(f'"{self.launch_template}",'), 6_144)

    def test_the_functions_stop_start_and_end_only_machines_of_their_stack(self):
        actions = ("ec2:StopInstances", "ec2:StartInstances", "ec2:TerminateInstances")
        everything = [{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}]
        for policies in ([self.control_plane], everything):
            own = [(action, f"{HERE}:instance/i-1", owned(tag="stack")) for action in actions]
            self.check(policies, own, "allowed", self.boundary)
            contexts = (owned("drover-eu", "stack"), owned(), {})
            others = [(action, f"{HERE}:instance/i-2", context) for action in actions for context in contexts]
            self.check(policies, others, "denied", self.boundary)

    def launch_with_a_disk(self, stack="drover", gib=500, encrypted="true"):
        """The request for the root volume of a job that asked for a disk. It overrides that of the launch template."""
        volume = {"ec2:VolumeSize": str(gib), "ec2:Encrypted": encrypted, "ec2:IsLaunchTemplateResource": "false"}
        tag = {"aws:RequestTag/drover:stack": stack, "aws:TagKeys": ["drover:stack"]}
        of = {"ec2:LaunchTemplate": self.launch_template}
        return "ec2:RunInstances", f"{HERE}:volume/*", of | volume | tag

    def test_a_job_may_ask_for_an_encrypted_root_volume_up_to_the_largest_size(self):
        action, resource, context = self.launch_with_a_disk()
        without_size = {name: value for name, value in context.items() if name != "ec2:VolumeSize"}
        everything = [{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}]
        for policies, boundary in (
            ([self.control_plane], self.boundary),
            ([self.control_plane], None),
            (everything, self.boundary),
            (self.roles["drover-deploy"], None),
        ):
            self.check(policies, [self.launch_with_a_disk(), self.launch_with_a_disk(gib=40)], "allowed", boundary)
            self.check(
                policies,
                [
                    self.launch_with_a_disk(gib=501),
                    self.launch_with_a_disk(encrypted="false"),
                    self.launch_with_a_disk(stack="drover-eu"),
                    (action, resource, without_size),
                    # Nor one with the data of a snapshot.
                    ("ec2:RunInstances", f"{PUBLIC}:snapshot/snap-1", {"ec2:LaunchTemplate": self.launch_template}),
                ],
                "denied",
                boundary,
            )

    # ------------------------------------------------------------------------------------------ the role deploy

    def deployment(self):
        """Requests of a deployment that are made by CloudFormation on behalf of the role, and their contexts."""
        role = f"arn:aws:iam::{ACCOUNT}:role/drover-scaler"
        under = {"iam:PermissionsBoundary": self.output["sam_parameters"]["PermissionsBoundaryArn"]}
        scaler = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:drover-scaler"
        mapping = f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:6f0c9f5e-0000-0000-0000-000000000000"
        topic = f"arn:aws:sns:{REGION}:{ACCOUNT}:drover-alarms"
        return [
            ("iam:CreateRole", role, under),
            ("iam:PutRolePolicy", role, under),
            ("iam:AttachRolePolicy", role, under),
            ("iam:UpdateAssumeRolePolicy", role),
            ("iam:DeleteRole", role),
            ("iam:CreatePolicyVersion", f"arn:aws:iam::{ACCOUNT}:policy/drover-control-plane"),
            ("iam:PassRole", role, {"iam:PassedToService": "lambda.amazonaws.com"}),
            ("lambda:CreateFunction", scaler),
            ("lambda:CreateEventSourceMapping", "*", {"lambda:FunctionArn": scaler}),
            ("lambda:UpdateEventSourceMapping", mapping, {"lambda:FunctionArn": scaler}),
            ("lambda:DeleteEventSourceMapping", mapping, {"lambda:FunctionArn": scaler}),
            ("logs:CreateLogGroup", f"arn:aws:logs:{REGION}:{ACCOUNT}:log-group:/aws/lambda/drover-ingest"),
            ("sns:Subscribe", topic),
            ("sns:Unsubscribe", topic),
            ("events:PutRule", f"arn:aws:events:{REGION}:{ACCOUNT}:rule/drover-janitor"),
        ]

    def test_the_role_deploy_changes_roles_and_functions_only_through_cloudformation(self):
        requests = [(it[0], it[1], dict(*it[2:])) for it in self.deployment()]
        policies = self.roles["drover-deploy"]
        self.check(policies, [(action, on, context | CLOUDFORMATION) for action, on, context in requests], "allowed")
        self.check(policies, requests, "denied")

    def test_the_role_deploy_changes_only_the_stacks_own_resources(self):
        other = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:other"
        mapping = f"arn:aws:lambda:{REGION}:{ACCOUNT}:event-source-mapping:6f0c9f5e-0000-0000-0000-000000000000"
        role = f"arn:aws:iam::{ACCOUNT}:role/drover-scaler"
        self.check(
            self.roles["drover-deploy"],
            [
                (action, on, context | CLOUDFORMATION)
                for action, on, context in (
                    ("lambda:CreateEventSourceMapping", "*", {"lambda:FunctionArn": other}),
                    ("lambda:DeleteEventSourceMapping", mapping, {"lambda:FunctionArn": other}),
                    ("lambda:UpdateEventSourceMapping", mapping, {}),
                    ("sns:Unsubscribe", f"arn:aws:sns:{REGION}:{ACCOUNT}:other", {}),
                    ("iam:CreateRole", role, {}),
                    ("iam:CreateRole", role, {"iam:PermissionsBoundary": f"arn:aws:iam::{ACCOUNT}:policy/other"}),
                    ("iam:CreatePolicyVersion", f"arn:aws:iam::{ACCOUNT}:policy/drover-boundary", {}),
                    ("s3:PutObject", "arn:aws:s3:::aws-sam-cli-managed-default-samclisourcebucket-1/x", {}),
                )
            ],
            "denied",
        )
        # The evaluator does not know the resources of HTTP APIs.
        self.assertNotIn("apigateway:", json.dumps(self.roles["drover-deploy"]))
        bucket = f"arn:aws:s3:::drover-artifacts-{ACCOUNT}-{REGION}"
        self.check(
            self.roles["drover-deploy"],
            [("s3:PutObject", f"{bucket}/x"), ("s3:GetObject", f"{bucket}/x"), ("s3:ListBucket", bucket)],
            "allowed",
        )

    def test_hold_and_release_change_only_their_tag(self):
        machine, keys = f"{HERE}:instance/i-1", lambda *them: owned(tag="stack") | {"aws:TagKeys": list(them)}
        hold = keys("drover:hold")
        self.check(
            self.roles["drover-deploy"],
            [
                ("ec2:CreateTags", machine, hold | {"aws:RequestTag/drover:hold": "x"}),
                ("ec2:DeleteTags", machine, hold),
            ],
            "allowed",
        )
        self.check(
            self.roles["drover-deploy"],
            [
                # Without keys, DeleteTags deletes all tags.
                ("ec2:DeleteTags", machine, owned(tag="stack")),
                ("ec2:DeleteTags", machine, keys("drover:stack")),
                ("ec2:DeleteTags", machine, keys("drover:hold", "drover:stack")),
                ("ec2:CreateTags", machine, keys("drover:pool") | {"aws:RequestTag/drover:pool": "x"}),
                ("ec2:CreateTags", machine, owned("drover-eu", "stack") | {"aws:TagKeys": ["drover:hold"]}),
                ("ec2:DeleteTags", machine, owned("drover-eu", "stack") | {"aws:TagKeys": ["drover:hold"]}),
            ],
            "denied",
        )

    def test_the_role_deploy_reads_what_ec2_offers_for_pools_with_shapes(self):
        read = sorted(project.readings_of_offers(["cli"]))
        self.check(self.roles["drover-deploy"], [(action, "*") for action in read], "allowed")

    # ------------------------------------------------------------------------------------------ plan, machines, names

    def test_the_role_plan_reads_no_user_data_of_instances(self):
        self.check(
            self.roles["drover-plan"],
            [("ec2:DescribeInstanceAttribute", f"{HERE}:instance/i-2"), ("ec2:DescribeInstances", "*")],
            "denied",
        )
        self.check(self.roles["drover-plan"], [("ec2:DescribeVpcs", "*"), ("ec2:DescribeImages", "*")], "allowed")

    def test_plan_and_infrastructure_allow_every_call_of_terraform(self):
        for role, name in (("plan", "plan"), ("infrastructure", "plan"), ("infrastructure", "apply")):
            allowed = {
                action
                for policy in self.roles[f"drover-{role}"]
                for statement in project.listed(policy["Statement"])
                for action in project.listed(statement["Action"])
            }
            with self.subTest(role, calls=name):
                self.assertGreater(len(self.calls[name]), 25)
                missing = {it for it in self.calls[name] if not any(fnmatch.fnmatchcase(it, one) for one in allowed)}
                self.assertEqual(missing, set())

    def test_the_role_infrastructure_creates_no_service_linked_role_but_the_one_for_spot(self):
        linked = f"arn:aws:iam::{ACCOUNT}:role/aws-service-role"
        action, role = "iam:CreateServiceLinkedRole", "drover-infrastructure"
        self.check(self.roles[role], [(action, f"{linked}/spot.amazonaws.com/AWSServiceRoleForEC2Spot")], "allowed")
        other = f"{linked}/organizations.amazonaws.com/AWSServiceRoleForOrganizations"
        self.check(self.roles[role], [(action, other)], "denied")

    def test_the_builder_can_only_offer_sessions(self):
        channel = "ssmmessages:OpenDataChannel"
        self.check(self.roles["drover-builder"], [(channel, "*"), ("ssm:UpdateInstanceInformation", "*")], "allowed")
        self.check(
            self.roles["drover-builder"],
            [
                ("ssm:GetParameter", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/secret"),
                ("ssm:GetParameters", f"arn:aws:ssm:{REGION}:{ACCOUNT}:parameter/secret"),
                ("ec2messages:GetMessages", "*"),
            ],
            "denied",
        )

    def test_a_machine_takes_only_its_own_boot_item(self):
        table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/drover-boot"
        mine = {"aws:userid": "AROAEXAMPLE:i-1"}
        key = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-1"]}
        others = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-2"]}
        both = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-1", "AROAEXAMPLE:i-2"]}
        policies = self.roles["drover-runner"]
        for action in ("dynamodb:GetItem", "dynamodb:DeleteItem"):
            self.check(policies, [(action, table, mine | key)], "allowed")
            self.check(
                policies,
                [
                    (action, table, mine | others),
                    (action, table, mine | both),
                    (action, table, mine),
                    (action, table.removesuffix("-boot"), mine | key),
                ],
                "denied",
            )
        self.check(policies, [("dynamodb:PutItem", table, mine | key), ("dynamodb:Query", table, mine | key)], "denied")

    def test_a_machine_writes_only_the_named_attributes_of_its_own_report(self):
        table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/drover-reports"
        mine = {"aws:userid": "AROAEXAMPLE:i-1"}
        key = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-1"]}
        others = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-2"]}
        both = {"dynamodb:LeadingKeys": ["AROAEXAMPLE:i-1", "AROAEXAMPLE:i-2"]}
        names = {
            "dynamodb:Attributes": ["pk", "reported_at", "uptime_seconds", "prepared_at", "job_usage", "expires_at"]
        }
        more = {"dynamodb:Attributes": ["pk", "reported_at", "anything"]}
        policies = self.roles["drover-runner"]
        update = "dynamodb:UpdateItem"
        self.check(policies, [(update, table, mine | key | names)], "allowed")
        self.check(policies, [(update, table, mine | key | names | {"dynamodb:ReturnValues": "NONE"})], "allowed")
        self.check(
            policies,
            [
                (update, table, mine | others | names),
                (update, table, mine | both | names),
                (update, table, mine | names),
                (update, table, mine | key | more),
                (update, table, mine | key),
                (update, table, mine | key | names | {"dynamodb:ReturnValues": "ALL_OLD"}),
                (update, table.replace("-reports", "-boot"), mine | key | names),
                (update, table.removesuffix("-reports"), mine | key | names),
                *(
                    (f"dynamodb:{action}", table, mine | key | names)
                    for action in ("GetItem", "BatchGetItem", "Query", "PutItem", "DeleteItem")
                ),
            ],
            "denied",
        )

    def test_no_name_matches_a_stack_whose_name_begins_with_this_ones(self):
        resources = {
            resource
            for document in [
                *(it for policies in self.roles.values() for it in policies),
                self.boundary,
                self.control_plane,
            ]
            for statement in project.listed(document["Statement"])
            for resource in project.listed(statement["Resource"])
        }
        named = {it for it in resources if "drover" in it}
        self.assertGreater(len(named), 30)
        for theirs in (it.replace("drover", "drover-eu").replace("*", "x") for it in named):
            with self.subTest(theirs):
                self.assertEqual([it for it in named if fnmatch.fnmatchcase(theirs, it)], [])


if __name__ == "__main__":
    unittest.main()
