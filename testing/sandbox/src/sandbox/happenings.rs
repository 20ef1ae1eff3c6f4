//! Acts on what happens in the models.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use world::{ec2, github};

use crate::bare::Bare;
use crate::deliveries::Webhooks;
use crate::machine::Machines;
use crate::state::{Happening, Notification, World};

/// Boots and stops machines, delivers webhooks and notifies runners.
pub(super) async fn act_on(
    world: Arc<World>,
    machines: Arc<Machines>,
    bare: Option<Bare>,
    webhooks: Arc<Webhooks>,
    mut happenings: mpsc::UnboundedReceiver<Happening>,
) {
    let mut deliveries = JoinSet::new();
    while let Some(happening) = happenings.recv().await {
        while deliveries.try_join_next().is_some() {}
        match happening {
            Happening::Ec2(ec2::Happening::Booted { instance }) => {
                let booted = match &bare {
                    None => machines.boot(&instance).await,
                    Some(bare) => bare.boot(&machines, &instance).await,
                };
                if let Err(error) = booted {
                    tracing::error!("machine {instance} does not boot: {error:#}");
                }
            }
            Happening::Ec2(ec2::Happening::ShutDown { instance }) => machines.shut_down(&instance),
            Happening::Ec2(ec2::Happening::PowerLost { instance }) => machines.power_lost(&instance),
            Happening::Ec2(
                ec2::Happening::SpotNotice { .. } | ec2::Happening::Stopped { .. } | ec2::Happening::Terminated { .. },
            ) => {}
            Happening::GitHub(github::Happening::Deliver(delivery)) => {
                let webhooks = webhooks.clone();
                deliveries.spawn(async move { webhooks.deliver(*delivery).await });
            }
            Happening::GitHub(github::Happening::Offered(offer)) => {
                let runner = offer.runner;
                world.look(|state| notify(&state.sessions, runner, Notification::Offered(offer)));
            }
            Happening::GitHub(github::Happening::CancelWanted { runner, .. }) => {
                world.look(|state| notify(&state.sessions, runner, Notification::CancelWanted));
            }
            Happening::GitHub(github::Happening::RunnerRemoved { runner }) => {
                world.look(|state| notify(&state.sessions, runner, Notification::Removed));
            }
        }
    }
}

/// Does nothing if the runner is not connected.
fn notify(
    sessions: &BTreeMap<github::RunnerId, mpsc::UnboundedSender<Notification>>,
    runner: github::RunnerId,
    notification: Notification,
) {
    if let Some(session) = sessions.get(&runner) {
        let _ = session.send(notification);
    }
}
