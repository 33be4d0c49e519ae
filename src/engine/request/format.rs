//! The format that an answer must have.

use serde_json::Value;

/// A format. Whatever the model, the temperature and the seed, a whole answer has it.
#[derive(Debug, Clone, PartialEq)]
pub enum Format {
    /// A JSON object or array.
    Json,
    /// JSON that is valid under a schema.
    Schema {
        /// What errors name: the schema's file.
        name: String,
        schema: Value,
    },
}

impl Format {
    /// What errors name.
    pub fn name(&self) -> &str {
        match self {
            Self::Json => "json",
            Self::Schema { name, .. } => name,
        }
    }
}
