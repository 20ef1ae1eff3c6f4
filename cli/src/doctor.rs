//! `drover doctor`: checks the installation. Each check looks at one thing, reports what it found, and names a remedy. A check
//! that needs an answer which another check did not get is skipped, so that one cause is reported once.

mod app;
mod clock;
mod launching;
mod prices;
mod quotas;
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
    let (basis, config) = match stack::basis(subject).await {
        Ok(read) => read,
        Err(basis) => {
            let groups = basis.into_iter().chain([app::none()]).chain(stack::none());
            return report::render(groups.chain([launching::none(), quotas::none(), work::none()]).collect());
        }
    };
    let config = config.as_ref();
    let views = work::views(subject, config).await;
    let (app, stack, launching, quotas, work) = tokio::join!(
        app::app(subject, config),
        stack::stack(subject),
        launching::launching(subject, config, &views),
        quotas::quotas(subject, config),
        work::work(subject, config, &views),
    );
    let groups: Vec<Group> = basis.into_iter().chain([app]).chain(stack).chain([launching, quotas, work]).collect();
    report::render(groups)
}
