//! Cameras of whichever host the tests run against.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use super::*;
use support::quiet::Quiet;

/// Some cameras that are switched on and off, and fall silent, together.
pub enum Cameras {
    Quiet(Quiet),
    Standin { address: SocketAddr, source: Option<Box<Source>> },
}

impl Cameras {
    pub fn new(fixture: &Fixture, ip: u8) -> Cameras {
        if HOST.real {
            return Cameras::Quiet(Quiet::at((1..=8).map(|n| IpAddr::from([127, 82, ip, n]))));
        }
        let source = fixture.source();
        Cameras::Standin { address: source.address(), source: Some(Box::new(source)) }
    }

    /// One that lets whoever asks connect, and sends nothing until it is switched on.
    pub fn mute() -> Cameras {
        let ip = IpAddr::from([127, 0, 0, 1]);
        if HOST.real {
            let quiet = Quiet::at([ip]);
            quiet.mute(true);
            return Cameras::Quiet(quiet);
        }
        let address = SocketAddr::new(ip, server::free_port());
        Cameras::Standin { address, source: Some(Box::new(Source::mute(address))) }
    }

    pub fn url(&self, n: usize) -> String {
        match self {
            Cameras::Quiet(quiet) => quiet.url(n),
            Cameras::Standin { address, .. } => format!("rtsp://{address}/camera{n}"),
        }
    }

    pub fn switch(&mut self, fixture: &Fixture, on: bool) {
        match self {
            Cameras::Quiet(quiet) => {
                quiet.mute(false);
                quiet.switch(on);
            }
            Cameras::Standin { address, source } => {
                // The old one goes before the new one takes its address.
                *source = None;
                *source = on.then(|| Box::new(Source::live_at(fixture.dir.path(), *address)));
            }
        }
    }

    /// Whoever plays is hung up on, and may connect again, and gets nothing.
    pub fn fall_silent(&mut self) {
        match self {
            Cameras::Quiet(quiet) => {
                quiet.mute(true);
                quiet.switch(false);
                quiet.switch(true);
            }
            Cameras::Standin { address, source } => {
                *source = None;
                *source = Some(Box::new(Source::mute(*address)));
            }
        }
    }

    /// The numbers of those that somebody plays. Those of a stand-in do not know.
    pub fn playing(&self) -> HashSet<usize> {
        match self {
            Cameras::Quiet(quiet) => quiet.playing(),
            Cameras::Standin { .. } => HashSet::new(),
        }
    }
}
