//! How the clients reach AWS and GitHub: through a proxy if there is one, and trusting private CAs if some are named.

use aws_smithy_http_client::proxy::ProxyConfig;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use rustls_pki_types::CertificateDer;

use crate::environment::{EnvironmentError, optional};

const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

fn set(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.trim().is_empty())
}

/// The proxy for calls to AWS: `HTTPS_PROXY` and `NO_PROXY`. The GitHub client reads the same variables by itself.
///
/// Plain `http` never uses the proxy: it is for the metadata service and for emulators.
///
/// # Errors
/// If the proxy is not an URL.
pub(crate) fn proxy() -> Result<ProxyConfig, EnvironmentError> {
    let Some(proxy) = set(optional("HTTPS_PROXY")).or_else(|| set(optional("https_proxy"))) else {
        return Ok(ProxyConfig::disabled());
    };
    let url = if proxy.contains("://") { proxy } else { format!("http://{proxy}") };
    let proxy = ProxyConfig::https(url).map_err(|error| EnvironmentError::Invalid {
        name: "HTTPS_PROXY",
        // The URL may contain a password.
        value: "<secret>".to_owned(),
        rule: error.to_string(),
    })?;
    let direct = set(optional("NO_PROXY")).or_else(|| set(optional("no_proxy")));
    Ok(proxy.no_proxy(direct.unwrap_or_default()))
}

/// The CAs that the clients trust in addition to the public ones: `DROVER_CA_CERTIFICATES`.
///
/// # Errors
/// If a certificate cannot be read. The HTTP clients would panic.
pub(crate) fn ca_certificates() -> Result<Vec<CertificateDer<'static>>, EnvironmentError> {
    let Some(text) = set(optional("DROVER_CA_CERTIFICATES")) else { return Ok(Vec::new()) };
    let invalid = |rule| EnvironmentError::Invalid { name: "DROVER_CA_CERTIFICATES", value: shortened(&text), rule };
    parse(&text).map_err(invalid)
}

fn shortened(text: &str) -> String {
    let mut start: String = text.chars().take(40).collect();
    if start.len() < text.len() {
        start.push_str("...");
    }
    start
}

/// Certificates in PEM format, or their base64 parts separated by commas, which parameters and variables of one line can
/// hold. White space does not matter.
fn parse(text: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    if !text.contains(BEGIN) {
        return text.split(',').map(certificate).collect();
    }
    let mut certificates = Vec::new();
    let mut rest = text;
    while let Some((_, from)) = rest.split_once(BEGIN) {
        let (body, after) = from.split_once(END).ok_or_else(|| format!("must contain {END:?} after each {BEGIN:?}"))?;
        certificates.push(certificate(body)?);
        rest = after;
    }
    Ok(certificates)
}

fn certificate(base64: &str) -> Result<CertificateDer<'static>, String> {
    let base64: String = base64.split_whitespace().collect();
    let der = STANDARD.decode(base64).map_err(|error| format!("must be certificates in PEM format: {error}"))?;
    let der = CertificateDer::from(der);
    webpki::anchor_from_trusted_cert(&der).map_err(|error| format!("must be certificates in PEM format: {error}"))?;
    Ok(der)
}

/// A certificate in PEM format.
pub(crate) fn pem(certificate: &CertificateDer<'_>) -> String {
    format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ca(name: &str) -> rcgen::Certificate {
        let mut parameters = rcgen::CertificateParams::new([]).unwrap();
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap()
    }

    #[test]
    fn certificates_are_read_in_each_form_that_a_setting_can_have() {
        let (one, two) = (ca("one"), ca("two"));
        let expected = vec![one.der().clone(), two.der().clone()];
        let file = format!("# two CAs of the company\n{}\n{}", one.pem(), two.pem());
        let bodies = [one.der(), two.der()].map(|der| STANDARD.encode(der)).join(", ");
        let normalised = expected.iter().map(pem).collect::<String>();
        for text in [file.clone(), file.replace('\n', " "), bodies, normalised] {
            assert_eq!(parse(&text), Ok(expected.clone()), "{text}");
        }
    }

    #[test]
    fn a_certificate_that_cannot_be_read_is_refused() {
        let whole = ca("one").pem();
        let truncated = STANDARD.encode(&ca("one").der()[..100]);
        for text in ["nonsense", &whole[..whole.len() - 10], "aGVsbG8=", &truncated, ","] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
