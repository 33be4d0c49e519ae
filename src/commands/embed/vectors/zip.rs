//! A zip file with one stored entry, as `numpy.savez` makes it (PKWARE, APPNOTE 6.3.10), with the fields for
//! large files, so that the beginning has one length.

use crc32fast::Hasher;

use super::VectorWriter;

const NAME: &[u8] = b"embeddings.npy";
/// 4.5: what the fields for large files need.
const VERSION: u16 = 45;
/// Midnight of the first day that zip files know: the same vectors make the same file.
const DATE: u32 = 0x0021_0000;
/// Stands for a size that is in the field for large files.
const ELSEWHERE: u32 = u32::MAX;

/// The entry's header and the header of its array.
pub(super) fn beginning(array: &[u8], rows: u64, writer: &VectorWriter, body: &Hasher) -> Vec<u8> {
    let size = array.len() as u64 + writer.body_bytes(rows);
    let mut bytes = b"PK\x03\x04".to_vec();
    common(checksum(array, body), &mut bytes);
    bytes.extend((NAME.len() as u16).to_le_bytes());
    bytes.extend(20u16.to_le_bytes());
    bytes.extend(NAME);
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(16u16.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(array);
    bytes
}

/// The directory.
pub(super) fn end(array: &[u8], rows: u64, writer: &VectorWriter, body: &Hasher) -> Vec<u8> {
    let size = array.len() as u64 + writer.body_bytes(rows);
    let start = beginning(array, rows, writer, body).len() as u64 + writer.body_bytes(rows);
    let mut bytes = b"PK\x01\x02".to_vec();
    // Made by a Unix system.
    bytes.extend((3 << 8 | VERSION).to_le_bytes());
    common(checksum(array, body), &mut bytes);
    bytes.extend((NAME.len() as u16).to_le_bytes());
    bytes.extend(28u16.to_le_bytes());
    // No comment, first disk, no internal attributes; a regular file, mode 0644; at the beginning.
    bytes.extend([0; 6]);
    bytes.extend((0o100_644u32 << 16).to_le_bytes());
    bytes.extend(ELSEWHERE.to_le_bytes());
    bytes.extend(NAME);
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(24u16.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(size.to_le_bytes());
    bytes.extend(0u64.to_le_bytes());

    let directory = bytes.len() as u64;
    bytes.extend(b"PK\x06\x06");
    bytes.extend(44u64.to_le_bytes());
    bytes.extend((3 << 8 | VERSION).to_le_bytes());
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 8]);
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(1u64.to_le_bytes());
    bytes.extend(directory.to_le_bytes());
    bytes.extend(start.to_le_bytes());

    bytes.extend(b"PK\x06\x07");
    bytes.extend(0u32.to_le_bytes());
    bytes.extend((start + directory).to_le_bytes());
    bytes.extend(1u32.to_le_bytes());

    bytes.extend(b"PK\x05\x06");
    bytes.extend([0; 4]);
    bytes.extend(1u16.to_le_bytes());
    bytes.extend(1u16.to_le_bytes());
    bytes.extend((directory as u32).to_le_bytes());
    bytes.extend(ELSEWHERE.to_le_bytes());
    bytes.extend(0u16.to_le_bytes());
    bytes
}

/// Version, flags, method (stored), date, checksum and sizes, as both headers have them.
fn common(checksum: u32, bytes: &mut Vec<u8>) {
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend([0; 4]);
    bytes.extend(DATE.to_le_bytes());
    bytes.extend(checksum.to_le_bytes());
    bytes.extend(ELSEWHERE.to_le_bytes());
    bytes.extend(ELSEWHERE.to_le_bytes());
}

fn checksum(array: &[u8], body: &Hasher) -> u32 {
    let mut all = Hasher::new();
    all.update(array);
    all.combine(body);
    all.finalize()
}
