//! What each layer of a model remembers, and how many bytes that takes.

use mlx_rs::Dtype;

use super::quantized::KvQuantization;
use crate::engine::layers::Backend;
use crate::error::{Code, Error, Result};

/// Most tokens of one step, to which prompts are cut.
pub const LONGEST_STEP: usize = 512;

/// Bits of the keys and values where nobody says how many, as [`CacheOptions::with_bits`] takes them.
pub const KV_BITS: usize = 16;

/// A model's cache: its layers, and what computes with them.
#[derive(Debug, Clone, PartialEq)]
pub struct CacheShape {
    pub layers: Vec<LayerShape>,
    /// Type in which keys and values are computed.
    pub dtype: Dtype,
    pub backend: Backend,
}

/// What one layer remembers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LayerShape {
    /// Keys and values of tokens.
    Tokens(TokenShape),
    /// Arrays that every token changes and that never grow.
    State(Vec<StateShape>),
    /// Nothing: a layer without attention or state.
    Nothing,
}

/// Sizes of a layer's keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenShape {
    /// Heads of keys and values.
    pub heads: usize,
    /// Elements of a key.
    pub key_dim: usize,
    pub values: Values,
    /// A token sees itself and the `window - 1` before it; `None`: all before it.
    pub window: Option<usize>,
}

/// Where the values are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Values {
    /// Beside the keys, with so many elements each.
    Own(usize),
    /// The last so many elements of the keys: a latent that serves as both (DeepSeek-V2, arXiv:2405.04434).
    InKeys(usize),
}

impl Values {
    /// Elements of a value.
    pub fn dim(self) -> usize {
        match self {
            Self::Own(dim) | Self::InKeys(dim) => dim,
        }
    }
}

/// One array of a recurrent state, float32.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateShape {
    /// `conv`, `state`: its name in saved caches.
    pub name: &'static str,
    pub shape: Vec<usize>,
}

/// How a cache is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheOptions {
    /// Keys and values that are not packed have 16 bits, also where they are computed with more.
    pub half: bool,
    /// Keys and values are packed ...
    pub quantization: Option<KvQuantization>,
    /// ... once there are so many tokens.
    pub quantized_from: usize,
    /// Most tokens that layers without a window look at; `None`: all.
    pub most_tokens: Option<usize>,
    /// The first tokens, which stay in sight beside the last of `most_tokens` (Xiao et al., arXiv:2309.17453).
    pub keep: usize,
    /// Buffers grow by whole steps of so many tokens, and a window moves on after as many at least.
    pub step: usize,
    /// So many tokens can always be taken back, also where a window has moved on.
    pub rollback: usize,
}

impl Default for CacheOptions {
    /// Of [`KV_BITS`].
    fn default() -> Self {
        Self { half: KV_BITS == 16, ..Self::AS_COMPUTED }
    }
}

impl CacheOptions {
    /// Everything is kept, and as it is computed.
    pub const AS_COMPUTED: Self = Self {
        half: false,
        quantization: None,
        quantized_from: 0,
        most_tokens: None,
        keep: 0,
        step: 256,
        rollback: 64,
    };

    /// With keys and values of so many bits: 32 as they are computed, 16, or packed into 8 or 4 in groups of
    /// `group` (64 if it is not told) once there are `from` tokens (0).
    ///
    /// # Errors
    /// INVALID_REQUEST for other numbers, and for what only packed ones have.
    pub fn with_bits(self, bits: usize, group: Option<usize>, from: Option<usize>) -> Result<Self> {
        if bits != 32 && bits != 16 {
            let quantization = Some(KvQuantization::new(bits, group.unwrap_or(64))?);
            return Ok(Self { quantization, quantized_from: from.unwrap_or(0), ..self });
        }
        if group.or(from).is_some() {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("keys and values of {bits} bits are not packed, in groups or later"),
            )
            .hint("ask for 4 or 8 bits, or leave out where and how to pack"));
        }
        Ok(Self { half: bits == 16, ..self })
    }

    /// Those of a draft model's cache, whose bits are the same as long as they need not be packed.
    #[must_use]
    pub fn of_draft(&self) -> Self {
        Self { half: self.half, ..Self::AS_COMPUTED }
    }

    /// What the cache of a layer must go by: the window, and the first tokens kept beside it.
    pub(super) fn sight(&self, shape: &TokenShape) -> (Option<usize>, usize) {
        match (shape.window, self.most_tokens) {
            (Some(window), _) => (Some(window), 0),
            (None, Some(most)) => (Some(most.saturating_sub(self.keep).max(1)), self.keep),
            (None, None) => (None, 0),
        }
    }

    /// Checks the options against the layers of a model.
    ///
    /// # Errors
    /// INVALID_REQUEST for groups that do not divide the heads, and for more kept tokens than there may be.
    pub fn check(&self, layers: &[LayerShape]) -> Result<()> {
        if let Some(most) = self.most_tokens.filter(|&most| most <= self.keep) {
            return Err(Error::new(
                Code::InvalidRequest,
                format!("a cache of {most} tokens has no room beside the {} first ones", self.keep),
            )
            .hint("allow more tokens, or keep fewer"));
        }
        let Some(quantization) = self.quantization else { return Ok(()) };
        for layer in layers {
            let LayerShape::Tokens(shape) = layer else { continue };
            quantization.check(shape.key_dim)?;
            quantization.check(shape.values.dim())?;
        }
        Ok(())
    }
}

impl TokenShape {
    /// Elements of a key and, where they lie beside it, of a value.
    pub fn widths(&self) -> impl Iterator<Item = usize> + use<> {
        let values = match self.values {
            Values::Own(dim) => Some(dim),
            Values::InKeys(_) => None,
        };
        [self.key_dim].into_iter().chain(values)
    }

    /// Entries of the buffer for `tokens` tokens.
    fn entries(&self, tokens: usize, options: &CacheOptions) -> usize {
        let most = match options.sight(self) {
            (Some(window), keep) => {
                keep.saturating_add(window).saturating_add(options.rollback + LONGEST_STEP)
            }
            (None, _) => usize::MAX,
        };
        let entries = tokens.min(most);
        entries.checked_next_multiple_of(options.step).unwrap_or(entries)
    }

    /// Bytes for `tokens` tokens whose numbers are computed with `size` bytes each.
    pub fn bytes(&self, tokens: usize, size: usize, options: &CacheOptions) -> u64 {
        let is_packed = tokens >= options.quantized_from;
        let entry: usize = self
            .widths()
            .map(|width| match options.quantization.filter(|_| is_packed) {
                Some(quantization) => quantization.row_bytes(width, size),
                None => width * if options.half { size.min(size_of::<u16>()) } else { size },
            })
            .sum();
        (self.entries(tokens, options) as u64).saturating_mul((self.heads * entry) as u64)
    }
}

/// Bytes that the caches of these layers take for `tokens` tokens, whose keys and values are computed with `size`
/// bytes a number.
pub fn bytes(layers: &[LayerShape], tokens: usize, size: usize, options: &CacheOptions) -> u64 {
    let layer = |layer: &LayerShape| match layer {
        LayerShape::Tokens(shape) => shape.bytes(tokens, size, options),
        LayerShape::State(arrays) => arrays.iter().map(StateShape::bytes).sum(),
        LayerShape::Nothing => 0,
    };
    layers.iter().map(layer).fold(0, u64::saturating_add)
}

impl StateShape {
    fn bytes(&self) -> u64 {
        self.shape.iter().map(|&size| size as u64).product::<u64>() * size_of::<f32>() as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: TokenShape = TokenShape { heads: 2, key_dim: 64, values: Values::Own(32), window: None };

    #[test]
    fn bytes_grow_with_the_tokens_up_to_the_window() {
        let options = CacheOptions::AS_COMPUTED;
        let layers = |shape: TokenShape| [LayerShape::Tokens(shape), LayerShape::Nothing];
        let full = layers(FULL);
        assert_eq!(bytes(&full, 1, 4, &options), 2 * (64 + 32) * 4 * 256);
        assert_eq!(bytes(&full, 257, 2, &options), 2 * (64 + 32) * 2 * 512);
        assert_eq!(bytes(&full, usize::MAX, 4, &options), u64::MAX, "no overflow");
        let latent = layers(TokenShape { values: Values::InKeys(48), ..FULL });
        assert_eq!(bytes(&latent, 1, 4, &options), 2 * 64 * 4 * 256);
        let window = layers(TokenShape { window: Some(1000), ..FULL });
        assert_eq!(bytes(&window, 100_000, 4, &options), 2 * (64 + 32) * 4 * 1792);
        assert_eq!(bytes(&window, 10, 4, &options), bytes(&full, 10, 4, &options));
        let most = CacheOptions { most_tokens: Some(1000), keep: 4, ..options };
        assert_eq!(bytes(&full, 100_000, 4, &most), bytes(&window, 100_000, 4, &options));
    }

    #[test]
    fn packed_caches_are_smaller_from_where_they_begin() {
        let quantization = KvQuantization::new(4, 32).unwrap();
        let options = CacheOptions {
            quantization: Some(quantization),
            quantized_from: 300,
            ..CacheOptions::AS_COMPUTED
        };
        let layers = [LayerShape::Tokens(FULL)];
        assert_eq!(bytes(&layers, 256, 4, &options), 2 * 96 * 4 * 256);
        // Half a byte a number, and scale and bias for each 32.
        assert_eq!(bytes(&layers, 512, 4, &options), 2 * (48 + 3 * 8) * 512);
    }

    #[test]
    fn half_floats_count_as_such_where_more_is_computed() {
        let options = CacheOptions { half: true, ..CacheOptions::AS_COMPUTED };
        let layers = [LayerShape::Tokens(FULL)];
        for size in [4, 2] {
            assert_eq!(bytes(&layers, 256, size, &options), 2 * 96 * 2 * 256);
        }
    }

    #[test]
    fn bits_say_how_keys_and_values_are_kept() {
        let of = |bits| CacheOptions::default().with_bits(bits, None, None).unwrap();
        assert_eq!(of(KV_BITS), CacheOptions::default());
        assert_eq!(of(32), CacheOptions::AS_COMPUTED);
        assert!(of(16).half && !of(32).half && of(16).quantization.is_none());
        let packed = CacheOptions::default().with_bits(4, None, Some(9)).unwrap();
        assert_eq!((packed.quantization, packed.quantized_from), (KvQuantization::new(4, 64).ok(), 9));
        assert_eq!(packed.half, CacheOptions::default().half, "as without flags until it is packed");
        for refused in [(3, None, None), (24, None, None), (16, Some(64), None), (32, None, Some(0))] {
            let error = CacheOptions::AS_COMPUTED.with_bits(refused.0, refused.1, refused.2).unwrap_err();
            assert_eq!(error.code(), Code::InvalidRequest);
            assert!(error.message().contains(&format!("{} bits", refused.0)), "{error}");
        }
    }

    #[test]
    fn a_state_has_one_size() {
        let state = StateShape { name: "state", shape: vec![4, 8, 16] };
        let layers = [LayerShape::State(vec![state])];
        let options = CacheOptions::AS_COMPUTED;
        assert_eq!((bytes(&layers, 0, 2, &options), bytes(&layers, 9999, 2, &options)), (2048, 2048));
    }

    #[test]
    fn options_that_do_not_fit_the_layers_are_refused() {
        let layers = [LayerShape::Tokens(FULL)];
        let packed = |group| CacheOptions {
            quantization: Some(KvQuantization::new(8, group).unwrap()),
            ..CacheOptions::AS_COMPUTED
        };
        assert!(packed(32).check(&layers).is_ok());
        let error = packed(64).check(&layers).unwrap_err();
        assert_eq!(error.code(), Code::InvalidRequest);
        assert!(error.message().contains("32"), "{error}");
        let options = CacheOptions { most_tokens: Some(4), keep: 4, ..CacheOptions::AS_COMPUTED };
        assert!(options.check(&layers).is_err());
    }
}
