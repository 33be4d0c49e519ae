//! Limits of what mixtures of experts, small floats and growing queries say about themselves.

use std::path::Path;

use serde_json::{Value, json};

use super::{Packing, read, with};
use crate::engine::config::Affine;
use crate::engine::format::block_float::BlockFloat;
use crate::error::Code;

fn merged(base: Value, fields: &Value) -> Value {
    let mut config = with(base);
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

#[test]
fn experts_that_cannot_be_chosen_are_damage_that_is_named() {
    let glm = json!({"model_type": "glm4_moe", "n_routed_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 16, "n_group": 4, "topk_group": 2});
    assert!(read(&merged(glm.clone(), &json!({})), None).is_ok());
    let cases = [
        (json!({"n_group": 0}), "number of groups of experts 0"),
        (json!({"n_group": 9}), "number of groups of experts 9"),
        (json!({"n_group": 3}), "of 2 of 3 groups of 8"),
        (json!({"n_group": 8, "topk_group": 8}), "of 8 of 8 groups of 8"),
        (json!({"n_group": u64::MAX}), "number of groups of experts"),
        (json!({"topk_group": 0}), "number of groups a token 0"),
        (json!({"topk_group": 5}), "number of groups a token 5"),
        (json!({"num_experts_per_tok": 5}), "uses 5 experts of 2 of 4 groups of 8"),
        (json!({"num_experts_per_tok": 9}), "experts a token 9"),
        (json!({"num_experts_per_tok": 0}), "experts a token 0"),
        (json!({"n_routed_experts": 0}), "number of experts 0"),
        (json!({"n_routed_experts": 1_u64 << 40}), "number of experts 1099511627776"),
        (json!({"moe_intermediate_size": 0}), "intermediate size of experts 0"),
        (json!({"n_shared_experts": u64::MAX}), "n_shared_experts"),
        (json!({"n_shared_experts": 1 << 20}), "intermediate size of the shared expert"),
        (json!({"n_shared_experts": -1}), "n_shared_experts"),
        (json!({"routed_scaling_factor": 0.0}), "factor of experts 0"),
        (json!({"routed_scaling_factor": -1.5}), "factor of experts -1.5"),
        (json!({"routed_scaling_factor": 1e300}), "factor of experts inf"),
        (json!({"routed_scaling_factor": "NaN"}), "routed_scaling_factor"),
    ];
    for (fields, reason) in cases {
        let error = read(&merged(glm.clone(), &fields), None).expect_err(&fields.to_string());
        assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
        assert!(error.message().contains(reason), "{fields}: {error}");
    }
}

#[test]
fn gates_and_growth_have_finite_numbers() {
    let oss =
        json!({"model_type": "gpt_oss", "num_local_experts": 4, "num_experts_per_tok": 2, "head_dim": 32});
    let growing = |beta: Value, period: Value| {
        json!({"model_type": "ministral3", "rope_parameters": {"rope_type": "yarn", "rope_theta": 1e6, "factor": 16.0,
            "original_max_position_embeddings": period, "llama_4_scaling_beta": beta}})
    };
    assert!(read(&with(oss.clone()), None).is_ok());
    assert!(read(&with(growing(json!(0.1), json!(64))), None).is_ok());
    let cases = [
        (merged(oss.clone(), &json!({"swiglu_limit": 1e300})), "swiglu_limit inf"),
        (merged(oss.clone(), &json!({"swiglu_limit": 0})), "swiglu_limit 0"),
        (merged(oss.clone(), &json!({"swiglu_limit": -7.0})), "swiglu_limit -7"),
        (merged(oss.clone(), &json!({"swiglu_alpha": 1e300})), "swiglu_alpha inf"),
        (merged(oss.clone(), &json!({"num_experts_per_tok": 5})), "experts a token 5"),
        (merged(oss, &json!({"num_local_experts": 0})), "number of experts 0"),
        (with(growing(json!(1e300), json!(64))), "grow by inf each 64"),
        (with(growing(json!(-0.1), json!(64))), "grow by -0.1 each 64"),
        (with(growing(json!(0.1), json!(0.5))), "grow by 0.1 each 0.5"),
        (with(growing(json!(0.1), Value::Null)), "without a period"),
        (with(growing(json!("x"), json!(64))), "llama_4_scaling_beta"),
    ];
    for (config, reason) in cases {
        let error = read(&config, None).expect_err(reason);
        assert_eq!(error.code(), Code::IntegrityFailed, "{error}");
        assert!(error.message().contains(reason), "{reason}: {error}");
    }
}

#[test]
fn exceptions_may_be_of_another_mode() {
    let packing = |quantization: Value| read(&with(json!({"quantization": quantization})), None).unwrap();
    let small = packing(json!({"group_size": 32, "bits": 4, "mode": "mxfp4",
        "a": {"group_size": 32, "bits": 8, "mode": "mxfp8"}, "b": {"mode": "nvfp4"}, "c": false,
        "d": {"group_size": 64, "bits": 8}, "e": {"bits": 6}, "f": {"mode": "mxfp4"}, "g": true}));
    let of = |module: &str| small.quantization.as_ref().unwrap().of(module);
    let float = |mode| Some(Packing::BlockFloat(mode));
    let affine = |group, bits| Some(Packing::Affine(Affine { group, bits }));
    assert_eq!(of("a"), float(BlockFloat::Mxfp8));
    assert_eq!(of("b"), float(BlockFloat::Nvfp4));
    assert_eq!(of("c"), None);
    assert_eq!(of("d"), affine(64, 8));
    assert_eq!(of("e"), affine(64, 6), "what is left out is MLX's own");
    assert_eq!(of("f"), float(BlockFloat::Mxfp4));
    assert_eq!(of("g"), float(BlockFloat::Mxfp4));
    assert_eq!(of("other"), float(BlockFloat::Mxfp4));
    let wide =
        packing(json!({"group_size": 64, "bits": 4, "a": {"group_size": 32, "bits": 4, "mode": "mxfp4"}}));
    let wide = wide.quantization.unwrap();
    assert_eq!((wide.of("a"), wide.of("b")), (float(BlockFloat::Mxfp4), affine(64, 4)));

    for (exception, code, reason) in [
        (json!({"mode": "mxfp4", "group_size": 64}), Code::ModelUnsupported, "group_size 64"),
        (json!({"mode": "mxfp8", "bits": 4}), Code::ModelUnsupported, "bits 4"),
        (json!({"mode": "mxfp9"}), Code::ModelUnsupported, "mxfp9"),
        (json!({"mode": 4}), Code::IntegrityFailed, "without a mode"),
        (json!({"mode": "nvfp4", "bits": "4"}), Code::IntegrityFailed, "not a number"),
    ] {
        let quantization = json!({"group_size": 32, "bits": 4, "mode": "mxfp4", "a": exception});
        let error = read(&with(json!({"quantization": quantization})), None).unwrap_err();
        assert_eq!(error.code(), code, "{error}");
        assert!(error.message().contains(reason), "{error}");
    }
}

#[test]
fn layers_that_look_ahead_are_no_layers() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/architectures/glm4_moe_nextn");
    for model in [folder.clone(), folder.join("model.gguf")] {
        let checkpoint = crate::engine::format::checkpoint::Checkpoint::open(&model).unwrap();
        assert_eq!((checkpoint.config.layers, checkpoint.config.plan.len()), (2, 2));
        assert!(checkpoint.tensor_names().any(|name| name.starts_with("model.layers.2.")), "none is ignored");
    }
}
