"""What the project says of itself, read from where it says it: template.yaml, the crates' sources, the documents."""

import fnmatch
import json
import pathlib
import re

import botocore.session
import parliament
import yaml
from botocore import xform_name

ROOT = pathlib.Path(__file__).resolve().parents[2]
FUNCTIONS = ("ingest", "scaler", "janitor")
PARAMETERS = {
    "Stack": "drover",
    "RunnerRoleArn": "arn:aws:iam::123456789012:role/drover-runner",
    "RunnerRoleId": "AROAEXAMPLE",
    "LaunchTemplateArns": ["arn:aws:ec2:eu-central-1:123456789012:launch-template/lt-0123456789abcdef0"],
    "LargestVolumeGib": "500",
    "WebhookSecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:drover/webhook-AbCdEf",
    "EbsKmsKeyArn": "arn:aws:kms:eu-central-1:123456789012:key/01234567-89ab-cdef-0123-456789abcdef",
    "AppSecretArn": "arn:aws:secretsmanager:eu-central-1:123456789012:secret:drover/app-AbCdEf",
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "123456789012",
    "AWS::Partition": "aws",
}


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


class Loader(yaml.SafeLoader):
    """Loads YAML and expands CloudFormation's short forms of intrinsic functions."""


def _intrinsic(loader, suffix, node):
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    else:
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".")
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


Loader.add_multi_constructor("!", _intrinsic)


def template():
    return yaml.load(text("template.yaml"), Loader)


def resolved(value, parameters=PARAMETERS):
    """Resolves intrinsic functions as CloudFormation would. Unknown values become `<Resource.Attribute>`."""
    if isinstance(value, list):
        return [resolved(one, parameters) for one in value]
    if not isinstance(value, dict):
        return value
    if len(value) == 1:
        ((name, argument),) = value.items()
        if name == "Ref":
            return parameters.get(argument, f"<{argument}>")
        if name == "Fn::GetAtt":
            return "<{}.{}>".format(*argument)
        if name == "Fn::Sub":
            return re.sub(r"\$\{([^}!]+)\}", lambda match: str(parameters.get(match[1], f"<{match[1]}>")), argument)
        if name == "Fn::If":
            return resolved(argument[1], parameters)
    return {key: resolved(one, parameters) for key, one in value.items()}


def listed(value):
    return value if isinstance(value, list) else [value]


# ------------------------------------------------------------------------------------------------ sources


def platform_modules():
    return {path.stem: code(path) for path in (ROOT / "shared/platform/src").glob("*.rs")}


def code(path):
    """The source of a file without its unit tests and comments."""
    lines = path.read_text(encoding="utf-8").split("#[cfg(test)]\nmod tests")[0].splitlines()
    return "\n".join(line for line in lines if not line.lstrip().startswith("//"))


def crate(name):
    return "\n".join(code(path) for path in sorted((ROOT / name / "src").rglob("*.rs")))


def reachable(executable):
    """The platform's modules that an executable uses, directly or indirectly."""
    modules = platform_modules()

    def names(source, root):
        return {
            name
            for use in re.findall(rf"\b{root}::(\{{[^}}]*\}}|\w+)", source)
            for name in re.findall(r"\w+", use)
            if name in modules
        }

    todo, seen = names(crate(executable), "platform"), set()
    while todo:
        name = todo.pop()
        seen.add(name)
        todo |= names(modules[name], "crate") - seen
    return seen


def variables_read(executable):
    """The environment variables that an executable reads."""
    modules = platform_modules()
    source = crate(executable) + "".join(modules[name] for name in reachable(executable))
    return set(re.findall(r"(?:required|optional|parsed|flag)\(\"([A-Z_]+)\"\)", source))


def readings_of_offers(callers):
    """The actions that these crates need for what EC2 offers: instance types, zones and spot prices."""
    source = code(ROOT / "shared/platform/src/ec2_machines.rs")
    bodies = dict(re.findall(r"^pub\(crate\) async fn (\w+)\((.*?)^\}", source, re.M | re.S))
    called = {name for it in callers for name in bodies if re.search(rf"\.{name}\(", crate(it))}
    operations = {it for name in called for it in re.findall(r"\bclient\s*\.(describe_\w+)\(", bodies[name])}
    return {"ec2:" + it.title().replace("_", "") for it in operations}


# --------------------------------------------------------------------------------------------- what the documents say


def rows(path, first_heading):
    """The rows of the tables whose first column has this heading, as lists of cells."""
    found = []
    inside = False
    for line in text(path).splitlines():
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")] if line.startswith("|") else None
        if cells is None:
            inside = False
        elif cells[0] == first_heading:
            inside = True
        elif inside and not set(cells[0]) <= set("-: "):
            found.append(cells)
    if not found:
        raise AssertionError(f"{path} has no table with the first heading {first_heading!r}")
    return found


def names_in(cell):
    return re.findall(r"`([A-Za-z_]+)`", cell)


# ------------------------------------------------------------------------------------------------ policies


# What Lambda does with the role of a function in a VPC.
IN_VPC = {
    "ec2:AssignPrivateIpAddresses",
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSubnets",
    "ec2:UnassignPrivateIpAddresses",
}

# Actions that AWS checks in addition to the one that is called, on behalf of the caller.
IMPLIED_BY = {
    "ec2:CreateLaunchTemplate": {"ssm:GetParameters"},
    "ec2:RunInstances": {"ec2:CreateTags", "iam:PassRole", "ssm:GetParameters"},
    "iam:AddRoleToInstanceProfile": {"iam:PassRole"},
    "lambda:CreateEventSourceMapping": {"lambda:TagResource"},
    "lambda:CreateFunction": {"iam:PassRole"},
}


def holds(condition, context):
    """Evaluates the condition of a statement for the context of a request, for the operators that the policies use."""
    for operator, tests in condition.items():
        for key, expected in tests.items():
            given = listed(context.get(key, []))
            quantifier, _, test = operator.rpartition(":")
            if test not in ("ArnEquals", "StringEquals"):
                raise AssertionError(f"unknown operator {operator}")
            matches = [any(fnmatch.fnmatchcase(one, it) for it in listed(expected)) for one in given]
            if not (all(matches) if quantifier == "ForAllValues" else any(matches)):
                return False
    return True


def allows(policy, action, resource, context):
    """Whether a policy allows a request. The context has the condition keys of the request."""
    return any(
        statement["Effect"] == "Allow"
        and any(fnmatch.fnmatchcase(action, it) for it in listed(statement["Action"]))
        and any(fnmatch.fnmatchcase(resource, it) for it in listed(statement["Resource"]))
        and holds(statement.get("Condition", {}), context)
        for statement in listed(policy["Statement"])
    )


def commands_of(script):
    """The actions of the AWS CLI's commands in a script."""
    session = botocore.session.get_session()
    lines = [line for line in text(script).splitlines() if not re.match(r"\s*(#|echo|denied) ", line)]
    actions = set()
    for service, command, argument in re.findall(r"\baws ([a-z0-9]+) ([a-z0-9-]+)(?: ([a-z-]+))?", "\n".join(lines)):
        if service == "configure":
            continue
        if service == "s3":
            actions.add({"cp": "s3:PutObject"}[command])
            continue
        model = session.get_service_model(service)
        if command == "wait":
            waiters = session.get_waiter_model(service)
            names = {xform_name(name, "-"): waiters.get_waiter(name).operation for name in waiters.waiter_names}
            operation = names[argument]
        else:
            operation = {xform_name(name, "-"): name for name in model.operation_names}[command]
        actions.add(f"{service}:{operation}".replace("lambda:Invoke", "lambda:InvokeFunction"))
    return actions


def functions_actions():
    """All actions that the functions' roles allow."""
    properties = [resource.get("Properties", {}) for resource in template()["Resources"].values()]
    documents = [
        policy["PolicyDocument"] for it in properties for policy in it.get("Policies", []) if isinstance(policy, dict)
    ]
    documents += [it["PolicyDocument"] for it in properties if "ManagedPolicyName" in it]
    return {
        action
        for document in documents
        for statement in resolved(document["Statement"])
        for action in listed(statement["Action"])
    }


def accepted(finding):
    """The reason to accept a finding of parliament, or None."""
    detail = str(finding.detail)
    if finding.issue == "RESOURCE_STAR":
        # parliament ignores conditions. A test checks the functions' actions without a resource; comments in Terraform
        # explain those of the other roles.
        return "restricted by a condition, or an EC2 action on resources that do not exist yet"
    if finding.issue == "RESOURCE_MISMATCH" and ("ec2:RunInstances" in detail or "ec2:CreateImage" in detail):
        return "several statements allow the call, each for some of its resources"
    if finding.issue == "RESOURCE_MISMATCH" and "sns:Unsubscribe" in detail:
        return "AWS has documented the resource of these actions since parliament's data was made"
    if finding.issue == "RESOURCE_POLICY_PRIVILEGE_ESCALATION" and "-artifacts-" in detail:
        return "the role infrastructure creates the bucket, and can write roles in any case"
    if finding.issue == "INVALID_ARN" and "Account" in detail:
        return "the account of CloudFormation's transforms is aws"
    return None


def lint(document):
    """parliament's findings for a policy, without the accepted ones."""
    findings = parliament.analyze_policy_string(json.dumps(document)).findings
    return [f"{it.issue}: {it.detail} {it.location}" for it in findings if not accepted(it)]
