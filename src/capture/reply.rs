//! The replies to clients: MediaServer's own or a replacement, with what the journal adds. Pure.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::journal::{JournalWord, Persisted};
use crate::model::codes::{EXCEPTION, OTHER_FAILED};

/// MediaServer's answer to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A reply with this body.
    Replied(Vec<u8>),
    /// The handler refused at once, with this code.
    Refused(i32, String),
    /// The handler threw an exception, and may have done part of its work.
    Threw(String),
    /// None: it dropped the call, or is stopping.
    Dropped,
}

/// The result of a call for the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// The last change that it made or depends on; 0 if there is none.
    pub seq: u64,
    /// Where that change is, or why it is not journaled.
    pub result: Result<Persisted>,
    /// `on_error=reject`: intent is as before the call.
    pub undone: bool,
    /// The reply has a `journal` member.
    pub is_journaled: bool,
}

#[derive(Deserialize)]
struct Code {
    code: i32,
}

#[derive(Serialize, Deserialize)]
struct Failure {
    #[serde(default)]
    code: i32,
    msg: String,
}

#[derive(Serialize)]
struct Added<'a> {
    code: i32,
    data: Key<'a>,
}

#[derive(Serialize)]
struct Key<'a> {
    key: &'a str,
}

impl Answer {
    /// What the server would answer to an add that went well.
    pub fn added(key: &str) -> Answer {
        Answer::Replied(json(&Added { code: 0, data: Key { key } }))
    }

    /// Whether the server has carried out the call: it replied with a JSON object whose `code` is 0.
    pub fn is_success(&self) -> bool {
        match self {
            Answer::Replied(body) if !is_object(body) => false,
            Answer::Replied(body) => serde_json::from_slice(body).is_ok_and(|Code { code }| code == 0),
            Answer::Refused(..) | Answer::Threw(_) | Answer::Dropped => false,
        }
    }

    /// The server's error message.
    pub fn error(self) -> String {
        match self {
            Answer::Replied(body) => {
                let failure = serde_json::from_str::<Failure>(&String::from_utf8_lossy(&body));
                failure.map(|failure| failure.msg).unwrap_or_default()
            }
            Answer::Refused(_, why) | Answer::Threw(why) => why,
            Answer::Dropped => "the server dropped the call without an answer".to_owned(),
        }
    }

    fn body(self) -> Vec<u8> {
        match self {
            Answer::Replied(body) => body,
            Answer::Refused(code, msg) => failure(code, msg),
            Answer::Threw(msg) => failure(EXCEPTION, msg),
            Answer::Dropped => refusal("the server dropped this call without an answer, or is stopping"),
        }
    }
}

/// The reply to a refused call, in the form of MediaServer's own refusals.
pub fn refusal(why: &str) -> Vec<u8> {
    failure(OTHER_FAILED, format!("journal: {why}"))
}

fn failure(code: i32, msg: String) -> Vec<u8> {
    json(&Failure { code, msg })
}

/// The whole reply to a call.
pub fn reply(answer: Answer, Outcome { seq, result, undone, is_journaled }: &Outcome) -> Vec<u8> {
    let body = match result {
        Err(error) if *undone => refusal(&error.message),
        _ => answer.body(),
    };
    if *is_journaled { with_member(body, "journal", &json(&JournalWord::of(*seq, result))) } else { body }
}

/// Adds a member to the text of a JSON object, without parsing it: there are many replies.
fn with_member(mut body: Vec<u8>, name: &str, value: &[u8]) -> Vec<u8> {
    let Some(end) = body.iter().rposition(|byte| *byte == b'}').filter(|_| is_object(&body)) else { return body };
    body.truncate(end);
    let last = body.trim_ascii_end().len();
    body.truncate(last);
    let comma = if body.ends_with(b"{") { "" } else { "," };
    body.extend_from_slice(format!("{comma}\n\t\"{name}\" : ").as_bytes());
    body.extend_from_slice(value);
    body.extend_from_slice(b"\n}\n");
    body
}

fn is_object(body: &[u8]) -> bool {
    body.trim_ascii_start().starts_with(b"{")
}

/// Serializing these types cannot fail.
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn told(answer: Answer, outcome: &Outcome) -> String {
        String::from_utf8(reply(answer, outcome)).unwrap()
    }

    #[test]
    fn the_servers_reply_gains_the_journals_word_and_keeps_its_own() {
        let styled = b"{\n\t\"code\" : 0,\n\t\"data\" : \n\t{\n\t\t\"key\" : \"a}b\"\n\t}\n}\n";
        let mut outcome = Outcome { seq: 7, result: Ok(Persisted::Yes), undone: false, is_journaled: true };
        let all = told(Answer::Replied(styled.to_vec()), &outcome);
        let read: serde_json::Value = serde_json::from_str(&all).unwrap();
        let expected = serde_json::json!({
            "code": 0, "data": {"key": "a}b"}, "journal": {"seq": 7, "persisted": true}
        });
        assert_eq!(read, expected);
        outcome.result = Ok(Persisted::Soon);
        assert!(told(Answer::Replied(b"{}".to_vec()), &outcome).contains(r#""persisted":false,"pending":true"#));
        outcome.result = Err(Error::invalid("a \"quote\""));
        let read: serde_json::Value =
            serde_json::from_str(&told(Answer::Replied(b"{ }".to_vec()), &outcome)).unwrap();
        assert_eq!(read["journal"]["error"], "a \"quote\"");
        outcome.is_journaled = false;
        assert_eq!(told(Answer::Replied(styled.to_vec()), &outcome).as_bytes(), styled);
        for none in [&b""[..], b"}", b"no object", b"\xff}"] {
            let outcome = Outcome { is_journaled: true, ..outcome.clone() };
            assert_eq!(reply(Answer::Replied(none.to_vec()), &outcome), none);
        }
    }

    #[test]
    fn what_is_undone_is_refused_and_what_threw_says_so() {
        let error = Err(Error::invalid("the disk is full"));
        let outcome = Outcome { seq: 0, result: error, undone: true, is_journaled: true };
        let read: serde_json::Value =
            serde_json::from_str(&told(Answer::Replied(b"{\"code\":0}".to_vec()), &outcome)).unwrap();
        assert_eq!((&read["code"], &read["msg"]), (&(-1).into(), &"journal: the disk is full".into()));
        let outcome = Outcome { undone: false, is_journaled: false, ..outcome };
        assert_eq!(told(Answer::Refused(-300, "no".into()), &outcome), r#"{"code":-300,"msg":"no"}"#);
        assert_eq!(told(Answer::Threw("oh".into()), &outcome), r#"{"code":-400,"msg":"oh"}"#);
        assert!(told(Answer::Dropped, &outcome).contains("dropped"));
    }

    #[test]
    fn success_is_a_code_of_zero_and_nothing_else() {
        for (body, is_success) in [
            (&b"{\n\t\"code\" : 0,\n\t\"data\" : {}\n}\n"[..], true),
            (b"{\"data\":{\"code\":0},\"code\":-1}", false),
            (b"{\"msg\":\"\xc4\xe3\",\"code\":0}", true),
            (b"{\"code\":\"0\"}", false),
            (b"[]", false),
            (b"[0]", false),
            (b"", false),
        ] {
            assert_eq!(Answer::Replied(body.to_vec()).is_success(), is_success, "{body:?}");
        }
        assert_eq!(Answer::Replied(b"{\"code\":-1,\"msg\":\"why\"}".to_vec()).error(), "why");
        assert_eq!(Answer::Replied(b"{\"code\":-1,\"msg\":\"\xc4\"}".to_vec()).error(), "\u{fffd}");
    }
}
