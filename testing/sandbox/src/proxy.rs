//! A network in which functions and machines reach AWS and GitHub only through a proxy. The servers' names do not resolve
//! outside of it, and their certificates are those of a private CA.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use anyhow::{Context, ensure};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// The name under which the proxy finds AWS.
pub const AWS: &str = "aws.sandbox.test";

/// The name under which the proxy finds GitHub.
pub const GITHUB: &str = "github.sandbox.test";

/// The longest head of a request that the proxy reads, in bytes.
const LONGEST_HEAD: usize = 8192;

/// A running proxy.
#[derive(Debug)]
pub struct Proxy {
    /// URL of the proxy.
    pub url: String,
    /// The private CA's certificate, in PEM format.
    pub ca: String,
    /// URL of AWS without the proxy, also with a certificate of the CA.
    pub direct_aws_url: String,
    connected: Mutex<BTreeSet<String>>,
}

/// The model behind a name: its address, and what accepts TLS connections in its place.
struct Server {
    name: &'static str,
    address: String,
    tls: TlsAcceptor,
}

impl Proxy {
    /// Starts the proxy in front of the models.
    ///
    /// # Errors
    /// If no port is free, or no certificate can be made.
    pub(crate) async fn start(aws_url: &str, github_url: &str, tasks: &mut JoinSet<()>) -> anyhow::Result<Arc<Self>> {
        let mut parameters = CertificateParams::new([])?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?;
        let server = |name: &'static str, url: &str| -> anyhow::Result<Server> {
            let address = url.strip_prefix("http://").context("the models have no TLS")?.to_owned();
            Ok(Server { name, address, tls: acceptor(name, &ca)? })
        };
        let servers = Arc::new([server(AWS, aws_url)?, server(GITHUB, github_url)?]);
        let local = server("localhost", aws_url)?;

        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let direct = TcpListener::bind("127.0.0.1:0").await?;
        let proxy = Arc::new(Self {
            url: format!("http://{}", listener.local_addr()?),
            ca: ca.pem(),
            direct_aws_url: format!("https://localhost:{}", direct.local_addr()?.port()),
            connected: Mutex::default(),
        });
        let running = proxy.clone();
        tasks.spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (proxy, servers) = (running.clone(), servers.clone());
                // A connection that fails is the client's to report.
                tokio::spawn(async move { proxy.tunnel(client, &*servers).await });
            }
        });
        let local = Arc::new(local);
        tasks.spawn(async move {
            while let Ok((client, _)) = direct.accept().await {
                let local = local.clone();
                tokio::spawn(async move { local.serve(client).await });
            }
        });
        Ok(proxy)
    }

    /// The names to which clients have connected through the proxy.
    pub fn connected(&self) -> BTreeSet<String> {
        self.connected.lock().expect("nobody panics while holding it").clone()
    }

    async fn tunnel(&self, mut client: TcpStream, servers: &[Server]) -> anyhow::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            ensure!(head.len() < LONGEST_HEAD, "the head is too long");
            head.push(client.read_u8().await?);
        }
        let head = String::from_utf8(head)?;
        let name = head.strip_prefix("CONNECT ").and_then(|rest| rest.split_once(":443 ")).map(|(name, _)| name);
        let server = servers.iter().find(|server| Some(server.name) == name);
        let Some(server) = server else {
            client.write_all(b"HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n").await?;
            return Ok(());
        };
        self.connected.lock().expect("nobody panics while holding it").insert(server.name.to_owned());
        client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
        server.serve(client).await
    }
}

impl Server {
    async fn serve(&self, client: TcpStream) -> anyhow::Result<()> {
        let mut client = self.tls.accept(client).await?;
        let mut model = TcpStream::connect(&self.address).await?;
        copy_bidirectional(&mut client, &mut model).await?;
        Ok(())
    }
}

/// Accepts TLS connections with a certificate for this name.
fn acceptor(name: &str, ca: &CertifiedIssuer<'_, KeyPair>) -> anyhow::Result<TlsAcceptor> {
    let key = KeyPair::generate()?;
    let certificate = CertificateParams::new([name.to_owned()])?.signed_by(&key, ca)?;
    let key = PrivateKeyDer::try_from(key.serialize_der()).map_err(|error| anyhow::anyhow!(error))?;
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
