//! Every rule of admission, with the phantom changed in one element.

use ichd::dicom::{AdmissionRules, decode, read_facts};
use ichd::reject::RejectCode;
use ichd::slice::Facts;

use super::editor::Editor;
use super::{code, figures, only, warnings};

/// The code and the tag of the refusal.
fn refusal(editor: &Editor) -> (RejectCode, String) {
    let rejection = super::decode_default(&editor.bytes()).unwrap_err();
    (rejection.code, rejection.tag.unwrap_or_default())
}

fn with(rules: AdmissionRules, editor: &Editor) -> Option<RejectCode> {
    decode(&editor.bytes(), &rules).err().map(|rejection| rejection.code)
}

fn default() -> AdmissionRules {
    AdmissionRules::default()
}

#[test]
fn the_unchanged_phantom_is_taken() {
    assert_eq!(code(&Editor::new().bytes()), None);
}

#[test]
fn modality_and_sop_class_say_ct_unless_that_is_not_required() {
    let modality = || Editor::new().text(8, 0x60, b"CS", "MR");
    assert_eq!(refusal(&modality()), (RejectCode::WrongModality, "(0008,0060) Modality".to_string()));
    let class = || Editor::new().text(8, 0x16, b"UI", "1.2.840.10008.5.1.4.1.1.7\0");
    assert_eq!(refusal(&class()), (RejectCode::WrongSopClass, "(0008,0016) SOPClassUID".to_string()));
    let any = AdmissionRules { require_ct: false, ..default() };
    assert_eq!((with(any.clone(), &modality()), with(any, &class())), (None, None));
    for taken in ["1.2.840.10008.5.1.4.1.1.2.1", "1.2.840.10008.5.1.4.1.1.2.2\0"] {
        assert_eq!(code(&Editor::new().text(8, 0x16, b"UI", taken).bytes()), None, "{taken}");
    }
    assert_eq!(code(&Editor::new().without(8, 0x60).bytes()), None);
    assert_eq!(code(&Editor::new().without(8, 0x16).bytes()), None);
}

#[test]
fn text_of_the_file_is_made_harmless_in_sentences() {
    let editor = Editor::new().text(8, 0x60, b"CS", "X\n\"=1+\u{1b}");
    let rejection = super::decode_default(&editor.bytes()).unwrap_err();
    assert_eq!(rejection.sentence, "modality is X???1+?, not CT");
}

#[test]
fn localizers_and_derived_pictures_are_refused_unless_wanted() {
    let localizer = || Editor::new().text(8, 8, b"CS", "ORIGINAL\\PRIMARY\\LOCALIZER");
    assert_eq!(refusal(&localizer()), (RejectCode::Localizer, "(0008,0008) ImageType".to_string()));
    assert_eq!(with(AdmissionRules { reject_localizers: false, ..default() }, &localizer()), None);
    let derived = || Editor::new().text(8, 8, b"CS", "DERIVED \\SECONDARY\\SCREEN SAVE");
    assert_eq!(refusal(&derived()), (RejectCode::Derived, "(0008,0008) ImageType".to_string()));
    assert_eq!(with(AdmissionRules { reject_derived: false, ..default() }, &derived()), None);
    assert_eq!(code(&Editor::new().without(8, 8).bytes()), None);
}

#[test]
fn color_is_refused() {
    assert_eq!(refusal(&Editor::new().us(0x28, 2, 3)).0, RejectCode::NotMonochrome);
    for color in ["RGB ", "PALETTE COLOR "] {
        assert_eq!(refusal(&Editor::new().text(0x28, 4, b"CS", color)).0, RejectCode::NotMonochrome);
    }
    assert_eq!(refusal(&Editor::new().without(0x28, 4)).0, RejectCode::MissingTag);
}

#[test]
fn sizes_are_judged_before_anything_is_allocated() {
    for (element, name) in [(0x10, "(0028,0010) Rows"), (0x11, "(0028,0011) Columns")] {
        for size in [0, 15, 4097, 65535] {
            assert_eq!(refusal(&Editor::new().us(0x28, element, size)), (RejectCode::BadSize, name.to_string()));
        }
        assert_eq!(refusal(&Editor::new().without(0x28, element)), (RejectCode::BadSize, name.to_string()));
    }
    let rules = AdmissionRules { side_min: 41, ..default() };
    assert_eq!(with(rules, &Editor::new()), Some(RejectCode::BadSize));
}

#[test]
fn frames_are_bounded_in_number_and_in_sum() {
    let frames = |text: &str| Editor::new().text(0x28, 8, b"IS", text);
    assert_eq!(refusal(&frames("2001")).0, RejectCode::TooManyFrames);
    assert_eq!(refusal(&frames("2147483647 ")).0, RejectCode::TooManyFrames);
    assert_eq!(refusal(&frames("99999999999999999999")).0, RejectCode::Corrupt);
    assert_eq!(refusal(&frames("0")).0, RejectCode::BadSize);
    assert_eq!(refusal(&frames("-1")).0, RejectCode::BadSize);
    assert_eq!(refusal(&frames("2 ")).0, RejectCode::ShortPixels);
    assert_eq!(refusal(&frames("2000").us(0x28, 0x10, 4096).us(0x28, 0x11, 4096)).0, RejectCode::TooLarge);
    assert_eq!(only(&frames("1 ").bytes()).ids.frame, None);
    assert_eq!(only(&frames("").bytes()).ids.frame, None);
}

#[test]
fn bits_must_fit_together() {
    let bits = |allocated: u16, stored: u16, high: u16, sign: u16| {
        let editor = Editor::new().us(0x28, 0x100, allocated).us(0x28, 0x101, stored);
        code(&editor.us(0x28, 0x102, high).us(0x28, 0x103, sign).bytes())
    };
    for (allocated, stored, high, sign) in [(16, 16, 15, 1), (16, 13, 12, 0), (16, 10, 15, 1), (16, 8, 7, 0)] {
        assert_eq!(bits(allocated, stored, high, sign), None, "{allocated} {stored} {high}");
    }
    for (allocated, stored, high, sign) in [
        (32, 16, 15, 0),
        (12, 12, 11, 0),
        (16, 17, 16, 0),
        (16, 12, 10, 0),
        (16, 12, 16, 0),
        (16, 0, 0, 0),
        (16, 12, 11, 2),
    ] {
        assert_eq!(
            bits(allocated, stored, high, sign),
            Some(RejectCode::BadBits),
            "{allocated} {stored} {high} {sign}"
        );
    }
    for element in [0x100, 0x101, 0x103] {
        assert_eq!(refusal(&Editor::new().without(0x28, element)).0, RejectCode::MissingTag);
    }
    assert_eq!(code(&Editor::new().without(0x28, 0x102).bytes()), None);
}

#[test]
fn rescale_must_be_usable() {
    let rescale = |slope: &str, intercept: &str| {
        Editor::new().text(0x28, 0x1053, b"DS", slope).text(0x28, 0x1052, b"DS", intercept).bytes()
    };
    for (slope, intercept) in [("0 ", "0 "), ("NaN ", "0 "), ("1 ", "inf "), ("1e99", "0 "), ("x ", "0 ")] {
        assert_eq!(code(&rescale(slope, intercept)), Some(RejectCode::BadRescale), "{slope}{intercept}");
    }
    let slice = only(&rescale("", ""));
    assert_eq!((slice.rescale.slope, slice.rescale.intercept), (1.0, 0.0));
    let slice = only(&Editor::new().without(0x28, 0x1053).without(0x28, 0x1052).bytes());
    assert_eq!((slice.rescale.slope, slice.rescale.intercept), (1.0, 0.0));
    let map = Editor::new().text(0x28, 0x1054, b"LO", "ML/100G ");
    assert_eq!(refusal(&map), (RejectCode::BadRescale, "(0028,1054) RescaleType".to_string()));
}

#[test]
fn short_pixels_are_never_filled_up_and_extra_ones_are_mentioned() {
    let pixels = Editor::new().value(0x7FE0, 0x10).to_vec();
    let complete = only(&Editor::new().bytes());
    for length in [0, 1, pixels.len() / 2, pixels.len() - 2, pixels.len() - 1] {
        let editor = Editor::new().pixels(&pixels[..length]);
        assert_eq!(refusal(&editor), (RejectCode::ShortPixels, "(7FE0,0010) PixelData".to_string()), "{length}");
    }
    for (n_extra, expected) in [(1, vec![]), (2, vec!["extra-pixel-bytes"]), (4000, vec!["extra-pixel-bytes"])] {
        let longer = [pixels.as_slice(), &vec![7; n_extra]].concat();
        let slice = only(&Editor::new().pixels(&longer).bytes());
        assert_eq!(warnings(&slice), expected, "{n_extra}");
        assert_eq!(slice.pixels, complete.pixels, "{n_extra}");
    }
    assert_eq!(refusal(&Editor::new().without(0x7FE0, 0x10)).0, RejectCode::NotAnImage);
}

#[test]
fn wrapped_files_are_repaired_only_if_asked_and_seen() {
    let wrapped = Editor::of("wrapped12.dcm");
    let rules = AdmissionRules { repair_wrap_12bit: false, ..default() };
    let slice = decode(&wrapped.bytes(), &rules).unwrap().remove(0);
    assert_eq!((slice.rescale.intercept, slice.warnings.len()), (0.0, 0));
    assert!(figures(&slice)[1] >= 3096.0, "air is brighter than metal");
    // The usual intercept of unsigned files means that nothing wrapped.
    let usual = only(&wrapped.text(0x28, 0x1052, b"DS", "-1024 ").bytes());
    assert_eq!((usual.rescale.intercept, usual.warnings.len()), (-1024.0, 0));
    // An intercept of 0 with no value at the top of the range shows no wrap-around.
    let low: Vec<u8> = Editor::new()
        .value(0x7FE0, 0x10)
        .iter()
        .enumerate()
        .map(|(i, b)| if i % 2 == 1 { b & 1 } else { *b })
        .collect();
    let plain = only(&Editor::new().pixels(&low).text(0x28, 0x1052, b"DS", "0 ").bytes());
    assert_eq!((plain.rescale.intercept, plain.warnings.len()), (0.0, 0));
}

#[test]
fn tilt_and_loss_are_mentioned() {
    let tilted = only(&Editor::new().text(0x18, 0x1120, b"DS", "+18.5 ").bytes());
    assert_eq!((warnings(&tilted), tilted.geometry.gantry_tilt), (vec!["gantry-tilt"], Some(18.5)));
    assert!(tilted.warnings[0].sentence.contains("18.5"));
    let upright = only(&Editor::new().text(0x18, 0x1120, b"DS", "0.000000").bytes());
    assert_eq!(warnings(&upright), Vec::<&str>::new());
    let lossy = only(&Editor::new().text(0x28, 0x2110, b"CS", "01").bytes());
    assert_eq!(warnings(&lossy), ["lossy-compression"]);
}

#[test]
fn unusable_geometry_is_left_out_and_does_not_refuse_a_slice() {
    let slice = only(&Editor::new().text(0x20, 0x32, b"DS", "1\\2 ").text(0x28, 0x30, b"DS", "nan\\1 ").bytes());
    assert_eq!((slice.geometry.position, slice.geometry.pixel_spacing), (None, None));
}

#[test]
fn identifiers_may_be_illegal_or_missing_but_not_endless() {
    let slice = only(&Editor::new().text(0x20, 0xD, b"UI", "../../etc/x").without(0x20, 0xE).without(8, 0x18).bytes());
    assert_eq!((slice.ids.study.as_str(), slice.ids.series.as_str()), ("../../etc/x", ""));
    assert!(slice.ids.instance.starts_with("1.2.826."), "the file meta information names the instance");
    assert_eq!(refusal(&Editor::new().text(0x20, 0xD, b"UI", &"1".repeat(200))).0, RejectCode::Corrupt);
}

/// Windows are for the eye: what the file proposes, several or absurd ones, changes no slice and refuses none.
#[test]
fn windows_of_the_file_change_nothing() {
    let told = |editor: Editor| format!("{:?}", only(&editor.bytes()));
    let plain = told(Editor::new().without(0x28, 0x1050).without(0x28, 0x1051));
    let windows = [
        ("40", "80"),
        ("40\\600 ", "80\\2800 "),
        ("-1000\\40\\1", "1\\22"),
        ("1e308 ", "0 "),
        ("-0", "-1"),
        ("brain ", "\\\\"),
        ("", ""),
    ];
    for (center, width) in windows {
        let editor = Editor::new().text(0x28, 0x1050, b"DS", center).text(0x28, 0x1051, b"DS", width);
        assert!(told(editor) == plain, "{center}, {width}");
    }
}

#[test]
fn what_routes_ask_about_is_read_and_refuses_nothing() {
    let facts = |editor: Editor| only(&editor.bytes()).facts;
    let bare = [(8, 0x70), (8, 0x1010), (0x18, 0x15), (0x18, 0x50), (0x18, 0x1210), (0x40, 0x1003)];
    let bare = || bare.iter().fold(Editor::new(), |editor, (group, element)| editor.without(*group, *element));
    let modality = Some("CT".to_string());
    assert_eq!(facts(bare()), Facts { modality: modality.clone(), ..Facts::default() });
    let full = bare()
        .text(8, 0x70, b"LO", "SIEMENS ")
        .text(8, 0x1010, b"SH", " CT01 ")
        .text(0x18, 0x15, b"CS", "HEAD")
        .text(0x18, 0x50, b"DS", "0.625 ")
        .text(0x18, 0x1210, b"SH", "H31s\\3")
        .text(0x40, 0x1003, b"SH", "STAT");
    let expected = Facts {
        modality,
        body_part: Some("HEAD".into()),
        manufacturer: Some("SIEMENS".into()),
        station: Some("CT01".into()),
        kernel: Some("H31s".into()),
        priority: Some("STAT".into()),
        thickness_mm: Some(0.625),
        folder: None,
    };
    assert_eq!(read_facts(&full.bytes(), &default()), Ok(vec![expected.clone()]));
    assert_eq!(facts(full), expected);
    // Empty values are missing ones; letters outside of ASCII, and numbers that are none, are no reason to refuse.
    let odd = bare().text(8, 0x70, b"LO", "  ").text(0x18, 0x50, b"DS", "thin").set(8, 0x1010, b"SH", b"R\xF6 1");
    let odd = facts(odd);
    assert_eq!((odd.manufacturer, odd.thickness_mm, odd.station.is_some()), (None, None, true));
}

#[test]
fn the_kernel_of_an_enhanced_file_stands_in_its_functional_groups() {
    use dicom_core::value::DataSetSequence;
    use dicom_core::{DataElement, PrimitiveValue, Tag, VR};
    use dicom_object::InMemDicomObject;

    let mut object = dicom_object::from_reader(super::data("enhanced_native.dcm").as_slice()).unwrap();
    let kernel = DataElement::new(Tag(0x0018, 0x1210), VR::SH, PrimitiveValue::from("UB"));
    let inner = InMemDicomObject::from_element_iter([kernel]);
    let reconstruction = DataElement::new(Tag(0x0018, 0x9314), VR::SQ, DataSetSequence::from(vec![inner]));
    let shared = Tag(0x5200, 0x9229);
    let mut groups = object.element(shared).unwrap().items().unwrap()[0].clone();
    groups.put(reconstruction);
    object.put(DataElement::new(shared, VR::SQ, DataSetSequence::from(vec![groups])));
    let mut bytes = Vec::new();
    object.write_all(&mut bytes).unwrap();
    let slices = super::decode_default(&bytes).unwrap();
    assert!(slices.len() > 1 && slices.iter().all(|slice| slice.facts.kernel.as_deref() == Some("UB")));
    let facts: Vec<Facts> = slices.into_iter().map(|slice| slice.facts).collect();
    assert_eq!(read_facts(&bytes, &default()), Ok(facts));
}
