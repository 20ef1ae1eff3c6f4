//! What each role may call: exactly what its policies allow in `template.yaml` and Terraform.
//!
//! Evaluated are the actions of each statement, its resource if it is one of the tables, and the conditions that a machine may
//! access only its own items and write only some attributes. Other resources and conditions are not evaluated.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use serde_json::Value;

use crate::names::{BOOT_TABLE, REPORTS_TABLE, RUNNER_ROLE_ID, TABLE};

/// The policies of the functions.
const TEMPLATE: &str = include_str!("../../../template.yaml");

/// The policies of operators. The role `deploy` is the one that runs `drover`.
const OPERATORS: &str = include_str!("../../../terraform/iam_deploy.tf");

/// The policy of the runner machines, and the launches that operators may try.
const MACHINES: &str = include_str!("../../../terraform/iam.tf");

/// The functions, and the logical ids of their roles in the template.
const FUNCTIONS: [(&str, &str); 3] = [("ingest", "IngestRole"), ("scaler", "ScalerRole"), ("janitor", "JanitorRole")];

static POLICIES: LazyLock<BTreeMap<&'static str, Vec<Statement>>> = LazyLock::new(|| {
    let template: Value = serde_saphyr::from_str(TEMPLATE).expect("template.yaml is YAML");
    let mut policies: BTreeMap<_, _> =
        FUNCTIONS.iter().map(|(function, role)| (*function, template_statements(&template, role))).collect();
    let mut operator = terraform_statements(OPERATORS, "deploy");
    operator.extend(terraform_statements(MACHINES, "launch"));
    policies.insert("operator", operator);
    policies.insert("runner", terraform_statements(MACHINES, "runner"));
    policies
});

/// The caller of an AWS API or of GitHub's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// One of the functions, by its name, or the operator.
    Role(&'static str),
    /// A runner machine, by its instance id.
    Instance(String),
    /// A caller of GitHub's API. Only functions and operator call it.
    ControlPlane,
    /// The access key is unknown.
    Unknown,
}

impl std::fmt::Display for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Caller::Role(role) => f.write_str(role),
            Caller::Instance(id) => write!(f, "machine {id}"),
            Caller::ControlPlane => f.write_str("the control plane"),
            Caller::Unknown => f.write_str("an unknown caller"),
        }
    }
}

/// A statement of a policy with the effect `Allow`.
#[derive(Debug)]
struct Statement {
    actions: Vec<String>,
    /// The tables to which the statement is restricted, or `None` if its resources are not evaluated.
    tables: Option<Vec<&'static str>>,
    /// The attributes that a request may name, if the statement has this condition.
    attributes: Option<Vec<String>>,
}

/// One permission that IAM checks for a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Access {
    /// For example `dynamodb:PutItem`.
    pub(crate) action: String,
    table: Option<String>,
    /// The partition key of the item, if the request names one item by its key.
    partition_key: Option<String>,
    /// The attributes that an update names.
    attributes: Vec<String>,
}

/// The actions that the policies of a role allow, for example `dynamodb:PutItem`. Empty for an unknown role.
pub fn allowed_actions(role: &str) -> impl Iterator<Item = &'static str> {
    POLICIES.get(role).into_iter().flatten().flat_map(|statement| &statement.actions).map(String::as_str)
}

/// Whether the caller's policies allow everything that IAM checks for a call.
pub(crate) fn allows(caller: &Caller, accesses: &[Access]) -> bool {
    let allows = |role: &str, access: &Access| {
        POLICIES.get(role).into_iter().flatten().any(|statement| statement.allows(access))
    };
    let is_allowed = |access: &Access| match caller {
        Caller::Role(role) => allows(role, access),
        Caller::Instance(id) => {
            // The condition on `dynamodb:LeadingKeys`.
            let own_key = format!("{RUNNER_ROLE_ID}:{id}");
            allows("runner", access) && access.partition_key.as_ref() == Some(&own_key)
        }
        Caller::ControlPlane | Caller::Unknown => false,
    };
    !accesses.is_empty() && accesses.iter().all(is_allowed)
}

/// What IAM checks for a call. `service` is the prefix of its actions; `body` is the request if it is JSON.
pub(crate) fn accesses(service: &str, operation: &str, body: &Value) -> Vec<Access> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let access = |operation: &str, part: &Value| Access {
        action: format!("{service}:{operation}"),
        table: text(&part["TableName"]),
        partition_key: text(&part["Key"]["pk"]["S"]),
        attributes: named_attributes(part),
    };
    match (service, operation) {
        // IAM has no permission for a transaction. It checks the parts.
        ("dynamodb", "TransactWriteItems") => {
            let parts = body["TransactItems"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
            parts
                .map(|(kind, part)| match kind.as_str() {
                    "ConditionCheck" => access("ConditionCheckItem", part),
                    kind => access(&format!("{kind}Item"), part),
                })
                .collect()
        }
        ("dynamodb", "BatchGetItem") => {
            let tables = body["RequestItems"].as_object().into_iter().flatten();
            tables.map(|(table, _)| Access { table: Some(table.clone()), ..access(operation, &Value::Null) }).collect()
        }
        _ => vec![access(operation, body)],
    }
}

impl Statement {
    fn allows(&self, access: &Access) -> bool {
        let covers = |tables: &Vec<&str>| access.table.as_deref().is_some_and(|table| tables.contains(&table));
        let may_name = |names: &Vec<String>| {
            !access.attributes.is_empty() && access.attributes.iter().all(|name| names.contains(name))
        };
        self.actions.contains(&access.action)
            && self.tables.as_ref().is_none_or(covers)
            && self.attributes.as_ref().is_none_or(may_name)
    }
}

/// The attributes that an update names: those of its key, and each name in its expression that is no keyword.
fn named_attributes(update: &Value) -> Vec<String> {
    let expression = update["UpdateExpression"].as_str().unwrap_or_default();
    let words = expression.split(|c: char| !(c.is_alphanumeric() || "_#:".contains(c)));
    let is_name =
        |word: &&str| !word.is_empty() && !word.starts_with(':') && !["SET", "REMOVE", "ADD", "DELETE"].contains(word);
    let name = |word: &str| update["ExpressionAttributeNames"][word].as_str().unwrap_or(word).to_owned();
    let keys = update["Key"].as_object().into_iter().flatten().map(|(key, _)| key.clone());
    keys.chain(words.filter(is_name).map(name)).collect()
}

/// The statements of a role in the template. The YAML parser drops the tags of CloudFormation's short forms, so
/// `!GetAtt Table.Arn` is the text `Table.Arn`, and `!If` is the list of condition, statement and alternative. The sandbox
/// counts such a statement, unless it excludes calls of a function's code.
fn template_statements(template: &Value, role: &str) -> Vec<Statement> {
    let properties = |resource: &str| &template["Resources"][resource]["Properties"];
    let role = properties(role);
    let inline = listed(&role["Policies"]).map(|policy| &policy["PolicyDocument"]);
    let managed =
        listed(&role["ManagedPolicyArns"]).map(|id| &properties(id.as_str().unwrap_or_default())["PolicyDocument"]);
    let statements = inline.chain(managed).flat_map(|document| listed(&document["Statement"]));
    statements
        .map(|statement| statement.get(1).unwrap_or(statement))
        .filter(|statement| statement["Condition"]["Null"]["lambda:SourceFunctionArn"] != "true")
        .map(|statement| {
            assert_eq!(statement["Effect"], "Allow", "the sandbox evaluates no other effect");
            let texts = |value| listed(value).filter_map(Value::as_str);
            let tables: Option<Vec<&str>> = texts(&statement["Resource"])
                .map(|resource| match resource {
                    "Table.Arn" => Some(TABLE),
                    "BootTable.Arn" => Some(BOOT_TABLE),
                    "ReportsTable.Arn" => Some(REPORTS_TABLE),
                    _ => None,
                })
                .collect();
            let actions = texts(&statement["Action"]).map(str::to_owned).collect();
            Statement { actions, tables, attributes: None }
        })
        .collect()
}

/// A value that may be written without a list if it is the only one.
fn listed(value: &Value) -> impl Iterator<Item = &Value> {
    match value {
        Value::Null => [].iter(),
        Value::Array(list) => list.iter(),
        single => std::slice::from_ref(single).iter(),
    }
}

/// The statements of a policy document in Terraform, without those that apply only to calls which another service makes
/// on behalf of the caller. Relies on the formatting of `terraform fmt`.
fn terraform_statements(source: &str, document: &str) -> Vec<Statement> {
    let start = format!("data \"aws_iam_policy_document\" \"{document}\" {{");
    let (_, rest) = source.split_once(&start).expect("Terraform has this policy document");
    let (text, _) = rest.split_once("\n}\n").expect("the document ends");
    let statements = text.split("\n  statement {\n").skip(1).filter(|statement| !statement.contains("aws:CalledVia"));
    statements
        .map(|statement| {
            let (_, rest) = statement.split_once("    actions").expect("a statement has actions");
            let (list, _) = rest.split_once(']').expect("the list of actions ends");
            let actions = list.split('"').skip(1).step_by(2).map(str::to_owned).collect();
            Statement { actions, tables: tables_in(statement), attributes: attributes_in(statement) }
        })
        .collect()
}

/// The tables of a statement in Terraform, if it names the boot table or the reports table alone.
fn tables_in(statement: &str) -> Option<Vec<&'static str>> {
    let (_, rest) = statement.split_once("    resources = [")?;
    let (resources, _) = rest.split_once(']')?;
    [("-boot\"", BOOT_TABLE), ("-reports\"", REPORTS_TABLE)]
        .into_iter()
        .find(|(name, _)| resources.ends_with(name))
        .map(|(_, table)| vec![table])
}

/// The values of a statement's condition on `dynamodb:Attributes`.
fn attributes_in(statement: &str) -> Option<Vec<String>> {
    let (_, rest) = statement.split_once("\"dynamodb:Attributes\"\n      values   = [")?;
    let (names, _) = rest.split_once(']')?;
    Some(names.split('"').skip(1).step_by(2).map(str::to_owned).collect())
}
