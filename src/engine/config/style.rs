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
    /// Each head by itself, with weights of its own and no bias.
    EachHead,
    /// All heads of a token together.
    Whole,
    /// Each head by itself as [`QkNorm::Heads`], but after it is rotated.
    Rotated,
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
    /// `max(x, 0)²` (So et al., 2021).
    ReluSquared,
}

impl Activation {
    /// By its name in a config.json.
    pub fn of(name: &str) -> Option<Self> {
        match name {
            "silu" | "swish" => Some(Self::Silu),
            "gelu" | "gelu_python" => Some(Self::Gelu),
            "gelu_pytorch_tanh" | "gelu_new" | "gelu_fast" | "gelu_accurate" => Some(Self::GeluTanh),
            "relu" => Some(Self::Relu),
            "relu2" => Some(Self::ReluSquared),
            _ => None,
        }
    }
}

/// The shape of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a difference of its own")]
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
    /// What attention found is weighted by a gate of its own, whose rows stand below each head's queries.
    pub gated_attention: bool,
    /// Values are normalised by heads, without weights.
    pub normed_values: bool,
    /// What leaves a layer is multiplied by a number of the layer's own.
    pub scaled_layers: bool,
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
    gated_attention: false,
    normed_values: false,
    scaled_layers: false,
};

/// How a layer's tokens learn of those before them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mixer {
    Attention,
    /// As the model's `recurrent` says.
    Recurrent,
    /// They do not: the layer is a feed-forward block.
    Nothing,
}

/// What one layer does that others may not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a difference of its own")]
pub struct LayerPlan {
    pub mixer: Mixer,
    /// Attention looks back only as far as the sliding window.
    pub slides: bool,
    /// Queries and keys are rotated.
    pub rotates: bool,
    /// There is a feed-forward block.
    pub feeds: bool,
    /// The feed-forward block is a mixture of experts.
    pub sparse: bool,
    /// Inner size of the feed-forward block, where it is another than the model's.
    pub inner: Option<usize>,
    /// The earlier layer whose keys and values this one looks at, which has none itself.
    pub keys_of: Option<usize>,
}

impl LayerPlan {
    /// Llama's.
    pub const PLAIN: Self = Self {
        mixer: Mixer::Attention,
        slides: false,
        rotates: true,
        feeds: true,
        sparse: false,
        inner: None,
        keys_of: None,
    };
}

/// How queries grow with their position p: by `1 + beta · ln(1 + ⌊p / period⌋)` (Llama 4's scaling).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Growth {
    pub beta: f32,
    /// Positions, at least 1.
    pub period: f32,
}

impl Growth {
    /// The factor of a query at this position.
    pub fn at(self, position: usize) -> f32 {
        1.0 + self.beta * (1.0 + (position as f32 / self.period).floor()).ln()
    }
}

/// A mixture of experts (Shazeer et al., 2017).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Experts {
    pub routing: Routing,
    /// Inner size of one expert.
    pub intermediate_size: usize,
    /// What one expert does with the results of its gate; `None`: as the rest of the model.
    pub gating: Option<Gating>,
    /// Whether the router and the matrices of the experts have biases.
    pub bias: bool,
    pub shared: Option<SharedExpert>,
    /// They stand beside the dense block, choose by a norm of their own, and each has a factor (Gemma 4).
    pub beside: bool,
    /// Elements that states are squeezed into for them; `None`: they are not.
    pub squeezed: Option<usize>,
    /// Matrices of all experts that are fused lie transposed in the files, which only their shapes tell.
    pub turned: bool,
}

/// An expert that every token goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SharedExpert {
    pub intermediate_size: usize,
    /// Whether it is weighted by the sigmoid of a gate of its own.
    pub gated: bool,
}

/// Which experts a token goes to, and with what weights.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Routing {
    pub count: usize,
    /// Experts that each token goes to.
    pub used: usize,
    pub scoring: Scoring,
    /// Whether the weights of the experts used are made to add up to one.
    pub normalized: bool,
    /// Factor of the weights, after that.
    pub scale: f32,
    /// Experts stand in groups, of which a token uses only some.
    pub groups: Option<Groups>,
    /// Whether a bias that is learned apart is added to the scores to choose by, not to the weights.
    pub corrected: bool,
}

/// How an expert's score becomes its weight.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scoring {
    /// By the softmax over all experts.
    Softmax,
    /// Each by itself (DeepSeek-V3, arXiv:2412.19437).
    Sigmoid,
}

/// Groups of experts that follow each other, equally many in each (DeepSeek-V2, arXiv:2405.04434).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Groups {
    pub count: usize,
    /// Groups that a token may use.
    pub used: usize,
    /// How many of its best experts tell how good a group is.
    pub judged_by: usize,
}

/// What an expert makes of the products with its gate and up matrices.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Gating {
    /// `act(gate) * up`.
    Plain(Activation),
    /// `g * sigmoid(alpha * g) * (u + 1)` with `g = min(gate, limit)` and `u` in `-limit..=limit`
    /// (gpt-oss, arXiv:2508.10925).
    Clamped { alpha: f32, limit: f32 },
    /// `act(up)`, without a gate.
    Alone(Activation),
}

impl Routing {
    /// Weights from the softmax, made to add up to one.
    pub fn softmax(count: usize, used: usize) -> Self {
        Self {
            count,
            used,
            scoring: Scoring::Softmax,
            normalized: true,
            scale: 1.0,
            groups: None,
            corrected: false,
        }
    }
}

impl Experts {
    /// Without biases and shared experts.
    pub fn plain(routing: Routing, intermediate_size: usize) -> Self {
        Self {
            routing,
            intermediate_size,
            gating: None,
            bias: false,
            shared: None,
            beside: false,
            squeezed: None,
            turned: false,
        }
    }
}
