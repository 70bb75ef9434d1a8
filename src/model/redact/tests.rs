use super::*;
use crate::model::Args;

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
        ("https://h/a.m3u8?Access-Token=x;Sign=y#z", "https://h/a.m3u8?Access-Token=***;Sign=***"),
        ("rtsp://u:p@h/a?secret=1", "rtsp://***@h/a?secret=***"),
        ("rtmp://h/a?token=ab/cd==&x=1", "rtmp://h/a?token=***&x=1"),
        ("rtmp://h/a?token=a_b?c#d_x=1", "rtmp://h/a?token=***"),
        ("rtmp://h/a?pwd=://abc", "rtmp://h/a?pwd=***"),
        ("rtmp://h/a?pwd%3Dabc", "rtmp://h/a?pwd%3D***"),
        ("rtmp://h/a?to=b%26pwd%3dabc", "rtmp://h/a?to=b%26pwd%3d***"),
        ("http://h/v.cgi?loginuse=a&loginpas=b&u=c", "http://h/v.cgi?loginuse=***&loginpas=***&u=c"),
        ("http://h/a?key=1&api_key=2&accessKey=3&n=4", "http://h/a?key=***&api_key=***&accessKey=***&n=4"),
        ("http://h/a?sig=1&signature=2&jwt=3", "http://h/a?sig=***&signature=***&jwt=***"),
        ("http://h/a?pwd2=1&password1=2&ch1=3", "http://h/a?pwd2=***&password1=***&ch1=3"),
        ("srt://h:1?passphrase=1&mode=caller", "srt://h:1?passphrase=***&mode=caller"),
        ("srt://h:1?streamid=#!::u=admin,s=secret,r=x", "srt://h:1?streamid=#!::u=***,s=***,r=x"),
        ("srt://h:1?streamid=%23!::r=x%2Cs%3Dsecret&s=1", "srt://h:1?streamid=%23!::r=x%2Cs%3D***&s=1"),
        // In a path, with all that separates the next name.
        ("rtsp://10.0.0.1/user=a_password=b/c?d_e&f_channel=1", "rtsp://10.0.0.1/user=***_password=***_channel=1"),
        ("rtsp://10.0.0.1/user=a_password=b_c=d_channel=1", "rtsp://10.0.0.1/user=***_password=***_channel=1"),
        ("rtsp://10.0.0.1/password=a/b?channel=1", "rtsp://10.0.0.1/password=***?channel=1"),
        ("rtsp://10.0.0.1/token=a/b", "rtsp://10.0.0.1/token=***"),
        // A URL in another.
        ("http://10.0.0.1/a?url=rtsp://u:p@h/b&x=1", "http://10.0.0.1/a?url=rtsp://***@h/b&x=1"),
        // Signs that should have been escaped.
        ("rtsp://admin:a b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://ad min:a b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://admin:1 2@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://admin:a\"b'c@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://admin:a#b?c@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://admin:a/b@10.0.0.1/ch1", "rtsp://***@10.0.0.1/ch1"),
        ("rtsp://admin:p@ss/w?rd@10.0.0.1:554/ch1", "rtsp://***@10.0.0.1:554/ch1"),
        ("rtsp://admin:1234/pw@10.0.0.1/c", "rtsp://***@10.0.0.1/c"),
        ("rtsp://admin:1234/pw@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://admin:a/b@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://u:p@nvr/x@a.b", "rtsp://***@a.b"),
        ("rtsp://admin:p@ss@[fe80::1]:554/ch1", "rtsp://***@[fe80::1]:554/ch1"),
        ("rtsp://管理:密码@摄像头/一", "rtsp://***@摄像头/一"),
        // Not credentials.
        ("rtsp://10.0.0.1/a@b", "rtsp://10.0.0.1/a@b"),
        ("rtsp://u:p@10.0.0.1/a@b.c/d", "rtsp://***@10.0.0.1/a@b.c/d"),
        ("rtsp://camera/a@b", "rtsp://camera/a@b"),
        ("rtsp://10.0.0.1:554/a@b", "rtsp://10.0.0.1:554/a@b"),
        ("rtmp://u:p@h/live/a@b", "rtmp://***@h/live/a@b"),
        ("rtmp://[2001:db8::1]:1935/live/a", "rtmp://[2001:db8::1]:1935/live/a"),
        ("srt://:9000?streamid=#!::r=live/a,m=publish", "srt://:9000?streamid=#!::r=live/a,m=publish"),
        ("://", "://"),
        ("/var/film.mp4", "/var/film.mp4"),
        ("no url", "no url"),
        ("", ""),
    ] {
        assert_eq!(redact(url), shown);
        assert_eq!(redact_value(url), shown);
        // In a line of the log.
        let line = format!("cannot pull {url} (401)");
        assert_eq!(redact(&line), format!("cannot pull {shown} (401)"));
    }
}

#[test]
fn only_the_urls_of_a_text_are_redacted() {
    for (text, shown) in [
        ("\"rtmp://u:p@h/a\" and 'rtsp://v:q@i/b'", "\"rtmp://***@h/a\" and 'rtsp://***@i/b'"),
        ("rtsp://10.0.0.1 is off, ask ops@site.com", "rtsp://10.0.0.1 is off, ask ops@site.com"),
        ("rtsp://camera is off, ask ops@site.com", "rtsp://camera is off, ask ops@site.com"),
        ("rtsp://10.0.0.1:554 is off, ask ops@site.com", "rtsp://10.0.0.1:554 is off, ask ops@site.com"),
        ("rtsp://cam:554/1 is off, ask ops@site.com", "rtsp://cam:554/1 is off, ask ops@site.com"),
        ("rtsp://cam:554 is off, ask ops@site.com", "rtsp://cam:554 is off, ask ops@site.com"),
        ("rtsp://x://u:p@h", "rtsp://x://***@h"),
        ("token=a of rtmp://h/b?token=c", "token=a of rtmp://h/b?token=***"),
        ("摄像头 rtsp://管理:密码@摄像头/一 坏", "摄像头 rtsp://***@摄像头/一 坏"),
    ] {
        assert_eq!(redact(text), shown);
    }
}

#[test]
fn a_value_that_is_one_url_is_redacted_to_its_end() {
    for (value, shown) in [
        ("rtsp://admin:p w@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://admin:p'w@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://admin:p\"w\nx@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://admin:1 2/p w@nvr/c", "rtsp://***@nvr/c"),
        ("rtsp://admin:p://w@nvr/c", "rtsp://***@nvr/c"),
        (" rtsp://admin:p w@nvr/c", " rtsp://***@nvr/c"),
        ("rtsp://h/a?pwd=b c'd&x=1", "rtsp://h/a?pwd=***&x=1"),
        // No URL, but one in a text.
        ("gate: rtsp://admin:p@nvr/c of ops@site.com", "gate: rtsp://***@nvr/c of ops@site.com"),
    ] {
        assert_eq!(redact_value(value), shown);
    }
}

#[test]
fn an_argument_with_the_name_of_a_secret_is_hidden_and_one_that_was_is_known() {
    for (name, value, shown) in [
        ("rtsp_pwd", "p w", "***"),
        ("RTSP_User", "admin", "***"),
        ("passPhrase", "0123456789", "***"),
        ("custom_header", "Authorization=Basic YTpi", "***"),
        ("rtsp_pwd", "", ""),
        ("rtsp_pwd_md5", "1", "1"),
        ("ffmpeg_cmd_key", "ffmpeg.mine", "ffmpeg.mine"),
        ("proxy_url", "http://u:p@10.0.0.2:3128", "http://***@10.0.0.2:3128"),
        ("url", "rtmp://h/a?token=x&y=1", "rtmp://h/a?token=***&y=1"),
        ("url", "rtsp://h/user=a_password=b_channel=1", "rtsp://h/user=***_password=***_channel=1"),
        ("url", "rtsp://h/a***b", "rtsp://h/a***b"),
        ("stream", "***", "***"),
    ] {
        assert_eq!(redact_arg(name, value.into()), shown, "{name}");
        assert!(!is_redacted(name, value), "{name}={value}");
        assert_eq!(is_redacted(name, shown), value != shown, "{name}={shown}");
    }
    let hex = serde_json::json!({ "hex": "c4e3" });
    assert_eq!(redact_arg("rtsp_pwd", hex.clone()), HIDDEN);
    assert_eq!(redact_arg("url", hex.clone()), hex);
}

#[test]
fn what_the_server_says_of_a_proxy_shows_no_part_of_its_secrets() {
    for (url, reason, shown) in [
        (
            "rtsp://admin:pa/ss@10.0.0.1/c",
            "illegal rtsp url:parse port from url failed:admin:pa",
            "illegal rtsp url:parse port from url failed:***:***",
        ),
        ("rtsp://admin:p w@nvr/c", "no host p w, nor w", "no host *** ***, nor ***"),
        ("rtsp://nvr/c?token=ab/cd==", "404: c?token=ab/cd==, cd==", "404: c?token=***, ***"),
        ("rtsp://nvr/c?token=1", "10 of 11 s", "10 of 11 s"),
        ("rtsp://nvr/c", "401: not geheim, 1 of 2", "401: not ***, 1 of 2"),
        ("rtsp://nvr/c", "no ffmpeg.mine", "no ffmpeg.mine"),
        ("rtsp://nvr/c", "cannot play rtsp://u:p@nvr/c", "cannot play rtsp://***@nvr/c"),
    ] {
        let more =
            [("rtsp_pwd", "geheim"), ("custom_header", "User-Agent=x 1"), ("ffmpeg_cmd_key", "ffmpeg.mine")];
        let args = [("url", url)].into_iter().chain(more).map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let args = Args::from_pairs(args).unwrap();
        assert_eq!(redact_reason(reason, &args.read()), shown);
    }
}

/// A megabyte of each: with a look at all of the rest from each place, none would come to an end.
#[test]
fn redacting_a_long_text_comes_to_an_end() {
    for piece in [
        "://",
        "://a",
        "://a ",
        "://a:1 ",
        "://u:p@",
        "://a:b/@c",
        "pwd=a_",
        "=_",
        "%",
        "@",
        "?pwd=&",
        "/u=",
        " ://a:\n",
    ] {
        let long = format!("rtsp://{}", piece.repeat((1 << 20) / piece.len()));
        assert!(redact(&long).starts_with("rtsp://"));
        assert!(redact_value(&long).starts_with("rtsp://"));
        let args = Args::from_pairs([(b"url".as_slice(), long.as_bytes().get(..60_000).unwrap())]).unwrap();
        assert!(!redact_reason(&long, &args.read()).is_empty());
    }
}
