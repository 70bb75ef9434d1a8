//! The arguments that are the journal's own, `journal_…`. MediaServer ignores them.

use std::time::Duration;

use serde::Serialize;

use super::hours::Hours;
use super::url::host_of;
use crate::error::{Error, Result};

/// The argument with which callers mark their proxies.
pub const LABEL: &str = "journal_label";
/// When it runs: see [`Hours::parse`].
const HOURS: &str = "journal_hours";
/// A JSON array of URLs that are used in this order when the one before has failed.
pub const BACKUP_URLS: &str = "journal_backup_urls";
/// For how many seconds a URL must have failed.
const FAILOVER_SEC: &str = "journal_failover_sec";
/// Whether the pull goes back to its first URL.
const FAILBACK: &str = "journal_failback";
/// What the journal itself notes when a pull plays from a backup: the URL, since when (milliseconds since 1970-01-01 UTC),
/// and why.
const URL_IN_USE: &str = "journal_url_in_use";
const URL_SINCE: &str = "journal_url_since";
const URL_WHY: &str = "journal_url_why";

const PREFIX: &str = "journal_";
const NAMES: [&str; 5] = [BACKUP_URLS, FAILBACK, FAILOVER_SEC, HOURS, LABEL];
const NOTED: [&str; 3] = [URL_IN_USE, URL_SINCE, URL_WHY];
const MOST_BACKUPS: usize = 16;
const LONGEST_FAILOVER_SEC: u64 = 86_400;

/// What the arguments of a proxy ask of the journal, but for its label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options {
    /// When it should run; `None` for always.
    pub hours: Option<Hours>,
    /// Its further URLs; `None` if it has only one.
    pub backups: Option<Backups>,
    /// Of stored arguments: what this version cannot read, as another may have written it.
    pub unread: Option<String>,
}

/// The backup URLs of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Backups {
    /// At least one.
    pub urls: Vec<String>,
    /// For how long a URL must have failed; `None`: as the settings say.
    pub patience: Option<Duration>,
    /// Whether it goes back to its first URL when that works again.
    pub goes_back: bool,
    /// The backup from which it played last; `None` for its first URL.
    pub in_use: Option<InUse>,
}

/// A URL that is not the first one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct InUse {
    /// The URL, which is one of the backups.
    pub url: String,
    /// Milliseconds since 1970-01-01 UTC.
    pub since: i64,
    /// Without secrets.
    pub why: String,
}

impl InUse {
    /// As arguments.
    pub fn noted(&self) -> [(&'static str, String); 3] {
        [(URL_IN_USE, self.url.clone()), (URL_SINCE, self.since.to_string()), (URL_WHY, self.why.clone())]
    }
}

/// The arguments as they are read.
#[derive(Default)]
struct Reading {
    options: Options,
    urls: Vec<String>,
    patience: Option<Duration>,
    never_goes_back: bool,
    in_use: Option<String>,
    since: i64,
    why: String,
}

impl Reading {
    /// Other arguments and empty ones are ignored.
    fn read(&mut self, name: &str, value: &[u8]) -> Result<()> {
        if !Options::has(name) || value.is_empty() {
            return Ok(());
        }
        let known =
            NAMES.iter().chain(&NOTED).find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
                Error::invalid(format!(
                    "{name} is not an argument of this version: there are {}",
                    NAMES.join(", ")
                ))
            })?;
        if *known == LABEL {
            return Ok(());
        }
        let text = std::str::from_utf8(value).map_err(|_| Error::invalid(format!("{known} is not UTF-8")))?;
        match *known {
            HOURS => self.options.hours = Some(Hours::parse(text).map_err(|error| error.context(HOURS))?),
            BACKUP_URLS => self.urls = backups(text)?,
            FAILOVER_SEC => {
                let seconds = text.parse().ok().filter(|seconds| (1..=LONGEST_FAILOVER_SEC).contains(seconds));
                self.patience = Some(seconds.map(Duration::from_secs).ok_or_else(|| {
                    let most = LONGEST_FAILOVER_SEC;
                    Error::invalid(format!("{FAILOVER_SEC}={text:?} must be a number of seconds from 1 to {most}"))
                })?);
            }
            FAILBACK => {
                self.never_goes_back = match text {
                    "never" => true,
                    "auto" => false,
                    _ => return Err(Error::invalid(format!("{FAILBACK}={text:?} must be auto or never"))),
                }
            }
            URL_IN_USE => self.in_use = Some(text.to_owned()),
            URL_SINCE => self.since = text.parse().unwrap_or_default(),
            _ => text.clone_into(&mut self.why),
        }
        Ok(())
    }

    fn done(self) -> Options {
        let Reading { options, urls, patience, never_goes_back, in_use, since, why } = self;
        // A note about a URL that is no longer among them is void.
        let in_use = in_use.filter(|url| urls.contains(url)).map(|url| InUse { url, since, why });
        let backups = Some(Backups { urls, patience, goes_back: !never_goes_back, in_use });
        Options { backups: backups.filter(|backups| !backups.urls.is_empty()), ..options }
    }
}

/// The URLs of a JSON array; none if it is not one of strings.
pub fn urls_of(text: &str) -> Option<Vec<String>> {
    serde_json::from_str(text).ok()
}

fn backups(text: &str) -> Result<Vec<String>> {
    let unfit = |why: String| Error::invalid(format!("{BACKUP_URLS}: {why}"));
    let urls = urls_of(text)
        .ok_or_else(|| unfit(r#"it is not a JSON array of strings, such as ["rtsp://10.0.0.2/1"]"#.to_owned()))?;
    if urls.is_empty() || urls.len() > MOST_BACKUPS {
        return Err(unfit(format!("it must have from 1 to {MOST_BACKUPS} URLs, and has {}", urls.len())));
    }
    for (at, url) in urls.iter().enumerate() {
        if host_of(url).is_none() {
            return Err(unfit(format!("item {at} (the first is 0) is not a URL with a host")));
        }
        if urls.iter().take(at).any(|other| other == url) {
            return Err(unfit(format!("item {at} (the first is 0) appears twice")));
        }
    }
    Ok(urls)
}

impl Options {
    /// Whether this is an argument of the journal, known or not.
    pub fn has(name: &str) -> bool {
        name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// Whether it is a note of the journal's, not what somebody has asked for.
    pub fn is_noted(name: &str) -> bool {
        NOTED.iter().any(|noted| noted.eq_ignore_ascii_case(name))
    }

    /// Whether it is about backup URLs.
    pub fn is_of_backups(name: &str) -> bool {
        [BACKUP_URLS, FAILBACK, FAILOVER_SEC].iter().any(|its| its.eq_ignore_ascii_case(name))
    }

    /// From the arguments of a call, others among them; `None` if they ask for nothing. An empty value counts as missing.
    pub fn read<'a>(args: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Option<Options>> {
        let mut reading = Reading::default();
        args.into_iter().try_for_each(|(name, value)| reading.read(name, value))?;
        Ok(Some(reading.done()).filter(|options| *options != Options::default()))
    }

    /// The same of arguments in the file, of which each is read as far as possible.
    pub fn stored<'a>(args: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Options> {
        let mut reading = Reading::default();
        for (name, value) in args {
            if let Err(error) = reading.read(name, value) {
                reading.options.unread = Some(error.message);
            }
        }
        Some(reading.done()).filter(|options| *options != Options::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> std::result::Result<Option<Options>, String> {
        let pairs = pairs.iter().map(|(name, value)| (*name, value.as_bytes()));
        Options::read(pairs).map_err(|error| error.message)
    }

    #[test]
    fn an_argument_of_the_journal_is_known_or_refused() {
        assert_eq!(read(&[("url", "x"), ("journal_label", "a"), ("Journal_Hours", "")]).unwrap(), None);
        let hours = read(&[("Journal_Hours", "08:00-18:00 @ UTC")]).unwrap().unwrap().hours;
        assert_eq!(hours, Some(Hours::parse("08:00-18:00 @ UTC").unwrap()));
        let unknown = read(&[("journal_hour", "08:00-18:00")]).unwrap_err();
        assert!(
            unknown.contains("journal_hour is not an argument") && unknown.contains("journal_hours"),
            "{unknown}"
        );
        let unfit = read(&[("journal_hours", "always")]).unwrap_err();
        assert!(unfit.contains("journal_hours") && unfit.contains("always"), "{unfit}");
    }

    #[test]
    fn backup_urls_are_read_with_what_is_noted_of_them() {
        let urls = ("journal_backup_urls", r#"["rtsp://b/1", "rtsp://c/1"]"#);
        let backups =
            |more: &[(&str, &str)]| read(&[&[urls][..], more].concat()).unwrap().unwrap().backups.unwrap();
        let plain = Backups {
            urls: vec!["rtsp://b/1".to_owned(), "rtsp://c/1".to_owned()],
            patience: None,
            goes_back: true,
            in_use: None,
        };
        assert_eq!(backups(&[("journal_failback", "auto"), ("journal_failover_sec", "")]), plain);
        let in_use = InUse { url: "rtsp://c/1".to_owned(), since: 7, why: "off".to_owned() };
        let noted = in_use.noted();
        let noted: Vec<_> = noted.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let all = [&noted[..], &[("Journal_Failback", "never"), ("journal_failover_sec", "3")]].concat();
        let patience = Some(Duration::from_secs(3));
        let expected = Backups { patience, goes_back: false, in_use: Some(in_use), ..plain.clone() };
        assert_eq!(backups(&all), expected);
        assert_eq!(backups(&[("journal_url_in_use", "rtsp://gone/1")]), plain, "a void note");
        assert_eq!(read(&[("journal_failover_sec", "3")]).unwrap(), None, "there is nowhere to go");
    }

    #[test]
    fn what_another_version_has_stored_is_read_as_far_as_possible() {
        let stored = |pairs: &[(&'static str, &'static str)]| {
            Options::stored(pairs.iter().map(|(name, value)| (*name, value.as_bytes())))
        };
        assert_eq!(stored(&[("url", "x"), ("journal_label", "a")]), None);
        let both = stored(&[("journal_hours", "08:00-18:00 @ UTC"), ("journal_note", "a")]).unwrap();
        assert_eq!(both.hours, Some(Hours::parse("08:00-18:00 @ UTC").unwrap()));
        assert!(both.unread.unwrap().contains("journal_note"));
        let later = stored(&[("journal_hours", "at dawn")]).unwrap();
        assert!(later.hours.is_none() && later.unread.unwrap().contains("journal_hours"));
    }
}
