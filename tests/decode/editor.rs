//! Takes a flat explicit little-endian file apart, lets single elements be changed, and puts it together again.

use super::data;

const MARK_END: usize = 132;

/// One element of the data set.
struct Element {
    tag: (u16, u16),
    vr: [u8; 2],
    value: Vec<u8>,
}

/// A file under change.
pub struct Editor {
    /// Preamble, mark and file meta information.
    head: Vec<u8>,
    elements: Vec<Element>,
}

fn is_short(vr: [u8; 2]) -> bool {
    !matches!(&vr, b"OB" | b"OW" | b"SQ" | b"UN" | b"UT" | b"UC" | b"UR")
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | usize::from(*byte))
}

impl Editor {
    /// The unsigned 12-bit phantom.
    pub fn new() -> Self {
        Editor::of("unsigned12_explicit_le.dcm")
    }

    pub fn of(name: &str) -> Self {
        let bytes = data(name);
        let mut editor = Editor { head: Vec::new(), elements: Vec::new() };
        let mut at = MARK_END;
        while at < bytes.len() {
            let tag = (number(&bytes[at..at + 2]) as u16, number(&bytes[at + 2..at + 4]) as u16);
            let vr = [bytes[at + 4], bytes[at + 5]];
            let (length, start) = if is_short(vr) {
                (number(&bytes[at + 6..at + 8]), at + 8)
            } else {
                (number(&bytes[at + 8..at + 12]), at + 12)
            };
            if tag.0 == 2 {
                editor.head = bytes[..start + length].to_vec();
            } else {
                editor.elements.push(Element { tag, vr, value: bytes[start..start + length].to_vec() });
            }
            at = start + length;
        }
        editor
    }

    pub fn set(mut self, group: u16, element: u16, vr: &[u8; 2], value: &[u8]) -> Self {
        self.elements.retain(|other| other.tag != (group, element));
        self.elements.push(Element { tag: (group, element), vr: *vr, value: value.to_vec() });
        self.elements.sort_by_key(|element| element.tag);
        self
    }

    pub fn text(self, group: u16, element: u16, vr: &[u8; 2], value: &str) -> Self {
        self.set(group, element, vr, value.as_bytes())
    }

    pub fn us(self, group: u16, element: u16, value: u16) -> Self {
        self.set(group, element, b"US", &value.to_le_bytes())
    }

    pub fn without(mut self, group: u16, element: u16) -> Self {
        self.elements.retain(|other| other.tag != (group, element));
        self
    }

    /// The value of an element.
    pub fn value(&self, group: u16, element: u16) -> &[u8] {
        &self.elements.iter().find(|other| other.tag == (group, element)).unwrap().value
    }

    pub fn pixels(self, pixels: &[u8]) -> Self {
        self.set(0x7FE0, 0x0010, b"OW", pixels)
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = self.head.clone();
        for Element { tag, vr, value } in &self.elements {
            bytes.extend(tag.0.to_le_bytes());
            bytes.extend(tag.1.to_le_bytes());
            bytes.extend(vr);
            if is_short(*vr) {
                bytes.extend((value.len() as u16).to_le_bytes());
            } else {
                bytes.extend([0, 0]);
                bytes.extend((value.len() as u32).to_le_bytes());
            }
            bytes.extend(value);
        }
        bytes
    }
}
