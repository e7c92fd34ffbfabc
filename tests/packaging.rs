//! What is shipped beside the program: the systemd unit.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use crate::support::stdout;

/// Most exposure, of 100, that the unit may have by `systemd-analyze security`.
const EXPOSURE_MAX: &str = "10";

fn analyze(folder: &Path, arguments: &[&str]) -> Output {
    Command::new("systemd-analyze").args(arguments).arg("ichd.service").current_dir(folder).output().unwrap()
}

#[test]
fn the_unit_is_sound_and_its_exposure_is_low() {
    let version = Command::new("systemd-analyze").arg("--version").output().ok();
    let version = version.and_then(|output| stdout(&output).split_whitespace().nth(1)?.parse::<u32>().ok());
    // The first one that judges files.
    if version.is_none_or(|version| version < 250) {
        println!("skipped: systemd-analyze 250 or newer is not here");
        return;
    }
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/systemd");
    let unit = fs::read_to_string(shipped.join("ichd.service")).unwrap();
    let cpu = fs::read_to_string(shipped.join("cpu.conf")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    // It is not installed here.
    let program = crate::support::ichd().get_program().to_string_lossy().into_owned();
    let unit = unit.replace("/usr/local/bin/ichd ", &format!("{program} "));
    // A drop-in counts for a file only where the file says the same.
    for (name, text) in [("gpu", unit.clone()), ("cpu", format!("{unit}\n{}", &cpu[cpu.find("[Service]").unwrap()..]))]
    {
        fs::write(folder.path().join("ichd.service"), text).unwrap();
        let verified = analyze(folder.path(), &["verify", "--man=no"]);
        let said = String::from_utf8_lossy(&verified.stderr).into_owned();
        let about_us: Vec<&str> = said.lines().filter(|line| line.contains("ichd.service")).collect();
        assert!(about_us.is_empty(), "{name}: {about_us:?}");
        let judged = analyze(folder.path(), &["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE_MAX]);
        let text = stdout(&judged);
        let overall = text.lines().find(|line| line.contains("Overall")).unwrap_or("no verdict");
        println!("{name}: {overall}");
        assert!(judged.status.success(), "{name}: {overall}");
    }
}

#[test]
fn the_unit_starts_what_the_command_line_knows() {
    let unit = include_str!("../docs/systemd/ichd.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let start = start.replace("/etc/ichd", folder.path().to_str().unwrap());
    let arguments: Vec<&str> = start.split_whitespace().skip(1).collect();
    // The configuration is not there, and that is all that is wrong.
    let output = crate::support::ichd().args(&arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(78), "{}", crate::support::stderr(&output));
    assert!(unit.contains("RestartPreventExitStatus=64 78"));
}
