//! Names of a layer's modules in checkpoints.

/// Modules below `model.layers.N.`, as Hugging Face checkpoints name them. What a block does not have is
/// never asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Names {
    /// Before attention, or before both parts of a parallel block.
    pub attention_norm: &'static str,
    /// Between attention and the residual.
    pub attention_post_norm: &'static str,
    pub mlp_norm: &'static str,
    pub mlp_post_norm: &'static str,
    /// Queries, keys and values: three modules, or one that holds all their rows.
    pub qkv: &'static [&'static str],
    pub output: &'static str,
    pub q_norm: &'static str,
    pub k_norm: &'static str,
    /// What stands between these two and a head's number where the norm of each head is a module of its own.
    pub head_norms: Option<&'static str>,
    /// Scores of heads that no value belongs to, by their full name.
    pub sinks: &'static str,
    /// Gate and up: two modules, or one that holds the rows of both; only up where there is no gate.
    pub gate_up: &'static [&'static str],
    pub down: &'static str,
    /// Gate, up and down in checkpoints of mlx-lm, where those are apart that others have in one.
    pub split_mlp: Option<[&'static str; 3]>,
    /// The last norm of the model, by its full name.
    pub final_norm: &'static str,
    /// The number that a layer's result is multiplied by, by its full name below the layer.
    pub scalar: &'static str,
    /// What the names of a state space's modules begin with.
    pub mamba: &'static str,
    /// What GGUF files have in recurrent layers, and its name here: tensors by their names below the layer.
    pub recurrent: &'static [(&'static str, &'static str)],
    pub experts: ExpertNames,
}

/// Modules of a mixture of experts, below the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertNames {
    pub router: &'static str,
    /// `PREFIX.N.gate` and so on, one module an expert.
    pub each: &'static str,
    /// Gate, up and down of one expert.
    pub parts: [&'static str; 3],
    /// The same of all experts in one tensor, `[experts, rows, columns]`.
    pub stacked: [&'static str; 3],
    /// Gate and up of all experts in one tensor, and down.
    pub fused: [&'static str; 2],
    /// The same transposed, `[experts, columns, rows]`.
    pub transposed: Option<[&'static str; 2]>,
    /// Gate and up take turns in the rows of both together; else they are halves.
    pub interleaved: bool,
    /// The biases of `fused`, by their full names below the layer.
    pub fused_bias: [&'static str; 2],
    /// What is added to the scores to choose by, by its full name below the layer.
    pub correction: &'static str,
    /// Gate, up and down of the shared expert; where up has no name, the first holds the rows of both.
    pub shared: [&'static str; 3],
    /// Gate and up of the shared expert where they are apart that others have in one.
    pub split_shared: Option<[&'static str; 2]>,
    /// What weighs the shared expert.
    pub shared_gate: &'static str,
    /// What squeezes states for the experts, and what brings their results back.
    pub squeeze: [&'static str; 2],
    /// Where they stand beside the dense block: the norm before them, the one behind them, and the one
    /// behind the dense block.
    pub norms: [&'static str; 3],
    /// The weights of the router's own norm and the factors of experts, by their full names.
    pub router_norm: &'static str,
    pub factors: &'static str,
}

/// Modules of a layer with the gated delta rule, below the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeltaNames {
    /// Queries, keys, values and gates, the rows of each key head together; rates and decays likewise.
    pub fused: [&'static str; 2],
    /// The same one below the other: queries, keys and values; gates; rates; decays.
    pub split: [&'static str; 4],
    pub conv: &'static str,
    /// Vectors by their full names: of the decay, and what is added to what a token says of it.
    pub decay: &'static str,
    pub decay_bias: &'static str,
    pub norm: &'static str,
    pub output: &'static str,
}

/// Qwen's.
pub const DELTA: DeltaNames = DeltaNames {
    fused: ["linear_attn.in_proj_qkvz", "linear_attn.in_proj_ba"],
    split: [
        "linear_attn.in_proj_qkv",
        "linear_attn.in_proj_z",
        "linear_attn.in_proj_b",
        "linear_attn.in_proj_a",
    ],
    conv: "linear_attn.conv1d",
    decay: "linear_attn.A_log",
    decay_bias: "linear_attn.dt_bias",
    norm: "linear_attn.norm",
    output: "linear_attn.out_proj",
};

/// Modules of a layer with a gated short convolution, below the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortConvNames {
    pub input: &'static str,
    pub conv: &'static str,
    pub output: &'static str,
}

/// LFM2's.
pub const SHORT_CONV: ShortConvNames =
    ShortConvNames { input: "conv.in_proj", conv: "conv.conv", output: "conv.out_proj" };

/// Modules of attention over latents, below the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentNames {
    /// Queries, or what they are squeezed into, its norm, and what makes them of it.
    pub query: &'static str,
    pub query_down: &'static str,
    pub query_norm: &'static str,
    pub query_up: &'static str,
    /// The latent and the rotated key, and the latent's norm.
    pub latent: &'static str,
    pub latent_norm: &'static str,
    /// What makes keys and values of the latent: of each head the rows of both.
    pub both: &'static str,
    /// The same apart in checkpoints of mlx-lm and in GGUF files, by heads; that of the keys transposed.
    pub keys: &'static str,
    pub values: &'static str,
}

/// DeepSeek's.
pub const LATENT: LatentNames = LatentNames {
    query: "self_attn.q_proj",
    query_down: "self_attn.q_a_proj",
    query_norm: "self_attn.q_a_layernorm",
    query_up: "self_attn.q_b_proj",
    latent: "self_attn.kv_a_proj_with_mqa",
    latent_norm: "self_attn.kv_a_layernorm",
    both: "self_attn.kv_b_proj",
    keys: "self_attn.embed_q",
    values: "self_attn.unembed_out",
};

/// Llama's.
pub const PLAIN: Names = Names {
    attention_norm: "input_layernorm",
    attention_post_norm: "post_attention_layernorm",
    mlp_norm: "post_attention_layernorm",
    mlp_post_norm: "post_feedforward_layernorm",
    qkv: &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    output: "self_attn.o_proj",
    q_norm: "self_attn.q_norm",
    k_norm: "self_attn.k_norm",
    head_norms: None,
    sinks: "self_attn.sinks",
    gate_up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    split_mlp: None,
    final_norm: "model.norm",
    scalar: "layer_scalar",
    mamba: "mamba",
    recurrent: &[],
    experts: EXPERTS,
};

/// Qwen's.
pub const EXPERTS: ExpertNames = ExpertNames {
    router: "mlp.gate",
    each: "mlp.experts",
    parts: ["gate_proj", "up_proj", "down_proj"],
    stacked: ["mlp.switch_mlp.gate_proj", "mlp.switch_mlp.up_proj", "mlp.switch_mlp.down_proj"],
    fused: ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    transposed: None,
    interleaved: false,
    fused_bias: ["mlp.experts.gate_up_proj_bias", "mlp.experts.down_proj_bias"],
    correction: "mlp.gate.e_score_correction_bias",
    shared: ["mlp.shared_expert.gate_proj", "mlp.shared_expert.up_proj", "mlp.shared_expert.down_proj"],
    split_shared: None,
    shared_gate: "mlp.shared_expert_gate",
    squeeze: ["mixer.fc1_latent_proj", "mixer.fc2_latent_proj"],
    norms: ["pre_feedforward_layernorm_2", "post_feedforward_layernorm_2", "post_feedforward_layernorm_1"],
    router_norm: "router.scale",
    factors: "router.per_expert_scale",
};

/// Modules of what layers get of a token beside the states: of all layers by their full names, then below
/// a layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LayerInputNames {
    pub table: &'static str,
    pub projection: &'static str,
    pub norm: &'static str,
    pub gate: &'static str,
    pub back: &'static str,
    pub post_norm: &'static str,
}

/// Gemma's.
pub const LAYER_INPUTS: LayerInputNames = LayerInputNames {
    table: "model.embed_tokens_per_layer",
    projection: "model.per_layer_model_projection",
    norm: "model.per_layer_projection_norm",
    gate: "per_layer_input_gate",
    back: "per_layer_projection",
    post_norm: "post_per_layer_input_norm",
};

/// The gated delta rule in GGUF files: the parts of `DELTA.split`, or, as the first converters left them, fused.
pub const DELTA_GGUF: &[(&str, &str)] = &[
    ("attn_qkv.weight", "linear_attn.in_proj_qkv.weight"),
    ("attn_gate.weight", "linear_attn.in_proj_z.weight"),
    ("ssm_in.weight", "linear_attn.in_proj_qkvz.weight"),
    ("ssm_ba.weight", "linear_attn.in_proj_ba.weight"),
    ("ssm_beta.weight", "linear_attn.in_proj_b.weight"),
    ("ssm_alpha.weight", "linear_attn.in_proj_a.weight"),
    ("ssm_conv1d.weight", "linear_attn.conv1d.weight"),
    ("ssm_a", "linear_attn.A_log"),
    ("ssm_dt.bias", "linear_attn.dt_bias"),
    ("ssm_norm.weight", "linear_attn.norm.weight"),
    ("ssm_out.weight", "linear_attn.out_proj.weight"),
];

/// The same of a state space whose modules' names begin with this.
macro_rules! state_space {
    ($module:literal) => {
        &[
            ("ssm_in.weight", concat!($module, ".in_proj.weight")),
            ("ssm_conv1d.weight", concat!($module, ".conv1d.weight")),
            ("ssm_conv1d.bias", concat!($module, ".conv1d.bias")),
            ("ssm_a", concat!($module, ".A_log")),
            ("ssm_d", concat!($module, ".D")),
            ("ssm_dt.bias", concat!($module, ".dt_bias")),
            ("ssm_norm.weight", concat!($module, ".norm.weight")),
            ("ssm_out.weight", concat!($module, ".out_proj.weight")),
        ]
    };
}
pub(super) use state_space;
