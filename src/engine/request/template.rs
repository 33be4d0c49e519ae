//! What a caller gives a chat template beside the turns.

use serde_json::{Map, Value};

/// Variables of a chat template. The default gives none.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TemplateArguments {
    /// Whether a model that can reason is to do it; `None`: as its template has it.
    pub think: Option<bool>,
    /// Definitions of tools, as templates expect them: JSON objects.
    pub tools: Option<Vec<Value>>,
    /// Other variables by their names.
    pub values: Map<String, Value>,
}
