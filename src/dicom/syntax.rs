//! Transfer syntaxes that are read (PS3.5 section 10): byte order, VR and codec of each. Knows no file.

/// How the pixel data is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Codec {
    /// As it stands.
    Native,
    /// RLE, PS3.5 annex G.
    Rle,
    /// JPEG, ITU-T T.81: baseline, extended and lossless.
    Jpeg,
    /// JPEG-LS, ITU-T T.87.
    JpegLs,
    /// JPEG 2000, ITU-T T.800.
    Jpeg2000,
}

/// Byte order and VR of a data set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Encoding {
    /// The VR stands in the file.
    pub explicit: bool,
    /// Most significant byte first.
    pub big_endian: bool,
}

impl Encoding {
    /// Encoding of the file meta information and of most files.
    pub const EXPLICIT_LE: Encoding = Encoding { explicit: true, big_endian: false };
    /// Encoding of the DICOM default transfer syntax, and of sequences of unknown VR in any syntax.
    pub const IMPLICIT_LE: Encoding = Encoding { explicit: false, big_endian: false };
    /// Encoding of the retired big-endian syntax.
    pub const EXPLICIT_BE: Encoding = Encoding { explicit: true, big_endian: true };
}

/// One transfer syntax.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TransferSyntax {
    /// Its UID.
    pub uid: &'static str,
    /// Of the data set.
    pub encoding: Encoding,
    /// The data set is one deflate stream.
    pub deflated: bool,
    /// Of the pixel data.
    pub codec: Codec,
    /// The syntax exists to store pictures with loss.
    pub lossy: bool,
}

const fn native(uid: &'static str, encoding: Encoding, deflated: bool) -> TransferSyntax {
    TransferSyntax { uid, encoding, deflated, codec: Codec::Native, lossy: false }
}

const fn encapsulated(uid: &'static str, codec: Codec, lossy: bool) -> TransferSyntax {
    TransferSyntax { uid, encoding: Encoding::EXPLICIT_LE, deflated: false, codec, lossy }
}

/// Every transfer syntax that is read; all others are refused by name.
const SYNTAXES: &[TransferSyntax] = &[
    native("1.2.840.10008.1.2", Encoding::IMPLICIT_LE, false),
    native("1.2.840.10008.1.2.1", Encoding::EXPLICIT_LE, false),
    native("1.2.840.10008.1.2.1.99", Encoding::EXPLICIT_LE, true),
    native("1.2.840.10008.1.2.2", Encoding::EXPLICIT_BE, false),
    encapsulated("1.2.840.10008.1.2.5", Codec::Rle, false),
    encapsulated("1.2.840.10008.1.2.4.50", Codec::Jpeg, true),
    encapsulated("1.2.840.10008.1.2.4.51", Codec::Jpeg, true),
    encapsulated("1.2.840.10008.1.2.4.57", Codec::Jpeg, false),
    encapsulated("1.2.840.10008.1.2.4.70", Codec::Jpeg, false),
    encapsulated("1.2.840.10008.1.2.4.80", Codec::JpegLs, false),
    encapsulated("1.2.840.10008.1.2.4.81", Codec::JpegLs, true),
    encapsulated("1.2.840.10008.1.2.4.90", Codec::Jpeg2000, false),
    encapsulated("1.2.840.10008.1.2.4.91", Codec::Jpeg2000, true),
];

/// The transfer syntax with that UID, if it is read.
pub(super) fn of_uid(uid: &str) -> Option<&'static TransferSyntax> {
    SYNTAXES.iter().find(|syntax| syntax.uid == uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syntaxes_are_found_by_their_whole_uid() {
        assert_eq!(of_uid("1.2.840.10008.1.2.4.70").map(|syntax| syntax.codec), Some(Codec::Jpeg));
        assert_eq!(of_uid("1.2.840.10008.1.2.1").map(|syntax| syntax.deflated), Some(false));
        assert_eq!(of_uid("1.2.840.10008.1.2.1.99").map(|syntax| syntax.deflated), Some(true));
        assert!(of_uid("1.2.840.10008.1.2.4.201").is_none());
        assert!(of_uid("").is_none());
    }
}
