//! What a model's headers tell, as the registry keeps it.

use std::path::Path;

use crate::engine::probe::{self, Probe};
use crate::registry::{Facts, Kind};

/// What the model at a path is; one whose headers cannot be read is of an unknown kind.
pub(super) fn at(path: &Path) -> Facts {
    probe::probe(path).map_or(
        Facts {
            kind: Kind::Other,
            architecture: None,
            parameters: None,
            quantization: None,
            context_length: None,
        },
        |probe| of(&probe),
    )
}

pub(super) fn of(probe: &Probe) -> Facts {
    Facts {
        kind: match probe.kind {
            probe::Kind::Generation => Kind::Generation,
            probe::Kind::Embedding => Kind::Embedding,
            probe::Kind::Other => Kind::Other,
        },
        architecture: probe.architecture.clone(),
        parameters: Some(probe.parameters),
        quantization: probe.quantization.clone(),
        context_length: probe.context_length,
    }
}
