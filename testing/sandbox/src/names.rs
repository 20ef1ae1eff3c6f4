//! Names of the sandbox's account and of its resources.

/// The stack's name.
pub const STACK: &str = "sandbox";

/// The account that contains everything.
pub const ACCOUNT: &str = "123456789012";

/// The region that contains everything. The other regions are empty.
pub const REGION: &str = "eu-central-1";

/// The main table.
pub const TABLE: &str = "drover";

/// The boot table.
pub const BOOT_TABLE: &str = "drover-boot";

/// The reports table.
pub const REPORTS_TABLE: &str = "drover-reports";

/// The queue between ingest and scaler.
pub const QUEUE: &str = "drover";

/// The queue's dead-letter queue.
pub const DEAD_LETTERS: &str = "drover-dead-letters";

/// The secret that ingest reads.
pub const WEBHOOK_SECRET: &str = "sandbox/webhook";

/// The secret with the app's private key.
pub const APP_SECRET: &str = "sandbox/app";

/// The unique id of the runner machines' role.
pub const RUNNER_ROLE_ID: &str = "AROADROVERSANDBOXRUNNR";

/// A repository that each organisation has and no pool of the example serves.
pub const FOREIGN_REPOSITORY: &str = "not-served";
