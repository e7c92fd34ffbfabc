//! The container of a DICOM file (PS3.10): preamble, file meta information and the data set behind it, inflated if
//! need be. Knows no attribute of the data set.

use std::borrow::Cow;
use std::io::{ErrorKind, Read};

use dicom_core::Tag;
use flate2::read::DeflateDecoder;

use super::AdmissionRules;
use super::prewalk::is_short;
use super::syntax::{self, TransferSyntax};
use super::tags;
use super::text::{shown, trimmed};
use crate::reject::{RejectCode, Rejection};

const PREAMBLE_BYTES: usize = 128;
const MAGIC: &[u8; 4] = b"DICM";
/// Where the mark of every DICOM file ends.
pub(super) const MARK_END: usize = PREAMBLE_BYTES + MAGIC.len();
/// SOP class of a media directory (PS3.4 annex B).
const MEDIA_DIRECTORY: &str = "1.2.840.10008.1.3.10";

/// A file taken apart.
#[derive(Debug)]
pub(super) struct Part10<'a> {
    /// From the file meta information.
    pub syntax: &'static TransferSyntax,
    /// MediaStorageSOPClassUID, empty if missing. Not always a legal UID.
    pub sop_class: String,
    /// MediaStorageSOPInstanceUID, empty if missing. Not always a legal UID.
    pub sop_instance: String,
    /// The data set in `syntax.encoding`.
    pub data_set: Cow<'a, [u8]>,
}

/// Takes a file apart.
pub(super) fn open<'a>(bytes: &'a [u8], rules: &AdmissionRules) -> Result<Part10<'a>, Rejection> {
    if bytes.is_empty() {
        return Err(Rejection::new(RejectCode::Empty, "the file is empty"));
    }
    // Preambles are never looked at: programs hide in them.
    let behind = bytes.get(PREAMBLE_BYTES..).and_then(|rest| rest.strip_prefix(MAGIC));
    let Some(behind) = behind else {
        return Err(Rejection::new(
            RejectCode::NotDicom,
            "no DICM mark stands at byte 128, so it is no DICOM Part 10 file",
        ));
    };
    let meta = Meta::read(behind)?;
    if meta.sop_class == MEDIA_DIRECTORY {
        return Err(media_directory());
    }
    let syntax = meta.syntax()?;
    let body = behind.get(meta.length..).unwrap_or_default();
    let data_set = if syntax.deflated { Cow::Owned(inflate(body, rules)?) } else { Cow::Borrowed(body) };
    Ok(Part10 { syntax, sop_class: meta.sop_class, sop_instance: meta.sop_instance, data_set })
}

/// The refusal of a DICOMDIR.
pub(super) fn media_directory() -> Rejection {
    Rejection::new(RejectCode::DicomDir, "it is a media directory, which lists files and holds no picture")
}

#[derive(Default)]
struct Meta {
    transfer_syntax: String,
    sop_class: String,
    sop_instance: String,
    /// Bytes it takes up.
    length: usize,
}

impl Meta {
    /// Reads elements as long as they are of group 2; the group length is often wrong and is not believed.
    fn read(data: &[u8]) -> Result<Meta, Rejection> {
        let mut meta = Meta::default();
        let mut rest = data;
        while let Some((tag, value, behind)) = element(rest)? {
            let text = || trimmed(&String::from_utf8_lossy(value)).to_string();
            match tag {
                tags::TRANSFER_SYNTAX_UID => meta.transfer_syntax = text(),
                tags::MEDIA_STORAGE_SOP_CLASS_UID => meta.sop_class = text(),
                tags::MEDIA_STORAGE_SOP_INSTANCE_UID => meta.sop_instance = text(),
                _ => {}
            }
            rest = behind;
        }
        meta.length = data.len() - rest.len();
        Ok(meta)
    }

    fn syntax(&self) -> Result<&'static TransferSyntax, Rejection> {
        let tag = || tags::name(tags::TRANSFER_SYNTAX_UID);
        if self.transfer_syntax.is_empty() {
            let sentence = "the file meta information does not name the transfer syntax";
            return Err(Rejection::of_tag(RejectCode::Corrupt, tag(), sentence));
        }
        syntax::of_uid(&self.transfer_syntax).ok_or_else(|| {
            let sentence = format!("transfer syntax {} is not supported", shown(&self.transfer_syntax));
            Rejection::of_tag(RejectCode::UnsupportedTransferSyntax, tag(), sentence)
        })
    }
}

/// Tag and value of the first element, and what stands behind it; nothing once group 2 is over.
type MetaElement<'a> = (Tag, &'a [u8], &'a [u8]);

fn element(data: &[u8]) -> Result<Option<MetaElement<'_>>, Rejection> {
    let Some((&[group_low, group_high, low, high], rest)) = data.split_first_chunk::<4>() else {
        return Ok(None);
    };
    let tag = Tag(u16::from_le_bytes([group_low, group_high]), u16::from_le_bytes([low, high]));
    if tag.group() != 0x0002 {
        return Ok(None);
    }
    let cut = || Rejection::of_tag(RejectCode::Truncated, tags::name(tag), "the file ends in its meta information");
    let (&[vr0, vr1, a, b], rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
    if !vr0.is_ascii_uppercase() || !vr1.is_ascii_uppercase() {
        let sentence = "the file meta information is not in explicit VR little endian";
        return Err(Rejection::of_tag(RejectCode::Corrupt, tags::name(tag), sentence));
    }
    let (length, rest) = if is_short([vr0, vr1]) {
        (usize::from(u16::from_le_bytes([a, b])), rest)
    } else {
        let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(cut)?;
        (usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut())?, rest)
    };
    let (value, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
    Ok(Some((tag, value, rest)))
}

/// Inflates as much as the rules allow. The first pass only counts, so that nothing is allocated for a bomb and no more
/// than is needed for anything else.
fn inflate(deflated: &[u8], rules: &AdmissionRules) -> Result<Vec<u8>, Rejection> {
    let bytes_max = rules.decoded_bytes_max(deflated.len());
    let source = || DeflateDecoder::new(deflated).take(bytes_max.saturating_add(1));
    let n_bytes = std::io::copy(&mut source(), &mut std::io::sink()).map_err(|error| broken_stream(&error))?;
    if n_bytes > bytes_max {
        let key = rules.decoded_key(deflated.len());
        let sentence =
            format!("its deflated data set of {} bytes grows past {bytes_max} bytes ({key})", deflated.len());
        return Err(Rejection::new(RejectCode::TooLarge, sentence));
    }
    let mut inflated = vec![0; usize::try_from(n_bytes).unwrap_or(usize::MAX)];
    source().read_exact(&mut inflated).map_err(|error| broken_stream(&error))?;
    Ok(inflated)
}

fn broken_stream(error: &std::io::Error) -> Rejection {
    match error.kind() {
        ErrorKind::UnexpectedEof => {
            Rejection::new(RejectCode::Truncated, "the file ends in the middle of its deflated data set")
        }
        _ => Rejection::new(RejectCode::Corrupt, "its deflated data set cannot be inflated"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::DeflateEncoder;

    use super::*;

    fn file(uid: &str, body: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; PREAMBLE_BYTES];
        bytes.extend(MAGIC);
        bytes.extend([2, 0, 0x10, 0, b'U', b'I', uid.len() as u8, 0]);
        bytes.extend(uid.as_bytes());
        bytes.extend(body);
        bytes
    }

    fn code(bytes: &[u8]) -> RejectCode {
        open(bytes, &AdmissionRules::default()).unwrap_err().code
    }

    #[test]
    fn files_without_the_mark_are_not_dicom() {
        assert_eq!(code(b""), RejectCode::Empty);
        assert_eq!(code(b"DICM"), RejectCode::NotDicom);
        assert_eq!(code(&[0; 4096]), RejectCode::NotDicom);
    }

    #[test]
    fn meta_information_names_a_known_transfer_syntax() {
        assert_eq!(code(&file("", b"")), RejectCode::Corrupt);
        assert_eq!(code(&file("1.2.840.10008.1.2.4.201\0", b"")), RejectCode::UnsupportedTransferSyntax);
        let bytes = file("1.2.840.10008.1.2\0", b"body");
        let part10 = open(&bytes, &AdmissionRules::default()).unwrap();
        assert_eq!(part10.syntax.uid, "1.2.840.10008.1.2");
        assert_eq!(part10.data_set.as_ref(), b"body");
    }

    #[test]
    fn cut_meta_information_is_truncated() {
        let bytes = file("1.2.840.10008.1.2\0", b"");
        for length in PREAMBLE_BYTES + MAGIC.len() + 4..bytes.len() {
            assert_eq!(code(&bytes[..length]), RejectCode::Truncated, "{length}");
        }
    }

    #[test]
    fn inflation_stops_at_the_cap() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
        let deflated = encoder.finish().unwrap();
        let bytes = file("1.2.840.10008.1.2.1.99", &deflated);
        let rules = |inflated_bytes_max| AdmissionRules { inflated_bytes_max, ..AdmissionRules::default() };
        assert_eq!(open(&bytes, &rules(1 << 20)).unwrap().data_set.len(), 1 << 20);
        assert_eq!(open(&bytes, &rules((1 << 20) - 1)).unwrap_err().code, RejectCode::TooLarge);
        assert_eq!(code(&bytes[..bytes.len() - 20]), RejectCode::Truncated);
    }

    #[test]
    fn inflation_stops_where_no_picture_is_so_empty() {
        let mut encoder = DeflateEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&vec![0; 16 << 20]).unwrap();
        let bytes = file("1.2.840.10008.1.2.1.99", &encoder.finish().unwrap());
        let rejection = open(&bytes, &AdmissionRules::default()).unwrap_err();
        assert_eq!(rejection.code, RejectCode::TooLarge);
        assert!(rejection.sentence.contains("admission.expansion_max"), "{rejection}");
        let rules = AdmissionRules { expansion_max: 2000, ..AdmissionRules::default() };
        assert_eq!(open(&bytes, &rules).unwrap().data_set.len(), 16 << 20);
    }
}
