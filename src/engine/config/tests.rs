mod experts;

use std::path::Path;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::recurrent::Recurrent;
use super::style::LayerPlan;
use super::{Affine, ConfigFiles, ModelConfig, Outline, Packing, RopeScaling, from_config_json};
use crate::engine::format::samples::llama_config;
use crate::engine::format::weight::FloatType;
use crate::error::{Code, Result};

fn read(config: &Value, generation: Option<&Value>) -> Result<ModelConfig> {
    let path = Path::new("folder/config.json");
    let generation = generation.map(|value| value.to_string().into_bytes());
    let files = ConfigFiles::parse(path, config.to_string().as_bytes(), generation.as_deref())?;
    from_config_json(&files, false, None)
}

/// The plain Llama's configuration with these fields set; `null` removes one.
fn with(fields: Value) -> Value {
    let mut config = llama_config();
    let Value::Object(fields) = fields else { panic!("not an object") };
    for (name, value) in fields {
        if value.is_null() {
            config.as_object_mut().unwrap().remove(&name);
        } else {
            config[name] = value;
        }
    }
    config
}

#[test]
fn defaults_are_those_of_transformers() {
    let config = read(
        &with(json!({
            "num_key_value_heads": null, "max_position_embeddings": null, "rms_norm_eps": null,
            "torch_dtype": null, "eos_token_id": null, "bos_token_id": null
        })),
        None,
    )
    .unwrap();
    assert_eq!((config.heads, config.kv_heads, config.head_dim), (2, 2, 32));
    assert_eq!(config.max_position_embeddings, 2048);
    assert_eq!((config.norm_eps, config.rope.theta), (1e-6, 10_000.0));
    assert_eq!((config.rope.dims, config.rope.traditional), (32, false));
    assert_eq!(config.rope.scaling, RopeScaling::Default);
    assert_eq!((config.sliding_window, config.quantization.clone()), (None, None));
    assert_eq!(config.plan, [LayerPlan::PLAIN]);
    assert_eq!((config.eos_token_ids.clone(), config.bos_token_id), (vec![], None));
    assert_eq!(config.dtype, FloatType::F32);
    assert!(!config.attention_bias.qkv && !config.mlp_bias);
}

#[test]
fn a_mistral_has_its_own_defaults_unless_it_says_null() {
    let window = |value: Option<Value>| {
        let mut config = with(json!({"model_type": "mistral"}));
        if let Some(value) = value {
            config["sliding_window"] = value;
        }
        read(&config, None).unwrap().sliding_window
    };
    assert_eq!(window(None), Some(4096));
    assert_eq!(window(Some(Value::Null)), None);
    assert_eq!(window(Some(json!(512))), Some(512));

    let mut config =
        with(json!({"model_type": "mistral", "num_attention_heads": 16, "num_key_value_heads": null}));
    assert_eq!(read(&config, None).unwrap().kv_heads, 8);
    config["num_key_value_heads"] = Value::Null;
    assert_eq!(read(&config, None).unwrap().kv_heads, 16);
}

#[test]
fn layer_types_decide_for_a_llama() {
    let slides = |types: Value| {
        let config = with(json!({"num_hidden_layers": 2, "sliding_window": 8, "layer_types": types}));
        Ok(read(&config, None)?.plan.iter().map(|layer| layer.slides).collect::<Vec<_>>())
    };
    let slides = |types: Value| -> Result<Vec<bool>> { slides(types) };
    assert_eq!(slides(Value::Null).unwrap(), [false, false]);
    assert_eq!(slides(json!(["full_attention", "full_attention"])).unwrap(), [false, false]);
    assert_eq!(slides(json!(["sliding_attention", "full_attention"])).unwrap(), [true, false]);
    let short = slides(json!(["full_attention"])).unwrap_err();
    assert!(short.message().contains("1 layer_types for 2 layers"), "{short}");
    let other = slides(json!(["full_attention", "linear_attention"])).unwrap_err();
    assert_eq!(other.code(), Code::ModelUnsupported);
}

/// Every architecture's fixture has its configuration in both forms.
#[test]
fn both_generations_of_transformers_say_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let folder = entry.unwrap().path();
        let config = |file: &str| {
            let path = folder.join(file);
            let content = std::fs::read(&path).unwrap();
            let files = ConfigFiles::parse(&path, &content, None).unwrap();
            from_config_json(&files, true, None).unwrap()
        };
        let (new, old) = (config("config.json"), config("config.v4.json"));
        assert_eq!(new, old, "{}", folder.display());
        count += 1;
    }
    assert!(count > 25, "only {count} fixtures");
}

/// What is left out has the default of its architecture, not Llama's.
#[test]
fn each_architecture_has_its_own_defaults() {
    let of = |model_type: &str, fields: Value| {
        let mut all = json!({"model_type": model_type, "num_key_value_heads": null, "rms_norm_eps": null,
            "max_position_embeddings": null, "tie_word_embeddings": null});
        all.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        read(&with(all), None).unwrap()
    };
    let gemma =
        of("gemma3_text", json!({"num_attention_heads": null, "vocab_size": null, "num_hidden_layers": 12}));
    assert_eq!((gemma.heads, gemma.kv_heads, gemma.head_dim, gemma.vocab_size), (8, 4, 256, 262_208));
    assert_eq!(gemma.plan.iter().filter(|layer| !layer.slides).count(), 2);
    assert_eq!((gemma.rope.theta, gemma.local_rope.unwrap().theta), (1_000_000.0, 10_000.0));
    assert!(gemma.tie_word_embeddings && gemma.sliding_window == Some(4096));
    let qwen = of("qwen3", json!({"num_attention_heads": 32}));
    assert_eq!((qwen.kv_heads, qwen.head_dim, qwen.max_position_embeddings), (32, 128, 32_768));
    let gemma2 = of("gemma2", json!({"num_attention_heads": 4, "num_hidden_layers": 2}));
    assert_eq!((gemma2.attention_cap, gemma2.logits_cap), (Some(50.0), Some(30.0)));
    assert_eq!(gemma2.plan.iter().map(|layer| layer.slides).collect::<Vec<_>>(), [true, false]);
    let smollm = of("smollm3", json!({"num_attention_heads": 4, "num_hidden_layers": 8}));
    let still: Vec<usize> = (0..8).filter(|&index| !smollm.plan[index].rotates).collect();
    assert_eq!((still, smollm.rope.theta), (vec![3, 7], 2_000_000.0));
    let stable = of("stablelm", json!({"head_dim": 64}));
    assert_eq!((stable.rope.dims, stable.norm_eps), (16, 1e-5));
}

#[test]
fn a_multimodal_configuration_is_that_of_its_text_part() {
    let text = json!({"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "model_type": "gemma3_text",
        "sliding_window": 8, "rope_scaling": {"rope_type": "linear", "factor": 8.0}});
    let config = json!({"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 9},
        "eos_token_id": [1, 106], "torch_dtype": "bfloat16"});
    let config = read(&config, None).unwrap();
    assert_eq!((config.hidden_size, config.layers, config.head_dim), (64, 7, 256));
    assert_eq!(config.rope.scaling, RopeScaling::Linear { factor: 8.0 });
    assert_eq!(config.local_rope.unwrap().scaling, RopeScaling::Default);
    assert_eq!((config.eos_token_ids, config.dtype), (vec![1, 106], FloatType::BF16));
}

#[test]
fn rope_is_read_as_transformers_4_and_5_write_it() {
    let llama3 = json!({
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64, "rope_type": "llama3"
    });
    let mut parameters = llama3.clone();
    parameters["rope_theta"] = json!(500_000.0);
    let old = read(&with(json!({"rope_theta": 500_000.0, "rope_scaling": llama3})), None).unwrap().rope;
    let new = read(&with(json!({"rope_parameters": parameters})), None).unwrap().rope;
    assert_eq!(old, new);
    assert_eq!(old.theta.to_bits(), 500_000f32.to_bits());
    let RopeScaling::Llama3 { factor, original_max_position_embeddings, .. } = old.scaling else {
        panic!("not llama3");
    };
    assert_eq!((factor, original_max_position_embeddings), (8.0, 64.0));

    let linear = |name: &str| read(&with(json!({"rope_scaling": {name: "linear", "factor": 2}})), None);
    for name in ["type", "rope_type"] {
        assert_eq!(linear(name).unwrap().rope.scaling, RopeScaling::Linear { factor: 2.0 });
    }
    let partial = read(&with(json!({"partial_rotary_factor": 0.5})), None).unwrap();
    assert_eq!(partial.rope.dims, 16);
}

#[test]
fn ends_of_text_come_from_both_files_once() {
    let ids = |config: Value, generation: Value| {
        let generation = json!({"eos_token_id": generation});
        read(&with(json!({"eos_token_id": config})), Some(&generation)).unwrap().eos_token_ids
    };
    assert_eq!(ids(json!(2), json!([2, 5])), [2, 5]);
    assert_eq!(ids(json!([7, 2]), Value::Null), [7, 2]);
    assert_eq!(ids(Value::Null, json!(3)), [3]);
    assert_eq!(ids(json!(-1), json!([31, 32, 4_000_000_000_i64])), [31], "others cannot be produced");
}

#[test]
fn packing_is_read_with_its_exceptions() {
    let config = with(json!({"quantization": {
        "group_size": 64, "bits": 4, "mode": "affine",
        "a": {"group_size": 32, "bits": 8}, "b": false, "c": true, "d": {"bits": 6}
    }}));
    let packing = read(&config, None).unwrap().quantization.unwrap();
    let affine = |group, bits| Some(Packing::Affine(Affine { group, bits }));
    assert_eq!(packing.of("a"), affine(32, 8));
    assert_eq!(packing.of("b"), None);
    assert_eq!(packing.of("c"), affine(64, 4));
    assert_eq!(packing.of("d"), affine(64, 6));
    assert_eq!(packing.of("other"), affine(64, 4));
    let copy = with(json!({"quantization_config": {"group_size": 128, "bits": 3}}));
    assert_eq!(
        read(&copy, None).unwrap().quantization.unwrap().default,
        Packing::Affine(Affine { group: 128, bits: 3 })
    );
}

#[test]
fn what_the_engine_lacks_is_unsupported_and_named() {
    let cases = [
        (json!({"model_type": "gpt_neox"}), "gpt_neox"),
        (json!({"hidden_act": "quick_gelu"}), "quick_gelu"),
        (json!({"rope_scaling": {"rope_type": "ntk", "factor": 4}}), "ntk"),
        (json!({"rope_parameters": {"rope_type": "axial"}}), "axial"),
        (json!({"model_type": "phi", "qk_layernorm": true}), "norms of queries and keys"),
        (json!({"quantization_config": {"quant_method": "gptq", "bits": 4}}), "gptq"),
        (json!({"quantization_config": {"quant_method": "awq"}}), "awq"),
        (json!({"quantization_config": {"quant_method": "fp8", "fmt": "e5m2"}}), "fp8"),
        (json!({"quantization_config": {"quant_method": "bitsandbytes"}}), "bitsandbytes"),
        (json!({"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp6"}}), "mxfp6"),
        (json!({"quantization": {"group_size": 64, "bits": 4, "mode": "mxfp4"}}), "group_size 64"),
        (
            json!({"quantization": {"group_size": 32, "bits": 4, "a": {"group_size": 16, "bits": 8, "mode": "nvfp4"}}}),
            "bits 8",
        ),
        (json!({"quantization": {"group_size": 64, "bits": 7}}), "bits 7"),
        (json!({"quantization": {"group_size": 16, "bits": 4}}), "group_size 16"),
        (json!({"head_dim": 33}), "odd head dimension 33"),
        (
            json!({"model_type": "nemotron_h", "hybrid_override_pattern": "*", "attention_bias": true}),
            "biases in attention",
        ),
        (json!({"model_type": "nemotron_h", "hybrid_override_pattern": "X"}), "type \"X\""),
        (json!({"model_type": "nemotron_h", "layers_block_type": ["moe"], "mlp_bias": true}), "has biases"),
        (json!({"model_type": "deepseek_v3", "qk_rope_head_dim": 63}), "odd head dimension 575"),
        (json!({"model_type": "deepseek_v3", "scoring_func": "softmax"}), "softmax"),
        (json!({"model_type": "deepseek_v3", "topk_method": "greedy"}), "greedy"),
        (json!({"model_type": "deepseek_v3", "moe_layer_freq": 2}), "each 2th layer"),
        (
            json!({"model_type": "deepseek_v2", "num_experts_per_tok": 6, "n_shared_experts": 2, "norm_topk_prob": true}),
            "add up to one",
        ),
        (json!({"model_type": "glm4_moe_lite", "mlp_layer_types": ["shared"]}), "shared"),
    ];
    for (fields, name) in cases {
        let error = read(&with(fields), None).unwrap_err();
        assert_eq!(error.code(), Code::ModelUnsupported, "{error}");
        assert!(error.message().contains(name) && error.message().contains("config.json"), "{error}");
    }
    let hint = |name: &str| {
        let error = read(&with(json!({"model_type": name})), None).unwrap_err();
        error.hint_text().unwrap().to_owned()
    };
    assert!(hint("qwen4").contains("the nearest supported types are qwen"), "{}", hint("qwen4"));
    assert!(hint("gemma5_text").contains("gemma4_text"), "{}", hint("gemma5_text"));
    assert!(hint("bert").contains("supported types are llama"), "{}", hint("bert"));
}

#[test]
fn impossible_configurations_are_damage_that_is_named() {
    let cases = [
        (json!({"model_type": null}), "model_type"),
        (json!({"hidden_size": null}), "hidden_size"),
        (json!({"num_hidden_layers": null}), "num_hidden_layers"),
        (json!({"vocab_size": null}), "vocab_size"),
        (json!({"hidden_size": "64"}), "a hidden_size that makes no sense"),
        (json!({"hidden_size": -64}), "makes no sense"),
        (json!({"hidden_size": 1e300}), "makes no sense"),
        (json!({"hidden_size": 0}), "hidden size 0"),
        (json!({"hidden_size": 65}), "65 among 2 heads"),
        (json!({"num_hidden_layers": 0}), "number of layers 0"),
        (json!({"num_hidden_layers": 1_000_000_000}), "number of layers 1000000000"),
        (json!({"num_attention_heads": 0}), "0 heads"),
        (json!({"num_attention_heads": 0, "head_dim": 32}), "attention heads 0"),
        (json!({"num_key_value_heads": 0}), "key-value heads 0"),
        (json!({"num_key_value_heads": 3}), "2 attention heads for 3"),
        (json!({"head_dim": 0}), "head dimension 0"),
        (json!({"head_dim": 1_u64 << 40}), "head dimension"),
        (json!({"vocab_size": u64::MAX}), "vocabulary size"),
        (json!({"intermediate_size": 0}), "intermediate size 0"),
        (json!({"max_position_embeddings": 0}), "context length 0"),
        (json!({"rms_norm_eps": -1.0}), "epsilon"),
        (json!({"rope_theta": 0}), "rope base"),
        (json!({"rope_theta": 1e300}), "rope base"),
        (json!({"partial_rotary_factor": 0.01}), "rotates 0 of 32"),
        (json!({"partial_rotary_factor": 2}), "rotates 64 of 32"),
        (json!({"rope_scaling": {"type": "linear"}}), "without a factor"),
        (json!({"rope_scaling": {"type": "longrope"}}), "without short_factor"),
        (
            json!({"rope_scaling": {"type": "longrope", "short_factor": [1.0], "long_factor": [1.0]}}),
            "1 short",
        ),
        (json!({"rope_scaling": {"type": "yarn", "factor": -4.0}}), "factor -4"),
        (json!({"model_type": "granite", "logits_scaling": 0.0}), "logits scale"),
        (json!({"model_type": "gemma2", "attn_logit_softcapping": 0}), "attention soft cap 0"),
        (json!({"model_type": "mixtral", "num_local_experts": 0}), "number of experts 0"),
        (json!({"model_type": "mixtral", "num_local_experts": 1e9 as u64}), "number of experts 1000000000"),
        (json!({"model_type": "mixtral", "num_experts_per_tok": 9}), "experts a token 9"),
        (json!({"model_type": "smollm3", "no_rope_layers": [1, 1]}), "2 no_rope_layers for 1 layers"),
        (json!({"model_type": "qwen3_5", "linear_num_key_heads": 0}), "number of linear key heads 0"),
        (json!({"model_type": "qwen3_5", "linear_num_value_heads": 1e9 as u64}), "value heads 1000000000"),
        (json!({"model_type": "qwen3_5", "linear_num_value_heads": 24}), "24 linear value heads for 16"),
        (json!({"model_type": "qwen3_5", "linear_key_head_dim": 0}), "dimension of linear keys 0"),
        (
            json!({"model_type": "qwen3_5", "linear_value_head_dim": 1_u64 << 40}),
            "dimension of linear values",
        ),
        (json!({"model_type": "qwen3_5", "linear_conv_kernel_dim": 0}), "width of a convolution 0"),
        (json!({"model_type": "qwen3_5", "linear_conv_kernel_dim": 1e9 as u64}), "a convolution 1000000000"),
        (
            json!({"model_type": "qwen3_5", "layer_types": ["linear_attention", "full_attention"]}),
            "2 layer_types for 1 layers",
        ),
        (json!({"model_type": "deepseek_v3", "kv_lora_rank": 0}), "rank of keys and values 0"),
        (json!({"model_type": "deepseek_v3", "kv_lora_rank": u64::MAX}), "head dimension"),
        (json!({"model_type": "deepseek_v3", "q_lora_rank": 0}), "rank of queries 0"),
        (json!({"model_type": "deepseek_v3", "qk_rope_head_dim": 0}), "rotates 0 of"),
        (json!({"model_type": "deepseek_v3", "qk_nope_head_dim": 1_u64 << 40}), "dimension of other keys"),
        (json!({"model_type": "deepseek_v3", "v_head_dim": 0}), "dimension of values 0"),
        (json!({"model_type": "deepseek_v3", "partial_rotary_factor": 0.5}), "rotates 32 of 64"),
        (
            json!({"model_type": "deepseek_v3", "rope_scaling": {"type": "yarn", "mscale_all_dim": 1}}),
            "without a factor",
        ),
        (
            json!({"model_type": "glm4_moe_lite", "mlp_layer_types": ["dense", "sparse"]}),
            "2 mlp_layer_types for 1 layers",
        ),
        (json!({"model_type": "gemma4_text", "global_head_dim": 0}), "head dimension 0"),
        (json!({"model_type": "nemotron_h"}), "what its layers are"),
        (json!({"model_type": "nemotron_h", "hybrid_override_pattern": "M*"}), "2 of 1 layers"),
        (json!({"model_type": "nemotron_h", "layers_block_type": []}), "number of layers 0"),
        (
            json!({"model_type": "nemotron_h", "layers_block_type": ["moe"], "n_routed_experts": 0}),
            "number of experts 0",
        ),
        (
            json!({"model_type": "nemotron_h", "layers_block_type": ["moe"], "moe_latent_size": 0}),
            "what experts see 0",
        ),
        (json!({"model_type": "gemma4_text", "num_kv_shared_layers": 1}), "1 of 1 layers without keys"),
        (
            json!({"model_type": "gemma4_text", "num_hidden_layers": 2, "num_kv_shared_layers": 1,
                "layer_types": ["sliding_attention", "full_attention"]}),
            "look at keys of none",
        ),
        (json!({"model_type": "lfm2", "conv_L_cache": 0}), "width of a convolution 0"),
        (json!({"model_type": "lfm2", "conv_L_cache": 1e9 as u64}), "a convolution 1000000000"),
        (json!({"model_type": "lfm2", "block_multiple_of": 0}), "block_multiple_of 0"),
        (json!({"model_type": "lfm2", "block_ff_dim": u64::MAX}), "intermediate size"),
        (json!({"model_type": "lfm2", "layer_types": []}), "0 layer_types for 1 layers"),
        (json!({"model_type": "mamba2", "num_heads": 0}), "state space heads 0"),
        (json!({"model_type": "mamba2", "num_heads": 9}), "9 state space heads for 8 groups"),
        (json!({"model_type": "mamba2", "state_size": 1e9 as u64}), "state size 1000000000"),
        (json!({"model_type": "mamba2", "conv_kernel": 1}), "width of a convolution 1"),
        (json!({"model_type": "mamba2", "time_step_limit": [1.0, 0.5]}), "time steps from 1 to 0.5"),
        (json!({"rope_scaling": {"type": "linear", "factor": 0}}), "factor 0"),
        (json!({"rope_scaling": {"type": "llama3", "factor": 8, "low_freq_factor": 4}}), "high_freq_factor"),
        (json!({"rope_scaling": {"type": 3}}), "a rope_scaling.type that makes no sense"),
        (json!({"model_type": "mistral", "sliding_window": 0}), "sliding_window 0"),
        (json!({"layer_types": ["sliding_attention"]}), "without a sliding_window"),
        (json!({"quantization": 4}), "not an object"),
        (json!({"quantization": {"bits": 4}}), "without group_size"),
        (json!({"quantization": {"bits": "4", "group_size": 64}}), "not a number"),
    ];
    for (fields, reason) in cases {
        let error = read(&with(fields.clone()), None).expect_err(&fields.to_string());
        assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
        assert!(error.message().contains(reason) && error.message().contains("config.json"), "{error}");
    }
}

#[test]
fn infinity_as_python_writes_it_is_read() {
    let text = with(json!({"model_type": "mamba2", "time_step_limit": [0.0, "∞"], "note": "\\\"Infinity"}));
    let text = text.to_string().replace("\"∞\"", "Infinity");
    let files = ConfigFiles::parse(Path::new("config.json"), text.as_bytes(), None).unwrap();
    assert_eq!(files.config["note"], "\\\"Infinity");
    let config = from_config_json(&files, false, None).unwrap();
    let Some(Recurrent::Mamba(mamba)) = config.recurrent else { panic!("no state space") };
    assert_eq!(mamba.time_limit.map(f32::to_bits), [0.0, f32::INFINITY].map(f32::to_bits));
    for broken in ["{\"a\": Infinite}", "{\"a\": \"\\", "{\"a\": Infinity"] {
        assert!(ConfigFiles::parse(Path::new("config.json"), broken.as_bytes(), None).is_err());
    }
}

#[test]
fn an_outline_describes_what_cannot_be_run() {
    let Value::Object(config) = json!({
        "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "n_layer": 12, "n_head": 12,
        "n_embd": 768, "n_positions": 1024, "quantization_config": {"quant_method": "gptq", "bits": 4}
    }) else {
        unreachable!()
    };
    let outline = Outline::from_config(&config);
    assert_eq!(outline.model_type.as_deref(), Some("gpt2"));
    assert_eq!((outline.layers, outline.context_length), (Some(12), Some(1024)));
    assert_eq!(outline.kv_values_per_token, Some(2 * 12 * 768));
    assert_eq!(outline.quantization.as_deref(), Some("gptq 4-bit"));

    let per_token = |fields: Value| {
        let mut config = config.clone();
        config.extend(fields.as_object().unwrap().clone());
        Outline::from_config(&config).kv_values_per_token
    };
    let types = json!(["linear_attention", "full_attention", "mamba", "sliding_attention", "conv"]);
    assert_eq!(per_token(json!({"layer_types": types})), Some(2 * 2 * 768), "only attention has keys");
    assert_eq!(per_token(json!({"full_attention_interval": 4})), Some(2 * 3 * 768));
    assert_eq!(per_token(json!({"full_attention_interval": 0})), None);

    let label = |quantization: Value| {
        let Value::Object(config) = json!({"quantization": quantization}) else { unreachable!() };
        Outline::from_config(&config).quantization.unwrap()
    };
    assert_eq!(label(json!({"group_size": 64, "bits": 4})), "4-bit (group 64)");
    assert_eq!(label(json!({"group_size": 64, "bits": 4, "a": {"group_size": 64, "bits": 8}})), "mixed");
    assert_eq!(label(json!({"group_size": 32, "bits": 4, "mode": "mxfp4"})), "mxfp4");
    let Value::Object(nested) = json!({"model_type": "llava", "text_config": {"num_hidden_layers": 3}})
    else {
        unreachable!()
    };
    assert_eq!(Outline::from_config(&nested).layers, Some(3));
}

fn json_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z0-9]{0,8}".prop_map(Value::from),
        Just(json!("llama3")),
        Just(json!("linear")),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(
                prop::sample::select(vec!["type", "rope_type", "factor", "bits", "group_size", "x"]),
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().map(|(k, v)| (k.to_owned(), v)).collect())),
        ]
    })
}

proptest! {
    #[test]
    fn any_value_in_any_field_is_read_or_refused(
        field in prop::sample::select(vec![
            "hidden_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads", "head_dim",
            "intermediate_size", "vocab_size", "rope_scaling", "rope_parameters", "rope_theta",
            "partial_rotary_factor", "eos_token_id", "bos_token_id", "quantization", "quantization_config",
            "sliding_window", "layer_types", "max_position_embeddings", "rms_norm_eps", "architectures",
        ]),
        value in json_value(),
    ) {
        let mut config = llama_config();
        config[field] = value;
        if let Ok(config) = read(&config, None) {
            prop_assert!(config.layers <= 4096 && config.heads % config.kv_heads == 0);
            prop_assert!(config.rope.dims <= config.head_dim);
        }
        let Value::Object(config) = config else { unreachable!() };
        let _ = Outline::from_config(&config);
    }
}
