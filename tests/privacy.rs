//! What is about patients stays in the input: files of every kind of outcome carry a marker of its own in each tag that may
//! name a patient or hold free text, in private tags, in sequences, in preamble and padding, and in the names of the file
//! and its folder. The real daemon runs over them at its most talkative, and nothing that it writes may hold one.
//!
//! What keeps the input's own name, by contract: the input itself where it is moved to, the file of its reason beside it, and
//! the ledger's key.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use ichd::disk::{Disk, RealDisk};
use ichd::ledger::Ledger;
use ichd::reject::RejectCode;
use serde_json::Value;

use crate::decode::editor::Editor;
use crate::support::{Site, data, files, ichd, run, stderr, stdout};

/// Markers are `ZQ`, the tag in hexadecimal, `ZQ`.
fn marker(group: u16, element: u16) -> String {
    format!("ZQ{group:04X}{element:04X}ZQ")
}

/// Plain text tags.
const TEXTS: &[(u16, u16, &[u8; 2])] = &[
    (0x0008, 0x0050, b"SH"), // AccessionNumber
    (0x0008, 0x0080, b"LO"), // InstitutionName
    (0x0008, 0x0081, b"ST"), // InstitutionAddress
    (0x0008, 0x0090, b"PN"), // ReferringPhysicianName
    (0x0008, 0x0094, b"SH"), // ReferringPhysicianTelephoneNumbers
    (0x0008, 0x1030, b"LO"), // StudyDescription
    (0x0008, 0x103E, b"LO"), // SeriesDescription
    (0x0008, 0x1040, b"LO"), // InstitutionalDepartmentName
    (0x0008, 0x1048, b"PN"), // PhysiciansOfRecord
    (0x0008, 0x1050, b"PN"), // PerformingPhysicianName
    (0x0008, 0x1060, b"PN"), // NameOfPhysiciansReadingStudy
    (0x0008, 0x1070, b"PN"), // OperatorsName
    (0x0008, 0x1080, b"LO"), // AdmittingDiagnosesDescription
    (0x0008, 0x2111, b"ST"), // DerivationDescription
    (0x0010, 0x0010, b"PN"), // PatientName
    (0x0010, 0x0020, b"LO"), // PatientID
    (0x0010, 0x0021, b"LO"), // IssuerOfPatientID
    (0x0010, 0x0030, b"DA"), // PatientBirthDate
    (0x0010, 0x1000, b"LO"), // OtherPatientIDs
    (0x0010, 0x1001, b"PN"), // OtherPatientNames
    (0x0010, 0x1005, b"PN"), // PatientBirthName
    (0x0010, 0x1040, b"LO"), // PatientAddress
    (0x0010, 0x1060, b"PN"), // PatientMotherBirthName
    (0x0010, 0x2154, b"SH"), // PatientTelephoneNumbers
    (0x0010, 0x21B0, b"LT"), // AdditionalPatientHistory
    (0x0010, 0x4000, b"LT"), // PatientComments
    (0x0018, 0x1000, b"LO"), // DeviceSerialNumber
    (0x0018, 0x1030, b"LO"), // ProtocolName
    (0x0020, 0x0010, b"SH"), // StudyID
    (0x0020, 0x0052, b"UI"), // FrameOfReferenceUID
    (0x0020, 0x4000, b"LT"), // ImageComments
    (0x0032, 0x1032, b"PN"), // RequestingPhysician
    (0x0032, 0x1060, b"LO"), // RequestedProcedureDescription
    (0x0032, 0x4000, b"LT"), // StudyComments
    (0x0038, 0x0010, b"LO"), // AdmissionID
    (0x0038, 0x0300, b"LO"), // CurrentPatientLocation
    (0x0040, 0x0254, b"LO"), // PerformedProcedureStepDescription
    (0x0040, 0x1001, b"SH"), // RequestedProcedureID
    (0x0009, 0x0010, b"LO"), // a private creator
    (0x0009, 0x1001, b"UT"), // its text
    (0x0029, 0x1010, b"OB"), // a private header
];

/// Sequences with one item, and a text in it.
const SEQUENCES: &[(u16, u16, u16, u16)] = &[
    (0x0008, 0x1110, 0x0008, 0x1155), // ReferencedStudySequence, ReferencedSOPInstanceUID
    (0x0010, 0x1002, 0x0010, 0x0024), // OtherPatientIDsSequence
    (0x0040, 0x0275, 0x0040, 0x0007), // RequestAttributesSequence, ScheduledProcedureStepDescription
    (0x0400, 0x0561, 0x0400, 0x0564), // OriginalAttributesSequence, SourceOfPreviousValues
];

fn even(mut text: String) -> String {
    if !text.len().is_multiple_of(2) {
        text.push(' ');
    }
    text
}

/// A file with a marker everywhere.
fn marked(mut editor: Editor) -> Vec<u8> {
    for (group, element, vr) in TEXTS {
        editor = editor.text(*group, *element, vr, &even(marker(*group, *element)));
    }
    for (group, element, inner_group, inner_element) in SEQUENCES {
        let text = even(marker(*inner_group, *inner_element));
        let mut item = b"\xFE\xFF\x00\xE0".to_vec();
        item.extend((8 + text.len() as u32).to_le_bytes());
        item.extend(inner_group.to_le_bytes());
        item.extend(inner_element.to_le_bytes());
        item.extend(b"LO");
        item.extend((text.len() as u16).to_le_bytes());
        item.extend(text.as_bytes());
        editor = editor.set(*group, *element, b"SQ", &item);
    }
    editor = editor.text(0xFFFC, 0xFFFC, b"OB", &marker(0xFFFC, 0xFFFC));
    let mut bytes = editor.bytes();
    bytes[..14].copy_from_slice(b"ZQPREAMBLEZQ\0\0");
    bytes
}

/// Every kind of file, and the code that it is refused with.
fn cases() -> Vec<(&'static str, Option<RejectCode>, Vec<u8>)> {
    use RejectCode as Code;
    let plain = || Editor::new().text(0x20, 0xD, b"UI", "1.2.3").text(8, 0x18, b"UI", "1.2.3.4");
    let changed = |change: fn(Editor) -> Editor| marked(change(Editor::new().text(8, 0x18, b"UI", "1.2.3.5")));
    let mut other_picture = plain().value(0x7FE0, 0x0010).to_vec();
    other_picture[0] ^= 1;
    let mut no_mark = marked(plain());
    no_mark[128..132].copy_from_slice(b"ZQZQ");
    let mut cut = marked(plain());
    cut.truncate(cut.len() / 2);
    let mut deep = marked(plain());
    deep.truncate(deep.len() - 30);
    let retyped = |syntax: &[u8; 17]| {
        let mut bytes = marked(plain());
        let at = bytes.windows(17).position(|window| window == b"1.2.840.10008.1.2").unwrap();
        bytes[at..at + 17].copy_from_slice(syntax);
        bytes
    };
    let directory = |editor: Editor| editor.set(0x0004, 0x1220, b"SQ", b"");
    let mut large = marked(plain());
    large.resize(2 << 20, b'Z');
    vec![
        ("done", None, marked(plain())),
        ("duplicate-picture", None, marked(plain().text(8, 0x18, b"UI", "1.2.3.6"))),
        ("empty", Some(Code::Empty), Vec::new()),
        ("large", Some(Code::TooLarge), large),
        ("not-dicom", Some(Code::NotDicom), no_mark),
        ("corrupt", Some(Code::Corrupt), changed(|editor| editor.text(0x28, 8, b"IS", "many"))),
        ("truncated", Some(Code::Truncated), cut),
        ("directory", Some(Code::DicomDir), marked(directory(plain()))),
        ("no-image", Some(Code::NotAnImage), changed(|editor| editor.without(0x7FE0, 0x10))),
        ("modality", Some(Code::WrongModality), changed(|editor| editor.text(8, 0x60, b"CS", "MR"))),
        (
            "class",
            Some(Code::WrongSopClass),
            changed(|editor| editor.text(8, 0x16, b"UI", "1.2.840.10008.5.1.4.1.1.7\0")),
        ),
        ("scout", Some(Code::Localizer), changed(|editor| editor.text(8, 8, b"CS", "ORIGINAL\\PRIMARY\\LOCALIZER"))),
        ("screen", Some(Code::Derived), changed(|editor| editor.text(8, 8, b"CS", "DERIVED\\SECONDARY\\MIP "))),
        ("color", Some(Code::NotMonochrome), changed(|editor| editor.text(0x28, 4, b"CS", "RGB "))),
        ("size", Some(Code::BadSize), changed(|editor| editor.us(0x28, 0x10, 1))),
        ("bits", Some(Code::BadBits), changed(|editor| editor.us(0x28, 0x100, 32))),
        ("slope", Some(Code::BadRescale), changed(|editor| editor.text(0x28, 0x1053, b"DS", "0 "))),
        ("short", Some(Code::ShortPixels), changed(|editor| editor.us(0x28, 0x10, 4000))),
        ("syntax", Some(Code::UnsupportedTransferSyntax), retyped(b"1.2.840.10008.1.9")),
        ("missing", Some(Code::MissingTag), changed(|editor| editor.without(0x28, 0x101))),
        ("frames", Some(Code::TooManyFrames), changed(|editor| editor.text(0x28, 8, b"IS", "9999"))),
        ("conflict", Some(Code::UidConflict), marked(plain().pixels(&other_picture))),
        ("poison", Some(Code::Poison), marked(plain().text(8, 0x18, b"UI", "1.2.3.7"))),
    ]
}

/// Codes that need another cause than a file, and where they are tested.
const ELSEWHERE: &[RejectCode] = &[
    RejectCode::Unreadable,   // hostile::a_file_that_may_not_be_read_is_refused
    RejectCode::BadPixelData, // below, from a compressed file
    RejectCode::BadOutput,    // needs a network that gives no number
];

struct Run {
    site: Site,
    log: String,
}

/// Runs the daemon over all cases until each has its outcome.
fn run_over_all(more: &str) -> Run {
    let site = Site::new("move", &format!("log: {{ filter: trace{more} }}\n"));
    let settings = fs::read_to_string(site.path("daemon.yaml")).unwrap();
    fs::write(site.path("daemon.yaml"), settings.replace("settle_ms: 100", "settle_ms: 100, file_bytes_max: 1048576"))
        .unwrap();
    let folder = site.path("inbox/ZQFOLDERZQ^JOHN");
    fs::create_dir(&folder).unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).unwrap();
        path
    };
    // The picture that duplicates and conflicts refer to is on record before the others come.
    let mut cases = cases();
    let first = put("ZQFILEZQ-first.dcm", &cases[0].2);
    let daemon = site.start();
    site.wait_until("the first result", |site| site.results().len() == 1 && !first.exists());
    let (code, mut log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");

    let mut jpeg = fs::read(data("unsigned12_jpeg_baseline.dcm")).unwrap();
    let at = jpeg.windows(2).position(|window| window == [0xFF, 0xC0]).unwrap();
    jpeg[at + 1] = 0xC9;
    cases.push(("codestream", Some(RejectCode::BadPixelData), jpeg));
    let ledger = Ledger::open(&site.path("ledger.sqlite")).unwrap();
    for (name, code, bytes) in &cases {
        let path = put(&format!("ZQFILEZQ-{name}.dcm"), bytes);
        if *code == Some(RejectCode::Poison) {
            let print = RealDisk.fingerprint(&path).unwrap().unwrap();
            for _ in 0..3 {
                ledger.begin(&ichd::admit::path_key(&path), print, "2026-01-01T00:00:00Z").unwrap();
            }
        }
    }
    drop(ledger);
    let daemon = site.start();
    site.wait_until("all outcomes", |site| files(&site.path("inbox")).is_empty());
    site.wait_until("the summary", |site| site.path("results/1.2.3/study.json").exists());
    let (code, more) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{more}");
    log.push_str(&more);

    let found: BTreeSet<String> = reasons(&site).iter().map(|reason| reason["code"].as_str().unwrap().into()).collect();
    for (name, code, _) in &cases {
        assert!(code.is_none_or(|code| found.contains(code.word())), "no file was refused as {name}: {found:?}");
    }
    let covered = |code: &&RejectCode| !ELSEWHERE.contains(code) || **code == RejectCode::BadPixelData;
    for code in RejectCode::ALL.iter().filter(covered) {
        assert!(found.contains(code.word()), "{code} has no case");
    }
    Run { site, log }
}

fn reasons(site: &Site) -> Vec<Value> {
    let all = files(&site.path("rejected")).into_iter().filter(|file| file.to_string_lossy().ends_with(".reason.json"));
    all.map(|file| serde_json::from_slice(&fs::read(file).unwrap()).unwrap()).collect()
}

/// The markers in some bytes, also where they stand in small letters.
fn markers(bytes: &[u8]) -> BTreeSet<String> {
    let text = String::from_utf8_lossy(bytes).to_ascii_uppercase();
    let mut found = BTreeSet::new();
    let mut rest = text.as_str();
    while let Some(at) = rest.find("ZQ") {
        let marker: String = rest[at + 2..].chars().take_while(char::is_ascii_alphanumeric).collect();
        if let Some(inner) = marker.strip_suffix("ZQ") {
            found.insert(inner.to_owned());
        }
        rest = &rest[at + 2..];
    }
    found
}

fn assert_clean(what: &str, bytes: &[u8], allowed: &[&str]) {
    let found: Vec<String> = markers(bytes).into_iter().filter(|marker| !allowed.contains(&marker.as_str())).collect();
    assert!(found.is_empty(), "{what} holds {found:?}");
}

#[test]
fn no_output_holds_what_is_about_a_patient() {
    let Run { site, log } = run_over_all("");
    assert!(log.contains("A file is rejected") && log.contains("A slice has its route"), "the log is not talkative");
    assert_clean("the log", log.as_bytes(), &[]);
    let mut n_files = 0;
    for file in files(&site.path("results")) {
        n_files += 1;
        assert_clean(&file.display().to_string(), &fs::read(&file).unwrap(), &[]);
        let name = file.strip_prefix(site.folder.path()).unwrap().as_os_str().as_encoded_bytes();
        assert_clean("the name of a result", name, &[]);
    }
    assert!(n_files >= 4, "results, summary and log: {n_files}");
    for mut reason in reasons(&site) {
        reason.as_object_mut().unwrap().remove("file");
        assert_clean("a reason", reason.to_string().as_bytes(), &[]);
    }
    let metrics = fs::read(site.path("site/metrics.prom")).unwrap();
    assert!(metrics.starts_with(b"# HELP ichd_info "));
    assert_clean("the metrics", &metrics, &[]);
    assert_eq!(files(&site.path("site")).len(), 1, "more than the metrics");
    // Its key is the path of the input.
    for name in ["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "ledger.lock"] {
        let bytes = fs::read(site.path(name)).unwrap_or_default();
        assert_clean(name, &bytes, &["FOLDER", "FILE"]);
    }
    let known = ["inbox", "done", "rejected", "results", "daemon.yaml", "models", "site"];
    for entry in fs::read_dir(site.folder.path()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(known.contains(&name.as_str()) || name.starts_with("ledger."), "{name} was not looked at");
    }
}

#[test]
fn commands_that_explain_a_file_show_no_patient() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("x.dcm");
    for (name, _, bytes) in cases() {
        fs::write(&file, bytes).unwrap();
        let path = file.to_str().unwrap();
        for arguments in
            [&["inspect", path][..], &["inspect", "--json", path], &["check", "--explain", path, "--device", "cpu"]]
        {
            let output = run(arguments);
            let text = format!("{}{}", stdout(&output), stderr(&output));
            assert!(!text.is_empty());
            assert_clean(&format!("{arguments:?} on {name}"), text.as_bytes(), &[]);
        }
    }
}

#[test]
fn the_log_names_files_only_where_that_is_switched_on() {
    let site = Site::new("move", "log: { filter: debug, file_names: true }\n");
    let folder = site.path("inbox/ZQFOLDERZQ^JOHN");
    fs::create_dir(&folder).unwrap();
    fs::write(folder.join("ZQFILEZQ\n2026 ERROR all is lost.dcm"), b"no DICOM at all").unwrap();
    let daemon = site.start();
    site.wait_until("the refusal", |site| files(&site.path("rejected")).len() == 2);
    let (_, log) = daemon.stop("TERM");
    assert_eq!(markers(log.as_bytes()).into_iter().collect::<Vec<_>>(), ["FILE", "FOLDER"]);
    assert!(log.contains("ZQFILEZQ\\n2026 ERROR"), "a name broke its line: {log}");
}

/// Folders that are renamed to and fro faster than the library that watches them follows: it warns of that, with their
/// paths, and its warnings are not ours.
#[test]
fn the_library_that_watches_folders_names_none() {
    let site = Site::new("move", "log: { filter: trace }\n");
    let names = [site.path("inbox/ZQFOLDERZQ^JOHN"), site.path("inbox/ZQFOLDERZQ^JACK")];
    fs::create_dir(&names[0]).unwrap();
    let slice = |instance: &str| Editor::new().text(0x20, 0xD, b"UI", "1.2.3").text(8, 0x18, b"UI", instance).bytes();
    let daemon = site.start();
    fs::write(names[0].join("a.dcm"), slice("1.2.3.4")).unwrap();
    site.wait_until("the first one", |site| site.results().len() == 1);
    daemon.signal("STOP");
    for round in 0..6 {
        fs::rename(&names[round % 2], &names[1 - round % 2]).unwrap();
    }
    daemon.signal("CONT");
    fs::write(names[0].join("b.dcm"), slice("1.2.3.5")).unwrap();
    site.wait_until("the second one", |site| site.results().len() == 2);
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("A slice has its route"), "the log is not talkative");
    assert_clean("the log", log.as_bytes(), &[]);
}

/// A folder that may not be read keeps the whole inbox from being watched, and is not named.
#[test]
fn a_folder_that_cannot_be_watched_is_not_named() {
    let site = Site::new("keep", "");
    let folder = site.path("inbox/ZQFOLDERZQ^JOHN");
    fs::create_dir(&folder).unwrap();
    let bytes = Editor::new().text(0x20, 0xD, b"UI", "1.2.3").text(8, 0x18, b"UI", "1.2.3.4").bytes();
    fs::write(site.path("inbox/a.dcm"), bytes).unwrap();
    if !crate::hostile::as_nobody(&site) {
        println!("skipped: only root can become nobody");
        return;
    }
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o000)).unwrap();
    let program = crate::hostile::installed();
    let daemon = crate::hostile::nobody(&site, &program.path().join("ichd"));
    site.wait_until("the result", |site| site.results().len() == 1);
    let (code, log) = daemon.stop("TERM");
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("No file events for the inbox") && log.contains("Permission denied"), "{log}");
    assert!(log.contains("A folder in the inbox cannot be read"), "{log}");
    assert_clean("the log", log.as_bytes(), &[]);
}

/// Does the work of the next test when that asks for it: a panic whose message was made at run time.
#[test]
fn panicking_child() {
    if std::env::var_os("ICHD_TEST_PANICKING_CHILD").is_some() {
        ichd::telemetry::start(&ichd::config::Log::default(), 0);
        let name = std::env::args().next().unwrap().replace(char::is_alphanumeric, "") + "ZQPATIENTZQ";
        let _ = std::panic::catch_unwind(|| panic!("cannot read {name}"));
        let _ = std::panic::catch_unwind(|| panic!("a sentence of the source"));
    }
}

#[test]
fn panics_say_where_and_not_what() {
    let module = module_path!().split_once("::").map_or("", |(_, rest)| rest);
    let child = Command::new(std::env::current_exe().unwrap())
        .args([&format!("{module}::panicking_child"), "--exact", "--nocapture"])
        .env("ICHD_TEST_PANICKING_CHILD", "1")
        .output()
        .unwrap();
    let text = stderr(&child);
    assert!(text.contains("privacy.rs") && text.contains("a sentence of the source"), "{text}");
    assert_clean("a panic", text.as_bytes(), &[]);
}

#[test]
fn files_are_closed_to_strangers_and_follow_the_mask() {
    let slice = data("unsigned12_explicit_le.dcm");
    for (mask, expected) in [("022", 0o640), ("027", 0o640), ("077", 0o600), ("000", 0o640)] {
        let site = Site::new("keep", "");
        fs::copy(&slice, site.path("inbox/a.dcm")).unwrap();
        fs::write(site.path("inbox/b.dcm"), b"no DICOM").unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", &format!("umask {mask}; exec \"$0\" \"$@\"")]).arg(ichd().get_program());
        command.args(["run", "--config"]).arg(site.path("daemon.yaml"));
        let daemon = crate::support::Daemon { child: command.stderr(std::process::Stdio::piped()).spawn().unwrap() };
        site.wait_until("both outcomes", |site| site.results().len() == 1 && !reasons(site).is_empty());
        site.wait_until("the summary", |site| files(&site.path("results")).len() == 3);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        let written: Vec<PathBuf> =
            files(&site.path("results")).into_iter().chain(files(&site.path("rejected"))).collect();
        for path in written
            .iter()
            .map(PathBuf::as_path)
            .chain([site.path("ledger.sqlite").as_path(), &site.path("ledger.lock")])
        {
            // The lock is made with all that the mask leaves.
            let most = if path.ends_with("ledger.lock") && mask == "000" { 0o660 } else { expected };
            assert_eq!(mode(path), most, "{} under {mask}", path.display());
        }
        for folder in ["results", "rejected", "results/log"] {
            assert_eq!(mode(&site.path(folder)) & 0o007, 0, "{folder} under {mask}");
        }
        drop(daemon);
    }
}

#[test]
fn digests_of_settings_and_models_are_logged_at_start() {
    let site = Site::new("keep", "");
    let daemon = site.start();
    site.wait_until("the ledger", |site| site.path("ledger.sqlite").exists());
    std::thread::sleep(std::time::Duration::from_millis(500));
    let (_, log) = daemon.stop("TERM");
    let config = ichd::config::Config::load(&site.path("daemon.yaml")).unwrap();
    let settings = log.lines().find(|line| line.contains("Settings are read.")).expect(&log);
    assert!(settings.contains(&config.digest()), "{settings} is not {}", config.digest());
    let model = ichd::model::load(&config).unwrap();
    let loaded = log.lines().find(|line| line.contains("A model is loaded.")).expect(&log);
    assert!(loaded.contains(&model.card.sha256) && model.card.sha256.len() == 64, "{loaded}");
}

#[test]
fn lines_for_machines_are_json_and_as_discreet() {
    let site = Site::new("keep", "log: { format: json, filter: trace }\n");
    fs::write(site.path("inbox/ZQFILEZQ\n\".dcm"), b"no DICOM at all").unwrap();
    let daemon = site.start();
    site.wait_until("the refusal", |site| !reasons(site).is_empty());
    let (_, log) = daemon.stop("TERM");
    assert_clean("the log", log.as_bytes(), &[]);
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let refusal = lines.iter().find(|line| line["fields"]["code"] == "not-dicom").expect(&log);
    assert!(refusal["fields"]["file"].as_str().unwrap().starts_with("file-"), "{refusal}");
}
