//! The journal's page: its files, compiled in, and what a request for one of them is answered. Knows nothing of the journal
//! and the server: all that the page shows, it asks for with API calls.

/// Name, hash and content of each file of src/page.
type File = (&'static str, &'static str, &'static [u8]);

const FILES: &[File] = include!(concat!(env!("OUT_DIR"), "/page.rs"));

/// Everything comes from here, no script and style is inline, and no other site can embed the page. With an ETag, a browser
/// has each file sent once.
const HEADERS: [(&str, &str); 4] = [
    (
        "Content-Security-Policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
         form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-cache"),
];

/// An answer over HTTP.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status: 200, 302 or 304.
    pub status: u32,
    /// All headers but Content-Length.
    pub headers: Vec<(&'static str, String)>,
    /// The body; empty unless the status is 200.
    pub body: &'static [u8],
}

/// The answer to a GET of this path, as it is after percent decoding. `if_none_match` is that header, or empty. `None` if the
/// path is none of the page's: it may be that of a stream or a file of the server.
pub fn answer(path: &str, if_none_match: &str) -> Option<Answer> {
    // Most requests are for streams.
    let path = path.strip_prefix("/journal")?;
    let mut headers: Vec<_> = HEADERS.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
    let name = match path {
        "" => {
            // Relative, for a reverse proxy that has the server under another path.
            headers.push(("Location", "journal/".to_owned()));
            return Some(Answer { status: 302, headers, body: b"" });
        }
        "/" => "index.html",
        rest => rest.strip_prefix('/')?,
    };
    let (_, hash, content) = FILES.iter().find(|(file, ..)| *file == name)?;
    let etag = format!("\"{hash}\"");
    let mut known = if_none_match.split(',').map(|tag| tag.trim().trim_start_matches("W/"));
    let is_known = known.any(|tag| tag == etag || tag == "*");
    headers.push(("ETag", etag));
    if is_known {
        return Some(Answer { status: 304, headers, body: b"" });
    }
    headers.push(("Content-Type", content_type(name).to_owned()));
    Some(Answer { status: 200, headers, body: content })
}

fn content_type(name: &str) -> &'static str {
    match name.rsplit_once('.').map(|(_, extension)| extension) {
        Some("html") => "text/html; charset=utf-8",
        Some("css") => "text/css; charset=utf-8",
        Some("js") => "text/javascript; charset=utf-8",
        Some("svg") => "image/svg+xml",
        _ => "application/octet-stream",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
        answer.headers.iter().find(|(its, _)| *its == name).map(|(_, value)| value.as_str())
    }

    #[test]
    fn the_page_knows_every_kind_of_proxy() {
        let text = |path: &str| String::from_utf8_lossy(answer(path, "").unwrap().body).into_owned();
        let names = crate::model::Kind::ALL.iter().map(|kind| kind.name());
        let listed: Vec<_> = names.clone().map(|name| format!("'{name}'")).collect();
        assert!(text("/journal/review.js").contains(&format!("KINDS = [{}]", listed.join(", "))));
        let texts = text("/journal/text.js");
        assert!(names.into_iter().all(|name| texts.contains(&format!("'kind.{name}': ["))));
    }

    #[test]
    fn files_are_sent_once_and_then_only_when_they_have_changed() {
        let first = answer("/journal/", "").unwrap();
        assert_eq!((first.status, header(&first, "Content-Type")), (200, Some("text/html; charset=utf-8")));
        assert!(first.body.starts_with(b"<!DOCTYPE html>"), "{:?}", String::from_utf8_lossy(first.body));
        let etag = header(&first, "ETag").unwrap();
        for known in [etag, "*", &format!("\"other\", W/{etag}")] {
            let again = answer("/journal/index.html", known).unwrap();
            assert_eq!((again.status, again.body.len(), header(&again, "ETag")), (304, 0, Some(etag)), "{known}");
        }
        assert_eq!(answer("/journal/index.html", "\"other\"").unwrap().status, 200);
    }

    #[test]
    fn every_answer_keeps_other_sites_out() {
        for (path, known) in [("/journal", ""), ("/journal/", ""), ("/journal/", "*")] {
            let answer = answer(path, known).unwrap();
            let policy = header(&answer, "Content-Security-Policy").unwrap();
            assert!(policy.starts_with("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
            assert_eq!(header(&answer, "X-Content-Type-Options"), Some("nosniff"), "{path}");
        }
    }

    #[test]
    fn other_paths_are_left_to_the_server() {
        for path in
            ["/", "/journa", "/journals", "/journal/cam1.live.flv", "/journal//", "/journal/../x", "/Journal/"]
        {
            assert!(answer(path, "").is_none(), "{path}");
        }
        let redirect = answer("/journal", "").unwrap();
        assert_eq!((redirect.status, header(&redirect, "Location")), (302, Some("journal/")));
    }

    #[test]
    fn every_file_has_a_type() {
        for (name, ..) in FILES {
            assert_ne!(content_type(name), "application/octet-stream", "{name}");
        }
    }
}
