//! Encrypts the arguments of proxies with a key that is not in the journal, so that its files alone do not show the
//! cameras' URLs. The ciphertext is bound to its proxy and cannot be moved to another row. Knows nothing of rows or
//! queues.

use std::path::Path;
use std::sync::Arc;

use chacha20poly1305::aead::{Aead, Generate, Payload};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::env::Env;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Kind};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

pub struct ArgsCipher {
    /// Wipes the key when it is dropped.
    cipher: XChaCha20Poly1305,
    /// Identifies the key without revealing it.
    pub id: i64,
}

impl ArgsCipher {
    /// Reads the key file: 64 hexadecimal digits.
    pub fn read(env: &dyn Env, path: &Path) -> Result<Arc<ArgsCipher>> {
        let text = env.read(path).map_err(|error| {
            let why = format!(
                "cannot read [journal] key_file={}: {error}. Nothing is written until it can be read",
                path.display()
            );
            Error::new(Code::KeyMissing, why)
        })?;
        let text = Zeroizing::new(text);
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        // The error of `hex` quotes a digit of the key, so it is not passed on.
        hex::decode_to_slice(text.trim_ascii(), key.as_mut_slice()).map_err(|_| {
            let why = format!(
                "[journal] key_file={} must contain a key of {} hexadecimal digits: create one with openssl rand -hex \
                 {KEY_BYTES}",
                path.display(),
                2 * KEY_BYTES
            );
            Error::new(Code::KeyMissing, why)
        })?;
        Self::new(&key)
    }

    fn new(key: &[u8; KEY_BYTES]) -> Result<Arc<ArgsCipher>> {
        let cipher = XChaCha20Poly1305::new(key.into());
        // Encryption needs random nonces: without them the journal is not opened.
        XNonce::try_generate()
            .map_err(|error| Error::storage(format!("the system's random generator failed: {error}")))?;
        // The tag of an empty message, with a nonce and associated data that nothing else uses.
        let payload = Payload { msg: b"", aad: b"zlm-journal: which key is this?" };
        let tag = cipher.encrypt(&XNonce::default(), payload).ok();
        let first = tag.as_ref().and_then(|tag| tag.first_chunk());
        let id = first.ok_or_else(|| Error::new(Code::KeyMissing, "unusable key: create another one"))?;
        let id = i64::from_le_bytes(*id);
        Ok(Arc::new(ArgsCipher { cipher, id }))
    }

    /// The arguments, encrypted for the file unless they already are. Takes microseconds, touches no storage.
    pub fn encrypted(&self, kind: Kind, key: &str, args: Args) -> Args {
        if args.stored() != args.as_str() {
            return args;
        }
        let payload = Payload { msg: args.as_str().as_bytes(), aad: &bound_to(kind, key) };
        let ciphertext = XNonce::try_generate().ok().and_then(|nonce| {
            let encrypted = self.cipher.encrypt(&nonce, payload).ok()?;
            Some([nonce.as_slice(), &encrypted].concat())
        });
        // If encryption fails, the write must fail: neither plain text nor nothing may be stored.
        match ciphertext {
            Some(ciphertext) => args.encrypted_as(&ciphertext),
            None => args.unstorable(),
        }
    }

    fn decrypted(&self, kind: Kind, key: &str, args: Args) -> Result<Args> {
        let wrong =
            || Error::corrupt(format!("the arguments of {key} cannot be decrypted: altered, or of another key"));
        let ciphertext = args.ciphertext().ok_or_else(wrong)?;
        let (nonce, encrypted) = ciphertext.split_first_chunk::<NONCE_BYTES>().ok_or_else(wrong)?;
        let payload = Payload { msg: encrypted, aad: &bound_to(kind, key) };
        let text = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| wrong())?;
        args.decrypted(&String::from_utf8(text).map_err(|_| wrong())?)
    }
}

/// Arguments from a file for memory: readable, and encrypted for the file if there is a key.
pub fn from_file(cipher: Option<&ArgsCipher>, kind: Kind, key: &str, args: Args) -> Result<Args> {
    match cipher {
        Some(cipher) if args.is_encrypted() => cipher.decrypted(kind, key, args),
        Some(cipher) => Ok(cipher.encrypted(kind, key, args)),
        None if args.is_encrypted() => {
            Err(Error::new(Code::KeyMissing, format!("the arguments of {key} are encrypted, and no key is set")))
        }
        None => Ok(args),
    }
}

/// The associated data of an encryption. The name of a kind contains no zero byte.
fn bound_to(kind: Kind, key: &str) -> Vec<u8> {
    [kind.name().as_bytes(), b"\0", key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(byte: u8) -> Arc<ArgsCipher> {
        ArgsCipher::new(&[byte; KEY_BYTES]).unwrap()
    }

    fn args() -> Args {
        Args::from_pairs([(b"url".as_slice(), b"rtsp://user:pass@host/1".as_slice())]).unwrap()
    }

    #[test]
    fn what_is_encrypted_is_read_by_its_key_for_its_proxy_alone() {
        let cipher = cipher(1);
        let encrypted = from_file(Some(&cipher), Kind::Pull, "v/a/s", args()).unwrap();
        assert_eq!(encrypted, args());
        assert!(
            !encrypted.stored().contains("host") && !encrypted.stored().contains("pass"),
            "{}",
            encrypted.stored()
        );
        let read = || Args::from_stored(encrypted.stored()).unwrap();
        assert!(read().is_encrypted() && read() != args());
        let decrypted = from_file(Some(&cipher), Kind::Pull, "v/a/s", read()).unwrap();
        assert_eq!((decrypted.as_str(), decrypted.stored()), (args().as_str(), encrypted.stored()));
        for (cipher, kind, key) in [
            (Some(&*cipher), Kind::Pull, "v/a/t"),
            (Some(&cipher), Kind::Push, "v/a/s"),
            (Some(&self::cipher(2)), Kind::Pull, "v/a/s"),
            (None, Kind::Pull, "v/a/s"),
        ] {
            assert!(from_file(cipher, kind, key, read()).is_err(), "{kind:?} {key}");
        }
    }

    /// Made by the crate alone, with the nonce of 16 bytes and a counter that earlier versions drew.
    #[test]
    fn what_an_earlier_version_encrypted_is_decrypted() {
        let ciphertext = "0707070707070707070707070707070701000000000000002e350aae6d34c8082fdd7c6e4b103ce5\
                    8f31e2ae0f41d0eba3769142695eb4f52a3d";
        let stored =
            Args::from_stored(&format!(r#"{{"sealed":{{"xchacha20poly1305":"{ciphertext}"}}}}"#)).unwrap();
        let args = from_file(Some(&cipher(1)), Kind::Pull, "v/a/s", stored).unwrap();
        assert_eq!(args.as_str(), r#"{"url":"rtsp://1"}"#);
    }

    #[test]
    fn every_altered_digit_is_noticed() {
        let cipher = cipher(1);
        let encrypted = from_file(Some(&cipher), Kind::Pull, "v/a/s", args()).unwrap().stored().to_owned();
        for at in 0..encrypted.len() {
            let mut bytes = encrypted.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let altered = Args::from_stored(std::str::from_utf8(&bytes).unwrap());
            let read = altered.and_then(|args| from_file(Some(&cipher), Kind::Pull, "v/a/s", args));
            assert!(read.is_err_and(|error| error.code == Code::Corrupt), "{at}");
        }
    }

    #[test]
    fn a_key_is_known_by_its_id() {
        assert_eq!(cipher(1).id, cipher(1).id);
        assert_ne!(cipher(1).id, cipher(2).id);
    }

    #[test]
    fn a_key_file_has_pairs_of_hexadecimal_digits_and_blanks_around_them() {
        let dir = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            let file = dir.path().join("key");
            std::fs::write(&file, text).unwrap();
            ArgsCipher::read(&crate::storage::env::System, &file)
        };
        assert_eq!(read(&format!(" {}\r\n", "0a".repeat(KEY_BYTES))).unwrap().id, cipher(10).id);
        assert_eq!(read(&"0A".repeat(KEY_BYTES)).unwrap().id, cipher(10).id);
        for wrong in ["+a".repeat(KEY_BYTES), "0g".repeat(KEY_BYTES), "0a".repeat(KEY_BYTES - 1), "0a".repeat(64)]
        {
            let error = read(&wrong).err().unwrap();
            assert!(error.code == Code::KeyMissing && !error.message.contains(&wrong[..16]), "{error}");
        }
    }

    /// Compiles only while the cipher wipes its key.
    #[test]
    fn the_cipher_wipes_its_key_when_it_is_dropped() {
        fn wiped<T: zeroize::ZeroizeOnDrop>(_: &T) {}
        wiped(&cipher(1).cipher);
    }

    /// In this process and in two more, which run this test alone and print theirs.
    #[test]
    fn no_part_of_a_nonce_ever_repeats() {
        const PRINT: &str = "ZLMJ_PRINT_NONCES";
        let cipher = cipher(1);
        let own = (0..10_000).map(|_| {
            let encrypted = from_file(Some(&cipher), Kind::Pull, "v/a/s", args()).unwrap();
            hex::encode(&encrypted.ciphertext().unwrap()[..NONCE_BYTES])
        });
        if std::env::var_os(PRINT).is_some() {
            own.for_each(|nonce| println!("\nnonce {nonce}"));
            return;
        }
        let mut nonces: Vec<String> = own.collect();
        for _ in 0..2 {
            let mut process = std::process::Command::new(std::env::current_exe().unwrap());
            process.args(["no_part_of_a_nonce_ever_repeats", "--nocapture"]).env(PRINT, "1");
            let output = String::from_utf8(process.output().unwrap().stdout).unwrap();
            nonces.extend(output.lines().filter_map(|line| line.strip_prefix("nonce ")).map(str::to_owned));
        }
        assert_eq!(nonces.len(), 30_000);
        // By halves: of a nonce that counts, one half stands still.
        let halves = nonces.iter().flat_map(|nonce| [&nonce[..NONCE_BYTES], &nonce[NONCE_BYTES..]]);
        assert_eq!(halves.collect::<std::collections::HashSet<_>>().len(), 60_000);
    }
}
