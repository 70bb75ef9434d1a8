//! Servers that are a few lines each, on this machine.

use std::net::TcpListener;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use super::*;

/// For what must answer, however busy the machine is.
const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(50);

/// A server that reads one request, gives this answer and keeps the connection open. Returns its port and the request.
fn server(answer: &'static [u8]) -> (u16, Receiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (sender, requests) = channel();
    thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        let mut request = Vec::new();
        while !request.ends_with(b"\r\n\r\n") && request.len() < 1537 {
            let mut some = [0; 4096];
            let read = socket.read(&mut some).unwrap();
            assert!(read > 0, "the request is cut off");
            request.extend_from_slice(&some[..read]);
        }
        socket.write_all(answer).unwrap();
        sender.send(request).unwrap();
        // Until the other side closes it.
        while socket.read(&mut [0; 64]).is_ok_and(|read| read > 0) {}
    });
    (port, requests)
}

/// Accepts connections (the system does), and never says a word.
fn silent_server() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// What a server with this answer is found to be, and the error without its address.
fn asked(scheme: &str, answer: &'static [u8]) -> Answer {
    let (port, _requests) = server(answer);
    let url = format!("{scheme}://admin:geheim@127.0.0.1:{port}/live/pfad?token=abc");
    ask(&url, LONG).map_err(|error| error.strip_prefix(&format!("127.0.0.1:{port} ")).unwrap().to_owned())
}

#[test]
fn an_rtsp_server_answers_if_a_player_would_go_on() {
    for (reply, answer) in [
        ("RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n", Ok(())),
        ("RTSP/1.0 401 Unauthorized\r\nCSeq: 1\r\n\r\n", Ok(())),
        ("RTSP/1.1 302 Found\r\nLocation: rtsp://10.0.0.1/a\r\n\r\n", Ok(())),
        ("RTSP/1.0 404 Not Found\r\n\r\n", Err("answers with status 404")),
        ("RTSP/1.0 454 Session Not Found\r\n\r\n", Err("answers with status 454")),
        ("RTSP/1.0 503 Service Unavailable\r\n\r\n", Err("answers with status 503")),
        ("HTTP/1.1 200 OK\r\n\r\n", Err("does not answer in RTSP")),
        ("RTSP/1.0 geheim", Err("does not answer in RTSP")),
        ("\0\u{fffd}\u{fffd}\u{fffd}\u{fffd}", Err("does not answer in RTSP")),
    ] {
        assert_eq!(asked("rtsp", reply.as_bytes()), answer.map_err(str::to_owned), "{reply}");
    }
}

#[test]
fn an_rtsp_server_is_shown_no_password() {
    let (port, requests) = server(b"RTSP/1.0 200 OK\r\n\r\n");
    ask(&format!("RTSP://admin:ge@heim@127.0.0.1:{port}/ch1?subtype=0"), LONG).unwrap();
    let request = String::from_utf8(requests.recv().unwrap()).unwrap();
    let line = format!("OPTIONS rtsp://127.0.0.1:{port}/ch1?subtype=0 RTSP/1.0\r\n");
    assert_eq!(request, format!("{line}CSeq: 1\r\nUser-Agent: zlm-journal\r\n\r\n"));
}

#[test]
fn an_rtmp_server_answers_with_its_half_of_the_handshake() {
    assert_eq!(asked_rtmp(b"\x03"), Ok(()));
    assert_eq!(asked_rtmp(b"\x06"), Err("does not answer in RTMP".to_owned()));
    assert_eq!(asked_rtmp(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Err("does not answer in RTMP".to_owned()));
}

/// An RTMP URL has no user.
fn asked_rtmp(answer: &'static [u8]) -> Answer {
    let (port, requests) = server(answer);
    let found = ask(&format!("rtmp://127.0.0.1:{port}/live/a"), LONG);
    let hello = requests.recv().unwrap();
    assert_eq!((hello.len(), hello.first()), (1537, Some(&3)));
    found.map_err(|error| error.strip_prefix(&format!("127.0.0.1:{port} ")).unwrap().to_owned())
}

#[test]
fn an_http_server_answers_with_a_status_of_success_or_a_redirect() {
    for (reply, answer) in [
        // A stream without an end.
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nFLV\r\n", Ok(())),
        ("HTTP/1.1 206 Partial Content\r\nContent-Length: 100\r\n\r\n", Ok(())),
        ("HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n", Ok(())),
        ("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n", Err("answers with status 401")),
        ("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", Err("answers with status 404")),
        ("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n", Err("answers with status 500")),
        ("RTSP/1.0 400 Bad Request\r\n\r\n", Err("cannot be asked over HTTP")),
    ] {
        assert_eq!(asked("http", reply.as_bytes()), answer.map_err(str::to_owned), "{reply}");
    }
    // Not TLS.
    let (listener, port) = silent_server();
    let plain = thread::spawn(move || listener.accept().unwrap().0.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n"));
    let error = ask(&format!("https://admin:geheim@127.0.0.1:{port}/live/pfad"), LONG).unwrap_err();
    assert!(error.starts_with(&format!("127.0.0.1:{port} ")) && !error.contains("pfad"), "{error}");
    plain.join().unwrap().unwrap();
}

#[test]
fn an_http_server_is_asked_for_the_stream_with_the_password_in_a_header() {
    let (port, requests) = server(b"HTTP/1.1 200 OK\r\n\r\n");
    ask(&format!("HTTP://admin:geheim@127.0.0.1:{port}/直播/a.flv?x=1"), LONG).unwrap();
    let request = String::from_utf8(requests.recv().unwrap()).unwrap();
    assert!(request.starts_with("GET /直播/a.flv?x=1 HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("Basic YWRtaW46Z2VoZWlt\r\n") && !request.contains("geheim"), "{request}");
}

#[test]
fn a_silent_or_closed_server_does_not_answer() {
    let (_listener, open) = silent_server();
    let (listener, closed) = silent_server();
    drop(listener);
    for scheme in ["rtsp", "rtmp", "http", "https"] {
        let error = ask(&format!("{scheme}://127.0.0.1:{open}/live/a"), SHORT).unwrap_err();
        assert_eq!(error, format!("127.0.0.1:{open} does not answer: timed out"), "{scheme}");
    }
    for scheme in SCHEMES {
        let error = ask(&format!("{scheme}://127.0.0.1:{closed}/live/a"), LONG).unwrap_err();
        assert!(error.starts_with(&format!("127.0.0.1:{closed} does not answer: Connection refused")), "{error}");
    }
    // It is enough that these listen.
    for scheme in ["rtsps", "rtmps", "ws", "wss"] {
        assert_eq!(ask(&format!("{scheme}://127.0.0.1:{open}/live/a"), LONG), Ok(()), "{scheme}");
    }
}

#[test]
fn a_server_that_hangs_up_does_not_answer() {
    let (listener, port) = silent_server();
    let hangs_up = thread::spawn(move || {
        let (mut socket, _) = listener.accept().unwrap();
        // What has been read is not answered by a reset.
        assert!(socket.read(&mut [0; 1024]).unwrap() > 0);
    });
    let error = ask(&format!("rtsp://127.0.0.1:{port}/a"), LONG).unwrap_err();
    assert_eq!(error, format!("127.0.0.1:{port} does not answer: it closes the connection"));
    hangs_up.join().unwrap();
}

#[test]
fn the_first_address_that_takes_the_connection_counts() {
    let (listener, open) = silent_server();
    let (other, closed) = silent_server();
    drop(other);
    let addresses = [closed, open].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let socket = connect(&addresses, Instant::now() + LONG).unwrap();
    assert_eq!(socket.peer_addr().unwrap(), listener.local_addr().unwrap());
    assert!(connect(&[], Instant::now() + LONG).is_err());
    assert_eq!(connect(&addresses, Instant::now()).unwrap_err().kind(), io::ErrorKind::TimedOut);
}

#[test]
fn what_has_no_such_server_is_not_asked() {
    let (listener, port) = silent_server();
    for scheme in ["srt", "webrtc", "rtp", "geheim"] {
        let error = ask(&format!("{scheme}://127.0.0.1:{port}/live/a"), LONG).unwrap_err();
        assert_eq!(error, "a URL of this kind has no server that can be asked");
    }
    for url in ["", "/var/film.mp4", "rtsp://", "rtsp://admin:a/b@127.0.0.1/ch1"] {
        assert!(ask(url, LONG).is_err(), "{url}");
    }
    let error = ask(&format!("rtsp://127.0.0.1:{port}/a\r\nX: y"), LONG).unwrap_err();
    assert_eq!(error, "the URL has a control character");
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), io::ErrorKind::WouldBlock, "nobody has connected");
}

#[test]
fn errors_name_the_server_without_a_password() {
    for (url, server) in [
        ("rtsp://admin:geheim@nvr/ch1", "nvr:554"),
        ("rtsp://admin:1/geheim@10.0.0.1:8554/ch1", "10.0.0.1:8554"),
        ("rtmp://admin:geheim@nvr:1936/live/a", "***@nvr:1936"),
        ("http://admin:ge@heim@[fe80::1]/live/a.flv", "[fe80::1]:80"),
        ("nothing", "the server"),
    ] {
        assert_eq!(shown(url), server, "{url}");
    }
}

/// Blocks each probe until the gate is dropped.
fn gated(told: impl Fn(u64, Answer) + Send + 'static) -> (Prober, Sender<()>, Arc<AtomicUsize>) {
    let (gate, opened) = channel::<()>();
    let opened = Mutex::new(opened);
    let waiting = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&waiting);
    let ask = move |_: &str| {
        count.fetch_add(1, Ordering::SeqCst);
        let _ = opened.lock().recv();
        Ok(())
    };
    (Prober::asking(ask, told), gate, waiting)
}

fn wait_until(is_so: impl Fn() -> bool) {
    let end = Instant::now() + LONG;
    while !is_so() {
        assert!(Instant::now() < end, "it does not come to this");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn silent_servers_hold_up_no_others_for_ever() {
    let (_listener, silent) = silent_server();
    let (sender, answers) = channel();
    let prober =
        Prober::asking(|url| ask(url, SHORT * 4), move |ticket, answer| drop(sender.send((ticket, answer))));
    for ticket in 0..40 {
        prober.probe(ticket, format!("rtsp://127.0.0.1:{silent}/a"));
    }
    prober.probe(40, format!("rtmps://127.0.0.1:{silent}/a"));
    let mut answers: Vec<_> = (0..=40).map(|_| answers.recv_timeout(LONG).unwrap()).collect();
    answers.sort_by_key(|(ticket, _)| *ticket);
    assert!(answers.iter().map(|(ticket, _)| *ticket).eq(0..=40), "each is told once");
    assert_eq!(answers.pop(), Some((40, Ok(()))));
    assert!(answers.iter().all(|(_, answer)| answer.is_err()));
}

#[test]
fn there_are_at_most_16_threads_and_none_when_nothing_is_left() {
    let (sender, answers) = channel();
    let (prober, gate, waiting) = gated(move |ticket, _| sender.send(ticket).unwrap());
    for ticket in 0..40 {
        prober.probe(ticket, "rtsp://nvr/a".to_owned());
    }
    wait_until(|| waiting.load(Ordering::SeqCst) == MOST_THREADS);
    let counts = |prober: &Prober| {
        let queue = prober.0.queue.lock();
        (queue.threads, queue.waiting.len())
    };
    assert_eq!(counts(&prober), (MOST_THREADS, 40 - MOST_THREADS));
    drop(gate);
    for _ in 0..40 {
        answers.recv_timeout(LONG).unwrap();
    }
    wait_until(|| counts(&prober) == (0, 0));
    // It starts again.
    prober.probe(40, "rtsp://nvr/a".to_owned());
    assert_eq!(answers.recv_timeout(LONG), Ok(40));
}

#[test]
fn nothing_is_told_after_a_drop_that_does_not_wait() {
    let (sender, answers) = channel();
    let (prober, gate, waiting) = gated(move |ticket, _| sender.send(ticket).unwrap());
    for ticket in 0..40 {
        prober.probe(ticket, "rtsp://nvr/a".to_owned());
    }
    wait_until(|| waiting.load(Ordering::SeqCst) == MOST_THREADS);
    let shared = Arc::downgrade(&prober.0);
    drop(prober);
    // Who could tell is gone, while the probes still hang.
    assert!(answers.recv().is_err());
    drop(gate);
    wait_until(|| shared.strong_count() == 0);
    assert_eq!(waiting.load(Ordering::SeqCst), MOST_THREADS, "what was waiting is not asked any more");
}

#[test]
fn a_panic_is_answered_and_ends_nothing() {
    let (sender, answers) = channel();
    let ask = |url: &str| if url == "bad" { panic!("on purpose") } else { Ok(()) };
    let told =
        move |ticket, answer| if ticket == 1 { panic!("on purpose") } else { drop(sender.send((ticket, answer))) };
    let prober = Prober::asking(ask, told);
    for (ticket, url) in [(0, "bad"), (1, "good"), (2, "good")] {
        prober.probe(ticket, url.to_owned());
        wait_until(|| prober.0.queue.lock().threads == 0);
    }
    drop(prober);
    assert_eq!(answers.iter().collect::<Vec<_>>(), [(0, Err(BUG.to_owned())), (2, Ok(()))]);
}
