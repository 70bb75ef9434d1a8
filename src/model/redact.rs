//! Hides credentials in URLs: `user:password@`, and the values of names such as `pwd=` or `token=` in path and query; and
//! arguments with such names.
//! If it is unclear where a password ends, more is hidden rather than less. Takes time linear in the text.

use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::ops::Range;

use serde_json::Value;

use super::url::{is_address, is_full_host};
use super::{Kind, Read};

/// Replaces what is hidden.
const HIDDEN: &str = "***";

/// Names with these endings, and digits after them, have secret values, in a query (`?pwd=…&token=…`) or in a path, as
/// with many recorders (`/user=admin_password=…_channel=1_stream=0.sdp`).
const SECRETS: [&str; 21] = [
    "user",
    "username",
    "usr",
    "account",
    "loginuse",
    "password",
    "passwd",
    "pwd",
    "psw",
    "pswd",
    "pass",
    "passphrase",
    "loginpas",
    "token",
    "secret",
    "auth",
    "key",
    "sign",
    "sig",
    "signature",
    "jwt",
];

/// HTTP headers for a camera, which are given for its credentials.
const HEADERS: &str = "custom_header";

/// Other names in the paths of recorders: in a path, only the next name ends a value.
const OTHERS: [&str; 7] = ["channel", "ch", "chn", "stream", "subtype", "unicast", "proto"];

/// The maximum number of secrets in a proxy's arguments. With more, the server's message is hidden completely.
const MOST_PIECES: usize = 100;

/// Replaces the credentials in the URLs of a text with `***`. A URL ends with a space or a quote, unless credentials
/// clearly continue.
pub fn redact(text: &str) -> String {
    without(text, &of_text(text))
}

/// The same for a value: if it begins like a URL, all of it is one.
pub fn redact_value(value: &str) -> String {
    without(value, &of_value(value))
}

/// An argument of a call. One with the name of a secret, such as `rtsp_pwd`, is hidden completely.
pub fn redact_arg(name: &str, value: Value) -> Value {
    match value {
        Value::String(text) if text.is_empty() => Value::String(text),
        _ if is_secret_arg(name) => Value::from(HIDDEN),
        other => redact_all(other, redact_value),
    }
}

/// Whether an argument was redacted, so that its credentials are lost.
pub fn is_redacted(name: &str, value: &str) -> bool {
    of_arg(name, value).into_iter().any(|range| value.get(range) == Some(HIDDEN))
}

/// Redacts each string of a JSON value separately.
pub fn redact_all(value: Value, redact: fn(&str) -> String) -> Value {
    match value {
        Value::String(text) => Value::String(redact(&text)),
        Value::Array(items) => items.into_iter().map(|item| redact_all(item, redact)).collect(),
        Value::Object(members) => {
            members.into_iter().map(|(name, value)| (name, redact_all(value, redact))).collect()
        }
        other => other,
    }
}

/// Redacts an error message about a proxy. Also hides the secrets in the proxy's arguments wherever they occur, and
/// their parts: the server may read `admin:a/b@host` as `admin:a`.
pub fn redact_reason(reason: &str, args: &Read) -> String {
    let mut pieces = BTreeSet::new();
    let texts: Vec<_> = args.texts().collect();
    for (name, value) in &texts {
        let value: &str = value;
        for secret in of_arg(name, value).into_iter().filter_map(|range| value.get(range)) {
            pieces.insert(secret);
            // A URL, the server may read in parts.
            if !is_secret_arg(name) {
                pieces.extend(secret.split(['/', '@', ':', '?', '#', ' ']));
            }
        }
    }
    if pieces.len() > MOST_PIECES {
        return HIDDEN.to_owned();
    }
    // Longer ones first, since they may contain others.
    let mut pieces: Vec<&str> = pieces.into_iter().collect();
    pieces.sort_by_key(|piece| Reverse(piece.len()));
    pieces.into_iter().fold(redact(reason), without_word)
}

/// Hides a word where it is not part of another.
fn without_word(text: String, word: &str) -> String {
    if word.is_empty() || word == HIDDEN || !text.contains(word) {
        return text;
    }
    let goes_on = |one: Option<char>, other: Option<char>| {
        one.is_some_and(char::is_alphanumeric) && other.is_some_and(char::is_alphanumeric)
    };
    let is_alone = |at: usize| {
        let (before, behind) = text.split_at(at);
        !goes_on(before.chars().next_back(), word.chars().next())
            && !goes_on(word.chars().next_back(), behind.chars().nth(word.chars().count()))
    };
    let found: Vec<_> =
        text.match_indices(word).filter(|(at, _)| is_alone(*at)).map(|(at, _)| at..at + word.len()).collect();
    without(&text, &found)
}

/// The ranges may overlap.
fn without(text: &str, hidden: &[Range<usize>]) -> String {
    let mut hidden: Vec<&Range<usize>> = hidden.iter().filter(|range| !range.is_empty()).collect();
    hidden.sort_unstable_by_key(|range| range.start);
    let mut shown = String::with_capacity(text.len());
    let mut at = 0;
    for range in hidden {
        if range.start >= at {
            shown.push_str(text.get(at..range.start).unwrap_or_default());
            shown.push_str(HIDDEN);
        }
        at = at.max(range.end);
    }
    shown.push_str(text.get(at..).unwrap_or_default());
    shown
}

fn of_text(text: &str) -> Vec<Range<usize>> {
    let mut hidden = Vec::new();
    let mut at = 0;
    while let Some((before, after)) = text.get(at..).and_then(|rest| rest.split_once("://")) {
        let start = at + before.len() + 3;
        let (url, _) = after.split_at(end_of_url(after));
        of_url(url, start, before_next_url(url), &mut hidden);
        at = start + url.len();
    }
    hidden
}

fn of_value(value: &str) -> Vec<Range<usize>> {
    let Some((scheme, url)) = value.split_once("://").filter(|(scheme, _)| is_scheme(scheme.trim_start())) else {
        return of_text(value);
    };
    let mut hidden = Vec::new();
    of_url(url, scheme.len() + 3, url, &mut hidden);
    hidden
}

fn of_arg(name: &str, value: &str) -> Vec<Range<usize>> {
    match is_secret_arg(name) {
        true => std::iter::once(0..value.len()).collect(),
        false => of_value(value),
    }
}

fn is_secret_arg(name: &str) -> bool {
    // The name of a setting is none, though its argument ends with `key`.
    let mut settings = Kind::ALL.iter().filter_map(|kind| kind.info().names_setting);
    (is_secret(name) || name.eq_ignore_ascii_case(HEADERS)) && !settings.any(|its| name.eq_ignore_ascii_case(its))
}

fn is_scheme(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, '+' | '-' | '.'))
}

/// Finds what to hide in a URL that begins after its `://`, at `start`. Credentials are searched in `first`, its
/// beginning.
fn of_url(url: &str, start: usize, first: &str, hidden: &mut Vec<Range<usize>>) {
    let end = credentials(first);
    hidden.push(start..start + end.saturating_sub(1));
    let (_, open) = url.split_at(end);
    let start = start + end;
    // It may contain other URLs.
    for (at, colon) in open.match_indices("://") {
        let (_, inner) = open.split_at(at + colon.len());
        let start = start + at + colon.len();
        hidden.push(start..start + credentials(before_next_url(inner)).saturating_sub(1));
    }
    of_named(open, start, hidden);
}

fn before_next_url(text: &str) -> &str {
    text.split_once("://").map_or(text, |(before, _)| before)
}

/// The length of the credentials after a `://`, including the `@`. Normally they end at the last `@` before the first
/// slash; if no certain address follows there, the password contains a slash.
fn credentials(text: &str) -> usize {
    let (authority, _) = text.split_at(text.find('/').unwrap_or(text.len()));
    let read = authority.rfind('@').map_or(0, |at| at + 1);
    let (_, behind) = text.split_at(read);
    let address = address_of(behind);
    let is_certain = match read {
        // `camera` and `:9000` are addresses; `admin:1234` may be the first half of credentials.
        0 => is_address(address) && (is_full_host(address) || address.rfind(':').is_none_or(|colon| colon == 0)),
        _ => is_full_address(address),
    };
    if is_certain {
        return read;
    }
    let may_be_whole = read > 0 && is_address(address);
    let any = || text.rfind('@').filter(|_| !may_be_whole).map(|at| at + 1);
    last_credentials(text).or_else(any).unwrap_or(read)
}

/// The length up to the last `@` that is followed by an unmistakable address.
fn last_credentials(text: &str) -> Option<usize> {
    let is_before_address = |at: &usize| {
        let (_, behind) = text.split_at(at + 1);
        let address =
            behind.split(|sign: char| sign.is_whitespace() || matches!(sign, '@' | '/' | '?' | '#')).next();
        address.is_some_and(is_full_address)
    };
    text.match_indices('@').map(|(at, _)| at).rfind(is_before_address).map(|at| at + 1)
}

/// What comes before path and query.
fn address_of(text: &str) -> &str {
    text.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_full_address(text: &str) -> bool {
    is_address(text) && (text.contains(':') || is_full_host(text))
}

fn is_end(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '"' | '\'')
}

/// Where a URL in a text ends: at a space or a quote, except that `admin:a` of `admin:a b@10.0.0.1/` is incomplete.
fn end_of_url(text: &str) -> usize {
    let end = text.find(is_end).unwrap_or(text.len());
    let (word, behind) = text.split_at(end);
    let begin = before_next_url(word);
    let (_, open) = begin.split_at(credentials(begin));
    let address = address_of(open);
    let is_whole = is_address(address) && (open.contains('/') || is_full_host(address));
    if is_whole || begin.len() < word.len() {
        return end;
    }
    let rest = if is_address(address) && address.contains(':') {
        // It looks like a camera and its port, unless there is an `@` in the next word.
        behind.chars().next().map_or(0, char::len_utf8) + behind.split(is_end).nth(1).map_or(0, str::len)
    } else {
        before_next_url(behind).split(['\n', '\r']).next().map_or(0, str::len)
    };
    let (line, _) = text.split_at(end + rest);
    match last_credentials(line) {
        Some(credentials) if credentials > end && line.find(':').is_some_and(|colon| colon < credentials) => {
            let (_, address) = text.split_at(credentials);
            credentials + address.find(is_end).unwrap_or(address.len())
        }
        _ => end,
    }
}

/// Finds the values of secret names in a path and a query that begin at `start`.
fn of_named(text: &str, start: usize, hidden: &mut Vec<Range<usize>>) {
    let query = text.find('?').unwrap_or(text.len());
    let (mut at, mut in_stream_id) = (0, false);
    while let Some((equals, value)) = next_equals(text, at) {
        let before = text.get(at..equals).unwrap_or_default();
        let name = last_name(before);
        in_stream_id = (in_stream_id && !before.contains('&')) || name.eq_ignore_ascii_case("streamid");
        at = value;
        if is_secret(name) || in_stream_id && (name.eq_ignore_ascii_case("u") || name.eq_ignore_ascii_case("s")) {
            let rest = text.get(value..).unwrap_or_default();
            at += match (value > query, in_stream_id) {
                (_, true) => rest.find([',', '&']).unwrap_or(rest.len()),
                (true, _) => rest.find(['&', ';']).unwrap_or(rest.len()),
                _ => before_next_name(rest),
            };
            hidden.push(start + value..start + at);
        }
    }
}

/// The position of the next `=` from `from` on, and of its value.
fn next_equals(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = text.get(from..)?;
    let is_escaped = |at: usize| rest.get(at..at + 3).is_some_and(|sign| sign.eq_ignore_ascii_case("%3d"));
    rest.match_indices(['=', '%']).find_map(|(at, sign)| match sign {
        "=" => Some((from + at, from + at + 1)),
        _ => is_escaped(at).then_some((from + at, from + at + 3)),
    })
}

/// The name at the end of a text.
fn last_name(text: &str) -> &str {
    let is_name = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
    let name = text.rsplit(|sign: char| !is_name(sign)).next().unwrap_or_default();
    let before = text.strip_suffix(name).unwrap_or_default();
    // The rest of a percent escape.
    if before.ends_with('%') { name.get(2..).unwrap_or_default() } else { name }
}

fn is_secret(name: &str) -> bool {
    let name = name.trim_end_matches(|sign: char| sign.is_ascii_digit()).to_ascii_lowercase();
    SECRETS.iter().any(|secret| name.ends_with(secret))
}

/// In a path, a password may contain separators: only the next name ends it.
fn before_next_name(value: &str) -> usize {
    let mut at = 0;
    while let Some((equals, next)) = next_equals(value, at) {
        let before = value.get(at..equals).unwrap_or_default();
        let name = before.rsplit(|sign: char| !sign.is_ascii_alphanumeric()).next().unwrap_or_default();
        let sign = before.strip_suffix(name).and_then(|before| before.chars().next_back());
        let is_known = is_secret(name) || OTHERS.iter().any(|other| name.eq_ignore_ascii_case(other));
        if is_known && matches!(sign, Some('_' | '&' | '/' | '?' | ';')) {
            return equals - name.len() - 1;
        }
        at = next;
    }
    value.len()
}

#[cfg(test)]
mod tests;
