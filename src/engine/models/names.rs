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
    /// Scores of heads that no value belongs to, by their full name.
    pub sinks: &'static str,
    /// Gate and up: two modules, or one that holds the rows of both; only up where there is no gate.
    pub gate_up: &'static [&'static str],
    pub down: &'static str,
    /// The last norm of the model, by its full name.
    pub final_norm: &'static str,
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
    /// The shared expert and its gate.
    pub shared: &'static str,
    pub shared_gate: &'static str,
}

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
    sinks: "self_attn.sinks",
    gate_up: &["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
    final_norm: "model.norm",
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
    shared: "mlp.shared_expert",
    shared_gate: "mlp.shared_expert_gate",
};
