//! Packed keys and values: MLX's affine quantization, element = scale * number + bias in groups.

use mlx_rs::{Array, ops};

use crate::error::{Code, Error, Result};

/// The form of packed keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KvQuantization {
    bits: usize,
    group: usize,
}

/// Sizes of groups that MLX has.
const GROUPS: [usize; 3] = [32, 64, 128];

impl KvQuantization {
    /// Of `bits` 4 or 8, in groups of 32, 64 or 128 elements of a head.
    ///
    /// # Errors
    /// INVALID_REQUEST for other numbers.
    pub fn new(bits: usize, group: usize) -> Result<Self> {
        if bits != 4 && bits != 8 {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("keys and values cannot be kept in {bits} bits"),
            )
            .hint("4, 8, 16 and 32 bits are supported"));
        }
        if !GROUPS.contains(&group) {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("keys and values cannot be packed in groups of {group}"),
            )
            .hint("groups of 32, 64 and 128 elements are supported"));
        }
        Ok(Self { bits, group })
    }

    pub fn bits(self) -> usize {
        self.bits
    }

    pub fn group(self) -> usize {
        self.group
    }

    /// Whether heads of this width can be packed.
    pub(super) fn check(self, width: usize) -> Result<()> {
        if width.is_multiple_of(self.group) {
            return Ok(());
        }
        let fitting = GROUPS.iter().find(|&&group| width.is_multiple_of(group));
        let hint = match fitting {
            Some(group) => format!("ask for groups of {group}"),
            None => "this model's keys and values can only be kept as they are".to_owned(),
        };
        Err(Error::new(
            Code::InvalidRequest,
            format!("the model's heads of {width} elements cannot be packed in groups of {}", self.group),
        )
        .hint(hint))
    }

    /// Words of 32 bits that a row of `width` elements takes.
    pub fn words(self, width: usize) -> usize {
        width * self.bits / 32
    }

    /// Groups of a row.
    pub fn groups(self, width: usize) -> usize {
        width / self.group
    }

    /// Bytes of a row with scales and biases of `size` bytes.
    pub(super) fn row_bytes(self, width: usize, size: usize) -> usize {
        self.words(width) * size_of::<u32>() + 2 * self.groups(width) * size
    }

    /// Numbers, scales and biases of an array's rows.
    pub fn pack(self, rows: &Array) -> Result<[Array; 3]> {
        let (packed, scales, biases) = ops::quantize(rows, self.group as i32, self.bits as i32)?;
        Ok([packed, scales, biases])
    }
}
