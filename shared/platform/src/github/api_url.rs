//! The address of GitHub's API.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use reqwest::Url;

/// The default address of GitHub's API.
pub(super) const API_URL: &str = "https://api.github.com";

/// The base of the API's URLs, without a slash at the end. Calls carry the app's tokens, so it is `https`. Only the machine
/// itself may be called by plain `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiUrl(String);

/// Why an address is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be a URL such as {API_URL} or https://HOST/api/v3, with https except for this machine itself")]
pub struct NotAnApiUrl;

impl Default for ApiUrl {
    fn default() -> Self {
        Self(API_URL.to_owned())
    }
}

impl FromStr for ApiUrl {
    type Err = NotAnApiUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: Url = text.parse().map_err(|_| NotAnApiUrl)?;
        let is_base =
            url.query().is_none() && url.fragment().is_none() && url.username().is_empty() && url.password().is_none();
        let is_safe = match url.scheme() {
            "https" => url.host_str().is_some_and(|host| !host.is_empty()),
            "http" => url.host_str().is_some_and(is_loopback),
            _ => false,
        };
        if is_base && is_safe { Ok(Self(url.as_str().trim_end_matches('/').to_owned())) } else { Err(NotAnApiUrl) }
    }
}

/// Whether the host is this machine. Other names are not resolved: who answers for them may change.
fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

impl fmt::Display for ApiUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl ApiUrl {
    /// The address of GitHub's web pages that belongs to this API.
    pub fn web_url(&self) -> String {
        if self.0 == API_URL {
            return "https://github.com".to_owned();
        }
        // A company's address at GHE.com.
        let ghe_com = self.0.strip_prefix("https://api.").filter(|rest| rest.ends_with(".ghe.com"));
        match ghe_com {
            Some(host) => format!("https://{host}"),
            None => self.0.strip_suffix("/api/v3").unwrap_or(&self.0).to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_https_except_on_this_machine() {
        let good = [
            ("https://api.github.com/", "https://api.github.com"),
            ("https://ghe.example.com/api/v3/", "https://ghe.example.com/api/v3"),
            ("http://127.0.0.1:8080/", "http://127.0.0.1:8080"),
            ("http://127.9.9.9", "http://127.9.9.9"),
            ("http://[::1]:80", "http://[::1]"),
            ("http://localhost:1/api/v3", "http://localhost:1/api/v3"),
        ];
        for (text, url) in good {
            assert_eq!(text.parse::<ApiUrl>().unwrap().to_string(), url);
        }
        let bad = [
            "",
            "api.github.com",
            "http://api.github.com",
            "http://ghe.example.com/api/v3",
            "http://127.0.0.1.example.com",
            "http://localhost.example.com",
            "http://127.0.0.1@example.com",
            "http://10.0.0.1",
            "https://user:password@ghe.example.com",
            "https://ghe.example.com/?x=1",
            "https://ghe.example.com/#x",
            "ftp://127.0.0.1",
            "file:///etc/passwd",
            "unix:/run/x",
        ];
        for text in bad {
            assert_eq!(text.parse::<ApiUrl>(), Err(NotAnApiUrl), "{text}");
        }
    }

    #[test]
    fn the_web_address_follows_from_the_api_address() {
        for (api, web) in [
            (API_URL, "https://github.com"),
            ("https://ghe.example.com/api/v3/", "https://ghe.example.com"),
            ("https://api.octocorp.ghe.com", "https://octocorp.ghe.com"),
        ] {
            assert_eq!(api.parse::<ApiUrl>().unwrap().web_url(), web);
        }
    }
}
