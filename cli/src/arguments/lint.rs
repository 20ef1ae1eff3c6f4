//! The arguments of `drover lint`.

use std::path::PathBuf;

use clap::Args;
use domain::ids::Repository;
use drover::lint::{self, Form};

#[derive(Debug, Args)]
pub(crate) struct Lint {
    /// Workflow files
    #[arg(required = true)]
    pub(crate) workflows: Vec<PathBuf>,
    /// The repository of the workflows, as OWNER/NAME
    #[arg(long, short)]
    pub(crate) repository: Repository,
    /// The repository is public
    #[arg(long)]
    pub(crate) public: bool,
    /// Use the pools of this file, and the names in its list hosted
    #[arg(long)]
    pub(crate) pools: Option<PathBuf>,
    /// Value of a configuration variable (vars.NAME)
    #[arg(long = "var", value_name = "NAME=VALUE", value_parser = variable)]
    pub(crate) variables: Vec<(String, String)>,
    /// File of configuration variables, a NAME=VALUE per line
    #[arg(long, value_name = "FILE")]
    pub(crate) vars: Option<PathBuf>,
    /// Label or runner group of other runners, such as GitHub's larger runners; * is any text
    #[arg(long, value_name = "NAME")]
    pub(crate) hosted: Vec<String>,
    /// Fail if the labels of a job are unknown
    #[arg(long)]
    pub(crate) strict: bool,
    /// How to print the findings
    #[arg(long, value_enum, default_value_t = Form::Text)]
    pub(crate) format: Form,
}

fn variable(text: &str) -> Result<(String, String), &'static str> {
    lint::variable(text).ok_or("must be NAME=VALUE")
}
