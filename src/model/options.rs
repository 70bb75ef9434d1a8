//! The arguments that are the journal's own, `journal_…`. MediaServer ignores them.

use super::hours::Hours;
use crate::error::{Error, Result};

/// The argument with which callers mark their proxies.
pub const LABEL: &str = "journal_label";
/// When it runs: see [`Hours::parse`].
const HOURS: &str = "journal_hours";

const PREFIX: &str = "journal_";
const NAMES: [&str; 2] = [HOURS, LABEL];

/// What the arguments of a proxy ask of the journal, but for its label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    pub hours: Option<Hours>,
    /// Of stored arguments: what this version cannot read, as another may have written it.
    pub unread: Option<String>,
}

impl Options {
    /// Whether this is an argument of the journal, known or not.
    pub fn has(name: &str) -> bool {
        name.get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
    }

    /// From the arguments of a call, others among them; `None` if they ask for nothing. An empty value counts as missing.
    pub fn read<'a>(args: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Result<Option<Options>> {
        let mut options = Options { hours: None, unread: None };
        for (name, value) in args.into_iter().filter(|(name, value)| Self::has(name) && !value.is_empty()) {
            let known = NAMES.iter().find(|known| known.eq_ignore_ascii_case(name)).ok_or_else(|| {
                Error::invalid(format!(
                    "{name} is not an argument of this version: there are {}",
                    NAMES.join(", ")
                ))
            })?;
            let text = || std::str::from_utf8(value).map_err(|_| Error::invalid(format!("{name} is not UTF-8")));
            if *known == HOURS {
                options.hours = Some(Hours::parse(text()?).map_err(|error| error.context(HOURS))?);
            }
        }
        Ok(Some(options).filter(|options| options.hours.is_some()))
    }

    /// The same of arguments in the file, of which each is read as far as possible.
    pub fn stored<'a>(args: impl IntoIterator<Item = (&'a str, &'a [u8])>) -> Option<Options> {
        let mut options = Options { hours: None, unread: None };
        for (name, value) in args.into_iter().filter(|(name, _)| Self::has(name)) {
            match Self::read([(name, value)]) {
                Ok(read) => options.hours = read.and_then(|read| read.hours).or(options.hours),
                Err(error) => options.unread = Some(error.message),
            }
        }
        Some(options).filter(|options| options.hours.is_some() || options.unread.is_some())
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
