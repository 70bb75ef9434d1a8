//! What must not be shown of a URL: `user:password@`, and what stands behind a name such as `pwd=` or `token=` in its path
//! or query.

use super::url::{self, Authority};

/// Stands for what is not shown.
const HIDDEN: &str = "***";

/// A name that ends so has a secret for its value, in a query (`?pwd=…&token=…`) or in a path, as many recorders have it
/// (`/user=admin_password=…_channel=1_stream=0.sdp`).
const SECRETS: [&str; 18] = [
    "user",
    "username",
    "usr",
    "account",
    "password",
    "passwd",
    "pwd",
    "psw",
    "pswd",
    "pass",
    "token",
    "secret",
    "auth",
    "auth_key",
    "authkey",
    "apikey",
    "sign",
    "signature",
];

/// The text with the credentials in its URLs as `***`, whatever signs a careless operator has left in them.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("://") {
        shown.push_str(before);
        shown.push_str("://");
        let (word, behind) = after.split_at(end_of_url(after));
        let Authority { credentials, .. } = url::authority(word);
        let (hidden, open) = word.split_at(credentials.len());
        if !hidden.is_empty() {
            shown.push_str(HIDDEN);
            shown.push('@');
        }
        // There may be another URL in it.
        let next = open.find("://").unwrap_or(open.len());
        let (open, inner) = open.split_at(next);
        hide_named(open, &mut shown);
        if inner.is_empty() {
            rest = behind;
        } else {
            // Its scheme is shown already.
            let from = after.len() - inner.len() - behind.len();
            rest = after.split_at(from).1;
        }
    }
    shown.push_str(rest);
    shown
}

fn is_end(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '"' | '\'')
}

/// Where a URL in a text ends: with a blank, or with what quotes it. But `admin:a` of `admin:a b@10.0.0.1/` is no whole one.
fn end_of_url(text: &str) -> usize {
    let end = text.find(is_end).unwrap_or(text.len());
    if url::is_whole(text.split_at(end).0) {
        return end;
    }
    let line = text.find(['\n', '\r']).into_iter().chain(text.find("://")).min().unwrap_or(text.len());
    let credentials = url::last_credentials(text.split_at(line).0);
    if !credentials.contains(':') {
        return end;
    }
    let (_, address) = text.split_at(credentials.len());
    credentials.len() + address.find(is_end).unwrap_or(address.len())
}

/// A path and a query, with the values of secret names hidden.
fn hide_named(text: &str, shown: &mut String) {
    let mut rest = text;
    while let Some((before, value)) = rest.split_once('=') {
        shown.push_str(before);
        shown.push('=');
        let is_name = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
        let name = before.rsplit(|sign: char| !is_name(sign)).next().unwrap_or_default().to_ascii_lowercase();
        let is_secret = SECRETS.iter().any(|secret| name.ends_with(secret));
        rest = value;
        if is_secret {
            let (hidden, behind) = value.split_at(end_of_value(value));
            if !hidden.is_empty() {
                shown.push_str(HIDDEN);
            }
            rest = behind;
        }
    }
    shown.push_str(rest);
}

/// In a path, the next name follows an underscore, which a password may hold as well.
fn end_of_value(value: &str) -> usize {
    let end = value.find(['&', '/', '?', '#', ';']).unwrap_or(value.len());
    let (value, _) = value.split_at(end);
    let next = value.split_once('=').and_then(|(before, _)| before.rfind('_'));
    next.unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::redact;

    /// As cameras, recorders and servers really have them, and as careless operators write them.
    #[test]
    fn no_credentials_of_a_url_are_shown() {
        for (url, shown) in [
            // Hikvision, Dahua, Uniview, Axis, ONVIF.
            (
                "rtsp://admin:Pa55@10.0.0.1:554/Streaming/Channels/101",
                "rtsp://***@10.0.0.1:554/Streaming/Channels/101",
            ),
            (
                "rtsp://admin:a@10.0.0.1/cam/realmonitor?channel=1&subtype=0",
                "rtsp://***@10.0.0.1/cam/realmonitor?channel=1&subtype=0",
            ),
            ("rtsp://admin@10.0.0.1/axis-media/media.amp", "rtsp://***@10.0.0.1/axis-media/media.amp"),
            // XM and its many names.
            (
                "rtsp://10.0.0.1:554/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp?real_stream",
                "rtsp://10.0.0.1:554/user=***_password=***_channel=1_stream=0.sdp?real_stream",
            ),
            (
                "rtsp://10.0.0.1/user=admin&password=a_b&channel=1&stream=0.sdp",
                "rtsp://10.0.0.1/user=***&password=***&channel=1&stream=0.sdp",
            ),
            ("rtsp://10.0.0.1/user=a_password=b_c_channel=1", "rtsp://10.0.0.1/user=***_password=***_channel=1"),
            ("rtsp://10.0.0.1/user=admin_password=_channel=1", "rtsp://10.0.0.1/user=***_password=_channel=1"),
            // In the query.
            ("http://10.0.0.1/v.flv?usr=a&pwd=b&ch=1", "http://10.0.0.1/v.flv?usr=***&pwd=***&ch=1"),
            ("rtmp://h/live/a?token=abc", "rtmp://h/live/a?token=***"),
            ("rtmp://h/live/a?txSecret=1f&txTime=5A", "rtmp://h/live/a?txSecret=***&txTime=5A"),
            ("rtmp://h/live/a?auth_key=1-0-0-f&vhost=b", "rtmp://h/live/a?auth_key=***&vhost=b"),
            ("https://h/a.m3u8?Access-Token=x;Sign=y#z", "https://h/a.m3u8?Access-Token=***;Sign=***#z"),
            ("rtsp://u:p@h/a?secret=1", "rtsp://***@h/a?secret=***"),
            // Signs that should have been escaped.
            ("rtsp://admin:a b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://ad min:a b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://admin:1 2@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://admin:a\"b'c@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://admin:a#b?c@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://admin:a/b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
            ("rtsp://admin:p@ss/w?rd@10.0.0.1:554/ch1", "rtsp://***@10.0.0.1:554/ch1"),
            ("rtsp://admin:p@ss@[fe80::1]:554/ch1", "rtsp://***@[fe80::1]:554/ch1"),
            ("rtsp://管理:密码@摄像头/一", "rtsp://***@摄像头/一"),
            // Not credentials.
            ("rtsp://10.0.0.1/a@b", "rtsp://10.0.0.1/a@b"),
            ("rtsp://u:p@10.0.0.1/a@b.c/d", "rtsp://***@10.0.0.1/a@b.c/d"),
            ("rtsp://camera/a@b", "rtsp://camera/a@b"),
            ("rtmp://[2001:db8::1]:1935/live/a", "rtmp://[2001:db8::1]:1935/live/a"),
            ("srt://:9000?streamid=#!::r=live/a,m=publish", "srt://:9000?streamid=#!::r=live/a,m=publish"),
            ("rtsp://x://u:p@h", "rtsp://x://***@h"),
            ("://", "://"),
            ("/var/film.mp4", "/var/film.mp4"),
            ("no url", "no url"),
            ("", ""),
        ] {
            assert_eq!(redact(url), shown);
            // In a line of the log.
            let line = format!("cannot pull {url} (401)");
            assert_eq!(redact(&line), format!("cannot pull {shown} (401)"));
        }
    }

    #[test]
    fn of_a_text_only_urls_are_redacted() {
        for (text, shown) in [
            ("\"rtmp://u:p@h/a\" and 'rtsp://v:q@i/b'", "\"rtmp://***@h/a\" and 'rtsp://***@i/b'"),
            ("rtsp://10.0.0.1 is off, ask ops@site.com", "rtsp://10.0.0.1 is off, ask ops@site.com"),
            ("rtsp://camera is off, ask ops@site.com", "rtsp://camera is off, ask ops@site.com"),
            ("rtsp://10.0.0.1:554 is off, ask ops@site.com", "rtsp://10.0.0.1:554 is off, ask ops@site.com"),
            ("rtsp://cam:554/1 is off, ask ops@site.com", "rtsp://cam:554/1 is off, ask ops@site.com"),
            ("token=a of rtmp://h/b?token=c", "token=a of rtmp://h/b?token=***"),
            ("摄像头 rtsp://管理:密码@摄像头/一 坏", "摄像头 rtsp://***@摄像头/一 坏"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
