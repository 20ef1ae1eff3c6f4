"""Applies both examples to an emulated AWS, inspects the resources with its API, and destroys them."""

import json
import unittest

import project
from applied import Example, managed_policies, new_vpc
from emulator import REGION, Emulator
from evaluator import decisions

# IAM's size limits, without white space: all inline policies of a role together, and a managed policy.
INLINE_LIMIT = 10_240
MANAGED_LIMIT = 6_144


def tags_of(thing):
    return {tag["Key"]: tag["Value"] for tag in thing.get("Tags", [])}


class Applied:
    """Tests that apply to both examples."""

    @classmethod
    def setUpClass(cls):
        cls.terraform = cls.applied()
        cls.emulator = cls.terraform.emulator
        cls.ec2, cls.iam = cls.emulator.client("ec2"), cls.emulator.client("iam")
        cls.output = cls.terraform.output()

    @property
    def stack(self):
        return self.output["sam_parameters"]["Stack"]

    def subnets(self):
        found = self.ec2.describe_subnets(Filters=[{"Name": "tag:drover:stack", "Values": [self.stack]}])["Subnets"]
        self.assertEqual(
            {it["SubnetId"] for it in found},
            set(self.output["subnet_ids"]),
            "the tagged subnets are not those of the output",
        )
        return found

    def group(self, name):
        (group,) = self.ec2.describe_security_groups(
            Filters=[{"Name": "group-name", "Values": [f"{self.stack}-{name}"]}]
        )["SecurityGroups"]
        return group

    def inline(self, role):
        return {
            name: self.iam.get_role_policy(RoleName=role, PolicyName=name)["PolicyDocument"]
            for name in self.iam.list_role_policies(RoleName=role)["PolicyNames"]
        }

    def managed(self):
        """The managed policies that Terraform created, by name."""
        return managed_policies(self.iam)

    def policy(self, role):
        """The inline policy of a role together with its managed one."""
        (policy,) = self.inline(f"{self.stack}-{role}").values()
        attached = self.iam.list_attached_role_policies(RoleName=f"{self.stack}-{role}")["AttachedPolicies"]
        more = [statement for it in attached for statement in self.managed()[it["PolicyName"]]["Statement"]]
        return {**policy, "Statement": [*policy["Statement"], *more]}

    def launch_templates(self):
        for name in self.output["launch_templates"].values():
            (template,) = self.ec2.describe_launch_templates(LaunchTemplateNames=[name])["LaunchTemplates"]
            (version,) = self.ec2.describe_launch_template_versions(LaunchTemplateName=name, Versions=["$Default"])[
                "LaunchTemplateVersions"
            ]
            yield template, version["LaunchTemplateData"]

    def test_launch_templates_are_what_a_runner_must_be(self):
        arns = set()
        for template, data in self.launch_templates():
            with self.subTest(template["LaunchTemplateName"]):
                arns.add(f"arn:aws:ec2:{REGION}:123456789012:launch-template/{template['LaunchTemplateId']}")
                self.assertEqual(data["InstanceInitiatedShutdownBehavior"], "terminate")
                self.assertRegex(data["ImageId"], rf"^resolve:ssm:/{self.stack}/image/(x86_64|arm64)$")
                self.assertEqual(data["MetadataOptions"]["HttpTokens"], "required")
                self.assertEqual(data["MetadataOptions"]["HttpPutResponseHopLimit"], 1)
                (root,) = data["BlockDeviceMappings"]
                self.assertTrue(root["Ebs"]["Encrypted"])
                self.assertTrue(root["Ebs"]["DeleteOnTermination"])
                self.assertEqual(root["Ebs"]["VolumeType"], "gp3")
                self.assertEqual(data["SecurityGroupIds"], [self.group("runner")["GroupId"]])
                path = self.output["sam_parameters"]["RolePath"]
                self.assertEqual(
                    data["IamInstanceProfile"]["Arn"],
                    f"arn:aws:iam::123456789012:instance-profile{path}{self.stack}-runner",
                )
                # The launch request names the subnet, and EC2 rejects a subnet together with network interfaces.
                for absent in ("KeyName", "UserData", "NetworkInterfaces", "InstanceType"):
                    self.assertFalse(data.get(absent), absent)
                for specification in data["TagSpecifications"]:
                    self.assertNotIn(
                        "drover:stack",
                        tags_of(specification),
                        "the janitor would terminate a machine that is started by hand",
                    )
        self.assertEqual(set(self.output["sam_parameters"]["LaunchTemplateArns"].split(",")), arns)

    def test_each_launch_template_has_an_image_before_the_first_build(self):
        ssm = self.emulator.client("ssm")
        for _, data in self.launch_templates():
            parameter = ssm.get_parameter(Name=data["ImageId"].removeprefix("resolve:ssm:"))["Parameter"]
            self.assertEqual(parameter["DataType"], "aws:ec2:image")
            self.assertEqual(len(self.ec2.describe_images(ImageIds=[parameter["Value"]])["Images"]), 1)

    def test_nothing_comes_in_to_a_runner_and_only_https_goes_out(self):
        group = self.group("runner")
        self.assertEqual(group["IpPermissions"], [])
        self.assertEqual(
            {(it["IpProtocol"], it["FromPort"], it["ToPort"]) for it in group["IpPermissionsEgress"]},
            {("tcp", 443, 443)},
        )

    def test_the_builder_can_only_reach_web_ports(self):
        ports = {
            (it["IpProtocol"], it["FromPort"], it["ToPort"]) for it in self.group("builder")["IpPermissionsEgress"]
        }
        self.assertEqual(ports, {("tcp", 80, 80), ("tcp", 443, 443)})

    def test_a_machine_may_take_its_own_boot_item_write_its_own_report_and_nothing_else(self):
        role = self.iam.get_role(RoleName=f"{self.stack}-runner")["Role"]
        self.assertEqual(self.output["sam_parameters"]["RunnerRoleId"], role["RoleId"])
        self.assertEqual(self.iam.list_attached_role_policies(RoleName=role["RoleName"])["AttachedPolicies"], [])
        (policy,) = self.inline(role["RoleName"]).values()
        statement, report = policy["Statement"]
        self.assertEqual(set(statement["Action"]), {"dynamodb:GetItem", "dynamodb:DeleteItem"})
        self.assertEqual(statement["Resource"], f"arn:aws:dynamodb:{REGION}:123456789012:table/{self.stack}-boot")
        self.assertEqual(
            statement["Condition"],
            {
                "ForAllValues:StringEquals": {"dynamodb:LeadingKeys": "${aws:userid}"},
                "Null": {"dynamodb:LeadingKeys": "false"},
            },
        )
        self.assertEqual(report["Action"], "dynamodb:UpdateItem")
        self.assertEqual(report["Resource"], f"arn:aws:dynamodb:{REGION}:123456789012:table/{self.stack}-reports")
        attributes = report["Condition"]["ForAllValues:StringEquals"]["dynamodb:Attributes"]
        self.assertEqual(
            sorted(attributes), ["expires_at", "job_usage", "pk", "prepared_at", "reported_at", "uptime_seconds"]
        )
        written = project.text("shared/platform/src/reports.rs")
        for attribute in attributes:
            self.assertIn(f'"{attribute}"', written)

    def test_secrets_are_created_without_values(self):
        secrets = self.emulator.client("secretsmanager")
        for parameter, name in (("WebhookSecretArn", "webhook"), ("AppSecretArn", "app")):
            secret = secrets.describe_secret(SecretId=self.output["sam_parameters"][parameter])
            self.assertEqual(secret["Name"], f"{self.stack}/{name}")
            self.assertFalse(secret.get("VersionIdsToStages"))
        state = (self.terraform.root / "terraform.tfstate").read_text(encoding="utf-8")
        self.assertNotIn("aws_secretsmanager_secret_version", state)

    def test_policies_are_within_limits_and_have_no_linter_findings(self):
        documents = []
        for role in self.iam.list_roles()["Roles"]:
            inline = self.inline(role["RoleName"])
            size = sum(len(json.dumps(document, separators=(",", ":"))) for document in inline.values())
            self.assertLessEqual(size, INLINE_LIMIT, role["RoleName"])
            documents += [(f"{role['RoleName']}/{name}", document) for name, document in inline.items()]
        for name, document in self.managed().items():
            self.assertLessEqual(len(json.dumps(document, separators=(",", ":"))), MANAGED_LIMIT, name)
            documents.append((name, document))
        self.assertGreaterEqual(len(documents), 2)
        for name, document in documents:
            with self.subTest(name):
                self.assertEqual(project.lint(document), [])

    def test_the_boundary_allows_all_actions_of_the_functions(self):
        boundary = self.managed()[f"{self.stack}-boundary"]
        allowed = {action for it in boundary["Statement"] for action in project.listed(it["Action"])}
        # Without a key of its own, a stack has no statements for one.
        key = self.output["sam_parameters"]["EbsKmsKeyArn"]
        needed = {it for it in project.functions_actions() if key or not it.startswith("kms:")}
        # And none for network interfaces if its functions are outside of any VPC. The janitor itself reads subnets.
        if not self.output["sam_parameters"]["VpcSubnetIds"]:
            of_lambda = project.IN_VPC - {"ec2:DescribeSubnets"}
            self.assertFalse(of_lambda & allowed)
            needed -= of_lambda
        self.assertLessEqual(needed, allowed)

    def test_functions_boundary_and_operators_have_the_same_limit_for_volumes(self):
        limit = self.output["sam_parameters"]["LargestVolumeGib"]
        policies = [self.managed()[f"{self.stack}-boundary"]]
        policies += [it for name, it in self.inline(f"{self.stack}-deploy").items() if name == "deploy"]
        self.assertEqual(len(policies), 2)
        for policy in policies:
            (statement,) = [it for it in policy["Statement"] if it["Sid"] == "LaunchAVolumeOfAnotherSize"]
            self.assertEqual(statement["Condition"]["NumericLessThanEquals"], {"ec2:VolumeSize": limit})


class NewVpc(Applied, unittest.TestCase):
    applied = staticmethod(new_vpc)

    def test_runners_are_in_private_subnets_of_several_zones(self):
        subnets = self.subnets()
        self.assertGreaterEqual(len({it["AvailabilityZone"] for it in subnets}), 2)
        (vpc,) = {it["VpcId"] for it in subnets}
        gateways = self.ec2.describe_nat_gateways(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["NatGateways"]
        self.assertEqual(len(gateways), 1)
        for subnet in subnets:
            self.assertFalse(subnet["MapPublicIpOnLaunch"])
            tables = self.ec2.describe_route_tables(
                Filters=[{"Name": "association.subnet-id", "Values": [subnet["SubnetId"]]}]
            )["RouteTables"]
            (out,) = [route for route in tables[0]["Routes"] if route.get("DestinationCidrBlock") == "0.0.0.0/0"]
            self.assertEqual(out["NatGatewayId"], gateways[0]["NatGatewayId"])
        services = {
            it["ServiceName"]
            for it in self.ec2.describe_vpc_endpoints(Filters=[{"Name": "vpc-id", "Values": [vpc]}])["VpcEndpoints"]
        }
        self.assertEqual(services, {f"com.amazonaws.{REGION}.s3", f"com.amazonaws.{REGION}.dynamodb"})

    def test_the_builder_has_no_inbound_rule(self):
        self.assertEqual(self.group("builder")["IpPermissions"], [])
        self.assertEqual(self.output["packer_variables"]["ssh_interface"], "session_manager")

    def test_workflows_assume_each_role_from_its_own_environment(self):
        subjects = {
            "plan": "pull_request",
            "infrastructure": "environment:infrastructure",
            "image": "environment:image",
            "deploy": "environment:deploy",
        }
        self.assertEqual(set(self.output["roles"]), set(subjects))
        for name, subject in subjects.items():
            trust = self.iam.get_role(RoleName=f"{self.stack}-{name}")["Role"]["AssumeRolePolicyDocument"]
            (statement,) = [trust["Statement"]] if isinstance(trust["Statement"], dict) else trust["Statement"]
            self.assertEqual(statement["Action"], "sts:AssumeRoleWithWebIdentity")
            equals = statement["Condition"]["StringEquals"]
            # With and without the ids of owner and repository.
            self.assertCountEqual(
                equals["token.actions.githubusercontent.com:sub"],
                [
                    f"repo:octo-org/infrastructure:{subject}",
                    f"repo:octo-org@1234567/infrastructure@7654321:{subject}",
                ],
            )
            self.assertEqual(equals["token.actions.githubusercontent.com:aud"], "sts.amazonaws.com")

    def test_pull_requests_only_read(self):
        (policy,) = self.inline(f"{self.stack}-plan").values()
        for statement in policy["Statement"]:
            for action in project.listed(statement["Action"]):
                self.assertRegex(action.split(":")[1], "^(Describe|Get|List)")
                self.assertNotIn("SecretValue", action)

    def allowed(self, role):
        """The actions that a role allows, at least for some resources and without another service in between."""
        return {
            action
            for statement in self.policy(role)["Statement"]
            if "aws:CalledVia" not in json.dumps(statement.get("Condition", {}))
            for action in project.listed(statement["Action"])
        }

    def test_each_role_allows_the_commands_of_its_scripts(self):
        scripts = {
            "deploy": ("infra/deploy", "infra/environment", "infra/smoke"),
            "image": ("infra/build-image", "infra/prune-images"),
        }
        for role, paths in scripts.items():
            for path in paths:
                with self.subTest(path):
                    self.assertEqual(project.commands_of(path) - self.allowed(role), set())
        self.assertIn("lambda:InvokeFunction", project.commands_of("infra/smoke"))

    def test_an_operator_may_read_what_ec2_offers_to_apply_pools(self):
        read = project.readings_of_offers(["cli"])
        self.assertIn("ec2:DescribeInstanceTypeOfferings", read)
        self.assertLessEqual(read, self.allowed("deploy"))

    def test_each_role_allows_the_actions_that_its_actions_imply(self):
        for role in self.output["roles"]:
            statements = self.policy(role)["Statement"]
            actions = {action for it in statements for action in project.listed(it["Action"])}
            for action in actions & set(project.IMPLIED_BY):
                with self.subTest(role, action=action):
                    implied = project.IMPLIED_BY[action]
                    if role == "image":
                        # The builder's image is named in the request.
                        implied = implied - {"ssm:GetParameters"}
                    self.assertEqual(implied - actions, set())

    def test_each_role_allows_the_requests_that_its_commands_imply(self):
        account = f"{REGION}:123456789012"
        runner, builder = (f"arn:aws:iam::123456789012:role/{self.stack}-{name}" for name in ("runner", "builder"))
        parameter = f"arn:aws:ssm:{account}:parameter/{self.stack}/image/x86_64"
        janitor = f"arn:aws:lambda:{account}:function:{self.stack}-janitor"
        mapping = f"arn:aws:lambda:{account}:event-source-mapping:6f0c9f5e"
        instance = f"arn:aws:ec2:{account}:instance/i-0123456789abcdef0"
        to_ec2 = {"iam:PassedToService": "ec2.amazonaws.com"}
        launched = {"ec2:CreateAction": "RunInstances", "aws:RequestTag/drover:stack": self.stack}
        through_cloudformation = {"aws:CalledVia": ["cloudformation.amazonaws.com"]}
        tag_keys = {"aws:TagKeys": ["drover:stack", "drover:pool"]}
        for role, action, resource, context in (
            ("deploy", "lambda:InvokeFunction", janitor, {}),
            ("deploy", "lambda:UpdateFunctionConfiguration", janitor, {}),
            ("deploy", "lambda:TagResource", mapping, through_cloudformation),
            ("deploy", "ssm:GetParameters", parameter, {}),
            ("deploy", "ec2:CreateTags", instance, launched | tag_keys),
            ("deploy", "iam:PassRole", runner, to_ec2),
            ("infrastructure", "iam:PassRole", runner, to_ec2),
            ("infrastructure", "iam:PassRole", builder, to_ec2),
            ("infrastructure", "ssm:GetParameters", parameter, {}),
            ("image", "iam:PassRole", builder, to_ec2),
        ):
            with self.subTest(role, action=action, resource=resource):
                self.assertTrue(project.allows(self.policy(role), action, resource, context))
        for role, action, resource, context in (
            ("deploy", "lambda:InvokeFunction", janitor.replace(self.stack, "other"), {}),
            ("deploy", "lambda:TagResource", mapping, {}),
            ("deploy", "ec2:CreateTags", instance, tag_keys),
            ("deploy", "iam:PassRole", builder, to_ec2),
            ("infrastructure", "iam:PassRole", runner, {"iam:PassedToService": "lambda.amazonaws.com"}),
            ("plan", "iam:PassRole", runner, to_ec2),
        ):
            with self.subTest(role, action=action, resource=resource, is_allowed=False):
                self.assertFalse(project.allows(self.policy(role), action, resource, context))

    def test_a_deployer_makes_roles_only_under_the_boundary(self):
        for statement in self.policy("deploy")["Statement"]:
            if {"iam:CreateRole", "iam:PutRolePolicy", "iam:AttachRolePolicy"} & set(
                project.listed(statement["Action"])
            ):
                boundary = self.output["sam_parameters"]["PermissionsBoundaryArn"]
                self.assertEqual(statement["Condition"]["ArnEquals"], {"iam:PermissionsBoundary": boundary})
                self.assertEqual({arn.rsplit("-", 1)[1] for arn in statement["Resource"]}, set(project.FUNCTIONS))

    def test_a_second_apply_creates_and_replaces_nothing_and_keeps_the_built_image(self):
        ssm, name = self.emulator.client("ssm"), "/drover/image/x86_64"
        ssm.put_parameter(
            Name=name, Value="ami-00000000000000002", Type="String", DataType="aws:ec2:image", Overwrite=True
        )
        # The emulator mixes a launch template's own tags with those of its machines, so launch templates and policies
        # that refer to them appear as changed. Nothing else may change, and nothing may be created or replaced.
        self.terraform.run("plan", "-input=false", "-out=again")
        plan = json.loads(self.terraform.run("show", "-json", "again"))
        self.assertEqual(ssm.get_parameter(Name=name)["Parameter"]["Value"], "ami-00000000000000002")
        changed = [
            it for it in plan["resource_changes"] if it["mode"] == "managed" and it["change"]["actions"] != ["no-op"]
        ]
        self.assertEqual({tuple(it["change"]["actions"]) for it in changed} - {("update",)}, set())
        self.assertLessEqual(
            {it["type"] for it in changed}, {"aws_launch_template", "aws_iam_policy", "aws_iam_role_policy"}
        )

    def test_zero_resources_remain_after_destroy(self):
        # unittest runs tests in alphabetical order, so this test runs last.
        self.terraform.destroy()
        self.assertEqual(self.ec2.describe_launch_templates()["LaunchTemplates"], [])
        self.assertEqual(self.iam.list_roles()["Roles"], [])
        self.assertEqual(self.emulator.client("secretsmanager").list_secrets()["SecretList"], [])
        self.assertEqual(
            self.ec2.describe_subnets(Filters=[{"Name": "tag-key", "Values": ["drover:part-of"]}])["Subnets"], []
        )


class ExistingVpc(Applied, unittest.TestCase):
    @classmethod
    def applied(cls):
        emulator = cls.enterClassContext(Emulator())
        cls.ec2 = emulator.client("ec2")
        vpc = cls.ec2.create_vpc(CidrBlock="10.0.0.0/16")["Vpc"]["VpcId"]
        subnets = [
            cls.ec2.create_subnet(VpcId=vpc, CidrBlock=f"10.0.{place}.0/24", AvailabilityZone=f"{REGION}{zone}")[
                "Subnet"
            ]["SubnetId"]
            for place, zone in enumerate("ab")
        ]
        cls.variables = {"vpc_id": vpc, "subnet_ids": json.dumps(subnets)}
        cls.before = cls.network()
        anything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
        emulator.client("iam").create_policy(PolicyName="organisation", PolicyDocument=json.dumps(anything))
        terraform = Example(emulator, "existing-vpc")
        cls.addClassCleanup(terraform.close)
        terraform.apply(**cls.variables)
        return terraform

    @classmethod
    def network(cls):
        """The number of network resources. The emulator has a default VPC."""
        return {
            "vpcs": len(cls.ec2.describe_vpcs()["Vpcs"]),
            "subnets": len(cls.ec2.describe_subnets()["Subnets"]),
            "route tables": len(cls.ec2.describe_route_tables()["RouteTables"]),
            "gateways": len(cls.ec2.describe_internet_gateways()["InternetGateways"]),
            "endpoints": len(cls.ec2.describe_vpc_endpoints()["VpcEndpoints"]),
        }

    def test_subnets_are_tagged_and_the_network_is_otherwise_unchanged(self):
        self.assertEqual({it["SubnetId"] for it in self.subnets()}, set(json.loads(self.variables["subnet_ids"])))
        self.assertEqual(self.network(), self.before)

    def test_everything_has_the_tags_the_path_and_the_boundary_of_the_organisation(self):
        boundary = "arn:aws:iam::123456789012:policy/organisation"
        roles = self.iam.list_roles()["Roles"]
        self.assertEqual(len(roles), 6)
        for role in roles:
            with self.subTest(role["RoleName"]):
                full = self.iam.get_role(RoleName=role["RoleName"])["Role"]
                self.assertEqual(full["Path"], "/platform/")
                self.assertEqual(full["PermissionsBoundary"]["PermissionsBoundaryArn"], boundary)
                self.assertEqual(tags_of(full)["CostCenter"], "4711")
        for kind, found in (
            ("profile", self.iam.list_instance_profiles()["InstanceProfiles"]),
            ("policy", [it for it in self.iam.list_policies(Scope="Local")["Policies"] if it["Arn"] != boundary]),
        ):
            self.assertTrue(found)
            for it in found:
                self.assertEqual(it["Path"], "/platform/", kind)
        self.assertEqual(self.output["sam_parameters"]["PermissionsBoundaryArn"], boundary)
        self.assertEqual(self.output["sam_parameters"]["RolePath"], "/platform/")
        self.assertEqual(self.output["tags"], {"CostCenter": "4711"})
        self.assertEqual(self.output["packer_variables"]["tags"], {"CostCenter": "4711"})
        groups = [self.group("runner"), self.group("builder")]
        rules = self.ec2.describe_security_group_rules(
            Filters=[{"Name": "group-id", "Values": [it["GroupId"] for it in groups]}]
        )["SecurityGroupRules"]
        templates = [template for template, _ in self.launch_templates()]
        for it in (*groups, *rules, *templates):
            self.assertEqual(tags_of(it).get("CostCenter"), "4711", it)
        for _, data in self.launch_templates():
            tagged = {it["ResourceType"]: tags_of(it) for it in data["TagSpecifications"]}
            # The emulator mixes in the template's own tags.
            tagged.pop("launch-template", None)
            self.assertEqual(set(tagged), {"instance", "volume", "network-interface"})
            for tags in tagged.values():
                self.assertEqual((tags["CostCenter"], tags["drover:part-of"]), ("4711", self.stack))
        # Only roles of this path, under this boundary.
        for statement in self.policy("deploy")["Statement"]:
            if "iam:CreateRole" in project.listed(statement["Action"]):
                self.assertEqual(statement["Condition"]["ArnEquals"], {"iam:PermissionsBoundary": boundary})
                for arn in statement["Resource"]:
                    self.assertTrue(arn.startswith(f"arn:aws:iam::123456789012:role/platform/{self.stack}-"), arn)

    def test_the_largest_volume_is_the_variables(self):
        self.assertEqual(self.output["sam_parameters"]["LargestVolumeGib"], "1000")

    def test_launches_and_builds_may_use_the_volumes_key_through_ec2_only(self):
        key = self.output["sam_parameters"]["EbsKmsKeyArn"]
        for _, data in self.launch_templates():
            self.assertEqual(data["BlockDeviceMappings"][0]["Ebs"]["KmsKeyId"], key)
        self.assertEqual(self.output["packer_variables"]["kms_key_arn"], key)
        control_plane = project.template()["Resources"]["ControlPlanePolicy"]["Properties"]["PolicyDocument"]
        functions = project.resolved(control_plane, project.PARAMETERS | {"EbsKmsKeyArn": key})
        functions["Statement"] = [it for it in functions["Statement"] if "<" not in json.dumps(it["Resource"])]
        boundary = self.managed()[f"{self.stack}-boundary"]
        ec2 = {"kms:ViaService": f"ec2.{REGION}.amazonaws.com"}
        grant = {"kms:GrantIsForAWSResource": "true"}
        other = key.replace("0123", "9999")
        # A key's usual policy, which leaves the decision to IAM.
        root = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}}
        usual = {"Version": "2012-10-17", "Statement": [root | {"Action": "kms:*", "Resource": "*"}]}
        for policy, limit in (
            (functions, boundary),
            (self.inline(f"{self.stack}-deploy")["deploy"], None),
            (self.inline(f"{self.stack}-image")["image"], None),
        ):
            for action, resource, context, expected in (
                ("kms:Decrypt", key, ec2, "allowed"),
                ("kms:GenerateDataKeyWithoutPlaintext", key, ec2, "allowed"),
                ("kms:DescribeKey", key, ec2, "allowed"),
                ("kms:CreateGrant", key, ec2 | grant, "allowed"),
                ("kms:CreateGrant", key, ec2, "denied"),
                ("kms:Decrypt", key, {}, "denied"),
                ("kms:Decrypt", other, ec2, "denied"),
                ("kms:CreateGrant", other, ec2 | grant, "denied"),
            ):
                request = {"policies": [policy], "boundary": limit, "resourcePolicy": usual}
                request |= {"action": action, "resource": resource, "context": context}
                self.assertEqual(decisions([request]), [expected], (action, resource, context))

    def test_the_role_infrastructure_lends_the_volumes_key_to_spot_only(self):
        key = self.output["sam_parameters"]["EbsKmsKeyArn"]
        linked = "arn:aws:iam::123456789012:role/aws-service-role"
        spot = f"{linked}/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
        root = {"Effect": "Allow", "Principal": {"AWS": "arn:aws:iam::123456789012:root"}}
        usual = {"Version": "2012-10-17", "Statement": [root | {"Action": "kms:*", "Resource": "*"}]}
        for action, resource, context, expected in (
            ("kms:CreateGrant", key, {"kms:GranteePrincipal": spot}, "allowed"),
            ("kms:CreateGrant", key, {"kms:GranteePrincipal": f"{linked}/other.amazonaws.com/Other"}, "denied"),
            ("kms:CreateGrant", key.replace("0123", "9999"), {"kms:GranteePrincipal": spot}, "denied"),
            ("kms:CreateGrant", key, {}, "denied"),
            ("kms:Decrypt", key, {}, "denied"),
        ):
            request = {"policies": [self.policy("infrastructure")], "resourcePolicy": usual}
            request |= {"action": action, "resource": resource, "context": context}
            self.assertEqual(decisions([request]), [expected], (action, resource, context))

    def test_functions_in_a_vpc_manage_interfaces_only_as_lambda(self):
        parameters = self.output["sam_parameters"]
        self.assertEqual(parameters["VpcSubnetIds"].split(","), self.output["subnet_ids"])
        self.assertEqual(parameters["VpcSecurityGroupIds"], "sg-0123456789abcdef0")
        role = project.template()["Resources"]["IngestRole"]["Properties"]["Policies"][0]["PolicyDocument"]
        function = project.resolved(role)
        function["Statement"] = [it for it in function["Statement"] if "<" not in json.dumps(it["Resource"])]
        boundary = self.managed()[f"{self.stack}-boundary"]
        by_code = {"lambda:SourceFunctionArn": f"arn:aws:lambda:{REGION}:123456789012:function:{self.stack}-ingest"}
        interface = f"arn:aws:ec2:{REGION}:123456789012:network-interface/eni-1"
        for action, context, expected in (
            ("ec2:CreateNetworkInterface", {}, "allowed"),
            ("ec2:DeleteNetworkInterface", {}, "allowed"),
            ("ec2:CreateNetworkInterface", by_code, "denied"),
            ("ec2:DeleteNetworkInterface", by_code, "denied"),
            ("ec2:ModifyNetworkInterfaceAttribute", {}, "denied"),
        ):
            request = {"policies": [function], "boundary": boundary, "action": action, "resource": interface}
            self.assertEqual(decisions([request | {"context": context}]), [expected], (action, context))
        # Through CloudFormation, `deploy` may look up what Lambda is given.
        looks = [it for it in self.policy("deploy")["Statement"] if it["Sid"] == "LookAtTheVpc"]
        (look,) = looks
        self.assertIn("ec2:DescribeSecurityGroups", look["Action"])
        self.assertIn("aws:CalledVia", json.dumps(look["Condition"]))

    def test_the_builder_accepts_ssh_from_inside_the_network_where_packer_looks_for_it(self):
        self.assertEqual(self.output["packer_variables"]["ssh_interface"], "private_ip")
        (rule,) = self.group("builder")["IpPermissions"]
        self.assertEqual((rule["FromPort"], rule["ToPort"], rule["IpRanges"][0]["CidrIp"]), (22, 22, "10.8.0.0/24"))

    def test_trusted_principals_can_assume_the_roles(self):
        trust = self.iam.get_role(RoleName=f"{self.stack}-deploy")["Role"]["AssumeRolePolicyDocument"]
        self.assertIn("arn:aws:iam::123456789012:role/platform-team", json.dumps(trust))
        self.assertNotIn("WebIdentity", json.dumps(trust))

    def test_roles_can_access_the_state(self):
        reads = json.dumps(self.inline(f"{self.stack}-plan"))
        self.assertIn("arn:aws:s3:::octo-org-terraform/shared/*", reads)
        self.assertNotIn("s3:PutObject", reads)
        self.assertIn("s3:PutObject", json.dumps(self.inline(f"{self.stack}-infrastructure")))

    def test_zero_resources_remain_after_destroy_except_for_the_existing_network(self):
        self.terraform.destroy(**self.variables)
        self.assertEqual(self.network(), self.before)
        self.assertEqual(
            self.ec2.describe_subnets(Filters=[{"Name": "tag-key", "Values": ["drover:stack"]}])["Subnets"], []
        )


if __name__ == "__main__":
    unittest.main()
