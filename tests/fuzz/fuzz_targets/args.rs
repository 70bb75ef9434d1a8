//! Arguments of any sort: what is stored is read back the same and replays every byte; text that is shown has no
//! credentials in it; settings of any sort leave settings that are good.
#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use zlm_journal::model::{Args, body_of};
use zlm_journal::model::{redact, redact_value};
use zlm_journal::settings::Settings;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.split(|byte| *byte == 0xfe);
    let pairs: Vec<(&[u8], &[u8])> = std::iter::from_fn(|| Some((parts.next()?, parts.next()?))).collect();
    if let Ok(args) = Args::from_pairs(pairs.iter().copied()) {
        assert_eq!(Args::from_stored(args.as_str()).unwrap(), args);
        assert!(body_of(&args.replayed(&[("force", "1")]).unwrap()).ends_with(b"\"force\":\"1\"}"));
        // Quotes in a value are escaped: with plain ones around it, it would be a name.
        let stored = args.as_str().to_ascii_lowercase();
        assert!(!stored.contains("{\"secret\":") && !stored.contains(",\"secret\":"));
    }
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = Args::from_stored(text).and_then(|args| args.replayed(&[]));
        let rest = text.replace(|sign: char| sign.is_whitespace() || "\"'".contains(sign), "");
        let url = format!("rtsp://user:pass-word@host/{rest}");
        // The rest of it may say anything.
        for shown in [redact(&url), redact_value(&url)] {
            assert!(shown.starts_with("rtsp://***@"));
            assert!(rest.contains("pass-word") || !shown.contains("pass-word"));
        }
        let settings: Vec<(&str, &str)> = text.lines().filter_map(|line| line.split_once('=')).collect();
        let (settings, problems) = Settings::read(settings, Path::new("/"));
        assert!(settings.snapshot_keep >= 2 && !settings.snapshot_every.is_zero());
        assert!(problems.iter().all(|problem| problem.contains("[journal]")));
    }
});
