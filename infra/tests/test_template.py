"""template.yaml against the code it runs and the documents that describe it."""

import json
import re
import unittest

import project
from project import FUNCTIONS, listed, resolved

POLLED = {"sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"}
LAUNCHING = {"ec2:CreateTags", "iam:PassRole", "ssm:GetParameters"}
# Actions that do not support resource-level permissions.
UNBOUND = {
    "ec2:DescribeImages",
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeInstances",
    "ec2:DescribeLaunchTemplateVersions",
    "ec2:DescribeSpotPriceHistory",
    "xray:PutTraceSegments",
    "xray:PutTelemetryRecords",
} | project.IN_VPC


class Template(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.template = project.template()
        cls.resources = cls.template["Resources"]
        cls.properties = {name: resource.get("Properties", {}) for name, resource in cls.resources.items()}

    def statements(self, function):
        """All statements of a function's role, including those of the shared policy."""
        role = self.properties[f"{function.capitalize()}Role"]
        documents = [policy["PolicyDocument"] for policy in role["Policies"]]
        documents += [self.properties[one["Ref"]]["PolicyDocument"] for one in role.get("ManagedPolicyArns", [])]
        return [resolved(statement) for document in documents for statement in document["Statement"]]

    def allowed(self, function):
        return {action for statement in self.statements(function) for action in listed(statement["Action"])}

    def of(self, function, action):
        """The statements of a function's role that allow an action."""
        found = [one for one in self.statements(function) if action in listed(one["Action"])]
        self.assertTrue(found, f"the role of {function} does not allow {action}")
        return found


class Policies(Template):
    """That each function calls exactly what its role allows is tested by testing/sandbox/tests/permissions.rs."""

    def test_ingest_may_enqueue_and_read_one_secret(self):
        allowed = self.allowed("ingest")
        self.assertEqual(
            {one for one in allowed - project.IN_VPC if not one.startswith(("logs:", "xray:"))},
            {"sqs:SendMessage", "secretsmanager:GetSecretValue"},
        )
        self.assertEqual(self.of("ingest", "sqs:SendMessage")[0]["Resource"], "<Queue.Arn>")
        self.assertEqual(
            self.of("ingest", "secretsmanager:GetSecretValue")[0]["Resource"], project.PARAMETERS["WebhookSecretArn"]
        )

    def test_functions_join_a_vpc_that_their_code_cannot_change(self):
        config = self.template["Globals"]["Function"]["VpcConfig"]["Fn::If"]
        self.assertEqual((config[0], config[2]), ("InVpc", {"Ref": "AWS::NoValue"}))
        self.assertEqual(config[1]["SubnetIds"], {"Ref": "VpcSubnetIds"})
        self.assertEqual(config[1]["SecurityGroupIds"], {"Ref": "VpcSecurityGroupIds"})
        for function in FUNCTIONS:
            with self.subTest(function):
                (statement,) = self.of(function, "ec2:CreateNetworkInterface")
                # As AWS's policy AWSLambdaVPCAccessExecutionRole, without logs.
                self.assertEqual(set(statement["Action"]), project.IN_VPC)
                self.assertEqual(statement["Condition"], {"Null": {"lambda:SourceFunctionArn": "true"}})
                policies = self.properties[f"{function.capitalize()}Role"]["Policies"]
                conditions = [
                    it["Fn::If"][0]
                    for policy in policies
                    for it in policy["PolicyDocument"]["Statement"]
                    if "Fn::If" in it
                ]
                self.assertEqual(conditions, ["InVpc"])

    def test_only_functions_that_need_implied_actions_have_them(self):
        for function in FUNCTIONS:
            with self.subTest(function):
                allowed = self.allowed(function)
                self.assertEqual(allowed >= POLLED, function == "scaler")
                self.assertEqual(allowed >= LAUNCHING, "ec2:RunInstances" in allowed)

    def test_statements_have_no_unnecessary_wildcards(self):
        for function in FUNCTIONS:
            for statement in self.statements(function):
                with self.subTest(function, sid=statement["Sid"]):
                    self.assertEqual(statement["Effect"], "Allow")
                    self.assertFalse([one for one in listed(statement["Action"]) if "*" in one])
                    if "*" in listed(statement["Resource"]):
                        self.assertLessEqual(set(listed(statement["Action"])), UNBOUND)

    def test_launches_are_bound_to_the_stacks_templates_subnets_and_tag(self):
        seen = set()
        for statement in self.of("scaler", "ec2:RunInstances"):
            kinds = {re.search(r":([a-z-]+)/\*$", one)[1] for one in listed(statement["Resource"])}
            seen |= kinds
            condition = statement.get("Condition", {})
            # IAM checks the instance of every launch.
            templates = {"ec2:LaunchTemplate": project.PARAMETERS["LaunchTemplateArns"]}
            self.assertEqual(condition.get("ArnEquals"), templates if "instance" in kinds else None)
            if "subnet" in kinds:
                # The request names the subnet, so IsLaunchTemplateResource would be false.
                self.assertEqual(condition["StringEquals"], {"aws:ResourceTag/drover:stack": "drover"})
                self.assertEqual(kinds, {"subnet"})
            elif "network-interface" in kinds:
                # The launch creates the interface in that subnet.
                self.assertEqual(kinds, {"network-interface"})
            elif statement["Sid"] == "LaunchAVolumeOfAnotherSize":
                # The request sets the root volume, so IsLaunchTemplateResource would be false.
                self.assertEqual(kinds, {"volume"})
                self.assertEqual(condition["Bool"], {"ec2:Encrypted": "true"})
                limit = {"ec2:VolumeSize": project.PARAMETERS["LargestVolumeGib"]}
                self.assertEqual(condition["NumericLessThanEquals"], limit)
            else:
                self.assertEqual(condition["Bool"], {"ec2:IsLaunchTemplateResource": "true"})
            if kinds & {"instance", "volume"}:
                self.assertEqual(condition["StringEquals"], {"aws:RequestTag/drover:stack": "drover"})
        # The resource types that IAM checks for RunInstances if the template sets image, security group and root
        # volume, but no key pair.
        self.assertEqual(
            seen, {"instance", "volume", "launch-template", "network-interface", "security-group", "image", "subnet"}
        )

    def test_only_the_janitor_reads_what_ec2_offers_and_only_what_the_code_reads(self):
        read = project.readings_of_offers(["shared/engine"])
        self.assertEqual(len(read), 4)
        (statement,) = self.of("janitor", "ec2:DescribeSpotPriceHistory")
        self.assertEqual(set(statement["Action"]), read)
        # Lambda itself looks for subnets.
        for function in ("ingest", "scaler"):
            self.assertEqual(self.allowed(function) & (read - project.IN_VPC), set())
        for path in sorted((project.ROOT / "shared/engine/src").rglob("*.rs")):
            if re.search(r"compute\.(machines|spot_prices)\(", project.code(path)):
                self.assertEqual(path.parent.name, "sweep", "the scaler reads what its role does not allow")

    def test_only_own_machines_are_ended_stopped_or_started_and_only_launches_are_tagged(self):
        for function in ("scaler", "janitor"):
            for action in ("ec2:TerminateInstances", "ec2:StopInstances", "ec2:StartInstances"):
                (changes,) = self.of(function, action)
                self.assertEqual(changes["Condition"], {"StringEquals": {"aws:ResourceTag/drover:stack": "drover"}})
                self.assertRegex(changes["Resource"], r":instance/\*$")
            for tags in self.of(function, "ec2:CreateTags"):
                self.assertEqual(tags["Condition"]["StringEquals"]["ec2:CreateAction"], "RunInstances")
            (passes,) = self.of(function, "iam:PassRole")
            self.assertEqual(passes["Resource"], project.PARAMETERS["RunnerRoleArn"])
            self.assertEqual(passes["Condition"], {"StringEquals": {"iam:PassedToService": "ec2.amazonaws.com"}})

    def test_policies_have_no_linter_findings(self):
        # ARNs as CloudFormation would insert them.
        arns = {
            "Queue": "sqs:eu-central-1:123456789012:drover",
            "Table": "dynamodb:eu-central-1:123456789012:table/drover",
            "BootTable": "dynamodb:eu-central-1:123456789012:table/drover-boot",
            "ReportsTable": "dynamodb:eu-central-1:123456789012:table/drover-reports",
        }
        for function in FUNCTIONS:
            arns[f"{function.capitalize()}Logs"] = (
                f"logs:eu-central-1:123456789012:log-group:/aws/lambda/drover-{function}:*"
            )
        for function in FUNCTIONS:
            text = json.dumps({"Version": "2012-10-17", "Statement": self.statements(function)})
            for name, arn in arns.items():
                text = text.replace(f"<{name}.Arn>", f"arn:aws:{arn}")
            self.assertNotIn("<", text)
            self.assertEqual(project.lint(json.loads(text)), [], function)
        # IAM limits a managed policy to 6,144 characters, without white space. A stack has up to 12 launch templates.
        (template,) = project.PARAMETERS["LaunchTemplateArns"]
        several = project.PARAMETERS | {"LaunchTemplateArns": 12 * [template]}
        policy = project.resolved(self.properties["ControlPlanePolicy"]["PolicyDocument"], several)
        self.assertLessEqual(len(json.dumps(policy, separators=(",", ":"))), 6_144)

    def test_functions_can_write_but_not_read_the_boot_table(self):
        for function in ("scaler", "janitor"):
            for statement in self.statements(function):
                if "<BootTable.Arn>" in listed(statement["Resource"]):
                    self.assertEqual(listed(statement["Action"]), ["dynamodb:PutItem"])

    def test_only_the_janitor_reads_the_reports_table_and_no_function_writes_it(self):
        for function in FUNCTIONS:
            actions = [
                action
                for statement in self.statements(function)
                if "<ReportsTable.Arn>" in listed(statement["Resource"])
                for action in listed(statement["Action"])
            ]
            self.assertEqual(actions, ["dynamodb:BatchGetItem"] if function == "janitor" else [], function)

    def test_launches_set_the_tag_that_the_policies_require(self):
        self.assertIn('tag_of("drover:stack"', project.text("shared/platform/src/ec2.rs"))
        self.assertIn('"tag:drover:stack"', project.text("shared/platform/src/ec2.rs"))


class Contract(Template):
    def test_the_template_fits_into_a_request(self):
        # infra/deploy sends it that way if the stack imports its table. The addresses of three archives are added.
        addresses = 3 * 150
        size = len(json.dumps(project.template(), separators=(",", ":")))
        self.assertLessEqual(size + addresses, 51_200)

    def test_the_visibility_timeout_is_six_times_the_scalers_timeout(self):
        self.assertEqual(self.properties["Queue"]["VisibilityTimeout"], 6 * self.properties["Scaler"]["Timeout"])

    def test_every_function_is_traced_and_has_a_package_of_its_own(self):
        everywhere = self.template["Globals"]["Function"]
        self.assertEqual((everywhere["Runtime"], everywhere["Tracing"]), ("provided.al2023", "Active"))
        for function in FUNCTIONS:
            resource = self.resources[function.capitalize()]
            # `make deploy` replaces this with the package's zip file.
            self.assertEqual(resource["Properties"]["CodeUri"], f"{function}/")
            self.assertTrue((project.ROOT / function / "Cargo.toml").exists())

    def test_timeouts_leave_time_for_a_launch_and_the_reserve(self):
        reserve = int(
            re.search(
                r"RESERVE: SignedDuration = SignedDuration::from_secs\((\d+)\)",
                project.text("shared/engine/src/context.rs"),
            )[1]
        )
        launch = int(
            re.search(
                r"LAUNCH_TIMEOUT: SignedDuration = SignedDuration::from_secs\((\d+)\)",
                project.text("shared/platform/src/ec2.rs"),
            )[1]
        )
        for function in ("Scaler", "Janitor"):
            self.assertGreaterEqual(self.properties[function]["Timeout"], 2 * (launch + reserve))
        # GitHub stops waiting for an answer after ten seconds.
        self.assertLessEqual(self.properties["Ingest"]["Timeout"], 10)

    def test_a_crashed_janitor_holds_its_lock_for_at_most_one_run(self):
        self.assertLessEqual(self.properties["Janitor"]["Timeout"], 60)
        self.assertEqual(
            self.properties["Janitor"]["Events"]["EveryMinute"]["Properties"]["Schedule"], "rate(1 minute)"
        )

    def test_messages_fail_individually_and_end_in_the_dead_letter_queue(self):
        event = self.properties["Scaler"]["Events"]["Queue"]["Properties"]
        self.assertEqual(event["FunctionResponseTypes"], ["ReportBatchItemFailures"])
        self.assertEqual(
            self.properties["Queue"]["RedrivePolicy"]["deadLetterTargetArn"], {"Fn::GetAtt": ["DeadLetters", "Arn"]}
        )

    def test_only_the_scaler_may_continue_a_chain_of_its_own_messages(self):
        functions = (name.capitalize() for name in FUNCTIONS)
        may = [name for name in functions if self.properties[name].get("RecursiveLoop") == "Allow"]
        self.assertEqual(may, ["Scaler"])
        # The comment in the template argues that no chain can fan out, because a pool has at most one nudge and the
        # scaler sends nothing else to the queue. The janitor may wake the scaler once per sweep.
        port = re.search(r"trait Queue\b.*?\n\}", project.text("shared/engine/src/ports/queue.rs"), re.S)[0]
        self.assertEqual(re.findall(r"fn (\w+)", port), ["nudge"])
        engine = project.crate("shared/engine")
        self.assertEqual(engine.count(".queue.nudge("), 2)
        waking = re.search(r"async fn wake_scaler\(.*?\n\}", engine, re.S)[0]
        self.assertEqual(waking.count(".queue.nudge("), 1)
        # Only the janitor reaches the one call: the scaler reads the pools as FunctionName::Scaler.
        self.assertEqual(len(re.findall(r"(?<!fn )wake_scaler\(", engine)), 1)
        self.assertRegex(engine, r"FunctionName::Janitor && [^{}]*\{\s*wake_scaler\(")
        self.assertNotIn("FunctionName::Janitor", project.code(project.ROOT / "shared/engine/src/consume.rs"))
        sending = re.search(r"async fn send_nudge\(.*?\n\}", engine, re.S)[0]
        self.assertLess(sending.index("nudge::due("), sending.index("put(nudge)"))
        self.assertLess(sending.index("put(nudge)"), sending.index(".queue.nudge("))

    def test_instance_events_reach_the_queue_unchanged(self):
        source = project.text("shared/domain/src/wire/notice.rs")
        for rule in ("SpotInterruptions", "InstanceStateChanges"):
            pattern = self.properties[rule]["EventPattern"]
            self.assertEqual(pattern["source"], ["aws.ec2"])
            self.assertIn(f'"{pattern["detail-type"][0]}"', source, "the scaler does not parse this event")
            for state in pattern.get("detail", {}).get("state", []):
                self.assertIn(f'"{state}"', source)
            (target,) = self.properties[rule]["Targets"]
            self.assertEqual(set(target), {"Id", "Arn", "SqsParameters"}, "an input transformer would change the event")
            self.assertEqual(target["Arn"], {"Fn::GetAtt": ["Queue", "Arn"]})
            allowed = [
                one for one in self.properties["QueuePolicy"]["PolicyDocument"]["Statement"] if one["Sid"] == rule
            ]
            self.assertEqual(allowed[0]["Condition"], {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": [rule, "Arn"]}}})

    def test_the_tables_have_the_keys_that_the_code_uses(self):
        def keys(table):
            return [one["AttributeName"] for one in self.properties[table]["KeySchema"]]

        self.assertEqual(keys("Table"), ["pk", "sk"])
        self.assertEqual(keys("BootTable"), ["pk"])
        self.assertEqual(keys("ReportsTable"), ["pk"])
        for table in ("Table", "BootTable", "ReportsTable"):
            self.assertEqual(
                self.properties[table]["TimeToLiveSpecification"], {"AttributeName": "expires_at", "Enabled": True}
            )
            self.assertEqual(self.properties[table]["BillingMode"], "PAY_PER_REQUEST")
        for table in ("Table", "BootTable"):
            self.assertTrue(self.properties[table]["SSESpecification"]["SSEEnabled"])
        # Each machine would cost a call of KMS, and the reports are no secrets.
        self.assertNotIn("SSESpecification", self.properties["ReportsTable"])
        self.assertTrue(self.properties["Table"]["DeletionProtectionEnabled"])
        self.assertTrue(self.properties["Table"]["PointInTimeRecoverySpecification"]["PointInTimeRecoveryEnabled"])

    def test_the_queue_is_standard_and_events_have_groups_of_their_own(self):
        for name in ("Queue", "DeadLetters"):
            self.assertNotIn("FifoQueue", self.properties[name])
        groups = [
            target["SqsParameters"]["MessageGroupId"]
            for rule in ("SpotInterruptions", "InstanceStateChanges")
            for target in self.properties[rule]["Targets"]
        ]
        self.assertEqual(len(set(groups)), 2)

    def test_only_what_machines_write_has_a_maximum_throughput_and_the_boot_table_an_alarm_for_it(self):
        self.assertNotIn("OnDemandThroughput", self.properties["Table"])
        throughput = self.properties["BootTable"]["OnDemandThroughput"]
        self.assertEqual(throughput["MaxReadRequestUnits"], {"Ref": "BootTableMaximumReads"})
        # One item takes at most 3,000 read units and 1,000 write units per second, less than the table.
        self.assertGreater(self.template["Parameters"]["BootTableMaximumReads"]["MinValue"], 3000)
        self.assertGreater(throughput["MaxWriteRequestUnits"], 1000)
        reports = self.properties["ReportsTable"]["OnDemandThroughput"]
        # A machine cannot read, and a hundred reports take 50 read units.
        self.assertEqual((reports["MaxReadRequestUnits"], reports["MaxWriteRequestUnits"]), (500, 1200))
        metrics = [it["MetricStat"]["Metric"]["MetricName"] for it in self.properties["BootTableAlarm"]["Metrics"][1:]]
        self.assertEqual(metrics, ["ReadThrottleEvents", "WriteThrottleEvents"])

    def test_an_alarm_counts_what_the_url_rejects_for_either_endpoint(self):
        alarm = self.properties["RejectedDeliveriesAlarm"]
        self.assertEqual(alarm["MetricName"], {"Fn::If": ["ByFunctionUrl", "Url4xxCount", "4xx"]})
        self.assertEqual(alarm["Namespace"], {"Fn::If": ["ByFunctionUrl", "AWS/Lambda", "AWS/ApiGateway"]})
        (dimension,) = alarm["Dimensions"]
        self.assertEqual(dimension["Name"], {"Fn::If": ["ByFunctionUrl", "FunctionName", "ApiId"]})

    def test_dashboard_and_alarms_use_exactly_the_documented_metrics(self):
        documented = {
            project.names_in(name)[0]: (unit, set(project.names_in(dimensions)))
            for name, unit, dimensions, _ in project.rows("docs/metrics.md", "Metric")
        }
        board = json.loads(self.properties["Dashboard"]["DashboardBody"]["Fn::Sub"])
        shown = {}
        for row in (row for widget in board["widgets"] for row in widget["properties"]["metrics"]):
            if isinstance(row[0], str):
                self.assertEqual(row[0], "Drover/${Stack}")
                shown[row[1]] = set()
            else:
                dimensions, name = re.fullmatch(
                    r"""SEARCH\('\{"Drover/\$\{Stack\}",([\w,]+)\} MetricName="(\w+)"', '\w+', 60\)""",
                    row[0]["expression"],
                ).groups()
                shown[name] = set(dimensions.split(","))
        self.assertEqual(shown, {name: dimensions for name, (_, dimensions) in documented.items()})
        for name, it in self.properties.items():
            if self.resources[name]["Type"] == "AWS::CloudWatch::Alarm" and it.get("Namespace") == {
                "Fn::Sub": "Drover/${Stack}"
            }:
                self.assertEqual(documented[it["MetricName"]][1], set(), f"{name} uses a metric that has dimensions")

    def test_alarms_and_sections_of_the_runbook_correspond(self):
        sections = re.findall(r"^## (.+)$", project.text("docs/runbook.md"), re.MULTILINE)
        alarms = [
            it for name, it in self.properties.items() if self.resources[name]["Type"] == "AWS::CloudWatch::Alarm"
        ]
        names = [alarm["AlarmName"]["Fn::Sub"].removeprefix("${Stack}: ") for alarm in alarms]
        self.assertEqual(sorted(name.capitalize() for name in names), sorted(sections))
        for name, alarm in zip(names, alarms, strict=True):
            self.assertTrue(alarm["AlarmDescription"].endswith(f" docs/runbook.md#{name.replace(' ', '-')}"), name)

    def test_every_alarm_notifies_the_topic(self):
        alarms = [name for name, it in self.resources.items() if it["Type"] == "AWS::CloudWatch::Alarm"]
        self.assertEqual(len(alarms), 14)
        for alarm in alarms:
            self.assertEqual(self.properties[alarm]["AlarmActions"], [{"Ref": "AlarmTopic"}])
            self.assertTrue(self.properties[alarm]["AlarmDescription"])


class Environment(Template):
    def given(self, function):
        shared = self.template["Globals"]["Function"]["Environment"]["Variables"]
        return set(shared) | set(self.properties[function.capitalize()]["Environment"]["Variables"])

    def documented(self):
        """Each executable's variables, as the table in docs/environment.md has them."""
        everybody = {*FUNCTIONS, "agent", "drover"}
        found = {name: set() for name in everybody}
        for variables, of, *_ in project.rows("docs/environment.md", "variable"):
            of = of.replace("`", "").replace("the ", "")
            who = (
                everybody - set(re.findall(r"\w+", of[7:]))
                if of.startswith("all but")
                else everybody & set(re.findall(r"\w+", of))
            )
            self.assertTrue(who, f"no executable is named for {variables}")
            for name in who:
                found[name].update(project.names_in(variables))
        return found

    def test_the_template_sets_what_the_document_says(self):
        documented = self.documented()
        for function in FUNCTIONS:
            with self.subTest(function):
                # Every function gets the name of the stack, although ingest does not read it.
                self.assertEqual(self.given(function), documented[function])

    def test_the_document_says_what_the_code_reads(self):
        documented = self.documented()

        def own_variables(names):
            return {name for name in names if name.startswith("DROVER_") or name == "RUST_LOG"}

        for executable in (*FUNCTIONS, "agent"):
            with self.subTest(executable):
                self.assertLessEqual(own_variables(project.variables_read(executable)), documented[executable])
        for executable in (*FUNCTIONS, "agent", "drover"):
            read = own_variables(project.variables_read("cli" if executable == "drover" else executable))
            with self.subTest(executable):
                self.assertLessEqual(
                    own_variables(documented[executable]) - read,
                    {"DROVER_STACK"} if executable == "ingest" else set(),
                )

    def test_the_images_unit_sets_the_variables_of_the_agent(self):
        given = set(re.findall(r"^(\w+)=", project.text("packer/files/agent.env"), re.M))
        self.assertLessEqual(given, self.documented()["agent"])
        required = set(re.findall(r'required\("([A-Z_]+)"\)', project.crate("agent")))
        self.assertLessEqual(required, given)


class Documents(Template):
    def test_the_table_of_parameters_is_the_templates(self):
        rows = project.rows("docs/parameters.md", "parameter")
        written = {project.names_in(row[0])[0]: row[1].strip("`") for row in rows}
        self.assertEqual(set(written), set(self.template["Parameters"]))
        for name, parameter in self.template["Parameters"].items():
            with self.subTest(name):
                self.assertEqual(written[name], str(parameter.get("Default", "")))

    def test_terraform_sets_every_parameter_without_a_default(self):
        output = re.search(
            r'output "sam_parameters" \{.*?value = \{(.*?)\n  \}', project.text("terraform/outputs.tf"), re.S
        )[1]
        given = set(re.findall(r"^\s*(\w+)\s*=", output, re.M))
        parameters = self.template["Parameters"]
        self.assertLessEqual(given, set(parameters))
        self.assertLessEqual({name for name, it in parameters.items() if "Default" not in it}, given)


if __name__ == "__main__":
    unittest.main()
