//! Element types of GGUF tensors.

/// A tensor type of the ggml library; every file type that was ever released is known by name, so
/// that an error can say what a model needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(non_camel_case_types)] // the names users know from file names
pub enum GgmlType {
    F32,
    F16,
    Q4_0,
    Q4_1,
    Q4_2,
    Q4_3,
    Q5_0,
    Q5_1,
    Q8_0,
    Q8_1,
    Q2_K,
    Q3_K,
    Q4_K,
    Q5_K,
    Q6_K,
    Q8_K,
    IQ2_XXS,
    IQ2_XS,
    IQ3_XXS,
    IQ1_S,
    IQ4_NL,
    IQ3_S,
    IQ2_S,
    IQ4_XS,
    I8,
    I16,
    I32,
    I64,
    F64,
    IQ1_M,
    BF16,
    Q4_0_4_4,
    Q4_0_4_8,
    Q4_0_8_8,
    TQ1_0,
    TQ2_0,
    IQ4_NL_4_4,
    IQ4_NL_4_8,
    IQ4_NL_8_8,
    MXFP4,
    NVFP4,
    Q1_0,
}

impl GgmlType {
    /// (number in files, type, name, elements a block, bytes a block).
    ///
    /// Numbers and block sizes: `enum ggml_type` and the `block_*` structures of ggml
    /// (<https://github.com/ggml-org/ggml>, ggml.h and ggml-common.h). 4 and 5, 31 to 33 and 36 to 38
    /// were withdrawn, but files with them exist.
    const TABLE: &'static [(u32, GgmlType, &'static str, u64, u64)] = &[
        (0, Self::F32, "F32", 1, 4),
        (1, Self::F16, "F16", 1, 2),
        (2, Self::Q4_0, "Q4_0", 32, 18),
        (3, Self::Q4_1, "Q4_1", 32, 20),
        (4, Self::Q4_2, "Q4_2", 16, 10),
        (5, Self::Q4_3, "Q4_3", 16, 12),
        (6, Self::Q5_0, "Q5_0", 32, 22),
        (7, Self::Q5_1, "Q5_1", 32, 24),
        (8, Self::Q8_0, "Q8_0", 32, 34),
        (9, Self::Q8_1, "Q8_1", 32, 36),
        (10, Self::Q2_K, "Q2_K", 256, 84),
        (11, Self::Q3_K, "Q3_K", 256, 110),
        (12, Self::Q4_K, "Q4_K", 256, 144),
        (13, Self::Q5_K, "Q5_K", 256, 176),
        (14, Self::Q6_K, "Q6_K", 256, 210),
        (15, Self::Q8_K, "Q8_K", 256, 292),
        (16, Self::IQ2_XXS, "IQ2_XXS", 256, 66),
        (17, Self::IQ2_XS, "IQ2_XS", 256, 74),
        (18, Self::IQ3_XXS, "IQ3_XXS", 256, 98),
        (19, Self::IQ1_S, "IQ1_S", 256, 50),
        (20, Self::IQ4_NL, "IQ4_NL", 32, 18),
        (21, Self::IQ3_S, "IQ3_S", 256, 110),
        (22, Self::IQ2_S, "IQ2_S", 256, 82),
        (23, Self::IQ4_XS, "IQ4_XS", 256, 136),
        (24, Self::I8, "I8", 1, 1),
        (25, Self::I16, "I16", 1, 2),
        (26, Self::I32, "I32", 1, 4),
        (27, Self::I64, "I64", 1, 8),
        (28, Self::F64, "F64", 1, 8),
        (29, Self::IQ1_M, "IQ1_M", 256, 56),
        (30, Self::BF16, "BF16", 1, 2),
        (31, Self::Q4_0_4_4, "Q4_0_4_4", 32, 18),
        (32, Self::Q4_0_4_8, "Q4_0_4_8", 32, 18),
        (33, Self::Q4_0_8_8, "Q4_0_8_8", 32, 18),
        (34, Self::TQ1_0, "TQ1_0", 256, 54),
        (35, Self::TQ2_0, "TQ2_0", 256, 66),
        (36, Self::IQ4_NL_4_4, "IQ4_NL_4_4", 32, 18),
        (37, Self::IQ4_NL_4_8, "IQ4_NL_4_8", 32, 18),
        (38, Self::IQ4_NL_8_8, "IQ4_NL_8_8", 32, 18),
        (39, Self::MXFP4, "MXFP4", 32, 17),
        (40, Self::NVFP4, "NVFP4", 64, 36),
        (41, Self::Q1_0, "Q1_0", 128, 18),
    ];

    /// The type with this number in files.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::TABLE.iter().find(|row| row.0 == number).map(|row| row.1)
    }

    fn row(self) -> (&'static str, u64, u64) {
        let row = Self::TABLE.iter().find(|row| row.1 == self);
        row.map_or(("unknown", 1, 0), |row| (row.2, row.3, row.4))
    }

    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Elements a block: the innermost dimension is a multiple of it.
    pub fn block_elements(self) -> u64 {
        self.row().1
    }

    /// Bytes a block.
    pub fn block_bytes(self) -> u64 {
        self.row().2
    }
}
