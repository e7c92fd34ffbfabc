//! Things in the inbox that are no honest files, and files with dishonest names: the real daemon, told apart by what it
//! leaves behind.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::decode::editor::Editor;
use crate::support::{Site, data, files};

fn slice(instance: &str) -> Vec<u8> {
    Editor::new().text(0x20, 0xD, b"UI", "1.2.3").text(8, 0x18, b"UI", instance).bytes()
}

fn reasons(site: &Site) -> Vec<Value> {
    let all = files(&site.path("rejected")).into_iter().filter(|file| file.to_string_lossy().ends_with(".reason.json"));
    all.map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

/// Waits for the result of a file that is dropped last, and two scans more.
fn settle(site: &Site) {
    fs::write(site.path("inbox/last.dcm"), slice("9.9.9")).unwrap();
    site.wait_until("the last file", |site| site.path("results/1.2.3/9.9.9.json").exists());
    std::thread::sleep(Duration::from_millis(2500));
}

#[test]
fn links_pipes_sockets_and_devices_are_never_followed() {
    let site = Site::new("keep", "");
    let outside = site.path("outside.dcm");
    fs::write(&outside, slice("6.6.6")).unwrap();
    fs::create_dir(site.path("outside")).unwrap();
    fs::write(site.path("outside/in-a-linked-folder.dcm"), slice("6.6.7")).unwrap();
    let inbox = site.path("inbox");
    symlink(&outside, inbox.join("link.dcm")).unwrap();
    symlink(site.path("outside"), inbox.join("linked-folder")).unwrap();
    symlink("link-to-itself.dcm", inbox.join("link-to-itself.dcm")).unwrap();
    symlink(site.path("inbox"), inbox.join("loop")).unwrap();
    symlink("/dev/zero", inbox.join("zero.dcm")).unwrap();
    assert!(Command::new("mkfifo").arg(inbox.join("pipe.dcm")).status().unwrap().success());
    let _socket = UnixListener::bind(inbox.join("socket.dcm")).unwrap();
    // Only root may make one; without it the link above leads to a device at least.
    let _ = Command::new("mknod").arg(inbox.join("device.dcm")).args(["c", "1", "5"]).output();
    let daemon = site.start();
    settle(&site);
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(site.results().len(), 1, "something was followed");
    assert!(reasons(&site).is_empty(), "{:?}", reasons(&site));
    assert!(outside.exists() && inbox.join("pipe.dcm").exists(), "what is no file stays where it is");
}

/// Two series of one study: each is in order for itself. An instance that comes again in another series is no new slice of
/// the study: the same picture is a duplicate, another one a conflict, and the first stays where it is.
#[test]
fn two_series_of_a_study_are_told_apart_and_an_instance_belongs_to_its_first() {
    let site = Site::new("move", "");
    let slice = |series: &str, instance: &str, z: &str, pixel: u8| {
        let editor = Editor::new().text(0x20, 0xD, b"UI", "1.2.3").text(0x20, 0xE, b"UI", series);
        let editor = editor.text(8, 0x18, b"UI", instance).text(0x20, 0x32, b"DS", z);
        let mut pixels = editor.value(0x7FE0, 0x10).to_vec();
        pixels[0] ^= pixel;
        editor.pixels(&pixels).bytes()
    };
    let daemon = site.start();
    let first = [("1.2.3.8", "1.2.3.8.2", "0\\0\\5 ", 1), ("1.2.3.9", "1.2.3.9.1", "0\\0\\2 ", 2)];
    let second = [("1.2.3.8", "1.2.3.8.1", "0\\0\\0 ", 3), ("1.2.3.9", "1.2.3.9.2", "0\\0\\7 ", 4)];
    for (number, (series, instance, z, pixel)) in first.into_iter().chain(second).enumerate() {
        fs::write(site.path(&format!("inbox/{number}.dcm")), slice(series, instance, z, pixel)).unwrap();
    }
    site.wait_until("four results", |site| site.results().len() == 4);
    let before = site.results();
    // The same UID in the other series: the same pixels, and others.
    fs::write(site.path("inbox/same.dcm"), slice("1.2.3.9", "1.2.3.8.2", "0\\0\\5 ", 1)).unwrap();
    fs::write(site.path("inbox/other.dcm"), slice("1.2.3.9", "1.2.3.8.1", "0\\0\\0 ", 9)).unwrap();
    site.wait_until("their fates", |site| files(&site.path("inbox")).is_empty());
    let summary =
        || -> Option<Value> { serde_json::from_slice(&fs::read(site.path("results/1.2.3/study.json")).ok()?).ok() };
    site.wait_until("the summary", |_| summary().is_some_and(|summary| summary["n_slices"] == 4));
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("6 files: 4 done, 1 duplicates, 1 rejected"), "{log}");
    assert_eq!(reasons(&site)[0]["code"], "uid-conflict");
    assert_eq!(site.results(), before, "the first results stay");
    let order: Vec<(String, Vec<String>)> = summary().unwrap()["series"]
        .as_array()
        .unwrap()
        .iter()
        .map(|series| {
            let slices = series["slices"].as_array().unwrap().iter();
            let uids = slices.map(|slice| slice["instance_uid"].as_str().unwrap().to_owned()).collect();
            (series["series_uid"].as_str().unwrap().to_owned(), uids)
        })
        .collect();
    let expected = |series: &str| (series.to_owned(), vec![format!("{series}.1"), format!("{series}.2")]);
    assert_eq!(order, [expected("1.2.3.8"), expected("1.2.3.9")]);
}

#[test]
fn a_file_that_becomes_a_link_while_it_waits_is_not_followed() {
    let site = Site::new("keep", "");
    fs::write(site.path("outside.dcm"), slice("6.6.6")).unwrap();
    let daemon = site.start();
    for round in 0..20 {
        let path = site.path("inbox/swap.dcm");
        fs::write(&path, slice(&format!("5.5.{round}"))).unwrap();
        std::thread::sleep(Duration::from_millis(10 * round));
        symlink(site.path("outside.dcm"), site.path("inbox/.link")).unwrap();
        fs::rename(site.path("inbox/.link"), &path).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        fs::remove_file(&path).unwrap();
    }
    settle(&site);
    daemon.stop("TERM");
    let followed = site.results().iter().any(|result| result["instance_uid"] == "6.6.6");
    assert!(!followed, "a link was followed");
}

#[test]
fn folders_with_names_of_files_are_folders_and_hard_links_are_files() {
    let site = Site::new("keep", "");
    fs::create_dir(site.path("inbox/folder.dcm")).unwrap();
    fs::create_dir(site.path("inbox/empty.dcm")).unwrap();
    fs::write(site.path("inbox/folder.dcm/a.dcm"), slice("1.1")).unwrap();
    fs::hard_link(site.path("inbox/folder.dcm/a.dcm"), site.path("inbox/b.dcm")).unwrap();
    let daemon = site.start();
    settle(&site);
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    let ids: Vec<_> = site.results().iter().map(|result| result["instance_uid"].clone()).collect();
    assert_eq!(ids.len(), 2, "one result for both names: {ids:?}");
    assert!(log.contains("1 duplicate"), "{log}");
    assert!(reasons(&site).is_empty());
}

#[test]
fn a_growing_file_waits_for_its_end() {
    let site = Site::new("keep", "");
    let daemon = site.start();
    let bytes = slice("2.2");
    let mut file = File::create(site.path("inbox/grows.dcm")).unwrap();
    for part in bytes.chunks(bytes.len() / 12) {
        file.write_all(part).unwrap();
        file.sync_all().unwrap();
        std::thread::sleep(Duration::from_millis(60));
    }
    drop(file);
    settle(&site);
    daemon.stop("TERM");
    assert!(site.path("results/1.2.3/2.2.json").exists());
    assert!(reasons(&site).is_empty(), "half a file was judged: {:?}", reasons(&site));
}

#[test]
fn names_with_any_bytes_are_files_like_others() {
    let site = Site::new("move", "log: { file_names: true }\n");
    let mut names: Vec<OsString> = [
        "line\nbreak.dcm",
        "\u{1b}[2J\u{1b}[31mred.dcm",
        "tab\there.dcm",
        "=1+1.dcm",
        "-rf",
        "a b'\"$(x)`.dcm",
        "\u{202e}mcd.exe",
    ]
    .iter()
    .map(OsString::from)
    .collect();
    names.push(OsStr::from_bytes(b"not \xFF\xFE utf-8.dcm").to_owned());
    names.push(OsString::from("n".repeat(255)));
    for (index, name) in names.iter().enumerate() {
        fs::write(site.path("inbox").join(name), slice(&format!("7.{index}"))).unwrap();
        let mut other = OsString::from("bad ");
        other.push(name);
        let other = if other.len() > 255 { OsString::from("x".repeat(255)) } else { other };
        fs::write(site.path("inbox").join(other), b"no DICOM").unwrap();
    }
    let daemon = site.start();
    site.wait_until("all outcomes", |site| files(&site.path("inbox")).is_empty());
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(site.results().len(), names.len());
    assert_eq!(reasons(&site).len(), names.len(), "every refused file has its reason, the longest name too");
    assert_eq!(files(&site.path("done")).len(), names.len());
    for line in log.lines() {
        assert!(line.starts_with("20") && !line.contains('\u{1b}'), "a name wrote a line of its own: {line:?}");
    }
}

#[test]
fn identifiers_with_separators_stay_in_the_results_folder() {
    let site = Site::new("keep", "");
    let evil = [
        "../../../escape",
        "/etc/escape",
        "..",
        ".",
        "a/../../b",
        "x\\..\\y",
        "log",
        "=1+1",
        "a\nb",
        "CON",
        "\u{1b}[2J",
        "a//b",
    ];
    for (index, uid) in evil.iter().enumerate() {
        let file = Editor::new().text(0x20, 0xD, b"UI", uid).text(8, 0x18, b"UI", uid);
        let pixels = vec![index as u8; file.value(0x7FE0, 0x10).len()];
        fs::write(site.path(&format!("inbox/{index}.dcm")), file.pixels(&pixels).bytes()).unwrap();
    }
    let before = entries(site.folder.path().parent().unwrap());
    let daemon = site.start();
    settle(&site);
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    let results = files(&site.path("results"));
    assert!(site.results().len() > evil.len(), "{} results", site.results().len());
    for path in &results {
        let below = path.strip_prefix(site.path("results")).unwrap();
        assert_eq!(below.components().count(), 2, "{}", below.display());
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/".contains(byte);
        assert!(below.as_os_str().as_bytes().iter().all(plain), "{}", below.display());
    }
    let new: Vec<_> =
        entries(site.folder.path().parent().unwrap()).into_iter().filter(|e| !before.contains(e)).collect();
    assert!(new.iter().all(|name| !name.to_string_lossy().contains("escape")), "{new:?}");
    assert!(!Path::new("/etc/escape").exists() && !Path::new("/escape").exists());
}

fn entries(folder: &Path) -> Vec<OsString> {
    fs::read_dir(folder).unwrap().flatten().map(|entry| entry.file_name()).collect()
}

#[test]
fn a_program_in_the_preamble_is_carried_nowhere() {
    let site = Site::new("keep", "");
    let mut bytes = slice("3.3");
    bytes[..20].copy_from_slice(b"#!/bin/sh\ntouch /x\n\0");
    fs::write(site.path("inbox/polyglot.dcm"), bytes).unwrap();
    let daemon = site.start();
    settle(&site);
    daemon.stop("TERM");
    assert_eq!(site.results().len(), 2);
    for file in files(&site.path("results")) {
        assert!(!fs::read_to_string(&file).unwrap().contains("/bin/sh"), "{}", file.display());
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o111, 0, "{}", file.display());
    }
}

/// Runs as nobody: what root must not do for us. Returns whether that is possible here.
pub fn as_nobody(site: &Site) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    let chown =
        |path: &Path| Command::new("chown").args(["-R", "65534:65534"]).arg(path).status().is_ok_and(|s| s.success());
    fs::set_permissions(site.folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
    is_root && chown(site.folder.path()) && Command::new("setpriv").arg("--version").output().is_ok()
}

pub fn nobody(site: &Site, program: &Path) -> crate::support::Daemon {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--no-new-privs"]).arg(program);
    command.args(["run", "--config"]).arg(site.path("daemon.yaml")).current_dir("/");
    command.env_clear().stderr(std::process::Stdio::piped());
    crate::support::Daemon { child: command.spawn().unwrap() }
}

/// A copy of the program in a folder that is read-only for everybody but root.
pub fn installed() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::copy(crate::support::ichd().get_program(), folder.path().join("ichd")).unwrap();
    fs::set_permissions(folder.path().join("ichd"), fs::Permissions::from_mode(0o555)).unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o555)).unwrap();
    folder
}

#[test]
fn the_daemon_needs_no_rights_but_those_to_its_site() {
    let site = Site::new("move", "");
    fs::copy(data("unsigned12_explicit_le.dcm"), site.path("inbox/a.dcm")).unwrap();
    if !as_nobody(&site) {
        println!("skipped: only root can become nobody");
        return;
    }
    let program = installed();
    let daemon = nobody(&site, &program.path().join("ichd"));
    site.wait_until("the result", |site| site.results().len() == 1 && files(&site.path("inbox")).is_empty());
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(site.path("done/a.dcm").exists());
}

#[test]
fn a_file_that_may_not_be_read_is_refused() {
    let site = Site::new("keep", "");
    fs::copy(data("unsigned12_explicit_le.dcm"), site.path("inbox/secret.dcm")).unwrap();
    if !as_nobody(&site) {
        println!("skipped: only root can become nobody");
        return;
    }
    let secret = site.path("inbox/secret.dcm");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    assert!(Command::new("chown").arg("0:0").arg(&secret).status().unwrap().success());
    let program = installed();
    let daemon = nobody(&site, &program.path().join("ichd"));
    site.wait_until("the refusal", |site| !reasons(site).is_empty());
    daemon.stop("TERM");
    assert_eq!(reasons(&site)[0]["code"], "unreadable");
    assert!(!reasons(&site)[0]["sentence"].as_str().unwrap().contains("secret"));
}

#[test]
fn weights_that_are_no_safetensors_are_not_served() {
    let site = Site::new("keep", "");
    let folder = site.path("models/test/1");
    fs::create_dir_all(&folder).unwrap();
    let untrained = ichd::registry::find("mobilenet_v2").unwrap().untrained(5);
    let settings =
        fs::read_to_string(site.path("daemon.yaml")).unwrap().replace("path: models", "path: models, name: test");
    fs::write(site.path("daemon.yaml"), settings).unwrap();
    let run = |name: &str, bytes: &[u8]| {
        let manifest = format!(
            "schema: ichd.model.v1\nbackbone: mobilenet_v2\ntrained: true\ninput_side: 96\nwindows:\n- {{level: 40, width: 80}}\n- {{level: 80, width: 200}}\n- {{level: 40, width: 380}}\nramp: linear_exact\nresampling: bilinear_antialias\nmean: [0.5, 0.5, 0.5]\nstd: [0.25, 0.25, 0.25]\nlabels: [any, epidural, intraparenchymal, intraventricular, subarachnoid, subdural]\npreprocessing_version: 1\nweights_sha256: {}\noperating_points: [0, 0, 1, 1, 1, 1]\n",
            ichd::identity::sha256(bytes)
        );
        fs::write(folder.join("model.yaml"), manifest).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
        let output = crate::support::ichd().args(["run", "--config"]).arg(site.path("daemon.yaml")).output().unwrap();
        fs::remove_file(folder.join(name)).unwrap();
        (output.status.code(), crate::support::stderr(&output))
    };
    // Sound as PyTorch's file, with the right digest, under either name.
    let pth = crate::support::pth::pth(&untrained, "");
    for name in ["weights.safetensors", "weights.pth"] {
        let (code, said) = run(name, &pth);
        assert_eq!(code, Some(78), "{name}: {said}");
        assert!(said.contains("weights.safetensors"), "{name}: {said}");
    }
}
