//! Encrypts the arguments of cameras, with the key that all nodes of a fleet share, or leaves them readable by choice.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use chacha20poly1305::aead::{Aead, Generate, KeyInit, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use serde_json::Value;

use crate::config::Config;
use crate::model::Args;

const NONCE: usize = 24;
const PROBE: &str = "zlm-journal-fleet";

pub struct Seal {
    cipher: Option<XChaCha20Poly1305>,
}

impl Seal {
    pub fn of(config: &Config) -> Result<Self> {
        let cipher = config.key_file.as_deref().map(cipher).transpose()?;
        Ok(Self { cipher })
    }

    /// `key` is the camera's: its arguments count for no other.
    pub fn close(&self, key: &str, args: &Args) -> Result<Value> {
        match &self.cipher {
            None => Ok(serde_json::to_value(args)?),
            Some(cipher) => Ok(Value::String(seal(cipher, key, &serde_json::to_vec(args)?)?)),
        }
    }

    pub fn open(&self, key: &str, args: &Value) -> Result<Args> {
        match (args, &self.cipher) {
            (Value::String(sealed), Some(cipher)) => Ok(serde_json::from_slice(&open(cipher, key, sealed)?)?),
            (Value::String(_), None) => {
                bail!("the arguments of {key} are encrypted: set key_file to the fleet's key file")
            }
            (clear, _) => {
                serde_json::from_value(clear.clone()).context("the arguments in etcd are not an object of texts")
            }
        }
    }

    /// A text by which another node knows whether it has the same key. None without encryption.
    pub fn probe(&self) -> Result<Option<String>> {
        self.cipher.as_ref().map(|cipher| seal(cipher, "meta", PROBE.as_bytes())).transpose()
    }

    /// Whether this is the key of the fleet that has left this probe.
    pub fn check(&self, probe: Option<&str>) -> Result<()> {
        match (probe, &self.cipher) {
            (None, None) => Ok(()),
            (None, Some(_)) => bail!(
                "this fleet keeps its arguments in clear, and key_file is set: leave key_file out and set clear_text = \
                 true, or begin a fleet of another name"
            ),
            (Some(_), None) => bail!("this fleet's arguments are encrypted: set key_file to its key file"),
            (Some(probe), Some(cipher)) => open(cipher, "meta", probe)
                .map(|_| ())
                .context("key_file is not the key of this fleet: all its nodes need the same"),
        }
    }
}

fn cipher(path: &Path) -> Result<XChaCha20Poly1305> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read key_file {}", path.display()))?;
    let bytes = hex::decode(text.trim()).ok().filter(|bytes| bytes.len() == 32).with_context(|| {
        format!(
            "key_file {}: expected 64 hexadecimal digits, such as `openssl rand -hex 32` prints",
            path.display()
        )
    })?;
    let key = Key::try_from(bytes.as_slice()).context("key_file: expected 32 bytes")?;
    Ok(XChaCha20Poly1305::new(&key))
}

fn seal(cipher: &XChaCha20Poly1305, key: &str, clear: &[u8]) -> Result<String> {
    let nonce =
        XNonce::try_generate().map_err(|why| anyhow::anyhow!("the system's random generator failed: {why}"))?;
    let sealed = cipher
        .encrypt(&nonce, Payload { msg: clear, aad: key.as_bytes() })
        .map_err(|_| anyhow::anyhow!("cannot encrypt"))?;
    Ok(hex::encode([nonce.as_slice(), &sealed].concat()))
}

fn open(cipher: &XChaCha20Poly1305, key: &str, sealed: &str) -> Result<Vec<u8>> {
    let bytes = hex::decode(sealed).context("what is encrypted is not hexadecimal")?;
    ensure!(bytes.len() > NONCE, "what is encrypted is cut off");
    let (nonce, sealed) = bytes.split_at(NONCE);
    let nonce = XNonce::try_from(nonce).context("what is encrypted is cut off")?;
    cipher
        .decrypt(&nonce, Payload { msg: sealed, aad: key.as_bytes() })
        .map_err(|_| anyhow::anyhow!("{key} cannot be decrypted: its key is another one, or it was altered"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_key(digit: &str) -> Seal {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        fs::write(&path, digit.repeat(64)).unwrap();
        Seal { cipher: Some(cipher(&path).unwrap()) }
    }

    #[test]
    fn arguments_are_read_with_the_right_key_and_for_their_camera_alone() {
        let (one, other) = (with_key("1"), with_key("2"));
        let args = Args::from([("url".to_owned(), "rtsp://u:p@cam/1".to_owned())]);
        let sealed = one.close("v/live/a", &args).unwrap();
        assert!(!sealed.to_string().contains("cam"));
        assert_eq!(one.open("v/live/a", &sealed).unwrap(), args);
        assert!(one.open("v/live/b", &sealed).is_err());
        assert!(other.open("v/live/a", &sealed).is_err());
        assert!(Seal { cipher: None }.open("v/live/a", &sealed).unwrap_err().to_string().contains("key_file"));
    }

    #[test]
    fn a_fleet_knows_its_key() {
        let (one, other, clear) = (with_key("1"), with_key("2"), Seal { cipher: None });
        let probe = one.probe().unwrap();
        assert!(one.check(probe.as_deref()).is_ok());
        assert!(clear.check(None).is_ok());
        for (seal, probe) in [(&other, probe.as_deref()), (&clear, probe.as_deref()), (&one, None)] {
            assert!(seal.check(probe).unwrap_err().to_string().contains("key"));
        }
    }
}
