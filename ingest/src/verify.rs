//! Verifies that a body comes from GitHub, before anything in the body is parsed.

use engine::ports::{SecretError, SecretStore};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use platform::secrets::{Verdict, WebhookSecret};
use sha2::Sha256;

/// The value of `X-Hub-Signature-256`: `sha256=` and 64 hexadecimal digits.
#[derive(Clone, PartialEq, Eq)]
pub struct Signature([u8; 32]);

impl Signature {
    /// Parses the header's value. None if it does not have GitHub's form.
    pub fn parse(header: &str) -> Option<Self> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(header.strip_prefix("sha256=")?, &mut bytes).ok()?;
        Some(Self(bytes))
    }

    /// Whether this is the HMAC-SHA256 of a body. Takes the same time for every wrong signature.
    pub fn signs(&self, body: &[u8], secret: &[u8]) -> bool {
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(secret) else { return false };
        mac.update(body);
        mac.verify_slice(&self.0).is_ok()
    }
}

impl std::fmt::Debug for Signature {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Signature(<secret>)")
    }
}

/// A body that GitHub signed. [`Verified::check`] is the only constructor.
pub struct Verified(Vec<u8>);

/// Whether GitHub signed a body.
#[derive(Debug)]
pub enum Checked {
    Signed(Verified),
    Forged,
    /// The secret cannot be read, so the signature may be right.
    Unknown(SecretError),
}

impl Verified {
    /// Checks the signature of the raw bytes.
    pub async fn check<S: SecretStore>(
        secret: &WebhookSecret<S>,
        body: Vec<u8>,
        signature: &Signature,
        now: Timestamp,
    ) -> Checked {
        match secret.verify(|secret| signature.signs(&body, secret), now).await {
            Verdict::Signed => Checked::Signed(Self(body)),
            Verdict::Forged => Checked::Forged,
            Verdict::Unknown(error) => Checked::Unknown(error),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::fmt::Debug for Verified {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Verified({} bytes)", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From GitHub's "Validating webhook deliveries".
    #[test]
    fn githubs_own_example_is_signed() {
        let signature =
            Signature::parse("sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17").unwrap();
        assert!(signature.signs(b"Hello, World!", b"It's a Secret to Everybody"));
        assert!(!signature.signs(b"Hello, World?", b"It's a Secret to Everybody"));
        assert!(!signature.signs(b"Hello, World!", b"It's a secret to everybody"));
    }

    #[test]
    fn a_value_without_githubs_form_is_not_a_signature() {
        let good = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
        let written = [
            String::new(),
            good.to_owned(),
            format!("sha1={good}"),
            format!("sha256={}", &good[2..]),
            format!("sha256={good}00"),
            format!("sha256={good},sha256={good}"),
            format!("sha256= {good}"),
            format!("sha256={}", "7".repeat(1 << 20)),
            format!("sha256={}é", &good[..62]),
        ];
        for header in written {
            assert_eq!(Signature::parse(&header), None, "{} characters", header.len());
        }
    }
}
