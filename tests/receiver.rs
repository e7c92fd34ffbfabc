//! A real DICOM receiver in front of the inbox: dcmtk's storescp writes, storescu sends.

use std::net::TcpListener;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::{Site, files, phantoms};

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

#[test]
fn storescp_feeds_the_inbox() {
    if !is_installed("storescp") || !is_installed("storescu") {
        println!("skipped: storescp and storescu (Debian package dcmtk) are not installed");
        return;
    }
    let site = Site::new("move", "");
    let slices = phantoms(&site.path("heads"), 1, 6);
    let daemon = site.start();
    // A free port: bound and let go.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    let mut receiver = Command::new("storescp").arg("-od").arg(site.path("inbox")).arg(&port).spawn().unwrap();
    let begun = std::time::Instant::now();
    while std::net::TcpStream::connect(format!("127.0.0.1:{port}")).is_err() {
        assert!(begun.elapsed() < Duration::from_secs(20), "storescp does not listen");
        std::thread::sleep(Duration::from_millis(50));
    }
    let sent = Command::new("storescu").args(["127.0.0.1", &port]).args(&slices).status().unwrap();
    assert!(sent.success());
    site.wait_until("results", |site| site.results().len() == slices.len());
    receiver.kill().unwrap();
    receiver.wait().unwrap();
    let (code, log) = daemon.stop("TERM");
    assert!(code == Some(0) && log.contains("6 files: 6 done"), "{log}");
    assert_eq!(files(&site.path("done")).len(), 6);
}
