//! OLMo 2 (arXiv:2501.00656): norms after both parts, and of all queries and all keys together.

use super::architecture::{Architecture, Defaults, Gguf, PLAIN, no_more_keys};
use crate::engine::config::style::{self, Placement, QkNorm, Style};

pub const ARCHITECTURE: Architecture = Architecture {
    name: "olmo2",
    model_types: &["olmo2"],
    style: STYLE,
    defaults: Defaults { norm_eps: 1e-5, ..Defaults::PLAIN },
    gguf: Some(Gguf { names: &["olmo2"], interleaved: false, read: no_more_keys }),
    ..PLAIN
};

pub const STYLE: Style = Style { placement: Placement::After, qk_norm: Some(QkNorm::Whole), ..style::PLAIN };
