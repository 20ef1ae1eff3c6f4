//! What lint is asked, and what it finds.

use std::collections::BTreeMap;

use domain::config::{Market, Pool};
use domain::ids::Repository;
use serde::Serialize;

/// A machine that a label may get.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    #[serde(rename = "type")]
    pub(super) instance_type: String,
    pub(super) market: Market,
    /// The lowest price of the zones. None if it is not known.
    pub(super) usd_per_hour: Option<f64>,
}

/// What a label asks for, of a pool with shapes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Asked {
    /// The machines, the first choice first. None if what EC2 offers is not known: with a pool file.
    pub candidates: Option<Vec<Candidate>>,
    /// One line.
    #[serde(skip)]
    pub(super) text: String,
}

/// The repository that the workflows belong to.
#[derive(Debug, Clone)]
pub struct WorkflowRepository {
    pub repository: Repository,
    pub public: bool,
}

/// What the workflows are compared with.
#[derive(Debug, Clone)]
pub struct Question {
    pub pools: Vec<Pool>,
    pub source: WorkflowRepository,
    /// Labels and runner groups of other runners than the pools'. `*` is any text.
    pub hosted: Vec<String>,
    pub listing: Listing,
    /// Configuration variables, by their name in upper case.
    pub variables: BTreeMap<String, String>,
    pub unknowns: Unknowns,
}

/// Whether other runner groups than those of [`Question::hosted`] can have runners for a job that names no label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listing {
    /// The pool file lists the other runners.
    Complete,
    /// Nobody has listed them.
    Partial,
}

/// Whether a job whose labels are unknown is an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknowns {
    Counted,
    Refused,
}

/// Where a job with certain labels runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict {
    Pool {
        pool: String,
    },
    /// On a runner that Drover does not launch.
    Hosted,
    NoPool {
        why: String,
    },
    /// The labels depend on something that is only known when the workflow runs.
    Unknown {
        why: String,
    },
    /// GitHub refuses the workflow.
    Invalid {
        why: String,
    },
}

/// The verdict for a job and one choice of its labels, or for a whole file.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The workflow that has the job or calls the workflow that has it.
    pub workflow: String,
    /// Where the labels are written: the workflow, or one that it calls.
    pub file: String,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
    /// None: the file cannot be read as a workflow.
    pub job: Option<String>,
    pub labels: Vec<String>,
    #[serde(flatten)]
    pub verdict: Verdict,
    /// Of a label that asks for a shape: the machines that it gets.
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    pub asked: Option<Asked>,
    /// What the author may have meant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub help: Option<String>,
}
