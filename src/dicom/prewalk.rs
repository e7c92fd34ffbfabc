//! The bounded walk over an encoded data set: proves that every length fits and that nesting is shallow, and notes
//! where the few elements that make a slice lie. Only those reach the parser of values, so that the work and the
//! memory that a file can cause are bounded by its size. Iterative; allocates nothing that a file announces.

use std::ops::Range;

use dicom_core::Tag;

use super::syntax::Encoding;
use super::tags;
use crate::reject::{RejectCode, Rejection};

/// Deepest nesting of sequences. Real CT files stay below 10; a recursive parser overflows its stack near 1,500.
pub const DEPTH_MAX: usize = 64;

/// Most elements, items and single values of wanted sequences in a data set. An enhanced CT of 2,000 frames holds about
/// 200,000. Each costs the parser of values some hundred bytes.
pub const ELEMENTS_MAX: usize = 500_000;

/// Longest value of one element that is read. Values of CT have less than a hundred bytes; they are read anew for
/// every frame.
pub const VALUE_BYTES_MAX: usize = 1 << 10;

/// Most values of one element that is read.
pub const VALUES_MAX: usize = 64;

/// Longest wanted sequence: the functional groups of 2,000 frames take about 8 MiB.
pub const SEQUENCE_BYTES_MAX: usize = 32 << 20;

const ITEM: Tag = Tag(0xFFFE, 0xE000);
const ITEM_END: Tag = Tag(0xFFFE, 0xE00D);
const SEQUENCE_END: Tag = Tag(0xFFFE, 0xE0DD);
const UNDEFINED: u32 = 0xFFFF_FFFF;

/// What the walk found.
#[derive(Debug, Default)]
pub(super) struct Walk {
    /// Wanted elements with header and value, in the order of the file, each tag once.
    pub elements: Vec<(Tag, Range<usize>)>,
    /// The picture.
    pub pixels: Option<PixelData>,
    /// What the picture's element announces, if the walk ended before it.
    pub announced: Option<Announced>,
    /// Value of PatientID. Never handed to the parser of values; only a digest of it is ever made.
    pub patient: Option<Range<usize>>,
}

/// Pixel data that was not looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Announced {
    /// Where its value begins.
    pub start: usize,
    /// Its length; nothing if it is encapsulated.
    pub length: Option<u32>,
}

/// Where the pixel data lies.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PixelData {
    /// One run of bytes.
    Native(Range<usize>),
    /// The basic offset table, then the fragments (PS3.5 A.4).
    Encapsulated {
        /// Its first item.
        offsets: Range<usize>,
        /// All further items.
        fragments: Vec<Range<usize>>,
    },
}

/// Walks over `data` up to and including the pixel data; what follows it is never read.
pub(super) fn walk(data: &[u8], encoding: Encoding) -> Result<Walk, Rejection> {
    walk_with(data, encoding, false)
}

/// Walks over the beginning of a data set, up to the pixel data, which need not be there. A beginning that ends before
/// the pixel data gives a walk without [`Walk::announced`], or is truncated.
pub(super) fn walk_header(data: &[u8], encoding: Encoding) -> Result<Walk, Rejection> {
    walk_with(data, encoding, true)
}

fn walk_with(data: &[u8], encoding: Encoding, header_only: bool) -> Result<Walk, Rejection> {
    let found = Walk::default();
    let mut walker =
        Walker { data, position: 0, encoding, header_only, stack: Vec::new(), open: None, n_elements: 0, found };
    walker.run()?;
    Ok(walker.found)
}

/// A sequence or an item that is not closed yet.
struct Level {
    is_sequence: bool,
    /// Where it ends, if its length stands in the file.
    end: Option<usize>,
    /// Nothing in it may reach past this.
    limit: usize,
    encoding: Encoding,
}

struct Walker<'a> {
    data: &'a [u8],
    position: usize,
    encoding: Encoding,
    /// Pixel data is not entered.
    header_only: bool,
    stack: Vec<Level>,
    /// The wanted sequence at the top level that is not closed yet, and its start.
    open: Option<(Tag, usize)>,
    n_elements: usize,
    found: Walk,
}

/// The head of an element.
struct Head {
    tag: Tag,
    /// Absent in implicit VR and of items.
    vr: Option<[u8; 2]>,
    length: u32,
}

enum Next {
    More,
    Done,
}

impl Walker<'_> {
    fn run(&mut self) -> Result<(), Rejection> {
        loop {
            self.close_ended();
            if self.stack.is_empty() && self.position == self.data.len() {
                return Ok(());
            }
            let next = match self.stack.last() {
                Some(level) if level.is_sequence => self.item()?,
                _ => self.element()?,
            };
            if matches!(next, Next::Done) {
                return Ok(());
            }
        }
    }

    /// Leaves all levels whose announced end is reached.
    fn close_ended(&mut self) {
        while self.stack.last().is_some_and(|level| level.end == Some(self.position)) {
            self.leave();
        }
    }

    fn leave(&mut self) {
        self.stack.pop();
        if self.stack.is_empty()
            && let Some((tag, start)) = self.open.take()
        {
            self.note(tag, start..self.position);
        }
    }

    /// The first of several elements with one tag counts.
    fn note(&mut self, tag: Tag, range: Range<usize>) {
        if !self.found.elements.iter().any(|(known, _)| *known == tag) {
            self.found.elements.push((tag, range));
        }
    }

    fn limit(&self) -> usize {
        self.stack.last().map_or(self.data.len(), |level| level.limit)
    }

    fn encoding(&self) -> Encoding {
        self.stack.last().map_or(self.encoding, |level| level.encoding)
    }

    /// One item of a sequence, or the sequence's end.
    fn item(&mut self) -> Result<Next, Rejection> {
        let head = self.tag_and_length()?;
        match head.tag {
            ITEM => self.enter(&head, false, self.encoding())?,
            SEQUENCE_END if self.stack.last().is_some_and(|level| level.end.is_none()) => self.leave(),
            other => return Err(corrupt(other, "stands where an item of a sequence must stand")),
        }
        Ok(Next::More)
    }

    /// One element of a data set or item, or the item's end.
    fn element(&mut self) -> Result<Next, Rejection> {
        let start = self.position;
        let head = self.head()?;
        if head.tag == ITEM_END && self.stack.last().is_some_and(|level| level.end.is_none()) {
            self.leave();
            return Ok(Next::More);
        }
        if head.tag.group() == 0xFFFE {
            return Err(corrupt(head.tag, "stands where a data element must stand"));
        }
        let top = self.stack.is_empty();
        if head.tag == tags::PIXEL_DATA && top {
            if self.header_only {
                let length = (head.length != UNDEFINED).then_some(head.length);
                self.found.announced = Some(Announced { start: self.position, length });
            } else {
                self.found.pixels = Some(self.pixel_data(&head)?);
            }
            return Ok(Next::Done);
        }
        let wanted = top && tags::is_wanted(head.tag);
        if let Some(encoding) = self.content_encoding(&head, wanted) {
            if wanted {
                self.open = Some((head.tag, start));
            }
            self.enter(&head, true, encoding)?;
        } else if head.length == UNDEFINED {
            self.skip_fragments(&head)?;
        } else {
            self.skip_value(&head, start, wanted)?;
        }
        Ok(Next::More)
    }

    /// The encoding inside, if the element is a sequence that is walked into. Sequences of announced length in
    /// implicit VR are opaque unless they are wanted: nobody else will look into them either.
    fn content_encoding(&self, head: &Head, wanted: bool) -> Option<Encoding> {
        let undefined = head.length == UNDEFINED;
        match head.vr {
            Some([b'S', b'Q']) => Some(self.encoding()),
            Some([b'U', b'N']) if undefined => Some(Encoding::IMPLICIT_LE),
            Some(_) => None,
            None => {
                let known = (wanted || self.open.is_some()) && tags::is_sequence(head.tag);
                (undefined || known).then_some(self.encoding())
            }
        }
    }

    fn enter(&mut self, head: &Head, is_sequence: bool, encoding: Encoding) -> Result<(), Rejection> {
        let depth = 1 + self.stack.iter().filter(|level| level.is_sequence).count();
        if is_sequence && depth > DEPTH_MAX {
            return Err(corrupt(head.tag, &format!("is nested deeper than {DEPTH_MAX} sequences")));
        }
        let limit = self.limit();
        let end = match head.length {
            UNDEFINED => None,
            length => Some(self.end_of(head.tag, length)?),
        };
        if is_sequence && self.open.is_some() && self.stack.is_empty() {
            self.check_size(head.tag, end.unwrap_or(self.position), SEQUENCE_BYTES_MAX)?;
        }
        self.stack.push(Level { is_sequence, end, limit: end.unwrap_or(limit), encoding });
        Ok(())
    }

    fn skip_value(&mut self, head: &Head, start: usize, wanted: bool) -> Result<(), Rejection> {
        let end = self.end_of(head.tag, head.length)?;
        self.judge_value(head, end, wanted)?;
        if head.tag == tags::PATIENT_ID && self.stack.is_empty() && self.found.patient.is_none() {
            self.found.patient = Some(self.position..end);
        }
        self.position = end;
        if wanted {
            self.note(head.tag, start..end);
        }
        if let Some((tag, begun)) = self.open
            && end - begun > SEQUENCE_BYTES_MAX
        {
            return Err(too_long(tag, SEQUENCE_BYTES_MAX));
        }
        Ok(())
    }

    /// Bounds what the parser of values will make of a value: it splits texts at every backslash, and of binary values
    /// it reads whole ones only and takes a rest for the next element.
    fn judge_value(&mut self, head: &Head, end: usize, wanted: bool) -> Result<(), Rejection> {
        let tag = head.tag;
        let is_read = wanted || (self.open.is_some() && tags::is_read_in_groups(tag));
        if is_read {
            self.check_size(tag, end, VALUE_BYTES_MAX)?;
        }
        if is_read || self.open.is_some() {
            let value = self.data.get(self.position..end).unwrap_or_default();
            if !value.len().is_multiple_of(tags::unit_bytes(tag, head.vr)) {
                return Err(corrupt(tag, "has a length that does not fit its value representation"));
            }
            let n_more = value.iter().filter(|byte| **byte == b'\\').count();
            if is_read && n_more >= VALUES_MAX {
                return Err(corrupt(tag, &format!("holds more than {VALUES_MAX} values")));
            }
            self.count(n_more)?;
        }
        Ok(())
    }

    fn count(&mut self, n_more: usize) -> Result<(), Rejection> {
        self.n_elements += n_more;
        if self.n_elements > ELEMENTS_MAX {
            let sentence = format!("it holds more than {ELEMENTS_MAX} elements");
            return Err(Rejection::new(RejectCode::Corrupt, sentence));
        }
        Ok(())
    }

    fn check_size(&self, tag: Tag, end: usize, max: usize) -> Result<(), Rejection> {
        if end.saturating_sub(self.position) > max { Err(too_long(tag, max)) } else { Ok(()) }
    }

    /// Encapsulated data of an icon, or of another element that is not read.
    fn skip_fragments(&mut self, head: &Head) -> Result<(), Rejection> {
        match head.vr {
            Some([b'O', b'B' | b'W']) => self.fragments(head.tag).map(drop),
            _ => Err(corrupt(head.tag, "has no length, which only sequences and encapsulated pixels may lack")),
        }
    }

    fn pixel_data(&mut self, head: &Head) -> Result<PixelData, Rejection> {
        if head.length != UNDEFINED {
            let end = self.end_of(head.tag, head.length)?;
            return Ok(PixelData::Native(self.position..end));
        }
        let mut items = self.fragments(head.tag)?;
        if items.is_empty() {
            return Err(corrupt(head.tag, "is encapsulated without an offset table"));
        }
        let offsets = items.remove(0);
        Ok(PixelData::Encapsulated { offsets, fragments: items })
    }

    /// The items of encapsulated data up to its delimiter.
    fn fragments(&mut self, of: Tag) -> Result<Vec<Range<usize>>, Rejection> {
        let mut items = Vec::new();
        loop {
            let head = self.tag_and_length()?;
            match head.tag {
                SEQUENCE_END => return Ok(items),
                ITEM if head.length != UNDEFINED => {
                    let end = self.end_of(of, head.length)?;
                    if let Some((tag, begun)) = self.open
                        && end - begun > SEQUENCE_BYTES_MAX
                    {
                        return Err(too_long(tag, SEQUENCE_BYTES_MAX));
                    }
                    items.push(self.position..end);
                    self.position = end;
                }
                _ => return Err(corrupt(of, "holds something other than fragments")),
            }
        }
    }

    /// Where a value of `length` bytes ends, if it fits.
    fn end_of(&self, tag: Tag, length: u32) -> Result<usize, Rejection> {
        let end = usize::try_from(length).ok().and_then(|length| self.position.checked_add(length));
        match end {
            Some(end) if end <= self.limit() => Ok(end),
            Some(end) if end <= self.data.len() => Err(corrupt(tag, "reaches past the end of what contains it")),
            _ => {
                let left = self.data.len() - self.position;
                let sentence = format!("announces {length} bytes, but only {left} are left");
                Err(Rejection::of_tag(RejectCode::Truncated, tags::name(tag), sentence))
            }
        }
    }

    fn head(&mut self) -> Result<Head, Rejection> {
        let encoding = self.encoding();
        let tag = self.tag()?;
        if tag.group() == 0xFFFE || !encoding.explicit {
            return Ok(Head { tag, vr: None, length: self.u32()? });
        }
        let vr = self.take::<2>()?;
        if !vr.iter().all(u8::is_ascii_uppercase) {
            return Err(corrupt(tag, "has no value representation"));
        }
        let length = if is_short(vr) {
            u32::from(self.u16()?)
        } else {
            self.take::<2>()?;
            self.u32()?
        };
        Ok(Head { tag, vr: Some(vr), length })
    }

    fn tag_and_length(&mut self) -> Result<Head, Rejection> {
        Ok(Head { tag: self.tag()?, vr: None, length: self.u32()? })
    }

    fn tag(&mut self) -> Result<Tag, Rejection> {
        self.count(1)?;
        Ok(Tag(self.u16()?, self.u16()?))
    }

    fn u16(&mut self) -> Result<u16, Rejection> {
        let big_endian = self.encoding().big_endian;
        let bytes = self.take::<2>()?;
        Ok(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
    }

    fn u32(&mut self) -> Result<u32, Rejection> {
        let big_endian = self.encoding().big_endian;
        let bytes = self.take::<4>()?;
        Ok(if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Rejection> {
        let within = self.data.get(..self.limit()).unwrap_or_default();
        match within.get(self.position..).and_then(|rest| rest.first_chunk::<N>()) {
            Some(chunk) => {
                self.position += N;
                Ok(*chunk)
            }
            None if within.len() < self.data.len() => {
                Err(Rejection::new(RejectCode::Corrupt, "an item or sequence ends in the middle of an element"))
            }
            None => Err(Rejection::new(RejectCode::Truncated, "the file ends in the middle of its data set")),
        }
    }
}

fn corrupt(tag: Tag, what: &str) -> Rejection {
    Rejection::of_tag(RejectCode::Corrupt, tags::name(tag), format!("it {what}"))
}

fn too_long(tag: Tag, max: usize) -> Rejection {
    corrupt(tag, &format!("is longer than {max} bytes"))
}

/// VRs whose length takes two bytes (PS3.5 table 7.1-2); all others, future ones included, take four.
pub(super) fn is_short(vr: [u8; 2]) -> bool {
    const SHORT: &[&[u8; 2]] = &[
        b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS",
        b"ST", b"TM", b"UI", b"UL", b"US",
    ];
    SHORT.contains(&&vr)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn element(tag: Tag, vr: &[u8; 2], value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(tag.group().to_le_bytes());
        bytes.extend(tag.element().to_le_bytes());
        bytes.extend(vr);
        if is_short(*vr) {
            bytes.extend((value.len() as u16).to_le_bytes());
        } else {
            bytes.extend([0, 0]);
            bytes.extend((value.len() as u32).to_le_bytes());
        }
        bytes.extend(value);
        bytes
    }

    fn item(length: u32) -> Vec<u8> {
        let mut bytes = vec![0xFE, 0xFF, 0x00, 0xE0];
        bytes.extend(length.to_le_bytes());
        bytes
    }

    fn code(data: &[u8], encoding: Encoding) -> RejectCode {
        walk(data, encoding).unwrap_err().code
    }

    #[test]
    fn wanted_elements_and_pixels_are_located_and_the_rest_is_skipped() {
        let mut data = element(tags::ROWS, b"US", &[2, 0]);
        let rows = data.len();
        data.extend(element(Tag(0x0029, 0x1010), b"OB", &[7; 100]));
        data.extend(element(tags::PIXEL_DATA, b"OW", &[1, 2, 3, 4]));
        let end = data.len();
        data.extend([0xAB; 3]);
        let walk = walk(&data, Encoding::EXPLICIT_LE).unwrap();
        assert_eq!(walk.elements, [(tags::ROWS, 0..rows)]);
        assert_eq!(walk.pixels, Some(PixelData::Native(end - 4..end)));
    }

    #[test]
    fn lengths_past_the_end_are_told_apart_from_lengths_past_the_parent() {
        let mut past_file = element(tags::PIXEL_DATA, b"OW", &[0; 8]);
        past_file[8..12].copy_from_slice(&0xFFFF_FFF0u32.to_le_bytes());
        let rejection = walk(&past_file, Encoding::EXPLICIT_LE).unwrap_err();
        assert_eq!(rejection.code, RejectCode::Truncated);
        assert_eq!(rejection.tag.as_deref(), Some("(7FE0,0010) PixelData"));

        let mut inner = item(8);
        inner.extend(element(tags::ROWS, b"US", &[]));
        inner[14..16].copy_from_slice(&9u16.to_le_bytes());
        let mut past_parent = element(tags::PER_FRAME_FUNCTIONAL_GROUPS_SEQUENCE, b"SQ", &inner);
        past_parent.extend([0; 64]);
        assert_eq!(code(&past_parent, Encoding::EXPLICIT_LE), RejectCode::Corrupt);
    }

    #[test]
    fn nesting_is_bounded_in_every_encoding_of_length() {
        for explicit in [true, false] {
            let mut open = Vec::new();
            for _ in 0..2_000 {
                open.extend([0x00, 0x52, 0x29, 0x92]);
                if explicit {
                    open.extend(b"SQ\0\0");
                }
                open.extend(UNDEFINED.to_le_bytes());
                open.extend(item(UNDEFINED));
            }
            let encoding = Encoding { explicit, big_endian: false };
            let rejection = walk(&open, encoding).unwrap_err();
            assert_eq!(rejection.code, RejectCode::Corrupt);
            assert!(rejection.sentence.contains("nested deeper than 64"), "{rejection}");
        }
        let mut closed = Vec::new();
        for _ in 0..DEPTH_MAX + 1 {
            let mut outer = item(closed.len() as u32);
            outer.extend(&closed);
            closed = vec![0x00, 0x52, 0x29, 0x92];
            closed.extend((outer.len() as u32).to_le_bytes());
            closed.extend(outer);
        }
        assert_eq!(code(&closed, Encoding::IMPLICIT_LE), RejectCode::Corrupt);
    }

    #[test]
    fn a_wanted_value_is_short_and_single() {
        let long = element(tags::IMAGE_TYPE, b"UT", &vec![b'A'; VALUE_BYTES_MAX + 1]);
        assert_eq!(code(&long, Encoding::EXPLICIT_LE), RejectCode::Corrupt);
        let many = |n_values| element(tags::IMAGE_TYPE, b"UT", &vec![b'\\'; n_values - 1]);
        assert!(walk(&many(VALUES_MAX), Encoding::EXPLICIT_LE).is_ok());
        assert_eq!(code(&many(VALUES_MAX + 1), Encoding::EXPLICIT_LE), RejectCode::Corrupt);
    }

    #[test]
    fn binary_values_are_whole() {
        let code_of = |tag, vr: &[u8; 2], value: &[u8]| {
            walk(&element(tag, vr, value), Encoding::EXPLICIT_LE).err().map(|rejection| rejection.code)
        };
        assert_eq!(code_of(tags::IMAGE_POSITION_PATIENT, b"AT", &[0; 18]), Some(RejectCode::Corrupt));
        assert_eq!(code_of(tags::ROWS, b"US", &[0; 3]), Some(RejectCode::Corrupt));
        assert_eq!(code_of(tags::SLICE_THICKNESS, b"FD", &[0; 12]), Some(RejectCode::Corrupt));
        assert_eq!(code_of(tags::SLICE_THICKNESS, b"FD", &[0; 16]), None);
        assert_eq!(code_of(tags::SLICE_THICKNESS, b"DS", b"1.5"), None);
        assert_eq!(code_of(Tag(0x0009, 0x1001), b"FD", &[0; 3]), None, "nobody reads it");
        let implicit = [0x28, 0x00, 0x10, 0x00, 3, 0, 0, 0, 1, 2, 3];
        assert_eq!(code(&implicit, Encoding::IMPLICIT_LE), RejectCode::Corrupt);
    }

    #[test]
    fn values_in_functional_groups_are_bounded_like_those_of_the_top_level() {
        let groups = |tag: Tag, value: &[u8]| {
            let inner = element(tag, b"UT", value);
            let mut data = item(inner.len() as u32);
            data.extend(inner);
            element(tags::SHARED_FUNCTIONAL_GROUPS_SEQUENCE, b"SQ", &data)
        };
        let slopes = groups(tags::RESCALE_SLOPE, &[b'\\'; VALUES_MAX]);
        assert_eq!(code(&slopes, Encoding::EXPLICIT_LE), RejectCode::Corrupt);
        let private = |n_values| groups(Tag(0x0029, 0x1010), &vec![b'\\'; n_values]);
        assert!(walk(&private(VALUE_BYTES_MAX + 1), Encoding::EXPLICIT_LE).is_ok());
        assert_eq!(code(&private(ELEMENTS_MAX), Encoding::EXPLICIT_LE), RejectCode::Corrupt);
    }

    #[test]
    fn items_without_number_are_refused() {
        let mut data = vec![0x00, 0x52, 0x29, 0x92];
        data.extend(UNDEFINED.to_le_bytes());
        for _ in 0..ELEMENTS_MAX {
            data.extend(item(0));
        }
        let rejection = walk(&data, Encoding::IMPLICIT_LE).unwrap_err();
        assert!(rejection.sentence.contains("more than 500000 elements"), "{rejection}");
    }

    #[test]
    fn sequences_of_unknown_vr_are_implicit_inside() {
        let mut data = vec![0x09, 0x00, 0x01, 0x10];
        data.extend(b"UN\0\0");
        data.extend(UNDEFINED.to_le_bytes());
        data.extend(item(UNDEFINED));
        data.extend([0x28, 0x00, 0x10, 0x00, 2, 0, 0, 0, 5, 0]);
        data.extend([0xFE, 0xFF, 0x0D, 0xE0, 0, 0, 0, 0]);
        data.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        data.extend(element(tags::ROWS, b"US", &[2, 0]));
        let walk = walk(&data, Encoding::EXPLICIT_LE).unwrap();
        assert_eq!(walk.elements.len(), 1);
    }

    #[test]
    fn a_missing_delimiter_is_a_truncated_file() {
        let mut data = vec![0xE0, 0x7F, 0x10, 0x00];
        data.extend(b"OB\0\0");
        data.extend(UNDEFINED.to_le_bytes());
        data.extend(item(0));
        data.extend(item(2));
        data.extend([1, 2]);
        assert_eq!(code(&data, Encoding::EXPLICIT_LE), RejectCode::Truncated);
        data.extend([0xFE, 0xFF, 0xDD, 0xE0, 0, 0, 0, 0]);
        let fragments = match walk(&data, Encoding::EXPLICIT_LE).unwrap().pixels {
            Some(PixelData::Encapsulated { offsets, fragments }) => {
                assert!(offsets.is_empty());
                fragments
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(fragments.as_slice(), std::slice::from_ref(&(28..30)));
    }
}
