//! What a decoder's block looks like: the few ways in which architectures differ.

/// How a norm computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NormKind {
    /// `x / rms(x) * weight` (Zhang and Sennrich, 2019).
    Rms,
    /// The same with `1 + weight`.
    RmsPlusOne,
    /// `(x - mean) / deviation * weight [+ bias]` (Ba et al., 2016).
    Layer { bias: bool },
}

/// Where norms stand around attention and feed-forward.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// `x + f(norm(x))`.
    Before,
    /// `x + norm(f(x))`.
    After,
    /// `x + norm(f(norm(x)))`.
    Around,
    /// `x + attention(norm(x)) + feed_forward(norm(x))`, one norm for both.
    Parallel,
}

/// Norms of queries and keys before they are rotated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QkNorm {
    /// Each head by itself, all with the same weights.
    Heads,
    /// Each head by itself, with weights of its own.
    EachHead,
    /// All heads of a token together.
    Whole,
}

/// Which tokens a token sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Itself and those before it, as in all models that write text.
    Causal,
    /// Those that follow it, too.
    Both,
}

impl Direction {
    /// As configurations say it.
    pub fn of(is_causal: bool) -> Self {
        if is_causal { Self::Causal } else { Self::Both }
    }
}

/// The function between the feed-forward block's matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Activation {
    /// `x * sigmoid(x)` (Elfwing et al., 2017).
    Silu,
    /// `x * Φ(x)`, with the normal distribution's Φ by the error function (Hendrycks and Gimpel, 2016).
    Gelu,
    /// The same, approximated by tanh.
    GeluTanh,
    /// `max(x, 0)`
    Relu,
}

impl Activation {
    /// By its name in a config.json.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            _ => None,
        }
    }
}

/// The shape of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    pub norm: NormKind,
    pub placement: Placement,
    pub qk_norm: Option<QkNorm>,
    /// `down(act(gate(x)) * up(x))`; else `down(act(up(x)))`.
    pub gated: bool,
    pub activation: Activation,
    /// Rotated pairs are neighbours (2i, 2i + 1) in checkpoints of this architecture.
    pub interleaved: bool,
    /// Layers that do not slide rotate nothing.
    pub rotates_only_sliding: bool,
}

/// Llama's.
pub const PLAIN: Style = Style {
    norm: NormKind::Rms,
    placement: Placement::Before,
    qk_norm: None,
    gated: true,
    activation: Activation::Silu,
    interleaved: false,
    rotates_only_sliding: false,
};

/// What one layer does that others may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerPlan {
    /// Attention looks back only as far as the sliding window.
    pub slides: bool,
    /// Queries and keys are rotated.
    pub rotates: bool,
    /// The feed-forward block is a mixture of experts.
    pub sparse: bool,
}

/// A mixture of experts (Shazeer et al., 2017).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    pub count: usize,
    /// Experts that each token goes to.
    pub used: usize,
    /// Inner size of one expert.
    pub intermediate_size: usize,
    /// Whether the weights of the experts used are made to add up to one.
    pub normalized: bool,
    /// Inner size of an expert that every token goes to as well, weighted by a gate of its own.
    pub shared: Option<usize>,
}
