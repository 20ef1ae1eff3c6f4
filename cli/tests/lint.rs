//! What `drover lint` says about workflows.

#![expect(clippy::unwrap_used, reason = "a failed unwrap fails the test")]

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind};
use std::path::Path;
use std::sync::Arc;

use domain::config::{Architecture, Catalogue, Machines, MicroUsd, SpotPrices, TypeFacts};
use drover::lint::{Form, Listing, Question, Report, Unknowns, WorkflowRepository, lint, variables};
use drover::pool_file::{PoolEntry, PoolFile};
use serde_json::{Value, json};

const POOLS: &str = "[defaults]\nowner = \"octo-org\"\nlaunch_template = \"runner\"\ninstance_types = [\"m7i.large\"]\nmax = 10\n\
    [[pool]]\nname = \"linux\"\nlabels = [\"self-hosted\", \"linux\", \"x64\", \"octo-ci\"]\n\
    [[pool]]\nname = \"arm\"\npriority = 200\nlabels = [\"self-hosted\", \"linux\", \"arm64\", \"octo-ci-arm\"]\n";

fn question() -> Question {
    let pools = PoolFile::parse("pools.toml", POOLS);
    assert!(pools.errors.is_empty(), "{:?}", pools.errors);
    Question {
        pools: pools.pools.iter().map(PoolEntry::unresolved).collect(),
        source: WorkflowRepository { repository: "octo-org/widgets".parse().unwrap(), public: false },
        hosted: Vec::new(),
        listing: Listing::Partial,
        variables: BTreeMap::new(),
        unknowns: Unknowns::Counted,
    }
}

const CI: &str = ".github/workflows/ci.yml";

/// Lints the first of these files, which may call the others.
fn linted(files: &[(&str, &str)], question: &Question) -> Report {
    let all: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
    let read = |path: &Path| all.get(path).map(|text| (*text).to_owned()).ok_or(Error::from(ErrorKind::NotFound));
    lint(&[files[0].0], question, read).unwrap()
}

fn says(jobs: &str, question: &Question) -> String {
    let jobs: String = jobs.lines().map(|line| format!("  {line}\n")).collect();
    let said = linted(&[(CI, &format!("on: push\njobs:\n{jobs}"))], question).output(Form::Text).text;
    said.replace(&format!("{CI}:"), "")
}

#[test]
fn values_of_a_matrix_are_found_also_in_mappings_and_by_index() {
    let said = says(
        "wheels:
  strategy:
    matrix:
      platform:
        - {os: linux, runner: octo-ci}
        - {os: linux, runner: octo-ci-amr}
      python: [3.12, 3.13]
  runs-on: ${{ matrix.platform.runner }}
index:
  strategy: {matrix: {os: [octo-ci, Octo-CI-Arm], include: [{os: ubuntu-slim}, {more: 1}], exclude: [{os: octo-ci}]}}
  runs-on: ${{ matrix['os'] }}
computed:
  strategy: {matrix: {os: \"${{ fromJSON('[\\\"octo-ci\\\", \\\"octo-cli\\\"]') }}\"}}
  runs-on: ${{ matrix.os }}
whole:
  strategy: {matrix: \"${{ fromJSON(needs.plan.outputs.matrix) }}\"}
  runs-on: ['${{ matrix.os }}', self-hosted]
missing:
  strategy: {matrix: {os: [octo-ci]}}
  runs-on: ${{ matrix.runner }}
either:
  strategy: {matrix: {include: [{os: \"${{ github.event.fork && 'ubuntu-latest' || 'octo-ci' }}\"}, {os: octo-ci-arm}]}}
  runs-on: ${{ matrix.os }}",
        &question(),
    );
    insta::assert_snapshot!("matrix", said);
}

#[test]
fn expressions_are_evaluated_as_far_as_they_are_known() {
    let jobs = "forks: {runs-on: \"${{ github.event.pull_request.head.repo.fork && 'ubuntu-24.04' || 'octo-ci' }}\"}
misspelt: {runs-on: \"${{ vars.CI_RUNNER || 'octo-cii' }}\"}
json: {runs-on: \"${{ fromJSON('[\\\"self-hosted\\\", \\\"linux\\\", \\\"octo-cii\\\"]') }}\"}
owner: {runs-on: \"${{ fromJSON(github.repository_owner == 'octo-org' && '[\\\"self-hosted\\\", \\\"arm64\\\"]' || '[\\\"nothing\\\"]') }}\"}
format: {runs-on: \"${{ format('{0}-{1}', 'octo', 'ci') }}\"}
ours: {runs-on: \"${{ startsWith(github.repository, 'octo-org/') && 'octo-ci' || 'other' }}\"}
needs: {runs-on: \"${{ needs.plan.outputs.runner }}\"}
maybe: {runs-on: \"${{ github.ref == 'refs/heads/main' && 'octo-ci' }}\"}
run: {runs-on: \"runner-${{ github.run_id }}-${{ github.run_attempt }}\"}
part: {runs-on: [self-hosted, \"octo-ci${{ inputs.size }}\"]}
size: {runs-on: [octo-ci, \"octo-ci-${{ inputs.size || needs.a.outputs.b }}\"]}
ubuntu: {runs-on: \"ubuntu-${{ needs.plan.outputs.version }}\"}
brackets: {runs-on: \"${{ format('{0}}}', 'octo-ci') }}\"}
env: {runs-on: \"${{ env.RUNNER }}\"}
broken: {runs-on: \"${{ 'octo-ci \"}
syntax: {runs-on: \"${{ vars. }}\"}";
    let mut question = question();
    insta::assert_snapshot!("expressions", says(jobs, &question));
    question.variables = variables("# from the settings\nci_runner='octo-ci-arm'\n").unwrap();
    question.unknowns = Unknowns::Refused;
    let said =
        says("a: {runs-on: \"${{ vars.CI_RUNNER || 'octo-cii' }}\"}\nb: {runs-on: \"${{ vars.OTHER }}\"}", &question);
    insta::assert_snapshot!("variables", said);
    assert_eq!(variables("A=1\n\nnonsense\n").unwrap_err(), 3);
}

#[test]
fn a_file_that_cannot_be_read_hides_no_finding_of_the_others() {
    let read = |path: &Path| match path.to_str() {
        Some(CI) => Ok("jobs: {a: {runs-on: nothing}}\n".to_owned()),
        _ => Err(Error::from(ErrorKind::NotFound)),
    };
    let report = lint(&["gone.yml", CI], &question(), read).unwrap();
    let output = report.output(Form::Text);
    assert_eq!((report.unread, output.ok), (1, false));
    for part in
        ["gone.yml:1:1: error: the file cannot be read: ", " -> check the path", "no pool has the label nothing"]
    {
        assert!(output.text.contains(part), "{part}: {}", output.text);
    }
    let none = lint(&["gone.yml"], &question(), read).unwrap_err().to_string();
    assert!(none.starts_with("cannot read gone.yml: ") && none.ends_with(" -> check the path"), "{none}");
}

#[test]
fn a_group_needs_labels_and_hosted_names_are_declared() {
    let jobs = "group: {runs-on: {group: octo-runners}}
groups: {runs-on: {group: \"${{ matrix.g }}\", labels: [self-hosted, octo-ci]}, strategy: {matrix: {g: [a, b]}}}
object: {runs-on: \"${{ fromJSON('{\\\"group\\\": \\\"big\\\", \\\"labels\\\": \\\"octo-ci\\\"}') }}\"}
standard: {runs-on: [macos-15-xlarge]}
larger: {runs-on: linux-16-core}
gpu: {runs-on: {labels: ubuntu-gpu-t4}}
upper: {runs-on: [Self-Hosted, LINUX, Octo-CI]}
neither: {steps: []}
empty: {runs-on: []}
all: {runs-on: [linux, x64, arm64]}";
    let mut question = question();
    insta::assert_snapshot!("groups", says(jobs, &question));
    question.hosted = ["octo-runners", "linux-*-core", "Ubuntu-GPU-T4"].map(ToOwned::to_owned).into();
    let said = says(jobs, &question);
    for job in ["group", "larger [linux-16-core]", "gpu [ubuntu-gpu-t4]"] {
        assert!(said.contains(&format!("{job}: GitHub-hosted runner\n")), "{said}");
    }
    let file = PoolFile::parse("pools.toml", &format!("hosted = [\"linux-16-core\"]\n{POOLS}"));
    assert_eq!((file.errors.len(), file.hosted), (0, Some(vec!["linux-16-core".to_owned()])));
    assert_eq!(PoolFile::parse("pools.toml", &format!("hosted = 1\n{POOLS}")).errors.len(), 1);
}

/// A group can be one of GitHub's larger runners, which only its owner knows.
#[test]
fn a_group_without_labels_is_unknown_unless_the_pool_file_lists_all_groups() {
    let job = "alone: {runs-on: {group: big}}\nknown: {runs-on: {group: '${{ inputs.group }}'}}";
    let mut question = question();
    let said = says(job, &question);
    let why = "names the runner group big and no labels, so no pool serves it; if other runners do, declare the group";
    assert!(said.contains("3:11: unknown: alone: ") && said.contains(why), "{said}");
    assert!(said.contains("0 errors, 2 unknowns"), "{said}");

    question.listing = Listing::Complete;
    let said = says(job, &question);
    assert!(said.contains("3:11: error: alone: ") && said.contains("does not list the group as hosted"), "{said}");
    question.hosted = vec!["BIG".to_owned()];
    assert!(says(job, &question).contains("alone: GitHub-hosted runner"));
    let listed = |list: &str| PoolFile::parse("pools.toml", &format!("{list}{POOLS}")).hosted;
    assert_eq!((listed(""), listed("hosted = []\n")), (None, Some(Vec::new())));
}

#[test]
fn pools_come_before_githubs_own_labels() {
    let mut question = question();
    let pools = POOLS.replace("\"octo-ci\"]", "\"ubuntu-latest\"]");
    question.pools = PoolFile::parse("pools.toml", &pools).pools.iter().map(PoolEntry::unresolved).collect();
    let said = says("a: {runs-on: ubuntu-latest}", &question);
    insta::assert_snapshot!("hosted_label_of_a_pool", said);
}

const CALLED: &str = "on:
  workflow_call:
    inputs:
      runner: {type: string, default: octo-cj}
      arch: {type: string, required: true}
jobs:
  build: {runs-on: '${{ inputs.runner }}'}
  test: {runs-on: [self-hosted, '${{ inputs.arch }}']}
  again: {uses: ./.github/workflows/deep.yml, with: {label: '${{ inputs.arch }}'}}
";
const DEEP: &str = "on: {workflow_call: {inputs: {label: {type: string}}}}
jobs:
  deep: {runs-on: ['${{ inputs.label }}']}
";

#[test]
fn called_workflows_are_judged_with_the_inputs_of_their_callers() {
    let caller = "on: push
jobs:
  defaults:
    uses: ./.github/workflows/called.yml
    with: {arch: x64}
  given:
    uses: ./.github/workflows/called.yml
    strategy: {matrix: {arch: [arm64, amr64]}}
    with:
      runner: octo-ci
      arch: ${{ matrix.arch }}
  gone: {uses: ./.github/workflows/gone.yml}
  foreign: {uses: octo-org/shared/.github/workflows/ci.yml@v1}
  self: {uses: ./.github/workflows/ci.yml}
";
    let called = ".github/workflows/called.yml";
    let files = [(CI, caller), (called, CALLED), (".github/workflows/deep.yml", DEEP)];
    insta::assert_snapshot!("called", linted(&files, &question()).output(Form::Text).text);

    // Alone, the inputs of a called workflow are unknown; with its caller it is judged only there.
    let alone = linted(&[(called, CALLED), (".github/workflows/deep.yml", DEEP)], &question()).output(Form::Text).text;
    insta::assert_snapshot!("called_alone", alone);
    let all: BTreeMap<&str, &str> = files.into_iter().collect();
    let read =
        |path: &Path| all.get(path.to_str().unwrap()).map(|it| (*it).to_owned()).ok_or(ErrorKind::NotFound.into());
    let paths: Vec<&str> = all.keys().copied().collect();
    let together = lint(&paths, &question(), read).unwrap();
    assert_eq!(together.findings.len(), linted(&files, &question()).findings.len());
}

#[test]
fn inputs_of_a_workflow_that_is_started_by_hand_have_the_values_of_its_form() {
    let workflow = "on:
  push:
  workflow_dispatch:
    inputs:
      size: {type: choice, options: [octo-ci, octo-ci-arn]}
      arm: {type: boolean}
      other: {default: octo-ci-arm}
jobs:
  size: {runs-on: \"${{ inputs.size || 'octo-ci-arm' }}\"}
  arm: {runs-on: \"${{ inputs.arm && 'octo-ci-arm' || 'octo-ci' }}\"}
  other: {runs-on: \"${{ inputs.other }}\"}
";
    insta::assert_snapshot!("inputs", linted(&[(CI, workflow)], &question()).output(Form::Text).text);
}

#[test]
fn what_github_refuses_is_an_error_of_its_file_and_other_files_are_still_judged() {
    let merge = "on: push\nx: &base\n  runs-on: octo-ci\njobs:\n  a:\n    <<: *base\n";
    let anchors = "on: push\njobs:\n  first: {runs-on: &ours [self-hosted, octo-ci]}\n  second: {runs-on: *ours}\n  third:\n    \
                   strategy: {matrix: {runner: [*ours, [linux, arm64]]}}\n    runs-on: ${{ matrix.runner }}\n";
    let files = [("a.yml", merge), ("b.yml", anchors), ("c.yml", "jobs: ["), ("d.yml", "name: no jobs\n")];
    let read = |path: &Path| {
        let text = files.iter().find(|(name, _)| Path::new(name) == path);
        text.map(|(_, text)| (*text).to_owned()).ok_or(ErrorKind::NotFound.into())
    };
    let report = lint(&files.map(|(name, _)| name), &question(), read).unwrap();
    let output = report.output(Form::Text);
    insta::assert_snapshot!("refused", output.text);
    assert!(!output.ok);
    assert!(lint(&["none.yml"], &question(), read).is_err());
}

#[test]
fn findings_are_annotations_for_github_and_sarif_for_code_scanning() {
    let jobs = "on: push\njobs:\n  \"a,b: 100%\\n::error::x\": {runs-on: octo-cii}\n  fine: {runs-on: octo-ci}\n  late: {runs-on: '${{ vars.X }}'}\n";
    let report = linted(&[("./a b/ci.yml", jobs)], &question());
    let github = report.output(Form::Github);
    insta::assert_snapshot!("annotations", github.text);
    assert!(!github.ok);

    let sarif: Value = serde_json::from_str(&report.output(Form::Sarif).text).unwrap();
    // The pattern of languages has a stray bracket, which is no regular expression in Unicode mode.
    let schema = include_str!("data/sarif-2.1.0.json").replace("{2}]?$", "{2}$");
    let schema: Value = serde_json::from_str(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&sarif).map(|error| error.to_string()).collect();
    assert_eq!(errors, [""; 0]);
    let results = sarif["runs"][0]["results"].as_array().unwrap();
    let levels: Vec<&Value> = results.iter().map(|result| &result["level"]).collect();
    assert_eq!(levels, [&json!("error"), &json!("note")]);
    let place = &results[0]["locations"][0]["physicalLocation"];
    assert_eq!(place["artifactLocation"]["uri"], "a%20b/ci.yml");
    assert_eq!(place["region"]["startLine"], 3);
    let wrong = json!({ "version": "2.1.0", "runs": [{ "results": results }] });
    assert!(!validator.is_valid(&wrong), "the schema demands a tool");
}

const SHAPES: &str = "[[pool]]\nname = \"any\"\nowner = \"octo-org\"\nlaunch_templates = { x64 = \"runner\" }\nmax = 3\n\
    market = \"spot-then-on-demand\"\n[pool.shapes]\ncpu = \"1..32\"\nram = \"2..128\"\narch = [\"x64\"]\nusd_per_hour = 2.0\n";

/// What EC2 offers: two types in one zone.
fn machines() -> Machines {
    let facts = |vcpus: u32, price: u64| TypeFacts {
        vcpus,
        memory_mib: vcpus * 4096,
        architecture: Architecture::X64,
        only_if_listed: false,
        zones: ["zone-a".into()].into(),
        price_per_hour: Some(MicroUsd(price)),
    };
    let types = [("m7i.large".into(), facts(2, 100_800)), ("m7i.2xlarge".into(), facts(8, 403_200))].into();
    let zones = [("subnet-a".into(), "zone-a".into())].into();
    let read_at = "2026-11-27T00:00:00Z".parse().unwrap();
    let spot = [("m7i.2xlarge".into(), [("zone-a".into(), MicroUsd(121_000))].into())].into();
    let spot = SpotPrices { prices: spot, reclaimed: BTreeMap::new(), read_at, revision: 1 };
    let catalogue = Catalogue { types, gib_hour: MicroUsd(0), zones, unknown_subnets: [].into(), read_at, revision: 1 };
    Machines { catalogue, spot: Some(spot) }
}

fn shapes_question(machines: Option<Machines>) -> Question {
    let parsed = PoolFile::parse("pools.toml", SHAPES);
    assert!(parsed.errors.is_empty(), "{:?}", parsed.errors);
    let mut question = question();
    let mut any = parsed.pools[0].unresolved();
    any.subnets = vec!["subnet-a".into()];
    any.machines = machines.map(Arc::new);
    question.pools.push(any);
    question
}

#[test]
fn a_label_of_a_shape_is_checked_and_its_machines_are_listed() {
    let long = format!("any/{}", "8".repeat(100));
    let jobs = format!(
        "good: {{runs-on: any/8cpu/32gb}}
upper: {{runs-on: ANY/X64/8CPU/On-Demand}}
unknown: {{runs-on: any/8gpu}}
repeated: {{runs-on: any/8cpu/4cpu}}
zero: {{runs-on: any/0cpu}}
huge: {{runs-on: any/1000000000cpu}}
unicode: {{runs-on: \"any/\u{0668}cpu\"}}
long: {{runs-on: {long}}}
second: {{runs-on: [any/8cpu, self-hosted]}}
beyond: {{runs-on: any/64cpu}}
arm: {{runs-on: any/arm64}}
disk: {{runs-on: any/100disk}}
none: {{runs-on: any/32cpu}}
typo: {{runs-on: amy/8cpu}}
matrix: {{strategy: {{matrix: {{cpu: [2, 64]}}}}, runs-on: 'any/${{{{ matrix.cpu }}}}cpu'}}
input: {{runs-on: 'any/${{{{ needs.plan.outputs.cpu }}}}cpu'}}
both: {{runs-on: [linux, 'any/${{{{ needs.plan.outputs.cpu }}}}cpu']}}
static: {{runs-on: [self-hosted, linux, octo-ci]}}"
    );
    insta::assert_snapshot!("shapes", says(&jobs, &shapes_question(Some(machines()))));

    // Without a stack, what EC2 offers is not known, and nothing is said about it.
    let good = "good: {runs-on: any/8cpu/32gb}\nnone: {runs-on: any/32cpu}";
    insta::assert_snapshot!("shapes_without_a_stack", says(good, &shapes_question(None)));
    let report = linted(&[(CI, "jobs: {good: {runs-on: any/8cpu}}")], &shapes_question(Some(machines())));
    let json = &report.output(Form::Json).json[0];
    let first = json!({ "type": "m7i.2xlarge", "market": "spot", "usd_per_hour": 0.121 });
    assert_eq!((&json["pool"], &json["candidates"][0]), (&json!("any"), &first), "{json:#}");
    let documented = |field: &str| include_str!("../../docs/commands.md").contains(&format!("`{field}`"));
    assert!(documented("candidates"));
}
