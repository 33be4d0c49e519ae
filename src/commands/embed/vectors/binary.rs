//! Headers of binary formats, of one length whatever the number of rows.

use crate::cli::embed::VectorType;

/// The header of NumPy's format 1.0 (numpy.lib.format): magic, version, length, a dictionary, blanks up to a
/// multiple of 64 bytes.
pub(super) fn npy_header(dtype: VectorType, rows: u64, columns: usize) -> Vec<u8> {
    /// Room for any number of rows.
    const LENGTH: usize = 128;
    let kind = match dtype {
        VectorType::F32 => "<f4",
        VectorType::F16 => "<f2",
        VectorType::Int8 => "|i1",
        VectorType::Binary => "|u1",
    };
    let mut header = b"\x93NUMPY\x01\x00".to_vec();
    header.extend(((LENGTH - 10) as u16).to_le_bytes());
    header.extend(
        format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({rows}, {columns}), }}").bytes(),
    );
    header.resize(LENGTH - 1, b' ');
    header.push(b'\n');
    header
}

/// The header of a safetensors file with one tensor: its length, JSON, blanks.
pub(super) fn safetensors_header(dtype: VectorType, rows: u64, columns: usize) -> Vec<u8> {
    const LENGTH: usize = 192;
    let (kind, size) = match dtype {
        VectorType::F32 => ("F32", 4),
        VectorType::F16 => ("F16", 2),
        VectorType::Int8 => ("I8", 1),
        VectorType::Binary => ("U8", 1),
    };
    let bytes = rows * columns as u64 * size;
    let mut header = ((LENGTH - 8) as u64).to_le_bytes().to_vec();
    header.extend(
        format!(
            "{{\"embeddings\":{{\"dtype\":\"{kind}\",\"shape\":[{rows},{columns}],\"data_offsets\":[0,{bytes}]}}}}"
        )
        .bytes(),
    );
    header.resize(LENGTH, b' ');
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_keep_their_length_and_end_as_they_must() {
        for rows in [0, 1, 1_000_000, u64::from(u32::MAX)] {
            for dtype in [VectorType::F32, VectorType::F16, VectorType::Int8, VectorType::Binary] {
                let npy = npy_header(dtype, rows, 1 << 20);
                assert_eq!((npy.len(), npy.last()), (128, Some(&b'\n')));
                assert!(String::from_utf8_lossy(&npy).contains(&format!("({rows}, 1048576), }}")));
                let safetensors = safetensors_header(dtype, rows, 1 << 20);
                assert_eq!(safetensors.len(), 192);
                let json: serde_json::Value = serde_json::from_slice(&safetensors[8..]).unwrap();
                assert_eq!(json["embeddings"]["shape"][0], rows);
            }
        }
    }
}
