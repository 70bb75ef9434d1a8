//! `journal_hours`: at which hours a proxy runs, by the clock on the wall of a time zone.

use std::sync::LazyLock;

use jiff::Timestamp;
use jiff::civil::{DateTime, Weekday};
use jiff::tz::TimeZone;

use crate::error::{Error, Result};

const EXAMPLE: &str = "mon-fri 08:00-18:00; sat,sun 22:00-06:00 @ Asia/Shanghai";
const DAY: i32 = 24 * 60;

/// The zone of this machine, as it was at the first use; UTC if that cannot be told.
static SYSTEM: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::try_system().unwrap_or(TimeZone::UTC));

/// Hours of the week. Those that end before they begin run over midnight and belong to the day on which they begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hours {
    spans: Vec<Span>,
    zone: TimeZone,
}

/// Minutes of the day, from 00:00 on; `to` does not belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    /// One bit for each day, Monday first.
    days: u8,
    from: i32,
    to: i32,
}

impl Hours {
    /// Finds out the zone of this machine, which reads files; nothing here does so afterwards.
    pub fn prepare() {
        LazyLock::force(&SYSTEM);
    }

    /// Parts with a semicolon between them, each with days and hours, as in `mon-fri 08:00-12:00,14:00-18:00; sat
    /// 22:00-06:00 @ Asia/Shanghai`. Without days it is every day, without a zone that of this machine.
    pub fn parse(text: &str) -> Result<Hours> {
        let unfit = |why: String| Error::invalid(format!("{why}: write, for example, {EXAMPLE}"));
        let (parts, zone) = match text.rsplit_once('@') {
            Some((parts, name)) => (parts, zone(name.trim()).map_err(unfit)?),
            None => (text, SYSTEM.clone()),
        };
        let mut spans = Vec::new();
        for part in parts.split(';').map(str::trim) {
            let (names, ranges) = part.rsplit_once(char::is_whitespace).unwrap_or(("", part));
            let days = days(names.trim()).map_err(unfit)?;
            for range in ranges.split(',') {
                let (from, to) = minutes(range).map_err(unfit)?;
                spans.push(Span { days, from, to });
            }
        }
        Ok(Hours { spans, zone })
    }

    /// `at` is in milliseconds since 1970-01-01 UTC.
    pub fn include(&self, at: i64) -> bool {
        Timestamp::from_millisecond(at).is_ok_and(|at| self.has(at))
    }

    /// When they next begin or end, in milliseconds since 1970-01-01 UTC; `None` if they never do.
    pub fn next_change(&self, at: i64) -> Option<i64> {
        let at = Timestamp::from_millisecond(at).ok()?;
        let now = self.has(at);
        let today = self.zone.to_datetime(at).date();
        // From the day before, for hours over midnight; two weeks, as hours of one day may be skipped in one of them.
        let days = (-1..=15).filter_map(|days| today.checked_add(jiff::Span::new().days(days)).ok());
        let mut times: Vec<Timestamp> = days
            .flat_map(|day| {
                let midnight = day.to_datetime(jiff::civil::Time::midnight());
                self.spans.iter().flat_map(move |span| [span.from, span.to].map(|minute| (midnight, minute)))
            })
            .filter_map(|(midnight, minute)| midnight.checked_add(jiff::Span::new().minutes(minute)).ok())
            .flat_map(|time| self.instants(time))
            .collect();
        // The clock on the wall may jump into hours or out of them.
        times.extend(self.zone.following(at).take(2).map(|jump| jump.timestamp()));
        times.sort_unstable();
        times.into_iter().find(|time| *time > at && self.has(*time) != now).map(Timestamp::as_millisecond)
    }

    fn has(&self, at: Timestamp) -> bool {
        let wall = self.zone.to_datetime(at);
        let minute = i32::from(wall.hour()) * 60 + i32::from(wall.minute());
        let (today, yesterday) = (bit(wall.weekday()), bit(wall.weekday().previous()));
        self.spans.iter().any(|span| {
            let over_midnight = span.to <= span.from;
            (span.days & today != 0 && minute >= span.from && (over_midnight || minute < span.to))
                || (span.days & yesterday != 0 && over_midnight && minute < span.to)
        })
    }

    /// The moments at which the clock shows this time: one, or two where it is set back.
    fn instants(&self, time: DateTime) -> impl Iterator<Item = Timestamp> + use<> {
        let shown = self.zone.to_ambiguous_timestamp(time);
        [shown.earlier(), shown.later()].into_iter().filter_map(std::result::Result::ok)
    }
}

fn zone(name: &str) -> std::result::Result<TimeZone, String> {
    TimeZone::get(name).map_err(|_| format!("{name:?} is not a time zone of the IANA database"))
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

/// `mon-fri`, `sat,sun`, or nothing for every day.
fn days(names: &str) -> std::result::Result<u8, String> {
    if names.is_empty() {
        return Ok(0x7f);
    }
    let mut days = 0;
    for part in names.split(',').map(str::trim) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (day(first.trim())?, day(last.trim())?);
        days |= bit(day);
        while day != last {
            day = day.next();
            days |= bit(day);
        }
    }
    Ok(days)
}

fn day(name: &str) -> std::result::Result<Weekday, String> {
    const NAMES: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let known = (0_i8..).zip(NAMES).find(|(_, known)| known.eq_ignore_ascii_case(name));
    let day = known.and_then(|(offset, _)| Weekday::from_monday_zero_offset(offset).ok());
    day.ok_or_else(|| format!("{name:?} is not a day ({})", NAMES.join(", ")))
}

/// `08:00-18:00`.
fn minutes(range: &str) -> std::result::Result<(i32, i32), String> {
    let range = range.trim();
    let (from, to) = range.split_once('-').ok_or_else(|| format!("{range:?} is not from-to"))?;
    let (from, to) = (minute(from.trim())?, minute(to.trim())?);
    if from == to || from == DAY {
        return Err(format!("{range:?} has no end, or begins at 24:00; all day is 00:00-24:00"));
    }
    Ok((from, to))
}

fn minute(time: &str) -> std::result::Result<i32, String> {
    let digits =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<i32>().ok()).flatten();
    let read = time.split_once(':').filter(|(hour, minute)| hour.len() <= 2 && minute.len() == 2);
    let read = read.and_then(|(hour, minute)| Some((digits(hour)?, digits(minute)?)));
    let minute = read.filter(|(_, minute)| *minute < 60).map(|(hour, minute)| hour * 60 + minute);
    minute.filter(|minute| *minute <= DAY).ok_or_else(|| format!("{time:?} is not a time from 00:00 to 24:00"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(time: &str) -> i64 {
        time.parse::<Timestamp>().unwrap().as_millisecond()
    }

    fn open(hours: &str, times: &[(&str, bool)]) {
        let parsed = Hours::parse(hours).unwrap();
        for (time, is_open) in times {
            assert_eq!(parsed.include(at(time)), *is_open, "{hours} at {time}");
        }
    }

    /// When they begin and end from this time on, by walking from change to change.
    fn changes(hours: &str, from: &str, count: usize) -> Vec<String> {
        let hours = Hours::parse(hours).unwrap();
        let mut now = at(from);
        (0..count)
            .map_while(|_| {
                let was = hours.include(now);
                now = hours.next_change(now)?;
                assert_ne!(hours.include(now), was);
                assert_eq!(hours.include(now - 1), was);
                Some(Timestamp::from_millisecond(now).unwrap().to_string())
            })
            .collect()
    }

    #[test]
    fn hours_are_those_of_their_zone_and_days() {
        // 2026-11-30 is a Monday; Shanghai is 8 hours ahead.
        let work = "mon-fri 08:00-12:00,14:00-18:00 @ Asia/Shanghai";
        open(
            work,
            &[
                ("2026-11-29T23:59:59Z", false),
                ("2026-11-30T00:00:00Z", true),
                ("2026-11-30T03:59:59Z", true),
                ("2026-11-30T04:00:00Z", false),
                ("2026-11-30T06:00:00Z", true),
                ("2026-12-05T00:30:00Z", false),
            ],
        );
        open("00:00-24:00 @ UTC", &[("2026-11-30T00:00:00Z", true), ("2026-11-30T23:59:59Z", true)]);
        // Over the end of the week, and around it.
        open(
            "sun 22:00-06:00; sat-mon 12:00-13:00 @ utc",
            &[
                ("2026-11-29T21:59:00Z", false),
                ("2026-11-29T22:00:00Z", true),
                ("2026-11-30T05:59:00Z", true),
                ("2026-11-30T06:00:00Z", false),
                ("2026-11-30T12:30:00Z", true),
                ("2026-12-01T12:30:00Z", false),
            ],
        );
    }

    #[test]
    fn hours_follow_the_clock_on_the_wall_over_daylight_saving() {
        // Berlin skips 02:00 to 03:00 on 2027-03-28 and has it twice on 2026-10-25.
        let night = "01:30-02:30 @ Europe/Berlin";
        assert_eq!(
            changes(night, "2026-10-24T12:00:00Z", 6),
            [
                "2026-10-24T23:30:00Z",
                "2026-10-25T00:30:00Z",
                // The clock is set back into them.
                "2026-10-25T01:00:00Z",
                "2026-10-25T01:30:00Z",
                "2026-10-26T00:30:00Z",
                "2026-10-26T01:30:00Z",
            ]
        );
        // Hours that begin in what is skipped begin when the clock has jumped.
        assert_eq!(
            changes("02:30-04:00 @ Europe/Berlin", "2027-03-27T12:00:00Z", 2),
            ["2027-03-28T01:00:00Z", "2027-03-28T02:00:00Z"]
        );
        assert_eq!(changes("00:00-24:00 @ Europe/Berlin", "2026-10-24T12:00:00Z", 1), Vec::<String>::new());
        assert_eq!(
            changes("sun 02:00-03:00 @ Europe/Berlin", "2027-03-22T12:00:00Z", 1),
            ["2027-04-04T00:00:00Z"],
            "there are none on the Sunday before"
        );
    }

    #[test]
    fn a_leap_day_is_a_day() {
        assert_eq!(
            changes("tue 23:00-01:00 @ UTC", "2028-02-28T00:00:00Z", 2),
            ["2028-02-29T23:00:00Z", "2028-03-01T01:00:00Z"]
        );
    }

    #[test]
    fn what_is_no_hours_is_told_with_an_example() {
        for (text, says) in [
            ("", "\"\" is not from-to"),
            ("always", "\"always\" is not from-to"),
            ("25:00-26:00", "\"25:00\" is not a time"),
            ("08:00-08:00", "all day is 00:00-24:00"),
            ("24:00-08:00", "all day is 00:00-24:00"),
            ("8-18", "\"8\" is not a time"),
            ("+8:00-18:00", "\"+8:00\" is not a time"),
            ("mo 08:00-18:00", "\"mo\" is not a day"),
            ("mon-fri", "\"mon\" is not a time"),
            ("08:00-18:00 @ Peking", "\"Peking\" is not a time zone"),
            ("08:00-18:00;", "is not from-to"),
        ] {
            let error = Hours::parse(text).unwrap_err().message;
            assert!(error.contains(says) && error.contains(EXAMPLE), "{text}: {error}");
        }
    }
}
