//! The address of an emulated service, which can be closed for a while: then every connection ends at once, established ones
//! included, and the service behind it keeps its state.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Context;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

/// An address in front of a service.
#[derive(Debug)]
pub struct Door {
    /// URL of the service through this door.
    pub url: String,
    is_open: watch::Sender<bool>,
    refused: AtomicU64,
}

impl Door {
    /// An open door in front of the service with this URL.
    pub(crate) async fn start(service_url: &str, tasks: &mut JoinSet<()>) -> anyhow::Result<Arc<Self>> {
        let address = service_url.strip_prefix("http://").context("the services have no TLS")?.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot listen on a port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let door = Arc::new(Self { url, is_open: watch::Sender::new(true), refused: AtomicU64::new(0) });
        let of_task = door.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let (door, address) = (of_task.clone(), address.clone());
                connections.spawn(async move { door.pass(client, &address).await });
            }
        });
        Ok(door)
    }

    async fn pass(&self, mut client: TcpStream, address: &str) {
        let mut is_open = self.is_open.subscribe();
        if !*is_open.borrow_and_update() {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return;
        }
        let Ok(mut service) = TcpStream::connect(address).await else { return };
        // A small answer must not wait for the confirmation of the one before it.
        let _ = (client.set_nodelay(true), service.set_nodelay(true));
        tokio::select! {
            // A connection that fails is the client's to report.
            _ = copy_bidirectional(&mut client, &mut service) => {}
            _ = is_open.wait_for(|is_open| !is_open) => drop(self.refused.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Ends all connections, and each new one at once.
    pub fn close(&self) {
        self.is_open.send_replace(false);
    }

    pub fn open(&self) {
        self.is_open.send_replace(true);
    }

    pub fn is_open(&self) -> bool {
        *self.is_open.borrow()
    }

    /// Waits until the door is open.
    pub async fn opened(&self) {
        // Never fails, because `self` owns the sender.
        let _ = self.is_open.subscribe().wait_for(|is_open| *is_open).await;
    }

    /// The number of connections that the closed door has ended.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }
}

/// The doors of all emulated services.
#[derive(Debug, Clone)]
pub struct Doors {
    pub dynamodb: Arc<Door>,
    pub sqs: Arc<Door>,
    pub ec2: Arc<Door>,
    pub github: Arc<Door>,
    pub secrets_manager: Arc<Door>,
}

impl Doors {
    pub(crate) async fn start(aws_url: &str, github_url: &str, tasks: &mut JoinSet<()>) -> anyhow::Result<Self> {
        Ok(Self {
            dynamodb: Door::start(aws_url, tasks).await?,
            sqs: Door::start(aws_url, tasks).await?,
            ec2: Door::start(aws_url, tasks).await?,
            github: Door::start(github_url, tasks).await?,
            secrets_manager: Door::start(aws_url, tasks).await?,
        })
    }
}
