//! Seals the arguments of proxies with a key that is not in the journal, so that its files alone give no camera away.
//! What is sealed is bound to its proxy: one row's seal is none for another's. Knows nothing of rows or queues.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use chacha20poly1305::aead::{Aead, Generate, Payload};
use chacha20poly1305::{Key, KeyInit, XChaCha20Poly1305, XNonce};

use super::env::Env;
use crate::error::{Code, Error, Result};
use crate::model::{Args, Kind};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
/// Of a nonce, what is drawn once for each process; the rest counts, so that none is ever used twice.
const DRAWN_BYTES: usize = NONCE_BYTES - size_of::<u64>();

pub struct ArgsCipher {
    cipher: XChaCha20Poly1305,
    /// Tells the key from others, and nothing of what it is.
    pub id: i64,
    drawn: [u8; DRAWN_BYTES],
    count: AtomicU64,
}

impl ArgsCipher {
    /// Reads the key file: 64 hexadecimal digits.
    pub fn read(env: &dyn Env, path: &Path) -> Result<Arc<ArgsCipher>> {
        let text = env.read(path).map_err(|error| {
            let why = format!(
                "cannot read [journal] key_file={}: {error}. Nothing is written until it is there",
                path.display()
            );
            Error::new(Code::KeyMissing, why)
        })?;
        let text = String::from_utf8_lossy(&text);
        let key: Option<[u8; KEY_BYTES]> = crate::model::from_hex(text.trim()).and_then(|key| key.try_into().ok());
        let key = key.ok_or_else(|| {
            let why = format!(
                "[journal] key_file={} does not have a key in it, {} hexadecimal digits: make one with openssl rand -hex \
                 {KEY_BYTES}",
                path.display(),
                2 * KEY_BYTES
            );
            Error::new(Code::KeyMissing, why)
        })?;
        Self::new(key)
    }

    fn new(key: [u8; KEY_BYTES]) -> Result<Arc<ArgsCipher>> {
        let cipher = XChaCha20Poly1305::new(&Key::from(key));
        let no_randomness = |what: &dyn std::fmt::Display| {
            Error::new(Code::Storage, format!("the system's random generator failed: {what}"))
        };
        let drawn = XNonce::try_generate().map_err(|error| no_randomness(&error))?;
        let drawn = drawn.first_chunk().copied().ok_or_else(|| no_randomness(&"too few"))?;
        // The tag of an empty message under a nonce that nothing else has.
        let payload = Payload { msg: b"", aad: b"zlm-journal: which key is this?" };
        let tag = cipher.encrypt(&XNonce::default(), payload).ok();
        let first = tag.as_ref().and_then(|tag| tag.first_chunk());
        let id =
            first.ok_or_else(|| Error::new(Code::KeyMissing, "this key encrypts nothing: make another one"))?;
        let id = i64::from_le_bytes(*id);
        Ok(Arc::new(ArgsCipher { cipher, id, drawn, count: AtomicU64::new(1) }))
    }

    /// The same, sealed for the file, unless they are already. Takes microseconds, touches no storage.
    pub fn sealed(&self, kind: Kind, key: &str, args: Args) -> Args {
        if args.stored() != args.as_str() {
            return args;
        }
        let mut nonce = [0; NONCE_BYTES];
        let count = self.count.fetch_add(1, Ordering::Relaxed).to_le_bytes();
        for (to, from) in nonce.iter_mut().zip(self.drawn.iter().chain(&count)) {
            *to = *from;
        }
        let payload = Payload { msg: args.as_str().as_bytes(), aad: &bound_to(kind, key) };
        // The cipher refuses nothing below 256 GiB. If it did, the write fails: neither plain text nor an empty seal is stored.
        match self.cipher.encrypt(&XNonce::from(nonce), payload) {
            Ok(sealed) => args.sealed_as(&[nonce.as_slice(), &sealed].concat()),
            Err(_) => args.unstorable(),
        }
    }

    fn decrypted(&self, kind: Kind, key: &str, args: Args) -> Result<Args> {
        let wrong =
            || Error::corrupt(format!("the seal of {key} is broken: it was altered, or is of another key"));
        let seal = args.seal().ok_or_else(wrong)?;
        let (nonce, sealed) = seal.split_first_chunk::<NONCE_BYTES>().ok_or_else(wrong)?;
        let payload = Payload { msg: sealed, aad: &bound_to(kind, key) };
        let text = self.cipher.decrypt(&XNonce::from(*nonce), payload).map_err(|_| wrong())?;
        args.decrypted(&String::from_utf8(text).map_err(|_| wrong())?)
    }
}

/// Arguments from a file as memory has them: readable, and sealed for the file where there is a key.
pub fn kept(cipher: Option<&ArgsCipher>, kind: Kind, key: &str, args: Args) -> Result<Args> {
    match cipher {
        Some(cipher) if args.is_encrypted() => cipher.decrypted(kind, key, args),
        Some(cipher) => Ok(cipher.sealed(kind, key, args)),
        None if args.is_encrypted() => {
            Err(Error::new(Code::KeyMissing, format!("the arguments of {key} are sealed, and there is no key")))
        }
        None => Ok(args),
    }
}

/// What a seal holds good for. A kind's name has no zero byte in it.
fn bound_to(kind: Kind, key: &str) -> Vec<u8> {
    [kind.name().as_bytes(), b"\0", key.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cipher(byte: u8) -> Arc<ArgsCipher> {
        ArgsCipher::new([byte; KEY_BYTES]).unwrap()
    }

    fn args() -> Args {
        Args::from_pairs([(b"url".as_slice(), b"rtsp://user:pass@host/1".as_slice())]).unwrap()
    }

    #[test]
    fn what_is_sealed_is_unlocked_by_its_key_for_its_proxy_alone() {
        let cipher = cipher(1);
        let sealed = kept(Some(&cipher), Kind::Pull, "v/a/s", args()).unwrap();
        assert_eq!(sealed, args());
        assert!(!sealed.stored().contains("host") && !sealed.stored().contains("pass"), "{}", sealed.stored());
        let read = || Args::from_stored(sealed.stored()).unwrap();
        assert!(read().is_encrypted() && read() != args());
        let decrypted = kept(Some(&cipher), Kind::Pull, "v/a/s", read()).unwrap();
        assert_eq!((decrypted.as_str(), decrypted.stored()), (args().as_str(), sealed.stored()));
        for (cipher, kind, key) in [
            (Some(&*cipher), Kind::Pull, "v/a/t"),
            (Some(&cipher), Kind::Push, "v/a/s"),
            (Some(&self::cipher(2)), Kind::Pull, "v/a/s"),
            (None, Kind::Pull, "v/a/s"),
        ] {
            assert!(kept(cipher, kind, key, read()).is_err(), "{kind:?} {key}");
        }
    }

    #[test]
    fn every_altered_digit_breaks_the_seal() {
        let cipher = cipher(1);
        let sealed = kept(Some(&cipher), Kind::Pull, "v/a/s", args()).unwrap().stored().to_owned();
        for at in 0..sealed.len() {
            let mut bytes = sealed.clone().into_bytes();
            bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
            let altered = Args::from_stored(std::str::from_utf8(&bytes).unwrap());
            let read = altered.and_then(|args| kept(Some(&cipher), Kind::Pull, "v/a/s", args));
            assert!(read.is_err_and(|error| error.code == Code::Corrupt), "{at}");
        }
    }

    #[test]
    fn no_two_seals_are_alike_and_a_key_is_known_by_its_id() {
        let (one, again, other) = (cipher(1), cipher(1), cipher(2));
        assert_eq!(one.id, again.id);
        assert_ne!(one.id, other.id);
        let mut seals = std::collections::HashSet::new();
        for cipher in [&one, &again] {
            for _ in 0..1000 {
                let sealed = kept(Some(cipher), Kind::Pull, "v/a/s", args()).unwrap();
                assert!(seals.insert(sealed.seal().unwrap()[..NONCE_BYTES].to_vec()));
            }
        }
    }
}
