//! What the registry keeps of a use of a model.

use crate::context::Context;
use crate::registry::{NewSession, Registry};

/// Writes down that a model was used. What it was used for stands even if that fails.
pub(super) fn record(session: &NewSession, context: &Context) {
    let recorded = Registry::open(&context.settings.home.value).and_then(|registry| {
        // A model that lies outside any store is no reason to make one.
        registry.map_or(Ok(()), |mut registry| registry.record_session(session))
    });
    if let Err(error) = recorded {
        context.output.warn(format!("this use is not written down: {}", error.message()));
    }
}
