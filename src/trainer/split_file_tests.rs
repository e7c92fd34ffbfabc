//! Tests of splits on disk.

use super::super::split::tests::World;
use super::*;
use crate::disk::RealDisk;

fn split(world: &World, mode: SplitMode) -> Split {
    Split::make(&world.members(), Plan::validation(mode, 3, 0.15), "d".repeat(64)).unwrap()
}

fn read(text: &str) -> Result<Split, String> {
    Split::read_from(Path::new("s.csv"), text.as_bytes()).map_err(|error| error.to_string())
}

#[test]
fn a_split_comes_back_as_it_was() {
    let world = World::new(20, 5);
    let site = tempfile::tempdir().unwrap();
    for mode in [SplitMode::Patient, SplitMode::Slice] {
        let mut split = split(&world, mode);
        split.slices[0].instance = "#1 \"a\", b".into();
        let file = site.path().join("runs/split.csv");
        split.write(&RealDisk, &file).unwrap();
        assert_eq!(Split::read(&file).unwrap(), split);
    }
    let text = split(&world, SplitMode::Patient).to_csv();
    let head =
        "# ichd.split.v1\n# seed: 3\n# mode: patient\n# fractions: validation 0.15, train 0.85\n# labels_sha256: ddd";
    assert!(text.starts_with(head), "{text:.200}");
}

#[test]
fn a_changed_file_is_refused_with_its_line() {
    let world = World::new(20, 5);
    let text = split(&world, SplitMode::Patient).to_csv();
    let lines: Vec<&str> = text.lines().collect();
    let with = |at: usize, line: &str| {
        let mut lines = lines.clone();
        lines[at] = line;
        read(&lines.join("\n")).unwrap_err()
    };
    assert_eq!(with(0, "instance,part"), "s.csv:1: `# ichd.split.v1` must stand here; it is no split of ichd");
    assert_eq!(with(1, "# seed: x"), "s.csv:2: `x` is no seed");
    assert_eq!(with(2, "# mode: study"), "s.csv:3: `study` is no mode");
    assert_eq!(with(3, "# fractions: a 0.5, a 0.5"), "s.csv:4: names and fractions of parts must stand here");
    let unknown = lines[7].replace("validation", "test").replace("train", "test");
    assert_eq!(with(7, &unknown), "s.csv:8: `test` is no part of this split");
    assert_eq!(with(7, lines[8]), "s.csv:9: instances must stand in order, each once");
    assert_eq!(with(7, "a,b,train"), "s.csv:8: `b` is no key of a group");
    let other = if lines[7].ends_with("train") { "validation" } else { "train" };
    let moved = format!("{}{other}", &lines[7][..lines[7].rfind(',').unwrap() + 1]);
    assert_eq!(with(7, &moved), "s.csv: 1 patients are in more than one part");
}

#[test]
fn missing_new_and_regrouped_slices_and_other_labels_are_told() {
    let world = World::new(20, 5);
    let split = split(&world, SplitMode::Patient);
    let mut members = world.members();
    assert!(split.differences(&members, &"d".repeat(64)).is_empty());
    let gone = members.remove(3).instance.to_owned();
    members.push(Member { instance: "zzz", ..members[0] });
    members[5].group = GroupKey::of("somebody else");
    let found = split.differences(&members, "other");
    assert_eq!((&found.missing, &found.new), (&vec![gone.clone()], &vec!["zzz".to_owned()]));
    assert_eq!((found.regrouped.len(), found.labels_changed), (1, true));
    let text = found.to_string();
    assert!(text.contains(&format!("1 slices of the split are not there any more ({gone})")), "{text}");
    assert!(text.contains("1 slices are in no part of the split (zzz)"), "{text}");
}

#[test]
fn identifiers_of_files_are_no_formulas_in_a_spreadsheet() {
    let mut split = split(&World::new(20, 5), SplitMode::Patient);
    split.slices[0].instance = "'quoted".into();
    split.slices[1].instance = "+1".into();
    split.slices[2].instance = "=HYPERLINK(\"http://x\",\"y\")".into();
    split.slices.sort_by(|one, other| one.instance.cmp(&other.instance));
    let text = split.to_csv();
    for line in text.lines().filter(|line| !line.starts_with('#')).skip(1) {
        let cell = line.trim_start_matches('"');
        assert!(!cell.starts_with(['=', '+', '-', '@', '\t', '\r']), "{line}");
    }
    assert_eq!(read(&text), Ok(split));
}
