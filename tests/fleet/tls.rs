//! etcd that wants TLS and a client's certificate.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::fixture::{program, wait_for};
use crate::support::run;
use crate::support::server::free_port;

struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// An authority, and certificates of it for a server and a client.
fn certificates(dir: &Path) {
    let script = "set -e
        authority() { openssl req -x509 -newkey rsa:2048 -nodes -keyout $1.key -out $1.pem -days 2 -subj /CN=$1; }
        authority ca; authority other
        printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth\\n' > ext
        for name in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $name.key -out $name.csr -subj /CN=$name
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out $name.pem -days 2 -extfile ext
        done";
    run(Command::new("sh").args(["-c", script]).current_dir(dir));
}

#[test]
#[ignore = "slow: just test-fleet"]
fn etcd_is_reached_by_tls_with_a_certificate() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let (client, peer) = (free_port(), free_port());
    let url = format!("https://127.0.0.1:{client}");
    let log = fs::File::create(dir.path().join("etcd.log")).unwrap();
    let etcd = Command::new("etcd")
        .args(["--data-dir", "data", "--listen-client-urls", &url, "--advertise-client-urls", &url])
        .args(["--listen-peer-urls", &format!("http://127.0.0.1:{peer}")])
        .args(["--cert-file", "server.pem", "--key-file", "server.key"])
        .args(["--client-cert-auth", "--trusted-ca-file", "ca.pem"])
        .current_dir(dir.path())
        .stdin(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("etcd");
    let _etcd = Ended(etcd);
    let export = |ca: &str, certificate: bool| {
        let file = |name: &str| format!("{:?}", dir.path().join(name));
        let mut text =
            format!("fleet = \"tls\"\nclear_text = true\n[etcd]\nendpoints = [{url:?}]\nca_file = {}\n", file(ca));
        if certificate {
            text += &format!("cert_file = {}\nprivate_key_file = {}\n", file("client.pem"), file("client.key"));
        }
        let config = dir.path().join("fleet.toml");
        fs::write(&config, text).unwrap();
        Command::new(program()).arg("--config").arg(config).arg("export").output().unwrap()
    };
    wait_for("etcd", Duration::from_secs(30), || export("ca.pem", true).status.success());
    for (ca, certificate, says) in
        [("other.pem", true, "certificate"), ("ca.pem", false, "etcd (https://127.0.0.1")]
    {
        let output = export(ca, certificate);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(says), "{said}");
    }
}
