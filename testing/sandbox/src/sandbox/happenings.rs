//! Acts on what happens in the models.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use world::{ec2, github};

use crate::deliveries::Webhooks;
use crate::machine::Machines;
use crate::state::{Happening, Told, World};

/// Acts on what the models tell.
pub(super) async fn act_on(
    world: Arc<World>,
    machines: Arc<Machines>,
    webhooks: Arc<Webhooks>,
    mut told: mpsc::UnboundedReceiver<Happening>,
) {
    let mut deliveries = JoinSet::new();
    while let Some(happening) = told.recv().await {
        while deliveries.try_join_next().is_some() {}
        match happening {
            Happening::Ec2(ec2::Happening::Booted { instance }) => {
                if let Err(error) = machines.boot(&instance).await {
                    tracing::error!("machine {instance} does not boot: {error:#}");
                }
            }
            Happening::Ec2(ec2::Happening::PowerLost { instance }) => machines.power_lost(&instance),
            Happening::Ec2(ec2::Happening::SpotNotice { .. } | ec2::Happening::Terminated { .. }) => {}
            Happening::GitHub(github::Happening::Deliver(delivery)) => {
                let webhooks = webhooks.clone();
                deliveries.spawn(async move { webhooks.deliver(*delivery).await });
            }
            Happening::GitHub(github::Happening::Offered(offer)) => {
                let runner = offer.runner;
                world.look(|state| say(&state.sessions, runner, Told::Offered(offer)));
            }
            Happening::GitHub(github::Happening::CancelWanted { runner, .. }) => {
                world.look(|state| say(&state.sessions, runner, Told::CancelWanted));
            }
            Happening::GitHub(github::Happening::RunnerRemoved { runner }) => {
                world.look(|state| say(&state.sessions, runner, Told::Removed));
            }
        }
    }
}

/// To a runner that is gone, nothing can be said.
fn say(sessions: &BTreeMap<github::RunnerId, mpsc::UnboundedSender<Told>>, runner: github::RunnerId, what: Told) {
    if let Some(session) = sessions.get(&runner) {
        let _ = session.send(what);
    }
}
