//! What headers say, what they may not say, and in which order they count.

use super::*;

const SIZE: Size = Size { rows: 3, columns: 4 };
/// One layer, no decomposition, code-blocks of 64 x 64, reversible.
const STYLE: [u8; 14] = [0xFF, COD, 0, 12, 0, 0, 0, 1, 0, 0, 4, 4, 0, 1];
const STEPS: [u8; 6] = [0xFF, QCD, 0, 4, 0x40, 0x80];

fn siz(tile: u32, depth: u8) -> Vec<u8> {
    let mut bytes = vec![0xFF, 0x4F, 0xFF, SIZ, 0, 41, 0, 0];
    for word in [4u32, 3, 0, 0, tile, tile, 0, 0] {
        bytes.extend(word.to_be_bytes());
    }
    bytes.extend([0, 1, depth, 1, 1]);
    bytes
}

/// A codestream of one tile, whose part holds `body`, with other segments in its main header.
fn stream(depth: u8, segments: &[&[u8]], part: &[u8], body: &[u8]) -> Vec<u8> {
    let mut bytes = siz(4, depth);
    bytes.extend(segments.concat());
    let length = (SOT_BYTES + part.len() + 2 + body.len()) as u32;
    bytes.extend([0xFF, SOT, 0, 10, 0, 0]);
    bytes.extend(length.to_be_bytes());
    bytes.extend([0, 1]);
    bytes.extend(part);
    bytes.extend([0xFF, SOD]);
    bytes.extend(body);
    bytes.extend([0xFF, EOC]);
    bytes
}

fn refused(bytes: &[u8], size: Size) -> CodecError {
    read(bytes, size).map(|(head, _)| head).expect_err("it should be refused")
}

#[test]
fn headers_say_how_a_tile_is_coded() {
    let bytes = stream(0x8F, &[&STYLE, &STEPS], &[], &[1, 2, 3]);
    let (head, tiles) = read(&bytes, SIZE).unwrap();
    assert_eq!((head.precision, head.signed), (16, true));
    assert_eq!(head.tile(0), Area { left: 0, top: 0, right: 4, bottom: 3 });
    let [tile] = tiles.as_slice() else { panic!("{tiles:?}") };
    assert_eq!((tile.coding.component.block, tile.coding.component.reversible), ([6, 6], true));
    assert_eq!((tile.quantization.guard, tile.quantization.step(0, 0)), (2, Ok((16, 0))));
    assert_eq!(tile.parts, [&[1, 2, 3]]);
    // In a box, as some writers leave it.
    let boxed = [b"jP  \r\n jp2c".to_vec(), bytes].concat();
    assert!(read(&boxed, SIZE).is_ok());
}

#[test]
fn a_tile_and_a_component_have_the_last_word() {
    // Blocks of 4 x 4 for the component, of 8 x 8 for the tile.
    let own = [0xFF, COC, 0, 9, 0, 0, 0, 0, 0, 0, 1];
    let tiles_style = [0xFF, COD, 0, 12, 0, 0, 0, 1, 0, 0, 1, 1, 0, 1];
    let block = |segments: &[&[u8]], part: &[u8]| {
        let bytes = stream(15, segments, part, &[0]);
        read(&bytes, SIZE).unwrap().1[0].coding.component.block
    };
    assert_eq!(block(&[&own, &STYLE, &STEPS], &[]), [2, 2]);
    assert_eq!(block(&[&own, &STYLE, &STEPS], &tiles_style), [3, 3]);
    assert_eq!(block(&[&STYLE, &STEPS], &[&own[..], &tiles_style[..]].concat()), [2, 2]);
}

#[test]
fn headers_are_judged_before_decoding() {
    let with = |depth: u8, style: &[u8]| refused(&stream(depth, &[style, &STEPS], &[], &[0]), SIZE);
    let sound = stream(15, &[&STYLE, &STEPS], &[], &[0]);
    assert!(matches!(refused(&sound, Size { rows: 4, columns: 4 }), CodecError::Size { .. }));
    assert!(matches!(refused(&siz(0, 15), SIZE), CodecError::Damaged(_)));
    assert!(matches!(with(37, &STYLE), CodecError::Unsupported("samples of other than 2 to 16 bits")));
    let style = |at: usize, byte: u8| {
        let mut style = STYLE;
        style[at] = byte;
        style
    };
    assert_eq!(with(15, &style(9, 33)), CodecError::Damaged("it has more than 32 resolutions"));
    assert_eq!(with(15, &style(10, 5)), CodecError::Damaged("its code-blocks are too large"));
    assert_eq!(with(15, &style(7, 0)), CodecError::Damaged("it has no layers"));
    assert!(matches!(with(15, &style(12, 0x40)), CodecError::Unsupported(_)), "high throughput");
    assert!(matches!(with(15, &[]), CodecError::Damaged("it does not say how it is coded")));
    let precincts = [0xFF, COD, 0, 14, 1, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0x00, 0x10];
    assert_eq!(with(15, &precincts), CodecError::Damaged("its precincts are smaller than a coefficient"));
    let mut outside = sound;
    let tile = outside.windows(2).position(|bytes| bytes == [0xFF, SOT]).unwrap() + 5;
    outside[tile] = 1;
    assert_eq!(refused(&outside, SIZE), CodecError::Damaged("a tile lies outside the picture"));
}

#[test]
fn a_tile_that_reaches_past_the_end_or_never_comes_is_short() {
    let mut bytes = siz(4, 15);
    bytes.extend([0xFF, SOT, 0, 10, 0, 0, 0, 0, 1, 0, 0, 1, 0xFF, SOD, 0, 0]);
    assert_eq!(refused(&bytes, SIZE), CodecError::Short);
    let mut empty = siz(4, 15);
    empty.extend([0xFF, EOC]);
    assert_eq!(refused(&empty, SIZE), CodecError::Short);
}

#[test]
fn lists_are_no_longer_than_a_picture_needs() {
    // Every tile has its own.
    let mut steps = vec![0xFF, QCD, 0xFF, 0xFF, 0x40];
    steps.resize(2 + 0xFFFF, 0x80);
    let bytes = stream(15, &[&STYLE, &steps], &[], &[0]);
    assert_eq!(read(&bytes, SIZE).unwrap().1[0].quantization.steps.len(), BANDS_MAX);
    let orders = |n: usize, entry: [u8; 7]| {
        let mut segment = vec![0xFF, POC, 0, 2 + 7 * n as u8];
        segment.extend(entry.repeat(n));
        segment
    };
    let entry = [0, 0, 0, 1, 1, 1, 0];
    let half = orders(PROGRESSIONS_MAX / 2, entry);
    let bytes = stream(15, &[&STYLE, &STEPS, &half, &half], &[], &[0]);
    assert_eq!(read(&bytes, SIZE).unwrap().1[0].progressions.len(), PROGRESSIONS_MAX);
    let bytes = stream(15, &[&STYLE, &STEPS, &half, &half], &orders(PROGRESSIONS_MAX / 2, entry), &[0]);
    assert!(read(&bytes, SIZE).is_ok(), "a tile's own take the place of all");
    let bytes = stream(15, &[&STYLE, &STEPS, &half, &half, &orders(1, entry)], &[], &[0]);
    assert_eq!(refused(&bytes, SIZE), CodecError::Unsupported("dozens of orders of packets"));
    let other = orders(1, [0, 1, 0, 1, 1, 2, 0]);
    assert!(matches!(refused(&stream(15, &[&STYLE, &STEPS, &other], &[], &[0]), SIZE), CodecError::Unsupported(_)));
}

#[test]
fn an_end_marker_may_be_missing() {
    let bytes = stream(15, &[&STYLE, &STEPS], &[], &[7, 8]);
    assert_eq!(read(&bytes[..bytes.len() - 2], SIZE).unwrap().1[0].parts, [&[7, 8]]);
    assert_eq!(refused(&bytes[..bytes.len() - 3], SIZE), CodecError::Short);
}

#[test]
fn a_last_part_without_a_length_reaches_to_the_end() {
    let mut bytes = stream(15, &[&STYLE, &STEPS], &[], &[7, 8]);
    let length = bytes.windows(2).position(|bytes| bytes == [0xFF, SOT]).unwrap() + 6;
    bytes[length..length + 4].fill(0);
    assert_eq!(read(&bytes, SIZE).unwrap().1[0].parts, [&[7, 8]]);
}
