//! One call to the receiver of alerts.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use ureq::tls::{RootCerts, TlsConfig};

use super::alert::Alert;
use crate::model::url::host_of;

/// With name lookup, connect and reply.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The signature of the body: `sha256=` and hexadecimal digits.
const SIGNATURE: &str = "X-Zlm-Journal-Signature";

/// Where alerts go.
pub struct Receiver<'a> {
    pub url: &'a str,
    /// Signs the body.
    pub secret: Option<&'a str>,
}

/// Like the body of MediaServer's hooks.
#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "mediaServerId")]
    server_id: &'a str,
    alerts: &'a [&'a Alert],
}

impl Receiver<'_> {
    /// Blocks until it is answered, for at most 10 s. Any status of success counts. Errors are for operators, and name
    /// only the host: the path of such a URL is often a secret.
    pub fn post(&self, server_id: &str, alerts: &[&Alert]) -> Result<(), String> {
        let body = serde_json::to_vec(&Body { server_id, alerts }).map_err(|error| error.to_string())?;
        // The certificates that this machine trusts, a company's own among them.
        let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
        // A redirected POST may arrive as a GET, without its body.
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .tls_config(tls)
            .max_redirects(0)
            .http_status_as_error(false);
        let agent = config.build().new_agent();
        let mut request = agent.post(self.url).header("Content-Type", "application/json; charset=utf-8");
        if let Some(secret) = self.secret {
            request = request.header(SIGNATURE, signature(secret, &body)?);
        }
        let host = host_of(self.url).unwrap_or_default();
        let reply = request.send(body.as_slice()).map_err(|error| format!("{host} cannot be reached: {error}"))?;
        let status = reply.status();
        if status.is_success() { Ok(()) } else { Err(format!("{host} has answered with status {status}")) }
    }
}

fn signature(secret: &str, body: &[u8]) -> Result<String, String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|error| error.to_string())?;
    mac.update(body);
    Ok(format!("sha256={}", hex::encode(mac.finalize().into_bytes())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_rfc_4231() {
        // Test case 2.
        let expected = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(signature("Jefe", b"what do ya want for nothing?").unwrap(), expected);
    }
}
