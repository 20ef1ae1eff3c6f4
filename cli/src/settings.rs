//! Where `drover` finds its stack: `--stack`, environment variables, a profile, and the stack's outputs.
//!
//! What the command line names wins. Next are environment variables, then the profile, and the rest comes from the outputs of
//! the CloudFormation stack, which are cached for a day.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

use aws_config::SdkConfig;
use domain::ids::StackName;
use engine::ports::Clock;
use jiff::{SignedDuration, Timestamp};
use platform::clock::SystemClock;
use platform::environment::{optional, parsed, replace, supply};
use platform::stack;
use serde::{Deserialize, Serialize};

use crate::new_file::NewFile;
use crate::output::Failure;

/// The name that `make deploy` gives a stack by default.
const DEFAULT_STACK: &str = "drover";

/// Outputs change only if a deployment replaces a table, the queue or the function URL.
const CACHED_FOR: SignedDuration = SignedDuration::from_hours(24);

/// Each variable with the stack's output that is its value.
const FROM_OUTPUTS: [(&str, &str); 4] = [
    ("DROVER_TABLE", "Table"),
    ("DROVER_BOOT_TABLE", "BootTable"),
    ("DROVER_QUEUE_URL", "QueueUrl"),
    ("DROVER_WEBHOOK_URL", "WebhookUrl"),
];

/// Each variable with the end of the secret's name, which begins with the stack's.
const SECRETS: [(&str, &str); 2] = [("DROVER_APP_SECRET", "app"), ("DROVER_WEBHOOK_SECRET", "webhook")];

/// What the command line selects.
#[derive(Debug, Clone, Default)]
pub struct StackChoice {
    pub stack: Option<StackName>,
    pub profile: Option<String>,
}

/// Whether the stack's outputs are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The command needs no stack.
    Never,
    OnlyCached,
    UnlessCached,
    /// For commands that give GitHub the webhook's URL: a new stack has a new one, and everything else has the same name.
    Always,
}

/// The file `~/.config/drover/config.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// The profile to use if none is named.
    default: Option<String>,
    #[serde(default)]
    profile: BTreeMap<String, Profile>,
}

/// A stack, and how to reach it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Profile {
    stack: Option<StackName>,
    region: Option<String>,
    /// A profile of the AWS SDK, for credentials.
    aws_profile: Option<String>,
    github_api_url: Option<String>,
}

impl File {
    fn read(path: Option<&Path>) -> Result<Self, Failure> {
        let Some(path) = path else { return Ok(Self::default()) };
        let remedy = "correct or remove the file; docs/environment.md describes it";
        let invalid = |why: String| Failure::Usage(format!("{}: {why} -> {remedy}", path.display()));
        match std::fs::read_to_string(path) {
            Ok(text) => toml::from_str(&text).map_err(|error| invalid(error.to_string().trim_end().replace('\n', " "))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(invalid(format!("cannot be read: {error}"))),
        }
    }

    /// The named profile, or the default one.
    fn select(mut self, name: Option<&str>) -> Result<Profile, Failure> {
        let Some(name) = name.map(ToOwned::to_owned).or(self.default.take()) else { return Ok(Profile::default()) };
        let known: Vec<String> = self.profile.keys().cloned().collect();
        self.profile.remove(&name).ok_or_else(|| {
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            Failure::Usage(format!("config.toml has no profile {name:?}; it has {known} -> docs/environment.md"))
        })
    }
}

/// Supplies the variables that the environment does not set.
///
/// # Errors
/// The configuration file is invalid, or the stack's outputs are needed and cannot be read.
pub async fn load(selection: &StackChoice, reading: Reading) -> Result<(), Failure> {
    let name = selection.profile.clone().or_else(|| optional("DROVER_PROFILE"));
    let profile = File::read(config_file().as_deref())?.select(name.as_deref())?;
    let is_named = selection.profile.is_some();
    let has_region = is_set("AWS_DEFAULT_REGION") && !is_named;
    for (variable, value) in [
        ("DROVER_GITHUB_API_URL", &profile.github_api_url),
        ("AWS_REGION", &profile.region.filter(|_| !has_region)),
        ("AWS_PROFILE", &profile.aws_profile),
    ] {
        let set = if is_named { replace } else { supply };
        value.iter().for_each(|value| set(variable, value));
    }
    if reading == Reading::Never {
        return Ok(());
    }
    let named = selection.stack.clone().or_else(|| profile.stack.clone().filter(|_| is_named));
    let stack = match (named, optional("DROVER_STACK"), profile.stack) {
        (Some(stack), ..) => {
            refuse_parts_of_another(&stack)?;
            stack
        }
        (None, Some(_), _) => parsed("DROVER_STACK")?,
        (None, None, Some(stack)) => stack,
        (None, None, None) => {
            DEFAULT_STACK.parse().map_err(|_| Failure::Usage("the default stack has no valid name".to_owned()))?
        }
    };
    replace("DROVER_STACK", stack.as_str());
    for (variable, end) in SECRETS {
        supply(variable, &format!("{stack}/{end}"));
    }
    if FROM_OUTPUTS.iter().all(|(variable, _)| is_set(variable)) {
        return Ok(());
    }
    let outputs = outputs(&stack, reading).await?;
    for (variable, output) in FROM_OUTPUTS {
        match outputs.get(output) {
            Some(value) => supply(variable, value),
            None if is_set(variable) || reading == Reading::OnlyCached => {}
            None => {
                return Err(Failure::Usage(format!(
                    "the stack {stack} has no output {output} -> check that its deployment has succeeded, and that it is a stack of Drover"
                )));
            }
        }
    }
    Ok(())
}

fn is_set(variable: &'static str) -> bool {
    optional(variable).is_some()
}

/// With a command line that names one stack and variables of another, a command would mix both.
fn refuse_parts_of_another(stack: &StackName) -> Result<(), Failure> {
    let Some(other) = optional("DROVER_STACK").filter(|other| other != stack.as_str()) else { return Ok(()) };
    let mixed: Vec<&str> =
        FROM_OUTPUTS.iter().chain(&SECRETS).map(|(name, _)| *name).filter(|name| is_set(name)).collect();
    if mixed.is_empty() {
        return Ok(());
    }
    Err(Failure::Usage(format!(
        "the command line names the stack {stack}, but the environment has parts of {other} -> unset DROVER_STACK {}",
        mixed.join(" ")
    )))
}

type Outputs = BTreeMap<String, String>;

/// The outputs of the stacks that were read lately, by [`key`].
type Cache = BTreeMap<String, Cached>;

#[derive(Debug, Serialize, Deserialize)]
struct Cached {
    read_at: Timestamp,
    outputs: Outputs,
}

async fn outputs(stack: &StackName, reading: Reading) -> Result<Outputs, Failure> {
    let aws = aws().await?;
    let (file, now) = (cache_file(), SystemClock.now());
    let key = key(stack, &aws);
    let mut cache: Cache = file.as_deref().map(read_cache).unwrap_or_default();
    cache.retain(|_, cached| now.duration_since(cached.read_at) < CACHED_FOR);
    if let Some(cached) = cache.get(&key).filter(|_| reading != Reading::Always) {
        return Ok(cached.outputs.clone());
    }
    if reading == Reading::OnlyCached {
        return Ok(Outputs::new());
    }
    let region = aws.region().map(ToString::to_string).unwrap_or_default();
    let found = stack::outputs(&aws, stack).await.map_err(|error| Failure::Aws {
        message: format!("the outputs of the stack {stack} in {region} cannot be read: {error}"),
        kind: error.kind,
    })?;
    let outputs = found.ok_or_else(|| {
        Failure::Usage(format!(
            "there is no stack {stack} in {region} -> name it with --stack NAME or DROVER_STACK, and its region with AWS_REGION"
        ))
    })?;
    cache.insert(key, Cached { read_at: now, outputs: outputs.clone() });
    if let Some(file) = file {
        write_cache(&file, &cache);
    }
    Ok(outputs)
}

/// Names the stack, its region, and the account as far as that is known without a call.
fn key(stack: &StackName, aws: &SdkConfig) -> String {
    let region = aws.region().map(ToString::to_string).unwrap_or_default();
    let names = ["AWS_PROFILE", "AWS_ACCESS_KEY_ID", "AWS_ROLE_ARN", "AWS_ENDPOINT_URL"];
    let account: Vec<String> = names.into_iter().map(|name| optional(name).unwrap_or_default()).collect();
    format!("{stack} {region} {}", account.join(" "))
}

/// A cache that cannot be read is empty.
fn read_cache(file: &Path) -> Cache {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    serde_json::from_str(&text).unwrap_or_default()
}

/// A cache that cannot be written is read from AWS the next time.
fn write_cache(file: &Path, cache: &Cache) {
    let Ok(text) = serde_json::to_string(cache) else { return };
    // Without the folder, the file cannot be created either.
    let _ = file.parent().map(std::fs::create_dir_all);
    let _ = NewFile::create(file).and_then(|new| new.finish(|mut new| new.write_all(text.as_bytes())));
}

/// Forgets the outputs: what they name does not exist any more.
pub fn forget_outputs() {
    if let Some(file) = cache_file() {
        let _ = std::fs::remove_file(file);
    }
}

fn config_file() -> Option<PathBuf> {
    Some(folder("XDG_CONFIG_HOME", ".config")?.join("drover/config.toml"))
}

fn cache_file() -> Option<PathBuf> {
    Some(folder("XDG_CACHE_HOME", ".cache")?.join("drover/stacks.json"))
}

fn folder(variable: &'static str, in_home: &str) -> Option<PathBuf> {
    let set = |name| optional(name).map(PathBuf::from);
    set(variable).or_else(|| Some(set("HOME")?.join(in_home)))
}

/// The AWS configuration of the caller. Fails without a region, because the AWS SDK's own message does not say how to set one.
///
/// # Errors
/// No region is set, or a setting is invalid.
pub async fn aws() -> Result<SdkConfig, Failure> {
    let aws = platform::aws::config().await?;
    match aws.region() {
        Some(_) => Ok(aws),
        None => {
            Err(Failure::Usage("no AWS region is set -> export AWS_REGION=REGION, with the stack's region".to_owned()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "default = \"blue\"\n[profile.blue]\nstack = \"drover-blue\"\nregion = \"eu-west-1\"\n\
                        [profile.red]\nstack = \"drover-red\"\n";

    fn select(text: &str, name: Option<&str>) -> Result<Profile, String> {
        let file: File = toml::from_str(text).map_err(|error| error.to_string())?;
        file.select(name).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_profile_is_named_or_the_default_and_must_exist() {
        let stack = |name| select(FILE, name).unwrap().stack.unwrap().to_string();
        assert_eq!((stack(None).as_str(), stack(Some("red")).as_str()), ("drover-blue", "drover-red"));
        assert_eq!(select("", None), Ok(Profile::default()));
        assert!(select(FILE, Some("green")).unwrap_err().contains("it has blue, red"));
        for wrong in ["[profile.a]\nstck = \"x\"", "[profile.a]\nstack = \"Not a stack\"", "profiles = 1"] {
            assert!(select(wrong, None).is_err(), "{wrong}");
        }
    }
}
