//! Tests of the label table.

use std::time::Instant;

use proptest::prelude::*;

use super::*;

fn parse_text(text: &str) -> Result<LabelsRead, String> {
    read_from(Path::new("l.csv"), text.as_bytes()).map_err(|error| error.to_string())
}

const SUFFIXES: [&str; N_LABELS] =
    ["epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"];

fn long(rows: &[(&str, [u8; N_LABELS])]) -> String {
    let mut text = String::from("ID,Label\n");
    for (id, values) in rows {
        for (suffix, value) in SUFFIXES.iter().zip(values) {
            text.push_str(&format!("{id}_{suffix},{value}\n"));
        }
    }
    text
}

#[test]
fn the_long_table_is_read_in_label_order_and_sorted() {
    let read = parse_text(&long(&[("ID_b", [0, 1, 0, 0, 1, 1]), ("ID_a", [0; 6])])).unwrap();
    let table = &read.table;
    assert_eq!((table.len(), table.id(0), table.id(1), read.n_rows), (2, "ID_a", "ID_b", 12));
    assert_eq!(table.labels(1), [true, false, true, false, false, true]);
    assert_eq!((table.find("ID_b"), table.find("ID_c")), (Some(1), None));
    assert_eq!(table.positives(), [1, 0, 1, 0, 0, 1]);
    assert!(read.violations.is_empty() && read.n_duplicate_rows == 0);
}

#[test]
fn equal_rows_are_counted_and_conflicting_ones_named_with_both_lines() {
    let mut text = long(&[("ID_a", [0; 6]), ("ID_a", [0; 6]), ("ID_b", [0; 6])]);
    assert_eq!(parse_text(&text).unwrap().n_duplicate_rows, 6);
    text.push_str("ID_a_subdural,1\n");
    assert_eq!(parse_text(&text).unwrap_err(), "l.csv:20: ID_a: subdural differs from line 6");
}

#[test]
fn the_wide_table_takes_any_order_other_names_and_no_any() {
    let wide = "subdural,SOP_Instance_UID,note,epidural,intraventricular,subarachnoid,intraparenchymal\n\
                1,1.2.3,x,0,0,0,1\n0,1.2.4,y,0,0,0,0\n0,1.2.4,z,0,0,0,0\n";
    let read = parse_text(wide).unwrap();
    assert_eq!(read.table.labels(0), [true, false, true, false, false, true]);
    assert_eq!((read.table.len(), read.n_rows, read.n_duplicate_rows), (2, 3, 1));
    let same = parse_text(&long(&[("1.2.4", [0; 6]), ("1.2.3", [0, 1, 0, 0, 1, 1])])).unwrap();
    assert_eq!(read.table.digest(), same.table.digest(), "the digest does not depend on the format");
    let conflict = format!("{wide}0,1.2.3,x,0,0,0,0\n");
    assert_eq!(parse_text(&conflict).unwrap_err(), "l.csv:5: 1.2.3: any differs from line 2");
}

#[test]
fn an_any_that_contradicts_its_subtypes_is_told_and_not_changed() {
    let read = parse_text(&long(&[("ID_a", [0, 0, 0, 0, 0, 1]), ("ID_b", [1, 0, 0, 0, 0, 0])])).unwrap();
    let expected = [("ID_a", 7), ("ID_b", 13)].map(|(id, line)| Violation { id: id.into(), line });
    assert_eq!(read.violations, expected);
    assert_eq!(read.table.labels(0), [true, false, false, false, false, false]);
    assert!(read.notes().last().unwrap().contains("ID_a (line 7), ID_b (line 13)"));
}

#[test]
fn whatever_is_no_label_table_is_told_with_its_line() {
    let whole = long(&[("ID_a", [0; 6])]);
    let cases = [
        (
            whole.replace("subdural,0", "subdural,0.5"),
            "l.csv:6: ID_a: the value of subdural is `0.5`; 0 or 1 would be right",
        ),
        (whole.replace("subdural,0", "subdural,"), "l.csv:6: ID_a: the value of subdural is ``; 0 or 1 would be right"),
        (whole.replace("ID_a_any", "ID_a_all"), "l.csv:7: `ID_a_all` is not an image, an underscore and a label"),
        (whole.replace("ID_a_any", "_any"), "l.csv:7: `_any` is not an image, an underscore and a label"),
        (whole.replace("ID_a_any,0\n", ""), "l.csv:2: ID_a: no row for any; each image needs six"),
        ("ID,Label\n".into(), "l.csv: it holds no rows"),
        (
            "id,any,epidural\n".into(),
            "l.csv: no column `intraparenchymal`; `ID,Label`, or `id` and a column for each label, would be right",
        ),
        (
            "name,value\n".into(),
            "l.csv: no column `id`; `ID,Label`, or `id` and a column for each label, would be right",
        ),
        (
            "id,id,any,epidural,intraparenchymal,intraventricular,subarachnoid,subdural\n".into(),
            "l.csv: column 2 repeats column 1",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(parse_text(&text).unwrap_err(), expected);
    }
    let binary = read_from(Path::new("l.csv"), &b"ID,Label\n\xFF_any,0\n"[..]).unwrap_err();
    assert_eq!(binary.to_string(), "l.csv:2: the identifier is not UTF-8");
}

#[test]
fn windows_line_ends_byte_order_marks_and_quotes_are_fine() {
    let text = long(&[("ID_a", [0, 0, 0, 0, 1, 1])]).replace('\n', "\r\n").replace("ID_a_any", "\"ID_a_any\"");
    assert!(parse_text(&format!("\u{feff}{text}")).unwrap().table.labels(0)[5]);
}

/// RSNA's size: 752,807 x 6 rows. The bound is generous, for slow and busy machines; the time is printed.
#[test]
fn a_table_of_rsnas_size_takes_seconds() {
    let mut text = String::with_capacity(150 << 20);
    text.push_str("ID,Label\n");
    for image in 0u64..752_807 {
        // Identifiers in no order, as RSNA's.
        let id = image.wrapping_mul(0x9_E377_9B97) & 0xF_FFFF_FFFF;
        for suffix in SUFFIXES {
            text.push_str("ID_");
            text.push_str(&format!("{id:09x}"));
            text.push('_');
            text.push_str(suffix);
            text.push_str(",0\n");
        }
    }
    let begun = Instant::now();
    let read = parse_text(&text).unwrap();
    let took = begun.elapsed();
    println!("{} rows, {} MiB: {took:.2?}", read.n_rows, text.len() >> 20);
    assert_eq!((read.table.len(), read.n_rows), (752_807, 4_516_842));
    assert!(took.as_secs() < 60, "{took:?}");
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), long in any::<bool>()) {
        let head: &[u8] = if long { b"ID,Label\n" } else { b"" };
        let _ = read_from(Path::new("l.csv"), [head, &bytes].concat().as_slice());
    }
}
