//! Finds proxies by a part of what is shown of them. Without `reveal`, no search finds what is hidden, or credentials could be
//! guessed letter by letter.

use std::borrow::Cow;

use crate::model::{Args, BACKUP_URLS, Kind, LABEL, redact_value, urls_of};

pub struct Search {
    /// In lower case.
    text: String,
    reveal: bool,
    /// The text would stand in the arguments' JSON as it is: what is not found there needs no closer look.
    is_plain: bool,
}

impl Search {
    /// An empty text is found everywhere.
    pub fn new(text: &str, reveal: bool) -> Search {
        // A star may be one of those that hide something.
        let is_plain = !text.contains(|sign: char| matches!(sign, '*' | '"' | '\\') || sign.is_control());
        Search { text: text.to_lowercase(), reveal, is_plain }
    }

    pub fn is_in(&self, text: &str) -> bool {
        self.text.is_empty() || text.to_lowercase().contains(&self.text)
    }

    /// Looks in the key, the URLs and the label.
    pub fn finds(&self, kind: Kind, key: &str, args: &Args) -> bool {
        if self.is_in(key) {
            return true;
        }
        if self.is_plain && !self.is_in(args.as_str()) {
            return false;
        }
        let read = args.read();
        let mut urls: Vec<Cow<'_, str>> =
            kind.url_args().filter_map(|name| read.get(name)).map(Cow::from).collect();
        urls.extend(read.get(BACKUP_URLS).and_then(urls_of).unwrap_or_default().into_iter().map(Cow::from));
        // A label is shown like a URL.
        urls.extend(read.get(LABEL).map(Cow::from));
        urls.iter().any(|url| self.is_in(&if self.reveal { url.clone() } else { redact_value(url).into() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_found_in_any_case_and_what_is_hidden_is_not() {
        let pairs = [
            ("url", "rtsp://admin:Geheim@Camera7.local/1?token=abc"),
            ("journal_backup_urls", r#"["rtsp://u:pw@10.0.0.9/Second"]"#),
            ("journal_label", "Büro \"5\""),
            ("rtp_type", "interleaved"),
        ];
        let args = Args::from_pairs(pairs.map(|(name, value)| (name.as_bytes(), value.as_bytes()))).unwrap();
        let finds = |text: &str, reveal| Search::new(text, reveal).finds(Kind::Pull, "v/live/Gate", &args);
        for text in ["", "LIVE/gate", "camera7", "büro", "\"5\"", "second", "***@10.0.0.9", "RTSP://***"] {
            assert!(finds(text, false), "{text}");
        }
        for text in ["geheim", "admin", "abc", "u:pw"] {
            assert!(!finds(text, false) && finds(text, true), "{text}");
        }
        for text in ["interleaved", "rtp_type", "yard", "\\"] {
            assert!(!finds(text, false) && !finds(text, true), "{text}");
        }
    }
}
