//! `drover doctor`: checks the installation. Each check looks at one thing, reports what it found, and names a remedy. If a
//! call fails, only the checks that need its answer fail or are skipped.

mod app;
mod clock;
mod launching;
mod report;
mod stack;
mod subject;
mod webhook;
mod work;

pub use self::subject::{Mode, Subject};

use crate::output::Output;

use self::report::Group;

/// Runs every check.
pub async fn doctor(subject: &Subject<'_>) -> Output {
    let (aws, (table, config)) = tokio::join!(stack::aws(subject), stack::table(subject));
    let config = config.as_ref();
    let (app, stack, launching, work) = tokio::join!(
        app::app(subject, config),
        stack::stack(subject),
        launching::launching(subject, config),
        work::work(subject, config),
    );
    let groups: Vec<Group> = [aws, table, app].into_iter().chain(stack).chain([launching, work]).collect();
    report::render(&groups)
}
